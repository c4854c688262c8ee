//! Healing: coins of a wallet that some servers have lost are repaired there, on the votes of the
//! others (docs/protocol.md, "Group 2: healing").
//!
//! | room | what it is |
//! |---|---|
//! | [`Network`] | what is asked of the servers, all at the same time |
//! | [`plan()`] | which server is to fix which coins |
//! | [`heal()`], [`look`] | the rounds, with every number on disk before a server may have it |
//! | [`FixesSoFar`] | the groups of a round side by side, and which servers are given up |

mod groups;
mod network;
mod plan;
mod rounds;

pub use groups::{COINS_A_TICKET, FixesSoFar, GROUPS_AT_ONCE};
pub use network::{FIX_TIMEOUT, Fixed, Network, Questions, Replies, Ticketed};
pub use plan::plan;
pub(super) use rounds::mark_of;
pub use rounds::{
    HealError, Healed, HealedCoin, Looked, Lost, ROUNDS_MAX, Refusals, Stage, heal, heal_looked,
    look, recognise,
};
