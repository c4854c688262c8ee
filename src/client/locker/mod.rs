//! Lockers and offers on all 25 servers (docs/protocol.md, "Group 8: lockers"), and the way of a
//! wallet's coins into them and back. Every number is on disk before a server may have it, so a
//! program killed at any moment loses no coin: running the same command again continues where it
//! was.
//!
//! | room | what it is |
//! |---|---|
//! | [`LockerSecret`], [`TradeSecret`] | one secret for its owner, another key on every server |
//! | [`Peeked`], [`Agreement`] | what the servers say lies in a locker, and where they differ |
//! | [`choose()`] | which coins of a wallet are to go |
//! | [`put()`] | a wallet's coins into a locker, or up for sale |
//! | [`take()`] | coins of a locker into a wallet |
//! | [`relocate`] | coins of a locker into another one |
//! | [`offers`], [`show`], [`buy`], [`cancel`] | the marketplace |
//! | [`Seller`], [`addresses`] | where, by the servers, an offer's seller wants to be paid |
//! | [`is_begun`], [`forget_begun`] | what an interrupted [`take()`] had begun with |
//! | `settle` | which of two numbers a server has after a change |

mod choose;
mod error;
mod peek;
mod put;
mod relocate;
mod secret;
mod seller;
mod settle;
mod take;
mod trade;
mod under_way;

use crate::client::ClientError;

pub use choose::{Choice, Chosen, check_place, choose};
pub use error::LockerError;
pub use peek::{Agreement, Difference, Peeked, peek};
pub use put::{Place, Put, PutCoin, put};
pub use relocate::{Relocated, RelocatedCoin, relocate};
pub use secret::{LockerSecret, NotASecret, TradeSecret};
pub use seller::{Seller, addresses};
pub use take::{LeftIn, Taken, TakenCoin, take};
pub use trade::{Order, Shown, ShownBy, buy, cancel, offers, show};
pub use under_way::{TAKES_FILE, forget_begun, is_begun};

/// The present step of a change of a wallet's coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asks all servers about the coins.
    Looking,
    /// Waits for servers that change them.
    Changing {
        /// Number of coins.
        coins: usize,
        /// Number of servers.
        servers: usize,
    },
    /// Asks again those servers that did not say what they did.
    Settling,
    /// Moves the files to their folders.
    Filing,
}

/// The result of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Number of coins that have reached their target there.
    pub done: usize,
    /// Why it did nothing, or only a part.
    pub why: Option<String>,
}

fn said(error: &ClientError) -> Said {
    Said {
        done: 0,
        why: Some(error.what()),
    }
}
