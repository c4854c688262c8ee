//! Broken servers as a person sees and mends them, on 25 real nodes that share secrets.

use std::path::Path;
use std::time::Duration;

use crate::network_process::{Network, NetworkProcess};
use crate::node_network::Run;
use raida::client::key_healing::Network as _;
use raida::client::wallet::{Access, Wallet};
use raida::client::{Hosts, Outcome, Raidas};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::protocol::RaidaId;
use serde_json::Value;

const COINS: usize = 4;

/// Seconds after a change or its start until a server takes what others vouch for.
const SETTLED: u64 = 310;

/// A network, and a folder `wallet` beside the network's own.
struct Trial(NetworkProcess);

impl Trial {
    fn start() -> Trial {
        let trial = Trial(Network::new().start());
        let mint = trial.run("mint --network network --count 4 --denomination 1 --wallet wallet");
        assert_eq!((mint.status, mint.err.as_str()), (0, ""));
        trial.0.pass(SETTLED);
        trial
    }

    fn run(&self, words: &str) -> Run {
        crate::node_network::run(self.0.dir().parent().unwrap(), words)
    }

    fn wallet(&self) -> Wallet {
        let folder = self.0.dir().with_file_name("wallet");
        Wallet::open(&folder, Access::Look).unwrap()
    }

    /// Has servers lose all coins of the wallet, some minutes ago.
    fn lose_all_on(&self, servers: &[u8]) {
        let wallet = self.wallet();
        for &number in servers {
            let raida = RaidaId::new(number).unwrap();
            let other = An::new([0x51; 16]);
            let coins = wallet.coins().iter();
            let coins: Vec<(Coin, An, An)> = coins
                .map(|filed| (filed.file.coin, filed.file.an(raida), other))
                .collect();
            let (outcomes, _) = self.0.client(number).pown(&coins);
            assert_eq!(outcomes, [Outcome::Changed; COINS]);
        }
        self.0.pass(SETTLED);
    }

    /// What the wallet's folder holds, byte by byte.
    fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![];
        read(&self.0.dir().with_file_name("wallet"), &mut files);
        files.sort();
        files
    }
}

fn read(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read(&path, files),
            false => files.push((path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
}

fn with_at(letter: char, places: &[usize]) -> String {
    let at = |place| if places.contains(&place) { letter } else { 'p' };
    (0..25).map(at).collect()
}

#[track_caller]
fn assert_says(run: &Run, status: i32, says: &str) {
    assert_eq!((run.status, run.err.as_str()), (status, ""), "{}", run.out);
    assert!(run.out.contains(says), "{}", run.out);
}

#[test]
fn a_wallet_that_is_fracked_on_two_servers_throughout_is_mended_and_talks_to_both_in_private() {
    let trial = Trial::start();
    let healthy = trial.run("health wallet --network network");
    assert_says(&healthy, 0, "\n0 of 25 servers are broken\n");
    assert_eq!(healthy.out.matches("working").count(), 25);

    trial.lose_all_on(&[7, 19]);
    let detect = trial.run("detect --all --encryption 4 --network network wallet");
    assert_says(&detect, 0, &with_at('e', &[7, 19]));
    assert!(detect.out.contains("0 of 4 coins pass"), "{}", detect.out);

    // From the files alone it cannot be known yet.
    assert_says(&trial.run("health wallet"), 0, "0 of 25");
    let health = trial.run("health wallet --network network");
    assert_says(&health, 1, "\n2 of 25 servers are broken\n");
    for row in ["\n    7  broken ", "\n   19  broken ", "\n   20  working "] {
        assert!(health.out.contains(row), "{}", health.out);
    }
    assert_eq!(trial.run("health wallet").out, health.out);

    let before = trial.bytes();
    let dry = trial.run("heal wallet --network network --dry-run");
    assert_says(&dry, 1, "RAIDA 7 19 would be mended first");
    assert!(trial.bytes() == before);

    let heal = trial.run("heal wallet --network network");
    assert_says(&heal, 0, "4 coins: 4 authentic");
    for server in [7, 19] {
        let fixed = format!("RAIDA {server} was broken and is fixed: RAIDA ");
        assert!(heal.out.contains(&fixed), "{}", heal.out);
    }
    assert_says(&trial.run("health wallet"), 0, "0 of 25");
    for encryption in [1, 4] {
        let words = format!("detect --all --encryption {encryption} --network network wallet");
        let detect = trial.run(&words);
        assert_says(&detect, 0, "4 of 4 coins pass on all 25 servers");
        assert_eq!(detect.out.matches(&"p".repeat(25)).count(), COINS);
    }
    let five = trial.run("detect --all --encryption 5 --network network wallet");
    assert_eq!(five.status, 2);
    assert!(five.err.contains("type 0, 1 or 4"), "{}", five.err);
}

#[test]
fn one_coin_brings_each_of_five_servers_back_and_the_others_wait_for_heal() {
    let trial = Trial::start();
    let broken = [2, 3, 5, 8, 13];
    trial.lose_all_on(&broken);
    let fix = trial.run("fix-encryption wallet --network network --json");
    assert_eq!((fix.status, fix.err.as_str()), (0, ""), "{}", fix.out);
    let report: Value = serde_json::from_str(&fix.out).unwrap();
    assert_eq!(report["broken"].as_array().unwrap().len(), 0);
    let servers = report["servers"].as_array().unwrap();
    assert_eq!(servers.len(), broken.len());
    let mut helpers: Vec<u64> = vec![];
    for (server, number) in servers.iter().zip(broken) {
        assert_eq!(
            (&server["raida"], &server["outcome"]),
            (&number.into(), &"fixed".into())
        );
        helpers.extend(
            server["helpers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|h| h.as_u64().unwrap()),
        );
    }
    helpers.sort_unstable();
    helpers.dedup();
    assert_eq!(helpers.len(), 10, "nobody vouches for two");
    let detect = trial.run("detect --all --encryption 4 --network network wallet");
    assert_says(&detect, 1, "1 of 4 coins pass on all 25 servers");
    let heal = trial.run("heal wallet --network network --json");
    let report: Value = serde_json::from_str(&heal.out).unwrap();
    assert_eq!(heal.status, 0, "{}", heal.out);
    assert_eq!(report["encryption"]["servers"].as_array().unwrap().len(), 0);
    assert_eq!(report["encryption"]["broken"].as_array().unwrap().len(), 0);
    let detect = trial.run("detect --all --encryption 4 --network network wallet");
    assert_says(&detect, 0, "4 of 4 coins pass on all 25 servers");
}

#[test]
fn a_server_says_whether_it_has_a_number_only_to_who_asks_under_that_number() {
    let trial = Trial::start();
    let hosts = Hosts::read(&trial.0.dir().join("hosts")).unwrap();
    let raidas = Raidas::new(hosts, 6, Duration::from_secs(5));
    let raida = RaidaId::new(7).unwrap();
    let (coin, an) = {
        let wallet = trial.wallet();
        let file = &wallet.coins()[0].file;
        (file.coin, file.an(raida))
    };
    assert!(raidas.has(raida, coin, an).unwrap());
    assert!(!raidas.has(raida, coin, An::new([0x51; 16])).unwrap());
    // Nor has it a coin with this number that nobody made.
    let elsewhere = Coin {
        denomination: Denomination::new(-7).unwrap(),
        serial_number: SerialNumber::new(9).unwrap(),
    };
    assert!(!raidas.has(raida, elsewhere, an).unwrap());
    trial.lose_all_on(&[7]);
    assert!(!raidas.has(raida, coin, an).unwrap());
    assert!(raidas.has(raida, coin, An::new([0x51; 16])).unwrap());
    assert!(trial.0.ask(&["stop", "7"]).status.success());
    assert!(raidas.has(raida, coin, an).is_err());
}

#[test]
fn a_broken_server_that_is_down_stays_broken_until_it_is_back() {
    let trial = Trial::start();
    trial.lose_all_on(&[3]);
    assert_eq!(trial.run("health wallet --network network").status, 1);
    assert!(trial.0.ask(&["stop", "3"]).status.success());
    let fix = trial.run("fix-encryption wallet --network network");
    assert_says(&fix, 1, "RAIDA 3 is broken: no coin fails there");
    assert!(
        fix.out.ends_with("\n1 of 25 servers is broken\n"),
        "{}",
        fix.out
    );
    assert!(trial.0.ask(&["start", "3"]).status.success());
    trial.0.pass(SETTLED);
    // Helpers may be down as well.
    assert!(trial.0.ask(&["stop", "0"]).status.success());
    let fix = trial.run("fix-encryption wallet --network network");
    let said = "RAIDA 3 was broken and is fixed: RAIDA ";
    assert_says(&fix, 0, said);
    // Any two others: they are drawn.
    let (_, helpers) = fix.out.split_once(said).unwrap();
    let (helpers, _) = helpers.split_once(" vouched").unwrap();
    let (one, other) = helpers.split_once(" and ").unwrap();
    assert!(one != other && ![one, other].contains(&"0"), "{helpers}");
    assert!(![one, other].contains(&"3"), "{helpers}");
}

#[test]
fn a_server_that_nobody_shares_a_secret_with_is_given_up_for_a_while() {
    let network = crate::node_network::Network::start();
    let mint = network.run("mint --network net --count 4 --denomination 1 --wallet wallet");
    assert_eq!(mint.status, 0, "{}", mint.err);
    let raida = RaidaId::new(3).unwrap();
    let node = network.nodes[3].as_ref().unwrap();
    let options = raida::client::Options::new(raida);
    let transport = raida::client::Transport::Tcp;
    let mut client = raida::client::Client::connect(node.host(), transport, options).unwrap();
    for (_, file) in network.files() {
        let changed = client.pown(&[(file.coin, file.an(raida), An::new([0x51; 16]))]);
        assert_eq!(changed.0, [Outcome::Changed]);
    }
    for attempt in 1..=3 {
        let fix = network.run("fix-encryption wallet --network net");
        assert_says(
            &fix,
            1,
            "no two servers could vouch for coin 1.0, 24 were tried",
        );
        assert!(fix.out.contains("share a secret"), "{}", fix.out);
        let state = if attempt < 3 {
            "broken"
        } else {
            "persistently broken"
        };
        let health = network.run("health wallet --json");
        let report: Value = serde_json::from_str(&health.out).unwrap();
        assert_eq!(report["servers"][3]["state"], state);
        assert_eq!(report["servers"][3]["failures"], attempt);
    }
    let fix = network.run("fix-encryption wallet --network net");
    assert_says(
        &fix,
        1,
        "it was tried too often, and is left alone until 20",
    );
    let health = network.run("health wallet");
    assert_says(&health, 1, "\n    3  persistently broken         3  20");
    let fix = network.run("fix-encryption wallet --network net --cool-down-s 0");
    assert_says(&fix, 1, "24 were tried");
    let again = network.run("health wallet");
    assert_says(&again, 1, "at any time");

    let endless = network.run("fix-encryption wallet --network net --cool-down-s 31536001");
    assert_eq!(endless.status, 2);
    assert!(endless.err.contains("0..=31536000"), "{}", endless.err);

    let file = network.wallet().join("encryption-health.json");
    std::fs::write(&file, "nonsense").unwrap();
    for words in [
        "health wallet",
        "fix-encryption wallet --network net",
        "heal wallet --network net",
    ] {
        let run = network.run(words);
        assert_eq!((run.status, run.out.as_str()), (2, ""));
        assert!(
            run.err
                .contains("encryption-health.json cannot be understood"),
            "{}",
            run.err
        );
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"nonsense");
}
