use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use super::{Crowd, Pace, Tally};
use crate::wire::STATUS;

/// Sends one datagram after the other, at a pace, and reads what comes back.
pub struct Datagrams {
    sockets: Vec<UdpSocket>,
    requests: Vec<Vec<u8>>,
    pace: Pace,
    next: usize,
    tally: Tally,
    answer: Vec<u8>,
}

impl Datagrams {
    /// From each of these addresses in turn, these requests in turn.
    pub fn new(
        node: SocketAddr,
        sources: &[Ipv4Addr],
        requests: Vec<Vec<u8>>,
        per_second: f64,
    ) -> Datagrams {
        let socket = |source: &Ipv4Addr| {
            let socket = UdpSocket::bind((*source, 0)).expect("a socket of a loopback address");
            socket.connect(node).expect("an address");
            socket.set_nonblocking(true).expect("an option");
            socket
        };
        Datagrams {
            sockets: sources.iter().map(socket).collect(),
            requests,
            pace: Pace::of(per_second),
            next: 0,
            tally: Tally::default(),
            answer: vec![0; 1 << 16],
        }
    }
}

impl Crowd for Datagrams {
    fn turn(&mut self, now: Instant) {
        let due = self.pace.due(now);
        self.pace.begin(due);
        for _ in 0..due {
            let request = &self.requests[self.next % self.requests.len()];
            let socket = &self.sockets[self.next % self.sockets.len()];
            self.next += 1;
            if socket.send(request).is_ok() {
                self.tally.sent += 1;
                self.tally.bytes_out += request.len() as u64;
            }
        }
        // More than what was sent may come: the attack may be about that.
        let most = 4 * due + 256;
        for socket in &self.sockets {
            for _ in 0..most {
                let Ok(length) = socket.recv(&mut self.answer) else {
                    break;
                };
                self.tally.bytes_in += length as u64;
                if length > STATUS {
                    self.tally.answers[usize::from(self.answer[STATUS])] += 1;
                }
            }
        }
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}
