use super::CliError;
use super::node::NodeArgs;
use super::output::Answer;
use super::settings::FolderArgs;

/// Count the coins in circulation, of a node or of a data folder.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida audit --host 127.0.0.1:50000
  raida audit --data raida-data --json")]
pub struct AuditCommand {
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl AuditCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or the data folder cannot be read.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("raida audit"))
    }
}
