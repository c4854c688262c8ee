//! `raida mint` for a wallet that is killed, and given again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use raida::client::wallet::{Access, Wallet};
use raida::client::{CoinListReader, Months};
use raida::coin::Coin;

use crate::network_process::{Network, NetworkProcess};

fn mint(network: &NetworkProcess, wallet: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raida"));
    command
        .args(["mint", "--count", "300", "--denomination", "2"])
        .arg("--network")
        .arg(network.dir())
        .arg("--wallet")
        .arg(wallet);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Coins in circulation on a node.
fn coins(network: &NetworkProcess, raida: u8) -> usize {
    let audit = network.client(raida).audit().unwrap();
    audit.0.iter().sum::<u32>() as usize
}

/// Deletes the coins of the lists that a killed mint left: those of the wallet stay.
fn delete_left_over_lists(network: &NetworkProcess, wallet: &Path) {
    let Ok(filed) = Wallet::open(wallet, Access::Look) else {
        return;
    };
    let is_list = |path: &PathBuf| path.extension().is_some_and(|end| end == "part");
    let entries = std::fs::read_dir(wallet).unwrap();
    let lists = entries.map(|entry| entry.unwrap().path()).filter(is_list);
    for list in lists {
        let asked = CoinListReader::open(&list, Months::Optional).unwrap();
        let asked: Vec<Coin> = asked.map(|record| record.unwrap().coin).collect();
        let is_filed = |coin: &Coin| filed.coins().iter().any(|f| f.file.coin == *coin);
        if !asked.iter().any(is_filed) {
            continue;
        }
        let deleted = Command::new(env!("CARGO_BIN_EXE_raida"))
            .arg("delete")
            .arg(&list)
            .args(["--whatever-number", "--network"])
            .arg(network.dir())
            .output()
            .unwrap();
        assert!(deleted.status.success(), "{}", said(&deleted));
        let says = "are filed in the wallet";
        assert!(said(&deleted).contains(says), "{}", said(&deleted));
        assert!(!list.exists(), "it is done with");
    }
}

#[test]
fn after_a_mint_that_was_killed_each_coin_is_in_a_wallet_or_deleted_by_what_it_says() {
    let network = Network::new().start();
    let mut expected = 0;
    for round in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let wallet = folder.path().join("wallet");
        let mut process = mint(&network, &wallet)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while coins(&network, 3) == expected && process.try_wait().unwrap().is_none() {}
        std::thread::sleep(Duration::from_millis(round * 8));
        process.kill().unwrap();
        process.wait().unwrap();
        delete_left_over_lists(&network, &wallet);
        let again = mint(&network, &wallet).output().unwrap();
        assert!(again.status.success(), "{}", said(&again));
        if let Some(command) = said(&again).split('`').nth(1) {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            let deleted = Command::new(env!("CARGO_BIN_EXE_raida"))
                .args(&words)
                .output()
                .unwrap();
            assert!(deleted.status.success(), "{words:?}: {}", said(&deleted));
        }
        let filed = Wallet::open(&wallet, Access::Look).unwrap();
        assert!(filed.coins().len() >= 300);
        for raida in [0, 12, 24].map(|raida| raida::protocol::RaidaId::new(raida).unwrap()) {
            let owned = filed.coins().iter();
            let owned: Vec<_> = owned.map(|c| (c.file.coin, c.file.an(raida))).collect();
            let passed = network.client(raida.get()).detect(&owned).unwrap();
            assert!(passed.into_iter().all(|passed| passed), "round {round}");
        }
        expected += filed.coins().len();
        assert_eq!(coins(&network, 3), expected, "round {round}");
    }
}
