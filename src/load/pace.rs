use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;

/// Sleeping ends this long before the next request is due; from then on the thread polls the clock.
/// A sleeping thread wakes up late, by 50 µs and more on an idle machine.
const SPIN: Duration = Duration::from_micros(60);
/// The longest sleep. After it, the thread checks for requests that wait for too long.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// Sleep while due requests cannot be sent; only an answer changes that.
const SLEEP_BEHIND: Duration = Duration::from_millis(1);

/// When requests go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When an earlier request is answered.
    Closed,
    /// At the times when they are due, whatever became of earlier ones.
    Open {
        /// Requests a second, all threads together.
        rate: f64,
        /// The time from one to the next.
        spacing: Spacing,
    },
}

/// How the requests of an open loop follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// As from many people who know nothing of each other: some at once, then none for a while.
    Poisson,
    /// At equal distances.
    Even,
}

/// One thread's times of one turn: when its next request is due.
pub(super) enum DueTimes {
    Closed {
        until: Instant,
    },
    Open {
        begun: Instant,
        until: Instant,
        /// The mean distance, nanoseconds.
        gap_ns: f64,
        spacing: Spacing,
        /// From `begun` to the next, nanoseconds. A sum of fractions, so that no fraction is lost.
        next_ns: f64,
        next: Instant,
    },
}

impl DueTimes {
    /// The times of thread `thread` of `threads`, from `begun` until `until`.
    pub(super) fn new(
        pace: Pace,
        (thread, threads): (usize, usize),
        begun: Instant,
        until: Instant,
        rng: &mut SmallRng,
    ) -> DueTimes {
        let Pace::Open { rate, spacing } = pace else {
            return DueTimes::Closed { until };
        };
        let gap_ns = 1e9 * threads as f64 / rate;
        let first_ns = match spacing {
            Spacing::Poisson => poisson_gap(gap_ns, rng),
            // Threads take turns.
            Spacing::Even => gap_ns * thread as f64 / threads as f64,
        };
        DueTimes::Open {
            begun,
            until,
            gap_ns,
            spacing,
            next_ns: first_ns,
            next: begun + Duration::from_nanos(first_ns as u64),
        }
    }

    /// When the next request is due, if it is due by now.
    #[inline]
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match *self {
            DueTimes::Closed { until } => (now < until).then_some(now),
            DueTimes::Open { next, until, .. } => (next <= now && next < until).then_some(next),
        }
    }

    /// Records that this request is handled.
    #[inline]
    pub(super) fn pass(&mut self, rng: &mut SmallRng) {
        if let DueTimes::Open {
            begun,
            gap_ns,
            spacing,
            next_ns,
            next,
            ..
        } = self
        {
            *next_ns += match spacing {
                Spacing::Poisson => poisson_gap(*gap_ns, rng),
                Spacing::Even => *gap_ns,
            };
            *next = *begun + Duration::from_nanos(*next_ns as u64);
        }
    }

    /// Whether no more requests are due.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match *self {
            DueTimes::Closed { until } => now >= until,
            DueTimes::Open { next, until, .. } => next >= until,
        }
    }

    /// How long to wait for answers before looking at the clock again; zero where the next request
    /// is too close for any sleep.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        match *self {
            DueTimes::Closed { .. } => SLEEP_MAX,
            DueTimes::Open { next, until, .. } if next >= until => SLEEP_MAX,
            DueTimes::Open { next, .. } if next <= now => SLEEP_BEHIND,
            DueTimes::Open { next, .. } => (next - now).saturating_sub(SPIN).min(SLEEP_MAX),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, DueTimes::Open { .. })
    }
}

/// The time from one event to the next where they come at random: exponentially distributed.
fn poisson_gap(mean_ns: f64, rng: &mut SmallRng) -> f64 {
    let unit: f64 = rng.random(); // never 1, so its complement is never 0
    -(1.0 - unit).ln() * mean_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn gaps(spacing: Spacing, count: usize) -> Vec<f64> {
        let rng = &mut SmallRng::seed_from_u64(7);
        let begun = Instant::now();
        let until = begun + Duration::from_secs(3_600);
        let pace = Pace::Open {
            rate: 2_000.0,
            spacing,
        };
        let mut times = DueTimes::new(pace, (0, 2), begun, until, rng);
        let mut last = begun;
        let gaps = (0..count).map(|_| {
            let due = times.due(until).unwrap();
            times.pass(rng);
            let gap = (due - last).as_secs_f64();
            last = due;
            gap
        });
        gaps.collect()
    }

    #[test]
    fn random_requests_come_at_their_rate_and_as_unevenly_as_they_should() {
        let gaps = gaps(Spacing::Poisson, 100_000);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1e-3).abs() < 2e-5, "{mean}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
        let short = gaps.iter().filter(|&&gap| gap < 1e-4).count() as f64;
        assert!((short / gaps.len() as f64 - 0.095).abs() < 0.005, "{short}");
    }

    #[test]
    fn even_requests_come_at_even_distances() {
        for gap in &gaps(Spacing::Even, 1_000)[1..] {
            assert!((gap - 1e-3).abs() < 2e-9, "{gap}");
        }
    }

    #[test]
    fn a_request_stays_due_until_it_is_taken_care_of() {
        let rng = &mut SmallRng::seed_from_u64(7);
        let begun = Instant::now();
        let until = begun + Duration::from_millis(10);
        let pace = Pace::Open {
            rate: 1_000.0,
            spacing: Spacing::Even,
        };
        let mut times = DueTimes::new(pace, (0, 1), begun, until, rng);
        let long_after = begun + Duration::from_secs(5);
        let mut count = 0;
        while let Some(due) = times.due(long_after) {
            assert_eq!(times.due(long_after), Some(due));
            assert!(due < until);
            times.pass(rng);
            count += 1;
        }
        assert!(times.is_over(long_after));
        assert_eq!(count, 10);
    }
}
