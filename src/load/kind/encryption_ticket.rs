use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

use super::drawn::{Drawn, Spoilt};
use super::{Kind, Setup, Verdict};
use crate::coin::An;
use crate::load::LoadError;
use crate::load::purse::Held;
use crate::protocol::key_healing::{EncryptionTicket, GetEncryptionTicket, split};
use crate::protocol::{Command, RaidaId, Status};

/// Asks for encryption tickets, with which a client gets a new number for a coin at another server.
/// Each request is for one coin, proven by its number here. One request in 64 names a wrong number,
/// and must get no ticket.
///
/// Only the two servers can read a ticket. From here it can be checked that it has sixteen bytes,
/// and that they differ from the ticket before, since each request wishes another number.
pub struct EncryptionTicketKind {
    drawn: Drawn,
    spoilt: Spoilt,
    /// The node's own number: it gives no ticket for itself.
    own: RaidaId,
    /// The last ticket.
    last: Option<EncryptionTicket>,
    /// The node's last status for a request that deserves a ticket and got none.
    refused: Option<Status>,
}

impl EncryptionTicketKind {
    /// Its name on the command line.
    pub const NAME: &str = "encryption-ticket";

    /// Asks for tickets for one coin at a time, however many coins other kinds ask about.
    ///
    /// # Panics
    /// When there is no coin.
    pub fn new(setup: Setup) -> EncryptionTicketKind {
        EncryptionTicketKind {
            spoilt: Spoilt::new(setup.slots),
            own: setup.side_door.options.raida,
            drawn: Drawn::new(Setup {
                coins_per_request: 1,
                ..setup
            }),
            last: None,
            refused: None,
        }
    }

    /// Any server but the node itself.
    fn broken(&self, rng: &mut SmallRng) -> RaidaId {
        let ahead = rng.random_range(1..RaidaId::COUNT as u8);
        let number = (self.own.get() + ahead) % RaidaId::COUNT as u8;
        RaidaId::new(number).expect("it is below the count of servers")
    }
}

impl Kind for EncryptionTicketKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let is_spoilt = self.spoilt.next(slot);
        let (coin, an) = self.drawn.claims(is_spoilt, rng).next()?;
        let mut wished = [0; An::SIZE];
        rng.fill_bytes(&mut wished);
        let [part, _] = split(An::new(wished));
        GetEncryptionTicket {
            broken: self.broken(rng),
            coin,
            part,
            an: Some(an),
        }
        .compose(payload);
        Some(Command::EncryptionTicket)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        let is_right = match (self.spoilt.is(slot), status) {
            (true, Status::KEY_NOT_FOUND) => payload.is_empty(),
            (false, Status::SUCCESS) => {
                let before = self.last;
                self.last = EncryptionTicket::read(payload);
                self.last.is_some() && self.last != before
            }
            (_, status) if status.is_verdict() => false,
            (is_spoilt, status) => {
                if !is_spoilt {
                    self.refused = Some(status);
                }
                return Verdict::Refused;
            }
        };
        match is_right {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    /// A node that gives no ticket at all may still notice wrong numbers, and those would look like
    /// right answers: so that is an error.
    fn finish(&mut self) -> Result<(), LoadError> {
        match (self.last, self.refused) {
            (None, Some(status)) => Err(LoadError::NoEncryptionTicket(status)),
            _ => Ok(()),
        }
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.drawn.coins
    }
}
