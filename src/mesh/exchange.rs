use super::{link::Mesh, together::Decision};
use crate::{
    coin::Coin,
    shard::{Exchange, Reply, Request, Unavailable, exchange},
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
            return self.exchange_together(&records).await;
        }
        match self.ask(first, Request::Exchange(records)).await? {
            Reply::Passed(passed) => Ok(passed),
            other => unreachable!("a shard says of records which passed, not {other:?}"),
        }
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
