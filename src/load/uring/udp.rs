use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::{Completion, Ring, Shape};
use crate::load::carrier::Carrier;
use crate::load::flight::Flight;
use crate::load::udp::{connect_socket, dropped, lose_overdue};

/// The longest possible datagram, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// How often to check for requests that wait for too long.
const OVERDUE_EVERY: Duration = Duration::from_millis(20);
const SHAPE: Shape = Shape {
    entries: 256,
    buffers: 256,
    buffer_bytes: DATAGRAM_BYTES_MAX,
};
/// Tokens below this are chunks being sent.
const RECEIVES: u64 = 1 << 32;

/// Requests over UDP from one socket, by io_uring.
pub(in crate::load) struct UringUdp {
    // Declared before the chunks, which it sends from.
    ring: Ring,
    chunks: Chunks,
    socket: UdpSocket,
    receives: bool,
    looked_for_overdue: Instant,
}

/// Places for requests until they are sent, which is not when their slots are free again.
struct Chunks {
    bytes: MmapMut,
    free: Vec<usize>,
}

impl UringUdp {
    pub(in crate::load) fn connect(address: SocketAddr, slots: usize) -> io::Result<UringUdp> {
        let count = slots * 2;
        Ok(UringUdp {
            ring: Ring::new(SHAPE)?,
            chunks: Chunks {
                bytes: MmapMut::map_anon(count * Chunks::STRIDE)?,
                free: (0..count).collect(),
            },
            socket: connect_socket(address)?,
            receives: false,
            looked_for_overdue: Instant::now(),
        })
    }

    fn send(&mut self, flight: &mut Flight, now: Instant) -> io::Result<()> {
        while let Some(&chunk) = self.chunks.free.last()
            && let Some(slot) = flight.begin(now)
        {
            self.chunks.free.pop();
            let request = flight.request(slot);
            let start = chunk * Chunks::STRIDE;
            let place = &mut self.chunks.bytes[start..start + request.len()];
            place.copy_from_slice(request);
            // SAFETY: the chunk is not touched until it is free again, which is when the completion
            // with its token has come; and the ring is dropped before the chunks are.
            unsafe {
                (self.ring).send(self.socket.as_raw_fd(), place, chunk as u64)?;
            }
        }
        Ok(())
    }
}

impl Chunks {
    /// See the stride of [`crate::load::datagrams`].
    const STRIDE: usize = DATAGRAM_BYTES_MAX + 1 + 192;
}

impl Carrier for UringUdp {
    fn run(&mut self, flight: &mut Flight) -> io::Result<()> {
        let mut now = Instant::now();
        loop {
            if !self.receives {
                self.ring.receive(self.socket.as_raw_fd(), RECEIVES)?;
                self.receives = true;
            }
            self.send(flight, now)?;
            if flight.is_over(now) {
                return Ok(());
            }
            let patience = flight.patience(now);
            self.ring.wait(patience)?;
            let before = now;
            now = Instant::now();
            let mut has_come = false;
            while let Some(completion) = self.ring.next() {
                let Completion {
                    token,
                    result,
                    received,
                    goes_on,
                } = completion;
                if token != RECEIVES {
                    self.ring.sent();
                    self.chunks.free.push(token as usize);
                    result?;
                    continue;
                }
                self.receives = goes_on;
                match (result, received) {
                    (Ok(_), Some(received)) => {
                        if !has_come {
                            has_come = true;
                            flight.answers_came(now);
                        }
                        let answer = self.ring.bytes_mut(&received);
                        match flight.slot_of(answer) {
                            Some(slot) => flight.answer(slot, answer, now),
                            None => flight.stray(),
                        }
                        self.ring.give_back(received);
                    }
                    (Ok(_), None) => {}
                    // All buffers were full: the receive starts again above.
                    (Err(error), _) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    (Err(error), _) => return Err(error),
                }
            }
            if !has_come && patience.is_zero() {
                flight.spun(now - before);
            }
            if now.duration_since(self.looked_for_overdue) > OVERDUE_EVERY {
                self.looked_for_overdue = now;
                lose_overdue(flight, now);
            }
        }
    }

    fn dropped(&self) -> u64 {
        dropped(&self.socket).unwrap_or(0)
    }
}
