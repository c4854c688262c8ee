//! This node as a client of the network's other servers: it claims tickets from them. Each core has
//! its own connections, and the only thing that cores share is the [`Book`] of addresses.
//!
//! A server that is down costs its callers nothing: once it has failed, calls of it fail at once,
//! and it is tried in the background until it answers. An answer that is late, malformed or endless
//! costs at most the call's time and the memory of one answer.
//!
//! | file | what it is |
//! |---|---|
//! | `settings` | what an operator chooses |
//! | `book` | where the servers are, looked up on threads that are no cores |
//! | `peers` | all servers as one core sees them: who is asked, how many calls at a time |
//! | `keeper` | one server: connecting, and leaving it in peace while it is down |
//! | `dial` | one connection attempt |
//! | `conversation` | calls and answers on one connection |
//! | `call` | a call, as its caller and as the connection hold it |
//! | `back_off` | how long to leave a server in peace |
//! | `counters` | what has happened, for metrics |

mod back_off;
mod book;
mod call;
mod conversation;
mod counters;
mod dial;
mod keeper;
mod peers;
mod settings;

pub use book::Book;
pub use call::Call;
pub use counters::Counters;
pub use peers::Peers;
pub use settings::{PeerSettings, Server};

use crate::protocol::Status;

/// Why there is no answer from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It cannot be reached, or the connection broke before it answered. The call may have been
    /// carried out.
    #[error("it is down")]
    Down,
    /// It did not answer in time. The call may have been carried out.
    #[error("it did not answer in time")]
    TimedOut,
    /// It refused.
    #[error("it refused: {0}")]
    Refused(Status),
    /// What it said cannot be understood, or cannot be true.
    #[error("its answer cannot be understood")]
    Malformed,
    /// The maximum number of calls is in flight, to this server or to all servers together.
    #[error("too many calls wait for an answer")]
    Busy,
    /// There is no such server in the list, or it is this one.
    #[error("no such server is known")]
    NoSuchPeer,
}
