use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CliError;
use super::new_numbers::this_month;
use super::output::warn;
use super::said::phrase;
use super::same_coins::{COINS_A_ROUND, SameCoins};
use crate::client::wallet::{Access, CoinFile, Folder, Mark, PownString, Wallet};
use crate::client::{CoinListError, CoinListWriter, Existing, Hosts, PerRaida, Raidas};
use crate::coin::{An, Coin, Denomination};
use crate::shown::Shown;

/// Coins being made on all nodes of a network, for a wallet.
pub struct MintNetwork {
    nodes: SameCoins,
    coin_id: u16,
    wallet: Wallet,
}

impl MintNetwork {
    /// Reads where the nodes are and their admin keys, and opens the wallet or makes one.
    ///
    /// # Errors
    /// The network's folder cannot be read, or the wallet cannot be opened.
    pub fn open(
        network: &Path,
        wallet: &Path,
        coin_id: u16,
        timeout: Duration,
    ) -> Result<MintNetwork, CliError> {
        let raidas = Raidas::new(Hosts::read(&network.join("hosts"))?, coin_id, timeout);
        let minting = MintNetwork {
            nodes: SameCoins::open(raidas, network, |_| true)?,
            coin_id,
            wallet: Wallet::open(wallet, Access::CreateToUse)?,
        };
        minting.tell_left_over(network)?;
        Ok(minting)
    }

    /// Says which coins an interrupted mint for this wallet asked for that it did not file, and
    /// that are in circulation.
    fn tell_left_over(&self, network: &Path) -> Result<(), CliError> {
        for (part, lock) in CoinListWriter::left_over(&self.journal())? {
            if lock.is_none() {
                continue; // of a process that runs
            }
            let filed: HashSet<Coin> = (self.wallet.coins().iter())
                .map(|filed| filed.file.coin)
                .collect();
            let asked = CoinListWriter::read_left_over(&part)?;
            let asked = asked.into_iter().map(|record| record.coin);
            let (there, asked): (Vec<Coin>, Vec<Coin>) =
                asked.partition(|coin| filed.contains(coin));
            if !there.is_empty() {
                warn(&format!(
                    "a mint for this wallet was interrupted: {} that it made last are in {}, with what it had filed before; this mint makes all that it was asked for besides",
                    phrase(&there),
                    self.wallet.root().shown()
                ));
            }
            let unknown = self.nodes.in_circulation(&asked)?;
            if !unknown.is_empty() {
                // In a file of their own: the others are in the wallet.
                let name = format!("unknown-{}.csv", std::process::id());
                let file = self.wallet.root().join(name);
                let mut writer = CoinListWriter::create(&file, Existing::Keep)?;
                writer.write_unknown(&unknown, this_month())?;
                writer.finish()?;
                warn(&format!(
                    "a mint for this wallet was interrupted: {} coins that it asked for are in circulation, and nobody knows the numbers; where no other mint has made coins of these serial numbers since, take them out of circulation: `raida delete {} --network {} --whatever-number`. What it had filed is in the wallet; this mint makes all that it was asked for besides",
                    unknown.len(),
                    file.shown(),
                    network.shown()
                ));
            }
            let failed =
                |cause| CoinListError::Unwritable(self.journal(), Some(part.clone()), cause);
            std::fs::remove_file(&part).map_err(failed)?;
        }
        Ok(())
    }

    /// Where coins are written down before the nodes are asked for them.
    fn journal(&self) -> PathBuf {
        self.wallet.root().join("minting.csv")
    }

    /// Makes the coins and files them in the wallet's Bank, some at a time; `made` hears how many
    /// there are.
    ///
    /// # Errors
    /// A node gives no answer, or refuses; the wallet cannot be written. What was made before is in
    /// the wallet, what could not be finished is taken out of circulation again.
    pub fn make(
        &mut self,
        mut missing: BTreeMap<Denomination, u32>,
        mut made: impl FnMut(usize),
    ) -> Result<Vec<Coin>, CliError> {
        let mut coins = vec![];
        let mut journal = CoinListWriter::create(&self.journal(), Existing::Keep)?;
        while !missing.is_empty() {
            let round = self
                .round(&missing, &mut journal)
                .map_err(|error| match coins.len() {
                    0 => error,
                    before => CliError::Unfinished(format!(
                        "{error}; {before} coins were made before, they are in {}",
                        self.wallet.root().shown()
                    )),
                })?;
            for coin in &round {
                let left = missing.get_mut(&coin.denomination);
                *left.expect("only coins that are missing are made") -= 1;
            }
            missing.retain(|_, left| *left > 0);
            coins.extend(round);
            made(coins.len());
        }
        Ok(coins)
    }

    /// Makes some of what is missing.
    fn round(
        &mut self,
        missing: &BTreeMap<Denomination, u32>,
        journal: &mut CoinListWriter,
    ) -> Result<Vec<Coin>, CliError> {
        let reserved = Instant::now();
        let mut coins = self.nodes.offered(missing)?;
        coins.truncate(COINS_A_ROUND);
        journal.ask(&coins, this_month())?;
        let MintNetwork {
            nodes,
            coin_id,
            wallet,
        } = self;
        nodes.create(&coins, reserved, |ans| {
            let ans = ans.map(|ans| ans.expect("made on every node"));
            file(wallet, *coin_id, &coins, &ans)
        })?;
        journal.forget()?;
        Ok(coins)
    }
}

fn file(
    wallet: &mut Wallet,
    coin_id: u16,
    coins: &[Coin],
    ans: &PerRaida<Vec<An>>,
) -> Result<(), CliError> {
    let files = coins.iter().enumerate().map(|(place, &coin)| {
        let an = |raida| ans[raida][place];
        let pown = PownString::all(Mark::Passed);
        CoinFile::new(coin, coin_id, PerRaida::from_fn(an), pown)
    });
    let files = files.collect();
    Ok(wallet.add(Folder::Bank, files)?)
}
