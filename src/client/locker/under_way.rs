//! Which coins a wallet is taking out of lockers, kept from one run to the next. Once a coin's file
//! has the new numbers alone, nothing in it says any more which locker it came from. A run that
//! ends at that point has neither filed the coin nor reported it.
//!
//! It is kept in the wallet's folder as `takes-under-way.json` while there are such coins. The file
//! holds no secret; `locker` is the [`LockerSecret::name`] of a locker:
//!
//! ```json
//! { "format": 1, "takes": [{ "locker": "5f0c1d...", "coins": ["1.7", "1.8"] }] }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{LockerError, LockerSecret};
use crate::client::wallet::Wallet;
use crate::coin::Coin;
use crate::plain_file;
use crate::protocol::RaidaId;

/// Name of the file in the wallet's folder.
pub const TAKES_FILE: &str = "takes-under-way.json";

const FORMAT: u64 = 1;
/// A list of the maximum number of coins of a locker takes 2 MB.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Coins by the name of the locker that they are taken from.
#[derive(Debug, Default)]
pub(super) struct UnderWay(BTreeMap<String, BTreeSet<Coin>>);

#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    takes: Vec<Take>,
}

#[derive(Serialize, Deserialize)]
struct Take {
    locker: String,
    coins: Vec<String>,
}

impl UnderWay {
    /// Reads what a wallet has begun; nothing, where there is no file of it.
    ///
    /// # Errors
    /// The file cannot be read or understood; it is left as it is.
    pub(super) fn read(wallet: &Wallet) -> Result<UnderWay, LockerError> {
        let file = wallet.root().join(TAKES_FILE);
        let text = match plain_file::read_text(&file, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(UnderWay::default());
            }
            Err(error) => return Err(unusable(&file, error.to_string())),
        };
        UnderWay::parse(&text).map_err(|what| unusable(&file, what))
    }

    /// The coins of a locker that a take has begun with.
    pub(super) fn of(&self, secret: &LockerSecret) -> BTreeSet<Coin> {
        self.0.get(&secret.name()).cloned().unwrap_or_default()
    }

    /// Brings to disk that a take of these coins out of a locker begins now.
    ///
    /// # Errors
    /// The disk fails or is full.
    pub(super) fn begin(
        &mut self,
        wallet: &Wallet,
        secret: &LockerSecret,
        coins: BTreeSet<Coin>,
    ) -> Result<(), LockerError> {
        if coins.is_empty() || self.of(secret) == coins {
            return Ok(());
        }
        self.0.insert(secret.name(), coins);
        self.save(wallet)
    }

    fn save(&self, wallet: &Wallet) -> Result<(), LockerError> {
        if self.0.is_empty() {
            return Ok(wallet.drop_beside(TAKES_FILE)?);
        }
        let take = |(locker, coins): (&String, &BTreeSet<Coin>)| Take {
            locker: locker.clone(),
            coins: coins.iter().map(Coin::to_string).collect(),
        };
        let document = Document {
            format: FORMAT,
            takes: self.0.iter().map(take).collect(),
        };
        let text = serde_json::to_string(&document);
        let text = text.expect("there are only numbers and texts in it") + "\n";
        Ok(wallet.keep_beside(TAKES_FILE, Zeroizing::new(text.into_bytes()))?)
    }

    fn parse(text: &str) -> Result<UnderWay, String> {
        let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if document.format != FORMAT {
            return Err(format!(
                "it is of format {} and this program knows format {FORMAT}",
                document.format
            ));
        }
        let take = |take: Take| {
            let coins = take.coins.iter();
            let coins = coins.map(|coin| coin.parse().map_err(|_| format!("{coin} is no coin")));
            Ok((take.locker, coins.collect::<Result<_, String>>()?))
        };
        let takes = document.takes.into_iter().map(take);
        takes.collect::<Result<_, String>>().map(UnderWay)
    }
}

/// Whether an earlier run has begun to take coins of a locker into a wallet, and has not reported
/// them.
///
/// # Errors
/// The file cannot be read.
pub fn is_begun(wallet: &Wallet, secret: &LockerSecret) -> Result<bool, LockerError> {
    let begun = UnderWay::read(wallet)?.of(secret);
    let keys = super::take::keys(secret);
    Ok((wallet.coins().iter()).any(|filed| {
        begun.contains(&filed.file.coin)
            || RaidaId::all()
                .any(|raida| filed.file.an(raida) == keys[raida] && filed.file.pan(raida).is_some())
    }))
}

/// Forgets the coins of a locker that a take had begun with: the result of [`take`](super::take())
/// was reported.
///
/// # Errors
/// The file cannot be read or changed; then the next take of the same locker reports its coins
/// again.
pub fn forget_begun(wallet: &Wallet, secret: &LockerSecret) -> Result<(), LockerError> {
    let mut under_way = UnderWay::read(wallet)?;
    match under_way.0.remove(&secret.name()) {
        Some(_) => under_way.save(wallet),
        None => Ok(()),
    }
}

fn unusable(file: &Path, what: String) -> LockerError {
    LockerError::Takes {
        file: file.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::wallet::Access;

    #[test]
    fn what_is_begun_is_read_again_until_it_is_forgotten_and_names_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let wallet = Wallet::open(folder.path(), Access::Create).unwrap();
        let file = folder.path().join(TAKES_FILE);
        let (one, other) = (LockerSecret::draw().unwrap(), LockerSecret::draw().unwrap());
        let coins = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        for (secret, coins) in [(&one, coins(&["1.7", "-8.3"])), (&other, coins(&["1.7"]))] {
            let mut under_way = UnderWay::read(&wallet).unwrap();
            under_way.begin(&wallet, secret, coins).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&one.expose()));
        let under_way = UnderWay::read(&wallet).unwrap();
        assert_eq!(under_way.of(&one), coins(&["1.7", "-8.3"]));
        assert_eq!(under_way.of(&other), coins(&["1.7"]));
        forget_begun(&wallet, &one).unwrap();
        let under_way = UnderWay::read(&wallet).unwrap();
        assert!(under_way.of(&one).is_empty() && !under_way.of(&other).is_empty());
        forget_begun(&wallet, &other).unwrap();
        forget_begun(&wallet, &other).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_file_that_is_not_understood_is_named_with_what_to_do_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let wallet = Wallet::open(folder.path(), Access::Create).unwrap();
        let file = folder.path().join(TAKES_FILE);
        for wrong in [
            "",
            r#"{"format":2,"takes":[]}"#,
            r#"{"format":1,"takes":[{"locker":"a","coins":["9.9"]}]}"#,
        ] {
            std::fs::write(&file, wrong).unwrap();
            let error = UnderWay::read(&wallet).unwrap_err().to_string();
            assert!(
                error.contains(TAKES_FILE) && error.contains("raida heal"),
                "{error}"
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), wrong);
        }
    }
}
