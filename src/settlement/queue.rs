use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

use super::{Verdict, question::Question};

/// Questions on their way from cores to the thread, first come first served. Cores take no lock
/// here.
pub(super) struct Queue {
    questions: ArrayQueue<Arc<Question>>,
    /// Number of questions without a verdict, waiting and running.
    open: AtomicUsize,
    /// Number of questions that found no room since the thread last looked.
    turned_away: AtomicU64,
    is_closed: AtomicBool,
    /// Readable when there is something for the thread to look at.
    bell: OwnedFd,
}

impl Queue {
    /// A queue for `most` questions without a verdict, the running ones included.
    pub fn new(most: usize) -> io::Result<Queue> {
        Ok(Queue {
            questions: ArrayQueue::new(most),
            open: AtomicUsize::new(0),
            turned_away: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Puts a question in; it is pending at once where there is no room, or nobody to look at it.
    pub fn put(&self, question: Arc<Question>) {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.questions.capacity() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            question.end(Verdict::Pending);
            return;
        }
        if let Err(question) = self.questions.push(question) {
            // There is room for all open questions; if not, this keeps the asker from waiting.
            self.end(&question, Verdict::Pending);
        }
        self.ring();
        // This look comes after the push: either `close` sees the question, or this sees that the
        // queue is closed.
        if self.is_closed() {
            self.empty();
        }
    }

    /// The next question.
    pub fn take(&self) -> Option<Arc<Question>> {
        self.questions.pop()
    }

    /// Gives a question that was put in its verdict, and makes room for another.
    pub fn end(&self, question: &Question, verdict: Verdict) {
        // Before the asker wakes and finds no room for the next one.
        self.open.fetch_sub(1, Ordering::Relaxed);
        question.end(verdict);
    }

    /// Has every question be pending from now on, at once.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.ring();
        self.empty();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// How many found no room since the last call.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.swap(0, Ordering::Relaxed)
    }

    /// Has the bell stop ringing. To be called before looking, so that nothing is missed.
    pub fn silence(&self) {
        // Nothing to read is no failure: it did not ring.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    fn ring(&self) {
        // Cannot fail: the number stays far below where it would have to wait.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn empty(&self) {
        while let Some(question) = self.take() {
            self.end(&question, Verdict::Pending);
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
