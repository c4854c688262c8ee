//! Coins as commands take and show them.

use std::path::Path;

use serde_json::{Value, json};

use super::CliError;
use crate::client::{CoinListReader, CoinRecord, Months};
use crate::coin::{An, Coin};

/// The coins of a CSV with their authenticity numbers.
///
/// # Errors
/// The file cannot be read, or is no CSV of coins.
pub fn read_coins(file: &Path) -> Result<Vec<(Coin, An)>, CliError> {
    let coins = CoinListReader::open(file, Months::Optional)?
        .map(|record| record.map(|CoinRecord { coin, an, .. }| (coin, an)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(coins)
}

/// A coin in a report.
pub fn json_of(coin: Coin) -> Value {
    json!({
        "denomination": coin.denomination.exponent(),
        "serial_number": coin.serial_number.get(),
    })
}
