//! The requests of a load, and their right answers: one file for each kind, one interface. A new
//! kind is a file here and a line in [`KINDS`].

mod buy;
mod detect;
mod detect_sum;
mod drawn;
mod echo;
mod encryption_ticket;
mod find;
mod fix;
mod list;
mod lots;
mod market;
mod mix;
mod offer;
mod peek;
mod pown;
mod pown_derive;
mod pown_sum;
mod put;
mod take;
mod ticket;
mod under_way;
mod validate;

pub use buy::BuyKind;
pub use detect::DetectKind;
pub use detect_sum::DetectSumKind;
pub use echo::EchoKind;
pub use encryption_ticket::EncryptionTicketKind;
pub use find::FindKind;
pub use fix::FixKind;
pub use list::ListKind;
pub(super) use lots::Lots;
pub use mix::{Mix, MixKind};
pub use offer::OfferKind;
pub use peek::PeekKind;
pub use pown::PownKind;
pub use pown_derive::PownDeriveKind;
pub use pown_sum::PownSumKind;
pub use put::PutKind;
pub use take::TakeKind;
pub use ticket::TicketKind;
pub use validate::ValidateKind;

use rand::rngs::SmallRng;

use super::choice::Choice;
use super::plan::LoadError;
use super::purse::Held;
use super::side_door::SideDoor;
use crate::protocol::{Command, Status};

/// A kind of request. Each thread has its own; `slot` names one of the requests that it has under
/// way.
pub trait Kind: Send {
    /// Appends the payload of a new request, and returns what it asks for. `None` where there is
    /// nothing left to ask: every coin that could be asked about is under way already, or in doubt.
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command>;

    /// Checks the answer.
    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict;

    /// Handles a missing answer: what the request asked for may have been done.
    fn lost(&mut self, slot: usize);

    /// Handles a request that never went to a node: what it asked for was not done.
    fn withdraw(&mut self, slot: usize);

    /// The coins that it was given, as they are now.
    fn coins(self: Box<Self>) -> Vec<Held>;

    /// Before a turn: prepares what requests need and what is no part of them, however long it
    /// takes.
    fn prepare(&mut self) {}

    /// Whether there was nothing to ask the last time only because something is being prepared.
    fn waits(&self) -> bool {
        false
    }

    /// Whether there was nothing to ask the last time because everything prepared for this turn is
    /// used up, or could not be prepared. The turn is over then, and no longer than it took.
    fn is_spent(&self) -> bool {
        false
    }

    /// After the last turn: takes back what was prepared and must not stay.
    ///
    /// # Errors
    /// It could not be taken back; or earlier, what requests need could not be prepared.
    fn finish(&mut self) -> Result<(), LoadError> {
        Ok(())
    }

    /// Number of times that a due request had to wait for the preparation. Starts again at zero.
    fn take_waited(&mut self) -> u64 {
        0
    }

    /// The node's answers, kind by kind, where there are several kinds.
    fn counts(&self) -> Vec<KindCount> {
        vec![]
    }
}

/// The verdict on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Right.
    Right,
    /// The node did not do it, and said so.
    Refused,
    /// The node claims something untrue.
    Wrong,
}

/// The input of a kind, for one thread.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Coins to ask about, this thread's and this kind's own.
    pub coins: Vec<Held>,
    /// Number of coins of a request.
    pub coins_per_request: usize,
    /// Maximum number of requests under way.
    pub slots: usize,
    /// How coins are chosen.
    pub choice: Choice,
    /// The way to the node for work between turns.
    pub side_door: SideDoor,
}

/// A kind as the command line knows it.
#[derive(Debug)]
pub struct KindEntry {
    /// Its name.
    pub name: &'static str,
    /// What its requests do with coins.
    pub does: Does,
    /// The coins' numbers meanwhile.
    pub numbers: Numbers,
    /// Makes one.
    pub make: fn(Setup) -> Box<dyn Kind>,
}

/// What a kind's requests do with coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// They are about no coins.
    Nothing,
    /// They ask about them.
    Reads,
    /// They change them.
    Changes,
}

/// The authenticity numbers that coins have while a kind asks about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// One of the two that are known before the load begins.
    Known,
    /// Like `Known`, and requests prove them by a sum: coins that share a number may prove nothing.
    KnownBySum,
    /// Coins that already lie in lockers keep their numbers; others get keys that are drawn.
    KnownInLockers,
    /// Any number, drawn on the way: if this program is lost, so are the coins.
    Drawn,
}

/// How often a kind of a mix was asked and its answers, warm-up included; answers without their
/// times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindCount {
    /// The kind's name.
    pub name: &'static str,
    /// Right answers.
    pub right: u64,
    /// Impossible answers.
    pub wrong: u64,
    /// Refusals.
    pub refused: u64,
    /// Requests without an answer, or without a readable one.
    pub lost: u64,
}

impl KindCount {
    pub(super) fn add(&mut self, other: &KindCount) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.lost += other.lost;
    }
}

/// Every kind that needs no more than one node. [`FixKind`] takes a network.
pub static KINDS: [KindEntry; 16] = [
    KindEntry {
        name: "echo",
        does: Does::Nothing,
        numbers: Numbers::Known,
        make: |_| Box::new(EchoKind),
    },
    KindEntry {
        name: "detect",
        does: Does::Reads,
        numbers: Numbers::Known,
        make: |setup| Box::new(DetectKind::new(setup)),
    },
    KindEntry {
        name: "detect-sum",
        does: Does::Reads,
        numbers: Numbers::KnownBySum,
        make: |setup| Box::new(DetectSumKind::new(setup)),
    },
    KindEntry {
        name: "pown",
        does: Does::Changes,
        numbers: Numbers::Known,
        make: |setup| Box::new(PownKind::new(setup)),
    },
    KindEntry {
        name: PownSumKind::NAME,
        does: Does::Changes,
        numbers: Numbers::KnownBySum,
        make: |setup| Box::new(PownSumKind::new(setup)),
    },
    KindEntry {
        name: PownDeriveKind::NAME,
        does: Does::Changes,
        numbers: Numbers::Drawn,
        make: |setup| Box::new(PownDeriveKind::new(setup)),
    },
    KindEntry {
        name: "ticket",
        does: Does::Reads,
        numbers: Numbers::Known,
        make: |setup| Box::new(TicketKind::new(setup)),
    },
    KindEntry {
        name: "find",
        does: Does::Reads,
        numbers: Numbers::Known,
        make: |setup| Box::new(FindKind::new(setup)),
    },
    KindEntry {
        name: "validate",
        does: Does::Reads,
        numbers: Numbers::Known,
        make: |setup| Box::new(ValidateKind::new(setup)),
    },
    KindEntry {
        name: EncryptionTicketKind::NAME,
        does: Does::Reads,
        numbers: Numbers::Known,
        make: |setup| Box::new(EncryptionTicketKind::new(setup)),
    },
    KindEntry {
        name: "put",
        does: Does::Changes,
        numbers: Numbers::Drawn,
        make: |setup| Box::new(PutKind::new(setup)),
    },
    KindEntry {
        name: "peek",
        does: Does::Reads,
        numbers: Numbers::KnownInLockers,
        make: |setup| Box::new(PeekKind::new(setup)),
    },
    KindEntry {
        name: "take",
        does: Does::Changes,
        numbers: Numbers::Drawn,
        make: |setup| Box::new(TakeKind::new(setup)),
    },
    KindEntry {
        name: "offer",
        does: Does::Changes,
        numbers: Numbers::Drawn,
        make: |setup| Box::new(OfferKind::new(setup)),
    },
    KindEntry {
        name: "list",
        does: Does::Reads,
        numbers: Numbers::Drawn,
        make: |setup| Box::new(ListKind::new(setup)),
    },
    KindEntry {
        name: "buy",
        does: Does::Changes,
        numbers: Numbers::Drawn,
        make: |setup| Box::new(BuyKind::new(setup)),
    },
];

/// One request in this many is wrong on purpose, where that changes nothing, to expose a node that
/// always says yes.
const SPOILT_EVERY: u64 = 64;

/// For kinds that expect every coin to pass.
fn all_pass(status: Status) -> Verdict {
    only(Status::ALL_PASS, status)
}

/// For requests that have exactly one right verdict.
fn only(right: Status, status: Status) -> Verdict {
    match status {
        status if status == right => Verdict::Right,
        status if status.is_verdict() => Verdict::Wrong,
        _ => Verdict::Refused,
    }
}

/// Turns a right number into a wrong one: anything but zeros.
fn wrong(rng: &mut SmallRng) -> crate::coin::An {
    use rand::Rng;
    let mut bytes = [0; crate::coin::An::SIZE];
    rng.fill_bytes(&mut bytes);
    bytes[0] |= 1;
    crate::coin::An::new(bytes)
}
