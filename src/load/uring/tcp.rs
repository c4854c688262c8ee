use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::{Completion, Ring, Shape};
use crate::load::carrier::Carrier;
use crate::load::flight::Flight;
use crate::load::tcp::{Answers, Unasked, has_ended};

/// How long to wait for a connection, and for the end of an old one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SHAPE: Shape = Shape {
    entries: 256,
    buffers: 256,
    buffer_bytes: 16 * 1024,
};
/// Marks a token as a send, not a receive.
const SENDS: u64 = 1 << 32;

/// Requests over TCP on kept connections, by io_uring. Slot i always uses connection i mod
/// connections.
pub(in crate::load) struct UringTcp {
    // Declared before the connections, whose bytes it sends.
    ring: Ring,
    connections: Vec<Connection>,
    address: SocketAddr,
    /// Connections with requests to send.
    to_send: Vec<usize>,
    looked_for_overdue: Instant,
}

struct Connection {
    /// `None` before the first turn.
    stream: Option<TcpStream>,
    is_broken: bool,
    /// Requests under way, in the order of their answers.
    asked: VecDeque<usize>,
    answers: Answers,
    receives: bool,
    /// Requests to send when those before are sent.
    requests: Vec<u8>,
    /// The buffer that the kernel sends from, from `sent` on: not touched while it does.
    sending: Vec<u8>,
    sent: usize,
    sends: bool,
    /// Whether it is in the list of connections with requests to send.
    is_listed: bool,
}

impl UringTcp {
    pub(in crate::load) fn new(address: SocketAddr, connections: usize) -> io::Result<UringTcp> {
        let connection = || Connection {
            stream: None,
            is_broken: false,
            asked: VecDeque::new(),
            answers: Answers::new(),
            receives: false,
            requests: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            sends: false,
            is_listed: false,
        };
        Ok(UringTcp {
            ring: Ring::new(SHAPE)?,
            connections: (0..connections).map(|_| connection()).collect(),
            address,
            to_send: Vec::with_capacity(connections),
            looked_for_overdue: Instant::now(),
        })
    }

    fn begin(&mut self, flight: &mut Flight, now: Instant) -> io::Result<()> {
        while let Some(slot) = flight.begin(now) {
            let index = slot % self.connections.len();
            let connection = &mut self.connections[index];
            (connection.requests).extend_from_slice(flight.request(slot));
            connection.asked.push_back(slot);
            if !connection.is_listed {
                connection.is_listed = true;
                self.to_send.push(index);
            }
        }
        while let Some(index) = self.to_send.pop() {
            self.connections[index].is_listed = false;
            self.send(index)?;
        }
        Ok(())
    }

    /// Sends the rest of the last send, or everything that has gathered since.
    fn send(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let Some(stream) = &connection.stream else {
            return Ok(());
        };
        if connection.sends || connection.is_broken {
            return Ok(());
        }
        if connection.sent == connection.sending.len() {
            connection.sending.clear();
            connection.sent = 0;
            std::mem::swap(&mut connection.sending, &mut connection.requests);
        }
        if connection.sending.is_empty() {
            return Ok(());
        }
        connection.sends = true;
        let bytes = &connection.sending[connection.sent..];
        // SAFETY: while `sends` is set, which is until the completion with this token has come,
        // `sending` is not touched; and the ring is dropped before the connections are.
        unsafe { (self.ring).send(stream.as_raw_fd(), bytes, SENDS | index as u64) }
    }

    fn sent(&mut self, index: usize, result: io::Result<u32>, flight: &mut Flight) {
        self.ring.sent();
        let connection = &mut self.connections[index];
        connection.sends = false;
        match result {
            Ok(bytes) => connection.sent += bytes as usize,
            Err(_) => return self.give_up(index, flight),
        }
        let is_left = connection.sent < connection.sending.len();
        if (is_left || !connection.requests.is_empty()) && !connection.is_listed {
            connection.is_listed = true;
            self.to_send.push(index);
        }
    }

    /// Takes what came over a connection; `false` where the connection is of no more use.
    fn received(&mut self, completion: Completion, flight: &mut Flight, now: Instant) -> bool {
        let connection = &mut self.connections[completion.token as usize];
        connection.receives = completion.goes_on;
        let Some(received) = completion.received else {
            // All buffers were full: the receive starts again in the loop.
            let error = completion.result.err();
            return error.is_some_and(|error| error.raw_os_error() == Some(libc::ENOBUFS));
        };
        let bytes = self.ring.bytes(&received);
        let is_end = bytes.is_empty();
        let mut is_in_order = true;
        if !connection.is_broken {
            connection.answers.append(bytes);
            if let Err(Unasked) = (connection.answers).take(&mut connection.asked, flight, now) {
                flight.stray();
                is_in_order = false;
            }
        }
        self.ring.give_back(received);
        !is_end && is_in_order
    }

    /// Marks the connection as unusable in this turn.
    fn give_up(&mut self, index: usize, flight: &mut Flight) {
        let connections = self.connections.len();
        let connection = &mut self.connections[index];
        if connection.is_broken {
            return;
        }
        connection.is_broken = true;
        if let Some(stream) = &connection.stream {
            // Ends the operations under way on it. A closed connection has none.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for slot in connection.asked.drain(..) {
            flight.lose(slot);
        }
        flight.retire(|slot| slot % connections == index);
    }

    /// Waits until nothing is under way on broken connections.
    fn finish_broken(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while self
            .connections
            .iter()
            .any(|c| c.is_broken && (c.sends || c.receives))
        {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.ring.wait(Duration::from_millis(1))?;
            while let Some(completion) = self.ring.next() {
                let index = (completion.token & !SENDS) as usize;
                let connection = &mut self.connections[index];
                match completion.token & SENDS {
                    0 => connection.receives = completion.goes_on,
                    _ => {
                        connection.sends = false;
                        self.ring.sent();
                    }
                }
                if let Some(received) = completion.received {
                    self.ring.give_back(received);
                }
            }
        }
        Ok(())
    }
}

impl Carrier for UringTcp {
    fn ready(&mut self) -> io::Result<()> {
        for connection in &mut self.connections {
            if let Some(stream) = &connection.stream
                && !connection.is_broken
                && has_ended(stream)
            {
                connection.is_broken = true;
                // Ends the operations under way on it, as in `give_up`.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.finish_broken()?;
        for connection in &mut self.connections {
            if connection.stream.is_some() && !connection.is_broken {
                continue;
            }
            let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            connection.stream = Some(stream);
            connection.is_broken = false;
            connection.answers.clear();
            connection.requests.clear();
            connection.sending.clear();
            connection.sent = 0;
        }
        Ok(())
    }

    fn run(&mut self, flight: &mut Flight) -> io::Result<()> {
        let mut now = Instant::now();
        loop {
            for (index, connection) in self.connections.iter_mut().enumerate() {
                if let Some(stream) = &connection.stream
                    && !connection.receives
                    && !connection.is_broken
                {
                    self.ring.receive(stream.as_raw_fd(), index as u64)?;
                    connection.receives = true;
                }
            }
            self.begin(flight, now)?;
            if self.connections.iter().all(|c| c.is_broken) {
                return Err(io::Error::other(
                    "every connection was closed at the other end, or had an answer missing",
                ));
            }
            if flight.is_over(now) {
                return Ok(());
            }
            let patience = flight.patience(now);
            self.ring.wait(patience)?;
            let before = now;
            now = Instant::now();
            let mut has_come = false;
            while let Some(completion) = self.ring.next() {
                let index = (completion.token & !SENDS) as usize;
                if completion.token & SENDS != 0 {
                    self.sent(index, completion.result, flight);
                    continue;
                }
                if !has_come {
                    has_come = true;
                    flight.answers_came(now);
                }
                if !self.received(completion, flight, now) {
                    self.give_up(index, flight);
                }
            }
            if !has_come && patience.is_zero() {
                flight.spun(now - before);
            }
            if now.duration_since(self.looked_for_overdue) > flight.overdue_every() {
                self.looked_for_overdue = now;
                for index in 0..self.connections.len() {
                    let oldest = self.connections[index].asked.front();
                    if oldest.is_some_and(|&slot| flight.is_overdue(slot, now)) {
                        self.give_up(index, flight);
                    }
                }
            }
        }
    }
}
