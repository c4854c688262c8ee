use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::coins::{json_of, read_coins};
use super::node::{EncryptionArgs, NodeArgs};
use super::output::{Answer, print, print_json};
use crate::coin::{An, Coin};
use crate::protocol::healing::Found;
use crate::shown::Shown;

/// Ask a node which of two authenticity numbers coins have: after an interrupted pown, say.
///
/// Exit status 1 if any coin has neither.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida find received.csv --proposed mine.csv
  raida find received.csv --proposed mine.csv --host raida7.example.com:50007 --raida 7 --json")]
pub struct FindCommand {
    /// CSV of coins with their old numbers; the months column may be missing
    file: PathBuf,
    /// CSV of the same coins, or some of them, with the numbers they may have got
    #[arg(long, value_name = "NEW.csv")]
    proposed: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl FindCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// A file cannot be read; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let proposed: BTreeMap<Coin, An> = read_coins(&self.proposed)?.into_iter().collect();
        // A coin that only one file has can have only that number.
        let coins: Vec<(Coin, An, An)> = read_coins(&self.file)?
            .into_iter()
            .map(|(coin, an)| (coin, an, proposed.get(&coin).copied().unwrap_or(an)))
            .collect();
        let mut client = self.node.connect_encrypted(&self.encryption)?;
        let found = client.find(&coins)?;
        let word = |found: &Found| match found {
            Found::An => "old",
            Found::Pan => "new",
            Found::Neither => "neither",
        };
        let count = |wanted| found.iter().filter(|&&found| found == wanted).count();
        if self.json {
            let coins = coins.iter().zip(&found).map(|(&(coin, ..), found)| {
                let mut entry = json_of(coin);
                entry["found"] = word(found).into();
                entry
            });
            print_json(&json!({
                "old": count(Found::An),
                "new": count(Found::Pan),
                "neither": count(Found::Neither),
                "coins": coins.collect::<Vec<_>>(),
            }))?;
        } else {
            let mut text = String::new();
            for ((coin, ..), found) in coins.iter().zip(&found) {
                text += &format!("{:7}  {coin}\n", word(found));
            }
            let (old, new) = (count(Found::An), count(Found::Pan));
            text += &format!(
                "of {} coins {old} have the number in {}, {new} that in {}, {} neither\n",
                coins.len(),
                self.file.shown(),
                self.proposed.shown(),
                count(Found::Neither),
            );
            print(&text)?;
        }
        Ok(match count(Found::Neither) {
            0 => Answer::Yes,
            _ => Answer::No,
        })
    }
}
