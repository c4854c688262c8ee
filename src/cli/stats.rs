use serde_json::json;

use super::CliError;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::{Answer, print, print_json};
use super::worth::Worth;

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
        let key = self.admin.read()?;
        let stats = self.node.connect()?.stats(&key)?;
        let value = Worth(stats.value_powned.into());
        if self.json {
            print_json(&json!({
                "requests": stats.requests,
                "echoes": stats.echoes,
                "coins_powned": stats.coins_powned,
                "value_powned": value.to_string(),
            }))?;
        } else {
            print(&format!(
                "requests      {}\nechoes        {}\ncoins powned  {}\nvalue powned  {value}\n",
                stats.requests, stats.echoes, stats.coins_powned
            ))?;
        }
        Ok(Answer::Yes)
    }
}
