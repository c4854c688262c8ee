use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(60);

/// What came of the requests of one stretch of time.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Answers that were as they must be.
    pub right: u64,
    /// Answers that claim what is not so, or are no answers.
    pub wrong: u64,
    /// Requests that the node refused.
    pub refused: u64,
    /// Requests without an answer in time.
    pub lost: u64,
    /// Datagrams that answered no request under way: too late, or nobody's.
    pub stray: u64,
    /// What the first wrong answer was.
    pub first_wrong: Option<String>,
    /// What the first refusal was.
    pub first_refused: Option<String>,
    /// From sending to the answer, in nanoseconds, to three digits; right answers only.
    pub latency_ns: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        let longest = LONGEST.as_nanos() as u64;
        Tally {
            right: 0,
            wrong: 0,
            refused: 0,
            lost: 0,
            stray: 0,
            first_wrong: None,
            first_refused: None,
            latency_ns: Histogram::new_with_max(longest, 3)
                .expect("three digits up to a minute are a valid histogram"),
        }
    }
}

impl Tally {
    /// Counts a right answer.
    #[inline]
    pub(super) fn right(&mut self, latency: Duration) {
        self.right += 1;
        self.latency_ns.saturating_record(latency.as_nanos() as u64);
    }

    pub(super) fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert_with(what);
    }

    pub(super) fn refused(&mut self, what: impl FnOnce() -> String) {
        self.refused += 1;
        self.first_refused.get_or_insert_with(what);
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Tally) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.lost += other.lost;
        self.stray += other.stray;
        if self.first_wrong.is_none() {
            self.first_wrong.clone_from(&other.first_wrong);
        }
        if self.first_refused.is_none() {
            self.first_refused.clone_from(&other.first_refused);
        }
        self.latency_ns
            .add(&other.latency_ns)
            .expect("both have the same bounds");
    }
}
