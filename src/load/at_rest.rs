use std::collections::VecDeque;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::choice::{Choice, groups};
use super::zipf::Zipf;
use crate::coin::Coin;

/// Maximum number of draws of a favourite: when most coins are under way, few are left to find.
const DRAWS_MAX: usize = 64;

/// Coins that no request is about, by number. A coin whose number changes is in one request at a
/// time, so it is always known which number is in force.
pub(super) struct AtRest {
    choice: By,
}

enum By {
    /// The coin that has rested longest; where there are several groups, of one group after the
    /// other. The first round is shuffled, or neighbours would always be asked about together.
    Turn {
        groups: Vec<VecDeque<u32>>,
        group_of: Vec<u16>,
        next: usize,
    },
    /// Any coin, the favourites more often. A coin under way is skipped, so the favourite is asked
    /// about as often as its answers allow.
    Zipf {
        zipf: Zipf,
        ranks: Vec<u32>,
        is_at_rest: Vec<bool>,
    },
}

impl AtRest {
    pub(super) fn new(choice: Choice, coins: &[Coin], rng: &mut SmallRng) -> AtRest {
        let mut groups = groups(choice, coins);
        for group in &mut groups {
            group.shuffle(rng);
        }
        let by = match choice {
            Choice::Zipf { exponent } if !coins.is_empty() => By::Zipf {
                zipf: Zipf::new(coins.len(), exponent),
                ranks: groups.swap_remove(0),
                is_at_rest: vec![true; coins.len()],
            },
            _ => {
                let mut group_of = vec![0; coins.len()];
                for (number, group) in groups.iter().enumerate() {
                    for &coin in group {
                        group_of[coin as usize] = number as u16;
                    }
                }
                By::Turn {
                    groups: groups.into_iter().map(VecDeque::from).collect(),
                    group_of,
                    next: rng.random_range(0..usize::from(u16::MAX)),
                }
            }
        };
        AtRest { choice: by }
    }

    /// Takes `count` coins, onto the end of `out`; none where there are not enough.
    pub(super) fn take(&mut self, count: usize, rng: &mut SmallRng, out: &mut Vec<usize>) -> bool {
        let before = out.len();
        for _ in 0..count {
            let taken = match &mut self.choice {
                By::Turn { groups, next, .. } => {
                    *next += 1;
                    let all = groups.len();
                    (0..all).find_map(|further| groups[(*next + further) % all].pop_front())
                }
                By::Zipf {
                    zipf,
                    ranks,
                    is_at_rest,
                } => (0..DRAWS_MAX)
                    .map(|_| ranks[zipf.draw(rng)])
                    .find(|&coin| std::mem::take(&mut is_at_rest[coin as usize])),
            };
            match taken {
                Some(coin) => out.push(coin as usize),
                None => {
                    while out.len() > before {
                        let coin = out.pop().expect("there are more than before");
                        self.hand_back(coin);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Puts a taken coin to rest.
    pub(super) fn put(&mut self, coin: usize) {
        match &mut self.choice {
            By::Turn {
                groups, group_of, ..
            } => groups[usize::from(group_of[coin])].push_back(coin as u32),
            By::Zipf { is_at_rest, .. } => is_at_rest[coin] = true,
        }
    }

    /// Takes a coin as if it had not been taken.
    fn hand_back(&mut self, coin: usize) {
        match &mut self.choice {
            By::Turn {
                groups, group_of, ..
            } => groups[usize::from(group_of[coin])].push_front(coin as u32),
            By::Zipf { is_at_rest, .. } => is_at_rest[coin] = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;
    use rand::SeedableRng;

    #[test]
    fn a_coin_is_taken_once_until_it_is_put_back() {
        let rng = &mut SmallRng::seed_from_u64(5);
        let coins: Vec<Coin> = (0..40)
            .map(|index| PageId::from_index(index).unwrap().coin(3))
            .collect();
        for choice in [
            Choice::Uniform,
            Choice::Zipf { exponent: 0.5 },
            Choice::Across { shards: 3 },
        ] {
            let mut at_rest = AtRest::new(choice, &coins, rng);
            let mut out = vec![];
            while out.len() < 30 {
                assert!(at_rest.take(3, rng, &mut out), "{choice:?}");
            }
            let mut once = out.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), 30);
            assert!(!at_rest.take(11, rng, &mut out), "10 are left");
            assert_eq!(out.len(), 30);
            for &coin in &out {
                at_rest.put(coin);
            }
            out.clear();
            if choice != (Choice::Zipf { exponent: 0.5 }) {
                assert!(at_rest.take(40, rng, &mut out), "all are back");
            }
        }
    }
}
