//! The small node's lockers and trades, as PROTOCOL.md group 8 has them, without a settlement: every
//! purchase counts as paid.

use std::collections::BTreeMap;

use raida::coin::{An, Coin, Mfs};
use raida::protocol::lockers::{
    Buy, Contents, ListForSale, LockerKey, Offer, Peek, PublicIdKey, PutForSale, Remove,
    RemoveTrade, StoreSum, TradeKey, Value,
};
use raida::protocol::pass_fail::Bitmap;
use raida::protocol::{Command, Dialect, PassFail, Status};

use super::State;

#[derive(Default)]
pub struct Lockers {
    /// By coin: how many were stored before it.
    stored: BTreeMap<Coin, u64>,
    stores: u64,
    /// In the order in which they were made.
    pub sales: Vec<TradeKey>,
}

impl State {
    pub(super) fn carry_out_lockers(
        &mut self,
        command: Command,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        match command {
            Command::StoreSum => {
                let request = StoreSum::parse(payload)?;
                let right = self.sum(request.coins().iter()) == request.sum;
                if right {
                    self.store(request.coins().iter(), request.key.an());
                }
                Ok(self.verdict(right))
            }
            Command::Peek => {
                let key = Peek::parse(payload)?.key.an();
                Ok(Contents::answer(self.lie_under(key), out))
            }
            Command::Remove => {
                let request = Remove::parse(payload)?;
                let key = request.key.an();
                if self.lie_under(key).is_empty() {
                    return Err(Status::ALL_FAIL);
                }
                let mut answer = PassFail::begin(out, request.len());
                for (record, (coin, an)) in request.records().enumerate() {
                    if let Some(coin) = coin.filter(|&coin| self.holds(coin, key)) {
                        self.coins.insert(coin, (an, Mfs::new(2)));
                        answer.pass(record);
                    }
                }
                Ok(answer.finish(Bitmap::Always))
            }
            Command::PutForSale => {
                let request = PutForSale::parse(payload)?;
                let right = self.sum(request.coins().iter()) == request.sum;
                let value = Value::of(request.coins().iter());
                if right && self.find_sale(request.key, value).is_some() {
                    return Err(Status::OFFER_EXISTS);
                }
                if right {
                    self.store(request.coins().iter(), request.key.an());
                    self.lockers.sales.push(request.key);
                }
                Ok(self.verdict(right))
            }
            Command::ListForSale => {
                let request = ListForSale::parse(payload)?;
                let sales = self.lockers.sales.iter();
                let sales = sales.filter(|key| key.currency() == request.currency);
                let ids = PublicIdKey::new([3; 32]);
                let listed = sales.map(|key| (key.public_id(&ids), self.value(*key)));
                Ok(request.answer(listed, Dialect::Spec, out))
            }
            Command::Buy => {
                let request = Buy::parse(payload)?;
                let sale =
                    (self.lockers.sales.iter()).position(|&key| self.offer(key) == request.offer);
                let sale = sale.ok_or(Status::NO_SUCH_OFFER)?;
                self.end_sale(sale, Some(request.into));
                Ok(Status::ALL_PASS)
            }
            Command::RemoveTrade => {
                let request = RemoveTrade::parse(payload)?;
                let sale = (self.lockers.sales.iter()).position(|&key| key == request.key);
                self.end_sale(sale.ok_or(Status::ALL_FAIL)?, request.into);
                Ok(Status::ALL_PASS)
            }
            _ => Err(Status::UNKNOWN_COMMAND),
        }
    }

    fn store(&mut self, coins: impl Iterator<Item = Coin>, key: An) {
        for coin in coins {
            self.lockers.stores += 1;
            self.lockers.stored.insert(coin, self.lockers.stores);
            self.coins.insert(coin, (key, Mfs::new(2)));
        }
    }

    /// The coins under a key, in the order stored.
    fn lie_under(&self, key: An) -> Vec<Coin> {
        let all = self.coins.iter();
        let mut there: Vec<Coin> = all
            .filter(|(_, (an, _))| *an == key)
            .map(|(&coin, _)| coin)
            .collect();
        there.sort_by_key(|coin| self.lockers.stored.get(coin));
        there
    }

    fn value(&self, key: TradeKey) -> Value {
        Value::of(self.lie_under(key.an())).unwrap()
    }

    fn offer(&self, key: TradeKey) -> Offer {
        Offer {
            currency: key.currency(),
            value: self.value(key),
            price: key.price(),
        }
    }

    fn find_sale(&self, key: TradeKey, value: Option<Value>) -> Option<usize> {
        let terms = (key.currency(), key.price(), value);
        (self.lockers.sales.iter()).position(|&other| {
            let offer = self.offer(other);
            other == key || (offer.currency, offer.price, Some(offer.value)) == terms
        })
    }

    fn end_sale(&mut self, sale: usize, into: Option<LockerKey>) {
        let key = self.lockers.sales.remove(sale);
        let coins = self.lie_under(key.an());
        match into {
            Some(into) => self.store(coins.into_iter(), into.an()),
            None => self.coins.retain(|coin, _| !coins.contains(coin)),
        }
    }
}
