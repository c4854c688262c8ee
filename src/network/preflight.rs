use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::NetworkError;
use crate::plain_file::{self, TEXT_BYTES_MAX};
use crate::shown::{self, OUTGOING_PORTS_FILE};

/// Descriptors that a process of the network must be allowed. Measured, at rest: a node of one
/// shard has 52, the supervisor of 25 has 37; the rest is for clients and peers.
const DESCRIPTORS_MIN: u64 = 256;

/// The kernel takes apart the io_uring rings of a killed process, and with them its sockets, some
/// tens of milliseconds after the process is gone. So a network that is started again at once finds
/// its ports taken.
const PORT_WAIT: Duration = Duration::from_secs(2);
const PORT_LOOK: Duration = Duration::from_millis(20);

/// Allows this process, and the nodes that come from it, as many descriptors as the system lets
/// them have.
///
/// # Errors
/// Where that is too few.
pub(super) fn allow_descriptors() -> Result<(), NetworkError> {
    let limit = getrlimit(Resource::Nofile);
    // `None` means no limit at all.
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

/// Checks that these addresses are free, TCP and UDP.
///
/// # Errors
/// Where an address is not free, even after a while, or does not belong to this machine: then all
/// such addresses, in a text.
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
            Some((address, _, error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Err(NetworkError::NoAddress(address.ip()));
            }
            Some((address, kind, error)) => {
                let what = match error.kind() {
                    io::ErrorKind::AddrInUse => "is in use".to_owned(),
                    _ => format!("cannot be had: {error}"),
                };
                let how = match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        let outgoing =
                            plain_file::read_text(OUTGOING_PORTS_FILE.as_ref(), TEXT_BYTES_MAX);
                        let who = shown::who_has(address.port(), &outgoing.unwrap_or_default());
                        format!("or end what has it ({who})")
                    }
                    io::ErrorKind::PermissionDenied => {
                        "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
                    }
                    _ => "`ip address` lists the addresses of this machine".to_owned(),
                };
                let others = refused.iter().skip(1);
                let others: Vec<String> = others.map(|(at, ..)| at.port().to_string()).collect();
                let more = match others.len() {
                    0 => String::new(),
                    more => format!(", and {more} more: {}", others.join(", ")),
                };
                return Err(NetworkError::NoPorts {
                    which: format!("{address} ({kind}) {what}{more}"),
                    how,
                });
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
        // Below the ports that Linux gives to outgoing connections: one of those could already hold
        // it over TCP.
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
    fn every_port_in_use_is_named_with_how_to_see_what_has_it() {
        let taken = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = taken.each_ref().map(|tcp| tcp.local_addr().unwrap());
        let error = ports_are_free(&addresses).unwrap_err().to_string();
        let [first, second, third] = addresses.map(|address| address.port());
        for text in [
            format!("127.0.0.1:{first} (TCP) is in use, and 2 more: {second}, {third}"),
            format!("ss -ltnup 'sport = :{first}'"),
            format!("ss -tanp 'sport = :{first}'"),
            "TIME-WAIT".to_owned(),
            "--base-port".to_owned(),
            // The kernel chose it from the ports that it gives to outgoing connections.
            format!("ip_local_reserved_ports={first}"),
        ] {
            assert!(error.contains(&text), "no {text} in {error}");
        }
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
        // TEST-NET-1 (RFC 5737) belongs to nobody.
        let error = ports_are_free(&["192.0.2.1:20000".parse().unwrap()]).unwrap_err();
        let says = "192.0.2.1 is no address of this machine";
        assert!(error.to_string().starts_with(says), "{error}");
        assert!(start.elapsed() < PORT_WAIT);
    }
}
