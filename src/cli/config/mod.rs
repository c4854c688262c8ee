//! The configuration of a node: what can be set ([`Config`]), by which names and within which
//! bounds ([`Key`]), and where the values come from: flags over environment over file over the
//! defaults of a development node (docs/operations.md). What a value does is decided by the layer
//! it is handed to, never here.

mod command;
mod key;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::HostPort;
use crate::coin::PAGES;

pub use command::ConfigCommand;
pub use key::{KEYS, Key, Rule, Value};
pub use source::{ConfigError, Flag, Origin, Problem};

/// Everything that can be configured. [`Config::default`] is a development node: RAIDA 0 on the
/// loopback address, data in `./raida-data`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is and where its data lives.
    pub node: Node,
    /// Where it listens, and what it bears from clients.
    pub network: Network,
    /// How it uses the machine's cores.
    pub shards: Shards,
    /// When changes reach the disk, and how much memory and disk they may take.
    pub storage: Storage,
    /// Where published implementations differ, which one to follow.
    pub protocol: Protocol,
    /// The tickets that it issues.
    pub tickets: Tickets,
    /// The network's other nodes.
    pub peers: Peers,
    /// The secrets between it and them.
    pub keys: Keys,
    /// What one address may ask for.
    pub limits: Limits,
    /// How lockers are sold.
    pub trade: Trade,
    /// What is logged.
    pub log: Log,
    /// Where each value came from, by the key's place in [`KEYS`].
    origins: Vec<Origin>,
}

/// Section `node`.
#[derive(Clone, Debug)]
pub struct Node {
    /// The RAIDA number, 0 to 24.
    pub raida_id: u8,
    /// The coin id; 6 is CloudCoin.
    pub coin_id: u16,
    /// The data folder, relative to the working directory unless absolute.
    pub data_dir: PathBuf,
    /// The file that holds the admin key as 32 hex digits; unless set, `admin.key` in `data_dir`.
    pub admin_key_file: PathBuf,
}

/// Section `network`.
#[derive(Clone, Debug)]
pub struct Network {
    /// Address and port for TCP and UDP; port 0 lets the kernel choose one.
    pub listen: SocketAddr,
    /// TCP connections the node keeps open, all clients together.
    pub max_connections: u32,
    /// TCP connections the node keeps open for one address.
    pub max_connections_per_address: u32,
    /// The longest request body, in bytes; longer ones get status 16.
    pub max_body_bytes: u32,
    /// From a request's first byte to the end of its header.
    pub header_timeout: Duration,
    /// From the end of a request's header to the end of its body.
    pub body_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Over UDP, an answer is at most this many times as long as its request; unless set, 3, or 10
    /// where the dialect is [`Dialect::Raidax`].
    pub udp_amplification: u32,
}

/// Section `shards`.
#[derive(Clone, Debug)]
pub struct Shards {
    /// Shards, each with an executor of its own; unless set, the number of cores.
    pub count: u16,
    /// Whether each executor is bound to one core.
    pub pin: bool,
    /// How long an executor with nothing to do looks for work before it sleeps.
    pub spin: Duration,
}

/// Section `storage`.
#[derive(Clone, Debug)]
pub struct Storage {
    /// When an answer that reports a change may leave.
    pub durability: Durability,
    /// How often the log is flushed with [`Durability::Periodic`].
    pub flush_interval: Duration,
    /// Pages of 1,024 coins kept in memory; 15,000 are all there can be, 261 MB.
    pub cache_pages: u32,
    /// Size of one log segment, in bytes; a multiple of 4,096.
    pub segment_bytes: u32,
    /// How often changed pages are written back so that log segments can be used again.
    pub checkpoint_interval: Duration,
    /// How long the disk may take before it counts as one that does not answer.
    pub disk_timeout: Duration,
}

/// Section `protocol`.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// Whose statuses and layouts are spoken where implementations differ.
    pub dialect: Dialect,
    /// Where the key stream of an encrypted response starts.
    pub response_counter: ResponseCounter,
}

/// Section `tickets`.
#[derive(Clone, Debug)]
pub struct Tickets {
    /// Tickets that each shard keeps at the same time.
    pub pool: u32,
    /// Number of shares of the pool; one address has at most one share.
    pub shares: u32,
    /// Maximum number of tickets that list the same coin at the same time; 0 for any number.
    pub per_coin: u16,
    /// From being issued to its end.
    pub lifetime: Duration,
    /// Coins of a ticket and of a fix, at most.
    pub max_coins: u32,
}

/// Section `peers`.
#[derive(Clone, Debug)]
pub struct Peers {
    /// The network's 25 nodes by RAIDA number, this one included; or none.
    pub servers: Vec<HostPort>,
    /// Whether a claim in a server's name counts only from that server's addresses.
    pub verify_source: bool,
    /// How long it may take to connect to another server.
    pub connect_timeout: Duration,
    /// How long another server may take to answer.
    pub reply_timeout: Duration,
}

/// Section `keys`.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The file with the secrets that this node shares with the others, or none.
    pub file: Option<PathBuf>,
    /// Whether the node vouches for clients that ask for it without encryption.
    pub allow_unencrypted: bool,
}

/// Section `limits`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests for healing (group 2) a second from one address, on each core; 0 for any number.
    pub healing_per_s: u32,
    /// Such requests that may come at once.
    pub healing_burst: u32,
    /// Wrong claims in a server's name from one address a minute, on each core; 0 for any number.
    pub wrong_claims_per_min: u32,
    /// Refusals that each core sends over UDP to one address a second; 0 for any number.
    pub udp_refusals_per_s: u32,
    /// Maximum number of completed requests that each shard remembers for 10 s.
    pub repeats: u32,
    /// Requests that wait for their answer at a time, on each core.
    pub waiting_requests: u32,
    /// Bytes of requests and answers that wait, on each core.
    pub waiting_bytes: u64,
}

/// Section `trade`.
#[derive(Clone, Debug)]
pub struct Trade {
    /// Who says whether a purchase has been paid.
    pub settlement: Settlement,
    /// The program that says so, and its arguments; or nothing.
    pub command: Vec<String>,
    /// The environment variables that the program gets: names, or beginnings of names that end in
    /// `*`.
    pub command_environment: Vec<String>,
    /// How long the program may take.
    pub command_timeout: Duration,
    /// How many of them may run at once.
    pub commands_at_once: u16,
    /// What lockers may be offered for.
    pub currencies: Vec<Currency>,
    /// How long a payment that was seen and is not confirmed keeps others from buying the locker.
    pub pending: Duration,
    /// Maximum number of lockers that each shard reserves for such payments.
    pub holds: u32,
    /// Maximum number of these for payments that one address named.
    pub holds_per_address: u32,
    /// Maximum number of purchases of one address that the program checks at the same time.
    pub questions_per_address: u32,
    /// Maximum number of purchases that came by datagram and that the program checks at the same
    /// time.
    pub questions_by_datagram: u32,
    /// Purchases of one address for which the program is started per second, on each core.
    pub questions_per_address_per_s: u32,
    /// The same for all datagrams together.
    pub questions_by_datagram_per_s: u32,
    /// Maximum number of used payments that each shard remembers.
    pub payments: u32,
}

/// Section `log`.
#[derive(Clone, Debug)]
pub struct Log {
    /// The least important message that is still written.
    pub level: LogLevel,
    /// The same for the trail of healing.
    pub healing: LogLevel,
    /// How a message is written.
    pub format: LogFormat,
}

/// An enum whose values have one name each in the configuration.
macro_rules! choice {
    ($(#[$doc:meta])* $choice:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $choice { $($(#[$value_doc])* $value,)* }

        impl $choice {
            /// The names accepted in the configuration.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name in the configuration.
            pub fn name(self) -> &'static str {
                match self { $($choice::$value => $name,)* }
            }

            /// The value of this name.
            pub fn from_name(name: &str) -> Option<$choice> {
                match name { $($name => Some($choice::$value),)* _ => None }
            }
        }
    };
}

choice! {
    /// When an answer that reports a change may leave (docs/architecture.md, "Rules that always
    /// hold", 1).
    Durability {
        /// When the change is on disk.
        Commit = "commit",
        /// At once: a crash loses up to `flush_interval_ms` of answered changes.
        Periodic = "periodic",
    }
}

choice! {
    /// Whose statuses and layouts are spoken where implementations differ (docs/protocol.md section
    /// 5).
    Dialect {
        /// The published specification's.
        Spec = "spec",
        /// The existing server's.
        Raidax = "raidax",
    }
}

choice! {
    /// Where the key stream of a response of encryption types 1 and 2 starts (docs/protocol.md
    /// section 4).
    ResponseCounter {
        /// Again at the request's first counter block, as published clients expect.
        Restart = "restart",
        /// At the block after the request's last one.
        Continue = "continue",
    }
}

choice! {
    /// Who says whether a purchase has been paid.
    Settlement {
        /// Nobody: nothing can be bought.
        None = "none",
        /// Every purchase counts as paid.
        Trusted = "trusted",
        /// A program of the operator's.
        Command = "command",
    }
}

choice! {
    /// What a locker can be paid in (docs/protocol.md, "Group 8: lockers").
    Currency {
        /// 0
        CloudCoin = "cloudcoin",
        /// 1
        Bitcoin = "bitcoin",
        /// 2
        Monero = "monero",
    }
}

choice! {
    /// The least important message that is still logged.
    LogLevel {
        /// Nothing at all.
        Off = "off",
        /// What an operator must act on.
        Error = "error",
        /// And what an operator should know.
        Warn = "warn",
        /// And what the node does: changed settings, fixes, servers that answer again, its stop.
        Info = "info",
        /// And each checkpoint, settled purchases, what other servers fail at.
        Debug = "debug",
        /// The same: nothing is less important.
        Trace = "trace",
    }
}

choice! {
    /// How a log message is written.
    LogFormat {
        /// A line for people.
        Text = "text",
        /// A JSON object on a line, for programs.
        Json = "json",
    }
}

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, as in `network.max_connections`.
    pub key: String,
    /// The value in force until now, as the file would have it.
    pub old: String,
    /// The value asked for, as the file would have it.
    pub new: String,
}

/// What differs between two configurations of a running node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a running node can take over.
    pub applied: Vec<Change>,
    /// What waits for the next start.
    pub needs_restart: Vec<Change>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node: Node {
                raida_id: 0,
                coin_id: 6,
                data_dir: "./raida-data".into(),
                admin_key_file: "./raida-data/admin.key".into(),
            },
            network: Network {
                listen: SocketAddr::from(([127, 0, 0, 1], 50_000)),
                max_connections: 10_000,
                max_connections_per_address: 1_000,
                // 49,000 records of detect, or 28,000 of pown.
                max_body_bytes: 1024 * 1024,
                header_timeout: Duration::from_secs(5),
                body_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(300),
                udp_amplification: 3,
            },
            shards: Shards {
                count: cores(),
                pin: true,
                spin: Duration::ZERO,
            },
            storage: Storage {
                durability: Durability::Commit,
                flush_interval: Duration::from_millis(50),
                cache_pages: PAGES as u32,
                segment_bytes: 16 * 1024 * 1024,
                checkpoint_interval: Duration::from_secs(60),
                disk_timeout: Duration::from_secs(10),
            },
            protocol: Protocol {
                dialect: Dialect::Spec,
                response_counter: ResponseCounter::Restart,
            },
            tickets: Tickets {
                pool: 65_536,
                shares: 8,
                per_coin: 128,
                lifetime: Duration::from_secs(300),
                max_coins: 4_096,
            },
            peers: Peers {
                servers: vec![],
                verify_source: true,
                connect_timeout: Duration::from_secs(2),
                reply_timeout: Duration::from_secs(5),
            },
            keys: Keys {
                file: None,
                allow_unencrypted: false,
            },
            limits: Limits {
                healing_per_s: 1_000,
                healing_burst: 2_000,
                wrong_claims_per_min: 6_000,
                udp_refusals_per_s: 100,
                // 3 MB a shard: all of 13,000 changes a second.
                repeats: 131_072,
                waiting_requests: 8_192,
                waiting_bytes: 80 * 1024 * 1024,
            },
            trade: Trade {
                settlement: Settlement::None,
                command: vec![],
                // What `env` finds an interpreter with, and what config/settle-bitcoin reads.
                command_environment: ["PATH", "HOME", "LANG", "BITCOIN_*"]
                    .map(str::to_owned)
                    .into(),
                command_timeout: Duration::from_secs(30),
                commands_at_once: 4,
                currencies: vec![Currency::CloudCoin, Currency::Bitcoin, Currency::Monero],
                // Six blocks of Bitcoin take an hour on average, and often much longer.
                pending: Duration::from_secs(7_200),
                holds: 1_024,
                holds_per_address: 16,
                questions_per_address: 4,
                questions_by_datagram: 32,
                questions_per_address_per_s: 5,
                questions_by_datagram_per_s: 16,
                payments: 1_048_576,
            },
            log: Log {
                level: LogLevel::Info,
                healing: LogLevel::Info,
                format: LogFormat::Text,
            },
            origins: vec![Origin::Default; KEYS.len()],
        }
    }
}

impl Config {
    /// Takes over from `new` the values that a running node can change, and says which values it
    /// took and which wait for the next start.
    pub fn take_over(&mut self, new: &Config) -> Changes {
        let changes = changes(self, new);
        for (place, key) in KEYS.iter().enumerate() {
            if key.changes_at_run_time {
                key.set(self, key.get(new));
                self.origins[place] = new.origins[place].clone();
            }
        }
        changes
    }

    /// Where the value of this key came from.
    ///
    /// # Panics
    /// When `key` is not one of [`KEYS`].
    pub fn origin(&self, key: &Key) -> &Origin {
        let place = KEYS
            .iter()
            .position(|known| known.section == key.section && known.name == key.name)
            .expect("keys are only ever taken from KEYS");
        &self.origins[place]
    }
}

/// What differs between two configurations: what a running node can take over on SIGHUP, and what
/// waits for the next start.
pub fn changes(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for key in KEYS {
        let (before, after) = (key.get(old), key.get(new));
        if before == after {
            continue;
        }
        let change = Change {
            key: key.to_string(),
            old: before.to_string(),
            new: after.to_string(),
        };
        if key.changes_at_run_time {
            changes.applied.push(change);
        } else {
            changes.needs_restart.push(change);
        }
    }
    changes
}

/// The machine's cores, as far as this process may use them and a node can have shards.
fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    cores.min(key::SHARDS_MOST as usize) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_own_bounds() {
        let config = Config::default();
        for key in KEYS {
            let value = key.get(&config);
            assert!(key.rule.accepts(&value), "{key} = {value}");
        }
    }

    #[test]
    fn limits_change_at_run_time_and_the_address_does_not() {
        let mut old = Config::default();
        let mut new = Config::default();
        new.network.max_connections = 5;
        new.network.listen = SocketAddr::from(([127, 0, 0, 1], 50_001));
        new.storage.checkpoint_interval = Duration::from_secs(7);
        new.log.level = LogLevel::Debug;
        let changes = changes(&old, &new);
        let names = |changes: &[Change]| -> Vec<String> {
            changes.iter().map(|change| change.key.clone()).collect()
        };
        assert_eq!(
            names(&changes.applied),
            [
                "network.max_connections",
                "storage.checkpoint_interval_s",
                "log.level"
            ]
        );
        assert_eq!(
            changes.needs_restart,
            [Change {
                key: "network.listen".into(),
                old: "\"127.0.0.1:50000\"".into(),
                new: "\"127.0.0.1:50001\"".into(),
            }]
        );

        assert_eq!(old.take_over(&new), changes);
        assert_eq!(old.network.max_connections, 5);
        assert_eq!(old.network.listen.port(), 50_000);
        assert_eq!(old.take_over(&new).applied, []);
    }
}
