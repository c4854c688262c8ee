use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::node::{EncryptionArgs, NodeArgs};
use super::output::{Answer, print, print_json, progress};
use crate::client::{CoinListReader, CoinRecord, Months};
use crate::coin::{An, Coin};

/// Ask a node which coins of a CSV are authentic.
///
/// Exit status 1 if any is not.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida detect coins.csv
  raida detect coins.csv --encryption 4 --key-file key.csv --json")]
pub struct DetectCommand {
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

/// Coins asked about between two steps of the progress bar.
const STEP: usize = 10_000;

impl DetectCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The file cannot be read; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let coins = CoinListReader::open(&self.file, Months::Optional)?
            .map(|record| record.map(|CoinRecord { coin, an, .. }| (coin, an)))
            .collect::<Result<Vec<(Coin, An)>, _>>()?;
        let mut client = self.node.connect_encrypted(&self.encryption)?;
        let bar = progress(coins.len() as u64, "detecting");
        let mut verdicts: Vec<(Coin, bool)> = Vec::with_capacity(coins.len());
        for some in coins.chunks(STEP) {
            let passed = client.detect(some)?;
            verdicts.extend(some.iter().map(|&(coin, _)| coin).zip(passed));
            bar.inc(some.len() as u64);
        }
        bar.finish_and_clear();

        let passed = verdicts.iter().filter(|&&(_, passed)| passed).count();
        let failed = verdicts.len() - passed;
        if self.json {
            let coins: Vec<_> = verdicts
                .iter()
                .map(|(coin, passed)| {
                    json!({
                        "denomination": coin.denomination.exponent(),
                        "serial_number": coin.serial_number.get(),
                        "passed": passed,
                    })
                })
                .collect();
            print_json(&json!({ "passed": passed, "failed": failed, "coins": coins }))?;
        } else {
            let mut text = String::new();
            for (coin, _) in verdicts.iter().filter(|&&(_, passed)| !passed) {
                text += &format!("fail  {coin}\n");
            }
            text += &format!("{passed} of {} coins pass\n", verdicts.len());
            print(&text)?;
        }
        Ok(if failed == 0 { Answer::Yes } else { Answer::No })
    }
}
