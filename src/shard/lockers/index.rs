use subtle::ConstantTimeEq;

use super::{
    arena::Arena,
    contents::{Contents, Item},
    table::Table,
};
use crate::{
    coin::{An, Coin, LockerPrefix, Worth},
    store::book::Stamp,
};

/// Which coins lie under which marked number, in the order stored. A key is found in constant time,
/// and so are the keys that start with five bytes.
pub(super) struct Index {
    lockers: Arena<Locker>,
    by_key: Table,
    /// By kind, the oldest of the lockers that share a prefix. Those form a ring, with a separate
    /// ring for trade lockers: so a search for keys of one kind never passes over many of the
    /// other.
    by_prefix: [Table; 2],
    counts: IndexCounts,
    /// Bytes of what lies in lockers.
    contents: usize,
}

/// Lockers whose keys end FF FF FF FF, and what is in them; not what is for sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexCounts {
    /// Lockers.
    pub lockers: u64,
    /// Coins in them.
    pub coins: u64,
    /// Their worth in the smallest unit.
    pub value: u128,
    /// Memory that the index takes, in bytes, trade lockers included.
    pub bytes: u64,
}

/// A place within the index, or within a locker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    locker: u32,
    last: Option<Item>,
}

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A locker.
    Locker = 0,
    /// A trade locker.
    Trade = 1,
}

impl Kind {
    #[inline]
    fn of(key: &An) -> Kind {
        match key.is_locker_key() {
            true => Kind::Locker,
            false => Kind::Trade,
        }
    }
}

struct Locker {
    key: An,
    contents: Contents,
    /// The neighbours in the ring of those with the same prefix, by age.
    older: u32,
    newer: u32,
}

impl Default for Locker {
    fn default() -> Locker {
        Locker {
            key: An::ZERO,
            contents: Contents::default(),
            older: 0,
            newer: 0,
        }
    }
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            lockers: Arena::new(),
            by_key: Table::new(),
            by_prefix: [Table::new(), Table::new()],
            counts: IndexCounts::default(),
            contents: 0,
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
        locker.map_or(0, |number| self.lockers.get(number).contents.len())
    }

    /// The coins under a key, in the order stored.
    #[inline]
    pub(super) fn coins(&self, key: &An) -> impl Iterator<Item = Coin> {
        let locker = self.find(key).map(|number| self.lockers.get(number));
        let items = locker.map(|locker| locker.contents.after(None));
        items.into_iter().flatten().map(|item| item.coin())
    }

    /// Those of the coins under a key that came there at this moment.
    pub(super) fn of_moment(&self, key: &An, moment: u64) -> impl Iterator<Item = Coin> {
        let locker = self.find(key).map(|number| self.lockers.get(number));
        let items = locker.map(|locker| locker.contents.after(None));
        let items = items.into_iter().flatten();
        let those = items.filter(move |item| item.stamp().moment == moment);
        those.map(|item| item.coin())
    }

    /// Appends coins under a key, in the order stored, from a place on; gives where there are more.
    pub(super) fn stretch(
        &self,
        key: &An,
        from: Place,
        most: usize,
        out: &mut Vec<Coin>,
    ) -> Option<Place> {
        let locker = self.find(key)?;
        let mut items = self.lockers.get(locker).contents.after(from.last);
        let mut last = from.last;
        for item in items.by_ref().take(most) {
            out.push(item.coin());
            last = Some(item);
        }
        items.next().map(|_| Place { locker, last })
    }

    /// The keys of a kind that start with these bytes, the oldest locker first: the one that coins
    /// have lain under for longest.
    #[inline]
    pub(super) fn keys(&self, prefix: LockerPrefix, kind: Kind) -> impl Iterator<Item = An> {
        let oldest = self.oldest(prefix, kind);
        let mut next = oldest;
        std::iter::from_fn(move || {
            let locker = self.lockers.get(next?);
            next = Some(locker.newer).filter(|&newer| Some(newer) != oldest);
            Some(locker.key)
        })
    }

    /// Puts coins, which lie under no key here, under this one.
    pub(super) fn insert(&mut self, key: An, come: impl Iterator<Item = (Coin, Stamp)>) {
        let come: Vec<Item> = come.map(|(coin, stamp)| Item::new(coin, stamp)).collect();
        if come.is_empty() {
            return;
        }
        if key.is_locker_key() {
            self.counts.coins += come.len() as u64;
            self.counts.value += Worth::of(come.iter().map(Item::coin)).0;
        }
        let locker = self.find(&key).unwrap_or_else(|| self.open(key));
        let contents = &mut self.lockers.get_mut(locker).contents;
        let before = contents.bytes();
        contents.insert(come);
        self.contents = self.contents + contents.bytes() - before;
    }

    /// Takes coins (rising), which lie under this key, away from it.
    ///
    /// # Panics
    /// When they do not: the index no longer matches the updates.
    pub(super) fn remove(&mut self, key: &An, gone: &[Coin]) {
        if gone.is_empty() {
            return;
        }
        let locker = self
            .find(key)
            .expect("a coin leaves a locker that is there");
        if key.is_locker_key() {
            self.counts.coins -= gone.len() as u64;
            self.counts.value -= Worth::of(gone.iter().copied()).0;
        }
        let contents = &mut self.lockers.get_mut(locker).contents;
        let before = contents.bytes();
        contents.remove(gone);
        self.contents = self.contents + contents.bytes() - before;
        if contents.len() == 0 {
            self.close(locker);
        }
    }

    pub(super) fn counts(&self) -> IndexCounts {
        let by_prefix: usize = self.by_prefix.iter().map(Table::bytes).sum();
        let tables = self.by_key.bytes() + by_prefix;
        let bytes = self.lockers.bytes() + tables + self.contents;
        IndexCounts {
            bytes: bytes as u64,
            ..self.counts
        }
    }

    /// Calls `each` for coins from a place on, at least for some of those left, and gives the place
    /// to go on from; `None` at the end. A caller that goes on with turns of other tasks in between
    /// misses no coin that stayed in its place all the time.
    pub(super) fn visit(
        &self,
        from: Place,
        most: usize,
        mut each: impl FnMut(Coin, Stamp),
    ) -> Option<Place> {
        let Place {
            mut locker,
            mut last,
        } = from;
        let mut left = most;
        while locker < self.lockers.end() {
            for item in self.lockers.get(locker).contents.after(last) {
                if left == 0 {
                    return Some(Place { locker, last });
                }
                each(item.coin(), item.stamp());
                last = Some(item);
                left -= 1;
            }
            (locker, last) = (locker + 1, None);
            left = left.saturating_sub(1);
        }
        None
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
    fn oldest(&self, prefix: LockerPrefix, kind: Kind) -> Option<u32> {
        let is_it = |number: u32| self.lockers.get(number).key.locker_prefix() == prefix;
        self.by_prefix[kind as usize].find(&prefix, is_it)
    }

    fn open(&mut self, key: An) -> u32 {
        let (prefix, kind) = (key.locker_prefix(), Kind::of(&key));
        let oldest = self.oldest(prefix, kind);
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
            self.by_prefix[kind as usize].insert(&prefix, number, prefix_of);
        }
        let key_of = |number: u32| *lockers.get(number).key.expose();
        self.by_key.insert(key.expose(), number, key_of);
        self.counts.lockers += u64::from(key.is_locker_key());
        number
    }

    fn close(&mut self, number: u32) {
        let &Locker {
            key, older, newer, ..
        } = self.lockers.get(number);
        let (prefix, kind) = (key.locker_prefix(), Kind::of(&key));
        if older == number {
            self.by_prefix[kind as usize].remove(&prefix, number);
        } else {
            if self.oldest(prefix, kind) == Some(number) {
                self.by_prefix[kind as usize].replace(&prefix, number, newer);
            }
            self.lockers.get_mut(older).newer = newer;
            self.lockers.get_mut(newer).older = older;
        }
        self.by_key.remove(key.expose(), number);
        self.lockers.remove(number);
        self.counts.lockers -= u64::from(key.is_locker_key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    fn key(prefix: u8, number: u32) -> An {
        let mut bytes = [prefix; 16];
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        bytes[12..].fill(0xff);
        An::new(bytes)
    }

    fn coin(number: usize) -> Coin {
        PageId::from_index(number / 1_024)
            .unwrap()
            .coin(number % 1_024)
    }

    fn put(index: &mut Index, key: An, moment: u64, coins: &[Coin]) {
        let stamps = (0..).map(|rank| Stamp { moment, rank });
        index.insert(key, coins.iter().copied().zip(stamps));
    }

    #[test]
    fn a_locker_is_there_while_a_coin_is_in_it() {
        let mut index = Index::new();
        let mine = key(1, 1);
        put(&mut index, mine, 1, &[coin(2), coin(1)]);
        assert_eq!(index.coins(&mine).collect::<Vec<_>>(), [coin(2), coin(1)]);
        assert_eq!((index.len(&mine), index.counts().lockers), (2, 1));
        index.remove(&mine, &[coin(1)]);
        assert!(index.has(&mine));
        index.remove(&mine, &[coin(2)]);
        assert!(!index.has(&mine) && index.keys([1; 5], Kind::Locker).next().is_none());
        let counts = index.counts();
        assert_eq!((counts.lockers, counts.coins, counts.value), (0, 0, 0));
        assert_eq!(index.contents, 0);
    }

    #[test]
    fn keys_with_the_same_prefix_are_found_by_age_whichever_goes() {
        let keys: Vec<An> = (0..5).map(|number| key(7, number)).collect();
        for gone in 0..5 {
            let mut index = Index::new();
            for (number, &key) in keys.iter().enumerate() {
                put(&mut index, key, 1, &[coin(number)]);
            }
            put(&mut index, key(8, 0), 1, &[coin(77)]);
            index.remove(&keys[gone], &[coin(gone)]);
            let mut left = keys.clone();
            left.remove(gone);
            assert!(index.keys([7; 5], Kind::Locker).collect::<Vec<_>>() == left);
            assert_eq!(index.keys([8; 5], Kind::Locker).count(), 1);
        }
    }

    #[test]
    fn trade_lockers_with_the_same_prefix_are_found_apart() {
        let mut index = Index::new();
        let trade = |number| {
            let mut bytes = *key(7, number).expose();
            bytes[13..].copy_from_slice(&[1, 0xee, 0xee]);
            An::new(bytes)
        };
        let [old, new] = [trade(0), trade(2)];
        put(&mut index, old, 1, &[coin(0)]);
        put(&mut index, key(7, 1), 2, &[coin(1)]);
        put(&mut index, new, 3, &[coin(2)]);
        let keys = |index: &Index, kind| index.keys([7; 5], kind).collect::<Vec<_>>();
        assert!(keys(&index, Kind::Locker) == [key(7, 1)]);
        assert!(keys(&index, Kind::Trade) == [old, new]);
        index.remove(&old, &[coin(0)]);
        assert!(keys(&index, Kind::Trade) == [new]);
        index.remove(&new, &[coin(2)]);
        assert!(keys(&index, Kind::Trade).is_empty());
        assert!(keys(&index, Kind::Locker) == [key(7, 1)]);
    }

    #[test]
    fn who_goes_through_it_piece_by_piece_misses_nothing_that_stays() {
        let mut index = Index::new();
        for number in 0..50 {
            let coins: Vec<Coin> = (0..number + 1).map(|i| coin(100 * number + i)).collect();
            put(&mut index, key(1, number as u32), 1, &coins);
        }
        let (mut seen, mut next, mut turn) = (Vec::new(), Some(Place::default()), 0);
        while let Some(from) = next {
            next = index.visit(from, 7, |coin, _| seen.push(coin));
            // Meanwhile the first coin of each locker goes, and others come.
            if turn < 50 {
                index.remove(&key(1, turn), &[coin(100 * turn as usize)]);
                put(&mut index, key(2, turn), 2, &[coin(20_000 + turn as usize)]);
            }
            turn += 1;
        }
        let stayed =
            (0..50).flat_map(|number| (1..number + 1).map(move |i| coin(100 * number + i)));
        for coin in stayed {
            assert_eq!(
                seen.iter().filter(|&&other| other == coin).count(),
                1,
                "{coin}"
            );
        }
    }

    #[test]
    fn a_million_lockers_of_two_coins_take_less_than_150_bytes_each() {
        let mut index = Index::new();
        let of = |number: usize| {
            let mut bytes = [0xff; 16];
            let spread = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060);
            bytes[..12].copy_from_slice(&spread.to_le_bytes()[..12]);
            An::new(bytes)
        };
        let two = |number: usize| [coin(2 * number), coin(2 * number + 1)];
        for number in 0..1_000_000 {
            put(&mut index, of(number), 1, &two(number));
        }
        let bytes = index.counts().bytes as f64 / 1e6;
        assert!(bytes < 150.0, "{bytes} bytes a locker");
        let last: Vec<Coin> = index.coins(&of(999_999)).collect();
        assert_eq!(last, two(999_999));
        for number in 0..1_000_000 {
            index.remove(&of(number), &two(number));
        }
        assert_eq!(index.counts().lockers, 0);
    }
}
