//! One honest client beside each attack that a stranger can make who has only read the protocol:
//! what the client still gets from the node, how much memory the node takes, and what the targets
//! of the attack get.
//!
//! `perf/attacks` runs it on the release build; see there. The node runs on the first CPU,
//! everything else on the last one, and the honest client has priority over the attackers, so that
//! the test measures the node and not its clients.
//!
//! `RAIDA_ATTACKS` names the attacks to be measured, `RAIDA_ATTACKS_ALL=1` takes their relatives as
//! well, `RAIDA_ATTACKS_ROUNDS` sets how often each, `RAIDA_ATTACKS_QUICK=1` only shows that they
//! work, `RAIDA_ATTACKS_OUT` names the file for the page.

mod attack;
mod crowd;
mod honest;
mod machine;
mod measure;
#[path = "../support/node_process/mod.rs"]
mod node_process;
mod report;
mod rows;
mod site;
mod wire;

use std::env::var;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use attack::Attack;
use machine::{Cpus, load_average, raise_descriptors};
use measure::{Extent, measure};
use report::Page;

/// Descriptors for 10,000 connections and the rest.
const DESCRIPTORS_MIN: u64 = 11_000;

/// A measurement, not a test: `perf/attacks`.
#[test]
#[ignore = "a measurement of the release build"]
fn one_honest_client_beside_each_attack() {
    let chosen = chosen();
    let extent = extent();
    let descriptors = raise_descriptors();
    assert!(
        descriptors >= DESCRIPTORS_MIN,
        "{descriptors} file descriptors are too few: allow this process {DESCRIPTORS_MIN} (ulimit -Hn)"
    );
    let load = load_average();
    let cpus = Cpus::share();
    println!(
        "node on CPU {}, clients on CPU {}, load average {load}",
        cpus.node, cpus.clients
    );
    let mut page = Page::new();
    for attack in &chosen {
        println!("{}", attack.what());
        // An attack that cannot be made here must not keep the others from being measured.
        let measured = catch_unwind(AssertUnwindSafe(|| measure(&**attack, cpus, extent)));
        match measured {
            Ok(measured) => print!("{}", page.add(&**attack, &measured)),
            Err(panic) => page.add_failed(&**attack, &said(&*panic)),
        }
    }
    let text = page.text(extent, &load);
    match var("RAIDA_ATTACKS_OUT") {
        Ok(file) => std::fs::write(&file, text).expect("the page can be written"),
        Err(_) => println!("\n{text}"),
    }
    let broken = &page.broken;
    assert!(broken.is_empty(), "does not hold:\n{}", broken.join("\n"));
}

/// The attacks that `RAIDA_ATTACKS` names, or all: without those that are relatives of others,
/// unless `RAIDA_ATTACKS_ALL` is set.
fn chosen() -> Vec<Box<dyn Attack>> {
    let all = rows::all();
    let names = var("RAIDA_ATTACKS").unwrap_or_default();
    let names: Vec<&str> = names.split_whitespace().collect();
    for name in &names {
        let known: Vec<&str> = all.iter().map(|attack| attack.name()).collect();
        assert!(
            known.contains(name),
            "there is no attack {name:?}; there are {}",
            known.join(", ")
        );
    }
    let named = all.into_iter();
    let with_relatives = var("RAIDA_ATTACKS_ALL").is_ok();
    let named = named.filter(|attack| match names.is_empty() {
        true => with_relatives || !attack.is_relative(),
        false => names.contains(&attack.name()),
    });
    named.collect()
}

fn extent() -> Extent {
    let ms = Duration::from_millis;
    let mut extent = match var("RAIDA_ATTACKS_QUICK") {
        Ok(_) => Extent {
            rounds: 1,
            closed: ms(300),
            paced: ms(500),
            memory: ms(3_000),
        },
        Err(_) => Extent {
            rounds: 3,
            closed: ms(500),
            paced: ms(800),
            memory: ms(8_000),
        },
    };
    if let Ok(rounds) = var("RAIDA_ATTACKS_ROUNDS") {
        extent.rounds = rounds.parse().expect("RAIDA_ATTACKS_ROUNDS is a number");
    }
    extent
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned())
}
