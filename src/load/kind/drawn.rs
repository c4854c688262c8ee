use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{SPOILT_EVERY, Setup, wrong};
use crate::coin::{An, Coin};
use crate::load::choice::Draw;
use crate::load::purse::Held;

/// Coins that requests only ask about: any number of requests about the same coin may be under way.
pub(super) struct Drawn {
    pub(super) coins: Vec<Held>,
    pub(super) draw: Draw,
    pub(super) per_request: usize,
}

/// Which requests are wrong on purpose: [one in this many](SPOILT_EVERY).
pub(super) struct Spoilt {
    by_slot: Vec<bool>,
    requests: u64,
}

impl Drawn {
    /// # Panics
    /// When there is no coin, or no coin to ask about.
    pub(super) fn new(setup: Setup) -> Drawn {
        assert!(setup.coins_per_request > 0);
        let coins: Vec<Coin> = setup.coins.iter().map(|held| held.coin).collect();
        let rng = &mut SmallRng::from_rng(&mut rand::rng());
        Drawn {
            draw: Draw::new(setup.choice, &coins, rng),
            coins: setup.coins,
            per_request: setup.coins_per_request,
        }
    }

    /// The coins of a new request.
    pub(super) fn next(&self, rng: &mut SmallRng) -> impl Iterator<Item = &Held> {
        let start = self.draw.start(rng);
        (0..self.per_request).map(move |record| &self.coins[self.draw.coin(start, record, rng)])
    }

    /// The coins of a new request with their numbers; the first number is wrong where the request
    /// is spoilt.
    pub(super) fn claims(
        &self,
        is_spoilt: bool,
        rng: &mut SmallRng,
    ) -> impl Iterator<Item = (Coin, An)> {
        let mut off = is_spoilt.then(|| wrong(rng));
        self.next(rng).map(move |held| match off.take() {
            Some(off) => (held.coin, held.an() ^ off),
            None => (held.coin, held.an()),
        })
    }
}

impl Spoilt {
    pub(super) fn new(slots: usize) -> Spoilt {
        Spoilt {
            by_slot: vec![false; slots],
            requests: 0,
        }
    }

    /// Whether the new request of a slot should be wrong.
    pub(super) fn next(&mut self, slot: usize) -> bool {
        self.requests += 1;
        self.by_slot[slot] = self.requests.is_multiple_of(SPOILT_EVERY);
        self.by_slot[slot]
    }

    /// Whether the request under way is wrong.
    pub(super) fn is(&self, slot: usize) -> bool {
        self.by_slot[slot]
    }
}
