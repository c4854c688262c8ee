//! The groups of coins of one round, several of them under way at the same time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

use super::rounds::last_words;
use super::{Fixed, HealError, Network, Refusals, Stage, Ticketed, plan};
use crate::client::wallet::{Filed, Mark, PownString, Wallet};
use crate::client::{ClientError, FixOrder, Outcome, PerRaida};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::{Found, PartialGenerator, TicketId};

/// Number of coins fixed at a time: the number that a ticket request of 65,535 bytes holds, so that
/// every server accepts it; less than the 4,096 that a ticket holds.
pub const COINS_A_TICKET: usize = 3_000;

/// Number of groups that have tickets, or ask for them, at the same time. A group sends a server
/// one request at a time. So this is also the maximum number of requests of a run that a server has
/// before it, and of its tickets that wait to be claimed.
pub const GROUPS_AT_ONCE: usize = 4;

/// Which servers have answered a fix in this run, and which have left one unanswered until its time
/// was over. Kept for as long as a command runs, over all its rounds: each fix without an answer
/// takes [`FIX_TIMEOUT`](super::FIX_TIMEOUT), and a wallet may have many groups.
#[derive(Clone, Debug)]
pub struct FixesSoFar(PerRaida<Manner>);

#[derive(Clone, Debug)]
enum Manner {
    Untried,
    Answers,
    Silent(String),
}

impl Default for FixesSoFar {
    fn default() -> FixesSoFar {
        FixesSoFar(PerRaida::from_fn(|_| Manner::Untried))
    }
}

impl FixesSoFar {
    /// The result that replaced the answer of a server that gets no further fix; `None` for any
    /// other server.
    pub fn given_up(&self, raida: RaidaId) -> Option<&str> {
        match &self.0[raida] {
            Manner::Silent(why) => Some(why),
            Manner::Untried | Manner::Answers => None,
        }
    }

    /// A server that has not answered yet in this run gets one fix alone: if it is silent, only the
    /// coins of one group are in doubt.
    fn sent_at_once_max(&self, raida: RaidaId) -> usize {
        match self.0[raida] {
            Manner::Untried => 1,
            Manner::Answers => GROUPS_AT_ONCE,
            Manner::Silent(_) => 0,
        }
    }

    fn note(&mut self, raida: RaidaId, error: Option<&ClientError>) {
        match error {
            Some(error) if is_silence(error) => self.0[raida] = Manner::Silent(error.to_string()),
            None | Some(ClientError::Refused(..)) if self.given_up(raida).is_none() => {
                self.0[raida] = Manner::Answers;
            }
            _ => {}
        }
    }
}

/// Whether the full time-out passed without an answer.
fn is_silence(error: &ClientError) -> bool {
    match error {
        ClientError::TimedOut(..) => true,
        ClientError::Unreachable(_, cause) => cause.kind() == ErrorKind::TimedOut,
        _ => false,
    }
}

/// What servers were asked to do with a coin.
#[derive(Default)]
pub(super) struct Orders {
    /// Servers asked to fix it: they have had the tickets for it.
    pub(super) asked: BTreeSet<RaidaId>,
    /// Servers that reported the fix as done.
    pub(super) fixed: BTreeSet<RaidaId>,
}

/// Coins that are fixed together in every round.
pub(super) struct Group {
    /// Their places among the wallet's coins.
    places: Vec<usize>,
    coins: Vec<Coin>,
    /// What was asked for, by a coin's place in the wallet.
    pub(super) orders: BTreeMap<usize, Orders>,
    /// The base of their new numbers on each server, where a server had to fix any of them. Each
    /// server has a different one: anybody who knows one knows the numbers that it gives on every
    /// server.
    generators: PerRaida<Option<PartialGenerator>>,
}

impl Group {
    /// Drawn so that it suits all coins of the group: in a later round the server may have others
    /// of them to fix. It could not suit a whole wallet: for a million coins hardly any generator
    /// suits all, since each coin's number is a trade key once in 65,536 times.
    fn generator(
        &mut self,
        raida: RaidaId,
        draw: &mut impl FnMut(RaidaId, &[Coin]) -> Result<PartialGenerator, getrandom::Error>,
    ) -> Result<PartialGenerator, getrandom::Error> {
        let generator = match self.generators[raida] {
            Some(generator) => generator,
            None => draw(raida, &self.coins)?,
        };
        self.generators[raida] = Some(generator);
        Ok(generator)
    }
}

/// Makes groups of those coins that are in none yet.
pub(super) fn add_groups(groups: &mut Vec<Group>, sick: &[usize], coins: &[Filed]) {
    let known: BTreeSet<usize> = groups.iter().flat_map(|g| g.places.clone()).collect();
    let new: Vec<usize> = (sick.iter().copied())
        .filter(|place| !known.contains(place))
        .collect();
    groups.extend(new.chunks(COINS_A_TICKET).map(|places| Group {
        places: places.to_vec(),
        coins: places.iter().map(|&place| coins[place].file.coin).collect(),
        orders: BTreeMap::new(),
        generators: PerRaida::from_fn(|_| None),
    }));
}

/// A group that is under way.
struct Open {
    /// The group.
    group: usize,
    /// The places, among the wallet's coins, of those of its coins that servers fail.
    ill: Vec<usize>,
    /// The places in `ill` of the coins that each server has to fix.
    planned: PerRaida<Vec<usize>>,
    /// Fixes that are on disk and were not sent yet.
    ready: PerRaida<Option<FixOrder>>,
    /// The numbers in doubt that `ready` replaced, by a coin's place in the wallet.
    replaced: BTreeMap<(RaidaId, usize), An>,
    /// Number of requests without an answer.
    asked: usize,
}

/// A message from the servers.
enum Heard {
    Tickets(Box<PerRaida<Option<Result<Ticketed, ClientError>>>>),
    Fixed(RaidaId, Fixed),
}

/// A round. One thread decides and writes; messages from the servers wake it up. So groups do not
/// wait for each other while the disk and the servers have something to do.
pub(super) struct Round<'a, Draw, At> {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) wallet: &'a mut Wallet,
    /// Where numbers in doubt are not replaced.
    pub(super) spared: &'a BTreeSet<(RaidaId, Coin)>,
    pub(super) refusals: &'a mut Refusals,
    pub(super) so_far: &'a mut FixesSoFar,
    pub(super) draw: &'a mut Draw,
    pub(super) at: &'a mut At,
    pub(super) groups: &'a mut [Group],
}

impl<Draw, At> Round<'_, Draw, At>
where
    Draw: FnMut(RaidaId, &[Coin]) -> Result<PartialGenerator, getrandom::Error>,
    At: FnMut(Stage),
{
    /// Makes tickets and fixes for the coins at these places among the wallet's, in rising order.
    pub(super) fn carry_out(
        mut self,
        sick: &[usize],
        network: &impl Network,
    ) -> Result<(), HealError> {
        let is_sick = |place: &usize| sick.binary_search(place).is_ok();
        let mut next: VecDeque<(usize, Vec<usize>)> = (self.groups.iter().enumerate())
            .map(|(number, group)| {
                let places = group.places.iter().copied();
                (number, places.filter(is_sick).collect())
            })
            .filter(|(_, ill): &(_, Vec<usize>)| !ill.is_empty())
            .collect();
        let mut open: Vec<Open> = vec![];
        // Number of fixes without an answer, of all groups together.
        let mut fixing = PerRaida::from_fn(|_| 0_usize);
        thread::scope(|scope| {
            let (sender, heard) = mpsc::channel();
            let ask = |group: usize, question: Question| {
                let sender = sender.clone();
                scope.spawn(move || {
                    // A panic must be reported here too, or its answer would be waited for.
                    let answer = catch_unwind(AssertUnwindSafe(|| question.ask(network)));
                    // Nobody listens any more where the disk failed meanwhile.
                    let _ = sender.send((group, answer));
                });
            };
            loop {
                while open.len() < GROUPS_AT_ONCE
                    && let Some((group, ill)) = next.pop_front()
                {
                    (self.at)(Stage::Tickets {
                        round: self.number,
                        coins: ill.len(),
                    });
                    ask(group, Question::Tickets(Box::new(self.passing(&ill))));
                    open.push(Open {
                        group,
                        ill,
                        planned: PerRaida::from_fn(|_| vec![]),
                        ready: PerRaida::from_fn(|_| None),
                        replaced: BTreeMap::new(),
                        asked: 1,
                    });
                }
                if open.is_empty() {
                    return Ok(());
                }
                let first = heard.recv().expect("one end of the channel is kept here");
                for (group, answer) in std::iter::once(first).chain(heard.try_iter()) {
                    let this = open.iter_mut().find(|open| open.group == group);
                    let this = this.expect("a group is open until it has all answers");
                    this.asked -= 1;
                    match answer.unwrap_or_else(|panic| resume_unwind(panic)) {
                        Heard::Tickets(answers) => self.take_tickets(this, *answers)?,
                        Heard::Fixed(raida, fixed) => {
                            fixing[raida] -= 1;
                            self.take_fixed(this, raida, fixed);
                        }
                    }
                }
                for (group, raida, order) in self.due(&mut open, &mut fixing) {
                    ask(group, Question::Fix(raida, order));
                }
                let is_over =
                    |open: &Open| open.asked == 0 && open.ready.count(Option::is_some) == 0;
                if open.iter().any(is_over) {
                    self.wallet.save()?;
                    open.retain(|open| !is_over(open));
                }
            }
        })
    }

    /// The coins that each server is asked a ticket for: those that it passes.
    fn passing(&self, ill: &[usize]) -> PerRaida<Option<Owned>> {
        let coins = self.wallet.coins();
        PerRaida::from_fn(|raida| {
            let files = ill.iter().map(|&place| &coins[place].file);
            let passed = files.filter(|file| file.pown.0[raida] == Mark::Passed);
            let asked: Vec<_> = passed.map(|file| (file.coin, file.an(raida))).collect();
            (!asked.is_empty()).then_some(asked)
        })
    }

    /// Plans what each server has to fix, and brings the new numbers to disk.
    fn take_tickets(
        &mut self,
        open: &mut Open,
        answers: PerRaida<Option<Result<Ticketed, ClientError>>>,
    ) -> Result<(), HealError> {
        let Open {
            group,
            ill,
            planned,
            ready,
            replaced,
            ..
        } = open;
        let coins = self.wallet.coins_mut();
        let (tickets, listed) = read_tickets(coins, ill, answers, &mut self.refusals.tickets);
        let marks: Vec<PownString> = (ill.iter())
            .map(|&place| last_words(&coins[place].file, self.spared))
            .collect();
        *planned = plan(&marks, &listed);
        for raida in RaidaId::all().filter(|&raida| self.so_far.given_up(raida).is_some()) {
            planned[raida].clear();
        }
        let servers = planned.count(|coins| !coins.is_empty());
        if servers == 0 {
            return Ok(());
        }
        let group = &mut self.groups[*group];
        for (raida, places) in planned.iter().filter(|(_, places)| !places.is_empty()) {
            let generator = group.generator(raida, self.draw)?;
            let mut order = FixOrder {
                coins: vec![],
                generator,
                tickets,
            };
            order.tickets[raida] = None;
            for place in places.iter().map(|&place| ill[place]) {
                let file = &mut coins[place].file;
                if let Some(pan) = file.pan(raida) {
                    replaced.insert((raida, place), pan);
                }
                file.propose(raida, generator.an(raida, file.coin));
                order.coins.push(file.coin);
            }
            ready[raida] = Some(order);
        }
        self.wallet.save()?;
        (self.at)(Stage::Fixing {
            round: self.number,
            coins: ill.len(),
            servers,
        });
        Ok(())
    }

    /// The fixes to send now. A server gets new ones when it has answered everything that it was
    /// sent before. So fixes that it leaves unanswered were sent together, and are waited for
    /// together.
    fn due(
        &mut self,
        open: &mut [Open],
        fixing: &mut PerRaida<usize>,
    ) -> Vec<(usize, RaidaId, FixOrder)> {
        let mut sent = vec![];
        for raida in RaidaId::all() {
            if fixing[raida] > 0 {
                continue;
            }
            let most = self.so_far.sent_at_once_max(raida);
            for this in open.iter_mut() {
                if most == 0 {
                    self.take_back(this, raida);
                } else if fixing[raida] < most
                    && let Some(order) = this.ready[raida].take()
                {
                    let orders = &mut self.groups[this.group].orders;
                    for &place in &this.planned[raida] {
                        let orders = orders.entry(this.ill[place]).or_default();
                        orders.asked.insert(raida);
                    }
                    this.asked += 1;
                    fixing[raida] += 1;
                    sent.push((this.group, raida, order));
                }
            }
        }
        sent
    }

    /// The server is given up, and was not sent this fix: its coins' files get back what they said
    /// before.
    fn take_back(&mut self, open: &mut Open, raida: RaidaId) {
        if open.ready[raida].take().is_none() {
            return;
        }
        for place in open.planned[raida].iter().map(|&place| open.ill[place]) {
            let file = &mut self.wallet.coins_mut()[place].file;
            match open.replaced.remove(&(raida, place)) {
                Some(pan) => file.propose(raida, pan),
                None => file.withdraw(raida),
            }
        }
    }

    fn take_fixed(&mut self, open: &Open, raida: RaidaId, fixed: Fixed) {
        let Fixed { outcomes, error } = fixed;
        self.so_far.note(raida, error.as_ref());
        if let Some(error) = error {
            self.refusals.fixes[raida].get_or_insert_with(|| error.to_string());
        }
        for (&place, outcome) in open.planned[raida].iter().zip(outcomes) {
            let place = open.ill[place];
            let file = &mut self.wallet.coins_mut()[place].file;
            match outcome {
                Outcome::Changed => {
                    file.settle(raida, Found::Pan);
                    let orders = &mut self.groups[open.group].orders;
                    orders.entry(place).or_default().fixed.insert(raida);
                }
                // Both numbers stay, here too: an earlier fix with the same numbers may be under
                // way there still. The next look finds out.
                Outcome::Failed | Outcome::NotAsked => file.settle(raida, Found::Neither),
                Outcome::Unknown => file.pown.0[raida] = Mark::NoAnswer,
            }
        }
    }
}

/// Coins with their numbers.
type Owned = Vec<(Coin, An)>;

/// The questions to the servers.
enum Question {
    Tickets(Box<PerRaida<Option<Owned>>>),
    Fix(RaidaId, FixOrder),
}

impl Question {
    fn ask(self, network: &impl Network) -> Heard {
        match self {
            Question::Tickets(coins) => Heard::Tickets(Box::new(network.tickets(*coins))),
            Question::Fix(raida, order) => Heard::Fixed(raida, network.fix(raida, &order)),
        }
    }
}

/// The tickets, and for each of the ill coins, whose tickets list it. The answers are to the
/// questions that [`Round::passing`] gave; no mark of these coins has changed since.
fn read_tickets(
    coins: &mut [Filed],
    ill: &[usize],
    answers: PerRaida<Option<Result<Ticketed, ClientError>>>,
    refusals: &mut PerRaida<Option<String>>,
) -> (PerRaida<Option<TicketId>>, Vec<PerRaida<bool>>) {
    let mut tickets = PerRaida::from_fn(|_| None);
    let mut listed = vec![PerRaida::from_fn(|_| false); ill.len()];
    for (raida, answer) in answers {
        let answer = match answer {
            None => continue,
            Some(Ok(answer)) => answer,
            // A server without a ticket to give has no vote in this round.
            Some(Err(error)) => {
                refusals[raida].get_or_insert_with(|| error.to_string());
                continue;
            }
        };
        tickets[raida] = answer.ticket;
        let passes = |&place: &usize| coins[ill[place]].file.pown.0[raida] == Mark::Passed;
        let asked: Vec<usize> = (0..ill.len()).filter(passes).collect();
        for (place, passed) in asked.into_iter().zip(answer.passed) {
            match passed {
                true => listed[place][raida] = true,
                // The coin changed there since the look.
                false => coins[ill[place]].file.pown.0[raida] = Mark::Failed,
            }
        }
    }
    (tickets, listed)
}
