use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use memmap2::MmapMut;

/// The only group of buffers that a ring has.
const GROUP: u16 = 0;
/// Marks a token that the ring issues itself: a buffer is being sent from.
const SENDS_BUFFER: u64 = 1 << 63;
const BUFFER_SHIFT: u32 = 40;

/// The size of a ring.
#[derive(Clone, Copy, Debug)]
pub(in crate::load) struct Shape {
    /// Maximum number of requests handed over with one call; more take several calls.
    pub(in crate::load) entries: u32,
    /// Number of buffers for receiving: a power of two.
    pub(in crate::load) buffers: u16,
    /// Bytes of each buffer.
    pub(in crate::load) buffer_bytes: usize,
}

/// An io_uring of one thread, with buffers that the kernel receives into.
pub(in crate::load) struct Ring {
    io: IoUring,
    // Declared below `io`: the kernel knows both for as long as `io` exists.
    buffers: Option<Buffers>,
    /// The template of a receive that names senders; the kernel copies it.
    names: Box<libc::msghdr>,
    /// Sends without a completion yet.
    sends: usize,
}

/// Buffers that the kernel picks from, and the list of the available ones.
struct Buffers {
    list: MmapMut,
    bytes: MmapMut,
    count: u16,
    /// Distance from one buffer to the next.
    stride: usize,
    buffer_bytes: usize,
    tail: u16,
}

/// A request has ended, or a multishot request has produced a result.
#[derive(Debug)]
pub(in crate::load) struct Completion {
    /// The token, as given.
    pub(in crate::load) token: u64,
    /// Bytes, a file descriptor, or an error.
    pub(in crate::load) result: io::Result<u32>,
    /// The buffer that was received into.
    pub(in crate::load) received: Option<Received>,
    /// Whether more of the same request will follow.
    pub(in crate::load) goes_on: bool,
}

/// A buffer that belongs to this program until it is given back. There is one value for each time
/// that the kernel filled the buffer.
#[derive(Debug)]
pub(in crate::load) struct Received {
    buffer: u16,
    length: usize,
}

impl Ring {
    /// A ring for the calling thread alone.
    ///
    /// # Errors
    /// The kernel does not support it, or does not permit it to this program.
    pub(in crate::load) fn new(shape: Shape) -> io::Result<Ring> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(shape.entries * 4)
            .build(shape.entries)?;
        let mut buffers = Buffers::new(shape)?;
        let list = buffers.list.as_mut_ptr() as u64;
        // SAFETY: `list` is page-aligned memory for `count` entries of its own mapping, which is
        // unmapped only after the ring is gone (see Drop).
        unsafe {
            (io.submitter()).register_buf_ring_with_flags(list, buffers.count, GROUP, 0)?;
        }
        for buffer in 0..buffers.count {
            buffers.offer(buffer);
        }
        // SAFETY: every field is a number or a pointer, for which zeros are a value.
        let mut names: Box<libc::msghdr> = Box::new(unsafe { MaybeUninit::zeroed().assume_init() });
        names.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        Ok(Ring {
            io,
            buffers: Some(buffers),
            names,
            sends: 0,
        })
    }

    /// Receives from a connected socket, repeatedly until a completion says that it does not go on.
    pub(in crate::load) fn receive(&mut self, socket: RawFd, token: u64) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(socket), GROUP).build();
        // SAFETY: it writes only into the ring's own buffers.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Receives datagrams with the names of their senders, repeatedly.
    pub(in crate::load) fn receive_named(&mut self, socket: RawFd, token: u64) -> io::Result<()> {
        let names = ptr::from_ref(&*self.names);
        let entry = opcode::RecvMsgMulti::new(Fd(socket), names, GROUP).build();
        // SAFETY: it writes only into the ring's own buffers; `names` lives as long as the ring.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Accepts connections, repeatedly.
    pub(in crate::load) fn accept(&mut self, listener: RawFd, token: u64) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener)).build();
        // SAFETY: it writes nowhere.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Sends bytes.
    ///
    /// # Safety
    /// They are neither changed nor moved nor freed until a completion with this token has come, or
    /// the ring was dropped.
    pub(in crate::load) unsafe fn send(
        &mut self,
        socket: RawFd,
        bytes: &[u8],
        token: u64,
    ) -> io::Result<()> {
        debug_assert!(token & SENDS_BUFFER == 0);
        let length = bytes.len() as u32;
        let entry = opcode::Send::new(Fd(socket), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.sends += 1;
        // SAFETY: the kernel reads the bytes, which the caller keeps unchanged.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Sends a part of the received data, to the address that another part of it names, if any. The
    /// buffer goes back to the kernel when that is done, and the completion has the token, which
    /// has 40 bits.
    pub(in crate::load) fn send_received(
        &mut self,
        socket: RawFd,
        received: Received,
        part: Range<usize>,
        name: Option<Range<usize>>,
        token: u64,
    ) -> io::Result<()> {
        debug_assert!(token < 1 << BUFFER_SHIFT);
        let token = SENDS_BUFFER | u64::from(received.buffer) << BUFFER_SHIFT | token;
        let bytes = self.bytes(&received);
        let (part, name) = (&bytes[part], name.map(|name| &bytes[name]));
        let mut send = opcode::Send::new(Fd(socket), part.as_ptr(), part.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL);
        if let Some(name) = name {
            send =
                (send.dest_addr(name.as_ptr().cast())).dest_addr_len(name.len() as libc::socklen_t);
        }
        self.sends += 1;
        // SAFETY: the kernel reads bytes of a buffer that nobody can access until the completion:
        // `received` is gone, and `next` offers the buffer again only then.
        unsafe { self.push(send.build().user_data(token)) }
    }

    /// Hands over the work, and waits until something besides the ends of sends has come; does not
    /// wait for zero.
    pub(in crate::load) fn wait(&mut self, patience: Duration) -> io::Result<()> {
        if patience.is_zero() {
            let is_idle = {
                let queue = self.io.submission();
                queue.is_empty() && !queue.taskrun()
            };
            return match is_idle {
                true => Ok(()),
                false => self.io.submit().map(|_| ()),
            };
        }
        if !self.io.completion().is_empty() {
            return self.io.submit().map(|_| ());
        }
        let time = Timespec::from(patience);
        let limits = SubmitArgs::new().timespec(&time);
        // Sends usually end within the call that hands them over.
        let wanted = self.sends + 1;
        match self.io.submitter().submit_with_args(wanted, &limits) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// The next available completion.
    pub(in crate::load) fn next(&mut self) -> Option<Completion> {
        let entry = self.io.completion().next()?;
        let flags = entry.flags();
        let mut token = entry.user_data();
        let result = match entry.result() {
            bytes @ 0.. => Ok(bytes as u32),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        if token & SENDS_BUFFER != 0 {
            let buffer = (token >> BUFFER_SHIFT) as u16 & 0x7fff;
            self.offer(buffer);
            self.sends -= 1;
            token &= (1 << BUFFER_SHIFT) - 1;
        }
        let received = cqueue::buffer_select(flags).map(|buffer| Received {
            buffer,
            length: *result.as_ref().unwrap_or(&0) as usize,
        });
        Some(Completion {
            token,
            result,
            received,
            goes_on: cqueue::more(flags),
        })
    }

    /// A send of [`Ring::send`] has ended: the caller, which knows its token, says so.
    pub(in crate::load) fn sent(&mut self) {
        self.sends -= 1;
    }

    /// The received bytes.
    pub(in crate::load) fn bytes(&self, received: &Received) -> &[u8] {
        let buffers = self.buffers.as_ref().expect("they go only with the ring");
        &buffers.bytes[buffers.place(received)]
    }

    /// The received bytes, mutable, for decryption in place.
    pub(in crate::load) fn bytes_mut(&mut self, received: &Received) -> &mut [u8] {
        let buffers = self.buffers.as_mut().expect("they go only with the ring");
        let place = buffers.place(received);
        &mut buffers.bytes[place]
    }

    /// Gives a buffer back to the kernel.
    pub(in crate::load) fn give_back(&mut self, received: Received) {
        self.offer(received.buffer);
    }

    fn offer(&mut self, buffer: u16) {
        if let Some(buffers) = &mut self.buffers {
            buffers.offer(buffer);
        }
    }

    /// # Safety
    /// The memory that the entry points at exists until the entry is completed, or the ring
    /// dropped.
    unsafe fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: as this function requires.
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.io.submit()?;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel ends operations under way after the ring is closed, at a time of its own, and
        // may write into the buffers until then. So they are ended before.
        match (self.io.submitter()).register_sync_cancel(None, CancelBuilder::any()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Leaking the memory is better than having freed memory written over.
            Err(_) => std::mem::forget(self.buffers.take()),
        }
    }
}

impl Buffers {
    fn new(shape: Shape) -> io::Result<Buffers> {
        assert!(shape.buffers.is_power_of_two());
        // Not a multiple of 4 KiB, or the beginnings of all would compete for the same few lines of
        // the processor's cache.
        let stride = shape.buffer_bytes.next_multiple_of(64) + 192;
        let count = usize::from(shape.buffers);
        Ok(Buffers {
            list: MmapMut::map_anon(count * size_of::<BufRingEntry>())?,
            bytes: MmapMut::map_anon(count * stride)?,
            count: shape.buffers,
            stride,
            buffer_bytes: shape.buffer_bytes,
            tail: 0,
        })
    }

    fn place(&self, received: &Received) -> Range<usize> {
        let start = usize::from(received.buffer) * self.stride;
        start..start + received.length.min(self.buffer_bytes)
    }

    /// Makes a buffer available to the kernel.
    fn offer(&mut self, buffer: u16) {
        debug_assert!(buffer < self.count);
        let address = self.bytes[usize::from(buffer) * self.stride..].as_mut_ptr() as u64;
        let list: *mut BufRingEntry = self.list.as_mut_ptr().cast();
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `list` has `count` entries, and any bytes are a valid entry. The kernel reads an
        // entry only after the tail below says that it is there.
        let entry = unsafe { &mut *list.add(index) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `list` is the first entry of the list, whose `resv` field is the tail; it is
        // aligned for two bytes, and only this thread writes it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(list).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
