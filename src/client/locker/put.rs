use std::collections::BTreeSet;

use super::settle::{Sent, settle};
use super::{LockerError, LockerSecret, Said, Stage, TradeSecret};
use crate::client::heal::{look, recognise};
use crate::client::wallet::{Filed, Grade, Mark, Wallet};
use crate::client::{Client, ClientError, Outcome, PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::protocol::lockers::Address;

/// Where coins go.
#[derive(Clone, Debug)]
pub enum Place {
    /// Into a locker.
    Locker(LockerSecret),
    /// Up for sale, paid to this address. On each server all of the coins or none, since less would
    /// be another offer.
    Sale(TradeSecret, Box<Address>),
}

impl Place {
    /// The number that coins there have on a server.
    pub fn an(&self, raida: RaidaId) -> An {
        match self {
            Place::Locker(secret) => secret.key(raida).an(),
            Place::Sale(secret, _) => secret.key(raida).an(),
        }
    }

    fn send(
        &self,
        client: &mut Client,
        raida: RaidaId,
        coins: &[(Coin, An)],
    ) -> (Vec<Outcome>, Option<ClientError>) {
        let (secret, address) = match self {
            Place::Locker(secret) => return client.store_sum(coins, secret.key(raida)),
            Place::Sale(secret, address) => (secret, address),
        };
        let all = |outcome| vec![outcome; coins.len()];
        match client.put_for_sale(coins, secret.key(raida), address) {
            Ok(true) => (all(Outcome::Changed), None),
            Ok(false) => (all(Outcome::Failed), None),
            Err(error) => match error.leaves_doubt() {
                true => (all(Outcome::Unknown), Some(error)),
                false => (all(Outcome::NotAsked), Some(error)),
            },
        }
    }
}

/// The result for coins that should go to a place.
#[derive(Clone, Debug)]
pub struct Put {
    /// Each coin.
    pub coins: Vec<PutCoin>,
    /// The result of each server.
    pub servers: PerRaida<Said>,
}

/// The result for a coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutCoin {
    /// The coin.
    pub coin: Coin,
    /// Number of servers that have it there now.
    pub servers: usize,
    /// Its grade in the wallet, where too few servers have it there and so it has not left the
    /// wallet.
    pub grade: Grade,
}

impl PutCoin {
    /// Whether enough servers have it there: then it has left the wallet's own folders.
    pub fn is_there(&self) -> bool {
        self.servers >= VOTES_NEEDED
    }
}

/// Puts the wallet's coins into a locker, or up for sale, on every server that passes them.
/// [`choose`](super::choose()) decides which coins those are.
///
/// The new numbers are in the files, beside the old ones, before anything is sent. Coins that at
/// least 13 servers have there then move to the folder Lockers; the others stay, with the number in
/// their file that each server has.
///
/// # Errors
/// Fewer than 13 servers answer, or pass a coin, and then nothing is changed; the disk fails.
pub fn put(
    wallet: &mut Wallet,
    place: &Place,
    raidas: &Raidas,
    mut at: impl FnMut(Stage),
) -> Result<Put, LockerError> {
    at(Stage::Looking);
    let silent = look(wallet.coins_mut(), raidas)?;
    recognise(wallet.coins())?;
    check_passed(wallet.coins())?;
    let orders = PerRaida::from_fn(|raida| to_send(wallet.coins(), place, raida));
    propose(wallet, place, &orders);
    // From here on a server may have the new numbers.
    wallet.save()?;
    let servers = orders.count(|order| order.as_ref().is_ok_and(|places| !places.is_empty()));
    at(Stage::Changing {
        coins: wallet.coins().len(),
        servers,
    });
    let sent = send(wallet.coins(), place, &orders, raidas);
    at(Stage::Settling);
    settle(wallet.coins_mut(), &sent, raidas, |outcome| {
        outcome != Outcome::Unknown
    });
    wallet.save()?;

    at(Stage::Filing);
    let coins: Vec<PutCoin> = (wallet.coins().iter())
        .map(|filed| PutCoin {
            coin: filed.file.coin,
            servers: (RaidaId::all())
                .filter(|&raida| is_there(filed, place, raida))
                .count(),
            grade: filed.file.grade(),
        })
        .collect();
    let servers = PerRaida::from_fn(|raida| {
        let here = |filed: &&Filed| is_there(filed, place, raida);
        let error = sent[raida].as_ref().and_then(|sent| sent.error.as_ref());
        let done = wallet.coins().iter().filter(here).count();
        if done == wallet.coins().len() {
            return Said { done, why: None };
        }
        let left_out = || orders[raida].as_ref().err().cloned();
        let why = (silent[raida].clone())
            .or_else(|| error.map(ClientError::to_string))
            .or_else(left_out)
            .unwrap_or_else(|| FAILS.to_owned());
        let why = Some(why);
        Said { done, why }
    });
    let there = coins.iter().filter(|coin| coin.is_there());
    let there: BTreeSet<Coin> = there.map(|coin| coin.coin).collect();
    wallet.hand_over(&there)?;
    wallet.file_by_grade()?;
    Ok(Put { coins, servers })
}

const FAILS: &str = "it has another number for a coin among them, or did not take them";

fn check_passed(coins: &[Filed]) -> Result<(), LockerError> {
    let fails = |filed: &&Filed| filed.file.pown.count(Mark::Passed) < VOTES_NEEDED;
    let failing = coins.iter().filter(fails).map(|filed| filed.file.coin);
    let failing: Vec<Coin> = failing.collect();
    match failing.is_empty() {
        true => Ok(()),
        false => Err(LockerError::NotPassed(failing)),
    }
}

/// The places of the coins that a server has to put there: those that it passes and does not have
/// there already. Or why it puts none, where it cannot put all.
fn to_send(coins: &[Filed], place: &Place, raida: RaidaId) -> Result<Vec<usize>, String> {
    let passes = |filed: &Filed| filed.file.pown.0[raida] == Mark::Passed;
    if let (Place::Sale(..), Some(_)) = (place, coins.iter().find(|filed| !passes(filed))) {
        return Err("it does not pass all of the coins, so they are not on offer there".to_owned());
    }
    let is_to_go = |&at: &usize| passes(&coins[at]) && !is_there(&coins[at], place, raida);
    Ok((0..coins.len()).filter(is_to_go).collect())
}

fn is_there(filed: &Filed, place: &Place, raida: RaidaId) -> bool {
    filed.file.pown.0[raida] == Mark::Passed && filed.file.an(raida) == place.an(raida)
}

fn propose(wallet: &mut Wallet, place: &Place, orders: &PerRaida<Result<Vec<usize>, String>>) {
    let coins = wallet.coins_mut();
    for (raida, order) in orders.iter() {
        for &at in order.iter().flatten() {
            coins[at].file.propose(raida, place.an(raida));
        }
    }
}

fn send(
    coins: &[Filed],
    place: &Place,
    orders: &PerRaida<Result<Vec<usize>, String>>,
    raidas: &Raidas,
) -> PerRaida<Option<Sent>> {
    let order = |raida: RaidaId| {
        let places = orders[raida].as_deref().unwrap_or_default();
        let number = |&at: &usize| (coins[at].file.coin, coins[at].file.an(raida));
        let numbers: Vec<(Coin, An)> = places.iter().map(number).collect();
        (!numbers.is_empty()).then_some((raida, numbers))
    };
    let answers = raidas.ask(raidas.timeout, order, |client, (raida, numbers)| {
        Ok(place.send(client, raida, &numbers))
    });
    let mut answers = answers.into_iter();
    PerRaida::from_fn(|raida| {
        let (_, answer) = answers.next().expect("there is one for each server");
        let places = orders[raida].as_deref().unwrap_or_default();
        let (outcomes, error) =
            answer?.unwrap_or_else(|error| (vec![Outcome::NotAsked; places.len()], Some(error)));
        Some(Sent {
            outcomes: places.iter().copied().zip(outcomes).collect(),
            error,
        })
    })
}
