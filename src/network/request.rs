use serde::{Deserialize, Serialize};

use crate::protocol::RaidaId;

/// A request to a running network: one line of JSON. The answer is one line of JSON, the network's
/// status or `{"error": TEXT}`.
///
/// ```text
/// {"do":"stop","raidas":[3,7]}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Return the status. Answered at once.
    Status,
    /// Start these nodes. Answered when each of them serves, or was given up.
    Start {
        /// Their numbers.
        raidas: Vec<Raida>,
    },
    /// Stop these nodes. Answered when none of them has a process.
    Stop {
        /// Their numbers.
        raidas: Vec<Raida>,
    },
    /// Stop all nodes and end. Answered when no node has a process; the supervisor is gone when the
    /// connection is closed.
    Down,
}

/// A RAIDA number on this wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Raida(pub RaidaId);

impl TryFrom<u8> for Raida {
    type Error = String;

    fn try_from(number: u8) -> Result<Raida, String> {
        let raida = RaidaId::new(number);
        raida
            .map(Raida)
            .ok_or_else(|| format!("{number} is no RAIDA number: they are 0 to 24"))
    }
}

impl From<Raida> for u8 {
    fn from(Raida(raida): Raida) -> u8 {
        raida.get()
    }
}

impl Request {
    /// Asks for these nodes to be started.
    pub fn start(raidas: &[RaidaId]) -> Request {
        Request::Start {
            raidas: raidas.iter().copied().map(Raida).collect(),
        }
    }

    /// Asks for these nodes to be stopped.
    pub fn stop(raidas: &[RaidaId]) -> Request {
        Request::Stop {
            raidas: raidas.iter().copied().map(Raida).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let three = RaidaId::new(3).unwrap();
        for request in [Request::Status, Request::stop(&[three]), Request::Down] {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        let line = serde_json::to_string(&Request::start(&[three])).unwrap();
        assert_eq!(line, r#"{"do":"start","raidas":[3]}"#);
    }

    #[test]
    fn a_node_that_cannot_exist_is_refused() {
        let refused = serde_json::from_str::<Request>(r#"{"do":"stop","raidas":[25]}"#);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("25 is no RAIDA number"), "{error}");
    }
}
