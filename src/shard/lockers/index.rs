use subtle::ConstantTimeEq;

use super::{
    arena::{Arena, NONE},
    table::Table,
};
use crate::{
    coin::{An, COINS_PER_PAGE, Coin, LockerPrefix, PageId},
    store::book::Stamp,
};

/// Which coins lie under which marked number, in the order stored. What is found, is found in constant
/// time: a key, the keys that start with five bytes, a coin.
pub(super) struct Index {
    lockers: Arena<Locker>,
    nodes: Arena<Node>,
    by_key: Table,
    /// The oldest of the lockers that share a prefix; they are a ring.
    by_prefix: Table,
    by_coin: Table,
    counts: IndexCounts,
}

/// Lockers whose keys end FF FF FF FF, and what is in them; not what is for sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexCounts {
    /// Lockers.
    pub lockers: u64,
    /// Coins in them.
    pub coins: u64,
    /// Their worth in the smallest unit.
    pub value: u64,
    /// Memory that the index takes, in bytes, trade lockers included.
    pub bytes: u64,
}

/// A place within a locker.
#[derive(Clone, Copy, Debug)]
pub struct Place(u32);

#[derive(Clone, Copy)]
struct Locker {
    key: An,
    first: u32,
    last: u32,
    coins: u32,
    /// The neighbours in the ring of those with the same prefix, by age.
    older: u32,
    newer: u32,
}

/// A coin under a key, between those stored before and after it.
#[derive(Clone, Copy)]
struct Node {
    moment: u64,
    /// Page index and place; [`NONE`] where the node is not in use.
    coin: u32,
    rank: u32,
    before: u32,
    after: u32,
}

impl Default for Locker {
    fn default() -> Locker {
        Locker {
            key: An::ZERO,
            first: NONE,
            last: NONE,
            coins: 0,
            older: NONE,
            newer: NONE,
        }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node {
            moment: 0,
            coin: NONE,
            rank: 0,
            before: NONE,
            after: NONE,
        }
    }
}

impl Node {
    fn stamp(&self) -> Stamp {
        Stamp {
            moment: self.moment,
            rank: self.rank,
        }
    }
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            lockers: Arena::new(),
            nodes: Arena::new(),
            by_key: Table::new(),
            by_prefix: Table::new(),
            by_coin: Table::new(),
            counts: IndexCounts::default(),
        }
    }

    /// Whether any coin lies under this key.
    #[inline]
    pub(super) fn has(&self, key: &An) -> bool {
        self.find(key).is_some()
    }

    /// How many coins lie under this key.
    #[inline]
    pub(super) fn len(&self, key: &An) -> usize {
        let locker = self.find(key);
        locker.map_or(0, |locker| self.lockers.get(locker).coins as usize)
    }

    /// The coins under a key, in the order stored.
    #[inline]
    pub(super) fn coins(&self, key: &An) -> impl Iterator<Item = Coin> {
        let first = self
            .find(key)
            .map_or(NONE, |number| self.lockers.get(number).first);
        let mut next = first;
        std::iter::from_fn(move || {
            let node = (next != NONE).then(|| self.nodes.get(next))?;
            next = node.after;
            Some(unpack(node.coin))
        })
    }

    /// Appends coins under a key, in the order stored, from a place on; gives where there are more.
    pub(super) fn stretch(
        &self,
        key: &An,
        from: Option<Place>,
        most: usize,
        out: &mut Vec<Coin>,
    ) -> Option<Place> {
        let first = || {
            self.find(key)
                .map_or(NONE, |number| self.lockers.get(number).first)
        };
        let mut next = from.map_or_else(first, |Place(node)| node);
        for _ in 0..most {
            if next == NONE {
                return None;
            }
            let node = self.nodes.get(next);
            out.push(unpack(node.coin));
            next = node.after;
        }
        (next != NONE).then_some(Place(next))
    }

    /// The keys that start with these bytes, the oldest locker first; those of trade lockers too.
    #[inline]
    pub(super) fn keys(&self, prefix: LockerPrefix) -> impl Iterator<Item = An> {
        let oldest = self.oldest(prefix);
        let mut next = oldest;
        std::iter::from_fn(move || {
            let locker = self.lockers.get(next?);
            next = Some(locker.newer).filter(|&newer| Some(newer) != oldest);
            Some(locker.key)
        })
    }

    /// Puts a coin, which lies under no key here, under this one.
    pub(super) fn insert(&mut self, key: An, coin: Coin, stamp: Stamp) {
        let locker = self.find(&key).unwrap_or_else(|| self.open(key));
        let after = self.place_after(locker, stamp);
        let before = match after {
            NONE => self.lockers.get(locker).last,
            after => self.nodes.get(after).before,
        };
        let node = self.nodes.insert(Node {
            moment: stamp.moment,
            coin: pack(coin),
            rank: stamp.rank,
            before,
            after,
        });
        match before {
            NONE => self.lockers.get_mut(locker).first = node,
            before => self.nodes.get_mut(before).after = node,
        }
        match after {
            NONE => self.lockers.get_mut(locker).last = node,
            after => self.nodes.get_mut(after).before = node,
        }
        self.lockers.get_mut(locker).coins += 1;
        let nodes = &self.nodes;
        self.by_coin
            .insert(&pack(coin), node, |node| nodes.get(node).coin);
        if key.is_locker_key() {
            self.counts.coins += 1;
            self.counts.value = self
                .counts
                .value
                .saturating_add(coin.denomination.worth_units());
        }
    }

    /// Takes a coin, which lies under this key, away from it.
    ///
    /// # Panics
    /// When it does not: the index has lost track of what it is told.
    pub(super) fn remove(&mut self, key: &An, coin: Coin) {
        let locker = self
            .find(key)
            .expect("a coin leaves a locker that is there");
        let packed = pack(coin);
        let nodes = &self.nodes;
        let number = self
            .by_coin
            .find(&packed, |node| nodes.get(node).coin == packed);
        let number = number.expect("a coin leaves the locker that it is in");
        self.by_coin.remove(&packed, number);
        let Node { before, after, .. } = *self.nodes.get(number);
        match before {
            NONE => {
                assert!(
                    self.lockers.get(locker).first == number,
                    "the coin is in another locker"
                );
                self.lockers.get_mut(locker).first = after;
            }
            before => self.nodes.get_mut(before).after = after,
        }
        match after {
            NONE => {
                assert!(
                    self.lockers.get(locker).last == number,
                    "the coin is in another locker"
                );
                self.lockers.get_mut(locker).last = before;
            }
            after => self.nodes.get_mut(after).before = before,
        }
        self.nodes.remove(number);
        if key.is_locker_key() {
            self.counts.coins -= 1;
            self.counts.value = self
                .counts
                .value
                .saturating_sub(coin.denomination.worth_units());
        }
        let left = &mut self.lockers.get_mut(locker).coins;
        *left -= 1;
        if *left == 0 {
            self.close(locker);
        }
    }

    pub(super) fn counts(&self) -> IndexCounts {
        let tables = [&self.by_key, &self.by_prefix, &self.by_coin];
        let tables: usize = tables.into_iter().map(Table::bytes).sum();
        let bytes = self.lockers.bytes() + self.nodes.bytes() + tables;
        IndexCounts {
            bytes: bytes as u64,
            ..self.counts
        }
    }

    /// One past the number of the last coin.
    pub(super) fn end(&self) -> u32 {
        self.nodes.end()
    }

    /// The coin with this number, where there is one, and when it was stored. A coin that stays keeps its
    /// number, so that whoever goes through them with turns of others in between misses none that was
    /// there all the time.
    pub(super) fn at(&self, number: u32) -> Option<(Coin, Stamp)> {
        let node = self.nodes.get(number);
        (node.coin != NONE).then(|| (unpack(node.coin), node.stamp()))
    }

    #[inline]
    fn find(&self, key: &An) -> Option<u32> {
        let is_it = |number: u32| {
            let key_there = self.lockers.get(number).key;
            key_there.expose().ct_eq(key.expose()).into()
        };
        self.by_key.find(key.expose(), is_it)
    }

    #[inline]
    fn oldest(&self, prefix: LockerPrefix) -> Option<u32> {
        let is_it = |number: u32| self.lockers.get(number).key.locker_prefix() == prefix;
        self.by_prefix.find(&prefix, is_it)
    }

    /// Before which coin of a locker one with this stamp goes; nearly always behind the last.
    fn place_after(&self, locker: u32, stamp: Stamp) -> u32 {
        let mut after = NONE;
        let mut before = self.lockers.get(locker).last;
        while before != NONE && self.nodes.get(before).stamp() > stamp {
            after = before;
            before = self.nodes.get(before).before;
        }
        after
    }

    fn open(&mut self, key: An) -> u32 {
        let prefix = key.locker_prefix();
        let oldest = self.oldest(prefix);
        let number = self.lockers.insert(Locker {
            key,
            ..Locker::default()
        });
        let lockers = &mut self.lockers;
        let (older, newer) = match oldest {
            Some(oldest) => (lockers.get(oldest).older, oldest),
            None => (number, number),
        };
        let locker = lockers.get_mut(number);
        (locker.older, locker.newer) = (older, newer);
        lockers.get_mut(older).newer = number;
        lockers.get_mut(newer).older = number;
        let lockers = &self.lockers;
        let prefix_of = |number: u32| lockers.get(number).key.locker_prefix();
        if oldest.is_none() {
            self.by_prefix.insert(&prefix, number, prefix_of);
        }
        let key_of = |number: u32| *lockers.get(number).key.expose();
        self.by_key.insert(key.expose(), number, key_of);
        self.counts.lockers += u64::from(key.is_locker_key());
        number
    }

    fn close(&mut self, number: u32) {
        let Locker {
            key, older, newer, ..
        } = *self.lockers.get(number);
        let prefix = key.locker_prefix();
        if older == number {
            self.by_prefix.remove(&prefix, number);
        } else {
            if self.oldest(prefix) == Some(number) {
                self.by_prefix.replace(&prefix, number, newer);
            }
            self.lockers.get_mut(older).newer = newer;
            self.lockers.get_mut(newer).older = older;
        }
        self.by_key.remove(key.expose(), number);
        self.lockers.remove(number);
        self.counts.lockers -= u64::from(key.is_locker_key());
    }
}

fn pack(coin: Coin) -> u32 {
    (coin.page().index() * COINS_PER_PAGE + coin.place()) as u32
}

fn unpack(coin: u32) -> Coin {
    let page = PageId::from_index(coin as usize / COINS_PER_PAGE);
    let page = page.expect("it was packed from a coin");
    page.coin(coin as usize % COINS_PER_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(prefix: u8, number: u32) -> An {
        let mut bytes = [prefix; 16];
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        bytes[12..].fill(0xff);
        An::new(bytes)
    }

    fn coin(number: u32) -> Coin {
        unpack(number)
    }

    fn at(moment: u64, rank: u32) -> Stamp {
        Stamp { moment, rank }
    }

    fn coins(index: &Index, key: &An) -> Vec<Coin> {
        index.coins(key).collect()
    }

    #[test]
    fn coins_lie_in_the_order_of_their_stamps() {
        let mut index = Index::new();
        let mine = key(1, 1);
        index.insert(mine, coin(9), at(5, 0));
        index.insert(mine, coin(3), at(5, 1));
        index.insert(mine, coin(7), at(9, 0));
        index.insert(mine, coin(4), at(6, 2));
        index.insert(mine, coin(2), at(0, 0));
        assert_eq!(coins(&index, &mine), [2, 9, 3, 4, 7].map(coin));
        for gone in [2, 4, 7] {
            index.remove(&mine, coin(gone));
        }
        index.insert(mine, coin(7), at(10, 0));
        assert_eq!(coins(&index, &mine), [9, 3, 7].map(coin));
    }

    #[test]
    fn a_locker_is_there_while_a_coin_is_in_it() {
        let mut index = Index::new();
        let mine = key(1, 1);
        index.insert(mine, coin(1), at(1, 0));
        index.insert(mine, coin(2), at(1, 1));
        assert_eq!((index.len(&mine), index.counts().lockers), (2, 1));
        index.remove(&mine, coin(1));
        assert!(index.has(&mine));
        index.remove(&mine, coin(2));
        assert!(!index.has(&mine) && index.keys([1; 5]).next().is_none());
        let counts = index.counts();
        assert_eq!((counts.lockers, counts.coins, counts.value), (0, 0, 0));
    }

    #[test]
    fn keys_with_the_same_prefix_are_found_by_age_whichever_goes() {
        let keys: Vec<An> = (0..5).map(|number| key(7, number)).collect();
        for gone in 0..5 {
            let mut index = Index::new();
            for (number, &key) in keys.iter().enumerate() {
                index.insert(key, coin(number as u32), at(1, 0));
            }
            index.insert(key(8, 0), coin(77), at(1, 0));
            index.remove(&keys[gone], coin(gone as u32));
            let mut left = keys.clone();
            left.remove(gone);
            assert!(index.keys([7; 5]).collect::<Vec<_>>() == left);
            assert_eq!(index.keys([8; 5]).count(), 1);
        }
    }

    #[test]
    fn a_million_lockers_of_two_coins_take_less_than_150_bytes_each() {
        let mut index = Index::new();
        let of = |number: u32| {
            let mut bytes = [0xff; 16];
            let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060);
            bytes[..12].copy_from_slice(&spread.to_le_bytes()[..12]);
            An::new(bytes)
        };
        for number in 0..1_000_000 {
            index.insert(of(number), coin(2 * number), at(1, 0));
            index.insert(of(number), coin(2 * number + 1), at(1, 1));
        }
        let bytes = index.counts().bytes as f64 / 1e6;
        assert!(bytes < 150.0, "{bytes} bytes a locker");
        assert_eq!(
            coins(&index, &of(999_999)),
            [1_999_998, 1_999_999].map(coin)
        );
        for number in 0..1_000_000 {
            index.remove(&of(number), coin(2 * number + 1));
            index.remove(&of(number), coin(2 * number));
        }
        assert_eq!(index.counts().lockers, 0);
    }
}
