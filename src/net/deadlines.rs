use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::runtime::Timer;

/// How often deadlines are checked, and so how late a time-out may be. No connection or request has
/// a kernel timer of its own.
const SWEEP_MS: u64 = 50;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The deadlines of one core's connections. While there is a connection, one task checks all
/// deadlines every 50 ms; while there is none, no timer runs.
///
/// Times are milliseconds since the start, as of the last check: asking for the time needs no call
/// of the clock.
#[derive(Debug)]
pub(super) struct Deadlines {
    start: Instant,
    now_ms: Cell<u64>,
    sweeping: Cell<bool>,
    entries: RefCell<Entries>,
}

/// One after the other in memory and separate from the wakers: 10,000 deadlines are 80 KB, checked
/// in microseconds.
#[derive(Debug, Default)]
struct Entries {
    due_ms: Vec<u64>,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One connection's deadline, until dropped.
#[derive(Debug)]
pub(super) struct Deadline {
    deadlines: Rc<Deadlines>,
    index: usize,
}

impl Deadlines {
    /// Times count from `start`, the same for all cores.
    pub(super) fn new(start: Instant) -> Rc<Deadlines> {
        Rc::new(Deadlines {
            start,
            now_ms: Cell::new(0),
            sweeping: Cell::new(false),
            entries: RefCell::default(),
        })
    }

    /// Adds a connection; `waker` is woken from its deadline on, at every check.
    pub(super) fn enter(self: &Rc<Deadlines>, waker: Waker) -> Deadline {
        let mut entries = self.entries.borrow_mut();
        let index = match entries.free.pop() {
            Some(index) => index,
            None => {
                entries.due_ms.push(NEVER);
                entries.wakers.push(None);
                entries.due_ms.len() - 1
            }
        };
        entries.wakers[index] = Some(waker);
        drop(entries);
        if !self.sweeping.replace(true) {
            self.look_at_the_clock();
            crate::runtime::spawn_local(Rc::clone(self).sweep()).detach();
        }
        Deadline {
            deadlines: Rc::clone(self),
            index,
        }
    }

    /// Number of connections.
    pub(super) fn connections(&self) -> usize {
        let entries = self.entries.borrow();
        entries.due_ms.len() - entries.free.len()
    }

    /// Wakes every connection, to check a change that concerns all.
    pub(super) fn wake_all(&self) {
        let wakers: Vec<Waker> = {
            let entries = self.entries.borrow();
            entries.wakers.iter().flatten().cloned().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The present time, as of the last check.
    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The time that is `ms` after now, or a little later. It is never earlier, although the clock
    /// was last read up to one sweep ago.
    #[inline]
    pub(super) fn after_ms(&self, ms: u64) -> u64 {
        self.now_ms
            .get()
            .saturating_add(ms)
            .saturating_add(SWEEP_MS)
    }

    /// Whether a time from [`Deadlines::after_ms`] has come.
    #[inline]
    pub(super) fn is_past(&self, due_ms: u64) -> bool {
        due_ms <= self.now_ms.get()
    }

    async fn sweep(self: Rc<Deadlines>) {
        while self.connections() > 0 {
            Timer::new(Duration::from_millis(SWEEP_MS)).await;
            self.look_at_the_clock();
            let now_ms = self.now_ms.get();
            let due: Vec<Waker> = {
                let entries = self.entries.borrow();
                let due_ms = entries.due_ms.iter().enumerate();
                due_ms
                    .filter(|(_, due_ms)| **due_ms <= now_ms)
                    .filter_map(|(index, _)| entries.wakers[index].clone())
                    .collect()
            };
            due.into_iter().for_each(Waker::wake);
        }
        self.sweeping.set(false);
    }

    fn look_at_the_clock(&self) {
        let now_ms = self.start.elapsed().as_millis();
        // 64 bits of milliseconds are 584 million years.
        self.now_ms.set(now_ms as u64);
    }
}

impl Deadline {
    /// Sets the deadline, a time from [`Deadlines::after_ms`], or none.
    #[inline]
    pub(super) fn set(&self, due_ms: Option<u64>) {
        self.deadlines.entries.borrow_mut().due_ms[self.index] = due_ms.unwrap_or(NEVER);
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut entries = self.deadlines.entries.borrow_mut();
        entries.due_ms[self.index] = NEVER;
        let waker = entries.wakers[self.index].take();
        entries.free.push(self.index);
        drop(entries);
        drop(waker); // may drop the last hold on a task: not while entries are borrowed
    }
}
