use std::collections::{
    BTreeMap, HashMap,
    hash_map::{self, Entry},
};

use foldhash::quality::RandomState;

use super::tickets::PoolIsFull;
use crate::{
    coin::Coin,
    protocol::key_healing::{
        CLOCK_AHEAD_MINUTES_MAX, EncryptionTicket, Minute, TICKET_AGE_MINUTES_MAX, Verdict,
    },
    store::Thing,
};

/// The encryption tickets that were used here and could be used again if nobody remembered them.
/// Each is forgotten when it is too old; a whole minute's tickets go at a time, so nobody searches
/// for them.
///
/// A ticket is remembered by its first eight bytes: they are an encryption's, so that two have the
/// same ones as often as two random numbers.
pub(super) struct UsedTickets {
    most: usize,
    most_of_coin: u32,
    count: usize,
    /// The coin of each; `None` for those of an earlier run.
    by_minute: BTreeMap<Minute, HashMap<u64, Option<Coin>, RandomState>>,
    /// Tickets of minutes that are over. They go some at a time.
    leaving: Vec<hash_map::IntoIter<u64, Option<Coin>>>,
    by_coin: HashMap<Coin, u32, RandomState>,
    /// Tickets of this minute or an earlier one are refused: what is forgotten stays used, also
    /// when the clock is set back.
    until: Minute,
}

/// Least capacity: what the last run can leave, and some more.
const LEAST: usize = 512;
/// Greatest capacity: a table of this size grows in some milliseconds, which is as long as a core
/// may stand still.
const MOST: usize = 1 << 17;
/// Number of old tickets that go when others come, in addition to the number that come.
const LEAVE_A_TURN: usize = 512;
/// One ticket in this number may be of the same coin. A coin's owner can have any number of
/// tickets, and could otherwise keep all others from healing their keys.
const SHARE_OF_COIN: usize = 64;
/// Every coin may have at least this number of tickets.
const LEAST_OF_COIN: usize = 512;

/// The latest minute that a ticket issued until now can bear, from a helper whose clock is ahead.
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
    /// Remembers at most `most` tickets. Tickets used in earlier runs are known: all of them until
    /// a moment, and those listed since.
    pub(super) fn new(most: usize, (until, since): (u64, &[Thing])) -> UsedTickets {
        let most = most.clamp(LEAST, MOST);
        let mut tickets = UsedTickets {
            most,
            most_of_coin: LEAST_OF_COIN.max(most / SHARE_OF_COIN) as u32,
            count: 0,
            by_minute: BTreeMap::new(),
            leaving: vec![],
            by_coin: HashMap::default(),
            until: Minute(until),
        };
        for thing in since {
            let of_minute = tickets.by_minute.entry(Minute(thing.moment));
            let known = of_minute.or_default().insert(thing.name, None);
            tickets.count += usize::from(known.is_none());
        }
        tickets
    }

    /// Uses up tickets of a coin. Returns which of them had not been used and are not from before
    /// the coin's last possible change. Tickets from before that change are not used up.
    ///
    /// # Errors
    /// The capacity is full; then no ticket is used.
    pub(super) fn use_up(
        &mut self,
        now: Minute,
        coin: Coin,
        tickets: &[Thing],
        is_too_early: impl Fn(&Thing) -> bool,
    ) -> Result<Vec<Verdict>, PoolIsFull> {
        self.forget(now, LEAVE_A_TURN + tickets.len());
        let of_coin = self.by_coin.get(&coin).copied().unwrap_or(0) as usize;
        if self.count + tickets.len() > self.most
            || of_coin + tickets.len() > self.most_of_coin as usize
        {
            return Err(PoolIsFull);
        }
        let verdicts = tickets.iter().map(|ticket| {
            let minute = Minute(ticket.moment);
            let known = self.by_minute.get(&minute);
            if known.is_some_and(|known| known.contains_key(&ticket.name)) {
                return Verdict::Refused;
            }
            if is_too_early(ticket) {
                return Verdict::TooEarly;
            }
            if minute <= self.until {
                return Verdict::Refused;
            }
            let of_minute = self.by_minute.entry(minute).or_default();
            of_minute.insert(ticket.name, Some(coin));
            *self.by_coin.entry(coin).or_default() += 1;
            self.count += 1;
            Verdict::Accepted
        });
        Ok(verdicts.collect())
    }

    /// Takes the use back, since nothing came of it.
    pub(super) fn give_back(&mut self, tickets: &[Thing]) {
        for ticket in tickets {
            let of_minute = self.by_minute.get_mut(&Minute(ticket.moment));
            if let Some(coin) = of_minute.and_then(|of_minute| of_minute.remove(&ticket.name)) {
                self.count_down(coin);
            }
        }
    }

    fn count_down(&mut self, coin: Option<Coin>) {
        self.count -= 1;
        if let Some(coin) = coin
            && let Entry::Occupied(mut of_coin) = self.by_coin.entry(coin)
        {
            *of_coin.get_mut() -= 1;
            if *of_coin.get() == 0 {
                of_coin.remove();
            }
        }
    }

    /// Tickets that are remembered, those included that are too old by now.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn forget(&mut self, now: Minute, most: usize) {
        while let Some(first) = self.by_minute.first_entry()
            && first.key().0 + TICKET_AGE_MINUTES_MAX < now.0
        {
            let (minute, tickets) = first.remove_entry();
            self.until = self.until.max(minute);
            self.leaving.push(tickets.into_iter());
        }
        for _ in 0..most {
            let Some(leaving) = self.leaving.last_mut() else {
                return;
            };
            match leaving.next() {
                Some((_, coin)) => self.count_down(coin),
                None => drop(self.leaving.pop()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    const NOTHING: (u64, &[Thing]) = (0, &[]);

    fn thing(name: u64, moment: u64) -> Thing {
        Thing { moment, name }
    }

    fn use_of(
        tickets: &mut UsedTickets,
        now: u64,
        coin: usize,
        asked: &[Thing],
    ) -> Option<Vec<bool>> {
        let coin = PageId::from_index(7).unwrap().coin(coin);
        let verdicts = tickets.use_up(Minute(now), coin, asked, |_| false).ok()?;
        let verdicts = verdicts.into_iter();
        Some(
            verdicts
                .map(|verdict| verdict == Verdict::Accepted)
                .collect(),
        )
    }

    /// Uses tickets of a coin, of each its name and its minute.
    fn used(tickets: &mut UsedTickets, now: u64, asked: &[(u64, u64)]) -> Option<Vec<bool>> {
        let asked: Vec<Thing> = asked.iter().map(|&(name, at)| thing(name, at)).collect();
        use_of(tickets, now, 1, &asked)
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
    fn a_ticket_from_before_the_coin_changed_is_not_used_up_and_one_that_was_used_is_no_such_one() {
        use Verdict::{Accepted, Refused, TooEarly};
        let mut tickets = UsedTickets::new(9, (90, &[thing(3, 100)]));
        let coin = PageId::from_index(7).unwrap().coin(1);
        let all = [thing(1, 100), thing(2, 101), thing(3, 100), thing(4, 90)];
        let said = |tickets: &mut UsedTickets, earliest| {
            let is_too_early = |ticket: &Thing| ticket.moment < earliest;
            tickets.use_up(Minute(101), coin, &all, is_too_early)
        };
        let first = [TooEarly, Accepted, Refused, TooEarly];
        assert_eq!(said(&mut tickets, 101), Ok(first.to_vec()));
        assert_eq!(tickets.len(), 2);
        let second = [Accepted, Refused, Refused, Refused];
        assert_eq!(said(&mut tickets, 0), Ok(second.to_vec()));
        let third = [Refused; 3].into_iter().chain([TooEarly]);
        assert_eq!(said(&mut tickets, 102), Ok(third.collect()));
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
        let mut tickets = UsedTickets::new(600, NOTHING);
        for number in 0..600 {
            let ticket = [thing(number, 200 + number / 120)];
            assert!(use_of(&mut tickets, 204, number as usize, &ticket).is_some());
        }
        assert_eq!(used(&mut tickets, 204, &[(900, 204)]), None);
        assert_eq!(used(&mut tickets, 210, &[(900, 204)]), None);
        assert_eq!(used(&mut tickets, 211, &[(900, 204)]), Some(vec![true]));
        assert_eq!(tickets.len(), 481);
        for minute in 300..400 {
            let some: Vec<(u64, u64)> = (0..40).map(|i| (minute * 40 + i, minute)).collect();
            assert!(used(&mut tickets, minute, &some).is_some());
            assert!(tickets.len() <= 440 && tickets.by_minute.len() <= 11);
            assert!(tickets.by_coin.len() == 1);
        }
    }

    #[test]
    fn one_coins_tickets_leave_room_for_those_of_others() {
        let mut tickets = UsedTickets::new(65_536, NOTHING);
        let of_one: Vec<Thing> = (0..1_024).map(|name| thing(name, 100)).collect();
        assert!(use_of(&mut tickets, 100, 1, &of_one).is_some());
        let one_more = [thing(5_000, 100)];
        assert_eq!(use_of(&mut tickets, 100, 1, &one_more), None);
        assert_eq!(use_of(&mut tickets, 100, 2, &one_more), Some(vec![true]));
        tickets.give_back(&of_one[..2]);
        let one_more = [thing(5_001, 100)];
        assert_eq!(use_of(&mut tickets, 100, 1, &one_more), Some(vec![true]));
    }
}
