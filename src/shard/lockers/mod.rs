//! What a shard keeps track of beside its pages: the lockers and trade lockers that hash to it,
//! what is for sale in them, and which payments were used. It hears of every change that concerns
//! it before the change is answered; everything in it but orders, sales and payments can be found
//! in the pages again.
//!
//! | file | what it is |
//! |---|---|
//! | `index` | which coins lie under a key, in the order stored; which keys start with five bytes |
//! | `contents` | the coins of one locker |
//! | `arena`, `table` | where the index's entries lie, and how they are found |
//! | `sales` | what is for sale, by currency and by offer, and who is about to buy it |
//! | `payments` | payments that were used or are being looked at |
//! | `update` | what a change of coins comes to here |

mod arena;
mod contents;
mod index;
mod payments;
mod sales;
mod table;
mod update;

use std::{ops::Range, time::Duration};

use crate::{
    coin::{An, Coin, LockerPrefix},
    protocol::lockers::{Currency, Offer, PublicIdKey, TradeName},
    shard::Stranger,
    store::book::{Book, Entry, PaymentId, Placed, Stamp},
};

use index::{Index, Kind};
pub use index::{IndexCounts, Place};
pub use payments::PaymentState;
use payments::Payments;
pub use sales::{Buyer, FoundSale, OnOffer, SaleId, SaleRefused, Taken, Taker, TradeCounts};
use sales::{HoldLimits, Sales};
pub use update::{KeyUpdate, Update};

/// Keys of a kind that are tried for a request under encryption type 2: those who store coins
/// choose the keys, and could have many start alike.
const KEYS_TRIED_MAX: usize = 16;

/// The lockers, sales and payments that one shard keeps track of.
pub struct Lockers {
    index: Index,
    sales: Sales,
    payments: Payments,
    /// Something that no book on disk has.
    is_changed: bool,
    /// How many updates there were.
    version: u64,
}

/// What a shard keeps track of for trades.
#[derive(Clone, Copy, Debug, Default)]
pub struct TradeSettings {
    /// How long a payment that was seen and is not confirmed yet keeps others from buying the same.
    pub pending: Duration,
    /// Trade lockers that it keeps for such payments, at most.
    pub holds: usize,
    /// Those among them for payments that one address named, at most.
    pub holds_per_address: usize,
    /// Questions to the settlement that one address may have under way.
    pub questions_per_address: usize,
    /// Those that all datagrams together may, which bear any address.
    pub questions_by_datagram: usize,
    /// Used payments that it remembers, at most; each takes some 70 bytes. A payment beyond them is
    /// not taken.
    pub payments_max: usize,
}

/// The lockers whose keys are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysOf {
    /// Keys of lockers.
    Lockers,
    /// Keys of lockers and of trade lockers.
    All,
}

/// How far a book is written.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    payments: u32,
    sales: usize,
    /// `None` at the end.
    coins: Option<Place>,
}

impl Cursor {
    /// Where a book starts.
    pub fn start() -> Cursor {
        Cursor {
            payments: 0,
            sales: 0,
            coins: Some(Place::default()),
        }
    }
}

/// Numbers that [`Lockers::entries`] looks at in one go.
const ENTRIES_A_TURN: u32 = 4_096;
/// Coins that a start puts into the index in one go.
const PLACED_A_TURN: usize = 4_096;
/// Coins of a locker that are listed in one go: their places in memory are all over.
const STRETCH: usize = 1_024;

impl Lockers {
    /// Empty. `public_ids` is what public ids are derived with.
    pub fn new(public_ids: PublicIdKey, settings: TradeSettings) -> Lockers {
        Lockers {
            index: Index::new(),
            sales: Sales::new(
                public_ids,
                HoldLimits {
                    pending: settings.pending,
                    per_address: settings.holds_per_address,
                    all: settings.holds,
                },
            ),
            payments: Payments::new(settings.payments_max),
            is_changed: false,
            version: 0,
        }
    }

    /// Takes up those of the recovered coins, sales and payments that are this shard's, giving
    /// others their turn by `turn` now and then.
    pub async fn take_over(
        &mut self,
        book: &Book,
        is_own: impl Fn(LockerPrefix) -> bool,
        turn: impl AsyncFn(),
    ) {
        let mut own: Vec<Placed> = Vec::new();
        for some in book.coins.chunks(PLACED_A_TURN) {
            let those = some
                .iter()
                .filter(|placed| is_own(placed.key.locker_prefix()));
            own.extend(those.copied());
            turn().await;
        }
        own.sort_unstable_by_key(|placed| (*placed.key.expose(), placed.stamp));
        // The lockers by age, by which those are found whose keys start alike.
        let mut lockers: Vec<(Stamp, Range<usize>)> = Vec::new();
        let mut start = 0;
        for locker in own.chunk_by(|a, b| a.key == b.key) {
            lockers.push((locker[0].stamp, start..start + locker.len()));
            start += locker.len();
        }
        turn().await;
        lockers.sort_unstable_by_key(|(oldest, coins)| (*oldest, coins.start));
        turn().await;
        let mut since_turn = 0;
        for (_, coins) in lockers {
            let locker = &own[coins];
            let coins = locker.iter().map(|placed| (placed.coin, placed.stamp));
            self.index.insert(locker[0].key, coins);
            since_turn += locker.len();
            if since_turn >= PLACED_A_TURN {
                since_turn = 0;
                turn().await;
            }
        }
        for sale in &book.sales {
            if is_own(sale.key.locker_prefix()) && self.index.has(&sale.key) {
                let coins = self.index.of_moment(&sale.key, sale.moment);
                self.sales.begin(sale.clone(), coins);
            }
        }
        for payment in &book.payments {
            if is_own(payment_prefix(&payment.id)) {
                self.payments.enter(payment);
            }
        }
    }

    /// Whether any coin lies under this key.
    #[inline]
    pub fn has(&self, key: &An) -> bool {
        self.index.has(key)
    }

    /// How many coins lie under this key.
    #[inline]
    pub fn len(&self, key: &An) -> usize {
        self.index.len(key)
    }

    /// The coins under a key, in the order stored.
    #[inline]
    pub fn coins(&self, key: &An) -> impl Iterator<Item = Coin> {
        self.index.coins(key)
    }

    /// Appends the next coins under a key, from a place on that an earlier call gave; gives the
    /// place to go on from. It is good until the next update.
    pub fn stretch(&self, key: &An, from: Place, out: &mut Vec<Coin>) -> Option<Place> {
        self.index.stretch(key, from, STRETCH, out)
    }

    /// A number that differs after each update.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest keys that start with these bytes: of lockers, and of trade lockers where those
    /// count.
    #[inline]
    pub fn keys(&self, prefix: LockerPrefix, of: KeysOf) -> impl Iterator<Item = An> {
        let oldest = |kind| self.index.keys(prefix, kind).take(KEYS_TRIED_MAX);
        let trade = (of == KeysOf::All).then(|| oldest(Kind::Trade));
        oldest(Kind::Locker).chain(trade.into_iter().flatten())
    }

    /// Whether what lies under this key is for sale.
    pub fn is_on_sale(&self, key: &An) -> bool {
        self.sales.is_on_sale(key)
    }

    /// Whether there is such an offer, held for somebody or not.
    pub fn is_offered(&self, offer: &Offer) -> bool {
        self.sales.is_offered(offer)
    }

    /// The oldest trade locker with this offer that this buyer may have.
    ///
    /// # Errors
    /// There is none here, or somebody else is buying it.
    pub fn find_sale(
        &self,
        offer: &Offer,
        by: &Buyer,
        now: Duration,
    ) -> Result<FoundSale, SaleRefused> {
        self.sales.find(offer, by, now)
    }

    /// Keeps a trade locker for a buyer whose payment was seen. Whether it is kept.
    ///
    /// # Errors
    /// It is not for sale any more, or somebody else is buying it.
    pub fn hold(
        &mut self,
        sale: &SaleId,
        by: Buyer,
        from: Stranger,
        now: Duration,
    ) -> Result<bool, SaleRefused> {
        self.sales.hold(sale, by, from, now)
    }

    /// Keeps it no longer: the payment is not what was agreed.
    pub fn let_go(&mut self, sale: &SaleId, by: &Buyer) {
        self.sales.let_go(sale, by);
    }

    /// Ends all holds for a payment, which was used up.
    pub fn end_holds(&mut self, payment: &PaymentId) {
        self.sales.end_holds(payment);
    }

    /// Lets nobody else move the coins of a trade locker until it is given back; none where the
    /// seller has nothing for sale under the key.
    ///
    /// # Errors
    /// It is not for sale any more, or somebody else is buying it.
    pub fn take_sale(
        &mut self,
        taker: &Taker,
        now: Duration,
    ) -> Result<Option<Taken>, SaleRefused> {
        let taken = self.sales.take(taker, now)?;
        Ok(taken.map(|sale| Taken {
            sale,
            coins: self.sale_coins(&sale.key.an()),
        }))
    }

    /// Lets others have a trade locker that was taken, where it is still for sale.
    pub fn give_back_sale(&mut self, sale: &SaleId) {
        self.sales.give_back(sale);
    }

    /// What is for sale under a key, in the order in which it was put there.
    pub fn sale_coins(&self, key: &An) -> Vec<Coin> {
        let moment = self.sales.moment(key);
        let coins = moment.map(|moment| self.index.of_moment(key, moment));
        coins.into_iter().flatten().collect()
    }

    /// The first offers in this currency that nobody is buying, in the order they were made.
    pub fn list(&self, currency: Currency, most: usize, now: Duration) -> Vec<OnOffer> {
        self.sales.list(currency, most, now)
    }

    /// The address that payments for this trade locker go to; its name is a public id of this
    /// shard, or its key.
    pub fn seller(&self, name: &TradeName) -> Option<&[u8]> {
        let as_id = self.key_of_public_id(name);
        let key = as_id.unwrap_or_else(|| name.as_key().an());
        self.sales.address(&key)
    }

    /// The key that a public id of this shard stands for.
    pub fn key_of_public_id(&self, name: &TradeName) -> Option<An> {
        self.sales.key_of(&name.as_public_id())
    }

    /// Says what is known of a payment, and lets a buyer look at it where nobody does for the same.
    pub fn begin_payment(&mut self, buyer: Buyer) -> PaymentState {
        self.payments.begin(buyer)
    }

    /// Lets a buyer who looked at a payment use it up, where nobody else has or is about to.
    pub fn use_payment(&mut self, buyer: Buyer) -> PaymentState {
        self.payments.use_up(buyer)
    }

    /// Ends a look at a payment, and its use.
    pub fn end_payment(&mut self, buyer: &Buyer) {
        self.payments.end(buyer);
    }

    /// Counts of lockers and of what is in them, and the memory they take.
    pub fn counts(&self) -> (IndexCounts, TradeCounts) {
        (self.index.counts(), self.sales.counts())
    }

    /// Whether a book has to be written; not again until something changes.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Notes that a book was due and was not written.
    pub fn set_changed(&mut self) {
        self.is_changed = true;
    }

    /// Appends what comes next in a book, some thousand entries; none where `cursor` has come to
    /// the end. A change between two calls may or may not be in the book.
    pub fn entries(&self, cursor: &mut Cursor, out: &mut Vec<Entry>) {
        let mut left = ENTRIES_A_TURN;
        while left > 0 && (cursor.payments as usize) < self.payments.len() {
            out.push(Entry::Payment(self.payments.at(cursor.payments)));
            cursor.payments += 1;
            left -= 1;
        }
        while left > 0 && cursor.sales < self.sales.end_number() {
            out.extend(self.sales.at(cursor.sales).map(Entry::Sale));
            cursor.sales += 1;
            left -= 1;
        }
        // A stretch without coins must not pass for the end.
        while let Some(from) = cursor.coins
            && (left > 0 || out.is_empty())
        {
            let push = |coin, stamp| out.push(Entry::Coin(coin, stamp));
            cursor.coins = self.index.visit(from, left.max(1) as usize, push);
            left = 0;
        }
    }
}

/// The prefix that decides which shard remembers a payment.
pub fn payment_prefix(id: &PaymentId) -> LockerPrefix {
    *id.first_chunk().expect("32 bytes")
}
