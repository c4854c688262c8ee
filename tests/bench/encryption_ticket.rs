//! `raida bench encryption-ticket` as a person runs it, on a real node.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use crate::node_process::{NodeProcess, Serve, raida};
use serde_json::Value;

fn serve(data: &Path) -> Serve {
    Serve::on(data)
        .with("shards.count", 2)
        .with("limits.healing_per_s", 0)
        // The node must refuse one request in 64, over UDP too.
        .with("limits.udp_refusals_per_s", 0)
}

/// A short load, and these words.
fn bench(node: &NodeProcess, data: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raida"))
        .args(["bench", "--seconds", "1", "--slices", "2"])
        .args(["--warm-up-s", "0", "--mint", "3000", "--json"])
        .args(["--host", &node.address.to_string(), "--data"])
        .arg(data)
        .args(words)
        .output()
        .unwrap()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn tickets_are_right_however_they_are_asked_for() {
    let _machine = crate::beside_others();
    let folder = tempfile::tempdir().unwrap();
    let (data, keys) = (folder.path().join("data"), folder.path().join("keys"));
    let mut words = ["keys", "new", "--out"].map(OsStr::new).to_vec();
    words.push(keys.as_os_str());
    assert!(raida(&words).status.success());
    let file = keys.join("raida0.keys");
    let node = serve(&data).with("keys.file", file.display()).start();
    for (words, encryption) in [
        (&["encryption-ticket"][..], "encryption type 4"),
        (
            &["encryption-ticket", "--udp", "--encryption", "1"],
            "encryption type 1",
        ),
        (
            &["encryption-ticket", "--encryption", "2", "--rate", "300"],
            "encryption type 2",
        ),
        (
            &["--mix", "detect=1,pown=1,encryption-ticket=2"],
            "encryption type 4",
        ),
    ] {
        let output = bench(&node, &data, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let load = report["load"].as_str().unwrap();
        assert!(load.contains(encryption), "{words:?}: {load}");
        let counts = &report["contenders"][0]["with_warm_up"];
        assert!(
            counts["right"].as_u64().unwrap() > 100,
            "{words:?}: {counts}"
        );
        for other in ["wrong", "refused", "late", "lost", "stray"] {
            assert_eq!(counts[other], 0, "{words:?}: {counts}");
        }
    }
}

#[test]
fn a_node_that_cannot_vouch_is_an_error_that_says_what_it_takes() {
    let _machine = crate::beside_others();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = serve(&data).start();
    let without = error(&bench(&node, &data, &["encryption-ticket"]));
    assert!(
        without.contains("have to share a secret") && without.contains("keys.file"),
        "{without}"
    );
    let plain = error(&bench(
        &node,
        &data,
        &["encryption-ticket", "--encryption", "0"],
    ));
    assert!(
        plain.contains("key not found") && plain.contains("--encryption 1, 2 or 4"),
        "{plain}"
    );
    let several = error(&bench(&node, &data, &["encryption-ticket", "--coins", "2"]));
    assert!(several.contains("leave --coins away"), "{several}");
    let audit = node.client().audit().unwrap();
    assert_eq!(audit.0.iter().sum::<u32>(), 0);
}
