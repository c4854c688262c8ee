//! Coins that change hands over many connections at once, and what may be left of that after a node
//! was killed, stopped, or refused some of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raida::client::{Client, Connection, Transport};
use raida::coin::{An, Coin, ShardId};
use raida::protocol::authentication::{Pown, PownSum};
use raida::protocol::{Command, Passed, Status};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{NodeProcess, PATIENCE, options};

/// One coin in so many is everybody's; the others belong to one connection each. No multiple of the
/// connections, so that all of them have some.
const SHARED_ONE_IN: usize = 17;

/// An AN as a number, so that it can be looked up. Values proposed here are random, so no two
/// changes ever give a coin the same.
pub type Value = u128;

/// A request that would change coins, and what became of it.
pub struct Change {
    pub command: Command,
    pub parts: Vec<Part>,
    pub outcome: Outcome,
}

/// What a request would do to one coin.
#[derive(Clone, Copy)]
pub struct Part {
    pub coin: usize,
    pub old: Value,
    pub new: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There is no answer.
    Open,
    /// Which parts were made.
    Answered(Vec<bool>),
    /// Not done, for this reason.
    Refused(Status),
}

/// The coins, and what each one's AN is while nothing runs.
pub struct Book {
    pub coins: Vec<Coin>,
    pub values: Vec<Value>,
}

/// What connections know of coins that they share: the newest value anyone has an answer for, and
/// how many changes it is away from the first.
type Shared = Mutex<HashMap<usize, (u64, Value)>>;

/// The load of several connections, each on a thread of its own.
pub struct Running {
    loads: Vec<JoinHandle<Vec<Change>>>,
    state: Arc<State>,
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

impl Book {
    pub fn new(coins: Vec<(Coin, An)>) -> Book {
        Book {
            values: coins.iter().map(|(_, an)| value(*an)).collect(),
            coins: coins.into_iter().map(|(coin, _)| coin).collect(),
        }
    }

    /// A coin's AN.
    pub fn an(&self, coin: usize) -> An {
        an(self.values[coin])
    }

    pub fn coin_and_an(&self, coin: usize) -> (Coin, An) {
        (self.coins[coin], self.an(coin))
    }

    /// Adds a coin that was put into circulation.
    pub fn add(&mut self, coin: Coin, an: An) {
        self.coins.push(coin);
        self.values.push(value(an));
    }

    /// Notes a change that was made.
    pub fn set(&mut self, coin: usize, an: An) {
        self.values[coin] = value(an);
    }

    /// Has coins of this book change hands over so many connections. `shards` is the node's number
    /// of shards, so that some requests keep to one.
    pub fn load(
        &self,
        node: &NodeProcess,
        shards: u16,
        connections: usize,
        random: &mut StdRng,
    ) -> Running {
        let shared: Arc<Shared> = Arc::default();
        let state: Arc<State> = Arc::default();
        let mut owned: Vec<Vec<usize>> = vec![Vec::new(); connections];
        for coin in 0..self.coins.len() {
            if coin % SHARED_ONE_IN == 0 {
                shared.lock().unwrap().insert(coin, (0, self.values[coin]));
            } else {
                owned[coin % connections].push(coin);
            }
        }
        let mut loads = Vec::new();
        for own in owned {
            let values: HashMap<usize, Value> =
                own.iter().map(|&coin| (coin, self.values[coin])).collect();
            let mut load = Load {
                connection: Connection::open(node.host(), Transport::Tcp, options()).unwrap(),
                random: StdRng::seed_from_u64(random.random()),
                by_shard: self.by_shard(&own, shards),
                predicted: values.clone(),
                confirmed: values,
                shared: Arc::clone(&shared),
                at_risk: HashSet::new(),
                coins: self.coins.clone(),
                changes: Vec::new(),
                waiting: VecDeque::new(),
                resync: false,
            };
            let state = Arc::clone(&state);
            loads.push(std::thread::spawn(move || load.run(&state)));
        }
        Running { loads, state }
    }

    fn by_shard(&self, coins: &[usize], shards: u16) -> Vec<Vec<usize>> {
        let mut by_shard = vec![Vec::new(); shards.into()];
        for &coin in coins {
            by_shard[owner(self.coins[coin], shards).index()].push(coin);
        }
        by_shard.retain(|coins| !coins.is_empty());
        by_shard
    }

    /// Asks the node which values the coins have now, holds that against what was answered and what
    /// was not, and takes it over. Gives which parts of which changes were made.
    pub fn settle(
        &mut self,
        node: &NodeProcess,
        shards: u16,
        history: &[Change],
    ) -> Vec<Vec<bool>> {
        let found = self.find_values(node, history);
        let applied = self.judge(shards, history, &found);
        self.values = found;
        self.assert_all_in_circulation(&mut node.client());
        applied
    }

    /// Asserts that every coin has its value and no other coin is there.
    pub fn assert_kept(&self, node: &NodeProcess) {
        assert_eq!(self.find_values(node, &[]), self.values);
        self.assert_all_in_circulation(&mut node.client());
    }

    /// Asks the node which of all the values that coins had or might have they have now.
    fn find_values(&self, node: &NodeProcess, history: &[Change]) -> Vec<Value> {
        let settled = self.values.iter().copied().enumerate();
        let proposed = history.iter().flat_map(|change| &change.parts);
        let candidates: Vec<(usize, Value)> = settled
            .chain(proposed.map(|part| (part.coin, part.new)))
            .collect();
        let asked: Vec<(Coin, An)> = candidates
            .iter()
            .map(|&(coin, value)| (self.coins[coin], an(value)))
            .collect();
        let passed = node.client().detect(&asked).unwrap();
        let mut found = vec![None; self.coins.len()];
        for (&(coin, value), _) in candidates.iter().zip(&passed).filter(|(_, p)| **p) {
            let before = found[coin].replace(value);
            assert!(before.is_none_or(|b| b == value), "two values are right");
        }
        let lost: Vec<String> = (0..found.len())
            .filter(|&coin| found[coin].is_none())
            .map(|coin| self.coins[coin].to_string())
            .collect();
        assert!(lost.is_empty(), "neither old nor proposed: {lost:?}");
        found.into_iter().flatten().collect()
    }

    /// Says which parts of which changes were made, and holds that against what was answered.
    ///
    /// No two changes give a coin the same value, so the value that is found names the change that it is
    /// from, the value that this one replaced names the change before it, and so on to the first.
    fn judge(&self, shards: u16, history: &[Change], found: &[Value]) -> Vec<Vec<bool>> {
        let mut made_by = HashMap::new();
        for (index, change) in history.iter().enumerate() {
            for (at, part) in change.parts.iter().enumerate() {
                made_by.insert((part.coin, part.new), (index, at));
            }
        }
        let mut applied: Vec<Vec<bool>> = history
            .iter()
            .map(|change| vec![false; change.parts.len()])
            .collect();
        for (coin, &last) in found.iter().enumerate() {
            let mut value = last;
            while value != self.values[coin] {
                let (index, at) = made_by[&(coin, value)];
                applied[index][at] = true;
                value = history[index].parts[at].old;
            }
        }
        for (change, applied) in history.iter().zip(&applied) {
            let tell = || {
                let lines = change.parts.iter().zip(applied).map(|(part, applied)| {
                    let coin = self.coins[part.coin];
                    format!("\n  {coin} of {}: applied {applied}", owner(coin, shards))
                });
                lines.collect::<String>()
            };
            let command = change.command;
            match &change.outcome {
                Outcome::Answered(passed) => assert!(
                    passed == applied,
                    "{command:?} was answered {passed:?}, but:{}",
                    tell()
                ),
                Outcome::Refused(status) => assert!(
                    !applied.contains(&true),
                    "{command:?} was refused with {status}, but:{}",
                    tell()
                ),
                Outcome::Open => {
                    let is_whole = command == Command::PownSum;
                    // A coin that others change too may have had another value by then; one that still
                    // has the value that was to be replaced did not.
                    let passed_over = change
                        .parts
                        .iter()
                        .zip(applied)
                        .any(|(p, &applied)| !applied && (is_whole || found[p.coin] == p.old));
                    let is_torn = applied.contains(&true) && passed_over;
                    assert!(
                        !is_torn,
                        "{command:?} has no answer and was torn:{}",
                        tell()
                    );
                }
            }
        }
        applied
    }

    fn assert_all_in_circulation(&self, client: &mut Client) {
        let counted: u32 = client.audit().unwrap().0.iter().sum();
        assert_eq!(counted as usize, self.coins.len());
    }
}

impl Running {
    /// Waits until every connection has had an answer.
    pub fn wait_until_under_way(&self, node: &NodeProcess) {
        self.wait_until(node, |state| {
            state.under_way.load(SeqCst) == self.loads.len()
        });
    }

    /// Waits for so many more answers.
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

    /// Asks nothing more.
    pub fn quiet(&self) {
        self.state.quiet.store(true, SeqCst);
    }

    /// Waits for the last answers. Gives every change that was asked for, those of one connection in
    /// their order.
    pub fn join(self) -> Vec<Change> {
        let histories = self.loads.into_iter().map(|load| load.join().unwrap());
        histories.flatten().collect()
    }
}

/// One connection's load: changes of its own coins, and of some that others change too.
struct Load {
    connection: Connection,
    random: StdRng,
    /// Its own coins.
    by_shard: Vec<Vec<usize>>,
    /// What its own coins will be when all that is under way is done.
    predicted: HashMap<usize, Value>,
    /// What they were by the last answer.
    confirmed: HashMap<usize, Value>,
    shared: Arc<Shared>,
    /// Its own coins in a request under way that others may make fail: nothing builds on that.
    at_risk: HashSet<usize>,
    coins: Vec<Coin>,
    changes: Vec<Change>,
    /// Changes without an answer, and how many changes its shared coins were away from the first.
    waiting: VecDeque<(usize, Vec<u64>)>,
    /// A change failed: what is predicted is wrong, and counts again when nothing is under way.
    resync: bool,
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
            self.note(reply.status, &reply.payload);
            state.answers.fetch_add(1, SeqCst);
            if std::mem::take(&mut is_first) {
                state.under_way.fetch_add(1, SeqCst);
            }
        }
    }

    /// Sends a change. Gives whether the connection is still good.
    fn ask(&mut self) -> bool {
        let random = &mut self.random;
        let mut coins: Vec<usize> = match random.random_bool(0.5) {
            true => self.by_shard.choose(random).unwrap().clone(),
            false => self.by_shard.concat(),
        };
        let most = if random.random_bool(0.1) { 30 } else { 6 };
        let count = random.random_range(1..=most).min(coins.len());
        coins = coins.sample(random, count).copied().collect();
        coins.retain(|coin| !self.at_risk.contains(coin));
        let (command, delta) = match random.random_bool(0.6) {
            true => (Command::Pown, None),
            false => (Command::PownSum, Some(random.random::<Value>())),
        };
        let mut depths = Vec::new();
        let mut old_values: Vec<Value> = coins.iter().map(|coin| self.predicted[coin]).collect();
        if coins.is_empty() || random.random_bool(0.15) {
            self.at_risk.extend(&coins);
            // Two coins that someone else's sum has changed by the same delta would not be noticed
            // by the sum of their old values.
            let most = if command == Command::Pown { 2 } else { 1 };
            let shared = self.shared.lock().unwrap();
            let all: Vec<usize> = shared.keys().copied().collect();
            for &coin in all.sample(random, most) {
                let (depth, value) = shared[&coin];
                coins.push(coin);
                old_values.push(value);
                depths.push(depth);
            }
        }
        let new = |old| delta.map_or_else(|| random.random(), |delta| old ^ delta);
        let new_values: Vec<Value> = old_values.iter().copied().map(new).collect();
        let values = old_values.into_iter().zip(new_values);
        let parts: Vec<Part> = coins
            .into_iter()
            .zip(values)
            .map(|(coin, (old, new))| Part { coin, old, new })
            .collect();
        for part in &parts {
            if let Some(predicted) = self.predicted.get_mut(&part.coin) {
                *predicted = part.new;
            }
        }
        let mut payload = Vec::new();
        let coin = |part: &Part| self.coins[part.coin];
        match delta {
            None => Pown::compose(
                parts.iter().map(|p| (coin(p), an(p.old), an(p.new))),
                &mut payload,
            ),
            Some(delta) => {
                let sum = parts.iter().fold(0, |sum, part| sum ^ part.old);
                PownSum::compose(parts.iter().map(coin), an(sum), an(delta), &mut payload);
            }
        }
        let sent = self.connection.send(command, Some(&payload)).is_ok();
        self.waiting.push_back((self.changes.len(), depths));
        self.changes.push(Change {
            command,
            parts,
            outcome: Outcome::Open,
        });
        sent
    }

    /// Notes the answer to the oldest change that has none.
    fn note(&mut self, status: Status, payload: &[u8]) {
        let (index, depths) = self.waiting.pop_front().unwrap();
        let change = &mut self.changes[index];
        let count = change.parts.len();
        if !depths.is_empty() {
            for part in &change.parts {
                self.at_risk.remove(&part.coin);
            }
        }
        change.outcome = match Passed::read(status, payload, count) {
            Some(passed) => Outcome::Answered(passed.iter().collect()),
            None => Outcome::Refused(status),
        };
        let Outcome::Answered(passed) = &change.outcome else {
            self.resync = true;
            return;
        };
        let own = count - depths.len();
        for (part, _) in change.parts[..own].iter().zip(passed).filter(|(_, p)| **p) {
            self.confirmed.insert(part.coin, part.new);
        }
        // Answers to several connections may be read in another order than they were given.
        let mut shared = self.shared.lock().unwrap();
        let parts = change.parts[own..].iter().zip(depths);
        for ((part, depth), _) in parts.zip(&passed[own..]).filter(|(_, passed)| **passed) {
            let known = shared.get_mut(&part.coin).unwrap();
            *known = (*known).max((depth + 1, part.new));
        }
        self.resync |= passed[..own].contains(&false);
    }
}

fn owner(coin: Coin, shards: u16) -> ShardId {
    coin.page().owner(shards)
}

fn value(an: An) -> Value {
    Value::from_be_bytes(*an.expose())
}

fn an(value: Value) -> An {
    An::new(value.to_be_bytes())
}
