//! The load of one connection: what it knows of coins, the powns it asks for, what answers mean.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raida::client::{Connection, Reply, Transport};
use raida::coin::Coin;
use raida::protocol::authentication::{Pown, PownDerive, PownSum, derived_an};
use raida::protocol::lockers::LockerKey;
use raida::protocol::{Command, Passed, RaidaId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::commons::{Commons, Lot};
use super::trading::Looked;
use super::{
    Book, Bought, Change, Outcome, Part, Value, an, draw, draw_locker, owner, trade, value,
};
use crate::node_process::{NodeProcess, PATIENCE, options};

/// One coin in this many is everybody's; the others belong to one connection each. The number is no
/// multiple of the connections, so that all of them have some.
const SHARED_ONE_IN: usize = 17;
/// Lockers that all connections store coins in, and how many of them have been there before.
const COMMON_LOCKERS: usize = 6;
const OLD_COMMON_LOCKERS: usize = 4;
/// Coins that one load may take out of circulation.
const FREED_MAX: usize = 48;
/// Fixes of encryption that one load may ask for before it is told to. A node remembers some 250
/// tickets over a start, two a fix; beyond that it takes no other of the same minute.
const FIXED_FIRST: [usize; 3] = [1, 3, 6];

/// The load of several connections, each on a thread of its own.
pub struct Running {
    loads: Vec<JoinHandle<Vec<Change>>>,
    state: Arc<State>,
    commons: Arc<Commons>,
}

#[derive(Default)]
struct State {
    /// Connections that have had an answer.
    under_way: AtomicUsize,
    /// Answers so far.
    answers: AtomicUsize,
    /// The node may end: a connection that breaks is no fault.
    may_end: AtomicBool,
    /// Nothing more is to be asked.
    quiet: AtomicBool,
}

/// What a load is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mix {
    Powns,
    Everything,
}

impl Book {
    /// Has coins of this book change hands over this many connections. `shards` is the node's
    /// number of shards, so that some requests keep to one.
    pub fn load(
        &self,
        node: &NodeProcess,
        shards: u16,
        connections: usize,
        random: &mut StdRng,
    ) -> Running {
        self.run(Mix::Powns, node, shards, connections, random)
    }

    /// The same, and they are put into lockers, offered, bought and taken back too, and get new
    /// numbers by fixes of encryption. The node counts every purchase as paid, and shares the
    /// secrets with other servers that the load knows
    /// ([`healing::write_secrets`](super::healing::write_secrets)).
    pub fn load_with_everything(
        &self,
        node: &NodeProcess,
        shards: u16,
        connections: usize,
        random: &mut StdRng,
    ) -> Running {
        self.run(Mix::Everything, node, shards, connections, random)
    }

    fn run(
        &self,
        mix: Mix,
        node: &NodeProcess,
        shards: u16,
        connections: usize,
        random: &mut StdRng,
    ) -> Running {
        let mut commons = self.commons(random);
        commons.clock = node.clock.clone();
        let commons = Arc::new(commons);
        let state: Arc<State> = Arc::default();
        let mut owned: Vec<HashMap<usize, Value>> = vec![HashMap::new(); connections];
        for (coin, &value) in self.values.iter().enumerate() {
            if self.is_shared(coin) {
                commons.coins.lock().unwrap().insert(coin, (0, value));
            } else if trade(value).is_none() {
                owned[coin % connections].insert(coin, value);
            }
        }
        let mut loads = Vec::new();
        for (connection, own) in owned.into_iter().enumerate() {
            let mut load = Load {
                mix,
                number: connection,
                connection: Connection::open(node.host(), Transport::Tcp, options()).unwrap(),
                random: StdRng::seed_from_u64(random.random()),
                shards,
                predicted: own.clone(),
                confirmed: own,
                commons: Arc::clone(&commons),
                at_risk: HashSet::new(),
                lockers: Vec::new(),
                stored_again: HashSet::new(),
                bought: self.bought.sample(random, 4).copied().collect(),
                coins: self.coins.clone(),
                changes: Vec::new(),
                waiting: VecDeque::new(),
                resync: false,
            };
            let state = Arc::clone(&state);
            loads.push(std::thread::spawn(move || load.run(&state)));
        }
        Running {
            loads,
            state,
            commons,
        }
    }

    /// What everybody knows at first.
    fn commons(&self, random: &mut StdRng) -> Commons {
        let keys = self.lockers.keys().copied();
        let old: Vec<LockerKey> = keys.filter_map(super::locker).collect();
        let old = old.sample(random, OLD_COMMON_LOCKERS).copied();
        let mut lockers: Vec<LockerKey> = old.collect();
        lockers.resize_with(COMMON_LOCKERS, || draw_locker(random));
        let to_fix = *FIXED_FIRST.choose(random).expect("three");
        let mut commons = Commons::new(lockers, FREED_MAX, to_fix);
        commons.key_fixes = Mutex::new(self.key_fixes.clone());
        commons.open_key_fixes = Mutex::new(self.open_key_fixes.clone());
        let numbers = self.coins.iter().zip(0..);
        let numbers: HashMap<Coin, usize> = numbers.map(|(&coin, number)| (coin, number)).collect();
        for (&key, coins) in &self.lockers {
            let coins: Vec<usize> = coins.iter().map(|coin| numbers[coin]).collect();
            commons.enter(&coins, key);
            if let Some(key) = trade(key) {
                let lot = Lot {
                    key,
                    coins,
                    id: None,
                    tried: 0,
                };
                commons.lots.lock().unwrap().insert(value(key.an()), lot);
            }
        }
        commons
    }

    /// Whether a coin is everybody's. None that is on offer, which only who takes it may change.
    fn is_shared(&self, coin: usize) -> bool {
        coin.is_multiple_of(SHARED_ONE_IN) && trade(self.values[coin]).is_none()
    }
}

impl Running {
    /// Waits until every connection has had an answer.
    pub fn wait_until_under_way(&self, node: &NodeProcess) {
        self.wait_until(node, |state| {
            state.under_way.load(SeqCst) == self.loads.len()
        });
    }

    /// Waits for this many more answers.
    pub fn wait_for_answers(&self, node: &NodeProcess, count: usize) {
        let before = self.state.answers.load(SeqCst);
        self.wait_until(node, |state| state.answers.load(SeqCst) >= before + count);
    }

    fn wait_until(&self, node: &NodeProcess, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.state) {
            assert!(Instant::now() < deadline, "no answers: {}", node.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Says that the node may end from now on.
    pub fn node_may_end(&self) {
        self.state.may_end.store(true, SeqCst);
    }

    /// Has connections fix this many more keys, as soon as they can: some minutes later by the
    /// node's clock, so that coins that have not changed meanwhile can be fixed.
    pub fn fix_keys(&self, count: usize) {
        let clock = self.commons.clock.as_ref();
        clock.expect("a clock that the test moves").pass(180);
        self.commons.to_fix.store(count, SeqCst);
    }

    /// Asks nothing more.
    pub fn quiet(&self) {
        self.state.quiet.store(true, SeqCst);
    }

    /// Waits for the last answers. Gives every change that was asked for, those of one connection
    /// in their order.
    pub fn join(self) -> Vec<Change> {
        let histories = self.loads.into_iter().map(|load| load.join().unwrap());
        histories.flatten().collect()
    }
}

/// One connection's load: changes of its own coins, and of some that others change too.
pub(super) struct Load {
    mix: Mix,
    number: usize,
    pub connection: Connection,
    pub random: StdRng,
    pub shards: u16,
    /// What its own coins will be when all that is under way is done.
    pub predicted: HashMap<usize, Value>,
    /// What they were by the last answer.
    pub confirmed: HashMap<usize, Value>,
    pub commons: Arc<Commons>,
    /// Its own coins in a request under way that others may make fail: nothing builds on that.
    pub at_risk: HashSet<usize>,
    /// Lockers that only this connection stores coins in.
    pub lockers: Vec<LockerKey>,
    /// Requests that stored coins where they were: the same once more would be a repeat, which
    /// changes nothing.
    pub stored_again: HashSet<Vec<u8>>,
    /// Purchases that were answered.
    pub bought: Vec<Bought>,
    pub coins: Vec<Coin>,
    pub changes: Vec<Change>,
    pub waiting: VecDeque<Waiting>,
    /// A change failed: what is predicted is wrong, and counts again when nothing is under way.
    pub resync: bool,
}

/// A request without an answer.
pub(super) struct Waiting {
    /// What it is made of: one change, or one for each locker of several.
    pub changes: Range<usize>,
    pub means: Means,
}

/// What an answer will mean.
pub(super) enum Means {
    /// Own coins change, and shared ones, which were this many changes away from the first.
    Own(Vec<u64>),
    /// Each of several lockers was stored or not.
    Several,
    /// Own coins are on offer from now on.
    Offered(Lot),
    /// What was on offer is this connection's, in a locker, or nobody's.
    Taken(Value),
    /// An own coin's number is fixed; this many of the presented tickets had been used before.
    KeyFixed(usize),
    /// Nothing, if it is as it should be: what was looked at has not changed.
    Looked(Looked),
    /// Nothing: it must fail.
    Forbidden,
}

impl Load {
    fn run(&mut self, state: &State) -> Vec<Change> {
        let depth = self.random.random_range(1..=8);
        let mut is_first = true;
        loop {
            while !state.quiet.load(SeqCst) && !self.resync && self.waiting.len() < depth {
                if !self.ask() {
                    break;
                }
            }
            if self.waiting.is_empty() && self.resync {
                self.predicted = self.confirmed.clone();
                self.resync = false;
                continue;
            }
            if self.waiting.is_empty() {
                return std::mem::take(&mut self.changes);
            }
            let Ok(reply) = self.connection.receive() else {
                assert!(state.may_end.load(SeqCst), "the node closed a connection");
                return std::mem::take(&mut self.changes);
            };
            self.note(&reply);
            state.answers.fetch_add(1, SeqCst);
            if std::mem::take(&mut is_first) {
                state.under_way.fetch_add(1, SeqCst);
            }
        }
    }

    /// Sends a request. Gives whether the connection is still good.
    fn ask(&mut self) -> bool {
        if self.mix == Mix::Everything
            && self.random.random_bool(0.05)
            && let Some(sent) = self.ask_to_fix_key()
        {
            return sent;
        }
        if self.mix == Mix::Everything && self.random.random_bool(0.7) {
            // Not everything can be asked at every time.
            for _ in 0..4 {
                if let Some(sent) = self.ask_of_lockers() {
                    return sent;
                }
            }
        }
        self.ask_pown()
    }

    /// Some of its own coins that may be built on, in any order.
    pub fn some_coins(&mut self) -> Vec<usize> {
        let all = self.predicted.keys().copied();
        let mut coins: Vec<usize> = all.filter(|coin| !self.at_risk.contains(coin)).collect();
        coins.sort_unstable();
        let random = &mut self.random;
        if random.random_bool(0.5)
            && let Some(&coin) = coins.choose(random)
        {
            let shard = owner(self.coins[coin], self.shards);
            coins.retain(|&coin| owner(self.coins[coin], self.shards) == shard);
        }
        let most = if random.random_bool(0.1) { 30 } else { 6 };
        let count = random.random_range(1..=most).min(coins.len());
        coins.sample(random, count).copied().collect()
    }

    /// Some of its own coins that a sum proves to be known: no two with the same number, which
    /// would cancel out.
    pub fn some_provable(&mut self) -> Vec<usize> {
        let mut coins = self.some_coins();
        let mut numbers = HashSet::new();
        coins.retain(|coin| numbers.insert(self.predicted[coin]));
        coins
    }

    /// Adds coins that others change too, now and then: at most this many. Gives all, what they are
    /// thought to be, and how many changes the shared ones are away from the first.
    pub fn and_shared(
        &mut self,
        mut coins: Vec<usize>,
        most: usize,
    ) -> (Vec<usize>, Vec<Value>, Vec<u64>) {
        let mut depths = Vec::new();
        let mut olds: Vec<Value> = coins.iter().map(|coin| self.predicted[coin]).collect();
        if coins.is_empty() || self.random.random_bool(0.15) {
            self.at_risk.extend(&coins);
            let shared = self.commons.coins.lock().unwrap();
            let mut all: Vec<usize> = shared.keys().copied().collect();
            all.sort_unstable();
            for &coin in all.sample(&mut self.random, most) {
                let (depth, value) = shared[&coin];
                coins.push(coin);
                olds.push(value);
                depths.push(depth);
            }
        }
        (coins, olds, depths)
    }

    fn ask_pown(&mut self) -> bool {
        let command = match self.random.random_range(0..10) {
            0..6 => Command::Pown,
            6..8 => Command::PownSum,
            _ => Command::PownDerive,
        };
        let mut coins = self.some_coins();
        if command == Command::PownSum && !coins.is_empty() {
            // A sum is of one coin.
            coins.truncate(1);
        }
        let (coins, olds, depths) = match command {
            Command::PownSum if !coins.is_empty() => {
                let olds = vec![self.predicted[&coins[0]]];
                (coins, olds, vec![])
            }
            Command::PownSum => self.and_shared(coins, 1),
            _ => self.and_shared(coins, 2),
        };
        let delta = draw(&mut self.random, &olds);
        let of_each = coins.iter().zip(&olds);
        let mut new = |(&coin, &old): (&usize, &Value)| match command {
            Command::Pown => draw(&mut self.random, &[]),
            Command::PownSum => old ^ delta,
            _ => value(derived_an(self.coins[coin], an(old), an(delta))),
        };
        let news: Vec<Value> = of_each.map(&mut new).collect();
        let parts = parts(&coins, &olds, news.into_iter().map(Some));
        let mut payload = Vec::new();
        self.compose_pown(command, &parts, delta, &mut payload);
        self.send(command, &payload, parts, Means::Own(depths))
    }

    pub fn compose_pown(
        &self,
        command: Command,
        parts: &[Part],
        delta: Value,
        payload: &mut Vec<u8>,
    ) {
        let coin = |part: &Part| self.coins[part.coin];
        match command {
            Command::Pown => {
                let new = |part: &Part| an(part.new.expect("it stays in circulation"));
                let records = parts.iter().map(|p| (coin(p), an(p.old), new(p)));
                Pown::compose(records, payload);
            }
            Command::PownSum => {
                PownSum::compose(parts.iter().map(coin), an(sum(parts)), an(delta), payload);
            }
            _ => {
                let known = parts.iter().map(|part| (coin(part), an(part.old)));
                let raida = RaidaId::new(0).expect("the first");
                PownDerive::compose(raida, known, an(delta), payload);
            }
        }
    }

    /// Sends a request that is one change, which the coins that are its own are predicted by.
    pub fn send(
        &mut self,
        command: Command,
        payload: &[u8],
        parts: Vec<Part>,
        means: Means,
    ) -> bool {
        let change = self.change(command, parts);
        self.send_changes(command, payload, vec![change], means)
    }

    pub fn change(&self, command: Command, parts: Vec<Part>) -> Change {
        Change {
            command,
            parts,
            outcome: Outcome::Open,
            bought: None,
            key_fix: None,
            is_forbidden: false,
            connection: self.number,
            sent: Instant::now(),
            answered: None,
        }
    }

    pub fn send_changes(
        &mut self,
        command: Command,
        payload: &[u8],
        changes: Vec<Change>,
        means: Means,
    ) -> bool {
        for change in changes.iter().filter(|change| !change.is_forbidden) {
            for part in &change.parts {
                if let Some((predicted, new)) = self.predicted.get_mut(&part.coin).zip(part.new) {
                    *predicted = new;
                }
            }
        }
        let first = self.changes.len();
        self.changes.extend(changes);
        self.waiting.push_back(Waiting {
            changes: first..self.changes.len(),
            means,
        });
        self.connection.send(command, Some(payload)).is_ok()
    }

    /// Notes the answer to the oldest request that has none.
    fn note(&mut self, reply: &Reply) {
        let Waiting { changes, means } = self.waiting.pop_front().unwrap();
        for change in &mut self.changes[changes.clone()] {
            change.answered = Some(Instant::now());
        }
        match means {
            Means::Several => return self.note_several(changes, reply),
            Means::KeyFixed(used) => return self.note_key_fixed(changes.start, used, reply),
            _ => {}
        }
        let change = &mut self.changes[changes.start];
        let count = change.parts.len();
        change.outcome = match Passed::read(reply.status, &reply.payload, count) {
            Some(passed) => Outcome::Answered(passed.iter().collect()),
            None => Outcome::Refused(reply.status),
        };
        match means {
            Means::Own(depths) => self.note_own(changes.start, &depths),
            Means::Offered(lot) => self.note_offered(changes.start, lot),
            Means::Taken(key) => self.note_taken(changes.start, key),
            Means::Looked(looked) => self.note_looked(&looked, reply),
            Means::Forbidden => {
                let is_refused = match &self.changes[changes.start].outcome {
                    Outcome::Answered(passed) => !passed.contains(&true),
                    _ => false,
                };
                assert!(is_refused, "{:?} of what is on offer", reply.status);
            }
            Means::Several | Means::KeyFixed(_) => unreachable!("they were noted"),
        }
    }

    fn note_own(&mut self, index: usize, depths: &[u64]) {
        let change = &self.changes[index];
        let count = change.parts.len();
        if !depths.is_empty() {
            for part in &change.parts {
                self.at_risk.remove(&part.coin);
            }
        }
        let Outcome::Answered(passed) = &change.outcome else {
            self.resync = true;
            return;
        };
        let own = count - depths.len();
        for (part, _) in change.parts[..own].iter().zip(passed).filter(|(_, p)| **p) {
            self.confirmed
                .insert(part.coin, part.new.expect("it stays"));
        }
        // Answers to several connections may be read in another order than they were given.
        let mut shared = self.commons.coins.lock().unwrap();
        let parts = change.parts[own..].iter().zip(depths);
        for ((part, depth), _) in parts.zip(&passed[own..]).filter(|(_, passed)| **passed) {
            let known = shared.get_mut(&part.coin).unwrap();
            *known = (*known).max((depth + 1, part.new.expect("it stays")));
        }
        self.resync |= passed[..own].contains(&false);
    }
}

/// The parts of a change of these coins, in their order.
pub(super) fn parts(
    coins: &[usize],
    olds: &[Value],
    news: impl IntoIterator<Item = Option<Value>>,
) -> Vec<Part> {
    let values = olds.iter().zip(news);
    let both = coins.iter().zip(values);
    both.map(|(&coin, (&old, new))| Part { coin, old, new })
        .collect()
}

/// What a request that proves its coins by a sum says.
pub(super) fn sum(parts: &[Part]) -> Value {
    parts.iter().fold(0, |sum, part| sum ^ part.old)
}
