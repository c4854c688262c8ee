use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::coins::{json_of, read_coins};
use super::detect_all::detect_all;
use super::node::{EncryptionArgs, NodeArgs};
use super::output::{Answer, print, print_json, progress};
use super::raidas::RaidasArgs;
use crate::coin::Coin;
use crate::shown::Shown;

/// Ask a node which coins of a CSV are authentic; or with --all, all 25 servers about a wallet's.
///
/// Exit status 1 if any coin is not authentic or, with --all, was left alone. With --all a coin has
/// a letter for each server, RAIDA 0 first: p it passes, f it fails, n no answer, e an answer that
/// is of no use, u not asked. With 13 p and more it is authentic, or fracked where any fails; with
/// 13 f and more counterfeit; else in limbo.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida detect <FILE.csv> [OPTIONS]\n       raida detect --all (--network <DIR> | --hosts <FILE>) <WALLET|COIN.bin> [OPTIONS]"
)]
#[command(group(clap::ArgGroup::new("servers").args(["hosts", "network"]).conflicts_with_all(["host", "raida", "udp", "key_file", "continue_counter"])))]
#[command(after_help = "Examples:
  raida detect coins.csv
  raida detect coins.csv --encryption 4 --key-file key.csv --json
  raida detect --all --network raida-network wallet
  raida detect --all --encryption 4 --network raida-network wallet
  raida detect --all --hosts hosts.txt wallet/Bank/1.7.bin")]
pub struct DetectCommand {
    /// CSV of coins; the months column may be missing. With --all: a wallet or a coin file
    file: PathBuf,
    /// Ask all 25 servers at the same time, and show what each says of each coin; no file is
    /// changed. With --encryption 1 or 4 each is asked under a coin of the wallet that passes
    /// there. Not needed where --hosts or --network is given
    #[arg(long, requires = "servers")]
    all: bool,
    #[command(flatten)]
    network: Option<RaidasArgs>,
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
        if let Some(network) = &self.network {
            let raidas = network.raidas(self.node.coin_id, self.node.timeout_ms)?;
            return detect_all(&self.file, raidas, self.encryption.encryption, self.json);
        }
        if self.file.is_dir() {
            return Err(CliError::Unfinished(format!(
                "{file} is a folder, and one node is asked about a CSV: where it is a wallet, `raida detect --all --network DIR {file}` or `--all --hosts FILE` asks all servers",
                file = self.file.shown()
            )));
        }
        let coins = read_coins(&self.file)?;
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
                .map(|&(coin, passed)| {
                    let mut entry = json_of(coin);
                    entry["passed"] = passed.into();
                    entry
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
