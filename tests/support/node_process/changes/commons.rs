//! What the connections of one load know together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use raida::coin::Coin;
use raida::protocol::lockers::{LockerKey, PublicId, TradeKey};

use super::super::moved_clock::MovedClock;
use super::Value;
use super::healing::KeyFix;

/// What is everybody's.
#[derive(Default)]
pub(super) struct Commons {
    /// Coins that anybody changes: the newest value anyone has an answer for, and how many changes
    /// it is away from the first.
    pub coins: Mutex<HashMap<usize, (u64, Value)>>,
    /// Offers that were answered, and nobody has an answer to taking them.
    pub lots: Mutex<BTreeMap<Value, Lot>>,
    /// Lockers that anybody stores coins in.
    pub lockers: Vec<LockerKey>,
    /// Coins that may still be taken out of circulation.
    pub to_free: AtomicUsize,
    /// Keys under which somebody has tried to free what is for sale: once each, since a client that
    /// sends the same request as another gets the other's answer.
    pub freeing: Mutex<HashSet<u128>>,
    /// The node's clock, where the test moves it.
    pub clock: Option<Arc<MovedClock>>,
    /// Keys that may still be fixed.
    pub to_fix: AtomicUsize,
    /// Fixes whose tickets were accepted, the newest last.
    pub key_fixes: Mutex<Vec<KeyFix>>,
    /// Fixes without an answer, of earlier loads, which were not made.
    pub open_key_fixes: Mutex<Vec<KeyFix>>,
    /// Which coins were ever to come under which locker's key: none twice.
    entered: Mutex<HashSet<(usize, Value)>>,
}

/// Coins on offer.
#[derive(Clone)]
pub(super) struct Lot {
    pub key: TradeKey,
    /// In the order in which they were offered.
    pub coins: Vec<usize>,
    /// What listings call it.
    pub id: Option<PublicId>,
    /// How many have tried to take it.
    pub tried: usize,
}

impl Commons {
    /// Only these lockers, this many coins to free and this many keys to fix.
    pub fn new(lockers: Vec<LockerKey>, to_free: usize, to_fix: usize) -> Commons {
        Commons {
            lockers,
            to_free: AtomicUsize::new(to_free),
            freeing: Mutex::default(),
            to_fix: AtomicUsize::new(to_fix),
            ..Commons::default()
        }
    }

    /// Notes that these coins will come under a key. `false` where one of them was noted before: a
    /// coin found there later would not tell which change put it there.
    pub fn enter(&self, coins: &[usize], key: Value) -> bool {
        let mut entered = self.entered.lock().unwrap();
        if coins.iter().any(|&coin| entered.contains(&(coin, key))) {
            return false;
        }
        entered.extend(coins.iter().map(|&coin| (coin, key)));
        true
    }
}

/// The coins of a lot, as a node lists them.
pub(super) fn coins_of(lot: &Lot, coins: &[Coin]) -> Vec<Coin> {
    lot.coins.iter().map(|&coin| coins[coin]).collect()
}
