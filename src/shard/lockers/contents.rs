use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{
    coin::{COINS_PER_PAGE, Coin, PageId},
    store::book::Stamp,
};

/// A locker with at least this number of coins is kept so that one of them is found without a look
/// at the others.
const BIG: usize = 4_096;
/// A big locker is kept as a small one again when no more are left.
const SMALL: usize = 1_024;

/// The coins under one key, in the order stored.
///
/// Nearly all lockers hold few coins, and are looked into, filled and emptied as a whole: those are
/// one run of memory, 16 bytes a coin.
#[derive(Debug)]
pub(super) enum Contents {
    /// Rising.
    Small(Vec<Item>),
    Big(Box<Big>),
}

/// A coin under a key, and since when. Ordered by that time, then by the coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    moment: u64,
    rank: u32,
    coin: u32,
}

#[derive(Debug, Default)]
pub(super) struct Big {
    items: BTreeSet<Item>,
    by_coin: BTreeMap<u32, Stamp>,
}

impl Item {
    /// The whole as one number, which compares at once.
    #[inline]
    fn number(&self) -> u128 {
        u128::from(self.moment) << 64 | u128::from(self.rank) << 32 | u128::from(self.coin)
    }
}

impl Ord for Item {
    #[inline]
    fn cmp(&self, other: &Item) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for Item {
    #[inline]
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Default for Contents {
    fn default() -> Contents {
        Contents::Small(Vec::new())
    }
}

impl Item {
    pub(super) fn new(coin: Coin, stamp: Stamp) -> Item {
        let Stamp { moment, rank } = stamp;
        Item {
            moment,
            rank,
            coin: coin.number(),
        }
    }

    pub(super) fn coin(&self) -> Coin {
        let page = PageId::from_index(self.coin as usize / COINS_PER_PAGE);
        let page = page.expect("it was packed from a coin");
        page.coin(self.coin as usize % COINS_PER_PAGE)
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            moment: self.moment,
            rank: self.rank,
        }
    }
}

impl Contents {
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Contents::Small(items) => items.len(),
            Contents::Big(big) => big.items.len(),
        }
    }

    /// The coins that come after this one, or all.
    #[inline]
    pub(super) fn after(&self, last: Option<Item>) -> impl Iterator<Item = Item> {
        let (small, big) = match self {
            Contents::Small(items) => {
                let start = last.map_or(0, |last| items.partition_point(|&item| item <= last));
                (Some(items[start..].iter().copied()), None)
            }
            Contents::Big(big) => {
                let start = last.map_or(Bound::Unbounded, Bound::Excluded);
                let items = big.items.range((start, Bound::Unbounded)).copied();
                (None, Some(items))
            }
        };
        small.into_iter().flatten().chain(big.into_iter().flatten())
    }

    /// Inserts coins that are not in it yet.
    pub(super) fn insert(&mut self, mut come: Vec<Item>) {
        come.sort_unstable();
        if self.len() + come.len() >= BIG {
            self.grow();
        }
        match self {
            Contents::Small(items) if items.is_empty() => {
                come.shrink_to_fit();
                *items = come;
            }
            Contents::Small(items) => {
                let is_last = items.last() < come.first();
                items.extend(come);
                if !is_last {
                    // Another core's clock is behind.
                    items.sort_unstable();
                }
            }
            Contents::Big(big) => {
                for item in come {
                    big.by_coin.insert(item.coin, item.stamp());
                    big.items.insert(item);
                }
            }
        }
    }

    /// Takes coins (rising) out.
    ///
    /// # Panics
    /// When one is not there: the index no longer matches the updates.
    pub(super) fn remove(&mut self, gone: &[Coin]) {
        let before = self.len();
        match self {
            Contents::Small(items) => match gone {
                [coin] => {
                    let coin = coin.number();
                    items.retain(|item| item.coin != coin);
                }
                gone => {
                    let gone: Vec<u32> = gone.iter().map(|coin| coin.number()).collect();
                    debug_assert!(gone.is_sorted());
                    items.retain(|item| gone.binary_search(&item.coin).is_err());
                }
            },
            Contents::Big(big) => {
                for &coin in gone {
                    if let Some(stamp) = big.by_coin.remove(&coin.number()) {
                        big.items.remove(&Item::new(coin, stamp));
                    }
                }
                if big.items.len() <= SMALL {
                    *self = Contents::Small(big.items.iter().copied().collect());
                }
            }
        }
        let left = before - gone.len();
        assert!(self.len() == left, "a coin leaves the locker that it is in");
        if let Contents::Small(items) = self
            && items.capacity() > 4 * left
        {
            items.shrink_to_fit();
        }
    }

    /// Bytes of memory that it takes beside its own, as far as that can be told.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Contents::Small(items) if items.capacity() == 0 => 0,
            // An allocation takes 8 bytes more, in steps of 16.
            Contents::Small(items) => {
                (items.capacity() * size_of::<Item>() + 8).next_multiple_of(16)
            }
            // A leaf of a tree is two thirds full.
            Contents::Big(big) => {
                big.items.len() * (size_of::<Item>() + size_of::<(u32, Stamp)>()) * 3 / 2
            }
        }
    }

    fn grow(&mut self) {
        if let Contents::Small(items) = self {
            *self = Contents::Big(Box::new(Big {
                by_coin: items.iter().map(|item| (item.coin, item.stamp())).collect(),
                items: items.drain(..).collect(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn coin(number: u32) -> Coin {
        Item {
            moment: 0,
            rank: 0,
            coin: number,
        }
        .coin()
    }

    fn put(contents: &mut Contents, moment: u64, coins: impl IntoIterator<Item = u32>) {
        let items = coins.into_iter().zip(0..);
        let items = items.map(|(number, rank)| Item::new(coin(number), Stamp { moment, rank }));
        contents.insert(items.collect());
    }

    fn take(contents: &mut Contents, coins: impl IntoIterator<Item = u32>) {
        let mut coins: Vec<Coin> = coins.into_iter().map(coin).collect();
        coins.sort_unstable();
        contents.remove(&coins);
    }

    fn list(contents: &Contents) -> Vec<u32> {
        contents.after(None).map(|item| item.coin).collect()
    }

    #[test]
    fn a_locker_that_grows_and_shrinks_keeps_its_order() {
        let mut contents = Contents::default();
        put(&mut contents, 5, (0..3_000).rev());
        put(&mut contents, 6, 3_000..9_000);
        assert!(matches!(contents, Contents::Big(_)));
        put(&mut contents, 4, [10_000]);
        let all: Vec<u32> = [10_000]
            .into_iter()
            .chain((0..3_000).rev())
            .chain(3_000..9_000)
            .collect();
        assert_eq!(list(&contents), all);
        take(&mut contents, (0..9_000).filter(|number| number % 10 != 0));
        assert!(matches!(contents, Contents::Small(_)));
        let left: Vec<u32> = all
            .iter()
            .copied()
            .filter(|number| number % 10 == 0)
            .collect();
        assert_eq!(list(&contents), left);
        take(&mut contents, left);
        assert_eq!((contents.len(), contents.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn what_comes_and_goes_is_listed_by_stamp_from_any_place_on(
            steps in prop::collection::vec((0u64..4, prop::collection::btree_set(0u32..60, 1..20)), 1..40),
        ) {
            let mut contents = Contents::default();
            let mut model: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
            for (moment, numbers) in steps {
                let (gone, come): (Vec<u32>, Vec<u32>) =
                    numbers.into_iter().partition(|number| model.contains_key(number));
                model.retain(|number, _| !gone.contains(number));
                take(&mut contents, gone);
                put(&mut contents, moment, come.iter().copied());
                model.extend(come.into_iter().zip(0..).map(|(number, rank)| (number, (moment, rank))));
                let mut expected: Vec<(u64, u32, u32)> =
                    model.iter().map(|(&number, &(moment, rank))| (moment, rank, number)).collect();
                expected.sort_unstable();
                let expected: Vec<u32> = expected.into_iter().map(|(.., number)| number).collect();
                prop_assert_eq!(list(&contents), expected.clone());
                let items: Vec<Item> = contents.after(None).collect();
                for (index, &item) in items.iter().enumerate() {
                    let rest: Vec<u32> = contents.after(Some(item)).map(|item| item.coin).collect();
                    prop_assert_eq!(&rest, &expected[index + 1..]);
                }
            }
        }
    }
}
