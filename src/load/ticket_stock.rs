use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::advice::next_step;
use crate::client::{Client, ClientError, PerRaida, Raidas, Reply, draw_generator};
use crate::coin::{An, Coin};
use crate::protocol::healing::{GetTicket, PartialGenerator, TicketAnswer, TicketId, VOTES_NEEDED};
use crate::protocol::{Command, RaidaId, Status};

/// A ticket counts as worthless this long after it was asked for: it lives 300 s (docs/protocol.md
/// section 5), and has to be claimed within that time.
const FRESH: Duration = Duration::from_secs(240);
/// Number of fixes that there are tickets for at first.
const AT_FIRST: usize = 256;
/// Maximum number of fixes that there are tickets for; and maximum number of coins on the tickets
/// of one server: a tenth of what a shard has room for by default (65,536 tickets of 64 coins).
/// Tickets left over at the end take up that room for 300 s.
const FIXES_MAX: usize = 4_096;
const COINS_MAX: usize = 419_430;
/// Pause after a server has refused for too many requests.
const RATE_PAUSE: Duration = Duration::from_millis(20);

/// Tickets of other servers, obtained before the fixes that take them: the run measures what a fix
/// costs, not what its tickets cost. A ticket is claimed once, and the same coins can be on any
/// number of tickets, so a few groups of coins have many tickets each in stock.
///
/// One thread gets them, for one fix at a time from all servers at once. Before a turn it fills the
/// stock, which grows to twice what a turn before it took. During a turn it gets new ones only when
/// three quarters of the stock are used up, so a turn that takes less is measured with nothing
/// beside it. Getting tickets during a turn shows in the result: it made the median of fixes of 100
/// coins 25 % longer on a machine with two cores.
pub struct TicketStock {
    shared: Arc<Shared>,
    clerk: Option<JoinHandle<()>>,
}

/// The coins of one fix, and their numbers on the servers that vouch for them.
#[derive(Clone, Debug)]
pub struct Vouched {
    /// The coins.
    pub coins: Vec<Coin>,
    /// Their numbers on each server, in the same order; `None` for servers that are not asked, the
    /// same servers for all groups.
    pub ans: PerRaida<Option<Vec<An>>>,
}

/// The data of one fix beside its coins.
#[derive(Clone, Copy, Debug)]
pub struct FixTickets {
    /// A ticket of every other server. For a server that is not asked, it is a number that nobody
    /// has issued: the node under test does not know that, and tries to claim it all the same.
    pub tickets: PerRaida<Option<TicketId>>,
    /// What the coins' new numbers are derived from.
    pub generator: PartialGenerator,
    asked: Instant,
}

/// The expected result of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// At least 13 others vouch for the coins: all are repaired.
    All,
    /// Fewer do: none is.
    None,
}

/// Why there are no more tickets.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// A server cannot be reached at the beginning.
    #[error("RAIDA {0} gives no tickets: {1}")]
    Unreachable(RaidaId, ClientError),
    /// A server gives none.
    #[error("RAIDA {0} gives no tickets: {1}{next}", next = next_step(*.1))]
    Refused(RaidaId, Status),
    /// A server's coins have changed during the load.
    #[error("RAIDA {0} does not know the coins any more that were made there for this load")]
    NotKnown(RaidaId),
    /// Too many servers stopped answering.
    #[error(
        "only {left} others answer any more, and a fix takes {VOTES_NEEDED} (RAIDA {raida}: {error})"
    )]
    TooFew {
        /// Number of servers that still answer.
        left: usize,
        /// The last one that stopped.
        raida: RaidaId,
        /// The reason.
        error: ClientError,
    },
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Maximum number of fixes that there are tickets for.
    most: usize,
}

struct State {
    /// By group: the oldest first.
    ready: Vec<VecDeque<FixTickets>>,
    /// Tickets in stock for each group when it is full.
    full: usize,
    is_filling: bool,
    /// Number taken since the stock was filled last, and the most taken between any two fillings.
    taken: usize,
    taken_most: usize,
    /// No more tickets are fetched.
    is_closed: bool,
    failure: Option<StockError>,
}

impl TicketStock {
    /// Opens a stock of tickets for `groups` of coins, for fixes on `raida`. It gets tickets from
    /// all servers that have numbers for the coins.
    ///
    /// # Errors
    /// One of them cannot be reached.
    pub fn open(
        raida: RaidaId,
        repair: Repair,
        raidas: &Raidas,
        groups: Vec<Vouched>,
    ) -> Result<TicketStock, StockError> {
        let mut voters = PerRaida::from_fn(|_| None);
        for voter in RaidaId::all().filter(|&voter| voter != raida) {
            if groups.iter().any(|group| group.ans[voter].is_some()) {
                let client = raidas.connect(voter, raidas.timeout);
                voters[voter] =
                    Some(client.map_err(|error| StockError::Unreachable(voter, error))?);
            }
        }
        let coins = groups.iter().map(|group| group.coins.len()).max();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ready: vec![VecDeque::new(); groups.len()],
                full: 0,
                is_filling: false,
                taken: 0,
                taken_most: 0,
                is_closed: false,
                failure: None,
            }),
            changed: Condvar::new(),
            most: FIXES_MAX.min(COINS_MAX / coins.unwrap_or(1).max(1)),
        });
        let clerk = Clerk {
            raida,
            repair,
            raidas: raidas.clone(),
            voters,
            groups,
            payload: vec![],
        };
        let of_clerk = Arc::clone(&shared);
        Ok(TicketStock {
            shared,
            clerk: Some(std::thread::spawn(move || clerk.run(&of_clerk))),
        })
    }

    /// Waits until the stock is full, or until it is certain that it never will be.
    pub fn fill(&self) {
        let mut state = self.shared.lock();
        state.taken_most = state.taken_most.max(std::mem::take(&mut state.taken));
        let size = (2 * state.taken_most).max(AT_FIRST).min(self.shared.most);
        state.full = size.div_ceil(state.ready.len().max(1));
        state.is_filling = !state.is_closed;
        self.shared.changed.notify_all();
        while state.is_filling {
            state = self.shared.wait(state);
        }
    }

    /// The data of one fix of a group's coins; `None` where there is none (yet).
    pub(super) fn take(&self, group: usize) -> Option<FixTickets> {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let ready = &mut state.ready[group];
        let taken = loop {
            match ready.pop_front() {
                Some(tickets) if !tickets.is_fresh() => {}
                taken => break taken,
            }
        };
        if ready.len() < low(state.full) {
            self.shared.changed.notify_all();
        }
        state.taken += usize::from(taken.is_some());
        taken
    }

    /// Takes back unused data.
    pub(super) fn put_back(&self, group: usize, tickets: FixTickets) {
        self.shared.lock().ready[group].push_front(tickets);
    }

    /// Whether more tickets are fetched.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.lock().is_closed
    }

    /// Ends the stock.
    ///
    /// # Errors
    /// Why it ended before.
    pub fn close(mut self) -> Result<(), StockError> {
        self.end();
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        let Some(clerk) = self.clerk.take() else {
            return;
        };
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        if let Err(panic) = clerk.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for TicketStock {
    fn drop(&mut self) {
        self.end();
    }
}

impl FixTickets {
    fn is_fresh(&self) -> bool {
        self.asked.elapsed() < FRESH
    }
}

impl Shared {
    /// Every change of the state is complete when its lock is released, even by a thread that
    /// panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The next group to get tickets for; `None` when no more are fetched.
    fn next(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            let wanted = match state.is_filling {
                true => state.full,
                false => low(state.full),
            };
            let groups = state.ready.iter().map(VecDeque::len).enumerate();
            match groups.min_by_key(|&(_, ready)| ready) {
                Some((group, ready)) if ready < wanted => return Some(group),
                _ if state.is_filling => {
                    state.is_filling = false;
                    self.changed.notify_all();
                }
                _ => state = self.wait(state),
            }
        }
    }
}

/// If a group has fewer tickets than this, more are fetched during a turn.
fn low(full: usize) -> usize {
    full.div_ceil(4)
}

/// Stops a thread from waiting for tickets when the clerk is gone.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.is_closed, state.is_filling) = (true, false);
        self.0.changed.notify_all();
    }
}

/// The thread that gets tickets.
struct Clerk {
    raida: RaidaId,
    repair: Repair,
    raidas: Raidas,
    voters: PerRaida<Option<Client>>,
    groups: Vec<Vouched>,
    payload: Vec<u8>,
}

impl Clerk {
    fn run(mut self, shared: &Shared) {
        let gone = Gone(shared);
        while let Some(group) = shared.next() {
            match self.get(group) {
                Ok(tickets) => shared.lock().ready[group].push_back(tickets),
                Err(error) => {
                    shared.lock().failure = Some(error);
                    break;
                }
            }
        }
        drop(gone);
    }

    /// Asks all voters at the same time.
    fn get(&mut self, group: usize) -> Result<FixTickets, StockError> {
        let asked = Instant::now();
        let mut tickets = PerRaida::from_fn(|_| None);
        let mut is_anew = PerRaida::from_fn(|_| false);
        let mut missing: Vec<RaidaId> = RaidaId::all().collect();
        missing.retain(|&raida| self.voters[raida].is_some());
        while !missing.is_empty() {
            let sent: Vec<_> = missing.iter().map(|&r| self.send(r, group)).collect();
            let mut again = Vec::new();
            let mut is_too_much = false;
            for (raida, sent) in missing.into_iter().zip(sent) {
                match sent.and_then(|()| self.receive(raida)) {
                    Ok(reply) if reply.status == Status::TOO_MANY_REQUESTS => {
                        is_too_much = true;
                        again.push(raida);
                    }
                    Ok(reply) => tickets[raida] = Some(self.ticket(raida, group, &reply)?),
                    // A server closes an idle connection after a while.
                    Err(_) if !is_anew[raida] && self.connect(raida) => {
                        is_anew[raida] = true;
                        again.push(raida);
                    }
                    Err(error) => self.do_without(raida, error)?,
                }
            }
            missing = again;
            if is_too_much {
                std::thread::sleep(RATE_PAUSE);
            }
        }
        for other in RaidaId::all().filter(|&other| other != self.raida) {
            if tickets[other].is_none() {
                tickets[other] = Some(made_up()?);
            }
        }
        Ok(FixTickets {
            tickets,
            generator: draw_generator(self.raida, &self.groups[group].coins)?,
            asked,
        })
    }

    fn send(&mut self, raida: RaidaId, group: usize) -> Result<(), ClientError> {
        let Vouched { coins, ans } = &self.groups[group];
        let ans = ans[raida].as_ref().expect(VOTER_KNOWS);
        self.payload.clear();
        let records = coins.iter().copied().zip(ans.iter().copied());
        GetTicket::compose(records, &mut self.payload);
        let client = self.voters[raida].as_mut().expect(IS_VOTER);
        (client.connection()).send(Command::GetTicket, Some(&self.payload))
    }

    fn receive(&mut self, raida: RaidaId) -> Result<Reply, ClientError> {
        let client = self.voters[raida].as_mut().expect(IS_VOTER);
        client.connection().receive()
    }

    fn ticket(&self, raida: RaidaId, group: usize, reply: &Reply) -> Result<TicketId, StockError> {
        match reply.status {
            Status::ALL_PASS => {}
            status if status.is_verdict() => return Err(StockError::NotKnown(raida)),
            status => return Err(StockError::Refused(raida, status)),
        }
        let coins = self.groups[group].coins.len();
        let answer = TicketAnswer::read(reply.status, &reply.payload, coins);
        (answer.and_then(|answer| answer.ticket)).ok_or(StockError::NotKnown(raida))
    }

    fn connect(&mut self, raida: RaidaId) -> bool {
        let client = self.raidas.connect(raida, self.raidas.timeout);
        let is_connected = client.is_ok();
        if let Ok(client) = client {
            self.voters[raida] = Some(client);
        }
        is_connected
    }

    /// Goes on without a server.
    fn do_without(&mut self, raida: RaidaId, error: ClientError) -> Result<(), StockError> {
        self.voters[raida] = None;
        let left = self.voters.count(Option::is_some);
        if self.repair == Repair::All && left < VOTES_NEEDED {
            return Err(StockError::TooFew { left, raida, error });
        }
        tracing::warn!(raida = raida.get(), %error, "gives no more tickets: the fixes go on without");
        Ok(())
    }
}

const IS_VOTER: &str = "only voters are asked";
const VOTER_KNOWS: &str = "every voter has numbers for every group";

/// A ticket number that nobody has issued. A random number is one of four billion, and a server has
/// at most tens of thousands issued.
fn made_up() -> Result<TicketId, getrandom::Error> {
    loop {
        let mut number = [0; TicketId::SIZE];
        getrandom::fill(&mut number)?;
        if let Some(ticket) = TicketId::new(u32::from_be_bytes(number)) {
            return Ok(ticket);
        }
    }
}
