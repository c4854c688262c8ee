use serde_json::json;

use super::CliError;
use super::node::NodeArgs;
use super::output::{Answer, print, print_json};

/// Ask a node for its version.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  raida version --host 127.0.0.1:50000")]
pub struct VersionCommand {
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl VersionCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let version = self.node.connect()?.version()?;
        let version = version.as_str().trim();
        if self.json {
            print_json(&json!({ "version": version }))?;
        } else {
            print(&format!("{version}\n"))?;
        }
        Ok(Answer::Yes)
    }
}
