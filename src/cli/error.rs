use super::admin_key_file::AdminKeyError;
use super::coins::SharedKey;
use super::config::ConfigError;
use super::secrets::SecretError;
use crate::client::heal::HealError;
use crate::client::key_healing::{HealthError, KeyHealingError};
use crate::client::locker::LockerError;
use crate::client::wallet::WalletError;
use crate::client::{ClientError, CoinListError, HostsError};
use crate::protocol::Status;
use crate::shown::Shown;
use crate::store::FolderError;
use crate::store::offline::OfflineError;
use crate::store::raidax::RaidaxError;

/// Why a command could not be carried out. Its text is one sentence that ends with what to do next;
/// the command then exits with status 2.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// There is no usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A CSV of coins could not be read or written.
    #[error(transparent)]
    CoinList(#[from] CoinListError),
    /// The command cannot prove to a server that the client owns a CSV's coins.
    #[error(transparent)]
    SharedKey(#[from] SharedKey),
    /// The list of a network's hosts could not be read.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// A wallet could not be read or written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// A wallet could not be healed.
    #[error(transparent)]
    Heal(#[from] HealError),
    /// The wallet's notes on broken servers cannot be read.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// Broken servers could not be mended, or not to the end.
    #[error(transparent)]
    KeyHealing(#[from] KeyHealingError),
    /// The command asks all servers, and the encryption type needs more than one coin for each.
    #[error(
        "all servers can be asked under encryption type 0, 1 or 4, not {0}: name one of those with --encryption, or one node with --host"
    )]
    EncryptionOfAll(u8),
    /// Nothing could be done with a locker, or not to the end.
    #[error(transparent)]
    Locker(#[from] LockerError),
    /// A key or a secret is not valid.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A coin file named on the command line could not be read.
    #[error("{file}: {cause}; name a coin file, a wallet's folder, or a CSV without --all", file = file.shown())]
    CoinFile {
        /// The file.
        file: std::path::PathBuf,
        /// What is wrong with it.
        cause: crate::client::wallet::UnreadableCoin,
    },
    /// A server of the network did not do what was asked.
    #[error("RAIDA {raida}: {error}; {next}")]
    Raida {
        /// Which one.
        raida: crate::protocol::RaidaId,
        /// What came of it.
        error: ClientError,
        /// What to do.
        next: &'static str,
    },
    /// The admin key could not be read or written.
    #[error(transparent)]
    AdminKey(#[from] AdminKeyError),
    /// A node cannot start, or had to give up.
    #[error(transparent)]
    Node(#[from] crate::node::StartError),
    /// The data folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The data folder is damaged, or the disk failed.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// An existing server's Data folder could not be read or written.
    #[error(transparent)]
    Raidax(#[from] RaidaxError),
    /// The node did not do what was asked.
    #[error("{error}{next}", error = .0, next = next_step(.0))]
    Client(#[from] ClientError),
    /// The node that runs on a data folder did not say how it is.
    #[error(transparent)]
    Admin(#[from] crate::admin::AskError),
    /// A network could not be started on this machine, or had to be given up.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// No set of secrets for the servers of a network could be made.
    #[error(transparent)]
    KeySet(#[from] crate::network::KeySetError),
    /// The network that runs in a folder cannot be asked.
    #[error(transparent)]
    NetworkAsk(#[from] crate::network::AskError),
    /// A key was set for all nodes of a network that each node must have for itself.
    #[error(
        "{origin}: {key} is each node's own and set by the network: leave it out; --dir, --bind and --base-port move the network"
    )]
    NetworkKey {
        /// The key with its section.
        key: String,
        /// Where it was set.
        origin: super::config::Origin,
    },
    /// A load could not be put on a node.
    #[error(transparent)]
    Load(#[from] crate::load::LoadError),
    /// Servers gave no tickets for a load of fixes.
    #[error("{0}; the fixes ended early")]
    Stock(#[from] crate::load::StockError),
    /// There are no coins to put a load on a node with, or they are not what they were.
    #[error(transparent)]
    Purse(#[from] crate::load::PurseError),
    /// A result of a load could not be written or read.
    #[error(transparent)]
    Report(#[from] crate::load::report::ReportError),
    /// A command was given a file that holds too little.
    #[error("{file} holds {found} coins where {needed} are needed", file = file.shown())]
    TooFewCoins {
        /// The file.
        file: std::path::PathBuf,
        /// Coins in it.
        found: usize,
        /// Coins needed.
        needed: usize,
    },
    /// The work was begun and not finished: what was done, what was not, and what to do now.
    #[error("{0}")]
    Unfinished(String),
    /// The log could not be set up, which happens when something else in the process has.
    #[error("the log cannot be set up: {0}")]
    Logging(String),
    /// The answer could not be printed.
    #[error("cannot write to standard output: {0}; send it to another file")]
    Output(#[from] std::io::Error),
    /// The system refuses what the program itself needs before it begins.
    #[error("the system gives no {0}: {1}; nothing was started")]
    System(&'static str, std::io::Error),
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}; nothing was sent")]
    NoRandomness(#[from] getrandom::Error),
}

/// What a person can try after an error, as the end of a sentence.
fn next_step(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable(..) => {
            "; is a node running there (`raida serve`), and is --host right?"
        }
        ClientError::TimedOut(..) => {
            "; is --host right, does the node speak this encryption type, is --timeout-ms long enough?"
        }
        ClientError::Broken(..) => "; try again",
        ClientError::OtherRaida(..) => "; give that number with --raida, or another --host",
        ClientError::Refused(_, Status::WRONG_COIN_ID) => "; give the node's own with --coin-id",
        ClientError::Refused(_, Status::WRONG_ADMIN_KEY) => {
            "; name the file of its key with --admin-key-file, or its data folder with --data"
        }
        ClientError::Refused(
            _,
            Status::KEY_NOT_FOUND
            | Status::UNKNOWN_KEY_COIN
            | Status::WRONG_CHALLENGE
            | Status::WRONG_HMAC,
        ) => "; put a coin that this node knows first in --key-file",
        ClientError::Malformed(..) => {
            "; does a node listen there, and does it know the coin in --key-file as it is there?"
        }
        _ => "",
    }
}
