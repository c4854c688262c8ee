use rand::rngs::SmallRng;

use super::{Kind, Verdict};
use crate::load::purse::Held;
use crate::protocol::{Command, Status};

/// Asks whether the node is there.
#[derive(Debug, Default)]
pub struct EchoKind;

impl Kind for EchoKind {
    fn command(&self) -> Command {
        Command::Echo
    }

    fn request(&mut self, _: usize, _: &mut SmallRng, _: &mut Vec<u8>) -> bool {
        true
    }

    fn answer(&mut self, _: usize, status: Status, payload: &[u8]) -> Verdict {
        match status {
            Status::SUCCESS if payload.is_empty() => Verdict::Right,
            status if status.is_verdict() => Verdict::Wrong,
            _ => Verdict::Refused,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        vec![]
    }
}
