use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::CliError;
use super::same_coins::{COINS_A_ROUND, SameCoins};
use crate::client::wallet::{Access, CoinFile, Folder, Mark, PownString, Wallet};
use crate::client::{Hosts, PerRaida, Raidas};
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
    /// The network's folder cannot be read, or the wallet cannot be had.
    pub fn open(
        network: &Path,
        wallet: &Path,
        coin_id: u16,
        timeout: Duration,
    ) -> Result<MintNetwork, CliError> {
        let raidas = Raidas::new(Hosts::read(&network.join("hosts"))?, coin_id, timeout);
        Ok(MintNetwork {
            nodes: SameCoins::open(raidas, network, |_| true)?,
            coin_id,
            wallet: Wallet::open(wallet, Access::Create)?,
        })
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
        while !missing.is_empty() {
            let round = self.round(&missing).map_err(|error| match coins.len() {
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
    fn round(&mut self, missing: &BTreeMap<Denomination, u32>) -> Result<Vec<Coin>, CliError> {
        let reserved = Instant::now();
        let mut coins = self.nodes.free(missing)?;
        coins.truncate(COINS_A_ROUND);
        let MintNetwork {
            nodes,
            coin_id,
            wallet,
        } = self;
        nodes.create(&coins, reserved, |ans| {
            let ans = ans.map(|ans| ans.expect("made on every node"));
            file(wallet, *coin_id, &coins, &ans)
        })?;
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
