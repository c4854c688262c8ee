use rand::rngs::SmallRng;

use super::lots::locker_key;
use super::under_way::UnderWay;
use super::{Kind, Setup, Verdict, all_pass};
use crate::coin::An;
use crate::load::purse::Held;
use crate::protocol::lockers::StoreSum;
use crate::protocol::{Command, Status};

/// Puts coins into a locker, each request into one of its own under a new key, whichever lockers they
/// lie in before.
pub struct PutKind {
    under_way: UnderWay,
    /// By slot: the key of the locker.
    keys: Vec<An>,
}

impl PutKind {
    /// Puts some of the coins into a locker at a time.
    ///
    /// # Panics
    /// When those are none.
    pub fn new(setup: Setup) -> PutKind {
        PutKind {
            keys: vec![An::ZERO; setup.slots],
            under_way: UnderWay::new(setup),
        }
    }
}

impl Kind for PutKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let key = locker_key(rng);
        self.keys[slot] = key.an();
        let coins = self.under_way.begin(slot, rng)?;
        let sum = coins.clone().fold(An::ZERO, |sum, held| sum ^ held.an());
        StoreSum::compose(coins.map(|held| held.coin), sum, key, payload);
        Some(Command::StoreSum)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let verdict = all_pass(status);
        self.under_way.end(slot, verdict, |_| self.keys[slot]);
        verdict
    }

    fn lost(&mut self, slot: usize) {
        self.under_way.lose(slot, |_| self.keys[slot]);
    }

    fn withdraw(&mut self, slot: usize) {
        self.under_way.withdraw(slot);
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.under_way.into_coins()
    }
}
