use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd, IntoRawFd},
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use crate::runtime::{TcpStream, Timer};
use futures_util::{
    future::{Either, select},
    io::AsyncWrite,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connects to the first of a server's addresses that accepts, within `timeout` over all of them:
/// each has an equal share of what is left. Returns which one it was. The connection comes from the
/// address `from`, where that can reach the server.
///
/// # Errors
/// The error of the last address; `NotFound` without addresses.
pub(super) async fn dial(
    addresses: &[SocketAddr],
    from: Option<IpAddr>,
    timeout: Duration,
) -> io::Result<(TcpStream, SocketAddr)> {
    let due = Instant::now() + timeout;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, &address) in addresses.iter().enumerate() {
        let left = due.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - tried) as u32;
        let connected = within(share, connect(address, from, timeout)).await;
        match connected.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Runs `work` for at most `time`; `None` where it takes longer.
pub(super) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), pin!(Timer::new(time))).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

async fn connect(
    address: SocketAddr,
    from: Option<IpAddr>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A call goes out whole, so waiting for more bytes only delays it.
    socket.set_tcp_nodelay(true)?;
    // A machine that vanishes while it is connected is noticed as soon as one that does not answer
    // at all (tcp(7)).
    socket.set_tcp_user_timeout(Some(timeout))?;
    if let Some(from) = from
        && from.is_ipv4() == address.is_ipv4()
        && from.is_loopback() == address.ip().is_loopback()
    {
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    }
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // SAFETY: the descriptor is given away by its owner, to this one.
    let mut stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
    // Sending no bytes is ready when the connection has come about, and fails as the connection
    // did: the state is looked at before the bytes.
    poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &[])).await?;
    Ok(stream)
}
