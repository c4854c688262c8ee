//! Many datagrams with one call to the kernel: `recvmmsg` and `sendmmsg` (recvmmsg(2), sendmmsg(2)),
//! never waiting.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use libc::{iovec, mmsghdr, sockaddr_storage};
use socket2::{SockAddr, SockAddrStorage};

/// Datagrams a call takes, at most. More gain nothing measurable.
pub(super) const BATCH: usize = 64;

/// The longest datagram there can be, bytes: IP's length field has 16 bits.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// From one datagram's place to the next, bytes. Not a multiple of 4 KiB, or the beginnings of all
/// would compete for the same few lines of the processor's cache.
const STRIDE: usize = DATAGRAM_BYTES_MAX + 1 + 192;

/// An address of no family.
// SAFETY: every field is a number or an array of numbers, for which zeros are a value.
const NO_ADDRESS: sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };

/// Datagrams that came with one call.
pub(super) struct Received {
    /// Touched, and so backed by memory, only as far as datagrams reach.
    bytes: Vec<u8>,
    addresses: Vec<sockaddr_storage>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

/// What a call that sends many datagrams needs.
pub(super) struct Sending {
    addresses: Vec<SockAddr>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

impl Received {
    pub(super) fn new() -> Received {
        Received {
            bytes: vec![0; BATCH * STRIDE],
            addresses: vec![NO_ADDRESS; BATCH],
            iovecs: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what there is, up to [`BATCH`] datagrams, in place of those from the last call.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; otherwise what the kernel says of the socket.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.iovecs.clear();
        self.headers.clear();
        for place in self.bytes.chunks_exact_mut(STRIDE) {
            self.iovecs.push(iovec {
                iov_base: place.as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES_MAX,
            });
        }
        for (iovec, address) in self.iovecs.iter_mut().zip(&mut self.addresses) {
            let name = ptr::from_mut(address).cast();
            let length = size_of::<sockaddr_storage>() as libc::socklen_t;
            self.headers.push(header(name, length, iovec));
        }
        // SAFETY: `headers` are BATCH initialised headers; each points at an address storage of the
        // length given and at one iovec, which points at DATAGRAM_BYTES_MAX bytes of its own place.
        // All of that is owned by `self` and not moved until the call is over; the kernel writes
        // nowhere else.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd() as RawFd,
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(received) => {
                self.headers.truncate(received);
                Ok(received)
            }
            Err(_) => {
                self.headers.clear();
                Err(io::Error::last_os_error())
            }
        }
    }

    /// One datagram of the last call, and who sent it; `None` for an address that is not IP.
    ///
    /// # Panics
    /// When the last call received no such datagram.
    pub(super) fn datagram(&mut self, index: usize) -> Option<(&mut [u8], SocketAddr)> {
        let header = &self.headers[index];
        let length = header.msg_len as usize;
        let address_length = header.msg_hdr.msg_namelen;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: both are a sockaddr_storage, and the kernel wrote an address of that length into
        // ours, which was all zeros or an earlier address before.
        let address = unsafe {
            *storage.view_as::<sockaddr_storage>() = self.addresses[index];
            SockAddr::new(storage, address_length)
        };
        let address = address.as_socket()?;
        let start = index * STRIDE;
        Some((&mut self.bytes[start..start + length], address))
    }
}

impl Sending {
    pub(super) fn new() -> Sending {
        Sending {
            addresses: Vec::with_capacity(BATCH),
            iovecs: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
        }
    }

    /// Sends the first [`BATCH`] of these, and says how many of them have been taken: from the
    /// first, at least one.
    ///
    /// # Errors
    /// Why the first could not be sent.
    pub(super) fn send<'a>(
        &mut self,
        socket: &impl AsRawFd,
        datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    ) -> io::Result<usize> {
        self.addresses.clear();
        self.iovecs.clear();
        self.headers.clear();
        for (address, bytes) in datagrams.take(BATCH) {
            self.addresses.push(SockAddr::from(address));
            self.iovecs.push(iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(), // sendmmsg only reads it
                iov_len: bytes.len(),
            });
        }
        for (iovec, address) in self.iovecs.iter_mut().zip(&self.addresses) {
            let name = address.as_ptr().cast_mut().cast();
            self.headers.push(header(name, address.len(), iovec));
        }
        // SAFETY: `headers` are initialised headers; each points at an address of the length given
        // and at one iovec, both owned by `self` and not moved until the call is over, and through
        // it at bytes borrowed for 'a. The kernel writes only `msg_len` of the headers.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd() as RawFd,
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// A message of one piece and without control data.
fn header(name: *mut libc::c_void, name_length: libc::socklen_t, iovec: &mut iovec) -> mmsghdr {
    // SAFETY: every field is a number or a pointer, for which zeros are a value; there may be
    // padding fields, so it cannot be written out.
    let mut header: mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_hdr.msg_name = name;
    header.msg_hdr.msg_namelen = name_length;
    header.msg_hdr.msg_iov = iovec;
    header.msg_hdr.msg_iovlen = 1;
    header
}
