use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{link::Mesh, together::Decision};
use crate::{
    coin::{An, Coin, ShardId},
    shard::{Exchange, Reply, Request, Unavailable, exchange, known_coins},
    store::{Environment, book::Notes},
};

impl<E: Environment> Mesh<E> {
    /// Changes every coin whose AN is right, each by itself; records of the same coin see each other in
    /// the order they stand in. Those that pass change together: after a crash all of them have, or
    /// none. Gives which passed.
    ///
    /// # Errors
    /// Where a shard or the log cannot do it now; nothing has changed.
    pub async fn exchange(&self, records: Vec<Exchange>) -> Result<Vec<bool>, Unavailable> {
        let owner = |record: &Exchange| record.coin.page().owner(self.shards());
        let Some(first) = records.first().map(owner) else {
            return Ok(Vec::new());
        };
        let is_plain = |record: &Exchange| owner(record) == first && !record.is_marked();
        if !records.iter().all(is_plain) {
            return self.exchange_known(&records).await;
        }
        match self.ask(first, Request::Exchange(records)).await? {
            Reply::Passed(passed) => Ok(passed),
            other => unreachable!("a shard says of records which passed, not {other:?}"),
        }
    }

    /// Looks first, and holds only coins of which a record says the right AN: whoever does not know it
    /// keeps nobody waiting.
    async fn exchange_known(&self, records: &[Exchange]) -> Result<Vec<bool>, Unavailable> {
        let mut parts: BTreeMap<ShardId, (Vec<usize>, Vec<(Coin, An)>)> = BTreeMap::new();
        for (number, record) in records.iter().enumerate() {
            let owner = record.coin.page().owner(self.shards());
            let (numbers, named) = parts.entry(owner).or_default();
            numbers.push(number);
            named.push((record.coin, record.an));
        }
        let mut is_right = vec![false; records.len()];
        let asked = parts.into_iter().map(|(shard, (numbers, named))| {
            let reply = self.ask(shard, Request::Detect(named));
            async move { (numbers, reply.await) }
        });
        for (numbers, reply) in join_all(asked).await {
            let Reply::Passed(passed) = reply? else {
                unreachable!("a shard says of records which passed");
            };
            for (number, passed) in numbers.into_iter().zip(passed) {
                is_right[number] = passed;
            }
        }
        if is_right.iter().all(|is_right| *is_right) {
            return self.exchange_together(records).await;
        }
        let (kept, known) = known_coins(records, &is_right);
        let mut passed = vec![false; records.len()];
        if !known.is_empty() {
            let changed = self.exchange_together(&known).await?;
            for (record, of) in kept.into_iter().zip(changed) {
                passed[record] = of;
            }
        }
        Ok(passed)
    }

    async fn exchange_together(&self, records: &[Exchange]) -> Result<Vec<bool>, Unavailable> {
        let mut coins: Vec<Coin> = records.iter().map(|record| record.coin).collect();
        coins.sort_unstable();
        coins.dedup();
        let mut passed = Vec::new();
        let changed = self.change_together(&coins, None, |held| {
            let (shard, values) = (self.shard(), held.movable());
            let unknown_an = || shard.unknown_an();
            let done = exchange(records, &coins, &values, shard.month(), unknown_an);
            passed = done.passed;
            let ranks = done.ranks;
            Decision::<()>::Change(
                done.changes,
                Notes {
                    ranks,
                    ..Notes::default()
                },
            )
        });
        // It refuses nothing.
        let _ = changed.await?;
        Ok(passed)
    }
}
