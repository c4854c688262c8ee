use super::CliError;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::Answer;

/// Ask a node how much it has done since it started.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida stats --data raida-data
  raida stats --host 127.0.0.1:50014 --raida 14 --admin-key-file admin.key --json")]
pub struct StatsCommand {
    #[command(flatten)]
    admin: AdminKeyArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl StatsCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The admin key cannot be read; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("raida stats"))
    }
}
