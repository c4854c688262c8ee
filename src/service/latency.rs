use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::protocol::Command;

/// Minimum and maximum time that is recorded for a request, in nanoseconds.
const SHORTEST_NS: u64 = 1;
const LONGEST_NS: u64 = 60_000_000_000;
/// Digits of a time that are kept: precision 1 %, for 30 KB a command.
const DIGITS: u8 = 2;
/// Of the requests of a command that are answered at once, the first ones are all measured, up to
/// this number, so that the latency of a rare command is known exactly.
const MEASURED_EACH: u32 = 1_000;
/// From then on, one request in this many is measured. Two looks at the clock take 50 ns, and a
/// detect that came with others takes 180 ns in all: one in 64 adds less than 1 ns to each.
const ONE_IN: u8 = 64;

/// How long one core's requests took, by command.
///
/// A request that has to wait is always measured. Of the requests that are answered at once, after
/// the first `MEASURED_EACH`, one in every [`ONE_IN`] stands for all of them. Which one is drawn at
/// random each time: otherwise, for clients that send 64 requests at a time, always the first would
/// be measured, and it is the slowest.
pub(super) struct Latency {
    /// By command: number of requests answered at once before the next one is measured. Separate
    /// from the rest because every request looks here.
    passed_over: [Cell<u8>; Command::COUNT],
    recorders: RefCell<[Recorder; Command::COUNT]>,
}

/// How many requests of a command a core answered, and how long they took.
#[derive(Clone, Debug)]
pub struct Measured {
    /// All requests.
    pub requests: u64,
    /// In nanoseconds. A time that stands for others counts as many times. So the number of times
    /// equals the number of requests, except for those that the next or last measured one stands
    /// for.
    pub times_ns: Histogram<u64>,
}

impl Measured {
    /// Adds another core's requests.
    pub fn add(&mut self, other: &Measured) {
        self.requests += other.requests;
        let added = self.times_ns.add(&other.times_ns);
        added.expect("all histograms here have the same bounds");
    }
}

/// What is known of one command.
#[derive(Default)]
struct Recorder {
    /// Made when it is first needed; from then on, recording takes no memory.
    times_ns: Option<Histogram<u64>>,
    /// Requests answered at once that were each measured.
    each: u32,
    /// Which request of the present [`ONE_IN`] is measured next, from 0.
    drawn: u8,
    random: Random,
}

/// Numbers without a pattern that matters here: xorshift (Marsaglia 2003). The sequence is the same
/// on every run.
struct Random(u32);

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            passed_over: [const { Cell::new(0) }; Command::COUNT],
            recorders: RefCell::default(),
        }
    }
}

impl Latency {
    /// Whether the next request of this command that is answered at once gets measured.
    #[inline]
    pub fn is_due(&self, command: Command) -> bool {
        self.passed_over[command.index()].get() == 0
    }

    /// Counts a request that was answered at once and not [due](Latency::is_due).
    #[inline]
    pub fn pass_over(&self, command: Command) {
        let left = &self.passed_over[command.index()];
        debug_assert!(left.get() > 0, "what is due is recorded");
        left.set(left.get().wrapping_sub(1));
    }

    /// Records a request that was answered at once and due.
    pub fn record_at_once(&self, command: Command, took: Duration) {
        let recorder = &mut self.recorders.borrow_mut()[command.index()];
        let mut rest = 0;
        if recorder.each < MEASURED_EACH {
            recorder.record(took, 1);
            recorder.each += 1;
            if recorder.each < MEASURED_EACH {
                return;
            }
        } else {
            recorder.record(took, ONE_IN.into());
            rest = ONE_IN - 1 - recorder.drawn;
        }
        recorder.drawn = recorder.random.below(ONE_IN);
        self.passed_over[command.index()].set(rest + recorder.drawn);
    }

    /// Records a request that had to wait.
    #[inline]
    pub fn record(&self, command: Command, took: Duration) {
        self.recorders.borrow_mut()[command.index()].record(took, 1);
    }

    /// What is known of this command; `None` where nothing is.
    pub fn of(&self, command: Command) -> Option<Measured> {
        let recorder = &self.recorders.borrow()[command.index()];
        let times_ns = recorder.times_ns.clone()?;
        // Each measured request counts as a whole ONE_IN, and the next one comes `drawn` requests
        // after those.
        let left = self.passed_over[command.index()].get();
        let requests = times_ns.len() + u64::from(recorder.drawn) - u64::from(left);
        Some(Measured { requests, times_ns })
    }
}

impl Recorder {
    #[inline]
    fn record(&mut self, took: Duration, weight: u64) {
        let times = self.times_ns.get_or_insert_with(|| {
            Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS)
                .expect("the bounds are in order, and 2 digits are among those to be had")
        });
        // Simulated clocks stand still while a request is answered: that is the shortest time.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        times.saturating_record_n(nanos.max(SHORTEST_NS), weight);
    }
}

impl Random {
    /// A number from 0 to `end - 1`.
    fn below(&mut self, end: u8) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 % u32::from(end)) as u8
    }
}

impl Default for Random {
    fn default() -> Random {
        Random(0x9e37_79b9) // any number but 0, which stays 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers a request at once; gives whether it was measured.
    fn answer(latency: &Latency, command: Command, nanos: u64) -> bool {
        let is_due = latency.is_due(command);
        match is_due {
            true => latency.record_at_once(command, Duration::from_nanos(nanos)),
            false => latency.pass_over(command),
        }
        is_due
    }

    #[test]
    fn every_request_is_counted_and_the_times_are_never_many_more_or_less() {
        let latency = Latency::default();
        let mut waited = 0;
        for request in 1..=100_000_u64 {
            answer(&latency, Command::Detect, 200);
            if request % 7 == 0 {
                // Those that wait are counted each, and shift no one's turn.
                latency.record(Command::Detect, Duration::from_micros(90));
                waited += 1;
            }
            let Measured { requests, times_ns } = latency.of(Command::Detect).unwrap();
            assert_eq!(requests, request + waited);
            let off = times_ns.len().abs_diff(requests);
            assert!(off < ONE_IN.into(), "{off} off after {request}");
            if request <= MEASURED_EACH.into() {
                assert_eq!(off, 0);
            }
        }
        assert!(latency.of(Command::Pown).is_none());
    }

    #[test]
    fn every_place_in_a_batch_is_measured_as_often() {
        let latency = Latency::default();
        let mut by_place = [0_u32; ONE_IN as usize];
        let batches = 100_000;
        for request in 0..batches * by_place.len() {
            let is_measured = answer(&latency, Command::Detect, 200);
            if request >= MEASURED_EACH as usize {
                by_place[request % by_place.len()] += u32::from(is_measured);
            }
        }
        // 1,562 each, give or take 39 by chance.
        let expected = 1_350..1_780;
        assert!(
            by_place.iter().all(|count| expected.contains(count)),
            "{by_place:?}"
        );
    }

    #[test]
    fn quantiles_of_a_known_distribution_are_right_to_2_digits() {
        let latency = Latency::default();
        // From 1 µs to 1 s, each power of ten as often, in an order that has nothing to do with 64.
        let steps = 1_000_003_u64;
        let time = |rank: u64| 1e3 * 10_f64.powf(6.0 * rank as f64 / steps as f64);
        let in_disorder = || (0..steps).map(|step| time(step * 618_033 % steps) as u64);
        for nanos in in_disorder() {
            latency.record(Command::Pown, Duration::from_nanos(nanos));
        }
        for _ in 0..16 {
            in_disorder().for_each(|nanos| {
                answer(&latency, Command::Echo, nanos);
            });
        }
        // Where one in 64 is measured, chance also moves a quantile: at 250,000 measured, the rank
        // by up to 0.3 % (three deviations at the median), which is 4 % of the time here.
        for (command, off_max) in [(Command::Pown, 0.01), (Command::Echo, 0.05)] {
            let times = latency.of(command).unwrap().times_ns;
            for quantile in [0.1, 0.5, 0.9, 0.99, 0.999] {
                let truth = time((quantile * steps as f64) as u64);
                let off = times.value_at_quantile(quantile) as f64 / truth - 1.0;
                assert!(off.abs() < off_max, "{command:?} {quantile}: {off}");
            }
        }
    }

    #[test]
    fn times_beyond_the_longest_count_as_the_longest() {
        let latency = Latency::default();
        latency.record(Command::Audit, Duration::from_secs(3_600));
        latency.record(Command::Audit, Duration::ZERO);
        let times = latency.of(Command::Audit).unwrap().times_ns;
        assert_eq!(times.len(), 2);
        assert_eq!(times.max(), times.highest_equivalent(LONGEST_NS));
        assert_eq!(times.min(), SHORTEST_NS);
    }
}
