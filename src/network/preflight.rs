use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::NetworkError;

/// Descriptors that a process of the network must be allowed. Measured, at rest: a node of one shard
/// has 52, the supervisor of 25 has 37; the rest is for clients and peers.
const DESCRIPTORS_MIN: u64 = 256;

/// The kernel takes the io_uring rings of a killed process apart, and with them its sockets, some tens of
/// milliseconds after it is gone: a network that is started again at once finds its ports taken.
const PORT_WAIT: Duration = Duration::from_secs(2);
const PORT_LOOK: Duration = Duration::from_millis(20);

/// Allows this process, and the nodes that come from it, as many descriptors as the system lets them
/// have.
///
/// # Errors
/// Where that is too few.
pub(super) fn allow_descriptors() -> Result<(), NetworkError> {
    let limit = getrlimit(Resource::Nofile);
    // None is no limit at all.
    if let Some(allowed) = limit.maximum
        && allowed < DESCRIPTORS_MIN
    {
        return Err(NetworkError::TooFewDescriptors {
            allowed,
            needed: DESCRIPTORS_MIN,
        });
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised).map_err(io::Error::from)?)
}

/// Sees to it that these addresses are free, TCP and UDP.
///
/// # Errors
/// Where one is not, even after a while, or is none of this machine's: then all of them, in a text.
pub(super) fn ports_are_free(addresses: &[SocketAddr]) -> Result<(), NetworkError> {
    let start = Instant::now();
    loop {
        let refused: Vec<_> = addresses.iter().filter_map(|&at| refused(at)).collect();
        let is_passing = |(_, _, error): &(_, _, io::Error)| {
            error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < PORT_WAIT
        };
        match refused.first() {
            None => return Ok(()),
            Some(_) if refused.iter().all(is_passing) => thread::sleep(PORT_LOOK),
            Some((address, kind, error)) => {
                let first = match error.kind() {
                    io::ErrorKind::AddrInUse => format!("{address} ({kind}) is in use"),
                    _ => format!("{address} ({kind}): {error}"),
                };
                return Err(NetworkError::NoPorts(match refused.len() {
                    1 => first,
                    more => format!("{first}, and {} more", more - 1),
                }));
            }
        }
    }
}

/// What is in the way of listening there.
fn refused(address: SocketAddr) -> Option<(SocketAddr, &'static str, io::Error)> {
    let tcp = TcpListener::bind(address).map(drop);
    let udp = UdpSocket::bind(address).map(drop);
    let tcp = tcp.map_err(|error| (address, "TCP", error));
    tcp.and(udp.map_err(|error| (address, "UDP", error))).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_what_uses_it() {
        // Below those that Linux gives to outgoing connections, one of which could have it over TCP.
        let first = 10_000 + std::process::id() as u16 % 20_000;
        let addresses = (first..).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut free = addresses.filter(|&address| refused(address).is_none());
        let address = free.next().unwrap();
        let _udp = UdpSocket::bind(address).unwrap();
        let error = ports_are_free(&[address]).unwrap_err().to_string();
        let expected = format!("{address} (UDP) is in use");
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn a_port_that_comes_free_is_waited_for() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let soon = thread::spawn(move || {
            thread::sleep(3 * PORT_LOOK);
            drop(tcp);
        });
        ports_are_free(&[address]).unwrap();
        soon.join().unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_refused_at_once() {
        let start = Instant::now();
        // TEST-NET-1 (RFC 5737) is nobody's.
        let error = ports_are_free(&["192.0.2.1:20000".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:20000"), "{error}");
        assert!(start.elapsed() < PORT_WAIT);
    }
}
