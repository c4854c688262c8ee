use std::path::PathBuf;

use super::CliError;
use super::node::{EncryptionArgs, NodeArgs};
use super::output::Answer;

/// Take coins over: give each one a new random authenticity number.
///
/// The new numbers are written to --out before anything is sent, so that none is ever lost. Exit
/// status 1 if any coin was not taken over.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida pown received.csv --out mine.csv
  raida pown received.csv --out mine.csv --encryption 4 --key-file key.csv")]
pub struct PownCommand {
    /// CSV of coins to take over; the months column may be missing
    file: PathBuf,
    /// CSV to write with the new authenticity numbers; must not exist
    #[arg(long, value_name = "NEW.csv")]
    out: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl PownCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// A file cannot be read or written; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("raida pown"))
    }
}
