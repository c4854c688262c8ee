//! The node allocates nothing while it serves requests about one coin. Every turn of a core's loop
//! has some allocations of glommio's (a wait for sockets, a write to the log), however many
//! requests the turn answers; so the test compares rounds of many requests with rounds of one.

#[path = "support/real_node/mod.rs"]
mod real_node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use raida::coin::{An, Coin, Mfs, PageId};
use raida::protocol::authentication::{Detect, Pown};
use raida::protocol::healing::GetTicket;
use raida::protocol::key_healing::{GetEncryptionTicket, split};
use raida::protocol::{Command, Protection, RaidaId, Request, Status};

use real_node::{COIN_ID, PATIENCE, RAIDA, RealNode};

/// Requests sent at once in a round of many: what a connection may have waiting, and no more than
/// one packet of the loopback.
const MANY: usize = 64;
const ROUNDS: u64 = 500;

/// Counts the allocations of threads other than the tests' own.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came; counting takes no memory (the
// thread-local is initialised at compile time and has no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count() {
    if !IS_CLIENT.get() {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

fn coin(place: usize) -> Coin {
    PageId::from_index(7_042).unwrap().coin(place)
}

fn an(place: usize, round: u64) -> An {
    An::new((place as u128 + 1 + (u128::from(round % 2) << 64)).to_be_bytes())
}

/// The requests of a round.
fn requests(command: Command, count: usize, round: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for place in 0..count {
        let mut payload = Vec::new();
        let mut protection = Protection::None;
        match command {
            Command::Detect => Detect::compose([(coin(place), an(place, 0))], &mut payload),
            Command::GetTicket => GetTicket::compose([(coin(place), an(place, 0))], &mut payload),
            Command::EncryptionTicket => {
                let coin = coin(place);
                protection = Protection::CoinHmac(coin, an(place, 0));
                GetEncryptionTicket {
                    broken: RaidaId::new(3).unwrap(),
                    coin,
                    part: split(an(place, 1))[0],
                    an: None,
                }
                .compose(&mut payload);
            }
            _ => {
                let record = (coin(place), an(place, round), an(place, round + 1));
                Pown::compose([record], &mut payload);
            }
        }
        let request = Request {
            to: RAIDA,
            coin_id: COIN_ID,
            command,
            protection,
            echo: [1, 2],
            challenge: [3; 12],
            nonce: [4; 22],
            payload: Some(&payload),
        };
        request.compose(&mut bytes).unwrap();
    }
    bytes
}

/// The fewest allocations of the node in a round of `count` requests: the round that took the
/// fewest turns.
fn fewest(stream: &mut TcpStream, command: Command, count: usize) -> u64 {
    let rounds = [0, 1].map(|round| requests(command, count, round));
    let (size, status) = match command {
        // Ticket, HMAC and trailer.
        Command::EncryptionTicket => (48 + 16 + 32 + 2, Status::SUCCESS),
        // Ticket and trailer.
        Command::GetTicket => (32 + 4 + 2, Status::ALL_PASS),
        _ => (32, Status::ALL_PASS),
    };
    let mut answers = vec![0; count * size];
    let mut fewest = u64::MAX;
    for round in 0..ROUNDS {
        let before = ALLOCATIONS.load(Relaxed);
        stream.write_all(&rounds[(round % 2) as usize]).unwrap();
        stream.read_exact(&mut answers).unwrap();
        for answer in answers.chunks(size) {
            assert_eq!(answer[2], status.code());
        }
        fewest = fewest.min(ALLOCATIONS.load(Relaxed) - before);
    }
    fewest
}

#[test]
fn a_request_about_one_coin_allocates_nothing() {
    IS_CLIENT.set(true);
    let coins: Vec<(Coin, An, Mfs)> = (0..MANY)
        .map(|place| (coin(place), an(place, 0), Mfs::new(9)))
        .collect();
    let node = RealNode::start(&coins, |settings| {
        let file = settings.data.with_file_name("secrets");
        let lines: String = (1..26).map(|secret| format!("{secret:032x}\n")).collect();
        fs::write(&file, lines).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        settings.keys_file = Some(file);
        // Some 33,000 tickets, all of them for one address, and of 64 coins.
        settings.tickets.shares = 1;
        settings.tickets.per_coin = 0;
    });
    let mut stream = TcpStream::connect(node.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for command in [
        Command::Detect,
        Command::GetTicket,
        Command::EncryptionTicket,
        Command::Pown,
    ] {
        let one = fewest(&mut stream, command, 1);
        let many = fewest(&mut stream, command, MANY);
        println!("{command:?}: {one} allocations for one request, {many} for {MANY} at once");
        // One allocation per request would add 63.
        let more = many.saturating_sub(one);
        assert!(more < MANY as u64 / 4, "{command:?} takes {more} more");
    }
}
