use rand::rngs::SmallRng;

use super::under_way::UnderWay;
use super::{Kind, Setup, Verdict, all_pass};
use crate::coin::An;
use crate::load::purse::Held;
use crate::protocol::authentication::PownSum;
use crate::protocol::{Command, Status};

/// Gives coins their other authenticity number by a sum. All coins of a purse have the same XOR of
/// their two numbers, so one delta takes any of them to its other number, whichever it has. A node
/// of the `spec` dialect takes one coin per request: [`super::PownDeriveKind`] is for several.
pub struct PownSumKind(UnderWay);

impl PownSumKind {
    /// Its name on the command line.
    pub const NAME: &str = "pown-sum";

    /// Changes some of the coins at a time.
    ///
    /// # Panics
    /// When the number of coins to change at a time is zero.
    pub fn new(setup: Setup) -> PownSumKind {
        PownSumKind(UnderWay::new(setup))
    }
}

impl Kind for PownSumKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let coins = self.0.begin(slot, rng)?;
        let (mut sum, mut delta) = (An::ZERO, An::ZERO);
        for held in coins.clone() {
            sum ^= held.an();
            delta = held.an() ^ held.other_an();
        }
        debug_assert!(
            coins
                .clone()
                .all(|held| held.an() ^ held.other_an() == delta)
        );
        PownSum::compose(coins.map(|held| held.coin), sum, delta, payload);
        Some(Command::PownSum)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let verdict = all_pass(status);
        self.0.end(slot, verdict, Held::other_an);
        verdict
    }

    fn lost(&mut self, slot: usize) {
        self.0.lose(slot, Held::other_an);
    }

    fn withdraw(&mut self, slot: usize) {
        self.0.withdraw(slot);
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.0.into_coins()
    }
}
