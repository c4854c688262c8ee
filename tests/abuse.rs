//! The real program under bad clients, bad disks and signals.

#[path = "support/node_process/mod.rs"]
mod node_process;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use node_process::changes::{Book, Change, Outcome};
use node_process::{NodeProcess, PATIENCE, Serve, admin_key, mint, options};
use raida::client::{Client, ClientError, Connection, Transport};
use raida::coin::{An, Coin, Denomination, PageId};
use raida::protocol::authentication::{Detect, Pown};
use raida::protocol::executive::SessionId;
use raida::protocol::{Command, Passed, Status};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DENOMINATIONS: [i8; 4] = [-8, -1, 0, 6];
const SHARDS: u16 = 2;
const SLOW_CLIENTS: usize = 2_000;
/// Longest time that an orderly stop takes, whatever the clients do.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A node with coins, in a folder of its own.
struct Trial {
    folder: tempfile::TempDir,
    serve: Serve,
    book: Book,
    random: StdRng,
}

impl Trial {
    fn new(change: impl FnOnce(Serve) -> Serve) -> (Trial, NodeProcess) {
        let folder = tempfile::tempdir().unwrap();
        let serve = change(serve(&folder.path().join("data")));
        let node = serve.start();
        let key = admin_key(&folder.path().join("data"));
        let coins = mint(&mut node.client(), &key, &DENOMINATIONS, 4, 16);
        let trial = Trial {
            folder,
            serve,
            book: Book::new(coins),
            random: StdRng::seed_from_u64(1),
        };
        (trial, node)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

fn serve(data: &Path) -> Serve {
    Serve::on(data)
        .with("shards.count", SHARDS)
        .with("storage.segment_bytes", 1 << 20)
        .with("storage.checkpoint_interval_s", 3_600)
}

// Slow clients.

/// Connections that send one byte a second, half of them within a header, half within a body.
/// Returns how many the node closed.
fn drip(address: SocketAddr, count: usize, ends: &AtomicBool, closed: &AtomicUsize) {
    let connect = |number| {
        let mut stream = TcpStream::connect(address).unwrap();
        if number % 2 == 1 {
            let mut header = [0; 32];
            (header[0], header[4], header[5], header[7]) = (1, 1, 10, 6);
            header[22..24].copy_from_slice(&600u16.to_be_bytes());
            stream.write_all(&header).unwrap();
        }
        stream.set_nonblocking(true).unwrap();
        Some(stream)
    };
    let mut streams: Vec<Option<TcpStream>> = (0..count).map(connect).collect();
    let mut next_byte = Instant::now();
    while !ends.load(SeqCst) && streams.iter().any(Option::is_some) {
        let is_due = Instant::now() >= next_byte;
        for stream in &mut streams {
            let Some(open) = stream else { continue };
            let mut byte = [0; 64];
            let is_closed = match open.read(&mut byte) {
                Ok(0) => true,
                Ok(_) => panic!("an answer to half a request"),
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            if is_closed || is_due && open.write(&[1]).is_err() {
                *stream = None;
                closed.fetch_add(1, SeqCst);
            }
        }
        if is_due {
            next_byte += Duration::from_secs(1);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn slow_clients_are_closed_while_others_are_served() {
    let (mut trial, node) = Trial::new(|serve| {
        serve
            .with("network.max_connections_per_address", 10_000)
            .with("network.header_timeout_ms", 1_500)
            .with("network.body_timeout_ms", 2_500)
    });
    let (ends, closed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = trial.book.load(&node, SHARDS, 4, &mut trial.random);
    std::thread::scope(|scope| {
        scope.spawn(|| drip(node.address, SLOW_CLIENTS, &ends, &closed));
        let deadline = Instant::now() + PATIENCE;
        while closed.load(SeqCst) < SLOW_CLIENTS {
            assert!(
                Instant::now() < deadline,
                "{} of {SLOW_CLIENTS} closed",
                closed.load(SeqCst)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    load.wait_for_answers(&node, 100);
    load.quiet();
    let history = load.join();
    assert!(history.iter().all(answered));
    trial.book.settle(&node, SHARDS, &history);
}

fn answered(change: &Change) -> bool {
    matches!(change.outcome, Outcome::Answered(_))
}

/// A measurement, not a test: `perf/slow-clients`.
#[test]
#[ignore = "a measurement of the release build"]
fn slow_clients() {
    let (trial, node) = Trial::new(|serve| {
        serve
            .with("network.max_connections_per_address", 10_000)
            .with("network.header_timeout_ms", 5_000)
            .with("network.body_timeout_ms", 10_000)
    });
    let mut client = node.client();
    let coin = trial.book.coin_and_an(0);
    println!("one client, 1,000 requests a second, microseconds from the moment each is due");
    println!("{:>28} {:>22} {:>22}", "", "detect", "pown");
    let mut an = coin.1;
    let mut measure = |name: &str| {
        let seconds = Duration::from_secs(5);
        let detect = paced(seconds, || {
            assert_eq!(client.detect(&[(coin.0, an)]).unwrap(), [true]);
        });
        let pown = paced(seconds, || {
            let new = An::new(rand::random());
            let (outcomes, error) = client.pown(&[(coin.0, an, new)]);
            assert!(error.is_none() && outcomes == [raida::client::Outcome::Changed]);
            an = new;
        });
        let show = |p: &Percentiles| format!("p50 {} p99 {}", p.p50, p.p99);
        println!("{name:>28} {:>22} {:>22}", show(&detect), show(&pown));
        (detect.p99, pown.p99)
    };
    for run in 1..=3 {
        let before = measure(&format!("run {run}, alone"));
        let (ends, closed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let during = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(SeqCst) {
                    drip(node.address, SLOW_CLIENTS, &ends, &closed);
                }
            });
            std::thread::sleep(Duration::from_secs(1));
            let during = measure(&format!("run {run}, {SLOW_CLIENTS} slow ones"));
            ends.store(true, SeqCst);
            during
        });
        println!(
            "run {run}: p99 times {:.2} for detect, {:.2} for pown; {} slow ones closed meanwhile",
            during.0 as f64 / before.0 as f64,
            during.1 as f64 / before.1 as f64,
            closed.load(SeqCst)
        );
    }
}

struct Percentiles {
    p50: u128,
    p99: u128,
}

/// Asks 1,000 times a second, and counts from the moment that a request is due: a late answer makes
/// the later ones late as well.
fn paced(time: Duration, mut ask: impl FnMut()) -> Percentiles {
    let interval = Duration::from_millis(1);
    let start = Instant::now();
    let mut took: Vec<u128> = Vec::new();
    for number in 0..(time.as_millis() as u32) {
        let due = start + interval * number;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        ask();
        took.push(due.elapsed().as_micros());
    }
    took.sort_unstable();
    let at = |permille: usize| took[took.len() * permille / 1_000];
    Percentiles {
        p50: at(500),
        p99: at(990),
    }
}

// Full disks.

/// A small file system in memory, removed when this is dropped. Only this thread and the processes
/// that it starts see its mount, which ends with them in any case.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with a message, where mounting is not allowed.
    fn mount(bytes: usize) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(folder.path().to_str().unwrap()).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        // SAFETY: unshare takes flags and no memory.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: every pointer is null, where mount(2) ignores it, or a string that ends in a zero
        // byte and lives until the call returns.
        let mounted = apart
            && unsafe {
                libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
                    && libc::mount(
                        c"tmpfs".as_ptr(),
                        path.as_ptr(),
                        c"tmpfs".as_ptr(),
                        0,
                        options.as_ptr().cast(),
                    ) == 0
            };
        if !mounted {
            let error = std::io::Error::last_os_error();
            println!("skipped: no file system can be mounted here: {error}");
            return None;
        }
        Some(SmallDisk { folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Fills it but for this many bytes.
    fn fill(&self, left: u64) {
        let mut file = File::create(self.filler()).unwrap();
        let block = [0x55; 4_096];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.folder.path().to_str().unwrap()).unwrap();
        // SAFETY: the string ends in a zero byte and lives until the call returns.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Changes all coins of the book, again and again, until no coin can be changed. Returns how often.
fn change_until_refused(client: &mut Client, book: &mut Book, random: &mut StdRng) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut made = 0;
    while change_all(client, book, random) != Status::UNAVAILABLE {
        assert!(Instant::now() < deadline, "{made} changes and no refusal");
        made += 1;
    }
    made
}

/// Changes coins until all of them can be changed.
fn change_until_done(client: &mut Client, book: &mut Book, random: &mut StdRng) {
    let deadline = Instant::now() + PATIENCE;
    while change_all(client, book, random) != Status::ALL_PASS {
        assert!(Instant::now() < deadline, "changes are still refused");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One pown of all coins, over all shards. Takes over the coins that passed: all of them, those
/// whose shard has room, or none.
fn change_all(client: &mut Client, book: &mut Book, random: &mut StdRng) -> Status {
    let new: Vec<An> = book
        .coins
        .iter()
        .map(|_| An::new(random.random()))
        .collect();
    let records = (0..new.len()).map(|i| (book.coins[i], book.an(i), new[i]));
    let mut payload = Vec::new();
    Pown::compose(records, &mut payload);
    let connection = client.connection();
    connection.send(Command::Pown, Some(&payload)).unwrap();
    let reply = connection.receive().unwrap();
    match Passed::read(reply.status, &reply.payload, new.len()) {
        Some(passed) => {
            for (i, _) in passed.iter().enumerate().filter(|(_, passed)| *passed) {
                book.set(i, new[i]);
            }
            assert_ne!(reply.status, Status::ALL_FAIL);
        }
        None => assert_eq!(reply.status, Status::UNAVAILABLE),
    }
    reply.status
}

#[test]
fn a_full_disk_refuses_changes_serves_reads_and_recovers_with_room() {
    let Some(disk) = SmallDisk::mount(16 << 20) else {
        return;
    };
    let mut random = StdRng::seed_from_u64(2);
    let serve = serve(&disk.data());
    let node = serve.start();
    assert!(
        node.greeted("data").contains("no direct I/O"),
        "{}",
        node.greeting
    );
    let mut client = node.client();
    let key = admin_key(&disk.data());
    let mut book = Book::new(mint(&mut client, &key, &DENOMINATIONS, 8, 16));
    disk.fill(0);

    let made = change_until_refused(&mut client, &mut book, &mut random);
    assert!(made > 0, "the log had room");
    book.assert_kept(&node);
    for _ in 0..20 {
        change_all(&mut client, &mut book, &mut random);
        book.assert_kept(&node);
    }
    // Soon no coins can be made either, and never half of a request's.
    let session = SessionId::new(99);
    let free = client.available_sns(session, &key, &[Denomination::new(3).unwrap()]);
    let refused = free.unwrap().chunks(10).find_map(|coins| {
        match client.create_coins(session, &key, coins) {
            Ok(ans) => {
                (0..coins.len()).for_each(|i| book.add(coins[i], ans[i]));
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(
        matches!(refused, Some(ClientError::Refused(_, Status::UNAVAILABLE))),
        "{refused:?}"
    );
    book.assert_kept(&node);

    disk.make_room();
    change_until_done(&mut client, &mut book, &mut random);
    for _ in 0..20 {
        assert_eq!(
            change_all(&mut client, &mut book, &mut random),
            Status::ALL_PASS
        );
    }
    book.assert_kept(&node);
    node.kill();
    let node = serve.start();
    book.assert_kept(&node);

    // Killed while it is full: the recovery has pages to write and no room for them.
    disk.fill(0);
    change_until_refused(&mut node.client(), &mut book, &mut random);
    node.kill();
    match serve.try_start() {
        Ok(node) => {
            book.assert_kept(&node);
            node.kill();
        }
        Err(ending) => {
            assert_eq!(ending.status.code(), Some(2), "{ending:?}");
            assert!(ending.log.contains("make room"), "{}", ending.log);
        }
    }
    disk.make_room();
    let node = serve.start();
    book.assert_kept(&node);
    assert_eq!(
        change_all(&mut node.client(), &mut book, &mut random),
        Status::ALL_PASS
    );
    assert!(node.stop().status.success());
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named_or_serves_what_it_can() {
    let Some(disk) = SmallDisk::mount(4 << 20) else {
        return;
    };
    let mut random = StdRng::seed_from_u64(3);
    disk.fill(0);
    let ending = serve(&disk.data()).try_start().err().expect("no room");
    assert_eq!(ending.status.code(), Some(2), "{ending:?}");
    assert!(ending.log.contains("No space left"), "{}", ending.log);

    // Room for its small files, none for a log.
    disk.fill(256 << 10);
    let node = serve(&disk.data()).start();
    node.wait_for_log("no room for a log segment");
    let mut client = node.client();
    assert!(client.echo().is_ok());
    let (session, key) = (SessionId::new(1), admin_key(&disk.data()));
    let free = client.available_sns(session, &key, &[Denomination::new(0).unwrap()]);
    let coins = &free.unwrap()[..10];
    let created = client.create_coins(session, &key, coins);
    assert!(
        matches!(created, Err(ClientError::Refused(_, Status::UNAVAILABLE))),
        "{created:?}"
    );
    disk.make_room();
    let ans = client.create_coins(session, &key, coins).unwrap();
    let mut book = Book::new(coins.iter().copied().zip(ans).collect());
    assert_eq!(
        change_all(&mut client, &mut book, &mut random),
        Status::ALL_PASS
    );
    node.kill();
    book.assert_kept(&serve(&disk.data()).start());
}

#[test]
fn a_disk_that_fills_during_a_checkpoint_loses_nothing() {
    let Some(disk) = SmallDisk::mount(16 << 20) else {
        return;
    };
    let mut random = StdRng::seed_from_u64(4);
    let serve = serve(&disk.data()).with("storage.checkpoint_interval_s", 1);
    let node = serve.start();
    let mut client = node.client();
    let key = admin_key(&disk.data());
    let mut book = Book::new(mint(&mut client, &key, &DENOMINATIONS, 16, 16));
    // 64 pages are 1.3 MB: some get room, others do not.
    disk.fill(600 << 10);
    node.wait_for_log("checkpoint failed");
    for _ in 0..20 {
        change_all(&mut client, &mut book, &mut random);
    }
    book.assert_kept(&node);
    node.kill();
    if let Ok(node) = serve.try_start() {
        book.assert_kept(&node);
        node.kill();
    }
    disk.make_room();
    let node = serve.start();
    book.assert_kept(&node);
    assert_eq!(
        change_all(&mut node.client(), &mut book, &mut random),
        Status::ALL_PASS
    );
    assert!(node.stop().status.success());
    book.assert_kept(&serve.start());
}

// Limits.

#[test]
fn connections_over_the_limits_take_the_place_of_idle_ones_of_the_address_with_most() {
    let (trial, node) = Trial::new(|serve| {
        serve
            .with("network.max_connections", 6)
            .with("network.max_connections_per_address", 4)
    });
    let echo = |mut client: Client| client.echo().map(|_| client);
    let from = |host: [u8; 4]| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket
            .bind(&SocketAddr::from((Ipv4Addr::from(host), 0)).into())
            .unwrap();
        socket.connect(&node.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // An echo without a body tells whether the connection is open or was closed without a byte.
        let mut header = [0; 32];
        (header[0], header[7]) = (1, 6);
        let _ = stream.write_all(&header);
        let mut answer = [0; 32];
        let is_served = stream.read_exact(&mut answer).is_ok();
        is_served.then_some(stream)
    };
    // The minting client's place is free as soon as the node notices that the client has gone.
    let deadline = Instant::now() + PATIENCE;
    let mut kept: Vec<Client> = Vec::new();
    while kept.len() < 4 {
        assert!(Instant::now() < deadline, "only {} are served", kept.len());
        kept.extend(echo(node.client()).ok());
    }
    kept.push(echo(node.client()).expect("an idle one makes room"));
    let others: Vec<_> = (2..6).map(|host| from([127, 0, 0, host])).collect();
    let served = others.iter().flatten().count();
    assert_eq!(
        served, 4,
        "six places in all, for each address at least one"
    );
    let kept: Vec<bool> = kept
        .into_iter()
        .map(|client| echo(client).is_ok())
        .collect();
    assert_eq!(kept.iter().filter(|is_kept| **is_kept).count(), 2);
    assert!(kept[4], "the newest is kept");
    drop(trial);
}

#[test]
fn a_body_over_the_maximum_is_refused_and_one_at_it_is_served() {
    let (trial, node) = Trial::new(|serve| serve.with("network.max_body_bytes", 8_192));
    let coin = trial.book.coin_and_an(0);
    let status = |records: usize| {
        let mut connection = Connection::open(node.host(), Transport::Tcp, options()).unwrap();
        let mut payload = Vec::new();
        Detect::compose(std::iter::repeat_n(coin, records), &mut payload);
        connection.send(Command::Detect, Some(&payload)).unwrap();
        connection.receive().unwrap().status
    };
    let most = (8_192 - 18) / 21;
    assert_eq!(status(most), Status::ALL_PASS);
    assert_eq!(status(most + 1), Status::INVALID_LENGTH);
    assert_eq!(status(60_000), Status::INVALID_LENGTH);
}

#[test]
fn requests_in_flight_without_end_are_answered_in_order_within_bounds() {
    const REQUESTS: usize = 5_000;
    let (trial, node) = Trial::new(|serve| serve);
    let before = resident_bytes(node.id());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (node, book) = (&node, &trial.book);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(number);
                let (coin, mut an) = book.coin_and_an(number as usize * 17);
                let stream = TcpStream::connect(node.address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut requests = Vec::new();
                for _ in 0..REQUESTS {
                    let new = An::new(rng.random());
                    plain_pown(coin, an, new, &mut requests);
                    an = new;
                }
                let mut writer = stream.try_clone().unwrap();
                scope.spawn(move || writer.write_all(&requests).unwrap());
                let mut reader = stream;
                for request in 0..REQUESTS {
                    let mut answer = [0; 32];
                    reader.read_exact(&mut answer).unwrap();
                    assert_eq!(answer[2], 241, "request {request}");
                }
                assert_eq!(node.client().detect(&[(coin, an)]).unwrap(), [true]);
            });
        }
        // Datagrams that nobody waits for: the node drops those over the limit.
        scope.spawn(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let (coin, an) = trial.book.coin_and_an(40);
            let mut request = Vec::new();
            plain_pown(coin, an, an, &mut request);
            for _ in 0..50_000 {
                let _ = socket.send_to(&request, node.address);
            }
        });
    });
    let grown = resident_bytes(node.id()).saturating_sub(before);
    assert!(grown < 256 << 20, "it grew by {grown} bytes");
    assert!(node.stop().status.success());
}

/// Appends a pown of one coin, not encrypted.
fn plain_pown(coin: Coin, an: An, new: An, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    Pown::compose([(coin, an, new)], &mut payload);
    let mut header = [0; 32];
    (header[0], header[4], header[5], header[7]) = (1, 1, 20, 6);
    let length = 16 + payload.len() + 2;
    header[22..24].copy_from_slice(&(length as u16).to_be_bytes());
    out.extend_from_slice(&header);
    let challenge = [7; 12];
    out.extend_from_slice(&challenge);
    out.extend_from_slice(&crc32fast::hash(&challenge).to_be_bytes());
    out.extend_from_slice(&payload);
    out.extend_from_slice(b">>");
}

fn resident_bytes(process: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

// Signals.

#[test]
fn a_stop_answers_what_was_accepted_and_ends_in_time() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let (mut trial, node) = Trial::new(|serve| serve);
        let load = trial.book.load(&node, SHARDS, 16, &mut trial.random);
        load.wait_until_under_way(&node);
        load.wait_for_answers(&node, 500);
        // A client that asks for much and reads nothing must not delay the stop.
        let mut deaf = TcpStream::connect(node.address).unwrap();
        deaf.set_nonblocking(true).unwrap();
        let mut requests = Vec::new();
        let (coin, an) = trial.book.coin_and_an(0);
        (0..1_000).for_each(|_| plain_pown(coin, an, an, &mut requests));
        let _ = deaf.write(&requests);
        load.node_may_end();
        let start = Instant::now();
        node.signal(signal);
        let ending = node.wait();
        let took = start.elapsed();
        let history = load.join();
        assert_eq!(ending.status.code(), Some(0), "{ending:?}");
        assert!(ending.out.starts_with("stopped:"), "{ending:?}");
        assert!(took < STOP_MAX, "it took {took:?}");

        let node = trial.serve.start();
        assert_eq!(node.greeted("recovered"), "", "{}", node.greeting);
        let applied = trial.book.settle(&node, SHARDS, &history);
        for (change, applied) in history.iter().zip(&applied) {
            assert!(
                change.outcome != Outcome::Open || !applied.contains(&true),
                "{:?} was made and not answered",
                change.command
            );
        }
    }
}

#[test]
fn a_second_node_on_a_folder_is_refused_with_the_first_ones_number() {
    let (trial, node) = Trial::new(|serve| serve);
    let ending = trial.serve.try_start().err().expect("refused");
    assert_eq!(ending.status.code(), Some(2), "{ending:?}");
    let named = format!("in use by process {}", node.id());
    assert!(ending.log.contains(&named), "{}", ending.log);
    trial.book.assert_kept(&node);
    // A crash leaves no lock behind.
    node.kill();
    trial.book.assert_kept(&trial.serve.start());
}

#[test]
fn a_hangup_takes_over_what_can_change_and_says_what_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let write = |body: u32, shards: u16, level: &str| {
        let text = format!(
            "[network]\nmax_body_bytes = {body}\nheader_timeout_ms = 60000\n\
             [shards]\ncount = {shards}\n[log]\nlevel = \"{level}\"\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write(4_096, 1, "info");
    let node = Serve::on(&folder.path().join("data")).config(&file).start();
    let coin = PageId::from_index(0).unwrap().coin(0);
    let status = |bytes: usize| {
        let mut connection = Connection::open(node.host(), Transport::Tcp, options()).unwrap();
        let mut payload = Vec::new();
        Detect::compose(
            std::iter::repeat_n((coin, An::ZERO), bytes / 21),
            &mut payload,
        );
        connection.send(Command::Detect, Some(&payload)).unwrap();
        connection.receive().unwrap().status
    };
    assert_eq!(status(8_000), Status::INVALID_LENGTH);

    write(1 << 20, 2, "info");
    node.signal(libc::SIGHUP);
    node.wait_for_log("changes at the next start only");
    let log = node.log();
    assert!(
        log.contains("network.max_body_bytes") && log.contains("shards.count"),
        "{log}"
    );
    let deadline = Instant::now() + PATIENCE;
    while status(8_000) != Status::ALL_FAIL {
        assert!(Instant::now() < deadline, "the new limit is not in force");
        std::thread::sleep(Duration::from_millis(50));
    }

    std::fs::write(&file, "[network]\nmax_body_bytse = 5000\n").unwrap();
    node.signal(libc::SIGHUP);
    node.wait_for_log("all stays as it was");
    assert_eq!(status(8_000), Status::ALL_FAIL);

    write(1 << 20, 1, "error");
    node.signal(libc::SIGHUP);
    // The connection below may be faster than the signal, so only the end of the process tells.
    let ending = node.stop();
    assert!(ending.status.success(), "{ending:?}");
}

// Damage.

/// Flips a bit of a file.
fn flip(file: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.sync_all().unwrap();
}

/// The offsets of the written slots of a page, the newest last.
fn slots(file: &Path, page: PageId) -> Vec<u64> {
    use std::os::unix::fs::FileExt;
    let file = File::open(file).unwrap();
    let first = u64::from(page.number()) * 2 * 20_480;
    let mut slots: Vec<(u64, u64)> = Vec::new();
    for offset in [first, first + 20_480] {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, offset).unwrap();
        if head[..8] == *b"RAIDAPAG" {
            // Format version, page, then the sequence.
            let sequence = u64::from_le_bytes(head[16..24].try_into().unwrap());
            slots.push((sequence, offset));
        }
    }
    slots.sort_unstable();
    slots.into_iter().map(|(_, offset)| offset).collect()
}

#[test]
fn a_damaged_page_is_named_and_not_served_and_all_others_are() {
    // Within the page's months, its head, and its ANs.
    for within in [3_100, 20, 5_000] {
        let (mut trial, node) = Trial::new(|serve| serve);
        let mut client = node.client();
        for _ in 0..2 {
            change_all(&mut client, &mut trial.book, &mut trial.random);
        }
        assert!(node.stop().status.success());
        // Once more, so that the last start had nothing to recover.
        assert!(trial.serve.start().stop().status.success());

        let page = trial.book.coins[0].page();
        let file = trial.data().join("pages/f8.pages");
        let offset = *slots(&file, page).last().unwrap();
        flip(&file, offset + within);
        let node = trial.serve.start();
        let mut client = node.client();
        let book = &trial.book;
        let mut told = node.greeting.clone() + &node.log();
        for i in 0..book.coins.len() {
            let (coin, an) = book.coin_and_an(i);
            let detected = client.detect(&[(coin, an)]);
            if coin.page() == page {
                assert!(
                    matches!(detected, Err(ClientError::Refused(_, Status::UNAVAILABLE))),
                    "byte {within}: {coin} {detected:?}"
                );
                client = node.client();
            } else {
                assert_eq!(detected.unwrap(), [true], "byte {within}: {coin}");
            }
        }
        told += &node.log();
        assert!(told.contains("pages/f8.pages at byte"), "{told}");

        // A pown over both shards shows every coin that has its new number.
        let asked: Vec<(Coin, An, An)> = (0..book.coins.len())
            .map(|i| (book.coins[i], book.an(i), An::new([i as u8 & 0x7f; 16])))
            .collect();
        let (outcomes, _) = client.pown(&asked);
        let mut client = node.client();
        for (&(coin, old, new), outcome) in asked.iter().zip(outcomes) {
            let now = match outcome {
                raida::client::Outcome::Changed => new,
                _ => old,
            };
            if coin.page() != page {
                assert_eq!(client.detect(&[(coin, now)]).unwrap(), [true], "{coin}");
            }
        }
    }
}

#[test]
fn a_damaged_log_is_named_and_the_node_does_not_start() {
    let (mut trial, node) = Trial::new(|serve| serve);
    let mut client = node.client();
    for _ in 0..10 {
        change_all(&mut client, &mut trial.book, &mut trial.random);
    }
    node.kill();
    // The log of the core that got the connection has all of them.
    let has_batches = |name: &&str| {
        let bytes = std::fs::read(trial.data().join(name)).unwrap();
        bytes[4_096..4_096 + 100].iter().any(|&byte| byte != 0)
    };
    let logs = ["log/0-000000.segment", "log/1-000000.segment"];
    let name = logs.into_iter().find(has_batches).expect("a log in use");
    let segment = trial.data().join(name);
    flip(&segment, 4_096 + 100);
    let ending = trial.serve.try_start().err().expect("not to be served");
    assert_eq!(ending.status.code(), Some(2), "{ending:?}");
    assert!(
        ending.log.contains(&format!("{name} at byte 4096")),
        "{}",
        ending.log
    );
    // Nothing was changed by the attempt.
    flip(&segment, 4_096 + 100);
    trial.book.assert_kept(&trial.serve.start());
}
