use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use super::{Crowd, Pace, Tally};
use crate::wire::begin_to_connect;

/// Connections opened a second until each was opened once.
const GATHERED_PER_SECOND: f64 = 10_000.0;
/// Connections opened a second from then on: more would be another attack, one by opening.
const OPENED_AGAIN_PER_SECOND: f64 = 1_000.0;
/// Connections that are looked at in one turn.
const LOOKS: usize = 100;
/// Bytes written at a time where there are many to write.
const PIECE: usize = 16 << 10;

/// Connections that are held open, and opened again when the node closes them.
pub struct Held {
    node: SocketAddr,
    sources: Vec<Ipv4Addr>,
    places: Vec<Option<Place>>,
    /// What each connection sends, all of it if the node waits for so long.
    says: Vec<u8>,
    /// How many bytes a second all of them send together.
    bytes: Pace,
    counts_requests: bool,
    opened: Pace,
    never_opened: usize,
    look_at: usize,
    write_at: usize,
    tally: Tally,
    answer: Vec<u8>,
}

struct Place {
    stream: TcpStream,
    written: usize,
}

impl Held {
    /// `count` connections from each of these addresses. Each sends the same bytes, this many bytes
    /// a second all together, and then nothing more.
    pub fn new(
        node: SocketAddr,
        sources: Vec<Ipv4Addr>,
        count: usize,
        says: Vec<u8>,
        bytes_per_second: f64,
    ) -> Held {
        Held {
            node,
            places: (0..sources.len() * count).map(|_| None).collect(),
            never_opened: sources.len() * count,
            sources,
            says,
            bytes: Pace::of(bytes_per_second),
            counts_requests: false,
            opened: Pace::of(GATHERED_PER_SECOND),
            look_at: 0,
            write_at: 0,
            tally: Tally::default(),
            answer: vec![0; 4096],
        }
    }

    /// Counts as sent how often the node was sent as many bytes as one connection says, and not how
    /// many connections were opened.
    pub fn counting_whole_requests(mut self) -> Held {
        self.counts_requests = true;
        self
    }

    /// Opens closed connections again, and notes which of the others the node has closed.
    fn look(&mut self, now: Instant) {
        let mut openings = self.opened.due(now);
        for _ in 0..LOOKS {
            let at = self.look_at;
            self.look_at = (self.look_at + 1) % self.places.len();
            match &mut self.places[at] {
                Some(place) => match place.stream.read(&mut self.answer) {
                    Ok(length) if length > 0 => self.tally.bytes_in += length as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => {
                        self.tally.closed += 1;
                        self.places[at] = None;
                    }
                },
                None if openings > 0 => {
                    openings -= 1;
                    self.opened.begin(1);
                    if self.never_opened > 0 {
                        self.never_opened -= 1;
                        if self.never_opened == 0 {
                            self.opened = Pace::of(OPENED_AGAIN_PER_SECOND);
                        }
                    }
                    let source = self.sources[at % self.sources.len()];
                    if let Ok(stream) = begin_to_connect(source, self.node) {
                        self.tally.sent += u64::from(!self.counts_requests);
                        self.places[at] = Some(Place { stream, written: 0 });
                    }
                }
                None => {}
            }
        }
    }

    fn say(&mut self, now: Instant) {
        let mut due = self.bytes.due(now);
        for _ in 0..self.places.len() {
            if due == 0 {
                return;
            }
            let at = self.write_at;
            self.write_at = (self.write_at + 1) % self.places.len();
            let Some(place) = &mut self.places[at] else {
                continue;
            };
            let left = &self.says[place.written..];
            let piece = left.len().min(PIECE).min(due);
            if piece == 0 {
                continue;
            }
            if let Ok(length) = place.stream.write(&left[..piece]) {
                place.written += length;
                self.bytes.begin(length);
                self.tally.bytes_out += length as u64;
                due -= length;
            }
            if self.counts_requests {
                self.tally.sent = self.tally.bytes_out / self.says.len() as u64;
            }
        }
    }
}

impl Crowd for Held {
    fn turn(&mut self, now: Instant) {
        self.look(now);
        self.say(now);
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The crowd opened all connections; whether the node keeps them does not matter here.
    fn is_gathered(&self) -> bool {
        self.never_opened == 0
    }
}
