use std::time::Duration;

use slab::Slab;

use super::{
    Exchange, Replacement, Sender, Shard, Unavailable,
    repeats::{BegunSingle, ChangeName, Place},
};
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    store::{
        Environment,
        log::{Appended, Durability, Refusal},
        pages::Lookup,
        record::{Change, PageSequence},
    },
};

/// What the owner of one coin is asked about that coin alone.
#[derive(Clone, Copy, Debug)]
pub enum Single {
    /// Is this its AN?
    Detect(Coin, An),
    /// Change it, if this is its AN: a pown, from there.
    Exchange(Exchange, Sender),
}

/// Who asked, and the number that the asker knows the question by.
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
    Now(Result<bool, Unavailable>),
    /// It is right, and the asker hears of it when it is durable.
    UnderWay,
    /// The same is under way, and its sender does not wait: there is no answer.
    Repeated,
    /// It has to wait for something else than the log: nothing has happened.
    HasToWait,
}

/// Hears what became of changes that were under way, each once.
pub type ExchangeListener = Box<dyn Fn(Asker, Result<bool, Unavailable>)>;

/// Changes of one coin that wait for the log, and for nothing else: the most frequent changes, and the
/// reason that they need neither a task nor an allocation each.
#[derive(Default)]
pub(super) struct Singles {
    under_way: Slab<UnderWay>,
}

struct UnderWay {
    page: PageSequence,
    change: Change,
    appended: Appended,
    asker: Asker,
    repeat: Place,
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
}

impl<E: Environment> Shard<E> {
    /// Answers a question about one of this shard's coins as far as that takes no wait but for the
    /// log.
    pub fn ask_one(&self, single: &Single, asker: Asker) -> Asked {
        match single {
            Single::Detect(coin, an) => match self.pages.lookup(*coin) {
                Lookup::Circulating(real, _) => Asked::Now(Ok(real == *an)),
                Lookup::Free => Asked::Now(Ok(false)),
                Lookup::Damaged => Asked::Now(Err(Unavailable)),
                Lookup::Unloaded => Asked::HasToWait,
            },
            Single::Exchange(exchange, sender) => self.exchange_one(exchange, *sender, asker),
        }
    }

    /// Has `listener` told of changes that are [under way](Asked::UnderWay). To be called once,
    /// before any is.
    pub fn listen(&self, listener: ExchangeListener) {
        let first = self.on_exchanged.set(listener).is_ok();
        assert!(first, "a shard has one listener");
    }

    fn exchange_one(&self, exchange: &Exchange, sender: Sender, asker: Asker) -> Asked {
        let coin = exchange.coin;
        if !self.locks.is_free(coin) {
            return match !sender.waits && self.is_under_way(exchange) {
                true => Asked::Repeated,
                false => Asked::HasToWait,
            };
        }
        match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) if an == exchange.an => {}
            Lookup::Circulating(an, _) => {
                return Asked::Now(Ok(self.was_carried_out(exchange, an)));
            }
            Lookup::Free => return Asked::Now(Ok(false)),
            Lookup::Damaged => return Asked::Now(Err(Unavailable)),
            Lookup::Unloaded => return Asked::HasToWait,
        }
        let mut repeats = self.repeats.borrow_mut();
        let repeat = match repeats.begin_single(self.name_of(exchange), sender) {
            BegunSingle::New(place) => place,
            BegunSingle::UnderWay if !sender.waits => return Asked::Repeated,
            BegunSingle::UnderWay | BegunSingle::NoPlace => return Asked::HasToWait,
        };
        let mut not_changed = || repeats.end_single(repeat, false, Duration::ZERO);
        let Some(sequence) = self.pages.begin(coin.page()) else {
            not_changed();
            return Asked::HasToWait;
        };
        let page = PageSequence {
            page: coin.page(),
            sequence,
        };
        let (an, mfs) = match exchange.becomes {
            Replacement::An(an) => (an, self.month()),
            Replacement::Free => (self.unknown_an(), Mfs::FREE),
        };
        let change = Change { coin, an, mfs };
        let mut singles = self.singles.borrow_mut();
        let entry = singles.under_way.vacant_entry();
        let ticket = entry.key();
        match self.log.append_now(&[page], &[change], ticket) {
            Err(_) => {
                not_changed();
                self.pages.give_up(page.page, page.sequence);
                Asked::Now(Err(Unavailable))
            }
            Ok(None) => {
                not_changed();
                self.pages.give_up(page.page, page.sequence);
                Asked::HasToWait
            }
            Ok(Some(appended)) if self.durability == Durability::Periodic => {
                self.put(&[page], &[change], None);
                self.log.settle(appended);
                repeats.end_single(repeat, true, self.environment.monotonic());
                self.count_powned(coin);
                Asked::Now(Ok(true))
            }
            Ok(Some(appended)) => {
                self.locks.hold(coin);
                entry.insert(UnderWay {
                    page,
                    change,
                    appended,
                    asker,
                    repeat,
                });
                Asked::UnderWay
            }
        }
    }

    /// Ends changes whose records are durable, or refused, in the order of the log.
    pub(super) fn end_singles(&self, tickets: &[usize], outcome: Result<(), Refusal>) {
        let listener = self.on_exchanged.get();
        let listener = listener.expect("somebody listens before a change is under way");
        let now = self.environment.monotonic();
        for &ticket in tickets {
            let UnderWay {
                page,
                change,
                appended,
                asker,
                repeat,
            } = self.singles.borrow_mut().under_way.remove(ticket);
            match outcome {
                Ok(()) => self.put(&[page], &[change], None),
                Err(_) => self.pages.give_up(page.page, page.sequence),
            }
            let mut repeats = self.repeats.borrow_mut();
            repeats.end_single(repeat, outcome.is_ok(), now);
            drop(repeats);
            self.locks.release(&[change.coin]);
            self.log.settle(appended);
            if outcome.is_ok() {
                self.count_powned(change.coin);
            }
            listener(asker, outcome.map(|()| true).map_err(|_| Unavailable));
        }
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
        // Coins that are to be freed are no pown, and nobody asks about them alone.
        let proposed = match exchange.becomes {
            Replacement::An(an) => an,
            Replacement::Free => An::ZERO,
        };
        (self.repeat_key).name_pown(exchange.coin, exchange.an, proposed)
    }

    /// Whether the same is under way. To be asked of a coin that somebody holds.
    #[cold]
    fn is_under_way(&self, exchange: &Exchange) -> bool {
        let name = self.name_of(exchange);
        self.repeats.borrow().is_under_way(name)
    }

    /// Whether the same was carried out lately and the coin, which has this number, still has the one
    /// that it got. Who does not know that number asks in vain, and costs no look.
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

    /// The month that a coin has from now on when it gets a new number.
    pub fn month(&self) -> Mfs {
        Mfs::at_unix_seconds(self.environment.unix_seconds())
    }
}
