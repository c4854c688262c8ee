//! The small node's lockers and trades, as docs/protocol.md, "Group 8: lockers" has them, without a
//! settlement: every purchase counts as paid, unless it is told otherwise.

use std::collections::BTreeMap;

use raida::coin::{An, Coin, Mfs};
use raida::protocol::lockers::{
    Address, Buy, Contents, ListForSale, Offer, Peek, PeekTrade, PublicIdKey, PutForSale, Remove,
    RemoveTrade, StoreSum, TradeKey, TradePart, Value,
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
    /// Where to pay for every offer: the last seller's address.
    pub address: Option<Address>,
    /// Lists what is for sale twice, also where that is more than was asked for.
    pub lists_twice: bool,
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
                let is_right = self.proves(request.coins().iter(), request.sum)
                    && request.coins().iter().all(|coin| !self.is_on_sale(coin));
                if is_right {
                    for coin in request.coins().iter() {
                        self.store(coin, request.key.an());
                    }
                }
                Ok(self.verdict(is_right))
            }
            Command::Peek => {
                let key = Peek::parse(payload)?.key.an();
                Ok(Contents::answer(self.under(key), out))
            }
            Command::Remove => {
                let request = Remove::parse(payload)?;
                if self.under(request.key.an()).is_empty() {
                    return Ok(Status::ALL_FAIL);
                }
                let mut answer = PassFail::begin(out, request.len());
                for (record, (coin, an)) in request.records().enumerate() {
                    let key = request.key.an();
                    if let Some(coin) = coin.filter(|&coin| self.holds(coin, key)) {
                        self.store(coin, an);
                        answer.pass(record);
                    }
                }
                Ok(answer.finish(Bitmap::Always))
            }
            Command::PutForSale => {
                let request = PutForSale::parse(payload)?;
                let is_right = self.proves(request.coins().iter(), request.sum)
                    && request.coins().iter().all(|coin| !self.is_on_sale(coin));
                if !is_right {
                    return Ok(Status::ALL_FAIL);
                }
                let offer = Offer {
                    currency: request.key.currency(),
                    value: Value::of(request.coins().iter()).unwrap(),
                    price: request.key.price(),
                };
                let mut sales = self.lockers.sales.iter();
                if sales.any(|&key| key == request.key || self.offer(key) == offer) {
                    return Err(Status::OFFER_EXISTS);
                }
                for coin in request.coins().iter() {
                    self.store(coin, request.key.an());
                }
                self.lockers.sales.push(request.key);
                self.lockers.address = Some(request.address);
                Ok(Status::ALL_PASS)
            }
            Command::ListForSale => {
                let request = ListForSale::parse(payload)?;
                let of_it = self.lockers.sales.iter().copied();
                let of_it = of_it.filter(|key| key.currency() == request.currency);
                let ids = self.ids();
                let listed = of_it.map(|key| (key.public_id(&ids), self.offer(key).value));
                let before = out.len();
                let status = request.answer(listed, Dialect::Spec, out);
                if self.lockers.lists_twice {
                    out.extend_from_within(before..);
                }
                Ok(status)
            }
            Command::PeekTrade => {
                let PeekTrade { name, asks_for } = PeekTrade::parse(payload)?;
                let ids = self.ids();
                let mut sales = self.lockers.sales.iter().copied();
                let found = sales.find(|key| {
                    key.public_id(&ids) == name.as_public_id() || *key == name.as_key()
                });
                if asks_for == TradePart::Address {
                    let address = self.lockers.address.as_ref().filter(|_| found.is_some());
                    let bytes = address.map(Address::as_bytes);
                    return Ok(PeekTrade::answer_address(bytes, out));
                }
                let coins = found.map_or(vec![], |key| self.under(key.an()));
                Ok(Contents::answer(coins, out))
            }
            Command::Buy => {
                let request = Buy::parse(payload)?;
                let mut sales = self.lockers.sales.iter();
                let Some(place) = sales.position(|&key| self.offer(key) == request.offer) else {
                    return Err(Status::NO_SUCH_OFFER);
                };
                if let Some(status) = self.purchase {
                    return Err(status);
                }
                let key = self.lockers.sales.remove(place);
                for coin in self.under(key.an()) {
                    self.store(coin, request.into.an());
                }
                Ok(Status::ALL_PASS)
            }
            Command::RemoveTrade => {
                let request = RemoveTrade::parse(payload)?;
                let coins = self.under(request.key.an());
                self.lockers.sales.retain(|&key| key != request.key);
                for &coin in &coins {
                    match request.into {
                        Some(into) => self.store(coin, into.an()),
                        None => drop(self.coins.remove(&coin)),
                    }
                }
                Ok(self.verdict(!coins.is_empty()))
            }
            // Nobody asks it for several lockers at once.
            _ => Err(Status::UNKNOWN_COMMAND),
        }
    }

    fn store(&mut self, coin: Coin, an: An) {
        self.lockers.stores += 1;
        self.lockers.stored.insert(coin, self.lockers.stores);
        self.coins.insert(coin, (an, Mfs::new(2)));
    }

    /// The coins under a key, in the order stored.
    pub fn under(&self, key: An) -> Vec<Coin> {
        let all = self.coins.iter();
        let mut there: Vec<Coin> = all
            .filter(|(_, (an, _))| *an == key)
            .map(|(&coin, _)| coin)
            .collect();
        there.sort_by_key(|coin| self.lockers.stored.get(coin));
        there
    }

    fn is_on_sale(&self, coin: Coin) -> bool {
        let mut sales = self.lockers.sales.iter();
        sales.any(|key| self.holds(coin, key.an()))
    }

    fn offer(&self, key: TradeKey) -> Offer {
        Offer {
            currency: key.currency(),
            value: Value::of(self.under(key.an())).unwrap(),
            price: key.price(),
        }
    }

    fn ids(&self) -> PublicIdKey {
        PublicIdKey::new([self.raida; 32])
    }
}
