use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The clock that gives the month and the minute. Moments, which order changes, always come from
/// the machine's clock.
#[derive(Clone, Debug, Default)]
pub enum WallClock {
    /// The machine's.
    #[default]
    Machine,
    /// Seconds since 1970 in UTC, as somebody sets them, for trials at other times than now.
    /// Setting it forward moves no other clock.
    Set(Arc<AtomicU64>),
    /// The machine's, or one that stands still, and what a trial adds to it and to the monotonic
    /// clock.
    Moved(Arc<Moved>),
    /// As [`WallClock::Moved`], but a file says how far.
    #[cfg(debug_assertions)]
    MovedByFile(Arc<std::fs::File>),
}

/// How far a trial has moved a node's clocks.
#[derive(Debug, Default)]
pub struct Moved {
    passed_s: AtomicU64,
    set_s: AtomicI64,
    /// Where the clock on the wall stood when it was stopped; `None` while it goes on.
    stopped_s: Option<u64>,
}

impl Moved {
    /// A clock on the wall that shows `unix_seconds` since 1970 and goes on only when it is moved.
    pub fn stopped_at(unix_seconds: u64) -> Moved {
        Moved {
            stopped_s: Some(unix_seconds),
            ..Moved::default()
        }
    }

    /// What the clock on the wall shows.
    fn unix_seconds(&self, machine: impl FnOnce() -> u64) -> u64 {
        let from = self.stopped_s.unwrap_or_else(machine);
        let seconds = from + self.passed_s.load(Ordering::Relaxed);
        seconds.saturating_add_signed(self.set_s.load(Ordering::Relaxed))
    }

    /// Lets `seconds` pass, on all clocks.
    pub fn pass(&self, seconds: u64) {
        self.passed_s.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sets the clock on the wall `seconds` forward, or back where negative. No other clock moves.
    pub fn set(&self, seconds: i64) {
        self.set_s.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl WallClock {
    /// Names a file that moves the clocks of a real process, in builds with debug assertions only:
    /// 8 bytes, the seconds that pass on all clocks beside those of the machine, and 8 bytes, the
    /// seconds by which the clock on the wall is set forward (or back, where negative). Both are
    /// little-endian. The file is read at every look at a clock; the first number must never become
    /// smaller.
    #[cfg(debug_assertions)]
    pub const FILE_VARIABLE: &str = "RAIDA_MOVED_CLOCK";

    /// The clock of this process: the machine's.
    ///
    /// # Panics
    /// In builds with debug assertions, where the file of a trial cannot be opened.
    pub fn of_process() -> WallClock {
        #[cfg(debug_assertions)]
        if let Some(path) = std::env::var_os(Self::FILE_VARIABLE) {
            let file = std::fs::File::open(&path);
            let file = file.expect("a trial that moves the clock gives a file for it");
            return WallClock::MovedByFile(Arc::new(file));
        }
        WallClock::Machine
    }

    /// Seconds since 1970 in UTC.
    #[inline]
    pub(super) fn unix_seconds(&self) -> u64 {
        // The clock of the last timer tick: whole seconds need no better one, and it costs a fifth.
        let machine = || u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0);
        match self {
            WallClock::Machine => machine(),
            WallClock::Set(seconds) => seconds.load(Ordering::Relaxed),
            WallClock::Moved(moved) => moved.unix_seconds(machine),
            #[cfg(debug_assertions)]
            WallClock::MovedByFile(file) => {
                let (passed, set) = read_moved(file);
                (machine() + passed).saturating_add_signed(set)
            }
        }
    }

    /// Time that the monotonic clock is ahead of the machine's.
    #[inline]
    pub(super) fn passed(&self) -> Duration {
        match self {
            WallClock::Machine | WallClock::Set(_) => Duration::ZERO,
            WallClock::Moved(moved) => Duration::from_secs(moved.passed_s.load(Ordering::Relaxed)),
            #[cfg(debug_assertions)]
            WallClock::MovedByFile(file) => Duration::from_secs(read_moved(file).0),
        }
    }
}

/// Reads a file: seconds that passed, and seconds that the clock on the wall is set by.
#[cfg(debug_assertions)]
fn read_moved(file: &std::fs::File) -> (u64, i64) {
    let mut bytes = [0; 16];
    let read = std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0);
    read.expect("the file of a trial that moves the clock has 16 bytes");
    let (words, _) = bytes.as_chunks::<8>();
    (u64::from_le_bytes(words[0]), i64::from_le_bytes(words[1]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_passes_moves_all_clocks_and_what_is_set_moves_the_one_on_the_wall() {
        let moved = Arc::new(Moved::default());
        let clock = WallClock::Moved(moved.clone());
        let before = clock.unix_seconds();
        moved.pass(1_000_000);
        moved.set(-100_000);
        let ahead = clock.unix_seconds() - before;
        assert!((900_000..900_600).contains(&ahead), "{ahead}");
        assert_eq!(clock.passed(), Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_clock_that_is_stopped_shows_what_it_is_moved_to() {
        let moved = Arc::new(Moved::stopped_at(1_000));
        let clock = WallClock::Moved(moved.clone());
        moved.pass(60);
        moved.set(-7);
        assert_eq!(clock.unix_seconds(), 1_053);
        assert_eq!(clock.passed(), Duration::from_secs(60));
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_file_moves_the_clocks_as_long_as_a_process_runs() {
        let file = tempfile::tempfile().unwrap();
        let write = |passed: u64, set: i64| {
            file.write_all_at(&passed.to_le_bytes(), 0).unwrap();
            file.write_all_at(&set.to_le_bytes(), 8).unwrap();
        };
        write(0, 0);
        let clock = WallClock::MovedByFile(Arc::new(file.try_clone().unwrap()));
        let before = clock.unix_seconds();
        assert_eq!(clock.passed(), Duration::ZERO);
        write(1_000_000, -100_000);
        let ahead = clock.unix_seconds() - before;
        assert!((900_000..900_600).contains(&ahead), "{ahead}");
        assert_eq!(clock.passed(), Duration::from_secs(1_000_000));
    }
}
