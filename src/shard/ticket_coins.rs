use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::coin::AnTag;

/// Rows of counts. Each coin has a count in every row, and the least of them is an upper bound of
/// its tickets. Which coins share a count depends on the seed, so that nobody can choose to share
/// one with a certain coin. Two coins that share all of their counts are not told apart: while
/// 32,768 coins are at their bound, one in a million other coins counts as being at its bound too.
const ROWS: usize = 4;
const COUNTS_A_ROW: usize = 1 << 20;

/// How many tickets list each coin with each of its numbers. So a client that knows the number of
/// one coin cannot fill a pool with it, from however many addresses. A coin that got another number
/// is another coin here: the tickets of its former owner, which are void, take nothing from its
/// owner. It reserves 8 MiB; the system provides only the part that is used.
pub(super) struct TicketCoins {
    most: u16,
    hash: FixedState,
    /// Row after row.
    counts: Box<[u16]>,
}

impl TicketCoins {
    /// A coin may be in `most` tickets, in any number where that is 0; `seed` is a number that
    /// nobody knows.
    pub(super) fn new(most: u16, seed: u64) -> TicketCoins {
        let rows = if most == 0 { 0 } else { ROWS };
        TicketCoins {
            most,
            hash: FixedState::with_seed(seed),
            counts: vec![0; rows * COUNTS_A_ROW].into(),
        }
    }

    /// Counts a ticket that lists this coin with this number. At the bound it returns `false` and
    /// counts nothing.
    #[inline]
    pub(super) fn list(&mut self, coin: (u32, AnTag)) -> bool {
        if self.counts.is_empty() {
            return true;
        }
        let places = self.places(coin);
        let counts = places.map(|place| self.counts[place]);
        // A count that very many coins share may reach its end before any of them does.
        let has_room = counts.iter().any(|&count| count < self.most) && !counts.contains(&u16::MAX);
        if has_room {
            for place in places {
                self.counts[place] += 1;
            }
        }
        has_room
    }

    /// The end of a ticket that was counted.
    #[inline]
    pub(super) fn end(&mut self, coin: (u32, AnTag)) {
        if self.counts.is_empty() {
            return;
        }
        for place in self.places(coin) {
            self.counts[place] -= 1;
        }
    }

    /// Where the counts of a coin are, one in each row.
    #[inline]
    fn places(&self, coin: (u32, AnTag)) -> [usize; ROWS] {
        let hash = self.hash.hash_one(coin);
        let step = (hash >> 32) | 1;
        std::array::from_fn(|row| {
            let of_row = hash.wrapping_add(step.wrapping_mul(row as u64)) as usize % COUNTS_A_ROW;
            row * COUNTS_A_ROW + of_row
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::An;

    /// A coin with its first number.
    fn coin(number: u32) -> (u32, AnTag) {
        (number, An::ZERO.tag())
    }

    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    #[test]
    fn a_coin_is_in_so_many_tickets_until_some_end() {
        let mut coins = TicketCoins::new(3, SEED);
        for coin in [coin(7), coin(8)] {
            assert!((0..3).all(|_| coins.list(coin)));
            assert!(!coins.list(coin) && !coins.list(coin));
        }
        coins.end(coin(7));
        assert!(coins.list(coin(7)) && !coins.list(coin(7)) && !coins.list(coin(8)));
    }

    #[test]
    fn tickets_of_a_former_owner_take_nothing_from_the_next() {
        let mut coins = TicketCoins::new(3, SEED);
        assert!((0..3).all(|_| coins.list(coin(7))));
        let other = (7, An::new(1_u128.to_be_bytes()).tag());
        assert!((0..3).all(|_| coins.list(other)));
        assert!(!coins.list(other) && !coins.list(coin(7)));
    }

    #[test]
    fn without_a_bound_nothing_is_counted() {
        let mut coins = TicketCoins::new(0, SEED);
        assert!((0..100_000).all(|_| coins.list(coin(7))));
        coins.end(coin(7));
        assert_eq!(coins.counts.len(), 0);
    }

    #[test]
    fn coins_of_a_full_pool_stay_far_below_the_bound() {
        let mut coins = TicketCoins::new(128, SEED);
        // 65,536 tickets of 64 coins each.
        assert!((0..65_536 * 64).all(|number| coins.list(coin(number % (1 << 24)))));
        assert!(*coins.counts.iter().max().unwrap() < 32);
    }

    #[test]
    fn coins_at_their_bound_take_nothing_from_others() {
        let mut coins = TicketCoins::new(128, SEED);
        // As many as a pool of 65,536 tickets has room for.
        let full = 0..32_768;
        for number in full.clone() {
            assert!((0..128).all(|_| coins.list(coin(number))), "coin {number}");
            assert!(!coins.list(coin(number)));
        }
        let refused = (1_000_000..2_000_000).filter(|&number| !coins.list(coin(number)));
        assert!(refused.count() < 10);
        for number in full {
            (0..128).for_each(|_| coins.end(coin(number)));
        }
    }
}
