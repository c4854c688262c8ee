use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::link::Mesh;
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    shard::{Locked, Reply, Request, TransactionId, Unavailable},
    store::{
        Environment,
        book::Notes,
        record::{Change, PageSequence},
    },
};

/// What to do with coins that are held, once their values are known.
pub enum Decision<R> {
    /// Make these changes, in the order of the coins; a coin that is not among them stays as it is.
    Change(Vec<Change>),
    /// Change nothing, for this reason.
    Refuse(R),
}

impl<E: Environment> Mesh<E> {
    /// Changes several coins together: all or nothing, over shards and crashes (DESIGN.md
    /// section 4). Holds the coins shard by shard in rising order, decides, writes one record into
    /// this core's log, and when that is durable puts the changes into all pages.
    ///
    /// `coins` are rising, each once. `decide` gets their values in the same order (`None` for a
    /// free coin) and whether all their pages are reserved for `session`.
    ///
    /// Run it to its end: given up half-way it would hold the coins for good.
    ///
    /// # Errors
    /// [`Unavailable`] where a shard or the log cannot do it now, and nothing has changed; else
    /// what `decide` gave.
    pub async fn change_together<R>(
        &self,
        coins: &[Coin],
        session: Option<u32>,
        decide: impl FnOnce(&[Option<(An, Mfs)>], bool) -> Decision<R>,
    ) -> Result<Result<(), R>, Unavailable> {
        debug_assert!(coins.is_sorted_by(|a, b| a < b));
        let core = self.shard().id;
        let number = self.transactions.get();
        self.transactions.set(number + 1);
        let id = TransactionId { core, number };

        let mut parts: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        for (index, coin) in coins.iter().enumerate() {
            parts
                .entry(coin.page().owner(self.shards()))
                .or_default()
                .push(index);
        }
        let mut held: Vec<(ShardId, Locked)> = Vec::with_capacity(parts.len());
        for (&shard, indices) in &parts {
            let coins = indices.iter().map(|&index| coins[index]).collect();
            match self.ask(shard, Request::Lock(id, coins, session)).await {
                Ok(Reply::Locked(locked)) => held.push((shard, locked)),
                Ok(other) => unreachable!("a shard answers a lock with {other:?}"),
                Err(unavailable) => {
                    self.release(id, &held).await;
                    return Err(unavailable);
                }
            }
        }

        let mut values = vec![None; coins.len()];
        let mut pages: Vec<PageSequence> = Vec::new();
        for ((_, locked), indices) in held.iter().zip(parts.values()) {
            for (&index, &value) in indices.iter().zip(&locked.values) {
                values[index] = value;
            }
            pages.extend_from_slice(&locked.pages);
        }
        pages.sort_unstable_by_key(|page| page.page);
        let reserved = held.iter().all(|(_, locked)| locked.reserved);
        let changes = match decide(&values, reserved) {
            Decision::Change(changes) => changes,
            Decision::Refuse(reason) => {
                self.release(id, &held).await;
                return Ok(Err(reason));
            }
        };
        let is_held = |change: &Change| coins.binary_search(&change.coin).is_ok();
        assert!(
            changes.iter().all(is_held),
            "a decision changes coins that are held"
        );
        pages.retain(|page| {
            let at = changes.binary_search_by_key(&page.page, |change| change.coin.page());
            at.is_ok()
        });
        if changes.is_empty() {
            self.release(id, &held).await;
            return Ok(Ok(()));
        }

        let log = &self.shard().log;
        let Ok(appended) = log.append(&pages, &changes, &Notes::default()).await else {
            self.release(id, &held).await;
            return Err(Unavailable);
        };
        if log.durable(&appended).await.is_err() {
            self.release(id, &held).await;
            log.settle(appended);
            return Err(Unavailable);
        }
        let applied = parts.keys().map(|&shard| {
            let own = |change: &&Change| change.coin.page().owner(self.shards()) == shard;
            let changes: Vec<Change> = changes.iter().filter(own).copied().collect();
            self.ask(shard, Request::Apply(id, changes))
        });
        for reply in join_all(applied).await {
            assert!(
                matches!(reply, Ok(Reply::Done)),
                "a durable change is always applied"
            );
        }
        log.settle(appended);
        Ok(Ok(()))
    }

    async fn release(&self, id: TransactionId, held: &[(ShardId, Locked)]) {
        join_all(
            held.iter()
                .map(|&(shard, _)| self.ask(shard, Request::Release(id))),
        )
        .await;
    }
}
