use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, recv};

use super::carrier::Carrier;
use super::flight::Flight;
use super::udp::is_for_later;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum room for answers when a connection is read from, bytes.
const READ_BYTES: usize = 64 * 1024;
/// Connections handled after one wait.
const EVENTS: usize = 64;

/// Requests over TCP on kept connections. Slot i always uses connection i mod connections.
pub(super) struct Tcp {
    address: SocketAddr,
    connections: Vec<Connection>,
    epoll: OwnedFd,
    /// Connections with requests to write.
    to_write: Vec<usize>,
    looked_for_overdue: Instant,
}

struct Connection {
    /// `None` where it broke.
    stream: Option<TcpStream>,
    /// Requests under way, in the order of their answers.
    asked: VecDeque<usize>,
    answers: Answers,
    /// Requests to write, from `written` on.
    requests: Vec<u8>,
    written: usize,
    /// Whether the kernel should report when there is room to write.
    waits_for_room: bool,
    /// Whether it is in the list of connections with requests to write.
    is_listed: bool,
}

/// Bytes of answers that came over one connection, from `read` to `filled`.
pub(super) struct Answers {
    bytes: Vec<u8>,
    read: usize,
    filled: usize,
}

impl Answers {
    pub(super) fn new() -> Answers {
        Answers {
            bytes: vec![0; READ_BYTES],
            read: 0,
            filled: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        (self.read, self.filled) = (0, 0);
    }

    /// Reads once: if there is more, the next wait is over at once. 0 is the end of the stream.
    pub(super) fn read_from(&mut self, mut stream: impl Read) -> io::Result<usize> {
        let length = stream.read(&mut self.bytes[self.filled..])?;
        self.filled += length;
        Ok(length)
    }

    /// Takes bytes that were read elsewhere.
    pub(super) fn append(&mut self, more: &[u8]) {
        if self.filled + more.len() > self.bytes.len() {
            self.bytes.resize(self.filled + more.len(), 0);
        }
        self.bytes[self.filled..self.filled + more.len()].copy_from_slice(more);
        self.filled += more.len();
    }

    /// Processes the answers to the requests under way, in order, as far as they are complete.
    ///
    /// # Errors
    /// There are bytes that nobody asked for.
    pub(super) fn take(
        &mut self,
        asked: &mut VecDeque<usize>,
        flight: &mut Flight,
        now: Instant,
    ) -> Result<(), Unasked> {
        while self.read < self.filled {
            let bytes = &mut self.bytes[self.read..self.filled];
            let Some(length) = flight.answer_length(bytes) else {
                break;
            };
            if length > bytes.len() {
                self.make_room(length);
                break;
            }
            let slot = asked.pop_front().ok_or(Unasked)?;
            flight.answer(slot, &mut bytes[..length], now);
            self.read += length;
        }
        if self.read == self.filled {
            self.clear();
        } else if self.filled == self.bytes.len() {
            self.bytes.copy_within(self.read..self.filled, 0);
            (self.read, self.filled) = (0, self.filled - self.read);
            // An answer may be longer than all the room there is, without stating its length in
            // front.
            self.make_room(self.filled);
        }
        Ok(())
    }

    /// Makes room for an answer of `length` bytes.
    fn make_room(&mut self, length: usize) {
        if self.bytes.len() < length + READ_BYTES {
            self.bytes.resize(length + READ_BYTES, 0);
        }
    }
}

/// Whether the other end has closed an idle connection, as a server does after too long a silence:
/// what kinds prepare before a turn may take longer than that.
pub(super) fn has_ended(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match recv(stream, &mut [0; 1], flags) {
        Ok((_, length)) => length == 0,
        Err(error) => !is_for_later(&error.into()),
    }
}

/// Bytes came that answer no request: the stream has lost its order.
pub(super) struct Unasked;

impl Tcp {
    pub(super) fn new(address: SocketAddr, connections: usize) -> io::Result<Tcp> {
        let connection = || Connection {
            stream: None,
            asked: VecDeque::new(),
            answers: Answers::new(),
            requests: Vec::new(),
            written: 0,
            waits_for_room: false,
            is_listed: false,
        };
        Ok(Tcp {
            address,
            connections: (0..connections).map(|_| connection()).collect(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            to_write: Vec::with_capacity(connections),
            looked_for_overdue: Instant::now(),
        })
    }

    /// Writes due requests into their connections.
    fn send(&mut self, flight: &mut Flight, now: Instant) -> io::Result<()> {
        while let Some(slot) = flight.begin(now) {
            let index = slot % self.connections.len();
            let connection = &mut self.connections[index];
            (connection.requests).extend_from_slice(flight.request(slot));
            connection.asked.push_back(slot);
            if !connection.is_listed {
                connection.is_listed = true;
                self.to_write.push(index);
            }
        }
        let mut to_write = std::mem::take(&mut self.to_write);
        for index in to_write.drain(..) {
            self.connections[index].is_listed = false;
            if self.connections[index].write().is_err() {
                self.give_up(index, flight);
            }
            self.follow_room(index)?;
        }
        self.to_write = to_write;
        Ok(())
    }

    /// Has the kernel report when there is room to write, only while a connection waits for it.
    fn follow_room(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let waits = connection.written < connection.requests.len();
        if let Some(stream) = &connection.stream
            && waits != connection.waits_for_room
        {
            connection.waits_for_room = waits;
            let wanted = match waits {
                true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
                false => epoll::EventFlags::IN,
            };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, stream, data, wanted)?;
        }
        Ok(())
    }

    /// In a stream with a missing answer, later answers cannot be told apart.
    fn lose_overdue(&mut self, flight: &mut Flight, now: Instant) {
        for index in 0..self.connections.len() {
            let oldest = self.connections[index].asked.front();
            if oldest.is_some_and(|&slot| flight.is_overdue(slot, now)) {
                self.give_up(index, flight);
            }
        }
    }

    /// Marks the connection as unusable in this turn.
    fn give_up(&mut self, index: usize, flight: &mut Flight) {
        let connections = self.connections.len();
        self.connections[index].close(flight);
        flight.retire(|slot| slot % connections == index);
    }
}

impl Carrier for Tcp {
    fn ready(&mut self) -> io::Result<()> {
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if connection
                .stream
                .as_ref()
                .is_some_and(|stream| !has_ended(stream))
            {
                continue;
            }
            let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
            connection.waits_for_room = false;
            connection.stream = Some(stream);
        }
        Ok(())
    }

    fn run(&mut self, flight: &mut Flight) -> io::Result<()> {
        let mut now = Instant::now();
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            self.send(flight, now)?;
            if self.connections.iter().all(|c| c.stream.is_none()) {
                return Err(io::Error::other(
                    "every connection was closed at the other end, or had an answer missing",
                ));
            }
            if flight.is_over(now) {
                return Ok(());
            }
            let patience = flight.patience(now);
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            let wait = Timespec::try_from(patience).expect("a moment");
            match epoll::wait(&self.epoll, buffer, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let before = now;
            now = Instant::now();
            if events.is_empty() {
                if patience.is_zero() {
                    flight.spun(now - before);
                }
            } else {
                flight.answers_came(now);
            }
            for event in &events {
                let index = event.data.u64() as usize;
                if !self.connections[index].read(flight, now) {
                    self.give_up(index, flight);
                }
                if self.connections[index].waits_for_room && !self.connections[index].is_listed {
                    self.connections[index].is_listed = true;
                    self.to_write.push(index);
                }
                // Each connection's requests go out before the next one's answers are handled, so
                // that the server gets its work as early as possible.
                self.send(flight, now)?;
            }
            if now.duration_since(self.looked_for_overdue) > flight.overdue_every() {
                self.looked_for_overdue = now;
                self.lose_overdue(flight, now);
            }
        }
    }
}

impl Connection {
    /// Reads what has come; `false` where the connection is of no more use.
    fn read(&mut self, flight: &mut Flight, now: Instant) -> bool {
        let Some(stream) = &self.stream else {
            return true; // closed since the kernel reported it
        };
        match self.answers.read_from(stream) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return is_for_later(&error),
        }
        match self.answers.take(&mut self.asked, flight, now) {
            Ok(()) => true,
            Err(Unasked) => {
                flight.stray();
                false
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(mut stream) = self.stream.as_ref() else {
            return Err(ErrorKind::NotConnected.into());
        };
        while self.written < self.requests.len() {
            match stream.write(&self.requests[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.requests.clear();
        self.written = 0;
        Ok(())
    }

    fn close(&mut self, flight: &mut Flight) {
        self.stream = None; // closing it takes it out of the epoll
        for slot in self.asked.drain(..) {
            flight.lose(slot);
        }
        self.answers.clear();
        self.requests.clear();
        self.written = 0;
    }
}
