//! Whether a purchase has been paid, as something outside this node says: nobody, everybody, or a
//! program of the operator's. Knows nothing of lockers: it takes a [`Purchase`] and gives a
//! [`Verdict`].
//!
//! Any core can ask, and none is held up: programs are started and watched on a thread of their
//! own, which wakes the asker. A program, whatever it does, costs at most its time, a few kilobytes
//! of what it says, and one of the places that programs have. Coins are given away only to a plain
//! "paid": all that is unclear counts as not paid yet, and is logged.
//!
//! | file | what it is |
//! |---|---|
//! | `settings` | what an operator chooses |
//! | `purchase` | what is asked about, and the line that a program reads |
//! | `desk` | the way in: from its start to its end, and what cores ask |
//! | `question` | a purchase that waits for its verdict, as asker and thread hold it |
//! | `queue` | questions on their way from cores to the thread, a bounded number |
//! | `runner` | the thread: which program starts, ends, or has had its time |
//! | `process` | one run of the program |
//! | `said` | the end of what it writes |

mod desk;
mod process;
mod purchase;
mod question;
mod queue;
mod runner;
mod said;
mod settings;

pub use desk::{Desk, Settlement, StartError};
pub use purchase::Purchase;
pub use question::Answer;
pub use settings::{Method, Program, Variables};

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there: the coins are the buyer's.
    Paid,
    /// It is there, as agreed and to the seller, but not confirmed yet: ask again later.
    Seen,
    /// Nobody has seen it, or nobody could find out: ask again later.
    Pending,
    /// It is not what was agreed, and never will be.
    Refused,
}

/// Nobody can tell whether a purchase has been paid: nothing was set up for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no settlement is set up")]
pub struct NotSetUp;
