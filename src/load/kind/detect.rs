use rand::rngs::SmallRng;

use super::drawn::{Drawn, Spoilt};
use super::{Kind, Setup, Verdict, all_pass};
use crate::load::purse::Held;
use crate::protocol::authentication::Detect;
use crate::protocol::{Command, Passed, Status};

/// Asks whether coins have the numbers that they have. One request in 64 names a wrong authenticity
/// number for its first coin. The node has to notice it, which exposes a node that always says yes.
pub struct DetectKind {
    drawn: Drawn,
    spoilt: Spoilt,
}

impl DetectKind {
    /// Asks about some of the coins at a time.
    ///
    /// # Panics
    /// When there is no coin, or no coin to ask about.
    pub fn new(setup: Setup) -> DetectKind {
        DetectKind {
            spoilt: Spoilt::new(setup.slots),
            drawn: Drawn::new(setup),
        }
    }
}

impl Kind for DetectKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let is_spoilt = self.spoilt.next(slot);
        Detect::compose(self.drawn.claims(is_spoilt, rng), payload);
        Some(Command::Detect)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        if !self.spoilt.is(slot) {
            return all_pass(status);
        }
        match (status, self.drawn.per_request) {
            (Status::ALL_FAIL, 1) => Verdict::Right,
            (Status::MIXED, 2..) => only_first_fails(payload, self.drawn.per_request),
            (status, _) if status.is_verdict() => Verdict::Wrong,
            _ => Verdict::Refused,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.drawn.coins
    }
}

fn only_first_fails(payload: &[u8], records: usize) -> Verdict {
    let is_right = Passed::read(Status::MIXED, payload, records)
        .is_some_and(|passed| (0..records).all(|record| passed.passed(record) == (record > 0)));
    match is_right {
        true => Verdict::Right,
        false => Verdict::Wrong,
    }
}
