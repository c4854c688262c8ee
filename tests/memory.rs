//! What strangers make the real program hold in memory: requests that wait, answers that nobody
//! takes, requests that were announced and never come. However they try, the process stays within a
//! bound, gives back what it took, and serves an honest client meanwhile.

#[path = "support/node_process/mod.rs"]
mod node_process;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use node_process::{NodeProcess, PATIENCE, Serve};
use raida::admin;
use raida::coin::{An, Coin, Mfs, PageId};
use raida::protocol::authentication::{Detect, Pown};
use raida::protocol::lockers::{LockerKey, Peek};
use raida::protocol::{Command, Protection, RaidaId, Request, Status};
use raida::store::import::{Import, OnConflict};
use raida::store::offline::OfflineFolder;

/// Bytes that a node may take beyond what it takes at rest, its pages included.
const GROWTH_MAX: u64 = 256 << 20;
/// Time after an attack by which a node at rest takes at most a fifth more than before.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Least time that an attack goes on.
const ATTACK: Duration = Duration::from_secs(2);

/// Least number of times that an honest client is served during an attack.
const HONEST_MIN: usize = 100;

/// Longest time of an answer to that client, on any machine that runs the tests.
const HONEST_WAIT: Duration = Duration::from_secs(10);

/// Coins of a locker that is not listed in one go, and of one that is.
const LARGE: usize = 150_000;
const SMALL: usize = 1_000;

fn key(number: u8) -> LockerKey {
    let mut key = [number; 16];
    key[12..].fill(0xff);
    LockerKey::new(An::new(key)).unwrap()
}

fn coins(first_page: usize, count: usize) -> impl Iterator<Item = Coin> {
    (0..count).map(move |number| {
        let page = PageId::from_index(first_page + number / 1_024).unwrap();
        page.coin(number % 1_024)
    })
}

fn owned(place: usize) -> (Coin, An) {
    let coin = coins(9_000, place + 1).last().unwrap();
    (coin, An::new((place as u128 + 1).to_be_bytes()))
}

/// A node with two lockers and some coins, what it takes at rest, and an honest client's address.
struct Attacked {
    node: NodeProcess,
    folder: tempfile::TempDir,
    rest: u64,
}

impl Attacked {
    fn start(shards: u16) -> Attacked {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let month = Mfs::new(30);
        let mut import = Import::default();
        coins(0, LARGE).for_each(|coin| import.add_coin(coin, key(1).an(), month));
        coins(6_000, SMALL).for_each(|coin| import.add_coin(coin, key(2).an(), month));
        for place in 0..100 {
            let (coin, an) = owned(place);
            import.add_coin(coin, an, month);
        }
        // On a thread of its own, since an executor leaves its mark on the thread it ran on.
        let imported = std::thread::scope(|scope| {
            let work = || {
                let folder = OfflineFolder::open(&data, true).unwrap();
                folder.import(&import, OnConflict::Refuse, || ()).unwrap();
            };
            scope.spawn(work).join()
        });
        imported.unwrap();
        let node = Serve::on(&data).with("shards.count", shards).start();
        // All pages that the attacks are about are in memory.
        let all: Vec<(Coin, An)> = coins(0, LARGE).map(|coin| (coin, key(1).an())).collect();
        let mut client = node.client();
        for some in all.chunks(10_000) {
            client.detect(some).unwrap();
        }
        drop(client);
        std::thread::sleep(Duration::from_millis(500));
        let rest = memory(&node, "VmRSS");
        Attacked { node, folder, rest }
    }

    fn counts(&self) -> admin::Counts {
        admin::ask_counts(&self.folder.path().join("data")).unwrap()
    }

    /// A connection from an address of the loopback.
    fn connect(&self, last: u8) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let from = SocketAddr::from(([127, 0, 0, last], 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&self.node.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Runs an attack beside an honest client, for as long as it is told to; what it gives is
    /// dropped at its end.
    fn bears<T>(&self, name: &str, attack: impl FnOnce(&dyn Fn() -> bool) -> T) {
        // The peak counts from here on (proc(5), clear_refs).
        std::fs::write(format!("/proc/{}/clear_refs", self.node.id()), "5").unwrap();
        let (ends, honest) = (AtomicBool::new(false), AtomicUsize::new(0));
        let longest = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut stream = self.connect(1);
                let asked = detect(&[owned(0)]);
                let (mut answer, mut longest) = ([0; 32], Duration::ZERO);
                while !ends.load(SeqCst) {
                    let asked_at = Instant::now();
                    stream.write_all(&asked).unwrap();
                    stream.read_exact(&mut answer).unwrap();
                    longest = longest.max(asked_at.elapsed());
                    assert_eq!(answer[2], Status::ALL_PASS.code(), "{name}");
                    honest.fetch_add(1, SeqCst);
                }
                longest
            });
            // How fast others are served is measured by perf/attacks, on a build and a machine for
            // that.
            let start = Instant::now();
            let held = attack(&|| match honest.load(SeqCst) {
                ..=HONEST_MIN => start.elapsed() < PATIENCE,
                _ => start.elapsed() < ATTACK,
            });
            ends.store(true, SeqCst);
            drop(held);
            client.join().expect("an honest client is answered")
        });
        let peak = memory(&self.node, "VmHWM");
        let grown = peak.saturating_sub(self.rest);
        let (start, mut after) = (Instant::now(), u64::MAX);
        while after > self.rest * 12 / 10 && start.elapsed() < BACK_WITHIN {
            std::thread::sleep(Duration::from_millis(100));
            after = memory(&self.node, "VmRSS");
        }
        println!(
            "{name}: at rest {} MB, at most {} MB, {:.1} s later {} MB; {} honest detects, {longest:?} at most; {:?}",
            self.rest >> 20,
            peak >> 20,
            start.elapsed().as_secs_f64(),
            after >> 20,
            honest.load(SeqCst),
            self.counts().waiting
        );
        assert!(grown <= GROWTH_MAX, "{name}: it grew by {grown} bytes");
        assert!(
            after <= self.rest * 12 / 10,
            "{name}: {after} bytes after it, {} at rest",
            self.rest
        );
        assert!(
            honest.load(SeqCst) > HONEST_MIN,
            "{name}: others were not served"
        );
        assert!(longest <= HONEST_WAIT, "{name}: others waited {longest:?}");
        let deadline = Instant::now() + PATIENCE;
        while self.counts().waiting.requests > 0 {
            assert!(Instant::now() < deadline, "{name}: goes on for nobody");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A line of /proc/PID/status, in bytes.
fn memory(node: &NodeProcess, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1_024
}

fn request(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let request = Request {
        to: RaidaId::new(0).unwrap(),
        coin_id: 6,
        command,
        protection: Protection::None,
        echo: [1, 2],
        challenge: [3; 12],
        nonce: [4; 22],
        payload: Some(payload),
    };
    request.compose(&mut bytes).unwrap();
    bytes
}

fn detect(coins: &[(Coin, An)]) -> Vec<u8> {
    let mut payload = Vec::new();
    Detect::compose(coins.iter().copied(), &mut payload);
    request(Command::Detect, &payload)
}

fn peek(number: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    Peek::compose(key(number), &mut payload);
    request(Command::Peek, &payload)
}

/// A pown of this many coins; none passes.
fn wrong_pown(count: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    let records = coins(0, count).map(|coin| (coin, An::ZERO, An::new([9; 16])));
    Pown::compose(records, &mut payload);
    request(Command::Pown, &payload)
}

/// Sends the same bytes over many connections for a while, as much as the node takes, and reads
/// nothing.
fn pour(streams: &[TcpStream], bytes: &[u8], most: usize, goes_on: &dyn Fn() -> bool) {
    let mut sent = vec![0; streams.len()];
    for stream in streams {
        stream.set_nonblocking(true).unwrap();
    }
    while goes_on() {
        for (mut stream, sent) in streams.iter().zip(&mut sent) {
            let from = *sent % bytes.len();
            if *sent < most {
                match stream.write(&bytes[from..]) {
                    Ok(length) => *sent += length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => *sent = most, // the node has closed it
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Attacked {
    fn connect_many(&self, last: u8, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| self.connect(last)).collect()
    }

    /// Many answers that are large and that nobody takes.
    fn bears_peeks(&self) {
        self.bears("peeks of a large locker", |goes_on| {
            let streams = self.connect_many(2, 64);
            pour(&streams, &peek(1).repeat(256), usize::MAX, goes_on);
            streams
        });
    }

    /// The same from many addresses, beside one that asks for as much and reads it.
    fn bears_peeks_of_many_addresses(&self) {
        let (asked, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut asker = None;
        self.bears("peeks of a large locker, from 12 addresses", |goes_on| {
            let streams: Vec<TcpStream> = (2..14)
                .flat_map(|last| self.connect_many(last, 8))
                .collect();
            std::thread::scope(|scope| {
                let asks = scope.spawn(|| {
                    // Until the others have what they can get.
                    std::thread::sleep(Duration::from_millis(1_000));
                    while !ends.load(SeqCst) {
                        self.asks_for_much();
                        asked.fetch_add(1, SeqCst);
                    }
                });
                let start = Instant::now();
                let is_served = || asked.load(SeqCst) >= 2 || asks.is_finished();
                let peeks = peek(1).repeat(256);
                pour(&streams, &peeks, usize::MAX, &|| {
                    goes_on() || !is_served() && start.elapsed() < PATIENCE
                });
                ends.store(true, SeqCst);
                asker = Some(asks.join());
            });
            streams
        });
        let asker = asker.expect("it asked");
        asker.expect("long requests of others are served beside it");
        assert!(
            asked.load(SeqCst) >= 2,
            "others waited for longer than {PATIENCE:?}"
        );
    }

    /// The largest answer and the largest request, over a new connection of an address that has no
    /// other.
    fn asks_for_much(&self) {
        let mut stream = self.connect(100);
        stream.write_all(&peek(1)).unwrap();
        let mut header = [0; 32];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header[2], Status::ALL_PASS.code());
        let mut body = vec![0; LARGE * 5 + 2];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(&wrong_pown(28_000)).unwrap();
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header[2], Status::ALL_FAIL.code());
    }

    /// Long requests that wait.
    fn bears_wrong_powns(&self) {
        self.bears("wrong powns of many coins", |goes_on| {
            let streams = self.connect_many(2, 40);
            pour(&streams, &wrong_pown(28_000), usize::MAX, goes_on);
            streams
        });
    }
}

#[test]
fn two_shards_stay_within_their_memory() {
    let attacked = Attacked::start(2);
    attacked.bears_peeks();
    attacked.bears_wrong_powns();
    attacked.bears("answers at once that nobody takes", |goes_on| {
        let streams = attacked.connect_many(2, 900);
        pour(&streams, &peek(2).repeat(100), 200_000, goes_on);
        streams
    });
    attacked.bears("requests that are announced and never come", |goes_on| {
        let streams = attacked.connect_many(2, 900);
        let pown = wrong_pown(28_000);
        pour(&streams, &pown[..pown.len() - 1], pown.len() - 1, goes_on);
        streams
    });
    attacked.bears("long datagrams", |goes_on| {
        let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
        let pown = wrong_pown(1_700);
        while goes_on() {
            for _ in 0..16 {
                let _ = socket.send_to(&pown, attacked.node.address);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn one_shard_stays_within_its_memory() {
    let attacked = Attacked::start(1);
    attacked.bears_peeks();
    attacked.bears_peeks_of_many_addresses();
    attacked.bears_wrong_powns();
}

#[test]
fn what_has_not_begun_when_its_client_has_gone_is_dropped() {
    let attacked = Attacked::start(1);
    let an = |step: usize| An::new((1_000 + step as u128).to_be_bytes());
    let [first, second] = [owned(1), owned(2)];
    // Each of them changes two coins, and so waits for the one before.
    let mut steps = Vec::new();
    for step in 0..250 {
        let from = |start: An| if step == 0 { start } else { an(step) };
        let records = [first, second].map(|(coin, start)| (coin, from(start), an(step + 1)));
        let mut payload = Vec::new();
        Pown::compose(records, &mut payload);
        steps.extend(request(Command::Pown, &payload));
    }
    let mut stream = attacked.connect(2);
    stream.write_all(&steps).unwrap();
    // Closing with an unread answer resets the connection.
    stream.read_exact(&mut [0; 1]).unwrap();
    drop(stream);
    let deadline = Instant::now() + PATIENCE;
    while attacked.counts().waiting.requests > 0 {
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let last = detect(&[(first.0, an(250)), (second.0, an(250))]);
    let mut stream = attacked.connect(1);
    stream.write_all(&last).unwrap();
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[2], Status::ALL_FAIL.code(), "all were carried out");
    let dropped = attacked.counts().waiting.dropped;
    assert!(dropped > 0, "{dropped} were dropped");
}

#[test]
fn the_largest_answer_and_the_largest_request_are_for_everyone_on_a_node_with_nothing_else_to_do() {
    let attacked = Attacked::start(2);
    for _ in 0..3 {
        attacked.asks_for_much();
    }
}
