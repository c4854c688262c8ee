use std::cell::Cell;

use super::Lost;

/// What has happened between this core and the other servers since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls, whatever became of them.
    pub calls: u64,
    /// Calls that were answered as they should.
    pub answered: u64,
    /// Calls of a server that was known to be down, or whose connection broke.
    pub down: u64,
    /// Calls without an answer in time.
    pub timed_out: u64,
    /// Calls that a server refused.
    pub refused: u64,
    /// Calls whose answer could not be understood.
    pub malformed: u64,
    /// Calls over the bound of those in flight.
    pub busy: u64,
    /// Calls of a server that is not in the list.
    pub no_such_peer: u64,
    /// Calls that their callers gave up before they were answered.
    pub given_up: u64,
    /// Connections that came about.
    pub connections: u64,
    /// Connections that did not.
    pub connections_failed: u64,
    /// Connections closed because nobody used them.
    pub connections_idle: u64,
    /// Connections closed because the server was too slow, broke them, or could not be trusted.
    pub connections_lost: u64,
}

/// The counters of a core while it counts.
#[derive(Debug, Default)]
pub(super) struct Counting(Cell<Counters>);

impl Counting {
    pub fn get(&self) -> Counters {
        self.0.get()
    }

    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.0.get();
        change(&mut counters);
        self.0.set(counters);
    }

    /// How a call ended.
    pub fn ended<T>(&self, outcome: &Result<T, Lost>) {
        self.count(|counters| {
            *match outcome {
                Ok(_) => &mut counters.answered,
                Err(Lost::Down) => &mut counters.down,
                Err(Lost::TimedOut) => &mut counters.timed_out,
                Err(Lost::Refused(_)) => &mut counters.refused,
                Err(Lost::Malformed) => &mut counters.malformed,
                Err(Lost::Busy) => &mut counters.busy,
                Err(Lost::NoSuchPeer) => &mut counters.no_such_peer,
            } += 1;
        });
    }
}
