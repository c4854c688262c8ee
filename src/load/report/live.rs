//! The line on the terminal while a run lasts: how fast, how long, and what went wrong so far.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::picture::{count_in_words, micros_in_words};
use crate::load::{Contender, Counts, Progress};

/// How often the line is rewritten. Each time takes the generator some microseconds.
const LOOK: Duration = Duration::from_millis(500);

/// A line on standard error that follows a run until it is dropped, and then goes away.
pub struct Live {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The values at one look.
struct Seen {
    contender: Contender,
    counts: Counts,
    at: Instant,
}

impl Live {
    /// Begins to follow a run. Shows nothing unless standard error is a terminal.
    pub fn follow(progress: Arc<Progress>) -> Live {
        let (end, is_over) = channel();
        let thread = std::thread::spawn(move || {
            let style = ProgressStyle::with_template("{wide_msg}")
                .expect("the template is a constant and well-formed");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style);
            let start = Instant::now();
            let mut before: Option<Seen> = None;
            while is_over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let now = Seen {
                    contender: progress.contender(),
                    counts: progress.counts(),
                    at: Instant::now(),
                };
                let latency_ns = progress.last_second();
                bar.set_message(line(
                    now.at - start,
                    now.contender,
                    before.as_ref().and_then(|before| rate(before, &now)),
                    latency_ns.as_ref(),
                    &now.counts,
                ));
                before = Some(now);
            }
            bar.finish_and_clear();
        });
        Live {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, there is no line any more, which is no reason to end the run.
            let _ = thread.join();
        }
    }
}

/// Right answers a second since the last look; `None` where another contender was asked then.
fn rate(before: &Seen, now: &Seen) -> Option<f64> {
    let right = now.counts.right.checked_sub(before.counts.right)?;
    let seconds = (now.at - before.at).as_secs_f64();
    (before.contender == now.contender && seconds > 0.0).then(|| right as f64 / seconds)
}

/// Short enough for a terminal of 80 columns.
fn line(
    elapsed: Duration,
    contender: Contender,
    rate: Option<f64>,
    latency_ns: Option<&Histogram<u64>>,
    counts: &Counts,
) -> String {
    let at = |quantile| match latency_ns {
        Some(latency) => micros_in_words(latency.value_at_quantile(quantile) as f64 / 1e3),
        None => "-".to_owned(),
    };
    let Counts {
        wrong,
        refused,
        late,
        lost,
        ..
    } = counts;
    format!(
        "{:>3} s {} {:>6}/s p50 {:>7} p99 {:>7}  wrong/refused/late/lost {wrong}/{refused}/{late}/{lost}",
        elapsed.as_secs(),
        contender.name(),
        rate.map_or("-".to_owned(), count_in_words),
        at(0.5),
        at(0.99),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Tally;

    #[test]
    fn a_line_says_how_fast_how_long_and_what_went_wrong() {
        let mut latency = Tally::default().latency_ns;
        latency.record_n(31_000, 98).unwrap();
        latency.record_n(2_500_000, 2).unwrap();
        let counts = Counts {
            right: 1_000_000,
            lost: 3,
            ..Counts::default()
        };
        let elapsed = Duration::from_millis(12_700);
        let words = line(
            elapsed,
            Contender::Node,
            Some(412_345.0),
            Some(&latency),
            &counts,
        );
        assert_eq!(
            words,
            " 12 s node  412 k/s p50   31 µs p99  2.5 ms  wrong/refused/late/lost 0/0/0/3"
        );
        let words = line(elapsed, Contender::Disk, None, None, &counts);
        assert!(
            words.starts_with(" 12 s bare disk      -/s p50       -"),
            "{words}"
        );
    }

    #[test]
    fn a_rate_is_of_one_contender() {
        let at = Instant::now();
        let seen = |contender, right, millis| Seen {
            contender,
            counts: Counts {
                right,
                ..Counts::default()
            },
            at: at + Duration::from_millis(millis),
        };
        let before = seen(Contender::Node, 1_000, 0);
        let faster = rate(&before, &seen(Contender::Node, 3_000, 500));
        assert_eq!(faster, Some(4_000.0));
        assert_eq!(rate(&before, &seen(Contender::Redis, 3_000, 500)), None);
    }
}
