use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::drawn::Spoilt;
use super::lots::{Lots, locker_key};
use super::{Kind, Setup, Verdict};
use crate::coin::Coin;
use crate::load::LoadError;
use crate::load::choice::{Choice, Draw};
use crate::load::purse::Held;
use crate::load::side_door::SideDoor;
use crate::protocol::lockers::{LockerKey, Peek};
use crate::protocol::{Command, Status};

/// Looks into lockers. The answer has to show exactly the coins that lie there in the order in
/// which they were stored. One request in 64 names a key that no locker has.
///
/// Coins that already lie in lockers stay there as they are. The first answer states their order,
/// and all others have to state the same. Other coins are put into lockers before the first turn.
pub struct PeekKind {
    lots: Lots,
    draw: Draw,
    door: SideDoor,
    /// The expected answers to a peek of each locker, one after the other.
    contents: Vec<u8>,
    /// By lot: whether the order of its coins is known.
    is_known: Vec<bool>,
    /// Lots that lie in no locker yet.
    to_store: Vec<usize>,
    spoilt: Spoilt,
    /// By slot: the lot asked about.
    by_slot: Vec<usize>,
    failure: Option<LoadError>,
}

impl PeekKind {
    /// Looks into lockers of `coins_per_request` coins.
    ///
    /// # Panics
    /// When there are too few coins for one locker, or the number of coins is zero.
    pub fn new(setup: Setup) -> PeekKind {
        let (door, slots) = (setup.side_door, setup.slots);
        let choice = match setup.choice {
            zipf @ Choice::Zipf { .. } => zipf,
            _ => Choice::Uniform,
        };
        let lots = Lots::new(setup);
        let lie_there = lots.lot(0)[0].is_in_locker();
        let firsts: Vec<Coin> = (0..lots.len()).map(|lot| lots.lot(lot)[0].coin).collect();
        let mut contents = Vec::new();
        for coin in (0..lots.len()).flat_map(|lot| lots.coins(lot)) {
            contents.extend_from_slice(&coin.to_bytes());
        }
        PeekKind {
            draw: Draw::new(choice, &firsts, &mut SmallRng::from_rng(&mut rand::rng())),
            door,
            contents,
            is_known: vec![!lie_there; lots.len()],
            to_store: match lie_there {
                true => vec![],
                false => (0..lots.len()).collect(),
            },
            lots,
            spoilt: Spoilt::new(slots),
            by_slot: vec![0; slots],
            failure: None,
        }
    }

    /// Whether this is the right answer to a peek of the lot.
    fn is_in(&mut self, lot: usize, shown: &[u8]) -> bool {
        let size = self.contents.len() / self.lots.len();
        let expected = &mut self.contents[lot * size..][..size];
        if !self.is_known[lot] && is_reordered(expected, shown) {
            expected.copy_from_slice(shown);
            self.is_known[lot] = true;
        }
        expected == shown
    }
}

impl Kind for PeekKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        if self.failure.is_some() {
            return None;
        }
        let key = match self.spoilt.next(slot) {
            true => locker_key(rng),
            false => {
                let lot = self.draw.coin(0, 0, rng);
                self.by_slot[slot] = lot;
                LockerKey::new(self.lots.key(lot)).expect("the lot lies in a locker")
            }
        };
        Peek::compose(key, payload);
        Some(Command::Peek)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        let is_right = match (self.spoilt.is(slot), status) {
            (true, Status::ALL_FAIL) => payload.is_empty(),
            (false, Status::ALL_PASS) => self.is_in(self.by_slot[slot], payload),
            (_, status) if status.is_verdict() => false,
            _ => return Verdict::Refused,
        };
        match is_right {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn prepare(&mut self) {
        let lots = std::mem::take(&mut self.to_store);
        if let Err(error) = self.lots.store(lots, &self.door, |_| {}) {
            self.failure = Some(error.into());
        }
    }

    fn is_spent(&self) -> bool {
        self.failure.is_some()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.lots.into_coins()
    }
}

/// Whether both lists have the same coins, each once.
fn is_reordered(some: &[u8], others: &[u8]) -> bool {
    let sorted = |list: &[u8]| {
        let mut coins: Vec<[u8; Coin::SIZE]> = list.as_chunks().0.to_vec();
        coins.sort_unstable();
        coins
    };
    some.len() == others.len() && sorted(some) == sorted(others)
}
