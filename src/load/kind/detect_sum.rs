use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Kind, SPOILT_EVERY, Setup, Verdict, only, wrong};
use crate::coin::{An, Coin};
use crate::load::choice::{Draw, Once};
use crate::load::purse::Held;
use crate::protocol::authentication::DetectSum;
use crate::protocol::{Command, Status};

/// Asks whether the numbers of some coins have the XOR that they have. One request in 64 names a wrong
/// one.
pub struct DetectSumKind {
    coins: Vec<Held>,
    draw: Draw,
    once: Once,
    coins_per_request: usize,
    /// By slot: whether the sum was wrong.
    is_spoilt: Vec<bool>,
    requests: u64,
}

impl DetectSumKind {
    /// Asks about some of the coins at a time.
    ///
    /// # Panics
    /// When there are fewer coins than are to be asked about at a time, or those are none.
    pub fn new(setup: Setup) -> DetectSumKind {
        assert!((1..=setup.coins.len()).contains(&setup.coins_per_request));
        let coins: Vec<Coin> = setup.coins.iter().map(|held| held.coin).collect();
        let rng = &mut SmallRng::from_rng(&mut rand::rng());
        DetectSumKind {
            draw: Draw::new(setup.choice, &coins, rng),
            once: Once::new(coins.len()),
            coins: setup.coins,
            coins_per_request: setup.coins_per_request,
            is_spoilt: vec![false; setup.slots],
            requests: 0,
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
        self.requests += 1;
        let is_spoilt = self.requests.is_multiple_of(SPOILT_EVERY);
        self.is_spoilt[slot] = is_spoilt;
        let mut sum = match is_spoilt {
            true => wrong(rng),
            false => An::ZERO,
        };
        let start = self.draw.start(rng);
        let from = payload.len();
        self.once.begin();
        let coins = (0..self.coins_per_request).map(|record| {
            let held = &self.coins[self.once.coin(&self.draw, start, record, rng)];
            sum ^= held.an();
            held.coin
        });
        // The sum is known only when the last coin is drawn, and stands behind them all.
        DetectSum::compose(coins, An::ZERO, payload);
        payload.truncate(payload.len() - An::SIZE);
        debug_assert_eq!(payload.len() - from, self.coins_per_request * Coin::SIZE);
        payload.extend_from_slice(sum.expose());
        Some(Command::DetectSum)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        match self.is_spoilt[slot] {
            true => only(Status::ALL_FAIL, status),
            false => only(Status::ALL_PASS, status),
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.coins
    }
}
