use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use futures_util::future::{join, join_all};

use super::{link::Mesh, moves::moves};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    protocol::key_healing::Minute,
    shard::{
        ChangedBy, FixLook, Locked, NotChanged, TransactionId,
        question::{Apply, AreOnSale, Lock, LookForFix, Newest, Release, UpdateLockers},
    },
    store::{
        book::Notes,
        record::{Change, PageSequence},
    },
};

/// A change of more coins than this takes several turns: each step looks at all of them.
const COINS_A_TURN: usize = 8_192;

/// What to do with coins that are held, once their values are known.
pub enum Decision<R> {
    /// Make these changes, in the order of the coins; a coin that is not among them stays as it is.
    /// The notes go with them; their moment is given when it is known.
    Change(Vec<Change>, Notes),
    /// Change nothing, for this reason.
    Refuse(R),
}

/// Coins that are held.
pub struct Held<'a> {
    /// AN and months of each, in the order asked; `None` where it is free.
    pub values: &'a [Option<(An, Mfs)>],
    /// Whether all their pages are reserved for the session.
    pub reserved: bool,
    on_sale: &'a [An],
}

impl Held<'_> {
    /// Whether the coin with this index lies under the key of something for sale.
    #[inline]
    pub fn is_on_sale(&self, index: usize) -> bool {
        match self.values[index] {
            Some((an, _)) if !self.on_sale.is_empty() => self.find(&an),
            _ => false,
        }
    }

    fn find(&self, an: &An) -> bool {
        let found = self
            .on_sale
            .binary_search_by_key(an.expose(), |key| *key.expose());
        found.is_ok()
    }

    /// Whether all of them circulate and have these numbers, in the order asked.
    pub fn are(&self, numbers: &[An]) -> bool {
        let values = self.values.iter().zip(numbers);
        values.len() == self.values.len()
            && values.fold(true, |are, (value, an)| {
                are & value.is_some_and(|(held, _)| held == *an)
            })
    }

    /// Whether any of them lies under the key of something for sale.
    pub fn any_on_sale(&self) -> bool {
        !self.on_sale.is_empty()
    }

    /// The values, without those of coins that lie under the key of something for sale: knowing
    /// that key proves nothing.
    pub fn movable(&self) -> Cow<'_, [Option<(An, Mfs)>]> {
        match self.any_on_sale() {
            false => Cow::Borrowed(self.values),
            true => (0..self.values.len())
                .map(|index| self.values[index].filter(|_| !self.is_on_sale(index)))
                .collect(),
        }
    }
}

impl<E: Environment> Mesh<E> {
    /// Changes several coins together: all or nothing, over shards and crashes
    /// (docs/architecture.md, "A request's way"). Holds the coins shard by shard in rising order,
    /// decides, writes one record into this core's log, and when that is durable tells the lockers
    /// that coins come out of or go into, each once, and puts the changes into all pages.
    ///
    /// `coins` are rising, each once. `decide` gets them [held](Held), their pages reserved for
    /// `session` or not.
    ///
    /// Run it to its end: if it is dropped half-way, the coins stay held for good.
    ///
    /// # Errors
    /// [`NotChanged`] where a shard or the log cannot do it now, or too many wait for one of the
    /// coins, and nothing has changed; else what `decide` gave.
    pub async fn change_together<R>(
        &self,
        coins: &[Coin],
        session: Option<u32>,
        decide: impl FnOnce(&Held<'_>) -> Decision<R>,
    ) -> Result<Result<(), R>, NotChanged> {
        let decide = |held: &Held<'_>, ()| decide(held);
        let nothing_else = async || ();
        self.change(coins, session, ChangedBy::Other, nothing_else, decide)
            .await
    }

    /// As [`Mesh::change_together`] for one coin, where `decide` depends on when it last changed:
    /// the minute of that change is looked at while the coin is held.
    ///
    /// # Errors
    /// As [`Mesh::change_together`].
    pub async fn change_since<R>(
        &self,
        coin: Coin,
        decide: impl FnOnce(&Held<'_>, Minute) -> Decision<R>,
    ) -> Result<Result<(), R>, NotChanged> {
        let owner = coin.page().owner(self.shards());
        let newest = async || self.ask(owner, Newest(coin)).await;
        self.change(&[coin], None, ChangedBy::Other, newest, decide)
            .await
    }

    /// As [`Mesh::change_together`], by a fix that came at this moment: what stands against the fix
    /// is looked at, coin by coin, when all of them are held.
    ///
    /// # Errors
    /// As [`Mesh::change_together`].
    pub async fn change_by_fix<R>(
        &self,
        coins: &[Coin],
        came: Duration,
        decide: impl FnOnce(&Held<'_>, Vec<FixLook>) -> Decision<R>,
    ) -> Result<Result<(), R>, NotChanged> {
        let look = async || self.look_for_fix(coins, came).await;
        self.change(coins, None, ChangedBy::Fix, look, decide).await
    }

    async fn look_for_fix(&self, coins: &[Coin], came: Duration) -> Vec<FixLook> {
        let parts = self.parts(coins);
        let asked = parts.into_iter().map(|(shard, indices)| {
            let coins = indices.iter().map(|&index| coins[index]).collect();
            let looked = self.ask(shard, LookForFix(coins, came));
            async move { (indices, looked.await) }
        });
        let mut looks = vec![FixLook::ChangedMeanwhile; coins.len()];
        for (indices, looked) in join_all(asked).await {
            for (index, look) in indices.into_iter().zip(looked) {
                looks[index] = look;
            }
        }
        looks
    }

    /// The places of these coins by the shard that owns them.
    fn parts(&self, coins: &[Coin]) -> BTreeMap<ShardId, Vec<usize>> {
        let mut parts: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        for (index, coin) in coins.iter().enumerate() {
            let owner = coin.page().owner(self.shards());
            parts.entry(owner).or_default().push(index);
        }
        parts
    }

    /// `look` finds out what `decide` needs beside the values, when all coins are held.
    async fn change<L, R>(
        &self,
        coins: &[Coin],
        session: Option<u32>,
        by: ChangedBy,
        look: impl AsyncFnOnce() -> L,
        decide: impl FnOnce(&Held<'_>, L) -> Decision<R>,
    ) -> Result<Result<(), R>, NotChanged> {
        debug_assert!(coins.is_sorted_by(|a, b| a < b));
        let core = self.shard().id;
        let number = self.transactions.get();
        self.transactions.set(number + 1);
        let id = TransactionId { core, number };

        let parts = self.parts(coins);
        let mut held: Vec<(ShardId, Locked)> = Vec::with_capacity(parts.len());
        for (&shard, indices) in &parts {
            let coins = indices.iter().map(|&index| coins[index]).collect();
            match self.ask(shard, Lock { id, coins, session }).await {
                Ok(locked) => held.push((shard, locked)),
                Err(refusal) => {
                    self.release(id, &held).await;
                    return Err(refusal);
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
        let let_others = async || {
            if coins.len() > COINS_A_TURN {
                self.shard().environment.turn_in_line().await;
            }
        };
        let_others().await;
        let on_sale = self.on_sale(&values).await;
        let looked = look().await;
        let of_coins = Held {
            values: &values,
            reserved: held.iter().all(|(_, locked)| locked.reserved),
            on_sale: &on_sale,
        };
        let decision = decide(&of_coins, looked);
        let (mut changes, mut notes) = match decision {
            Decision::Change(changes, notes) => (changes, notes),
            Decision::Refuse(reason) => {
                self.release(id, &held).await;
                return Ok(Err(reason));
            }
        };
        let_others().await;
        // Both rise.
        let mut held_coins = coins.iter();
        let mut is_held = |change: &Change| held_coins.any(|coin| *coin == change.coin);
        assert!(
            changes.iter().all(&mut is_held),
            "a decision changes coins that are held, in their order"
        );
        // Ranks belong to changes to marked numbers, and those all stay.
        let before = changes.len();
        changes.retain(|change| {
            let at = coins.binary_search(&change.coin);
            let before = at.ok().and_then(|at| values[at]);
            change.an.is_marked() || before != Some((change.an, change.mfs))
        });
        self.shard().note_unchanged(before - changes.len());
        pages.retain(|page| {
            let at = changes.binary_search_by_key(&page.page, |change| change.coin.page());
            at.is_ok()
        });
        if changes.is_empty() {
            self.release(id, &held).await;
            return Ok(Ok(()));
        }

        let_others().await;
        let mut moves = moves(self.shards(), coins, &values, &changes, &notes);
        let_others().await;
        if !moves.is_empty() {
            let known = held.iter().map(|(_, locked)| locked.moment).max();
            let moment = self.shard().next_moment(known.unwrap_or(0));
            notes.set_moment(moment);
            moves
                .values_mut()
                .for_each(|update| update.set_moment(moment));
        }
        let log = &self.shard().log;
        let appended = match log.append(&pages, &changes, &notes).await {
            Ok(appended) => appended,
            Err(refusal) => {
                self.release(id, &held).await;
                return Err(refusal.into());
            }
        };
        if let Err(refusal) = log.durable(&appended).await {
            self.release(id, &held).await;
            log.settle(appended);
            return Err(refusal.into());
        }
        // The lockers come first: the next change of one of these coins has waited for the pages,
        // and so its update comes to the same lockers later.
        let own = moves.remove(&core);
        own.into_iter()
            .for_each(|update| self.shard().update_lockers(&update));
        let told = moves
            .into_iter()
            .map(|(shard, update)| self.ask(shard, UpdateLockers(update)));
        let told: Vec<_> = told.collect();
        let applied = parts.keys().map(|&shard| {
            let own = |change: &&Change| change.coin.page().owner(self.shards()) == shard;
            let changes: Vec<Change> = changes.iter().filter(own).copied().collect();
            let moment = notes.moment;
            let apply = Apply {
                id,
                changes,
                moment,
                by,
            };
            self.ask(shard, apply)
        });
        join(join_all(applied), join_all(told)).await;
        log.settle(appended);
        Ok(Ok(()))
    }

    /// Which of these numbers, those of coins that are held, have something for sale under them.
    async fn on_sale(&self, values: &[Option<(An, Mfs)>]) -> Vec<An> {
        let ans = values.iter().flatten().map(|&(an, _)| an);
        let mut keys: Vec<An> = ans.filter(An::is_trade_key).collect();
        keys.sort_unstable_by_key(|key| *key.expose());
        keys.dedup();
        let mut on_sale = Vec::new();
        let by_home = keys.chunk_by(|a, b| a.locker_prefix() == b.locker_prefix());
        let asked = by_home.map(|keys| {
            let home = self.shard().locker_home(keys[0].locker_prefix());
            let are = self.ask(home, AreOnSale(keys.to_vec()));
            async move { (keys, are.await) }
        });
        for (keys, are) in join_all(asked).await {
            let those = keys.iter().zip(are).filter(|(_, is)| *is);
            on_sale.extend(those.map(|(&key, _)| key));
        }
        on_sale
    }

    async fn release(&self, id: TransactionId, held: &[(ShardId, Locked)]) {
        join_all(held.iter().map(|&(shard, _)| self.ask(shard, Release(id)))).await;
    }
}
