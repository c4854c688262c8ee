//! Questions about the lockers, offers and payments that a shard keeps track of.

use std::{future::Future, rc::Rc};

use super::{
    NotChanged, Shard, Stranger,
    ask::{Answered, Question, Short},
    lockers::{
        Buyer, FoundSale, IndexCounts, KeysOf, Lockers, OnOffer, PaymentState, Place, SaleId,
        SaleRefused, Taken, Taker, TradeCounts, TradeSettings, Update,
    },
    offers::Put,
    owner::RECORDS_A_TURN,
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, LockerPrefix, ShardId, locker_home},
    protocol::lockers::{Currency, Offer, PublicIdKey, TradeName},
    store::{
        NodeSecret,
        book::{Book, PaymentId},
    },
};

/// Number of times that the listing of a long locker starts again because something changed
/// meanwhile; after that it is listed in one go.
const LISTING_TRIES: usize = 3;

/// The number of coins, which is more than the caller allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub usize);

/// Coins that a name of a trade locker stands for.
#[derive(Debug)]
pub struct Named {
    /// Those under it as a public id.
    pub as_id: Option<Vec<Coin>>,
    /// Those under it as a key.
    pub as_key: Vec<Coin>,
}

/// The coins under this key, in the order stored, where there are not more than this number.
#[derive(Debug)]
pub struct LockerCoins(pub An, pub usize);

/// The coins under this name, as a public id of this shard or as a key of it, where there are not
/// more than this number.
#[derive(Debug)]
pub struct PeekTrade(pub TradeName, pub usize);

/// Wait until nobody else is about to do this.
#[derive(Debug)]
pub struct AcquirePut(pub Put);

/// The oldest keys of lockers of this shard that start with these bytes.
#[derive(Debug)]
pub struct LockerKeys(pub LockerPrefix, pub KeysOf);

/// Whether any coin lies under this key.
#[derive(Debug)]
pub struct HasLocker(pub An);

/// Which of these keys have something for sale.
#[derive(Debug)]
pub struct AreOnSale(pub Vec<An>);

/// Apply what a durable change means for this shard's lockers, in the order in which shards send
/// it: the next update of these lockers builds on it.
#[derive(Debug)]
pub struct UpdateLockers(pub Update);

/// Let others do it.
#[derive(Debug)]
pub struct ReleasePut(pub Put);

/// Whether there is such an offer.
#[derive(Debug)]
pub struct IsOffered(pub Offer);

/// A trade locker with this offer that this buyer may have.
#[derive(Debug)]
pub struct FindSale(pub Offer, pub Buyer);

/// Keep it for the buyer, whose payment was seen and is not confirmed: whether it is kept now.
#[derive(Debug)]
pub struct HoldSale(pub SaleId, pub Buyer, pub Stranger);

/// Keep it no longer: the payment is not what was agreed.
#[derive(Debug)]
pub struct LetSaleGo(pub SaleId, pub Buyer);

/// End all holds for a payment, which was used up.
#[derive(Debug)]
pub struct EndHolds(pub PaymentId);

/// Let nobody else move its coins until [`GiveBackSale`]; none where nothing is for sale under the
/// key.
#[derive(Debug)]
pub struct TakeSale(pub Taker);

/// Let others have it again where it is still for sale; but keep it for this buyer, who has paid.
#[derive(Debug)]
pub struct GiveBackSale(pub SaleId, pub Option<(Buyer, Stranger)>);

/// The first offers in a currency, in the order they were made, up to this number.
#[derive(Debug)]
pub struct ListOffers(pub Currency, pub usize);

/// The address that payments for this trade locker go to; `None` where nothing is for sale under
/// this name.
#[derive(Debug)]
pub struct SellerOf(pub TradeName);

/// What is known of a payment. Where nothing is known, this buyer may look at it until
/// [`EndPayment`].
#[derive(Debug)]
pub struct BeginPayment(pub Buyer);

/// What is known of a payment that this buyer has looked at and found paid: the buyer may then use
/// it up.
#[derive(Debug)]
pub struct UsePayment(pub Buyer);

/// The look at a payment, and its use, is over.
#[derive(Debug)]
pub struct EndPayment(pub Buyer);

/// Count a question to the settlement, asked of the stranger's [home](crate::shard::question_home):
/// whether it may be asked now, until [`EndQuestion`].
#[derive(Debug)]
pub struct BeginQuestion(pub Stranger);

/// The question to the settlement has its answer.
#[derive(Debug)]
pub struct EndQuestion(pub Stranger);

impl Short for LockerKeys {
    type Answer = Vec<An>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Vec<An> {
        shard.locker_keys(self.0, self.1)
    }
}

impl Short for HasLocker {
    type Answer = bool;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> bool {
        shard.lockers.borrow().has(&self.0)
    }
}

impl Short for AreOnSale {
    type Answer = Vec<bool>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Vec<bool> {
        let lockers = shard.lockers.borrow();
        self.0.iter().map(|key| lockers.is_on_sale(key)).collect()
    }
}

impl Short for UpdateLockers {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.update_lockers(&self.0);
    }
}

impl Short for ReleasePut {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.puts.release(&self.0);
    }
}

impl Short for IsOffered {
    type Answer = bool;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> bool {
        shard.lockers.borrow().is_offered(&self.0)
    }
}

impl Short for FindSale {
    type Answer = Result<FoundSale, SaleRefused>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Result<FoundSale, SaleRefused> {
        let now = shard.environment.monotonic();
        shard.lockers.borrow().find_sale(&self.0, &self.1, now)
    }
}

impl Short for HoldSale {
    type Answer = Result<bool, SaleRefused>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Result<bool, SaleRefused> {
        let now = shard.environment.monotonic();
        let mut lockers = shard.lockers.borrow_mut();
        lockers.hold(&self.0, self.1, self.2, now)
    }
}

impl Short for LetSaleGo {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.lockers.borrow_mut().let_go(&self.0, &self.1);
    }
}

impl Short for EndHolds {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.lockers.borrow_mut().end_holds(&self.0);
    }
}

impl Short for TakeSale {
    type Answer = Result<Option<Taken>, SaleRefused>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Result<Option<Taken>, SaleRefused> {
        let now = shard.environment.monotonic();
        shard.lockers.borrow_mut().take_sale(&self.0, now)
    }
}

impl Short for GiveBackSale {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        let mut lockers = shard.lockers.borrow_mut();
        lockers.give_back_sale(&self.0);
        if let Some((buyer, from)) = self.1 {
            // Where it cannot be kept, everybody can buy it again.
            let _ = lockers.hold(&self.0, buyer, from, shard.environment.monotonic());
        }
    }
}

impl Short for ListOffers {
    type Answer = Vec<OnOffer>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Vec<OnOffer> {
        let now = shard.environment.monotonic();
        shard.lockers.borrow().list(self.0, self.1, now)
    }
}

impl Short for SellerOf {
    type Answer = Option<Box<[u8]>>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Option<Box<[u8]>> {
        let lockers = shard.lockers.borrow();
        lockers.seller(&self.0).map(Box::from)
    }
}

impl Short for BeginPayment {
    type Answer = PaymentState;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> PaymentState {
        shard.lockers.borrow_mut().begin_payment(self.0)
    }
}

impl Short for UsePayment {
    type Answer = PaymentState;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> PaymentState {
        shard.lockers.borrow_mut().use_payment(self.0)
    }
}

impl Short for EndPayment {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.lockers.borrow_mut().end_payment(&self.0);
    }
}

impl Short for BeginQuestion {
    type Answer = bool;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> bool {
        shard.askers.begin(self.0, shard.questions)
    }
}

impl Short for EndQuestion {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.askers.end(self.0);
    }
}

impl Question for LockerCoins {
    type Answer = Result<Vec<Coin>, TooMany>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let LockerCoins(key, most) = self;
        let lockers = shard.lockers.borrow();
        if lockers.len(&key) <= RECORDS_A_TURN.min(most) {
            return Answered::Now(Ok(lockers.coins(&key).collect()));
        }
        let shard = shard.clone();
        Answered::Later(async move { shard.locker_coins(&key, most).await })
    }
}

impl Question for PeekTrade {
    type Answer = Result<Named, TooMany>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.peek_trade(&self.0, self.1).await })
    }
}

impl Question for AcquirePut {
    type Answer = Result<(), NotChanged>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move {
            shard.check_disk()?;
            let acquired = shard.puts.acquire(self.0).await;
            acquired.map_err(|crowded| shard.crowded(crowded))
        })
    }
}

impl<E: Environment> Shard<E> {
    /// The shard that keeps track of lockers whose keys start with these bytes.
    #[inline]
    pub fn locker_home(&self, prefix: LockerPrefix) -> ShardId {
        locker_home(prefix, self.shards)
    }

    /// The coins under a key that this shard keeps track of, handed to `give` in the order stored;
    /// `None` where they are too many for one go, and nothing was done.
    #[inline]
    pub fn locker_coins_now<T>(
        &self,
        key: &An,
        give: impl FnOnce(&mut dyn Iterator<Item = Coin>) -> T,
    ) -> Option<T> {
        let lockers = self.lockers.borrow();
        (lockers.len(key) <= RECORDS_A_TURN).then(|| give(&mut lockers.coins(key)))
    }

    /// The oldest keys that start with these bytes, of lockers that this shard keeps track of.
    pub fn locker_keys(&self, prefix: LockerPrefix, of: KeysOf) -> Vec<An> {
        self.lockers.borrow().keys(prefix, of).collect()
    }

    /// Lockers and what is for sale, of those that this shard keeps track of.
    pub fn locker_counts(&self) -> (IndexCounts, TradeCounts) {
        self.lockers.borrow().counts()
    }

    /// Takes up what a durable change means for this shard's lockers.
    pub fn update_lockers(&self, update: &Update) {
        let moment = self.moment.get().max(update.moment);
        self.moment.set(moment);
        self.lockers.borrow_mut().update(update);
    }

    /// The coins under this name.
    async fn peek_trade(&self, name: &TradeName, most: usize) -> Result<Named, TooMany> {
        let as_id = self.lockers.borrow().key_of_public_id(name);
        let count = as_id.map_or(0, |key| self.lockers.borrow().len(&key));
        if count > most {
            return Err(TooMany(count));
        }
        let of_id = as_id.map(|key| self.lockers.borrow().sale_coins(&key));
        match self.locker_coins(&name.as_key().an(), most - count).await {
            Ok(as_key) => Ok(Named {
                as_id: of_id,
                as_key,
            }),
            Err(TooMany(more)) => Err(TooMany(count + more)),
        }
    }

    /// The coins under a key, in the order stored, as they were at one moment since the call.
    ///
    /// # Errors
    /// How many they are, where they are more than `most`.
    async fn locker_coins(&self, key: &An, most: usize) -> Result<Vec<Coin>, TooMany> {
        let within = || match self.lockers.borrow().len(key) {
            count if count > most => Err(TooMany(count)),
            count => Ok(count),
        };
        for _ in 0..LISTING_TRIES {
            let version = self.lockers.borrow().version();
            let (mut coins, mut from) = (Vec::with_capacity(within()?), Place::default());
            loop {
                let next = self.lockers.borrow().stretch(key, from, &mut coins);
                let Some(next) = next else {
                    return Ok(coins);
                };
                from = next;
                self.environment.turn_in_line().await;
                if self.lockers.borrow().version() != version {
                    break;
                }
            }
        }
        let mut coins = Vec::with_capacity(within()?);
        coins.extend(self.lockers.borrow().coins(key));
        Ok(coins)
    }

    pub(super) async fn take_over_lockers(&self, book: &Book) {
        let is_own = |prefix| self.locker_home(prefix) == self.id;
        // Nobody asks yet, so the lockers may be taken out while other tasks have their turn.
        let none = Lockers::new(public_id_key(&self.secret), TradeSettings::default());
        let mut lockers = self.lockers.replace(none);
        let turn = async || self.environment.turn_in_line().await;
        lockers.take_over(book, is_own, turn).await;
        self.lockers.replace(lockers);
    }
}

/// The key that public ids are derived with. Public ids stay the same as long as the data folder
/// does.
pub(super) fn public_id_key(secret: &NodeSecret) -> PublicIdKey {
    PublicIdKey::new(secret.derive(b"public ids of trade lockers"))
}
