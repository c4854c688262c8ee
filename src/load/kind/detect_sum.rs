use rand::rngs::SmallRng;

use super::drawn::{Drawn, Spoilt};
use super::{Kind, Setup, Verdict, only, wrong};
use crate::coin::{An, Coin};
use crate::load::choice::Once;
use crate::load::purse::Held;
use crate::protocol::authentication::DetectSum;
use crate::protocol::{Command, Status};

/// Asks whether the XOR of some coins' numbers is right. One request in 64 names a wrong XOR.
pub struct DetectSumKind {
    drawn: Drawn,
    once: Once,
    spoilt: Spoilt,
}

impl DetectSumKind {
    /// Asks about some of the coins at a time.
    ///
    /// # Panics
    /// When there are fewer coins than a request asks about, or a request asks about none.
    pub fn new(setup: Setup) -> DetectSumKind {
        assert!((1..=setup.coins.len()).contains(&setup.coins_per_request));
        DetectSumKind {
            once: Once::new(setup.coins.len()),
            spoilt: Spoilt::new(setup.slots),
            drawn: Drawn::new(setup),
        }
    }
}

impl Kind for DetectSumKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let mut sum = match self.spoilt.next(slot) {
            true => wrong(rng),
            false => An::ZERO,
        };
        let drawn = &self.drawn;
        let start = drawn.draw.start(rng);
        let from = payload.len();
        self.once.begin();
        let coins = (0..drawn.per_request).map(|record| {
            let held = &drawn.coins[self.once.coin(&drawn.draw, start, record, rng)];
            sum ^= held.an();
            held.coin
        });
        // The sum is known only when the last coin is drawn, and it stands behind all coins.
        DetectSum::compose(coins, An::ZERO, payload);
        payload.truncate(payload.len() - An::SIZE);
        debug_assert_eq!(payload.len() - from, drawn.per_request * Coin::SIZE);
        payload.extend_from_slice(sum.expose());
        Some(Command::DetectSum)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        match self.spoilt.is(slot) {
            true => only(Status::ALL_FAIL, status),
            false => only(Status::ALL_PASS, status),
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.drawn.coins
    }
}
