use std::time::Duration;

use crate::client::{ClientError, FixOrder, Outcome, PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::{Found, TicketId};

/// A question to a server about coins.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// Whether these are their numbers.
    pub detect: Vec<(Coin, An)>,
    /// Which of the two numbers these have.
    pub find: Vec<(Coin, An, An)>,
}

/// The server's answer, in the order asked.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    /// Whether each coin to detect passes.
    pub detect: Vec<bool>,
    /// Which number each coin to find has.
    pub find: Vec<Found>,
}

/// A server's ticket.
#[derive(Clone, Debug, Default)]
pub struct Ticketed {
    /// Which of the coins it lists.
    pub passed: Vec<bool>,
    /// The ticket; `None` where none passed.
    pub ticket: Option<TicketId>,
}

/// The result of a fix.
#[derive(Debug, Default)]
pub struct Fixed {
    /// The outcome of each coin, in the order of the request.
    pub outcomes: Vec<Outcome>,
    /// Why there is no answer, or only a partial one.
    pub error: Option<ClientError>,
}

/// The servers of a network as healing sees them: all are asked at the same time. A server with
/// nothing to ask, `None`, gives no answer. Several threads ask at the same time.
pub trait Network: Sync {
    /// Asks about coins; nothing is changed.
    fn look(
        &self,
        questions: PerRaida<Option<Questions>>,
    ) -> PerRaida<Option<Result<Replies, ClientError>>>;

    /// Asks each server for one ticket.
    fn tickets(
        &self,
        coins: PerRaida<Option<Vec<(Coin, An)>>>,
    ) -> PerRaida<Option<Result<Ticketed, ClientError>>>;

    /// Has one server fix coins, and waits for its answer.
    fn fix(&self, raida: RaidaId, order: &FixOrder) -> Fixed;
}

/// A server that fixes waits for the others (`[peers] reply_timeout_s`: 5 s, and 32 s with older
/// ones): a client that gives up earlier does not know the result.
pub const FIX_TIMEOUT: Duration = Duration::from_secs(40);

impl Network for Raidas {
    fn look(
        &self,
        questions: PerRaida<Option<Questions>>,
    ) -> PerRaida<Option<Result<Replies, ClientError>>> {
        let question = |raida| questions[raida].as_ref();
        self.ask(self.timeout, question, |client, asked| {
            Ok(Replies {
                detect: client.detect(&asked.detect)?,
                find: client.find(&asked.find)?,
            })
        })
    }

    fn tickets(
        &self,
        coins: PerRaida<Option<Vec<(Coin, An)>>>,
    ) -> PerRaida<Option<Result<Ticketed, ClientError>>> {
        let question = |raida| coins[raida].as_ref();
        self.ask(self.timeout, question, |client, coins| {
            let tickets = client.get_ticket(coins)?;
            let ticket = tickets.issued.first().map(|&(_, ticket)| ticket);
            Ok(Ticketed {
                passed: tickets.passed,
                ticket,
            })
        })
    }

    fn fix(&self, raida: RaidaId, order: &FixOrder) -> Fixed {
        let timeout = self.timeout.max(FIX_TIMEOUT);
        let (outcomes, error) = match self.connect(raida, timeout) {
            Ok(mut client) => client.fix(order),
            Err(error) => (vec![Outcome::NotAsked; order.coins.len()], Some(error)),
        };
        Fixed { outcomes, error }
    }
}
