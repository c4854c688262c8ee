use std::{ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};
use slab::Slab;

use super::{
    Exchange, NotChanged, Replacement, Sender, Shard, Unavailable,
    locks::{Crowded, Link, Next, Riders, Verdict},
    repeats::{BegunSingle, ChangeName, Place},
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    store::{
        log::{Appended, Durability, Refusal},
        pages::Lookup,
        record::{Change, PageSequence},
    },
};

/// Number of changes that end between the prefetch of what a change needs at its end and that end.
const ENDS_AHEAD: usize = 4;

/// What the owner of one coin is asked about that coin alone.
#[derive(Clone, Copy, Debug)]
pub enum Single {
    /// Is this its AN?
    Detect(Coin, An),
    /// Change it, if this is its AN: a pown, from there.
    Exchange(Exchange, Sender),
}

/// The asker, and the number that the asker knows the question by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// This core.
    Here(usize),
    /// Another.
    Shard(ShardId, usize),
}

/// What a question about one coin came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Answered: whether it passed.
    Now(Result<bool, NotChanged>),
    /// The asker hears of it when it is known: an exchange that passed when it is durable.
    UnderWay,
    /// The same is under way, and its sender does not wait: there is no answer.
    Repeated,
    /// It takes a task: its page has to be read, or it may be a repeat. Nothing has happened.
    HasToWait,
}

/// The party that an exchange belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party {
    /// Who hears what comes of it.
    pub asker: Asker,
    /// Where it is known as under way.
    pub repeat: Place,
}

/// Hears what became of questions that were under way, each once.
pub type ExchangeListener = Box<dyn Fn(Asker, Result<bool, NotChanged>)>;

/// Changes of one coin that wait for the log, and for nothing else: the most frequent changes, and
/// the reason that they need neither a task nor an allocation each.
///
/// An exchange that finds its coin held waits in the coin's queue. When its turn comes, it is
/// judged together with the exchanges next to it, one after the other in memory, and all of them
/// share one record, with the last number. So a coin that is changed again and again costs a write
/// to the log for each turn of its queue, not for each change.
#[derive(Default)]
pub(super) struct Singles {
    under_way: Slab<UnderWay>,
    /// Exchanges that shared another's record.
    shared: u64,
    /// Exchanges that passed and left their coin as it was.
    unchanged: u64,
    /// Changes refused because too many waited for a coin.
    refused: u64,
}

/// How changes wait on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Requests that wait for a coin now, or share the change that others wait for.
    pub waiting: u64,
    /// Changes refused because the maximum number waited for a coin.
    pub refused: u64,
    /// Changes that passed and shared another's record in the log.
    pub shared: u64,
    /// Changes that passed and left their coins as they were, without a record.
    pub unchanged: u64,
    /// Changes that wait for room in the log now.
    pub log_waiting: u64,
    /// Changes refused because the maximum number waited for room in the log.
    pub log_refused: u64,
}

impl AddAssign for ChangeCounts {
    fn add_assign(&mut self, other: ChangeCounts) {
        self.waiting += other.waiting;
        self.refused += other.refused;
        self.shared += other.shared;
        self.unchanged += other.unchanged;
        self.log_waiting += other.log_waiting;
        self.log_refused += other.log_refused;
    }
}

struct UnderWay {
    page: PageSequence,
    change: Change,
    appended: Appended,
    party: Party,
    /// The exchanges that share the record.
    riders: Riders,
}

/// What became of the exchanges whose turn it was.
enum Turn {
    /// They wait for the log, and hold the coin.
    UnderWay,
    /// All are answered.
    Over,
    /// They have to wait for something other than the log. Nothing has happened.
    HasToWait,
}

impl Single {
    /// The coin that it is about.
    #[inline]
    pub fn coin(&self) -> Coin {
        match self {
            Single::Detect(coin, _) => *coin,
            Single::Exchange(exchange, _) => exchange.coin,
        }
    }

    /// The coin that it may change.
    #[inline]
    pub fn exchanges(&self) -> Option<Coin> {
        match self {
            Single::Detect(..) => None,
            Single::Exchange(exchange, _) => Some(exchange.coin),
        }
    }
}

impl<E: Environment> Shard<E> {
    /// Answers a question about one of this shard's coins as far as that takes no task. Exchanges
    /// of a coin take effect in the order in which they are asked for.
    pub fn ask_one(&self, single: &Single, asker: Asker) -> Asked {
        match single {
            Single::Detect(coin, an) => match self.pages.lookup(*coin) {
                Lookup::Circulating(real, _) => Asked::Now(Ok(real == *an)),
                Lookup::Free => Asked::Now(Ok(false)),
                Lookup::Damaged => Asked::Now(Err(NotChanged::Unavailable)),
                Lookup::Unloaded => Asked::HasToWait,
            },
            Single::Exchange(exchange, sender) => self.exchange_one(exchange, *sender, asker),
        }
    }

    /// Has `listener` told of changes that are [under way](Asked::UnderWay). Call it once, before
    /// any is.
    pub fn listen(&self, listener: ExchangeListener) {
        let first = self.on_exchanged.set(listener).is_ok();
        assert!(first, "a shard has one listener");
    }

    fn exchange_one(&self, exchange: &Exchange, sender: Sender, asker: Asker) -> Asked {
        let coin = exchange.coin;
        if self.is_stalled() {
            return self.refuse_over_stall(exchange, sender);
        }
        if !self.locks.is_free(coin) {
            return self.queue_up(exchange, sender, asker);
        }
        let before = match self.pages.lookup(coin) {
            Lookup::Circulating(an, mfs) if an == exchange.an => (an, mfs),
            Lookup::Circulating(an, _) => {
                return Asked::Now(Ok(self.was_carried_out(exchange, an)));
            }
            Lookup::Free => return Asked::Now(Ok(false)),
            Lookup::Damaged => return Asked::Now(Err(NotChanged::Unavailable)),
            Lookup::Unloaded => {
                return match self.begin_unseen(exchange, sender) {
                    Ok(repeat) => self.exchange_by_task(exchange, Party { asker, repeat }),
                    Err(asked) => asked,
                };
            }
        };
        let (an, mfs) = match exchange.becomes {
            Replacement::An(an) => (an, self.month()),
            Replacement::Free => (self.unknown_an(), Mfs::FREE),
        };
        if (an, mfs) == before {
            // What is in memory, and not about to change, is durable.
            self.note_unchanged(1);
            self.count_powned(coin);
            return Asked::Now(Ok(true));
        }
        let repeat = match self.begin_exchange(exchange, sender) {
            Ok(repeat) => repeat,
            Err(asked) => return asked,
        };
        let party = Party { asker, repeat };
        let Some(sequence) = self.pages.begin(coin.page()) else {
            return self.exchange_by_task(exchange, party);
        };
        let page = PageSequence {
            page: coin.page(),
            sequence,
        };
        let change = Change { coin, an, mfs };
        let mut singles = self.singles.borrow_mut();
        let entry = singles.under_way.vacant_entry();
        let ticket = entry.key();
        match self.log.append_now(&[page], &[change], ticket) {
            Err(refusal) => {
                self.pages.give_up(page.page, page.sequence);
                let refused = Err(refusal.into());
                self.end_exchange(repeat, refused, Duration::ZERO);
                Asked::Now(refused)
            }
            Ok(None) => {
                self.pages.give_up(page.page, page.sequence);
                drop(singles);
                self.exchange_by_task(exchange, party)
            }
            Ok(Some(appended)) if self.durability == Durability::Periodic => {
                self.put(&[page], &[change], None, self.noted_now());
                self.log.settle(appended);
                self.end_exchange(repeat, Ok(true), self.environment.monotonic());
                self.count_powned(coin);
                Asked::Now(Ok(true))
            }
            Ok(Some(appended)) => {
                self.locks.hold(coin, Link::to(ticket));
                entry.insert(UnderWay {
                    page,
                    change,
                    appended,
                    party,
                    riders: Riders::NONE,
                });
                Asked::UnderWay
            }
        }
    }

    /// Refuses an exchange while the disk does not answer, unless the same is under way: nobody
    /// knows what becomes of that one.
    #[cold]
    fn refuse_over_stall(&self, exchange: &Exchange, sender: Sender) -> Asked {
        match self.begin_exchange(exchange, sender) {
            Ok(repeat) => {
                self.end_exchange(repeat, Err(NotChanged::Unavailable), Duration::ZERO);
                Asked::Now(Err(NotChanged::Unavailable))
            }
            Err(asked) => asked,
        }
    }

    /// Begins an exchange, unless the same is under way.
    ///
    /// # Errors
    /// The answer that the exchange gets instead.
    #[inline]
    fn begin_exchange(&self, exchange: &Exchange, sender: Sender) -> Result<Place, Asked> {
        let name = self.name_of(exchange);
        match self.repeats.borrow_mut().begin_single(name, sender) {
            BegunSingle::New(place) => Ok(place),
            BegunSingle::UnderWay if !sender.waits => Err(Asked::Repeated),
            BegunSingle::UnderWay | BegunSingle::NoPlace => Err(Asked::HasToWait),
        }
    }

    /// Begins an exchange of a coin whose number is not known yet. What may be a repeat has to be
    /// compared with that number, which takes a task.
    fn begin_unseen(&self, exchange: &Exchange, sender: Sender) -> Result<Place, Asked> {
        let (name, now) = (self.name_of(exchange), self.environment.monotonic());
        if self.repeats.borrow().was_carried_out(name, now) {
            return Err(Asked::HasToWait);
        }
        self.begin_exchange(exchange, sender)
    }

    /// Ends an exchange: carried out, or not.
    #[inline]
    fn end_exchange(&self, repeat: Place, ended: Result<bool, NotChanged>, now: Duration) {
        self.repeats.borrow_mut().end_single(repeat, ended, now);
    }

    /// Has an exchange wait for its coin, which is held, where it may pass in its turn.
    #[cold]
    fn queue_up(&self, exchange: &Exchange, sender: Sender, asker: Asker) -> Asked {
        if self.surely_fails(exchange) {
            return Asked::Now(Ok(match self.pages.lookup(exchange.coin) {
                Lookup::Circulating(an, _) => self.was_carried_out(exchange, an),
                _ => false,
            }));
        }
        if !self.log.takes_changes() {
            // Nobody knows when the coin is free again.
            return Asked::Now(Err(NotChanged::Unavailable));
        }
        let repeat = match self.begin_unseen(exchange, sender) {
            Ok(repeat) => repeat,
            Err(asked) => return asked,
        };
        match self
            .locks
            .enter_exchange(*exchange, Party { asker, repeat })
        {
            Ok(()) => Asked::UnderWay,
            Err(crowded) => {
                let refused = Err(self.crowded(crowded));
                self.end_exchange(repeat, refused, Duration::ZERO);
                Asked::Now(refused)
            }
        }
    }

    /// Whether an exchange names neither the number in force nor one that its coin, which is held,
    /// can have by the time of its turn. Those who do not know a coin's number take no place in its
    /// queue.
    fn surely_fails(&self, exchange: &Exchange) -> bool {
        let coin = exchange.coin;
        let Some(ticket) = self.locks.change(coin).get() else {
            return false; // held for something else
        };
        let is_other = match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) => an != exchange.an,
            Lookup::Free => true,
            Lookup::Unloaded | Lookup::Damaged => false,
        };
        let becomes = self.singles.borrow().under_way[ticket].change;
        is_other
            && (becomes.mfs.is_free() || becomes.an != exchange.an)
            && self
                .locks
                .waits_only(coin, |earlier| match earlier.becomes {
                    Replacement::An(an) => an != exchange.an,
                    Replacement::Free => true,
                })
    }

    /// Takes a coin that nobody holds for an exchange that has to wait for more than the log.
    #[cold]
    fn exchange_by_task(&self, exchange: &Exchange, party: Party) -> Asked {
        self.locks.hold(exchange.coin, Link::NONE);
        let entered = self.locks.enter_exchange(*exchange, party);
        entered.expect("nobody waits for a coin that nobody holds");
        self.spawn_turn(exchange.coin);
        Asked::UnderWay
    }

    /// Releases coins that the caller holds, each to the next request that waits for it.
    pub(super) fn let_go(&self, coins: &[Coin]) {
        for &coin in coins {
            self.let_one_go(coin);
        }
    }

    #[inline]
    fn let_one_go(&self, coin: Coin) {
        if self.locks.release(coin) == Next::Exchanges {
            self.go_on(coin);
        }
    }

    /// Lets the exchanges at the front of a coin's queue have their turn. The coin is held for
    /// them.
    #[cold]
    fn go_on(&self, coin: Coin) {
        loop {
            match self.take_turn(coin) {
                Turn::UnderWay => return,
                Turn::HasToWait => return self.spawn_turn(coin),
                Turn::Over => {}
            }
            if self.locks.release(coin) != Next::Exchanges {
                return;
            }
        }
    }

    fn take_turn(&self, coin: Coin) -> Turn {
        let before = match self.pages.lookup(coin) {
            Lookup::Circulating(an, mfs) => Some((an, mfs)),
            Lookup::Free => None,
            Lookup::Damaged => {
                self.refuse_turn(coin, NotChanged::Unavailable);
                return Turn::Over;
            }
            Lookup::Unloaded => return Turn::HasToWait,
        };
        let Some(change) = self.judge_turn(coin, before) else {
            self.tell_at_once(coin);
            return Turn::Over;
        };
        let Some(sequence) = self.pages.begin(coin.page()) else {
            return Turn::HasToWait;
        };
        let page = PageSequence {
            page: coin.page(),
            sequence,
        };
        let ticket = self.singles.borrow_mut().under_way.vacant_key();
        let appended = match self.log.append_now(&[page], &[change], ticket) {
            Ok(Some(appended)) => appended,
            Ok(None) => {
                self.pages.give_up(page.page, page.sequence);
                return Turn::HasToWait;
            }
            Err(refusal) => {
                self.pages.give_up(page.page, page.sequence);
                let (party, riders) = self.take_those_who_wait(coin);
                self.tell_all(
                    coin,
                    party,
                    riders,
                    Err(refusal.into()),
                    self.environment.monotonic(),
                );
                return Turn::Over;
            }
        };
        if self.durability == Durability::Periodic {
            self.put(&[page], &[change], None, self.noted_now());
            self.log.settle(appended);
            let (party, riders) = self.take_those_who_wait(coin);
            self.tell_all(coin, party, riders, Ok(()), self.environment.monotonic());
            return Turn::Over;
        }
        self.locks.set_change(coin, Link::to(ticket));
        let (party, riders) = self.take_those_who_wait(coin);
        let place = self.singles.borrow_mut().under_way.insert(UnderWay {
            page,
            change,
            appended,
            party,
            riders,
        });
        assert_eq!(
            place, ticket,
            "nobody who is told of a change makes another at once"
        );
        Turn::UnderWay
    }

    /// Has a task see to the turn of the exchanges at the front of a coin's queue. The coin is held
    /// for them.
    fn spawn_turn(&self, coin: Coin) {
        let shard = self
            .myself
            .upgrade()
            .expect("a shard that is asked is there");
        self.environment.spawn(async move {
            match shard.value(coin).await {
                Err(Unavailable) => shard.refuse_turn(coin, NotChanged::Unavailable),
                Ok(before) => match shard.judge_turn(coin, before) {
                    None => shard.tell_at_once(coin),
                    Some(change) => {
                        let (party, riders) = shard.take_those_who_wait(coin);
                        let outcome = shard.commit(&[change]).await;
                        shard.tell_all(coin, party, riders, outcome, shard.environment.monotonic());
                    }
                },
            }
            shard.let_one_go(coin);
        });
    }

    /// Judges the exchanges at the front of a coin's queue, one after the other. Gives what they
    /// make of the coin, where any of them changes it.
    fn judge_turn(&self, coin: Coin, before: Option<(An, Mfs)>) -> Option<Change> {
        let month = self.month();
        let (mut value, mut changes) = (before, false);
        self.locks.judge(coin, |exchange| {
            let is_number = |of: Option<(An, Mfs)>| of.is_some_and(|(an, _)| an == exchange.an);
            if !is_number(value) {
                // One that names the number in force is wrong only if the change before it is made.
                return match changes && is_number(before) {
                    true => Verdict::WithChange(false),
                    false => Verdict::Now(false),
                };
            }
            let becomes = match exchange.becomes {
                Replacement::An(an) => Some((an, month)),
                Replacement::Free => None,
            };
            changes |= becomes != value;
            value = becomes;
            match changes {
                true => Verdict::WithChange(true),
                false => Verdict::Now(true),
            }
        });
        changes.then(|| {
            let (an, mfs) = value.unwrap_or_else(|| (self.unknown_an(), Mfs::FREE));
            Change { coin, an, mfs }
        })
    }

    /// Refuses the exchanges at the front of a coin's queue.
    fn refuse_turn(&self, coin: Coin, why: NotChanged) {
        self.locks.judge(coin, |_| Verdict::WithChange(false));
        let (party, riders) = self.take_those_who_wait(coin);
        self.tell_all(coin, party, riders, Err(why), self.environment.monotonic());
    }

    /// Tells exchanges that were judged; none of them changes the coin.
    fn tell_at_once(&self, coin: Coin) {
        let taken = self
            .locks
            .take_exchanges(coin, |party, passed| self.tell_now(coin, party, passed));
        assert!(taken.is_none(), "what changes nothing waits for nothing");
    }

    /// Tells exchanges that were judged what is known already. Returns the party that makes the
    /// change, and the exchanges that wait for it.
    fn take_those_who_wait(&self, coin: Coin) -> (Party, Riders) {
        let taken = self
            .locks
            .take_exchanges(coin, |party, passed| self.tell_now(coin, party, passed));
        taken.expect("somebody waits for the change")
    }

    fn tell_now(&self, coin: Coin, party: Party, passed: bool) {
        self.note_unchanged(usize::from(passed));
        self.end_and_tell(coin, party, Ok(passed), self.environment.monotonic());
    }

    /// Ends an exchange, counts it, and tells who asked for it what came of it.
    #[inline]
    fn end_and_tell(
        &self,
        coin: Coin,
        party: Party,
        outcome: Result<bool, NotChanged>,
        now: Duration,
    ) {
        self.end_exchange(party.repeat, outcome, now);
        if outcome == Ok(true) {
            self.count_powned(coin);
        }
        let listener = self.on_exchanged.get();
        let listener = listener.expect("somebody listens before a change is under way");
        listener(party.asker, outcome);
    }

    /// Tells those who share a change what came of it.
    fn tell_all(
        &self,
        coin: Coin,
        party: Party,
        mut riders: Riders,
        outcome: Result<(), NotChanged>,
        now: Duration,
    ) {
        self.end_and_tell(coin, party, outcome.map(|()| true), now);
        while let Some((party, passed)) = self.locks.next_rider(coin, &mut riders) {
            self.singles.borrow_mut().shared += u64::from(passed && outcome.is_ok());
            self.end_and_tell(coin, party, outcome.map(|()| passed), now);
        }
    }

    /// Ends changes whose records are durable, or refused, in the order of the log.
    pub(super) fn end_singles(&self, tickets: &[usize], outcome: Result<(), Refusal>) {
        let now = self.environment.monotonic();
        let noted_now = self.noted_now();
        for (number, &ticket) in tickets.iter().enumerate() {
            if let Some(&later) = tickets.get(number + ENDS_AHEAD) {
                self.prefetch_end(later);
            }
            let UnderWay {
                page,
                change,
                appended,
                party,
                riders,
            } = self.singles.borrow_mut().under_way.remove(ticket);
            match outcome {
                Ok(()) => self.put(&[page], &[change], None, noted_now),
                Err(_) => self.pages.give_up(page.page, page.sequence),
            }
            self.log.settle(appended);
            self.tell_all(
                change.coin,
                party,
                riders,
                outcome.map_err(NotChanged::from),
                now,
            );
            self.let_one_go(change.coin);
        }
    }

    /// Has the processor fetch what the end of this change will look into.
    #[inline]
    fn prefetch_end(&self, ticket: usize) {
        let UnderWay { change, party, .. } = &self.singles.borrow().under_way[ticket];
        self.pages.prefetch(change.coin);
        self.repeats.borrow().prefetch_end(party.repeat);
    }

    /// Has the processor fetch what an exchange, soon to come, will look into.
    #[inline]
    pub fn prefetch_exchange(&self, exchange: &Exchange) {
        self.pages.prefetch(exchange.coin);
        self.repeats.borrow().prefetch(self.name_of(exchange));
    }

    /// Counts a coin that got a new owner by itself.
    pub fn count_powned(&self, coin: Coin) {
        self.count(|counters| {
            counters.coins_powned += 1;
            counters.value_powned += u128::from(coin.denomination.worth_units());
        });
    }

    /// What a pown of one coin is called.
    #[inline]
    pub fn name_of(&self, exchange: &Exchange) -> ChangeName {
        // Freeing a coin is no pown, and nobody asks about it alone.
        let proposed = match exchange.becomes {
            Replacement::An(an) => an,
            Replacement::Free => An::ZERO,
        };
        (self.repeat_key).name_pown(exchange.coin, exchange.an, proposed)
    }

    /// Whether the same was carried out lately and the coin, which has this number, still has the
    /// one that it got. A request that does not name that number costs no look, and the answer is
    /// no.
    pub fn was_carried_out(&self, exchange: &Exchange, an: An) -> bool {
        let has_proposed = matches!(exchange.becomes, Replacement::An(proposed) if proposed == an);
        if !has_proposed {
            return false;
        }
        let now = self.environment.monotonic();
        let name = self.name_of(exchange);
        let was = self.repeats.borrow().was_carried_out(name, now);
        self.count(|counters| counters.repeats += u64::from(was));
        was
    }

    /// Counts changes that passed and left their coins as they were.
    pub fn note_unchanged(&self, coins: usize) {
        self.singles.borrow_mut().unchanged += coins as u64;
    }

    /// Counts a change that was refused because too many wait for a coin.
    pub fn note_crowded(&self) {
        self.singles.borrow_mut().refused += 1;
    }

    pub(super) fn crowded(&self, _: Crowded) -> NotChanged {
        self.note_crowded();
        NotChanged::Crowded
    }

    /// What waits for coins and for the log now, and how changes of one coin were spared a record.
    pub fn change_counts(&self) -> ChangeCounts {
        let singles = self.singles.borrow();
        let (log_waiting, log_refused) = self.log.waiting();
        ChangeCounts {
            waiting: (self.locks.waiting() + self.puts.waiting()) as u64,
            refused: singles.refused,
            shared: singles.shared,
            unchanged: singles.unchanged,
            log_waiting: log_waiting as u64,
            log_refused,
        }
    }

    /// The month that a coin has from now on when it gets a new number.
    pub fn month(&self) -> Mfs {
        let seconds = self.environment.unix_seconds();
        let (of, month) = self.month.get();
        if of == seconds {
            return month;
        }
        let month = Mfs::at_unix_seconds(seconds);
        self.month.set((seconds, month));
        month
    }
}
