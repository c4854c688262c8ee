use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::CliError;
use super::encryption::{json_of_broken, json_of_fixes, lines, summary};
use super::output::{Answer, print, print_json, waiting};
use super::patience::PatienceArgs;
use super::raidas::RaidasArgs;
use crate::client::draw_an;
use crate::client::key_healing::{COOL_DOWN_MAX, EncryptionHealth, FAILURES_MAX, mend};
use crate::client::wallet::{Access, Wallet};

/// Mend the servers that have lost every number of a wallet's coins, so that they cannot even be
/// talked to in private: for each, two others, drawn at random, vouch for half a new number of one
/// coin.
///
/// Asks all servers about the coins first, and notes in the wallet which of them are broken. A new
/// number is in the coin's file before a server can have it, so that the command can be interrupted
/// at any time and given again. `raida heal` then repairs the other coins; it also does all of this
/// first by itself. A server on which the coin changed lately, or that started lately, takes no
/// tickets for three minutes: the command waits for it, twice at most, and says so. Exit status 0
/// if no server is broken afterwards, 1 if some are, 2 if too few servers answer or they belong to
/// another network.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("servers").args(["hosts", "network"]).required(true)))]
#[command(after_help = "Examples:
  raida fix-encryption wallet --network raida-network
  raida fix-encryption wallet --hosts hosts.txt --cool-down-s 60 --json")]
pub struct FixEncryptionCommand {
    /// The wallet: a folder with the folders Bank, Fracked, Limbo and so on
    wallet: PathBuf,
    #[command(flatten)]
    network: RaidasArgs,
    /// How long to wait for a server's answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// The servers' coin id; 6 is CloudCoin. Coins of another one are left alone
    #[arg(long, value_name = "N", default_value_t = 6)]
    coin_id: u16,
    /// How long a server that failed too often is left alone after each attempt, in seconds; kept
    /// in the wallet for later [at first 1800; a year at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=COOL_DOWN_MAX.as_secs()))]
    cool_down_s: Option<u64>,
    /// After how many attempts in a row that failed a server is left alone for that time
    #[arg(long, value_name = "N", default_value_t = FAILURES_MAX, value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: u32,
    #[command(flatten)]
    patience: PatienceArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl FixEncryptionCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The wallet, what it knows of the servers or the list of hosts cannot be read; fewer than 13
    /// servers answer, or servers of another network; the disk fails.
    pub fn run(self) -> Result<Answer, CliError> {
        let raidas = self.network.raidas(self.coin_id, self.timeout_ms)?;
        let mut wallet = Wallet::open(&self.wallet, Access::Change)?;
        wallet.keep_only(self.coin_id);
        let mut health = EncryptionHealth::read(&self.wallet)?;
        if let Some(seconds) = self.cool_down_s {
            health.cool_down = Duration::from_secs(seconds);
        }
        let bar = waiting();
        bar.set_message("asking all servers");
        let mut patience = self.patience.start(&bar, "asking all servers");
        let (silent, results) = mend(
            &mut wallet,
            &mut health,
            &raidas,
            self.max_failures,
            &mut patience,
            draw_an,
            |_, looked, _| Ok(looked.silent),
        )?;
        let waited = patience.waited();
        bar.finish_and_clear();
        if self.json {
            print_json(&json!({
                "servers": json_of_fixes(&results),
                "broken": json_of_broken(&health),
                "waited_s": waited.as_secs(),
                "silent": super::heal::reasons(&silent),
            }))?;
        } else {
            let mut text = lines(&results, &health);
            for (raida, why) in silent.iter() {
                if let Some(why) = why {
                    text += &format!("RAIDA {raida} says nothing of the coins: {why}\n");
                }
            }
            text += &format!("{}\n", summary(&health));
            print(&text)?;
        }
        Ok(match health.broken().is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}
