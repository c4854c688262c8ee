//! What a node has to remember of lockers and trades beside the coins' values: in which order coins
//! came under the numbers they have, what is for sale and where the seller wants to be paid, and
//! which payments have been used. Pages have no room for it.
//!
//! It goes into the log with the changes that it belongs to ([`Notes`]), and at each checkpoint
//! into a
//! [file](BookFile) a shard, so that the logs can be given up. Everything else about lockers is
//! found in the pages.
//!
//! A recovery puts it together again: for each coin the newest stamp, for each key the newest sale
//! whose coins are still there, and every payment. It does no harm if a log and a book say the
//! same, or if they still say what is over. So a book may be written while things change, and a
//! recovery that is cut short may start again.

mod entry;
mod file;
mod gathered;
mod layout;
mod survey;

pub use entry::{Entry, Notes, Payment, PaymentId, Placed, Sale, Stamp};
pub use file::BookFile;
pub use layout::{Counts, decode_entries};
pub use survey::Losses;

pub(super) use file::{make_pair, write_book};
pub(super) use gathered::Gathered;
pub(super) use survey::BookSurvey;

/// Entries that are encoded in one go: 64 KB and some ten microseconds, where they are coins.
const ENTRIES_A_TURN: usize = 4_096;

/// Whether a file in the folder of books is one.
pub(super) fn is_name(name: &str) -> bool {
    file::BookName::parse(name).is_some()
}

/// What a recovery found, or a node's shards know together.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The coins in circulation whose numbers are [marked](crate::coin::An::is_marked), in no
    /// order.
    pub coins: Vec<Placed>,
    /// What is for sale. There is at least one coin under each key.
    pub sales: Vec<Sale>,
    /// Payments that have been used.
    pub payments: Vec<Payment>,
    /// No moment in the book or the logs is later.
    pub moment: u64,
}

impl Book {
    /// What a book file has to say, some at a time. A coin that nobody knows the stamp of needs no
    /// entry.
    pub(super) fn entries(&self) -> impl FnMut(&mut Vec<Entry>) {
        let stamped = |placed: &&Placed| placed.stamp != Stamp::default();
        let coins = self.coins.iter().filter(stamped);
        let coins = coins.map(|placed| Entry::Coin(placed.coin, placed.stamp));
        let sales = self.sales.iter().cloned().map(Entry::Sale);
        let payments = self.payments.iter().copied().map(Entry::Payment);
        let mut all = coins.chain(sales).chain(payments);
        move |entries| entries.extend(all.by_ref().take(ENTRIES_A_TURN))
    }
}
