use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is distinguished from longer ones.
const LONGEST: Duration = Duration::from_secs(60);

/// The results of the requests of one stretch of time. Every request is counted in one of the first
/// five.
#[derive(Clone)]
pub struct Tally {
    /// Right answers in time.
    pub right: u64,
    /// Wrong answers, and messages that are no answers.
    pub wrong: u64,
    /// Requests that the node refused.
    pub refused: u64,
    /// Right answers that came too late to be of use.
    pub late: u64,
    /// Requests without an answer, and due requests that could not be sent for too long.
    pub lost: u64,
    /// Datagrams that answered no request under way: after its time-out, or unrelated.
    pub stray: u64,
    /// The first wrong answer.
    pub first_wrong: Option<String>,
    /// The first refusal.
    pub first_refused: Option<String>,
    /// From when the request was due (closed loop: sent) to the answer, in nanoseconds, to three
    /// digits; of right and late answers.
    pub latency_ns: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            right: 0,
            wrong: 0,
            refused: 0,
            late: 0,
            lost: 0,
            stray: 0,
            first_wrong: None,
            first_refused: None,
            latency_ns: no_latencies(),
        }
    }
}

/// A histogram with bounds that all of them have, so that any two can be added.
pub(super) fn no_latencies() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)
        .expect("three digits up to a minute are a valid histogram")
}

impl Tally {
    /// Adds another tally's counts.
    pub fn add(&mut self, other: &Tally) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.late += other.late;
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

// A histogram's own debug output would print tens of thousands of numbers.
impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally")
            .field("right", &self.right)
            .field("wrong", &self.wrong)
            .field("refused", &self.refused)
            .field("late", &self.late)
            .field("lost", &self.lost)
            .field("stray", &self.stray)
            .field("first_wrong", &self.first_wrong)
            .field("first_refused", &self.first_refused)
            .field("latency_ns", &Quantiles(&self.latency_ns))
            .finish()
    }
}

/// A summary of a histogram, to be printed.
pub(super) struct Quantiles<'a>(pub(super) &'a Histogram<u64>);

impl std::fmt::Debug for Quantiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99) = (
            self.0.value_at_quantile(0.5),
            self.0.value_at_quantile(0.99),
        );
        write!(
            f,
            "p50 {p50}, p99 {p99}, max {} of {}",
            self.0.max(),
            self.0.len()
        )
    }
}
