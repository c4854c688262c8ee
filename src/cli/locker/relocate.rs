use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::CliError;
use crate::cli::coins::json_of;
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::{json_of_said, names, phrase, table};
use crate::cli::secrets::{SecretError, SecretText, draw_locker_key, hex_of, tell};
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{LockerSecret, Relocated, RelocatedCoin, relocate};
use crate::client::{Client, Outcome, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::healing::VOTES_NEEDED;

/// Move coins from one locker into another, on one node or on all 25 servers: the first key alone
/// no longer takes them.
///
/// No wallet is needed, and an interrupted command can be given again. Exit status 1 if there is
/// nothing to move, or a coin is not in the other locker afterwards. With --network or --hosts a
/// coin counts if 13 servers have it in either locker, and must be in the other one on 13 servers.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida locker move --key @old --to @new --host raida7.example.com:50007 --raida 7
  raida locker move --network raida-network --key @secret
  raida locker move --hosts hosts.txt --key @secret --to @other --coin 1.4711")]
pub struct MoveCommand {
    /// The locker: 32 hex digits, or @FILE that holds them
    #[arg(long, value_name = "HEX|@FILE")]
    key: SecretText,
    /// The locker to move to. Without it the command makes one up and shows it before anything is
    /// sent
    #[arg(long, value_name = "HEX|@FILE", required_if_eq("json", "true"))]
    to: Option<SecretText>,
    /// Move this coin only; may be repeated
    #[arg(long, value_name = "DN.SN", allow_hyphen_values = true)]
    coin: Vec<Coin>,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl MoveCommand {
    /// Whether the locker that the coins go to was named.
    pub fn has_target(&self) -> bool {
        self.to.is_some()
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses; fewer than 13 servers answer.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.servers.open()? {
            Servers::One(client) => self.on_one(client),
            Servers::All(raidas) => self.on_all(&raidas),
        }
    }

    fn on_one(&self, mut client: Client) -> Result<Answer, CliError> {
        let key = self.key.locker_key("--key")?;
        let to = self
            .to
            .as_ref()
            .map(|to| to.locker_key("--to"))
            .transpose()?;
        if to == Some(key) {
            return Err(SecretError::SameLocker.into());
        }
        let mut lying = client.peek(key)?;
        if !self.coin.is_empty() {
            lying.retain(|coin| self.coin.contains(coin));
        }
        let to = match to {
            Some(to) => to,
            None => {
                let to = draw_locker_key()?;
                if !lying.is_empty() {
                    tell("the other locker's key on this node", &hex_of(to.an()))?;
                }
                to
            }
        };
        let numbers: Vec<(Coin, An)> = lying.iter().map(|&coin| (coin, to.an())).collect();
        let (outcomes, error) = client.remove(key, &numbers);
        let moved = lying.iter().zip(&outcomes);
        let moved = moved.filter(|(_, outcome)| **outcome == Outcome::Changed);
        let moved: Vec<Coin> = moved.map(|(&coin, _)| coin).collect();
        if self.json {
            print_json(&json!({
                "lay_there": lying.len(),
                "moved": moved.iter().map(|&coin| json_of(coin)).collect::<Vec<_>>(),
            }))?;
        } else {
            print(&match lying.as_slice() {
                [] => "nothing lies in this locker, or there is none\n".to_owned(),
                all => format!("{} moved, of {}\n", phrase(&moved), phrase(all)),
            })?;
        }
        match error {
            Some(error) => Err(error.into()),
            None if !moved.is_empty() && moved.len() == lying.len() => Ok(Answer::Yes),
            None => Ok(Answer::No),
        }
    }

    fn on_all(&self, raidas: &Raidas) -> Result<Answer, CliError> {
        let from = self.key.locker_secret("--key")?;
        let to = match &self.to {
            Some(text) => text.locker_secret("--to")?,
            None => {
                let to = LockerSecret::draw()?;
                tell("the other locker's secret", &to.expose())?;
                to
            }
        };
        if to == from {
            return Err(SecretError::SameLocker.into());
        }
        let only: BTreeSet<Coin> = self.coin.iter().copied().collect();
        let only = (!only.is_empty()).then_some(&only);
        let bar = waiting();
        bar.set_message("moving on all servers");
        let moved = relocate(&from, &to, only, raidas)?;
        bar.finish_and_clear();
        self.report(&moved)
    }

    fn report(&self, moved: &Relocated) -> Result<Answer, CliError> {
        let counting = || moved.coins.iter().filter(|coin| coin.counts());
        let there = counting().filter(|coin| coin.servers >= VOTES_NEEDED);
        let there: Vec<Coin> = there.map(|coin| coin.coin).collect();
        if self.json {
            let coins = moved.coins.iter().map(|coin| {
                let mut entry = json_of(coin.coin);
                entry["servers"] = coin.servers.into();
                entry["known_on"] = coin.known_on.into();
                entry
            });
            print_json(&json!({
                "coins": coins.collect::<Vec<_>>(),
                "servers": json_of_said(&moved.servers),
            }))?;
        } else if moved.coins.is_empty() {
            print("nothing lies in either locker\n")?;
        } else {
            let mut text = table(&moved.servers);
            let is_short = |coin: &&RelocatedCoin| coin.servers < VOTES_NEEDED;
            for coin in counting().filter(is_short) {
                text += &format!(
                    "{} is in the other locker on {} servers only: {VOTES_NEEDED} are needed\n",
                    coin.coin, coin.servers
                );
            }
            let few = moved.coins.iter().filter(|coin| !coin.counts());
            let few: Vec<Coin> = few.map(|coin| coin.coin).collect();
            if !few.is_empty() {
                text += &format!(
                    "not counted, since fewer than {VOTES_NEEDED} servers have them in either locker: {}\n",
                    names(&few)
                );
            }
            text += &format!("{} in the other locker\n", phrase(&there));
            print(&text)?;
        }
        Ok(
            match !there.is_empty() && there.len() == counting().count() {
                true => Answer::Yes,
                false => Answer::No,
            },
        )
    }
}
