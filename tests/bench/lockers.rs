//! `raida bench` of lockers and trades as a person runs it, on a real node.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::node_process::{NodeProcess, Serve, raida};
use serde_json::Value;

/// A node with two shards that counts every purchase as paid.
fn node(data: &Path) -> NodeProcess {
    Serve::on(data)
        .with("shards.count", 2)
        .with("trade.settlement", "trusted")
        // Lists are asked for over UDP too.
        .with("network.udp_amplification", 10_000)
        .start()
}

/// The same on a folder of its own, which goes when dropped.
fn fresh_node() -> (tempfile::TempDir, PathBuf, NodeProcess) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = node(&data);
    (folder, data, node)
}

/// Two times half a second of a load, and these words.
fn bench(node: &NodeProcess, data: &Path, words: &[&str]) -> Output {
    bench_for(1, node, data, words)
}

fn bench_for(seconds: u32, node: &NodeProcess, data: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raida"))
        .args(["bench", "--slices", "2", "--warm-up-s", "0"])
        .args(["--seconds", &seconds.to_string()])
        .args(["--json", "--host", &node.address.to_string(), "--data"])
        .arg(data)
        .args(words)
        .output()
        .unwrap()
}

/// Nothing but right answers, every one of them timed (at a rate some may be late), and every coin
/// as the answers made it.
fn assert_all_right(output: &Output, words: &[&str]) -> Value {
    assert!(output.status.success(), "{words:?}: {output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let node = &report["contenders"][0];
    let counts = &node["with_warm_up"];
    assert!(counts["right"].as_u64().unwrap() > 10, "{words:?}: {node}");
    for other in ["wrong", "refused", "lost", "stray"] {
        assert_eq!(counts[other], 0, "{words:?}: {node}");
    }
    // How late answers are at a rate says how busy the machine is.
    assert!(
        counts["late"] == 0 || words.contains(&"--rate"),
        "{words:?}: {node}"
    );
    assert_eq!(report["coins_wrong_afterwards"], 0, "{words:?}");
    assert_eq!(report["coins_astray"], 0, "{words:?}");
    report
}

fn assert_no_coins(node: &NodeProcess) {
    let audit = node.client().audit().unwrap();
    assert_eq!(audit.0.iter().sum::<u32>(), 0);
}

/// Every kind of locker and trade, asked for like this, is right and leaves no coin behind.
fn assert_each_kind_right(how: &[&str]) {
    let (_folder, data, node) = fresh_node();
    for kind in ["put", "peek", "take", "offer", "list", "buy"] {
        let words = [&[kind], how].concat();
        let report = assert_all_right(&bench(&node, &data, &words), &words);
        let is_cut_short = report["contenders"][0]["slices_cut_short"] != 0;
        let can_be = ["put", "take", "offer", "buy"].contains(&kind);
        assert!(can_be || !is_cut_short, "{words:?}");
    }
    assert_no_coins(&node);
}

#[test]
fn lockers_and_trades_of_several_coins_are_right_and_leave_nothing_behind() {
    let _machine = crate::beside_others();
    assert_each_kind_right(&["--coins", "10", "--mint", "3000"]);
}

#[test]
fn lockers_and_trades_by_datagrams_of_two_threads_are_right_and_leave_nothing_behind() {
    let _machine = crate::beside_others();
    assert_each_kind_right(&[
        "--udp",
        "--in-flight",
        "16",
        "--threads",
        "2",
        "--mint",
        "1500",
    ]);
}

#[test]
fn lockers_and_trades_at_a_rate_and_encrypted_are_right_and_leave_nothing_behind() {
    let _machine = crate::beside_others();
    assert_each_kind_right(&["--encryption", "2", "--rate", "300", "--mint", "3000"]);
}

#[test]
fn a_mix_with_lockers_and_trades_is_right_and_leaves_nothing_behind() {
    let _machine = crate::beside_others();
    let (_folder, data, node) = fresh_node();
    let mix = "detect=5,pown=2,put=2,peek=2,take=1,offer=1,list=1,buy=1";
    let words = [
        "--mix", mix, "--coins", "3", "--choose", "across", "--shards", "2",
    ];
    assert_all_right(&bench(&node, &data, &words), &words);
    assert_no_coins(&node);
}

#[test]
fn more_coins_are_minted_than_a_node_offers_at_once() {
    let _machine = crate::beside_others();
    let (_folder, data, node) = fresh_node();
    let words = [
        "take",
        "--coins",
        "100",
        "--mint",
        "40000",
        "--connections",
        "2",
    ];
    // Long enough to use them all.
    let report = assert_all_right(&bench_for(60, &node, &data, &words), &words);
    let contender = &report["contenders"][0];
    assert_eq!(contender["slices_cut_short"], 2, "{contender}");
    assert_eq!(contender["counts"]["right"], 2 * 400, "{contender}");
    assert_no_coins(&node);
}

#[test]
fn lockers_that_were_imported_are_looked_into_as_they_are() {
    let _machine = crate::beside_others();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("lockers.csv");
    let mut list = "denomination,serial_number,authenticity_number,months_from_start\n".to_owned();
    for coin in 0..600u32 {
        // Neighbours in the list lie in different lockers.
        let (denomination, locker, sn) = (coin as i32 % 15 - 8, coin % 60, coin * 1_700);
        writeln!(
            list,
            "{denomination},{sn},{locker:010x}00000000000000ffffffff,40"
        )
        .unwrap();
    }
    std::fs::write(&file, &list).unwrap();
    let imported = raida(&[
        "import".as_ref(),
        "--csv".as_ref(),
        file.as_ref(),
        "--data".as_ref(),
        data.as_ref(),
    ]);
    assert!(imported.status.success(), "{imported:?}");
    let node = node(&data);
    let name = file.to_str().unwrap();
    for words in [
        &["peek", "--coins", "10", "--coins-file", name][..],
        &["detect-sum", "--coins-file", name],
        &[
            "peek",
            "--coins",
            "10",
            "--coins-file",
            name,
            "--encryption",
            "2",
        ],
        &[
            "peek",
            "--coins",
            "10",
            "--coins-file",
            name,
            "--encryption",
            "4",
            "--choose",
            "zipf",
        ],
        &[
            "--mix",
            "peek=3,pown=1",
            "--coins",
            "10",
            "--connections",
            "4",
            "--coins-file",
            name,
        ],
    ] {
        assert_all_right(&bench(&node, &data, words), words);
    }
    assert!(!folder.path().join("lockers.csv.spare.csv").exists());
    for (words, why) in [
        (&["peek", "--coins-file", name][..], "--coins asks for 1"),
        (
            &["detect-sum", "--coins", "2", "--coins-file", name],
            "share a number",
        ),
        (
            &["put", "--coins", "10", "--coins-file", name],
            "whoever loses this program",
        ),
        (
            &[
                "peek",
                "--coins",
                "10",
                "--coins-file",
                name,
                "--choose",
                "page",
            ],
            "--choose",
        ),
        (
            &[
                "peek",
                "--coins",
                "10",
                "--coins-file",
                name,
                "--threads",
                "64",
                "--connections",
                "64",
            ],
            "lockers are needed",
        ),
    ] {
        let refused = bench(&node, &data, words);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains(why), "{words:?}: {said}");
    }
}

#[test]
fn a_purchase_without_a_settlement_is_refused_and_an_offer_without_its_currency_is_told() {
    let _machine = crate::beside_others();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    {
        let node = Serve::on(&data).start();
        let refused = bench(&node, &data, &["buy", "--coins", "10"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let report: Value = serde_json::from_slice(&refused.stdout).unwrap();
        let node_said = &report["contenders"][0];
        assert_eq!(node_said["counts"]["right"], 0);
        assert!(
            node_said["first_refused"]
                .as_str()
                .unwrap()
                .contains("settlement"),
            "{node_said}"
        );
        assert_no_coins(&node);
        node.stop();
    }
    let node = Serve::on(&data)
        .with("trade.currencies", "[\"monero\"]")
        .start();
    let refused = bench(&node, &data, &["list", "--coins", "10"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("trade.currencies"), "{said}");
    assert_no_coins(&node);
}
