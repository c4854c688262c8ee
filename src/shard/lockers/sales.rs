use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use foldhash::fast::RandomState;
use slab::Slab;

use crate::{
    coin::{An, Coin},
    protocol::lockers::{Currency, Offer, PublicId, PublicIdKey, TradeKey, Value},
    shard::Stranger,
    store::book::{PaymentId, Sale},
};

/// What is for sale, and for whose payment it is kept.
///
/// Nothing is kept while the node finds out whether a purchase is paid, nor for a payment that
/// nobody has seen: asking costs nothing, and would keep all others out. A payment that was seen
/// keeps out everybody else, those included who have paid: else a seller could buy his own coins
/// with a payment of his own that is confirmed already, while a buyer's is still under way to him.
pub(super) struct Sales {
    public_ids: PublicIdKey,
    limits: HoldLimits,
    /// A sale that stays keeps its number.
    sales: Slab<OnSale>,
    by_key: HashMap<[u8; An::SIZE], usize, RandomState>,
    by_id: HashMap<[u8; PublicId::SIZE], usize, RandomState>,
    by_offer: BTreeSet<(Offer, u64, usize)>,
    by_currency: BTreeSet<(Currency, u64, usize)>,
    /// The sales that are held, the longest held first.
    held: BTreeSet<(Duration, usize)>,
    counts: TradeCounts,
}

/// How long trade lockers are held for payments that are not confirmed yet, and how many.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldLimits {
    /// How long one keeps others from buying.
    pub pending: Duration,
    /// For payments that one address named, at most.
    pub per_address: usize,
    /// At most.
    pub all: usize,
}

/// What is for sale, by currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TradeCounts {
    /// Trade lockers that were held last for a payment that is not confirmed yet.
    pub held: u64,
    /// Trade lockers.
    pub lockers: [u64; Currency::ALL.len()],
    /// Worth of their coins in the smallest unit.
    pub value: [u128; Currency::ALL.len()],
}

struct OnSale {
    key: TradeKey,
    id: PublicId,
    /// The coins that came under the key at this moment are for sale. Coins that anybody adds later
    /// are not: a purchase that is under way must not change.
    moment: u64,
    address: Box<[u8]>,
    value: Value,
    hold: Option<Hold>,
    /// Until then it is held for nobody, since a hold has just ended.
    open_until: Duration,
    /// Somebody is moving its coins right now: a buyer who has paid, or the seller.
    is_taken: bool,
}

#[derive(Clone, Copy)]
struct Hold {
    by: Buyer,
    from: Stranger,
    since: Duration,
}

/// A payment, and a digest of who buys what with it: a payment's name alone is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buyer {
    /// The payment.
    pub payment: PaymentId,
    /// Stands for the rest.
    pub digest: [u8; 16],
}

impl std::fmt::Debug for Buyer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buyer(secret)")
    }
}

/// A sale as somebody found it: under the same key another one may begin later, of other coins or
/// for another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaleId {
    /// The key of the trade locker.
    pub key: TradeKey,
    /// When it was put up for sale.
    pub moment: u64,
    /// What it was worth.
    pub value: Value,
}

/// A trade locker that somebody would like to buy.
#[derive(Clone, Debug)]
pub struct FoundSale {
    /// Which one.
    pub sale: SaleId,
    /// What listings call it.
    pub id: PublicId,
    /// Where the seller wants to be paid.
    pub address: Box<[u8]>,
    /// Whether it is kept for the buyer already.
    pub is_kept: bool,
}

/// Who moves the coins of a trade locker.
#[derive(Clone, Copy, Debug)]
pub enum Taker {
    /// A buyer who has paid for it as it was found.
    Buyer(Buyer, SaleId),
    /// The seller, whatever is for sale under the key.
    Seller(TradeKey),
}

/// A trade locker whose coins nobody else moves meanwhile.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Which one.
    pub sale: SaleId,
    /// What is for sale, in the order in which it was put there.
    pub coins: Vec<Coin>,
}

/// Why a trade locker is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaleRefused {
    /// There is no such offer here, or not any more.
    NotOffered,
    /// Somebody else is buying it, or the seller takes it back.
    Taken,
    /// Somebody else is buying it with the same payment.
    OtherBuyer,
}

/// One offer of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnOffer {
    /// When it was made.
    pub moment: u64,
    /// What it is called.
    pub id: PublicId,
    /// What for how much.
    pub offer: Offer,
}

impl OnSale {
    fn offer(&self) -> Offer {
        Offer {
            currency: self.key.currency(),
            value: self.value,
            price: self.key.price(),
        }
    }

    /// What identifies this sale.
    fn sale(&self) -> SaleId {
        SaleId {
            key: self.key,
            moment: self.moment,
            value: self.value,
        }
    }

    /// For whose payment it is kept now, if for any.
    fn held_by(&self, now: Duration, pending: Duration) -> Option<Buyer> {
        let lasts = |hold: &Hold| now < hold.since + pending;
        self.hold.filter(lasts).map(|hold| hold.by)
    }

    /// Whether this buyer may have it.
    fn admits(&self, by: &Buyer, now: Duration, pending: Duration) -> Result<(), SaleRefused> {
        match self.held_by(now, pending) {
            Some(holder) if holder == *by => {}
            Some(holder) if holder.payment == by.payment => return Err(SaleRefused::OtherBuyer),
            Some(_) => return Err(SaleRefused::Taken),
            None => {}
        }
        match self.is_taken {
            true => Err(SaleRefused::Taken),
            false => Ok(()),
        }
    }

    /// Whether nobody is buying it.
    fn is_open(&self, now: Duration, pending: Duration) -> bool {
        !self.is_taken && self.held_by(now, pending).is_none()
    }
}

impl Sales {
    pub(super) fn new(public_ids: PublicIdKey, limits: HoldLimits) -> Sales {
        Sales {
            public_ids,
            limits,
            sales: Slab::new(),
            by_key: HashMap::default(),
            by_id: HashMap::default(),
            by_offer: BTreeSet::new(),
            by_currency: BTreeSet::new(),
            held: BTreeSet::new(),
            counts: TradeCounts::default(),
        }
    }

    #[inline]
    pub(super) fn is_on_sale(&self, key: &An) -> bool {
        self.by_key.contains_key(key.expose())
    }

    /// Puts these coins up, which came under the key at the sale's moment; a sale that was there
    /// ends.
    pub(super) fn begin(&mut self, sale: Sale, coins: impl Iterator<Item = Coin>) {
        let (Some(key), Some(value)) = (TradeKey::new(sale.key), Value::of(coins)) else {
            debug_assert!(
                false,
                "only coins under a trade key are for sale, and not too many"
            );
            return;
        };
        self.end(&sale.key);
        let id = key.public_id(&self.public_ids);
        let number = self.sales.insert(OnSale {
            key,
            id,
            moment: sale.moment,
            address: sale.address,
            value,
            hold: None,
            open_until: Duration::ZERO,
            is_taken: false,
        });
        self.by_key.insert(*sale.key.expose(), number);
        self.by_id.insert(id.to_bytes(), number);
        self.by_currency
            .insert((key.currency(), sale.moment, number));
        self.enter(number);
    }

    /// Ends a sale, if there is one.
    pub(super) fn end(&mut self, key: &An) {
        let Some(number) = self.by_key.remove(key.expose()) else {
            return;
        };
        self.leave(number);
        self.end_hold(number);
        let sale = self.sales.remove(number);
        self.by_id.remove(&sale.id.to_bytes());
        let at = (sale.key.currency(), sale.moment, number);
        self.by_currency.remove(&at);
    }

    /// When what lies under a key was put up for sale, if it was.
    pub(super) fn moment(&self, key: &An) -> Option<u64> {
        let number = self.by_key.get(key.expose());
        number.map(|&number| self.sales[number].moment)
    }

    /// Coins have left a key: these are left of what is for sale under it. Without any the sale
    /// ends.
    pub(super) fn reduce(&mut self, key: &An, left: impl Iterator<Item = Coin>) {
        let Some(&number) = self.by_key.get(key.expose()) else {
            return;
        };
        let mut left = left.peekable();
        if left.peek().is_none() {
            return self.end(key);
        }
        self.leave(number);
        let value = Value::of(left).expect("less than it was");
        self.sales[number].value = value;
        self.enter(number);
    }

    /// Whether there is such an offer, held or not.
    pub(super) fn is_offered(&self, offer: &Offer) -> bool {
        self.of_offer(offer).next().is_some()
    }

    /// The oldest trade locker with this offer that this buyer may have; where one is held for his
    /// payment, that one.
    pub(super) fn find(
        &self,
        offer: &Offer,
        by: &Buyer,
        now: Duration,
    ) -> Result<FoundSale, SaleRefused> {
        let pending = self.limits.pending;
        let is_kept = |sale: &OnSale| sale.held_by(now, pending).is_some();
        let mut refused = SaleRefused::NotOffered;
        let mut found: Option<&OnSale> = None;
        for number in self.of_offer(offer) {
            let sale = &self.sales[number];
            match sale.admits(by, now, pending) {
                Ok(()) if is_kept(sale) => found = Some(sale),
                Ok(()) => found = found.or(Some(sale)),
                Err(SaleRefused::OtherBuyer) => return Err(SaleRefused::OtherBuyer),
                Err(other) => refused = other,
            }
        }
        let sale = found.ok_or(refused)?;
        Ok(FoundSale {
            sale: sale.sale(),
            id: sale.id,
            address: sale.address.clone(),
            is_kept: is_kept(sale),
        })
    }

    /// Keeps a trade locker for a buyer whose payment was seen, until the hold's time is over.
    /// Returns whether it is kept: not where a hold has just ended, nor for a payment that keeps
    /// another one, nor beyond the limits.
    pub(super) fn hold(
        &mut self,
        sale: &SaleId,
        by: Buyer,
        from: Stranger,
        now: Duration,
    ) -> Result<bool, SaleRefused> {
        let number = self.number_of(sale).ok_or(SaleRefused::NotOffered)?;
        self.sales[number].admits(&by, now, self.limits.pending)?;
        // A buyer who comes again keeps the time that is left, and gets no more.
        self.end_old_holds(now);
        if self.sales[number].hold.is_some() {
            return Ok(true);
        }
        if now < self.sales[number].open_until
            || self.held.len() >= self.limits.all
            || self.holds(|hold| hold.by.payment == by.payment) > 0
            || self.holds(|hold| hold.from == from) >= self.limits.per_address
        {
            return Ok(false);
        }
        let since = now;
        self.sales[number].hold = Some(Hold { by, from, since });
        self.held.insert((since, number));
        Ok(true)
    }

    /// Keeps a trade locker no longer for a buyer, whose payment is not what was agreed.
    pub(super) fn let_go(&mut self, sale: &SaleId, by: &Buyer) {
        if let Some(number) = self.number_of(sale)
            && self.sales[number].hold.is_some_and(|hold| hold.by == *by)
        {
            self.end_hold(number);
        }
    }

    /// Ends all holds for a payment, which was used up.
    pub(super) fn end_holds(&mut self, payment: &PaymentId) {
        let is_of = |&number: &usize| {
            let hold = self.sales[number].hold;
            hold.is_some_and(|hold| hold.by.payment == *payment)
        };
        let held = self.held.iter().map(|&(_, number)| number);
        let of_it: Vec<usize> = held.filter(is_of).collect();
        of_it.into_iter().for_each(|number| self.end_hold(number));
    }

    /// Lets nobody else move the coins of a trade locker, until it is [given
    /// back](Sales::give_back) or its sale ends; none where the seller has nothing for sale under
    /// the key. The coins are left out.
    pub(super) fn take(
        &mut self,
        taker: &Taker,
        now: Duration,
    ) -> Result<Option<SaleId>, SaleRefused> {
        let number = match taker {
            Taker::Seller(key) => match self.by_key.get(key.an().expose()) {
                Some(&number) => number,
                None => return Ok(None),
            },
            Taker::Buyer(_, sale) => self.number_of(sale).ok_or(SaleRefused::NotOffered)?,
        };
        let sale = &mut self.sales[number];
        match taker {
            Taker::Buyer(by, _) => sale.admits(by, now, self.limits.pending)?,
            Taker::Seller(_) if sale.is_open(now, self.limits.pending) => {}
            Taker::Seller(_) => return Err(SaleRefused::Taken),
        }
        sale.is_taken = true;
        Ok(Some(sale.sale()))
    }

    /// Lets others have a trade locker that was taken and is still for sale.
    pub(super) fn give_back(&mut self, sale: &SaleId) {
        if let Some(&number) = self.by_key.get(sale.key.an().expose())
            && self.sales[number].moment == sale.moment
        {
            self.sales[number].is_taken = false;
        }
    }

    /// The first offers in this currency that nobody is buying, in the order they were made.
    pub(super) fn list(&self, currency: Currency, most: usize, now: Duration) -> Vec<OnOffer> {
        let of_currency = self
            .by_currency
            .range((currency, 0, 0)..=(currency, u64::MAX, usize::MAX));
        let sales = of_currency.map(|&(_, _, number)| &self.sales[number]);
        let open = sales.filter(|sale| sale.is_open(now, self.limits.pending));
        let listed = open.map(|sale| OnOffer {
            moment: sale.moment,
            id: sale.id,
            offer: sale.offer(),
        });
        listed.take(most).collect()
    }

    /// The address that payments for a key's sale go to.
    pub(super) fn address(&self, key: &An) -> Option<&[u8]> {
        let &number = self.by_key.get(key.expose())?;
        Some(&self.sales[number].address)
    }

    /// The key of the trade locker that listings call so.
    pub(super) fn key_of(&self, id: &PublicId) -> Option<An> {
        let number = self.by_id.get(&id.to_bytes());
        number.map(|&number| self.sales[number].key.an())
    }

    pub(super) fn counts(&self) -> TradeCounts {
        TradeCounts {
            held: self.held.len() as u64,
            ..self.counts
        }
    }

    /// One past the highest number.
    pub(super) fn end_number(&self) -> usize {
        self.sales.capacity()
    }

    /// The sale with this number, if there is one.
    pub(super) fn at(&self, number: usize) -> Option<Sale> {
        self.sales.get(number).map(|sale| Sale {
            key: sale.key.an(),
            moment: sale.moment,
            address: sale.address.clone(),
        })
    }

    fn of_offer(&self, offer: &Offer) -> impl Iterator<Item = usize> {
        let numbers = self
            .by_offer
            .range((*offer, 0, 0)..=(*offer, u64::MAX, usize::MAX));
        numbers.map(|&(_, _, number)| number)
    }

    /// The number of a sale that is still as it was found.
    fn number_of(&self, sale: &SaleId) -> Option<usize> {
        let &number = self.by_key.get(sale.key.an().expose())?;
        (self.sales[number].sale() == *sale).then_some(number)
    }

    /// Number of holds that meet a condition.
    fn holds(&self, are: impl Fn(&Hold) -> bool) -> usize {
        let holds = self.held.iter();
        let holds = holds.filter_map(|&(_, number)| self.sales[number].hold);
        holds.filter(are).count()
    }

    /// Ends the holds whose time is over. After each, the trade locker stays open for as long.
    fn end_old_holds(&mut self, now: Duration) {
        let pending = self.limits.pending;
        while let Some(&(since, number)) = self.held.first()
            && now >= since + pending
        {
            self.end_hold(number);
            self.sales[number].open_until = since + 2 * pending;
        }
    }

    fn end_hold(&mut self, number: usize) {
        if let Some(hold) = self.sales[number].hold.take() {
            self.held.remove(&(hold.since, number));
        }
    }

    /// Makes a sale count and be found by what it offers.
    fn enter(&mut self, number: usize) {
        let sale = &self.sales[number];
        let (offer, moment) = (sale.offer(), sale.moment);
        let currency = offer.currency as usize;
        self.counts.lockers[currency] += 1;
        self.counts.value[currency] += u128::from(offer.value.units());
        self.by_offer.insert((offer, moment, number));
    }

    fn leave(&mut self, number: usize) {
        let sale = &self.sales[number];
        let (offer, moment) = (sale.offer(), sale.moment);
        let currency = offer.currency as usize;
        self.counts.lockers[currency] -= 1;
        self.counts.value[currency] -= u128::from(offer.value.units());
        self.by_offer.remove(&(offer, moment, number));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::{coin::PageId, protocol::lockers::Price};

    fn sales() -> Sales {
        let limits = HoldLimits {
            pending: Duration::from_secs(60),
            per_address: 2,
            all: 3,
        };
        Sales::new(PublicIdKey::new([3; 32]), limits)
    }

    /// Finds an offer and holds it, as for a payment that was seen.
    fn hold(sales: &mut Sales, offer: &Offer, by: Buyer, now: u64) -> Result<bool, SaleRefused> {
        hold_from(sales, offer, by, HERE, now)
    }

    fn hold_from(
        sales: &mut Sales,
        offer: &Offer,
        by: Buyer,
        from: Stranger,
        now: u64,
    ) -> Result<bool, SaleRefused> {
        let found = sales.find(offer, &by, at(now))?;
        sales.hold(&found.sale, by, from, at(now))
    }

    const HERE: Stranger = Stranger::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    const THERE: Stranger = Stranger::of(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));

    fn key(secret: u8, price: u32, currency: Currency) -> TradeKey {
        TradeKey::of([secret; TradeKey::SECRET_SIZE], Price::new(price), currency)
    }

    fn coin(page: usize) -> Coin {
        PageId::from_index(page).unwrap().coin(5)
    }

    fn put(sales: &mut Sales, key: TradeKey, moment: u64, coins: &[Coin]) -> Offer {
        let address = Box::from(*b"bc1q-an-address-of-somebody");
        let sale = Sale {
            key: key.an(),
            moment,
            address,
        };
        sales.begin(sale, coins.iter().copied());
        Offer {
            currency: key.currency(),
            value: Value::of(coins.iter().copied()).unwrap(),
            price: key.price(),
        }
    }

    fn buyer(number: u8) -> Buyer {
        Buyer {
            payment: [number; 32],
            digest: [number; 16],
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn offers_are_listed_by_currency_in_the_order_they_were_made() {
        let mut sales = sales();
        for (number, moment) in [(1, 30), (2, 10), (3, 20)] {
            put(
                &mut sales,
                key(number, number.into(), Currency::Monero),
                moment,
                &[coin(1)],
            );
        }
        put(&mut sales, key(4, 4, Currency::Bitcoin), 5, &[coin(1)]);
        let prices = |sales: &Sales, most| {
            let listed = sales.list(Currency::Monero, most, at(0));
            listed
                .iter()
                .map(|on| on.offer.price.get())
                .collect::<Vec<_>>()
        };
        assert_eq!(prices(&sales, 9), [2, 3, 1]);
        assert_eq!(prices(&sales, 2), [2, 3]);
        sales.end(&key(3, 3, Currency::Monero).an());
        assert_eq!(prices(&sales, 9), [2, 1]);
        assert_eq!(sales.counts().lockers, [0, 1, 2]);
    }

    #[test]
    fn an_offer_is_found_by_what_lies_under_its_key_now() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1), coin(2)]);
        assert!(sales.is_offered(&offer));
        sales.reduce(&mine.an(), [coin(1)].into_iter());
        assert!(!sales.is_offered(&offer));
        let less = Offer {
            value: Value::of([coin(1)]).unwrap(),
            ..offer
        };
        assert!(sales.is_offered(&less));
        let id = sales.list(Currency::Bitcoin, 1, at(0))[0].id;
        assert!(sales.key_of(&id) == Some(mine.an()));
        sales.end(&mine.an());
        assert!(!sales.is_offered(&less) && sales.key_of(&id).is_none());
        assert_eq!(sales.counts(), TradeCounts::default());
    }

    #[test]
    fn a_payment_that_was_seen_keeps_everybody_else_out_for_its_time() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1)]);
        let (one, other) = (buyer(1), buyer(2));
        let asked_before = sales.find(&offer, &other, at(0)).unwrap().sale;
        assert_eq!(hold(&mut sales, &offer, one, 0), Ok(true));
        let thief = Buyer {
            digest: [9; 16],
            ..one
        };
        let refused = |sales: &mut Sales, by, now| hold(sales, &offer, by, now).err();
        assert_eq!(refused(&mut sales, other, 59), Some(SaleRefused::Taken));
        assert_eq!(
            refused(&mut sales, thief, 59),
            Some(SaleRefused::OtherBuyer),
            "who knows the name of the payment has not made it"
        );
        for (by, why) in [
            (other, SaleRefused::Taken),
            (thief, SaleRefused::OtherBuyer),
        ] {
            let taker = Taker::Buyer(by, asked_before);
            assert_eq!(
                sales.take(&taker, at(59)).err(),
                Some(why),
                "paid, but late"
            );
        }
        let seller = Taker::Seller(mine);
        assert_eq!(sales.take(&seller, at(59)).err(), Some(SaleRefused::Taken));
        assert!(sales.list(Currency::Bitcoin, 9, at(59)).is_empty());
        assert_eq!(sales.counts().held, 1);
        assert_eq!(hold(&mut sales, &offer, one, 59), Ok(true), "asked again");

        assert_eq!(sales.list(Currency::Bitcoin, 9, at(60)).len(), 1);
        assert!(sales.take(&seller, at(60)).unwrap().is_some());
    }

    #[test]
    fn whoever_does_not_pay_cannot_keep_a_locker_for_good() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1)]);
        assert_eq!(hold(&mut sales, &offer, buyer(1), 0), Ok(true));
        for (payment, now) in [(1, 60), (2, 80), (1, 119)] {
            let held = hold(&mut sales, &offer, buyer(payment), now);
            assert_eq!(held, Ok(false), "at {now} s");
        }
        assert_eq!(hold(&mut sales, &offer, buyer(3), 120), Ok(true));
        let sale = sales.find(&offer, &buyer(3), at(121)).unwrap().sale;
        sales.let_go(&sale, &buyer(4));
        assert!(sales.find(&offer, &buyer(4), at(121)).is_err(), "not his");
        sales.let_go(&sale, &buyer(3));
        assert_eq!(sales.counts().held, 0);
        assert_eq!(
            hold(&mut sales, &offer, buyer(4), 122),
            Ok(true),
            "a refused one goes at once"
        );
    }

    #[test]
    fn holds_are_few_an_address_and_few_in_all_and_end_with_their_sale() {
        let mut sales = sales();
        let keys: Vec<TradeKey> = (1..6)
            .map(|n| key(n, n.into(), Currency::Bitcoin))
            .collect();
        let put = |&key: &TradeKey| put(&mut sales, key, 1, &[coin(1)]);
        let offers: Vec<Offer> = keys.iter().map(put).collect();
        let mut held = |offer: usize, from, now| {
            let by = buyer(offer as u8);
            hold_from(&mut sales, &offers[offer], by, from, now)
        };
        assert_eq!([held(0, HERE, 0), held(1, HERE, 1)], [Ok(true); 2]);
        assert_eq!(held(2, HERE, 2), Ok(false), "it has its share");
        assert_eq!(held(2, THERE, 2), Ok(true));
        assert_eq!(held(3, THERE, 3), Ok(false), "three in all");
        assert_eq!(held(3, THERE, 60), Ok(true), "the first has had its time");
        sales.end(&keys[3].an());
        let freed = hold_from(&mut sales, &offers[4], buyer(4), THERE, 60);
        assert_eq!((freed, sales.counts().held), (Ok(true), 3));
    }

    #[test]
    fn one_payment_keeps_one_trade_locker_and_none_once_it_is_used() {
        let mut sales = sales();
        let keys = [1, 2].map(|n| key(n, n.into(), Currency::Bitcoin));
        let offers = keys.map(|key| put(&mut sales, key, 1, &[coin(1)]));
        assert_eq!(hold(&mut sales, &offers[0], buyer(1), 0), Ok(true));
        let again = Buyer {
            digest: [9; 16],
            ..buyer(1)
        };
        assert_eq!(hold(&mut sales, &offers[1], again, 0), Ok(false));
        sales.end_holds(&buyer(2).payment);
        assert_eq!(sales.counts().held, 1);
        sales.end_holds(&buyer(1).payment);
        assert_eq!(hold(&mut sales, &offers[1], again, 0), Ok(true));
    }

    #[test]
    fn what_somebody_takes_is_nobody_elses_until_it_is_given_back() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1)]);
        let (one, other) = (buyer(1), buyer(2));
        let sale = sales.find(&offer, &one, at(0)).unwrap().sale;
        let takers = [
            Taker::Buyer(one, sale),
            Taker::Buyer(other, sale),
            Taker::Seller(mine),
        ];
        for taker in takers {
            assert_eq!(sales.take(&taker, at(0)), Ok(Some(sale)));
            for late in takers {
                assert_eq!(sales.take(&late, at(0)).err(), Some(SaleRefused::Taken));
            }
            assert_eq!(
                sales.hold(&sale, other, HERE, at(0)),
                Err(SaleRefused::Taken)
            );
            assert!(sales.find(&offer, &other, at(0)).is_err());
            assert!(sales.list(Currency::Bitcoin, 9, at(0)).is_empty());
            sales.give_back(&sale);
        }
        assert!(sales.find(&offer, &other, at(0)).is_ok());
    }

    #[test]
    fn another_sale_under_the_same_key_is_not_the_one_that_was_paid_for() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1), coin(2)]);
        let sale = sales.find(&offer, &buyer(1), at(0)).unwrap().sale;
        let gone = |sales: &mut Sales| {
            let taken = sales.take(&Taker::Buyer(buyer(1), sale), at(0)).err();
            let held = sales.hold(&sale, buyer(1), HERE, at(0)).err();
            [taken, held] == [Some(SaleRefused::NotOffered); 2]
        };
        assert!(!gone(&mut sales));
        sales.give_back(&sale);
        sales.let_go(&sale, &buyer(1));
        sales.reduce(&mine.an(), [coin(1)].into_iter());
        assert!(gone(&mut sales), "it is worth less");
        // The same coins at the same price, later.
        sales.end(&mine.an());
        put(&mut sales, mine, 2, &[coin(1), coin(2)]);
        assert!(gone(&mut sales));
        // Nor does what happens to the old one touch it.
        assert!(sales.take(&Taker::Seller(mine), at(0)).unwrap().is_some());
        sales.give_back(&sale);
        assert_eq!(
            sales.take(&Taker::Seller(mine), at(0)).err(),
            Some(SaleRefused::Taken)
        );
    }
}
