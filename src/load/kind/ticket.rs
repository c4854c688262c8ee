use rand::rngs::SmallRng;

use super::drawn::{Drawn, Spoilt};
use super::{Kind, Setup, Verdict};
use crate::load::purse::Held;
use crate::protocol::healing::{GetTicket, TicketAnswer};
use crate::protocol::{Command, Status};

/// Asks for tickets for coins. One request in 64 names a wrong authenticity number for its first
/// coin, which must not get into the ticket.
///
/// A node keeps each ticket for 300 s unless told otherwise. Its pool has to hold all tickets that
/// are asked for in that time (`tickets.pool`, `tickets.lifetime_s`). One address may have an
/// eighth of the pool (`tickets.shares`) and one coin 128 tickets (`tickets.per_coin`); the rest is
/// refused.
pub struct TicketKind {
    drawn: Drawn,
    spoilt: Spoilt,
}

impl TicketKind {
    /// Asks for tickets for some of the coins at a time.
    ///
    /// # Panics
    /// When there is no coin, or no coin to ask about.
    pub fn new(setup: Setup) -> TicketKind {
        TicketKind {
            spoilt: Spoilt::new(setup.slots),
            drawn: Drawn::new(setup),
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
        let is_spoilt = self.spoilt.next(slot);
        GetTicket::compose(self.drawn.claims(is_spoilt, rng), payload);
        Some(Command::GetTicket)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        if !status.is_verdict() {
            return Verdict::Refused;
        }
        let (records, first) = (self.drawn.per_request, usize::from(self.spoilt.is(slot)));
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
        self.drawn.coins
    }
}
