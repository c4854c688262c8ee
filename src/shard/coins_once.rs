use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// Tells which numbers of a list have come before. Its memory is kept from list to list, twice the
/// longest one's numbers by 8 bytes.
pub(super) struct CoinsOnce {
    /// The list that a number was last seen in, and the number. The length is a power of two.
    seen: Vec<(u32, u32)>,
    list: u32,
    hash: FixedState,
}

impl CoinsOnce {
    /// `seed` is a number that nobody knows: anyone who knew it could make every look a long one.
    pub(super) fn new(seed: u64) -> CoinsOnce {
        CoinsOnce {
            seen: Vec::new(),
            list: 0,
            hash: FixedState::with_seed(seed),
        }
    }

    /// Begins a list of at most `most` numbers.
    pub(super) fn begin(&mut self, most: usize) {
        let room = (2 * most).next_power_of_two();
        self.list = self.list.wrapping_add(1);
        if self.seen.len() < room || self.list == 0 {
            self.seen.clear();
            self.seen
                .resize(room.max(self.seen.capacity()).next_power_of_two(), (0, 0));
            self.list = 1;
        }
    }

    /// Whether this number is the first of its kind in the list.
    #[inline]
    pub(super) fn is_new(&mut self, number: u32) -> bool {
        let most = self.seen.len() - 1;
        let mut at = self.hash.hash_one(number) as usize & most;
        loop {
            let seen = &mut self.seen[at];
            if seen.0 != self.list {
                *seen = (self.list, number);
                return true;
            }
            if seen.1 == number {
                return false;
            }
            at = (at + 1) & most;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once_in_every_list() {
        let mut once = CoinsOnce::new(0x9e37_79b9_7f4a_7c15);
        for most in [1, 2, 100, 4_096, 3] {
            once.begin(2 * most);
            for number in 0..most as u32 {
                assert!(once.is_new(number * 1_024));
                assert!(!once.is_new(number / 2 * 1_024));
            }
        }
    }

    #[test]
    fn lists_are_told_apart_when_their_count_starts_again() {
        let mut once = CoinsOnce::new(1);
        once.begin(8);
        assert!(once.is_new(7));
        once.list = u32::MAX;
        once.begin(8);
        assert!(once.is_new(7) && !once.is_new(7));
    }
}
