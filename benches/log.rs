//! The log: what a record costs to encode, and what durable changes cost when so many wait at the
//! same time, on the disk under target/tmp. One waiting is the disk's own time for a write and a
//! sync; the more wait, the more share it.

mod real_core;

use std::{cell::Cell, rc::Rc, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use raida::{
    coin::Mfs,
    store::{
        Live, Signal,
        book::Notes,
        keep_awake,
        log::Log,
        record::{Change, PageSequence, encode, encoded_bytes},
    },
};
use real_core::{Folder, coin_on, executor, log_settings, set_pace};

/// Changes of so many coins on one page, or on more where one does not hold them.
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

/// Changes a coin durably, over and over, until all have been.
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

/// Frees segments as a node's checkpoints do, only that there are no pages to write.
async fn recycle(log: Rc<Log<Live>>, wanted: Rc<Signal>) {
    for round in 1.. {
        let moment = wanted.moment();
        wanted.after(moment).await;
        let mark = log.mark().await;
        log.recycle(mark, round);
    }
}

criterion_group!(benches, record, group_commit);
criterion_main!(benches);
