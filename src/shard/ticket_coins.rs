use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::coin::AnTag;

/// Coins share so many counts: which do depends on the seed, so that nobody can choose to be on another's.
const COUNTS: usize = 1 << 20;

/// How many tickets list each coin with each of its numbers, so that whoever knows the number of one coin
/// cannot fill a pool with it, from however many addresses. A coin that got another number is another coin
/// here: the tickets of its former owner, which are void, take nothing from its owner. 2 MiB, of which the
/// system gives what is used.
pub(super) struct TicketCoins {
    most: u16,
    hash: FixedState,
    counts: Box<[u16]>,
}

impl TicketCoins {
    /// A coin may be in `most` tickets, in any number where that is 0; `seed` is a number that nobody
    /// knows.
    pub(super) fn new(most: u16, seed: u64) -> TicketCoins {
        TicketCoins {
            most: if most == 0 { u16::MAX } else { most },
            hash: FixedState::with_seed(seed),
            counts: vec![0; if most == 0 { 0 } else { COUNTS }].into(),
        }
    }

    /// Counts a ticket that lists this coin with this number; `false`, and nothing is counted, where as many
    /// do as may.
    #[inline]
    pub(super) fn list(&mut self, coin: (u32, AnTag)) -> bool {
        let most = self.most;
        let Some(count) = self.count(coin) else {
            return true;
        };
        let has_room = *count < most;
        *count += u16::from(has_room);
        has_room
    }

    /// The end of a ticket that was counted.
    #[inline]
    pub(super) fn end(&mut self, coin: (u32, AnTag)) {
        if let Some(count) = self.count(coin) {
            *count -= 1;
        }
    }

    /// `None` where nothing is counted.
    #[inline]
    fn count(&mut self, coin: (u32, AnTag)) -> Option<&mut u16> {
        let at = self.hash.hash_one(coin) as usize % COUNTS;
        self.counts.get_mut(at)
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
}
