use rand::rngs::SmallRng;

use super::drawn::Drawn;
use super::{Kind, Setup, Verdict};
use crate::coin::Coin;
use crate::load::purse::Held;
use crate::protocol::healing::{GetTicket, TicketAnswer, TicketId, Validate};
use crate::protocol::{Command, RaidaId, Status};

/// Claims tickets in the names of all 25 servers, one after the other: for each ticket a request
/// that asks for it, and 25 that claim it. Every claim must give the coins of the ticket, in their
/// order.
///
/// Needs a node that believes every claim: one without a list of peers, or with
/// `peers.verify_source = false`.
pub struct ValidateKind {
    drawn: Drawn,
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    /// The coins of its ticket, in the order of the request.
    coins: Vec<Coin>,
    ticket: Option<TicketId>,
    /// Number of servers that have claimed it.
    claimed: u8,
}

impl ValidateKind {
    /// Claims tickets for some of the coins at a time.
    ///
    /// # Panics
    /// When there is no coin, or no coin to ask about.
    pub fn new(setup: Setup) -> ValidateKind {
        ValidateKind {
            slots: (0..setup.slots).map(|_| Slot::default()).collect(),
            drawn: Drawn::new(setup),
        }
    }
}

impl Kind for ValidateKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let Slot {
            coins,
            ticket,
            claimed,
        } = &mut self.slots[slot];
        if let (Some(ticket), Some(claimant)) = (*ticket, RaidaId::new(*claimed)) {
            *claimed += 1;
            Validate::compose(claimant, ticket, payload);
            return Some(Command::Validate);
        }
        (*ticket, *claimed) = (None, 0);
        coins.clear();
        let claims = self.drawn.claims(false, rng);
        let claims = claims.inspect(|&(coin, _)| coins.push(coin));
        GetTicket::compose(claims, payload);
        Some(Command::GetTicket)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        let slot = &mut self.slots[slot];
        if !status.is_verdict() {
            slot.ticket = None;
            return Verdict::Refused;
        }
        let is_right = match slot.ticket {
            Some(_) => {
                let coins = Validate::read(payload);
                coins.is_some_and(|coins| coins.iter().eq(slot.coins.iter().copied()))
            }
            None => {
                let answer = TicketAnswer::read(status, payload, self.drawn.per_request);
                slot.ticket = answer.and_then(|answer| answer.ticket);
                slot.ticket.is_some() && status == Status::ALL_PASS
            }
        };
        match is_right {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }

    /// The server in whose name the claim was made counts as having claimed; a ticket that was
    /// asked for is given up.
    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.claimed = slot.claimed.saturating_sub(1);
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.drawn.coins
    }
}
