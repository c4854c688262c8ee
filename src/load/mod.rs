//! A load generator: asks a node the same kind of question over and over, checks every answer, and
//! says how many came back a second and how long each took. Nothing of the server is used here but
//! what both sides share, `coin` and `protocol`.
//!
//! The loop is closed: a request goes out when the answer to an earlier one has come, so that a
//! number of requests is always under way. That finds out how much a node can do. It does not find
//! out how long a client waits who asks when it likes: while the node stalls, nothing is asked, and
//! nothing that would have waited is counted.
//!
//! | room | what it is |
//! |---|---|
//! | [`kind`] | what is asked and what the answer must be, one file a kind |
//! | [`Purse`] | coins to ask about, and how they get back to what they were |
//! | `flight` | requests under way: composed, matched, checked, timed |
//! | `udp`, `datagrams`, `tcp` | what carries them |
//! | [`baseline`] | what the machine can do without a node: a bare echo, a bare disk |
//! | `cpu_clock` | what a server costs, whatever else runs on its CPU |
//! | [`Plan`] | a run: who is asked when, on which CPUs |
//! | [`Tally`] | what came of it |
//! | [`report`] | what is left of it: JSON, histograms, pictures |

pub mod baseline;
mod cpu_clock;
mod datagrams;
mod flight;
pub mod kind;
mod plan;
mod purse;
pub mod report;
mod tally;
mod tcp;
mod udp;

pub use flight::Addressee;
pub use kind::Kind;
pub use plan::{Contender, Interval, LoadError, Measured, Plan, Slice, Stream};
pub use purse::{Purse, PurseError, Settled};
pub use tally::Tally;
