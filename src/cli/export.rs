use std::path::PathBuf;

use super::CliError;
use super::output::Answer;
use super::settings::FolderArgs;

/// Write the coins of a data folder to a CSV or as an existing server's Data folder.
///
/// What is written is ownership: files are readable by their owner only.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida export --data raida-data --csv coins.csv
  raida export --config /etc/raida/node.toml --raidax-data Data")]
pub struct ExportCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// CSV to write: every coin in circulation, sorted
    #[arg(long, value_name = "FILE", required_unless_present = "raidax_data")]
    csv: Option<PathBuf>,
    /// Folder to write page files to
    #[arg(long, value_name = "DIR", conflicts_with = "csv")]
    raidax_data: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ExportCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The data folder cannot be read, or the output cannot be written.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("export"))
    }
}
