use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::measured::{Interval, Slice};
use super::progress::{Counts, ThreadProgress};
use super::tally::{Tally, no_latencies};

/// Approximate length of an interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of intervals of a turn; intervals are longer where the turn is. Each takes half a
/// megabyte per thread.
const INTERVALS_MAX: u32 = 120;

/// Counts the results of one thread's requests in one turn. An answer costs one histogram access.
/// All memory is allocated before the turn begins, and sums are made after it.
pub(super) struct Recorder {
    /// Everything but the latencies.
    tally: Tally,
    /// When the turn began, from the start of the run.
    started: Duration,
    begun: Instant,
    until: Instant,
    late_after_ns: u64,
    interval: Duration,
    current: Histogram<u64>,
    current_right: u64,
    current_until: Instant,
    /// For later intervals.
    empty: Vec<Histogram<u64>>,
    over: Vec<Arc<Interval>>,
    last_answer: Instant,
    /// Time spent polling for something to do, in order to be on time.
    spun: Duration,
    /// Requests that this program sent late.
    behind: u64,
    progress: Option<Arc<ThreadProgress>>,
    /// The progress of earlier turns.
    before: Counts,
}

impl Recorder {
    pub(super) fn new(late_after: Duration, progress: Option<Arc<ThreadProgress>>) -> Recorder {
        let now = Instant::now();
        Recorder {
            tally: Tally::default(),
            started: Duration::ZERO,
            begun: now,
            until: now,
            late_after_ns: nanos(late_after),
            interval: INTERVAL,
            current: no_latencies(),
            current_right: 0,
            current_until: now,
            empty: vec![],
            over: vec![],
            last_answer: now,
            spun: Duration::ZERO,
            behind: 0,
            progress,
            before: Counts::default(),
        }
    }

    /// Begins a turn at `begun`, which is `started` after the start of the run, with this length.
    pub(super) fn begin(&mut self, started: Duration, begun: Instant, length: Duration) {
        let intervals = (length.as_secs_f64() / INTERVAL.as_secs_f64()).round();
        let intervals = (intervals as u32).clamp(1, INTERVALS_MAX);
        self.started = started;
        (self.begun, self.until) = (begun, begun + length);
        self.interval = length / intervals;
        self.current_until = begun + self.interval;
        self.empty.resize_with(intervals as usize, no_latencies);
        self.over.reserve(intervals as usize + 1);
        self.last_answer = begun;
    }

    /// Ends the turn and returns its result. A turn that is over because nothing was left to ask
    /// ended with its last answer.
    pub(super) fn end(&mut self, is_spent: bool) -> Slice {
        let end = match is_spent {
            true => self.last_answer,
            false => self.until.max(self.last_answer),
        };
        self.end_interval(end);
        self.tell();
        let counts = self.counts();
        self.before = counts;
        let mut tally = std::mem::take(&mut self.tally);
        let over = std::mem::take(&mut self.over).into_iter();
        let intervals: Vec<Interval> = over.map(Arc::unwrap_or_clone).collect();
        for interval in &intervals {
            (tally.latency_ns)
                .add(&interval.latency_ns)
                .expect("both have the same bounds");
        }
        Slice {
            tally,
            took: end - self.begun,
            server_cpu: None,
            started: self.started,
            is_cut_short: end < self.until,
            intervals,
        }
    }

    /// CPU time that the thread spent on being on time. Starts again at zero.
    pub(super) fn take_spun(&mut self) -> Duration {
        std::mem::take(&mut self.spun)
    }

    /// Number of requests that went out late by this program's own fault. Starts again at zero.
    pub(super) fn take_behind(&mut self) -> u64 {
        std::mem::take(&mut self.behind)
    }

    /// Records that a batch of answers has come.
    pub(super) fn at(&mut self, now: Instant) {
        self.last_answer = now;
        self.tell();
        // The last interval lasts until the last answer.
        if now >= self.current_until && self.current_until < self.until {
            self.end_interval(self.current_until);
        }
    }

    #[inline]
    pub(super) fn right(&mut self, latency: Duration) {
        let latency = nanos(latency);
        self.current.saturating_record(latency);
        if latency > self.late_after_ns {
            self.tally.late += 1;
        } else {
            self.tally.right += 1;
            self.current_right += 1;
        }
    }

    pub(super) fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.tally.wrong += 1;
        self.tally.first_wrong.get_or_insert_with(what);
    }

    pub(super) fn refused(&mut self, what: impl FnOnce() -> String) {
        self.tally.refused += 1;
        self.tally.first_refused.get_or_insert_with(what);
    }

    pub(super) fn lost(&mut self) {
        self.tally.lost += 1;
    }

    pub(super) fn stray(&mut self) {
        self.tally.stray += 1;
    }

    pub(super) fn behind(&mut self) {
        self.behind += 1;
    }

    pub(super) fn spun(&mut self, time: Duration) {
        self.spun += time;
    }

    fn end_interval(&mut self, end: Instant) {
        let next = self.empty.pop().unwrap_or_else(no_latencies);
        let begun = self.current_until - self.interval;
        let interval = Arc::new(Interval {
            from: self.started + (begun - self.begun),
            length: end.saturating_duration_since(begun),
            right: std::mem::take(&mut self.current_right),
            latency_ns: std::mem::replace(&mut self.current, next),
        });
        if let Some(progress) = &self.progress {
            progress.hand_over(Some(Arc::clone(&interval)));
        }
        self.over.push(interval);
        self.current_until += self.interval;
    }

    fn counts(&self) -> Counts {
        Counts {
            right: self.before.right + self.tally.right,
            wrong: self.before.wrong + self.tally.wrong,
            refused: self.before.refused + self.tally.refused,
            late: self.before.late + self.tally.late,
            lost: self.before.lost + self.tally.lost,
        }
    }

    fn tell(&self) {
        if let Some(progress) = &self.progress {
            progress.publish(&self.counts());
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
