use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map::Entry},
    future::poll_fn,
    task::{Poll, Waker},
};

use foldhash::fast::FixedState;
use slab::Slab;

use super::{Exchange, single::Party};
use crate::coin::Coin;

/// Exchanges of one coin alone that may wait for the coin or, with others, for the log. Those who
/// wait beyond this know the coin's number as well as its owner does: they are one client that
/// sends faster than a disk writes.
pub const EXCHANGES_MAX: usize = 48;

/// Requests about several coins that may wait for one of them. They have places of their own, so
/// that neither kind can keep the other out.
pub const TASKS_MAX: usize = 16;

/// The maximum number of requests waits for this coin already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

/// Who may change which coin. Writers of a coin take turns in the order they came; readers do not
/// ask.
///
/// A request for several coins takes them in rising order, and shards in rising order, so that no
/// two requests can wait for each other (docs/architecture.md, "A request's way").
///
/// Two kinds wait: tasks, for a request about several coins, and [exchanges](Exchange) of one coin,
/// which need no task. Exchanges that stand next to each other have their turn together.
#[derive(Default)]
pub(super) struct Locks {
    table: RefCell<Table>,
    waiting: Cell<usize>,
}

#[derive(Default)]
struct Table {
    held: HashMap<Coin, Queue, FixedState>,
    waiters: Slab<Waiter>,
}

/// A coin that is held, and who waits for it. Small: each change of a coin moves one in and out.
#[derive(Clone, Copy)]
struct Queue {
    first: Link,
    last: Link,
    /// The change under way that holds the coin, where it is one of exchanges.
    change: Link,
    exchanges: u8,
    tasks: u8,
}

/// A number in a slab, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(u32);

struct Waiter {
    what: Waits,
    next: Link,
}

enum Waits {
    /// A task. It stays after it has left the queue, until it sees that its turn has come.
    Task {
        waker: Option<Waker>,
        has_come: bool,
    },
    /// An exchange, and whose it is. It stays after it has left the queue, while it waits for
    /// the log.
    Exchange {
        exchange: Exchange,
        party: Party,
        verdict: Verdict,
    },
}

/// What an exchange came to, when its turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Whether it passed; the outcome is already in force.
    Now(bool),
    /// Whether it passed, once the change that it shares with others is durable.
    WithChange(bool),
}

/// What came of the wish for a coin.
pub(super) enum Entered {
    /// The coin is the caller's.
    Held,
    /// It is when its [turn](Locks::turn) has come.
    Waits(TaskId),
}

/// A task that waits for a coin.
pub(super) struct TaskId(u32);

/// Whose turn it is with a coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody's, or a task's; the task sees that by itself.
    Others,
    /// That of the [exchanges](Locks::judge) at the front of the queue. The coin is held for them.
    Exchanges,
}

/// Exchanges that have left the queue and wait for the log.
pub(super) struct Riders(Link);

impl Link {
    pub const NONE: Link = Link(u32::MAX);

    pub fn to(number: usize) -> Link {
        debug_assert!(number < u32::MAX as usize, "memory ends long before");
        Link(number as u32)
    }

    pub fn get(self) -> Option<usize> {
        (self != Link::NONE).then_some(self.0 as usize)
    }
}

impl Queue {
    const EMPTY: Queue = Queue {
        first: Link::NONE,
        last: Link::NONE,
        change: Link::NONE,
        exchanges: 0,
        tasks: 0,
    };
}

impl Riders {
    pub const NONE: Riders = Riders(Link::NONE);
}

impl Locks {
    /// Whether nobody holds the coin.
    #[inline]
    pub fn is_free(&self, coin: Coin) -> bool {
        !self.table.borrow().held.contains_key(&coin)
    }

    /// Takes a coin that [nobody holds](Locks::is_free) for a change, by the change's number.
    ///
    /// # Panics
    /// When somebody does.
    #[inline]
    pub fn hold(&self, coin: Coin, change: Link) {
        let queue = Queue {
            change,
            ..Queue::EMPTY
        };
        let before = self.table.borrow_mut().held.insert(coin, queue);
        assert!(before.is_none(), "a coin is held by one at a time");
    }

    /// Takes a coin for a task, or a place in its queue.
    ///
    /// # Errors
    /// As many tasks wait for it as may.
    pub fn enter_task(&self, coin: Coin) -> Result<Entered, Crowded> {
        let mut table = self.table.borrow_mut();
        let Table { held, waiters } = &mut *table;
        let queue = match held.entry(coin) {
            Entry::Vacant(free) => {
                free.insert(Queue::EMPTY);
                return Ok(Entered::Held);
            }
            Entry::Occupied(queue) => queue.into_mut(),
        };
        if usize::from(queue.tasks) >= TASKS_MAX {
            return Err(Crowded);
        }
        queue.tasks += 1;
        let waits = Waits::Task {
            waker: None,
            has_come: false,
        };
        let task = append(queue, waiters, waits);
        self.waiting.set(self.waiting.get() + 1);
        Ok(Entered::Waits(TaskId(task.0)))
    }

    /// Waits until the coin is the task's.
    pub async fn turn(&self, task: TaskId) {
        poll_fn(|context| {
            let mut table = self.table.borrow_mut();
            let waiter = &mut table.waiters[task.0 as usize];
            let Waits::Task { waker, has_come } = &mut waiter.what else {
                unreachable!("the number is a task's until the task has seen its turn");
            };
            if *has_come {
                table.waiters.remove(task.0 as usize);
                return Poll::Ready(());
            }
            *waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Puts an exchange into the queue of a coin that is held.
    ///
    /// # Errors
    /// As many exchanges wait for it as may.
    pub fn enter_exchange(&self, exchange: Exchange, party: Party) -> Result<(), Crowded> {
        let mut table = self.table.borrow_mut();
        let Table { held, waiters } = &mut *table;
        let queue = held.get_mut(&exchange.coin).expect("the coin is held");
        if usize::from(queue.exchanges) >= EXCHANGES_MAX {
            return Err(Crowded);
        }
        queue.exchanges += 1;
        let waits = Waits::Exchange {
            exchange,
            party,
            verdict: Verdict::Now(false),
        };
        append(queue, waiters, waits);
        self.waiting.set(self.waiting.get() + 1);
        Ok(())
    }

    /// The change of exchanges that holds the coin; none where something else does.
    pub fn change(&self, coin: Coin) -> Link {
        self.table.borrow().held[&coin].change
    }

    /// Notes which change of exchanges holds a coin, whose turn is theirs.
    pub fn set_change(&self, coin: Coin, change: Link) {
        let mut table = self.table.borrow_mut();
        let queue = table.held.get_mut(&coin).expect("the coin is held");
        queue.change = change;
    }

    /// Whether only exchanges wait for a coin that is held, and `each` holds for all of them.
    pub fn waits_only(&self, coin: Coin, mut each: impl FnMut(&Exchange) -> bool) -> bool {
        let table = self.table.borrow();
        let mut link = table.held[&coin].first;
        while let Some(number) = link.get() {
            let waiter = &table.waiters[number];
            match &waiter.what {
                Waits::Exchange { exchange, .. } if each(exchange) => link = waiter.next,
                _ => return false,
            }
        }
        true
    }

    /// Has `judge` say what the exchanges at the front of a coin's queue come to, in their order.
    pub fn judge(&self, coin: Coin, mut judge: impl FnMut(&Exchange) -> Verdict) {
        let mut table = self.table.borrow_mut();
        let mut link = table.held[&coin].first;
        while let Some(number) = link.get() {
            let waiter = &mut table.waiters[number];
            let Waits::Exchange {
                exchange, verdict, ..
            } = &mut waiter.what
            else {
                return;
            };
            *verdict = judge(exchange);
            link = waiter.next;
        }
    }

    /// Takes the exchanges at the front of a coin's queue out of it. Those whose verdict is known
    /// already are handed to `tell`; the others, in their order, wait on: the first of them, which
    /// changes the coin, is returned by its party, and the rest as riders.
    pub fn take_exchanges(
        &self,
        coin: Coin,
        mut tell: impl FnMut(Party, bool),
    ) -> Option<(Party, Riders)> {
        let mut first = None;
        let (mut head, mut tail) = (Link::NONE, Link::NONE);
        loop {
            let mut table = self.table.borrow_mut();
            let Table { held, waiters } = &mut *table;
            let queue = held.get_mut(&coin).expect("the coin is held");
            let Some(number) = queue.first.get() else {
                break;
            };
            let waiter = &mut waiters[number];
            let Waits::Exchange { party, verdict, .. } = waiter.what else {
                break;
            };
            let link = queue.first;
            queue.first = waiter.next;
            if queue.first == Link::NONE {
                queue.last = Link::NONE;
            }
            if first.is_some()
                && let Verdict::WithChange(_) = verdict
            {
                waiter.next = Link::NONE;
                match tail.get() {
                    Some(tail) => waiters[tail].next = link,
                    None => head = link,
                }
                tail = link;
                continue;
            }
            queue.exchanges -= 1;
            waiters.remove(number);
            self.waiting.set(self.waiting.get() - 1);
            drop(table); // a request that is told may ask for more
            match verdict {
                Verdict::Now(passed) => tell(party, passed),
                Verdict::WithChange(_) => first = Some(party),
            }
        }
        first.map(|party| (party, Riders(head)))
    }

    /// The next exchange that waited for the log, with whether it passed if its change is durable.
    /// Its coin is still held.
    pub fn next_rider(&self, coin: Coin, riders: &mut Riders) -> Option<(Party, bool)> {
        let number = riders.0.get()?;
        let mut table = self.table.borrow_mut();
        let Waiter { what, next } = table.waiters.remove(number);
        let Waits::Exchange { party, verdict, .. } = what else {
            unreachable!("only exchanges wait for the log in this way");
        };
        let queue = table.held.get_mut(&coin).expect("the coin is held");
        queue.exchanges -= 1;
        self.waiting.set(self.waiting.get() - 1);
        riders.0 = next;
        let (Verdict::Now(passed) | Verdict::WithChange(passed)) = verdict;
        Some((party, passed))
    }

    /// Gives a coin to the next request that waits for it.
    ///
    /// # Panics
    /// When it was not held.
    #[inline]
    pub fn release(&self, coin: Coin) -> Next {
        let mut table = self.table.borrow_mut();
        let Table { held, waiters } = &mut *table;
        let Entry::Occupied(mut entry) = held.entry(coin) else {
            panic!("only what is held is released");
        };
        let queue = entry.get_mut();
        let Some(number) = queue.first.get() else {
            entry.remove();
            return Next::Others;
        };
        queue.change = Link::NONE;
        let waiter = &mut waiters[number];
        let Waits::Task { waker, has_come } = &mut waiter.what else {
            return Next::Exchanges;
        };
        *has_come = true;
        let waker = waker.take();
        queue.first = waiter.next;
        if queue.first == Link::NONE {
            queue.last = Link::NONE;
        }
        queue.tasks -= 1;
        self.waiting.set(self.waiting.get() - 1);
        drop(table);
        if let Some(waker) = waker {
            waker.wake();
        }
        Next::Others
    }

    /// Requests that wait for a coin now, those included that wait for the log with others.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let table = self.table.borrow();
        table.held.is_empty() && table.waiters.is_empty()
    }
}

fn append(queue: &mut Queue, waiters: &mut Slab<Waiter>, what: Waits) -> Link {
    let next = Link::NONE;
    let link = Link::to(waiters.insert(Waiter { what, next }));
    match queue.last.get() {
        Some(last) => waiters[last].next = link,
        None => queue.first = link,
    }
    queue.last = link;
    link
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;
    use crate::{
        coin::{An, PageId},
        shard::{Asker, Replacement, repeats::Place},
    };

    fn party(id: usize) -> Party {
        Party {
            asker: Asker::Here(id),
            repeat: Place::NONE,
        }
    }

    fn coin() -> Coin {
        PageId::from_index(1).unwrap().coin(1)
    }

    fn exchange(number: u8) -> Exchange {
        Exchange {
            coin: coin(),
            an: An::new([number; 16]),
            becomes: Replacement::An(An::new([number + 1; 16])),
        }
    }

    fn wait(locks: &Locks) -> TaskId {
        match locks.enter_task(coin()) {
            Ok(Entered::Waits(task)) => task,
            _ => panic!("the coin is held, and there is room"),
        }
    }

    #[test]
    fn tasks_of_a_coin_take_turns_in_the_order_they_came() {
        let locks = Locks::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(locks.enter_task(coin()), Ok(Entered::Held)));
        let mut second = pin!(locks.turn(wait(&locks)));
        let mut third = pin!(locks.turn(wait(&locks)));
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert_eq!(locks.release(coin()), Next::Others);
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_ready());
        assert_eq!(locks.release(coin()), Next::Others);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert_eq!(locks.waiting(), 0);
        assert_eq!(locks.release(coin()), Next::Others);
        assert!(locks.is_empty());
    }

    #[test]
    fn exchanges_have_their_turn_together_up_to_the_next_task() {
        let locks = Locks::default();
        locks.hold(coin(), Link::NONE);
        let enter = |id| {
            let entered = locks.enter_exchange(exchange(id as u8), party(id));
            entered.unwrap();
        };
        (1..=5).for_each(enter);
        let task = wait(&locks);
        enter(6);
        assert_eq!(locks.waiting(), 7);

        assert_eq!(locks.release(coin()), Next::Exchanges);
        assert!(!locks.is_free(coin()));
        let mut judged = Vec::new();
        locks.judge(coin(), |exchange| {
            judged.push(exchange.an.expose()[0]);
            match judged.len() {
                1 => Verdict::Now(true),
                3 => Verdict::Now(false),
                4 => Verdict::WithChange(false),
                _ => Verdict::WithChange(true),
            }
        });
        assert_eq!(judged, [1, 2, 3, 4, 5]);
        let mut told = Vec::new();
        let taken = locks.take_exchanges(coin(), |party, passed| told.push((party, passed)));
        assert_eq!(told, [(party(1), true), (party(3), false)]);
        let (first, mut riders) = taken.unwrap();
        assert_eq!(first, party(2));
        assert_eq!(locks.waiting(), 4, "riders wait still");
        let mut rode = Vec::new();
        while let Some(rider) = locks.next_rider(coin(), &mut riders) {
            rode.push(rider);
        }
        assert_eq!(rode, [(party(4), false), (party(5), true)]);

        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(locks.release(coin()), Next::Others);
        assert!(pin!(locks.turn(task)).poll(&mut context).is_ready());
        assert_eq!(locks.release(coin()), Next::Exchanges);
        locks.judge(coin(), |_| Verdict::Now(false));
        assert!(locks.take_exchanges(coin(), |_, _| ()).is_none());
        assert_eq!(locks.release(coin()), Next::Others);
        assert_eq!(locks.waiting(), 0);
        assert!(locks.is_empty());
    }

    #[test]
    fn exchanges_cannot_keep_tasks_out_nor_tasks_exchanges() {
        let locks = Locks::default();
        locks.hold(coin(), Link::NONE);
        for id in 0..EXCHANGES_MAX {
            locks.enter_exchange(exchange(1), party(id)).unwrap();
        }
        assert_eq!(locks.enter_exchange(exchange(1), party(99)), Err(Crowded));
        for _ in 0..TASKS_MAX {
            let _ = wait(&locks);
        }
        assert!(locks.enter_task(coin()).is_err());
        assert_eq!(locks.waiting(), EXCHANGES_MAX + TASKS_MAX);
        let other = PageId::from_index(1).unwrap().coin(2);
        assert!(matches!(locks.enter_task(other), Ok(Entered::Held)));
    }

    #[test]
    fn exchanges_that_wait_for_the_log_keep_their_places() {
        let locks = Locks::default();
        locks.hold(coin(), Link::NONE);
        for id in 0..EXCHANGES_MAX {
            locks.enter_exchange(exchange(1), party(id)).unwrap();
        }
        locks.release(coin());
        locks.judge(coin(), |_| Verdict::WithChange(true));
        let (_, mut riders) = locks.take_exchanges(coin(), |_, _| ()).unwrap();
        locks.enter_exchange(exchange(1), party(100)).unwrap();
        assert!(locks.enter_exchange(exchange(1), party(101)).is_err());
        while locks.next_rider(coin(), &mut riders).is_some() {}
        locks.enter_exchange(exchange(1), party(101)).unwrap();
        assert_eq!(locks.waiting(), 2);
    }
}
