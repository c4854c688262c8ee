use rand::Rng;
use rand::rngs::SmallRng;

use super::under_way::UnderWay;
use super::{Kind, Setup, Verdict, all_pass};
use crate::coin::An;
use crate::load::purse::Held;
use crate::protocol::authentication::{PownDerive, derived_an};
use crate::protocol::{Command, RaidaId, Status};

/// Gives coins numbers that are derived from those in force and a delta that is drawn for each
/// request.
pub struct PownDeriveKind {
    coins: UnderWay,
    raida: RaidaId,
    /// By slot, of the request under way.
    deltas: Vec<An>,
}

impl PownDeriveKind {
    /// Its name on the command line.
    pub const NAME: &str = "pown-derive";

    /// Changes some of the coins at a time.
    ///
    /// # Panics
    /// When the number of coins to change at a time is zero.
    pub fn new(setup: Setup) -> PownDeriveKind {
        PownDeriveKind {
            raida: setup.side_door.options.raida,
            deltas: vec![An::ZERO; setup.slots],
            coins: UnderWay::new(setup),
        }
    }

    fn derive(&self, slot: usize) -> impl Fn(&Held) -> An + use<> {
        let delta = self.deltas[slot];
        move |held| derived_an(held.coin, held.an(), delta)
    }
}

impl Kind for PownDeriveKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let mut delta = [0; An::SIZE];
        rng.fill_bytes(&mut delta);
        let delta = An::new(delta);
        let coins = self.coins.begin(slot, rng)?;
        let coins = coins.map(|held| (held.coin, held.an()));
        PownDerive::compose(self.raida, coins, delta, payload);
        self.deltas[slot] = delta;
        Some(Command::PownDerive)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let verdict = all_pass(status);
        let derived = self.derive(slot);
        self.coins.end(slot, verdict, derived);
        verdict
    }

    fn lost(&mut self, slot: usize) {
        let derived = self.derive(slot);
        self.coins.lose(slot, derived);
    }

    fn withdraw(&mut self, slot: usize) {
        self.coins.withdraw(slot);
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.coins.into_coins()
    }
}
