use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

use super::choose::{Busy, Chosen, choose, shuffle};
use super::{EncryptionHealth, FAILURES_MAX, HealthError, Network, UnixSeconds};
use crate::client::ClientError;
use crate::client::heal::{HealError, mark_of};
use crate::client::wallet::{CoinFile, Mark, Wallet, WalletError};
use crate::coin::{An, Coin};
use crate::protocol::healing::Found;
use crate::protocol::key_healing::{
    EncryptionTicket, GetEncryptionTicket, Half, KeyPart, Presented, TOO_EARLY_WAIT, Verdict, split,
};
use crate::protocol::{RaidaId, Status};

/// Number of requests under way at a time, each on a thread: enough for 12 broken servers, the most
/// that coins which are not counterfeit can have, with two helpers each.
pub const REQUESTS_AT_ONCE: usize = 24;

/// Maximum number of pairs of tickets where a broken server accepted neither. After these it
/// accepts nobody's tickets for this coin, as for a coin that is for sale there, and asking all
/// others without success holds everybody up.
pub const PAIRS_IN_VAIN_MAX: usize = 4;

/// How servers are mended.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The time.
    pub now: UnixSeconds,
    /// Number of failures in a row after which a server is persistently broken.
    pub max_failures: u32,
    /// Brings the servers that can vouch for a coin into the order in which they are asked.
    pub order: fn(&mut [RaidaId]) -> Result<(), getrandom::Error>,
}

impl Settings {
    /// The usual number of failures, and helpers in random order.
    pub fn at(now: UnixSeconds) -> Settings {
        Settings {
            now,
            max_failures: FAILURES_MAX,
            order: shuffle,
        }
    }
}

/// The result for a broken server.
#[derive(Debug)]
pub enum KeyFix {
    /// The client has its keys there again, with this coin.
    Fixed {
        /// The coin.
        coin: Coin,
        /// The helpers for the first and the second half; `None` where the server turned out to
        /// have one of two numbers that the coin's file held for it.
        helpers: Option<[RaidaId; 2]>,
    },
    /// The server was tried too often without success; it is not tried again before that time.
    CoolingDown {
        /// When it may be tried again.
        until: UnixSeconds,
    },
    /// No coin fails there and passes on two working servers.
    NoSuitableCoin,
    /// The coin changed there lately, or the server started lately. The server accepts no tickets
    /// of now, since they may be from before. Nothing was changed, and this is no failure.
    TooEarly {
        /// The coin.
        coin: Coin,
        /// The time from which new tickets are accepted.
        again: UnixSeconds,
    },
    /// Not two servers were left that would vouch for the coin.
    NotEnoughHelpers {
        /// The coin.
        coin: Coin,
        /// The servers that were tried, in this order, and why each was no help.
        failed: Vec<(RaidaId, HelperFault)>,
    },
    /// The broken server refuses the fix; nothing was changed.
    Refused {
        /// The coin.
        coin: Coin,
        /// The server's status.
        status: Status,
    },
    /// The broken server gave no answer in time, or no usable one. Where it may have the new
    /// number, the coin's file holds both, and the next look finds out.
    NoAnswer {
        /// The coin.
        coin: Coin,
        /// The error instead of an answer.
        error: ClientError,
    },
}

impl KeyFix {
    /// The coin that may have changed on the broken server.
    pub(super) fn coin(&self) -> Option<Coin> {
        match self {
            KeyFix::Fixed { coin, .. } | KeyFix::NoAnswer { coin, .. } => Some(*coin),
            KeyFix::CoolingDown { .. }
            | KeyFix::NoSuitableCoin
            | KeyFix::TooEarly { .. }
            | KeyFix::NotEnoughHelpers { .. }
            | KeyFix::Refused { .. } => None,
        }
    }
}

/// Why a server was no help.
#[derive(Debug)]
pub enum HelperFault {
    /// It gave no ticket.
    NoTicket(ClientError),
    /// The broken server did not accept its ticket.
    NotAccepted,
    /// Its ticket was accepted and the other one was not, so it is used up.
    UsedUp,
}

impl fmt::Display for HelperFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelperFault::NoTicket(error) => error.fmt(f),
            HelperFault::NotAccepted => f.write_str("its ticket was not accepted there"),
            HelperFault::UsedUp => f.write_str("its ticket was accepted, the other one was not"),
        }
    }
}

/// Why servers were not mended, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum KeyHealingError {
    /// The coins cannot be looked at, or not be healed.
    #[error(transparent)]
    Heal(#[from] HealError),
    /// It cannot be read which servers are broken.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The wallet cannot be written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The system has no random numbers to give.
    #[error(
        "no random numbers from the system: {0}; nothing was sent: do the same again when this is mended"
    )]
    NoRandomness(#[from] getrandom::Error),
}

/// Mends the broken servers of a wallet, all at the same time: for each, a coin that it fails gets
/// a new number there, if two others that pass the coin vouch for it. The marks of the coins and
/// `health` have to be fresh: a [`look`](crate::client::heal::look) and
/// [`observe`](super::observe). Returns what became of each broken server, by rising number. The
/// marks and `health` hold it afterwards, both on disk.
///
/// The new number is in the coin's file, beside the old one, before the broken server is sent the
/// tickets for it. Nothing replaces it there until that server says which one it has, or a fix by
/// those tickets can no longer take effect ([`under_way`](super::under_way())). So a crash at any
/// moment loses neither. A number that is in the file already is asked for again instead of
/// another, so it does not matter which of two requests takes effect.
///
/// `draw` gives new numbers; [`draw_an`](crate::client::draw_an) does.
///
/// # Errors
/// The disk fails, or there are no random numbers.
pub fn fix_encryption(
    wallet: &mut Wallet,
    health: &mut EncryptionHealth,
    network: &impl Network,
    settings: Settings,
    draw: impl FnMut() -> Result<An, getrandom::Error>,
) -> Result<Vec<(RaidaId, KeyFix)>, KeyHealingError> {
    let broken = health.broken();
    fix_servers(wallet, health, network, settings, &broken, draw)
}

/// Like `fix_encryption`, for some of the broken servers.
pub(super) fn fix_servers(
    wallet: &mut Wallet,
    health: &mut EncryptionHealth,
    network: &impl Network,
    settings: Settings,
    servers: &[RaidaId],
    mut draw: impl FnMut() -> Result<An, getrandom::Error>,
) -> Result<Vec<(RaidaId, KeyFix)>, KeyHealingError> {
    let known = EncryptionHealth::read(wallet.root())?;
    let mut results = vec![];
    let mut chosen: Vec<Chosen> = vec![];
    let mut cases = vec![];
    for &broken in servers {
        let until = health.next_retry(broken);
        match until.filter(|_| !health.can_retry(broken, settings.now)) {
            Some(until) => results.push((broken, KeyFix::CoolingDown { until })),
            None => match choose(wallet.coins(), health, broken, &chosen) {
                Some(this) => {
                    let file = &wallet.coins()[this.place].file;
                    let mut left = this.helpers.clone();
                    (settings.order)(&mut left)?;
                    cases.push(Case::new(broken, file, this.place, left, &mut draw)?);
                    chosen.push(this);
                }
                None => results.push((broken, KeyFix::NoSuitableCoin)),
            },
        }
    }
    for (broken, result) in Round::new(wallet, cases, settings.now).carry_out(network)? {
        match &result {
            // This is not even noted as an attempt: that would put off the next one where a
            // cool-down is on.
            KeyFix::TooEarly { .. } => {}
            KeyFix::Fixed { .. } => {
                health.mark_tried(broken, settings.now);
                health.mark_fixed(broken);
            }
            _ => health.mark_failed(broken, settings.now, settings.max_failures),
        }
        results.push((broken, result));
    }
    wallet.save()?;
    health.save(wallet, &known)?;
    results.sort_by_key(|&(broken, _)| broken);
    Ok(results)
}

/// A broken server that is being mended.
struct Case {
    broken: RaidaId,
    /// The coin's place among the wallet's coins.
    place: usize,
    coin: Coin,
    /// The coin's new number there.
    pan: An,
    parts: [KeyPart; 2],
    /// Whether an earlier run has sent it without learning the result.
    is_in_doubt: bool,
    /// The helpers not asked yet, in the order in which they are asked.
    left: Vec<RaidaId>,
    tickets: [Option<Presented>; 2],
    failed: Vec<(RaidaId, HelperFault)>,
    /// Number of pairs of tickets where neither was accepted.
    in_vain: usize,
    /// Number of requests to helpers without an answer.
    asked: usize,
    /// The error instead of an answer to the fix.
    lost: Option<ClientError>,
    result: Option<KeyFix>,
}

impl Case {
    /// If the file already holds a number beside the old one, that is the new one; else it is
    /// drawn. Nobody has been told it yet.
    fn new(
        broken: RaidaId,
        file: &CoinFile,
        place: usize,
        left: Vec<RaidaId>,
        draw: &mut impl FnMut() -> Result<An, getrandom::Error>,
    ) -> Result<Case, getrandom::Error> {
        let pan = match file.pan(broken) {
            Some(pan) => pan,
            None => draw()?,
        };
        Ok(Case {
            broken,
            place,
            coin: file.coin,
            pan,
            parts: split(pan),
            is_in_doubt: file.pan(broken).is_some(),
            left,
            tickets: [None; 2],
            failed: vec![],
            in_vain: 0,
            asked: 0,
            lost: None,
            result: None,
        })
    }
}

/// A question to a server, with the case that it is for.
struct Job {
    case: usize,
    question: Question,
}

enum Question {
    Ticket {
        helper: RaidaId,
        half: Half,
        /// The coin's number at the helper.
        an: An,
        asked: GetEncryptionTicket,
    },
    Fix {
        broken: RaidaId,
        coin: Coin,
        tickets: [Presented; 2],
    },
    Find {
        broken: RaidaId,
        coin: Coin,
        an: An,
        pan: An,
    },
}

enum Answer {
    Ticket(RaidaId, Half, Result<EncryptionTicket, ClientError>),
    Fix([Presented; 2], Result<Vec<Verdict>, ClientError>),
    Find(Result<Found, ClientError>),
}

impl Question {
    fn ask(self, network: &impl Network) -> Answer {
        match self {
            Question::Ticket {
                helper,
                half,
                an,
                asked,
            } => Answer::Ticket(helper, half, network.ticket(helper, an, &asked)),
            Question::Fix {
                broken,
                coin,
                tickets,
            } => Answer::Fix(tickets, network.fix(broken, coin, &tickets)),
            Question::Find {
                broken,
                coin,
                an,
                pan,
            } => Answer::Find(find(network, broken, coin, an, pan)),
        }
    }
}

/// Asks which of two numbers a coin has, the new one first: the answer depends on it.
fn find(
    network: &impl Network,
    raida: RaidaId,
    coin: Coin,
    an: An,
    pan: An,
) -> Result<Found, ClientError> {
    if network.has(raida, coin, pan)? {
        return Ok(Found::Pan);
    }
    Ok(match network.has(raida, coin, an)? {
        true => Found::An,
        // Also where the new one came into force in between: then the next look finds it.
        false => Found::Neither,
    })
}

/// All cases of a run. One thread decides and writes; messages from the servers wake it up. So no
/// server waits for another, and numbers that are sent at about the same time go to disk together.
struct Round<'a> {
    wallet: &'a mut Wallet,
    cases: Vec<Case>,
    busy: Busy,
    /// Questions that were not asked yet.
    next: VecDeque<Job>,
    /// Cases with both tickets whose number is not on disk yet.
    ready: Vec<usize>,
    now: UnixSeconds,
}

impl<'a> Round<'a> {
    fn new(wallet: &'a mut Wallet, cases: Vec<Case>, now: UnixSeconds) -> Round<'a> {
        Round {
            wallet,
            now,
            cases,
            busy: Busy::new(),
            next: VecDeque::new(),
            ready: vec![],
        }
    }

    fn carry_out(
        mut self,
        network: &impl Network,
    ) -> Result<Vec<(RaidaId, KeyFix)>, KeyHealingError> {
        for case in 0..self.cases.len() {
            // A number in doubt may be in force by now.
            let broken = self.cases[case].broken;
            match self.file(case).pan(broken) {
                Some(_) => self.find(case),
                None => self.ask_helpers(case),
            }
        }
        thread::scope(|scope| {
            let (sender, answers) = mpsc::channel();
            let mut under_way = 0;
            loop {
                while under_way < REQUESTS_AT_ONCE
                    && let Some(Job { case, question }) = self.next.pop_front()
                {
                    let sender = sender.clone();
                    under_way += 1;
                    scope.spawn(move || {
                        // A panic must be reported here too, or its answer would be waited for.
                        let answer = catch_unwind(AssertUnwindSafe(|| question.ask(network)));
                        // Nobody listens any more where the disk failed meanwhile.
                        let _ = sender.send((case, answer));
                    });
                }
                if under_way == 0 {
                    break Ok(());
                }
                let first = answers.recv().expect("one end of the channel is kept here");
                for (case, answer) in std::iter::once(first).chain(answers.try_iter()) {
                    under_way -= 1;
                    let answer = answer.unwrap_or_else(|panic| resume_unwind(panic));
                    self.take(case, answer);
                }
                self.present()?;
            }
        })
        .map_err(|error: WalletError| error)?;
        let ended = |case: Case| {
            let result = case.result;
            let result = result.expect("a case ends only with its result, and all have ended");
            (case.broken, result)
        };
        Ok(self.cases.into_iter().map(ended).collect())
    }

    fn file(&mut self, case: usize) -> &mut CoinFile {
        &mut self.wallet.coins_mut()[self.cases[case].place].file
    }

    fn take(&mut self, case: usize, answer: Answer) {
        match answer {
            Answer::Ticket(helper, half, ticket) => self.take_ticket(case, helper, half, ticket),
            Answer::Fix(tickets, accepted) => self.take_fixed(case, tickets, accepted),
            Answer::Find(found) => self.take_found(case, found),
        }
    }

    /// Asks helpers for those halves that have no ticket.
    fn ask_helpers(&mut self, number: usize) {
        for half in [Half::First, Half::Second] {
            self.ask_helper(number, half);
        }
        self.end_without_helpers(number);
    }

    fn ask_helper(&mut self, number: usize, half: Half) {
        let case = &mut self.cases[number];
        let Some(helper) = self.busy.take(case.coin, &mut case.left) else {
            return;
        };
        case.asked += 1;
        let asked = GetEncryptionTicket {
            broken: case.broken,
            coin: case.coin,
            part: case.parts[half as usize],
            an: None,
        };
        let an = self.file(number).an(helper);
        self.next.push_back(Job {
            case: number,
            question: Question::Ticket {
                helper,
                half,
                an,
                asked,
            },
        });
    }

    fn take_ticket(
        &mut self,
        number: usize,
        helper: RaidaId,
        half: Half,
        ticket: Result<EncryptionTicket, ClientError>,
    ) {
        let case = &mut self.cases[number];
        case.asked -= 1;
        match ticket {
            Ok(ticket) => {
                case.tickets[half as usize] = Some(Presented {
                    helper,
                    half,
                    ticket,
                });
                if case.tickets.iter().all(Option::is_some) {
                    self.ready.push(number);
                    return;
                }
            }
            Err(error) => {
                case.failed.push((helper, HelperFault::NoTicket(error)));
                self.ask_helper(number, half);
            }
        }
        self.end_without_helpers(number);
    }

    /// Ends a case where a half is missing and nobody is left to vouch for it.
    fn end_without_helpers(&mut self, number: usize) {
        let case = &mut self.cases[number];
        if case.asked == 0 {
            case.result = Some(KeyFix::NotEnoughHelpers {
                coin: case.coin,
                failed: std::mem::take(&mut case.failed),
            });
            self.withdraw(number);
        }
    }

    /// The broken server has refused everything that it was sent. It does not have the new number,
    /// and will not get it by these tickets. So the file need not keep it, and a fix of coins need
    /// not wait.
    fn withdraw(&mut self, number: usize) {
        let Case {
            broken,
            is_in_doubt,
            ..
        } = self.cases[number];
        if !is_in_doubt {
            self.file(number).withdraw(broken);
        }
    }

    /// Presents the tickets of those cases that have both, after their numbers are on disk.
    fn present(&mut self) -> Result<(), WalletError> {
        let ready = std::mem::take(&mut self.ready);
        if ready.is_empty() {
            return Ok(());
        }
        for &number in &ready {
            let Case { broken, pan, .. } = self.cases[number];
            self.file(number).propose(broken, pan);
        }
        self.wallet.save()?;
        for number in ready {
            let case = &mut self.cases[number];
            let tickets = case.tickets.map(|ticket| {
                ticket.expect("a case is ready once it has the tickets for both halves")
            });
            case.tickets = [None; 2];
            self.next.push_back(Job {
                case: number,
                question: Question::Fix {
                    broken: case.broken,
                    coin: case.coin,
                    tickets,
                },
            });
        }
        Ok(())
    }

    fn take_fixed(
        &mut self,
        number: usize,
        tickets: [Presented; 2],
        verdicts: Result<Vec<Verdict>, ClientError>,
    ) {
        let (broken, coin) = (self.cases[number].broken, self.cases[number].coin);
        match verdicts {
            Ok(verdicts) if verdicts.iter().all(|&said| said == Verdict::Accepted) => {
                self.file(number).settle(broken, Found::Pan);
                let helpers = Some(tickets.map(|ticket| ticket.helper));
                self.cases[number].result = Some(KeyFix::Fixed { coin, helpers });
            }
            // Other helpers' tickets would be of now too.
            Ok(verdicts) if verdicts.contains(&Verdict::TooEarly) => {
                let again = UnixSeconds(self.now.0.saturating_add(TOO_EARLY_WAIT.as_secs()));
                self.cases[number].result = Some(KeyFix::TooEarly { coin, again });
                self.withdraw(number);
            }
            Ok(verdicts) => {
                // The accepted ticket is used up, and the same helper would give exactly the same
                // one again within the minute. So two others are asked, for the same number.
                let case = &mut self.cases[number];
                case.in_vain += usize::from(!verdicts.contains(&Verdict::Accepted));
                for (ticket, verdict) in tickets.iter().zip(verdicts) {
                    let fault = match verdict {
                        Verdict::Accepted => HelperFault::UsedUp,
                        Verdict::Refused | Verdict::TooEarly => HelperFault::NotAccepted,
                    };
                    case.failed.push((ticket.helper, fault));
                }
                // One helper alone is not enough.
                match case.left.len() < 2 || case.in_vain >= PAIRS_IN_VAIN_MAX {
                    true => self.end_without_helpers(number),
                    false => self.ask_helpers(number),
                }
            }
            Err(ClientError::Refused(_, status)) => {
                self.cases[number].result = Some(KeyFix::Refused { coin, status });
                // A server whose storage failed may find the number in its log when it starts
                // again.
                if status != Status::UNAVAILABLE {
                    self.withdraw(number);
                }
            }
            Err(error) => {
                self.file(number).pown.0[broken] = mark_of(&error);
                match error.leaves_doubt() {
                    true => {
                        self.cases[number].lost = Some(error);
                        self.find(number);
                    }
                    false => self.cases[number].result = Some(KeyFix::NoAnswer { coin, error }),
                }
            }
        }
    }

    /// Asks a broken server which of two numbers it has.
    fn find(&mut self, number: usize) {
        let Case {
            broken, coin, pan, ..
        } = self.cases[number];
        let an = self.file(number).an(broken);
        self.next.push_back(Job {
            case: number,
            question: Question::Find {
                broken,
                coin,
                an,
                pan,
            },
        });
    }

    fn take_found(&mut self, number: usize, found: Result<Found, ClientError>) {
        let (broken, coin) = (self.cases[number].broken, self.cases[number].coin);
        let lost = self.cases[number].lost.take();
        let result = match (found, lost) {
            (Ok(found @ Found::Pan), _) | (Ok(found @ Found::An), None) => {
                self.file(number).settle(broken, found);
                KeyFix::Fixed {
                    coin,
                    helpers: None,
                }
            }
            (Ok(Found::Neither), None) => {
                self.file(number).settle(broken, Found::Neither);
                return self.ask_helpers(number);
            }
            // A fix that was given up may be under way still. Both numbers stay, and the server's
            // present number does not count as final.
            (Ok(Found::Neither | Found::An), Some(error)) => {
                self.file(number).pown.0[broken] = Mark::NoAnswer;
                KeyFix::NoAnswer { coin, error }
            }
            (Err(error), lost) => {
                self.file(number).pown.0[broken] = mark_of(&error);
                let error = lost.unwrap_or(error);
                KeyFix::NoAnswer { coin, error }
            }
        };
        self.cases[number].result = Some(result);
    }
}
