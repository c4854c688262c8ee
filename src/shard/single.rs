use slab::Slab;

use super::{Exchange, Replacement, Shard, Unavailable};
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
    /// Change it, if this is its AN.
    Exchange(Exchange),
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
}

impl Single {
    /// The coin that it is about.
    #[inline]
    pub fn coin(&self) -> Coin {
        match self {
            Single::Detect(coin, _) => *coin,
            Single::Exchange(exchange) => exchange.coin,
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
            Single::Exchange(exchange) => self.exchange_one(exchange, asker),
        }
    }

    /// Has `listener` told of changes that are [under way](Asked::UnderWay). To be called once,
    /// before any is.
    pub fn listen(&self, listener: ExchangeListener) {
        let first = self.on_exchanged.set(listener).is_ok();
        assert!(first, "a shard has one listener");
    }

    fn exchange_one(&self, exchange: &Exchange, asker: Asker) -> Asked {
        let coin = exchange.coin;
        if self.is_stalled() {
            return Asked::Now(Err(Unavailable));
        }
        if !self.locks.is_free(coin) {
            return Asked::HasToWait;
        }
        match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) if an == exchange.an => {}
            Lookup::Circulating(..) | Lookup::Free => return Asked::Now(Ok(false)),
            Lookup::Damaged => return Asked::Now(Err(Unavailable)),
            Lookup::Unloaded => return Asked::HasToWait,
        }
        let Some(sequence) = self.pages.begin(coin.page()) else {
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
                self.pages.give_up(page.page, page.sequence);
                Asked::Now(Err(Unavailable))
            }
            Ok(None) => {
                self.pages.give_up(page.page, page.sequence);
                Asked::HasToWait
            }
            Ok(Some(appended)) if self.durability == Durability::Periodic => {
                self.put(&[page], &[change], None);
                self.log.settle(appended);
                Asked::Now(Ok(true))
            }
            Ok(Some(appended)) => {
                self.locks.hold(coin);
                entry.insert(UnderWay {
                    page,
                    change,
                    appended,
                    asker,
                });
                Asked::UnderWay
            }
        }
    }

    /// Ends changes whose records are durable, or refused, in the order of the log.
    pub(super) fn end_singles(&self, tickets: &[usize], outcome: Result<(), Refusal>) {
        let listener = self.on_exchanged.get();
        let listener = listener.expect("somebody listens before a change is under way");
        for &ticket in tickets {
            let UnderWay {
                page,
                change,
                appended,
                asker,
            } = self.singles.borrow_mut().under_way.remove(ticket);
            match outcome {
                Ok(()) => self.put(&[page], &[change], None),
                Err(_) => self.pages.give_up(page.page, page.sequence),
            }
            self.locks.release(&[change.coin]);
            self.log.settle(appended);
            listener(asker, outcome.map(|()| true).map_err(|_| Unavailable));
        }
    }

    /// The month that a coin has from now on when it gets a new number.
    pub fn month(&self) -> Mfs {
        Mfs::at_unix_seconds(self.environment.unix_seconds())
    }
}
