//! Limits what waiting requests and waiting bytes take of a core, and how much of it one address
//! gets. Each [`crate::shard::Stranger`] counts for itself: datagrams may bear any address, so they
//! take nothing from the connections of that address.
//!
//! A request that is answered at once takes nothing. One that waits takes a place and the bytes
//! that it is going to need, before it takes any memory; its answer keeps its bytes until they have
//! left. What a connection keeps between its turns (a part of a request, answers that the client
//! has not taken) counts too.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::Waker,
};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::shard::Stranger;

/// What all requests of one core may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Requests that wait for their answer. An address gets at most three sixteenths of them.
    /// Requests that change something get three quarters, of all places and of an address's.
    pub requests: usize,
    /// Bytes of requests and answers that wait. An address gets a quarter of them for requests and
    /// answers that are being made, and an eighth for what its connections keep. It gets less where
    /// others have more than an eighth: the more they have, the less it gets. The last eighth is
    /// left to addresses that hold little.
    pub bytes: usize,
}

impl Default for BudgetLimits {
    fn default() -> BudgetLimits {
        BudgetLimits {
            requests: 8_192,
            bytes: 80 << 20,
        }
    }
}

/// A request that will need at most this many bytes counts as one of many alike: an address's
/// places limit such requests, its bytes do not.
pub const SMALL: usize = 8 << 10;

impl BudgetLimits {
    /// Places that one address may have.
    fn requests_of_one(&self) -> usize {
        self.requests * 3 / 16
    }

    /// Bytes of requests and answers under way that one address may have where others have little.
    fn working_of_one(&self) -> usize {
        self.bytes / 4
    }

    /// Bytes that the connections of one address may keep where others have little.
    fn kept_of_one(&self) -> usize {
        self.bytes / 8
    }

    /// What is left of an address's `share` where others have `others` bytes: all of it while the
    /// others have at most an eighth of the core's bytes, and beyond that the share times the cube
    /// of the part that they leave. So a new address finds room, however many addresses take what
    /// they can.
    #[inline]
    fn part(&self, share: usize, others: usize) -> usize {
        let freely = self.bytes / 8;
        if others <= freely {
            return share;
        }
        let left = self.bytes.saturating_sub(others) as f64 / (self.bytes - freely) as f64;
        (share as f64 * left.powi(3)) as usize
    }

    /// Bytes reserved for addresses that [hold little](BudgetLimits::little).
    fn reserve(&self) -> usize {
        self.bytes / 8
    }

    /// From this many bytes on, an address holds more than little.
    fn little(&self) -> usize {
        self.bytes / 64
    }

    /// Up to this many bytes, an address has hardly anything under way, or kept, and may have
    /// something of any size besides.
    fn hardly(&self) -> usize {
        self.bytes / 256
    }
}

/// Number of places for requests that change something. The other places are for requests that only
/// look, which go on while changes wait for the disk.
fn for_changes(places: usize) -> usize {
    places * 3 / 4
}

/// Those that wait for room are woken when at most this much is in use: low enough that as many
/// answers pay for waking many connections.
fn resume(most: usize) -> usize {
    most * 3 / 4
}

/// What a request takes if it has to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whether it may change something.
    pub changes: bool,
    /// Bytes: the request's own, those made of them on the way, and its answer as far as that is
    /// known.
    pub bytes: usize,
    /// Whether the size of its answer is not known before it is made.
    pub is_open: bool,
}

/// The scarce resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// Places of the address.
    Places,
    /// Bytes of the address for requests and answers under way.
    Working,
    /// Bytes of the address for what connections keep.
    Kept,
}

const SCARCE: usize = 3;

/// There is no room: the address has used its share, or the core is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core has no room for this now")]
pub struct Full;

/// When a waiter was registered for each thing that can be [`Scarce`], so that it is registered
/// once.
#[derive(Debug)]
pub struct Waits([Option<u64>; SCARCE]);

impl Waits {
    /// Waits for nothing.
    pub const NOTHING: Waits = Waits([None; SCARCE]);
}

/// How much of a core's budget is in use, and what was refused for lack of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetCounts {
    /// Requests that wait now.
    pub requests: u64,
    /// Of those, requests that may change something.
    pub changes: u64,
    /// Bytes in use now.
    pub bytes: u64,
    /// The most bytes that were in use at a time.
    pub bytes_most: u64,
    /// Requests refused because there was no place.
    pub refused_places: u64,
    /// Requests and answers refused because there were no bytes.
    pub refused_bytes: u64,
    /// Times a connection was not read on because its address had its share.
    pub paused: u64,
    /// Requests dropped before they began because their client had gone.
    pub dropped: u64,
}

impl std::ops::AddAssign for BudgetCounts {
    fn add_assign(&mut self, other: BudgetCounts) {
        self.requests += other.requests;
        self.changes += other.changes;
        self.bytes += other.bytes;
        self.bytes_most += other.bytes_most;
        self.refused_places += other.refused_places;
        self.refused_bytes += other.refused_bytes;
        self.paused += other.paused;
        self.dropped += other.dropped;
    }
}

/// The budget of one core.
#[derive(Debug, Default)]
pub struct Budget {
    limits: Cell<BudgetLimits>,
    waiting: Cell<usize>,
    changes: Cell<usize>,
    bytes: Cell<usize>,
    /// The most bytes in use since somebody last looked.
    peak: Cell<usize>,
    counts: Cell<BudgetCounts>,
    accounts: RefCell<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    ledgers: Slab<Ledger>,
    by_owner: HashMap<Owner, usize, FixedState>,
}

/// Who is counted together: an IPv4 address, or an IPv6 /64, since a single client commonly has all
/// 2^64 addresses of one.
type Owner = u64;

/// What one address has in use.
#[derive(Debug, Default)]
struct Ledger {
    owner: Owner,
    /// Values that refer to it: it is kept for as long as there are any.
    holders: usize,
    waiting: usize,
    changes: usize,
    working: usize,
    kept: usize,
    /// The waiters, by what is [`Scarce`], and how often they were woken.
    paused: [Vec<Waker>; SCARCE],
    rounds: [u64; SCARCE],
}

impl Ledger {
    fn bytes(&self) -> usize {
        self.working + self.kept
    }

    /// Whether there are bytes for a request or an answer where all addresses have `used`. A
    /// request of any size may go beyond the share where the address has hardly anything else under
    /// way.
    fn fits(&self, bytes: usize, used: usize, limits: &BudgetLimits) -> bool {
        let most = || limits.part(limits.working_of_one(), used - self.bytes());
        bytes <= SMALL || self.working <= limits.hardly() || self.working + bytes <= most()
    }

    /// Whether connections may keep `bytes` more. Where they keep hardly anything, they may keep a
    /// request of any size.
    fn keeps(&self, bytes: usize, used: usize, limits: &BudgetLimits) -> bool {
        let most = || limits.part(limits.kept_of_one(), used - self.bytes());
        self.kept <= limits.hardly() || self.kept + bytes <= most()
    }
}

/// What an address has in use, as one of its users sees it.
#[derive(Debug)]
pub struct Account {
    budget: Rc<Budget>,
    key: usize,
}

/// Names an [`Account`] for as long as it has an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountId(usize);

impl AccountId {
    /// Nobody's.
    pub const NOBODY: AccountId = AccountId(usize::MAX);
}

/// The place of a request that waits, until dropped.
#[derive(Debug)]
pub struct Place {
    account: Account,
    /// 1 for a request that may change something, else 0.
    changes: usize,
}

/// Bytes in use, until dropped.
#[derive(Debug)]
pub struct Share {
    account: Account,
    kind: Kind,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Working,
    Kept,
}

/// An answer that a task has made, with the bytes that it takes until it has left. An empty answer
/// means that there is none.
#[derive(Debug, Default)]
pub struct Made {
    /// What to send.
    pub bytes: Vec<u8>,
    /// What it takes.
    pub share: Option<Share>,
}

impl Budget {
    /// Nothing in use.
    pub fn new(limits: BudgetLimits) -> Rc<Budget> {
        let budget = Budget::default();
        budget.limits.set(limits);
        Rc::new(budget)
    }

    /// Applies other limits. What is in use beyond them stays.
    pub fn change(&self, limits: BudgetLimits) {
        if self.limits.replace(limits) == limits {
            return;
        }
        let mut woken = Vec::new();
        for (_, ledger) in self.accounts.borrow_mut().ledgers.iter_mut() {
            for scarce in 0..SCARCE {
                ledger.rounds[scarce] += 1;
                woken.append(&mut ledger.paused[scarce]);
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// The account of a stranger.
    #[inline]
    pub fn account(self: &Rc<Budget>, stranger: Stranger) -> Account {
        let owner = stranger.number();
        let mut accounts = self.accounts.borrow_mut();
        let Accounts { ledgers, by_owner } = &mut *accounts;
        let key = *by_owner.entry(owner).or_insert_with(|| {
            ledgers.insert(Ledger {
                owner,
                ..Ledger::default()
            })
        });
        ledgers[key].holders += 1;
        Account {
            budget: Rc::clone(self),
            key,
        }
    }

    /// Requests that wait for their answer.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Bytes in use now, and the most that were since the last call.
    pub fn take_peak(&self) -> (usize, usize) {
        let now = self.bytes.get();
        (now, self.peak.replace(now))
    }

    /// What is in use and what was refused.
    pub fn counts(&self) -> BudgetCounts {
        BudgetCounts {
            requests: self.waiting.get() as u64,
            changes: self.changes.get() as u64,
            bytes: self.bytes.get() as u64,
            ..self.counts.get()
        }
    }

    /// Counts a request that was dropped before it began.
    pub fn dropped(&self) {
        self.count(|counts| counts.dropped += 1);
    }

    /// Takes more bytes for a request that has a place and this account, where the request turns
    /// out to need them.
    ///
    /// # Errors
    /// Where there is no room for them.
    pub fn take(self: &Rc<Budget>, account: AccountId, bytes: usize) -> Result<Share, Full> {
        let AccountId(key) = account;
        let mut accounts = self.accounts.borrow_mut();
        let ledger = &mut accounts.ledgers[key];
        let fits = ledger.fits(bytes, self.bytes.get(), &self.limits.get());
        if !fits || !self.has_bytes(ledger, bytes) {
            drop(accounts);
            self.count(|counts| counts.refused_bytes += 1);
            return Err(Full);
        }
        ledger.holders += 1;
        drop(accounts);
        let account = Account {
            budget: Rc::clone(self),
            key,
        };
        Ok(Share::of(account, Kind::Working, bytes))
    }

    /// Whether the core has `bytes` left for this account.
    fn has_bytes(&self, ledger: &Ledger, bytes: usize) -> bool {
        let limits = self.limits.get();
        let reserve = match ledger.bytes() + bytes <= limits.little() {
            true => 0,
            false => limits.reserve(),
        };
        self.bytes.get() + bytes + reserve <= limits.bytes
    }

    fn count(&self, count: impl FnOnce(&mut BudgetCounts)) {
        let mut counts = self.counts.get();
        count(&mut counts);
        self.counts.set(counts);
    }
}

impl Account {
    /// Its name.
    pub fn id(&self) -> AccountId {
        AccountId(self.key)
    }

    /// What the address has too little of for such a request, if anything. The caller waits for
    /// that instead of having the request refused.
    #[inline]
    pub fn lacks(&self, needs: &Needs) -> Option<Scarce> {
        let limits = self.budget.limits.get();
        let accounts = self.budget.accounts.borrow();
        let ledger = &accounts.ledgers[self.key];
        if !has_place(
            ledger.waiting,
            ledger.changes,
            limits.requests_of_one(),
            needs.changes,
        ) {
            return Some(Scarce::Places);
        }
        let used = self.budget.bytes.get();
        (!ledger.fits(needs.bytes, used, &limits)).then_some(Scarce::Working)
    }

    /// Takes a place, for a request that takes hardly any bytes.
    ///
    /// # Errors
    /// Where the address or the core has none left for such a request.
    #[inline]
    pub fn place(self, changes: bool) -> Result<Place, Full> {
        let budget = &*self.budget;
        let limits = budget.limits.get();
        let mut accounts = budget.accounts.borrow_mut();
        let ledger = &mut accounts.ledgers[self.key];
        let (waiting, changing) = (budget.waiting.get(), budget.changes.get());
        if !has_place(
            ledger.waiting,
            ledger.changes,
            limits.requests_of_one(),
            changes,
        ) || !has_place(waiting, changing, limits.requests, changes)
        {
            drop(accounts);
            budget.count(|counts| counts.refused_places += 1);
            return Err(Full);
        }
        ledger.waiting += 1;
        let changes = usize::from(changes);
        ledger.changes += changes;
        drop(accounts);
        budget.waiting.set(waiting + 1);
        budget.changes.set(changing + changes);
        Ok(Place {
            account: self,
            changes,
        })
    }

    /// Takes a place and bytes.
    ///
    /// # Errors
    /// Where the address or the core has too little left; then nothing is taken.
    pub fn enter(self, needs: &Needs) -> Result<(Place, Share), Full> {
        let place = self.place(needs.changes)?;
        let budget = &place.account.budget;
        let share = budget.take(place.account.id(), needs.bytes)?;
        Ok((place, share))
    }

    /// Bytes that a connection keeps between its turns: none yet.
    pub fn keep(&self) -> Share {
        Share::of(self.clone(), Kind::Kept, 0)
    }

    /// Whether a connection of this address may keep `bytes` more.
    #[inline]
    pub fn can_keep(&self, bytes: usize) -> Result<(), NoKeeping> {
        let accounts = self.budget.accounts.borrow();
        let ledger = &accounts.ledgers[self.key];
        let used = self.budget.bytes.get();
        if !ledger.keeps(bytes, used, &self.budget.limits.get()) {
            return Err(NoKeeping::Share);
        }
        match self.budget.has_bytes(ledger, bytes) {
            true => Ok(()),
            false => Err(NoKeeping::Core),
        }
    }

    /// Counts a request that the core has no bytes for.
    pub fn refused(&self) {
        self.budget.count(|counts| counts.refused_bytes += 1);
    }

    /// Has `waker` woken when there is more of what is scarce. `waits` belongs to the waiter.
    pub fn wait_for(&self, scarce: Scarce, waits: &mut Waits, waker: &Waker) {
        let mut accounts = self.budget.accounts.borrow_mut();
        let ledger = &mut accounts.ledgers[self.key];
        let (index, round) = (scarce as usize, ledger.rounds[scarce as usize]);
        if waits.0[index].replace(round) == Some(round) {
            return;
        }
        ledger.paused[index].push(waker.clone());
        drop(accounts);
        self.budget.count(|counts| counts.paused += 1);
    }

    /// Changes what the address has in use, and wakes those that wait for it.
    #[inline]
    fn release(&self, change: impl FnOnce(&mut Ledger)) {
        let limits = self.budget.limits.get();
        let mut accounts = self.budget.accounts.borrow_mut();
        let ledger = &mut accounts.ledgers[self.key];
        if ledger.paused.iter().all(Vec::is_empty) {
            change(ledger);
            return;
        }
        let before = (ledger.waiting, ledger.changes, ledger.working, ledger.kept);
        change(ledger);
        let falls_to = |before: usize, now: usize, mark: usize| now <= mark && mark < before;
        let places = limits.requests_of_one();
        let eased = [
            falls_to(before.0, ledger.waiting, resume(places))
                || falls_to(before.1, ledger.changes, resume(for_changes(places))),
            falls_to(before.2, ledger.working, limits.working_of_one() / 2)
                || falls_to(before.2, ledger.working, limits.hardly()),
            falls_to(before.3, ledger.kept, limits.kept_of_one() / 2)
                || falls_to(before.3, ledger.kept, limits.hardly()),
        ];
        let mut woken = Vec::new();
        for (scarce, _) in eased.iter().enumerate().filter(|(_, is_eased)| **is_eased) {
            ledger.rounds[scarce] += 1;
            woken.append(&mut ledger.paused[scarce]);
        }
        drop(accounts); // a waker may be the last hold on a task, and so on an account
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Why a connection may not keep more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKeeping {
    /// Its address has used its share: the connection has to wait for the address's own requests.
    Share,
    /// The core has no bytes left, for the sake of others.
    Core,
}

impl Clone for Account {
    fn clone(&self) -> Account {
        self.budget.accounts.borrow_mut().ledgers[self.key].holders += 1;
        Account {
            budget: Rc::clone(&self.budget),
            key: self.key,
        }
    }
}

impl Drop for Account {
    #[inline]
    fn drop(&mut self) {
        let mut accounts = self.budget.accounts.borrow_mut();
        let ledger = &mut accounts.ledgers[self.key];
        ledger.holders -= 1;
        if ledger.holders == 0 {
            let ledger = accounts.ledgers.remove(self.key);
            accounts.by_owner.remove(&ledger.owner);
            drop(accounts);
            drop(ledger); // wakes those who still wait: not while the accounts are borrowed
        }
    }
}

impl Drop for Place {
    #[inline]
    fn drop(&mut self) {
        let changes = self.changes;
        let budget = &self.account.budget;
        budget.waiting.set(budget.waiting.get() - 1);
        budget.changes.set(budget.changes.get() - changes);
        self.account.release(|ledger| {
            ledger.waiting -= 1;
            ledger.changes -= changes;
        });
    }
}

impl Place {
    /// The account that owns it.
    pub fn account_id(&self) -> AccountId {
        self.account.id()
    }
}

impl Share {
    fn of(account: Account, kind: Kind, bytes: usize) -> Share {
        let mut share = Share {
            account,
            kind,
            bytes: 0,
        };
        share.hold(bytes);
        share
    }

    /// How many bytes it is.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the number of bytes in use from now on. Never refused: the bytes are there already.
    #[inline]
    pub fn hold(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let (before, kind) = (std::mem::replace(&mut self.bytes, bytes), self.kind);
        let budget = &self.account.budget;
        budget.bytes.set(budget.bytes.get() - before + bytes);
        if bytes > before {
            let most = budget.bytes.get();
            budget.peak.set(budget.peak.get().max(most));
            budget.count(|counts| counts.bytes_most = counts.bytes_most.max(most as u64));
        }
        self.account.release(|ledger| {
            let of_kind = match kind {
                Kind::Working => &mut ledger.working,
                Kind::Kept => &mut ledger.kept,
            };
            *of_kind = *of_kind - before + bytes;
        });
    }

    /// Takes over another share of the same account.
    pub fn join(&mut self, mut other: Share) {
        debug_assert!(self.kind == other.kind && self.account.key == other.account.key);
        let bytes = self.bytes + other.bytes;
        other.hold(0);
        self.hold(bytes);
    }
}

impl Drop for Share {
    #[inline]
    fn drop(&mut self) {
        self.hold(0);
    }
}

impl From<Vec<u8>> for Made {
    fn from(bytes: Vec<u8>) -> Made {
        Made { bytes, share: None }
    }
}

#[inline]
fn has_place(waiting: usize, changing: usize, most: usize, changes: bool) -> bool {
    waiting < most && (!changes || changing < for_changes(most))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    const LIMITS: BudgetLimits = BudgetLimits {
        requests: 1_024,
        bytes: 64 << 20,
    };
    const OF_ONE: usize = 192;
    const CHANGES_OF_ONE: usize = 144;
    const MIB: usize = 1 << 20;

    fn budget() -> Rc<Budget> {
        Budget::new(LIMITS)
    }

    fn address(last: u8) -> Stranger {
        Stranger::V4(last.into())
    }

    fn bytes(bytes: usize) -> Needs {
        Needs {
            bytes,
            ..Needs::default()
        }
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn waiter() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        (woken, waker)
    }

    fn places(budget: &Rc<Budget>, last: u8, changes: bool) -> Vec<Place> {
        let place = || budget.account(address(last)).place(changes).ok();
        std::iter::from_fn(place).collect()
    }

    #[test]
    fn an_address_has_a_share_of_places_and_changes_a_part_of_it() {
        let budget = budget();
        let changes = places(&budget, 1, true);
        assert_eq!(changes.len(), CHANGES_OF_ONE);
        let questions = places(&budget, 1, false);
        assert_eq!(changes.len() + questions.len(), OF_ONE);
        assert_eq!(places(&budget, 2, false).len(), OF_ONE);
        drop(changes);
        assert_eq!(places(&budget, 1, true).len(), CHANGES_OF_ONE);
        assert_eq!(budget.waiting(), questions.len());
        drop(questions);
        assert_eq!(budget.accounts.borrow().ledgers.len(), 0);
    }

    #[test]
    fn a_core_has_places_for_questions_when_changes_have_theirs() {
        let budget = budget();
        let changes: Vec<_> = (0..20)
            .flat_map(|last| places(&budget, last, true))
            .collect();
        assert_eq!(changes.len(), 768);
        assert!(budget.account(address(30)).place(true).is_err());
        let questions: Vec<_> = (0..20)
            .flat_map(|last| places(&budget, last, false))
            .collect();
        assert_eq!(changes.len() + questions.len(), 1_024);
        assert_eq!(budget.counts().changes, 768);
        assert!(budget.counts().refused_places > 0);
    }

    #[test]
    fn an_address_has_a_share_of_bytes_and_one_request_may_be_of_any_size() {
        let budget = budget();
        let enter = |last, needs| budget.account(address(last)).enter(&bytes(needs));
        let whole = enter(1, 50 * MIB).unwrap();
        assert!(enter(1, MIB).is_err(), "beyond its share");
        assert!(enter(1, SMALL).is_ok(), "bounded by places");
        assert!(enter(2, 6 * MIB).is_ok());
        assert!(
            enter(2, 6 * MIB + 1).is_err(),
            "of what is left to those with little"
        );
        drop(whole);
        let parts: Vec<_> = std::iter::from_fn(|| enter(1, 4 * MIB).ok()).collect();
        assert_eq!(parts.len(), 4);
        assert!(enter(2, 16 * MIB).is_ok());
        drop(parts);
        assert_eq!(budget.counts().bytes, 0);
        assert_eq!(budget.counts().bytes_most, (56 * MIB) as u64);
    }

    #[test]
    fn what_connections_keep_is_counted_and_a_share() {
        let budget = budget();
        let account = budget.account(address(1));
        let (mut first, mut second) = (account.keep(), account.keep());
        first.hold(5 * MIB);
        assert_eq!(account.can_keep(3 * MIB), Ok(()));
        second.hold(3 * MIB);
        assert_eq!(account.can_keep(1), Err(NoKeeping::Share));
        first.hold(MIB);
        assert_eq!(account.can_keep(4 * MIB), Ok(()));
        // Others have taken what the core has.
        let others: Vec<_> = (2..4)
            .map(|last| budget.account(address(last)).enter(&bytes(25 * MIB)))
            .collect();
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(account.can_keep(MIB), Err(NoKeeping::Share));
        drop((first, second));
        assert_eq!(account.can_keep(6 * MIB), Ok(()));
        assert_eq!(account.can_keep(6 * MIB + 1), Err(NoKeeping::Core));
        assert_eq!(account.can_keep(MIB / 2), Ok(()), "it holds little");
    }

    #[test]
    fn however_many_addresses_take_what_they_can_a_new_one_finds_room() {
        for addresses in [4, 12, 24] {
            let budget = budget();
            let accounts: Vec<Account> = (0..addresses)
                .map(|last| budget.account(address(last)))
                .collect();
            let (mut kept, mut working) = (Vec::new(), Vec::new());
            loop {
                let before = (kept.len(), working.len());
                for account in &accounts {
                    if account.can_keep(MIB).is_ok() {
                        let mut share = account.keep();
                        share.hold(MIB);
                        kept.push(share);
                    }
                    let needs = bytes(MIB);
                    if account.lacks(&needs).is_none() {
                        working.extend(account.clone().enter(&needs));
                    }
                }
                if before == (kept.len(), working.len()) {
                    break;
                }
            }
            // Each has something, and an eighth is for those with little.
            assert!(kept.len() >= addresses.into() && working.len() >= addresses.into());
            let newcomer = budget.account(address(100));
            assert_eq!(newcomer.can_keep(MIB), Ok(()), "{addresses} addresses");
            let needs = bytes(5 * MIB);
            assert_eq!(newcomer.lacks(&needs), None, "{addresses} addresses");
            assert!(newcomer.enter(&needs).is_ok(), "{addresses} addresses");
        }
    }

    #[test]
    fn who_keeps_hardly_anything_may_keep_one_request_of_any_size_and_is_woken_when_that_is_so() {
        let budget = budget();
        let others: Vec<_> = (10..13)
            .map(|last| budget.account(address(last)).enter(&bytes(14 * MIB)))
            .collect();
        assert!(others.iter().all(Result::is_ok));
        let account = budget.account(address(1));
        let (mut first, mut second) = (account.keep(), account.keep());
        first.hold(MIB / 4);
        assert_eq!(account.can_keep(3 * MIB), Ok(()));
        second.hold(3 * MIB);
        assert_eq!(account.can_keep(1), Err(NoKeeping::Share));
        let (woken, waker) = waiter();
        let mut waits = Waits::NOTHING;
        account.wait_for(Scarce::Kept, &mut waits, &waker);
        first.hold(0);
        assert_eq!(woken.0.load(Relaxed), 0);
        second.hold(MIB / 4);
        assert_eq!(woken.0.load(Relaxed), 1);
        assert_eq!(account.can_keep(3 * MIB), Ok(()));
    }

    #[test]
    fn who_waits_is_woken_once_when_there_is_room_for_what_he_waits_for() {
        let budget = budget();
        let account = budget.account(address(1));
        let (woken, waker) = waiter();
        let mut waits = Waits::NOTHING;
        for round in 1..=3 {
            let mut held = places(&budget, 1, true);
            let change = Needs {
                changes: true,
                ..Needs::default()
            };
            assert_eq!(account.lacks(&change), Some(Scarce::Places));
            assert_eq!(account.lacks(&Needs::default()), None);
            account.wait_for(Scarce::Places, &mut waits, &waker);
            account.wait_for(Scarce::Places, &mut waits, &waker);
            held.truncate(resume(CHANGES_OF_ONE) + 1);
            assert_eq!(woken.0.load(Relaxed), round - 1);
            held.clear();
            assert_eq!(woken.0.load(Relaxed), round);
            assert_eq!(account.lacks(&change), None);
        }
        assert_eq!(budget.counts().paused, 3);
    }

    #[test]
    fn who_waits_for_bytes_is_woken_by_the_time_that_anything_fits() {
        let budget = budget();
        let account = budget.account(address(1));
        let (woken, waker) = waiter();
        let mut waits = Waits::NOTHING;
        let (_place, mut share) = account.clone().enter(&bytes(7 * MIB)).unwrap();
        let large = bytes(40 * MIB);
        assert_eq!(account.lacks(&large), Some(Scarce::Working));
        account.wait_for(Scarce::Working, &mut waits, &waker);
        share.hold(MIB / 2);
        assert_eq!(woken.0.load(Relaxed), 0);
        share.hold(MIB / 4);
        assert_eq!(woken.0.load(Relaxed), 1);
        assert_eq!(account.lacks(&large), None);
        // After a change of the limits, everybody checks again.
        account.wait_for(Scarce::Kept, &mut waits, &waker);
        budget.change(BudgetLimits::default());
        assert_eq!(woken.0.load(Relaxed), 2);
    }

    #[test]
    fn shares_of_an_account_are_joined_and_given_back_once() {
        let budget = budget();
        let account = budget.account(address(1));
        let (_first_place, mut first) = account.clone().enter(&bytes(MIB)).unwrap();
        let (_second_place, second) = account.clone().enter(&bytes(2 * MIB)).unwrap();
        first.join(second);
        assert_eq!(
            (first.bytes(), budget.counts().bytes),
            (3 * MIB, (3 * MIB) as u64)
        );
        drop(first);
        assert_eq!(budget.counts().bytes, 0);
    }

    #[test]
    fn addresses_that_belong_to_one_have_one_account() {
        let budget = budget();
        let key = |text: &str| budget.account(Stranger::of(text.parse().unwrap()));
        let (first, same, mapped) = (key("2001:db8::1"), key("2001:db8::2:2"), key("192.0.2.7"));
        assert_eq!(first.id(), same.id());
        assert_ne!(first.id(), key("2001:db8:0:1::1").id());
        assert_eq!(mapped.id(), key("::ffff:192.0.2.7").id());
    }
}
