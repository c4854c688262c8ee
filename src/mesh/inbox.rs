use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use crossbeam_queue::SegQueue;

use super::errand::Errand;
use crate::runtime::Environment;
use crate::{
    coin::ShardId,
    shard::{EndedChange, NotChanged, Single},
};

/// A message on its way from one shard's core to another's.
pub(super) enum Envelope<E: Environment> {
    /// A question; `from` is told under `id` when its answer is there.
    Question {
        from: ShardId,
        id: usize,
        errand: Box<dyn Errand<E>>,
    },
    /// The answer to the question that the receiver asked under `id` is there.
    Answered { id: usize },
    /// A question about one coin; the answer goes back to `from` under `id`.
    Single {
        from: ShardId,
        id: usize,
        single: Single,
    },
    /// The answer to the question about one coin that the receiver asked under `id`; `None` where
    /// there is none.
    Passed {
        id: usize,
        passed: Option<Result<bool, NotChanged>>,
    },
    /// A request that began at the receiver is over.
    Ended(EndedChange),
    /// Whether the sender's disk answers; sent when that changes.
    Stalled { from: ShardId, is_stalled: bool },
}

/// Where a shard's messages arrive. Messages of one sender are taken in the order they were sent.
///
/// Waking a core costs a system call, so only the first message since the receiver last looked
/// wakes it; those that follow are found with it. What is in the queue is bounded by the requests
/// that all cores have in flight.
pub struct Inbox<E: Environment> {
    queue: SegQueue<Envelope<E>>,
    is_woken: AtomicBool,
    waker: AtomicWaker,
}

/// An inbox a shard, for all cores to share.
pub fn inboxes<E: Environment>(shards: u16) -> Arc<[Inbox<E>]> {
    let inbox = |_| Inbox {
        queue: SegQueue::new(),
        is_woken: AtomicBool::new(false),
        waker: AtomicWaker::new(),
    };
    (0..shards).map(inbox).collect()
}

impl<E: Environment> Inbox<E> {
    pub(super) fn send(&self, envelope: Envelope<E>) {
        self.queue.push(envelope);
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Wakes the receiver without a message.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// How many messages there are now.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The next message, where there is one.
    pub(super) fn take(&self) -> Option<Envelope<E>> {
        self.queue.pop()
    }

    /// The next message, or pending until one comes.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Envelope<E>> {
        if let Some(envelope) = self.queue.pop() {
            return Poll::Ready(envelope);
        }
        self.waker.register(context.waker());
        // From here on a sender wakes this receiver. If a sender's swap came before this one, this
        // swap sees it, and the look that follows sees its message.
        self.is_woken.swap(false, Ordering::AcqRel);
        match self.queue.pop() {
            Some(envelope) => Poll::Ready(envelope),
            None => Poll::Pending,
        }
    }
}
