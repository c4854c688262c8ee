//! A disk that does not answer: the shard sees it by what waits for the disk, and tells all shards.
//!
//! During a stall the shard takes on no change, and the layers above send away without an answer
//! those who wait for a change under way: nobody knows what will become of it. Its coins stay held
//! until the disk says so, however late.

use std::{
    cell::{Cell, OnceCell},
    io,
    rc::{Rc, Weak},
    time::Duration,
};

use super::{Shard, Unavailable};
use crate::runtime::{Environment, Signal};
use crate::{coin::ShardId, store::Trouble};

/// Time between two looks at whether the disk answers, at most and at least.
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(5);

/// Number of times that a wait is seen before it counts: a machine that was paused has not waited
/// for its disk.
const SEEN_LEAST: u32 = 3;

/// Hears whether this shard's disk answers, when that changes.
pub type StallListener = Box<dyn Fn(bool)>;

/// What a shard knows of disks that do not answer.
pub(super) struct Stalls {
    timeout: Duration,
    /// One bit a shard.
    shards: Cell<u64>,
    /// Number of stalls that began.
    begun: Cell<u64>,
    changed: Signal,
    listener: OnceCell<StallListener>,
    trouble: Trouble,
    /// Writes under way to files other than pages and logs, and since when none of them has ended.
    other_writes: Cell<(usize, Duration)>,
    /// The oldest wait that was seen, and how often in a row.
    seen: Cell<(Duration, u32)>,
}

/// A write under way, until dropped.
struct OtherWrite<'a>(&'a Cell<(usize, Duration)>);

impl Drop for OtherWrite<'_> {
    fn drop(&mut self) {
        let (count, since) = self.0.get();
        self.0.set((count - 1, since));
    }
}

impl Stalls {
    pub fn new(timeout: Duration) -> Stalls {
        Stalls {
            timeout,
            shards: Cell::default(),
            begun: Cell::default(),
            changed: Signal::default(),
            listener: OnceCell::new(),
            trouble: Trouble::default(),
            other_writes: Cell::default(),
            seen: Cell::default(),
        }
    }

    /// A moment to compare with: see [`Shard::check_waited`].
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }
}

impl<E: Environment> Shard<E> {
    /// How long the disk may take before it counts as one that does not answer.
    pub fn disk_timeout(&self) -> Duration {
        self.stalls.timeout
    }

    /// Whether the disk of any shard does not answer.
    #[inline]
    pub fn is_stalled(&self) -> bool {
        self.stalls.shards.get() != 0
    }

    /// Notified when that changes.
    pub fn stall_changed(&self) -> &Signal {
        &self.stalls.changed
    }

    /// Has `listener` told whether this shard's disk answers, to tell the other shards. Call it
    /// once.
    pub fn listen_to_stalls(&self, listener: StallListener) {
        let first = self.stalls.listener.set(listener).is_ok();
        assert!(first, "a shard has one listener to stalls");
    }

    /// Takes note of whether a shard's disk answers.
    pub fn set_stalled(&self, shard: ShardId, is_stalled: bool) {
        let stalls = &self.stalls;
        let bit = 1 << shard.index();
        let (before, rest) = (stalls.shards.get(), stalls.shards.get() & !bit);
        let now = if is_stalled { rest | bit } else { rest };
        stalls.shards.set(now);
        if (before == 0) == (now == 0) {
            return;
        }
        stalls.begun.set(stalls.begun.get() + u64::from(now != 0));
        self.pages.set_stalled(now != 0);
        self.log.set_stalled(now != 0);
        stalls.changed.notify();
    }

    /// Refuses while a disk does not answer.
    pub(super) fn check_disk(&self) -> Result<(), Unavailable> {
        match self.is_stalled() {
            true => Err(Unavailable),
            false => Ok(()),
        }
    }

    /// Refuses a request that waited for others during a stall: its asker was sent away.
    pub(super) fn check_waited(&self, begun: u64) -> Result<(), Unavailable> {
        match self.stalls.begun() == begun {
            true => self.check_disk(),
            false => Err(Unavailable),
        }
    }

    /// Waits for a write to the disk that is neither to the log nor of a page.
    pub(super) async fn write_other<T>(&self, write: impl Future<Output = T>) -> T {
        let under_way = &self.stalls.other_writes;
        let (count, since) = under_way.get();
        let since = match count {
            0 => self.environment.monotonic(),
            _ => since,
        };
        under_way.set((count + 1, since));
        let _write = OtherWrite(under_way);
        let written = write.await;
        let (count, _) = under_way.get();
        under_way.set((count, self.environment.monotonic()));
        written
    }

    /// Looks whether the disk answers, for as long as there is the shard.
    pub(super) async fn watch_disk(environment: E, timeout: Duration, shard: Weak<Self>) {
        let look = (timeout / 4).clamp(LOOK_MIN, LOOK_MAX);
        loop {
            environment.sleep(look).await;
            let Some(shard) = shard.upgrade() else { return };
            shard.look_at_disk();
        }
    }

    fn look_at_disk(self: &Rc<Self>) {
        let stalls = &self.stalls;
        let now = self.environment.monotonic();
        let waits = [
            self.log.waits_since(),
            self.pages.waits_since(),
            Some(stalls.other_writes.get()).and_then(|(count, since)| (count > 0).then_some(since)),
        ];
        let since = waits.into_iter().flatten().min();
        let waits_for = now.saturating_sub(since.unwrap_or(now));
        let times_seen = match (since, stalls.seen.get()) {
            (Some(since), (before, times)) if since == before => times + 1,
            _ => 1,
        };
        stalls.seen.set((since.unwrap_or_default(), times_seen));
        let is_stalled = waits_for >= stalls.timeout && times_seen >= SEEN_LEAST;
        let was_stalled = stalls.shards.get() >> self.id.index() & 1 == 1;
        let shard = self.id.index();
        if is_stalled && let Some(times) = stalls.trouble.met(now, &io::ErrorKind::TimedOut.into())
        {
            let seconds = waits_for.as_secs();
            tracing::error!(
                shard,
                seconds,
                times,
                "the disk does not answer: changes are refused, and whoever waits for one under way is sent away without an answer; reads go on"
            );
        }
        if is_stalled == was_stalled {
            return;
        }
        if !is_stalled && let Some(over) = stalls.trouble.over(now) {
            let seconds = over.lasted.as_secs_f32();
            tracing::warn!(shard, seconds, "the disk answers again");
        }
        self.set_stalled(self.id, is_stalled);
        if let Some(listener) = stalls.listener.get() {
            listener(is_stalled);
        }
    }
}
