use super::CliError;
use super::output::Answer;
use super::settings::FolderArgs;

/// Verify a data folder: checksums, log, indexes, value totals.
///
/// Exit status 1 when anything is damaged; each damage is named by file and offset.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  raida check --data raida-data")]
pub struct CheckCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl CheckCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("check"))
    }
}
