//! The log: what a record costs to encode, and what durable changes cost when a given number of
//! them wait at the same time, on the disk under target/tmp. With one change waiting, the time is
//! the disk's own for a write and a sync; the more changes wait, the more share it. And a start:
//! how long a recovery takes with a million lockers of two coins each, spread over all 15,000
//! pages, with a book of them or without.

mod real_core;

use std::{cell::Cell, rc::Rc, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use raida::runtime::{Live, Signal, keep_awake};
use raida::{
    coin::{An, COINS_PER_PAGE, Coin, Mfs, PageId, ShardId},
    store::{
        book::{BookFile, Entry, Notes, Stamp},
        log::Log,
        record::{Change, PageSequence, encode, encoded_bytes},
    },
};
use real_core::{Folder, coin_on, executor, log_settings, recovered, set_pace};

/// Changes of this many coins on one page, or on several where one page does not hold them.
fn changes(count: usize) -> (Vec<PageSequence>, Vec<Change>) {
    let coins = (0..count).map(|i| coin_on(i / 1_024, i % 1_024));
    let changes: Vec<Change> = coins
        .map(|(coin, an)| Change {
            coin,
            an,
            mfs: Mfs::new(1),
        })
        .collect();
    let mut pages: Vec<PageSequence> = Vec::new();
    for change in &changes {
        let page = change.coin.page();
        if pages.last().is_none_or(|last| last.page != page) {
            pages.push(PageSequence { page, sequence: 1 });
        }
    }
    (pages, changes)
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("log record");
    set_pace(&mut group);
    for count in [1, 100, 1_000] {
        let (pages, changes) = changes(count);
        let bytes = encoded_bytes(pages.len(), changes.len(), &Notes::default());
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("encode", count), |b| {
            let mut out = Vec::with_capacity(bytes);
            b.iter(|| {
                out.clear();
                encode(&pages, &changes, &Notes::default(), &mut out);
            });
        });
    }
    group.finish();
}

fn group_commit(c: &mut Criterion) {
    let folder = Folder::with([]);
    let executor = executor();
    let log = executor.run(async {
        keep_awake();
        let wanted = Rc::new(Signal::default());
        let log = Log::open(Live::new(folder.disk()), log_settings(0), wanted.clone());
        let log = log.await.expect("a log opens");
        glommio::spawn_local(recycle(log.clone(), wanted)).detach();
        log
    });
    let mut group = c.benchmark_group("group commit");
    set_pace(&mut group);
    for waiting in [1, 16, 64, 256] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("waiting", waiting), |b| {
            b.iter_custom(|times| {
                executor.run(async {
                    let left = Cell::new(times);
                    let start = Instant::now();
                    join_all((0..waiting).map(|_| change_one_coin(&log, &left))).await;
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
    executor.run(log.close());
}

/// Changes a coin durably, over and over, until all changes are done.
async fn change_one_coin(log: &Log<Live>, left: &Cell<u64>) {
    let (pages, changes) = changes(1);
    while let Some(rest) = left.get().checked_sub(1) {
        left.set(rest);
        let appended = log.append(&pages, &changes, &Notes::default()).await;
        let appended = appended.expect("the disk takes it");
        log.durable(&appended).await.expect("the disk keeps it");
        log.settle(appended);
    }
}

/// Frees segments as a node's checkpoints do, without pages to write.
async fn recycle(log: Rc<Log<Live>>, wanted: Rc<Signal>) {
    for round in 1.. {
        let moment = wanted.moment();
        wanted.after(moment).await;
        let mark = log.mark().await;
        log.recycle(mark, round, &raida::store::Checkpointed::default());
    }
}

/// Every page full; of its coins those up to some place are in lockers, two in each.
fn locker_coins() -> impl Iterator<Item = (Coin, An)> {
    const LOCKERS: u32 = 1_000_000;
    let coins = PageId::all().flat_map(|page| (0..COINS_PER_PAGE).map(move |at| page.coin(at)));
    let mut next = 0u32;
    coins.map(move |coin| {
        let mut an = [1; An::SIZE];
        an[..4].copy_from_slice(&(next / 2).wrapping_mul(0x9e37_79b1).to_be_bytes());
        if coin.place() < 134 && next < 2 * LOCKERS {
            next += 1;
            an[12..].fill(0xff);
        }
        (coin, An::new(an))
    })
}

fn start(c: &mut Criterion) {
    let folder = Folder::with(locker_coins());
    let executor = executor();
    let mut group = c.benchmark_group("start with a million lockers");
    set_pace(&mut group);
    group.sample_size(10);
    let measure = |times: u64| {
        executor.run(async {
            keep_awake();
            let disk = folder.disk();
            let start = Instant::now();
            for _ in 0..times {
                let found = recovered(&disk).await;
                assert_eq!(found.book.coins.len(), 2_000_000);
            }
            start.elapsed()
        })
    };
    group.bench_function("without a book", |b| b.iter_custom(measure));
    executor.run(write_book(&folder));
    group.bench_function("with a book of all", |b| b.iter_custom(measure));
    group.finish();
}

/// Does what a shard does in a checkpoint.
async fn write_book(folder: &Folder) {
    let found = recovered(&folder.disk()).await;
    let coins = found.book.coins.iter().zip(1..);
    let mut entries = coins.map(|(placed, moment)| {
        let stamp = Stamp { moment, rank: 0 };
        Entry::Coin(placed.coin, stamp)
    });
    let next = |some: &mut Vec<Entry>| some.extend(entries.by_ref().take(4_000));
    let environment = Live::new(folder.disk());
    let book = BookFile::new(ShardId::new(0), 1);
    let start = Instant::now();
    let written = book.write(&environment, found.round + 1, next, &async || ());
    written.await.expect("the disk takes it");
    println!(
        "the book is written in {:.3} s",
        start.elapsed().as_secs_f32()
    );
}

criterion_group!(benches, record, group_commit, start);
criterion_main!(benches);
