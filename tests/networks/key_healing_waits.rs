//! Broken servers that take no tickets yet, since they started or their coin changed a moment ago,
//! as a person who does not wait sees them (docs/protocol.md section 6), on 25 real nodes that
//! share secrets. `key_healing_client` tests the waits themselves, with a simulated clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::network_process::{Network, NetworkProcess};
use crate::node_network::Run;
use raida::client::Outcome;
use raida::client::key_healing::{EncryptionHealth, FAILURES_MAX, UnixSeconds};
use raida::client::wallet::{Access, Wallet};
use raida::coin::{An, Coin};
use raida::protocol::RaidaId;
use serde_json::Value;

/// Seconds after a change or its start until a server takes what others vouch for.
const SETTLED: u64 = 310;
/// Seconds after a fix of keys for which a number that it may have brought into force is in doubt.
const IN_DOUBT: u64 = 22 * 60;

fn run(network: &NetworkProcess, words: &str) -> Run {
    let folder = network.dir();
    crate::node_network::run(
        folder.parent().expect("a folder beside the network's"),
        words,
    )
}

/// Has a server lose all coins of the wallet, just now.
fn lose_all_on(network: &NetworkProcess, raida: RaidaId) {
    let folder = network.dir().with_file_name("wallet");
    let wallet = Wallet::open(&folder, Access::Look).expect("a wallet");
    let lost = An::new([0x51; 16]);
    let files = wallet.coins().iter().map(|filed| &filed.file);
    let coins: Vec<(Coin, An, An)> = files
        .map(|file| (file.coin, file.an(raida), lost))
        .collect();
    let (outcomes, _) = network.client(raida.get()).pown(&coins);
    assert!(outcomes.iter().all(|&outcome| outcome == Outcome::Changed));
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

#[test]
fn who_does_not_wait_is_told_when_to_come_back_and_the_server_is_mended_then() {
    let network = Network::new().start();
    let mint = run(
        &network,
        "mint --network network --count 2 --denomination 1 --wallet wallet",
    );
    assert_eq!((mint.status, mint.err.as_str()), (0, ""));
    let broken = RaidaId::new(7).expect("a server's number");
    lose_all_on(&network, broken);

    let earliest = unix_seconds() + 180;
    // More often than failures are forgiven.
    for _ in 0..=FAILURES_MAX {
        let fix = run(
            &network,
            "fix-encryption wallet --network network --no-wait --json",
        );
        assert_eq!((fix.status, fix.err.as_str()), (1, ""), "{}", fix.out);
        let said: Value = serde_json::from_str(&fix.out).expect("an object");
        let server = &said["servers"][0];
        assert_eq!(server["outcome"], "too early", "{said}");
        assert_eq!(
            (&server["raida"], &said["waited_s"]),
            (&7.into(), &0.into())
        );
        let again = server["again"].as_u64().expect("seconds");
        assert!(
            (earliest..=unix_seconds() + 180).contains(&again),
            "{again}"
        );
    }
    let folder = network.dir().with_file_name("wallet");
    let health = EncryptionHealth::read(&folder).expect("what the wallet knows");
    assert_eq!(health.of(broken).failures, 0);
    for command in ["fix-encryption", "heal"] {
        let words = format!("{command} wallet --network network --no-wait");
        let told = run(&network, &words);
        assert_eq!((told.status, told.err.as_str()), (1, ""), "{}", told.out);
        let says = "RAIDA 7 is broken: coin 1.";
        assert!(told.out.contains(says), "{}", told.out);
        assert!(
            told.out.contains("it takes new tickets from "),
            "{}",
            told.out
        );
    }

    network.pass(SETTLED);
    let fix = run(&network, "fix-encryption wallet --network network --json");
    assert_eq!((fix.status, fix.err.as_str()), (0, ""), "{}", fix.out);
    let said: Value = serde_json::from_str(&fix.out).expect("an object");
    assert_eq!(said["servers"][0]["outcome"], "fixed", "{said}");
    assert_eq!(said["waited_s"], 0);
    // The other coin has a number in doubt there, which a fix of keys may still bring into force by
    // the wallet's clock, which has not passed: it is kept and said, and so it is each time.
    let heal = "heal wallet --network network --no-wait";
    for _ in 0..2 {
        let heal = run(&network, heal);
        assert_eq!((heal.status, heal.err.as_str()), (1, ""), "{}", heal.out);
        let says = "2 coins: 1 authentic, 1 fracked, 0 counterfeit, 0 in limbo";
        assert!(heal.out.contains(says), "{}", heal.out);
        let says = "fracked, two numbers in doubt, both are kept: heal again";
        assert!(heal.out.contains(says), "{}", heal.out);
    }
    // Until no ticket of that fix can be taken any more.
    let wallet = Wallet::open(&folder, Access::Change).expect("a wallet");
    let known = EncryptionHealth::read(&folder).expect("what the wallet knows");
    let mut later = known.clone();
    later.mark_tried(broken, UnixSeconds(unix_seconds() - IN_DOUBT));
    later
        .save(&wallet, &known)
        .expect("a wallet that can be written");
    drop(wallet);
    let heal = run(&network, heal);
    assert_eq!((heal.status, heal.err.as_str()), (0, ""), "{}", heal.out);
    let says = "2 coins: 2 authentic, 0 fracked";
    assert!(heal.out.contains(says), "{}", heal.out);
}
