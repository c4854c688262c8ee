//! How long answers are waited for while the disk does not answer: a client that waits for ever
//! keeps its place for ever.

use std::{pin::pin, rc::Rc, time::Duration};

use futures_util::future::{Either, select};

use super::{
    Node, Outcome,
    budget::{self, Made},
};
use crate::runtime::Environment;

/// Maximum and minimum time between two checks for answers that have waited too long.
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(5);

/// Maximum number of answers that nobody waits for any more and that are run to their ends. Beyond
/// it, requests that have to wait get no answer at once: nobody knows how long the disk will be
/// silent, and each takes memory.
const ORPHANS_MAX: usize = 1_024;

/// An answer that comes later, to a request that began at `start` and has this place among the
/// waiting ones. There is no answer where the disk has kept it too long; its future is run to its
/// end all the same, without a place.
pub(super) fn later<E: Environment>(
    node: &Rc<Node<E>>,
    start: Duration,
    waits: budget::Place,
    answer: impl Future<Output = Made> + 'static,
) -> Outcome {
    let node = node.clone();
    if node.shard().is_stalled() && node.orphans.get() >= ORPHANS_MAX {
        return Outcome::Later(Box::pin(async { Made::default() }));
    }
    // In a box of its own: the future has to be able to go on alone.
    let answer = Box::pin(answer);
    Outcome::Later(Box::pin(async move {
        let given_up = pin!(node.kept_too_long(start));
        let made = match select(answer, given_up).await {
            Either::Left((made, _)) => made,
            Either::Right(((), answer)) => {
                node.given_up.set(node.given_up.get() + 1);
                node.orphans.set(node.orphans.get() + 1);
                let of = node.clone();
                node.shard().environment.spawn(async move {
                    answer.await;
                    of.orphans.set(of.orphans.get() - 1);
                });
                Made::default()
            }
        };
        drop(waits);
        made
    }))
}

impl<E: Environment> Node<E> {
    /// Waits until the disk does not answer and a request that began then has had its time.
    async fn kept_too_long(&self, start: Duration) {
        let shard = self.shard();
        loop {
            let moment = shard.stall_changed().moment();
            if shard.is_stalled() {
                let now = shard.environment.monotonic();
                if now.saturating_sub(start) >= shard.disk_timeout() {
                    return;
                }
            }
            shard.stall_changed().after(moment).await;
        }
    }

    /// Gives up answers that the disk keeps too long, for as long as the node runs.
    pub(super) async fn give_up_late_answers(self: Rc<Self>) {
        let (shard, timeout) = (self.shard(), self.shard().disk_timeout());
        let look = (timeout / 4).clamp(LOOK_MIN, LOOK_MAX);
        loop {
            let moment = shard.stall_changed().moment();
            if !shard.is_stalled() {
                shard.stall_changed().after(moment).await;
                continue;
            }
            if let Some(before) = shard.environment.monotonic().checked_sub(timeout) {
                let count = self.parking.give_up(before) as u64;
                self.given_up.set(self.given_up.get() + count);
            }
            // Requests that wait with a task of their own check for themselves.
            shard.stall_changed().notify();
            shard.environment.sleep(look).await;
        }
    }
}
