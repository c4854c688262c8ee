use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::Node;
use crate::runtime::Environment;
use crate::{
    coin::{Coin, ShardId},
    protocol::Status,
    shard::{Exchange, Question, Unavailable},
};

/// The records of a request, grouped by the shard that owns their coin; records of coins that
/// cannot exist are left out.
pub(super) struct Scattered<R> {
    by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<R>)>,
}

/// Groups records by shard, once.
pub(super) fn scatter<R>(
    shards: u16,
    records: impl Iterator<Item = Option<(Coin, R)>>,
) -> Scattered<R> {
    let mut by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<R>)> = BTreeMap::new();
    // A quarter more than an even share for each.
    let most = records.size_hint().1.unwrap_or(0);
    let share = most.min(most.div_ceil(usize::from(shards)) * 5 / 4);
    let room = || (Vec::with_capacity(share), Vec::with_capacity(share));
    for (index, record) in records.enumerate() {
        let Some((coin, record)) = record else {
            continue;
        };
        let (indices, records) = by_shard
            .entry(coin.page().owner(shards))
            .or_insert_with(room);
        indices.push(index);
        records.push(record);
    }
    Scattered { by_shard }
}

impl<R> Scattered<R> {
    /// Each shard with the numbers of its records, and the records.
    pub(super) fn into_shards(self) -> impl Iterator<Item = (ShardId, Vec<usize>, Vec<R>)> {
        let shards = self.by_shard.into_iter();
        shards.map(|(shard, (indices, records))| (shard, indices, records))
    }
}

impl<E: Environment> Node<E> {
    /// Asks every shard about its records, all at the same time, and tells `pass` which passed.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now; `pass` has been told all the same what passed
    /// elsewhere.
    pub(super) async fn gather<R, Q>(
        &self,
        scattered: Scattered<R>,
        question: impl Fn(Vec<R>) -> Q,
        mut pass: impl FnMut(usize),
    ) -> Result<(), Status>
    where
        Q: Question<Answer = Result<Vec<bool>, Unavailable>>,
    {
        let mut outcome = Ok(());
        let mut tell = |indices: Vec<usize>, passed: Q::Answer| match passed {
            Ok(passed) => {
                let records = indices.into_iter().zip(passed);
                let passing = records.filter(|(_, passed)| *passed);
                passing.for_each(|(record, _)| pass(record));
            }
            Err(Unavailable) => outcome = Err(Status::UNAVAILABLE),
        };
        let mut by_shard = scattered.by_shard;
        if by_shard.len() == 1
            && let Some((shard, (indices, records))) = by_shard.pop_first()
        {
            tell(indices, self.mesh.ask(shard, question(records)).await);
            return outcome;
        }
        let asked = by_shard.into_iter().map(|(shard, (indices, records))| {
            let passed = self.mesh.ask(shard, question(records));
            async move { (indices, passed.await) }
        });
        for (indices, passed) in join_all(asked).await {
            tell(indices, passed);
        }
        outcome
    }

    /// Changes coins that each pass or fail on their own, and tells `pass` which passed. Those that
    /// pass change together: after a crash all of them have changed, or none.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now, 254 where too many wait for one of the coins; nothing
    /// was changed.
    pub(super) async fn exchange(
        &self,
        records: impl Iterator<Item = Option<Exchange>>,
        mut pass: impl FnMut(usize),
    ) -> Result<(), Status> {
        let (indices, records): (Vec<usize>, Vec<Exchange>) = records
            .enumerate()
            .filter_map(|(index, record)| Some((index, record?)))
            .unzip();
        let passed = self.mesh.exchange(records).await?;
        let passing = indices
            .into_iter()
            .zip(passed)
            .filter(|(_, passed)| *passed);
        passing.for_each(|(record, _)| pass(record));
        Ok(())
    }
}
