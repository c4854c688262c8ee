//! A shard's part in a checkpoint.

use std::{future::Future, io, rc::Rc};

use futures_util::future::LocalBoxFuture;

use super::{
    Shard, Unavailable,
    ask::{Answered, Question, Short},
    lockers::Cursor,
};
use crate::runtime::Environment;
use crate::store::{
    Checkpointed,
    book::Entry,
    log::{Durability, Position},
    pages::CheckpointCounts,
};

/// Writes what waits in the logs of all shards.
pub type FlushAll = Box<dyn Fn() -> LocalBoxFuture<'static, ()>>;

/// The position up to which the log is settled: all that it has written is in the pages.
#[derive(Debug)]
pub struct Mark;

/// Write what waits in the log.
#[derive(Debug)]
pub struct Flush;

/// Write every changed page, as part of this round; only after [`Mark`].
#[derive(Debug)]
pub struct Checkpoint(pub u64);

/// Write the log's segments before a position over.
#[derive(Debug)]
pub struct Recycle {
    /// The position.
    pub mark: Position,
    /// The round of the checkpoint that has them.
    pub round: u64,
    /// What that has left on the disk.
    pub left: Box<Checkpointed>,
}

/// A checkpoint failed: wait no longer for it to free a segment.
#[derive(Debug)]
pub struct CheckpointFailed;

/// Ask for a checkpoint soon.
#[derive(Debug)]
pub struct WantCheckpoint;

impl Question for Mark {
    type Answer = Position;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.log.mark().await })
    }
}

impl Question for Flush {
    type Answer = ();

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.log.flush().await })
    }
}

impl Question for Checkpoint {
    type Answer = Result<CheckpointCounts, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.checkpoint_told(self.0).await })
    }
}

impl Short for Recycle {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.log.recycle(self.mark, self.round, &self.left);
    }
}

impl Short for CheckpointFailed {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.log.checkpoint_failed();
    }
}

impl Short for WantCheckpoint {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.checkpoint_wanted.notify();
    }
}

impl<E: Environment> Shard<E> {
    /// Has `flush` write the logs of all shards for this one's checkpoints. Call it once.
    pub fn flush_all_by(&self, flush: FlushAll) {
        let first = self.flush_all.set(flush).is_ok();
        assert!(first, "a shard is part of one mesh");
    }

    /// Makes its part of a checkpoint, and tells the operator where that fails, and where it works
    /// again.
    async fn checkpoint_told(&self, round: u64) -> Result<CheckpointCounts, Unavailable> {
        let flush = async || {
            if let Some(flush) = self.flush_all.get() {
                flush().await;
            }
        };
        let written = self.checkpoint(round, flush).await;
        let (shard, now) = (self.id.index(), self.environment.monotonic());
        match &written {
            Ok(_) => {
                if let Some(over) = self.failed_checkpoints.over(now) {
                    let times = over.times;
                    tracing::warn!(shard, round, times, "pages can be written again");
                }
            }
            Err(error) => {
                if let Some(times) = self.failed_checkpoints.met(now, error) {
                    tracing::error!(shard, round, times, %error, "pages cannot be written");
                }
            }
        }
        written.map_err(|_| Unavailable)
    }

    /// Writes every page with changes that no image on disk has. In the periodic mode the logs are
    /// written first, of all shards, by `flush`.
    ///
    /// # Errors
    /// As the storage gives them; nothing is lost, and the logs are still needed.
    pub async fn checkpoint(
        &self,
        round: u64,
        flush: impl AsyncFn(),
    ) -> io::Result<CheckpointCounts> {
        let periodic = self.durability == Durability::Periodic;
        let durable = async || {
            if periodic {
                flush().await;
            }
        };
        let mut counts = self.pages.checkpoint(round, durable).await?;
        if self.lockers.borrow_mut().take_changed() {
            let mut cursor = Cursor::start();
            let next = |entries: &mut Vec<Entry>| {
                self.lockers.borrow().entries(&mut cursor, entries);
            };
            let written = self.book.write(&self.environment, round, next, &durable);
            written
                .await
                .inspect_err(|_| self.lockers.borrow_mut().set_changed())?;
        }
        counts.left.shards = self.shards;
        counts.left.books = u64::from(self.book.is_written()) << self.id.index();
        Ok(counts)
    }
}
