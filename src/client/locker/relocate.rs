use std::collections::BTreeSet;

use super::{LockerError, LockerSecret, Said, peek};
use crate::client::{ClientError, Outcome, PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// What became of coins that were to change lockers.
#[derive(Clone, Debug)]
pub struct Relocated {
    /// Each coin that lay in the first locker on any server.
    pub coins: Vec<RelocatedCoin>,
    /// What each server did: how many of them it has in the second locker now.
    pub servers: PerRaida<Said>,
}

/// What became of a coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelocatedCoin {
    /// The coin.
    pub coin: Coin,
    /// On how many servers it lies in the second locker now.
    pub servers: usize,
    /// On how many it lay in one of the two, before or after. A coin of fewer than 13 is worth
    /// nothing there: a server that is wrong can name any.
    pub known_on: usize,
}

impl RelocatedCoin {
    /// Whether it is worth something in the two lockers.
    pub fn counts(&self) -> bool {
        self.known_on >= VOTES_NEEDED
    }
}

/// Moves what lies in a locker into another one, on every server, whatever it has there. `only`
/// says which coins, where not all.
///
/// Nothing needs to be written down: every number follows from one of the two secrets. What an
/// interrupted run has not moved the next one does.
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

    // What an earlier run has moved is no less there.
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
