use std::{cell::Cell, io, time::Duration};

/// Time between two log lines about trouble that lasts.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Trouble that is met again and again. It is logged when it begins and whenever its error changes,
/// then each minute with the number of times it was met, and once when it is over. Otherwise a dead
/// disk fills the log of the node with ten lines a second.
#[derive(Debug, Default)]
pub struct Trouble(Cell<Option<Met>>);

#[derive(Clone, Copy, Debug)]
struct Met {
    error: (io::ErrorKind, Option<i32>),
    since: Duration,
    told_at: Duration,
    /// Times met since it was last logged.
    times: u64,
    /// Times met since it began.
    total: u64,
}

/// Trouble that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// How often it was met.
    pub times: u64,
    /// How long it lasted.
    pub lasted: Duration,
}

impl Trouble {
    /// Notes that it was met at this time. Returns the number of times since it was last logged,
    /// this one included, if it is due to be logged now.
    #[must_use]
    pub fn met(&self, now: Duration, error: &io::Error) -> Option<u64> {
        let error = (error.kind(), error.raw_os_error());
        let Some(mut met) = self.0.get() else {
            self.0.set(Some(Met {
                error,
                since: now,
                told_at: now,
                times: 0,
                total: 1,
            }));
            return Some(1);
        };
        met.times += 1;
        met.total += 1;
        let is_due = met.error != error || now.saturating_sub(met.told_at) >= TOLD_AGAIN;
        let told = is_due.then_some(met.times);
        if is_due {
            (met.error, met.told_at, met.times) = (error, now, 0);
        }
        self.0.set(Some(met));
        told
    }

    /// Notes that all went well at this time; gives what is over now.
    #[must_use]
    pub fn over(&self, now: Duration) -> Option<Over> {
        let met = self.0.take()?;
        Some(Over {
            times: met.total,
            lasted: now.saturating_sub(met.since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_trouble_is_told_once_then_each_minute_with_a_count_and_when_it_is_over() {
        let trouble = Trouble::default();
        let (dead, full) = (
            io::Error::from_raw_os_error(libc::EIO),
            io::Error::from_raw_os_error(libc::ENOSPC),
        );
        assert_eq!(trouble.over(Duration::ZERO), None);
        let tenths = |n: u64| Duration::from_millis(1_000 + n * 100);
        let told = (0..1_250).filter_map(|n| Some((n, trouble.met(tenths(n), &dead)?)));
        assert_eq!(told.collect::<Vec<_>>(), [(0, 1), (600, 600), (1_200, 600)]);
        assert_eq!(trouble.met(tenths(1_250), &full), Some(50), "it is another");
        assert_eq!(trouble.met(tenths(1_251), &full), None);
        let over = trouble.over(tenths(1_300)).unwrap();
        assert_eq!((over.times, over.lasted), (1_252, Duration::from_secs(130)));
        assert_eq!(trouble.over(tenths(1_301)), None);
        assert_eq!(trouble.met(tenths(1_302), &full), Some(1), "it begins anew");
    }
}
