use std::collections::HashMap;

use foldhash::fast::FixedState;
use subtle::ConstantTimeEq;

use crate::coin::An;

/// Bytes of a locker's key that a request of encryption type 2 names.
pub const KEY_PREFIX_BYTES: usize = 5;

/// The lockers that this shard's coins lie in, by the first bytes of their keys. A locker is the set
/// of coins whose AN is its key, however they came by it (PROTOCOL.md, group 8).
#[derive(Default)]
pub struct Lockers {
    keys: HashMap<[u8; KEY_PREFIX_BYTES], Vec<Locker>, FixedState>,
}

struct Locker {
    key: An,
    coins: u32,
}

impl Lockers {
    /// Counts a coin in or out of lockers, where its old or new AN is a locker's key.
    pub fn replace(&mut self, old: Option<An>, new: Option<An>) {
        if let Some(key) = old.filter(An::is_locker_key) {
            self.remove(key);
        }
        if let Some(key) = new.filter(An::is_locker_key) {
            self.insert(key);
        }
    }

    /// Keys that start with these bytes.
    pub fn keys(&self, prefix: [u8; KEY_PREFIX_BYTES]) -> Vec<An> {
        let lockers = self.keys.get(&prefix).into_iter().flatten();
        lockers.map(|locker| locker.key).collect()
    }

    fn insert(&mut self, key: An) {
        let lockers = self.keys.entry(prefix(&key)).or_default();
        match find(lockers, &key) {
            Some(at) => lockers[at].coins += 1,
            None => lockers.push(Locker { key, coins: 1 }),
        }
    }

    fn remove(&mut self, key: An) {
        let lockers = self.keys.get_mut(&prefix(&key));
        let lockers = lockers.expect("a coin under a locker's key was counted in");
        let at = find(lockers, &key).expect("a coin under a locker's key was counted in");
        lockers[at].coins -= 1;
        if lockers[at].coins == 0 {
            lockers.swap_remove(at);
        }
        if lockers.is_empty() {
            self.keys.remove(&prefix(&key));
        }
    }
}

fn find(lockers: &[Locker], key: &An) -> Option<usize> {
    let same = |locker: &Locker| bool::from(locker.key.expose().ct_eq(key.expose()));
    lockers.iter().position(same)
}

fn prefix(key: &An) -> [u8; KEY_PREFIX_BYTES] {
    let bytes = key.expose();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> An {
        let mut bytes = [7; 16];
        bytes[11] = last;
        bytes[12..].fill(0xff);
        An::new(bytes)
    }

    #[test]
    fn a_locker_is_there_while_a_coin_is_in_it() {
        let mut lockers = Lockers::default();
        lockers.replace(None, Some(key(1)));
        lockers.replace(Some(An::ZERO), Some(key(1)));
        lockers.replace(None, Some(key(2)));
        assert_eq!(lockers.keys([7; 5]).len(), 2);
        lockers.replace(Some(key(1)), Some(An::ZERO));
        assert_eq!(lockers.keys([7; 5]).len(), 2);
        lockers.replace(Some(key(1)), None);
        assert!(lockers.keys([7; 5]) == [key(2)]);
        lockers.replace(Some(key(2)), Some(key(2)));
        lockers.replace(Some(key(2)), None);
        assert!(lockers.keys([7; 5]).is_empty() && lockers.keys.is_empty());
    }
}
