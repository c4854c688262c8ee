//! Lockers and offers as a person uses them, against 25 real nodes.

use crate::node_network::{Network, Run};
use raida::client::wallet::Folder;

const TERMS: &str = "--price 40000 --currency bitcoin";
const ADDRESS: &str = "--address bc1q000000000000";

fn network() -> Network {
    let network = Network::start_with(|node| node.with("trade.settlement", "trusted"));
    let mint = network.run("mint --network net --count 9 --denomination 0 --wallet wallet");
    assert_eq!((mint.status, mint.err.as_str()), (0, ""));
    network
}

/// Keeps in a file the secret that a command made up.
fn keep_secret(network: &Network, run: &Run, name: &str) {
    let told = |line: &&str| line.ends_with("not shown again, and whoever has it has the coins");
    let lines: Vec<&str> = run.out.lines().collect();
    let after = lines.iter().position(told).expect("a secret is told");
    let (_, secret) = lines[after - 1].split_once(": ").unwrap();
    assert_eq!(secret.len(), 32, "{}", run.out);
    std::fs::write(network.folder.path().join(name), secret).unwrap();
}

#[track_caller]
fn assert_done(run: &Run) {
    assert_eq!((run.status, run.err.as_str()), (0, ""), "{}", run.out);
}

#[track_caller]
fn assert_healthy(network: &Network, wallet: &str, coins: usize) {
    let detect = network.run(&format!("detect --all --network net {wallet}"));
    let all = format!("{coins} of {coins} coins pass on all 25 servers\n");
    assert!(detect.out.ends_with(&all), "{}", detect.out);
}

#[test]
fn coins_go_into_a_locker_of_25_nodes_and_into_another_wallet_though_some_are_down_meanwhile() {
    let mut network = network();
    let put = network.run("locker put --network net --wallet wallet --amount 4");
    assert_done(&put);
    keep_secret(&network, &put, "secret");
    let peek = network.run("locker peek --network net --key @secret");
    assert_done(&peek);
    assert!(peek.out.starts_with("0.0\n0.1\n0.2\n0.3\n"), "{}", peek.out);
    assert!(
        peek.out
            .ends_with("25 servers say: 4 coins worth 4 lie in the locker\n")
    );
    assert_healthy(&network, "wallet", 5);

    let moved = network.run("locker move --network net --key @secret");
    assert_done(&moved);
    keep_secret(&network, &moved, "moved");
    assert_eq!(
        network
            .run("locker peek --network net --key @secret")
            .status,
        1
    );

    for raida in [3, 7, 24] {
        network.stop(raida);
    }
    let take = network.run("locker take --network net --key @moved --wallet other");
    assert_done(&take);
    assert!(
        take.out.contains("4 coins worth 4 taken, now in other"),
        "{}",
        take.out
    );
    assert!(
        take.out.contains("    7        0  cannot be reached"),
        "{}",
        take.out
    );
    let detect = network.run("detect --all --network net other");
    assert_eq!(
        detect.out.matches("pppnpppnppppppppppppppppn").count(),
        4,
        "{}",
        detect.out
    );
}

#[test]
fn coins_are_offered_on_25_nodes_bought_by_another_wallet_and_taken_back() {
    let network = network();
    let words = |what: &str| format!("trade offer --network net --wallet wallet {what} {ADDRESS}");
    let made = network.run(&words(&format!("--amount 4 {TERMS}")));
    assert_done(&made);
    keep_secret(&network, &made, "offer");
    let list = network.run("trade list --network net --currency bitcoin");
    assert_done(&list);
    assert!(
        list.out
            .contains("40000 bitcoin  to bc1q000000000000  on 25 servers"),
        "{}",
        list.out
    );
    for by in [format!("--worth 4 {TERMS}"), "--key @offer".to_owned()] {
        let show = network.run(&format!("trade show --network net {by}"));
        assert_done(&show);
        assert!(show.out.starts_with("0.0\n0.1\n0.2\n0.3\n"), "{}", show.out);
    }
    // The same once more is refused everywhere, and its coins are as they were.
    let again = network.run(&words(&format!("--amount 4 {TERMS}")));
    assert_eq!(again.status, 1, "{}", again.err);
    assert!(again.out.contains("on offer already"), "{}", again.out);
    assert_healthy(&network, "wallet", 5);

    let paid = format!(
        "--transaction {} --receipt {} --memo order-17",
        "7a".repeat(32),
        "01".repeat(16)
    );
    let buy = format!("trade buy --network net --worth 4 {TERMS} {paid}");
    let bought = network.run(&format!("{buy} --wallet buyer"));
    assert_done(&bought);
    assert_healthy(&network, "buyer", 4);
    keep_secret(&network, &bought, "bought");
    // A buyer who asks again for the same locker gets the same answer; one who names another locker
    // does not.
    let again = network.run(&format!("{buy} --key @bought"));
    assert_done(&again);
    let none = network.run(&buy);
    assert_eq!(none.status, 1, "{}", none.out);
    assert!(none.out.contains("no server was told"), "{}", none.out);
    let other = network.run(&format!("{buy} --key {}", "5e".repeat(16)));
    assert_eq!(other.status, 1, "{}", other.out);
    assert!(other.out.contains("\n  all  refused: "), "{}", other.out);

    let made = network.run(&words(&format!("--coin 0.4 --coin 0.5 {TERMS}")));
    assert_done(&made);
    keep_secret(&network, &made, "offer");
    assert_healthy(&network, "wallet", 3);
    assert_done(&network.run("trade cancel --network net --key @offer --wallet wallet"));
    assert_healthy(&network, "wallet", 5);
    assert!(
        network
            .files()
            .iter()
            .all(|(folder, _)| *folder == Folder::Bank)
    );
    assert_eq!(
        network
            .run("trade list --network net --currency bitcoin")
            .status,
        1
    );
}
