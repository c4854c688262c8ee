//! Clients that send many requests: attackers, and as many honest ones for comparison.

mod datagrams;
mod held;
mod streams;
mod visits;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::thread_cpu;

pub use datagrams::Datagrams;
pub use held::Held;
pub use streams::Streams;
pub use visits::Visits;

/// How often a crowd looks for work.
const TURN: Duration = Duration::from_millis(1);
/// Longest time that a crowd runs, whatever happens to the thread that started it.
const TIME_MAX: Duration = Duration::from_secs(60);
/// How long a crowd may take until all of it is there.
const GATHERING_MAX: Duration = Duration::from_secs(4);

/// A number of clients that one thread plays: none of its calls waits.
pub trait Crowd: Send {
    /// Sends what is due and takes what has come.
    fn turn(&mut self, now: Instant);

    /// What it did so far.
    fn tally(&self) -> &Tally;

    /// Whether all of it is there.
    fn is_gathered(&self) -> bool {
        true
    }
}

/// What a crowd did, and what came of it.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests sent; of connections that send none, how many were opened.
    pub sent: u64,
    /// Answers by status.
    pub answers: [u64; 256],
    /// Bytes sent, without what carries them.
    pub bytes_out: u64,
    /// Bytes that came back.
    pub bytes_in: u64,
    /// Connections that the node closed.
    pub closed: u64,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            sent: 0,
            answers: [0; 256],
            bytes_out: 0,
            bytes_in: 0,
            closed: 0,
        }
    }
}

impl Tally {
    /// What was done since an earlier look.
    fn since(&self, before: &Tally) -> Tally {
        Tally {
            sent: self.sent - before.sent,
            answers: std::array::from_fn(|i| self.answers[i] - before.answers[i]),
            bytes_out: self.bytes_out - before.bytes_out,
            bytes_in: self.bytes_in - before.bytes_in,
            closed: self.closed - before.closed,
        }
    }

    /// Adds what another stretch of time has brought.
    pub fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        for (sum, more) in self.answers.iter_mut().zip(other.answers) {
            *sum += more;
        }
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.closed += other.closed;
    }

    /// Answers of every status.
    pub fn answered(&self) -> u64 {
        self.answers.iter().sum()
    }

    /// The answers, most frequent first, as in "241: 9,000, 254: 100".
    pub fn statuses(&self) -> String {
        let mut statuses: Vec<(usize, u64)> = self.answers.iter().copied().enumerate().collect();
        statuses.retain(|&(_, count)| count > 0);
        statuses.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let shown = statuses.iter().take(4);
        let shown: Vec<String> = shown.map(|(status, n)| format!("{status}: {n}")).collect();
        shown.join(", ")
    }
}

/// How many of a steady number a second are due.
pub struct Pace {
    per_second: f64,
    start: Option<Instant>,
    begun: f64,
}

impl Pace {
    pub fn of(per_second: f64) -> Pace {
        Pace {
            per_second,
            start: None,
            begun: 0.0,
        }
    }

    /// How many are due now. Requests that have been due for long are dropped: a delayed crowd does
    /// not catch up.
    pub fn due(&mut self, now: Instant) -> usize {
        let start = *self.start.get_or_insert(now);
        let by_now = now.duration_since(start).as_secs_f64() * self.per_second;
        let most = (self.per_second * 0.02).max(1.0);
        self.begun = self.begun.max(by_now - most);
        (by_now - self.begun) as usize
    }

    pub fn begin(&mut self, count: usize) {
        self.begun += count as f64;
    }
}

/// A crowd at work, on a thread of its own.
pub struct Running {
    thread: JoinHandle<Load>,
    signs: Arc<Signs>,
}

#[derive(Default)]
struct Signs {
    is_gathered: AtomicBool,
    counts: AtomicBool,
    ends: AtomicBool,
}

/// What a crowd did while it was counted.
#[derive(Clone, Debug)]
pub struct Load {
    pub tally: Tally,
    pub seconds: f64,
    /// Whether it sent anything at all, before it was counted as well.
    pub has_sent: bool,
    /// The part of its CPU that the crowd took, 0 to 1.
    pub cpu: f64,
}

impl Load {
    pub fn sent_per_second(&self) -> f64 {
        self.tally.sent as f64 / self.seconds
    }
}

impl Running {
    pub fn start(mut crowd: Box<dyn Crowd>) -> Running {
        let signs = Arc::new(Signs::default());
        let seen = Arc::clone(&signs);
        let thread = std::thread::spawn(move || {
            let until = Instant::now() + TIME_MAX;
            let mut from = (Tally::default(), Instant::now(), thread_cpu());
            let mut counts = false;
            while !seen.ends.load(SeqCst) && Instant::now() < until {
                if !counts && seen.counts.load(SeqCst) {
                    counts = true;
                    from = (crowd.tally().clone(), Instant::now(), thread_cpu());
                }
                let now = Instant::now();
                crowd.turn(now);
                seen.is_gathered.store(crowd.is_gathered(), SeqCst);
                std::thread::sleep(TURN.saturating_sub(now.elapsed()));
            }
            let (before, start, cpu) = from;
            let seconds = start.elapsed().as_secs_f64();
            Load {
                tally: crowd.tally().since(&before),
                seconds,
                has_sent: crowd.tally().sent > 0,
                cpu: (thread_cpu() - cpu).as_secs_f64() / seconds,
            }
        });
        Running { thread, signs }
    }

    /// Waits until all of it is there, or it has had its time, and counts from then on.
    pub fn count(&self) {
        let until = Instant::now() + GATHERING_MAX;
        while !self.signs.is_gathered.load(SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.signs.counts.store(true, SeqCst);
    }

    /// Stops it; its sockets are closed by then.
    pub fn end(self) -> Load {
        self.signs.ends.store(true, SeqCst);
        self.thread.join().expect("the crowd's thread")
    }
}
