//! Any header, any body, any length, split at any byte, over TCP and UDP: the status of PROTOCOL.md or
//! silence, and the neighbours undisturbed.

mod real_node;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use raida::{
    coin::{An, Coin, Mfs, PageId},
    protocol::{
        Command, Protection, ResponseCounter, Status,
        authentication::{Detect, Pown},
    },
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use real_node::{
    RealNode,
    wire::{Wire, compose},
};

/// Requests of each kind; `RAIDA_GARBAGE_REQUESTS` sets another number.
const REQUESTS: u64 = 2_000;
/// The node's memory may grow by so much under garbage, in bytes.
const GROWTH_MAX: u64 = 64 << 20;
/// How long to wait for an answer that may not come.
const SHORT: Duration = Duration::from_millis(150);

fn requests() -> u64 {
    let asked = std::env::var("RAIDA_GARBAGE_REQUESTS").ok();
    asked.map_or(REQUESTS, |n| n.parse().expect("a number"))
}

/// The random source of a test; its seed is printed, and `RAIDA_GARBAGE_SEED` sets another.
fn random(test: &str) -> StdRng {
    let asked = std::env::var("RAIDA_GARBAGE_SEED").ok();
    let seed = asked.map_or_else(rand::random, |seed| seed.parse().expect("a number"));
    println!("{test}: repeat with RAIDA_GARBAGE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn coin(number: usize) -> (Coin, An) {
    let page = PageId::from_index(4_000 + number).unwrap();
    (page.coin(number), An::new([number as u8 + 1; 16]))
}

fn node() -> RealNode {
    let coins: Vec<_> = (0..8)
        .map(|n| (coin(n).0, coin(n).1, Mfs::new(40)))
        .collect();
    RealNode::start(&coins, |settings| {
        settings.shards = 2;
        settings.network.header_timeout = Duration::from_millis(400);
        settings.network.body_timeout = Duration::from_millis(400);
        settings.network.max_connections = 5_000;
        settings.network.max_connections_per_address = 5_000;
    })
}

fn detect_payload(numbers: std::ops::Range<usize>) -> Vec<u8> {
    let mut payload = Vec::new();
    Detect::compose(numbers.map(coin), &mut payload);
    payload
}

/// A valid request of any kind that changes nothing a neighbour looks at.
fn valid(random: &mut StdRng, unique: u64) -> Vec<u8> {
    let (key, an) = coin(random.random_range(0..4));
    let other = coin(5);
    let protection = match random.random_range(0..5) {
        0 => Protection::Coin(key, an),
        1 => Protection::CoinHmac(key, an),
        2 => Protection::TwoCoinsHmac((key, an), other),
        _ => Protection::None,
    };
    let (command, payload) = match random.random_range(0..3) {
        0 => (Command::Echo, Vec::new()),
        1 => (
            Command::Detect,
            detect_payload(0..random.random_range(1..8)),
        ),
        _ => {
            // The number that is given is wrong, so that no mutation but a guess of it changes a coin.
            let mut payload = Vec::new();
            Pown::compose([(coin(6).0, An::ZERO, An::ZERO)], &mut payload);
            (Command::Pown, payload)
        }
    };
    compose(command, protection, Some(&payload), unique).bytes
}

/// What PROTOCOL.md section 3 says to the first 32 bytes, for the raidax dialect of RAIDA 14; `None`
/// where nothing is wrong with them.
fn header_status(header: &[u8]) -> Option<u8> {
    let commands: &[(u8, &[u8])] = &[
        (0, &[0, 1, 2, 3]),
        (1, &[10, 11, 20, 21]),
        (3, &[120, 130, 140, 150, 160]),
    ];
    let known = |group: u8, code: u8| {
        commands
            .iter()
            .any(|(g, codes)| *g == group && codes.contains(&code))
    };
    match header {
        h if h[0] != 1 => Some(255),
        h if h[1] != 0 => Some(2),
        h if h[2] != 14 => Some(3),
        h if h[4] > 15 => Some(5),
        h if h[3] > 3 => Some(4),
        h if !known(h[4], h[5]) => Some(6),
        h if h[6..8] != [0, 6] => Some(7),
        h if ![0, 1, 2, 4, 5].contains(&h[16]) => Some(27),
        _ => None,
    }
}

#[test]
fn any_header_gets_the_status_of_its_first_fault() {
    let node = node();
    let mut random = random("headers");
    let mut udp = Wire::udp(node.address());
    let mut wrong_order = Vec::new();
    for request in 0..requests() {
        // A header with nothing behind it; each field is off now and then.
        let mut header = compose(Command::Echo, Protection::None, None, request).bytes;
        let fields = [0, 1, 2, 3, 4, 5, 6, 7, 16];
        for field in fields {
            if random.random_bool(0.12) {
                header[field] = match random.random_bool(0.5) {
                    true => random.random(),
                    false => random.random_range(0..6),
                };
            }
        }
        let Some(status) = header_status(&header) else {
            continue;
        };
        let mut tcp = Wire::tcp(node.address());
        tcp.send(&header);
        if let Wire::Tcp(stream) = &tcp {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let by_tcp = tcp.receive_all();
        // Types 4 and 5 have a header of 48 bytes: as a datagram this one is cut off.
        let is_long = matches!(header[16], 4 | 5) && header[0] == 1;
        let by_udp = match is_long {
            true => by_tcp.clone(),
            false => {
                udp.send(&header);
                udp.receive_all()
            }
        };
        for answer in [by_tcp, by_udp] {
            let size = if is_long { 48 } else { 32 };
            if answer.len() != size || answer[2] != status || answer[0] != 14 || answer[3] != 0 {
                wrong_order.push((header.clone(), status, answer));
            }
        }
    }
    assert!(
        wrong_order.is_empty(),
        "{:x?}",
        &wrong_order[..wrong_order.len().min(3)]
    );
}

#[test]
fn a_request_split_at_any_byte_is_answered_as_if_whole() {
    let node = node();
    let asked = [
        compose(
            Command::Detect,
            Protection::None,
            Some(&detect_payload(0..2)),
            7,
        ),
        compose(
            Command::Detect,
            Protection::CoinHmac(coin(0).0, coin(0).1),
            Some(&detect_payload(0..2)),
            8,
        ),
    ];
    for asked in asked {
        for split in 1..asked.bytes.len() {
            let mut wire = Wire::tcp(node.address());
            wire.send(&asked.bytes[..split]);
            std::thread::sleep(Duration::from_micros(300));
            wire.send(&asked.bytes[split..]);
            let answer = wire.answer(&asked.sent, ResponseCounter::Restart);
            assert_eq!(answer.status, Status::ALL_PASS, "split at {split}");
        }
    }
}

#[test]
fn garbage_disturbs_no_neighbour_and_leaves_nothing_behind() {
    let mut node = node();
    let address = node.address();
    let is_over = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    let mut seeds = random("garbage");
    let mut next = || StdRng::seed_from_u64(seeds.next_u64());
    let (a, b, c, d) = (next(), next(), next(), next());
    let before = resident_bytes();
    std::thread::scope(|scope| {
        for neighbour in 0..2 {
            let (is_over, served) = (&is_over, &served);
            scope.spawn(move || serve_neighbour(address, neighbour == 0, is_over, served));
        }
        let garbage = [
            scope.spawn(move || mutations_by_tcp(address, a)),
            scope.spawn(move || mutations_by_udp(address, b)),
            scope.spawn(move || noise_by_tcp(address, c)),
            scope.spawn(move || noise_by_udp(address, d)),
        ];
        for thread in garbage {
            thread.join().expect("garbage is sent to its end");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(
        served.load(Ordering::Relaxed) > 100,
        "the neighbours were hardly served"
    );
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "garbage took {grown} bytes of memory");
    let all = compose(
        Command::Detect,
        Protection::None,
        Some(&detect_payload(0..8)),
        1,
    );
    let answer = Wire::tcp(address).ask(&all, ResponseCounter::Restart);
    assert_eq!(answer.status, Status::ALL_PASS);
    node.stop();
}

/// A client that gets all its right answers, whatever others do.
fn serve_neighbour(node: SocketAddr, tcp: bool, is_over: &AtomicBool, served: &AtomicU64) {
    let mut wire = if tcp {
        Wire::tcp(node)
    } else {
        Wire::udp(node)
    };
    let mut unique = 0;
    while !is_over.load(Ordering::Relaxed) {
        unique += 1;
        let asked = compose(
            Command::Detect,
            Protection::None,
            Some(&detect_payload(0..8)),
            unique,
        );
        if !tcp {
            // A datagram may be lost where the node's buffer is full of garbage: then ask again.
            let Wire::Udp(socket) = &wire else {
                unreachable!("it is a datagram socket")
            };
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket.send(&asked.bytes).unwrap();
            if socket.peek(&mut [0; 64]).is_err() {
                continue;
            }
        } else {
            wire.send(&asked.bytes);
        }
        let answer = wire.answer(&asked.sent, ResponseCounter::Restart);
        assert_eq!(answer.status, Status::ALL_PASS);
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// Flips, cuts, extends and relabels a valid request.
fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..8) {
            0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = random.random(),
            3 => bytes.truncate(at.max(1)),
            4 => bytes.extend((0..random.random_range(1..40)).map(|_| random.random::<u8>())),
            // Another length, the longest, and the long form with any length behind it.
            5 if bytes.len() >= 32 => random.fill(&mut bytes[22..24]),
            6 if bytes.len() >= 32 => bytes[22..24].fill(0xff),
            7 if bytes.len() >= 32 => {
                bytes[22..24].fill(0xff);
                random.fill(&mut bytes[24..28]);
            }
            _ => bytes.swap(0, at),
        }
    }
}

fn mutations_by_tcp(node: SocketAddr, mut random: StdRng) {
    for request in 0..requests() / 4 {
        let mut bytes = valid(&mut random, request);
        mutate(&mut bytes, &mut random);
        // Valid ones before and after, so that what is skipped or closed shows.
        bytes.splice(0..0, valid(&mut random, request + 1));
        bytes.extend(valid(&mut random, request + 2));
        send_and_drain(node, &bytes, &mut random);
    }
}

fn noise_by_tcp(node: SocketAddr, mut random: StdRng) {
    for _ in 0..requests() / 8 {
        let mut bytes = vec![0; random.random_range(1..3_000)];
        random.fill(&mut bytes[..]);
        if random.random_bool(0.3) {
            bytes[0] = 1;
        }
        send_and_drain(node, &bytes, &mut random);
    }
}

/// Sends in pieces, and reads whatever comes until the node closes or has nothing to say. All that
/// comes has to be answers, one behind the other.
fn send_and_drain(node: SocketAddr, bytes: &[u8], random: &mut StdRng) {
    let mut stream = TcpStream::connect(node).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = random.random_range(1..=rest.len());
        // The node may have answered and closed in the middle of it.
        if stream.write_all(&rest[..piece]).is_err() {
            break;
        }
        rest = &rest[piece..];
    }
    if random.random_bool(0.7) {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) => {
            let expected = [
                ErrorKind::WouldBlock,
                ErrorKind::TimedOut,
                ErrorKind::ConnectionReset,
            ];
            assert!(expected.contains(&error.kind()), "{error}");
        }
    }
    let mut rest = &answers[..];
    while !rest.is_empty() {
        let length = answer_length(rest);
        assert!(
            length <= rest.len(),
            "an answer was cut short: {answers:x?}"
        );
        rest = &rest[length..];
    }
}

/// Bytes of the answer at the start of `bytes`, which has to be one.
fn answer_length(bytes: &[u8]) -> usize {
    assert!(bytes.len() >= 32 && bytes[0] == 14, "no answer: {bytes:x?}");
    // Byte 16 is the encryption type of a long header; of a short one it is the challenge's first.
    let body = usize::from(bytes[9]) << 16 | usize::from(bytes[10]) << 8 | usize::from(bytes[11]);
    let is_long = bytes[4..6] != [0, 1] || bytes.len() >= 48 && is_long_header(bytes, body);
    if is_long { 48 + body } else { 32 + body }
}

/// A short header has 0, 1 in bytes 4 and 5; a long one has the execution time there, which may be
/// the same: then what follows has to start like an answer.
fn is_long_header(bytes: &[u8], body: usize) -> bool {
    let starts = |at: usize| bytes.len() == at || bytes.get(at) == Some(&14);
    matches!(bytes[16], 4 | 5) && !starts(32 + body) && starts(48 + body)
}

fn mutations_by_udp(node: SocketAddr, mut random: StdRng) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(node).unwrap();
    socket.set_nonblocking(true).unwrap();
    for request in 0..requests() * 4 {
        let mut bytes = valid(&mut random, request);
        mutate(&mut bytes, &mut random);
        let _ = socket.send(&bytes);
        drain(&socket);
    }
}

fn noise_by_udp(node: SocketAddr, mut random: StdRng) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(node).unwrap();
    socket.set_nonblocking(true).unwrap();
    for _ in 0..requests() * 4 {
        let mut bytes = vec![0; random.random_range(0..1_500)];
        random.fill(&mut bytes[..]);
        let _ = socket.send(&bytes);
        drain(&socket);
    }
}

fn drain(socket: &UdpSocket) {
    let mut answer = vec![0; 65_536];
    while let Ok(length) = socket.recv(&mut answer) {
        assert!(
            length >= 32 && answer[0] == 14,
            "no answer: {:x?}",
            &answer[..length]
        );
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}
