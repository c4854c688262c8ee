//! What a node answered outlives any crash: the real program, killed at random moments under load.
//!
//! `RAIDA_CRASH_ROUNDS` sets how often (20 by default), `RAIDA_CRASH_SEED` repeats the choices of an
//! earlier run; moments and answers vary all the same.

mod node_process;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use node_process::{NodeProcess, Serve, admin_key, kill_spawned, mint, options};
use raida::client::{Client, Connection, Transport};
use raida::coin::{An, Coin, ShardId};
use raida::protocol::authentication::{Pown, PownSum};
use raida::protocol::{Command, Passed, Status};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const CONNECTIONS: usize = 16;
const DENOMINATIONS: [i8; 4] = [-8, -1, 0, 6];
const PAGES_EACH: u32 = 16;
const COINS_A_PAGE: usize = 16;
/// One coin in so many is everybody's; the others belong to one connection each.
const SHARED_ONE_IN: usize = 16;

/// An AN as a number, so that it can be looked up. Values proposed here are random, so no two
/// changes ever give a coin the same.
type Value = u128;

/// A request that would change coins, and what became of it.
struct Change {
    command: Command,
    parts: Vec<Part>,
    outcome: Outcome,
}

/// What a request would do to one coin.
#[derive(Clone, Copy)]
struct Part {
    coin: usize,
    old: Value,
    new: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    /// There is no answer.
    Open,
    /// Which parts were made.
    Answered(Vec<bool>),
    /// Not done, for this reason.
    Refused(Status),
}

/// The coins, and what each one's AN is while nothing runs.
struct Book {
    coins: Vec<Coin>,
    values: Vec<Value>,
}

/// What connections know of coins that they share: the newest value anyone has an answer for, and
/// how many changes it is away from the first.
type Shared = Mutex<HashMap<usize, (u64, Value)>>;

#[derive(Default)]
struct Totals {
    answered: usize,
    refused: usize,
    open: usize,
    applied: usize,
    not_applied: usize,
    parted: usize,
    starts: usize,
    starts_killed: usize,
    recoveries: usize,
    recovered: u64,
    longest_start_ms: u64,
    checkpoints_hit: usize,
}

#[test]
fn what_was_answered_outlives_every_crash() {
    let rounds = setting("RAIDA_CRASH_ROUNDS", 20);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = setting(
        "RAIDA_CRASH_SEED",
        now.unwrap().as_nanos() as u64 % 1_000_000_007,
    );
    println!("{rounds} rounds, RAIDA_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");

    let node = serve(&data, 2).start();
    let mut client = node.client();
    let key = admin_key(&data);
    let made = mint(&mut client, &key, &DENOMINATIONS, PAGES_EACH, COINS_A_PAGE);
    let mut book = Book {
        coins: made.iter().map(|(coin, _)| *coin).collect(),
        values: made.iter().map(|(_, an)| value(*an)).collect(),
    };
    node.kill();

    let mut totals = Totals::default();
    for round in 1..=rounds {
        let trial = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_round(&data, &mut book, &mut random, &mut totals)
        }));
        match trial {
            Ok(line) => println!("round {round}: {line}"),
            Err(panic) => {
                let kept = folder.keep();
                println!(
                    "round {round} failed; the data is kept in {}, the choices are RAIDA_CRASH_SEED={seed}",
                    kept.display()
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{}", totals.line(rounds));
    assert!(totals.answered > 0 && totals.recovered > 0);
}

/// Starts, loads, kills, starts again, compares, stops. Gives what there is to say of it.
fn run_round(data: &Path, book: &mut Book, random: &mut StdRng, totals: &mut Totals) -> String {
    let shards = pick_shards(random);
    let node = serve(data, shards).start();
    totals.started(&node);
    assert_eq!(
        find_values(&node, book, &[]),
        book.values,
        "before the load"
    );

    let (history, moment) = load_and_kill(node, data, shards, book, random, totals);
    for _ in 0..random.random_range(0..3) {
        let starting = serve(data, pick_shards(random)).spawn();
        let most = totals.longest_start_ms.max(20);
        std::thread::sleep(Duration::from_millis(random.random_range(0..most)));
        let served = kill_spawned(starting);
        totals.starts_killed += usize::from(!served);
    }
    let node = serve(data, pick_shards(random)).start();
    totals.started(&node);
    let recovered = node.greeted_number("recovered");

    let found = find_values(&node, book, &history);
    let applied = judge(book, shards, &history, &found);
    let open: Vec<usize> = (0..history.len())
        .filter(|&i| history[i].outcome == Outcome::Open)
        .collect();
    let whole = open
        .iter()
        .filter(|&&i| applied[i].iter().all(|&a| a))
        .count();
    let none = open
        .iter()
        .filter(|&&i| applied[i].iter().all(|&a| !a))
        .count();
    let answered = history
        .iter()
        .filter(|change| matches!(change.outcome, Outcome::Answered(_)))
        .count();
    totals.answered += answered;
    totals.refused += history.len() - answered - open.len();
    totals.open += open.len();
    totals.applied += whole;
    totals.not_applied += none;
    totals.parted += open.len() - whole - none;
    book.values = found;
    assert_all_in_circulation(&mut node.client(), book);

    let start_ms = node.greeted_number("ready in");
    if random.random_bool(0.5) {
        let ending = node.stop();
        assert!(ending.status.success(), "{ending:?}");
    } else {
        node.kill();
    }
    let mut line = String::new();
    let _ = write!(
        line,
        "{moment}; {answered} answered, {} open: {whole} found applied, {none} not; \
         {recovered} changes recovered, ready in {start_ms} ms",
        open.len(),
    );
    line
}

fn serve(data: &Path, shards: u16) -> Serve {
    Serve::on(data)
        .with("shards.count", shards)
        .with("storage.segment_bytes", 1 << 20)
        .with("storage.checkpoint_interval_s", 1)
}

/// Two, and now and then another number.
fn pick_shards(random: &mut StdRng) -> u16 {
    *[2, 2, 2, 2, 1, 3].choose(random).unwrap()
}

/// Runs the load against the node and kills it in the middle. Gives every change that was asked
/// for, those of one connection in their order, and what the moment was.
fn load_and_kill(
    node: NodeProcess,
    data: &Path,
    shards: u16,
    book: &Book,
    random: &mut StdRng,
    totals: &mut Totals,
) -> (Vec<Change>, String) {
    let shared: Arc<Shared> = Arc::default();
    let under_way = Arc::new(AtomicUsize::new(0));
    let killed = Arc::new(AtomicBool::new(false));
    let mut owned: Vec<Vec<usize>> = vec![Vec::new(); CONNECTIONS];
    for coin in 0..book.coins.len() {
        if coin % SHARED_ONE_IN == 0 {
            shared.lock().unwrap().insert(coin, (0, book.values[coin]));
        } else {
            owned[coin % CONNECTIONS].push(coin);
        }
    }
    let mut loads = Vec::new();
    for coins in owned {
        let connection = Connection::open(node.host(), Transport::Tcp, options()).unwrap();
        let mut load = Load {
            connection,
            random: StdRng::seed_from_u64(random.random()),
            by_shard: by_shard(&coins, book, shards),
            predicted: coins
                .iter()
                .map(|&coin| (coin, book.values[coin]))
                .collect(),
            confirmed: coins
                .iter()
                .map(|&coin| (coin, book.values[coin]))
                .collect(),
            shared: Arc::clone(&shared),
            at_risk: HashSet::new(),
            coins: book.coins.clone(),
            changes: Vec::new(),
            waiting: VecDeque::new(),
            resync: false,
        };
        let (under_way, killed) = (Arc::clone(&under_way), Arc::clone(&killed));
        loads.push(std::thread::spawn(move || load.run(&under_way, &killed)));
    }
    let deadline = Instant::now() + node_process::PATIENCE;
    while under_way.load(SeqCst) < CONNECTIONS {
        assert!(Instant::now() < deadline, "no answers: {}", node.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    let moment = match random.random_range(0..8) {
        0..2 => {
            let hit = wait_for_checkpoint(data);
            totals.checkpoints_hit += usize::from(hit);
            let after = Duration::from_micros(random.random_range(0..20_000));
            std::thread::sleep(after);
            let after = after.as_micros();
            format!("killed {after} us into a checkpoint")
        }
        2 => {
            let after = random.random_range(1_000..2_000);
            std::thread::sleep(Duration::from_millis(after));
            format!("killed after {after} ms")
        }
        _ => {
            let after = random.random_range(5..500);
            std::thread::sleep(Duration::from_millis(after));
            format!("killed after {after} ms")
        }
    };
    killed.store(true, SeqCst);
    let ending = node.kill();
    assert!(ending.was_killed(), "it ended by itself: {ending:?}");
    assert_eq!(ending.log, "");
    let histories = loads.into_iter().map(|load| load.join().unwrap());
    (histories.flatten().collect(), moment)
}

/// Waits until a page file is being written, for a while. Gives whether one is.
fn wait_for_checkpoint(data: &Path) -> bool {
    let newest = || {
        let files = std::fs::read_dir(data.join("pages")).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().modified().unwrap())
            .max()
    };
    let before = newest();
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        if newest() != before {
            return true;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    false
}

fn by_shard(coins: &[usize], book: &Book, shards: u16) -> Vec<Vec<usize>> {
    let mut by_shard = vec![Vec::new(); shards.into()];
    for &coin in coins {
        by_shard[owner(book.coins[coin], shards).index()].push(coin);
    }
    by_shard
}

fn owner(coin: Coin, shards: u16) -> ShardId {
    coin.page().owner(shards)
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
    fn run(&mut self, under_way: &AtomicUsize, killed: &AtomicBool) -> Vec<Change> {
        let depth = self.random.random_range(1..=8);
        let mut is_first = true;
        loop {
            while !killed.load(SeqCst) && !self.resync && self.waiting.len() < depth {
                if !self.ask() {
                    break;
                }
            }
            if self.waiting.is_empty() && !self.resync {
                return std::mem::take(&mut self.changes);
            }
            if self.waiting.is_empty() {
                self.predicted = self.confirmed.clone();
                self.resync = false;
                continue;
            }
            let Ok(reply) = self.connection.receive() else {
                assert!(killed.load(SeqCst), "the node closed a connection");
                return std::mem::take(&mut self.changes);
            };
            self.note(reply.status, &reply.payload);
            if std::mem::take(&mut is_first) {
                under_way.fetch_add(1, SeqCst);
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

/// Asks the node which of all the values that coins had or might have they have now.
fn find_values(node: &NodeProcess, book: &Book, history: &[Change]) -> Vec<Value> {
    let settled = book.values.iter().copied().enumerate();
    let proposed = history.iter().flat_map(|change| &change.parts);
    let candidates: Vec<(usize, Value)> = settled
        .chain(proposed.map(|part| (part.coin, part.new)))
        .collect();
    let asked: Vec<(Coin, An)> = candidates
        .iter()
        .map(|&(coin, value)| (book.coins[coin], an(value)))
        .collect();
    let passed = node.client().detect(&asked).unwrap();
    let mut found = vec![None; book.coins.len()];
    for (&(coin, value), _) in candidates.iter().zip(&passed).filter(|(_, p)| **p) {
        let before = found[coin].replace(value);
        assert!(before.is_none_or(|b| b == value), "two values are right");
    }
    let name = |(coin, value): (usize, Option<Value>)| {
        value.unwrap_or_else(|| panic!("{} has a value nobody gave it", book.coins[coin]))
    };
    found.into_iter().enumerate().map(name).collect()
}

/// Says which parts of which changes were made, and holds that against what was answered.
///
/// No two changes give a coin the same value, so the value that is found names the change that it is
/// from, the value that this one replaced names the change before it, and so on to the first.
fn judge(book: &Book, shards: u16, history: &[Change], found: &[Value]) -> Vec<Vec<bool>> {
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
        while value != book.values[coin] {
            let (index, at) = made_by[&(coin, value)];
            applied[index][at] = true;
            value = history[index].parts[at].old;
        }
    }
    for (change, applied) in history.iter().zip(&applied) {
        let tell = || {
            let lines = change.parts.iter().zip(applied).map(|(part, applied)| {
                let coin = book.coins[part.coin];
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
                let owners = change
                    .parts
                    .iter()
                    .map(|p| owner(book.coins[p.coin], shards));
                let owners: HashSet<_> = owners.collect();
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
                    !is_torn || !is_whole && owners.len() > 1,
                    "{command:?} has no answer and was torn:{}",
                    tell()
                );
            }
        }
    }
    applied
}

fn assert_all_in_circulation(client: &mut Client, book: &Book) {
    let counted: u32 = client.audit().unwrap().0.iter().sum();
    assert_eq!(counted as usize, book.coins.len());
}

impl Totals {
    fn started(&mut self, node: &NodeProcess) {
        let recovered = node.greeted_number("recovered");
        self.starts += 1;
        self.recoveries += usize::from(recovered > 0);
        self.recovered += recovered;
        let took_ms = node.greeted_number("ready in");
        self.longest_start_ms = self.longest_start_ms.max(took_ms);
    }

    fn line(&self, rounds: u64) -> String {
        format!(
            "{rounds} rounds: {} requests answered, {} refused, {} unanswered: {} found applied, \
             {} not, {} in part over several shards; {} times killed in a checkpoint, {} times \
             while starting; {} starts, {} with something to recover, {} changes recovered, the \
             longest start {} ms",
            self.answered,
            self.refused,
            self.open,
            self.applied,
            self.not_applied,
            self.parted,
            self.checkpoints_hit,
            self.starts_killed,
            self.starts,
            self.recoveries,
            self.recovered,
            self.longest_start_ms,
        )
    }
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        Err(_) => default,
    }
}

fn value(an: An) -> Value {
    Value::from_be_bytes(*an.expose())
}

fn an(value: Value) -> An {
    An::new(value.to_be_bytes())
}
