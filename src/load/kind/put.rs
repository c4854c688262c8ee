use std::collections::VecDeque;

use rand::rngs::SmallRng;

use super::lots::{Lots, locker_key};
use super::{Kind, Setup, Verdict, all_pass};
use crate::load::LoadError;
use crate::load::purse::Held;
use crate::load::side_door::SideDoor;
use crate::protocol::lockers::{LockerKey, StoreSum};
use crate::protocol::{Command, Status};

/// Puts coins into lockers, each lot into one of its own under a new key. Before each turn the lots
/// of the turn before are taken out again. A turn is over when all coins lie in lockers.
pub struct PutKind {
    lots: Lots,
    door: SideDoor,
    /// Lots that lie in no locker.
    at_large: VecDeque<usize>,
    /// Lots that lie in lockers.
    stored: Vec<usize>,
    /// By slot: the lot, and the locker that it goes into.
    under_way: Vec<Option<(usize, LockerKey)>>,
    failure: Option<LoadError>,
}

impl PutKind {
    /// Puts some of the coins into a locker at a time.
    ///
    /// # Panics
    /// When the number of coins is zero.
    pub fn new(setup: Setup) -> PutKind {
        let (door, slots) = (setup.side_door, setup.slots);
        let lots = Lots::new(setup);
        PutKind {
            door,
            at_large: (0..lots.len()).collect(),
            stored: Vec::with_capacity(lots.len()),
            lots,
            under_way: vec![None; slots],
            failure: None,
        }
    }

    fn end(&mut self, slot: usize) -> (usize, LockerKey) {
        let under_way = self.under_way[slot].take();
        under_way.expect("a request of this slot is under way")
    }
}

impl Kind for PutKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let lot = self.at_large.pop_front()?;
        let key = locker_key(rng);
        self.under_way[slot] = Some((lot, key));
        StoreSum::compose(self.lots.coins(lot), self.lots.sum(lot), key, payload);
        Some(Command::StoreSum)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let (lot, key) = self.end(slot);
        let verdict = all_pass(status);
        match verdict {
            Verdict::Right => {
                self.lots.got(lot, key.an());
                self.stored.push(lot);
            }
            Verdict::Wrong => self.lots.may_have_got(lot, key.an()),
            Verdict::Refused => self.at_large.push_back(lot),
        }
        verdict
    }

    /// The coins stay out of all further requests.
    fn lost(&mut self, slot: usize) {
        let (lot, key) = self.end(slot);
        self.lots.may_have_got(lot, key.an());
    }

    fn withdraw(&mut self, slot: usize) {
        let (lot, _) = self.end(slot);
        self.at_large.push_front(lot);
    }

    fn prepare(&mut self) {
        if self.failure.is_none() {
            let stored = self.stored.drain(..);
            let at_large = &mut self.at_large;
            let done = (self.lots).take_out(stored, &self.door, |lot| at_large.push_back(lot));
            if let Err(error) = done {
                self.at_large.clear();
                self.failure = Some(error.into());
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.at_large.is_empty()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.lots.into_coins()
    }
}
