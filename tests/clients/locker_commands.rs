//! Coins go into lockers, up for sale and back, as a person does it: with the program, from a CSV
//! on one small server, and from a wallet on 25 servers that refuse, disagree or are down, and with
//! the program killed in between.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::small_node::{Fault, SmallNode};
use raida::client::PerRaida;
use raida::client::locker::{LockerSecret, TradeSecret};
use raida::client::wallet::{Access, CoinFile, Folder, Mark, PownString, Wallet};
use raida::coin::{An, Coin};
use raida::protocol::lockers::{Address, Currency, Price, TradeKey};
use raida::protocol::{Command, RaidaId, Status};
use serde_json::Value;

struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// 25 servers, a wallet whose coins all of them know, and a secret in a file.
struct Network {
    folder: tempfile::TempDir,
    nodes: Vec<SmallNode>,
}

const SECRET: &str = "5ec1e7000000000000000000005ec1e7";
const OFFER: &str = "5ec1e70000005ec1e700009c4001eeee";
const TERMS: &str = "--price 40000 --currency bitcoin";
const ADDRESS: &str = "--address bc1q000000000000";

impl Network {
    /// Coins 0.0 to 0.N-1, worth 1 each.
    fn of(coins: u32) -> Network {
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let nodes: Vec<SmallNode> = (0..25).map(SmallNode::start_as).collect();
        let files: Vec<CoinFile> = (0..coins)
            .map(|sn| {
                let an = |raida: RaidaId| An::new([(sn as u8) * 25 + raida.get() + 1; 16]);
                let pown = PownString::all(Mark::Passed);
                CoinFile::new(coin(sn), 6, PerRaida::from_fn(an), pown)
            })
            .collect();
        for raida in RaidaId::all() {
            let numbers = files.iter().map(|file| (file.coin, file.an(raida)));
            nodes[usize::from(raida.get())].put(numbers);
        }
        let network = Network { folder, nodes };
        let mut wallet = Wallet::open(&network.path("wallet"), Access::Create).unwrap();
        wallet.add(Folder::Bank, files).unwrap();
        let hosts = network.nodes.iter().map(|node| node.address.to_string());
        network.write_hosts(hosts.collect());
        std::fs::write(network.path("secret"), SECRET).unwrap();
        std::fs::write(network.path("offer"), OFFER).unwrap();
        network
    }

    fn write_hosts(&self, hosts: Vec<String>) {
        std::fs::write(self.path("hosts"), hosts.join("\n") + "\n").unwrap();
    }

    /// From the program's view, nobody listens there any more.
    fn make_unreachable(&self, raida: usize) {
        let hosts = std::fs::read_to_string(self.path("hosts")).unwrap();
        let mut hosts: Vec<String> = hosts.lines().map(str::to_owned).collect();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        hosts[raida] = closed.local_addr().unwrap().to_string();
        self.write_hosts(hosts);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn process(&self, words: &str) -> Process {
        let mut process = Process::new(env!("CARGO_BIN_EXE_raida"));
        process
            .current_dir(self.folder.path())
            .args(words.split_whitespace())
            .args(["--hosts", "hosts", "--timeout-ms", "2000"]);
        process
    }

    fn run(&self, words: &str) -> Run {
        self.process(words).output().unwrap().into()
    }

    fn heal(&self, wallet: &str) {
        let run = self.run(&format!("heal {wallet}"));
        assert_ne!(run.status, Some(2), "{}", run.err);
    }

    /// Runs the program until it has sent this many requests of this command, to all servers
    /// together, and then kills it. Returns whether it sent that many.
    fn kill_at(&self, words: &str, command: Command, number: usize) -> bool {
        let (seen, pid) = (AtomicUsize::new(0), Arc::new(AtomicU32::new(0)));
        let killed = Arc::new(Mutex::new(false));
        let (victim, done) = (pid.clone(), killed.clone());
        let watch = move |_: RaidaId, asked: Command| {
            if asked != command || seen.fetch_add(1, Ordering::SeqCst) != number {
                return;
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            while victim.load(Ordering::SeqCst) == 0 {
                assert!(
                    Instant::now() < deadline,
                    "the program's number is not told"
                );
                std::thread::yield_now();
            }
            *done.lock().unwrap() = true;
            let pid = victim.load(Ordering::SeqCst) as i32;
            // SAFETY: plain system call. The process is a child of this test that has not been
            // waited for, so that the number is its own still.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        };
        let watch: crate::small_node::Watch = Arc::new(watch);
        self.watch(Some(&watch));
        let mut process = self.process(words);
        let child: Child = process
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        pid.store(child.id(), Ordering::SeqCst);
        let run = Run::from(child.wait_with_output().unwrap());
        self.watch(None);
        self.nodes.iter().for_each(SmallNode::wait_until_idle);
        let killed = *killed.lock().unwrap();
        assert_eq!(run.status.is_none(), killed, "{}{}", run.out, run.err);
        killed
    }

    fn watch(&self, watch: Option<&crate::small_node::Watch>) {
        for node in &self.nodes {
            node.state.lock().unwrap().watch = watch.cloned();
        }
    }

    fn files(&self, wallet: &str) -> Vec<(Folder, CoinFile)> {
        let wallet = Wallet::open(&self.path(wallet), Access::Change).unwrap();
        assert_eq!(wallet.left_alone(), []);
        let filed = wallet.coins().iter();
        filed
            .map(|filed| (filed.folder, filed.file.clone()))
            .collect()
    }

    /// How many servers' numbers of a coin are in a file, proposed ones too.
    fn known(&self, file: &CoinFile) -> usize {
        let knows = |raida: &RaidaId| {
            let held = self.nodes[usize::from(raida.get())].an(file.coin);
            held == Some(file.an(*raida)) || (held.is_some() && held == file.pan(*raida))
        };
        RaidaId::all().filter(knows).count()
    }

    /// How many servers have a coin in a locker.
    fn in_locker(&self, secret: &LockerSecret, coin: Coin) -> usize {
        let lies = |raida: &RaidaId| {
            let held = self.nodes[usize::from(raida.get())].an(coin);
            held == Some(secret.key(*raida).an())
        };
        RaidaId::all().filter(lies).count()
    }

    fn set(&self, raida: usize, coin: Coin, an: An) {
        self.nodes[raida].put([(coin, an)]);
    }

    fn down(&self, raidas: std::ops::Range<usize>, is_down: bool) {
        for node in &self.nodes[raidas] {
            node.state.lock().unwrap().is_down = is_down;
        }
    }

    fn refuse(&self, raidas: std::ops::Range<usize>, command: Command, status: Status) {
        for node in &self.nodes[raidas] {
            let number = node.asked(command);
            node.fail(command, number, Fault::Refuse(status));
        }
    }
}

fn coin(sn: u32) -> Coin {
    format!("0.{sn}").parse().unwrap()
}

fn secret() -> LockerSecret {
    SECRET.parse().unwrap()
}

fn offer() -> TradeSecret {
    OFFER.parse().unwrap()
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{}{}", run.out, run.err))
}

#[track_caller]
fn assert_done(run: &Run) {
    assert_eq!((run.status, run.err.as_str()), (Some(0), ""), "{}", run.out);
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn coins_go_from_one_wallet_into_another_by_way_of_a_locker() {
    let network = Network::of(5);
    let put = network.run("locker put --wallet wallet --amount 3");
    assert_done(&put);
    let (first, rest) = put.out.split_once('\n').unwrap();
    let made_up = first.strip_prefix("the locker's secret: ").unwrap();
    assert!(
        rest.contains("3 coins worth 3 in the locker, on all 25 servers"),
        "{rest}"
    );
    assert!(!rest.contains(made_up), "it is told once");
    let made_up: LockerSecret = made_up.parse().unwrap();
    let own: Vec<Coin> = network
        .files("wallet")
        .iter()
        .map(|(_, f)| f.coin)
        .collect();
    assert_eq!(own, [coin(3), coin(4)]);
    for sn in 0..3 {
        assert_eq!(network.in_locker(&made_up, coin(sn)), 25);
        let kept = CoinFile::read(&network.path(&format!("wallet/Lockers/0.{sn}.bin"))).unwrap();
        assert_eq!(network.known(&kept), 25);
    }

    std::fs::write(network.path("made-up"), made_up.expose() + "\n").unwrap();
    let peek = network.run("locker peek --key @made-up");
    assert_done(&peek);
    assert!(peek.out.starts_with("0.0\n0.1\n0.2\n"), "{}", peek.out);
    assert!(
        peek.out
            .ends_with("25 servers say: 3 coins worth 3 lie in the locker\n")
    );

    let take = network.run("locker take --key @made-up --wallet other");
    assert_done(&take);
    assert!(
        take.out.ends_with("3 coins worth 3 taken, now in other\n"),
        "{}",
        take.out
    );
    for (folder, file) in network.files("other") {
        assert_eq!(folder, Folder::Bank);
        assert!(!file.is_in_doubt() && network.known(&file) == 25);
        let numbers: BTreeSet<[u8; 16]> = RaidaId::all()
            .map(|raida| *file.an(raida).expose())
            .collect();
        assert_eq!(numbers.len(), 25, "each server has a number of its own");
    }
    let empty = network.run("locker peek --key @made-up");
    assert_eq!(empty.status, Some(1));
    assert!(
        empty
            .out
            .ends_with("25 servers say: nothing lies in the locker\n")
    );
    assert_eq!(
        network
            .run("locker take --key @made-up --wallet other")
            .status,
        Some(1)
    );
}

#[test]
fn a_wallet_that_takes_its_coins_back_keeps_no_second_file_of_them() {
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    assert!(exists(&network.path("wallet/Lockers/0.1.bin")));
    assert_done(&network.run("locker take --wallet wallet --key @secret"));
    assert!(!exists(&network.path("wallet/Lockers/0.1.bin")));
    assert_eq!(network.files("wallet").len(), 2);
    // And once more, over the leftovers of an earlier run.
    std::fs::write(network.path("wallet/Lockers/0.1.bin"), "old").unwrap();
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let kept = CoinFile::read(&network.path("wallet/Lockers/0.1.bin")).unwrap();
    assert_eq!(network.known(&kept), 25);
}

#[test]
fn what_is_refused_leaves_no_wallet_behind_and_shows_no_secret() {
    let network = Network::of(2);
    let take = network.run("locker take --wallet made/other --key @secret");
    assert_eq!(take.status, Some(1), "{}", take.err);
    assert!(take.out.contains("none lies in the locker"), "{}", take.out);
    assert!(!network.path("made").exists());
    let payment = format!(
        "--transaction {} --receipt {} --memo x --wallet made",
        "41".repeat(32),
        "7e".repeat(16)
    );
    let buy = format!("trade buy {TERMS} --worth 2 {payment}");
    let bought = network.run(&buy);
    assert_eq!(bought.status, Some(1), "{}", bought.err);
    let says = "no server was told of the payment";
    assert!(bought.out.contains(says), "{}", bought.out);
    assert!(!bought.out.contains("the locker's secret"));
    assert!(!network.path("made").exists());
    // An earlier run may have been paid: a command that names its locker asks all the same.
    let again = network.run(&format!("{buy} --key @secret"));
    assert_eq!(again.status, Some(1), "{}", again.err);
    assert!(again.out.contains("paid on 0 servers"), "{}", again.out);
    assert!(!network.path("made").exists());
    // What was there before stays.
    std::fs::create_dir(network.path("made")).unwrap();
    network.run("locker take --wallet made --key @secret");
    assert!(network.path("made").exists() && !network.path("made/Bank").exists());
}

#[test]
fn twelve_servers_may_be_down_and_what_they_missed_is_healed_by_whoever_takes_the_coins() {
    let network = Network::of(3);
    network.down(0..11, true);
    network.make_unreachable(11);
    let put = network.run("locker put --wallet wallet --coin 0.1 --coin 0.2 --key @secret --json");
    assert_done(&put);
    let report = json(&put);
    assert_eq!(report["worth"], "2");
    assert_eq!(report["coins"][0]["servers"], 13);
    let why = report["servers"][11]["why"].as_str().unwrap();
    assert!(why.starts_with("cannot reach"), "{why}");
    assert_eq!(network.files("wallet").len(), 1);

    let peek = network.run("locker peek --key @secret");
    assert_done(&peek);
    assert!(
        peek.out.contains("13 servers say: 2 coins worth 2"),
        "{}",
        peek.out
    );
    assert!(peek.out.contains("12 did not say"), "{}", peek.out);

    // Back up, they have the coins as before: they differ.
    network.down(0..11, false);
    let peek = network.run("locker peek --key @secret");
    assert_done(&peek);
    assert!(peek.out.contains("11 differ"), "{}", peek.out);
    assert!(peek.out.contains("missing: 0.1 0.2"), "{}", peek.out);
    let take = network.run("locker take --key @secret --wallet other --json");
    assert_done(&take);
    let report = json(&take);
    assert_eq!(report["coins"][0]["grade"], "fracked");
    assert_eq!(report["coins"][0]["pown"], "fffffffffffnppppppppppppp");
    assert!(
        network
            .files("other")
            .iter()
            .all(|(folder, _)| *folder == Folder::Fracked)
    );
}

#[test]
fn with_thirteen_servers_down_nothing_is_changed_anywhere() {
    let network = Network::of(2);
    let before = network.files("wallet");
    network.down(0..13, true);
    for words in [
        "locker put --wallet wallet --all --key @secret",
        "locker take --wallet wallet --key @secret",
        "locker peek --key @secret",
        "locker move --key @secret --to @offer",
        "trade list --currency bitcoin",
    ] {
        let run = network.run(words);
        assert_eq!(run.status, Some(2), "{words}: {}", run.out);
        assert!(
            run.err.contains("only 12 of 25 servers"),
            "{words}: {}",
            run.err
        );
        assert!(!run.err.contains("5ec1e7"));
    }
    assert!(network.files("wallet") == before);
    assert_eq!(network.in_locker(&secret(), coin(0)), 0);
}

#[test]
fn a_coin_that_one_server_lost_goes_into_the_locker_on_the_others() {
    let network = Network::of(2);
    network.set(4, coin(1), An::new([0x77; 16]));
    let put = network.run("locker put --wallet wallet --all --key @secret");
    assert_done(&put);
    // It has put the coin that it knows there all the same.
    assert_eq!(network.in_locker(&secret(), coin(0)), 25);
    assert_eq!(network.in_locker(&secret(), coin(1)), 24);
    assert!(
        put.out.contains("    4        1  it has another number"),
        "{}",
        put.out
    );
}

#[test]
fn coins_that_too_few_servers_put_into_the_locker_stay_with_the_numbers_that_each_server_has() {
    let network = Network::of(2);
    network.refuse(0..13, Command::StoreSum, Status::UNAVAILABLE);
    let put = network.run("locker put --wallet wallet --all --key @secret");
    assert_eq!(put.status, Some(1), "{}", put.err);
    assert!(put.out.contains("on fewer than 13 servers"), "{}", put.out);
    assert!(put.out.contains("with the same --key"), "{}", put.out);
    assert!(put.out.contains("unavailable"), "{}", put.out);
    let files = network.files("wallet");
    assert_eq!(files.len(), 2);
    for (folder, file) in &files {
        // A refusal is an answer: nothing is in doubt.
        assert!(*folder == Folder::Bank && !file.is_in_doubt());
        assert_eq!(network.known(file), 25);
    }
    // The same command again completes it, whatever amount is asked for; after that nothing is left
    // to do.
    assert_done(&network.run("locker put --wallet wallet --amount 1 --key @secret"));
    assert_eq!(network.in_locker(&secret(), coin(1)), 25);
    assert_eq!(network.files("wallet").len(), 0);
}

#[test]
fn more_is_put_into_a_locker_only_when_it_is_said() {
    let network = Network::of(3);
    assert_done(&network.run("locker put --wallet wallet --amount 1 --key @secret"));
    let again = network.run("locker put --wallet wallet --amount 1 --key @secret");
    assert_eq!(again.status, Some(2));
    assert!(
        again.err.contains("(1, worth 1)") && again.err.contains("--more"),
        "{}",
        again.err
    );
    assert_eq!(network.files("wallet").len(), 2);
    assert_done(&network.run("locker put --wallet wallet --amount 1 --key @secret --more"));
    assert_eq!(network.files("wallet").len(), 1);
}

#[test]
fn what_a_wallet_has_not_is_refused_before_anything_is_asked() {
    let network = Network::of(2);
    let before = network.files("wallet");
    for (choice, says) in [
        ("--amount 3", "do not make 3: there are 2, worth 2"),
        ("--amount 0.5", "do not make 0.5"),
        ("--coin 0.7", "0.7 is not in the wallet"),
        ("--amount x", "12.5"),
        ("", "--all"),
    ] {
        let run = network.run(&format!(
            "locker put --wallet wallet --key @secret {choice}"
        ));
        assert_eq!(run.status, Some(2));
        assert!(run.err.contains(says), "{choice}: {}", run.err);
    }
    // A counterfeit among them.
    for raida in 0..13 {
        network.set(raida, coin(1), An::new([0x77; 16]));
    }
    let run = network.run("locker put --wallet wallet --all --key @secret");
    assert_eq!(run.status, Some(2));
    assert!(
        run.err.contains("0.1") && run.err.contains("raida heal"),
        "{}",
        run.err
    );
    assert!(network.files("wallet") == before);
    assert_eq!(network.in_locker(&secret(), coin(0)), 0);
}

#[test]
fn answers_that_are_lost_leave_both_numbers_until_they_are_known() {
    let network = Network::of(1);
    for node in &network.nodes[..20] {
        node.fail(Command::StoreSum, 0, Fault::Hangup);
    }
    // They were carried out, and are found in the same run.
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    for node in &network.nodes[..20] {
        node.fail(Command::Remove, 0, Fault::Hangup);
        node.fail(Command::Find, 1, Fault::Hangup);
    }
    let take = network.run("locker take --wallet other --key @secret");
    assert_eq!(take.status, Some(1), "{}", take.out);
    let files = network.files("other");
    assert!(files[0].0 == Folder::Limbo && files[0].1.is_in_doubt());
    assert_eq!(network.known(&files[0].1), 25);
    // Nothing lies in the locker any more, and the next run still ends it.
    assert_done(&network.run("locker take --wallet other --key @secret"));
    let files = network.files("other");
    assert!(files[0].0 == Folder::Bank && !files[0].1.is_in_doubt());
    assert_eq!(network.known(&files[0].1), 25);
}

#[test]
fn a_request_that_is_carried_out_after_it_was_given_up_brings_no_unknown_number_into_force() {
    for (words, command) in [
        (
            "locker put --wallet wallet --all --key @secret",
            Command::StoreSum,
        ),
        ("locker take --wallet wallet --key @secret", Command::Remove),
    ] {
        let network = Network::of(2);
        if command == Command::Remove {
            assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
        }
        for node in &network.nodes[..20] {
            node.fail(command, 0, Fault::Postpone);
        }
        // The servers say that they have the old number, which they have for the moment.
        let given_up = network.run(words);
        assert_eq!(given_up.status, Some(1), "{}", given_up.out);
        for node in &network.nodes[..10] {
            node.carry_out_postponed();
        }
        for (folder, file) in network.files("wallet") {
            assert_eq!(folder, Folder::Limbo);
            assert_eq!(network.known(&file), 25);
        }
        // The rest while the next run is at work: after it has looked, before it asks for the
        // change.
        let seen = AtomicUsize::new(0);
        let states: Vec<_> = network
            .nodes
            .iter()
            .map(|node| node.state.clone())
            .collect();
        let watch = move |raida: RaidaId, asked: Command| {
            if asked == command && seen.fetch_add(1, Ordering::SeqCst) == 0 {
                let others = states.iter().enumerate();
                let others = others.filter(|(number, _)| *number != usize::from(raida.get()));
                others.for_each(|(_, state)| state.lock().unwrap().carry_out_postponed());
            }
        };
        network.watch(Some(&(Arc::new(watch) as crate::small_node::Watch)));
        let again = network.run(words);
        network.watch(None);
        assert_done(&again);
        for node in &network.nodes {
            node.carry_out_postponed();
        }
        match command {
            Command::StoreSum => assert_eq!(network.in_locker(&secret(), coin(1)), 25),
            _ => assert_eq!(network.files("wallet").len(), 2),
        }
        for (folder, file) in network.files("wallet") {
            assert!(folder == Folder::Bank && !file.is_in_doubt());
            assert_eq!(network.known(&file), 25, "{}", again.out);
        }
    }
}

/// Where a program is killed: how often a command may have been sent until then.
const STEPS: [usize; 5] = [0, 1, 12, 20, 24];

#[test]
fn a_put_killed_at_any_step_loses_no_coin_and_is_ended_by_the_same_command() {
    for command in [Command::Detect, Command::StoreSum] {
        for (round, number) in STEPS.into_iter().enumerate() {
            let network = Network::of(3);
            let words = "locker put --wallet wallet --amount 2 --key @secret";
            assert!(network.kill_at(words, command, number));
            let files = network.files("wallet");
            assert_eq!(files.len(), 3, "{command:?} {number}");
            for (_, file) in &files {
                assert_eq!(network.known(file), 25, "{command:?} {number}");
            }
            if round % 2 == 0 {
                // Healing finds out what happened to them, and all coins stay the wallet's.
                network.heal("wallet");
                let files = network.files("wallet");
                assert!(files.iter().all(|(folder, _)| *folder == Folder::Bank));
                assert!(files.iter().all(|(_, file)| network.known(file) == 25));
            }
            assert_done(&network.run(words));
            assert_eq!(network.files("wallet").len(), 1, "{command:?} {number}");
            for sn in 0..2 {
                assert_eq!(network.in_locker(&secret(), coin(sn)), 25);
            }
            assert_eq!(network.in_locker(&secret(), coin(2)), 0);
        }
    }
}

#[test]
fn a_take_killed_at_any_step_loses_no_coin_and_is_ended_by_the_same_command_or_by_healing() {
    for command in [Command::Peek, Command::Remove] {
        for (round, number) in STEPS.into_iter().enumerate() {
            let network = Network::of(2);
            assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
            let words = "locker take --wallet other --key @secret";
            assert!(network.kill_at(words, command, number));
            let files = network.files("other");
            assert_eq!(files.len(), if command == Command::Peek { 0 } else { 2 });
            for (folder, file) in &files {
                assert_eq!(*folder, Folder::Limbo);
                assert_eq!(network.known(file), 25, "{command:?} {number}");
            }
            if round % 2 == 0 && !files.is_empty() {
                network.heal("other");
            }
            let again = network.run(words);
            // Where healing has ended it, there is nothing left to take.
            assert_ne!(again.status, Some(2), "{}", again.err);
            let files = network.files("other");
            assert_eq!(files.len(), 2, "{command:?} {number}: {}", again.out);
            for (folder, file) in &files {
                assert_eq!(*folder, Folder::Bank, "{command:?} {number}");
                assert!(!file.is_in_doubt() && network.known(file) == 25);
                assert_eq!(network.in_locker(&secret(), file.coin), 0);
            }
        }
    }
}

impl Network {
    /// Leaves a wallet as a run does that is killed after it learned what the servers did: all
    /// coins' files say so, and the first `filed` of them lie where they belong.
    fn learn(&self, wallet: &str, filed: usize) {
        let mut wallet = Wallet::open(&self.path(wallet), Access::Change).unwrap();
        for filed in wallet.coins_mut() {
            assert_eq!(filed.folder, Folder::Limbo);
            for raida in RaidaId::all() {
                let held = self.nodes[usize::from(raida.get())].an(filed.file.coin);
                assert!(held == filed.file.pan(raida) && held.is_some());
                filed
                    .file
                    .settle(raida, raida::protocol::healing::Found::Pan);
            }
        }
        wallet.save().unwrap();
        let mut place = 0..;
        wallet.keep_where(|_| place.next().unwrap() < filed);
        wallet.file_by_grade().unwrap();
    }

    /// The same command completes a run that was killed before its end, and reports all its coins;
    /// given once more, it has nothing left to report.
    #[track_caller]
    fn end(&self, words: &str, wallet: &str, coins: usize) {
        let again = self.run(words);
        assert_done(&again);
        let said = format!("{coins} coins worth {coins} taken, now in {wallet}\n");
        assert!(again.out.ends_with(&said), "{}", again.out);
        let files = self.files(wallet);
        assert_eq!(files.len(), coins);
        for (folder, file) in &files {
            assert!(*folder == Folder::Bank && !file.is_in_doubt());
            assert_eq!(self.known(file), 25);
        }
        let once_more = self.run(words);
        assert_eq!(once_more.status, Some(1), "{}", once_more.out);
        assert!(
            !once_more.out.contains(" taken, now in"),
            "{}",
            once_more.out
        );
        assert!(!exists(&self.path(wallet).join("takes-under-way.json")));
    }
}

#[test]
fn coins_that_a_killed_take_had_not_filed_are_filed_and_reported_by_the_same_command() {
    let words = "locker take --wallet other --key @secret";
    for filed in 0..=3 {
        let network = Network::of(3);
        assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
        assert!(network.kill_at(words, Command::Find, 24));
        network.learn("other", filed);
        network.end(words, "other", 3);
    }
    // Or healing files them: they are what the command took all the same.
    let network = Network::of(3);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    assert!(network.kill_at(words, Command::Find, 0));
    network.heal("other");
    network.end(words, "other", 3);
    // What the wallet gave away meanwhile is not reported.
    let network = Network::of(3);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    assert!(network.kill_at(words, Command::Find, 24));
    network.learn("other", 3);
    assert_done(&network.run("locker put --wallet other --coin 0.1 --key @offer"));
    network.end(words, "other", 2);
}

#[test]
fn a_take_killed_while_it_files_is_ended_and_reported_by_the_same_command() {
    let words = "locker take --wallet other --key @secret";
    for last in [0, 4, 8] {
        let network = Network::of(9);
        assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
        let mut process = network.process(words);
        process.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        let file = network.path(&format!("other/Bank/0.{last}.bin"));
        while !exists(&file) && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        // The run may have ended in time to report.
        let _ = child.kill();
        let run = Run::from(child.wait_with_output().unwrap());
        network.nodes.iter().for_each(SmallNode::wait_until_idle);
        match run.out.contains("9 coins worth 9 taken") {
            true => assert_eq!(network.files("other").len(), 9),
            false => network.end(words, "other", 9),
        }
    }
}

#[test]
fn coins_of_a_fracked_take_are_filed_as_such_after_a_kill() {
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let words = "locker take --wallet other --key @secret";
    assert!(network.kill_at(words, Command::Find, 24));
    network.learn("other", 0);
    // As if a server had said that it has another number.
    let mut wallet = Wallet::open(&network.path("other"), Access::Change).unwrap();
    wallet.coins_mut()[0].file.pown.0[RaidaId::new(3).unwrap()] = Mark::Failed;
    wallet.save().unwrap();
    drop(wallet);
    let again = network.run(words);
    assert_done(&again);
    assert!(again.out.contains("2 coins worth 2 taken"), "{}", again.out);
    let folders: Vec<Folder> = network.files("other").iter().map(|(f, _)| *f).collect();
    assert_eq!(folders, [Folder::Fracked, Folder::Bank]);
}

#[test]
fn coins_of_a_killed_purchase_or_way_back_are_filed_and_reported_by_the_same_command() {
    let paid = format!(
        "--transaction {} --receipt {} --memo x",
        "7a".repeat(32),
        "01".repeat(16)
    );
    let buy = format!("trade buy --worth 3 {TERMS} {paid} --key @secret --wallet other");
    for words in [buy.as_str(), "trade cancel --key @offer --wallet other"] {
        for filed in [0, 2, 3] {
            let network = Network::of(3);
            let offer = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
            assert_done(&network.run(&offer));
            assert!(network.kill_at(words, Command::Find, 24));
            network.learn("other", filed);
            // These servers do not remember earlier purchases.
            network.end(words, "other", 3);
        }
    }
}

#[test]
fn all_servers_are_asked_about_an_offer_before_it_is_paid() {
    let network = Network::of(3);
    let offer = format!("trade offer --wallet wallet --amount 2 {TERMS} {ADDRESS} --key @offer");
    assert_done(&network.run(&offer));
    let look = format!("trade buy --worth 2 {TERMS}");
    let asked = |command| -> usize { network.nodes.iter().map(|node| node.asked(command)).sum() };
    let sound = network.run(&look);
    assert_done(&sound);
    assert!(sound.out.starts_with("0.0\n0.1\n"), "{}", sound.out);
    assert!(sound.out.contains("nothing was paid"), "{}", sound.out);
    assert!(sound.out.contains(": pay, and"), "{}", sound.out);
    assert_eq!(
        (asked(Command::ListForSale), asked(Command::PeekTrade)),
        (25, 50)
    );

    // One server has other coins in it, some have no such offer, one says nothing.
    network.set(4, coin(2), offer_key(4));
    network.set(4, coin(1), An::new([0x77; 16]));
    for raida in [7, 8] {
        network.nodes[raida]
            .state
            .lock()
            .unwrap()
            .lockers
            .sales
            .clear();
    }
    network.down(9..10, true);
    let differs = network.run(&look);
    assert_done(&differs);
    assert!(
        differs
            .out
            .contains("missing: 0.1; more than most have: 0.2"),
        "{}",
        differs.out
    );
    assert!(
        differs.out.contains("only 21 of 25 servers"),
        "{}",
        differs.out
    );
    // Nobody was told anything, and no wallet is made.
    assert_eq!(
        network.run(&format!("{look} --wallet other")).status,
        Some(0)
    );
    assert!(!exists(&network.path("other")));
    assert_eq!(asked(Command::Buy), 0);

    // A buyer who has paid sees the same before any server hears of the payment.
    let order = Arc::new(Mutex::new(vec![]));
    let seen = order.clone();
    let watch = move |_: RaidaId, asked: Command| seen.lock().unwrap().push(asked);
    network.watch(Some(&(Arc::new(watch) as crate::small_node::Watch)));
    let paid = format!(
        "{look} --transaction {} --receipt {} --memo x --key @secret",
        "7a".repeat(32),
        "01".repeat(16)
    );
    let bought = network.run(&paid);
    network.watch(None);
    assert_done(&bought);
    assert!(
        bought.out.starts_with("asked before any of them is told of the payment: 21 of 25 servers have the offer with the same coins; RAIDA 4: other coins in it; RAIDA 7 8: no such offer"),
        "{}",
        bought.out
    );
    assert!(
        bought.out.contains("; RAIDA 9: no answer\n"),
        "{}",
        bought.out
    );
    let order = order.lock().unwrap();
    let first = order
        .iter()
        .position(|&asked| asked == Command::Buy)
        .unwrap();
    assert!(!order[first..].contains(&Command::ListForSale));
    assert!(!order[first..].contains(&Command::PeekTrade));
    drop(order);

    let none = network.run(&look);
    assert_eq!(none.status, Some(1), "{}", none.out);
    assert!(none.out.contains("do not pay"), "{}", none.out);
    network.down(0..13, true);
    let few = network.run(&look);
    assert_eq!((few.status, few.out.as_str()), (Some(2), ""));
    let help = network.run("trade buy --help");
    assert!(
        help.out.contains("Pay only if the servers agree"),
        "{}",
        help.out
    );
}

/// The number that coins of the offer have on a server.
fn offer_key(raida: usize) -> An {
    offer().key(RaidaId::new(raida as u8).unwrap()).an()
}

#[test]
fn a_coin_of_which_the_wallet_has_another_file_is_left_in_the_locker() {
    let network = Network::of(2);
    let backup = std::fs::read(network.path("wallet/Bank/0.1.bin")).unwrap();
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    std::fs::write(network.path("wallet/Bank/0.1.bin"), &backup).unwrap();
    let take = network.run("locker take --wallet wallet --key @secret");
    assert_eq!(take.status, Some(1), "{}", take.err);
    assert!(take.out.contains("other numbers: 0.1"), "{}", take.out);
    assert_eq!(network.in_locker(&secret(), coin(1)), 25);
    assert_eq!(
        std::fs::read(network.path("wallet/Bank/0.1.bin")).unwrap(),
        backup
    );
}

#[test]
fn coins_on_too_few_servers_are_left_in_the_locker() {
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    for raida in 0..13 {
        network.set(raida, coin(1), An::new([0x77; 16]));
    }
    // The command mentions it; the coins that 13 servers have are not affected.
    let take = network.run("locker take --wallet other --key @secret --json");
    assert_done(&take);
    let report = json(&take);
    assert_eq!(report["coins"].as_array().unwrap().len(), 1);
    assert_eq!(report["left"][0]["servers"], 12);
    assert_eq!(network.in_locker(&secret(), coin(1)), 12);
    let again = network.run("locker take --wallet third --key @secret");
    assert_eq!(again.status, Some(1), "{}", again.out);
    let told = "not counted, since fewer than 13 servers have them in the locker: 0.1\n";
    assert!(again.out.ends_with(told), "{}", again.out);
}

#[test]
fn a_server_that_invents_coins_of_a_locker_changes_nothing_for_who_moves_or_takes_it() {
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let node = &network.nodes[3];
    let lie = |after: usize| {
        let number = node.asked(Command::Peek) + after;
        let (coins, times) = (1_000, 1);
        node.fail(Command::Peek, number, Fault::Lists { coins, times });
    };
    (0..2).for_each(lie);
    let moved = network.run("locker move --key @secret --to @offer");
    assert_done(&moved);
    assert!(moved.out.lines().count() < 8, "{}", moved.out);
    let not_counted = "not counted, since fewer than 13 servers have them in either locker: 0.";
    assert!(moved.out.contains(not_counted), "{}", moved.out);
    assert!(
        moved.out.ends_with("2 coins worth 2 in the other locker\n"),
        "{}",
        moved.out
    );
    lie(0);
    let taken = network.run("locker take --wallet other --key @offer");
    assert_done(&taken);
    assert!(taken.out.contains("2 coins worth 2 taken"), "{}", taken.out);
    assert!(taken.out.lines().count() < 8, "{}", taken.out);
}

#[test]
fn a_server_that_invents_offers_is_not_asked_about_them() {
    let network = Network::of(1);
    let words = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
    assert_done(&network.run(&words));
    let invent = |raida: usize, offers: u32| {
        let mut state = network.nodes[raida].state.lock().unwrap();
        let invented = (1..=offers).map(|price| {
            let random = std::array::from_fn(|place| (price >> place) as u8 ^ raida as u8);
            TradeKey::of(random, Price::new(price), Currency::Bitcoin)
        });
        state.lockers.sales.extend(invented);
    };
    invent(3, 200);
    invent(5, 200);
    network.nodes[5].state.lock().unwrap().lockers.lists_twice = true;
    let list = network.run("trade list --currency bitcoin");
    assert_done(&list);
    // One list is longer than what was asked for, and no answer.
    assert!(list.out.contains("on 24 servers\n"), "{}", list.out);
    assert!(
        list.out.contains("RAIDA 5 did not answer: "),
        "{}",
        list.out
    );
    assert!(
        list.out.contains("190 more on fewer than 13 servers"),
        "{}",
        list.out
    );
    assert!(list.out.ends_with("\n1 offer in bitcoin\n"), "{}", list.out);
    let asked = |raida: usize| network.nodes[raida].asked(Command::PeekTrade);
    assert_eq!((asked(3), asked(4), asked(5)), (1, 1, 0));
}

#[test]
fn a_server_has_only_so_long_to_say_where_its_offers_are_to_be_paid() {
    const OFFERS: u32 = 60;
    let network = Network::of(1);
    for node in &network.nodes {
        let mut state = node.state.lock().unwrap();
        state.lockers.address = Address::new(b"bc1q000000000000");
        let offers = (1..=OFFERS).map(|price| {
            let random = std::array::from_fn(|place| (price >> place) as u8);
            TradeKey::of(random, Price::new(price), Currency::Bitcoin)
        });
        state.lockers.sales.extend(offers);
    }
    let slow = &network.nodes[7];
    for number in 0..OFFERS as usize {
        let time = Duration::from_millis(1_500);
        slow.fail(Command::PeekTrade, number, Fault::Stall(time));
    }
    let start = Instant::now();
    let list = network.run("trade list --currency bitcoin");
    assert_done(&list);
    let to = "  to bc1q000000000000  on 25 servers\n";
    assert_eq!(
        list.out.matches(to).count(),
        OFFERS as usize,
        "{}",
        list.out
    );
    // All of its answers would take 90 s.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_locker_moves_to_another_key_and_a_killed_move_is_ended_by_the_same_command() {
    let other: LockerSecret = OFFER.parse().unwrap();
    for number in STEPS {
        let network = Network::of(2);
        assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
        let words = "locker move --key @secret --to @offer";
        assert!(network.kill_at(words, Command::Remove, number));
        for sn in 0..2 {
            let (old, new) = (&secret(), &other);
            let there = network.in_locker(old, coin(sn)) + network.in_locker(new, coin(sn));
            assert_eq!(there, 25);
        }
        assert_done(&network.run(words));
        assert_eq!(network.in_locker(&other, coin(1)), 25);
        // Once more changes nothing and says the same.
        assert_done(&network.run(words));
    }
    // Some of them: the others stay, and no server is mentioned for that.
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let one = network.run("locker move --key @secret --to @offer --coin 0.1");
    assert_done(&one);
    assert!(one.out.contains("all        1  done"), "{}", one.out);
    assert_eq!(network.in_locker(&secret(), coin(0)), 25);

    let network = Network::of(1);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let same = network.run("locker move --key @secret --to @secret");
    assert!(
        same.status == Some(2) && same.err.contains("same locker"),
        "{}",
        same.err
    );
    let made_up = network.run("locker move --key @secret");
    assert_done(&made_up);
    let (first, _) = made_up.out.split_once('\n').unwrap();
    let made_up = first.strip_prefix("the other locker's secret: ").unwrap();
    assert_eq!(network.in_locker(&made_up.parse().unwrap(), coin(0)), 25);
}

#[test]
fn an_offer_is_made_listed_shown_bought_and_taken() {
    let network = Network::of(4);
    let words = format!("trade offer --wallet wallet --amount 3 {TERMS} {ADDRESS} --key @offer");
    assert_done(&network.run(&words));
    assert_eq!(network.files("wallet").len(), 1);
    let list = network.run("trade list --currency bitcoin");
    assert_done(&list);
    assert!(
        list.out
            .contains("40000 bitcoin  to bc1q000000000000  on 25 servers\n"),
        "{}",
        list.out
    );
    assert!(list.out.contains("worth                3"), "{}", list.out);
    assert_eq!(network.run("trade list --currency monero").status, Some(1));

    let show = network.run(&format!("trade show --worth 3 {TERMS}"));
    assert_done(&show);
    assert!(show.out.starts_with("0.0\n0.1\n0.2\n"), "{}", show.out);
    let mine = network.run("trade show --key @offer --json");
    assert_done(&mine);
    assert_eq!(json(&mine)["agree"], 25);
    assert_eq!(json(&mine)["address"], "bc1q000000000000");

    let paid = format!(
        "--transaction {} --receipt {} --memo order-17",
        "7a".repeat(32),
        "01".repeat(16)
    );
    let wrong = network.run(&format!("trade buy --worth 2 {TERMS} {paid} --key @secret"));
    assert_eq!(wrong.status, Some(1));
    assert!(wrong.out.contains("no such offer"), "{}", wrong.out);

    let buy = format!("trade buy --worth 3 {TERMS} {paid} --key @secret");
    for (number, node) in network.nodes.iter().enumerate() {
        let purchase = match number {
            0..10 => None,
            10..24 => Some(Status::PAYMENT_PENDING),
            _ => Some(Status::NO_SETTLEMENT),
        };
        node.state.lock().unwrap().purchase = purchase;
    }
    let pending = network.run(&buy);
    assert_eq!(pending.status, Some(1));
    assert!(
        pending.out.contains("paid on 10 servers, pending on 14"),
        "{}",
        pending.out
    );
    for node in &network.nodes[10..24] {
        node.state.lock().unwrap().purchase = None;
    }
    // Those that were paid before have no such offer any more: these servers forget purchases.
    let again = network.run(&format!("{buy} --json"));
    assert_eq!(json(&again)["paid"], 14);
    let take = network.run("locker take --key @secret --wallet other --json");
    assert_done(&take);
    let report = json(&take);
    assert_eq!(report["coins"].as_array().unwrap().len(), 3);
    assert_eq!(report["coins"][0]["pown"], "ppppppppppppppppppppppppf");
}

#[test]
fn coins_are_bought_into_a_wallet_at_once() {
    let network = Network::of(2);
    let words = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
    assert_done(&network.run(&words));
    let bought = network.run(&format!(
        "trade buy --worth 2 {TERMS} --transaction {} --receipt {} --memo x --wallet other",
        "7a".repeat(32),
        "01".repeat(16)
    ));
    assert_done(&bought);
    assert!(
        bought.out.contains("same coins\nthe locker's secret: "),
        "{}",
        bought.out
    );
    let files = network.files("other");
    assert_eq!(files.len(), 2);
    for (folder, file) in &files {
        assert!(*folder == Folder::Bank && network.known(file) == 25 && !file.is_in_doubt());
    }
}

#[test]
fn an_offer_that_servers_have_already_is_made_on_the_others_or_stays_in_the_wallet() {
    let network = Network::of(2);
    network.refuse(0..3, Command::PutForSale, Status::OFFER_EXISTS);
    let words = format!("trade offer --wallet wallet --coin 0.0 {TERMS} {ADDRESS} --key @offer");
    let made = network.run(&words);
    assert_done(&made);
    assert!(made.out.contains("    2        0  "), "{}", made.out);
    assert!(made.out.contains("on offer already"), "{}", made.out);
    assert!(made.out.contains("each on 22 servers"), "{}", made.out);

    // At another price they have none, and enough of them take none all the same.
    network.refuse(0..13, Command::PutForSale, Status::UNAVAILABLE);
    std::fs::write(network.path("offer"), OFFER.replace("9c40", "c350")).unwrap();
    let few = TERMS.replace("40000", "50000");
    let few = format!("trade offer --wallet wallet --coin 0.1 {few} {ADDRESS} --key @offer");
    let few = network.run(&few);
    assert_eq!(few.status, Some(1), "{}", few.err);
    assert!(few.out.contains("trade cancel"), "{}", few.out);
    let files = network.files("wallet");
    assert_eq!((files.len(), network.known(&files[0].1)), (1, 25));
}

#[test]
fn an_offer_is_taken_back_into_the_wallet_also_where_that_was_interrupted() {
    let commands = [Command::RemoveTrade, Command::Peek, Command::Remove];
    for command in commands {
        for number in STEPS {
            let network = Network::of(2);
            let words = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
            assert_done(&network.run(&words));
            let words = "trade cancel --key @offer --wallet wallet";
            assert!(network.kill_at(words, command, number));
            let again = network.run(words);
            assert_done(&again);
            let files = network.files("wallet");
            assert_eq!(files.len(), 2, "{command:?} {number}: {}", again.out);
            for (folder, file) in &files {
                assert!(*folder == Folder::Bank && network.known(file) == 25);
                assert!(!file.is_in_doubt());
            }
            assert!(!exists(&network.path("wallet/Lockers/0.1.bin")));
        }
    }
}

#[test]
fn an_offer_is_freed_only_when_it_is_said() {
    let network = Network::of(1);
    let words = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
    assert_done(&network.run(&words));
    let unsaid = network.run("trade cancel --key @offer");
    assert_eq!(unsaid.status, Some(2));
    assert!(unsaid.err.contains("--free"), "{}", unsaid.err);
    assert_eq!(
        network.nodes[7].an(coin(0)),
        Some(offer().key(RaidaId::new(7).unwrap()).an())
    );
    assert_done(&network.run("trade cancel --key @offer --free"));
    assert_eq!(network.nodes[7].an(coin(0)), None);
    assert_eq!(
        network.run("trade cancel --key @offer --free").status,
        Some(1)
    );
}

#[test]
fn an_offer_goes_out_whole_or_not_at_all_on_each_server() {
    let network = Network::of(2);
    network.set(4, coin(1), An::new([0x77; 16]));
    let words = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
    let made = network.run(&words);
    assert_done(&made);
    assert!(
        made.out.contains("    4        0  it does not pass all"),
        "{}",
        made.out
    );
    let list = network.run("trade list --currency bitcoin");
    assert!(list.out.contains("on 24 servers"), "{}", list.out);
}

#[test]
fn a_buyer_is_told_to_pay_where_thirteen_servers_say_and_who_says_something_else() {
    let network = Network::of(1);
    let words = format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --key @offer");
    assert_done(&network.run(&words));
    let show = || network.run(&format!("trade show --worth 1 {TERMS}"));
    let paid_where = "to be paid to bc1q000000000000\n";
    assert!(show().out.ends_with(paid_where), "{}", show().out);

    let lie = |raida: usize| {
        let thief = Address::new(b"\x1b[31m\nbc1q-the-thief").unwrap();
        let mut state = network.nodes[raida].state.lock().unwrap();
        state.lockers.address = Some(thief);
    };
    (0..12).for_each(lie);
    let told = show();
    assert_done(&told);
    let liars =
        "  RAIDA 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11: to \\u{1b}[31m\\u{a}bc1q-the-thief\n";
    let lines = format!("{paid_where}{liars}");
    assert!(told.out.ends_with(&lines), "{}", told.out);
    let list = network.run("trade list --currency bitcoin");
    let differs = "they differ on where it is to be paid";
    assert!(list.out.contains(differs), "{}", list.out);
    assert!(list.out.contains("  to bc1q000000000000  "), "{}", list.out);

    // Of servers that another program runs nobody learns it.
    (0..13).for_each(|raida| network.nodes[raida].state.lock().unwrap().lockers.address = None);
    let told = show();
    assert!(
        told.out
            .contains("no 13 servers say where it is to be paid: pay nobody\n"),
        "{}",
        told.out
    );
    let list = network.run("trade list --currency bitcoin --json");
    assert!(
        json(&list)["offers"][0]["address"].is_null(),
        "{}",
        list.out
    );
}

#[test]
fn no_secret_is_in_any_error_and_json_makes_none_up() {
    let network = Network::of(1);
    for words in [
        "locker peek --key 5ec1e75ec1e7",
        "locker take --wallet w --key 5ec1e75ec1e7",
        "locker move --key @secret --to 5ec1e75ec1e7",
        "trade show --key 5ec1e75ec1e7",
        "trade cancel --key 5ec1e75ec1e7 --free",
        "locker peek --key @none",
    ] {
        let run = network.run(words);
        assert_eq!(run.status, Some(2), "{words}");
        assert!(!run.err.contains("5ec1e7"), "{}", run.err);
    }
    for words in [
        "locker put --wallet wallet --all --json".to_owned(),
        "locker move --key @secret --json".to_owned(),
        format!("trade offer --wallet wallet --all {TERMS} {ADDRESS} --json"),
    ] {
        let run = network.run(&words);
        assert_eq!((run.status, run.out.as_str()), (Some(2), ""), "{words}");
        assert!(run.err.contains("required"), "{}", run.err);
    }
    let other = "trade offer --wallet wallet --all --price 1 --currency bitcoin";
    let other = network.run(&format!("{other} {ADDRESS} --key @offer"));
    assert!(other.err.contains("another price"), "{}", other.err);
    assert_eq!(network.files("wallet").len(), 1);
}

/// One server, and a CSV of coins that it knows.
struct One {
    folder: tempfile::TempDir,
    node: SmallNode,
}

const KEY: &str = "5ec1e70000000000000000ffffffffff";

impl One {
    fn of(coins: u32) -> One {
        let folder = tempfile::tempdir().unwrap();
        let node = SmallNode::start();
        let an = |sn: u32| An::new((u128::from(sn) << 64 | 0xa5).to_be_bytes());
        node.put((0..coins).map(|sn| (coin(sn), an(sn))));
        let line = |sn: u32| {
            let an: String = an(sn).expose().iter().map(|b| format!("{b:02x}")).collect();
            format!("0,{sn},{an}\n")
        };
        let lines: String = (0..coins).map(line).collect();
        let csv = format!("denomination,serial_number,authenticity_number\n{lines}");
        std::fs::write(folder.path().join("coins.csv"), csv).unwrap();
        std::fs::write(folder.path().join("key"), KEY).unwrap();
        std::fs::write(folder.path().join("offer"), OFFER).unwrap();
        One { folder, node }
    }

    fn run(&self, words: &str) -> Run {
        let host = self.node.address.to_string();
        let run = Process::new(env!("CARGO_BIN_EXE_raida"))
            .current_dir(self.folder.path())
            .args(words.split_whitespace())
            .args(["--host", &host, "--raida", "14"])
            .output();
        run.unwrap().into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn coins_of_a_csv_go_into_a_locker_of_one_server_and_out_again() {
    let one = One::of(3);
    let put = one.run("locker put coins.csv");
    assert_done(&put);
    let (first, rest) = put.out.split_once('\n').unwrap();
    let key = first
        .strip_prefix("the locker's key on this node: ")
        .unwrap();
    assert!(
        rest.ends_with("3 coins worth 3 put into the locker\n"),
        "{rest}"
    );
    std::fs::write(one.path("made-up"), key).unwrap();

    for udp in ["", "--udp"] {
        let peek = one.run(&format!("locker peek --key @made-up {udp}"));
        assert_done(&peek);
        assert_eq!(peek.out, "0.0\n0.1\n0.2\n3 coins worth 3 in the locker\n");
    }
    let moved = one.run("locker move --key @made-up --to @key --coin 0.1 --json");
    assert_done(&moved);
    assert_eq!(json(&moved)["moved"][0]["serial_number"], 1);
    assert_done(&one.run("locker move --key @made-up --to @key"));
    assert_eq!(one.run("locker peek --key @made-up").status, Some(1));

    let take = one.run("locker take --key @key --coin 0.0 --coin 0.2 --out mine.csv");
    assert_done(&take);
    assert_eq!(take.out, "2 coins worth 2 taken, now in mine.csv\n");
    let detect = one.run("detect mine.csv");
    assert_done(&detect);
    assert_eq!(detect.out, "2 of 2 coins pass\n");
    // The file is not written over, and the coin stays where it is.
    let again = one.run("locker take --key @key --out mine.csv");
    assert_eq!(again.status, Some(2));
    assert_done(&one.run("locker peek --key @key"));
}

#[test]
fn more_coins_than_a_request_holds_go_into_a_locker_in_several() {
    let one = One::of(13_097);
    let put = one.run("locker put coins.csv --key @key --json");
    assert_done(&put);
    assert_eq!(json(&put)["stored"].as_array().unwrap().len(), 13_097);
    assert_eq!(one.node.asked(Command::StoreSum), 2);
    let take = one.run("locker take --key @key --out mine.csv");
    assert_done(&take);
    assert_eq!(one.node.asked(Command::Remove), 5);
    assert!(one.run("detect mine.csv").out.starts_with("13097 of 13097"));
}

#[test]
fn one_wrong_number_keeps_all_coins_of_a_request_out_of_the_locker() {
    let one = One::of(2);
    one.node.put([(coin(1), An::new([0x77; 16]))]);
    let put = one.run("locker put coins.csv --key @key");
    assert_eq!((put.status, put.err.as_str()), (Some(1), ""));
    assert!(put.out.contains("2 coins worth 2 not: "), "{}", put.out);
    assert_eq!(one.run("locker peek --key @key").status, Some(1));
    assert_eq!(
        one.run("locker take --key @key --out mine.csv").status,
        Some(1)
    );
    assert!(!exists(&one.path("mine.csv")));
    // A key for all servers is not valid for one.
    std::fs::write(one.path("key"), SECRET).unwrap();
    let wrong = one.run("locker put coins.csv --key @key");
    assert_eq!(wrong.status, Some(2));
    assert!(wrong.err.contains("the last eight are f"), "{}", wrong.err);
}

#[test]
fn coins_of_a_csv_that_share_a_key_are_not_sent_and_it_is_said_what_moves_them() {
    let one = One::of(2);
    let head = "denomination,serial_number,authenticity_number\n";
    let offer = format!("trade offer coins.csv {TERMS} {ADDRESS} --key @offer");
    for (key, instead) in [
        (KEY, "`raida locker move`"),
        (KEY, "`raida locker take`"),
        (OFFER, "`raida trade cancel --into`"),
    ] {
        let alike = format!("{head}0,0,{key}\n0,1,{key}\n");
        std::fs::write(one.path("coins.csv"), alike).unwrap();
        for words in ["locker put coins.csv --key @key", &offer] {
            let run = one.run(words);
            assert_eq!((run.status, run.out.as_str()), (Some(2), ""));
            assert!(run.err.contains("2 coins in coins.csv"), "{}", run.err);
            assert!(run.err.contains(instead), "{}", run.err);
            assert!(!run.err.contains(key), "{}", run.err);
        }
    }
    assert_eq!(one.node.asked(Command::StoreSum), 0);
    assert_eq!(one.node.asked(Command::PutForSale), 0);
    // One coin of a locker may go.
    let key = u128::from_str_radix(KEY, 16).unwrap();
    one.node.put([(coin(0), An::new(key.to_be_bytes()))]);
    std::fs::write(one.path("coins.csv"), format!("{head}0,0,{KEY}\n")).unwrap();
    assert_done(&one.run(&offer));
}

#[test]
fn numbers_that_one_server_may_have_given_are_kept() {
    let one = One::of(2);
    assert_done(&one.run("locker put coins.csv --key @key"));
    one.node.fail(Command::Remove, 0, Fault::Hangup);
    let take = one.run("locker take --key @key --out mine.csv");
    assert_eq!(take.status, Some(2));
    assert!(
        take.out.contains("2 coins worth 2 sent and not answered"),
        "{}",
        take.out
    );
    assert_eq!(one.run("detect mine.csv").out, "2 of 2 coins pass\n");
}

#[test]
fn coins_of_a_csv_are_offered_shown_bought_and_taken_back_on_one_server() {
    let one = One::of(3);
    let words = format!("trade offer coins.csv {TERMS} {ADDRESS} --key @offer");
    let made = one.run(&words);
    assert_done(&made);
    assert_eq!(made.out, "3 coins worth 3 on offer\n");
    let list = one.run("trade list --currency bitcoin");
    assert_done(&list);
    let id = list.out.split(' ').next().unwrap();
    assert!(
        id.ends_with("00009c4001eeee") && id != OFFER,
        "{}",
        list.out
    );
    let show = one.run(&format!("trade show --id {id}"));
    assert_done(&show);
    assert!(
        show.out
            .ends_with("3 coins worth 3 in the offer\nto be paid to bc1q000000000000\n"),
        "{}",
        show.out
    );
    assert_eq!(one.run("trade show --key @offer").out, show.out);

    // The id in a list takes no coin.
    assert_eq!(
        one.run(&format!("trade cancel --key {id} --free")).status,
        Some(1)
    );
    assert_done(&one.run("trade cancel --key @offer --into @key"));
    assert_eq!(one.run("trade list --currency bitcoin").status, Some(1));
    assert_done(&one.run("locker take --key @key --out mine.csv"));
    let words = format!("trade offer mine.csv {TERMS} {ADDRESS} --key @offer");
    assert_done(&one.run(&words));
    let buy = format!(
        "trade buy --worth 3 {TERMS} --transaction {} --receipt {} --memo x --key @key",
        "7a".repeat(32),
        "01".repeat(16)
    );
    one.node.state.lock().unwrap().purchase = Some(Status::PAYMENT_PENDING);
    let pending = one.run(&format!("{buy} --json"));
    assert_eq!(pending.status, Some(1));
    assert_eq!(json(&pending)["purchase"], "pending");
    one.node.state.lock().unwrap().purchase = None;
    assert_done(&one.run(&buy));
    assert!(
        one.run("locker peek --key @key")
            .out
            .ends_with("3 coins worth 3 in the locker\n")
    );
}

/// The most memory, in MB, that a run of the program takes, and what it prints into `out`.
///
/// Reads it while the program runs: the figure after its end counts the program that started it as
/// well.
fn most_memory(process: &mut Process, out: &Path) -> (i32, u64) {
    let child = process.stdout(std::fs::File::create(out).unwrap()).spawn();
    let mut child = child.unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = kilobytes.and_then(|line| line.trim().strip_suffix(" kB"));
        most = most.max(kilobytes.map_or(0, |number| number.parse().unwrap()));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(most > 0, "its memory was never seen");
            return (ended.code().unwrap(), most / 1_024);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_list_that_names_a_coin_twice_or_has_no_end_is_no_answer() {
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let lie = |raida: usize, coins: u32, times: u32| {
        let node = &network.nodes[raida];
        let number = node.asked(Command::Peek);
        node.fail(Command::Peek, number, Fault::Lists { coins, times });
    };
    // Each of the two once, as all servers say, is no lie.
    lie(2, 2, 1);
    lie(3, 1, 2_000);
    lie(5, 100_001, 1);
    // More bytes than any answer has: the program does not wait for them.
    lie(7, 1_000_000, 3);
    let peek = network.run("locker peek --key @secret");
    assert_done(&peek);
    let said = "22 servers say: 2 coins worth 2 lie in the locker; 3 did not say\n";
    assert!(peek.out.ends_with(said), "{}", peek.out);
    for (raida, why) in [
        (3, "its list of coins names 0.0 twice"),
        (5, "its list of coins has 100001 coins"),
        (7, "it announces an answer of 15000"),
    ] {
        let line = peek
            .out
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{raida} ")));
        assert!(line.unwrap().contains(why), "{}", peek.out);
    }
}

#[test]
fn liars_cost_a_peek_little_memory() {
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    for raida in 0..12 {
        let node = &network.nodes[raida as usize];
        let coins = 100_000 - raida;
        node.fail(Command::Peek, 0, Fault::Lists { coins, times: 1 });
    }
    let out = network.path("peek.json");
    let mut process = network.process("locker peek --key @secret --json");
    let (status, megabytes) = most_memory(&mut process, &out);
    assert_eq!(status, 0);
    assert!(megabytes < 256, "{megabytes} MB");
    let peek: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((&peek["agree"], &peek["worth"]), (&13.into(), &"2".into()));
    // The program does not print all that a liar invents: 25 liars would fill a disk.
    let differs = &peek["differ"][0];
    assert_eq!(differs["extra"].as_array().unwrap().len(), 1_000);
    assert_eq!(differs["extra_count"], 99_998);
    assert!(peek["servers"][0]["coins"].is_null());
    assert_eq!(peek["servers"][24]["coins"].as_array().unwrap().len(), 2);
}

#[test]
fn what_twelve_liars_and_a_loss_made_counterfeit_comes_back_once_thirteen_servers_pass_it() {
    let network = Network::of(2);
    let files = network.files("wallet");
    let right = |raida: usize| files[0].1.an(RaidaId::new(raida as u8).unwrap());
    (0..13).for_each(|raida| network.set(raida, coin(0), An::new([0x77; 16])));
    let heal = network.run("heal wallet");
    assert_eq!(heal.status, Some(1), "{}", heal.err);
    let counterfeit = network.path("wallet/Counterfeit/0.0.bin");
    assert!(exists(&counterfeit), "{}", heal.out);
    // It says so again, as long as it lies there.
    for words in ["heal wallet", "heal wallet --dry-run"] {
        let again = network.run(words);
        assert_eq!(again.status, Some(1), "{}", again.out);
        assert!(
            again.out.contains("1 coins lie in Counterfeit: 13 servers"),
            "{}",
            again.out
        );
        assert!(exists(&counterfeit));
    }
    network.set(12, coin(0), right(12));
    let heal = network.run("heal wallet");
    assert_eq!(heal.status, Some(1), "{}", heal.out);
    assert!(
        heal.out.contains("0.0 came back from Counterfeit"),
        "{}",
        heal.out
    );
    assert!(!exists(&counterfeit));
    assert_eq!(network.files("wallet")[0].0, Folder::Fracked);
    (0..12).for_each(|raida| network.set(raida, coin(0), right(raida)));
    assert_done(&network.run("heal wallet"));
    assert_eq!(network.files("wallet")[0].0, Folder::Bank);
}

#[test]
fn a_wallet_is_its_owners_alone_and_links_that_stand_in_it_are_not_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::process::CommandExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let network = Network::of(2);
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    let mut take = network.process("locker take --wallet new --key @secret");
    // SAFETY: umask is a plain system call that may be made between fork and exec.
    unsafe {
        take.pre_exec(|| {
            libc::umask(0);
            Ok(())
        });
    }
    assert_done(&Run::from(take.output().unwrap()));
    for folder in ["new", "new/Bank", "new/Fracked", "new/Suspect"] {
        assert_eq!(mode(&network.path(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(&network.path("new/Bank/0.0.bin")), 0o600);
    // Somebody else's file under the name that a coin has before it is whole, and one that all can
    // read.
    let (victim, wide) = (
        network.path("victim"),
        network.path("new/Bank/.0.1.bin.part"),
    );
    std::fs::write(&victim, "mine").unwrap();
    symlink(&victim, network.path("new/Bank/.0.0.bin.part")).unwrap();
    std::fs::write(&wide, "").unwrap();
    std::fs::set_permissions(&wide, std::fs::Permissions::from_mode(0o666)).unwrap();
    network.set(3, coin(0), An::new([0x77; 16]));
    network.set(3, coin(1), An::new([0x77; 16]));
    network.heal("new");
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    let files = network.files("new");
    assert_eq!(files.len(), 2);
    for (folder, file) in files {
        let path = network.path("new").join(folder.name()).join(file.name());
        assert!(path.symlink_metadata().unwrap().is_file());
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn what_is_no_plain_file_hangs_no_command_and_no_name_moves_the_terminal() {
    let network = Network::of(1);
    let fifo = |name: &str| {
        let path = std::ffi::CString::new(network.path(name).to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that ends with 0.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    fifo("wallet/Bank/0.9.bin");
    fifo("wallet/Counterfeit/0.8.bin");
    std::os::unix::fs::symlink("/dev/zero", network.path("wallet/Bank/0.7.bin")).unwrap();
    let heal = network.run("heal wallet");
    assert_eq!(heal.status, Some(1), "{}", heal.err);
    assert_eq!(
        heal.out
            .matches("it is a FIFO and not a plain file")
            .count(),
        2,
        "{}",
        heal.out
    );
    assert!(
        heal.out.contains("it is a device and not a plain file"),
        "{}",
        heal.out
    );
    fifo("key");
    let peek = network.run("locker peek --key @key");
    assert!(peek.err.contains("it is a FIFO"), "{}", peek.err);
    fifo("coins.csv");
    for words in [
        "locker put coins.csv --key @secret",
        "locker put /dev/zero --key @secret",
    ] {
        let mut put = Process::new(env!("CARGO_BIN_EXE_raida"));
        put.current_dir(network.folder.path())
            .args(words.split(' '));
        put.args([
            "--host",
            &network.nodes[3].address.to_string(),
            "--raida",
            "3",
        ]);
        let put = Run::from(put.output().unwrap());
        assert_eq!(put.status, Some(2), "{}", put.out);
        assert!(put.err.contains("and not a plain file"), "{}", put.err);
    }
    // Nor does a file whose name holds terminal control characters.
    let name = "\x1b[2J\nraida: all is well.bin";
    std::fs::write(network.path("wallet/Bank").join(name), "").unwrap();
    let heal = network.run("heal wallet");
    assert!(
        heal.out.contains("\\u{1b}[2J\\u{a}raida: all is well.bin"),
        "{}",
        heal.out
    );
    assert!(!heal.out.contains('\x1b'));
    let mut process = network.process("heal");
    let run = Run::from(process.arg(format!("{name}\u{202e}")).output().unwrap());
    assert_eq!(run.status, Some(2));
    assert!(
        !run.err.contains('\x1b') && run.err.lines().count() == 1,
        "{}",
        run.err
    );
    assert!(!run.err.contains('\u{202e}'));
}

#[test]
fn servers_that_say_done_and_do_nothing_cost_no_number() {
    let network = Network::of(2);
    network.refuse(0..13, Command::StoreSum, Status::ALL_PASS);
    let put = network.run("locker put --wallet wallet --all --key @secret");
    assert_eq!(put.status, Some(1), "{}", put.out);
    assert!(put.out.contains("on fewer than 13 servers"), "{}", put.out);
    let files = network.files("wallet");
    assert_eq!(files.len(), 2);
    for (_, file) in &files {
        assert_eq!(network.known(file), 25);
    }
    assert_done(&network.run("locker put --wallet wallet --all --key @secret"));
    assert_eq!(network.in_locker(&secret(), coin(1)), 25);

    // Nor do they when coins are taken out.
    network.refuse(0..13, Command::Remove, Status::ALL_PASS);
    let take = network.run("locker take --wallet other --key @secret");
    assert_ne!(take.status, Some(0), "{}", take.out);
    let taken = network.run("locker take --wallet other --key @secret");
    assert_eq!(taken.status, Some(0), "{}{}", taken.out, taken.err);
    for (folder, file) in network.files("other") {
        assert_eq!((folder, network.known(&file)), (Folder::Bank, 25));
    }
}
