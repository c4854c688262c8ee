use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::carrier::Carrier;
use super::datagrams::{Batch, Sending, Wait};
use super::flight::Flight;

/// How long a call waits for a datagram before the clock has to be read again.
const WAIT: Duration = Duration::from_millis(20);

/// Room for answers in the kernel, if it grants that much.
const RECEIVE_BYTES: usize = 4 << 20;
/// Count of numbers that SO_MEMINFO returns; the last one is the number of drops
/// (linux/sock_diag.h).
const MEMINFO_NUMBERS: usize = MEMINFO_DROPS + 1;
const MEMINFO_DROPS: usize = libc::SK_MEMINFO_DROPS as usize;

/// Requests over UDP from one socket, by calls to the kernel that take many datagrams.
pub(super) struct Udp {
    socket: UdpSocket,
    batch: Batch,
    sending: Sending,
    /// Slots with requests to send.
    ready: Vec<usize>,
    looked_for_overdue: Instant,
}

/// A socket connected to `address`, as all UDP carriers use it.
pub(super) fn connect_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // As large as the system allows: an answer that finds no room is lost, and not through the
    // node's fault.
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Number of datagrams that found no room in a socket's buffer.
///
/// # Errors
/// The kernel does not report it (before Linux 4.12).
pub(super) fn dropped(socket: &UdpSocket) -> io::Result<u64> {
    let mut numbers = [0u32; MEMINFO_NUMBERS];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes up to `length` bytes to the pointer, which leads to an array of
    // that size, and the length that it wrote.
    let read = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match read {
        0 => Ok(numbers[MEMINFO_DROPS].into()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Udp {
    pub(super) fn connect(address: SocketAddr, slots: usize) -> io::Result<Udp> {
        let socket = connect_socket(address)?;
        socket.set_read_timeout(Some(WAIT))?;
        Ok(Udp {
            socket,
            batch: Batch::new(),
            sending: Sending::new(slots),
            ready: Vec::with_capacity(slots),
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

    /// Takes the answers that have come. If there are none, waits for the first one until a request
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

    fn dropped(&self) -> u64 {
        dropped(&self.socket).unwrap_or(0)
    }
}

/// Gives up every request that waits for too long, each on its own.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_in_a_socket_is_counted() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = connect_socket(sender.local_addr().unwrap()).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
        assert_eq!(dropped(&socket).unwrap(), 0);
        SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 500], to).unwrap();
        }
        assert!((50..100).contains(&dropped(&socket).unwrap()));
    }
}
