use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Crowd, Pace, Tally};
use crate::wire::{HEADER, STATUS, begin_to_connect};

/// Time after which a visit without an answer is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Visits under way at the same time.
const AT_ONCE_MAX: usize = 2_000;

/// Asks one question over each connection, and closes it with the answer.
pub struct Visits {
    node: SocketAddr,
    sources: Vec<Ipv4Addr>,
    request: Vec<u8>,
    pace: Pace,
    next: usize,
    under_way: Vec<Visit>,
    tally: Tally,
    answer: Vec<u8>,
}

struct Visit {
    stream: TcpStream,
    since: Instant,
    written: usize,
}

impl Visits {
    pub fn new(
        node: SocketAddr,
        sources: Vec<Ipv4Addr>,
        request: Vec<u8>,
        per_second: f64,
    ) -> Visits {
        Visits {
            node,
            sources,
            request,
            pace: Pace::of(per_second),
            next: 0,
            under_way: Vec::new(),
            tally: Tally::default(),
            answer: vec![0; 4096],
        }
    }
}

impl Crowd for Visits {
    fn turn(&mut self, now: Instant) {
        let due = self.pace.due(now);
        self.pace.begin(due);
        for _ in 0..due.min(AT_ONCE_MAX - self.under_way.len()) {
            let source = self.sources[self.next % self.sources.len()];
            self.next += 1;
            if let Ok(stream) = begin_to_connect(source, self.node) {
                self.tally.sent += 1;
                self.under_way.push(Visit {
                    stream,
                    since: now,
                    written: 0,
                });
            }
        }
        let (request, answer, tally) = (&self.request, &mut self.answer, &mut self.tally);
        self.under_way
            .retain_mut(|visit| !visit.has_ended(request, answer, tally, now));
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Visit {
    fn has_ended(
        &mut self,
        request: &[u8],
        answer: &mut [u8],
        tally: &mut Tally,
        now: Instant,
    ) -> bool {
        if self.written < request.len() {
            match self.stream.write(&request[self.written..]) {
                Ok(length) => {
                    self.written += length;
                    tally.bytes_out += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    tally.closed += 1;
                    return true;
                }
            }
        }
        match self.stream.read(answer) {
            // An answer to one detect comes in one piece.
            Ok(length) if length >= HEADER => {
                tally.bytes_in += length as u64;
                tally.answers[usize::from(answer[STATUS])] += 1;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                now.duration_since(self.since) > PATIENCE
            }
            Ok(_) | Err(_) => {
                tally.closed += 1;
                true
            }
        }
    }
}
