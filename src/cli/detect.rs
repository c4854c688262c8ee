use std::path::PathBuf;

use super::CliError;
use super::node::{EncryptionArgs, NodeArgs};
use super::output::Answer;

/// Ask a node which coins of a CSV are authentic.
///
/// Exit status 1 if any is not.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida detect coins.csv
  raida detect coins.csv --encryption 4 --key-file key.csv --json")]
pub struct DetectCommand {
    /// CSV of coins; the months column may be missing
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl DetectCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The file cannot be read; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("raida detect"))
    }
}
