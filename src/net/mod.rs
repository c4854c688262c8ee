//! Sockets: TCP and UDP on one port, connections, limits, and the kernel's steering of datagrams to
//! the shard that owns their coin. Bytes come in here and answers go out; the [`Handler`] alone
//! gives a request its meaning, so nothing in this folder knows a command, a status or a coin's
//! state.
//!
//! | file | what it is |
//! |---|---|
//! | `settings` | what an operator chooses |
//! | `limits` | those choices while the node runs, and what was turned away |
//! | `seats` | which connections are open, and which is closed to make room for another |
//! | `listen`, `steering` | the sockets of all shards, and the program that spreads datagrams over them |
//! | `serve` | one core: everything below, from start to graceful stop |
//! | `tcp`, `inbound`, `pipeline`, `deadlines` | connections: bytes in, answers in order, time-outs |
//! | `parked` | answers that wait for word that they may go |
//! | `udp`, `datagrams` | datagrams, in batches |
//! | `readiness` | which sockets can be read or written |
//! | `rings` | when a busy core looks at its executor's rings |
//! | `stop` | the signal that reaches every core |
//! | `told` | how often what goes on failing is logged |

mod datagrams;
mod deadlines;
mod inbound;
mod limits;
mod lines;
mod listen;
mod parked;
mod pipeline;
mod seats;
mod serve;
mod settings;
mod steering;
mod stop;
mod tcp;
mod told;
mod udp;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::service::budget::{Budget, Made, Needs};

pub use limits::{ConnectionCounts, Counters, Limits};
pub use listen::{Sockets, bind};
pub use serve::{Drained, serve};
pub use settings::Settings;
pub use stop::{Stop, Stopped};

/// What the bytes at the start of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The beginning of a request. `needed` bytes, counted from the request's first, are enough to
    /// say more: more than there are now. While it is at most [`HEADER_BYTES_MAX`] the header
    /// time-out runs, after that the body time-out.
    Incomplete {
        /// Bytes from the request's first; more than [`HEADER_BYTES_MAX`] are the whole request.
        needed: usize,
    },
    /// A whole request: the first `length` bytes, at least 1.
    Whole {
        /// Bytes of the request, header included.
        length: usize,
        /// What the request takes if it has to wait.
        needs: Needs,
    },
    /// A request whose body is not needed: answer now.
    Refused {
        /// The request's bytes, header included, where its framing can be trusted: they are skipped
        /// and the stream goes on. `None` where nobody knows where the next request starts: the
        /// answer is the last one and the connection closes.
        length: Option<usize>,
    },
}

/// The longest possible header, bytes (docs/protocol.md section 3, encryption types 4 and 5). A
/// stream's request may be longer than the body limit by this much.
pub const HEADER_BYTES_MAX: usize = 48;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream: requests one after the other, answers in the same order.
    Tcp,
    /// One request, one datagram; one answer, one datagram.
    Udp,
}

/// Where a session's requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The way they come in.
    pub transport: Transport,
    /// TCP: the client. UDP: the node's own address, since the one session has many clients.
    pub peer: SocketAddr,
}

/// An answer that takes longer than this turn, with a copy of whatever it needs. It is run to its
/// end whatever happens to the connection, since it may be a change that others already see as
/// made. An answer that has not begun when its session is dropped ends by itself. An empty answer
/// is none; a stream cannot go on without it and closes.
pub type Later = Pin<Box<dyn Future<Output = Made>>>;

/// What happened to a request.
pub enum Handled {
    /// The response has been appended.
    Answered,
    /// There is no response; whatever was appended is not sent.
    Silent,
    /// The response follows; whatever was appended is not sent.
    Later(Later),
    /// The response has been appended. It is sent when it is [released](Handler::poll_released)
    /// under this number; no other response has the number until that notice has been taken.
    Parked(usize),
}

/// Gives meaning to bytes: one on each core, cheap to clone.
pub trait Handler: Clone + 'static {
    /// The state that it keeps for a connection, or for all datagrams of a core.
    type Session: Session;

    /// Notice that a parked response may be sent.
    type Release: Release;

    /// What waiting requests may take of this core.
    fn budget(&self) -> &Rc<Budget>;

    /// A new connection, or the start of the core's datagrams.
    fn session(&self, origin: Origin) -> Self::Session;

    /// Waits until [parked](Handled::Parked) responses may be sent, and replaces the content of
    /// `released` by notices of them. Polled by one task of the core.
    fn poll_released(&self, cx: &mut Context<'_>, released: &mut Vec<Self::Release>) -> Poll<()>;
}

/// Notice that a parked response may be sent.
pub trait Release {
    /// The number that it was parked under.
    fn id(&self) -> usize;

    /// Whether the response is sent at all; the response to a stream's request always is.
    fn goes(&self) -> bool {
        true
    }

    /// Writes into the response what was not known when it was composed.
    fn complete(&self, response: &mut [u8]);

    /// Whether the response will never be sent. A stream cannot go on without it, and closes.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// The requests of one connection, or all datagrams of one core.
///
/// Nothing here may block or run long: the core does nothing else meanwhile. `peer` is an IPv4
/// address where the client has one, also on a socket that listens on IPv6.
pub trait Session: 'static {
    /// What a stream's first bytes are. Never called for datagrams: each is one request, whatever
    /// it says of itself.
    fn split(&mut self, bytes: &[u8]) -> Split;

    /// A request will be handled soon: the service can fetch meanwhile what it needs. `bytes` may
    /// be the front of the request only. The call must have no other effect.
    fn prepare(&self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// Handles one whole request, the one that the stream was last [found](Session::split) to start
    /// with, or one whole datagram (possibly malformed). May decrypt it in place. Appends the
    /// response to `out`, which may hold earlier responses.
    fn handle(&mut self, request: &mut [u8], peer: SocketAddr, out: &mut Vec<u8>) -> Handled;

    /// Appends the answer to a request that there is no room for. `header` is the part of the
    /// header that has come.
    fn refuse_for_room(&mut self, header: &[u8], out: &mut Vec<u8>);

    /// Appends the answer to a [`Split::Refused`]. `header` is the part of the request that has
    /// come.
    fn refuse(&mut self, header: &[u8], out: &mut Vec<u8>);
}
