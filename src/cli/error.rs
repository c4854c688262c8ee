use super::config::ConfigError;
use crate::client::CoinListError;

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
    /// The log could not be set up, which happens when something else in the process has.
    #[error("the log cannot be set up: {0}")]
    Logging(String),
    /// The answer could not be printed.
    #[error("cannot write to standard output: {0}; send it to another file")]
    Output(#[from] std::io::Error),
    /// The command exists, what carries it out does not yet.
    #[error("{0} is not wired yet; a later version of this program carries it out")]
    NotWired(&'static str),
}
