use std::collections::BTreeSet;

use super::{LockerError, Place};
use crate::client::LISTED_COINS_MAX;
use crate::client::wallet::{Filed, Folder, Wallet};
use crate::coin::{Coin, Worth};
use crate::protocol::RaidaId;

/// The coins of a wallet that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All in Bank and Fracked.
    All,
    /// Coins that are worth this.
    Amount(Worth),
    /// These coins.
    Coins(Vec<Coin>),
}

/// How coins were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// As requested.
    AsAsked,
    /// An earlier run was interrupted: the coins that it had begun with and that the wallet still
    /// has, and no others, whatever was asked for.
    Unfinished,
}

/// Chooses the coins that should go to a place, and leaves all others out of everything done to the
/// wallet from here on.
///
/// An interrupted run may have chosen the same amount before, and part of its coins may be at the
/// place already: choosing once more would send more than was meant.
///
/// # Errors
/// The wallet does not have what is asked for; or coins of it were put there before and `more` is
/// not set.
pub fn choose(
    wallet: &mut Wallet,
    place: &Place,
    choice: &Choice,
    more: bool,
) -> Result<Chosen, LockerError> {
    let begun = |filed: &Filed| {
        RaidaId::all().any(|raida| {
            let key = place.an(raida);
            filed.file.an(raida) == key || filed.file.pan(raida) == Some(key)
        })
    };
    if wallet.coins().iter().any(begun) {
        wallet.keep_where(begun);
        return Ok(Chosen::Unfinished);
    }
    let mut before = wallet.handed_over()?;
    before.retain(|file| RaidaId::all().any(|raida| file.an(raida) == place.an(raida)));
    if !more && !before.is_empty() {
        return Err(LockerError::PutBefore {
            coins: before.len(),
            worth: Worth::of(before.iter().map(|file| file.coin)),
        });
    }
    let to_spend = |filed: &&Filed| matches!(filed.folder, Folder::Bank | Folder::Fracked);
    let settled = |filed: &&Filed| to_spend(filed) && !filed.file.is_in_doubt();
    let all = || wallet.coins().iter().filter(settled);
    let chosen: BTreeSet<Coin> = match choice {
        Choice::All => all().map(|filed| filed.file.coin).collect(),
        Choice::Amount(wanted) => {
            let have: Vec<Coin> = all().map(|filed| filed.file.coin).collect();
            amount(&have, *wanted).ok_or_else(|| LockerError::NoSuchAmount {
                wanted: *wanted,
                coins: have.len(),
                have: Worth::of(have.iter().copied()),
            })?
        }
        Choice::Coins(named) => {
            let have: BTreeSet<Coin> = (wallet.coins().iter().filter(to_spend))
                .map(|filed| filed.file.coin)
                .collect();
            if let Some(&missing) = named.iter().find(|coin| !have.contains(coin)) {
                return Err(LockerError::NotInWallet(missing));
            }
            named.iter().copied().collect()
        }
    };
    if chosen.is_empty() {
        return Err(LockerError::NoCoins);
    }
    let (coins, before) = (chosen.len(), before.len());
    check_place(coins, before)?;
    wallet.keep_where(|filed| chosen.contains(&filed.file.coin));
    Ok(Chosen::AsAsked)
}

/// Checks that all coins in one place, a locker or an offer, can be listed and so taken out again.
///
/// # Errors
/// There are too many coins.
pub fn check_place(coins: usize, before: usize) -> Result<(), LockerError> {
    match coins + before > LISTED_COINS_MAX {
        true => Err(LockerError::TooMany { coins, before }),
        false => Ok(()),
    }
}

/// Coins that are worth exactly this; `None` where there are none, or for a worth of zero.
///
/// From the highest denomination down, it takes as many as there are and fit. Each denomination
/// divides the next higher one, so using lower ones instead of a higher one could only take more
/// coins.
fn amount(have: &[Coin], wanted: Worth) -> Option<BTreeSet<Coin>> {
    let mut left = wanted.0;
    let mut by_worth: Vec<Coin> = have.to_vec();
    by_worth.sort_by_key(|coin| (std::cmp::Reverse(coin.denomination), coin.serial_number));
    let chosen = by_worth.into_iter().filter(|coin| {
        let worth = u128::from(coin.denomination.worth_units());
        let fits = worth <= left;
        if fits {
            left -= worth;
        }
        fits
    });
    let chosen: BTreeSet<Coin> = chosen.collect();
    (left == 0 && !chosen.is_empty()).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn coins(texts: &[&str]) -> Vec<Coin> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(have: &[&str], wanted: &str) -> Option<Vec<String>> {
        let chosen = amount(&coins(have), wanted.parse().unwrap())?;
        Some(chosen.iter().map(Coin::to_string).collect())
    }

    #[test]
    fn an_amount_is_made_of_the_fewest_coins_with_the_lowest_numbers() {
        let have = ["1.7", "1.3", "0.1", "0.2", "0.3", "-1.9"];
        let text = |coins: &[&str]| Some(coins.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
        assert_eq!(chosen(&have, "10"), text(&["1.3"]));
        assert_eq!(chosen(&have, "12.1"), text(&["-1.9", "0.1", "0.2", "1.3"]));
        assert_eq!(
            chosen(&have, "23.1"),
            text(&["-1.9", "0.1", "0.2", "0.3", "1.3", "1.7"])
        );
        assert_eq!(chosen(&have, "4"), None);
        assert_eq!(chosen(&have, "0"), None);
        assert_eq!(chosen(&have, "24"), None);
    }

    proptest! {
        /// An amount can be made if it is the worth of some of the coins.
        #[test]
        fn what_can_be_made_is_made(
            have in prop::collection::btree_set((-2i8..2, 0u32..12), 1..20),
            picked in prop::collection::vec(any::<bool>(), 20),
        ) {
            let have: Vec<Coin> = have
                .iter()
                .map(|(dn, sn)| format!("{dn}.{sn}").parse().unwrap())
                .collect();
            let some = have.iter().zip(&picked).filter(|(_, picked)| **picked);
            let wanted = Worth::of(some.map(|(coin, _)| *coin));
            let made = amount(&have, wanted);
            prop_assert_eq!(made.is_some(), wanted.0 > 0);
            if let Some(made) = made {
                prop_assert_eq!(Worth::of(made), wanted);
            }
        }
    }
}
