use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rustix::time::{ClockId, clock_gettime};

/// What month and what minute it is. Moments, by which changes are ordered, are the machine's always.
#[derive(Clone, Debug, Default)]
pub enum WallClock {
    /// The machine's.
    #[default]
    Machine,
    /// Seconds since 1970 in UTC, as somebody sets them: for trials at other times than now.
    Set(Arc<AtomicU64>),
}

impl WallClock {
    /// Seconds since 1970 in UTC.
    #[inline]
    pub(super) fn unix_seconds(&self) -> u64 {
        match self {
            // The clock of the last timer tick: whole seconds need no better one, and it costs a fifth.
            WallClock::Machine => {
                u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
            }
            WallClock::Set(seconds) => seconds.load(Ordering::Relaxed),
        }
    }
}
