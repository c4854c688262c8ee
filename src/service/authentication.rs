//! Group 1: detect, detect sum, pown, pown sum, pown derive.

use super::{Caller, Node, healing::HASHED_A_TURN, scatter::scatter, stored::noted};
use crate::runtime::Environment;
use crate::{
    coin::{Coin, Worth},
    mesh::Decision,
    protocol::{
        Command, PassFail, Status,
        authentication::{DeriveProof, Detect, DetectSum, Pown, PownDerive, PownSum, derived_an},
        pass_fail::Bitmap,
    },
    shard::{Exchange, Given, RECORDS_A_TURN, Replacement, Single, question},
    store::{book::Notes, record::Change},
};

/// Numbers that go into a proof before others get their turn: some 100 µs.
const PROVEN_A_TURN: usize = 2_048;

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

    /// The question that a request about one coin turns into; `None` for any other request.
    #[inline]
    pub(super) fn single(
        &self,
        command: Command,
        payload: &[u8],
        caller: Caller,
    ) -> Option<Single> {
        match command {
            Command::Detect => {
                let request = Detect::parse(payload).ok()?;
                let (coin, an) = request.record(0)?;
                (request.len() == 1).then_some(Single::Detect(coin?, an))
            }
            Command::Pown => {
                let exchange = exchange_of_one(payload)?;
                Some(Single::Exchange(exchange, self.sender(caller)))
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
        self.gather(scattered, question::Detect, |record| answer.pass(record))
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
        let shard = self.shard();
        Some(
            match shard.proves_now(coins.iter(), coins.len(), request.sum())? {
                Ok(proves) => verdict(proves),
                Err(_) => Status::UNAVAILABLE,
            },
        )
    }

    pub(super) async fn detect_sum(&self, payload: &[u8]) -> Result<Status, Status> {
        let request = DetectSum::parse(payload)?;
        let coins: Vec<Coin> = request.coins().iter().collect();
        let proven = self.prove(&coins, request.sum()).await?;
        Ok(verdict(proven.is_some()))
    }

    pub(super) async fn pown(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<Status, Status> {
        let request = Pown::parse(payload)?;
        let records = request.records().map(|(coin, an, pan)| {
            let becomes = Replacement::An(pan);
            coin.map(|coin| Exchange { coin, an, becomes })
        });
        let mut answer = PassFail::begin(out, request.len());
        let (mut coins, mut worth) = (0, Worth(0));
        self.exchange(records, |record| {
            answer.pass(record);
            coins += 1;
            let coin = request.record(record).and_then(|(coin, ..)| coin);
            worth.0 += Worth::of(coin).0;
        })
        .await?;
        self.count_powned(coins, worth);
        Ok(answer.finish(Bitmap::IfMixed))
    }

    pub(super) async fn pown_sum(&self, payload: &[u8], caller: Caller) -> Result<Status, Status> {
        let request = PownSum::parse(payload)?;
        let named = request.coins();
        if !PownSum::takes(self.rules.get().dialect, named.len()) {
            return Err(Status::INVALID_PARAMETER);
        }
        let proven = self.prove_sum(named.iter(), request.sum()).await?;
        let Some(proven) = proven else {
            return Ok(Status::ALL_FAIL);
        };
        let mfs = self.shard().month();
        let mut are_proven = false;
        let changed = self.mesh.change_together(&proven.coins, None, |held| {
            if held.any_on_sale() || !self.still_proves(&proven, held, request.sum()) {
                return Decision::Refuse(());
            }
            are_proven = held.are(&proven.numbers);
            let values = proven.coins.iter().zip(held.values);
            // All coins circulate, since they prove something.
            let changes = values.filter_map(|(&coin, value)| {
                let an = (*value)?.0 ^ request.delta();
                Some(Change { coin, an, mfs })
            });
            let changes: Vec<Change> = changes.collect();
            let notes = noted(&changes, &proven.ranks);
            Decision::Change(changes, notes)
        });
        let changed = changed.await?;
        if changed.is_ok() {
            self.count_all_powned(&proven.coins);
            if are_proven {
                let numbers = proven.coins.iter().zip(&proven.numbers);
                let given = numbers.map(|(&coin, &an)| (coin, an ^ request.delta()));
                let given = self.given(given).await;
                self.gave(caller, given);
            }
        }
        Ok(verdict(changed.is_ok()))
    }

    /// Gives coins numbers derived from those in force, where a proof is right. Everything is
    /// computed before the coins are held, from the numbers that they have at that time.
    pub(super) async fn pown_derive(
        &self,
        payload: &[u8],
        caller: Caller,
    ) -> Result<Status, Status> {
        let request = PownDerive::parse(payload)?;
        let named: Vec<Coin> = request.coins().iter().collect();
        let Some(numbers) = self.numbers(&named).await? else {
            return Ok(Status::ALL_FAIL);
        };
        let (shard, raida) = (self.shard(), self.rules.get().raida);
        let mut proof = DeriveProof::new(raida, request.delta());
        let mut rest = &numbers[..];
        for some in named.chunks(PROVEN_A_TURN) {
            let (these, others) = rest.split_at(some.len());
            rest = others;
            (some.iter().zip(these)).for_each(|(&coin, &an)| proof.add(coin, an));
            if some.len() == PROVEN_A_TURN {
                shard.environment.turn_in_line().await;
            }
        }
        if proof.finish() != request.proof() {
            return Ok(Status::ALL_FAIL);
        }
        let Some(proven) = self.in_order(&named, &numbers).await else {
            return Ok(Status::ALL_FAIL);
        };
        let mfs = shard.month();
        let mut changes: Vec<Change> = Vec::with_capacity(named.len());
        let mut given = Given::default();
        for (&coin, &an) in proven.coins.iter().zip(&proven.numbers) {
            let an = derived_an(coin, an, request.delta());
            changes.push(Change { coin, an, mfs });
            given = given.and(shard.repeat_key.given(coin, an));
            if changes.len().is_multiple_of(HASHED_A_TURN) {
                shard.environment.turn_in_line().await;
            }
        }
        let changed = self.mesh.change_together(&proven.coins, None, |held| {
            match !held.any_on_sale() && held.are(&proven.numbers) {
                true => Decision::Change(changes, Notes::default()),
                false => Decision::Refuse(()),
            }
        });
        let changed = changed.await?;
        if changed.is_ok() {
            self.count_all_powned(&proven.coins);
            self.gave(caller, given);
        }
        Ok(verdict(changed.is_ok()))
    }

    fn count_all_powned(&self, coins: &[Coin]) {
        let worth = Worth::of(coins.iter().copied());
        self.count_powned(coins.len() as u64, worth);
    }

    fn count_powned(&self, coins: u64, worth: Worth) {
        self.shard().count(|counters| {
            counters.coins_powned += coins;
            counters.value_powned += worth.0;
        });
    }
}

/// What a pown does to one coin that neither comes out of a locker nor goes into one.
#[inline]
fn exchange_of_one(payload: &[u8]) -> Option<Exchange> {
    let request = Pown::parse(payload).ok()?;
    let (coin, an, pan) = request.record(0)?;
    let (coin, becomes) = (coin?, Replacement::An(pan));
    let exchange = Exchange { coin, an, becomes };
    (request.len() == 1 && !exchange.is_marked()).then_some(exchange)
}

pub(super) fn verdict(passed: bool) -> Status {
    match passed {
        true => Status::ALL_PASS,
        false => Status::ALL_FAIL,
    }
}
