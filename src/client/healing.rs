use std::ops::Range;

use super::{Client, ClientError, Outcome, PerRaida};
use crate::coin::{An, Coin};
use crate::protocol::authentication::DetectSum;
use crate::protocol::healing::{
    Find, FindAnswer, Fix, Found, GetTicket, PartialGenerator, TicketAnswer, TicketId,
};
use crate::protocol::key_healing::{
    EncryptionTicket, FixEncryption, GetEncryptionTicket, Presented, Verdict,
};
use crate::protocol::request::RequestTooLong;
use crate::protocol::{Command, RaidaId};

/// Coins that one ticket can hold (docs/protocol.md section 5).
const TICKET_COINS_MAX: usize = 4_096;

/// The result of asking for tickets for a list of coins.
#[derive(Clone, Debug, Default)]
pub struct Tickets {
    /// Which coins passed on the server, in the order asked.
    pub passed: Vec<bool>,
    /// The tickets, each with its part of the list; a ticket holds the coins of its part that
    /// passed. A part where no coin passed has no ticket.
    pub issued: Vec<(Range<usize>, TicketId)>,
}

/// One fix: the coins, what their new numbers are derived from, and the tickets that vouch for
/// them.
#[derive(Clone, Debug)]
pub struct FixOrder {
    /// The coins.
    pub coins: Vec<Coin>,
    /// What the new numbers are derived from.
    pub generator: PartialGenerator,
    /// The other servers' tickets.
    pub tickets: PerRaida<Option<TicketId>>,
}

/// Draws what the new numbers of a fix on a server are derived from. None of these numbers puts a
/// coin into a locker, or up for sale.
///
/// # Errors
/// The system has no random numbers to give.
pub fn draw_generator(
    raida: RaidaId,
    coins: &[Coin],
) -> Result<PartialGenerator, getrandom::Error> {
    loop {
        let mut bytes = [0; PartialGenerator::SIZE];
        getrandom::fill(&mut bytes)?;
        let generator = PartialGenerator::new(bytes);
        let mut ans = coins.iter().map(|&coin| generator.an(raida, coin));
        if !ans.any(|an| an.is_locker_key() || an.is_trade_key()) {
            return Ok(generator);
        }
    }
}

/// Bytes of a fix beside its coins.
const FIX_FIXED: usize = PartialGenerator::SIZE + RaidaId::COUNT * TicketId::SIZE;

/// Groups 2 and 4.
impl Client {
    /// Asks for tickets by which other servers learn that these coins are mine. Takes any number of
    /// coins, with as many tickets as they need.
    ///
    /// # Errors
    /// No answer to one of the requests, or a refusal, as where the server has no tickets left.
    pub fn get_ticket(&mut self, coins: &[(Coin, An)]) -> Result<Tickets, ClientError> {
        let fits = self.records_per_request(Coin::SIZE + An::SIZE, 0, 0);
        let mut tickets = Tickets {
            passed: vec![false; coins.len()],
            issued: vec![],
        };
        let error = self.in_batches(
            Command::GetTicket,
            coins,
            fits.min(TICKET_COINS_MAX),
            |coins, out| GetTicket::compose(coins.iter().copied(), out),
            |asked, reply| {
                let (status, payload) = (reply?.status, &reply?.payload);
                let answer = TicketAnswer::read(status, payload, asked.len())?;
                for (place, passed) in asked.clone().zip(answer.passed.iter()) {
                    tickets.passed[place] = passed;
                }
                tickets
                    .issued
                    .extend(answer.ticket.map(|ticket| (asked, ticket)));
                Some(())
            },
        );
        error.map_or(Ok(tickets), Err)
    }

    /// Like the method above, for coins with `sum` as the XOR of their authenticity numbers: one
    /// ticket for all of them, or `None`. One request.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn get_ticket_sum(
        &mut self,
        coins: &[Coin],
        sum: An,
    ) -> Result<Option<TicketId>, ClientError> {
        let reply = self.ask(Command::GetTicketSum, |out| {
            DetectSum::compose(coins.iter().copied(), sum, out);
        })?;
        // One record, the whole answer.
        let answer = TicketAnswer::read(reply.status, &reply.payload, 1);
        self.some(Command::GetTicketSum, answer.map(|answer| answer.ticket))
    }

    /// Asks which of two authenticity numbers each coin has, in the order asked. Takes any number
    /// of coins.
    ///
    /// # Errors
    /// No answer to one of the requests, or a refusal.
    pub fn find(&mut self, coins: &[(Coin, An, An)]) -> Result<Vec<Found>, ClientError> {
        let batch = self.records_per_request(Coin::SIZE + 2 * An::SIZE, 0, 1);
        let mut found = vec![Found::Neither; coins.len()];
        let error = self.in_batches(
            Command::Find,
            coins,
            batch,
            |coins, out| Find::compose(coins.iter().copied(), out),
            |asked, reply| {
                let (status, payload) = (reply?.status, &reply?.payload);
                let answer = FindAnswer::read(status, payload, asked.len())?;
                found[asked].copy_from_slice(&answer);
                Some(())
            },
        );
        error.map_or(Ok(found), Err)
    }

    /// Has the other servers vouch for coins, which then get the authenticity numbers that
    /// [`PartialGenerator::an`] derives. Returns each coin's outcome in the order given, and the
    /// first error. One request, since a server claims a ticket only once.
    ///
    /// Write the new numbers down first: once a coin is fixed, nothing else claims it.
    pub fn fix(&mut self, order: &FixOrder) -> (Vec<Outcome>, Option<ClientError>) {
        let coins = &order.coins;
        let most = self.records_per_request(Coin::SIZE, FIX_FIXED, 0);
        if coins.len() > most {
            let too_long = RequestTooLong {
                body_bytes: FIX_FIXED + coins.len() * Coin::SIZE,
                body_bytes_max: FIX_FIXED + most * Coin::SIZE,
            };
            return (vec![Outcome::NotAsked; coins.len()], Some(too_long.into()));
        }
        self.change(Command::Fix, coins, most, |coins, out| {
            let ticket = |raida| order.tickets[raida];
            Fix::compose(coins.iter().copied(), &order.generator, ticket, out);
        })
    }

    /// Asks for a ticket by which another server, which has lost a coin, learns that it is mine. In
    /// the short layout the request has to be encrypted under the coin.
    ///
    /// # Errors
    /// No answer, or a refusal, as where the two servers share no secret.
    pub fn get_encryption_ticket(
        &mut self,
        asked: &GetEncryptionTicket,
    ) -> Result<EncryptionTicket, ClientError> {
        let reply = self.ask(Command::EncryptionTicket, |out| asked.compose(out))?;
        let ticket = EncryptionTicket::read(&reply.payload);
        self.some(Command::EncryptionTicket, ticket)
    }

    /// Presents tickets for a coin's new authenticity number. Returns the server's verdict on each,
    /// in the order given. The coin has the number if both halves of it were accepted, on tickets
    /// of two servers; else nothing was changed. An accepted ticket is used up either way.
    ///
    /// Write the new number down first: once the coin has it, nothing else claims it.
    ///
    /// # Errors
    /// No answer, or a refusal. Without an answer it may have been done.
    ///
    /// # Panics
    /// When there are more tickets than a request holds.
    pub fn fix_encryption(
        &mut self,
        coin: Coin,
        tickets: &[Presented],
    ) -> Result<Vec<Verdict>, ClientError> {
        let reply = self.ask(Command::FixEncryption, |out| {
            FixEncryption::compose(coin, tickets, out);
        })?;
        let verdicts = FixEncryption::read(&reply.payload, tickets.len());
        self.some(Command::FixEncryption, verdicts)
    }
}
