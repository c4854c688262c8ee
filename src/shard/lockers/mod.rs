//! What a shard keeps track of beside its pages: the lockers and trade lockers that hash to it, what is
//! for sale in them, and which payments were used. It hears of every change that concerns it before the
//! change is answered; everything in it but orders, sales and payments can be found in the pages again.
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

use std::time::Duration;

use crate::{
    coin::{An, Coin, LockerPrefix},
    protocol::lockers::{Currency, Offer, PublicIdKey, TradeName},
    store::book::{Book, Entry, PaymentId, Placed},
};

use index::Index;
pub use index::{IndexCounts, Place};
pub use payments::PaymentState;
use payments::Payments;
use sales::Sales;
pub use sales::{Buyer, Held, HoldRefused, OnOffer, TradeCounts};
pub use update::{KeyUpdate, Update};

/// Keys that are tried for a request under encryption type 2: those who store coins choose the keys, and
/// could have many start alike.
const KEYS_TRIED_MAX: usize = 1_024;

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
    /// How long a purchase that is not paid yet keeps others from buying the same.
    pub pending: Duration,
    /// Used payments that it remembers, at most; each takes some 70 bytes. A payment beyond them is not
    /// taken.
    pub payments_max: usize,
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
    /// None yet. `public_ids` is what public ids are derived with.
    pub fn new(public_ids: PublicIdKey, settings: TradeSettings) -> Lockers {
        Lockers {
            index: Index::new(),
            sales: Sales::new(public_ids, settings.pending),
            payments: Payments::new(settings.payments_max),
            is_changed: false,
            version: 0,
        }
    }

    /// Takes up those of the recovered coins, sales and payments that are this shard's, giving others
    /// their turn by `turn` now and then.
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
        own.sort_unstable_by_key(|placed| *placed.key.expose());
        let mut since_turn = 0;
        for locker in own.chunk_by(|a, b| a.key == b.key) {
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

    /// Appends the next coins under a key, from a place on that an earlier call gave; gives the place to
    /// go on from. It is good until the next update.
    pub fn stretch(&self, key: &An, from: Place, out: &mut Vec<Coin>) -> Option<Place> {
        self.index.stretch(key, from, STRETCH, out)
    }

    /// Another one after each update.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Keys that start with these bytes, the oldest locker first.
    #[inline]
    pub fn keys(&self, prefix: LockerPrefix) -> impl Iterator<Item = An> {
        self.index.keys(prefix).take(KEYS_TRIED_MAX)
    }

    /// Whether what lies under this key is for sale.
    pub fn is_on_sale(&self, key: &An) -> bool {
        self.sales.is_on_sale(key)
    }

    /// Whether there is such an offer, held for somebody or not.
    pub fn is_offered(&self, offer: &Offer) -> bool {
        self.sales.is_offered(offer)
    }

    /// Holds a trade locker with this offer for a buyer whose payment is about to be looked at.
    ///
    /// # Errors
    /// There is none here, or somebody else is buying it.
    pub fn hold(&mut self, offer: &Offer, by: Buyer, now: Duration) -> Result<Held, HoldRefused> {
        let held = self.sales.hold(offer, by, now)?;
        let coins = self.sale_coins(&held.key.an());
        Ok(Held { coins, ..held })
    }

    /// What is for sale under a key, in the order in which it was put there.
    pub fn sale_coins(&self, key: &An) -> Vec<Coin> {
        let moment = self.sales.moment(key);
        let coins = moment.map(|moment| self.index.of_moment(key, moment));
        coins.into_iter().flatten().collect()
    }

    /// Lets a trade locker go that was held, at once or, where the payment is pending, when it has had
    /// its time.
    pub fn release(&mut self, key: &An, by: &Buyer, is_pending: bool) {
        self.sales.release(key, by, is_pending);
    }

    /// Whether somebody is buying what lies under this key.
    pub fn is_held(&self, key: &An, now: Duration) -> bool {
        self.sales.is_held(key, now)
    }

    /// The first offers in this currency that nobody is buying, in the order they were made.
    pub fn list(&self, currency: Currency, most: usize, now: Duration) -> Vec<OnOffer> {
        self.sales.list(currency, most, now)
    }

    /// The key that a public id of this shard stands for.
    pub fn key_of_public_id(&self, name: &TradeName) -> Option<An> {
        self.sales.key_of(&name.as_public_id())
    }

    /// Says what is known of a payment, and lets the asker look at it where nobody has.
    pub fn begin_payment(&mut self, id: PaymentId) -> PaymentState {
        self.payments.begin(id)
    }

    /// Ends a look at a payment.
    pub fn end_payment(&mut self, id: &PaymentId) {
        self.payments.end(id);
    }

    /// Lockers and what is in them, and memory.
    pub fn counts(&self) -> (IndexCounts, TradeCounts) {
        (self.index.counts(), self.sales.counts())
    }

    /// Whether a book has to be written; not again until something changes.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// A book was to be written, and was not.
    pub fn set_changed(&mut self) {
        self.is_changed = true;
    }

    /// Appends what comes next in a book, some thousand entries; none where `cursor` has come to the
    /// end. What changes between two calls may be in the book as it was or as it is.
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

/// By what a payment finds the shard that remembers it.
pub fn payment_prefix(id: &PaymentId) -> LockerPrefix {
    *id.first_chunk().expect("32 bytes")
}
