use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::echo_uring::{self, datagram_ring, echo_datagrams, stream_ring};
use crate::load::cpu_clock::CpuClock;
use crate::load::datagrams::{Batch, Wait};
use crate::load::thread::pin;

/// How long a waiting thread sleeps before it checks whether it should end.
const WAIT: Duration = Duration::from_millis(100);
/// Bytes read from a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// Connections handled after one wait.
const EVENTS: usize = 64;

/// A server that sends back what it gets, one thread on each of a node's CPUs: the least work that
/// any server does, and so the most that a node could reach. It sleeps while nobody asks.
pub(in crate::load) struct Echo {
    address: SocketAddr,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    cpu_clock: CpuClock,
}

impl Echo {
    /// Over UDP by io_uring: multishot receive into buffers that the kernel picks, sent back from
    /// them.
    ///
    /// # Errors
    /// A socket or a ring could not be created.
    pub(in crate::load) fn udp_uring(cpus: &[Option<usize>]) -> io::Result<Echo> {
        drop(datagram_ring()?); // checks that it works; each thread makes its own
        let (address, sockets) = udp_sockets(cpus)?;
        Ok(Echo::start(address, cpus, sockets, |socket, end| {
            // The client counts the answers that it misses.
            let _ = datagram_ring().and_then(|mut ring| echo_datagrams(&mut ring, &socket, end));
        }))
    }

    /// Over TCP by io_uring, in the same way.
    ///
    /// # Errors
    /// A socket or a ring could not be created.
    pub(in crate::load) fn tcp_uring(cpus: &[Option<usize>]) -> io::Result<Echo> {
        drop(stream_ring()?); // checks that it works; each thread makes its own
        let (address, listeners) = tcp_listeners(cpus)?;
        for listener in &listeners {
            // A ring does not wait for operations that must not wait.
            listener.set_nonblocking(false)?;
        }
        Ok(Echo::start(address, cpus, listeners, |listener, end| {
            // The client counts the answers that it misses.
            let _ = stream_ring()
                .and_then(|mut ring| echo_uring::echo_streams(&mut ring, &listener, end));
        }))
    }

    /// Over UDP: one call receives everything that has come, and another sends it back.
    ///
    /// # Errors
    /// A socket could not be created.
    pub(in crate::load) fn udp(cpus: &[Option<usize>]) -> io::Result<Echo> {
        let (address, sockets) = udp_sockets(cpus)?;
        Ok(Echo::start(address, cpus, sockets, |socket, end| {
            let mut batch = Batch::new();
            while !end.load(Relaxed) {
                if batch.receive(&socket, Wait::ForOne).is_ok() {
                    // A datagram that cannot be sent is lost; the client that misses it counts it.
                    let _ = batch.send_back(&socket);
                }
            }
        }))
    }

    /// Over TCP: one write sends back what one read returned.
    ///
    /// # Errors
    /// A socket could not be created.
    pub(in crate::load) fn tcp(cpus: &[Option<usize>]) -> io::Result<Echo> {
        let (address, listeners) = tcp_listeners(cpus)?;
        Ok(Echo::start(address, cpus, listeners, |listener, end| {
            // The client counts the answers that it misses.
            let _ = echo_streams(&listener, end);
        }))
    }

    fn start<S: Send + 'static>(
        address: SocketAddr,
        cpus: &[Option<usize>],
        sockets: Vec<S>,
        serve: impl Fn(S, &AtomicBool) + Copy + Send + 'static,
    ) -> Echo {
        let end = Arc::new(AtomicBool::new(false));
        let (started, ids) = mpsc::channel();
        let threads = sockets.into_iter().zip(cpus.to_vec()).map(|(socket, cpu)| {
            let (end, started) = (Arc::clone(&end), started.clone());
            std::thread::spawn(move || {
                pin(cpu);
                let _ = started.send(rustix::thread::gettid().as_raw_nonzero().get());
                serve(socket, &end);
            })
        });
        let threads: Vec<_> = threads.collect();
        let ids = ids.iter().take(threads.len());
        Echo {
            address,
            cpu_clock: CpuClock::Threads(ids.collect()),
            threads,
            end,
        }
    }

    /// Its address.
    pub(in crate::load) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its cost.
    pub(in crate::load) fn cpu_clock(&self) -> CpuClock {
        self.cpu_clock.clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has reported it.
            let _ = thread.join();
        }
    }
}

/// A socket for each CPU, all with one address.
fn udp_sockets(cpus: &[Option<usize>]) -> io::Result<(SocketAddr, Vec<UdpSocket>)> {
    let mut sockets: Vec<UdpSocket> = Vec::new();
    let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for _ in cpus {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(WAIT))?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

fn tcp_listeners(cpus: &[Option<usize>]) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for _ in cpus {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(1_024)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((address, listeners))
}

const LISTENER: u64 = u64::MAX;

fn echo_streams(listener: &TcpListener, end: &AtomicBool) -> io::Result<()> {
    let wait = Timespec::try_from(WAIT).expect("a tenth of a second");
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(LISTENER);
    epoll::add(&epoll, listener, data, epoll::EventFlags::IN)?;
    let mut streams: Slab<TcpStream> = Slab::new();
    let mut bytes = vec![0; READ_BYTES];
    let mut events = Vec::with_capacity(EVENTS);
    while !end.load(Relaxed) {
        events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&epoll, buffer, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => accept(listener, &epoll, &mut streams)?,
                index => {
                    let index = index as usize;
                    if (streams.get(index)).is_some_and(|s| echo(s, &mut bytes).is_err()) {
                        streams.remove(index); // closing it takes it out of the epoll
                    }
                }
            }
        }
    }
    Ok(())
}

fn accept(
    listener: &TcpListener,
    epoll: &OwnedFd,
    streams: &mut Slab<TcpStream>,
) -> io::Result<()> {
    let Ok((stream, _)) = listener.accept() else {
        return Ok(()); // another thread was faster
    };
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let entry = streams.vacant_entry();
    let data = epoll::EventData::new_u64(entry.key() as u64);
    epoll::add(epoll, &stream, data, epoll::EventFlags::IN)?;
    entry.insert(stream);
    Ok(())
}

/// Reads once and writes that back. An error ends the connection.
fn echo(mut stream: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let length = match stream.read(bytes) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut rest = &bytes[..length];
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(written) => rest = &rest[written..],
            // Only a client that leaves megabytes of answers unread gets here.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
