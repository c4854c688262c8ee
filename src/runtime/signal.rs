use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use slab::Slab;

/// Lets tasks of one core wait until something may have changed. It says only that: each waiting
/// task looks for itself.
///
/// Take a [`moment`](Signal::moment) before looking, and wait for a later one; then a change
/// between the look and the wait is not missed.
#[derive(Default)]
pub struct Signal {
    moment: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

/// A point in a [`Signal`]'s history.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

impl Signal {
    /// Now.
    pub fn moment(&self) -> Moment {
        Moment(self.moment.get())
    }

    /// Wakes everyone who waits.
    pub fn notify(&self) {
        self.moment.set(self.moment.get() + 1);
        if self.waiting.borrow().is_empty() {
            return;
        }
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until [`notify`](Signal::notify) was called after `since`.
    pub fn after(&self, since: Moment) -> After<'_> {
        After {
            signal: self,
            since,
            key: None,
        }
    }
}

/// Ready when its [`Signal`] has moved on.
pub struct After<'a> {
    signal: &'a Signal,
    since: Moment,
    key: Option<usize>,
}

impl Future for After<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.moment() != self.since {
            return Poll::Ready(());
        }
        let mut waiting = self.signal.waiting.borrow_mut();
        match self.key {
            Some(key) => waiting[key].clone_from(context.waker()),
            None => {
                let key = waiting.insert(context.waker().clone());
                drop(waiting);
                self.key = Some(key);
            }
        }
        Poll::Pending
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        // A signal that moved on has forgotten its wakers, and the key may be another's.
        if let Some(key) = self.key
            && self.signal.moment() == self.since
        {
            self.signal.waiting.borrow_mut().remove(key);
        }
    }
}

/// Lets the core's other tasks run, then goes on.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
