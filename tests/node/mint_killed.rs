//! `raida mint` that is killed, and given again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use raida::client::{CoinListReader, Months};

use crate::node_process::{NodeProcess, Serve};

fn mint(node: &NodeProcess, data: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raida"));
    command
        .args(["mint", "--count", "1000", "--denomination"])
        .args(["0", "1", "2", "3"])
        .args(["--host", &node.address.to_string(), "--data"])
        .arg(data)
        .arg("--out")
        .arg(out);
    command
}

fn coins(node: &NodeProcess) -> u32 {
    node.client().audit().unwrap().0.iter().sum()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "part"))
        .collect()
}

#[test]
fn a_mint_that_was_killed_goes_on_and_names_each_coin_that_nobody_has() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Serve::on(&data).start();
    // Where it is killed: with a batch asked for, or between two, or done.
    let mut killed_under_way = 0;
    for round in 0..12 {
        let work = folder.path().join(format!("round{round}"));
        std::fs::create_dir(&work).unwrap();
        let out = work.join("coins.csv");
        let before = coins(&node);
        let mut process = mint(&node, &data, &out)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while parts(&work).is_empty() && process.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Every second time it has made some for certain.
        while round % 2 == 0 && coins(&node) == before && process.try_wait().unwrap().is_none() {}
        std::thread::sleep(Duration::from_millis(round));
        process.kill().unwrap();
        process.wait().unwrap();
        if !out.exists() {
            killed_under_way += u32::from(coins(&node) > before);
            let again = mint(&node, &data, &out).output().unwrap();
            assert!(again.status.success(), "{}", said(&again));
            if let Some(command) = said(&again).split('`').nth(1) {
                let words: Vec<&str> = command.split(' ').skip(1).collect();
                let deleted = Command::new(env!("CARGO_BIN_EXE_raida"))
                    .args(&words)
                    .output()
                    .unwrap();
                assert!(deleted.status.success(), "{words:?}: {}", said(&deleted));
            }
            assert_eq!(parts(&work), Vec::<PathBuf>::new());
        }
        // Every coin that there is, is in the file with its number, and as many as were asked for.
        let mut by_denomination: BTreeMap<_, u32> = BTreeMap::new();
        let list: Vec<_> = CoinListReader::open(&out, Months::Required)
            .unwrap()
            .map(|record| record.map(|record| (record.coin, record.an)).unwrap())
            .collect();
        for (coin, _) in &list {
            *by_denomination.entry(coin.denomination).or_default() += 1;
        }
        assert!(by_denomination.values().all(|&count| count == 1_000));
        assert_eq!(by_denomination.len(), 4);
        let passed = node.client().detect(&list).unwrap();
        assert!(passed.into_iter().all(|passed| passed));
        assert_eq!(coins(&node), before + 4_000, "round {round}");
    }
    assert!(killed_under_way > 0, "no kill came while coins were made");
    node.stop();
}
