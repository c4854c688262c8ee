//! The owner of a part of the pages, fed by messages. One a core; no other thread touches it. What
//! it does depends on its messages and its [environment](crate::store::Environment) alone, so that
//! a whole node runs in a simulator.
//!
//! It answers from memory at once where it can, and otherwise waits for pages to load, for its turn
//! on a coin, and for its log.

mod blocks;
mod changed;
mod exchange;
mod lockers;
mod locks;
mod message;
mod offers;
mod owner;
mod reservations;
mod single;
mod stall;
mod sum;
mod ticket_index;
mod tickets;
mod used_tickets;

pub use exchange::{Exchanged, exchange};
pub use lockers::{
    Buyer, Held, HoldRefused, IndexCounts, KeyUpdate, OnOffer, PaymentState, TradeCounts,
    TradeSettings, Update, payment_prefix,
};
pub use message::{ChangedBy, Exchange, Locked, Replacement, Reply, Request, TransactionId};
pub use offers::Put;
pub use owner::{Counters, RECORDS_A_TURN, Shard, ShardSettings, Unavailable};
pub use reservations::RESERVATION;
pub use single::{Asked, Asker, ExchangeListener, Single};
pub use stall::StallListener;
pub use sum::{Sum, sum};
pub use tickets::{ClaimRefused, PoolIsFull, TicketSettings, ticket_owner};
pub use used_tickets::used_ticket;
