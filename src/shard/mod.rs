//! The owner of a part of the pages, fed by messages. One a core; no other thread touches it. What
//! it does depends on its messages and its [environment](crate::store::Environment) alone, so that
//! a whole node runs in a simulator.
//!
//! It answers from memory at once where it can, and otherwise waits for pages to load, for its turn
//! on a coin, and for its log.

mod blocks;
mod changed;
mod coins_once;
mod exchange;
mod listed;
mod lockers;
mod locks;
mod message;
mod moments;
mod offers;
mod owner;
mod questions;
mod repeats;
mod reservations;
mod single;
mod stall;
mod stranger;
mod sum;
mod ticket_coins;
mod ticket_index;
mod ticket_shares;
mod tickets;
mod used_tickets;

pub use changed::FixLook;
pub use exchange::{Exchanged, exchange};
pub use lockers::{
    Buyer, FoundSale, IndexCounts, KeyUpdate, KeysOf, OnOffer, PaymentState, SaleId, SaleRefused,
    Taken, Taker, TradeCounts, TradeSettings, Update, payment_prefix,
};
pub use locks::{EXCHANGES_MAX, TASKS_MAX};
pub use message::{ChangedBy, Exchange, Locked, Replacement, Reply, Request, TransactionId};
pub use offers::Put;
pub use owner::{Counters, NotChanged, RECORDS_A_TURN, Shard, ShardSettings, Unavailable};
pub use questions::question_home;
pub use repeats::{
    Begun, CarriedOut, ChangeName, Details, EndedChange, Given, Naming, Outcome, RepeatKey, Sender,
};
pub use reservations::RESERVATION;
pub use single::{Asked, Asker, ChangeCounts, ExchangeListener, Single};
pub use stall::StallListener;
pub use stranger::Stranger;
pub use sum::{Sum, SumSeeds};
pub use tickets::{ClaimRefused, NotIssued, PoolIsFull, TicketSettings, ticket_owner};
pub use used_tickets::used_ticket;
