use std::collections::{BTreeMap, HashSet};

use foldhash::quality::RandomState;

use super::tickets::PoolIsFull;
use crate::{
    protocol::key_healing::{
        CLOCK_AHEAD_MINUTES_MAX, EncryptionTicket, Minute, TICKET_AGE_MINUTES_MAX,
    },
    store::Thing,
};

/// The encryption tickets that were used here and could be used again if nobody remembered them. Each
/// is forgotten when it has become too old; a whole minute's at a time, so nobody searches for them.
///
/// A ticket is remembered by its first eight bytes: they are an encryption's, so that two have the same
/// ones as often as two random numbers.
pub(super) struct UsedTickets {
    most: usize,
    count: usize,
    by_minute: BTreeMap<Minute, HashSet<u64, RandomState>>,
    /// None of this minute or an earlier one is taken: what is forgotten stays used, also when the
    /// clock is set back.
    until: Minute,
}

/// The latest minute that a ticket can be from which was issued until now, by a helper whose clock is
/// ahead.
pub(super) fn latest_minute(unix_seconds: u64) -> u64 {
    Minute::of_unix_seconds(unix_seconds).0 + CLOCK_AHEAD_MINUTES_MAX
}

/// A ticket as it is remembered.
pub fn used_ticket(ticket: &EncryptionTicket, minute: Minute) -> Thing {
    let name = ticket.expose().first_chunk().expect("16 bytes");
    Thing {
        moment: minute.0,
        name: u64::from_le_bytes(*name),
    }
}

impl UsedTickets {
    /// Remembers so many at most, and knows which were used in earlier runs: all until a moment, and
    /// those since.
    pub(super) fn new(most: usize, (until, since): (u64, &[Thing])) -> UsedTickets {
        let mut tickets = UsedTickets {
            most,
            count: 0,
            by_minute: BTreeMap::new(),
            until: Minute(until),
        };
        for thing in since {
            let of_minute = tickets.by_minute.entry(Minute(thing.moment));
            tickets.count += usize::from(of_minute.or_default().insert(thing.name));
        }
        tickets
    }

    /// Uses tickets up: says which had not been used.
    ///
    /// # Errors
    /// As many are remembered as can be; none was used then.
    pub(super) fn use_up(
        &mut self,
        now: Minute,
        tickets: &[Thing],
    ) -> Result<Vec<bool>, PoolIsFull> {
        self.forget(now);
        if self.count + tickets.len() > self.most {
            return Err(PoolIsFull);
        }
        let fresh = tickets.iter().map(|ticket| {
            let minute = Minute(ticket.moment);
            minute > self.until
                && self
                    .by_minute
                    .entry(minute)
                    .or_default()
                    .insert(ticket.name)
        });
        let fresh: Vec<bool> = fresh.collect();
        self.count += fresh.iter().filter(|is_fresh| **is_fresh).count();
        Ok(fresh)
    }

    /// Takes that back: nothing came of it.
    pub(super) fn give_back(&mut self, tickets: &[Thing]) {
        for ticket in tickets {
            if let Some(of_minute) = self.by_minute.get_mut(&Minute(ticket.moment)) {
                self.count -= usize::from(of_minute.remove(&ticket.name));
            }
        }
    }

    /// Tickets that are remembered, those included that are too old by now.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn forget(&mut self, now: Minute) {
        while let Some(first) = self.by_minute.first_entry()
            && first.key().0 + TICKET_AGE_MINUTES_MAX < now.0
        {
            let (minute, tickets) = first.remove_entry();
            self.until = self.until.max(minute);
            self.count -= tickets.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: (u64, &[Thing]) = (0, &[]);

    fn thing(name: u64, moment: u64) -> Thing {
        Thing { moment, name }
    }

    /// Uses tickets, of each its name and its minute.
    fn used(tickets: &mut UsedTickets, now: u64, asked: &[(u64, u64)]) -> Option<Vec<bool>> {
        let asked: Vec<Thing> = asked.iter().map(|&(name, at)| thing(name, at)).collect();
        tickets.use_up(Minute(now), &asked).ok()
    }

    #[test]
    fn a_ticket_is_used_once_also_within_one_request() {
        let mut tickets = UsedTickets::new(9, NOTHING);
        let both = [(1, 100), (2, 100), (1, 100)];
        let fresh = used(&mut tickets, 100, &both);
        assert_eq!(fresh, Some(vec![true, true, false]));
        assert_eq!(used(&mut tickets, 110, &both), Some(vec![false; 3]));
        assert_eq!(tickets.len(), 2);
        tickets.give_back(&[thing(1, 100), thing(9, 100)]);
        let fresh = used(&mut tickets, 110, &both);
        assert_eq!(fresh, Some(vec![true, false, false]));
    }

    #[test]
    fn what_is_forgotten_is_not_taken_again_when_the_clock_is_set_back() {
        let mut tickets = UsedTickets::new(9, NOTHING);
        assert_eq!(used(&mut tickets, 100, &[(1, 100)]), Some(vec![true]));
        assert_eq!(used(&mut tickets, 111, &[(2, 111)]), Some(vec![true]));
        assert_eq!(tickets.len(), 1, "the first is too old");
        assert_eq!(used(&mut tickets, 105, &[(1, 100)]), Some(vec![false]));
        assert_eq!(used(&mut tickets, 105, &[(3, 101)]), Some(vec![true]));
    }

    #[test]
    fn what_was_used_in_the_last_run_is_not_taken_again() {
        let since = [thing(2, 100), thing(2, 101)];
        let mut known = UsedTickets::new(9, (99, &since));
        let asked = [(1, 99), (1, 100), (2, 100), (2, 101), (3, 101)];
        let fresh = used(&mut known, 101, &asked);
        assert_eq!(fresh, Some(vec![false, true, false, false, true]));
        assert_eq!(known.len(), 4);
    }

    #[test]
    fn a_ticket_that_the_last_run_names_twice_is_forgotten_with_both() {
        let twice = [thing(1, 100), thing(1, 100), thing(2, 100)];
        let mut known = UsedTickets::new(3, (99, &twice));
        assert_eq!(known.len(), 2);
        assert_eq!(used(&mut known, 111, &[(3, 111)]), Some(vec![true]));
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn memory_has_a_bound_and_is_free_again_when_tickets_are_too_old() {
        let mut tickets = UsedTickets::new(100, NOTHING);
        for number in 0..100 {
            let minute = 200 + number / 20;
            assert!(used(&mut tickets, 204, &[(number, minute)]).is_some());
        }
        assert_eq!(used(&mut tickets, 204, &[(500, 204)]), None);
        assert_eq!(used(&mut tickets, 210, &[(500, 204)]), None);
        assert_eq!(used(&mut tickets, 211, &[(500, 204)]), Some(vec![true]));
        assert_eq!(tickets.len(), 81);
        for minute in 300..400 {
            let some: Vec<(u64, u64)> = (0..8).map(|i| (minute * 30 + i, minute)).collect();
            assert!(used(&mut tickets, minute, &some).is_some());
            assert!(tickets.len() <= 88 && tickets.by_minute.len() <= 11);
        }
    }
}
