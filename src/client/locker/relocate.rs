use std::collections::BTreeSet;

use super::{LockerError, LockerSecret, Said, peek};
use crate::client::{ClientError, Outcome, PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// The result for coins that should change lockers.
#[derive(Clone, Debug)]
pub struct Relocated {
    /// Each coin that lay in the first locker on any server.
    pub coins: Vec<RelocatedCoin>,
    /// The result of each server: how many of them it has in the second locker now.
    pub servers: PerRaida<Said>,
}

/// The result for a coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelocatedCoin {
    /// The coin.
    pub coin: Coin,
    /// Number of servers that have it in the second locker now.
    pub servers: usize,
    /// Number of servers that had it in one of the two, before or after. A coin of fewer than 13 is
    /// worth nothing there: a wrong server can name any coin.
    pub known_on: usize,
}

impl RelocatedCoin {
    /// Whether it is worth something in the two lockers.
    pub fn counts(&self) -> bool {
        self.known_on >= VOTES_NEEDED
    }
}

/// Moves the content of a locker into another one, on every server, whatever it has there. `only`
/// names the coins, where not all should move.
///
/// Nothing needs to be written down: every number follows from one of the two secrets. The next run
/// moves what an interrupted run has not moved.
///
/// # Errors
/// Fewer than 13 servers say what lies in the locker, and then nothing is changed.
pub fn relocate(
    from: &LockerSecret,
    to: &LockerSecret,
    only: Option<&BTreeSet<Coin>>,
    raidas: &Raidas,
) -> Result<Relocated, LockerError> {
    let before = peek(from, raidas);
    before.check()?;
    let is_meant = |coin: &Coin| only.is_none_or(|only| only.contains(coin));
    let order = |raida: RaidaId| {
        let key = to.key(raida).an();
        let coins = before.on(raida).iter().copied().filter(is_meant);
        let coins: Vec<(Coin, An)> = coins.map(|coin| (coin, key)).collect();
        (!coins.is_empty()).then_some((raida, coins))
    };
    let moved = raidas.ask(raidas.timeout, order, |client, (raida, coins)| {
        let (outcomes, error) = client.remove(from.key(raida), &coins);
        let refused = outcomes.contains(&Outcome::Failed);
        error.map_or(Ok(refused), Err)
    });

    // Coins that an earlier run has moved count as well.
    let after = peek(to, raidas);
    let there =
        PerRaida::from_fn(|raida| -> BTreeSet<Coin> { after.on(raida).iter().copied().collect() });
    let known = PerRaida::from_fn(|raida| {
        let known = before.on(raida).iter().chain(&there[raida]).copied();
        known.filter(is_meant).collect::<BTreeSet<Coin>>()
    });
    let mut all: Vec<Coin> = before.coins().into_iter().filter(is_meant).collect();
    if all.is_empty() {
        all = after.coins().into_iter().filter(is_meant).collect();
    }
    let coins: Vec<RelocatedCoin> = all
        .into_iter()
        .map(|coin| RelocatedCoin {
            coin,
            servers: there.count(|coins| coins.contains(&coin)),
            known_on: known.count(|coins| coins.contains(&coin)),
        })
        .collect();
    let servers = PerRaida::from_fn(|raida| {
        let why = match (&before.0[raida], &moved[raida], &after.0[raida]) {
            (Err(error), ..) | (_, Some(Err(error)), _) | (.., Err(error)) => {
                Some(ClientError::to_string(error))
            }
            (_, Some(Ok(true)), _) => Some("some had left the locker meanwhile".to_owned()),
            _ if !known[raida].is_subset(&there[raida]) => {
                Some("it says that it has moved them, and has not".to_owned())
            }
            _ => None,
        };
        let has = |coin: &&RelocatedCoin| there[raida].contains(&coin.coin);
        let done = coins
            .iter()
            .filter(|coin| coin.counts())
            .filter(has)
            .count();
        Said { done, why }
    });
    Ok(Relocated { coins, servers })
}
