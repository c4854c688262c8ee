//! What is in circulation and what is free in a shard, and what the shard has done.

use super::{Counters, Shard, ask::Short};
use crate::runtime::Environment;
use crate::{
    coin::{COINS_PER_PAGE, Denomination, PAGES_PER_DENOMINATION, PageId, SerialNumber},
    store::log::LogCounts,
};

/// Coins in circulation, by denomination index.
#[derive(Debug)]
pub struct Circulating;

/// Which coins of a denomination are in circulation: by page, one bit a coin.
#[derive(Debug)]
pub struct Circulation(pub Denomination);

/// Free serial numbers, rising, at most `most`, whose pages become the session's.
#[derive(Debug)]
pub struct Reserve {
    /// The session.
    pub session: u32,
    /// The denomination.
    pub denomination: Denomination,
    /// How many at most.
    pub most: usize,
}

/// What this shard's core and its log have done since the start.
#[derive(Debug)]
pub struct Count;

impl Short for Circulating {
    type Answer = [u32; Denomination::COUNT];

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Self::Answer {
        shard.pages.circulating()
    }
}

impl Short for Circulation {
    type Answer = Vec<(PageId, [u64; COINS_PER_PAGE / 64])>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Self::Answer {
        let pages = shard.own_pages(self.0);
        pages
            .map(|page| (page, shard.pages.circulation(page)))
            .collect()
    }
}

impl Short for Reserve {
    type Answer = Vec<SerialNumber>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Vec<SerialNumber> {
        shard.reserve(self.session, self.denomination, self.most)
    }
}

impl Short for Count {
    type Answer = (Counters, LogCounts);

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Self::Answer {
        (shard.counters.get(), shard.log.counts())
    }
}

impl<E: Environment> Shard<E> {
    fn own_pages(&self, denomination: Denomination) -> impl Iterator<Item = PageId> {
        let pages = (0..PAGES_PER_DENOMINATION).filter_map(move |n| PageId::new(denomination, n));
        pages.filter(|&page| self.owns(page))
    }

    /// Free serial numbers from the first pages that have some and are nobody else's.
    fn reserve(&self, session: u32, denomination: Denomination, most: usize) -> Vec<SerialNumber> {
        let now = self.environment.monotonic();
        let mut reservations = self.reservations.borrow_mut();
        let mut found = Vec::new();
        for page in self.own_pages(denomination) {
            if found.len() >= most {
                break;
            }
            let circulation = self.pages.circulation(page);
            if self.pages.is_damaged(page)
                || circulation.iter().all(|&word| word == u64::MAX)
                || !reservations.reserve(page, session, now)
            {
                continue;
            }
            let free = (0..COINS_PER_PAGE)
                .filter(|place| circulation[place / 64] >> (place % 64) & 1 == 0)
                .map(|place| page.coin(place).serial_number);
            found.extend(free.take(most - found.len()));
        }
        found
    }
}
