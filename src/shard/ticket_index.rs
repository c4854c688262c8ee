use crate::runtime::prefetch;

/// Finds tickets by their numbers, which are random. A number belongs to one set of eight entries,
/// a cache line, and is in it or nowhere; where all eight are taken, the ticket gets another
/// number. An entry is free again as soon as its ticket is over, so that nothing has to be removed.
pub(super) struct TicketIndex {
    sets: Box<[Set]>,
}

#[derive(Clone)]
#[repr(align(64))]
struct Set {
    /// The ticket's number; 0 where the entry was never used.
    numbers: [u32; ENTRIES],
    /// The number of tickets issued before this one, its low half.
    places: [u32; ENTRIES],
}

const ENTRIES: usize = 8;

/// With a pool that is full, half of the entries are taken, and one number in twenty finds its set
/// full.
const ENTRIES_A_TICKET: usize = 2;

impl TicketIndex {
    /// Bytes for each ticket of a pool.
    pub(super) const BYTES_A_TICKET: usize = ENTRIES_A_TICKET * size_of::<Set>() / ENTRIES;

    pub(super) fn new(pool: usize) -> TicketIndex {
        let sets = (pool * ENTRIES_A_TICKET).div_ceil(ENTRIES).max(1);
        let set = Set {
            numbers: [0; ENTRIES],
            places: [0; ENTRIES],
        };
        TicketIndex {
            sets: vec![set; sets].into(),
        }
    }

    /// Enters a number; `false` where it is taken, or its set is full. `is_live` says whether the
    /// ticket at a place is not over.
    #[inline]
    pub(super) fn enter(&mut self, number: u32, place: u32, is_live: impl Fn(u32) -> bool) -> bool {
        let at = self.set_of(number);
        let set = &mut self.sets[at];
        let mut free = None;
        for entry in 0..ENTRIES {
            if set.numbers[entry] == 0 || !is_live(set.places[entry]) {
                free = Some(entry);
            } else if set.numbers[entry] == number {
                return false;
            }
        }
        let Some(free) = free else {
            return false;
        };
        (set.numbers[free], set.places[free]) = (number, place);
        true
    }

    /// Where the ticket with this number is, if there is one.
    #[inline]
    pub(super) fn find(&self, number: u32, is_live: impl Fn(u32) -> bool) -> Option<u32> {
        let set = &self.sets[self.set_of(number)];
        let entries = set.numbers.iter().zip(&set.places);
        let mut found = entries.filter(|&(&of, &place)| of == number && is_live(place));
        found.next().map(|(_, &place)| place)
    }

    /// Has the processor fetch the set of a number that is about to be entered.
    #[inline]
    pub(super) fn prefetch(&self, number: u32) {
        prefetch(&raw const self.sets[self.set_of(number)]);
    }

    /// By its high part: the low one names the shard.
    #[inline]
    fn set_of(&self, number: u32) -> usize {
        ((u64::from(number) * self.sets.len() as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_as_long_as_its_ticket_lives() {
        let mut index = TicketIndex::new(64);
        for (place, number) in (1..=64).map(|i| (i, i * 0x03ff_ffff)) {
            assert!(index.enter(number, place, |_| true));
        }
        for (place, number) in (1..=64).map(|i| (i, i * 0x03ff_ffff)) {
            assert_eq!(index.find(number, |_| true), Some(place));
            assert_eq!(index.find(number, |live| live != place), None);
            assert_eq!(index.find(number ^ 0x100, |_| true), None);
            assert!(!index.enter(number, 99, |_| true), "it is taken");
        }
        // The number of a ticket that is over names the new one.
        assert!(index.enter(0x03ff_ffff, 65, |place| place != 1));
        assert_eq!(index.find(0x03ff_ffff, |place| place != 1), Some(65));
    }

    #[test]
    fn a_set_takes_eight_and_more_when_some_of_them_are_over() {
        let mut index = TicketIndex::new(64);
        assert_eq!(index.sets.len(), 16);
        assert_eq!(size_of::<Set>(), 64);
        for number in 1..=8 {
            assert!(index.enter(number, number, |_| true));
        }
        assert!(!index.enter(9, 9, |_| true));
        assert!(
            index.enter(0xffff_ffff, 10, |_| true),
            "another set has room"
        );
        assert!(index.enter(9, 9, |place| place > 3));
        assert_eq!(index.find(9, |_| true), Some(9));
    }
}
