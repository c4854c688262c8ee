//! `raida mint` for a wallet that is killed, and given again.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use raida::client::wallet::{Access, Wallet};

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
