use super::CliError;
use super::node::{EncryptionArgs, NodeArgs};
use super::output::Answer;

/// Ask a node whether it is there, and how long it takes to say so.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida echo
  raida echo --host raida7.example.com:50007 --raida 7 --udp")]
pub struct EchoCommand {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl EchoCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("raida echo"))
    }
}
