use raida::{
    coin::{An, Coin},
    protocol::{
        Command, Protection, ResponseCounter, Status,
        authentication::{Detect, Pown},
        lockers::{Contents, LockerKey, Peek, PeekTrade, TradeName, TradePart},
    },
};

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

    /// Gives coins (coin, old number, new number) their new numbers.
    pub fn pown(&mut self, records: &[(Coin, An, An)]) -> Status {
        let mut payload = Vec::new();
        Pown::compose(records.iter().copied(), &mut payload);
        self.ask(Command::Pown, &payload).status
    }

    /// Whether all coins have these numbers.
    pub fn have(&mut self, coins: &[(Coin, An)]) -> bool {
        let mut payload = Vec::new();
        Detect::compose(coins.iter().copied(), &mut payload);
        self.ask(Command::Detect, &payload).status == Status::ALL_PASS
    }

    /// What lies in a locker.
    pub fn peek(&mut self, key: LockerKey) -> Vec<Coin> {
        let mut payload = Vec::new();
        Peek::compose(key, &mut payload);
        self.contents(Command::Peek, &payload)
    }

    /// What is on offer under a name.
    pub fn look(&mut self, name: TradeName) -> Vec<Coin> {
        let mut payload = Vec::new();
        PeekTrade::compose(name, TradePart::Coins, &mut payload);
        self.contents(Command::PeekTrade, &payload)
    }

    fn contents(&mut self, command: Command, payload: &[u8]) -> Vec<Coin> {
        let answer = self.ask(command, payload);
        let contents = Contents::read(answer.status, &answer.payload);
        contents.expect("an answer to a peek").coins().collect()
    }
}
