use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where a node listens: a host name or an address, and a port; an IPv6 address in brackets.
///
/// ```
/// use raida::client::HostPort;
/// let here: HostPort = "[::1]:50000".parse().unwrap();
/// assert_eq!((here.host(), here.port()), ("::1", 50_000));
/// assert!("localhost".parse::<HostPort>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is not a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not HOST:PORT: a name or an address (IPv6 in brackets), a colon and a port from 1 to 65535, as in 127.0.0.1:50000"
)]
pub struct NotHostPort(String);

impl HostPort {
    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> HostPort {
        HostPort {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl FromStr for HostPort {
    type Err = NotHostPort;

    fn from_str(text: &str) -> Result<HostPort, NotHostPort> {
        let refused = || NotHostPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let odd = |c: char| c.is_whitespace() || "[]/,".contains(c);
        if host.is_empty() || host.contains(odd) || (bracketed.is_none() && host.contains(':')) {
            return Err(refused());
        }
        match port.parse() {
            Ok(port @ 1..) => Ok(HostPort {
                host: host.to_owned(),
                port,
            }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_again() {
        for text in ["127.0.0.1:50000", "raida0.example.com:1", "[::1]:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn half_an_address_is_refused() {
        for text in [
            "",
            ":",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "::1:5",
            "a b:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?} was accepted");
        }
    }
}
