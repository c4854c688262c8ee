use std::{path::PathBuf, time::Duration};

use crate::runtime::WallClock;
use crate::{
    net,
    peer::{PeerSettings, Server},
    protocol::{Rules, lockers::Currency},
    service::{DatagramRules, QuestionRates, Rate},
    settlement::Method,
    shard::{TicketSettings, TradeSettings},
};

pub use crate::store::{log::Durability, recovery::OnLoss};

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its number, coin, dialect and limits of the wire.
    pub rules: Rules,
    /// The data folder, made where it is missing.
    pub data: PathBuf,
    /// What to do where a part of the data folder is gone.
    pub on_loss: OnLoss,
    /// The file with the admin key, 32 hexadecimal digits; made, with a random key, where it is
    /// missing from a data folder.
    pub admin_key_file: PathBuf,
    /// The clock that gives it the month and the minute.
    pub clock: WallClock,
    /// Sockets and their limits.
    pub network: net::Settings,
    /// Shards, one a core.
    pub shards: u16,
    /// Whether each shard's thread stays on a CPU of its own.
    pub pin: bool,
    /// How long a core looks for work before it sleeps.
    pub spin: Duration,
    /// When an answer that reports a change may leave.
    pub durability: Durability,
    /// How long the disk may take before it counts as one that does not answer.
    pub disk_timeout: Duration,
    /// Pages in memory, of all shards together.
    pub cache_pages: usize,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// The tickets that each shard keeps.
    pub tickets: TicketSettings,
    /// Coins of a ticket and of a fix, at most.
    pub ticket_coins_max: usize,
    /// Requests for healing from one address, on each core.
    pub healing_rate: Rate,
    /// Wrong claims in a server's name from one address a minute, on each core; 0 for any number.
    pub wrong_claims_per_min: u32,
    /// What is sent over UDP.
    pub datagrams: DatagramRules,
    /// The file with the secrets that it shares with the others, or none.
    pub keys_file: Option<PathBuf>,
    /// Whether it vouches for clients that ask for it without encryption.
    pub allow_unencrypted_tickets: bool,
    /// The network's servers by their numbers, this one included; or none.
    pub servers: Vec<Server>,
    /// How it treats them.
    pub peers: PeerSettings,
    /// Who says whether a purchase has been paid.
    pub settlement: Method,
    /// What coins may be offered for.
    pub currencies: Vec<Currency>,
    /// How often it may ask whether a purchase has been paid, where each question takes a process.
    pub question_rates: QuestionRates,
    /// What each shard keeps track of for trades.
    pub trades: TradeSettings,
    /// How many requests that were carried out each shard remembers.
    pub repeats_max: usize,
    /// What can change while the node runs.
    pub adjustable: Adjustable,
}

/// Settings of the storage that can change while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjustable {
    /// With [`Durability::Periodic`], the longest time between two log writes.
    pub flush_interval: Duration,
    /// The longest time between two checkpoints.
    pub checkpoint_interval: Duration,
}
