use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Kind, SPOILT_EVERY, Setup, Verdict, all_pass, wrong};
use crate::coin::Coin;
use crate::load::choice::Draw;
use crate::load::purse::Held;
use crate::protocol::authentication::Detect;
use crate::protocol::{Command, Passed, Status};

/// Asks whether coins have the numbers that they have. One request in 64 names a wrong authenticity
/// number for its first coin, which the node has to notice: one that always says yes is found out.
pub struct DetectKind {
    coins: Vec<Held>,
    draw: Draw,
    coins_per_request: usize,
    /// By slot: whether the first coin's number was wrong.
    is_spoilt: Vec<bool>,
    requests: u64,
}

impl DetectKind {
    /// Asks about some of the coins at a time.
    ///
    /// # Panics
    /// When there is no coin, or none is to be asked about.
    pub fn new(setup: Setup) -> DetectKind {
        assert!(setup.coins_per_request > 0);
        let coins: Vec<Coin> = setup.coins.iter().map(|held| held.coin).collect();
        let rng = &mut SmallRng::from_rng(&mut rand::rng());
        DetectKind {
            draw: Draw::new(setup.choice, &coins, rng),
            coins: setup.coins,
            coins_per_request: setup.coins_per_request,
            is_spoilt: vec![false; setup.slots],
            requests: 0,
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
        self.requests += 1;
        let is_spoilt = self.requests.is_multiple_of(SPOILT_EVERY);
        self.is_spoilt[slot] = is_spoilt;
        let start = self.draw.start(rng);
        let records = (0..self.coins_per_request).map(|record| {
            let held = &self.coins[self.draw.coin(start, record, rng)];
            match is_spoilt && record == 0 {
                true => (held.coin, held.an() ^ wrong(rng)),
                false => (held.coin, held.an()),
            }
        });
        Detect::compose(records, payload);
        Some(Command::Detect)
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

fn only_first_fails(payload: &[u8], records: usize) -> Verdict {
    let is_right = Passed::read(Status::MIXED, payload, records)
        .is_some_and(|passed| (0..records).all(|record| passed.passed(record) == (record > 0)));
    match is_right {
        true => Verdict::Right,
        false => Verdict::Wrong,
    }
}
