//! `raida bench fix` as a person runs it, on a network of real nodes.

use std::process::{Command, Output};

use crate::network_process::{Network, NetworkProcess};
use serde_json::Value;

/// Nodes that take any number of requests from one address, and give out any number of tickets for
/// a coin.
fn network() -> Network {
    let network = Network::new().with("limits.healing_per_s", 0);
    network.with("tickets.per_coin", 0)
}

/// A second of fixes by RAIDA 0, of 20 coins each, and these words.
fn bench(network: &NetworkProcess, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raida"))
        .args(["bench", "fix", "--coins", "20", "--seconds", "1"])
        .args(["--slices", "2", "--warm-up-s", "0", "--json", "--network"])
        .arg(network.dir())
        .args(words)
        .output()
        .unwrap()
}

/// Nothing but right answers, every one of them timed, and every coin as the answers made it.
fn assert_all_right(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let node = &report["contenders"][0];
    let counts = &node["with_warm_up"];
    assert!(counts["right"].as_u64().unwrap() > 10, "{node}");
    for other in ["wrong", "refused", "late", "lost", "stray"] {
        assert_eq!(counts[other], 0, "{node}");
    }
    assert!(node["latency_us"]["p50"].as_f64().unwrap() > 0.0, "{node}");
    assert_eq!(report["coins_wrong_afterwards"], 0);
    assert_eq!(report["coins_astray"], 0);
}

fn assert_no_coins(network: &NetworkProcess, raidas: impl IntoIterator<Item = u8>) {
    for raida in raidas {
        let audit = network.client(raida).audit().unwrap();
        assert_eq!(audit.0.iter().sum::<u32>(), 0, "RAIDA {raida}");
    }
}

/// What RAIDA 0 wrote down of its last fix.
fn last_fix(network: &NetworkProcess) -> String {
    let log = std::fs::read_to_string(network.data(0).join("node.log")).unwrap();
    let mut last_first = log.lines().rev();
    let fix = last_first.find(|line| line.contains("tickets="));
    fix.unwrap_or_default().to_owned()
}

#[test]
fn fixes_are_right_however_they_are_asked_for_and_leave_no_coin_behind() {
    let _machine = crate::alone();
    let network = network().start();
    for words in [
        ["--connections", "1", "--threads", "1"],
        ["--connections", "4", "--threads", "2"],
        ["--connections", "2", "--rate", "50"],
    ] {
        assert_all_right(&bench(&network, &words));
    }
    assert_all_right(&bench(&network, &["--udp", "--in-flight", "2"]));
    assert_no_coins(&network, 0..25);
}

#[test]
fn fixes_are_right_with_11_others_down_and_have_to_be_expected_to_fail_with_12() {
    let _machine = crate::alone();
    let down: Vec<u8> = (3..14).collect();
    let network = network().down(&down).start();
    let one = ["--connections", "1"];
    assert_all_right(&bench(&network, &one));
    // The node has a ticket of each other server to claim, and does not know which servers are
    // down.
    assert!(
        last_fix(&network).contains("tickets=24"),
        "{}",
        last_fix(&network)
    );
    let unexpected = bench(&network, &["--expect-refusal"]);
    assert_eq!(unexpected.status.code(), Some(2));

    assert!(network.ask(&["stop", "14"]).status.success());
    let refused = bench(&network, &one);
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(
        why.contains("only 12 of the 24 other servers answer"),
        "{why}"
    );
    assert!(why.contains("--expect-refusal"), "{why}");

    let expected = [one.as_slice(), &["--expect-refusal"]].concat();
    assert_all_right(&bench(&network, &expected));
    assert_no_coins(&network, (0..3).chain(15..25));
}

#[test]
fn fixes_are_not_mixed_with_what_needs_one_node_only() {
    let _machine = crate::alone();
    let mixed = Command::new(env!("CARGO_BIN_EXE_raida"))
        .args(["bench", "--mix", "detect=1,fix=1"])
        .output()
        .unwrap();
    assert_eq!(mixed.status.code(), Some(2));
    let why = String::from_utf8(mixed.stderr).unwrap();
    assert!(why.contains("fix takes a network"), "{why}");
}
