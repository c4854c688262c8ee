use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use foldhash::fast::FixedState;

use crate::coin::Coin;

/// Coins taken before the core's other tasks get their turn.
const COINS_A_TURN: usize = 1_024;

/// Who may change which coin. Writers of a coin take turns in the order they came; readers do not
/// ask.
///
/// Whoever needs several coins takes them in rising order, and shards in rising order, so that no
/// two can wait for each other (DESIGN.md section 4).
#[derive(Default)]
pub struct Locks {
    held: RefCell<HashMap<Coin, VecDeque<Rc<Turn>>, FixedState>>,
}

#[derive(Default)]
struct Turn {
    has_come: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Locks {
    /// Waits until all these coins are the caller's. `coins` are rising, each once. Where they are
    /// many, `let_others` gives other tasks their turn now and then.
    pub async fn acquire(&self, coins: &[Coin], let_others: impl AsyncFn()) {
        debug_assert!(coins.is_sorted_by(|a, b| a < b));
        for (index, &coin) in coins.iter().enumerate() {
            if index % COINS_A_TURN == COINS_A_TURN - 1 {
                let_others().await;
            }
            let turn = match self.held.borrow_mut().entry(coin) {
                Entry::Vacant(free) => {
                    free.insert(VecDeque::new());
                    continue;
                }
                Entry::Occupied(mut queue) => {
                    let turn = Rc::new(Turn::default());
                    queue.get_mut().push_back(turn.clone());
                    turn
                }
            };
            poll_fn(|context| {
                if turn.has_come.get() {
                    return Poll::Ready(());
                }
                *turn.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// Whether nobody holds the coin.
    #[inline]
    pub fn is_free(&self, coin: Coin) -> bool {
        !self.held.borrow().contains_key(&coin)
    }

    /// Takes a coin that [nobody holds](Locks::is_free).
    ///
    /// # Panics
    /// When somebody does.
    #[inline]
    pub fn hold(&self, coin: Coin) {
        let before = self.held.borrow_mut().insert(coin, VecDeque::new());
        assert!(before.is_none(), "a coin is held by one at a time");
    }

    /// Gives the coins to whoever waits for them.
    ///
    /// # Panics
    /// When a coin was not held.
    pub fn release(&self, coins: &[Coin]) {
        for coin in coins {
            let mut held = self.held.borrow_mut();
            let queue = held.get_mut(coin).expect("only what is held is released");
            let Some(next) = queue.pop_front() else {
                held.remove(coin);
                continue;
            };
            drop(held);
            next.has_come.set(true);
            let waker = next.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    #[cfg(test)]
    fn held_count(&self) -> usize {
        self.held.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;
    use crate::coin::PageId;

    #[test]
    fn writers_of_a_coin_take_turns_in_the_order_they_came() {
        let coin = [PageId::from_index(1).unwrap().coin(1)];
        let locks = Locks::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(locks.acquire(&coin, async || ()));
        let mut second = pin!(locks.acquire(&coin, async || ()));
        let mut third = pin!(locks.acquire(&coin, async || ()));
        assert!(first.as_mut().poll(&mut context).is_ready());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(third.as_mut().poll(&mut context).is_pending());
        locks.release(&coin);
        assert!(third.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_ready());
        locks.release(&coin);
        assert!(third.as_mut().poll(&mut context).is_ready());
        locks.release(&coin);
        assert_eq!(locks.held_count(), 0);
    }
}
