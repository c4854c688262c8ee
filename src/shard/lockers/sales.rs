use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use foldhash::fast::RandomState;
use slab::Slab;

use crate::{
    coin::{An, Coin},
    protocol::lockers::{Currency, Offer, PublicId, PublicIdKey, TradeKey, Value},
    store::book::{PaymentId, Sale},
};

/// What is for sale, and who is about to buy it.
pub(super) struct Sales {
    public_ids: PublicIdKey,
    /// How long a buyer whose payment is not there yet keeps others from buying.
    pending: Duration,
    /// A sale that stays keeps its number.
    sales: Slab<OnSale>,
    by_key: HashMap<[u8; An::SIZE], usize, RandomState>,
    by_id: HashMap<[u8; PublicId::SIZE], usize, RandomState>,
    by_offer: BTreeSet<(Offer, u64, usize)>,
    by_currency: BTreeSet<(Currency, u64, usize)>,
    counts: TradeCounts,
}

/// What is for sale, by currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TradeCounts {
    /// Trade lockers.
    pub lockers: [u64; Currency::ALL.len()],
    /// Worth of their coins in the smallest unit.
    pub value: [u128; Currency::ALL.len()],
}

struct OnSale {
    key: TradeKey,
    id: PublicId,
    /// The coins that came under the key at this moment are for sale. Others that come later are not,
    /// whoever puts them there: a purchase that is under way must not change.
    moment: u64,
    address: Box<[u8]>,
    value: Value,
    hold: Option<Hold>,
    /// Until then a pending purchase keeps nobody out: one has just had its time.
    open_until: Duration,
}

#[derive(Clone, Copy)]
struct Hold {
    by: Buyer,
    since: Duration,
    /// It is being found out right now whether it is paid.
    is_asked: bool,
    /// It goes on when the payment is pending.
    lasts: bool,
}

/// A payment, and what stands for whom it buys what: a payment's name alone is no secret.
#[derive(Clone, Copy, PartialEq, Eq)]
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

/// A trade locker held for a purchase.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its key.
    pub key: TradeKey,
    /// What listings call it.
    pub id: PublicId,
    /// Where the seller wants to be paid.
    pub address: Box<[u8]>,
    /// What is for sale, in the order in which it was put there.
    pub coins: Vec<Coin>,
}

/// Why nothing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldRefused {
    /// There is no such offer here.
    NotOffered,
    /// Somebody else is buying it.
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

    /// Who alone may have it now, if anybody. One who had his time and did not pay is looked at again, but
    /// keeps nobody out.
    fn held_by(&self, now: Duration, pending: Duration) -> Option<Buyer> {
        let keeps_out = |hold: &Hold| hold.lasts && (hold.is_asked || now < hold.since + pending);
        self.hold.filter(keeps_out).map(|hold| hold.by)
    }
}

impl Sales {
    pub(super) fn new(public_ids: PublicIdKey, pending: Duration) -> Sales {
        Sales {
            public_ids,
            pending,
            sales: Slab::new(),
            by_key: HashMap::default(),
            by_id: HashMap::default(),
            by_offer: BTreeSet::new(),
            by_currency: BTreeSet::new(),
            counts: TradeCounts::default(),
        }
    }

    #[inline]
    pub(super) fn is_on_sale(&self, key: &An) -> bool {
        self.by_key.contains_key(key.expose())
    }

    /// Puts these coins up, which came under the key at the sale's moment; a sale that was there ends.
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

    /// Coins have left a key: these are left of what is for sale under it. Without any the sale ends.
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

    /// Keeps a trade locker with this offer, the oldest that nobody else is buying, for a buyer whose
    /// payment is about to be looked at. To be [released](Sales::release). The coins are left out.
    pub(super) fn hold(
        &mut self,
        offer: &Offer,
        by: Buyer,
        now: Duration,
    ) -> Result<Held, HoldRefused> {
        let mut refused = HoldRefused::NotOffered;
        let (mut own, mut free) = (None, None);
        for number in self.of_offer(offer) {
            match self.sales[number].held_by(now, self.pending) {
                Some(holder) if holder == by => own = own.or(Some(number)),
                Some(holder) if holder.payment == by.payment => {
                    return Err(HoldRefused::OtherBuyer);
                }
                Some(_) => refused = HoldRefused::Taken,
                None => free = free.or(Some(number)),
            }
        }
        let sale = &mut self.sales[own.or(free).ok_or(refused)?];
        // A buyer who comes again keeps the time that is left, and then has had it.
        if let Some(hold) = sale.hold.filter(|hold| hold.lasts && !hold.is_asked) {
            let end = hold.since + self.pending;
            if now >= end {
                sale.open_until = end + self.pending;
                sale.hold = None;
            }
        }
        let hold = sale.hold.filter(|hold| hold.by == by && hold.lasts);
        sale.hold = Some(Hold {
            by,
            since: hold.map_or(now, |hold| hold.since),
            is_asked: true,
            lasts: hold.is_some() || now >= sale.open_until,
        });
        Ok(Held {
            key: sale.key,
            id: sale.id,
            address: sale.address.clone(),
            coins: vec![],
        })
    }

    /// Lets a trade locker go, at once or, where the payment is pending, when it has had its time.
    pub(super) fn release(&mut self, key: &An, by: &Buyer, is_pending: bool) {
        let Some(&number) = self.by_key.get(key.expose()) else {
            return;
        };
        let hold = &mut self.sales[number].hold;
        *hold = hold.and_then(|hold| match hold.by == *by {
            false => Some(hold),
            true if is_pending && hold.lasts => Some(Hold {
                is_asked: false,
                ..hold
            }),
            true => None,
        });
    }

    /// Whether somebody is buying what lies under this key.
    pub(super) fn is_held(&self, key: &An, now: Duration) -> bool {
        let number = self.by_key.get(key.expose());
        number.is_some_and(|&number| self.sales[number].held_by(now, self.pending).is_some())
    }

    /// The first offers in this currency that nobody is buying, in the order they were made.
    pub(super) fn list(&self, currency: Currency, most: usize, now: Duration) -> Vec<OnOffer> {
        let of_currency = self
            .by_currency
            .range((currency, 0, 0)..=(currency, u64::MAX, usize::MAX));
        let sales = of_currency.map(|&(_, _, number)| &self.sales[number]);
        let free = sales.filter(|sale| sale.held_by(now, self.pending).is_none());
        let listed = free.map(|sale| OnOffer {
            moment: sale.moment,
            id: sale.id,
            offer: sale.offer(),
        });
        listed.take(most).collect()
    }

    /// The key of the trade locker that listings call so.
    pub(super) fn key_of(&self, id: &PublicId) -> Option<An> {
        let number = self.by_id.get(&id.to_bytes());
        number.map(|&number| self.sales[number].key.an())
    }

    pub(super) fn counts(&self) -> TradeCounts {
        self.counts
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
    use super::*;
    use crate::{coin::PageId, protocol::lockers::Price};

    const PENDING: Duration = Duration::from_secs(60);

    fn sales() -> Sales {
        Sales::new(PublicIdKey::new([3; 32]), PENDING)
    }

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
    fn while_a_purchase_is_pending_nobody_else_can_buy() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1)]);
        let (one, other) = (buyer(1), buyer(2));
        assert!(sales.hold(&offer, one, at(0)).is_ok());
        let taken = |sales: &mut Sales, by, now| sales.hold(&offer, by, at(now)).err();
        let thief = Buyer {
            digest: [9; 16],
            ..one
        };
        assert_eq!(taken(&mut sales, other, 1), Some(HoldRefused::Taken));
        sales.release(&mine.an(), &one, true);
        assert_eq!(taken(&mut sales, other, 59), Some(HoldRefused::Taken));
        assert!(
            sales.is_held(&mine.an(), at(59))
                && sales.list(Currency::Bitcoin, 9, at(59)).is_empty()
        );
        assert_eq!(
            taken(&mut sales, thief, 59),
            Some(HoldRefused::OtherBuyer),
            "who knows the name of the payment has not made it"
        );
        assert_eq!(taken(&mut sales, one, 59), None, "it is asked about again");
        assert_eq!(
            taken(&mut sales, other, 70),
            Some(HoldRefused::Taken),
            "it is still asked about"
        );
        sales.release(&mine.an(), &one, true);
        assert!(!sales.is_held(&mine.an(), at(70)));
        assert_eq!(taken(&mut sales, other, 71), None);
    }

    #[test]
    fn whoever_does_not_pay_cannot_keep_a_locker_for_good() {
        let mut sales = sales();
        let mine = key(1, 50, Currency::Bitcoin);
        let offer = put(&mut sales, mine, 1, &[coin(1)]);
        sales.hold(&offer, buyer(1), at(0)).unwrap();
        sales.release(&mine.an(), &buyer(1), true);
        for (payment, now) in [(1, 60), (2, 80), (1, 119)] {
            sales.hold(&offer, buyer(payment), at(now)).unwrap();
            sales.release(&mine.an(), &buyer(payment), true);
            assert!(!sales.is_held(&mine.an(), at(now)), "at {now} s");
        }
        sales.hold(&offer, buyer(3), at(120)).unwrap();
        sales.release(&mine.an(), &buyer(3), true);
        assert!(sales.is_held(&mine.an(), at(121)));
        sales.hold(&offer, buyer(3), at(122)).unwrap();
        sales.release(&mine.an(), &buyer(3), false);
        assert!(
            !sales.is_held(&mine.an(), at(122)),
            "a refused one goes at once"
        );
    }
}
