//! A dishonest server that is handed the tickets of a wallet: none of the others gives it the
//! coins.

use std::process::Command;
use std::thread;

use crate::network_process::Network;
use raida::client::wallet::{Access, CoinFile, Wallet};
use raida::client::{FixOrder, Outcome, PerRaida};
use raida::coin::{An, Coin};
use raida::protocol::RaidaId;
use raida::protocol::healing::{PartialGenerator, TicketId};

/// The dishonest one.
const LIAR: u8 = 7;
const COINS: usize = 30;

#[test]
fn who_is_handed_24_tickets_takes_no_coin_at_any_of_the_servers_that_gave_them() {
    let network = Network::new().with("shards.count", 2).start();
    let folder = tempfile::tempdir().unwrap();
    let wallet = folder.path().join("wallet");
    let count = COINS.to_string();
    let minted = Command::new(env!("CARGO_BIN_EXE_raida"))
        .args(["mint", "--denomination", "1", "--count", &count])
        .arg("--network")
        .arg(network.dir())
        .arg("--wallet")
        .arg(&wallet)
        .output()
        .unwrap();
    assert!(minted.status.success(), "{minted:?}");
    // Long ago, so that only the tickets can prevent a fix.
    network.pass(1_000);
    let wallet = Wallet::open(&wallet, Access::Look).unwrap();
    let files: Vec<CoinFile> = wallet.coins().iter().map(|c| c.file.clone()).collect();
    let of = |raida: RaidaId| -> Vec<(Coin, An)> {
        files
            .iter()
            .map(|file| (file.coin, file.an(raida)))
            .collect()
    };

    // The liar has failed all coins, and the wallet has it repaired: it is handed tickets of all
    // others, by the numbers and by their sum in turns.
    let mut tickets = PerRaida::from_fn(|_| None);
    let honest: Vec<RaidaId> = RaidaId::all().filter(|raida| raida.get() != LIAR).collect();
    for &raida in &honest {
        let mut client = network.client(raida.get());
        let ticket: TicketId = match raida.get() % 2 {
            0 => client.get_ticket(&of(raida)).unwrap().issued[0].1,
            _ => {
                let sum = of(raida).iter().fold(An::ZERO, |sum, &(_, an)| sum ^ an);
                let coins: Vec<Coin> = files.iter().map(|file| file.coin).collect();
                let ticket = client.get_ticket_sum(&coins, sum).unwrap();
                ticket.expect("the sum is right")
            }
        };
        tickets[raida] = Some(ticket);
    }
    let order = FixOrder {
        coins: files.iter().map(|file| file.coin).collect(),
        generator: PartialGenerator::new([0x51; 16]),
        tickets,
    };
    let attack = |order: &FixOrder| -> Vec<bool> {
        thread::scope(|scope| {
            let fixes: Vec<_> = honest
                .iter()
                .map(|&raida| {
                    let network = &network;
                    scope.spawn(move || {
                        let (outcomes, error) = network.client(raida.get()).fix(order);
                        assert!(error.is_none(), "RAIDA {raida}: {error:?}");
                        outcomes.contains(&Outcome::Changed)
                    })
                })
                .collect();
            fixes.into_iter().map(|fix| fix.join().unwrap()).collect()
        })
    };
    let taken = attack(&order);
    assert!(!taken.contains(&true), "{taken:?}");
    for &raida in &honest {
        let passed = network.client(raida.get()).detect(&of(raida)).unwrap();
        assert!(passed.iter().all(|&passed| passed), "RAIDA {raida}");
    }

    // Expired tickets are worth nothing anywhere.
    network.pass(310);
    let taken = attack(&order);
    assert!(!taken.contains(&true), "{taken:?}");
}
