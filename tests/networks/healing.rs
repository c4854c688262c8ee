//! Repair by vote, in a network of 25 real nodes.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::network_process::{Network, NetworkProcess, kill_node};
use raida::client::wallet::{Access, CoinFile, Wallet};
use raida::client::{FixOrder, Outcome, PerRaida};
use raida::coin::{An, Coin};
use raida::protocol::RaidaId;
use raida::protocol::healing::PartialGenerator;
use rand::RngExt;

/// The server that has lost its coins.
const BROKEN: u8 = 0;

/// Seconds after a change other than a fix until a coin is fixed, and some more.
const NOT_FIXED_FOR: u64 = 310;

/// A network, and coins that all its nodes know.
struct Healthy {
    network: NetworkProcess,
    wallet: Vec<CoinFile>,
    _folder: tempfile::TempDir,
}

impl Healthy {
    fn with_coins(count: usize) -> Healthy {
        let network = Network::new().start();
        let folder = tempfile::tempdir().unwrap();
        let wallet: PathBuf = folder.path().join("wallet");
        let minted = Command::new(env!("CARGO_BIN_EXE_raida"))
            .args(["mint", "--denomination", "1", "--count", &count.to_string()])
            .arg("--network")
            .arg(network.dir())
            .arg("--wallet")
            .arg(&wallet)
            .output()
            .unwrap();
        assert!(minted.status.success(), "{minted:?}");
        let wallet = Wallet::open(&wallet, Access::Look).unwrap();
        let wallet: Vec<CoinFile> = wallet.coins().iter().map(|c| c.file.clone()).collect();
        assert_eq!(wallet.len(), count);
        Healthy {
            network,
            wallet,
            _folder: folder,
        }
    }

    /// Has the broken server hold numbers that nobody else knows, and waits until it repairs them;
    /// gives them.
    fn lose(&self, coins: &[CoinFile]) -> Vec<(Coin, An)> {
        let lost = An::new(rand::rng().random());
        let raida = RaidaId::new(BROKEN).unwrap();
        let held: Vec<(Coin, An)> = coins
            .iter()
            .map(|file| (file.coin, file.an(raida)))
            .collect();
        let powns: Vec<(Coin, An, An)> = held.iter().map(|&(coin, an)| (coin, an, lost)).collect();
        let (outcomes, error) = self.network.client(BROKEN).pown(&powns);
        assert!(error.is_none(), "{error:?}");
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Changed));
        self.network.pass(NOT_FIXED_FOR);
        held.iter().map(|&(coin, _)| (coin, lost)).collect()
    }

    /// Tickets for these coins from all other servers but those that are down.
    fn order(&self, coins: &[CoinFile], down: &[u8]) -> FixOrder {
        let mut tickets = PerRaida::from_fn(|_| None);
        for raida in RaidaId::all().filter(|raida| raida.get() != BROKEN) {
            if down.contains(&raida.get()) {
                continue;
            }
            let claimed: Vec<(Coin, An)> = coins
                .iter()
                .map(|file| (file.coin, file.an(raida)))
                .collect();
            let got = self
                .network
                .client(raida.get())
                .get_ticket(&claimed)
                .unwrap();
            assert!(got.passed.iter().all(|&passed| passed));
            tickets[raida] = Some(got.issued[0].1);
        }
        FixOrder {
            coins: coins.iter().map(|file| file.coin).collect(),
            generator: PartialGenerator::new(rand::rng().random()),
            tickets,
        }
    }

    /// Whether the broken server has these numbers: all of them, or none.
    fn holds(&self, numbers: &[(Coin, An)]) -> bool {
        let passed = self.network.client(BROKEN).detect(numbers).unwrap();
        let count = passed.iter().filter(|&&passed| passed).count();
        assert!(
            count == 0 || count == numbers.len(),
            "{count} of {} coins: neither all nor none",
            numbers.len()
        );
        count > 0
    }
}

fn numbers(order: &FixOrder) -> Vec<(Coin, An)> {
    let raida = RaidaId::new(BROKEN).unwrap();
    let an = |&coin| (coin, order.generator.an(raida, coin));
    order.coins.iter().map(an).collect()
}

#[test]
fn coins_are_repaired_while_13_others_are_up_and_stay_as_they_are_with_12() {
    let healthy = Healthy::with_coins(80);
    let mut down: Vec<u8> = Vec::new();
    for (count, coins) in [0, 6, 11, 12].into_iter().zip(healthy.wallet.chunks(20)) {
        let more: Vec<u8> = (1..=count).filter(|raida| !down.contains(raida)).collect();
        if !more.is_empty() {
            let words: Vec<String> = more.iter().map(u8::to_string).collect();
            assert!(
                healthy
                    .network
                    .ask(&["stop", &words.join(",")])
                    .status
                    .success()
            );
            down.extend(more);
        }
        let lost = healthy.lose(coins);
        let mut order = healthy.order(coins, &down);
        // A client that does not know who is down has tickets of those too.
        for &raida in &down {
            let raida = RaidaId::new(raida).unwrap();
            order.tickets[raida] = order.tickets[RaidaId::new(24).unwrap()];
        }
        let (outcomes, error) = healthy.network.client(BROKEN).fix(&order);
        assert!(error.is_none(), "{error:?}");
        let is_repaired = count < 12;
        let expected = match is_repaired {
            true => Outcome::Changed,
            false => Outcome::Failed,
        };
        assert!(
            outcomes.iter().all(|outcome| *outcome == expected),
            "{count}: {outcomes:?}"
        );
        assert_eq!(healthy.holds(&numbers(&order)), is_repaired);
        assert_eq!(healthy.holds(&lost), !is_repaired);
    }
}

#[test]
fn what_was_voted_on_once_is_not_voted_on_again() {
    let healthy = Healthy::with_coins(5);
    healthy.lose(&healthy.wallet);
    let order = healthy.order(&healthy.wallet, &[]);
    let (outcomes, _) = healthy.network.client(BROKEN).fix(&order);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Changed));
    let again = FixOrder {
        generator: PartialGenerator::new([9; 16]),
        ..order.clone()
    };
    let (outcomes, error) = healthy.network.client(BROKEN).fix(&again);
    assert!(error.is_none(), "{error:?}");
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Failed));
    assert!(healthy.holds(&numbers(&order)));
}

#[test]
fn servers_that_do_not_know_a_coin_do_not_vote_for_it() {
    let healthy = Healthy::with_coins(10);
    healthy.lose(&healthy.wallet);
    let (known, unknown) = healthy.wallet.split_at(5);
    // Tickets for the first five only.
    let mut order = healthy.order(known, &[]);
    order.coins.extend(unknown.iter().map(|file| file.coin));
    let (outcomes, error) = healthy.network.client(BROKEN).fix(&order);
    assert!(error.is_none(), "{error:?}");
    let (changed, unchanged) = outcomes.split_at(5);
    assert!(changed.iter().all(|outcome| *outcome == Outcome::Changed));
    assert!(unchanged.iter().all(|outcome| *outcome == Outcome::Failed));
}

#[test]
fn of_two_fixes_at_once_the_last_word_is_that_of_one_on_all_coins() {
    let healthy = Healthy::with_coins(100);
    // They have been created just now.
    healthy.network.pass(NOT_FIXED_FOR);
    for _ in 0..5 {
        let orders = [(); 2].map(|()| healthy.order(&healthy.wallet, &[]));
        let changed = thread::scope(|scope| {
            let fixes = orders.each_ref().map(|order| {
                let healthy = &healthy;
                scope.spawn(move || {
                    let (outcomes, error) = healthy.network.client(BROKEN).fix(order);
                    assert!(error.is_none(), "{error:?}");
                    // A fix that came before the other's change overwrites none of it.
                    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
                    outcomes[0] == Outcome::Changed
                })
            });
            fixes.map(|fix| fix.join().unwrap())
        });
        let holds = orders.map(|order| healthy.holds(&numbers(&order)));
        assert!(holds[0] != holds[1], "{holds:?}");
        assert!(changed[0] >= holds[0] && changed[1] >= holds[1]);
    }
}

#[test]
fn a_server_that_is_killed_while_it_repairs_has_repaired_all_or_nothing() {
    let healthy = Healthy::with_coins(100);
    let (mut before, mut after) = (healthy.lose(&healthy.wallet), 0);
    const ROUNDS: usize = 4;
    for round in 0..ROUNDS {
        let order = healthy.order(&healthy.wallet, &[]);
        let pid = healthy.network.pid(BROKEN).unwrap();
        let wait = Duration::from_micros(rand::rng().random_range(0..12_000));
        thread::scope(|scope| {
            scope.spawn(|| {
                // Whatever becomes of it: the server may be gone before it answers.
                let _ = healthy.network.client(BROKEN).fix(&order);
            });
            thread::sleep(wait);
            kill_node(pid);
        });
        healthy.network.wait_until(|| {
            let node = healthy.network.node(BROKEN);
            node["state"] == "ready" && healthy.network.pid(BROKEN).is_some_and(|new| new != pid)
        });
        // What is in its log counts as changed when it started.
        healthy.network.pass(NOT_FIXED_FOR);
        let new = numbers(&order);
        let is_repaired = healthy.holds(&new);
        assert_eq!(healthy.holds(&before), !is_repaired, "round {round}");
        if is_repaired {
            before = new;
            after += 1;
        }
    }
    println!("{after} of {ROUNDS} fixes were whole when the server was killed");
}
