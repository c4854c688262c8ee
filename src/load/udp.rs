use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::carrier::Carrier;
use super::datagrams::{Batch, Sending, Wait};
use super::flight::Flight;

/// How long a call waits for a datagram before it is time to look at the clock again.
const WAIT: Duration = Duration::from_millis(20);

/// Requests over UDP from one socket, by calls to the kernel that take many datagrams.
pub(super) struct Udp {
    socket: UdpSocket,
    batch: Batch,
    sending: Sending,
    /// Slots whose requests are to be sent.
    ready: Vec<usize>,
    looked_for_overdue: Instant,
}

/// A socket connected to `address`, as all that carry requests over UDP have it.
pub(super) fn connect_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket)
}

impl Udp {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Udp> {
        let socket = connect_socket(address)?;
        socket.set_read_timeout(Some(WAIT))?;
        Ok(Udp {
            socket,
            batch: Batch::new(),
            sending: Sending::new(),
            ready: Vec::new(),
            looked_for_overdue: Instant::now(),
        })
    }

    fn send(&mut self, flight: &mut Flight, now: Instant) -> io::Result<()> {
        self.ready.clear();
        while let Some(slot) = flight.begin(now) {
            self.ready.push(slot);
        }
        if self.ready.is_empty() {
            return Ok(());
        }
        let requests = self.ready.iter().map(|&slot| flight.request(slot));
        self.sending.send(&self.socket, requests)
    }

    /// Takes the answers that there are. With none, waits for the first one for as long as no request
    /// is due: in a closed loop in the same call.
    fn receive(&mut self, flight: &mut Flight, now: Instant) -> io::Result<usize> {
        if !flight.is_open() {
            return self.batch.receive(&self.socket, Wait::ForOne);
        }
        match self.batch.receive(&self.socket, Wait::Never) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
        let patience = flight.patience(now);
        if patience.is_zero() {
            flight.spun(now.elapsed());
            return Ok(0);
        }
        let patience = Timespec::try_from(patience).expect("a moment");
        let answers = &mut [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(answers, Some(&patience))? {
            0 => Ok(0),
            _ => self.batch.receive(&self.socket, Wait::Never),
        }
    }
}

impl Carrier for Udp {
    fn run(&mut self, flight: &mut Flight) -> io::Result<()> {
        let mut now = Instant::now();
        loop {
            self.send(flight, now)?;
            if flight.is_over(now) {
                return Ok(());
            }
            let received = match self.receive(flight, now) {
                Ok(received) => received,
                Err(error) if is_for_later(&error) => 0,
                Err(error) => return Err(error),
            };
            now = Instant::now();
            if received > 0 {
                flight.answers_came(now);
            }
            for index in 0..received {
                let answer = self.batch.datagram(index);
                match flight.slot_of(answer) {
                    Some(slot) => flight.answer(slot, answer, now),
                    None => flight.stray(),
                }
            }
            if now.duration_since(self.looked_for_overdue) > WAIT {
                self.looked_for_overdue = now;
                lose_overdue(flight, now);
            }
        }
    }
}

/// Gives up on every request that waits for too long, each for itself.
pub(super) fn lose_overdue(flight: &mut Flight, now: Instant) {
    for slot in 0..flight.slots() {
        if flight.is_overdue(slot, now) {
            flight.lose(slot);
        }
    }
}

pub(super) fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
