use rand::Rng;
use rand::rngs::SmallRng;

use super::drawn::Drawn;
use super::{Kind, Setup, Verdict, wrong};
use crate::load::purse::Held;
use crate::protocol::healing::{Find, FindAnswer, Found};
use crate::protocol::{Command, Status};

/// Asks which of two numbers coins have. For half of the requests the first is right, for most
/// others the second, and for some neither.
pub struct FindKind {
    drawn: Drawn,
    /// By slot: the expected result for each coin.
    expected: Vec<Found>,
}

impl FindKind {
    /// Asks about some of the coins at a time.
    ///
    /// # Panics
    /// When there is no coin, or no coin to ask about.
    pub fn new(setup: Setup) -> FindKind {
        FindKind {
            expected: vec![Found::Neither; setup.slots],
            drawn: Drawn::new(setup),
        }
    }
}

impl Kind for FindKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let found = match rng.next_u32() % 64 {
            0..32 => Found::An,
            32..63 => Found::Pan,
            _ => Found::Neither,
        };
        self.expected[slot] = found;
        let other = wrong(rng);
        let records = self.drawn.next(rng).map(|held| {
            let (right, wrong) = (held.an(), held.an() ^ other);
            match found {
                Found::An => (held.coin, right, wrong),
                Found::Pan => (held.coin, wrong, right),
                Found::Neither => (held.coin, wrong, wrong),
            }
        });
        Find::compose(records, payload);
        Some(Command::Find)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        if !status.is_verdict() {
            return Verdict::Refused;
        }
        let answer = FindAnswer::read(status, payload, self.drawn.per_request);
        let expected = self.expected[slot];
        match answer.is_some_and(|found| found.iter().all(|&found| found == expected)) {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.drawn.coins
    }
}
