use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Crowd, Pace, Tally};
use crate::wire::{HEADER, STATUS, begin_to_connect, body_length};

/// How long a connection that was closed waits before it is opened again.
const OPEN_AGAIN: Duration = Duration::from_millis(20);
/// Reads of one connection in one turn.
const READS_MAX: usize = 32;

/// Sends one request after the other over connections that stay open, at a pace.
pub struct Streams {
    node: SocketAddr,
    lines: Vec<Line>,
    requests: Vec<Vec<u8>>,
    pace: Pace,
    /// The number of the next request.
    next: usize,
    /// The connection whose turn it is to send.
    at: usize,
    depth: usize,
    reads: bool,
    renewed: Option<(Pace, usize)>,
    tally: Tally,
    answer: Vec<u8>,
}

/// A connection of a crowd.
struct Line {
    source: Ipv4Addr,
    stream: Option<TcpStream>,
    open_at: Option<Instant>,
    /// Requests that have no answer yet.
    unanswered: usize,
    /// The request that is being written, and how much of it is.
    writing: Option<(usize, usize)>,
    reader: Reader,
}

/// Takes a stream of answers apart.
#[derive(Default)]
struct Reader {
    header: [u8; HEADER],
    have: usize,
    body_left: usize,
}

impl Reader {
    fn take(&mut self, mut bytes: &[u8], mut answered: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let skipped = self.body_left.min(bytes.len());
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER - self.have);
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEADER {
                self.have = 0;
                self.body_left = body_length(&self.header);
                answered(self.header[STATUS]);
            }
        }
    }
}

impl Streams {
    /// These requests in turn over `count` connections from each of these addresses, with up to
    /// `depth` on a connection that have no answer yet.
    pub fn new(
        node: SocketAddr,
        sources: &[Ipv4Addr],
        count: usize,
        depth: usize,
        requests: Vec<Vec<u8>>,
        per_second: f64,
    ) -> Streams {
        let line = |&source: &Ipv4Addr| Line {
            source,
            stream: None,
            open_at: None,
            unanswered: 0,
            writing: None,
            reader: Reader::default(),
        };
        Streams {
            node,
            lines: (sources.iter())
                .flat_map(|source| std::iter::repeat_n(source, count).map(line))
                .collect(),
            requests,
            pace: Pace::of(per_second),
            next: 0,
            at: 0,
            depth,
            reads: true,
            renewed: None,
            tally: Tally::default(),
            answer: vec![0; 1 << 18],
        }
    }

    /// Never reads an answer; closes and opens again this many connections a second.
    pub fn without_reading(mut self, renewed_per_second: f64) -> Streams {
        self.reads = false;
        self.renewed = Some((Pace::of(renewed_per_second), 0));
        self
    }

    fn renew(&mut self, now: Instant) {
        let Some((pace, oldest)) = &mut self.renewed else {
            return;
        };
        let due = pace.due(now);
        pace.begin(due);
        for _ in 0..due {
            self.lines[*oldest].drop_stream(now);
            *oldest = (*oldest + 1) % self.lines.len();
        }
    }

    /// Begins requests that are due on connections with room for them.
    fn send(&mut self, now: Instant) {
        let mut due = self.pace.due(now);
        let mut full = 0;
        while due > 0 && full < self.lines.len() {
            let at = self.at;
            self.at = (at + 1) % self.lines.len();
            let line = &mut self.lines[at];
            if line.writing.is_some() || line.stream.is_none() || line.unanswered >= self.depth {
                full += 1;
                continue;
            }
            full = 0;
            line.writing = Some((self.next % self.requests.len(), 0));
            line.unanswered += 1;
            self.next += 1;
            self.pace.begin(1);
            due -= 1;
            line.write(&self.requests, &mut self.tally, now);
        }
    }
}

impl Line {
    fn drop_stream(&mut self, now: Instant) {
        self.stream = None;
        self.open_at = Some(now + OPEN_AGAIN);
        self.unanswered = 0;
        self.writing = None;
        self.reader = Reader::default();
    }

    fn open(&mut self, node: SocketAddr, now: Instant) {
        if self.stream.is_none() && self.open_at.is_none_or(|at| at <= now) {
            self.open_at = Some(now + OPEN_AGAIN);
            self.stream = begin_to_connect(self.source, node).ok();
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self, requests: &[Vec<u8>], tally: &mut Tally, now: Instant) {
        let (Some(stream), Some((number, written))) = (&mut self.stream, &mut self.writing) else {
            return;
        };
        let request = &requests[*number];
        while *written < request.len() {
            match stream.write(&request[*written..]) {
                Ok(length) => {
                    *written += length;
                    tally.bytes_out += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    tally.closed += 1;
                    self.drop_stream(now);
                    return;
                }
            }
        }
        self.writing = None;
        tally.sent += 1;
    }

    fn read(&mut self, space: &mut [u8], tally: &mut Tally, now: Instant) {
        for _ in 0..READS_MAX {
            let Some(stream) = &mut self.stream else {
                return;
            };
            match stream.read(space) {
                Ok(length) if length > 0 => {
                    tally.bytes_in += length as u64;
                    let unanswered = &mut self.unanswered;
                    self.reader.take(&space[..length], |status| {
                        tally.answers[usize::from(status)] += 1;
                        *unanswered = unanswered.saturating_sub(1);
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    tally.closed += 1;
                    self.drop_stream(now);
                }
            }
        }
    }
}

impl Crowd for Streams {
    fn turn(&mut self, now: Instant) {
        self.renew(now);
        for line in &mut self.lines {
            line.open(self.node, now);
            line.write(&self.requests, &mut self.tally, now);
            if self.reads && line.unanswered > 0 {
                line.read(&mut self.answer, &mut self.tally, now);
            }
        }
        self.send(now);
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}
