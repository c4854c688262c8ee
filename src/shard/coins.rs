//! Questions that look at the numbers of coins and change nothing.

use std::{future::Future, rc::Rc};

use futures_util::stream::{self, StreamExt};

use super::{
    Shard, Unavailable,
    ask::{Answered, Question},
    owner::RECORDS_A_TURN,
    sum::Sum,
};
use crate::runtime::Environment;
use crate::{
    coin::{An, AnTag, Coin, Mfs, PageId},
    protocol::healing::Found,
    store::pages::Lookup,
};

/// Pages loaded at once for one request.
const LOADS_PARALLEL: usize = 32;

/// Which of these coins have this AN?
#[derive(Debug)]
pub struct Detect(pub Vec<(Coin, An)>);

/// As [`Detect`], for a ticket: the coins that pass are on one from now on.
#[derive(Debug)]
pub struct DetectForTicket(pub Vec<(Coin, An)>);

/// Which of these coins still have the ANs that these tags stand for?
#[derive(Debug)]
pub struct Unchanged(pub Vec<(Coin, AnTag)>);

/// As [`Unchanged`], for a ticket: the coins that pass are on one from now on.
#[derive(Debug)]
pub struct UnchangedForTicket(pub Vec<(Coin, AnTag)>);

/// Which of two numbers has each coin?
#[derive(Debug)]
pub struct Find(pub Vec<(Coin, An, An)>);

/// The ANs of coins; `None` of one that is not in circulation.
#[derive(Debug)]
pub struct Numbers(pub Vec<Coin>);

/// The AN of a coin; `None` where it is not in circulation.
#[derive(Debug)]
pub struct NumberOf(pub Coin);

impl Question for Detect {
    type Answer = Result<Vec<bool>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let Detect(records) = self;
        if records.len() <= RECORDS_A_TURN {
            let mut passed = vec![false; records.len()];
            let coins = records.iter().map(|&(coin, _)| coin);
            let an = |record: usize| Some(records.get(record)?.1);
            let known = shard.compare_now(numbered(coins), an, |record| passed[record] = true);
            if let Some(known) = known {
                return Answered::Now(known.map(|()| passed));
            }
        }
        let shard = shard.clone();
        Answered::Later(async move { shard.detect(&records).await })
    }
}

impl Question for Unchanged {
    type Answer = Result<Vec<bool>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let Unchanged(coins) = self;
        if coins.len() <= RECORDS_A_TURN {
            let mut passed = vec![false; coins.len()];
            if let Some(known) = shard.unchanged_now(&coins, |record| passed[record] = true) {
                return Answered::Now(known.map(|()| passed));
            }
        }
        let shard = shard.clone();
        Answered::Later(async move { shard.unchanged(&coins).await })
    }
}

impl Question for DetectForTicket {
    type Answer = Result<Vec<bool>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move {
            let is_right = |(_, an): &(Coin, An), real: An| real == *an;
            shard.pass_for_ticket(&self.0, is_right).await
        })
    }
}

impl Question for UnchangedForTicket {
    type Answer = Result<Vec<bool>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move {
            let is_same = |(_, tag): &(Coin, AnTag), real: An| real.tag() == *tag;
            shard.pass_for_ticket(&self.0, is_same).await
        })
    }
}

impl Question for Find {
    type Answer = Result<Vec<Found>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let Find(records) = self;
        if records.len() <= RECORDS_A_TURN {
            let mut all = vec![Found::Neither; records.len()];
            let coins = records.iter().map(|&(coin, ..)| coin);
            let numbers = |record: usize| records.get(record).map(|&(_, an, pan)| (an, pan));
            let tell = |record: usize, found| all[record] = found;
            if let Some(known) = shard.find_now(numbered(coins), numbers, tell) {
                return Answered::Now(known.map(|()| all));
            }
        }
        let shard = shard.clone();
        Answered::Later(async move { shard.find(&records).await })
    }
}

impl Question for Numbers {
    type Answer = Result<Vec<Option<An>>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let Numbers(coins) = self;
        if coins.len() <= RECORDS_A_TURN {
            let mut numbers = Vec::with_capacity(coins.len());
            let known = shard.numbers_now(coins.iter().copied(), |an| numbers.push(an));
            if let Some(known) = known {
                return Answered::Now(known.map(|()| numbers));
            }
        }
        let shard = shard.clone();
        Answered::Later(async move { shard.numbers(&coins).await })
    }
}

impl Question for NumberOf {
    type Answer = Result<Option<An>, Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let NumberOf(coin) = self;
        if let Some(known) = shard.an_now(coin) {
            return Answered::Now(known);
        }
        let shard = shard.clone();
        Answered::Later(async move { Ok(shard.value(coin).await?.map(|(an, _)| an)) })
    }
}

impl<E: Environment> Shard<E> {
    /// Tells `pass` which records have the right AN, as far as memory knows; `None` where a page
    /// would have to be loaded, and what was told does not count. `an` gives what a record says:
    /// asked only when its coin is looked at, because carrying the numbers there costs more than
    /// the look.
    #[inline]
    pub fn compare_now(
        &self,
        coins: impl Iterator<Item = (Coin, usize)>,
        an: impl Fn(usize) -> Option<An>,
        pass: impl FnMut(usize),
    ) -> Option<Result<(), Unavailable>> {
        self.judge_now(coins, |record, real| an(record) == Some(real), pass)
    }

    /// Tells `pass` which coins still have the ANs that tags stand for, likewise.
    #[inline]
    pub fn unchanged_now(
        &self,
        coins: &[(Coin, AnTag)],
        pass: impl FnMut(usize),
    ) -> Option<Result<(), Unavailable>> {
        let is_same = |record: usize, real: An| coins[record].1 == real.tag();
        self.judge_now(numbered(coins.iter().map(|&(coin, _)| coin)), is_same, pass)
    }

    #[inline]
    fn judge_now(
        &self,
        coins: impl Iterator<Item = (Coin, usize)>,
        is_right: impl Fn(usize, An) -> bool,
        mut pass: impl FnMut(usize),
    ) -> Option<Result<(), Unavailable>> {
        let mut outcome = Some(Ok(()));
        self.pages.lookup_all(coins, |record, found| {
            match found {
                Lookup::Circulating(real, _) if is_right(record, real) => pass(record),
                Lookup::Circulating(..) | Lookup::Free => {}
                Lookup::Unloaded => outcome = None,
                Lookup::Damaged => outcome = Some(Err(Unavailable)),
            }
            matches!(outcome, Some(Ok(())))
        });
        outcome
    }

    /// Tells `found` which of two numbers each record's coin has, as far as memory knows; `None`
    /// where a page would have to be loaded, and what was told does not count. `numbers` gives a
    /// record's.
    #[inline]
    pub fn find_now(
        &self,
        coins: impl Iterator<Item = (Coin, usize)>,
        numbers: impl Fn(usize) -> Option<(An, An)>,
        mut found: impl FnMut(usize, Found),
    ) -> Option<Result<(), Unavailable>> {
        let mut outcome = Some(Ok(()));
        self.pages.lookup_all(coins, |record, looked_up| {
            match looked_up {
                Lookup::Circulating(real, _) => {
                    let which = numbers(record).map(|(an, pan)| which(real, an, pan));
                    found(record, which.unwrap_or(Found::Neither));
                }
                Lookup::Free => found(record, Found::Neither),
                Lookup::Unloaded => outcome = None,
                Lookup::Damaged => outcome = Some(Err(Unavailable)),
            }
            matches!(outcome, Some(Ok(())))
        });
        outcome
    }

    /// Whether these `count` coins of this shard are in circulation and their numbers
    /// [prove](Sum::proves) this sum; `None` where a page would have to be loaded.
    pub fn proves_now(
        &self,
        coins: impl Iterator<Item = Coin> + Clone,
        count: usize,
        sum: An,
    ) -> Option<Result<bool, Unavailable>> {
        let mut known = self.sum.borrow_mut();
        known.begin(count);
        let mut all_circulate = true;
        let looked_at = self.numbers_now(coins.clone(), |an| match an {
            Some(an) => known.add(an),
            None => all_circulate = false,
        })?;
        let proves = known.proves(sum) & all_circulate;
        if known.has_equal() {
            // A coin that is named three times leaves its number in the sum; this look finds it
            // nevertheless.
            known.begin(count);
            coins.for_each(|coin| known.add_coin(coin));
            return Some(looked_at.map(|()| proves & !known.has_equal()));
        }
        Some(looked_at.map(|()| proves))
    }

    /// An empty sum of this node's.
    pub fn sum_of(&self, room: usize) -> Sum {
        Sum::new(self.sum_seeds, room)
    }

    /// The AN of one of this shard's coins (`None` within where it is free); `None` where its page
    /// would have to be loaded.
    #[inline]
    pub fn an_now(&self, coin: Coin) -> Option<Result<Option<An>, Unavailable>> {
        match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) => Some(Ok(Some(an))),
            Lookup::Free => Some(Ok(None)),
            Lookup::Unloaded => None,
            Lookup::Damaged => Some(Err(Unavailable)),
        }
    }

    /// Gives the ANs of coins in their order (`None` of a free one), as far as memory knows; `None`
    /// where a page would have to be loaded, and what was given does not count.
    fn numbers_now(
        &self,
        coins: impl Iterator<Item = Coin>,
        mut give: impl FnMut(Option<An>),
    ) -> Option<Result<(), Unavailable>> {
        let mut outcome = Some(Ok(()));
        self.pages
            .lookup_all(coins.map(|coin| (coin, ())), |(), found| {
                match found {
                    Lookup::Circulating(an, _) => give(Some(an)),
                    Lookup::Free => give(None),
                    Lookup::Unloaded => outcome = None,
                    Lookup::Damaged => outcome = Some(Err(Unavailable)),
                }
                matches!(outcome, Some(Ok(())))
            });
        outcome
    }

    pub(super) async fn detect(&self, records: &[(Coin, An)]) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(records.iter().map(|(coin, _)| *coin)).await;
        let mut passed = Vec::with_capacity(records.len());
        for some in records.chunks(RECORDS_A_TURN) {
            for &(coin, an) in some {
                let value = self.value(coin).await?;
                passed.push(value.is_some_and(|(real, _)| real == an));
            }
            self.environment.turn_in_line().await;
        }
        Ok(passed)
    }

    async fn find(&self, records: &[(Coin, An, An)]) -> Result<Vec<Found>, Unavailable> {
        self.prefetch(records.iter().map(|(coin, ..)| *coin)).await;
        let mut all = Vec::with_capacity(records.len());
        for some in records.chunks(RECORDS_A_TURN) {
            for &(coin, an, pan) in some {
                let value = self.value(coin).await?;
                all.push(value.map_or(Found::Neither, |(real, _)| which(real, an, pan)));
            }
            self.environment.turn_in_line().await;
        }
        Ok(all)
    }

    async fn unchanged(&self, coins: &[(Coin, AnTag)]) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(coins.iter().map(|(coin, _)| *coin)).await;
        let mut passed = Vec::with_capacity(coins.len());
        for some in coins.chunks(RECORDS_A_TURN) {
            for &(coin, tag) in some {
                let value = self.value(coin).await?;
                passed.push(value.is_some_and(|(real, _)| real.tag() == tag));
            }
            self.environment.turn_in_line().await;
        }
        Ok(passed)
    }

    async fn numbers(&self, coins: &[Coin]) -> Result<Vec<Option<An>>, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let mut numbers = Vec::with_capacity(coins.len());
        for some in coins.chunks(RECORDS_A_TURN) {
            for &coin in some {
                numbers.push(self.value(coin).await?.map(|(an, _)| an));
            }
            self.environment.turn_in_line().await;
        }
        Ok(numbers)
    }

    /// A coin's AN and months, loading its page where needed; `None` where it is free.
    pub(super) async fn value(&self, coin: Coin) -> Result<Option<(An, Mfs)>, Unavailable> {
        loop {
            match self.pages.lookup(coin) {
                Lookup::Circulating(an, mfs) => return Ok(Some((an, mfs))),
                Lookup::Free => return Ok(None),
                Lookup::Damaged => return Err(Unavailable),
                Lookup::Unloaded => {
                    let load = Box::pin(self.pages.load(coin.page()));
                    load.await.map_err(|_| Unavailable)?;
                }
            }
        }
    }

    /// Starts the loading of many pages together. In a small cache they may be gone again when they
    /// are looked at; the look then loads them.
    pub(super) async fn prefetch(&self, coins: impl Iterator<Item = Coin>) {
        let unloaded = coins.filter(|&coin| self.pages.lookup(coin) == Lookup::Unloaded);
        let mut pages: Vec<PageId> = unloaded.map(Coin::page).collect();
        pages.sort_unstable();
        pages.dedup();
        if pages.len() > 1 {
            let loads = stream::iter(pages).map(|page| self.pages.load(page));
            // The record that needs a page meets its read error again.
            let loaded = loads
                .buffer_unordered(LOADS_PARALLEL)
                .for_each(async |_| ());
            Box::pin(loaded).await;
        }
    }

    /// Which coins pass; those are on a ticket from then on.
    async fn pass_for_ticket<T>(
        &self,
        records: &[(Coin, T)],
        is_right: impl Fn(&(Coin, T), An) -> bool,
    ) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(records.iter().map(|(coin, _)| *coin)).await;
        let mut passed = Vec::with_capacity(records.len());
        for some in records.chunks(RECORDS_A_TURN) {
            // Its ticket lives from before it was asked for.
            let since = self.environment.monotonic();
            for record in some {
                let value = self.value(record.0).await?;
                let passes = value.is_some_and(|(real, _)| is_right(record, real));
                if passes {
                    self.list(since, [record.0]);
                }
                passed.push(passes);
            }
            self.environment.turn_in_line().await;
        }
        Ok(passed)
    }
}

/// Coins with the numbers of their records.
pub(super) fn numbered(coins: impl Iterator<Item = Coin>) -> impl Iterator<Item = (Coin, usize)> {
    coins.enumerate().map(|(record, coin)| (coin, record))
}

/// Always compares with both numbers, so that the time does not reveal which one matched.
#[inline]
fn which(real: An, an: An, pan: An) -> Found {
    match (real == an, real == pan) {
        (true, _) => Found::An,
        (false, true) => Found::Pan,
        (false, false) => Found::Neither,
    }
}
