//! What a load asks, and what the answer must be: one file a kind, one interface.

mod detect;
mod echo;
mod pown;

pub use detect::DetectKind;
pub use echo::EchoKind;
pub use pown::PownKind;

use rand::rngs::SmallRng;

use super::purse::Held;
use crate::protocol::{Command, Status};

/// A kind of request. Each thread has its own; `slot` names one of the requests it has under way.
pub trait Kind: Send {
    /// What is asked for.
    fn command(&self) -> Command;

    /// Appends the payload of a new request. `false` where there is nothing left to ask: every coin
    /// that could be asked about is under way already, or in doubt.
    fn request(&mut self, slot: usize, rng: &mut SmallRng, payload: &mut Vec<u8>) -> bool;

    /// Looks at the answer.
    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict;

    /// No answer came: what the request asked for may have been done.
    fn lost(&mut self, slot: usize);

    /// The request never went to a node: what it asked for was not done.
    fn withdraw(&mut self, slot: usize);

    /// The coins it was given, as they are now.
    fn coins(self: Box<Self>) -> Vec<Held>;
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Right,
    /// The node did not do it, and said so.
    Refused,
    /// The node claims what is not so.
    Wrong,
}

/// For kinds that expect every coin to pass.
fn all_pass(status: Status) -> Verdict {
    match status {
        Status::ALL_PASS => Verdict::Right,
        status if status.is_verdict() => Verdict::Wrong,
        _ => Verdict::Refused,
    }
}
