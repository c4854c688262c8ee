//! The requests of group 8 in a load, and what their answers mean.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;

use raida::client::Reply;
use raida::coin::{An, Coin};
use raida::protocol::authentication::derived_an;
use raida::protocol::lockers::{
    Address, Contents, Currency, ListForSale, Listing, LockerKey, Offer, Peek, PeekTrade, Price,
    PutForSale, Remove, RemoveTrade, StoreMultiple, StoreSum, Stored, TradeKey, TradeName,
    TradePart,
};
use raida::protocol::{Command, Status};
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};

use super::commons::{Lot, coins_of};
use super::load::{Load, Means, Waiting, parts, sum};
use super::lockers::worth;
use super::{Bought, Change, Outcome, Part, Value, an, draw, draw_locker, locker, value};

/// Offers at one time: far fewer than one listing holds.
const LOTS_MAX: usize = 60;
/// A connection's own lockers that it goes on storing coins in.
const LOCKERS_USED: usize = 3;

/// What was looked at, and what must be told.
pub(super) enum Looked {
    /// A locker in which just these coins are; `None` where others may change that.
    Locker(Option<BTreeSet<Coin>>),
    /// Offers; nobody had tried to take these when the client asked.
    Listing(Currency, Vec<Lot>),
    /// An offer that nobody had tried to take when it was asked.
    Offer(Lot),
    /// A purchase that was made before, as it was or otherwise.
    Purchase(Status),
}

impl Load {
    /// Sends a request of group 8. `None` where there is nothing just now to ask it about.
    pub fn ask_of_lockers(&mut self) -> Option<bool> {
        match self.random.random_range(0..100) {
            0..18 => self.store(),
            18..22 => self.store_again(),
            22..32 => self.store_several(),
            32..40 => self.peek(),
            40..58 => self.remove(),
            58..70 => self.offer(),
            70..74 => self.list(),
            74..82 => self.buy(),
            82..88 => self.take_back(),
            88..92 => self.look_into(),
            92..96 => self.claim_what_is_on_offer(),
            _ => self.ask_again(),
        }
    }

    fn store(&mut self) -> Option<bool> {
        let coins = self.some_provable();
        let (coins, olds, depths) = self.and_shared(coins, 1);
        let key = match depths.is_empty() {
            true => self.locker_for(&coins),
            false => self.locker_of_others(&coins),
        };
        let parts = parts(&coins, &olds, to(key.an(), coins.len()));
        let mut payload = Vec::new();
        self.compose_store(&parts, key, &mut payload);
        Some(self.send(Command::StoreSum, &payload, parts, Means::Own(depths)))
    }

    /// Stores coins where they are, which puts them last. One such request at a time, so that after
    /// a crash the order tells whether it was done.
    fn store_again(&mut self) -> Option<bool> {
        let mut under_way = self.waiting.iter().flat_map(|w| w.changes.clone());
        if under_way.any(|index| self.changes[index].stores_again()) {
            return None;
        }
        let key = *self.lockers.choose(&mut self.random)?;
        let mut coins = self.coins_in(key);
        let count = self.random.random_range(1..=coins.len().max(1));
        coins.shuffle(&mut self.random);
        // The key cancels out in the sum of an even number of them, which proves nothing.
        coins.truncate((count - 1) | 1);
        if coins.len().is_multiple_of(2) {
            return None;
        }
        let olds: Vec<Value> = vec![value(key.an()); coins.len()];
        let parts = parts(&coins, &olds, to(key.an(), coins.len()));
        let mut payload = Vec::new();
        self.compose_store(&parts, key, &mut payload);
        if !self.stored_again.insert(payload.clone()) {
            return None;
        }
        Some(self.send(Command::StoreSum, &payload, parts, Means::Own(vec![])))
    }

    fn compose_store(&self, parts: &[Part], key: LockerKey, payload: &mut Vec<u8>) {
        let coins = parts.iter().map(|part| self.coins[part.coin]);
        StoreSum::compose(coins, an(sum(parts)), key, payload);
    }

    /// Stores coins in several lockers, now and then some with a wrong sum.
    fn store_several(&mut self) -> Option<bool> {
        let coins = self.some_provable();
        if coins.is_empty() {
            return None;
        }
        let size = self.random.random_range(1..=coins.len());
        let mut changes: Vec<Change> = Vec::new();
        let mut keys: Vec<LockerKey> = Vec::new();
        for coins in coins.chunks(size) {
            let key = match self.locker_for(coins) {
                // The order of two stores in one locker is told apart by their requests.
                used if keys.contains(&used) => draw_locker(&mut self.random),
                key => key,
            };
            let is_forbidden = self.random.random_bool(0.1);
            let old = |coin: &usize| match is_forbidden {
                true => !self.predicted[coin],
                false => self.predicted[coin],
            };
            let mut olds: Vec<Value> = coins.iter().map(old).collect();
            if is_forbidden && olds.len().is_multiple_of(2) {
                // Else the sum of what is wrong would be right.
                olds[0] ^= 1;
            }
            let parts = parts(coins, &olds, to(key.an(), coins.len()));
            let mut change = self.change(Command::StoreMultiple, parts);
            change.is_forbidden = is_forbidden;
            changes.push(change);
            keys.push(key);
        }
        let lockers = changes.iter().zip(keys).map(|(change, key)| {
            let coins = change.parts.iter().map(|part| self.coins[part.coin]);
            (coins, an(sum(&change.parts)), key)
        });
        let mut payload = Vec::new();
        StoreMultiple::compose(lockers, &mut payload);
        Some(self.send_changes(Command::StoreMultiple, &payload, changes, Means::Several))
    }

    pub fn note_several(&mut self, changes: Range<usize>, reply: &Reply) {
        let lockers = changes.len();
        let stored = Stored::read(reply.status, &reply.payload, lockers);
        for (locker, index) in changes.enumerate() {
            let change = &mut self.changes[index];
            let Some(stored) = stored.map(|stored| stored.stored(locker)) else {
                change.outcome = Outcome::Refused(reply.status);
                self.resync = true;
                continue;
            };
            change.outcome = Outcome::Answered(vec![stored; change.parts.len()]);
            self.resync |= !stored && !change.is_forbidden;
            for part in change.parts.iter().filter(|_| stored) {
                let new = part.new.expect("it stays in circulation");
                self.confirmed.insert(part.coin, new);
            }
        }
    }

    fn peek(&mut self) -> Option<bool> {
        let own = self.lockers.choose(&mut self.random).copied();
        let key = match own.filter(|_| self.random.random_bool(0.7)) {
            Some(own) => own,
            None => *self.commons.lockers.choose(&mut self.random)?,
        };
        let is_sure = |waiting: &Waiting| {
            matches!(&waiting.means, Means::Own(depths) if depths.is_empty())
                || matches!(&waiting.means, Means::Looked(_) | Means::Forbidden)
        };
        let is_sure = self.lockers.contains(&key) && self.waiting.iter().all(is_sure);
        let coins = is_sure.then(|| self.coins_in(key));
        let coins = coins.map(|coins| coins.iter().map(|&coin| self.coins[coin]).collect());
        let mut payload = Vec::new();
        Peek::compose(key, &mut payload);
        let means = Means::Looked(Looked::Locker(coins));
        Some(self.send(Command::Peek, &payload, vec![], means))
    }

    fn remove(&mut self) -> Option<bool> {
        let stored = self.predicted.values().copied();
        let keys: BTreeSet<Value> = stored.filter(|&value| locker(value).is_some()).collect();
        let key = keys.into_iter().choose(&mut self.random).and_then(locker)?;
        let mut coins = self.coins_in(key);
        coins.shuffle(&mut self.random);
        coins.truncate(self.random.random_range(1..=6));
        if coins.is_empty() {
            return None;
        }
        let olds = vec![value(key.an()); coins.len()];
        let news: Vec<Value> = coins.iter().map(|_| draw(&mut self.random, &[])).collect();
        let parts = parts(&coins, &olds, news.iter().copied().map(Some));
        let mut payload = Vec::new();
        let records = parts.iter().zip(&news);
        let records = records.map(|(part, &new)| (self.coins[part.coin], an(new)));
        Remove::compose(key, records, &mut payload);
        Some(self.send(Command::Remove, &payload, parts, Means::Own(vec![])))
    }

    fn offer(&mut self) -> Option<bool> {
        if self.commons.lots.lock().unwrap().len() >= LOTS_MAX {
            return None;
        }
        let coins = self.some_provable();
        if coins.is_empty() {
            return None;
        }
        let key = self.trade_key();
        let olds: Vec<Value> = coins.iter().map(|coin| self.predicted[coin]).collect();
        let parts = parts(&coins, &olds, to(key.an(), coins.len()));
        let payload = self.compose_offer(&parts, key);
        // The taker owns them; until the answer comes nothing builds on it.
        for coin in &coins {
            self.predicted.remove(coin);
        }
        let lot = Lot {
            key,
            coins,
            id: None,
            tried: 0,
        };
        let means = Means::Offered(lot);
        Some(self.send(Command::PutForSale, &payload, parts, means))
    }

    fn compose_offer(&self, parts: &[Part], key: TradeKey) -> Vec<u8> {
        let mut payload = Vec::new();
        let address = Address::new(b"where the seller is to be paid").expect("30 bytes");
        let coins = parts.iter().map(|part| self.coins[part.coin]);
        PutForSale::compose(coins, an(sum(parts)), key, &address, &mut payload);
        payload
    }

    pub fn note_offered(&mut self, index: usize, lot: Lot) {
        let change = &self.changes[index];
        if change.outcome != Outcome::Answered(vec![true; change.parts.len()]) {
            self.resync = true;
            return;
        }
        for coin in &lot.coins {
            self.confirmed.remove(coin);
        }
        let mut lots = self.commons.lots.lock().unwrap();
        lots.insert(value(lot.key.an()), lot);
    }

    fn list(&mut self) -> Option<bool> {
        let currency = *Currency::ALL.choose(&mut self.random)?;
        let is_free = |lot: &&Lot| lot.tried == 0 && lot.key.currency() == currency;
        let lots = self.commons.lots.lock().unwrap();
        let free: Vec<Lot> = lots.values().filter(is_free).cloned().collect();
        drop(lots);
        let mut payload = Vec::new();
        let most = u8::MAX;
        ListForSale { currency, most }.compose(&mut payload);
        let means = Means::Looked(Looked::Listing(currency, free));
        Some(self.send(Command::ListForSale, &payload, vec![], means))
    }

    fn look_into(&mut self) -> Option<bool> {
        let lot = self.lot(|lot| lot.tried == 0)?;
        let name = match lot.id.filter(|_| self.random.random_bool(0.5)) {
            Some(id) => TradeName::from(id),
            None => TradeName::from(lot.key),
        };
        let mut payload = Vec::new();
        PeekTrade::compose(name, TradePart::Coins, &mut payload);
        let means = Means::Looked(Looked::Offer(lot));
        Some(self.send(Command::PeekTrade, &payload, vec![], means))
    }

    fn buy(&mut self) -> Option<bool> {
        let lot = self.lot_to_take()?;
        let into = self.locker_for(&lot.coins);
        let bought = Bought {
            transaction: self.random.random(),
            offer: Offer {
                currency: lot.key.currency(),
                value: worth(&coins_of(&lot, &self.coins)),
                price: lot.key.price(),
            },
            into,
        };
        let mut payload = Vec::new();
        bought.buy().compose(&mut payload);
        let mut change = self.taking(Command::Buy, &lot, Some(value(into.an())));
        change.bought = Some(bought);
        let means = Means::Taken(value(lot.key.an()));
        Some(self.send_changes(Command::Buy, &payload, vec![change], means))
    }

    /// Takes an offer back: into a locker, or the coins out of circulation.
    fn take_back(&mut self) -> Option<bool> {
        let lot = self.lot_to_take()?;
        let count = lot.coins.len();
        let to_free = |left: usize| left.checked_sub(count);
        let key = u128::from_be_bytes(*lot.key.an().expose());
        let frees = self.random.random_bool(0.3)
            && self.commons.freeing.lock().unwrap().insert(key)
            && self
                .commons
                .to_free
                .fetch_update(SeqCst, SeqCst, to_free)
                .is_ok();
        let into = (!frees).then(|| self.locker_for(&lot.coins));
        let mut payload = Vec::new();
        RemoveTrade::compose(lot.key, into, &mut payload);
        let new = into.map(|into| value(into.an()));
        let change = self.taking(Command::RemoveTrade, &lot, new);
        let means = Means::Taken(value(lot.key.an()));
        Some(self.send_changes(Command::RemoveTrade, &payload, vec![change], means))
    }

    fn taking(&self, command: Command, lot: &Lot, new: Option<Value>) -> Change {
        let count = lot.coins.len();
        let olds = vec![value(lot.key.an()); count];
        self.change(command, parts(&lot.coins, &olds, vec![new; count]))
    }

    pub fn note_taken(&mut self, index: usize, key: Value) {
        let change = &self.changes[index];
        let mut lots = self.commons.lots.lock().unwrap();
        if change.outcome == Outcome::Answered(vec![true; change.parts.len()]) {
            lots.remove(&key).expect("only one can take it");
            for part in &change.parts {
                if let Some(new) = part.new {
                    self.confirmed.insert(part.coin, new);
                    self.predicted.insert(part.coin, new);
                }
            }
            self.bought.extend(change.bought);
            return;
        }
        let is_legal = match change.command {
            Command::Buy => change.outcome == Outcome::Refused(Status::NO_SUCH_OFFER),
            _ => match &change.outcome {
                Outcome::Answered(passed) => !passed.contains(&true),
                refused => *refused == Outcome::Refused(Status::PAYMENT_PENDING),
            },
        };
        let command = change.command;
        assert!(is_legal, "{command:?} of an offer: {:?}", change.outcome);
        let is_others = lots.get(&key).is_none_or(|lot| lot.tried > 1);
        assert!(is_others, "{command:?} of an offer that nobody else takes");
    }

    /// Claims coins on offer as a client that knows the key of the offer might: the node must do
    /// none of it.
    fn claim_what_is_on_offer(&mut self) -> Option<bool> {
        let lot = self.lot(|_| true)?;
        // Two coins have a sum that is nobody's secret, whosever key they are under by then.
        let count = self.random.random_range(1..=2).min(lot.coins.len());
        let coins: Vec<usize> = lot.coins.sample(&mut self.random, count).copied().collect();
        let old = value(lot.key.an());
        let random = &mut self.random;
        let new = draw(random, &[old]);
        let command = [
            Command::Pown,
            Command::PownDerive,
            Command::StoreSum,
            Command::PutForSale,
        ];
        let command = *command.choose(random)?;
        let (into, other) = (draw_locker(random), self.trade_key());
        let delta = new;
        let new = |coin: &usize| match command {
            Command::StoreSum => value(into.an()),
            Command::PutForSale => value(other.an()),
            Command::PownDerive => value(derived_an(self.coins[*coin], an(old), an(delta))),
            _ => delta,
        };
        let news: Vec<_> = coins.iter().map(|coin| Some(new(coin))).collect();
        let olds = vec![old; coins.len()];
        let mut change = self.change(command, parts(&coins, &olds, news));
        change.is_forbidden = true;
        let mut payload = Vec::new();
        match command {
            Command::StoreSum => self.compose_store(&change.parts, into, &mut payload),
            Command::PutForSale => payload = self.compose_offer(&change.parts, other),
            _ => self.compose_pown(command, &change.parts, delta, &mut payload),
        }
        Some(self.send_changes(command, &payload, vec![change], Means::Forbidden))
    }

    /// Asks about a purchase that was made, or has its payment pay for something else.
    fn ask_again(&mut self) -> Option<bool> {
        let mut bought = *self.bought.choose(&mut self.random)?;
        let status = match self.random.random_bool(0.5) {
            true => Status::ALL_PASS,
            false => {
                bought.into = draw_locker(&mut self.random);
                Status::PAYMENT_REFUSED
            }
        };
        let mut payload = Vec::new();
        bought.buy().compose(&mut payload);
        let means = Means::Looked(Looked::Purchase(status));
        Some(self.send(Command::Buy, &payload, vec![], means))
    }

    pub fn note_looked(&mut self, looked: &Looked, reply: &Reply) {
        let contents = || {
            let contents = Contents::read(reply.status, &reply.payload);
            let coins = contents.expect("an answer to a peek").coins();
            coins.collect::<Vec<Coin>>()
        };
        let mut lots = self.commons.lots.lock().unwrap();
        match looked {
            Looked::Locker(expected) => {
                let told = contents();
                let set: BTreeSet<Coin> = told.iter().copied().collect();
                assert_eq!(set.len(), told.len(), "a locker lists a coin twice");
                let is_as = |expected: &BTreeSet<Coin>| self.resync || set == *expected;
                assert!(expected.as_ref().is_none_or(is_as), "a locker's coins");
            }
            Looked::Listing(currency, expected) => {
                let listing = Listing::read(reply.status, &reply.payload, *currency);
                let listing = listing.expect("an answer to a list");
                for expected in expected {
                    let key = value(expected.key.an());
                    // Somebody may have tried to take it since.
                    let Some(lot) = lots.get_mut(&key).filter(|lot| lot.tried == 0) else {
                        continue;
                    };
                    let worth = worth(&coins_of(lot, &self.coins));
                    let mut listed = listing.iter().filter(|listed| {
                        (listed.offer.price, listed.offer.value) == (lot.key.price(), worth)
                    });
                    let listed = listed.next().expect("what is on offer is listed");
                    lot.id = listed.id;
                }
            }
            Looked::Offer(expected) => {
                let told = contents();
                let lot = lots.get(&value(expected.key.an()));
                if lot.is_some_and(|lot| lot.tried == 0) {
                    assert_eq!(told, coins_of(expected, &self.coins), "an offer's coins");
                }
            }
            Looked::Purchase(expected) => {
                assert_eq!(reply.status, *expected, "a purchase that was made");
            }
        }
    }

    /// A locker for these coins: one that this connection or all store coins in, or a new one.
    pub fn locker_for(&mut self, coins: &[usize]) -> LockerKey {
        let known = match self.random.random_range(0..10) {
            0..3 => self.commons.lockers.choose(&mut self.random).copied(),
            3..8 => {
                let newest = self.lockers.len().saturating_sub(LOCKERS_USED);
                self.lockers[newest..].choose(&mut self.random).copied()
            }
            _ => None,
        };
        if let Some(key) = known
            && self.commons.enter(coins, value(key.an()))
        {
            return key;
        }
        let key = draw_locker(&mut self.random);
        self.commons.enter(coins, value(key.an()));
        self.lockers.push(key);
        key
    }

    /// A locker for coins that others take out again: none of those that only this connection
    /// stores coins in.
    fn locker_of_others(&mut self, coins: &[usize]) -> LockerKey {
        let key = self.commons.lockers.choose(&mut self.random).copied();
        let key = key.filter(|key| self.commons.enter(coins, value(key.an())));
        key.unwrap_or_else(|| draw_locker(&mut self.random))
    }

    fn trade_key(&mut self) -> TradeKey {
        let random = &mut self.random;
        let currency = Currency::ALL[random.random_range(0..Currency::ALL.len())];
        TradeKey::of(random.random(), Price::new(random.random()), currency)
    }

    /// Its own coins that are in a locker, as far as that may be built on.
    fn coins_in(&self, key: LockerKey) -> Vec<usize> {
        let key = value(key.an());
        let all = self.predicted.iter().filter(|(_, an)| **an == key);
        let all = all.map(|(&coin, _)| coin);
        let mut coins: Vec<usize> = all.filter(|coin| !self.at_risk.contains(coin)).collect();
        coins.sort_unstable();
        coins
    }

    fn lot(&mut self, is_one: impl Fn(&Lot) -> bool) -> Option<Lot> {
        let lots = self.commons.lots.lock().unwrap();
        let lots = lots.values().filter(|lot| is_one(lot));
        lots.choose(&mut self.random).cloned()
    }

    fn lot_to_take(&mut self) -> Option<Lot> {
        let mut lots = self.commons.lots.lock().unwrap();
        let lot = lots.values_mut().choose(&mut self.random)?;
        lot.tried += 1;
        Some(lot.clone())
    }
}

/// This many coins come under a key.
fn to(key: An, coins: usize) -> Vec<Option<Value>> {
    vec![Some(value(key)); coins]
}
