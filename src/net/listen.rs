use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::{datagrams, steering};
use crate::coin::ShardId;
use crate::plain_file::{self, TEXT_BYTES_MAX};
use crate::shown::{self, OUTGOING_PORTS_FILE};

/// Maximum number of connections that wait to be accepted, per shard; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Maximum number of bytes that the kernel holds for a shard's datagrams, each way: thousands of
/// requests that come while the core is busy for some milliseconds.
const DATAGRAM_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Ports to try when any port will do: the port that TCP got may be taken for UDP.
const PORT_ATTEMPTS: usize = 64;

/// How long to wait for a taken port to become free, and how often to check.
const PORT_WAIT: Duration = Duration::from_secs(1);
const PORT_LOOK: Duration = Duration::from_millis(20);

/// A client that vanished silently is noticed after 60 s + 5 x 10 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 5;

/// The TCP and the UDP socket of one shard, for its core.
#[derive(Debug)]
pub struct Sockets {
    shard: ShardId,
    address: SocketAddr,
    pub(super) tcp: TcpListener,
    pub(super) udp: UdpSocket,
}

impl Sockets {
    /// The shard that owns them.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The address that they listen on: the same for all shards, with the actual port where 0 was
    /// asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Opens the node's TCP and UDP port once for each of `shards` shards, in their order, and has the
/// kernel hand each datagram to the shard that owns its coin. Call it before any core runs.
///
/// # Errors
/// Address in use, by whatever program, this user's included; no right to the port; no such address
/// on this machine. The message says which address, and what to do.
///
/// # Panics
/// When `shards` is 0.
pub fn bind(listen: SocketAddr, shards: u16) -> io::Result<Vec<Sockets>> {
    assert!(shards > 0, "a node has at least one shard");
    let (address, tcp, udp) = first(listen)?;
    let mut sockets = vec![Sockets {
        shard: ShardId::new(0),
        address,
        tcp,
        udp,
    }];
    for shard in 1..shards {
        sockets.push(Sockets {
            shard: ShardId::new(shard),
            address,
            tcp: tcp_socket(address).map_err(|error| explain(error, address, "TCP"))?,
            udp: udp_socket(address).map_err(|error| explain(error, address, "UDP"))?,
        });
    }
    if shards > 1 {
        // The program's answer is an index into the sockets in the order in which they were bound.
        steering::attach(&sockets[0].udp, shards)?;
    }
    Ok(sockets)
}

/// The first pair. SO_REUSEPORT lets another process of the same user share the port, and that
/// process would get some of our clients. So first try to get the port exclusively.
fn first(listen: SocketAddr) -> io::Result<(SocketAddr, TcpListener, UdpSocket)> {
    if listen.port() != 0 {
        let alone = when_free(|| tcp_bound(listen, Sharing::Alone));
        drop(alone.map_err(|e| explain(e, listen, "TCP"))?);
        let alone = when_free(|| udp_bound(listen, Sharing::Alone));
        drop(alone.map_err(|e| explain(e, listen, "UDP"))?);
        let tcp = tcp_socket(listen).map_err(|e| explain(e, listen, "TCP"))?;
        let udp = udp_socket(listen).map_err(|e| explain(e, listen, "UDP"))?;
        return Ok((listen, tcp, udp));
    }
    let mut taken = Vec::new(); // keeps a port from being offered again
    for _ in 0..PORT_ATTEMPTS {
        let tcp = tcp_socket(listen).map_err(|error| explain(error, listen, "TCP"))?;
        let address = tcp.local_addr()?;
        // Another program may get the port between the two, like any program that asks for a free
        // port.
        let udp = udp_bound(address, Sharing::Alone).and_then(|alone| {
            drop(alone);
            udp_socket(address)
        });
        match udp {
            Ok(udp) => return Ok((address, tcp, udp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken.push(tcp),
            Err(error) => return Err(explain(error, address, "UDP")),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("no port on {} is free for both TCP and UDP", listen.ip()),
    ))
}

/// Tries again for a while where an address is taken. The kernel takes apart the io_uring rings of
/// a killed process only after the process is gone, and with them the sockets that they waited for.
/// So a node that is started again at once finds its own port taken, for some tens of milliseconds.
fn when_free(mut bind: impl FnMut() -> io::Result<Socket>) -> io::Result<Socket> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < PORT_WAIT =>
            {
                std::thread::sleep(PORT_LOOK);
            }
            bound => return bound,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    Alone,
    WithOtherShards,
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_bound(address, Sharing::WithOtherShards)?;
    // Connections inherit these from the socket that accepts them (tcp(7)).
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = udp_bound(address, Sharing::WithOtherShards)?;
    enlarge(&socket, libc::SO_RCVBUFFORCE);
    enlarge(&socket, libc::SO_SNDBUFFORCE);
    // Where the size exceeds the kernel's own maximum, the kernel silently sets that maximum.
    socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES.max(socket.recv_buffer_size()? / 2))?;
    socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES.max(socket.send_buffer_size()? / 2))?;
    datagrams::allow_pieces(&socket, false)?;
    Ok(socket.into())
}

fn tcp_bound(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of a node that ran until a moment ago linger in TIME_WAIT. They must not prevent
    // the listening.
    socket.set_reuse_address(true)?;
    bound(socket, address, sharing)
}

fn udp_bound(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    bound(socket, address, sharing)
}

fn bound(socket: Socket, address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    if address.ip().to_canonical().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(sharing == Sharing::WithOtherShards)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Tries to set a buffer's size beyond the system's maximum, which needs CAP_NET_ADMIN; without it,
/// nothing happens.
fn enlarge(socket: &Socket, option: libc::c_int) {
    let size = DATAGRAM_BUFFER_BYTES as libc::c_int;
    // SAFETY: the pointer and length describe a live c_int, which is what both options take
    // (socket(7)), and the descriptor is open while `socket` is borrowed.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const size).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// Says which address could not be listened on, and what to do about it.
fn explain(error: io::Error, address: SocketAddr, transport: &str) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has it: stop that or choose another port; {}",
            who_has(address.port())
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "this machine has no address {}: `ip address` lists those it has, 0.0.0.0 means all",
            address.ip()
        ),
        _ => error.to_string(),
    };
    io::Error::new(
        error.kind(),
        format!("cannot listen on {transport} {address}: {advice}"),
    )
}

/// How a person finds out which program has a port.
fn who_has(port: u16) -> String {
    let outgoing = plain_file::read_text(OUTGOING_PORTS_FILE.as_ref(), TEXT_BYTES_MAX);
    shown::who_has(port, &outgoing.unwrap_or_default())
}

/// Ends the listening, and wakes the task that waits for a connection: its `accept` then fails
/// (EINVAL).
pub(super) fn stop_listening(listener: &TcpListener) {
    // Fails only where the socket no longer listens.
    let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn all_shards_share_one_port_for_both_transports() {
        let sockets = bind(loopback(0), 3).unwrap();
        let address = sockets[0].address();
        assert_ne!(address.port(), 0);
        for (index, pair) in sockets.iter().enumerate() {
            assert_eq!(pair.shard().index(), index);
            assert_eq!(pair.tcp.local_addr().unwrap(), address);
            assert_eq!(pair.udp.local_addr().unwrap(), address);
        }
    }

    #[test]
    fn a_port_that_another_node_has_is_refused_with_advice() {
        let first = bind(loopback(0), 2).unwrap();
        let error = bind(first[0].address(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("TCP 127.0.0.1:"), "{error}");
        let error = error.to_string();
        let port = first[0].address().port();
        let says = [
            "choose another port".to_owned(),
            format!("ss -ltnup 'sport = :{port}'"),
            "TIME-WAIT".to_owned(),
            // The kernel chose it from the ports that it gives to outgoing connections.
            format!("ip_local_reserved_ports={port}"),
        ];
        for text in says {
            assert!(error.contains(&text), "no {text} in {error}");
        }
    }

    #[test]
    fn a_port_that_is_taken_for_udp_alone_is_refused() {
        let (udp, port) = loop {
            let udp = UdpSocket::bind(loopback(0)).unwrap();
            let port = udp.local_addr().unwrap().port();
            if TcpListener::bind(loopback(port)).is_ok() {
                break (udp, port);
            }
        };
        let error = bind(loopback(port), 1).unwrap_err();
        assert!(error.to_string().contains("UDP 127.0.0.1:"), "{error}");
        drop(udp);
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_advice() {
        let error = bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(error.to_string().contains("ip address"), "{error}");
    }
}
