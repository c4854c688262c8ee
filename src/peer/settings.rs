use std::{fmt, net::IpAddr, time::Duration};

use crate::protocol::RaidaId;

/// Where a server is said to be: a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How this node treats the others.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// This node's number, in whose name it claims.
    pub own: RaidaId,
    /// The coin that the network serves; 6 is CloudCoin.
    pub coin_id: u16,
    /// The address that connections come from, where the system is not to choose it: others take a
    /// claim only from the address that they know this node by.
    pub from: Option<IpAddr>,
    /// How long a connection may take to come about, over all addresses of a name, and how long
    /// what was sent on it may stay unacknowledged.
    pub connect_timeout: Duration,
    /// How long an answer may take, from the call to its last byte.
    pub reply_timeout: Duration,
    /// How long a connection stays open without a call. Shorter than what servers allow
    /// (`network.idle_timeout_s`), so that they seldom close it under a call.
    pub idle_timeout: Duration,
    /// How long a server that has failed is left in peace at first.
    pub back_off_first: Duration,
    /// How long at most: it doubles with each failure.
    pub back_off_max: Duration,
    /// Whether claims in a server's name count only from its addresses.
    pub verify_source: bool,
    /// Calls of one server at a time, on this core.
    pub calls_per_server_max: usize,
    /// Calls of all servers at a time, on this core.
    pub calls_max: usize,
}

impl PeerSettings {
    /// The settings of a node that is configured no further.
    pub fn new(own: RaidaId, coin_id: u16) -> PeerSettings {
        PeerSettings {
            own,
            coin_id,
            from: None,
            connect_timeout: Duration::from_secs(2),
            reply_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            back_off_first: Duration::from_millis(100),
            back_off_max: Duration::from_secs(30),
            verify_source: true,
            calls_per_server_max: 256,
            // Some slow servers leave room for the others. An answer in hand is up to 32 KiB of
            // coins: 128 MiB in all, if every call got the longest answer at the same moment.
            calls_max: 4_096,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
