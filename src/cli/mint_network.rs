use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use super::mint::RESERVED;
use super::{CliError, admin_key_file};
use crate::client::wallet::{Access, CoinFile, Folder, Mark, PownString, Wallet};
use crate::client::{Client, ClientError, Hosts, PerRaida, Raidas};
use crate::coin::{An, Coin, Denomination};
use crate::protocol::executive::SessionId;
use crate::protocol::{AdminKey, RaidaId};

/// Coins being made on all nodes of a network: the same serial numbers everywhere, an authenticity
/// number from each.
pub struct MintNetwork {
    raidas: Raidas,
    keys: PerRaida<AdminKey>,
    session: SessionId,
    wallet: Wallet,
}

/// Coins made at a time, so that the wallet has them before the reservation of their numbers ends.
const COINS_A_ROUND: usize = 1_000;

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
        let raidas = Raidas {
            hosts: Hosts::read(&network.join("hosts"))?,
            coin_id,
            timeout,
        };
        let mut keys = PerRaida::from_fn(|_| None);
        for raida in RaidaId::all() {
            let folder = network.join(format!("raida{raida}"));
            keys[raida] = Some(admin_key_file::read(&folder.join("admin.key"))?);
        }
        let mut session = [0; SessionId::SIZE];
        getrandom::fill(&mut session)?;
        // A node begins at the shard that the low half names. Nodes of as many shards, or of one,
        // then offer the same numbers.
        [session[2], session[3]] = [0; 2];
        Ok(MintNetwork {
            raidas,
            keys: keys.map(|key| key.expect("read for each server")),
            session: SessionId::new(u32::from_be_bytes(session)),
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
                    self.wallet.root().display()
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
        let denominations: Vec<Denomination> = missing.keys().copied().collect();
        let session = self.session;
        let free = self.ask(|client, key| client.available_sns(session, key, &denominations));
        let free = all_answered(free, "start it, and try again")?;
        // Numbers that are free on every node.
        let mut common: Option<BTreeSet<Coin>> = None;
        for (_, free) in free {
            let free: BTreeSet<Coin> = free.into_iter().collect();
            common = Some(match common {
                None => free,
                Some(common) => &common & &free,
            });
        }
        let common = common.unwrap_or_default();
        let mut coins: Vec<Coin> = vec![];
        for (&denomination, &count) in missing {
            let before = coins.len();
            let of_it = common
                .iter()
                .filter(|coin| coin.denomination == denomination);
            coins.extend(of_it.take(count as usize));
            if coins.len() == before {
                return Err(CliError::Unfinished(format!(
                    "no serial number of denomination {denomination} is free on all 25 nodes among those they offer: try again in 16 seconds, or another denomination"
                )));
            }
        }
        coins.truncate(COINS_A_ROUND);
        self.create(&coins, reserved)?;
        Ok(coins)
    }

    /// Makes these coins everywhere and files them, or nowhere.
    fn create(&mut self, coins: &[Coin], reserved: Instant) -> Result<(), CliError> {
        let session = self.session;
        let created = self.ask(|client, key| client.create_coins(session, key, coins));
        // Where the answer makes no sense or is missing, they may have been made.
        let may_exist = PerRaida::from_fn(|raida| match &created[raida] {
            Some(Err(error)) => error.leaves_doubt(),
            created => created.is_some(),
        });
        let filed = match all_answered(created, "start it, and try again") {
            Ok(ans) => self.file(coins, &ans),
            Err(error) => Err(error),
        };
        let Err(error) = filed else { return Ok(()) };
        let freed = match reserved.elapsed() < RESERVED {
            true => self
                .free(coins, &may_exist)
                .map_err(|error| error.to_string()),
            // Somebody else may have made coins of these numbers since.
            false => Err("the reservation has run out".to_owned()),
        };
        Err(CliError::Unfinished(match freed {
            Ok(()) => {
                format!("{error}; what was made of these coins was taken out of circulation again")
            }
            Err(cause) => format!(
                "{error}; these coins may be in circulation on some nodes without an owner, and could not be freed ({cause}): {}",
                coins
                    .iter()
                    .map(Coin::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
        }))
    }

    /// Takes coins out of circulation where they may have been made.
    fn free(&self, coins: &[Coin], may_exist: &PerRaida<bool>) -> Result<(), CliError> {
        let session = self.session;
        let key = |raida| may_exist[raida].then_some(&self.keys[raida]);
        let freed = (self.raidas).ask(self.raidas.timeout, key, |client, key| {
            client.free_coins(session, key, coins)
        });
        let failed = freed.into_iter().find_map(|(raida, freed)| match freed {
            Some(Err(error)) => Some((raida, error)),
            _ => None,
        });
        failed.map_or(Ok(()), |(raida, error)| {
            let next = "see that it runs";
            Err(CliError::Raida { raida, error, next })
        })
    }

    fn file(&mut self, coins: &[Coin], ans: &PerRaida<Vec<An>>) -> Result<(), CliError> {
        let files = coins.iter().enumerate().map(|(place, &coin)| {
            let an = |raida| ans[raida][place];
            let pown = PownString::all(Mark::Passed);
            CoinFile::new(coin, self.raidas.coin_id, PerRaida::from_fn(an), pown)
        });
        let files = files.collect();
        Ok(self.wallet.add(Folder::Bank, files)?)
    }

    fn ask<T: Send>(
        &self,
        ask: impl Fn(&mut Client, &AdminKey) -> Result<T, ClientError> + Sync,
    ) -> PerRaida<Option<Result<T, ClientError>>> {
        let key = |raida| Some(&self.keys[raida]);
        self.raidas.ask(self.raidas.timeout, key, ask)
    }
}

/// The answers, where no server failed to give one.
fn all_answered<T>(
    answers: PerRaida<Option<Result<T, ClientError>>>,
    next: &'static str,
) -> Result<PerRaida<T>, CliError> {
    let mut all = PerRaida::from_fn(|_| None);
    for (raida, answer) in answers {
        let answer = answer.expect("every server was asked");
        let failed = |error| CliError::Raida { raida, error, next };
        all[raida] = Some(answer.map_err(failed)?);
    }
    Ok(all.map(|answer| answer.expect("each is there")))
}
