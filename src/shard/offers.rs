use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use foldhash::fast::RandomState;

use super::locks::{Crowded, TASKS_MAX};
use crate::{
    coin::An,
    protocol::lockers::{Offer, TradeKey},
};

/// What only one request at a time may be about to do. A request that needs both kinds takes the
/// key first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// Put coins under this trade key up for sale.
    Key([u8; An::SIZE]),
    /// Offer this, which nobody else may offer as well.
    Offer(Offer),
}

impl Put {
    /// The `Put` for a key.
    pub fn under(key: TradeKey) -> Put {
        Put::Key(*key.an().expose())
    }
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Put::Key(_) => "Key(secret)",
            Put::Offer(_) => "Offer",
        })
    }
}

/// Who is about to put what up for sale. A shard keeps what hashes to it.
#[derive(Default)]
pub(super) struct Puts {
    held: RefCell<HashMap<Put, VecDeque<Rc<Turn>>, RandomState>>,
    waiting: Cell<usize>,
}

#[derive(Default)]
struct Turn {
    has_come: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Puts {
    /// Waits until nobody else is about to do this, in the order they came.
    ///
    /// # Errors
    /// As many wait for it as may.
    pub(super) async fn acquire(&self, put: Put) -> Result<(), Crowded> {
        let turn = match self.held.borrow_mut().entry(put) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                return Ok(());
            }
            Entry::Occupied(queue) if queue.get().len() >= TASKS_MAX => return Err(Crowded),
            Entry::Occupied(mut queue) => {
                let turn = Rc::new(Turn::default());
                queue.get_mut().push_back(turn.clone());
                turn
            }
        };
        self.waiting.set(self.waiting.get() + 1);
        poll_fn(|context| {
            if turn.has_come.get() {
                return Poll::Ready(());
            }
            *turn.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        Ok(())
    }

    /// Lets the next one do it.
    pub(super) fn release(&self, put: &Put) {
        let mut held = self.held.borrow_mut();
        let queue = held.get_mut(put).expect("only what is held is released");
        let Some(next) = queue.pop_front() else {
            held.remove(put);
            return;
        };
        drop(held);
        self.waiting.set(self.waiting.get() - 1);
        next.has_come.set(true);
        let waker = next.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Requests that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.get()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    #[test]
    fn those_who_put_up_the_same_take_turns_and_are_not_too_many() {
        let puts = Puts::default();
        let put = Put::Key([7; 16]);
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(puts.acquire(put));
        assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        let mut others: Vec<_> = (0..TASKS_MAX)
            .map(|_| Box::pin(puts.acquire(put)))
            .collect();
        for other in &mut others {
            assert!(other.as_mut().poll(&mut context).is_pending());
        }
        let mut crowded = pin!(puts.acquire(put));
        assert_eq!(
            crowded.as_mut().poll(&mut context),
            Poll::Ready(Err(Crowded))
        );
        let mut else_where = pin!(puts.acquire(Put::Key([8; 16])));
        assert_eq!(else_where.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        for other in &mut others {
            puts.release(&put);
            assert_eq!(other.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        }
        puts.release(&put);
        assert_eq!(puts.waiting(), 0);
        assert_eq!(puts.held.borrow().len(), 1);
    }
}
