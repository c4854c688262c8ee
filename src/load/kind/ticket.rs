use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Kind, SPOILT_EVERY, Setup, Verdict, wrong};
use crate::coin::Coin;
use crate::load::choice::Draw;
use crate::load::purse::Held;
use crate::protocol::healing::{GetTicket, TicketAnswer};
use crate::protocol::{Command, Status};

/// Asks for tickets for coins. One request in 64 names a wrong authenticity number for its first coin,
/// which must not get into the ticket.
///
/// A node keeps each ticket for 300 s unless told otherwise: its pool has to hold what is asked for in
/// that time (`tickets.pool`, `tickets.lifetime_s`), or the rest is refused.
pub struct TicketKind {
    coins: Vec<Held>,
    draw: Draw,
    coins_per_request: usize,
    /// By slot: whether the first coin's number was wrong.
    is_spoilt: Vec<bool>,
    requests: u64,
}

impl TicketKind {
    /// Asks for tickets for some of the coins at a time.
    ///
    /// # Panics
    /// When there is no coin, or none is to be asked about.
    pub fn new(setup: Setup) -> TicketKind {
        assert!(setup.coins_per_request > 0);
        let coins: Vec<Coin> = setup.coins.iter().map(|held| held.coin).collect();
        let rng = &mut SmallRng::from_rng(&mut rand::rng());
        TicketKind {
            draw: Draw::new(setup.choice, &coins, rng),
            coins: setup.coins,
            coins_per_request: setup.coins_per_request,
            is_spoilt: vec![false; setup.slots],
            requests: 0,
        }
    }
}

impl Kind for TicketKind {
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
        GetTicket::compose(records, payload);
        Some(Command::GetTicket)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        if !status.is_verdict() {
            return Verdict::Refused;
        }
        let (records, first) = (self.coins_per_request, usize::from(self.is_spoilt[slot]));
        let is_right = TicketAnswer::read(status, payload, records).is_some_and(|answer| {
            (0..records).all(|record| answer.passed.passed(record) == (record >= first))
        });
        match is_right {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.coins
    }
}
