use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use super::mint::RESERVED;
use super::{CliError, admin_key_file};
use crate::client::{Client, ClientError, PerRaida, Raidas};
use crate::coin::{An, Coin, Denomination};
use crate::protocol::executive::SessionId;
use crate::protocol::{AdminKey, RaidaId};

/// The same coins made on several nodes of a network, whose folder is on this machine: the same
/// serial numbers on each, an authenticity number from each.
pub struct SameCoins {
    raidas: Raidas,
    /// Admin keys of the nodes that get the coins.
    keys: PerRaida<Option<AdminKey>>,
    session: SessionId,
}

/// Number of coins made at a time. It is small enough that the caller files them before the
/// reservation of their numbers ends.
pub const COINS_A_ROUND: usize = 1_000;

/// The answers of the asked nodes; a node that is not asked has none.
type Answers<T> = PerRaida<Option<T>>;

impl SameCoins {
    /// Reads the admin keys of the nodes that are to have the coins.
    ///
    /// # Errors
    /// A key cannot be read, or the system has no random numbers to give.
    pub fn open(
        raidas: Raidas,
        network: &Path,
        is_on: impl Fn(RaidaId) -> bool,
    ) -> Result<SameCoins, CliError> {
        let mut keys = PerRaida::from_fn(|_| None);
        for raida in RaidaId::all().filter(|&raida| is_on(raida)) {
            let folder = network.join(format!("raida{raida}"));
            keys[raida] = Some(admin_key_file::read(&folder.join("admin.key"))?);
        }
        let mut session = [0; SessionId::SIZE];
        getrandom::fill(&mut session)?;
        // A node begins at the shard that the low half names. Nodes of as many shards, or of one,
        // then offer the same numbers.
        [session[2], session[3]] = [0; 2];
        Ok(SameCoins {
            raidas,
            keys,
            session: SessionId::new(u32::from_be_bytes(session)),
        })
    }

    /// Coins whose numbers are free on every node, and reserved from now on: as many as are wanted,
    /// or as the nodes offer.
    ///
    /// # Errors
    /// A node gives no answer, or refuses; a denomination has none.
    pub fn offered(&self, wanted: &BTreeMap<Denomination, u32>) -> Result<Vec<Coin>, CliError> {
        let denominations: Vec<Denomination> = wanted.keys().copied().collect();
        let session = self.session;
        let free = self.ask(|client, key| client.available_sns(session, key, &denominations));
        let free = all_answered(free, "start it, and try again")?;
        let mut common: Option<BTreeSet<Coin>> = None;
        for (_, free) in free {
            let Some(free) = free else { continue };
            let free: BTreeSet<Coin> = free.into_iter().collect();
            common = Some(match common {
                None => free,
                Some(common) => &common & &free,
            });
        }
        let common = common.unwrap_or_default();
        let mut coins: Vec<Coin> = vec![];
        for (&denomination, &count) in wanted {
            let before = coins.len();
            let of_it = common
                .iter()
                .filter(|coin| coin.denomination == denomination);
            coins.extend(of_it.take(count as usize));
            if coins.len() == before {
                let nodes = self.keys.count(Option::is_some);
                return Err(CliError::Unfinished(format!(
                    "no serial number of denomination {denomination} is free on all {nodes} nodes among those they offer: try again in 16 seconds, or another denomination"
                )));
            }
        }
        Ok(coins)
    }

    /// Makes these coins on every node and hands their numbers there to `keep`, or makes them
    /// nowhere: also where `keep` fails.
    ///
    /// # Errors
    /// A node gives no answer, or refuses, or `keep` fails; and what became of the coins then.
    pub fn create(
        &self,
        coins: &[Coin],
        reserved: Instant,
        keep: impl FnOnce(Answers<Vec<An>>) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.create_on(|_| true, coins, reserved, keep)
    }

    /// The same on some of the nodes.
    ///
    /// # Errors
    /// As [`SameCoins::create`].
    pub fn create_on(
        &self,
        is_on: impl Fn(RaidaId) -> bool,
        coins: &[Coin],
        reserved: Instant,
        keep: impl FnOnce(Answers<Vec<An>>) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let session = self.session;
        let key = |raida| self.keys[raida].as_ref().filter(|_| is_on(raida));
        let create = |client: &mut Client, key: &AdminKey| client.create_coins(session, key, coins);
        let created = self.raidas.ask(self.raidas.timeout, key, create);
        // Where the answer makes no sense or is missing, they may have been made.
        let may_exist = PerRaida::from_fn(|raida| match &created[raida] {
            Some(Err(error)) => error.leaves_doubt(),
            created => created.is_some(),
        });
        let kept = all_answered(created, "start it, and try again").and_then(keep);
        let Err(error) = kept else { return Ok(()) };
        let freed = match reserved.elapsed() < RESERVED {
            true => self
                .free_again(coins, &may_exist)
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

    /// Those of these coins that are in circulation, on one node at least.
    ///
    /// # Errors
    /// A node gives no answer, or refuses.
    pub fn in_circulation(&self, coins: &[Coin]) -> Result<Vec<Coin>, CliError> {
        let asked = || coins.iter().copied();
        let there = self.ask(|client, key| client.in_circulation(key, asked()));
        let there = all_answered(there, "start it, and try again")?;
        let there = there.into_iter().filter_map(|(_, there)| there);
        let there: BTreeSet<Coin> = there.flatten().collect();
        Ok(there.into_iter().collect())
    }

    /// Takes coins out of circulation on all nodes, whatever their numbers are.
    ///
    /// # Errors
    /// A node gives no answer, or refuses; the others have done it.
    pub fn free(&self, coins: &[Coin]) -> Result<(), CliError> {
        self.free_again(coins, &PerRaida::from_fn(|_| true))
    }

    /// Takes coins out of circulation where they may have been made.
    fn free_again(&self, coins: &[Coin], may_exist: &PerRaida<bool>) -> Result<(), CliError> {
        let session = self.session;
        let key = |raida| self.keys[raida].as_ref().filter(|_| may_exist[raida]);
        let freed = (self.raidas).ask(self.raidas.timeout, key, |client, key| {
            client.free_coins(session, key, coins)
        });
        all_answered(
            freed,
            "the nodes that answer have done it: start it, and give the command again",
        )
        .map(drop)
    }

    fn ask<T: Send>(
        &self,
        ask: impl Fn(&mut Client, &AdminKey) -> Result<T, ClientError> + Sync,
    ) -> Answers<Result<T, ClientError>> {
        let key = |raida| self.keys[raida].as_ref();
        self.raidas.ask(self.raidas.timeout, key, ask)
    }
}

/// The answers of those who were asked, where none of them failed to give one.
fn all_answered<T>(
    answers: Answers<Result<T, ClientError>>,
    next: &'static str,
) -> Result<Answers<T>, CliError> {
    let mut all = PerRaida::from_fn(|_| None);
    for (raida, answer) in answers {
        let failed = |error| CliError::Raida { raida, error, next };
        all[raida] = answer.transpose().map_err(failed)?;
    }
    Ok(all)
}
