//! Group 1: detect, detect sum, pown, pown sum.

use super::{Node, scatter::scatter, stored::stored};
use crate::{
    coin::Coin,
    mesh::Decision,
    protocol::{
        Command, PassFail, Status,
        authentication::{Detect, DetectSum, Pown, PownSum},
        pass_fail::Bitmap,
    },
    shard::{Exchange, RECORDS_A_TURN, Replacement, Request, Single, Sum},
    store::{Environment, record::Change},
};

impl<E: Environment> Node<E> {
    /// Detect, where memory of this shard knows all the coins.
    #[inline]
    pub(super) fn detect_now(&self, payload: &[u8], out: &mut Vec<u8>) -> Option<Status> {
        let request = match Detect::parse(payload) {
            Ok(request) => request,
            Err(status) => return Some(status),
        };
        let coins = || request.records().map(|(coin, _)| coin);
        let owned = |coin: Option<Coin>| coin.is_none_or(|coin| self.shard().owns(coin.page()));
        if request.len() > RECORDS_A_TURN || !coins().all(owned) {
            return None;
        }
        let mut answer = PassFail::begin(out, request.len());
        let possible = (coins().enumerate()).filter_map(|(record, coin)| Some((coin?, record)));
        let an = |record| Some(request.record(record)?.1);
        let shard = self.shard();
        match shard.compare_now(possible, an, |record| answer.pass(record))? {
            Ok(()) => Some(answer.finish(Bitmap::IfMixed)),
            Err(_) => Some(Status::UNAVAILABLE),
        }
    }

    /// The question that a request about one coin comes to; `None` for any other request.
    #[inline]
    pub(super) fn single(&self, command: Command, payload: &[u8]) -> Option<Single> {
        match command {
            Command::Detect => {
                let request = Detect::parse(payload).ok()?;
                let (coin, an) = request.record(0)?;
                (request.len() == 1).then_some(Single::Detect(coin?, an))
            }
            Command::Pown => {
                let request = Pown::parse(payload).ok()?;
                let (coin, an, pan) = request.record(0)?;
                let (coin, becomes) = (coin?, Replacement::An(pan));
                let exchange = Exchange { coin, an, becomes };
                let is_one = request.len() == 1 && !exchange.is_marked();
                is_one.then_some(Single::Exchange(exchange))
            }
            _ => None,
        }
    }

    pub(super) async fn detect(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<Status, Status> {
        let request = Detect::parse(payload)?;
        let records = request
            .records()
            .map(|(coin, an)| coin.map(|coin| (coin, (coin, an))));
        let scattered = scatter(self.mesh.shards(), records);
        let mut answer = PassFail::begin(out, request.len());
        self.gather(scattered, Request::Detect, |record| answer.pass(record))
            .await?;
        Ok(answer.finish(Bitmap::IfMixed))
    }

    /// Detect sum, where memory of this shard knows all the coins.
    #[inline]
    pub(super) fn detect_sum_now(&self, payload: &[u8]) -> Option<Status> {
        let request = match DetectSum::parse(payload) {
            Ok(request) => request,
            Err(status) => return Some(status),
        };
        let coins = request.coins();
        if coins.len() > RECORDS_A_TURN || !coins.iter().all(|c| self.shard().owns(c.page())) {
            return None;
        }
        if has_twice(coins.iter(), coins.len()) {
            return Some(Status::ALL_FAIL);
        }
        Some(match self.shard().sum_now(coins.iter())? {
            Ok(sum) => verdict(sum.is_some_and(|sum| sum.proves(request.sum()))),
            Err(_) => Status::UNAVAILABLE,
        })
    }

    pub(super) async fn detect_sum(&self, payload: &[u8]) -> Result<Status, Status> {
        let request = DetectSum::parse(payload)?;
        let coins = request.coins();
        if has_twice(coins.iter(), coins.len()) {
            return Ok(Status::ALL_FAIL);
        }
        let sum = self.sum(coins.iter()).await?;
        Ok(verdict(sum.is_some_and(|sum| sum.proves(request.sum()))))
    }

    pub(super) async fn pown(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<Status, Status> {
        let request = Pown::parse(payload)?;
        let records = request.records().map(|(coin, an, pan)| {
            let becomes = Replacement::An(pan);
            coin.map(|coin| Exchange { coin, an, becomes })
        });
        let mut answer = PassFail::begin(out, request.len());
        let (mut coins, mut value) = (0, 0u64);
        self.exchange(records, |record| {
            answer.pass(record);
            coins += 1;
            let coin = request.record(record).and_then(|(coin, ..)| coin);
            value += coin.map_or(0, |coin| coin.denomination.worth_units());
        })
        .await?;
        self.count_powned(coins, value);
        Ok(answer.finish(Bitmap::IfMixed))
    }

    pub(super) async fn pown_sum(&self, payload: &[u8]) -> Result<Status, Status> {
        let request = PownSum::parse(payload)?;
        let mut coins: Vec<Coin> = request.coins().iter().collect();
        coins.sort_unstable();
        if has_neighbours_alike(&coins) {
            return Ok(Status::ALL_FAIL);
        }
        let mfs = self.shard().month();
        let changed = self.mesh.change_together(&coins, None, |held| {
            let mut sum = Sum::default();
            let mut changes = Vec::with_capacity(coins.len());
            for (&coin, value) in coins.iter().zip(held.values) {
                let Some((an, _)) = *value else {
                    return Decision::Refuse(());
                };
                sum.add(an);
                let an = an ^ request.delta();
                changes.push(Change { coin, an, mfs });
            }
            if sum.proves(request.sum()) && !held.any_on_sale() {
                let notes = stored(&changes, request.coins().iter());
                Decision::Change(changes, notes)
            } else {
                Decision::Refuse(())
            }
        });
        let changed = changed.await?;
        if changed.is_ok() {
            let value = coins
                .iter()
                .map(|coin| coin.denomination.worth_units())
                .sum();
            self.count_powned(coins.len() as u64, value);
        }
        Ok(verdict(changed.is_ok()))
    }

    pub(super) fn count_powned(&self, coins: u64, value: u64) {
        self.shard().count(|counters| {
            counters.coins_powned += coins;
            counters.value_powned = counters.value_powned.saturating_add(value);
        });
    }
}

pub(super) fn verdict(passed: bool) -> Status {
    match passed {
        true => Status::ALL_PASS,
        false => Status::ALL_FAIL,
    }
}

/// Whether a coin is named twice. An AN that stands in an XOR twice leaves no trace, so whoever
/// names a coin twice proves nothing about it: such a request fails.
pub(super) fn has_twice(coins: impl Iterator<Item = Coin>, count: usize) -> bool {
    match count {
        0 | 1 => false,
        _ => {
            let mut coins: Vec<Coin> = coins.collect();
            coins.sort_unstable();
            has_neighbours_alike(&coins)
        }
    }
}

fn has_neighbours_alike(sorted: &[Coin]) -> bool {
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}
