//! The store, the shards and the mesh on a disk that fails in every way its contract allows.
//!
//! `RAIDA_SIMULATION_SEED=N cargo test --test simulation` lives through one history again;
//! `RAIDA_SIMULATION_HISTORIES=N` sets how many there are (2,000 without; with `--release` many
//! more take no longer).

mod book_cases;
mod book_damage;
mod books;
mod crowded;
mod damage;
mod disk;
mod history;
mod import;
mod model;
mod node;
mod one_coin;
mod order;
mod random;
mod service;
mod used;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use history::{Counts, Told};

const HISTORIES: u64 = 1_000;
/// Histories may fail in several ways: this many failures are reported, and the rest left out.
const FAILURES_MAX: u64 = 20;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// Does something for each seed below `end`, on all cores.
fn in_parallel<T: Send>(end: u64, each: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let done = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= end {
                        return;
                    }
                    let came = each(seed);
                    done.lock().expect("nobody panics with it").push(came);
                }
            });
        }
    });
    done.into_inner().expect("nobody panics with it")
}

fn live(seed: u64) -> Told {
    let lived = catch_unwind(AssertUnwindSafe(|| history::live(seed)));
    let wrong = match lived {
        Ok(Ok(told)) => return told,
        Ok(Err(wrong)) => wrong,
        Err(_) => "a panic (above)".to_owned(),
    };
    panic!(
        "history {seed}: {wrong}\nagain: RAIDA_SIMULATION_SEED={seed} cargo test --test simulation answered"
    );
}

#[test]
fn every_answered_change_is_there_and_every_other_wholly_or_not_at_all() {
    if let Some(seed) = setting("RAIDA_SIMULATION_SEED") {
        println!("{:#?}", live(seed).counts);
        return;
    }
    let histories = setting("RAIDA_SIMULATION_HISTORIES").unwrap_or(HISTORIES);
    keep_freed_memory();
    let start = Instant::now();
    let failures = AtomicU64::new(0);
    let lived = in_parallel(histories, |seed| {
        if failures.load(Relaxed) >= FAILURES_MAX {
            return None;
        }
        let told = catch_unwind(|| live(seed));
        if told.is_err() {
            failures.fetch_add(1, Relaxed);
        }
        told.ok()
    });
    let seconds = start.elapsed().as_secs_f32();
    let mut total = Counts::default();
    for told in lived.into_iter().flatten() {
        total += told.counts;
    }
    println!("{histories} histories in {seconds:.1} s\n{total:#?}");
    let failures = failures.into_inner();
    assert_eq!(failures, 0, "histories went wrong (above)");
    if histories >= HISTORIES {
        assert_worth(&total, histories);
    }
}

/// An event that never happened was not tested.
fn assert_worth(total: &Counts, histories: u64) {
    // In 10,000 histories.
    let least = [
        ("crashes", total.crashes, 5_000),
        ("crashes in recovery", total.crashes_in_recovery, 500),
        ("crashes in the periodic mode", total.periodic_crashes, 500),
        ("recoveries that failed", total.failed_recoveries, 100),
        ("starts without some files", total.losses, 5_000),
        ("of these refused", total.refused_losses, 2_000),
        ("tails cut short", total.torn_tails, 150),
        ("changes found in logs", total.recovered_changes, 100_000),
        ("stops in good order", total.stops, 1_000),
        ("coins exchanged", total.exchanged, 100_000),
        ("of them without a task", total.singles, 10_000),
        ("of them without waiting", total.chained, 10_000),
        ("that shared a record", total.shared, 5_000),
        ("that changed nothing", total.unchanged, 5_000),
        ("changes of several coins", total.changed_together, 50_000),
        ("such changes refused", total.refused_together, 10_000),
        ("answers of unavailable", total.unavailable, 10_000),
        (
            "of these, on a full disk",
            total.unavailable_when_full,
            5_000,
        ),
        ("answers known beforehand", total.exact_answers, 1_000_000),
        ("writes torn", total.disk.torn_writes, 10_000),
        ("writes lost", total.disk.lost_writes, 5_000),
        ("writes failed", total.disk.failed_writes, 5_000),
        ("syncs failed", total.disk.failed_syncs, 5_000),
        ("reads failed", total.disk.failed_reads, 5_000),
        (
            "refusals for lack of room",
            total.disk.refused_for_room,
            5_000,
        ),
        ("segments recycled", total.disk.recycled_segments, 10_000),
        ("writes undone", total.disk.undone_writes, 2_000),
        ("page files made durable", total.disk.page_syncs, 100_000),
        ("pages read again", total.disk.evictions, 50_000),
    ];
    for (what, count, least) in least {
        let least = least * histories / 10_000;
        assert!(count >= least, "only {count} {what}, not {least}");
    }
}

/// Each start of a node fills and frees megabytes: giving them back to the system in between takes
/// a third of the time.
fn keep_freed_memory() {
    // SAFETY: mallopt takes two numbers, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
    }
}

#[test]
fn a_seed_tells_the_same_history_again() {
    for seed in 0..20 {
        assert_eq!(live(seed).trace, live(seed).trace, "seed {seed}");
    }
}
