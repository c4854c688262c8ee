use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use foldhash::fast::FixedState;

use super::moments::{EraNumber, Moments, What};
use crate::{
    coin::Coin,
    protocol::key_healing::{Minute, TICKET_AGE_MINUTES_MAX},
};

/// When each coin last got another number. Each time is kept for as long as an encryption ticket or
/// a fix (docs/protocol.md, "Fix") from before it may still arrive.
///
/// Tickets are dated by the clock on the wall, and that clock may be set. The monotonic clock then
/// tells what the clock on the wall, as it goes now, would have shown at the time of a change. The
/// later of the two readings counts, so that no void ticket becomes good.
pub(super) struct Changed {
    moments: Moments<Change>,
    opened: Reading,
    /// The latest reading of what is forgotten.
    forgotten: Option<Reading>,
    latest_fixes: LatestFixes,
    refused: Refused,
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Duration,
    pub(super) unix_seconds: u64,
}

/// Whether a fix may give a coin another number, as far as the coin's own past says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixLook {
    /// It may.
    Fixable,
    /// Not yet: something but a fix changed the coin lately.
    ChangedLately,
    /// Something changed the coin since the fix came.
    ChangedMeanwhile,
    /// A ticket that this node issued, and that is not over, lists the coin with the number in
    /// force.
    VouchedHere,
}

/// What holds for all changes in an era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    minute: Minute,
    by_fix: bool,
}

/// A minute that the clock on the wall showed, and when.
#[derive(Clone, Copy)]
struct Reading {
    minute: Minute,
    at: Duration,
}

/// A change older than this makes no ticket void: every ticket from before it is too old by itself,
/// since such a ticket bears the minute after the change's at most.
const KEEP: Duration = Duration::from_secs(60 * (TICKET_AGE_MINUTES_MAX + 2));
/// Precision of the times of changes that no fix made; the times of fixes are a third as precise.
/// In 12 minutes that makes 132 and 60 eras at most.
const STEP: Duration = Duration::from_secs(6);
const STEPS_OF_FIXES: u32 = 3;
/// A clock that is set back by up to this much makes no void ticket good. Where the clock is
/// further behind a change's time than that, the change's time counts as wrong: else one wrong time
/// would stop the healing of keys for as long as it was ahead.
const CLOCK_BACK_MINUTES_MAX: u64 = 24 * 60;
/// A fix changes no coin that something else changed less than this time before the fix came.
pub(super) const FIX_AFTER: Duration = Duration::from_secs(300);
/// Exception: a fix of the coin was refused for that reason, at least [`REFUSED_FOR`] and at most
/// [`REFUSED_MAX`] before the fix came.
const REFUSED_FOR: Duration = Duration::from_secs(300);
const REFUSED_MAX: Duration = Duration::from_secs(3_600);

impl What for Change {
    fn or(self, other: Change) -> Change {
        Change {
            minute: self.minute.max(other.minute),
            by_fix: self.by_fix && other.by_fix,
        }
    }

    fn steps(self) -> u32 {
        if self.by_fix { STEPS_OF_FIXES } else { 1 }
    }
}

impl Now {
    fn minute(self) -> Minute {
        Minute::of_unix_seconds(self.unix_seconds)
    }
}

impl Reading {
    /// The minute of the reading, for comparison with tickets: what the clock showed, or what it
    /// would have shown if it had always gone as it does now, whichever is later.
    fn minute(self, now: Now) -> Minute {
        let ago = now.monotonic.saturating_sub(self.at);
        // Rounded up, so that a clock that nobody sets gives the minute that was read.
        let seconds = ago.as_secs() + u64::from(ago.subsec_nanos() > 0);
        let by_now = Minute::of_unix_seconds(now.unix_seconds.saturating_sub(seconds));
        match self.minute.0 <= by_now.0 + CLOCK_BACK_MINUTES_MAX {
            true => self.minute.max(by_now),
            false => by_now,
        }
    }
}

impl Changed {
    /// No coin has changed since `now`.
    pub(super) fn new(now: Now) -> Changed {
        Changed {
            moments: Moments::new(KEEP, STEP),
            opened: Reading {
                minute: now.minute(),
                at: now.monotonic,
            },
            forgotten: None,
            latest_fixes: LatestFixes::default(),
            refused: Refused::default(),
        }
    }

    /// The era of changes that are made now, by anything but a fix.
    pub(super) fn era(&mut self, now: Now) -> EraNumber {
        self.era_of(now, false)
    }

    fn era_of(&mut self, now: Now, by_fix: bool) -> EraNumber {
        let minute = now.minute();
        let forgotten = &mut self.forgotten;
        self.moments
            .era(now.monotonic, Change { minute, by_fix }, |era| {
                let (minute, at) = (era.what.minute, era.last);
                if forgotten.is_none_or(|other| other.minute <= minute || other.is_wrong(minute)) {
                    *forgotten = Some(Reading { minute, at });
                }
            })
    }

    /// Notes that these coins may have got other numbers just now.
    pub(super) fn note_all(&mut self, coins: impl Iterator<Item = Coin>, now: Now) {
        let mut coins = coins.peekable();
        if coins.peek().is_some() {
            let era = self.era(now);
            coins.for_each(|coin| self.note(coin, era));
        }
    }

    /// Notes that a coin got another number, not by a fix, in this era, which is the current one.
    #[inline]
    pub(super) fn note(&mut self, coin: Coin, era: EraNumber) {
        self.moments.note(coin, era);
    }

    /// Notes that a coin gets another number now, by a fix.
    pub(super) fn note_fix(&mut self, coin: Coin, now: Now) {
        // A recent change by something else stays noted: a byte can say only one thing, and that
        // change refuses more than a fix does.
        let is_hidden = (self.moments.of(coin))
            .is_some_and(|era| !era.what.by_fix && era.last + FIX_AFTER > now.monotonic);
        let era = self.era_of(now, !is_hidden);
        self.moments.note(coin, era);
        self.latest_fixes.note(coin, now.monotonic);
    }

    /// The minute in which the coin got its number, for comparison with a ticket's minute. It is
    /// the minute of the start where no change since then is known.
    pub(super) fn minute(&self, coin: Coin, now: Now) -> Minute {
        if let Some(era) = self.moments.of(coin) {
            let (minute, at) = (era.what.minute, era.last);
            return Reading { minute, at }.minute(now);
        }
        let opened = self.opened.minute(now);
        let forgotten = self.forgotten.map(|forgotten| forgotten.minute(now));
        forgotten.map_or(opened, |forgotten| forgotten.max(opened))
    }

    /// Whether a fix that came at `came` may change the coin, as far as the coin's changes say.
    pub(super) fn look(&self, coin: Coin, came: Duration) -> FixLook {
        let Some(era) = self.moments.of(coin) else {
            return FixLook::Fixable;
        };
        if era.what.by_fix {
            return match self.latest_fixes.is_after(coin, came, era.last) {
                true => FixLook::ChangedMeanwhile,
                false => FixLook::Fixable,
            };
        }
        if era.began > came {
            return FixLook::ChangedMeanwhile;
        }
        let is_long_ago = era.last + FIX_AFTER <= came;
        // An era that goes on when the fix comes may have changed the coin after that.
        let may_pass = era.last <= came && self.refused.lets_pass(coin, came);
        match is_long_ago || may_pass {
            true => FixLook::Fixable,
            false => FixLook::ChangedLately,
        }
    }

    /// A fix with enough votes is refused because something changed the coin lately, and for no
    /// other reason.
    pub(super) fn refuse(&mut self, coin: Coin, now: Duration) {
        self.refused.note(coin, now);
    }
}

impl Reading {
    /// Whether this reading is so far ahead of `minute` that the clock can only have been wrong.
    fn is_wrong(self, minute: Minute) -> bool {
        self.minute.0 > minute.0 + CLOCK_BACK_MINUTES_MAX
    }
}

/// The exact times at which coins were fixed. Each is kept for as long as an earlier fix may still
/// wait; its votes take some seconds at most. There are two parts; the older one is given up when
/// the younger one is full.
#[derive(Default)]
struct LatestFixes {
    young: HashMap<Coin, Duration, FixedState>,
    young_since: Duration,
    old: HashMap<Coin, Duration, FixedState>,
    /// All fixes since this time are in one of the two parts.
    known_since: Duration,
}

/// A part covers less time than this, and holds fewer coins than [`PART_COINS_MAX`].
const PART_FOR: Duration = Duration::from_secs(30);
const PART_COINS_MAX: usize = 1 << 15;

impl LatestFixes {
    fn note(&mut self, coin: Coin, now: Duration) {
        if self.young_since + PART_FOR <= now || self.young.len() >= PART_COINS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.known_since = self.young_since;
            self.young_since = now;
        }
        self.young.insert(coin, now);
    }

    /// Whether the coin was fixed after `moment`; its last fix was at `last` or before.
    fn is_after(&self, coin: Coin, moment: Duration, last: Duration) -> bool {
        if last <= moment {
            return false;
        }
        let known = self.young.get(&coin).or_else(|| self.old.get(&coin));
        match known {
            Some(&fixed) => fixed > moment,
            None => moment < self.known_since,
        }
    }
}

/// Coins whose fix was refused for one reason alone: something but a fix had changed them lately. A
/// former owner who changes a coin every few minutes could keep it broken for ever otherwise.
///
/// Each entry costs the votes of 13 servers and lasts an hour at most. Where there are too many
/// entries, the oldest goes.
#[derive(Default)]
struct Refused {
    /// The time of the first refusal that counts.
    first: HashMap<Coin, Duration, FixedState>,
    /// The same in order of time; an entry that a newer one replaced is still in it.
    order: VecDeque<(Duration, Coin)>,
}

/// Coins whose refusal is remembered, by each shard: 3 MB.
const REFUSED_COINS_MAX: usize = 1 << 16;

impl Refused {
    fn note(&mut self, coin: Coin, now: Duration) {
        let is_over = |&(at, _): &(Duration, Coin)| at + REFUSED_MAX < now;
        // One entry may come, and two may go.
        for _ in 0..2 {
            if self.order.front().is_some_and(is_over) || self.order.len() >= REFUSED_COINS_MAX {
                self.forget_oldest();
            }
        }
        let known = self.first.get(&coin);
        if known.is_none_or(|&at| is_over(&(at, coin))) {
            self.first.insert(coin, now);
            self.order.push_back((now, coin));
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((at, coin)) = self.order.pop_front()
            && self.first.get(&coin) == Some(&at)
        {
            self.first.remove(&coin);
        }
    }

    fn lets_pass(&self, coin: Coin, came: Duration) -> bool {
        let refused = self.first.get(&coin);
        refused.is_some_and(|&at| at + REFUSED_FOR <= came && came <= at + REFUSED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coin::PageId, protocol::key_healing::CLOCK_AHEAD_MINUTES_MAX};

    fn coin(place: usize) -> Coin {
        PageId::from_index(14_999).unwrap().coin(place)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A machine whose clocks are the test's.
    struct Machine {
        changed: Changed,
        now: Now,
    }

    /// What the clock on the wall shows at the start: some way into a minute.
    const START: u64 = 29_000_000 * 60 + 17;

    impl Machine {
        fn start() -> Machine {
            let now = Now {
                monotonic: seconds(1_000),
                unix_seconds: START,
            };
            let changed = Changed::new(now);
            Machine { changed, now }
        }

        fn pass(&mut self, seconds: u64) {
            self.now.monotonic += Duration::from_secs(seconds);
            self.now.unix_seconds += seconds;
        }

        fn set(&mut self, minutes: i64) {
            let seconds = self.now.unix_seconds.checked_add_signed(minutes * 60);
            self.now.unix_seconds = seconds.unwrap();
        }

        fn change(&mut self, coin: Coin) {
            let era = self.changed.era(self.now);
            self.changed.note(coin, era);
        }

        fn fix(&mut self, coin: Coin) {
            self.changed.note_fix(coin, self.now);
        }

        /// The minute of a coin, in minutes since the start's.
        fn minute(&self, coin: Coin) -> i64 {
            let minute = self.changed.minute(coin, self.now).0;
            minute as i64 - (START / 60) as i64
        }

        fn look(&self, coin: Coin) -> FixLook {
            self.changed.look(coin, self.now.monotonic)
        }
    }

    #[test]
    fn a_coins_minute_is_that_of_its_newest_change_and_else_of_the_start() {
        let mut machine = Machine::start();
        assert_eq!(machine.minute(coin(1)), 0);
        for minute in 1..=11 {
            machine.pass(60);
            machine.change(coin(1));
            machine.fix(coin(2));
            for place in [1, 2] {
                assert_eq!(machine.minute(coin(place)), minute);
            }
            assert_eq!(machine.minute(coin(3)), 0);
        }
        // To the second, and for as long as a ticket of then is not too old.
        machine.pass(42);
        machine.change(coin(4));
        machine.pass(1);
        machine.change(coin(5));
        for _ in 0..600 {
            machine.pass(1);
            machine.change(coin(6));
            assert_eq!((machine.minute(coin(4)), machine.minute(coin(5))), (11, 12));
        }
    }

    #[test]
    fn what_is_forgotten_stops_no_ticket_that_is_not_too_old() {
        let mut machine = Machine::start();
        machine.change(coin(1));
        for _ in 0..5_000 {
            machine.pass(5);
            machine.change(coin(2));
            let now = machine.now.minute().0;
            let oldest_good = now - TICKET_AGE_MINUTES_MAX;
            let minute = machine.changed.minute(coin(1), machine.now).0;
            let is_old = now - START / 60 > TICKET_AGE_MINUTES_MAX + CLOCK_AHEAD_MINUTES_MAX;
            assert!(!is_old || oldest_good > minute + 1, "{now} {minute}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_ticket_good_that_was_void() {
        for back in [1, 5, 10, 30, 600, 1_439] {
            let mut machine = Machine::start();
            machine.pass(3_600);
            machine.change(coin(1));
            machine.pass(120);
            machine.set(-back);
            assert_eq!(machine.minute(coin(1)), 60, "{back}");
            assert_eq!(machine.minute(coin(2)), 0, "the start's");
            // Also when the change is forgotten, for whatever coin it was.
            for _ in 0..200 {
                machine.pass(6);
                machine.change(coin(3));
            }
            assert!(machine.minute(coin(1)) >= 60, "{back}");
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_makes_no_ticket_good_that_was_void() {
        for forward in [1, 5, 600, 1_000_000] {
            let mut machine = Machine::start();
            machine.pass(600);
            machine.change(coin(1));
            machine.pass(120);
            machine.set(forward);
            assert_eq!(machine.minute(coin(1)), 10 + forward);
            assert_eq!(machine.minute(coin(2)), forward, "the start's");
        }
    }

    #[test]
    fn a_clock_that_was_years_ahead_does_not_stop_the_healing_of_keys() {
        let mut machine = Machine::start();
        machine.set(600_000);
        machine.change(coin(1));
        machine.pass(60);
        machine.set(-600_000);
        assert_eq!(machine.minute(coin(1)), 0);
        for _ in 0..1_000 {
            machine.pass(6);
            machine.change(coin(2));
        }
        // The first is forgotten, and what the clock showed then with it.
        let now = (machine.now.minute().0 - START / 60) as i64;
        for place in [1, 3] {
            assert!((now - 13..=now - 12).contains(&machine.minute(coin(place))));
        }
    }

    #[test]
    fn a_fix_waits_300_s_after_a_change_and_not_after_a_fix() {
        let mut machine = Machine::start();
        assert_eq!(machine.look(coin(1)), FixLook::Fixable);
        machine.fix(coin(1));
        assert_eq!(machine.look(coin(1)), FixLook::Fixable);
        machine.change(coin(1));
        assert_eq!(machine.look(coin(1)), FixLook::ChangedLately);
        machine.pass(299);
        assert_eq!(machine.look(coin(1)), FixLook::ChangedLately);
        machine.pass(1);
        assert_eq!(machine.look(coin(1)), FixLook::Fixable);
        // A fix does not hide what was changed shortly before it.
        machine.change(coin(1));
        machine.fix(coin(1));
        assert_eq!(machine.look(coin(1)), FixLook::ChangedLately);
    }

    #[test]
    fn what_changes_after_a_fix_came_is_not_fixed_by_it() {
        let mut machine = Machine::start();
        for place in 1..4 {
            machine.fix(coin(place));
        }
        machine.now.monotonic += Duration::from_nanos(1);
        let came = machine.now.monotonic;
        machine.now.monotonic += Duration::from_nanos(1);
        machine.fix(coin(1));
        machine.change(coin(2));
        let look = |place| machine.changed.look(coin(place), came);
        assert_eq!(look(1), FixLook::ChangedMeanwhile);
        assert_eq!(look(2), FixLook::ChangedMeanwhile);
        assert_eq!(
            look(3),
            FixLook::Fixable,
            "fixed in the same era, and before"
        );
    }

    #[test]
    fn where_too_many_are_fixed_to_know_when_a_fix_that_waits_is_refused() {
        let mut machine = Machine::start();
        let came = machine.now.monotonic;
        let coin = |number: usize| {
            let page = PageId::from_index(number / 1_024).unwrap();
            page.coin(number % 1_024)
        };
        machine.fix(coin(0));
        machine.pass(1);
        for number in 1..3 * PART_COINS_MAX {
            machine.fix(coin(number));
        }
        let look = |came| machine.changed.look(coin(0), came);
        assert_eq!(look(came), FixLook::ChangedMeanwhile);
        assert_eq!(look(machine.now.monotonic), FixLook::Fixable);
    }

    #[test]
    fn what_was_refused_is_fixed_after_300_s_however_often_it_changes_and_for_an_hour() {
        let mut machine = Machine::start();
        machine.change(coin(1));
        machine.changed.refuse(coin(1), machine.now.monotonic);
        for second in 1..=4_000u64 {
            machine.pass(1);
            if second % 100 == 50 {
                machine.change(coin(1));
            }
            if second % 100 == 0 {
                // Refused again, which changes nothing.
                let look = machine.look(coin(1));
                let expected = match (300..=3_600).contains(&second) {
                    true => FixLook::Fixable,
                    false => FixLook::ChangedLately,
                };
                assert_eq!(look, expected, "{second}");
                if second < 300 {
                    machine.changed.refuse(coin(1), machine.now.monotonic);
                }
            }
        }
        // A new refusal counts from then on.
        machine.changed.refuse(coin(1), machine.now.monotonic);
        machine.change(coin(1));
        assert_eq!(machine.look(coin(1)), FixLook::ChangedLately);
        machine.pass(150);
        machine.change(coin(1));
        machine.pass(150);
        assert_eq!(machine.look(coin(1)), FixLook::Fixable);
    }

    #[test]
    fn refusals_that_are_remembered_have_a_bound() {
        let mut refused = Refused::default();
        let coin = |number: usize| {
            let page = PageId::from_index(number / 1_024).unwrap();
            page.coin(number % 1_024)
        };
        for number in 0..3 * REFUSED_COINS_MAX {
            refused.note(coin(number), seconds(number as u64 / 1_000));
            assert!(refused.first.len() <= REFUSED_COINS_MAX);
            assert!(refused.order.len() <= REFUSED_COINS_MAX);
        }
        let newest = coin(3 * REFUSED_COINS_MAX - 1);
        assert!(refused.lets_pass(newest, seconds(600)));
        assert!(!refused.lets_pass(coin(0), seconds(600)));
    }
}
