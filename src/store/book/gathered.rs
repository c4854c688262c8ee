//! What book files and log records say, put together with what the pages hold.

use std::cmp::Reverse;

use super::{Book, Entry, Payment, Placed, Sale, Stamp, layout::coin_number};
use crate::{
    coin::{An, AnTag, COINS_PER_PAGE, PageId},
    store::{record::Record, slot::PageImage},
};

/// What log records say of coins is thinned out to the newest a coin when this many have collected, and
/// then each time it has doubled.
const THIN_OUT: usize = 1 << 20;

/// Everything that was said, in no order until it is [arranged](Gathered::arrange).
#[derive(Default)]
pub(in crate::store) struct Gathered {
    /// Since when coins are under the number that they have, as books say.
    booked: Vec<Since>,
    /// Likewise, as log records say of the number that the tag stands for.
    noted: Vec<(Since, AnTag)>,
    thin_out_at: usize,
    books: Vec<Source>,
    /// Sales that began or ended, as log records say.
    turns: Vec<Turn>,
    payments: Vec<Payment>,
    moment: u64,
}

/// A coin and a stamp, 16 bytes: there may be millions.
#[derive(Clone, Copy)]
struct Since {
    moment: u64,
    rank: u32,
    coin: u32,
}

/// A book, which says of each key whose home is its shard what is for sale under it: the newest decides.
struct Source {
    shard: u16,
    shards: u16,
    round: u64,
    sales: Vec<Sale>,
}

/// A sale begins, or ends where there is no address.
struct Turn {
    key: An,
    moment: u64,
    address: Option<Box<[u8]>>,
}

impl Gathered {
    /// Adds what a log record says.
    pub fn add_record(&mut self, record: &Record) {
        let notes = &record.notes;
        let moment = notes.moment;
        if moment == 0 {
            return;
        }
        self.moment = self.moment.max(moment);
        self.noted.extend(record.ranked().map(|(change, rank)| {
            let coin = coin_number(change.coin);
            (Since { moment, rank, coin }, change.an.tag())
        }));
        if self.noted.len() >= self.thin_out_at.max(THIN_OUT) {
            self.thin_out();
            self.thin_out_at = 2 * self.noted.len();
        }
        // The end first: a record that ends a sale and begins one under the same key has begun it.
        self.turns.extend(notes.ended.map(|key| Turn {
            key,
            moment,
            address: None,
        }));
        self.turns.extend(notes.sale.as_ref().map(|sale| Turn {
            key: sale.key,
            moment,
            address: Some(sale.address.clone()),
        }));
        self.payments.extend(notes.payment);
    }

    /// What is added from here on is said by the book of this shard and round.
    pub fn open_book(&mut self, shard: u16, shards: u16, round: u64) {
        self.books.push(Source {
            shard,
            shards,
            round,
            sales: Vec::new(),
        });
    }

    /// Adds what the book that was opened last says.
    pub fn add_entry(&mut self, entry: Entry) {
        let moment = match entry {
            Entry::Coin(coin, Stamp { moment, rank }) => {
                let coin = coin_number(coin);
                self.booked.push(Since { moment, rank, coin });
                moment
            }
            Entry::Sale(sale) => {
                let moment = sale.moment;
                let book = self.books.last_mut().expect("a book is open");
                book.sales.push(sale);
                moment
            }
            Entry::Payment(payment) => {
                self.payments.push(payment);
                payment.moment
            }
        };
        self.moment = self.moment.max(moment);
    }

    /// Puts in order what was said of coins. To be called when everything is added.
    pub fn arrange(&mut self) {
        self.booked.sort_unstable_by_key(Since::newest_first);
        self.booked.dedup_by_key(|since| since.coin);
        self.thin_out();
    }

    fn thin_out(&mut self) {
        let order = |(since, tag): &(Since, AnTag)| (since.coin, *tag, Reverse(since.stamp()));
        self.noted.sort_unstable_by_key(order);
        self.noted.dedup_by_key(|(since, tag)| (since.coin, *tag));
    }

    /// Adds a page's coins that are in circulation under marked numbers, each with the newest stamp that
    /// is known for it.
    pub fn place(&self, page: PageId, image: &PageImage, coins: &mut Vec<Placed>) {
        let first = coin_number(page.coin(0));
        let end = first + COINS_PER_PAGE as u32;
        let booked = part(&self.booked, |since| since.coin, first, end);
        let noted = part(&self.noted, |(since, _)| since.coin, first, end);
        let (mut booked, mut noted) = (booked.iter().peekable(), noted.iter().peekable());
        for (place, (an, mfs)) in image.ans.iter().zip(&image.mfs).enumerate() {
            if mfs.is_free() || !an.is_marked() {
                continue;
            }
            let (coin, tag) = (first + place as u32, an.tag());
            let mut stamp = Stamp::default();
            while let Some(since) = booked.next_if(|since| since.coin <= coin) {
                if since.coin == coin {
                    stamp = stamp.max(since.stamp());
                }
            }
            while let Some((since, of)) = noted.next_if(|(since, _)| since.coin <= coin) {
                if since.coin == coin && *of == tag {
                    stamp = stamp.max(since.stamp());
                }
            }
            coins.push(Placed {
                key: *an,
                coin: page.coin(place),
                stamp,
            });
        }
    }

    /// The book, with the coins that [`place`](Gathered::place) found on all pages.
    pub fn into_book(mut self, coins: Vec<Placed>) -> Book {
        let mut keys: Vec<[u8; 16]> = coins
            .iter()
            .filter(|placed| placed.key.is_trade_key())
            .map(|placed| *placed.key.expose())
            .collect();
        keys.sort_unstable();
        let sales = self.sales(&keys);
        self.payments
            .sort_unstable_by_key(|payment| (payment.id, payment.moment));
        self.payments.dedup_by_key(|payment| payment.id);
        Book {
            coins,
            sales,
            payments: self.payments,
            moment: self.moment,
        }
    }

    /// What is for sale, where there are coins under its key, of which `keys` has each, sorted.
    fn sales(&mut self, keys: &[[u8; 16]]) -> Vec<Sale> {
        let mut turns = std::mem::take(&mut self.turns);
        let mut books = std::mem::take(&mut self.books);
        books.sort_by_key(|book| book.round);
        for at in 0..books.len() {
            for sale in std::mem::take(&mut books[at].sales) {
                let is_told_by = |book: &Source| book.is_home_of(&sale.key);
                if is_told_by(&books[at]) && !books[at + 1..].iter().any(is_told_by) {
                    turns.push(Turn {
                        key: sale.key,
                        moment: sale.moment,
                        address: Some(sale.address),
                    });
                }
            }
        }
        turns.sort_by_key(|turn| (*turn.key.expose(), turn.moment, turn.address.is_some()));
        let of_a_key = turns.chunk_by_mut(|a, b| a.key.expose() == b.key.expose());
        let last = of_a_key.filter_map(|turns| {
            let turn = turns.last_mut().expect("a chunk has a turn");
            keys.binary_search(turn.key.expose()).ok()?;
            Some(Sale {
                key: turn.key,
                moment: turn.moment,
                address: turn.address.take()?,
            })
        });
        last.collect()
    }
}

impl Source {
    fn is_home_of(&self, key: &An) -> bool {
        key.locker_home(self.shards).index() == usize::from(self.shard)
    }
}

impl Since {
    fn stamp(&self) -> Stamp {
        Stamp {
            moment: self.moment,
            rank: self.rank,
        }
    }

    fn newest_first(&self) -> (u32, Reverse<Stamp>) {
        (self.coin, Reverse(self.stamp()))
    }
}

/// The part of a list sorted by coin that is about coins from `first` up to `end`.
fn part<T>(all: &[T], coin: impl Fn(&T) -> u32, first: u32, end: u32) -> &[T] {
    let from = all.partition_point(|item| coin(item) < first);
    let rest = &all[from..];
    &rest[..rest.partition_point(|item| coin(item) < end)]
}
