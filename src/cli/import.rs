use std::path::PathBuf;

use super::CliError;
use super::output::Answer;
use super::settings::FolderArgs;

/// Put coins into a data folder, from a CSV or from an existing server's Data folder.
///
/// The node that owns the data folder must not be running.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida import --data raida-data --csv coins.csv
  raida import --config /etc/raida/node.toml --raidax-data /opt/raidax/Data")]
pub struct ImportCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// CSV of coins: denomination,serial_number,authenticity_number,months_from_start
    #[arg(long, value_name = "FILE", required_unless_present = "raidax_data")]
    csv: Option<PathBuf>,
    /// An existing server's Data folder of page files
    #[arg(long, value_name = "DIR", conflicts_with = "csv")]
    raidax_data: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ImportCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The input or the data folder cannot be read, or the folder cannot be written.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("import"))
    }
}
