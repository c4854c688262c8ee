use std::collections::{BTreeMap, BTreeSet};

use super::settle::{Sent, settle};
use super::under_way::UnderWay;
use super::{LockerError, LockerSecret, Peeked, Said, Stage, peek, said};
use crate::client::wallet::{CoinFile, Filed, Folder, Grade, Mark, PownString, Wallet};
use crate::client::{ClientError, Outcome, PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::{Found, VOTES_NEEDED};

/// The result for the coins of a locker.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The coins that belong to the wallet now, or were on their way there.
    pub coins: Vec<TakenCoin>,
    /// Coins that still lie in the locker.
    pub left: Vec<LeftIn>,
    /// The result of each server: how many of the coins it passes now.
    pub servers: PerRaida<Said>,
}

/// The result for a coin that should be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenCoin {
    /// The coin.
    pub coin: Coin,
    /// What the servers say of it.
    pub pown: PownString,
    /// The resulting grade: where it is filed.
    pub grade: Grade,
    /// Whether a server may still have either of two numbers; the file keeps both.
    pub in_doubt: bool,
}

/// A coin that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftIn {
    /// The coin.
    pub coin: Coin,
    /// Number of servers that have it in the locker.
    pub servers: usize,
    /// Whether the wallet has a file of it with other numbers than the locker's. Otherwise too few
    /// servers have it for it to be worth anything.
    pub has_other_file: bool,
}

impl LeftIn {
    /// Whether it is worth something in the locker: a wrong server can name any coin.
    pub fn counts(&self) -> bool {
        self.servers >= VOTES_NEEDED
    }
}

/// Takes coins out of a locker into a wallet: each server gives them numbers that nobody else
/// knows. `only` names the coins, where not all should be taken.
///
/// The new numbers are in files in Limbo, beside the locker's key, before anything is sent. The
/// next run with the same secret completes a run that was interrupted: it sends exactly the numbers
/// that are in the files, since a request of the first may still be carried out, files what the
/// first had not filed, and returns those coins too. When the caller has reported them,
/// [`forget_begun`](super::forget_begun) removes them from the coins begun with.
///
/// A coin that fewer than 13 servers have in the locker stays there, unless an earlier run had
/// begun with it.
///
/// # Errors
/// Fewer than 13 servers say what lies in the locker, and then nothing is changed; the disk fails.
pub fn take(
    wallet: &mut Wallet,
    secret: &LockerSecret,
    only: Option<&BTreeSet<Coin>>,
    raidas: &Raidas,
    mut draw: impl FnMut() -> Result<An, getrandom::Error>,
    mut at: impl FnMut(Stage),
) -> Result<Taken, LockerError> {
    at(Stage::Looking);
    let mut under_way = UnderWay::read(wallet)?;
    let peeked = peek(secret, raidas);
    peeked.check()?;
    let keys = keys(secret);
    let lies = where_coins_lie(&peeked, only);
    let (going, left) = sort_out(wallet, &lies, &keys, &under_way.of(secret));
    let new: Vec<CoinFile> = (going.iter())
        .filter(|coin| !has(wallet, **coin))
        .map(|&coin| {
            new_file(
                coin,
                raidas.coin_id,
                &keys,
                &peeked,
                &lies[&coin],
                &mut draw,
            )
        })
        .collect::<Result<_, _>>()?;
    wallet.keep_where(|filed| going.contains(&filed.file.coin));
    for filed in wallet.coins_mut() {
        if let Some(lies) = lies.get(&filed.file.coin) {
            propose(&mut filed.file, &keys, lies, &mut draw)?;
        }
    }
    wallet.save()?;
    wallet.add(Folder::Limbo, new)?;
    under_way.begin(wallet, secret, going)?;

    let orders = PerRaida::from_fn(|raida| to_send(wallet.coins(), &lies, raida));
    at(Stage::Changing {
        coins: wallet.coins().len(),
        servers: orders.count(|places| !places.is_empty()),
    });
    let sent = send(wallet.coins(), secret, &orders, raidas);
    at(Stage::Settling);
    settle(wallet.coins_mut(), &sent, raidas, |_| false);

    at(Stage::Filing);
    wallet.file_by_grade()?;
    let coins: Vec<TakenCoin> = (wallet.coins().iter())
        .map(|filed| TakenCoin {
            coin: filed.file.coin,
            pown: filed.file.pown,
            grade: filed.file.grade(),
            in_doubt: filed.file.is_in_doubt(),
        })
        .collect();
    // It does not matter which locker this wallet put them into before: 13 servers have other
    // numbers now.
    let back = coins
        .iter()
        .filter(|coin| coin.pown.count(Mark::Passed) >= VOTES_NEEDED);
    wallet.forget_handed_over(back.map(|coin| coin.coin))?;
    let servers = PerRaida::from_fn(|raida| server(&coins, &peeked, &sent, raida));
    Ok(Taken {
        coins,
        left,
        servers,
    })
}

/// The numbers that the coins of a locker have.
pub(super) fn keys(secret: &LockerSecret) -> PerRaida<An> {
    PerRaida::from_fn(|raida| secret.key(raida).an())
}

type Lies = BTreeMap<Coin, PerRaida<bool>>;

/// On which servers each coin lies in the locker.
fn where_coins_lie(peeked: &Peeked, only: Option<&BTreeSet<Coin>>) -> Lies {
    let mut lies = Lies::new();
    for raida in RaidaId::all() {
        let coins = peeked.on(raida).iter();
        for &coin in coins.filter(|coin| only.is_none_or(|only| only.contains(coin))) {
            lies.entry(coin).or_insert(PerRaida::from_fn(|_| false))[raida] = true;
        }
    }
    lies
}

/// The coins to take: those that enough servers have in the locker, and those whose file in the
/// wallet was made by an earlier run, whatever is known of them by now. The latter are those in
/// `begun` and those whose file still has a key of the locker.
fn sort_out(
    wallet: &Wallet,
    lies: &Lies,
    keys: &PerRaida<An>,
    begun: &BTreeSet<Coin>,
) -> (BTreeSet<Coin>, Vec<LeftIn>) {
    let is_under_way = |file: &CoinFile| {
        RaidaId::all().any(|raida| file.an(raida) == keys[raida] && file.pan(raida).is_some())
    };
    let under_way = wallet.coins().iter().map(|filed| &filed.file);
    let mut going: BTreeSet<Coin> = under_way
        .filter(|file| is_under_way(file) || begun.contains(&file.coin))
        .map(|file| file.coin)
        .collect();
    let mut left = vec![];
    for (&coin, lies) in lies {
        let servers = lies.count(|&lies| lies);
        let file = find(wallet, coin).map(|filed| &filed.file);
        let knows_keys = |file: &CoinFile| {
            (lies.iter().filter(|(_, lies)| **lies)).all(|(raida, _)| {
                file.an(raida) == keys[raida] || file.pan(raida) == Some(keys[raida])
            })
        };
        match file {
            Some(file) if knows_keys(file) => drop(going.insert(coin)),
            None if servers >= VOTES_NEEDED => drop(going.insert(coin)),
            _ if going.contains(&coin) => {}
            file => left.push(LeftIn {
                coin,
                servers,
                has_other_file: file.is_some(),
            }),
        }
    }
    (going, left)
}

/// A file of a coin as it lies in the locker, with the number that each server should give it. For
/// a server that does not have it there, or did not answer, the file has the locker's key, which is
/// as good a guess as any: healing repairs what it cannot know.
fn new_file(
    coin: Coin,
    coin_id: u16,
    keys: &PerRaida<An>,
    peeked: &Peeked,
    lies: &PerRaida<bool>,
    draw: &mut impl FnMut() -> Result<An, getrandom::Error>,
) -> Result<CoinFile, getrandom::Error> {
    let marks = PerRaida::from_fn(|raida| match (lies[raida], &peeked.0[raida]) {
        (true, _) => Mark::Passed,
        (false, Ok(_)) => Mark::Failed,
        (false, Err(_)) => Mark::NoAnswer,
    });
    let mut file = CoinFile::new(coin, coin_id, *keys, PownString(marks));
    propose(&mut file, keys, lies, draw)?;
    Ok(file)
}

/// Has every server that has the coin in the locker give it a new number.
fn propose(
    file: &mut CoinFile,
    keys: &PerRaida<An>,
    lies: &PerRaida<bool>,
    draw: &mut impl FnMut() -> Result<An, getrandom::Error>,
) -> Result<(), getrandom::Error> {
    for (raida, _) in lies.iter().filter(|(_, lies)| **lies) {
        // A put was interrupted: the server has just said that it was carried out there.
        if file.pan(raida) == Some(keys[raida]) {
            file.settle(raida, Found::Pan);
        }
        if file.an(raida) == keys[raida] && file.pan(raida).is_none() {
            file.propose(raida, draw()?);
        }
    }
    Ok(())
}

/// The places of the coins that a server should give new numbers.
fn to_send(coins: &[Filed], lies: &Lies, raida: RaidaId) -> Vec<usize> {
    let is_to_go = |&place: &usize| {
        let file = &coins[place].file;
        file.pan(raida).is_some() && lies.get(&file.coin).is_some_and(|lies| lies[raida])
    };
    (0..coins.len()).filter(is_to_go).collect()
}

fn send(
    coins: &[Filed],
    secret: &LockerSecret,
    orders: &PerRaida<Vec<usize>>,
    raidas: &Raidas,
) -> PerRaida<Option<Sent>> {
    let order = |raida: RaidaId| {
        let number = |&place: &usize| {
            let file = &coins[place].file;
            Some((file.coin, file.pan(raida)?))
        };
        let numbers: Vec<(Coin, An)> = orders[raida].iter().filter_map(number).collect();
        (!numbers.is_empty()).then_some((raida, numbers))
    };
    let answers = raidas.ask(raidas.timeout, order, |client, (raida, numbers)| {
        Ok(client.remove(secret.key(raida), &numbers))
    });
    let mut answers = answers.into_iter();
    PerRaida::from_fn(|raida| {
        let (_, answer) = answers.next().expect("there is one for each server");
        let places = &orders[raida];
        let (outcomes, error) =
            answer?.unwrap_or_else(|error| (vec![Outcome::NotAsked; places.len()], Some(error)));
        Some(Sent {
            outcomes: places.iter().copied().zip(outcomes).collect(),
            error,
        })
    })
}

fn server(
    coins: &[TakenCoin],
    peeked: &Peeked,
    sent: &PerRaida<Option<Sent>>,
    raida: RaidaId,
) -> Said {
    let passes = |coin: &&TakenCoin| coin.pown.0[raida] == Mark::Passed;
    let done = coins.iter().filter(passes).count();
    if done == coins.len() {
        return Said { done, why: None };
    }
    if let Err(error) = &peeked.0[raida] {
        return Said {
            done,
            ..said(error)
        };
    }
    let error = sent[raida].as_ref().and_then(|sent| sent.error.as_ref());
    let lacks = || "it has not all of the coins in the locker".to_owned();
    Said {
        done,
        why: Some(error.map_or_else(lacks, ClientError::what)),
    }
}

fn find(wallet: &Wallet, coin: Coin) -> Option<&Filed> {
    let place = (wallet.coins()).binary_search_by_key(&coin, |filed| filed.file.coin);
    place.ok().map(|place| &wallet.coins()[place])
}

fn has(wallet: &Wallet, coin: Coin) -> bool {
    find(wallet, coin).is_some()
}
