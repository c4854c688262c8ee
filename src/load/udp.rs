use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::datagrams::{Batch, Sending};
use super::flight::Flight;

/// How long to wait for a datagram before looking at the clock again.
const WAIT: Duration = Duration::from_millis(20);

/// Requests over UDP from one socket, a number of them under way at all times.
pub(super) struct Udp {
    socket: UdpSocket,
    batch: Batch,
    sending: Sending,
    timeout: Duration,
    /// Slots to be filled.
    free: Vec<usize>,
    looked_for_overdue: Instant,
}

impl Udp {
    pub(super) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Udp> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(WAIT))?;
        Ok(Udp {
            socket,
            batch: Batch::new(),
            sending: Sending::new(),
            timeout,
            free: Vec::new(),
            looked_for_overdue: Instant::now(),
        })
    }

    /// Keeps all slots under way until `until`, then waits for the last answers.
    ///
    /// # Errors
    /// Nobody listens there, or the socket fails.
    pub(super) fn run(&mut self, flight: &mut Flight, until: Instant) -> io::Result<()> {
        self.free.clear();
        self.free.extend(0..flight.slots());
        let mut now = Instant::now();
        loop {
            if now < until {
                self.send(flight, now)?;
            }
            if flight.under_way() == 0 {
                return Ok(());
            }
            match self.batch.receive(&self.socket) {
                Ok(received) => {
                    now = Instant::now();
                    self.take(flight, received, now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => now = Instant::now(),
                Err(error) => return Err(error),
            }
            if now.duration_since(self.looked_for_overdue) > WAIT {
                self.looked_for_overdue = now;
                self.lose_overdue(flight, now);
            }
        }
    }

    fn send(&mut self, flight: &mut Flight, now: Instant) -> io::Result<()> {
        self.free.retain(|&slot| flight.begin(slot, now).is_some());
        let requests = self.free.iter().map(|&slot| flight.request(slot));
        let sent = self.sending.send(&self.socket, requests);
        self.free.clear();
        sent
    }

    fn take(&mut self, flight: &mut Flight, received: usize, now: Instant) {
        for index in 0..received {
            let answer = self.batch.datagram(index);
            match flight.slot_of(answer) {
                Some(slot) => {
                    flight.answer(slot, answer, now);
                    self.free.push(slot);
                }
                None => flight.stray(),
            }
        }
    }

    fn lose_overdue(&mut self, flight: &mut Flight, now: Instant) {
        for slot in 0..flight.slots() {
            if flight.is_overdue(slot, now, self.timeout) {
                flight.lose(slot);
                self.free.push(slot);
            }
        }
    }
}
