//! Changes of coins of one shard, each by itself.

use std::{future::Future, rc::Rc};

use super::{
    Exchange, NotChanged, Shard,
    ask::{Answered, Question},
    exchange::exchange,
    owner::RECORDS_A_TURN,
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin},
    store::{book::Notes, pages::Lookup, record::Change},
};

/// Change every coin whose AN is right: which were, when that is durable. None of them is
/// [marked](Exchange::is_marked).
#[derive(Debug)]
pub struct ExchangeEach(pub Vec<Exchange>);

impl Question for ExchangeEach {
    type Answer = Result<Vec<bool>, NotChanged>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.exchange_known(&self.0).await })
    }
}

impl<E: Environment> Shard<E> {
    /// As [`Shard::exchange`], but several records hold only coins whose right AN one of them
    /// names. A client that does not know the AN waits for nobody, and keeps nobody waiting.
    async fn exchange_known(&self, records: &[Exchange]) -> Result<Vec<bool>, NotChanged> {
        if records.len() == 1 {
            return self.exchange(records).await;
        }
        let named: Vec<(Coin, An)> = records.iter().map(|r| (r.coin, r.an)).collect();
        let is_right = self.detect(&named).await?;
        if is_right.iter().all(|is_right| *is_right) {
            return self.exchange(records).await;
        }
        let (kept, known) = known_coins(records, &is_right);
        let mut passed = vec![false; records.len()];
        if !known.is_empty() {
            for (record, of) in kept.into_iter().zip(self.exchange(&known).await?) {
                passed[record] = of;
            }
        }
        Ok(passed)
    }

    /// Changes every coin whose AN is right, each by itself; records of the same coin see each
    /// other in the order they stand in. What passed is durable when this returns.
    async fn exchange(&self, records: &[Exchange]) -> Result<Vec<bool>, NotChanged> {
        let mut by_coin: Vec<(Coin, usize)> = (records
            .iter()
            .enumerate()
            .map(|(number, record)| (record.coin, number)))
        .collect();
        by_coin.sort_unstable();
        self.check_disk()?;
        let stalls = self.stalls.begun();
        let mut coins = Vec::with_capacity(by_coin.len());
        for (index, of_coin) in by_coin.chunk_by(|a, b| a.0 == b.0).enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn_in_line().await;
            }
            let coin = of_coin[0].0;
            let surely_fails = || self.surely_fails_all(coin, of_coin, records);
            if surely_fails() && self.locks.is_free(coin) {
                continue;
            }
            match self.hold_one(coin).await {
                // A request that does not know a coin's number does not hold the coin while it
                // waits for others.
                Ok(has_waited) if has_waited && surely_fails() => self.let_go(&[coin]),
                Ok(_) => coins.push(coin),
                Err(crowded) => {
                    self.let_go(&coins);
                    return Err(self.crowded(crowded));
                }
            }
        }
        let result = match self.check_waited(stalls) {
            Ok(()) => self.exchange_held(records, &coins).await,
            Err(unavailable) => Err(unavailable.into()),
        };
        self.let_go(&coins);
        result
    }

    /// Whether memory knows the number of a coin that nobody changes now, and no record names it.
    fn surely_fails_all(
        &self,
        coin: Coin,
        of_coin: &[(Coin, usize)],
        records: &[Exchange],
    ) -> bool {
        match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) => !of_coin.iter().any(|&(_, n)| records[n].an == an),
            Lookup::Free => true,
            Lookup::Unloaded | Lookup::Damaged => false,
        }
    }

    /// Judges records, those of coins that are not among `coins` (rising, held) as wrong.
    async fn exchange_held(
        &self,
        records: &[Exchange],
        coins: &[Coin],
    ) -> Result<Vec<bool>, NotChanged> {
        self.prefetch(coins.iter().copied()).await;
        let mut values = Vec::with_capacity(coins.len());
        for &coin in coins {
            values.push(self.value(coin).await?);
        }
        let month = self.month();
        let done = exchange(records, coins, &values, month, || self.unknown_an());
        if !done.changes.is_empty() {
            self.commit(&done.changes).await?;
        }
        self.note_unchanged(done.unchanged);
        Ok(done.passed)
    }

    /// Makes changes of this shard's coins, which the caller holds, durable and then visible.
    pub(super) async fn commit(&self, changes: &[Change]) -> Result<(), NotChanged> {
        let pages = self.begin(changes.iter().map(|change| change.coin)).await?;
        let appended = match self.log.append(&pages, changes, &Notes::default()).await {
            Ok(appended) => appended,
            Err(refusal) => {
                self.give_up(&pages);
                return Err(refusal.into());
            }
        };
        let durable = self.log.durable(&appended).await;
        match durable {
            Ok(()) => self.put(&pages, changes, None, self.noted_now()),
            Err(_) => self.give_up(&pages),
        }
        self.log.settle(appended);
        durable.map_err(NotChanged::from)
    }
}

/// The records, with their numbers, of coins whose right AN some record names; `is_right` says
/// which records do. Another record of the same coin may be right after that one.
fn known_coins(records: &[Exchange], is_right: &[bool]) -> (Vec<usize>, Vec<Exchange>) {
    let right = records.iter().zip(is_right);
    let right = right.filter(|(_, is_right)| **is_right);
    let mut coins: Vec<Coin> = right.map(|(record, _)| record.coin).collect();
    coins.sort_unstable();
    let records = records.iter().enumerate();
    let known = records.filter(|(_, record)| coins.binary_search(&record.coin).is_ok());
    known.map(|(number, &record)| (number, record)).unzip()
}
