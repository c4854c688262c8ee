use std::time::Duration;

use super::moments::{Moments, What};
use crate::coin::Coin;

/// The coins of this shard that a live ticket of this node lists, whichever shard issued it. A coin
/// is here as long as it has the number that the ticket was issued for.
///
/// Looking at the number and entering the coin here is one step, before the ticket is issued.
/// Giving a coin another number and removing it from here is one step as well. So a change that
/// looks here while it holds the coin misses no ticket that the number in force was good for. A
/// ticket that is asked for after the look is issued for a number that is about to go, and is
/// worthless once that number has gone.
///
/// A ticket lives from the moment that its coins were looked at, and a coin is here for as long,
/// and up to a hundredth of that longer. A ticket that was not issued in the end, for want of room,
/// leaves its coins here all the same.
pub(super) struct Listed {
    moments: Moments<Ticket>,
    lifetime: Duration,
}

/// The era of a ticket, which needs no further data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket;

impl What for Ticket {
    fn or(self, _: Ticket) -> Ticket {
        Ticket
    }
}

/// Eras in a ticket's lifetime.
const STEPS: u32 = 100;

impl Listed {
    /// For tickets of this lifetime.
    pub(super) fn new(lifetime: Duration) -> Listed {
        Listed {
            moments: Moments::new(lifetime, lifetime / STEPS),
            lifetime,
        }
    }

    /// Enters coins of a ticket that lives from `since`, which is now or has just passed.
    pub(super) fn add(&mut self, coins: impl IntoIterator<Item = Coin>, since: Duration) {
        let era = self.moments.era(since, Ticket, |_| {});
        for coin in coins {
            self.moments.note(coin, era);
        }
    }

    /// Removes a coin that got another number.
    #[inline]
    pub(super) fn remove(&mut self, coin: Coin) {
        self.moments.clear(coin);
    }

    /// Whether a ticket lists the coin.
    pub(super) fn has(&self, coin: Coin, now: Duration) -> bool {
        let era = self.moments.of(coin);
        era.is_some_and(|era| era.last + self.lifetime > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    #[test]
    fn a_coin_is_listed_as_long_as_its_ticket_lives_or_its_number_is_in_force() {
        let coin = |place| PageId::from_index(3).unwrap().coin(place);
        let lifetime = Duration::from_secs(300);
        let mut listed = Listed::new(lifetime);
        let start = Duration::from_secs(77);
        assert!(!listed.has(coin(1), start));
        listed.add([coin(1), coin(2)], start);
        listed.remove(coin(2));
        listed.remove(coin(3));
        let almost = start + lifetime - Duration::from_nanos(1);
        assert!(listed.has(coin(1), almost) && !listed.has(coin(2), almost));
        assert!(!listed.has(coin(1), start + lifetime));
        // Again, by another ticket.
        listed.add([coin(1)], almost);
        assert!(listed.has(coin(1), almost + lifetime / 2));
    }
}
