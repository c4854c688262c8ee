//! A load generator: asks a node over and over, checks every answer, and reports how many came back
//! a second and how long each took. It uses only those parts of the server that both sides share,
//! `coin` and `protocol`.
//!
//! In a *closed loop* a request goes out when the answer to an earlier one has come, so that a
//! fixed number of requests is always under way. That shows how much a node can do. It does not
//! show how long a client waits that asks at any time: while the node stalls, nothing is asked, and
//! requests that would have waited are not counted. In an *open loop* each request is due at a time
//! that was drawn beforehand, and its latency counts from then, whenever it went out.
//!
//! | room | what it is |
//! |---|---|
//! | [`kind`] | what is asked and what the answer must be, one file a kind; mixes of them |
//! | [`Purse`], [`Keyring`] | coins to ask about, and how they get back to what they were; keys |
//! | [`MintJournal`] | coins that are made for a run, until they are out of circulation again |
//! | [`Stop`] | the early end of a run |
//! | [`TicketStock`] | tickets of other servers, got before the fixes that take them |
//! | [`SideDoor`] | lockers and offers made ready between turns, and taken back |
//! | [`Choice`], `zipf`, `at_rest` | which of the coins a request is about |
//! | [`Pace`] | when each request is due |
//! | `flight` | requests under way: composed, matched, checked, timed |
//! | `udp`, `datagrams`, `tcp`, `each` | what carries them (`carrier` is what they have in common) |
//! | `uring` | the same by io_uring |
//! | `resp` | what a Redis server is asked |
//! | [`baseline`] | what to compare a node with: a bare echo, Redis, a bare disk |
//! | `cpu_clock`, [`Generator`] | what a server costs, and what the generator itself does |
//! | [`Plan`] | a run: who is asked when, on which CPUs; `run` carries it out, `thread` does its part |
//! | `recorder`, [`Progress`] | counts while the run goes on |
//! | `advice` | what to do about a refusal |
//! | [`Tally`], [`Measured`] | what came of it |
//! | [`report`] | what is left of it: JSON, histograms, pictures |

mod advice;
mod at_rest;
pub mod baseline;
mod carrier;
mod choice;
mod cpu_clock;
mod datagrams;
mod each;
mod flight;
mod keyring;
pub mod kind;
mod measured;
mod mint_journal;
mod own_cost;
mod pace;
mod plan;
mod progress;
mod purse;
mod recorder;
pub mod report;
mod resp;
mod run;
mod side_door;
mod stop;
mod tally;
mod tcp;
mod thread;
mod ticket_stock;
mod udp;
mod uring;
mod zipf;

pub use choice::Choice;
pub use flight::Addressee;
pub use keyring::Keyring;
pub use kind::Kind;
pub use measured::{Contender, Interval, Measured, Slice, SweepStep};
pub use mint_journal::MintJournal;
pub use own_cost::{Faults, Generator, OwnCost};
pub use pace::{Pace, Spacing};
pub use plan::{Io, LoadError, Plan, RedisPlan, Stream, Sweep};
pub use progress::{Counts, Progress};
pub use purse::{Held, Purse, PurseError, Settled};
pub use run::Outcome;
pub use side_door::{Chore, ChoreError, SideDoor};
pub use stop::Stop;
pub use tally::Tally;
pub use ticket_stock::{FixTickets, Repair, StockError, TicketStock, Vouched};
