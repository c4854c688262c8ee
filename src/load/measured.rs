use std::time::Duration;

use hdrhistogram::Histogram;

use super::tally::{Quantiles, Tally};

/// The contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The node.
    Node,
    /// The bare echo, by calls to the kernel.
    Echo,
    /// The bare echo, by io_uring.
    EchoUring,
    /// A Redis server.
    Redis,
    /// The bare disk.
    Disk,
}

/// What one contender did.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The contender.
    pub contender: Contender,
    /// The slices, in the order of time: slice i of every contender is from about the same time.
    pub slices: Vec<Slice>,
    /// The results of requests between the slices and before. They give no rate, but their answers
    /// are checked.
    pub between: Tally,
}

/// What one contender did in one slice.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The results of its requests.
    pub tally: Tally,
    /// Its length: to the end of its time, or to the last answer where that came later.
    pub took: Duration,
    /// How long the server's threads were on a CPU meanwhile, where that is known.
    pub server_cpu: Option<Duration>,
    /// Its beginning, from the start of the run.
    pub started: Duration,
    /// Whether it ended before its time because everything prepared for it was used up.
    pub is_cut_short: bool,
    /// The same latencies by the time of the answer.
    pub intervals: Vec<Interval>,
}

/// The answers of about a second: a part of a slice.
#[derive(Clone)]
pub struct Interval {
    /// Its beginning, from the start of the run.
    pub from: Duration,
    /// Its length.
    pub length: Duration,
    /// Right answers that came in it.
    pub right: u64,
    /// Their latencies and those of late answers, in nanoseconds, to three digits.
    pub latency_ns: Histogram<u64>,
}

/// One rate of a sweep.
#[derive(Clone, Debug)]
pub struct SweepStep {
    /// Requests due a second.
    pub rate_wanted: f64,
    /// The node's result with them, in one slice.
    pub measured: Measured,
    /// Whether the rate was more than the node, or the generator, can handle.
    pub is_saturated: bool,
}

impl Contender {
    /// Its name in tables, files and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Node => "node",
            Contender::Echo => "bare echo",
            Contender::EchoUring => "bare echo, io_uring",
            Contender::Redis => "redis",
            Contender::Disk => "bare disk",
        }
    }
}

impl Measured {
    pub(super) fn nothing(contender: Contender) -> Measured {
        Measured {
            contender,
            slices: vec![],
            between: Tally::default(),
        }
    }

    /// Every request, in the slices and between them.
    pub fn whole(&self) -> Tally {
        let mut whole = self.total();
        whole.add(&self.between);
        whole
    }

    /// The slices together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for slice in &self.slices {
            total.add(&slice.tally);
        }
        total
    }

    /// Right answers for each second that the server was on a CPU, slice by slice; empty where that
    /// is not known.
    pub fn rates_by_cpu(&self) -> Vec<f64> {
        let rate = |slice: &Slice| {
            let seconds = slice.server_cpu?.as_secs_f64().max(1e-9);
            Some(slice.tally.right as f64 / seconds)
        };
        self.slices.iter().filter_map(rate).collect()
    }

    /// The lengths of the slices that ended before their time; none where none did.
    pub fn cut_short(&self) -> Vec<Duration> {
        let slices = self.slices.iter().filter(|slice| slice.is_cut_short);
        slices.map(|slice| slice.took).collect()
    }

    /// Right answers a second, slice by slice.
    pub fn rates(&self) -> Vec<f64> {
        self.slices.iter().map(Slice::rate).collect()
    }
}

impl Slice {
    /// Right answers a second.
    pub fn rate(&self) -> f64 {
        self.tally.right as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Adds what another thread did at the same time.
    pub(super) fn join(&mut self, other: Slice) {
        self.tally.add(&other.tally);
        self.took = self.took.max(other.took);
        self.started = self.started.max(other.started);
        self.is_cut_short |= other.is_cut_short;
        self.server_cpu = self.server_cpu.or(other.server_cpu);
        let mut others = other.intervals.into_iter();
        for (interval, other) in self.intervals.iter_mut().zip(&mut others) {
            interval.length = interval.length.max(other.length);
            interval.right += other.right;
            (interval.latency_ns)
                .add(&other.latency_ns)
                .expect("both have the same bounds");
        }
        self.intervals.extend(others);
    }
}

impl std::fmt::Debug for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interval")
            .field("from", &self.from)
            .field("length", &self.length)
            .field("right", &self.right)
            .field("latency_ns", &Quantiles(&self.latency_ns))
            .finish()
    }
}
