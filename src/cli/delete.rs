use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::CliError;
use super::coins::no_coin_in;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::{Answer, print, print_json, warn};
use super::said::phrase;
use super::same_coins::SameCoins;
use crate::client::wallet::{Access, Wallet};
use crate::client::{CoinListError, CoinListReader, Hosts, Months, Outcome, Raidas};
use crate::coin::{An, Coin};
use crate::folder_lock::Locked;
use crate::plain_file;
use crate::protocol::AdminKey;
use crate::protocol::executive::SessionId;
use crate::shown::Shown;

/// Take coins out of circulation on a node, for good: coins of a CSV whose numbers there are those
/// of the CSV.
///
/// The command needs the node's admin key. With --whatever-number it also takes coins that have
/// another number by now, or whose number the file does not say (32 zeros), no matter who owns
/// them. This is for the list of coins that a killed bench or mint left; the command then removes
/// the list. Nobody may have made coins of these serial numbers since. With --network, which goes
/// with it, it takes them on all 25 nodes. Exit status 1 if coins of the file are in circulation
/// afterwards.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida delete coins.csv --data raida-data
  raida delete raida-bench-coins.csv.4711.part --data raida-data --whatever-number
  raida delete raida-bench-coins.csv.4711.part --network raida-network --whatever-number")]
pub struct DeleteCommand {
    /// CSV of coins; the months column may be missing
    file: PathBuf,
    /// Also coins with another number there, or with none in the file, no matter who owns them
    #[arg(long)]
    whatever_number: bool,
    /// On all nodes of this network, whose folder is on this machine
    #[arg(long, value_name = "DIR", requires = "whatever_number", conflicts_with_all = ["host", "raida", "udp", "admin_key_file", "config", "data"])]
    network: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminKeyArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl DeleteCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The coins or the admin key cannot be read; a node gives no answer, or refuses.
    pub fn run(mut self) -> Result<Answer, CliError> {
        self.node.name_by(&self.admin)?;
        let mut owned: Vec<(Coin, An)> = Vec::new();
        let mut others: Vec<Coin> = Vec::new();
        // A list that is written still is of a command that runs: its coins are somebody's.
        let list = plain_file::open(&self.file).and_then(Locked::take);
        if self.is_left_over() && list.is_ok_and(|lock| lock.is_none()) {
            return Err(CoinListError::BeingWritten(self.file.clone()).into());
        }
        for record in CoinListReader::open(&self.file, Months::Optional)? {
            let record = record?;
            match record.is_unknown() || self.network.is_some() {
                true => others.push(record.coin),
                false => owned.push((record.coin, record.an)),
            }
        }
        if owned.is_empty() && others.is_empty() && !self.is_left_over() {
            return Err(no_coin_in(&self.file));
        }
        match &self.network {
            Some(network) => self.on_all(network, &others),
            None => self.on_one(&owned, others),
        }
    }

    /// Whether the file is a list that a killed command, or the command after it, left.
    fn is_left_over(&self) -> bool {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let is_unknown = name.rsplit_once("unknown-").is_some_and(|(_, end)| {
            let number = end.strip_suffix(".csv");
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        });
        is_unknown || name.ends_with(".part")
    }

    fn on_one(&self, owned: &[(Coin, An)], mut others: Vec<Coin>) -> Result<Answer, CliError> {
        let key = self.admin.read()?;
        let mut client = self.node.connect()?;
        let (outcomes, error) = client.delete_coins(&key, owned);
        let with = |wanted: Outcome| {
            let coins = owned.iter().zip(&outcomes);
            let coins = coins.filter(move |&(_, outcome)| *outcome == wanted);
            coins.map(|(&(coin, _), _)| coin)
        };
        let mut gone: Vec<Coin> = with(Outcome::Changed).collect();
        if let Some(error) = error {
            return Err(CliError::Unfinished(format!(
                "{error}; {} out of circulation, give the command again for the others",
                phrase(&gone)
            )));
        }
        others.extend(with(Outcome::Failed));
        let (mut left, missing) = self.split(&key, others)?;
        if self.whatever_number {
            let mut session = [0; SessionId::SIZE];
            getrandom::fill(&mut session)?;
            let session = SessionId::new(u32::from_be_bytes(session));
            client.free_coins(session, &key, &left)?;
            gone.append(&mut left);
        }
        let is_list = owned.is_empty() || self.whatever_number;
        self.report(&gone, &left, missing, is_list)
    }

    /// Coins that are in circulation, and how many are not.
    fn split(&self, key: &AdminKey, coins: Vec<Coin>) -> Result<(Vec<Coin>, usize), CliError> {
        let all = coins.len();
        let coins = self.node.connect_tcp()?.in_circulation(key, coins)?;
        let missing = all - coins.len();
        Ok((coins, missing))
    }

    fn on_all(&self, network: &Path, coins: &[Coin]) -> Result<Answer, CliError> {
        let mut coins = coins.to_vec();
        // A mint that was killed may have filed what its list names.
        if let Some(folder) = self.file.parent()
            && let Ok(wallet) = Wallet::open(folder, Access::Look)
        {
            let filed: BTreeSet<Coin> = wallet.coins().iter().map(|f| f.file.coin).collect();
            let theirs: Vec<Coin> = coins.extract_if(.., |coin| filed.contains(coin)).collect();
            if !theirs.is_empty() {
                warn(&format!(
                    "{} of this list are filed in the wallet {}: they stay in circulation",
                    phrase(&theirs),
                    folder.shown(),
                ));
            }
        }
        let hosts = Hosts::read(&network.join("hosts"))?;
        let timeout = Duration::from_millis(self.node.timeout_ms);
        let raidas = Raidas::new(hosts, self.node.coin_id, timeout);
        let nodes = SameCoins::open(raidas, network, |_| true)?;
        let there = nodes.in_circulation(&coins)?;
        nodes.free(&there)?;
        self.report(&there, &[], coins.len() - there.len(), true)
    }

    fn report(
        &self,
        gone: &[Coin],
        left: &[Coin],
        missing: usize,
        is_list: bool,
    ) -> Result<Answer, CliError> {
        // A list of what a killed command had made: another use of it would take coins that were
        // made since.
        let is_done = is_list && left.is_empty() && self.is_left_over();
        if is_done {
            std::fs::remove_file(&self.file)?;
        }
        if self.json {
            print_json(&json!({
                "deleted": gone.len(),
                "left": left.len(),
                "not_in_circulation": missing,
            }))?;
        } else {
            let file = self.file.shown();
            let mut text = match gone {
                [] => "no coin was taken out of circulation\n".to_owned(),
                gone => format!("{} taken out of circulation\n", phrase(gone)),
            };
            if missing > 0 {
                text += &format!("{missing} of {file} were not in circulation\n");
            }
            if !left.is_empty() {
                text += &format!(
                    "{} left in circulation, under other numbers than in {file}; --whatever-number takes them out whoever owns them\n",
                    phrase(left)
                );
            }
            if is_done {
                text += &format!("{file} is removed\n");
            }
            print(&text)?;
        }
        Ok(match left.is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}
