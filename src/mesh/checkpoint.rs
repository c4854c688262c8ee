use std::{cell::Cell, io, pin::pin, rc::Rc, time::Duration};

use futures_util::future::{join_all, select};

use super::link::Mesh;
use crate::runtime::{Environment, Signal};
use crate::{
    coin::ShardId,
    shard::question::{Checkpoint, CheckpointFailed, Mark, Recycle, WantCheckpoint},
    store::{Trouble, pages::CheckpointCounts},
};

/// After a failed checkpoint, the time to the next try.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Makes one checkpoint of all shards, and lets their logs write over what it has.
///
/// First every log says how far it goes, once all before that is in the pages; then every shard
/// writes its changed pages; only when all are durable is any log told. So a log never loses a
/// record that some page image still lacks.
///
/// # Errors
/// Where pages cannot be written. Nothing is lost then: the logs keep what they have.
pub async fn checkpoint<E: Environment>(
    mesh: &Mesh<E>,
    round: u64,
) -> io::Result<CheckpointCounts> {
    let marks = mesh.ask_all(|| Mark).await;
    let written = mesh.ask_all(|| Checkpoint(round)).await;
    let written: Result<Vec<CheckpointCounts>, _> = written.into_iter().collect();
    let Ok(written) = written else {
        mesh.ask_all(|| CheckpointFailed).await;
        return Err(io::Error::other("a shard could not write its pages"));
    };
    let mut total = CheckpointCounts::default();
    for counts in written {
        total.pages += counts.pages;
        total.left = total.left.and(&counts.left);
    }
    let freed = marks.into_iter().enumerate().map(|(shard, mark)| {
        let left = Box::new(total.left);
        let recycle = Recycle { mark, round, left };
        mesh.ask(ShardId::new(shard as u16), recycle)
    });
    join_all(freed).await;
    Ok(total)
}

/// Checkpoints from time to time and on demand. Runs on shard 0's core.
pub struct Checkpoints {
    interval: Cell<Duration>,
    round: Cell<u64>,
    is_under_way: Cell<bool>,
    trouble: Trouble,
    /// Notified when a checkpoint ends.
    ended: Signal,
}

impl Checkpoints {
    /// Rounds go on after `round`, the newest that the data folder knows.
    pub fn new(interval: Duration, round: u64) -> Checkpoints {
        Checkpoints {
            interval: Cell::new(interval),
            round: Cell::new(round),
            is_under_way: Cell::new(false),
            trouble: Trouble::default(),
            ended: Signal::default(),
        }
    }

    /// Changes the interval, from the next checkpoint on.
    pub fn set_interval(&self, interval: Duration) {
        self.interval.set(interval);
    }

    /// Makes a checkpoint now, or when the one under way has ended: of two at a time, each would
    /// take the other's pages as written before they are. Run it to its end.
    ///
    /// # Errors
    /// As [`checkpoint`].
    pub async fn make<E: Environment>(&self, mesh: &Mesh<E>) -> io::Result<CheckpointCounts> {
        loop {
            let moment = self.ended.moment();
            if !self.is_under_way.replace(true) {
                break;
            }
            self.ended.after(moment).await;
        }
        let made = self.make_alone(mesh).await;
        self.is_under_way.set(false);
        self.ended.notify();
        made
    }

    async fn make_alone<E: Environment>(&self, mesh: &Mesh<E>) -> io::Result<CheckpointCounts> {
        let round = self.round.get() + 1;
        self.round.set(round);
        let start = mesh.shard().environment.monotonic();
        let made = checkpoint(mesh, round).await;
        let now = mesh.shard().environment.monotonic();
        match &made {
            Ok(counts) => {
                let seconds = (now - start).as_secs_f32();
                tracing::debug!(round, pages = counts.pages, seconds, "checkpoint");
                if let Some(over) = self.trouble.over(now) {
                    let (times, seconds) = (over.times, over.lasted.as_secs_f32());
                    tracing::warn!(round, times, seconds, "checkpoints are made again");
                }
            }
            Err(error) => {
                if let Some(times) = self.trouble.met(now, error) {
                    tracing::error!(round, times, %error, "checkpoint failed; the logs are kept");
                }
            }
        }
        made
    }

    /// Makes checkpoints, for as long as the node runs.
    pub async fn run<E: Environment>(self: Rc<Self>, mesh: Rc<Mesh<E>>) {
        let environment = &mesh.shard().environment;
        let wanted = mesh.shard().checkpoint_wanted.clone();
        let mut moment = wanted.moment();
        loop {
            select(
                pin!(environment.sleep(self.interval.get())),
                pin!(wanted.after(moment)),
            )
            .await;
            // Taken before the checkpoint: the checkpoint may not fulfil a wish that comes while it
            // runs.
            moment = wanted.moment();
            if self.make(&mesh).await.is_err() {
                environment.sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Passes a shard's wish for a checkpoint on to shard 0, for as long as the node runs.
    pub async fn forward_wishes<E: Environment>(mesh: Rc<Mesh<E>>) {
        let first = ShardId::new(0);
        if mesh.shard().id == first {
            return; // its wishes are heard where they are made
        }
        let wanted = mesh.shard().checkpoint_wanted.clone();
        let mut moment = wanted.moment();
        loop {
            wanted.after(moment).await;
            moment = wanted.moment();
            mesh.ask(first, WantCheckpoint).await;
        }
    }
}
