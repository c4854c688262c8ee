//! A bench that is interrupted or killed: the coins that it made.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::network_process::Network;
use crate::node_process::{NodeProcess, PATIENCE, Serve, admin_key};

fn spawn(folder: &Path, words: &[OsString]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_raida"))
        .arg("bench")
        .args(words)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A bench that would go on for longer than any test.
fn words(node: &NodeProcess, data: &Path, kind: &str) -> Vec<OsString> {
    let address = node.address.to_string();
    let fixed = [kind, "--seconds", "600", "--host", &address, "--data"];
    let mut words: Vec<OsString> = fixed.iter().map(OsString::from).collect();
    words.push(data.into());
    words
}

fn journals(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "part"))
        .collect()
}

fn coins(node: &NodeProcess) -> u32 {
    node.client().audit().unwrap().0.iter().sum()
}

/// Waits until coins are there and are asked about.
fn wait_for_load(node: &NodeProcess, data: &Path) {
    let start = Instant::now();
    let key = admin_key(data);
    let requests = || node.client().stats(&key).unwrap().requests;
    let before = requests();
    // Many more than this loop asks.
    while coins(node) == 0 || requests() < before + 2_000 {
        assert!(start.elapsed() < PATIENCE, "the bench does not begin");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call; the process is this test's own, and nobody has waited for it.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn an_interrupted_bench_takes_its_coins_out_of_circulation() {
    let _machine = crate::beside_others();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Serve::on(&data).with("trade.settlement", "trusted").start();
    // A kind that goes back and forth, and one whose numbers are drawn on the way.
    for (kind, signal_number) in [("pown", libc::SIGINT), ("put", libc::SIGTERM)] {
        let bench = spawn(folder.path(), &words(&node, &data, kind));
        wait_for_load(&node, &data);
        assert_eq!(journals(folder.path()).len(), 1);
        signal(&bench, signal_number);
        let output = bench.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = said(&output);
        assert!(
            said.contains("stops: waits for what is under way")
                && said.ends_with("interrupted, and the coins are as they were before\n"),
            "{said}"
        );
        assert_eq!(coins(&node), 0, "{kind}");
        assert_eq!(journals(folder.path()), Vec::<PathBuf>::new());
    }
    node.stop();
}

#[test]
fn the_coins_of_a_bench_that_was_killed_are_deleted_by_the_list_that_it_left() {
    let _machine = crate::beside_others();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Serve::on(&data).with("trade.settlement", "trusted").start();
    let mut bench = spawn(folder.path(), &words(&node, &data, "put"));
    wait_for_load(&node, &data);
    bench.kill().unwrap();
    bench.wait().unwrap();
    let made = coins(&node);
    assert!(made > 0);

    // The next one says so, and how to mend it.
    let mut short = words(&node, &data, "detect");
    short.extend(["--warm-up-s", "0"].map(OsString::from));
    short[2] = "1".into();
    let next = spawn(folder.path(), &short).wait_with_output().unwrap();
    assert!(next.status.success(), "{next:?}");
    assert_eq!(coins(&node), made);
    let told = said(&next);
    let command = told.split('`').nth(1).expect("a command");
    let command: Vec<&str> = command.split(' ').collect();
    assert_eq!(command[..2], ["raida", "delete"], "{told}");

    let delete = |words: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_raida"));
        run.args(words).current_dir(folder.path()).output().unwrap()
    };
    // Without --whatever-number nothing is changed.
    let mut careful = command[1..].to_vec();
    careful.retain(|&word| word != "--whatever-number");
    let careful = delete(&careful);
    assert_eq!(careful.status.code(), Some(1), "{careful:?}");
    assert_eq!(coins(&node), made);
    let deleted = delete(&command[1..]);
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(coins(&node), 0);
    assert_eq!(journals(folder.path()), Vec::<PathBuf>::new());

    // A list of coins that are gone is not mentioned.
    let mut bench = spawn(folder.path(), &words(&node, &data, "put"));
    wait_for_load(&node, &data);
    bench.kill().unwrap();
    bench.wait().unwrap();
    let list = journals(folder.path()).remove(0);
    let copy = folder.path().join("copy.csv");
    std::fs::copy(&list, &copy).unwrap();
    let host = node.address.to_string();
    let flags = ["--whatever-number", "--host", &host, "--data"];
    let mut again = vec!["delete", copy.to_str().unwrap()];
    again.extend(flags);
    again.push(data.to_str().unwrap());
    assert!(delete(&again).status.success());
    let none = delete(&again);
    assert!(none.status.success(), "{none:?}");
    assert!(
        String::from_utf8_lossy(&none.stdout).starts_with("no coin was taken out of circulation"),
        "{none:?}"
    );
    let next = spawn(folder.path(), &short).wait_with_output().unwrap();
    assert!(next.status.success(), "{next:?}");
    assert!(!said(&next).contains("raida delete"), "{next:?}");
    assert_eq!(journals(folder.path()), Vec::<PathBuf>::new());
    node.stop();
}

#[test]
fn an_interrupted_bench_of_fixes_leaves_no_coin_on_any_node() {
    let _machine = crate::alone();
    let network = Network::new()
        .with("limits.healing_per_s", 0)
        .with("tickets.per_coin", 0)
        .start();
    let dir = network.dir();
    let fixed = ["fix", "--coins", "20", "--seconds", "600", "--network"];
    let mut words: Vec<OsString> = fixed.iter().map(OsString::from).collect();
    words.push(dir.clone().into());
    let bench = spawn(&dir, &words);
    network.wait_until(|| {
        let stats = network.client(0).stats(&network.admin_key(0)).unwrap();
        stats.requests > 1_000
    });
    signal(&bench, libc::SIGINT);
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(said(&output).contains("as they were before"), "{output:?}");
    for raida in 0..25 {
        let audit = network.client(raida).audit().unwrap();
        assert_eq!(audit.0.iter().sum::<u32>(), 0, "RAIDA {raida}");
    }
    assert_eq!(journals(&dir), Vec::<PathBuf>::new());
}
