//! Group 8, trades: put for sale, list, buy, remove trade locker, peek trade locker.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use sha2::{Digest, Sha256};

use super::{
    Caller, Node,
    authentication::verdict,
    budget::AccountId,
    lockers::{LISTING_TRIES, Listed, list, most_listed},
    needs::CHANGED,
    stored::{ranked, stored},
};
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    mesh::Decision,
    protocol::{
        Status,
        lockers::{
            Buy, Currency, ListForSale, Offer, PeekTrade, PublicId, PutForSale, RemoveTrade, Value,
        },
    },
    shard::{
        self, Buyer, HoldRefused, OnOffer, PaymentState, RECORDS_A_TURN, Reply, Request,
        payment_prefix, sum,
    },
    store::{
        Environment,
        book::{Notes, Payment, PaymentId, Sale},
        record::Change,
    },
};

/// Whoever can say whether something has been paid.
pub trait Settle {
    /// Asks about a purchase.
    fn ask(&self, purchase: Purchase) -> LocalBoxFuture<'static, Settled>;
}

/// A purchase as whoever settles it needs to see it.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// What for how much.
    pub offer: Offer,
    /// Where the seller wants to be paid, as the seller wrote it.
    pub seller: Box<[u8]>,
    /// Names the payment.
    pub transaction: PaymentId,
    /// The buyer's own name for the purchase.
    pub receipt: [u8; 16],
    /// What the buyer has to say.
    pub memo: Vec<u8>,
    /// What the locker is called.
    pub locker: PublicId,
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is there.
    Paid,
    /// It is not there yet, or nobody could find out.
    Pending,
    /// It is not what was agreed.
    Refused,
    /// Nobody can tell.
    NotSetUp,
}

/// Nobody says whether anything has been paid.
#[derive(Clone, Copy, Debug)]
pub struct NoSettlement;

impl Settle for NoSettlement {
    fn ask(&self, _: Purchase) -> LocalBoxFuture<'static, Settled> {
        Box::pin(std::future::ready(Settled::NotSetUp))
    }
}

/// How this node trades.
#[derive(Clone)]
pub struct Trading {
    /// Who says whether something has been paid.
    pub settlement: Rc<dyn Settle>,
    /// What may be asked for.
    pub accepted: Vec<Currency>,
}

impl Trading {
    /// Everything may be offered and nothing can be bought.
    pub fn without_settlement() -> Trading {
        Trading {
            settlement: Rc::new(NoSettlement),
            accepted: Currency::ALL.to_vec(),
        }
    }
}

impl<E: Environment> Node<E> {
    /// Puts coins under a trade key, and that up for sale. Whoever is about to make the same offer waits
    /// until this is done.
    pub(super) async fn put_for_sale(
        &self,
        payload: &[u8],
        caller: Caller,
    ) -> Result<Status, Status> {
        let request = PutForSale::parse(payload)?;
        if !self.trading.accepted.contains(&request.key.currency()) {
            return Err(Status::UNKNOWN_CURRENCY);
        }
        let Some((coins, ranks)) = ranked(request.coins().iter()) else {
            return Ok(Status::ALL_FAIL);
        };
        let offer = Offer {
            currency: request.key.currency(),
            value: Value::of(coins.iter().copied()).ok_or(Status::INVALID_PARAMETER)?,
            price: request.key.price(),
        };
        let home = self.shard().locker_home(request.key.an().locker_prefix());
        let registrar = self.registrar(&offer);
        let puts = [
            (home, shard::Put::under(request.key)),
            (registrar, shard::Put::Offer(offer)),
        ];
        for (shard, put) in puts {
            self.tell(shard, Request::AcquirePut(put)).await?;
        }
        let put_up = self.put_alone(&request, &coins, ranks, offer, caller.account);
        let put_up = put_up.await;
        for (shard, put) in puts {
            self.tell(shard, Request::ReleasePut(put)).await?;
        }
        put_up
    }

    async fn put_alone(
        &self,
        request: &PutForSale<'_>,
        coins: &[Coin],
        ranks: Vec<u32>,
        offer: Offer,
        account: AccountId,
    ) -> Result<Status, Status> {
        let key = request.key.an();
        let is_offered = self.ask_all(|| Request::IsOffered(offer)).await?;
        let is_offered = is_offered
            .iter()
            .any(|reply| matches!(reply, Reply::Is(true)));
        let listed = Listed {
            account,
            most: usize::MAX,
            each: 0,
        };
        let (others, _room) = self.coins_under(key, listed).await?;
        let is_mixed = others.iter().any(|coin| coins.binary_search(coin).is_err());
        let mfs = self.shard().month();
        let changed = self.mesh.change_together(coins, None, |held| {
            let values = held.values.iter().map(|value| Some(value.as_ref()?.0));
            let known = sum(values);
            if held.any_on_sale() || !known.is_some_and(|known| known.proves(request.sum)) {
                return Decision::Refuse(Status::ALL_FAIL);
            }
            if is_offered || is_mixed {
                return Decision::Refuse(Status::OFFER_EXISTS);
            }
            let changes: Vec<Change> = (coins.iter())
                .map(|&coin| Change { coin, an: key, mfs })
                .collect();
            let notes = Notes {
                sale: Some(Sale {
                    key,
                    moment: 0,
                    address: request.address.as_bytes().into(),
                }),
                ranks,
                ..Notes::default()
            };
            Decision::Change(changes, notes)
        });
        changed.await.map_err(|_| Status::UNAVAILABLE)??;
        self.lockers.count(|counts| counts.offers += 1);
        Ok(Status::ALL_PASS)
    }

    pub(super) async fn list_for_sale(
        &self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = ListForSale::parse(payload)?;
        let most = usize::from(request.most);
        let mut on_offer: Vec<OnOffer> = Vec::new();
        for reply in self
            .ask_all(|| Request::ListOffers(request.currency, most))
            .await?
        {
            let Reply::OnOffer(more) = reply else {
                unreachable!("a shard lists offers");
            };
            on_offer.extend(more);
        }
        on_offer.sort_unstable_by_key(|on| (on.moment, on.id.to_bytes()));
        let listed = on_offer.into_iter().map(|on| (on.id, on.offer.value));
        Ok(request.answer(listed, self.rules.get().dialect, out))
    }

    pub(super) async fn peek_trade(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let PeekTrade { name } = PeekTrade::parse(payload)?;
        let listed = Listed {
            account: caller.account,
            most: most_listed(caller.transport),
            // Those of several shards come together in one list.
            each: size_of::<Coin>() + Coin::SIZE,
        };
        let (mut most, mut _room) = (RECORDS_A_TURN / usize::from(self.mesh.shards()), None);
        for _ in 0..LISTING_TRIES {
            let (mut of_id, mut of_key, mut too_many) = (None, Vec::new(), 0);
            let replies = self.ask_all(|| Request::PeekTrade(name, most)).await?;
            for reply in replies {
                match reply {
                    Reply::Named(id, key) => {
                        of_id = of_id.or(id);
                        of_key.extend(key);
                    }
                    Reply::TooMany(count) => too_many += count,
                    other => unreachable!("a shard says what is called so, not {other:?}"),
                }
            }
            if too_many == 0 {
                return Ok(list(of_id.unwrap_or(of_key), out));
            }
            drop((of_id, of_key, _room.take()));
            _room = Some(self.room_for(too_many + RECORDS_A_TURN, listed)?);
            most = too_many;
        }
        Err(Status::OUT_OF_MEMORY)
    }

    /// Takes an offer back; not while somebody is buying it.
    pub(super) async fn remove_trade(
        &self,
        payload: &[u8],
        caller: Caller,
    ) -> Result<Status, Status> {
        let RemoveTrade { key, into } = RemoveTrade::parse(payload)?;
        let key = key.an();
        let home = self.shard().locker_home(key.locker_prefix());
        if self.is(home, Request::IsSaleHeld(key)).await? {
            return Err(Status::PAYMENT_PENDING);
        }
        let becomes = |coin| {
            let mfs = self.shard().month();
            match into {
                Some(into) => Change {
                    coin,
                    an: into.an(),
                    mfs,
                },
                None => Change {
                    coin,
                    an: self.shard().unknown_an(),
                    mfs: Mfs::FREE,
                },
            }
        };
        let notes = Notes {
            ended: Some(key),
            ..Notes::default()
        };
        let listed = Listed {
            account: caller.account,
            most: usize::MAX,
            each: CHANGED,
        };
        let (coins, _room) = self.coins_under(key, listed).await?;
        let moved = self.move_all(key, coins, becomes, notes).await?;
        if moved > 0 {
            self.lockers.count(|counts| counts.offers_removed += 1);
        }
        Ok(verdict(moved > 0))
    }

    /// Buys what is on offer, where it has been paid.
    pub(super) async fn buy(&self, payload: &[u8], caller: Caller) -> Result<Status, Status> {
        let request = Buy::parse(payload)?;
        let payment = *request.transaction.as_bytes();
        let digest = digest(&request);
        let buyer = Buyer { payment, digest };
        let registrar = self.shard().locker_home(payment_prefix(&payment));
        match self
            .mesh
            .ask(registrar, Request::BeginPayment(payment))
            .await
        {
            Ok(Reply::Payment(PaymentState::New)) => {}
            Ok(Reply::Payment(PaymentState::Used(of))) if of == digest => {
                return Ok(Status::ALL_PASS);
            }
            Ok(Reply::Payment(PaymentState::Used(_))) => return Err(Status::PAYMENT_REFUSED),
            Ok(Reply::Payment(PaymentState::UnderWay)) => return Err(Status::PAYMENT_PENDING),
            Ok(Reply::Payment(PaymentState::TooMany)) => {
                if !self.payments_are_full.replace(true) {
                    tracing::error!(
                        "no more payments can be remembered, and so nothing can be bought: raise trade.payments and start again"
                    );
                }
                return Err(Status::UNAVAILABLE);
            }
            Ok(other) => unreachable!("a shard says what it knows of a payment, not {other:?}"),
            Err(_) => return Err(Status::UNAVAILABLE),
        }
        let bought = self.buy_alone(&request, buyer, caller).await;
        self.tell(registrar, Request::EndPayment(payment)).await?;
        bought
    }

    /// Buys with a payment that nobody else is looking at.
    async fn buy_alone(
        &self,
        request: &Buy<'_>,
        buyer: Buyer,
        caller: Caller,
    ) -> Result<Status, Status> {
        let (home, held) = self.hold(request.offer, buyer).await?;
        let key = held.key.an();
        let bytes = held.coins.len() * (size_of::<Coin>() + CHANGED);
        let Ok(_room) = self.budget.take(caller.account, bytes) else {
            self.tell(home, Request::ReleaseSale(key, buyer, false))
                .await?;
            return Err(Status::OUT_OF_MEMORY);
        };
        let settled = self.trading.settlement.ask(Purchase {
            offer: request.offer,
            seller: held.address,
            transaction: buyer.payment,
            receipt: *request.receipt.expose(),
            memo: request.memo.as_bytes().to_vec(),
            locker: held.id,
        });
        let bought = match settled.await {
            Settled::Paid => self.hand_over(request, key, held.coins, buyer).await,
            Settled::Pending => Err(Status::PAYMENT_PENDING),
            Settled::Refused => Err(Status::PAYMENT_REFUSED),
            Settled::NotSetUp => Err(Status::NO_SETTLEMENT),
        };
        // Who has paid and could not be given the coins yet keeps them as well.
        let is_pending = matches!(bought, Err(Status::PAYMENT_PENDING | Status::UNAVAILABLE));
        self.tell(home, Request::ReleaseSale(key, buyer, is_pending))
            .await?;
        bought
    }

    async fn hand_over(
        &self,
        request: &Buy<'_>,
        key: An,
        coins: Vec<Coin>,
        Buyer { payment, digest }: Buyer,
    ) -> Result<Status, Status> {
        let (an, mfs) = (request.into.an(), self.shard().month());
        let payment = Payment {
            id: payment,
            digest,
            moment: 0,
        };
        let notes = Notes {
            ended: Some(key),
            payment: Some(payment),
            ..Notes::default()
        };
        let becomes = |coin| Change { coin, an, mfs };
        let moved = self.move_all(key, coins, becomes, notes).await?;
        if moved == 0 {
            return Err(Status::NO_SUCH_OFFER);
        }
        self.lockers.count(|counts| {
            counts.purchases += 1;
            counts.coins_bought += moved as u64;
        });
        Ok(Status::ALL_PASS)
    }

    /// Holds a trade locker with this offer, wherever one is that nobody else is buying.
    async fn hold(&self, offer: Offer, buyer: Buyer) -> Result<(ShardId, shard::Held), Status> {
        for home in 0..self.mesh.shards() {
            let home = ShardId::new(home);
            match self.mesh.ask(home, Request::HoldSale(offer, buyer)).await {
                Ok(Reply::Held(Ok(held))) => return Ok((home, held)),
                Ok(Reply::Held(Err(HoldRefused::NotOffered | HoldRefused::Taken))) => {}
                Ok(Reply::Held(Err(HoldRefused::OtherBuyer))) => {
                    return Err(Status::PAYMENT_REFUSED);
                }
                Ok(other) => unreachable!("a shard holds or refuses, and does not say {other:?}"),
                Err(_) => return Err(Status::UNAVAILABLE),
            }
        }
        Err(Status::NO_SUCH_OFFER)
    }

    /// Changes coins that lie under a trade key, in this order, together, and gives how many they were:
    /// none where they do not lie there any more.
    async fn move_all(
        &self,
        key: An,
        order: Vec<Coin>,
        becomes: impl Fn(Coin) -> Change,
        notes: Notes,
    ) -> Result<usize, Status> {
        if order.is_empty() {
            return Ok(0);
        }
        let mut coins = order.clone();
        coins.sort_unstable();
        let changed = self.mesh.change_together(&coins, None, |held| {
            let mut ans = held.values.iter().map(|value| Some(value.as_ref()?.0));
            if !ans.all(|an| an == Some(key)) {
                // Somebody was faster.
                return Decision::Refuse(());
            }
            let changes: Vec<Change> = coins.iter().map(|&coin| becomes(coin)).collect();
            let ranks = stored(&changes, order.iter().copied()).ranks;
            Decision::Change(changes, Notes { ranks, ..notes })
        });
        let changed = changed.await.map_err(|_| Status::UNAVAILABLE)?;
        Ok(changed.map_or(0, |()| coins.len()))
    }

    /// The shard where offers like this one are made one at a time.
    fn registrar(&self, offer: &Offer) -> ShardId {
        let mut bytes = Vec::with_capacity(Offer::SIZE);
        offer.write(&mut bytes);
        ShardId::new((crc32c::crc32c(&bytes) % u32::from(self.mesh.shards())) as u16)
    }

    async fn tell(&self, shard: ShardId, request: Request) -> Result<(), Status> {
        let told = self.mesh.ask(shard, request).await;
        told.map(drop).map_err(|_| Status::UNAVAILABLE)
    }

    async fn is(&self, shard: ShardId, request: Request) -> Result<bool, Status> {
        match self.mesh.ask(shard, request).await {
            Ok(Reply::Is(is)) => Ok(is),
            Ok(other) => unreachable!("a shard says yes or no, not {other:?}"),
            Err(_) => Err(Status::UNAVAILABLE),
        }
    }
}

/// Stands for what a payment buys, and for whom.
fn digest(request: &Buy<'_>) -> [u8; 16] {
    let mut offer = Vec::with_capacity(Offer::SIZE);
    request.offer.write(&mut offer);
    let digest = Sha256::new()
        .chain_update(&offer)
        .chain_update(request.into.an().expose())
        .finalize();
    *digest.first_chunk().expect("32 bytes")
}
