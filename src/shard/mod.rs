//! The owner of a part of the pages, fed by messages. One a core; no other thread touches it. What
//! it does depends on its messages and its [environment](crate::runtime::Environment) alone, so
//! that a whole node runs in a simulator.
//!
//! It answers from memory at once where it can, and otherwise waits for pages to load, for its turn
//! on a coin, and for its log.

mod ask;
mod blocks;
mod changed;
mod checkpoints;
mod circulation;
mod coins;
mod coins_once;
mod exchange;
mod exchanging;
mod healing;
mod listed;
mod locker_questions;
mod lockers;
mod locks;
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
mod transaction;
mod used_tickets;

pub use ask::{Answered, Question};
pub use changed::FixLook;
pub use exchange::{Exchange, Exchanged, Replacement, exchange};
pub use locker_questions::{Named, TooMany};
pub use lockers::{
    Buyer, FoundSale, IndexCounts, KeyUpdate, KeysOf, OnOffer, PaymentState, SaleId, SaleRefused,
    Taken, Taker, TradeCounts, TradeSettings, Update, payment_prefix,
};
pub use locks::{EXCHANGES_MAX, TASKS_MAX};
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
pub use transaction::{ChangedBy, Locked, TransactionId};
pub use used_tickets::used_ticket;

/// What a shard can be asked, a type for each question.
pub mod question {
    pub use super::{
        checkpoints::{Checkpoint, CheckpointFailed, Flush, Mark, Recycle, WantCheckpoint},
        circulation::{Circulating, Circulation, Count, Reserve},
        coins::{Detect, DetectForTicket, Find, NumberOf, Numbers, Unchanged, UnchangedForTicket},
        exchanging::ExchangeEach,
        healing::{Claim, GiveBackTickets, RememberUsed, UseTickets, WithdrawClaim},
        locker_questions::{
            AcquirePut, AreOnSale, BeginPayment, BeginQuestion, EndHolds, EndPayment, EndQuestion,
            FindSale, GiveBackSale, HasLocker, HoldSale, IsOffered, LetSaleGo, ListOffers,
            LockerCoins, LockerKeys, PeekTrade, ReleasePut, SellerOf, TakeSale, UpdateLockers,
            UsePayment,
        },
        repeats::BeginChange,
        transaction::{Apply, Lock, LookForFix, Newest, Release},
    };
}
