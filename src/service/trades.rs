//! Group 8, trades: put for sale, list, buy, remove trade locker, peek trade locker.

use std::{rc::Rc, time::Duration};

use futures_util::future::LocalBoxFuture;
use sha2::{Digest, Sha256};

use super::{
    Caller, Node, Transport,
    authentication::verdict,
    budget::AccountId,
    lockers::{LISTING_TRIES, Listed},
    needs::CHANGED,
    rate::{Rate, Rates},
    stored::{noted, stored},
    sums::Proven,
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, Mfs, ShardId},
    mesh::Decision,
    protocol::{
        Status,
        lockers::{
            Buy, Currency, ListForSale, LockerKey, Offer, PeekTrade, PublicId, PutForSale,
            RemoveTrade, TradeKey, TradePart, Value,
        },
    },
    shard::{
        Buyer, FoundSale, Named, OnOffer, PaymentState, Put, RECORDS_A_TURN, SaleId, SaleRefused,
        Stranger, Taken, Taker, TooMany, payment_prefix, question, question_home,
    },
    store::{
        book::{Notes, Payment, PaymentId, Sale},
        record::Change,
    },
};

/// Tells whether something has been paid.
pub trait Settle {
    /// Whether its answers take time: then one stranger may have only few questions under way.
    fn takes_time(&self) -> bool {
        false
    }

    /// Asks about a purchase.
    fn ask(&self, purchase: Purchase) -> LocalBoxFuture<'static, Settled>;
}

/// A purchase, as the settler of payments sees it.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// What is for sale, and for how much.
    pub offer: Offer,
    /// Where the seller wants to be paid, as the seller wrote it.
    pub seller: Box<[u8]>,
    /// Names the payment.
    pub transaction: PaymentId,
    /// The buyer's own name for the purchase.
    pub receipt: [u8; 16],
    /// The buyer's memo.
    pub memo: Vec<u8>,
    /// The name of the locker.
    pub locker: PublicId,
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The payment is there.
    Paid,
    /// The payment is there, as agreed and to the seller, and is not confirmed yet.
    Seen,
    /// Nobody has seen the payment, or nobody could find out.
    Pending,
    /// The payment is not as agreed.
    Refused,
    /// Nobody can tell.
    NotSetUp,
}

/// A settler that can never say whether something has been paid.
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
    /// The settler that says whether something has been paid.
    pub settlement: Rc<dyn Settle>,
    /// The currencies that an offer may ask for.
    pub accepted: Vec<Currency>,
    /// How often the settler is asked, where its answer takes time.
    pub questions: QuestionRates,
}

/// How many questions a second, on each core: each takes a process of the operator's.
#[derive(Clone, Copy, Debug)]
pub struct QuestionRates {
    /// Questions of one address.
    pub per_address: Rate,
    /// Questions of all datagrams together, which bear any address.
    pub by_datagram: Rate,
}

impl QuestionRates {
    /// Any number.
    pub const UNLIMITED: QuestionRates = {
        let any = Rate { per_s: 0, burst: 1 };
        QuestionRates {
            per_address: any,
            by_datagram: any,
        }
    };
}

/// The strangers that asked lately, on one core.
pub(super) struct Questions {
    of_one: Rates,
    by_all_datagrams: Rates,
}

impl Questions {
    pub(super) fn new(rates: QuestionRates) -> Questions {
        Questions {
            of_one: Rates::new(rates.per_address),
            by_all_datagrams: Rates::of_all(rates.by_datagram),
        }
    }

    fn admit(&self, caller: Caller, now: impl Fn() -> Duration) -> bool {
        let stranger = caller.stranger();
        // A stranger that has had its share takes nothing from the others.
        self.of_one.admits(stranger, &now)
            && (caller.transport == Transport::Tcp || self.by_all_datagrams.admits(stranger, &now))
    }
}

impl Trading {
    /// Everything may be offered and nothing can be bought.
    pub fn without_settlement() -> Trading {
        Trading {
            settlement: Rc::new(NoSettlement),
            accepted: Currency::ALL.to_vec(),
            questions: QuestionRates::UNLIMITED,
        }
    }
}

impl<E: Environment> Node<E> {
    /// Puts coins under a trade key, and puts that key up for sale. Another request that is about
    /// to make the same offer waits until this one is done.
    pub(super) async fn put_for_sale(
        &self,
        payload: &[u8],
        caller: Caller,
    ) -> Result<Status, Status> {
        let request = PutForSale::parse(payload)?;
        if !self.trading.accepted.contains(&request.key.currency()) {
            return Err(Status::UNKNOWN_CURRENCY);
        }
        let value = Value::of(request.coins().iter()).ok_or(Status::INVALID_PARAMETER)?;
        // Before anybody has to wait for this request.
        let proven = self.prove_sum(request.coins().iter(), request.sum).await?;
        let Some(proven) = proven else {
            return Ok(Status::ALL_FAIL);
        };
        let offer = Offer {
            currency: request.key.currency(),
            value,
            price: request.key.price(),
        };
        let home = self.shard().locker_home(request.key.an().locker_prefix());
        let registrar = self.registrar(&offer);
        let puts = [
            (home, Put::under(request.key)),
            (registrar, Put::Offer(offer)),
        ];
        for (taken, (shard, put)) in puts.into_iter().enumerate() {
            if let Err(refusal) = self.acquire_put(shard, put).await {
                self.release_puts(&puts[..taken]).await;
                return Err(refusal);
            }
        }
        let put_up = self.put_alone(&request, &proven, offer, caller.account);
        let put_up = put_up.await;
        self.release_puts(&puts).await;
        put_up
    }

    async fn acquire_put(&self, shard: ShardId, put: Put) -> Result<(), Status> {
        Ok(self.mesh.ask(shard, question::AcquirePut(put)).await?)
    }

    async fn release_puts(&self, puts: &[(ShardId, Put)]) {
        for &(shard, put) in puts {
            self.mesh.ask(shard, question::ReleasePut(put)).await;
        }
    }

    async fn put_alone(
        &self,
        request: &PutForSale<'_>,
        proven: &Proven,
        offer: Offer,
        account: AccountId,
    ) -> Result<Status, Status> {
        let (key, coins) = (request.key.an(), &proven.coins);
        let is_offered = self.mesh.ask_all(|| question::IsOffered(offer)).await;
        let is_offered = is_offered.contains(&true);
        // Where there are more coins, one of them is not of this offer; it does not matter which
        // one.
        let listed = Listed {
            most: coins.len(),
            beyond: Status::OFFER_EXISTS,
            ..Listed::all(account, 0)
        };
        let is_mixed = match self.coins_under(key, listed).await {
            Ok((others, _room)) => others.iter().any(|coin| coins.binary_search(coin).is_err()),
            Err(Status::OFFER_EXISTS) => true,
            Err(refusal) => return Err(refusal),
        };
        let mfs = self.shard().month();
        let changed = self.mesh.change_together(coins, None, |held| {
            if held.any_on_sale() || !self.still_proves(proven, held, request.sum) {
                return Decision::Refuse(Status::ALL_FAIL);
            }
            if is_offered || is_mixed {
                return Decision::Refuse(Status::OFFER_EXISTS);
            }
            let changes: Vec<Change> = (coins.iter())
                .map(|&coin| Change { coin, an: key, mfs })
                .collect();
            let mut notes = noted(&changes, &proven.ranks);
            notes.sale = Some(Sale {
                key,
                moment: 0,
                address: request.address.as_bytes().into(),
            });
            Decision::Change(changes, notes)
        });
        changed.await??;
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
        let list = || question::ListOffers(request.currency, most);
        let mut on_offer: Vec<OnOffer> = self.mesh.ask_all(list).await.concat();
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
        let PeekTrade { name, asks_for } = PeekTrade::parse(payload)?;
        if asks_for == TradePart::Address {
            let sellers = self.mesh.ask_all(|| question::SellerOf(name)).await;
            let seller = sellers.into_iter().flatten().next();
            return Ok(PeekTrade::answer_address(seller.as_deref(), out));
        }
        // Coins of several shards come together in one list.
        let listed = Listed::answered(caller, size_of::<Coin>() + Coin::SIZE);
        let (mut most, mut _room) = (RECORDS_A_TURN / usize::from(self.mesh.shards()), None);
        for _ in 0..LISTING_TRIES {
            let (mut of_id, mut of_key, mut too_many) = (None, Vec::new(), 0);
            for named in self.mesh.ask_all(|| question::PeekTrade(name, most)).await {
                match named {
                    Ok(Named { as_id, as_key }) => {
                        of_id = of_id.or(as_id);
                        of_key.extend(as_key);
                    }
                    Err(TooMany(count)) => too_many += count,
                }
            }
            if too_many == 0 {
                let coins = of_id.unwrap_or(of_key);
                return Ok(self.list(&coins, out).await);
            }
            drop((of_id, of_key, _room.take()));
            _room = Some(self.room_for(too_many + RECORDS_A_TURN, listed)?);
            most = too_many;
        }
        Err(Status::OUT_OF_MEMORY)
    }

    /// Takes an offer back; not while somebody's payment for it is under way. From the check until
    /// the coins are moved, nothing is put up under the key, and nobody buys what is there.
    pub(super) async fn remove_trade(
        &self,
        payload: &[u8],
        caller: Caller,
    ) -> Result<Status, Status> {
        let RemoveTrade { key, into } = RemoveTrade::parse(payload)?;
        let home = self.shard().locker_home(key.an().locker_prefix());
        if !self.mesh.ask(home, question::HasLocker(key.an())).await {
            return Ok(Status::ALL_FAIL);
        }
        let put = Put::under(key);
        self.acquire_put(home, put).await?;
        let removed = self.remove_alone(home, key, into, caller).await;
        self.mesh.ask(home, question::ReleasePut(put)).await;
        removed
    }

    async fn remove_alone(
        &self,
        home: ShardId,
        key: TradeKey,
        into: Option<LockerKey>,
        caller: Caller,
    ) -> Result<Status, Status> {
        let take = question::TakeSale(Taker::Seller(key));
        let taken = match self.mesh.ask(home, take).await {
            Ok(taken) => taken,
            Err(_) => return Err(Status::PAYMENT_PENDING),
        };
        let key = key.an();
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
        let listed = Listed::all(caller.account, CHANGED);
        let moved = match self.coins_under(key, listed).await {
            Ok((coins, _room)) => {
                let moved = self.move_all(key, coins.clone(), becomes, notes).await;
                moved.map(|moved| (moved, coins))
            }
            Err(status) => Err(status),
        };
        if let Some(Taken { sale, .. }) = taken {
            self.mesh
                .ask(home, question::GiveBackSale(sale, None))
                .await;
        }
        let (moved, coins) = moved?;
        if moved > 0 {
            self.gave_to(caller, coins);
            self.lockers.count(|counts| counts.offers_removed += 1);
        }
        Ok(verdict(moved > 0))
    }

    /// Buys an offer that has been paid.
    ///
    /// Nothing is kept from others while the settler is asked. So everything seen before the
    /// question is checked again after the answer, by the shards that own it, and is then reserved
    /// for the buyer until it is written: first the payment, then the trade locker.
    pub(super) async fn buy(&self, payload: &[u8], caller: Caller) -> Result<Status, Status> {
        let request = Buy::parse(payload)?;
        let payment = *request.transaction.as_bytes();
        let buyer = Buyer {
            payment,
            digest: digest(&request),
        };
        let registrar = self.shard().locker_home(payment_prefix(&payment));
        let known = self.mesh.ask(registrar, question::BeginPayment(buyer));
        if let Some(outcome) = self.outcome_of(known.await, buyer)? {
            return Ok(outcome);
        }
        let bought = self.buy_alone(&request, registrar, buyer, caller).await;
        self.mesh.ask(registrar, question::EndPayment(buyer)).await;
        bought
    }

    /// What comes of a purchase whose payment is in this state. `None` where the purchase goes on:
    /// the payment is this buyer's now.
    fn outcome_of(&self, known: PaymentState, buyer: Buyer) -> Result<Option<Status>, Status> {
        match known {
            PaymentState::New => Ok(None),
            PaymentState::Used(of) if of == buyer.digest => Ok(Some(Status::ALL_PASS)),
            PaymentState::Used(_) => Err(Status::PAYMENT_REFUSED),
            PaymentState::UnderWay => Err(Status::PAYMENT_PENDING),
            PaymentState::TooMany => {
                if !self.payments_are_full.replace(true) {
                    tracing::error!(
                        "no more payments can be remembered, and so nothing can be bought: raise trade.payments and start again"
                    );
                }
                Err(Status::UNAVAILABLE)
            }
        }
    }

    /// Buys with a payment that nobody else is checking for the same purchase.
    async fn buy_alone(
        &self,
        request: &Buy<'_>,
        registrar: ShardId,
        buyer: Buyer,
        caller: Caller,
    ) -> Result<Status, Status> {
        let (home, found) = self.find_sale(request.offer, buyer).await?;
        let sale = found.sale;
        let from = caller.stranger();
        match self.settled(request, found, caller).await? {
            Settled::Paid => {
                let known = self.mesh.ask(registrar, question::UsePayment(buyer));
                if let Some(outcome) = self.outcome_of(known.await, buyer)? {
                    return Ok(outcome);
                }
                self.hand_over(request, home, sale, buyer, caller).await
            }
            Settled::Seen => {
                let hold = question::HoldSale(sale, buyer, from);
                let is_kept = self.mesh.ask(home, hold).await.map_err(status_of)?;
                self.lockers.count(|counts| match is_kept {
                    true => counts.payments_seen += 1,
                    false => counts.holds_refused += 1,
                });
                Err(Status::PAYMENT_PENDING)
            }
            Settled::Pending => Err(Status::PAYMENT_PENDING),
            Settled::Refused => {
                self.mesh.ask(home, question::LetSaleGo(sale, buyer)).await;
                Err(Status::PAYMENT_REFUSED)
            }
            Settled::NotSetUp => Err(Status::NO_SETTLEMENT),
        }
    }

    /// Asks whether a purchase is paid, where its stranger does not ask too often and has not too
    /// many such questions under way.
    async fn settled(
        &self,
        request: &Buy<'_>,
        found: FoundSale,
        caller: Caller,
    ) -> Result<Settled, Status> {
        let settlement = &self.trading.settlement;
        let mut counted = Vec::new();
        if settlement.takes_time() {
            let now = || self.shard().environment.monotonic();
            if !self.questions.admit(caller, now) {
                return Err(Status::TOO_MANY_REQUESTS);
            }
            let one = caller.stranger();
            // A datagram may bear anybody's address, so that many strangers can be one.
            let everybody = (caller.transport == Transport::Udp).then_some(Stranger::Datagrams);
            for stranger in [Some(one), everybody].into_iter().flatten() {
                let home = question_home(stranger, self.mesh.shards());
                if !self.mesh.ask(home, question::BeginQuestion(stranger)).await {
                    self.end_questions(counted).await;
                    return Err(Status::TOO_MANY_REQUESTS);
                }
                counted.push((home, stranger));
            }
        }
        let settled = settlement.ask(Purchase {
            offer: request.offer,
            seller: found.address,
            transaction: *request.transaction.as_bytes(),
            receipt: *request.receipt.expose(),
            memo: request.memo.as_bytes().to_vec(),
            locker: found.id,
        });
        let settled = settled.await;
        self.end_questions(counted).await;
        Ok(settled)
    }

    async fn end_questions(&self, counted: Vec<(ShardId, Stranger)>) {
        for (home, stranger) in counted {
            self.mesh.ask(home, question::EndQuestion(stranger)).await;
        }
    }

    /// Hands a trade locker over, where it is still for sale as it was found and nobody else has
    /// reserved it.
    async fn hand_over(
        &self,
        request: &Buy<'_>,
        home: ShardId,
        sale: SaleId,
        buyer: Buyer,
        caller: Caller,
    ) -> Result<Status, Status> {
        let from = caller.stranger();
        let take = question::TakeSale(Taker::Buyer(buyer, sale));
        let coins = match self.mesh.ask(home, take).await {
            Ok(Some(Taken { coins, .. })) => coins,
            Ok(None) => return Err(Status::NO_SUCH_OFFER),
            Err(refused) => return Err(status_of(refused)),
        };
        // A buyer who has paid and could not be given the coins yet keeps them reserved.
        let kept = Some((buyer, from));
        let bytes = coins.len() * (size_of::<Coin>() + CHANGED);
        let Ok(_room) = self.budget.take(caller.account, bytes) else {
            self.mesh
                .ask(home, question::GiveBackSale(sale, kept))
                .await;
            return Err(Status::OUT_OF_MEMORY);
        };
        let key = sale.key.an();
        let (an, mfs) = (request.into.an(), self.shard().month());
        let payment = Payment {
            id: buyer.payment,
            digest: buyer.digest,
            moment: 0,
        };
        let notes = Notes {
            ended: Some(key),
            payment: Some(payment),
            ..Notes::default()
        };
        let becomes = |coin| Change { coin, an, mfs };
        let moved = self.move_all(key, coins, becomes, notes).await;
        let keep = kept.filter(|_| moved.is_err());
        self.mesh
            .ask(home, question::GiveBackSale(sale, keep))
            .await;
        let moved = moved?;
        if moved == 0 {
            return Err(Status::NO_SUCH_OFFER);
        }
        if self.trading.settlement.takes_time() {
            // While the payment was checked for another offer, that offer may have been reserved
            // for it too.
            let end = || question::EndHolds(buyer.payment);
            self.mesh.ask_all(end).await;
        }
        self.lockers.count(|counts| {
            counts.purchases += 1;
            counts.coins_bought += moved as u64;
        });
        Ok(Status::ALL_PASS)
    }

    /// Finds a trade locker with this offer that this buyer may have, wherever it is.
    async fn find_sale(&self, offer: Offer, buyer: Buyer) -> Result<(ShardId, FoundSale), Status> {
        let mut found = None;
        for home in (0..self.mesh.shards()).map(ShardId::new) {
            match self.mesh.ask(home, question::FindSale(offer, buyer)).await {
                Ok(sale) if sale.is_kept => return Ok((home, sale)),
                Ok(sale) => found = found.or(Some((home, sale))),
                Err(SaleRefused::NotOffered | SaleRefused::Taken) => {}
                Err(SaleRefused::OtherBuyer) => return Err(Status::PAYMENT_REFUSED),
            }
        }
        found.ok_or(Status::NO_SUCH_OFFER)
    }

    /// Changes coins that lie under a trade key, in this order, together, and returns how many they
    /// were: none where they no longer lie there.
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
        let changed = changed.await?;
        Ok(changed.map_or(0, |()| coins.len()))
    }

    /// The shard where offers equal to this one are made one at a time.
    fn registrar(&self, offer: &Offer) -> ShardId {
        let mut bytes = Vec::with_capacity(Offer::SIZE);
        offer.write(&mut bytes);
        ShardId::new((crc32c::crc32c(&bytes) % u32::from(self.mesh.shards())) as u16)
    }
}

/// The status for a buyer who cannot have the offer.
fn status_of(refused: SaleRefused) -> Status {
    match refused {
        SaleRefused::NotOffered | SaleRefused::Taken => Status::NO_SUCH_OFFER,
        SaleRefused::OtherBuyer => Status::PAYMENT_REFUSED,
    }
}

/// A digest of what a payment buys, and for whom.
fn digest(request: &Buy<'_>) -> [u8; 16] {
    let mut offer = Vec::with_capacity(Offer::SIZE);
    request.offer.write(&mut offer);
    let digest = Sha256::new()
        .chain_update(&offer)
        .chain_update(request.into.an().expose())
        .finalize();
    *digest.first_chunk().expect("32 bytes")
}
