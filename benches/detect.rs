//! A detect on its way through a core, from a request's bytes to its answer's, without sockets:
//! over 1, 100 and 1,000 coins,
//!
//! - warm: the same coins again and again, which the processor's caches hold;
//! - scattered: coins of all 15,000 pages, which memory holds and caches do not;
//! - cold: pages that have to be read from the disk first, one for each coin.

mod real_core;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use glommio::LocalExecutor;
use raida::runtime::{Live, keep_awake};
use raida::{
    coin::{An, Coin},
    mesh::{Mesh, inboxes},
    protocol::{
        AdminKey, Command, Encryption, Protection, Request, ResponseHeader, Status,
        authentication::Detect,
    },
    service::{DatagramRules, Outcome, Service, Session, Trading, Transport},
    shard::Shard,
};
use real_core::{
    Folder, PAGES, coin_on, executor, healing, recovered, rules, set_pace, shard_settings,
};

/// Coins a request.
const SIZES: [usize; 3] = [1, 100, 1_000];
/// Pages in memory for the case where no asked page is in memory: more than a request needs, far
/// fewer than there are.
const FEW_PAGES: usize = 1_200;

fn main_coin(page: usize) -> (Coin, An) {
    coin_on(page, page * 37 % 1_024)
}

/// A core that has all pages and keeps this many in memory.
struct Core {
    executor: LocalExecutor,
    session: RefCell<Session<Live>>,
}

impl Core {
    fn open(folder: &Folder, cache_pages: usize) -> Core {
        let executor = executor();
        let session = executor.run(async {
            keep_awake();
            let recovered = recovered(&folder.disk()).await;
            let environment = Live::new(folder.disk());
            let settings = shard_settings(0, 1, cache_pages);
            let shard = Shard::open(environment, settings, &recovered).await;
            let mesh: Rc<Mesh<Live>> = Mesh::join(shard.expect("a shard opens"), inboxes(1));
            let service = Service::new(
                mesh,
                rules(),
                AdminKey::new([1; 16]),
                DatagramRules {
                    amplification: 3,
                    refusals_per_s: 100,
                },
                healing(),
                Trading::without_settlement(),
            );
            service.session(Transport::Tcp)
        });
        Core {
            executor,
            session: RefCell::new(session),
        }
    }

    /// Asks, however long the answer takes.
    fn ask(&self, requests: &mut [Vec<u8>], times: u64) -> Duration {
        self.executor.run(async {
            let mut out = Vec::new();
            let start = Instant::now();
            for request in 0..times as usize {
                let request = &mut requests[request % requests.len()];
                out.clear();
                let outcome = self.session.borrow_mut().request(request, &mut out);
                match outcome {
                    Outcome::Later(answer) => out = answer.await.bytes,
                    Outcome::Answered | Outcome::Silent => {}
                    Outcome::Parked(_) => unreachable!("the only shard answers a detect itself"),
                }
                assert_eq!(status(&out), Some(Status::ALL_PASS));
            }
            start.elapsed()
        })
    }

    /// Asks for what memory holds: the answer is there when the call is over.
    fn ask_now(&self, request: &mut [u8], out: &mut Vec<u8>) {
        out.clear();
        let outcome = self.session.borrow_mut().request(request, out);
        assert!(matches!(outcome, Outcome::Answered));
    }
}

fn status(response: &[u8]) -> Option<Status> {
    ResponseHeader::parse(response, Encryption::None).map(|header| header.status)
}

fn request(coins: impl Iterator<Item = (Coin, An)>) -> Vec<u8> {
    let (mut payload, mut bytes) = (Vec::new(), Vec::new());
    Detect::compose(coins, &mut payload);
    let request = Request {
        to: rules().raida,
        coin_id: rules().coin_id,
        command: Command::Detect,
        protection: Protection::None,
        echo: [1, 2],
        challenge: [3; 12],
        nonce: [4; 22],
        payload: Some(&payload),
    };
    request.compose(&mut bytes).expect("it is short enough");
    bytes
}

/// Requests that together name every page once, in an order that no prefetcher guesses.
fn over_all_pages(coins: usize) -> Vec<Vec<u8>> {
    let pages: Vec<usize> = (0..PAGES).map(|i| i * 7_919 % PAGES).collect();
    let requests = pages.chunks_exact(coins);
    requests
        .map(|pages| request(pages.iter().map(|&page| main_coin(page))))
        .collect()
}

fn detect(c: &mut Criterion) {
    let folder = Folder::with((0..PAGES).map(main_coin));
    in_memory(c, &folder);
    from_disk(c, &folder);
}

fn in_memory(c: &mut Criterion, folder: &Folder) {
    let core = Core::open(folder, PAGES);
    for coins in SIZES {
        let mut requests = over_all_pages(coins);
        let all = requests.len();
        core.ask(&mut requests, all as u64); // Loads every page.
        for (name, count) in [("detect, warm", 1), ("detect, scattered", all)] {
            let mut group = c.benchmark_group(name);
            set_pace(&mut group);
            group.throughput(Throughput::Elements(coins as u64));
            group.bench_function(BenchmarkId::from_parameter(coins), |b| {
                let (mut out, mut next) = (Vec::new(), 0);
                b.iter(|| {
                    next = (next + 1) % count;
                    core.ask_now(&mut requests[next], &mut out);
                });
                assert_eq!(status(&out), Some(Status::ALL_PASS));
            });
            group.finish();
        }
    }
}

fn from_disk(c: &mut Criterion, folder: &Folder) {
    let core = Core::open(folder, FEW_PAGES);
    let mut group = c.benchmark_group("detect, cold");
    set_pace(&mut group);
    for coins in SIZES {
        let mut requests = over_all_pages(coins);
        group.throughput(Throughput::Elements(coins as u64));
        group.bench_function(BenchmarkId::from_parameter(coins), |b| {
            b.iter_custom(|times| {
                let elapsed = core.ask(&mut requests, times);
                // What was asked last is in memory now: it comes last the next time as well.
                let asked = times as usize % requests.len();
                requests.rotate_left(asked);
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group!(benches, detect);
criterion_main!(benches);
