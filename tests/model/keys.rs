//! What a node has to know of the encryption tickets of one client's coins: which helper made each and
//! for what, which were used, and which speak for an owner that was.

use std::collections::{BTreeMap, HashMap, HashSet};

use raida::coin::Coin;

use crate::other_servers::{Part, Ticket, Voucher, seal, shares_a_secret};

/// Minutes that a ticket is good for after its own,
const AGE_MAX: u64 = 10;
/// and before it, where the helper's clock is ahead.
const AHEAD_MAX: u64 = 1;
/// Of the tickets that a node has written down as used, those of so many minutes before the latest are
/// told apart after a restart; whatever is older counts as used.
const LISTED: u64 = 2;

/// The tickets, and the clock.
#[derive(Clone, Default)]
pub struct Keys {
    /// The node's minute.
    now: u64,
    /// The latest that it has been since the start. When the clock goes back, what was too old then may be
    /// forgotten, with all of its minute: that hangs on what others have used.
    latest_now: u64,
    /// Every ticket that a helper made.
    made: HashMap<Ticket, (u8, Voucher)>,
    /// When a coin got another number by its owner since the start,
    changed: HashMap<Coin, u64>,
    /// and before it.
    changed_before: HashMap<Coin, u64>,
    used: HashSet<Ticket>,
    /// Those that a number came of, or would have: they stay used.
    written: HashSet<Ticket>,
    /// Up to here all tickets count as used, since a restart,
    over: Option<u64>,
    /// and up to here all may.
    may_be_over: Option<u64>,
    /// How often what came of those that were presented.
    pub met: BTreeMap<Standing, u32>,
}

/// What a ticket is worth to a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// No such helper made it, or it was altered.
    NotMade,
    OfAnotherCoin,
    TooOld,
    Ahead,
    Used,
    /// The node has been started since it could be used.
    Over,
    /// The coin was another's since.
    Void,
    /// Nobody can say: it is not presented.
    Unknown,
}

impl Standing {
    /// All that come up in a conversation.
    pub const ALL: [Standing; 8] = [
        Standing::Good,
        Standing::NotMade,
        Standing::OfAnotherCoin,
        Standing::TooOld,
        Standing::Ahead,
        Standing::Used,
        Standing::Over,
        Standing::Void,
    ];
}

impl Keys {
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The node's clock is set.
    pub fn set_now(&mut self, minute: u64) {
        self.now = minute;
        self.latest_now = self.latest_now.max(minute);
    }

    /// A helper makes a ticket; one without a secret makes what nobody can read.
    pub fn make(&mut self, helper: u8, voucher: Voucher) -> Ticket {
        let ticket = seal(helper, &voucher);
        if shares_a_secret(helper) {
            self.made.insert(ticket, (helper, voucher));
        }
        ticket
    }

    /// Tickets that were made, with their helpers.
    pub fn made(&self) -> impl Iterator<Item = (u8, Ticket, &Voucher)> {
        let made = self.made.iter();
        made.map(|(ticket, (helper, voucher))| (*helper, *ticket, voucher))
    }

    /// Which half of a number is in a ticket, where a helper made it.
    pub fn part(&self, ticket: &Ticket) -> Option<Part> {
        self.made.get(ticket).map(|(_, voucher)| voucher.part)
    }

    /// A coin that was somebody's has another number, by its owner.
    pub fn change(&mut self, coin: Coin) {
        self.changed.insert(coin, self.now);
    }

    pub fn standing(&self, helper: u8, ticket: &Ticket, coin: Coin) -> Standing {
        let made = self.made.get(ticket);
        let Some((_, voucher)) = made.filter(|(of, _)| *of == helper) else {
            return Standing::NotMade;
        };
        let (minute, now) = (voucher.minute, self.now);
        // A change from a minute that comes again counts as one of now.
        let changed = self.changed.get(&coin).map(|&at| at.min(now));
        let changed_before = self.changed_before.get(&coin).copied();
        let is_after = |of: Option<u64>| of.is_some_and(|of| minute < of);
        let is_until = |of: Option<u64>| of.is_some_and(|of| minute <= of);
        match () {
            () if voucher.coin != coin => Standing::OfAnotherCoin,
            () if minute > now + AHEAD_MAX => Standing::Ahead,
            () if minute + AGE_MAX < now => Standing::TooOld,
            () if self.used.contains(ticket) => Standing::Used,
            () if is_until(self.over) => Standing::Over,
            () if is_after(changed) => Standing::Void,
            () if minute + AGE_MAX < self.latest_now => Standing::Unknown,
            () if is_until(self.may_be_over) || is_after(changed_before) => Standing::Unknown,
            () => Standing::Good,
        }
    }

    /// Presents a ticket: it is used up where it is good, and says its part.
    pub fn present(&mut self, helper: u8, ticket: &Ticket, coin: Coin) -> Option<Part> {
        let standing = self.standing(helper, ticket, coin);
        assert_ne!(standing, Standing::Unknown, "it is not presented");
        *self.met.entry(standing).or_default() += 1;
        if standing != Standing::Good {
            return None;
        }
        self.used.insert(*ticket);
        Some(self.made[ticket].1.part)
    }

    /// The node has written down that these were used.
    pub fn write_down(&mut self, tickets: impl Iterator<Item = Ticket>) {
        self.written.extend(tickets);
    }

    /// The latest minute of those that the node has written down.
    pub fn latest_written(&self) -> Option<u64> {
        let minutes = self.written.iter().map(|ticket| self.made[ticket].1.minute);
        minutes.max()
    }

    /// The node was started again: it knows what was written down, of all clients the latest in this
    /// minute.
    pub fn node_has_restarted(&mut self, latest_written: Option<u64>) {
        self.latest_now = self.now;
        self.used = self.written.clone();
        self.over = latest_written.map(|latest| latest - LISTED);
        self.may_be_over = latest_written;
        self.changed_before.extend(self.changed.drain());
    }
}
