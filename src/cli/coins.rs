//! Coins as commands take and show them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::CliError;
use crate::client::{CoinListReader, CoinRecord, Months};
use crate::coin::{An, Coin};
use crate::shown::Shown;

/// Why a server may take no sum as a proof of the coins of a CSV: several coins have the same
/// number. In pairs they leave nothing in the sum (docs/protocol.md, "Sums").
#[derive(Debug, thiserror::Error)]
pub enum SharedKey {
    /// They lie in a locker.
    #[error(
        "{coins} coins in {file} have one number, a locker's key, and the sum that a server takes for a proof says nothing of them in pairs, so nothing was sent; with that key `raida locker move` puts them into another locker, and `raida locker take` gives each a number of its own",
        file = file.shown()
    )]
    Locker {
        /// The CSV.
        file: PathBuf,
        /// How many.
        coins: usize,
    },
    /// The number is no key.
    #[error(
        "{coins} coins in {file} have one number, and the sum of their numbers is no proof of them, so nothing was sent; `raida pown` gives each coin a number of its own",
        file = file.shown()
    )]
    Number {
        /// The CSV.
        file: PathBuf,
        /// How many.
        coins: usize,
    },
    /// They are for sale.
    #[error(
        "{coins} coins in {file} have one number, an offer's key, and move only with the offer, so nothing was sent; with that key `raida trade cancel --into` takes it back into a locker",
        file = file.shown()
    )]
    Offer {
        /// The CSV.
        file: PathBuf,
        /// How many.
        coins: usize,
    },
}

/// Checks that a server takes the sum of these coins' numbers, which a CSV says, as a proof of
/// them.
///
/// # Errors
/// Several coins have the same number.
pub fn check_sum(coins: &[(Coin, An)], file: &Path) -> Result<(), SharedKey> {
    let mut keys: BTreeMap<[u8; An::SIZE], BTreeSet<Coin>> = BTreeMap::new();
    for (coin, an) in coins {
        keys.entry(*an.expose()).or_default().insert(*coin);
    }
    let Some((key, sharing)) = keys.into_iter().find(|(_, coins)| coins.len() > 1) else {
        return Ok(());
    };
    let (file, coins) = (file.to_owned(), sharing.len());
    Err(match An::new(key) {
        key if key.is_locker_key() => SharedKey::Locker { file, coins },
        key if key.is_trade_key() => SharedKey::Offer { file, coins },
        _ => SharedKey::Number { file, coins },
    })
}

/// The coins of a CSV with their authenticity numbers.
///
/// # Errors
/// The file cannot be read, is no CSV of coins, or has none in it.
pub fn read_coins(file: &Path) -> Result<Vec<(Coin, An)>, CliError> {
    let records = read_records(file)?.into_iter();
    Ok(records
        .map(|CoinRecord { coin, an, .. }| (coin, an))
        .collect())
}

/// The error for a CSV without a coin.
pub fn no_coin_in(file: &Path) -> CliError {
    CliError::Unfinished(format!(
        "{} has no coin in it, so nothing was asked: it is the first line alone, which names the columns",
        file.shown()
    ))
}

/// The lines of a CSV of coins, one at least.
///
/// # Errors
/// As [`read_coins`].
pub fn read_records(file: &Path) -> Result<Vec<CoinRecord>, CliError> {
    let records = CoinListReader::open(file, Months::Optional)?.collect::<Result<Vec<_>, _>>()?;
    match records.is_empty() {
        true => Err(no_coin_in(file)),
        false => Ok(records),
    }
}

/// Coins in a report that is written while it is composed: there may be many.
#[derive(Clone, Copy)]
pub struct CoinList<'a>(pub &'a [Coin]);

#[derive(Serialize)]
struct NamedCoin {
    denomination: i8,
    serial_number: u32,
}

impl Serialize for CoinList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|coin| NamedCoin {
            denomination: coin.denomination.exponent(),
            serial_number: coin.serial_number.get(),
        }))
    }
}

/// A coin in a report.
pub fn json_of(coin: Coin) -> Value {
    json!({
        "denomination": coin.denomination.exponent(),
        "serial_number": coin.serial_number.get(),
    })
}
