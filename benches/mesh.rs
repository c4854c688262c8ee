//! A question to another core's shard and the answer back,
//!
//! - asleep: both cores have nothing else to do, and sleep until the message comes;
//! - busy: both always have other work, and yield after each piece of it, as every long loop of a
//!   node does;
//! - 64 under way: what one of many questions costs, where one look finds several.

mod real_core;

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::future::join_all;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, timer::sleep};
use raida::runtime::{Live, keep_awake, turn};
use raida::{
    coin::ShardId,
    mesh::{Inbox, Mesh, inboxes},
    shard::{Shard, question},
    store::recovery::Recovered,
};
use real_core::{Folder, PAGES, executor, recovered, set_pace, shard_settings};

const UNDER_WAY: u64 = 64;
/// Long enough for both cores to have gone to sleep.
const UNTIL_ASLEEP: Duration = Duration::from_micros(300);
/// How often the other core checks whether the benchmark is over.
const LOOK: Duration = Duration::from_millis(20);

/// Two cores of a node; the first is this thread's.
struct Cores {
    executor: LocalExecutor,
    mesh: Rc<Mesh<Live>>,
    is_over: Arc<AtomicBool>,
    other: Option<std::thread::JoinHandle<()>>,
}

impl Cores {
    fn start(folder: &Folder, is_busy: bool) -> Cores {
        let executor = executor();
        let (inboxes, is_over) = (inboxes(2), Arc::new(AtomicBool::new(false)));
        let recovered = executor.run(async { recovered(&folder.disk()).await });
        let (ready, is_ready) = mpsc::channel();
        let other = {
            let (inboxes, is_over) = (inboxes.clone(), is_over.clone());
            let (recovered, path) = (recovered.clone(), folder.at.path().to_owned());
            let core = move || async move {
                let disk = raida::runtime::Disk::new(&path);
                let mesh = join(disk, 1, inboxes, &recovered, is_busy).await;
                ready.send(()).expect("the first core waits");
                while !is_over.load(Ordering::Relaxed) {
                    sleep(LOOK).await;
                }
                mesh.stop();
                mesh.shard().log.close().await;
            };
            let other = LocalExecutorBuilder::new(Placement::Unbound).spawn(core);
            let other = other.expect("another executor");
            std::thread::spawn(move || other.join().expect("the other core ends in order"))
        };
        is_ready.recv().expect("the other core opens its shard");
        let mesh = executor.run(join(folder.disk(), 0, inboxes, &recovered, is_busy));
        Cores {
            executor,
            mesh,
            is_over,
            other: Some(other),
        }
    }

    /// Asks the other core's shard for something that it knows at once.
    async fn ask(&self) {
        self.mesh.ask(ShardId::new(1), question::Count).await;
    }
}

async fn join(
    disk: raida::runtime::Disk,
    shard: u16,
    inboxes: Arc<[Inbox<Live>]>,
    recovered: &Recovered,
    is_busy: bool,
) -> Rc<Mesh<Live>> {
    keep_awake();
    if is_busy {
        let other_work = async {
            loop {
                turn().await;
            }
        };
        glommio::spawn_local(other_work).detach();
    }
    let settings = shard_settings(shard, 2, PAGES / 2);
    let shard = Shard::open(Live::new(disk), settings, recovered).await;
    Mesh::join(shard.expect("a shard opens"), inboxes)
}

impl Drop for Cores {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(other) = self.other.take() {
            let _ = other.join();
        }
        self.executor.run(self.mesh.shard().log.close());
    }
}

fn hop(c: &mut Criterion) {
    let folder = Folder::with([]);
    let mut group = c.benchmark_group("hop to another core and back");
    set_pace(&mut group);
    let cores = Cores::start(&folder, false);
    group.bench_function("asleep", |b| {
        b.iter_custom(|times| {
            cores.executor.run(async {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    sleep(UNTIL_ASLEEP).await;
                    let start = Instant::now();
                    cores.ask().await;
                    taken += start.elapsed();
                }
                taken
            })
        });
    });
    group.bench_function("64 under way", |b| {
        b.iter_custom(|times| {
            cores.executor.run(async {
                let start = Instant::now();
                join_all((0..UNDER_WAY).map(async |task| {
                    // Each takes its share; the first ones take the remainder as well.
                    for _ in 0..(times + UNDER_WAY - 1 - task) / UNDER_WAY {
                        cores.ask().await;
                    }
                }))
                .await;
                start.elapsed()
            })
        });
    });
    drop(cores);
    let cores = Cores::start(&folder, true);
    group.bench_function("busy", |b| {
        b.iter_custom(|times| {
            cores.executor.run(async {
                let start = Instant::now();
                for _ in 0..times {
                    cores.ask().await;
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

criterion_group!(benches, hop);
criterion_main!(benches);
