//! Many datagrams with one call to the kernel: `recvmmsg` and `sendmmsg` (recvmmsg(2),
//! sendmmsg(2)), never waiting.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use libc::{iovec, mmsghdr, sockaddr_in, sockaddr_in6, socklen_t};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

/// Maximum number of datagrams per call. More gain nothing measurable.
pub(super) const BATCH: usize = 64;

/// The longest possible datagram, bytes: IP's length field has 16 bits.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// From one datagram's place to the next, bytes. Not a multiple of 4 KiB, or the beginnings of all
/// would compete for the same few lines of the processor's cache.
const STRIDE: usize = DATAGRAM_BYTES_MAX + 1 + 192;

/// Size of the kernel's addresses: sockets of this node have no other family than IP.
const ADDRESS_BYTES: socklen_t = size_of::<sockaddr_in6>() as socklen_t;

/// The source or destination of a datagram, as the kernel writes it. Code that only passes it back
/// never looks into it. Aligned so that it is copied in whole words, which do not overlap.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) union Address {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

/// Datagrams that came with one call.
pub(super) struct Received {
    /// Touched, and so backed by memory, only as far as datagrams reach.
    bytes: Vec<u8>,
    addresses: Vec<Address>,
    /// What `headers` point at.
    _iovecs: Vec<iovec>,
    /// One a place, each pointing at its place's iovec and address. No vector here ever grows, so
    /// what is pointed at stays where it is.
    headers: Vec<mmsghdr>,
    /// Number of datagrams that the last call filled.
    count: usize,
}

/// Answers on their way, many with one call.
pub(super) struct Sending {
    /// The answers, back to back.
    bytes: Vec<u8>,
    queued: Vec<Queued>,
    /// Number of answers that have gone.
    sent: usize,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

struct Queued {
    to: Address,
    end: usize,
}

impl Address {
    /// An address of no family.
    // SAFETY: every field is a number or an array of numbers, for which zeros are a value.
    const NONE: Address = unsafe { MaybeUninit::zeroed().assume_init() };

    fn family(&self) -> libc::sa_family_t {
        // SAFETY: both variants are structs of numbers that begin with the family, and all bytes
        // are initialised from the start (`NONE`), so either may be read.
        unsafe { self.v4.sin_family }
    }

    fn length(&self) -> socklen_t {
        match i32::from(self.family()) {
            libc::AF_INET => size_of::<sockaddr_in>() as socklen_t,
            _ => ADDRESS_BYTES,
        }
    }

    /// The client, as IPv4 where it is one; `None` for an address that is not IP.
    #[inline]
    pub(super) fn client(&self) -> Option<SocketAddr> {
        match i32::from(self.family()) {
            libc::AF_INET => {
                // SAFETY: as in `family`.
                let v4 = unsafe { self.v4 };
                let ip = v4.sin_addr.s_addr.to_ne_bytes();
                Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as in `family`.
                let v6 = unsafe { self.v6 };
                let ip = IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr));
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddr::new(ip.to_canonical(), port))
            }
            _ => None,
        }
    }
}

impl Received {
    pub(super) fn new() -> Received {
        let mut bytes = vec![0; BATCH * STRIDE];
        let mut addresses = vec![Address::NONE; BATCH];
        let places = bytes.chunks_exact_mut(STRIDE);
        let mut iovecs: Vec<iovec> = places
            .map(|place| iovec {
                iov_base: place.as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES_MAX,
            })
            .collect();
        let both = iovecs.iter_mut().zip(&mut addresses);
        let headers = both
            .map(|(iovec, address)| header(ptr::from_mut(address), ADDRESS_BYTES, iovec))
            .collect();
        Received {
            bytes,
            addresses,
            _iovecs: iovecs,
            headers,
            count: 0,
        }
    }

    /// Receives what there is, up to [`BATCH`] datagrams, in place of those from the last call.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; otherwise what the kernel says of the socket.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        for header in &mut self.headers[..self.count] {
            header.msg_hdr.msg_namelen = ADDRESS_BYTES;
        }
        self.count = 0;
        // SAFETY: `headers` are BATCH initialised headers; each points at an address of the length
        // given and at one iovec, which points at DATAGRAM_BYTES_MAX bytes of its own place. All of
        // that is on the heap and owned by `self`, which nobody else uses until the call is over;
        // the kernel writes nowhere else.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd() as RawFd,
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.count = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.count)
    }

    /// The bytes of the datagrams of the last call.
    pub(super) fn all(&self) -> impl Iterator<Item = &[u8]> {
        let places = self.bytes.chunks_exact(STRIDE);
        let filled = places.zip(&self.headers[..self.count]);
        filled.map(|(place, header)| &place[..header.msg_len as usize])
    }

    /// One datagram of the last call, and where it came from.
    ///
    /// # Panics
    /// When the last call received no such datagram.
    #[inline]
    pub(super) fn datagram(&mut self, index: usize) -> (&mut [u8], Address) {
        assert!(index < self.count, "only what was received is looked at");
        let length = self.headers[index].msg_len as usize;
        let start = index * STRIDE;
        (
            &mut self.bytes[start..start + length],
            self.addresses[index],
        )
    }
}

impl Sending {
    pub(super) fn new() -> Sending {
        Sending {
            bytes: Vec::new(),
            queued: Vec::with_capacity(BATCH),
            sent: 0,
            iovecs: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
        }
    }

    /// Whether no answer waits to be sent.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Bytes that have been queued since it was empty.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Where to append an answer, which [`queue`](Sending::queue) then queues.
    #[inline]
    pub(super) fn answer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The answer that has been appended and not yet queued.
    #[inline]
    pub(super) fn appended(&self) -> &[u8] {
        &self.bytes[self.end()..]
    }

    /// Queues the appended answer.
    #[inline]
    pub(super) fn queue(&mut self, to: Address) {
        let end = self.bytes.len();
        self.queued.push(Queued { to, end });
    }

    /// Discards what was appended.
    #[inline]
    pub(super) fn cancel(&mut self) {
        let end = self.end();
        self.bytes.truncate(end);
    }

    /// Sends the first [`BATCH`] answers of the queue, and removes those that have gone: at least
    /// one. A datagram longer than its way allows goes in pieces.
    ///
    /// # Errors
    /// Why the first could not be sent; it stays in line.
    pub(super) fn send(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        match self.send_first(BATCH, socket) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                allow_pieces(socket, true)?;
                let sent = self.send_first(1, socket);
                allow_pieces(socket, false)?;
                sent
            }
            done => done,
        }
    }

    fn send_first(&mut self, most: usize, socket: &impl AsRawFd) -> io::Result<()> {
        self.iovecs.clear();
        self.headers.clear();
        let mut start = match self.sent {
            0 => 0,
            sent => self.queued[sent - 1].end,
        };
        let next = self.sent..self.queued.len().min(self.sent + most);
        for queued in &self.queued[next.clone()] {
            self.iovecs.push(iovec {
                iov_base: self.bytes[start..].as_ptr().cast_mut().cast(), // only read
                iov_len: queued.end - start,
            });
            start = queued.end;
        }
        for (iovec, queued) in self.iovecs.iter_mut().zip(&mut self.queued[next]) {
            let length = queued.to.length();
            self.headers
                .push(header(ptr::from_mut(&mut queued.to), length, iovec));
        }
        // SAFETY: `headers` are initialised headers; each points at an address of the length given
        // and at one iovec, and through it at bytes, all owned by `self` and left alone until the
        // call is over. The kernel writes only `msg_len` of the headers.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd() as RawFd,
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        self.leave_out(sent);
        Ok(())
    }

    /// Removes the first answers from the queue.
    pub(super) fn leave_out(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.queued.len() {
            self.sent = 0;
            self.queued.clear();
            self.bytes.clear();
        }
    }

    #[inline]
    fn end(&self) -> usize {
        self.queued.last().map_or(0, |queued| queued.end)
    }
}

/// Whether the kernel may send a datagram that is too long for its way in pieces. Where it may, it
/// numbers every datagram, whole ones too, which takes 4 % of the time of an answer. So it may only
/// for datagrams that turned out to be too long. The kernel finds out by itself how long that is
/// (ip(7), IP_MTU_DISCOVER).
///
/// # Errors
/// What the kernel says of the socket.
pub(super) fn allow_pieces(socket: &impl AsRawFd, allowed: bool) -> io::Result<()> {
    // SAFETY: the owner of a socket keeps its descriptor open, and the borrow does not outlive it.
    let socket = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let discovery = match allowed {
        true => Ipv4PathMtuDiscovery::WANT,
        false => Ipv4PathMtuDiscovery::DO,
    };
    Ok(set_ip_mtu_discover(socket, discovery)?)
}

/// A message of one piece and without control data.
fn header(name: *mut Address, name_length: socklen_t, iovec: &mut iovec) -> mmsghdr {
    // SAFETY: every field is a number or a pointer, for which zeros are a value; there may be
    // padding fields, so it cannot be written out.
    let mut header: mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_hdr.msg_name = name.cast();
    header.msg_hdr.msg_namelen = name_length;
    header.msg_hdr.msg_iov = iovec;
    header.msg_hdr.msg_iovlen = 1;
    header
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use rustix::net::sockopt::ip_mtu_discover;
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    const SHORT: usize = 40;
    const LONG: usize = 1_500;
    const MTU: libc::c_int = 576;

    /// Gives this thread a network of its own, whose loopback takes no packet longer than [`MTU`]
    /// whole.
    ///
    /// # Errors
    /// It needs the rights of root.
    fn enter_narrow_network() -> io::Result<()> {
        // SAFETY: the network is no memory, and open files stay as they are.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // SAFETY: every field is a number or a pointer, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        for (order, set) in [
            (libc::SIOCSIFMTU, MTU),
            (libc::SIOCSIFFLAGS, libc::IFF_UP | libc::IFF_LOOPBACK),
        ] {
            match order {
                libc::SIOCSIFMTU => request.ifr_ifru.ifru_mtu = set,
                _ => request.ifr_ifru.ifru_flags = set as libc::c_short,
            }
            // SAFETY: both orders read an ifreq (netdevice(7)), which outlives the call.
            let done = unsafe { libc::ioctl(socket.as_raw_fd(), order as _, &raw const request) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    #[test]
    fn an_answer_longer_than_its_way_allows_goes_in_pieces_and_others_do_not() {
        let tried = std::thread::spawn(|| {
            if let Err(error) = enter_narrow_network() {
                eprintln!("not tried, a network of its own takes root: {error}");
                return;
            }
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let node = UdpSocket::bind("127.0.0.1:0").unwrap();
            allow_pieces(&node, false).unwrap();
            let at = client.local_addr().unwrap();
            let refused = node.send_to(&[0; LONG], at).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));

            // Where a datagram came from, as a destination.
            let mut received = Received::new();
            client.send_to(b"?", node.local_addr().unwrap()).unwrap();
            while received.receive(&node).is_err() {}
            let (_, to) = received.datagram(0);
            let mut sending = Sending::new();
            let answers = [SHORT, LONG, SHORT, LONG, LONG, SHORT];
            for (number, length) in (0..).zip(answers) {
                sending.answer().extend(vec![number; length]);
                sending.queue(to);
            }
            while !sending.is_empty() {
                sending.send(&node).unwrap();
                assert_eq!(ip_mtu_discover(&node).unwrap(), Ipv4PathMtuDiscovery::DO);
            }
            let mut bytes = vec![0; 2 * LONG];
            for (number, length) in (0..).zip(answers) {
                let got = client.recv(&mut bytes).unwrap();
                assert_eq!(bytes[..got], vec![number; length]);
            }
        });
        tried.join().unwrap();
    }
}
