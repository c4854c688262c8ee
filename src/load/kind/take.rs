use std::collections::VecDeque;

use rand::Rng;
use rand::rngs::SmallRng;

use super::lots::Lots;
use super::{Kind, Setup, Verdict};
use crate::coin::An;
use crate::load::LoadError;
use crate::load::purse::Held;
use crate::load::side_door::SideDoor;
use crate::protocol::lockers::{LockerKey, Remove, Removed};
use crate::protocol::{Command, Status};

/// Takes all coins of a locker out, giving each a new number. The lockers are prepared before each
/// turn. A turn is over when all lockers are empty.
pub struct TakeKind {
    lots: Lots,
    door: SideDoor,
    /// Lots that lie in lockers.
    stored: VecDeque<usize>,
    /// Lots that were taken out.
    taken: Vec<usize>,
    under_way: Vec<UnderWay>,
    failure: Option<LoadError>,
}

/// A request of a slot.
#[derive(Clone, Default)]
struct UnderWay {
    lot: usize,
    /// The new numbers of its coins.
    ans: Vec<An>,
}

impl TakeKind {
    /// Takes some of the coins out of a locker at a time.
    ///
    /// # Panics
    /// When the number of coins is zero.
    pub fn new(setup: Setup) -> TakeKind {
        let (door, slots) = (setup.side_door, setup.slots);
        let under_way = UnderWay {
            lot: 0,
            ans: Vec::with_capacity(setup.coins_per_request),
        };
        let lots = Lots::new(setup);
        TakeKind {
            door,
            stored: VecDeque::with_capacity(lots.len()),
            taken: (0..lots.len()).collect(),
            lots,
            under_way: vec![under_way; slots],
            failure: None,
        }
    }

    /// All coins of a slot's request have their new numbers, or may have them.
    fn end(&mut self, slot: usize, give: impl Fn(&mut Held, An)) {
        let UnderWay { lot, ans } = &self.under_way[slot];
        for (held, &an) in self.lots.lot_mut(*lot).iter_mut().zip(ans) {
            give(held, an);
        }
    }
}

impl Kind for TakeKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let lot = self.stored.pop_front()?;
        let under_way = &mut self.under_way[slot];
        under_way.lot = lot;
        under_way.ans.clear();
        under_way.ans.extend(self.lots.coins(lot).map(|_| an(rng)));
        let key = LockerKey::new(self.lots.key(lot)).expect("the lot lies in a locker");
        let records = self.lots.coins(lot).zip(under_way.ans.iter().copied());
        Remove::compose(key, records, payload);
        Some(Command::Remove)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        let UnderWay { lot, ref ans } = self.under_way[slot];
        if !status.is_verdict() {
            self.stored.push_back(lot);
            return Verdict::Refused;
        }
        match Removed::read(status, payload, ans.len()) {
            Some(Removed::Records(_))
                if status == Status::ALL_PASS && is_full(payload, ans.len()) =>
            {
                self.end(slot, Held::got);
                self.taken.push(lot);
                Verdict::Right
            }
            // Which of its coins were taken out is no longer relevant.
            _ => {
                self.end(slot, Held::may_have_got);
                Verdict::Wrong
            }
        }
    }

    /// The coins stay out of all further requests.
    fn lost(&mut self, slot: usize) {
        self.end(slot, Held::may_have_got);
    }

    fn withdraw(&mut self, slot: usize) {
        self.stored.push_front(self.under_way[slot].lot);
    }

    fn prepare(&mut self) {
        if self.failure.is_none() {
            let taken = self.taken.drain(..);
            let stored = &mut self.stored;
            let done = (self.lots).store(taken, &self.door, |lot| stored.push_back(lot));
            if let Err(error) = done {
                self.stored.clear();
                self.failure = Some(error.into());
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.stored.is_empty()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.lots.into_coins()
    }
}

/// Whether a bitmap says that each record passed.
fn is_full(bitmap: &[u8], records: usize) -> bool {
    let bit = |record: usize| {
        bitmap
            .get(record / 8)
            .is_some_and(|byte| byte >> (record % 8) & 1 == 1)
    };
    (0..records).all(bit)
}

/// Any number that is no key.
fn an(rng: &mut SmallRng) -> An {
    let mut bytes = [0; An::SIZE];
    rng.fill_bytes(&mut bytes[..An::SIZE - 1]);
    An::new(bytes)
}
