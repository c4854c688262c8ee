use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use super::measured::{Contender, Interval};
use super::tally::no_latencies;

/// The state of a run while it goes on: counts that each thread updates once for each batch of
/// answers, and the latencies of the last completed interval.
#[derive(Debug)]
pub struct Progress {
    contender: AtomicU8,
    threads: Vec<Arc<ThreadProgress>>,
}

/// The results of all requests so far, of all contenders, warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Right answers in time.
    pub right: u64,
    /// Wrong answers.
    pub wrong: u64,
    /// Refusals.
    pub refused: u64,
    /// Right answers that came late.
    pub late: u64,
    /// Requests without an answer.
    pub lost: u64,
}

/// One thread's part. It has its own cache lines, or the threads would slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct ThreadProgress {
    right: AtomicU64,
    wrong: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    lost: AtomicU64,
    last: Mutex<Option<Arc<Interval>>>,
}

const CONTENDERS: [Contender; 5] = [
    Contender::Node,
    Contender::Echo,
    Contender::EchoUring,
    Contender::Redis,
    Contender::Disk,
];

impl Progress {
    /// The progress of a run with this many threads that has not begun.
    pub fn new(threads: usize) -> Progress {
        Progress {
            contender: AtomicU8::new(0),
            threads: (0..threads).map(|_| Arc::default()).collect(),
        }
    }

    /// The contender that is asked at present.
    pub fn contender(&self) -> Contender {
        CONTENDERS[usize::from(self.contender.load(Relaxed))]
    }

    /// The results of the requests so far. The counts of a batch may be incomplete.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for thread in &self.threads {
            counts.right += thread.right.load(Relaxed);
            counts.wrong += thread.wrong.load(Relaxed);
            counts.refused += thread.refused.load(Relaxed);
            counts.late += thread.late.load(Relaxed);
            counts.lost += thread.lost.load(Relaxed);
        }
        counts
    }

    /// Latencies of the last completed second or so, in nanoseconds. `None` before the first is
    /// over, and after another contender's turn has begun.
    pub fn last_second(&self) -> Option<Histogram<u64>> {
        let mut all: Option<Histogram<u64>> = None;
        for thread in &self.threads {
            let last = thread.last();
            if let Some(interval) = last.as_deref() {
                all.get_or_insert_with(no_latencies)
                    .add(&interval.latency_ns)
                    .expect("both have the same bounds");
            }
        }
        all
    }

    pub(super) fn turn_to(&self, contender: Contender) {
        let place = CONTENDERS.iter().position(|&c| c == contender);
        let place = place.expect("every contender is in the list") as u8;
        if self.contender.swap(place, Relaxed) != place {
            for thread in &self.threads {
                thread.hand_over(None);
            }
        }
    }

    pub(super) fn of_thread(&self, thread: usize) -> Arc<ThreadProgress> {
        Arc::clone(&self.threads[thread])
    }
}

impl ThreadProgress {
    /// Takes over the counts of a thread, which alone writes here.
    pub(super) fn publish(&self, counts: &Counts) {
        self.right.store(counts.right, Relaxed);
        self.wrong.store(counts.wrong, Relaxed);
        self.refused.store(counts.refused, Relaxed);
        self.late.store(counts.late, Relaxed);
        self.lost.store(counts.lost, Relaxed);
    }

    /// Records that an interval is over.
    pub(super) fn hand_over(&self, interval: Option<Arc<Interval>>) {
        // Nothing under the lock can panic.
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = interval;
    }

    fn last(&self) -> Option<Arc<Interval>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}
