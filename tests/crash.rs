//! Answered changes survive any crash: the real program, killed at random moments under a load of
//! powns, of everything that lockers and trades can be asked, and of fixes of encryption.
//!
//! `RAIDA_CRASH_ROUNDS` sets how often (20 by default), `RAIDA_CRASH_SEED` repeats the choices of
//! an earlier run; moments and answers vary all the same.

#[path = "support/node_process/mod.rs"]
mod node_process;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use node_process::changes::healing::write_secrets;
use node_process::changes::load::Running;
use node_process::changes::{Book, Change, Outcome};
use node_process::moved_clock::MovedClock;
use node_process::{NodeProcess, Serve, admin_key, kill_spawned, mint, raida};
use raida::protocol::Command;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const CONNECTIONS: usize = 16;
const DENOMINATIONS: [i8; 4] = [-8, -1, 0, 6];
const PAGES_EACH: u32 = 16;
const COINS_A_PAGE: usize = 16;
/// Counts of requests that the test must have asked, seen answered and found done.
const COMMANDS: [Command; 13] = [
    Command::Pown,
    Command::PownSum,
    Command::PownDerive,
    Command::StoreSum,
    Command::StoreMultiple,
    Command::Peek,
    Command::Remove,
    Command::PutForSale,
    Command::ListForSale,
    Command::Buy,
    Command::RemoveTrade,
    Command::PeekTrade,
    Command::FixEncryption,
];
/// What a node that counts every purchase as paid says at its start, and all that it may say.
const WARNED: &str = "every purchase counts as paid";

#[derive(Default)]
struct Totals {
    /// How many of each were answered and done.
    done: BTreeMap<String, usize>,
    freed: usize,
    replayed: usize,
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
    write_secrets(&secrets(&data));

    let clock = Arc::new(MovedClock::new(&folder.path().join("clock")));

    let node = serve(&data, 2, &clock).start();
    let mut client = node.client();
    let key = admin_key(&data);
    let made = mint(&mut client, &key, &DENOMINATIONS, PAGES_EACH, COINS_A_PAGE);
    let mut book = Book::new(made);
    node.kill();

    let mut totals = Totals::default();
    for round in 1..=rounds {
        let trial = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_round(&data, &clock, &mut book, &mut random, &mut totals)
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
    println!("answered and done: {:?}", totals.done);
    assert!(totals.answered > 0 && totals.recovered > 0 && totals.replayed > 0);
    for command in COMMANDS {
        let done = totals.done.get(&format!("{command:?}"));
        assert!(done.is_some(), "nothing was asked by {command:?}");
    }
}

/// Starts, loads, kills, starts again, compares, stops. Returns a line that says what happened.
fn run_round(
    data: &Path,
    clock: &Arc<MovedClock>,
    book: &mut Book,
    random: &mut StdRng,
    totals: &mut Totals,
) -> String {
    let shards = pick_shards(random);
    let node = serve(data, shards, clock).start();
    // A node takes no encryption ticket from before it was started.
    clock.pass(180);
    totals.started(&node);
    book.assert_kept(&node);
    replace_freed(&node, data, book);

    let load = book.load_with_everything(&node, shards, CONNECTIONS, random);
    let (history, moment) = load_and_kill(node, data, load, random, totals);
    assert_sound(data);
    for _ in 0..random.random_range(0..3) {
        let starting = serve(data, pick_shards(random), clock).spawn();
        let most = totals.longest_start_ms.max(20);
        std::thread::sleep(Duration::from_millis(random.random_range(0..most)));
        let (served, log) = kill_spawned(starting);
        assert_warned_only(&log);
        totals.starts_killed += usize::from(!served);
    }
    let node = serve(data, pick_shards(random), clock).start();
    totals.started(&node);
    let recovered = node.greeted_number("recovered");

    let before = book.coins.len();
    let applied = book.settle(&node, shards, &history);
    totals.freed += before - book.coins.len();
    totals.count_done(&history);
    totals.replayed += history.iter().filter(|change| change.is_replay()).count();
    let open: Vec<usize> = (0..history.len())
        .filter(|&i| history[i].outcome == Outcome::Open && !history[i].parts.is_empty())
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
    let refused = |change: &&Change| matches!(change.outcome, Outcome::Refused(_));
    totals.refused += history.iter().filter(refused).count();
    totals.open += open.len();
    totals.applied += whole;
    totals.not_applied += none;
    totals.parted += open.len() - whole - none;

    let start_ms = node.greeted_number("ready in");
    if random.random_bool(0.5) {
        let ending = node.stop();
        assert!(ending.status.success(), "{ending:?}");
    } else {
        node.kill();
    }
    assert_sound(data);
    let mut line = String::new();
    let _ = write!(
        line,
        "{moment}; {answered} answered, {} open: {whole} found applied, {none} not; \
         {recovered} changes recovered, ready in {start_ms} ms",
        open.len(),
    );
    line
}

/// Asserts that `raida check` finds nothing wrong with the folder, and that no start left anything
/// behind in it.
fn assert_sound(data: &Path) {
    let check = raida(&["check".as_ref(), "--data".as_ref(), data.as_os_str()]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(check.stdout), text(check.stderr));
    assert_eq!(check.status.code(), Some(0), "{out}{error}");
    let names = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.retain(|name| name.to_string_lossy().starts_with('.'));
    assert!(names.is_empty(), "{names:?}");
}

fn serve(data: &Path, shards: u16, clock: &Arc<MovedClock>) -> Serve {
    Serve::on(data)
        .by(clock.clone())
        .with("shards.count", shards)
        .with("storage.segment_bytes", 1 << 20)
        .with("storage.checkpoint_interval_s", 1)
        .with("trade.settlement", "trusted")
        .with("keys.file", secrets(data).display())
        .with("log.healing", "warn")
}

/// What the node shares with the other servers.
fn secrets(data: &Path) -> PathBuf {
    data.with_file_name("secrets")
}

/// Puts as many new coins into circulation as were taken out of it.
fn replace_freed(node: &NodeProcess, data: &Path, book: &mut Book) {
    let all = DENOMINATIONS.len() * PAGES_EACH as usize * COINS_A_PAGE;
    let missing = all.saturating_sub(book.coins.len()) / DENOMINATIONS.len();
    if missing > 0 {
        let key = admin_key(data);
        let made = mint(&mut node.client(), &key, &DENOMINATIONS, 1, missing);
        made.into_iter().for_each(|(coin, an)| book.add(coin, an));
    }
}

fn assert_warned_only(log: &str) {
    let unexpected = log.lines().find(|line| !line.contains(WARNED));
    assert_eq!(unexpected, None, "{log}");
}

/// Two, and now and then another number.
fn pick_shards(random: &mut StdRng) -> u16 {
    *[2, 2, 2, 2, 1, 3].choose(random).unwrap()
}

/// Runs the load against the node and kills it in the middle. Gives every change that was asked
/// for, and what the moment was.
fn load_and_kill(
    node: NodeProcess,
    data: &Path,
    load: Running,
    random: &mut StdRng,
    totals: &mut Totals,
) -> (Vec<Change>, String) {
    load.wait_until_under_way(&node);
    let moment = match random.random_range(0..8) {
        0..2 => {
            totals.checkpoints_hit += usize::from(wait_for_checkpoint(data));
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
    // A few answers later, so that some of these have none.
    load.fix_keys(random.random_range(1..=8));
    std::thread::sleep(Duration::from_micros(random.random_range(0..5_000)));
    load.node_may_end();
    let ending = node.kill();
    assert!(ending.was_killed(), "it ended by itself: {ending:?}");
    assert_warned_only(&ending.log);
    (load.join(), moment)
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

impl Totals {
    fn started(&mut self, node: &NodeProcess) {
        let recovered = node.greeted_number("recovered");
        self.starts += 1;
        self.recoveries += usize::from(recovered > 0);
        self.recovered += recovered;
        let took_ms = node.greeted_number("ready in");
        self.longest_start_ms = self.longest_start_ms.max(took_ms);
    }

    fn count_done(&mut self, history: &[Change]) {
        for change in history {
            if let Outcome::Answered(passed) = &change.outcome
                && !passed.contains(&false)
            {
                let command = format!("{:?}", change.command);
                *self.done.entry(command).or_default() += 1;
            }
        }
    }

    fn line(&self, rounds: u64) -> String {
        format!(
            "{rounds} rounds: {} requests answered, {} refused, {} unanswered: {} found applied, \
             {} not, {} in part, another client having been first; {} coins taken out of circulation; used tickets presented \
             {} times; {} times killed in a checkpoint, {} times \
             while starting; {} starts, {} with something to recover, {} changes recovered, the \
             longest start {} ms",
            self.answered,
            self.refused,
            self.open,
            self.applied,
            self.not_applied,
            self.parted,
            self.freed,
            self.replayed,
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
