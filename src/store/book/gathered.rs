//! What book files and log records say, put together with what the pages hold.
//!
//! Logs reach back further than they have to, each by a different length: the record that began a
//! sale may still be there when the record that ended it is written over. So a sale counts only
//! where a coin that came under its key with it is still there: they came with the same record,
//! hence the same moment, and they leave when it ends, so that one that is there again has a later
//! stamp.

use std::{cmp::Reverse, collections::HashMap};

use super::{Book, Entry, Payment, Placed, Sale, Stamp};
use crate::{
    coin::{An, AnTag, COINS_PER_PAGE, PageId},
    store::{record::Record, slot::PageImage},
};

/// When this many notes of log records about coins have collected, only the newest of each coin is
/// kept; then again each time their number has doubled.
const THIN_OUT: usize = 1 << 20;

/// Everything that books and log records say, in no order until it is
/// [arranged](Gathered::arrange).
#[derive(Default)]
pub(in crate::store) struct Gathered {
    /// Since when coins are under their numbers, according to books.
    booked: Vec<Since>,
    /// Since when coins are under the number that the tag stands for, according to log records.
    noted: Vec<(Since, AnTag)>,
    thin_out_at: usize,
    /// Sales that began or ended.
    turns: Vec<Turn>,
    payments: Vec<Payment>,
    moment: u64,
    /// Whether some of it could not be read.
    is_in_part: bool,
}

/// A coin and a stamp, 16 bytes: there may be millions.
#[derive(Clone, Copy)]
struct Since {
    moment: u64,
    rank: u32,
    coin: u32,
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
            let coin = change.coin.number();
            (Since { moment, rank, coin }, change.an.tag())
        }));
        if self.noted.len() >= self.thin_out_at.max(THIN_OUT) {
            self.thin_out();
            self.thin_out_at = 2 * self.noted.len();
        }
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

    /// Adds what a book says.
    pub fn add_entry(&mut self, entry: Entry) {
        let moment = match entry {
            Entry::Coin(coin, Stamp { moment, rank }) => {
                let coin = coin.number();
                self.booked.push(Since { moment, rank, coin });
                moment
            }
            Entry::Sale(Sale {
                key,
                moment,
                address,
            }) => {
                self.turns.push(Turn {
                    key,
                    moment,
                    address: Some(address),
                });
                moment
            }
            Entry::Payment(payment) => {
                self.payments.push(payment);
                payment.moment
            }
        };
        self.moment = self.moment.max(moment);
    }

    /// Notes that there was more, which can no longer be read. A sale then counts where a coin
    /// without a known stamp is under its key, and such coins belong to the sale.
    pub fn is_in_part(&mut self) {
        self.is_in_part = true;
    }

    /// Puts in order what is said of coins. Call it when everything is added.
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

    /// Adds a page's coins that are in circulation under marked numbers, each with the newest stamp
    /// that is known for it.
    pub fn place(&self, page: PageId, image: &PageImage, coins: &mut Vec<Placed>) {
        let first = page.coin(0).number();
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
    pub fn into_book(mut self, mut coins: Vec<Placed>) -> Book {
        let sales = self.sales(&coins);
        if self.is_in_part {
            // Else the next start would not know what the sales are of.
            let moments: HashMap<[u8; 16], u64> = (sales.iter())
                .map(|sale| (*sale.key.expose(), sale.moment))
                .collect();
            let unknown = coins.iter_mut().filter(|placed| placed.stamp.moment == 0);
            for placed in unknown {
                let moment = moments.get(placed.key.expose());
                placed.stamp.moment = moment.copied().unwrap_or(0);
            }
        }
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

    fn sales(&mut self, coins: &[Placed]) -> Vec<Sale> {
        let traded = coins.iter().filter(|placed| placed.key.is_trade_key());
        let mut since: Vec<([u8; 16], u64)> = traded
            .map(|placed| (*placed.key.expose(), placed.stamp.moment))
            .collect();
        since.sort_unstable();
        let has_coin = |key: &An, moment| since.binary_search(&(*key.expose(), moment)).is_ok();
        // The end comes first: a record that ends a sale and begins one under the same key leaves
        // the new one in force.
        let order = |turn: &Turn| (*turn.key.expose(), turn.moment, turn.address.is_some());
        self.turns.sort_unstable_by_key(order);
        let of_a_key = self
            .turns
            .chunk_by_mut(|a, b| a.key.expose() == b.key.expose());
        let last = of_a_key.filter_map(|turns| {
            let Turn {
                key,
                moment,
                address,
            } = turns.last_mut()?;
            let counts = has_coin(key, *moment) || (self.is_in_part && has_coin(key, 0));
            counts.then_some(Sale {
                key: *key,
                moment: *moment,
                address: address.take()?,
            })
        });
        last.collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::Mfs;

    #[test]
    fn a_sale_that_is_saved_without_the_stamps_of_its_coins_outlives_the_next_start() {
        let page = PageId::from_index(7).unwrap();
        let mut key = [3; 16];
        key[13..].copy_from_slice(&[1, 0xee, 0xee]);
        let key = An::new(key);
        let mut image = PageImage::blank();
        (image.ans[5], image.mfs[5]) = (key, Mfs::new(9));
        let sale = Sale {
            key,
            moment: 77,
            address: Box::from(*b"where the seller is"),
        };
        let book = |entries: Vec<Entry>, is_in_part: bool| {
            let mut gathered = Gathered::default();
            entries
                .into_iter()
                .for_each(|entry| gathered.add_entry(entry));
            if is_in_part {
                gathered.is_in_part();
            }
            gathered.arrange();
            let mut coins = Vec::new();
            gathered.place(page, &image, &mut coins);
            gathered.into_book(coins)
        };
        let saved = book(vec![Entry::Sale(sale.clone())], true);
        assert_eq!(saved.sales, [sale]);
        let Placed { coin, stamp, .. } = saved.coins[0];
        let entries = vec![
            Entry::Coin(coin, stamp),
            Entry::Sale(saved.sales[0].clone()),
        ];
        assert_eq!(book(entries, false).sales, saved.sales);
    }
}
