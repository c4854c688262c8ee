use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::flight::Flight;

/// How long to wait for an answer before looking at the clock again.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for answers at least when a connection is read from, bytes.
const READ_BYTES: usize = 64 * 1024;
/// Connections looked at after one wait.
const EVENTS: usize = 64;

/// Requests over TCP, on kept connections, a number of them under way on each at all times.
pub(super) struct Tcp {
    connections: Vec<Connection>,
    epoll: OwnedFd,
    timeout: Duration,
    looked_for_overdue: Instant,
}

struct Connection {
    stream: TcpStream,
    /// Requests under way, in the order of their answers.
    asked: VecDeque<usize>,
    /// Bytes of answers from `read` to `filled`.
    answers: Vec<u8>,
    read: usize,
    filled: usize,
    /// Requests still to be written, from `written` on.
    requests: Vec<u8>,
    written: usize,
    /// Whether the kernel is to say when there is room to write.
    waits_for_room: bool,
    is_broken: bool,
}

impl Tcp {
    pub(super) fn connect(
        address: SocketAddr,
        connections: usize,
        timeout: Duration,
    ) -> io::Result<Tcp> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut opened = Vec::with_capacity(connections);
        for index in 0..connections {
            let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            opened.push(Connection {
                stream,
                asked: VecDeque::new(),
                answers: vec![0; READ_BYTES],
                read: 0,
                filled: 0,
                requests: Vec::new(),
                written: 0,
                waits_for_room: false,
                is_broken: false,
            });
        }
        Ok(Tcp {
            connections: opened,
            epoll,
            timeout,
            looked_for_overdue: Instant::now(),
        })
    }

    /// Keeps all slots under way until `until`, an equal part of them on each connection, then waits
    /// for the last answers.
    ///
    /// # Errors
    /// Every connection is broken.
    pub(super) fn run(&mut self, flight: &mut Flight, until: Instant) -> io::Result<()> {
        let connections = self.connections.len();
        let mut now = Instant::now();
        for slot in 0..flight.slots() {
            self.connections[slot % connections].begin(slot, flight, now);
        }
        for index in 0..connections {
            self.connections[index].write(flight);
            self.follow_room(index)?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        while flight.under_way() > 0 {
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, Some(&WAIT)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            now = Instant::now();
            for event in &events {
                let index = event.data.u64() as usize;
                let connection = &mut self.connections[index];
                connection.read(flight, now, now < until);
                connection.write(flight);
                self.follow_room(index)?;
            }
            if now.duration_since(self.looked_for_overdue) > self.timeout / 10 {
                self.looked_for_overdue = now;
                self.lose_overdue(flight, now);
            }
        }
        match self.connections.iter().all(|c| c.is_broken) {
            true => Err(io::Error::other("the node closed every connection")),
            false => Ok(()),
        }
    }

    /// Has the kernel say when there is room to write, only while a connection waits for it.
    fn follow_room(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let waits = connection.written < connection.requests.len();
        if connection.is_broken {
            // Gone already when the connection broke earlier.
            let _ = epoll::delete(&self.epoll, &connection.stream);
        } else if waits != connection.waits_for_room {
            connection.waits_for_room = waits;
            let wanted = match waits {
                true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
                false => epoll::EventFlags::IN,
            };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, wanted)?;
        }
        Ok(())
    }

    /// A stream without an answer in time has no more answers to tell apart.
    fn lose_overdue(&mut self, flight: &mut Flight, now: Instant) {
        for connection in &mut self.connections {
            let oldest = connection.asked.front();
            if oldest.is_some_and(|&slot| flight.is_overdue(slot, now, self.timeout)) {
                connection.give_up(flight);
            }
        }
    }
}

impl Connection {
    fn begin(&mut self, slot: usize, flight: &mut Flight, now: Instant) {
        if self.is_broken {
            return;
        }
        if let Some(request) = flight.begin(slot, now) {
            self.requests.extend_from_slice(request);
            self.asked.push_back(slot);
        }
    }

    /// Reads what there is, once: if there is more, the next wait is over at once.
    fn read(&mut self, flight: &mut Flight, now: Instant, goes_on: bool) {
        let length = match self.stream.read(&mut self.answers[self.filled..]) {
            Ok(0) => return self.give_up(flight),
            Ok(length) => length,
            Err(error) if is_for_later(&error) => return,
            Err(_) => return self.give_up(flight),
        };
        self.filled += length;
        loop {
            let bytes = &mut self.answers[self.read..self.filled];
            let Some(length) = flight.answer_length(bytes) else {
                break;
            };
            if length > bytes.len() {
                self.make_room(length);
                break;
            }
            let Some(slot) = self.asked.pop_front() else {
                // Bytes that nobody asked for: the stream has lost its order.
                flight.stray();
                return self.give_up(flight);
            };
            flight.answer(slot, &mut bytes[..length], now);
            self.read += length;
            if goes_on {
                self.begin(slot, flight, now);
            }
        }
        if self.read == self.filled {
            (self.read, self.filled) = (0, 0);
        } else if self.filled == self.answers.len() {
            self.answers.copy_within(self.read..self.filled, 0);
            (self.read, self.filled) = (0, self.filled - self.read);
        }
    }

    /// An answer of `length` bytes is to fit.
    fn make_room(&mut self, length: usize) {
        if self.answers.len() < length + READ_BYTES {
            self.answers.resize(length + READ_BYTES, 0);
        }
    }

    fn write(&mut self, flight: &mut Flight) {
        while self.written < self.requests.len() {
            match self.stream.write(&self.requests[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if is_for_later(&error) => return,
                Err(_) => return self.give_up(flight),
            }
        }
        self.requests.clear();
        self.written = 0;
    }

    fn give_up(&mut self, flight: &mut Flight) {
        self.is_broken = true;
        for slot in self.asked.drain(..) {
            flight.lose(slot);
        }
        self.requests.clear();
        self.written = 0;
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
