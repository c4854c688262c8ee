use hdrhistogram::Histogram;

use crate::load::{Interval, Measured, Tally};

/// One contender's latencies, and when they were measured.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The contender.
    pub name: String,
    /// In the order of time; there may be time between them.
    pub intervals: Vec<Interval>,
}

impl Trace {
    /// The measured part, without the time between the slices.
    pub fn of(measured: &Measured) -> Trace {
        let slices = measured.slices.iter();
        Trace {
            name: measured.contender.name().to_owned(),
            intervals: slices.flat_map(|slice| slice.intervals.clone()).collect(),
        }
    }

    /// All intervals together, in nanoseconds.
    pub fn whole(&self) -> Histogram<u64> {
        let mut whole = Tally::default().latency_ns;
        for interval in &self.intervals {
            // Counted into bounds of its own, so that other bounds cannot make it fail: those of a
            // file may be wider than this program's.
            for value in interval.latency_ns.iter_recorded() {
                whole.saturating_record_n(value.value_iterated_to(), value.count_at_value());
            }
        }
        whole
    }

    /// Its files' name, without extension.
    pub fn file_stem(&self) -> String {
        file_stem(&self.name)
    }
}

/// A contender's name as a file name: words with a dash between them.
pub(super) fn file_stem(name: &str) -> String {
    let is_break = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words: Vec<&str> = name
        .split(is_break)
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}
