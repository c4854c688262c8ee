use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use slab::Slab;

use crate::load::uring::{Received, Ring, Shape};

/// How long a waiting thread sleeps before it checks whether it should end.
const WAIT: Duration = Duration::from_millis(100);
/// Room for a datagram's sender, in front of the data, and for the kernel's description of both
/// (`struct io_uring_recvmsg_out`: four numbers of four bytes, the second of them unused here).
const NAME_AT: usize = 16;
const NAME_ROOM: usize = size_of::<libc::sockaddr_storage>();
const DATAGRAM_AT: usize = NAME_AT + NAME_ROOM;

const DATAGRAMS: Shape = Shape {
    entries: 256,
    buffers: 256,
    buffer_bytes: DATAGRAM_AT + 65_535,
};
const STREAMS: Shape = Shape {
    entries: 256,
    buffers: 256,
    buffer_bytes: 16 * 1024,
};

/// Tokens of receives. A stream's token is its number below, for its sends as well.
const LISTENS: u64 = 1 << 33;
const RECEIVES: u64 = 1 << 32;

/// A ring for datagrams that are sent back.
pub(super) fn datagram_ring() -> io::Result<Ring> {
    Ring::new(DATAGRAMS)
}

/// A ring for streams that are sent back.
pub(super) fn stream_ring() -> io::Result<Ring> {
    Ring::new(STREAMS)
}

/// Sends back every datagram from the buffer that it came in.
pub(super) fn echo_datagrams(
    ring: &mut Ring,
    socket: &UdpSocket,
    end: &AtomicBool,
) -> io::Result<()> {
    let mut receives = false;
    while !end.load(Relaxed) {
        if !receives {
            ring.receive_named(socket.as_raw_fd(), RECEIVES)?;
            receives = true;
        }
        ring.wait(WAIT)?;
        while let Some(completion) = ring.next() {
            if completion.token != RECEIVES {
                continue; // a datagram that cannot be sent is lost; the client counts it
            }
            receives = completion.goes_on;
            let Some(received) = completion.received else {
                continue; // all buffers were full
            };
            match parts(ring.bytes(&received)) {
                Some((name, datagram)) => {
                    let socket = socket.as_raw_fd();
                    ring.send_received(socket, received, datagram, Some(name), 0)?;
                }
                None => ring.give_back(received),
            }
        }
    }
    Ok(())
}

/// The positions of the sender's name and of the datagram in a buffer.
fn parts(bytes: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let name_length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let has_all = name_length <= NAME_ROOM && bytes.len() >= DATAGRAM_AT;
    has_all.then(|| (NAME_AT..NAME_AT + name_length, DATAGRAM_AT..bytes.len()))
}

/// A stream and the data still to send back on it: one piece at a time, since two could overtake
/// each other.
struct Echoed {
    stream: TcpStream,
    waiting: VecDeque<Received>,
    sends: bool,
    receives: bool,
    is_over: bool,
}

/// Sends back everything that comes over every stream, from the buffers that it came in.
pub(super) fn echo_streams(
    ring: &mut Ring,
    listener: &TcpListener,
    end: &AtomicBool,
) -> io::Result<()> {
    let mut streams: Slab<Echoed> = Slab::new();
    let mut listens = false;
    while !end.load(Relaxed) {
        if !listens {
            ring.accept(listener.as_raw_fd(), LISTENS)?;
            listens = true;
        }
        ring.wait(WAIT)?;
        while let Some(completion) = ring.next() {
            let key = (completion.token & (RECEIVES - 1)) as usize;
            if completion.token == LISTENS {
                listens = completion.goes_on;
                if let Ok(fd) = completion.result {
                    // SAFETY: the kernel has just made this descriptor for the connection that it
                    // accepted, and nobody else has it.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                    let stream = TcpStream::from(fd);
                    stream.set_nodelay(true)?;
                    let socket = stream.as_raw_fd();
                    let key = streams.insert(Echoed {
                        stream,
                        waiting: VecDeque::new(),
                        sends: false,
                        receives: true,
                        is_over: false,
                    });
                    ring.receive(socket, RECEIVES | key as u64)?;
                }
                continue;
            }
            let Some(echoed) = streams.get_mut(key) else {
                continue;
            };
            if completion.token & RECEIVES == 0 {
                echoed.sends = false;
                echoed.is_over |= completion.result.is_err();
            } else {
                echoed.receives = completion.goes_on;
                match completion.received {
                    Some(received) if !ring.bytes(&received).is_empty() => {
                        echoed.waiting.push_back(received);
                    }
                    Some(received) => {
                        ring.give_back(received);
                        echoed.is_over = true;
                    }
                    None => {
                        let error = completion.result.err();
                        echoed.is_over |=
                            error.is_none_or(|e| e.raw_os_error() != Some(libc::ENOBUFS));
                    }
                }
            }
            go_on(ring, &mut streams, key)?;
        }
    }
    Ok(())
}

/// Sends the next piece of a stream, receives from it again, or forgets it.
fn go_on(ring: &mut Ring, streams: &mut Slab<Echoed>, key: usize) -> io::Result<()> {
    let echoed = &mut streams[key];
    let socket = echoed.stream.as_raw_fd();
    if echoed.is_over {
        for received in echoed.waiting.drain(..) {
            ring.give_back(received);
        }
        if echoed.receives {
            // Nothing more is wanted; that ends the receive.
            let _ = echoed.stream.shutdown(std::net::Shutdown::Both);
        } else if !echoed.sends {
            streams.remove(key);
        }
        return Ok(());
    }
    if !echoed.sends
        && let Some(received) = echoed.waiting.pop_front()
    {
        echoed.sends = true;
        let all = 0..ring.bytes(&received).len();
        ring.send_received(socket, received, all, None, key as u64)?;
    }
    if !echoed.receives {
        echoed.receives = true;
        ring.receive(socket, RECEIVES | key as u64)?;
    }
    Ok(())
}
