use raida::protocol::{Command, Protection, ResponseCounter};

use super::{
    RealNode,
    wire::{Answer, Wire, compose},
};

/// One client of a node, which asks one thing after the other without encryption.
pub struct Client {
    wire: Wire,
    asked: u64,
}

impl Client {
    /// Over a stream of its own.
    pub fn tcp(node: &RealNode) -> Client {
        Client {
            wire: Wire::tcp(node.address()),
            asked: 0,
        }
    }

    /// By datagrams.
    pub fn udp(node: &RealNode) -> Client {
        Client {
            wire: Wire::udp(node.address()),
            asked: 0,
        }
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, command: Command, payload: &[u8]) -> Answer {
        self.asked += 1;
        let asked = compose(command, Protection::None, Some(payload), self.asked);
        self.wire.ask(&asked, ResponseCounter::Restart)
    }
}
