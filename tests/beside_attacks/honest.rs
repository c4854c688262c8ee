//! One honest client, which asks for what it owns and waits for each answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::wire::{
    ALL_PASS, ECHO_BYTES, ECHO_BYTES_BACK, HEADER, Owned, STATUS, body_length, connect, detect,
};

/// The address of the honest client.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 200);

/// Time after which an unanswered datagram is sent again and a connection is given up.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the last answers of a paced run are waited for.
const GRACE: Duration = Duration::from_millis(300);

/// How the honest client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Datagrams.
    Udp,
    /// One connection that stays open.
    Tcp,
    /// A connection for each request.
    Visits,
}

impl Manner {
    pub fn name(self) -> &'static str {
        match self {
            Manner::Udp => "UDP",
            Manner::Tcp => "TCP",
            Manner::Visits => "TCP, a connection each",
        }
    }

    /// Requests a second when latency is measured.
    fn paced_per_second(self) -> u32 {
        match self {
            Manner::Udp | Manner::Tcp => 1_000,
            Manner::Visits => 400,
        }
    }
}

/// What the honest client got in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Right answers a second, one request after the other.
    pub per_second: f64,
    /// Of requests at a steady pace, from when each was due, in microseconds.
    pub p50: u64,
    pub p99: u64,
    /// Requests without a right answer.
    pub unanswered: u64,
}

/// An honest client and its coin.
pub struct Honest {
    node: SocketAddr,
    coin: Owned,
}

impl Honest {
    pub fn new(node: SocketAddr, coin: Owned) -> Honest {
        Honest { node, coin }
    }

    /// Asks as fast as it is answered, then at a steady pace.
    pub fn ask(&self, manner: Manner, closed: Duration, paced: Duration) -> Served {
        let mut served = Served::default();
        let start = Instant::now();
        let right = self.one_after_the_other(manner, start + closed, &mut served.unanswered);
        served.per_second = right as f64 / start.elapsed().as_secs_f64();
        let mut took = match manner {
            Manner::Udp | Manner::Tcp => self.on_time(manner, paced, &mut served.unanswered),
            Manner::Visits => self.visit_on_time(paced, &mut served.unanswered),
        };
        took.sort_unstable();
        let at = |permille: usize| took.get(took.len() * permille / 1_000).copied();
        served.p50 = at(500).unwrap_or(0);
        served.p99 = at(990).unwrap_or(0);
        served
    }

    /// Gives how many right answers came.
    fn one_after_the_other(&self, manner: Manner, until: Instant, unanswered: &mut u64) -> u64 {
        let mut line: Option<Line> = None;
        let mut right = 0;
        let mut number = 0u16;
        while Instant::now() < until {
            if line.is_none() || manner == Manner::Visits {
                // The connection of the visit before is closed before the next one is opened.
                drop(line.take());
                match Line::open(manner, self.node) {
                    Ok(open) => line = Some(open),
                    Err(_) => {
                        *unanswered += 1;
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                }
            }
            let open = line.as_mut().expect("opened just now");
            number = number.wrapping_add(1);
            match open.ask(&self.numbered(number), number) {
                Ok(ALL_PASS) => right += 1,
                Ok(_) => *unanswered += 1,
                Err(_) => {
                    *unanswered += 1;
                    if manner != Manner::Udp {
                        line = None;
                    }
                }
            }
        }
        right
    }

    /// Sends each request when it is due, whatever happened to earlier ones. Returns how long each
    /// took in microseconds, or how long the client waited without an answer.
    fn on_time(&self, manner: Manner, time: Duration, unanswered: &mut u64) -> Vec<u64> {
        let per_second = manner.paced_per_second();
        let count = (time.as_secs_f64() * f64::from(per_second)) as usize;
        let start = Instant::now();
        let due = |number: usize| start + Duration::from_secs(1) * number as u32 / per_second;
        let last = due(count) + GRACE;
        let mut took: Vec<Option<u64>> = vec![None; count];
        let mut line: Option<Line> = None;
        let (mut sent, mut arrived) = (0, 0);
        while arrived < count {
            let now = Instant::now();
            if now >= last {
                break;
            }
            if line.is_none() {
                line = Line::open(manner, self.node).ok();
                if let Some(line) = &mut line {
                    line.never_wait();
                }
            }
            while sent < count && due(sent) <= now {
                if let Some(line) = &mut line {
                    line.send(&self.numbered(sent as u16));
                }
                sent += 1;
            }
            let next = if sent < count { due(sent) } else { last };
            let Some(open) = &mut line else {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                continue;
            };
            wait_for(open.fd(), next.saturating_duration_since(Instant::now()));
            let is_open = open.receive(|number, status| {
                let number = usize::from(number);
                if number < sent && took[number].is_none() && status == ALL_PASS {
                    took[number] = Some(due(number).elapsed().as_micros() as u64);
                    arrived += 1;
                }
            });
            if !is_open {
                line = None;
            }
        }
        *unanswered += (count - arrived) as u64;
        let end = Instant::now();
        let in_vain = |number| end.saturating_duration_since(due(number)).as_micros() as u64;
        let took = took.iter().enumerate();
        took.map(|(number, took)| took.unwrap_or_else(|| in_vain(number)))
            .collect()
    }

    /// The same with a connection for each request, one at a time: one that takes long makes those
    /// behind it late as well.
    fn visit_on_time(&self, time: Duration, unanswered: &mut u64) -> Vec<u64> {
        let per_second = Manner::Visits.paced_per_second();
        let count = (time.as_secs_f64() * f64::from(per_second)) as u32;
        let start = Instant::now();
        let last = start + time + GRACE;
        let mut took = Vec::new();
        for number in 0..count {
            let due = start + Duration::from_secs(1) * number / per_second;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut is_right = false;
            while !is_right && Instant::now() < last {
                let number = number as u16;
                let answer = Line::open(Manner::Visits, self.node)
                    .and_then(|mut line| line.ask(&self.numbered(number), number));
                is_right = matches!(answer, Ok(ALL_PASS));
                if !is_right {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            *unanswered += u64::from(!is_right);
            took.push(due.elapsed().as_micros() as u64);
        }
        took
    }

    fn numbered(&self, number: u16) -> Vec<u8> {
        let mut request = detect(&[self.coin]);
        request[ECHO_BYTES..HEADER].copy_from_slice(&number.to_be_bytes());
        request
    }
}

/// What carries the requests of the honest client.
enum Line {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        /// Requests that the socket did not take yet.
        unsent: Vec<u8>,
        /// Answers that are not all there yet.
        read: Vec<u8>,
    },
}

impl Line {
    fn open(manner: Manner, node: SocketAddr) -> io::Result<Line> {
        if manner == Manner::Udp {
            let socket = UdpSocket::bind((ADDRESS, 0))?;
            socket.connect(node)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            return Ok(Line::Udp(socket));
        }
        Ok(Line::Tcp {
            stream: connect(ADDRESS, node, PATIENCE)?,
            unsent: Vec::new(),
            read: Vec::new(),
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Line::Udp(socket) => socket.as_fd(),
            Line::Tcp { stream, .. } => stream.as_fd(),
        }
    }

    fn never_wait(&mut self) {
        match self {
            Line::Udp(socket) => socket.set_nonblocking(true),
            Line::Tcp { stream, .. } => stream.set_nonblocking(true),
        }
        .expect("an option");
    }

    /// Asks, and waits for the answer. Gives its status.
    fn ask(&mut self, request: &[u8], number: u16) -> io::Result<u8> {
        match self {
            Line::Udp(socket) => {
                socket.send(request)?;
                let mut answer = [0; 128];
                loop {
                    let length = socket.recv(&mut answer)?;
                    // An answer to a request that was given up may come at any time.
                    if length >= HEADER && number_of(&answer) == number {
                        return Ok(answer[STATUS]);
                    }
                }
            }
            Line::Tcp { stream, .. } => {
                stream.write_all(request)?;
                let mut header = [0; HEADER];
                stream.read_exact(&mut header)?;
                let mut body = vec![0; body_length(&header)];
                stream.read_exact(&mut body)?;
                Ok(header[STATUS])
            }
        }
    }

    /// Sends what the socket takes; over TCP the rest waits for its turn.
    fn send(&mut self, request: &[u8]) {
        match self {
            Line::Udp(socket) => {
                let _ = socket.send(request);
            }
            Line::Tcp { stream, unsent, .. } => {
                unsent.extend_from_slice(request);
                if let Ok(length) = stream.write(unsent) {
                    unsent.drain(..length);
                }
            }
        }
    }

    /// Takes all answers that are there, by number and status; `false` when the node has closed.
    fn receive(&mut self, mut answered: impl FnMut(u16, u8)) -> bool {
        let mut space = [0; 4096];
        loop {
            match self {
                Line::Udp(socket) => match socket.recv(&mut space) {
                    Ok(length) if length >= HEADER => answered(number_of(&space), space[STATUS]),
                    Ok(_) => {}
                    Err(_) => return true,
                },
                Line::Tcp { stream, read, .. } => match stream.read(&mut space) {
                    Ok(length) if length > 0 => {
                        read.extend_from_slice(&space[..length]);
                        while let Some(header) = read.first_chunk::<HEADER>() {
                            let whole = HEADER + body_length(header);
                            if read.len() < whole {
                                break;
                            }
                            answered(number_of(header), header[STATUS]);
                            read.drain(..whole);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Ok(_) | Err(_) => return false,
                },
            }
        }
    }
}

fn number_of(answer: &[u8]) -> u16 {
    u16::from_be_bytes([answer[ECHO_BYTES_BACK], answer[ECHO_BYTES_BACK + 1]])
}

fn wait_for(socket: BorrowedFd<'_>, time: Duration) {
    let time = Timespec::try_from(time).expect("less than a second");
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    // Interrupted or not: what is there is looked at.
    let _ = poll(&mut fds, Some(&time));
}
