//! Nobody stops a node with one coin: the real program, flooded with changes of one coin by
//! datagrams and by many connections, serves others meanwhile and lets few of the changes wait; and
//! answered changes survive a kill.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::node_process::{NodeProcess, PATIENCE, Serve, admin_key, mint, options, raida};
use raida::coin::{An, Coin};
use raida::protocol::authentication::{Detect, Pown};
use raida::protocol::{Command, Protection, Request, Status};
use raida::shard::{EXCHANGES_MAX, TASKS_MAX};
use serde_json::Value;

/// What other clients ask while the flood goes on.
const DETECTS: usize = 400;
const POWNS: usize = 20;
/// Time after which the flood ends by itself: by then the others have their answers, or never will.
const FLOOD_MAX: Duration = Duration::from_secs(60);
/// Datagrams sent at once; this many every 10 ms make 10,000 a second.
const BURST: usize = 100;
const BURST_PAUSE: Duration = Duration::from_millis(10);
const CONNECTIONS: usize = 40;
/// Requests that one of these connections sends without waiting for answers.
const DEPTH: usize = 64;
const ANSWER_BYTES: usize = 32;

struct Trial {
    _folder: tempfile::TempDir,
    data: PathBuf,
    coins: Vec<(Coin, An)>,
}

impl Trial {
    fn start(shards: u16) -> (Trial, NodeProcess) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let node = serve(&data, shards).start();
        let coins = mint(&mut node.client(), &admin_key(&data), &[0, 1], 2, 8);
        let trial = Trial {
            _folder: folder,
            data,
            coins,
        };
        (trial, node)
    }

    /// What the node says of changes that wait.
    fn changes(&self) -> Value {
        let words = ["stats", "--detail", "--json", "--data"].map(OsStr::new);
        let words: Vec<&OsStr> = words.into_iter().chain([self.data.as_os_str()]).collect();
        let output = raida(&words);
        assert!(output.status.success(), "{output:?}");
        let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
        stats["changes"].clone()
    }
}

fn serve(data: &Path, shards: u16) -> Serve {
    Serve::on(data)
        .with("shards.count", shards)
        .with("shards.pin", false)
}

fn an(number: u32) -> An {
    An::new((u128::from(number) << 64 | 1).to_be_bytes())
}

/// A request of 32-byte answers; `echo` comes back in it.
fn request(command: Command, payload: &[u8], echo: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let request = Request {
        to: options().raida,
        coin_id: 6,
        command,
        protection: Protection::None,
        echo: echo.to_be_bytes(),
        challenge: [3; 12],
        nonce: [4; 22],
        payload: Some(payload),
    };
    request.compose(&mut bytes).unwrap();
    bytes
}

fn pown(coin: Coin, from: An, to: An, echo: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    Pown::compose([(coin, from, to)], &mut payload);
    request(Command::Pown, &payload, echo)
}

fn detect(coin: Coin, an: An, echo: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    Detect::compose([(coin, an)], &mut payload);
    request(Command::Detect, &payload, echo)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The next answer's status; it is that of the request with these echo bytes.
fn answer(stream: &mut TcpStream, echo: u16) -> Status {
    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer).expect("an answer in time");
    assert_eq!(answer[6..8], echo.to_be_bytes(), "answers keep their order");
    Status::new(answer[2])
}

/// Someone who has nothing to do with the flood: detects and powns coins of their own, one after
/// the other, until it ends. Gives how many requests were answered.
fn others(address: SocketAddr, coins: &[(Coin, An)], is_over: &AtomicBool) -> (usize, usize) {
    let mut stream = connect(address);
    let mut coins = coins.to_vec();
    let (mut detects, mut powns) = (0, 0);
    for number in 0..DETECTS {
        if is_over.load(SeqCst) {
            break;
        }
        let place = number % coins.len();
        let (coin, an) = &mut coins[place];
        let echo = number as u16;
        stream.write_all(&detect(*coin, *an, echo)).unwrap();
        assert_eq!(answer(&mut stream, echo), Status::ALL_PASS);
        detects += 1;
        if number % (DETECTS / POWNS) == 0 {
            let next = self::an(1_000_000 + number as u32);
            stream.write_all(&pown(*coin, *an, next, echo)).unwrap();
            assert_eq!(answer(&mut stream, echo), Status::ALL_PASS);
            *an = next;
            powns += 1;
        }
    }
    (detects, powns)
}

/// Lets others ask the node while `flood` runs; `flood` stops when its flag says so. All of the
/// others' requests are answered before that, and few changes wait meanwhile.
fn serves_others_during(
    trial: &Trial,
    node: &NodeProcess,
    flood: impl Fn(&AtomicBool) + Send + Sync,
) -> Value {
    let (ends, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let most_waiting = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            flood(&ends);
            is_over.store(true, SeqCst);
        });
        let others = scope.spawn(|| {
            let answered = others(node.address, &trial.coins[1..], &is_over);
            ends.store(true, SeqCst);
            answered
        });
        while !others.is_finished() {
            let waiting = trial.changes()["waiting"].as_u64().unwrap();
            most_waiting.fetch_max(waiting as usize, SeqCst);
            std::thread::sleep(Duration::from_millis(20));
        }
        let answered = others.join().unwrap();
        assert_eq!(answered, (DETECTS, POWNS), "the flood kept others waiting");
    });
    let most_waiting = most_waiting.into_inner();
    assert!(
        most_waiting <= EXCHANGES_MAX + TASKS_MAX,
        "{most_waiting} waited"
    );
    // After the flood nobody waits.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let changes = trial.changes();
        if changes["waiting"] == 0 {
            return changes;
        }
        assert!(Instant::now() < deadline, "{changes}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers that nobody proposed before.
fn fresh() -> An {
    static NEXT: AtomicU32 = AtomicU32::new(2_000_000);
    an(NEXT.fetch_add(1, SeqCst))
}

/// Changes of a coin that each build on the one before, from this number on.
fn chain(from: An, links: usize) -> Vec<An> {
    let fresh = std::iter::repeat_with(fresh).take(links);
    std::iter::once(from).chain(fresh).collect()
}

/// Sends datagrams, 10,000 a second, until told to stop. `burst` makes them, and gets the answers
/// to the last ones.
fn flood_by_datagrams(
    address: SocketAddr,
    ends: &AtomicBool,
    mut burst: impl FnMut(&[(u16, Status)]) -> Vec<Vec<u8>>,
) {
    let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let mut answers = Vec::new();
    while !ends.load(SeqCst) && start.elapsed() < FLOOD_MAX {
        for datagram in burst(&answers) {
            // Datagrams that find no room are lost.
            let _ = socket.send(&datagram);
        }
        std::thread::sleep(BURST_PAUSE);
        answers.clear();
        let mut answer = [0; 2_048];
        while socket.recv(&mut answer).is_ok() {
            let echo = u16::from_be_bytes([answer[6], answer[7]]);
            answers.push((echo, Status::new(answer[2])));
        }
    }
}

#[test]
fn a_coin_powned_to_itself_again_and_again_by_datagrams_stops_nobody() {
    for shards in [1, 2] {
        let (trial, node) = Trial::start(shards);
        let (coin, real) = trial.coins[0];
        let changes = serves_others_during(&trial, &node, |ends| {
            let same = vec![pown(coin, real, real, 0); BURST];
            flood_by_datagrams(node.address, ends, |_| same.clone());
        });
        // None of them is written down.
        let unchanged = changes["unchanged"].as_u64().unwrap();
        assert!(unchanged >= BURST as u64 / 2, "{changes}");
        assert_eq!(changes["refused"], 0, "{changes}");
    }
}

#[test]
fn a_coin_powned_on_and_on_by_datagrams_stops_nobody() {
    for shards in [1, 2] {
        let (trial, node) = Trial::start(shards);
        let (coin, real) = trial.coins[0];
        let changes = serves_others_during(&trial, &node, |ends| {
            let mut numbers = chain(real, BURST);
            flood_by_datagrams(node.address, ends, |answers| {
                // From the end of the last chain.
                let passed = answers
                    .iter()
                    .filter(|(_, status)| *status == Status::ALL_PASS);
                let last = passed.map(|&(echo, _)| usize::from(echo) + 1).max();
                numbers = chain(numbers[last.unwrap_or(0)], BURST);
                let links = (0u16..).zip(numbers.windows(2));
                links
                    .map(|(echo, pair)| pown(coin, pair[0], pair[1], echo))
                    .collect()
            });
        });
        assert!(changes["shared"].as_u64().unwrap() > 0, "{changes}");
        assert!(changes["refused"].as_u64().unwrap() > 0, "{changes}");
    }
}

#[test]
fn a_coin_powned_over_forty_connections_stops_nobody() {
    for shards in [1, 2] {
        let (trial, node) = Trial::start(shards);
        let (coin, real) = trial.coins[0];
        let in_force = Mutex::new(real);
        let changes = serves_others_during(&trial, &node, |ends| {
            std::thread::scope(|scope| {
                for _ in 0..CONNECTIONS {
                    let mut stream = connect(node.address);
                    let in_force = &in_force;
                    scope.spawn(move || {
                        let start = Instant::now();
                        while !ends.load(SeqCst) && start.elapsed() < FLOOD_MAX {
                            let numbers = chain(*in_force.lock().unwrap(), DEPTH);
                            let links = (0u16..).zip(numbers.windows(2));
                            let asked =
                                links.flat_map(|(echo, pair)| pown(coin, pair[0], pair[1], echo));
                            stream.write_all(&asked.collect::<Vec<u8>>()).unwrap();
                            for (echo, number) in (0u16..).zip(&numbers[1..]) {
                                match answer(&mut stream, echo) {
                                    Status::ALL_PASS => *in_force.lock().unwrap() = *number,
                                    Status::ALL_FAIL | Status::OUT_OF_MEMORY => {}
                                    other => panic!("{other}"),
                                }
                            }
                        }
                    });
                }
            });
        });
        assert!(changes["refused"].as_u64().unwrap() > 0, "{changes}");
    }
}

#[test]
fn a_connection_sees_its_changes_of_a_coin_in_order() {
    for shards in [1, 2] {
        let (trial, node) = Trial::start(shards);
        let mut stream = connect(node.address);
        // Coins of both shards.
        for &(coin, real) in &trial.coins {
            let steps = [real, an(1), an(2), an(3), real];
            let mut asked = Vec::new();
            let mut right = VecDeque::new();
            for pair in steps.windows(2) {
                asked.extend(pown(coin, pair[0], pair[1], right.len() as u16));
                right.push_back(Status::ALL_PASS);
                asked.extend(pown(coin, pair[0], an(9), right.len() as u16));
                right.push_back(Status::ALL_FAIL);
                asked.extend(pown(coin, pair[1], pair[1], right.len() as u16));
                right.push_back(Status::ALL_PASS);
                if pair[1] == an(2) {
                    asked.extend(detect(coin, an(2), right.len() as u16));
                    right.push_back(Status::ALL_PASS);
                    asked.extend(detect(coin, an(1), right.len() as u16));
                    right.push_back(Status::ALL_FAIL);
                }
            }
            stream.write_all(&asked).unwrap();
            for (echo, right) in right.into_iter().enumerate() {
                assert_eq!(answer(&mut stream, echo as u16), right, "{echo} of {coin}");
            }
        }
    }
}

#[test]
fn changes_that_share_a_record_and_were_answered_outlive_a_kill() {
    const LINKS: usize = 40;
    const ROUNDS: usize = 12;
    let mut shared = 0;
    for shards in [1, 2] {
        let (trial, mut node) = Trial::start(shards);
        let mut coins = trial.coins.clone();
        for round in 0..ROUNDS {
            let place = round % coins.len();
            let (coin, real) = coins[place];
            let number = |link: usize| match link {
                0 => real,
                link => an((10_000 * (1 + shards as usize * ROUNDS + round) + link) as u32),
            };
            let asked: Vec<u8> = (0..LINKS)
                .flat_map(|link| pown(coin, number(link), number(link + 1), link as u16))
                .collect();
            let mut stream = connect(node.address);
            stream.write_all(&asked).unwrap();
            let awaited = [0, 1, 2, LINKS / 2, LINKS][round % 5];
            for echo in 0..awaited {
                assert_eq!(answer(&mut stream, echo as u16), Status::ALL_PASS);
            }
            if awaited == LINKS {
                shared += trial.changes()["shared"].as_u64().unwrap();
            }
            node.kill();
            // Answers that were on their way count too.
            let mut answered = awaited;
            let mut rest = [0; ANSWER_BYTES];
            while stream.read_exact(&mut rest).is_ok() {
                assert_eq!(rest[2], Status::ALL_PASS.code());
                answered += 1;
            }
            node = serve(&trial.data, shards).start();
            let mut stream = connect(node.address);
            let is_there = |link: &usize| {
                let echo = *link as u16;
                stream
                    .write_all(&detect(coin, number(*link), echo))
                    .unwrap();
                answer(&mut stream, echo) == Status::ALL_PASS
            };
            let found = (0..=LINKS).find(is_there);
            let found = found.expect("one of the numbers is in force");
            assert!(
                found >= answered,
                "{found} is in force, {answered} were answered"
            );
            coins[place].1 = number(found);
        }
    }
    assert!(shared > 0, "no record was shared");
}
