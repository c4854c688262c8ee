use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Parts of a table, which grow one by one: growing goes through all of a part, and so never holds
/// a core up for long.
const PARTS: usize = 256;

/// Finds numbers of an [`Arena`](super::arena::Arena) by the items that have them. Its hashes are
/// seeded at random, because clients that store coins choose the keys. Nothing visible depends on
/// the hashes.
pub(super) struct Table {
    parts: Box<[HashTable<u32>]>,
    seed: RandomState,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
            seed: RandomState::default(),
        }
    }

    #[inline]
    pub(super) fn find(&self, key: &impl Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.seed.hash_one(key);
        let found = self.parts[part(hash)].find(hash, |&number| is_it(number));
        found.copied()
    }

    /// Inserts a number that is not in it yet. `key_of` gives what a number is found by.
    pub(super) fn insert<K: Hash>(&mut self, key: &K, number: u32, key_of: impl Fn(u32) -> K) {
        let hash = self.seed.hash_one(key);
        let seed = &self.seed;
        self.parts[part(hash)].insert_unique(hash, number, |&other| seed.hash_one(key_of(other)));
    }

    /// Replaces `old` by `new`, which has the same key.
    pub(super) fn replace(&mut self, key: &impl Hash, old: u32, new: u32) {
        let hash = self.seed.hash_one(key);
        let found = self.parts[part(hash)].find_mut(hash, |&number| number == old);
        *found.expect("it was put in") = new;
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, key: &impl Hash, number: u32) {
        let hash = self.seed.hash_one(key);
        let found = self.parts[part(hash)].find_entry(hash, |&other| other == number);
        found.expect("it was put in").remove();
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(HashTable::allocation_size).sum()
    }
}

/// The part that a hash belongs to, by bits that the table within does not look at.
#[inline]
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
