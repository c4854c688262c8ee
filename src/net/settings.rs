use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::service::budget::BudgetLimits;

/// What an operator chooses about sockets. `listen` holds from start to end, the rest can change
/// while the node runs ([`Limits::change`](super::Limits::change)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen, TCP and UDP. Port 0: any port that is free for both.
    pub listen: SocketAddr,
    /// TCP connections at a time, all cores together. Where all are taken, an idle one makes room
    /// for the next.
    pub max_connections: usize,
    /// TCP connections at a time from one IPv4 address or one IPv6 /64 network.
    pub max_connections_per_address: usize,
    /// The longest body, bytes, that a stream's request may have. The handler decides how to answer
    /// a longer one; this limit bounds memory if the handler lets one through.
    pub max_body_bytes: usize,
    /// What waiting requests and answers may take of each core.
    pub waiting: BudgetLimits,
    /// From the first byte of a request to the end of its header. For the first request of a
    /// connection, from when the connection was accepted.
    pub header_timeout: Duration,
    /// From the end of the header to the end of the body.
    pub body_timeout: Duration,
    /// Between requests, and for a client to take the answers that wait for it.
    pub idle_timeout: Duration,
    /// From the signal to stop to the end of connections that are still open.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 50_000)),
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            max_body_bytes: 1024 * 1024,
            waiting: BudgetLimits::default(),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
