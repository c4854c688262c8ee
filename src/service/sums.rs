//! Proofs about several coins at once. They are checked before anything is held, so that a wrong
//! proof keeps nobody from the coins, and in pieces, so that a long proof does not occupy a core.

use futures_util::future::join_all;

use super::{Node, scatter::scatter, stored::ranked};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin},
    mesh::Held,
    protocol::Status,
    shard::question,
};

/// Coins whose numbers are asked for, or added up, before others get their turn.
const COINS_A_TURN: usize = 8_192;

/// Coins that a request proved to own when they were looked at.
pub(super) struct Proven {
    /// The coins, rising, each once.
    pub coins: Vec<Coin>,
    /// The place that each has in the request.
    pub ranks: Vec<u32>,
    /// The number that each had.
    pub numbers: Vec<An>,
}

impl<E: Environment> Node<E> {
    /// The numbers of coins of any shards, in their order; `None` where one is free.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now.
    pub(super) async fn numbers(&self, coins: &[Coin]) -> Result<Option<Vec<An>>, Status> {
        let (numbers, circulating) = self.numbers_or_zero(coins).await?;
        Ok((circulating == coins.len()).then_some(numbers))
    }

    /// Whether coins of any shards are all free.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now.
    pub(super) async fn are_free(&self, coins: &[Coin]) -> Result<bool, Status> {
        let (_, circulating) = self.numbers_or_zero(coins).await?;
        Ok(circulating == 0)
    }

    /// Whether coins of any shards have these numbers.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now.
    pub(super) async fn have(&self, numbers: Vec<(Coin, An)>) -> Result<bool, Status> {
        let coins: Vec<Coin> = numbers.iter().map(|&(coin, _)| coin).collect();
        let Some(real) = self.numbers(&coins).await? else {
            return Ok(false);
        };
        let pairs = numbers.iter().zip(real);
        Ok(pairs.fold(true, |have, (&(_, an), real)| have & (an == real)))
    }

    /// The numbers of coins of any shards, zeros for free coins, and how many coins are not free.
    async fn numbers_or_zero(&self, coins: &[Coin]) -> Result<(Vec<An>, usize), Status> {
        let mut numbers = vec![An::ZERO; coins.len()];
        let (mut rest, mut circulating) = (&mut numbers[..], 0);
        for some in coins.chunks(COINS_A_TURN) {
            let (these, others) = rest.split_at_mut(some.len());
            rest = others;
            let records = some.iter().map(|&coin| Some((coin, coin)));
            let scattered = scatter(self.mesh.shards(), records);
            let asked = scattered.into_shards().map(|(shard, indices, coins)| {
                let numbers = self.mesh.ask(shard, question::Numbers(coins));
                async move { (indices, numbers.await) }
            });
            for (indices, numbers) in join_all(asked).await {
                for (index, an) in indices.into_iter().zip(numbers?) {
                    circulating += usize::from(an.is_some());
                    these[index] = an.unwrap_or(An::ZERO);
                }
            }
            if some.len() == COINS_A_TURN {
                self.shard().environment.turn_in_line().await;
            }
        }
        Ok((numbers, circulating))
    }

    /// The numbers of these coins, where each is named once and this sum [proves] that the client
    /// that names them knows them.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now.
    ///
    /// [proves]: crate::shard::Sum::proves
    pub(super) async fn prove(&self, coins: &[Coin], sum: An) -> Result<Option<Vec<An>>, Status> {
        let Some(numbers) = self.numbers(coins).await? else {
            return Ok(None);
        };
        let turn = async |added: usize| {
            if added == COINS_A_TURN {
                self.shard().environment.turn_in_line().await;
            }
        };
        let mut known = self.shard().sum_of(coins.len());
        for some in numbers.chunks(COINS_A_TURN) {
            some.iter().for_each(|&an| known.add(an));
            turn(some.len()).await;
        }
        let mut is_proven = known.proves(sum);
        if known.has_equal() {
            // Only coins with the same number can be one coin named twice.
            let mut named = self.shard().sum_of(coins.len());
            for some in coins.chunks(COINS_A_TURN) {
                some.iter().for_each(|&coin| named.add_coin(coin));
                turn(some.len()).await;
            }
            is_proven &= !named.has_equal();
        }
        Ok(is_proven.then_some(numbers))
    }

    /// Checks whether a sum proves that the client that names these coins owns them. What is held
    /// afterwards must be [looked at again](Node::still_proves).
    ///
    /// # Errors
    /// 194 where a shard cannot answer now.
    pub(super) async fn prove_sum(
        &self,
        request: impl Iterator<Item = Coin>,
        sum: An,
    ) -> Result<Option<Proven>, Status> {
        let request: Vec<Coin> = request.collect();
        let Some(numbers) = self.prove(&request, sum).await? else {
            return Ok(None);
        };
        Ok(self.in_order(&request, &numbers).await)
    }

    /// The coins of a request with their numbers, rising; `None` where one is named twice.
    pub(super) async fn in_order(&self, request: &[Coin], numbers: &[An]) -> Option<Proven> {
        let turn = async || self.shard().environment.turn_in_line().await;
        let (coins, ranks) = ranked(request, turn).await?;
        let numbers = ranks.iter().map(|&rank| numbers[rank as usize]).collect();
        Some(Proven {
            coins,
            ranks,
            numbers,
        })
    }

    /// Whether the sum, proven before, still proves the coins now that they are held.
    pub(super) fn still_proves(&self, proven: &Proven, held: &Held<'_>, sum: An) -> bool {
        // Rare: somebody changed one of them meanwhile, and the sum may still be right.
        held.are(&proven.numbers) || {
            let mut known = self.shard().sum_of(held.values.len());
            let mut values = held.values.iter().copied();
            let all_circulate = values.all(|value| value.map(|(an, _)| known.add(an)).is_some());
            all_circulate && known.proves(sum)
        }
    }
}
