use std::{collections::HashMap, time::Duration};

use foldhash::fast::FixedState;

use crate::coin::PageId;

/// How long a session keeps the pages that it was shown free serial numbers of (docs/protocol.md,
/// "Group 3: executive").
pub const RESERVATION: Duration = Duration::from_secs(16);

/// Which session may create coins on which page, and until when.
#[derive(Default)]
pub struct Reservations {
    pages: HashMap<PageId, Reservation, FixedState>,
}

#[derive(Clone, Copy)]
struct Reservation {
    session: u32,
    until: Duration,
}

impl Reservations {
    /// Keeps a page for a session, unless another session has it.
    pub fn reserve(&mut self, page: PageId, session: u32, now: Duration) -> bool {
        let free_for_session = |r: &Reservation| r.session == session || r.until <= now;
        if !self.pages.get(&page).is_none_or(free_for_session) {
            return false;
        }
        let until = now + RESERVATION;
        self.pages.insert(page, Reservation { session, until });
        true
    }

    /// Whether the session has the page now.
    pub fn is_reserved(&self, page: PageId, session: u32, now: Duration) -> bool {
        let live = |r: &Reservation| r.session == session && now < r.until;
        self.pages.get(&page).is_some_and(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_sessions_for_sixteen_seconds() {
        let page = PageId::from_index(9).unwrap();
        let second = Duration::from_secs;
        let mut reservations = Reservations::default();
        assert!(reservations.reserve(page, 1, second(100)));
        assert!(!reservations.reserve(page, 2, second(115)));
        assert!(reservations.is_reserved(page, 1, second(115)));
        assert!(!reservations.is_reserved(page, 2, second(115)));
        assert!(!reservations.is_reserved(page, 1, second(116)));
        assert!(reservations.reserve(page, 2, second(116)));
    }
}
