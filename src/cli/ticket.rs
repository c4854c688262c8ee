use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::coins::{json_of, read_coins};
use super::node::{EncryptionArgs, NodeArgs};
use super::output::{Answer, print, print_json};

/// Ask a node for tickets, by which other servers learn that coins are yours.
///
/// A ticket holds the coins that pass, at most about 3,000; a longer list gets several. For 300
/// seconds, anybody who knows a ticket's number can claim it. Exit status 1 if any coin fails.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida ticket coins.csv
  raida ticket coins.csv --host raida7.example.com:50007 --raida 7 --json")]
pub struct TicketCommand {
    /// CSV of coins; the months column may be missing
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl TicketCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The file cannot be read; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let coins = read_coins(&self.file)?;
        let mut client = self.node.connect_encrypted(&self.encryption)?;
        let tickets = client.get_ticket(&coins)?;
        let failed = || {
            coins
                .iter()
                .zip(&tickets.passed)
                .filter(|(_, passed)| !**passed)
        };
        let passed_in = |range: &std::ops::Range<usize>| {
            let passed = &tickets.passed[range.clone()];
            passed.iter().filter(|passed| **passed).count()
        };
        if self.json {
            let issued = tickets.issued.iter();
            let issued: Vec<_> = issued
                .map(|(range, ticket)| json!({ "ticket": ticket.get(), "coins": passed_in(range) }))
                .collect();
            let failed: Vec<_> = failed().map(|((coin, _), _)| json_of(*coin)).collect();
            print_json(&json!({
                "raida": self.node.raida().get(),
                "tickets": issued,
                "failed": failed,
            }))?;
        } else {
            let mut text = String::new();
            for ((coin, _), _) in failed() {
                text += &format!("fail  {coin}\n");
            }
            for (range, ticket) in &tickets.issued {
                let (number, coins) = (ticket.get(), passed_in(range));
                let plural = if coins == 1 { "" } else { "s" };
                text += &format!("ticket {number} for {coins} coin{plural}\n");
            }
            if tickets.issued.is_empty() {
                text += "no ticket: no coin passes\n";
            }
            print(&text)?;
        }
        Ok(match failed().next() {
            None => Answer::Yes,
            Some(_) => Answer::No,
        })
    }
}
