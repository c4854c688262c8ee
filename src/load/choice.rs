use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::purse::Held;
use super::zipf::Zipf;
use crate::coin::{Coin, PageId, ShardId};

/// Number of draws of a coin that is not in the request yet, before the next one is taken.
const DRAWS_MAX: usize = 64;

/// The coins that requests are about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Any coin, all equally often.
    Uniform,
    /// Any coin, some far more often: the coin with rank k in proportion to 1 / k^exponent.
    Zipf {
        /// 0 is uniform; about 1 is what many services see.
        exponent: f64,
    },
    /// Coins of one page only, all equally often: of the page that has the most.
    Page,
    /// Coins of one shard only, all equally often: of the shard that has the most.
    Shard {
        /// Shards of the node.
        shards: u16,
    },
    /// The coins of a request come from one shard after the other.
    Across {
        /// Shards of the node.
        shards: u16,
    },
}

impl Choice {
    /// Splits off the coins that no request may be about.
    pub(super) fn rule_out(self, coins: &mut Vec<Held>) -> Vec<Held> {
        match self {
            Choice::Uniform | Choice::Zipf { .. } | Choice::Across { .. } => vec![],
            Choice::Page => keep_largest(coins, |coin| coin.page().index()),
            Choice::Shard { shards } => keep_largest(coins, |coin| shard_of(coin, shards).index()),
        }
    }
}

/// Keeps the largest part of the coins, the first one where several are largest, and returns the
/// rest.
fn keep_largest(coins: &mut Vec<Held>, part: impl Fn(Coin) -> usize) -> Vec<Held> {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for held in coins.iter() {
        *sizes.entry(part(held.coin)).or_default() += 1;
    }
    let largest = sizes.iter().rev().max_by_key(|&(_, &size)| size);
    let Some((&largest, _)) = largest else {
        return vec![];
    };
    let is_of_it = |held: &mut Held| part(held.coin) != largest;
    coins.extract_if(.., is_of_it).collect()
}

fn shard_of(coin: Coin, shards: u16) -> ShardId {
    PageId::owner(coin.page(), shards)
}

/// Coins by number, split as a choice needs them: by shard, or all together.
pub(super) fn groups(choice: Choice, coins: &[Coin]) -> Vec<Vec<u32>> {
    let mut groups: Vec<Vec<u32>> = match choice {
        Choice::Across { shards } => vec![vec![]; usize::from(shards.max(1))],
        _ => vec![vec![]],
    };
    for (index, &coin) in coins.iter().enumerate() {
        let group = match choice {
            Choice::Across { shards } => shard_of(coin, shards.max(1)).index(),
            _ => 0,
        };
        groups[group].push(index as u32);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Draws coins, each draw independent of all others: for requests that change nothing.
pub(super) struct Draw {
    /// Coins by number: more than one group where each request goes through all groups.
    groups: Vec<Vec<u32>>,
    /// Over the first group. It is shuffled, so that rank is independent of page and shard.
    zipf: Option<Zipf>,
}

impl Draw {
    /// # Panics
    /// When there is no coin.
    pub(super) fn new(choice: Choice, coins: &[Coin], rng: &mut SmallRng) -> Draw {
        assert!(!coins.is_empty(), "there is nothing to draw from");
        let mut groups = groups(choice, coins);
        let zipf = match choice {
            Choice::Zipf { exponent } => {
                groups[0].shuffle(rng);
                Some(Zipf::new(coins.len(), exponent))
            }
            _ => None,
        };
        Draw { groups, zipf }
    }

    /// The group of a request's first coin.
    #[inline]
    pub(super) fn start(&self, rng: &mut SmallRng) -> usize {
        match self.groups.len() {
            1 => 0,
            groups => rng.random_range(0..groups),
        }
    }

    /// The coin of a request's record, by number.
    #[inline]
    pub(super) fn coin(&self, start: usize, record: usize, rng: &mut SmallRng) -> usize {
        let group = match self.groups.len() {
            1 => &self.groups[0],
            groups => &self.groups[(start + record) % groups],
        };
        let place = match &self.zipf {
            Some(zipf) => zipf.draw(rng),
            None => rng.random_range(0..group.len()),
        };
        group[place] as usize
    }
}

/// The coins of one request, each once: the protocol leaves open the sum of the same coin twice.
pub(super) struct Once {
    /// By coin: the request that it was last drawn for.
    drawn_for: Vec<u64>,
    request: u64,
}

impl Once {
    pub(super) fn new(coins: usize) -> Once {
        Once {
            drawn_for: vec![0; coins],
            request: 0,
        }
    }

    /// Begins a new request.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.request += 1;
    }

    /// The coin of a record, like [`Draw::coin`]; a different one, where that is in the request
    /// already.
    ///
    /// # Panics
    /// When all coins are in the request.
    #[inline]
    pub(super) fn coin(
        &mut self,
        draw: &Draw,
        start: usize,
        record: usize,
        rng: &mut SmallRng,
    ) -> usize {
        let mut coin = draw.coin(start, record, rng);
        let mut draws = 1;
        while self.drawn_for[coin] == self.request {
            coin = match draws < DRAWS_MAX {
                true => draw.coin(start, record, rng),
                // Nearly all coins for this record are in the request: take the next one that is
                // not.
                false => (coin + 1) % self.drawn_for.len(),
            };
            draws += 1;
            assert!(
                draws < DRAWS_MAX + self.drawn_for.len() + 1,
                "a request has no more coins than there are"
            );
        }
        self.drawn_for[coin] = self.request;
        coin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::{Denomination, SerialNumber};
    use rand::SeedableRng;

    fn coins() -> Vec<Coin> {
        let denominations = Denomination::all().take(3);
        let coins = denominations.flat_map(|denomination| {
            (0..5_000).step_by(100).map(move |sn| Coin {
                denomination,
                serial_number: SerialNumber::new(sn).unwrap(),
            })
        });
        coins.collect()
    }

    fn held() -> Vec<Held> {
        let an = crate::coin::An::ZERO;
        let mut purse =
            crate::load::Purse::new(coins().into_iter().map(|coin| (coin, an))).unwrap();
        purse.deal(1).remove(0)
    }

    #[test]
    fn one_page_or_one_shard_is_all_that_is_left() {
        let mut of_page = held();
        let rest = Choice::Page.rule_out(&mut of_page);
        let page = of_page[0].coin.page();
        assert!(of_page.iter().all(|held| held.coin.page() == page));
        assert!(
            rest.iter()
                .all(|held| held.coin.page() != page || of_page.len() < 11)
        );
        assert_eq!((of_page.len(), of_page.len() + rest.len()), (11, 150));

        let mut of_shard = held();
        Choice::Shard { shards: 4 }.rule_out(&mut of_shard);
        let shard = shard_of(of_shard[0].coin, 4);
        assert!(of_shard.len() > 30);
        assert!(of_shard.iter().all(|held| shard_of(held.coin, 4) == shard));
    }

    #[test]
    fn a_request_across_shards_has_a_coin_of_each() {
        let rng = &mut SmallRng::seed_from_u64(3);
        let coins = coins();
        let draw = Draw::new(Choice::Across { shards: 4 }, &coins, rng);
        for _ in 0..100 {
            let start = draw.start(rng);
            let mut shards: Vec<usize> = (0..4)
                .map(|record| shard_of(coins[draw.coin(start, record, rng)], 4).index())
                .collect();
            shards.sort_unstable();
            assert_eq!(shards, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_request_of_all_coins_has_each_of_them_once() {
        let rng = &mut SmallRng::seed_from_u64(3);
        let coins = coins();
        for choice in [
            Choice::Uniform,
            Choice::Zipf { exponent: 2.0 },
            Choice::Across { shards: 4 },
        ] {
            let draw = Draw::new(choice, &coins, rng);
            let mut once = Once::new(coins.len());
            for _ in 0..3 {
                once.begin();
                let start = draw.start(rng);
                let mut drawn: Vec<usize> = (0..coins.len())
                    .map(|record| once.coin(&draw, start, record, rng))
                    .collect();
                drawn.sort_unstable();
                assert!(drawn.into_iter().eq(0..coins.len()));
            }
        }
    }

    #[test]
    fn a_favourite_coin_is_asked_about_more_often_than_the_others() {
        let rng = &mut SmallRng::seed_from_u64(3);
        let coins = coins();
        for (choice, least) in [
            (Choice::Uniform, 0.004),
            (Choice::Zipf { exponent: 0.99 }, 0.15),
        ] {
            let draw = Draw::new(choice, &coins, rng);
            let mut drawn = vec![0; coins.len()];
            for _ in 0..100_000 {
                let start = draw.start(rng);
                drawn[draw.coin(start, 0, rng)] += 1;
            }
            let most = f64::from(*drawn.iter().max().unwrap()) / 1e5;
            assert!((least..least * 2.5).contains(&most), "{choice:?}: {most}");
        }
    }
}
