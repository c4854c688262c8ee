//! Many datagrams with one call to the kernel (recvmmsg(2), sendmmsg(2)).

use std::io;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{iovec, mmsghdr, sockaddr_storage};

/// Maximum number of datagrams per call.
pub(super) const BATCH: usize = 64;

/// The longest possible datagram, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// From one datagram's place to the next, bytes. Not a multiple of 4 KiB, or the beginnings of all
/// would compete for the same few lines of the processor's cache.
const STRIDE: usize = DATAGRAM_BYTES_MAX + 1 + 192;

/// Whether a call waits for the first datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Waits as long as the socket's time-out allows.
    ForOne,
    /// Does not wait.
    Never,
}

/// Datagrams that came with one call, and their senders.
pub(super) struct Batch {
    bytes: Vec<u8>,
    names: Vec<sockaddr_storage>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
    received: usize,
}

impl Batch {
    pub(super) fn new() -> Batch {
        // SAFETY: every field is a number or an array of numbers, for which zeros are a value.
        let name: sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        Batch {
            bytes: vec![0; BATCH * STRIDE],
            names: vec![name; BATCH],
            iovecs: Vec::with_capacity(BATCH),
            headers: Vec::with_capacity(BATCH),
            received: 0,
        }
    }

    /// Takes the datagrams that have come.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; else what the kernel says of the socket.
    pub(super) fn receive(&mut self, socket: &UdpSocket, wait: Wait) -> io::Result<usize> {
        let flags = match wait {
            Wait::ForOne => libc::MSG_WAITFORONE,
            Wait::Never => libc::MSG_DONTWAIT,
        };
        self.received = 0;
        self.iovecs.clear();
        self.headers.clear();
        for place in self.bytes.chunks_exact_mut(STRIDE) {
            self.iovecs.push(iovec {
                iov_base: place.as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES_MAX,
            });
        }
        for (iovec, name) in self.iovecs.iter_mut().zip(&mut self.names) {
            let name_length = size_of::<sockaddr_storage>() as libc::socklen_t;
            let name = ptr::from_mut(name).cast();
            self.headers.push(header(name, name_length, iovec));
        }
        // SAFETY: `headers` are BATCH initialised headers; each points at a name of the length
        // given and at one iovec, which points at DATAGRAM_BYTES_MAX bytes of its own place. All of
        // that is owned by `self` and not moved until the call is over; the kernel writes nowhere
        // else.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.received = received;
        Ok(received)
    }

    /// One datagram of the last call.
    ///
    /// # Panics
    /// When the last call received no such datagram.
    pub(super) fn datagram(&mut self, index: usize) -> &mut [u8] {
        assert!(index < self.received);
        let start = index * STRIDE;
        let length = self.headers[index].msg_len as usize;
        &mut self.bytes[start..start + length]
    }

    /// Sends every datagram of the last call back to its sender. Datagrams that the kernel has no
    /// room for are dropped, as usual.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub(super) fn send_back(&mut self, socket: &UdpSocket) -> io::Result<()> {
        for index in 0..self.received {
            self.iovecs[index].iov_len = self.headers[index].msg_len as usize;
        }
        send_all(socket, &mut self.headers[..self.received])
    }
}

/// The memory for a call that sends many datagrams.
pub(super) struct Sending {
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

impl Sending {
    /// For this many datagrams at a time.
    pub(super) fn new(datagrams: usize) -> Sending {
        Sending {
            iovecs: Vec::with_capacity(datagrams),
            headers: Vec::with_capacity(datagrams),
        }
    }

    /// Sends datagrams to the peer that the socket is connected to.
    ///
    /// # Errors
    /// What the kernel says of the socket; some may have been sent.
    pub(super) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        self.iovecs.clear();
        self.headers.clear();
        self.iovecs.extend(datagrams.map(|bytes| iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(), // sendmmsg only reads it
            iov_len: bytes.len(),
        }));
        for iovec in &mut self.iovecs {
            self.headers.push(header(ptr::null_mut(), 0, iovec));
        }
        send_all(socket, &mut self.headers)
    }
}

/// Sends messages whose pointers lead to live memory: those of a [`Batch`] or a [`Sending`] that
/// the caller borrows for as long.
fn send_all(socket: &UdpSocket, mut headers: &mut [mmsghdr]) -> io::Result<()> {
    while !headers.is_empty() {
        let count = headers.len().min(BATCH) as libc::c_uint;
        // SAFETY: `headers` are initialised headers whose name and iovec, and what that points at,
        // outlive the call, as this function asks. The kernel writes only their `msg_len`.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => headers = &mut headers[sent..],
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
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
