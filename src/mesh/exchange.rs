use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{link::Mesh, together::Decision};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, ShardId},
    shard::{
        Exchange, NotChanged, Unavailable, exchange,
        question::{Detect, ExchangeEach},
    },
    store::book::Notes,
};

impl<E: Environment> Mesh<E> {
    /// Changes every coin whose AN is right, each by itself; records of the same coin see each
    /// other in the order they stand in. Those that pass change together: after a crash all of them
    /// have, or none. Gives which passed.
    ///
    /// # Errors
    /// Where a shard or the log cannot do it now, or too many wait for one of the coins; nothing
    /// has changed.
    pub async fn exchange(&self, records: Vec<Exchange>) -> Result<Vec<bool>, NotChanged> {
        let owner = |record: &Exchange| record.coin.page().owner(self.shards());
        let Some(first) = records.first().map(owner) else {
            return Ok(Vec::new());
        };
        let is_plain = |record: &Exchange| owner(record) == first && !record.is_marked();
        if !records.iter().all(is_plain) {
            return self.exchange_together(&records).await;
        }
        self.ask(first, ExchangeEach(records)).await
    }

    async fn exchange_together(&self, records: &[Exchange]) -> Result<Vec<bool>, NotChanged> {
        let coins = self.known(records).await?;
        if coins.is_empty() {
            return Ok(vec![false; records.len()]);
        }
        let mut passed = Vec::new();
        let changed = self.change_together(&coins, None, |held| {
            let (shard, values) = (self.shard(), held.movable());
            let unknown_an = || shard.unknown_an();
            let done = exchange(records, &coins, &values, shard.month(), unknown_an);
            shard.note_unchanged(done.unchanged);
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
        // The decision refuses nothing.
        let _ = changed.await?;
        Ok(passed)
    }

    /// The coins whose ANs some record names, rising, each once. The other coins are not held for
    /// these records: a client that does not know a coin's number keeps nobody waiting for it.
    async fn known(&self, records: &[Exchange]) -> Result<Vec<Coin>, Unavailable> {
        let mut by_shard: BTreeMap<ShardId, Vec<(Coin, An)>> = BTreeMap::new();
        for record in records {
            let owner = record.coin.page().owner(self.shards());
            let of_owner = by_shard.entry(owner).or_default();
            of_owner.push((record.coin, record.an));
        }
        let asked = by_shard.into_iter().map(|(shard, records)| {
            let coins: Vec<Coin> = records.iter().map(|&(coin, _)| coin).collect();
            let passed = self.ask(shard, Detect(records));
            async move { (coins, passed.await) }
        });
        let mut known = Vec::with_capacity(records.len());
        for (coins, passed) in join_all(asked).await {
            let passing = coins.into_iter().zip(passed?);
            known.extend(passing.filter_map(|(coin, passed)| passed.then_some(coin)));
        }
        known.sort_unstable();
        known.dedup();
        Ok(known)
    }
}
