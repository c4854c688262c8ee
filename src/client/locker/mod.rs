//! Lockers and offers on all 25 servers (docs/protocol.md, "Group 8: lockers"), and the way of a
//! wallet's coins into them and back. Every number is on disk before a server may have it, so that
//! a program killed at any moment loses no coin: the same command again goes on where it was.
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
//! | [`Seller`], [`addresses`] | where the servers say that an offer is to be paid |
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

/// What a change of a wallet's coins is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asks all servers about the coins.
    Looking,
    /// Waits for servers that change them.
    Changing {
        /// How many coins.
        coins: usize,
        /// On how many servers.
        servers: usize,
    },
    /// Asks those servers again that did not say what they did.
    Settling,
    /// Moves the files to their folders.
    Filing,
}

/// What a server did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Coins that are there now as they were to be.
    pub done: usize,
    /// Why it did nothing, or not all.
    pub why: Option<String>,
}

fn said(error: &ClientError) -> Said {
    Said {
        done: 0,
        why: Some(error.what()),
    }
}
