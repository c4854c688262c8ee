use rand::rngs::SmallRng;

use super::{Kind, Verdict, only};
use crate::load::purse::Held;
use crate::protocol::{Command, Status};

/// Asks whether the node is there.
#[derive(Debug, Default)]
pub struct EchoKind;

impl Kind for EchoKind {
    fn request(&mut self, _: usize, _: &mut SmallRng, _: &mut Vec<u8>) -> Option<Command> {
        Some(Command::Echo)
    }

    fn answer(&mut self, _: usize, status: Status, payload: &[u8]) -> Verdict {
        match only(Status::SUCCESS, status) {
            Verdict::Right if !payload.is_empty() => Verdict::Wrong,
            verdict => verdict,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn coins(self: Box<Self>) -> Vec<Held> {
        vec![]
    }
}
