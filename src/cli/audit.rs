use serde_json::json;

use super::CliError;
use super::node::NodeArgs;
use super::output::{Answer, print, print_json};
use super::settings::FolderArgs;
use super::worth::Worth;
use crate::coin::Denomination;
use crate::protocol::status_group::Audit;

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
        let audit = if self.folder.is_given() {
            audit_folder(&self.folder)?
        } else {
            self.node.connect()?.audit()?
        };
        let rows: Vec<(Denomination, u32, Worth)> = Denomination::all()
            .zip(audit.0)
            .map(|(denomination, coins)| {
                let worth = u128::from(coins) * u128::from(denomination.worth_units());
                (denomination, coins, Worth(worth))
            })
            .collect();
        let coins: u64 = rows.iter().map(|&(_, coins, _)| u64::from(coins)).sum();
        let worth = Worth(rows.iter().map(|(_, _, worth)| worth.0).sum());
        if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|(denomination, coins, worth)| {
                    json!({
                        "denomination": denomination.exponent(),
                        "coins": coins,
                        "worth": worth.to_string(),
                    })
                })
                .collect();
            let worth = worth.to_string();
            print_json(&json!({ "denominations": rows, "coins": coins, "worth": worth }))?;
        } else {
            let mut text = String::from("denomination      coins                     worth\n");
            for (denomination, coins, worth) in rows {
                text += &format!("{denomination:>12} {coins:>10} {worth:>25}\n");
            }
            text += &format!("{:>12} {coins:>10} {worth:>25}\n", "all");
            print(&text)?;
        }
        Ok(Answer::Yes)
    }
}

fn audit_folder(_folder: &FolderArgs) -> Result<Audit, CliError> {
    Err(CliError::NotWired("audit of a data folder"))
}
