//! The generator itself allocates nothing while it asks: an allocation now and then would show in
//! the latencies, and cost a request as much as the node's own work.

#[path = "support/small_node/mod.rs"]
mod small_node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use raida::coin::{An, PageId};
use raida::load::kind::{KindCount, Mix, Setup, Verdict};
use raida::load::{
    Addressee, Choice, Held, Io, Keyring, Kind, LoadError, Pace, Plan, Purse, Spacing, Stop, Stream,
};
use raida::protocol::{Command, RaidaId, Status};
use rand::rngs::SmallRng;
use small_node::{RAIDA, SmallNode};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all work is the system allocator's; counting touches a number of the thread's own, which
// needs neither an allocation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller says.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests in a row that are looked at together.
const ROW: u64 = 100;
/// Times that a kind of request is measured, at most.
const RUNS: usize = 3;
/// Rows in which buffers grow, and which do not count.
const SETTLING: u64 = 5;

/// Another kind, and how often its thread allocated from one request to the next.
struct Watched {
    kind: Box<dyn Kind>,
    requests: u64,
    before: u64,
    /// Rows with allocations in them.
    allocating: u64,
}

impl Kind for Watched {
    fn request(&mut self, slot: usize, rng: &mut SmallRng, out: &mut Vec<u8>) -> Option<Command> {
        self.requests += 1;
        if self.requests.is_multiple_of(ROW) {
            let now = ALLOCATIONS.get();
            let is_settled = self.requests > SETTLING * ROW;
            self.allocating += u64::from(is_settled && now > self.before);
            self.before = now;
        }
        self.kind.request(slot, rng, out)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        self.kind.answer(slot, status, payload)
    }

    fn lost(&mut self, slot: usize) {
        self.kind.lost(slot);
    }

    fn withdraw(&mut self, slot: usize) {
        self.kind.withdraw(slot);
    }

    fn prepare(&mut self) {
        self.kind.prepare();
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        self.kind.finish()
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.kind.coins()
    }

    fn counts(&self) -> Vec<KindCount> {
        let count = |name, right| KindCount {
            name,
            right,
            wrong: 0,
            refused: 0,
            lost: 0,
        };
        vec![
            count("rows", self.requests / ROW),
            count("allocating", self.allocating),
        ]
    }
}

#[test]
fn the_generator_allocates_nothing_for_a_request_of_one_coin() {
    let page = PageId::from_index(40).unwrap();
    let coins: Vec<_> = (0..200)
        .map(|place| (page.coin(place), An::new([place as u8; 16])))
        .collect();
    // A store takes its coins until the next slice.
    let to_store: Vec<_> = (41..71)
        .flat_map(|page| (0..1_000).map(move |place| (page, place)))
        .map(|(page, place)| {
            let number = (page * 1_000 + place) as u128;
            let coin = PageId::from_index(page).unwrap().coin(place);
            (coin, An::new((number << 40).to_be_bytes()))
        })
        .collect();
    let udp = Stream::Udp { in_flight: 16 };
    let tcp = Stream::Tcp {
        connections: 4,
        depth: 4,
    };
    let open = Pace::Open {
        rate: 20_000.0,
        spacing: Spacing::Poisson,
    };
    for (stream, io, pace) in [
        (udp, Io::Syscalls, Pace::Closed),
        (udp, Io::Syscalls, open),
        (tcp, Io::Syscalls, Pace::Closed),
        (udp, Io::Uring, Pace::Closed),
        (tcp, Io::Uring, Pace::Closed),
    ] {
        for kind in [
            "echo",
            "detect",
            "detect-sum",
            "pown",
            "pown-sum",
            "encryption-ticket",
            "put",
            "peek",
        ] {
            // A stall of the machine lets more requests wait than before, and buffers grow for them
            // once. A request that allocates does so in every run.
            let run = || {
                let coins = if kind == "put" { &to_store } else { &coins };
                // With no others: it looks through all of its coins for those of a locker.
                let node = SmallNode::start();
                node.put(coins.clone());
                let mut purse = Purse::new(coins.clone()).unwrap();
                let keys = purse.keys(4);
                let plan = Plan {
                    node: SocketAddr::from(([127, 0, 0, 1], node.address.port())),
                    addressee: Addressee {
                        raida: RaidaId::new(RAIDA).unwrap(),
                        coin_id: 6,
                    },
                    keyring: Keyring::aes_hmac(keys),
                    stream,
                    io,
                    cpus: vec![None],
                    node_pid: None,
                    node_cpus: vec![],
                    echo: false,
                    echo_uring: false,
                    redis: None,
                    disk: None,
                    pace,
                    sweep: None,
                    sweep_spacing: Spacing::Poisson,
                    late_after: Duration::from_secs(1),
                    warm_up: Duration::ZERO,
                    duration: Duration::from_millis(600),
                    slices: 1,
                    timeout: Duration::from_secs(5),
                    progress: None,
                    stop: Stop::default(),
                };
                let watched = Watched {
                    kind: Mix::one(kind).unwrap().kind(Setup {
                        coins: purse.deal(1).remove(0),
                        coins_per_request: 1,
                        slots: plan.slots_per_thread(),
                        choice: Choice::Uniform,
                        side_door: plan.side_door(),
                    }),
                    requests: 0,
                    before: 0,
                    allocating: 0,
                };
                let outcome = plan.run(vec![Box::new(watched)]).unwrap();
                let (rows, allocating) = (outcome.kinds[0].right, outcome.kinds[1].right);
                assert!(rows > 8, "{kind} by {io:?}: {rows} rows");
                let whole = outcome.measured[0].whole();
                assert_eq!((whole.wrong, whole.lost), (0, 0));
                (allocating, rows)
            };
            // The row in which the turn changes from settling to counting, and one more where a
            // buffer grows a last time.
            let is_well = |&(allocating, _): &(u64, u64)| allocating <= 2;
            let mut seen = vec![run()];
            while seen.len() < RUNS && !seen.last().is_some_and(is_well) {
                seen.push(run());
            }
            assert!(
                seen.last().is_some_and(is_well),
                "{kind} by {io:?}: rows that allocate, and all rows: {seen:?}"
            );
        }
    }
}
