//! Real sockets against real executors, with a handler that knows nothing of coins: what must hold
//! for connections and datagrams whatever the requests mean.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use raida::coin::PageId;
use raida::runtime::run_awake;
use raida::service::budget::{Budget, BudgetLimits, Made, Needs, Place};
use raida::shard::Stranger;

use raida::net::{
    Drained, Handled, Handler, Limits, Origin, Release, Session, Settings, Sockets, Split, Stop,
    bind, serve,
};

/// Far beyond what anything here takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request: its kind, its whole length in 4 bytes big-endian, a payload. The answer to most is
/// the request itself.
const HEADER: usize = 5;
const ECHO: u8 = b'e';
const SILENT: u8 = b's';
/// Answered once a RELEASE with the same payload has come, or a RELEASE without one.
const HOLD: u8 = b'h';
const RELEASE: u8 = b'r';
/// Answered with the request, its last byte replaced, once an UNPARK has come to this core.
const PARK: u8 = b'p';
const UNPARK: u8 = b'u';
/// Answered with the shard's number.
const WHERE: u8 = b'w';
/// Answered with the client's address, in text.
const WHO: u8 = b'a';
/// Answered with `payload` as a number of bytes.
const LARGE: u8 = b'l';
/// As HOLD, with an answer whose size nobody knows.
const OPEN: u8 = b'o';
/// Refused, but where it ends is known.
const LONG: u8 = b'L';
/// Refused, and where it ends is not known.
const LOST: u8 = b'X';

/// The answer to a request without room.
const FULL: &[u8] = b"full";

fn request(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// What the test and the handlers on all cores share.
#[derive(Default)]
struct Seen {
    held: AtomicUsize,
    released: AtomicUsize,
    gates: Mutex<Gates>,
}

#[derive(Default)]
struct Gates {
    all: bool,
    open: HashSet<Vec<u8>>,
    waiting: Vec<Waker>,
}

impl Seen {
    /// Lets requests that are held be answered: those with this payload, or all.
    fn release(&self, payload: &[u8]) {
        let mut gates = self.gates.lock().unwrap();
        gates.all |= payload.is_empty();
        gates.open.insert(payload.to_vec());
        let waiting = std::mem::take(&mut gates.waiting);
        drop(gates);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn release_all(&self) {
        self.release(b"");
    }

    fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    fn released(&self) -> usize {
        self.released.load(SeqCst)
    }

    async fn wait_for_release(&self, payload: &[u8]) {
        poll_fn(|cx| {
            let mut gates = self.gates.lock().unwrap();
            if gates.all || gates.open.contains(payload) {
                return Poll::Ready(());
            }
            gates.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.released.fetch_add(1, SeqCst);
    }
}

#[derive(Clone)]
struct Test {
    shard: u8,
    seen: Arc<Seen>,
    parked: Rc<Parked>,
    budget: Rc<Budget>,
}

/// What a request that is held takes.
fn needs(kind: u8, length: usize) -> Needs {
    Needs {
        changes: kind == PARK,
        bytes: length,
        is_open: kind == OPEN,
    }
}

/// The parked answers of one core.
#[derive(Default)]
struct Parked {
    next: Cell<usize>,
    waiting: RefCell<Vec<(usize, Place)>>,
    released: RefCell<Vec<Released>>,
    waker: RefCell<Option<Waker>>,
}

struct Released(usize);

impl Release for Released {
    fn id(&self) -> usize {
        self.0
    }

    fn complete(&self, response: &mut [u8]) {
        *response.last_mut().unwrap() = b'!';
    }
}

impl Parked {
    fn park(&self, place: Place) -> usize {
        let id = self.next.get();
        self.next.set(id + 1);
        self.waiting.borrow_mut().push((id, place));
        id
    }

    /// The last first, so that the order of answers comes from the code under test.
    fn release_all(&self) {
        let waiting = self.waiting.take();
        let mut released = self.released.borrow_mut();
        released.extend(waiting.into_iter().rev().map(|(id, _)| Released(id)));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Handler for Test {
    type Session = Test;
    type Release = Released;

    fn poll_released(&self, cx: &mut Context<'_>, released: &mut Vec<Released>) -> Poll<()> {
        *released = self.parked.released.take();
        *self.parked.waker.borrow_mut() = Some(cx.waker().clone());
        match released.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    fn budget(&self) -> &Rc<Budget> {
        &self.budget
    }

    fn session(&self, _: Origin) -> Test {
        self.clone()
    }
}

impl Session for Test {
    fn split(&mut self, bytes: &[u8]) -> Split {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Split::Incomplete { needed: HEADER };
        };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        match header[0] {
            LONG => Split::Refused {
                length: Some(length),
            },
            LOST => Split::Refused { length: None },
            _ if bytes.len() < length => Split::Incomplete { needed: length },
            kind => Split::Whole {
                length,
                needs: needs(kind, length),
            },
        }
    }

    fn handle(&mut self, request: &mut [u8], peer: SocketAddr, out: &mut Vec<u8>) -> Handled {
        let payload = request.get(HEADER..).unwrap_or_default();
        match request.first() {
            Some(&kind @ (HOLD | OPEN)) => {
                let account = self.budget.account(Stranger::of(peer.ip()));
                let Ok((place, share)) = account.enter(&needs(kind, request.len())) else {
                    out.extend_from_slice(FULL);
                    return Handled::Answered;
                };
                let (bytes, test) = (request.to_vec(), self.clone());
                test.seen.held.fetch_add(1, SeqCst);
                return Handled::Later(Box::pin(async move {
                    test.seen.wait_for_release(&bytes[HEADER..]).await;
                    drop(place);
                    let share = Some(share);
                    Made { bytes, share }
                }));
            }
            Some(&RELEASE) => self.seen.release(payload),
            Some(&PARK) => {
                let Ok(place) = self.budget.account(Stranger::of(peer.ip())).place(true) else {
                    out.extend_from_slice(FULL);
                    return Handled::Answered;
                };
                out.extend_from_slice(request);
                return Handled::Parked(self.parked.park(place));
            }
            Some(&UNPARK) => self.parked.release_all(),
            Some(&WHERE) => {
                out.push(self.shard);
                return Handled::Answered;
            }
            Some(&WHO) => {
                write!(out, "{peer}").unwrap();
                return Handled::Answered;
            }
            Some(&LARGE) => {
                let length = u32::from_be_bytes(payload.try_into().unwrap());
                out.resize(out.len() + length as usize, 7);
                return Handled::Answered;
            }
            Some(&SILENT) => {
                out.extend_from_slice(b"not to be sent");
                return Handled::Silent;
            }
            _ => {}
        }
        out.extend_from_slice(request);
        Handled::Answered
    }

    fn refuse_for_room(&mut self, _: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(FULL);
    }

    fn refuse(&mut self, header: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&request(header[0], b"refused"));
    }
}

struct Node {
    address: SocketAddr,
    limits: Arc<Limits>,
    stop: Stop,
    seen: Arc<Seen>,
    cores: Vec<std::thread::JoinHandle<io::Result<Drained>>>,
}

fn start(cores: u16, settings: Settings) -> Node {
    let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), cores).unwrap();
    start_with(sockets, settings)
}

fn start_with(sockets: Vec<Sockets>, settings: Settings) -> Node {
    let address = sockets[0].address();
    let (limits, stop, seen) = (Limits::new(&settings), Stop::default(), Arc::default());
    let spawn = |sockets: Sockets| {
        let (limits, stop, seen) = (Arc::clone(&limits), stop.clone(), Arc::clone(&seen));
        let waiting = limits.waiting();
        std::thread::spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Unbound);
            let handler = Test {
                shard: sockets.shard().index() as u8,
                seen,
                parked: Rc::default(),
                budget: Budget::new(waiting),
            };
            let serving = serve(sockets, handler, limits, stop);
            run_awake(&executor.make().unwrap(), serving)
        })
    };
    let cores = sockets.into_iter().map(spawn).collect();
    Node {
        address,
        limits,
        stop,
        seen,
        cores,
    }
}

impl Node {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn finish(self) -> Vec<Drained> {
        self.stop.stop();
        let cores = self.cores.into_iter();
        cores.map(|core| core.join().unwrap().unwrap()).collect()
    }
}

/// Waits for what another thread is about to bring about.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(SeqCst)
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).unwrap();
    assert!(received == bytes, "another answer than expected");
}

/// Reads until the node closes.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn answers_keep_the_order_of_requests_whatever_order_they_are_ready_in() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    let first = request(HOLD, b"first");
    let second = request(HOLD, b"second");
    let echo = request(ECHO, b"echo");
    let silent = request(SILENT, b"");
    let release_second = request(RELEASE, b"second");
    let release_first = request(RELEASE, b"first");
    let refused = request(LONG, b"12345");
    let all = [
        &first[..],
        &second,
        &echo,
        &silent,
        &echo,
        &release_second,
        &refused,
        &release_first,
    ];
    stream.write_all(&all.concat()).unwrap();
    let answers = [
        &first[..],
        &second,
        &echo,
        &echo,
        &release_second,
        &request(LONG, b"refused"),
        &release_first,
    ];
    expect(&mut stream, &answers.concat());
    assert_eq!(node.finish(), [Drained::default()]);
}

#[test]
fn a_request_may_be_cut_at_every_byte() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    let two = [request(ECHO, b"payload"), request(HOLD, b"held")].concat();
    node.seen.release_all();
    for cut in 1..two.len() {
        stream.write_all(&two[..cut]).unwrap();
        std::thread::sleep(Duration::from_millis(2)); // so that most cuts are seen as such
        stream.write_all(&two[cut..]).unwrap();
        expect(&mut stream, &two);
    }
    for byte in &two {
        stream.write_all(&[*byte]).unwrap();
    }
    expect(&mut stream, &two);
    node.finish();
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    let node = start(1, Settings::default());
    let stream = node.connect();
    let numbered = |kind: u8, n: u32| request(kind, &n.to_be_bytes());
    node.seen.release_all();
    let stream_of = |n: u32| numbered(if n.is_multiple_of(5) { HOLD } else { ECHO }, n);
    let all: Vec<u8> = (0..10_000).flat_map(stream_of).collect();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        let all = &all;
        scope.spawn(move || writer.write_all(all).unwrap());
        let mut reader = stream.try_clone().unwrap();
        expect(&mut reader, all);
    });
    node.finish();
}

#[test]
fn a_request_as_large_as_the_limit_is_answered_and_a_larger_one_ends_the_connection() {
    let max_body_bytes = 1024 * 1024;
    let settings = Settings {
        max_body_bytes,
        ..Settings::default()
    };
    let node = start(1, settings);
    let mut stream = node.connect();
    let echo = request(ECHO, b"after");
    let largest = request(ECHO, &vec![3; max_body_bytes]);
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        let all = [&largest[..], &echo, &largest, &echo].concat();
        scope.spawn(move || writer.write_all(&all).unwrap());
        expect(
            &mut stream,
            &[&largest[..], &echo, &largest, &echo].concat(),
        );
    });
    let too_long = (max_body_bytes as u32 * 2).to_be_bytes();
    let header = [&[ECHO][..], &too_long].concat();
    stream.write_all(&header).unwrap();
    assert!(rest(&mut stream).is_empty());
    node.finish();
}

#[test]
fn a_refused_request_is_skipped_where_its_end_is_known() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    let echo = request(ECHO, b"after");
    let long = request(LONG, &vec![0; 3_000_000]);
    stream.write_all(&long[..10]).unwrap();
    expect(&mut stream, &request(LONG, b"refused")); // at once, not after the body
    stream.write_all(&long[10..]).unwrap();
    stream
        .write_all(&[&echo[..], &request(LONG, b""), &echo].concat())
        .unwrap();
    expect(
        &mut stream,
        &[&echo[..], &request(LONG, b"refused"), &echo].concat(),
    );
    node.finish();
}

#[test]
fn a_refused_request_of_unknown_length_is_answered_last_even_with_more_on_its_way() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    let echo = request(ECHO, b"before");
    let held = request(HOLD, b"held");
    let all = [&echo[..], &held, &request(LOST, b"x"), &[9; 100_000]].concat();
    stream.write_all(&all).unwrap();
    expect(&mut stream, &echo);
    node.seen.release_all();
    expect(&mut stream, &held);
    assert_eq!(rest(&mut stream), request(LOST, b"refused"));
    node.finish();
}

#[test]
fn what_a_client_still_sends_takes_no_answer_from_it() {
    const LENGTH: usize = 400_000;
    let node = start(1, Settings::default());
    let large = request(LARGE, &(LENGTH as u32).to_be_bytes());
    let refused = [&large[..], &request(LOST, b"x")].concat();
    let answers = [&vec![7; LENGTH][..], &request(LOST, b"refused")].concat();
    // All at once: what is left unread when both sides have said their last is no reason to reset.
    for round in 0..40 {
        let mut stream = node.connect();
        stream.write_all(&refused).unwrap();
        stream.write_all(&vec![9; 1_000 * round]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        assert!(rest(&mut stream) == answers, "round {round}");
    }
    // Bit by bit, for longer than the node waits for a client that is silent.
    let mut stream = node.connect();
    stream.write_all(&refused).unwrap();
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(&[9; 100]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut stream) == answers, "bit by bit");
    until("closed", || node.limits.open_connections() == 0);
    node.finish();
}

#[test]
fn a_client_that_only_closes_its_side_gets_all_its_answers() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    let all = [request(HOLD, b"held"), request(ECHO, b"echo")].concat();
    stream.write_all(&all).unwrap();
    stream.write_all(&request(ECHO, b"not whole")[..7]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    until("held", || node.seen.held() == 1);
    node.seen.release_all();
    assert_eq!(rest(&mut stream), all);
    until("closed", || node.limits.open_connections() == 0);
    node.finish();
}

#[test]
fn a_request_is_carried_out_although_its_client_is_gone() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    stream.write_all(&request(HOLD, b"change")).unwrap();
    until("held", || node.seen.held() == 1);
    drop(stream);
    let udp = node.udp();
    udp.send(&request(HOLD, b"change")).unwrap();
    until("held", || node.seen.held() == 2);
    drop(udp);
    let mut stream = node.connect();
    stream.write_all(&request(RELEASE, b"change")).unwrap();
    expect(&mut stream, &request(RELEASE, b"change"));
    until("released", || node.seen.released() == 2);
    node.finish();
}

/// All time-outs out of reach.
fn patient() -> Settings {
    Settings {
        header_timeout: 10 * PATIENCE,
        body_timeout: 10 * PATIENCE,
        idle_timeout: 10 * PATIENCE,
        ..Settings::default()
    }
}

const SHORT: Duration = Duration::from_millis(300);

/// Sends a byte of `bytes` now and then, until the node closes, which it must before they are over.
fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    for byte in bytes {
        let _ = stream.write_all(&[*byte]); // fails once the node has closed
        match stream.read(&mut [0; 64]) {
            Ok(0) => return,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("the node did not close but: {other:?}"),
        }
    }
    panic!("the node took the whole request");
}

#[test]
fn a_header_that_comes_too_slowly_ends_the_connection() {
    let settings = Settings {
        header_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let mut stream = node.connect();
    let echo = request(ECHO, b"fast enough");
    stream.write_all(&echo).unwrap();
    expect(&mut stream, &echo);
    stream.write_all(&echo[..3]).unwrap();
    let start = Instant::now();
    assert!(rest(&mut stream).is_empty());
    assert!(start.elapsed() >= SHORT);
    assert_eq!(get(&node.limits.counters().timed_out_header), 1);
    node.finish();
}

#[test]
fn the_first_header_has_its_time_however_quiet_the_node_was_before() {
    let settings = Settings {
        header_timeout: 4 * SHORT,
        ..patient()
    };
    for cores in [1, 2] {
        let node = start(cores, settings.clone());
        for _ in 0..2 {
            // Nobody is connected for longer than a header may take.
            std::thread::sleep(5 * SHORT);
            let mut streams: Vec<TcpStream> = (0..8).map(|_| node.connect()).collect();
            std::thread::sleep(SHORT);
            for stream in &mut streams {
                expect_echo(stream);
            }
            drop(streams);
            until("closed", || node.limits.open_connections() == 0);
        }
        assert_eq!(get(&node.limits.counters().timed_out_header), 0);
        node.finish();
    }
}

#[test]
fn a_body_that_drips_ends_the_connection_although_bytes_keep_coming() {
    let settings = Settings {
        body_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let mut stream = node.connect();
    drip(&mut stream, &request(ECHO, &[1; 2_000]));
    assert_eq!(get(&node.limits.counters().timed_out_body), 1);
    let mut stream = node.connect();
    stream
        .write_all(&request(LONG, &[1; 2_000])[..HEADER])
        .unwrap();
    expect(&mut stream, &request(LONG, b"refused"));
    drip(&mut stream, &[1; 2_000]);
    assert_eq!(get(&node.limits.counters().timed_out_body), 2);
    node.finish();
}

#[test]
fn a_client_without_requests_is_closed_but_not_one_that_waits_for_its_answer() {
    let settings = Settings {
        idle_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let mut waiting = node.connect();
    let held = request(HOLD, b"held");
    waiting.write_all(&held).unwrap();
    until("held", || node.seen.held() == 1);
    for _ in 0..2 {
        let mut idle = node.connect();
        expect_echo(&mut idle);
        assert!(rest(&mut idle).is_empty());
    }
    assert_eq!(get(&node.limits.counters().timed_out_idle), 2);
    node.seen.release_all();
    expect(&mut waiting, &held);
    assert!(rest(&mut waiting).is_empty());
    node.finish();
}

#[test]
fn a_client_that_never_rests_is_not_taken_for_idle() {
    let settings = Settings {
        header_timeout: SHORT,
        idle_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let stream = node.connect();
    let all = request(ECHO, &[5; 100]).repeat(1_000);
    let start = Instant::now();
    while start.elapsed() < 4 * SHORT {
        std::thread::scope(|scope| {
            let (mut writer, mut reader) = (&stream, stream.try_clone().unwrap());
            let all = &all;
            scope.spawn(move || (0..100).for_each(|_| writer.write_all(all).unwrap()));
            (0..100).for_each(|_| expect(&mut reader, all));
        });
    }
    node.finish();
}

#[test]
fn a_client_that_does_not_take_its_answers_is_closed() {
    let settings = Settings {
        idle_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let mut stream = node.connect();
    let large = request(LARGE, &100_000_000u32.to_be_bytes());
    stream.write_all(&large).unwrap();
    until("closed", || {
        get(&node.limits.counters().timed_out_write) == 1
    });
    until("gone", || node.limits.open_connections() == 0);
    node.finish();
}

#[test]
fn a_client_that_takes_a_large_answer_slowly_but_steadily_gets_it() {
    let settings = Settings {
        max_body_bytes: 1024,
        ..patient()
    };
    let node = start(1, settings);
    let mut stream = node.connect();
    let large = request(LARGE, &3_000_000u32.to_be_bytes());
    stream
        .write_all(&[&large[..], &large, &large].concat())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut received, mut piece) = (0, vec![0; 100_000]);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            length => received += length,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(received, 9_000_000);
    node.finish();
}

/// A connection from this address of the loopback.
fn connect_from(node: &Node, address: [u8; 4]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&node.address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether this request is answered with itself.
fn is_served(stream: &mut TcpStream, request: &[u8]) -> bool {
    let mut answer = vec![0; request.len()];
    let sent = stream.write_all(request);
    sent.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == request
}

#[test]
fn connections_over_the_limits_are_closed_at_once_where_all_have_requests_in_the_works() {
    let settings = Settings {
        max_connections: 3,
        max_connections_per_address: 2,
        ..patient()
    };
    let node = start(2, settings.clone());
    let echo = request(ECHO, b"echo");
    let held = request(HOLD, b"held");
    let from = |last: u8| connect_from(&node, [127, 0, 0, last]);
    let mut kept = [from(1), from(1)];
    for (count, stream) in (1..).zip(&mut kept) {
        stream.write_all(&held).unwrap();
        until("held", || node.seen.held() == count);
    }
    assert!(!is_served(&mut from(1), &echo));
    let mut third = from(2);
    third.write_all(&held).unwrap();
    until("held", || node.seen.held() == 3);
    assert!(!is_served(&mut from(3), &echo));
    let counters = node.limits.counters();
    assert_eq!(get(&counters.refused_address), 1);
    assert_eq!(get(&counters.refused_full), 1);
    assert_eq!(get(&counters.evicted), 0);

    node.seen.release_all();
    kept.iter_mut().for_each(|stream| expect(stream, &held));
    drop(kept);
    until("two places free", || node.limits.open_connections() == 1);
    assert!(is_served(&mut from(3), &echo));
    let more = Settings {
        max_connections: 0,
        max_connections_per_address: 0,
        ..settings
    };
    node.limits.change(&more);
    assert!(!is_served(&mut from(4), &echo));
    expect(&mut third, &held);
    assert!(
        is_served(&mut third, &echo),
        "a lower limit leaves connections alone"
    );
    node.finish();
}

#[test]
fn a_newcomer_takes_the_place_of_the_one_idle_longest_of_the_address_with_most() {
    let settings = Settings {
        max_connections: 6,
        max_connections_per_address: 4,
        ..patient()
    };
    let node = start(2, settings);
    let echo = request(ECHO, b"echo");
    let from = |last: u8| connect_from(&node, [127, 0, 0, last]);
    // Further apart than the clock of a core is looked at.
    let pause = || std::thread::sleep(Duration::from_millis(400));
    let mut few = [from(1), from(1)];
    assert!(few.iter_mut().all(|stream| is_served(stream, &echo)));
    pause();
    let mut many: Vec<TcpStream> = Vec::new();
    for _ in 0..4 {
        many.push(from(2));
        assert!(is_served(many.last_mut().unwrap(), &echo));
        pause();
    }
    // The oldest is used again, and so the second has been idle longest.
    assert!(is_served(&mut many[0], &echo));
    let mut newcomer = from(3);
    assert!(is_served(&mut newcomer, &echo));
    assert_eq!(rest(&mut many[1]), b"");
    // An address with all that it may have makes room for itself.
    let mut own = [from(2), from(2)];
    assert!(own.iter_mut().all(|stream| is_served(stream, &echo)));
    for stream in &mut few {
        assert!(is_served(stream, &echo), "of an address with few");
    }
    assert!(is_served(&mut newcomer, &echo));
    assert!(get(&node.limits.counters().evicted) >= 3);
    assert!(node.limits.open_connections() <= 6);
    node.finish();
}

#[test]
fn silent_connections_end_after_the_time_for_a_header() {
    let settings = Settings {
        header_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let start = Instant::now();
    let (mut silent, mut dripping) = (node.connect(), node.connect());
    // A byte buys no time for the first header.
    dripping.write_all(&request(ECHO, b"echo")[..1]).unwrap();
    let mut used = node.connect();
    expect_echo(&mut used);
    assert_eq!(rest(&mut silent), b"");
    assert_eq!(rest(&mut dripping), b"");
    assert!(start.elapsed() < PATIENCE);
    until("counted", || {
        get(&node.limits.counters().timed_out_header) == 2
    });
    std::thread::sleep(2 * SHORT);
    expect_echo(&mut used);
    node.finish();
}

fn expect_echo(stream: &mut TcpStream) {
    let echo = request(ECHO, b"echo");
    stream.write_all(&echo).unwrap();
    expect(stream, &echo);
}

#[test]
fn a_connection_with_many_unanswered_requests_is_not_read_from() {
    let node = start(1, Settings::default());
    let mut stream = node.connect();
    let held: Vec<u8> = (0..1_000u32)
        .flat_map(|n| request(HOLD, &n.to_be_bytes()))
        .collect();
    stream.write_all(&held).unwrap();
    until("256 held", || node.seen.held() == 256);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(node.seen.held(), 256);
    node.seen.release_all();
    expect(&mut stream, &held);
    node.finish();
}

/// Room for few, so that a test need not send much.
const FEW: BudgetLimits = BudgetLimits {
    requests: 1_024,
    bytes: 16 << 20,
};
/// What one address gets of that.
const OF_ONE: usize = 192;

#[test]
fn an_address_with_its_share_of_places_waits_and_others_are_served() {
    let settings = Settings {
        waiting: FEW,
        ..patient()
    };
    let node = start(1, settings);
    let held: Vec<u8> = (0..50u32)
        .flat_map(|n| request(HOLD, &n.to_be_bytes()))
        .collect();
    let mut streams: Vec<TcpStream> = (0..8).map(|_| node.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&held).unwrap();
    }
    until("its share", || node.seen.held() == OF_ONE);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(node.seen.held(), OF_ONE);
    // Another address has places, and datagrams of this one are answered at once or refused.
    let mut other = connect_from(&node, [127, 0, 0, 2]);
    assert!(is_served(&mut other, &request(ECHO, b"echo")));
    other.write_all(&request(HOLD, b"other")).unwrap();
    until("held", || node.seen.held() == OF_ONE + 1);
    let udp = node.udp();
    for (kind, answer) in [(ECHO, request(ECHO, b"udp")), (HOLD, FULL.to_vec())] {
        udp.send(&request(kind, b"udp")).unwrap();
        let mut received = [0; 64];
        let length = udp.recv(&mut received).unwrap();
        assert_eq!(received[..length], answer);
    }
    // All of them come through in the end, in order.
    node.seen.release_all();
    for stream in &mut streams {
        expect(stream, &held);
    }
    expect(&mut other, &request(HOLD, b"other"));
    node.finish();
}

#[test]
fn a_full_core_answers_what_needs_no_place_and_refuses_the_rest() {
    let settings = Settings {
        waiting: FEW,
        ..patient()
    };
    let node = start(1, settings);
    let held: Vec<u8> = (0..OF_ONE as u32 / 2)
        .flat_map(|n| request(HOLD, &n.to_be_bytes()))
        .collect();
    let mut streams: Vec<TcpStream> = (1..=6)
        .flat_map(|last| [last, last])
        .map(|last| connect_from(&node, [127, 0, 0, last]))
        .collect();
    for stream in &mut streams {
        stream.write_all(&held).unwrap();
    }
    until("full", || node.seen.held() == FEW.requests);
    let mut other = connect_from(&node, [127, 0, 0, 9]);
    let udp = node.udp();
    for _ in 0..3 {
        expect_echo(&mut other);
        other.write_all(&request(HOLD, b"other")).unwrap();
        expect(&mut other, FULL);
        udp.send(&request(ECHO, b"udp")).unwrap();
        assert_eq!(udp.recv(&mut [0; 64]).unwrap(), HEADER + 3);
        udp.send(&request(HOLD, b"udp")).unwrap();
        assert_eq!(udp.recv(&mut [0; 64]).unwrap(), FULL.len());
    }
    node.seen.release_all();
    drop(streams);
    until("room", || {
        other.write_all(&request(HOLD, b"other")).unwrap();
        let mut first = [0; 1];
        other.read_exact(&mut first).unwrap();
        let rest = match first[0] {
            HOLD => HEADER + 4,
            _ => FULL.len() - 1,
        };
        other.read_exact(&mut vec![0; rest]).unwrap();
        first[0] == HOLD
    });
    node.finish();
}

#[test]
fn changes_leave_places_for_questions_of_their_own_address() {
    let settings = Settings {
        waiting: FEW,
        ..patient()
    };
    let node = start(1, settings);
    let parked: Vec<u8> = (0..100u32)
        .flat_map(|n| request(PARK, &n.to_be_bytes()))
        .collect();
    let mut streams: Vec<TcpStream> = (0..4).map(|_| node.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&parked).unwrap();
    }
    // However many changes wait, a question that has to wait finds a place.
    std::thread::sleep(Duration::from_millis(100));
    let mut asking = node.connect();
    asking.write_all(&request(HOLD, b"question")).unwrap();
    until("held", || node.seen.held() == 1);
    node.seen.release_all();
    expect(&mut asking, &request(HOLD, b"question"));
    node.finish();
}

#[test]
fn a_request_that_announces_much_takes_no_room_from_others() {
    let settings = Settings {
        waiting: FEW,
        ..patient()
    };
    let node = start(1, settings);
    // An address keeps 2 MiB: two requests of 1 MiB, and a third waits until one of them is there.
    let long = request(ECHO, &vec![7; (1 << 20) - HEADER]);
    let (most, end) = long.split_at(long.len() - 10);
    let mut streams: Vec<TcpStream> = (0..8).map(|_| node.connect()).collect();
    let senders: Vec<_> = streams
        .iter()
        .map(|stream| {
            let (mut stream, most) = (stream.try_clone().unwrap(), most.to_vec());
            std::thread::spawn(move || stream.write_all(&most).unwrap())
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut other = connect_from(&node, [127, 0, 0, 2]);
    assert!(is_served(&mut other, &long));
    expect_echo(&mut node.connect());
    // All come to their end, two by two.
    std::thread::scope(|scope| {
        for stream in &mut streams {
            scope.spawn(|| {
                stream.write_all(end).unwrap();
                expect(stream, &long);
            });
        }
    });
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    node.finish();
}

#[test]
fn nothing_is_taken_on_while_an_answer_of_unknown_size_is_made() {
    let node = start(1, patient());
    let mut stream = node.connect();
    let all: Vec<u8> = (0..10u8).flat_map(|n| request(OPEN, &[n])).collect();
    stream.write_all(&all).unwrap();
    for count in 1..=10 {
        until("held", || node.seen.held() == count);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(node.seen.held(), count);
        node.seen.release(&[count as u8 - 1]);
    }
    expect(&mut stream, &all);
    node.finish();
}

#[test]
fn a_stop_answers_what_was_taken_on_and_takes_on_no_more() {
    let node = start(2, Settings::default());
    let mut streams: Vec<TcpStream> = (0..8).map(|_| node.connect()).collect();
    let held = request(HOLD, b"held");
    for stream in &mut streams {
        stream.write_all(&held).unwrap();
    }
    let udp = node.udp();
    udp.send(&held).unwrap();
    until("held", || node.seen.held() == 9);
    let mut idle = node.connect();
    let echo = request(ECHO, b"echo");
    idle.write_all(&echo).unwrap();
    expect(&mut idle, &echo);

    node.stop.stop();
    assert!(rest(&mut idle).is_empty());
    until("not listening", || {
        TcpStream::connect(node.address).is_err()
    });
    for stream in &mut streams {
        let _ = stream.write_all(&echo);
    }
    assert_eq!(node.seen.released(), 0);
    node.seen.release_all();
    for stream in &mut streams {
        expect(stream, &held);
        assert!(rest(stream).is_empty());
    }
    let mut answer = [0; 64];
    let received = udp.recv(&mut answer).unwrap();
    assert_eq!(answer[..received], held);
    drop((streams, idle));
    assert_eq!(node.finish(), [Drained::default(); 2]);
}

#[test]
fn a_stop_cuts_off_what_takes_too_long_and_says_so() {
    let settings = Settings {
        drain_timeout: SHORT,
        ..patient()
    };
    let node = start(1, settings);
    let mut stream = node.connect();
    stream.write_all(&request(HOLD, b"for ever")).unwrap();
    until("held", || node.seen.held() == 1);
    let start = Instant::now();
    let cut = Drained {
        connections_cut: 1,
        requests_cut: 1,
    };
    assert_eq!(node.finish(), [cut]);
    assert!((SHORT..PATIENCE).contains(&start.elapsed()));
    assert!(rest(&mut stream).is_empty());
}

#[test]
fn udp_echoes_from_one_byte_to_the_largest_datagram() {
    let node = start(1, Settings::default());
    let udp = node.udp();
    let mut answer = vec![0; 65_536];
    for length in [0, 1, 5, 100, 1_472, 9_000, 65_000, 65_507] {
        let sent: Vec<u8> = (0..length).map(|i| (i % 251) as u8 | 0x80).collect();
        udp.send(&sent).unwrap();
        let received = udp.recv(&mut answer).unwrap();
        assert!(answer[..received] == sent, "{length} bytes");
    }
    udp.send(&request(SILENT, b"")).unwrap();
    udp.send(&request(LARGE, &65_508u32.to_be_bytes())).unwrap();
    udp.send(&request(ECHO, b"last")).unwrap();
    let received = udp.recv(&mut answer).unwrap();
    assert_eq!(answer[..received], request(ECHO, b"last"));
    assert_eq!(get(&node.limits.counters().answers_dropped), 1);
    node.finish();
}

#[test]
fn udp_answers_many_at_once_and_later_ones_when_they_are_ready() {
    let node = start(1, Settings::default());
    let udp = node.udp();
    let numbered = |kind: u8, n: u32| request(kind, &n.to_be_bytes());
    let mut answers = Vec::new();
    let mut receive = |count: usize| {
        for _ in 0..count {
            let mut answer = [0; 64];
            let received = udp.recv(&mut answer).unwrap();
            answers.push(answer[..received].to_vec());
        }
    };
    for n in 0..100 {
        udp.send(&numbered(HOLD, n)).unwrap();
        udp.send(&numbered(ECHO, n)).unwrap();
    }
    receive(100);
    udp.send(&request(RELEASE, b"")).unwrap();
    receive(101);
    let mut expected: Vec<Vec<u8>> = (0..100).map(|n| numbered(ECHO, n)).collect();
    expected.push(request(RELEASE, b""));
    expected.extend((0..100).map(|n| numbered(HOLD, n)));
    assert_eq!(answers[..100], expected[..100]);
    expected.sort();
    answers.sort();
    assert_eq!(answers, expected);
    node.finish();
}

#[test]
fn datagrams_without_end_keep_no_stream_waiting() {
    let node = start(1, Settings::default());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let udp = node.udp();
                let echo = request(ECHO, b"and another");
                let begun = Instant::now();
                while !is_over.load(SeqCst) && begun.elapsed() < 2 * PATIENCE {
                    // Answers that nobody takes are dropped where they arrive.
                    udp.send(&echo).unwrap();
                }
            });
        }
        // Ends the flood also where what follows fails.
        let _ends = Ends(&is_over);
        for number in 0..20 {
            let held = request(HOLD, &[number]);
            let mut stream = node.connect();
            let echo = request(ECHO, &[number]);
            stream.write_all(&echo).unwrap();
            expect(&mut stream, &echo);
            stream.write_all(&held).unwrap();
            until("held", || node.seen.held() == usize::from(number) + 1);
            node.seen.release(&[number]);
            expect(&mut stream, &held);
        }
    });
    node.finish();
}

/// Says that something is over when dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_datagram_is_handled_by_the_core_that_owns_its_coin() {
    let node = start(3, Settings::default());
    let udp = node.udp();
    for page in PageId::all().step_by(997) {
        let mut datagram = [0; 71];
        datagram[0] = WHERE;
        datagram[48..53].copy_from_slice(&page.coin(5).to_bytes());
        udp.send(&datagram).unwrap();
        let mut answer = [0; 8];
        assert_eq!(udp.recv(&mut answer).unwrap(), 1);
        assert_eq!(usize::from(answer[0]), page.owner(3).index(), "{page}");
    }
    node.finish();
}

#[test]
fn a_client_has_its_ipv4_address_also_on_an_ipv6_socket() {
    let Ok(sockets) = bind("[::]:0".parse().unwrap(), 1) else {
        return; // a machine without IPv6
    };
    let port = sockets[0].address().port();
    let node = start_with(sockets, Settings::default());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(&request(WHO, b"")).unwrap();
    let own = stream.local_addr().unwrap().to_string();
    expect(&mut stream, own.as_bytes());

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    udp.send_to(&request(WHO, b""), ("127.0.0.1", port))
        .unwrap();
    let mut answer = [0; 64];
    let received = udp.recv(&mut answer).unwrap();
    let own = udp.local_addr().unwrap().to_string();
    assert_eq!(answer[..received], *own.as_bytes());
    drop(stream);
    node.finish();
}

#[test]
fn all_cores_stop_at_once_and_without_clients_need_no_time() {
    let node = start(3, Settings::default());
    let udp = node.udp();
    udp.send(&request(ECHO, b"")).unwrap();
    udp.recv(&mut [0; 8]).unwrap();
    let start = Instant::now();
    assert_eq!(node.finish(), [Drained::default(); 3]);
    assert!(start.elapsed() < Settings::default().drain_timeout);
}

#[test]
fn parked_answers_go_when_released_in_the_order_of_their_requests() {
    let node = start(1, Settings::default());
    let (mut stream, mut gone, mut other) = (node.connect(), node.connect(), node.connect());
    let udp = node.udp();
    gone.write_all(&request(PARK, b"lost")).unwrap();
    drop(gone);
    let sent = [
        request(PARK, b"one"),
        request(ECHO, b"two"),
        request(HOLD, b"three"),
        request(PARK, b"four"),
        request(ECHO, b"five"),
    ];
    stream.write_all(&sent.concat()).unwrap();
    udp.send(&request(PARK, b"datagram")).unwrap();
    // What came before is handled before this is, which another connection brings.
    until("the last request is handled", || node.seen.held() > 0);
    let mut none = [0];
    stream.set_nonblocking(true).unwrap();
    let early = stream.read(&mut none).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    // The datagram may be seen later than the streams: ask until it has been.
    let datagram = loop {
        let unpark = request(UNPARK, b"");
        other.write_all(&unpark).unwrap();
        expect(&mut other, &unpark);
        udp.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut bytes = [0; 100];
        if let Ok(length) = udp.recv(&mut bytes) {
            break bytes[..length].to_vec();
        }
    };
    assert_eq!(datagram, request(PARK, b"datagra!"));
    node.seen.release_all();
    let wanted = [
        request(PARK, b"on!"),
        request(ECHO, b"two"),
        request(HOLD, b"three"),
        request(PARK, b"fou!"),
        request(ECHO, b"five"),
    ]
    .concat();
    expect(&mut stream, &wanted);
    assert_eq!(node.finish(), [Drained::default()]);
}

#[test]
fn a_client_that_sends_no_more_and_does_not_read_holds_nobody_up() {
    let node = start(1, Settings::default());
    let mut slow = node.connect();
    let large = 8_000_000u32;
    slow.write_all(&request(LARGE, &large.to_be_bytes()))
        .unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    let mut other = node.connect();
    let echo = request(ECHO, b"meanwhile");
    for _ in 0..50 {
        other.write_all(&echo).unwrap();
        expect(&mut other, &echo);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(rest(&mut slow).len(), large as usize);
    drop(other);
    assert_eq!(node.finish(), [Drained::default()]);
}
