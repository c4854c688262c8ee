use rand::rngs::SmallRng;

use super::under_way::UnderWay;
use super::{Kind, Setup, Verdict, all_pass};
use crate::load::purse::Held;
use crate::protocol::authentication::Pown;
use crate::protocol::{Command, Status};

/// Gives coins their other authenticity number, and later the first one again.
pub struct PownKind(UnderWay);

impl PownKind {
    /// Changes some of the coins at a time.
    ///
    /// # Panics
    /// When the number of coins to change at a time is zero.
    pub fn new(setup: Setup) -> PownKind {
        PownKind(UnderWay::new(setup))
    }
}

impl Kind for PownKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let coins = self.0.begin(slot, rng)?;
        Pown::compose(
            coins.map(|held| (held.coin, held.an(), held.other_an())),
            payload,
        );
        Some(Command::Pown)
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
