//! What a node has to know about the encryption tickets of one client's coins: which helper made
//! each and for what, which are spent, and which may be from before the coin's newest change.

use std::collections::{BTreeMap, HashMap, HashSet};

use raida::coin::Coin;

use crate::other_servers::{Part, Ticket, Voucher, seal, shares_a_secret};

/// Minutes after its own for which a ticket is valid.
const AGE_MAX: u64 = 10;
/// Minutes before its own for which it is valid, where the helper's clock is ahead.
const AHEAD_MAX: u64 = 1;
/// Seconds after which the node may have forgotten that a coin changed: it remembers for 720, and a
/// test takes some seconds itself.
const FORGOTTEN_S: u64 = 600;
/// After a restart a node tells apart the spent tickets of this many minutes before the latest; all
/// older ones count as spent.
const LISTED: u64 = 2;

/// The tickets, and the clock.
#[derive(Clone, Default)]
pub struct Keys {
    /// The node's minute.
    now: u64,
    /// The latest that it has been since the start. When the clock goes back, the node may have
    /// forgotten tickets that were too old, with all of their minute: that depends on what others
    /// have used.
    latest_now: u64,
    /// Every ticket that a helper made.
    made: HashMap<Ticket, (u8, Voucher)>,
    /// The minute of the node's start.
    started: u64,
    /// When a coin got another number since then,
    changed: HashMap<Coin, u64>,
    /// or the one that it had: nobody can say whether that is a change.
    may_be_changed: HashMap<Coin, u64>,
    /// Seconds that passed, and the minute that it was then.
    past: Vec<(u64, u64)>,
    used: HashSet<Ticket>,
    /// Tickets that gave a coin a number, or would have: they stay spent.
    written: HashSet<Ticket>,
    /// Since a restart, all tickets up to this minute count as spent.
    over: Option<u64>,
    /// All tickets up to this minute may be spent.
    may_be_over: Option<u64>,
    /// How often each outcome came for the presented ones.
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
    /// The coin may have changed since, or the node was started. It is not used up.
    TooEarly,
    /// Nobody can say: it is not presented.
    Unknown,
}

impl Standing {
    /// All that come up in a conversation. What counts as used since a restart is too early mostly.
    pub const ALL: [Standing; 7] = [
        Standing::Good,
        Standing::NotMade,
        Standing::OfAnotherCoin,
        Standing::TooOld,
        Standing::Ahead,
        Standing::Used,
        Standing::TooEarly,
    ];
}

impl Keys {
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The node's clock shows this minute, this many seconds after some moment.
    pub fn set_now(&mut self, minute: u64, passed: u64) {
        self.now = minute;
        self.latest_now = self.latest_now.max(minute);
        self.past.push((passed, minute));
    }

    /// The node has been started in this minute.
    pub fn set_started(&mut self, minute: u64) {
        self.started = minute;
    }

    /// Whether nobody has changed the coin so lately that a ticket of now is too early.
    pub fn is_fixable(&self, coin: Coin) -> bool {
        let newest = self.changed.get(&coin).copied().unwrap_or(self.started);
        self.now > newest + AHEAD_MAX
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

    /// A coin has another number.
    pub fn change(&mut self, coin: Coin) {
        self.changed.insert(coin, self.now);
        self.may_be_changed.remove(&coin);
    }

    /// A coin got the number that it has.
    pub fn may_change(&mut self, coin: Coin) {
        self.may_be_changed.insert(coin, self.now);
    }

    /// The latest minute of those so long ago that the node may have forgotten what changed then:
    /// it takes that for the minute of all coins that it knows no change of.
    fn latest_forgotten(&self) -> Option<u64> {
        let (now, _) = *self.past.last()?;
        let forgotten = self
            .past
            .iter()
            .filter(|(then, _)| then + FORGOTTEN_S <= now);
        forgotten.map(|&(_, minute)| minute).max()
    }

    pub fn standing(&self, helper: u8, ticket: &Ticket, coin: Coin) -> Standing {
        let made = self.made.get(ticket);
        let Some((_, voucher)) = made.filter(|(of, _)| *of == helper) else {
            return Standing::NotMade;
        };
        let (minute, now) = (voucher.minute, self.now);
        let newest = self.changed.get(&coin).copied().unwrap_or(self.started);
        let may_be_newest = self.may_be_changed.get(&coin).copied().unwrap_or(newest);
        let is_too_early = |newest| minute <= newest + AHEAD_MAX;
        let is_until = |of: Option<u64>| of.is_some_and(|of| minute <= of);
        // Some of what was used before a restart only counts as used.
        let is_used = self.used.contains(ticket);
        let is_known = !is_until(self.may_be_over);
        match () {
            () if voucher.coin != coin => Standing::OfAnotherCoin,
            () if minute > now + AHEAD_MAX => Standing::Ahead,
            () if minute + AGE_MAX < now => Standing::TooOld,
            () if minute + AGE_MAX < self.latest_now => Standing::Unknown,
            () if is_too_early(newest) != is_too_early(may_be_newest) => Standing::Unknown,
            () if is_used && (is_known || !is_too_early(newest)) => Standing::Used,
            () if is_used => Standing::Unknown,
            () if is_too_early(newest) => Standing::TooEarly,
            () if is_until(self.over) => Standing::Over,
            () if is_until(self.may_be_over) => Standing::Unknown,
            () if self.latest_forgotten().is_some_and(is_too_early) => Standing::Unknown,
            () => Standing::Good,
        }
    }

    /// Presents a ticket: it is used up where it is good, and says its part.
    pub fn present(&mut self, helper: u8, ticket: &Ticket, coin: Coin) -> (Standing, Option<Part>) {
        let standing = self.standing(helper, ticket, coin);
        assert_ne!(standing, Standing::Unknown, "it is not presented");
        *self.met.entry(standing).or_default() += 1;
        if standing != Standing::Good {
            return (standing, None);
        }
        self.used.insert(*ticket);
        (standing, Some(self.made[ticket].1.part))
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

    /// The node was started again: it knows what was written down, of all clients the latest in
    /// this minute.
    pub fn node_has_restarted(&mut self, latest_written: Option<u64>) {
        self.latest_now = self.now;
        self.used = self.written.clone();
        self.over = latest_written.map(|latest| latest - LISTED);
        self.may_be_over = latest_written;
        self.started = self.now;
        self.changed.clear();
        self.may_be_changed.clear();
        self.past.drain(..self.past.len().saturating_sub(1));
    }
}
