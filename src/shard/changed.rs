use crate::{
    coin::{COINS_PER_PAGE, Coin, PAGES},
    protocol::key_healing::{Minute, TICKET_AGE_MINUTES_MAX},
};

/// In which minute each coin last got another number from its owner, for as long as an encryption
/// ticket from before may turn up: that one speaks for the owner of then.
///
/// A coin has one byte, a page that something changed in 1,024: 15 MB if that is every page there can
/// be. What a byte says is good for four hours; a change from before that may then look like one from
/// since, and a ticket be refused that was not issued in this very minute.
#[derive(Default)]
pub(super) struct Changed {
    /// By page index; empty before the first change.
    pages: Vec<Option<Box<[u8; COINS_PER_PAGE]>>>,
}

/// Minutes that a byte tells apart; 0 is for never.
const MINUTES: u64 = u8::MAX as u64;
/// A clock that is set back by up to so much makes no ticket good that was void: as long as one lives.
const CLOCK_BACK_MINUTES_MAX: u64 = TICKET_AGE_MINUTES_MAX;

impl Changed {
    /// A coin has another number from this minute on.
    #[inline]
    pub(super) fn note(&mut self, coin: Coin, now: Minute) {
        if self.pages.is_empty() {
            self.pages.resize_with(PAGES, || None);
        }
        let page = &mut self.pages[coin.page().index()];
        let page = page.get_or_insert_with(|| Box::new([0; COINS_PER_PAGE]));
        page[coin.place()] = (now.0 % MINUTES) as u8 + 1;
    }

    /// Whether a coin got another number after this minute, as far as is known.
    pub(super) fn is_since(&self, coin: Coin, then: Minute, now: Minute) -> bool {
        let page = self.pages.get(coin.page().index());
        let noted = page.and_then(|page| Some(page.as_ref()?[coin.place()]));
        let Some(noted) = noted.and_then(|noted| noted.checked_sub(1)) else {
            return false;
        };
        // The clock may have been set back since, and a change be from a minute that comes again.
        let latest = now.0 + CLOCK_BACK_MINUTES_MAX;
        let ago = (latest + MINUTES - u64::from(noted)) % MINUTES;
        latest.saturating_sub(ago).min(now.0) > then.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    #[test]
    fn a_change_is_since_what_was_before_it_and_not_since_its_own_minute() {
        let coin = |place| PageId::from_index(14_999).unwrap().coin(place);
        for at in [1_000u64, 1_019, 1_020, 1_021, 29_000_000] {
            let mut changed = Changed::default();
            assert!(!changed.is_since(coin(1), Minute(0), Minute(at)));
            changed.note(coin(1), Minute(at));
            for later in 0..200 {
                let since = |then| changed.is_since(coin(1), Minute(then), Minute(at + later));
                assert!(since(at - 1) && since(at - 11), "{at} {later}");
                assert!(!since(at) && !since(at + later));
            }
            assert!(!changed.is_since(coin(2), Minute(at - 1), Minute(at)));
        }
    }

    #[test]
    fn a_change_is_since_what_was_before_it_when_the_clock_is_set_back() {
        let coin = PageId::from_index(3).unwrap().coin(5);
        for at in [500u64, 509, 510, 511] {
            let mut changed = Changed::default();
            changed.note(coin, Minute(at));
            for back in 1..=CLOCK_BACK_MINUTES_MAX {
                let now = at - back;
                assert!(changed.is_since(coin, Minute(now - 1), Minute(now)));
                assert!(!changed.is_since(coin, Minute(now), Minute(now)));
            }
        }
    }

    #[test]
    fn however_old_a_change_is_a_ticket_of_this_minute_is_not_from_before_it() {
        let coin = PageId::from_index(3).unwrap().coin(5);
        let mut changed = Changed::default();
        changed.note(coin, Minute(500));
        assert!((500..2_000).all(|now| !changed.is_since(coin, Minute(now), Minute(now))));
    }
}
