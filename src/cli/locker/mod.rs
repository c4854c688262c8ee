//! Commands of lockers, on one node or on all 25 servers.

mod peek;
mod put;
mod relocate;
mod take;

pub use peek::{More, report_all, report_one};
pub use put::{FromWalletArgs, json_of_put, nothing_put, text_of_put, words};
pub use take::take_into;

use super::CliError;
use super::output::Answer;
use super::{AGAIN, AGAIN_WITH_KEY};

const AGAIN_WITH_TARGET: &str = "interrupted: nothing is lost; where it showed a secret, the same command with that secret as --to goes on, and where it did not, nothing was sent";

/// Put coins into lockers, look into lockers, and take coins out.
///
/// A locker is coins that all have one number, its key: anybody who knows the key can take them. On
/// one node --key is the key itself, 32 hex digits; the last eight are f. With --network or --hosts
/// it is a secret of 32 hex digits, from which the key on each of the 25 servers is derived: the
/// first 12 bytes of HMAC-SHA-256, under the secret, of "raida locker key" and the RAIDA number,
/// then ffffffff. So no server can open the locker on another one.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida locker put --network raida-network --wallet wallet --amount 250
  raida locker peek --network raida-network --key @secret
  raida locker take --network raida-network --key @secret --wallet other-wallet")]
pub struct LockerCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    Put(put::PutCommand),
    Peek(peek::PeekCommand),
    Take(take::TakeCommand),
    Move(relocate::MoveCommand),
}

impl LockerCommand {
    /// The message for a person who interrupts it, where something may be half done.
    pub fn when_interrupted(&self) -> Option<&'static str> {
        match &self.what {
            What::Peek(_) => None,
            What::Put(command) if !command.has_key() => Some(AGAIN_WITH_KEY),
            What::Move(command) if !command.has_target() => Some(AGAIN_WITH_TARGET),
            What::Put(_) | What::Take(_) | What::Move(_) => Some(AGAIN),
        }
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// As those of the command that was given.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.what {
            What::Put(command) => command.run(),
            What::Peek(command) => command.run(),
            What::Take(command) => command.run(),
            What::Move(command) => command.run(),
        }
    }
}
