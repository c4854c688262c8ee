//! Fixes with invented tickets: each makes the node send wrong claims in its own name to the other
//! servers, which refuse its claims once too many were wrong.

use std::process::Command as Process;

use raida::client::wallet::{Access, Wallet};
use raida::client::{FixOrder, Outcome, PerRaida};
use raida::coin::{An, Coin};
use raida::protocol::healing::{Fix, PartialGenerator, TicketId};
use raida::protocol::{Command, Protection, RaidaId, ResponseCounter, Status};

use crate::network_process::Network;
use crate::real_node::{RAIDA, wire::compose};
use crate::tickets::tcp_from;

/// The others' limit: twice the claims that a node sends.
const WRONG_CLAIMS_PER_MIN: u32 = 240;

#[test]
fn strangers_with_invented_tickets_do_not_stop_the_fixes_of_others() {
    let network = Network::new()
        .with("limits.wrong_claims_per_min", WRONG_CLAIMS_PER_MIN)
        .with("limits.healing_per_s", 100_000)
        .start();
    let folder = tempfile::tempdir().unwrap();
    let wallet = folder.path().join("wallet");
    let minted = Process::new(env!("CARGO_BIN_EXE_raida"))
        .args(["mint", "--denomination", "1", "--count", "4", "--network"])
        .arg(network.dir())
        .arg("--wallet")
        .arg(&wallet)
        .output()
        .unwrap();
    assert!(minted.status.success(), "{minted:?}");
    // Long ago, so that only the tickets can prevent a fix.
    network.pass(1_000);
    let wallet = Wallet::open(&wallet, Access::Look).unwrap();
    let coins: Vec<Coin> = wallet.coins().iter().map(|c| c.file.coin).collect();
    // Any votes would do for this: the node fixes what 13 others vouch for.
    let fix = |round: u8| {
        let tickets = PerRaida::from_fn(|raida| {
            let numbers = wallet
                .coins()
                .iter()
                .map(|c| (c.file.coin, c.file.an(raida)));
            let numbers: Vec<(Coin, An)> = numbers.collect();
            let issued = || network.client(raida.get()).get_ticket(&numbers).unwrap();
            (raida != RAIDA).then(|| issued().issued[0].1)
        });
        let order = FixOrder {
            coins: coins.clone(),
            generator: PartialGenerator::new([round; 16]),
            tickets,
        };
        let (outcomes, error) = network.client(RAIDA.get()).fix(&order);
        assert!(error.is_none(), "{error:?}");
        outcomes.iter().all(|&outcome| outcome == Outcome::Changed)
    };
    assert!(fix(1), "before");

    for last in 2..8 {
        let mut wire = tcp_from(last, network.address(RAIDA.get()));
        for number in 0..100_u64 {
            let ticket = |raida: RaidaId| {
                let number = u32::from(last) << 24 | (number as u32) << 8 | u32::from(raida.get());
                TicketId::new(number)
            };
            let mut payload = Vec::new();
            let generator = PartialGenerator::new([last; 16]);
            Fix::compose(coins.iter().copied(), &generator, ticket, &mut payload);
            let asked = compose(Command::Fix, Protection::None, Some(&payload), number);
            let answer = wire.ask(&asked, ResponseCounter::Restart);
            assert_eq!(answer.status, Status::ALL_FAIL);
        }
    }
    for round in 2..6 {
        assert!(fix(round), "round {round}");
    }
}
