use rand::Rng;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Kind, Verdict, all_pass};
use crate::coin::An;
use crate::load::purse::Held;
use crate::protocol::authentication::Detect;
use crate::protocol::{Command, Status};

/// Asks about coins drawn evenly from all there are. One request in 64 names a wrong authenticity
/// number for its first coin, which the node has to notice: one that always says yes is found out.
pub struct DetectKind {
    coins: Vec<Held>,
    coins_per_request: usize,
    /// By slot: whether the first coin's number was wrong.
    is_spoilt: Vec<bool>,
    requests: u64,
}

/// One request in so many is wrong on purpose.
const SPOILT_EVERY: u64 = 64;

impl DetectKind {
    /// Asks about some of `coins` at a time, with at most `slots` requests under way.
    ///
    /// # Panics
    /// When there is no coin, or none is to be asked about.
    pub fn new(coins: Vec<Held>, coins_per_request: usize, slots: usize) -> DetectKind {
        assert!(!coins.is_empty() && coins_per_request > 0);
        DetectKind {
            coins,
            coins_per_request,
            is_spoilt: vec![false; slots],
            requests: 0,
        }
    }
}

impl Kind for DetectKind {
    fn command(&self) -> Command {
        Command::Detect
    }

    fn request(&mut self, slot: usize, rng: &mut SmallRng, payload: &mut Vec<u8>) -> bool {
        self.requests += 1;
        let is_spoilt = self.requests.is_multiple_of(SPOILT_EVERY);
        self.is_spoilt[slot] = is_spoilt;
        let coins = &self.coins;
        let records = (0..self.coins_per_request).map(|record| {
            let held = &coins[rng.random_range(0..coins.len())];
            match is_spoilt && record == 0 {
                true => (held.coin, held.an() ^ An::new(wrong(rng))),
                false => (held.coin, held.an()),
            }
        });
        Detect::compose(records, payload);
        true
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        if !self.is_spoilt[slot] {
            return all_pass(status);
        }
        match (status, self.coins_per_request) {
            (Status::ALL_FAIL, 1) => Verdict::Right,
            (Status::MIXED, 2..) => only_first_fails(payload, self.coins_per_request),
            (status, _) if status.is_verdict() => Verdict::Wrong,
            _ => Verdict::Refused,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.coins
    }
}

/// What turns a right number into a wrong one: anything but zeros.
fn wrong(rng: &mut SmallRng) -> [u8; An::SIZE] {
    let mut bytes = [0; An::SIZE];
    rng.fill_bytes(&mut bytes);
    bytes[0] |= 1;
    bytes
}

fn only_first_fails(payload: &[u8], records: usize) -> Verdict {
    let is_right = crate::protocol::Passed::read(Status::MIXED, payload, records)
        .is_some_and(|passed| (0..records).all(|record| passed.passed(record) == (record > 0)));
    match is_right {
        true => Verdict::Right,
        false => Verdict::Wrong,
    }
}
