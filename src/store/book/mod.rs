//! What a node has to remember of lockers and trades beside the coins' values: in which order coins
//! came under the numbers they have, what is for sale and where the seller wants to be paid, and which
//! payments have been used. Pages have no room for it.
//!
//! It goes into the log with the changes that it belongs to ([`Notes`]), and at each checkpoint into a
//! file a shard, so that the logs can be given up. Everything else about lockers is found in the pages.

mod entry;
mod file;

pub use entry::{Entry, Notes, Payment, PaymentId, Placed, Sale, Stamp};
pub use file::BookFile;

/// What a recovery found, or a node's shards know together.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The coins in circulation whose numbers are [marked](crate::coin::An::is_marked), in no order.
    pub coins: Vec<Placed>,
    /// What is for sale. There is at least one coin under each key.
    pub sales: Vec<Sale>,
    /// Payments that have been used.
    pub payments: Vec<Payment>,
    /// No moment in the book or the logs is later.
    pub moment: u64,
}
