//! Coins of this shard that change together with others, also of other shards: they are held until
//! the change is durable, or given up.

use std::{future::Future, rc::Rc, time::Duration};

use super::{
    NotChanged, Shard, Unavailable,
    ask::{Answered, Question, Short},
    changed::FixLook,
    locks::{Crowded, Entered},
    owner::{RECORDS_A_TURN, now},
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    protocol::key_healing::Minute,
    store::{
        pages::Lookup,
        record::{Change, PageSequence},
    },
};

/// A change of several coins together, over shards: which core runs it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// The core that received the request.
    pub core: ShardId,
    /// Its number there.
    pub number: u64,
}

/// What changes coins, as far as a later fix depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// A fix.
    Fix,
    /// Anything else.
    Other,
}

/// Coins held for a transaction.
#[derive(Debug)]
pub struct Locked {
    /// AN and months of each coin, in the order asked; `None` where it is free.
    pub values: Vec<Option<(An, Mfs)>>,
    /// The pages and the number each gave this change.
    pub pages: Vec<PageSequence>,
    /// Whether all the pages are the session's; true without a session.
    pub reserved: bool,
    /// The latest moment that the shard knows; any change of the coins comes after it.
    pub moment: u64,
}

/// Hold these coins (rising, each once) for a transaction; with a session, say whether their pages
/// are its own.
#[derive(Debug)]
pub struct Lock {
    /// The transaction.
    pub id: TransactionId,
    /// The coins.
    pub coins: Vec<Coin>,
    /// The session.
    pub session: Option<u32>,
}

/// Put a transaction's changes, which are durable, into the pages, and let its coins go.
#[derive(Debug)]
pub struct Apply {
    /// The transaction.
    pub id: TransactionId,
    /// What changes, in the order of the coins.
    pub changes: Vec<Change>,
    /// No change of these coins will be earlier than the moment after this one.
    pub moment: u64,
    /// What changes them.
    pub by: ChangedBy,
}

/// Let a transaction's coins go unchanged.
#[derive(Debug)]
pub struct Release(pub TransactionId);

/// The minute in which a coin got its number, for comparison with encryption tickets; the start's
/// where that is not known.
#[derive(Debug)]
pub struct Newest(pub Coin);

/// Whether a fix that came at this moment, and has votes enough, may change these coins, which it
/// holds: by coin.
#[derive(Debug)]
pub struct LookForFix(pub Vec<Coin>, pub Duration);

/// Coins that a transaction holds.
pub(super) struct Held {
    coins: Vec<Coin>,
    pages: Vec<PageSequence>,
}

impl Question for Lock {
    type Answer = Result<Locked, NotChanged>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.lock(self.id, self.coins, self.session).await })
    }
}

impl Short for Apply {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.apply(self.id, &self.changes, self.moment, self.by);
    }
}

impl Short for Release {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.release(self.0);
    }
}

impl Short for Newest {
    type Answer = Minute;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Minute {
        let now = now(&shard.environment);
        shard.changed.borrow().minute(self.0, now)
    }
}

impl Short for LookForFix {
    type Answer = Vec<FixLook>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Vec<FixLook> {
        shard.look_for_fix(&self.0, self.1)
    }
}

impl<E: Environment> Shard<E> {
    async fn lock(
        &self,
        id: TransactionId,
        coins: Vec<Coin>,
        session: Option<u32>,
    ) -> Result<Locked, NotChanged> {
        self.check_disk()?;
        let stalls = self.stalls.begun();
        let held = self.hold(&coins).await;
        held.map_err(|crowded| self.crowded(crowded))?;
        let locked = match self.check_waited(stalls) {
            Ok(()) => self.lock_held(&coins, session).await,
            Err(unavailable) => Err(unavailable),
        };
        match locked {
            Ok(locked) => {
                let pages = locked.pages.clone();
                self.transactions
                    .borrow_mut()
                    .insert(id, Held { coins, pages });
                Ok(locked)
            }
            Err(unavailable) => {
                self.let_go(&coins);
                Err(unavailable.into())
            }
        }
    }

    async fn lock_held(&self, coins: &[Coin], session: Option<u32>) -> Result<Locked, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let mut values = Vec::with_capacity(coins.len());
        for (index, &coin) in coins.iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn_in_line().await;
            }
            values.push(self.value(coin).await?);
        }
        let pages = self.begin(coins.iter().copied()).await?;
        let reserved = session.is_none_or(|session| {
            let now = self.environment.monotonic();
            let reservations = self.reservations.borrow();
            pages
                .iter()
                .all(|page| reservations.is_reserved(page.page, session, now))
        });
        Ok(Locked {
            values,
            pages,
            reserved,
            moment: self.moment.get(),
        })
    }

    fn apply(&self, id: TransactionId, changes: &[Change], moment: u64, by: ChangedBy) {
        self.moment.set(self.moment.get().max(moment));
        let held = self.transactions.borrow_mut().remove(&id);
        let held = held.expect("a transaction holds coins before it changes them");
        self.put(&held.pages, changes, Some(by), self.noted_now());
        self.let_go(&held.coins);
    }

    fn release(&self, id: TransactionId) {
        let held = self.transactions.borrow_mut().remove(&id);
        let held = held.expect("a transaction holds coins before it lets them go");
        self.give_up(&held.pages);
        self.let_go(&held.coins);
    }

    /// Waits until all these coins, rising and each once, are the caller's.
    async fn hold(&self, coins: &[Coin]) -> Result<(), Crowded> {
        for (index, &coin) in coins.iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn_in_line().await;
            }
            if let Err(crowded) = self.hold_one(coin).await {
                self.let_go(&coins[..index]);
                return Err(crowded);
            }
        }
        Ok(())
    }

    /// Waits until this coin is the caller's. Returns whether it had to wait.
    pub(super) async fn hold_one(&self, coin: Coin) -> Result<bool, Crowded> {
        match self.locks.enter_task(coin)? {
            Entered::Held => Ok(false),
            Entered::Waits(task) => {
                self.locks.turn(task).await;
                Ok(true)
            }
        }
    }

    /// Whether a fix that came at `came` may change these coins, which it holds. The fix has all
    /// the votes that it needs, so a coin that is refused only because it changed lately is
    /// remembered.
    fn look_for_fix(&self, coins: &[Coin], came: Duration) -> Vec<FixLook> {
        let now = self.environment.monotonic();
        let (mut changed, listed) = (self.changed.borrow_mut(), self.listed.borrow());
        let looks = coins.iter().map(|&coin| {
            if listed.has(coin, now) {
                return FixLook::VouchedHere;
            }
            let look = changed.look(coin, came);
            // What is for sale moves only to its buyer, or back.
            let found = self.pages.lookup(coin);
            let is_for_sale = matches!(found, Lookup::Circulating(an, _) if an.is_trade_key());
            if look == FixLook::ChangedLately && !is_for_sale {
                changed.refuse(coin, now);
            }
            look
        });
        looks.collect()
    }
}
