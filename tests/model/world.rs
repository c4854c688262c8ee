//! The model: a plain map of coins, and what a node with these coins has to answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use raida::{
    coin::{An, Coin, Denomination, Mfs},
    protocol::{
        Command, Dialect, PassFail, Protection, Status,
        authentication::{PownSum, derived_an},
        executive::AllSns,
        lockers::{
            Contents, Currency, LockerKey, Offer, PublicId, StoreAnswer, TradeKey, Value as Worth,
        },
        pass_fail::Bitmap,
    },
};

use crate::{
    ask::{Ask, Layout, Named, Presented, Proof, Seller, Store, Vouch},
    keys::{Keys, Standing},
    other_servers::{self, SERVERS, Voucher},
};

/// A coin that is in circulation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Under this AN.
    Known(An),
    /// Under an AN that the answer to this request tells, so that nobody can know it before.
    Awaited(u64),
}

/// The coins of one client, which no other touches.
#[derive(Clone)]
pub struct World {
    circulating: BTreeMap<Coin, Value>,
    /// When coins got the number that they have.
    months: BTreeMap<Coin, Mfs>,
    /// How many coins had been stored before each, where it lies in a locker or a trade locker.
    stored: BTreeMap<Coin, u64>,
    stores: u64,
    /// What is for sale, in the order in which it was offered.
    sales: Vec<Sale>,
    /// What each payment has bought, and the locker that it went into.
    paid: BTreeMap<u8, (Offer, An)>,
    /// What listings call what is or was for sale.
    ids: BTreeMap<[u8; 16], PublicId>,
    dialect: Dialect,
    /// The state of key healing, and the node's clock.
    pub keys: Keys,
    /// Whether the node vouches for clients that ask without encryption.
    pub allows_unencrypted: bool,
    /// Pages reserved for sessions: (session, denomination, page).
    pub reserved: BTreeSet<(u32, Denomination, u16)>,
    pub counts: Counts,
    /// How often each outcome of a fix came.
    pub fixes: BTreeMap<Fix, u32>,
    /// Requests that were carried out lately, by command and payload.
    carried_out: BTreeMap<(u8, Vec<u8>), CarriedOut>,
    /// The coins that the request at hand changes.
    changing: BTreeSet<Coin>,
    /// How many requests were answered as the same before them.
    pub repeats: u32,
}

/// A request that changed every one of its coins.
#[derive(Clone)]
struct CarriedOut {
    at: Instant,
    ask: Ask,
    /// What it made of its coins.
    given: Vec<(Coin, Option<Value>)>,
    answer: (Status, Vec<u8>),
    /// Whether the node may not know it: a pown of one coin to the number in force is carried out
    /// again and counted again, unless the coin had to be waited for.
    is_in_doubt: bool,
}

/// A request that was carried out less long ago is known, one more long ago is not: between them it
/// depends on when it reaches the node.
const REPEATED_FOR: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(12)];

/// What two tickets or more that are good by themselves may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fix {
    /// A number.
    Written,
    /// A number for a coin that was free.
    OfNobodys,
    /// Nothing: the coin is for sale.
    ForSale,
    /// Nothing: they are of one half, or of one helper.
    NoPair,
}

impl Fix {
    pub const ALL: [Fix; 4] = [Fix::Written, Fix::OfNobodys, Fix::ForSale, Fix::NoPair];
}

/// What the node says of an encryption ticket.
const REFUSED: u8 = 0;
const ACCEPTED_TICKET: u8 = 1;
const TOO_EARLY: u8 = 255;

/// The first minute of December 2026, before which it is November: months 46 and 45.
pub const DECEMBER: u64 = 1_796_083_200 / 60;

/// An offer.
#[derive(Clone)]
pub struct Sale {
    pub key: TradeKey,
    /// What it began with, as far as it is still there. Others may come under the key.
    coins: Vec<Coin>,
}

impl Sale {
    pub fn offer(&self) -> Offer {
        Offer {
            currency: self.key.currency(),
            value: worth(&self.coins),
            price: self.key.price(),
        }
    }
}

/// What the client's requests add to the node's counters.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub echoes: u64,
    pub coins_powned: u64,
    pub value_powned: u128,
}

/// What has to be answered.
pub enum Expected {
    Exactly(Status, Vec<u8>),
    /// 250 and eight printable characters.
    Version,
    /// 250 and counters at least these.
    Stats(Counts),
    /// 250 and these counts for these denominations; others belong to other clients.
    Audit(Vec<(Denomination, u32)>),
    /// 250 and serial numbers of coins that are not in circulation.
    AvailableSns {
        session: u32,
        denominations: Vec<Denomination>,
        circulating: BTreeSet<Coin>,
    },
    /// 250 and an AN for each of these coins, which were created by this request.
    Created(u64, Vec<Coin>),
    /// 250 and a ticket in which this server reads that.
    Ticket(u8, Voucher),
    /// 241 and, among what others offer, the first of these, all where there is room for them.
    Listed(Currency, u8, Vec<(TradeKey, Worth)>),
}

/// What every node here accepts for coins.
pub const ACCEPTED: [Currency; 2] = [Currency::CloudCoin, Currency::Bitcoin];

impl World {
    /// A world in which these coins are in circulation.
    pub fn new(coins: impl IntoIterator<Item = (Coin, An)>, dialect: Dialect) -> World {
        let coins = coins.into_iter();
        World {
            circulating: coins.map(|(coin, an)| (coin, Value::Known(an))).collect(),
            months: BTreeMap::new(),
            stored: BTreeMap::new(),
            stores: 0,
            sales: Vec::new(),
            paid: BTreeMap::new(),
            ids: BTreeMap::new(),
            dialect,
            keys: Keys::default(),
            allows_unencrypted: false,
            reserved: BTreeSet::new(),
            counts: Counts::default(),
            fixes: BTreeMap::new(),
            carried_out: BTreeMap::new(),
            changing: BTreeSet::new(),
            repeats: 0,
        }
    }

    /// Whether nobody can say if this is answered as the same before it.
    pub fn is_in_doubt(&self, ask: &Ask) -> bool {
        let known = self.carried_out.get(&name(ask));
        let creates = matches!(ask, Ask::CreateCoins(..));
        known.is_some_and(|known| {
            let age = known.at.elapsed();
            let is_between = age > REPEATED_FOR[0] && age < REPEATED_FOR[1];
            let hangs_on_node = creates || known.is_in_doubt && self.is_in_force(known);
            is_between || hangs_on_node && age < REPEATED_FOR[1]
        })
    }

    /// Requests that were carried out lately. A request whose coins have changed since is carried
    /// out again if it comes again: only requests that do not move coins into lockers.
    pub fn lately(&self) -> impl Iterator<Item = &Ask> {
        let lately = self.carried_out.values();
        let lately = lately.filter(|known| known.at.elapsed() < REPEATED_FOR[0]);
        let lately = lately.filter(|known| !known.is_in_doubt);
        let lately = lately.filter(|known| {
            self.is_in_force(known) || matches!(known.ask, Ask::PownSum(..) | Ask::PownDerive(..))
        });
        lately.map(|known| &known.ask)
    }

    /// The node knows no longer what was carried out.
    pub fn forget_carried_out(&mut self) {
        self.carried_out.clear();
    }

    fn is_in_force(&self, known: &CarriedOut) -> bool {
        let mut given = known.given.iter();
        given.all(|&(coin, value)| self.value(coin) == value)
    }

    /// What the answer to request `id` is, and what it changes, where it is not the same as one
    /// that was carried out lately.
    pub fn answer(&mut self, ask: &Ask, id: u64, denominations: &[Denomination]) -> Expected {
        if !ask.command().is_carried_out_once() || ask.command() == Command::Buy {
            return self.carry_out(ask, id, denominations);
        }
        let name = name(ask);
        if let Some(known) = self.carried_out.get(&name)
            && known.at.elapsed() < REPEATED_FOR[0]
            && self.is_in_force(known)
        {
            self.repeats += 1;
            let (status, payload) = known.answer.clone();
            return Expected::Exactly(status, payload);
        }
        self.changing.clear();
        let expected = self.carry_out(ask, id, denominations);
        let all_changed = |status| status == Status::ALL_PASS || status == Status::SUCCESS;
        let answer = match &expected {
            Expected::Exactly(status, payload) if all_changed(*status) => {
                Some((*status, payload.clone()))
            }
            Expected::Created(..) => Some((Status::SUCCESS, vec![])),
            _ => None,
        };
        if let Some(answer) = answer.filter(|_| !self.changing.is_empty()) {
            let changed = std::mem::take(&mut self.changing).into_iter();
            let given = changed.map(|coin| (coin, self.value(coin))).collect();
            let known = CarriedOut {
                at: Instant::now(),
                ask: ask.clone(),
                given,
                answer,
                is_in_doubt: matches!(&ask, Ask::Pown(records)
                    if matches!(records[..], [(_, an, new)] if an == new)),
            };
            self.carried_out.insert(name, known);
        }
        expected
    }

    /// A coin's value; `None` where it is free.
    pub fn value(&self, coin: Coin) -> Option<Value> {
        self.circulating.get(&coin).copied()
    }

    /// A coin's AN; `None` where it is free or nobody can know it.
    pub fn an(&self, coin: Coin) -> Option<An> {
        match self.value(coin) {
            Some(Value::Known(an)) => Some(an),
            Some(Value::Awaited(_)) | None => None,
        }
    }

    /// What month the node's clock says.
    fn month(&self) -> Mfs {
        match self.keys.now() < DECEMBER {
            true => Mfs::new(45),
            false => Mfs::new(46),
        }
    }

    /// The month that a coin has; `None` where it has been what it is since before the
    /// conversation.
    pub fn mfs(&self, coin: Coin) -> Option<Mfs> {
        self.months.get(&coin).copied()
    }

    /// Coins in circulation.
    pub fn coins(&self) -> impl Iterator<Item = Coin> {
        self.circulating.keys().copied()
    }

    /// Keys of lockers and trade lockers that coins lie in.
    pub fn locker_keys(&self) -> impl Iterator<Item = An> {
        let known = self.circulating.values().filter_map(|value| match value {
            Value::Known(an) => Some(*an),
            Value::Awaited(_) => None,
        });
        known.filter(An::is_marked)
    }

    /// Those of them that a request may be encrypted with: in `spec` a trade locker's is none.
    pub fn keys_of_requests(&self) -> impl Iterator<Item = An> {
        let all = self.dialect == Dialect::Raidax;
        (self.locker_keys()).filter(move |key| all || LockerKey::new(*key).is_some())
    }

    /// Coins of a denomination that are in circulation.
    pub fn count(&self, denomination: Denomination) -> u32 {
        let coins = self.coins();
        coins.filter(|c| c.denomination == denomination).count() as u32
    }

    fn carry_out(&mut self, ask: &Ask, id: u64, denominations: &[Denomination]) -> Expected {
        match ask {
            Ask::Echo => {
                self.counts.echoes += 1;
                Expected::Exactly(Status::SUCCESS, vec![])
            }
            Ask::Version => Expected::Version,
            Ask::Stats => Expected::Stats(self.counts),
            Ask::Audit => {
                let counts = denominations.iter().map(|&d| (d, self.count(d)));
                Expected::Audit(counts.collect())
            }
            Ask::Detect(records) => {
                let passed = records.iter().map(|&(coin, an)| self.is(coin, an));
                pass_fail(&passed.collect::<Vec<_>>())
            }
            Ask::Pown(records) => {
                let records = records.iter();
                let passed = self.exchange(records.map(|&(coin, an, new)| (coin, an, Some(new))));
                for &(coin, _) in passed.iter().filter(|(_, passed)| *passed) {
                    self.count_powned(coin.expect("it exists"));
                }
                pass_fail(&passed.iter().map(|(_, passed)| *passed).collect::<Vec<_>>())
            }
            Ask::DeleteCoins(records) => {
                let passed = self.exchange(records.iter().map(|&(coin, an)| (coin, an, None)));
                pass_fail(&passed.iter().map(|(_, passed)| *passed).collect::<Vec<_>>())
            }
            Ask::DetectSum(coins, sum) => match all(coins) {
                None => status(Status::INVALID_COIN),
                Some(coins) => status(verdict(self.proves(&coins, *sum))),
            },
            Ask::PownSum(coins, sum, delta) => {
                let Some(coins) = all(coins) else {
                    return status(Status::INVALID_COIN);
                };
                if !PownSum::takes(self.dialect, coins.len()) {
                    return status(Status::INVALID_PARAMETER);
                }
                let is_right = self.may_move(&coins, *sum);
                let new = coins.iter().filter(|_| is_right).map(|&coin| {
                    let an = self.an(coin).expect("it is part of a sum");
                    (coin, Some(an ^ *delta))
                });
                for (coin, new) in new.collect::<Vec<_>>() {
                    self.give(coin, new);
                    self.count_powned(coin);
                }
                self.end_empty_sales();
                status(verdict(is_right))
            }
            Ask::PownDerive(known, delta) => {
                let named: Vec<Named> = known.iter().map(|&(coin, _)| coin).collect();
                let Some(coins) = all(&named) else {
                    return status(Status::INVALID_COIN);
                };
                let is_known = known.iter().all(|&(coin, an)| self.is(coin, an));
                let for_sale = coins.iter().any(|&coin| self.is_on_sale(coin));
                let is_right = is_known && !has_twice(&coins) && !for_sale;
                if is_right {
                    for (&coin, &(_, an)) in coins.iter().zip(known) {
                        self.give(coin, Some(derived_an(coin, an, *delta)));
                        self.count_powned(coin);
                    }
                }
                status(verdict(is_right))
            }
            Ask::AvailableSns(session, denominations) => Expected::AvailableSns {
                session: *session,
                denominations: denominations.clone(),
                circulating: self.coins().collect(),
            },
            Ask::CreateCoins(session, coins) => {
                let Some(coins) = all(coins) else {
                    return status(Status::INVALID_COIN);
                };
                if has_twice(&coins) {
                    return status(Status::INVALID_COIN);
                }
                let is_reserved = |c: &Coin| {
                    let page = c.page();
                    let place = (*session, page.denomination(), page.number());
                    self.reserved.contains(&place)
                };
                if !coins.iter().all(is_reserved) {
                    return status(Status::NOT_RESERVED);
                }
                if coins.iter().any(|c| self.circulating.contains_key(c)) {
                    return status(Status::INVALID_COIN);
                }
                let created = coins.iter().map(|&coin| (coin, Value::Awaited(id)));
                self.circulating.extend(created);
                self.changing.extend(coins.iter().copied());
                let month = self.month();
                self.months.extend(coins.iter().map(|&coin| (coin, month)));
                coins.iter().for_each(|&coin| self.keys.change(coin));
                Expected::Created(id, coins)
            }
            Ask::FreeCoins(coins) => {
                let Some(coins) = all(coins) else {
                    return status(Status::INVALID_COIN);
                };
                coins.iter().for_each(|&coin| self.give(coin, None));
                self.end_empty_sales();
                status(Status::SUCCESS)
            }
            Ask::AllSns(denomination) => {
                let mut bitmap = vec![0; AllSns::REPLY_SIZE];
                for coin in self.coins().filter(|c| c.denomination == *denomination) {
                    let sn = coin.serial_number.get() as usize;
                    bitmap[sn / 8] |= 1 << (sn % 8);
                }
                Expected::Exactly(Status::SUCCESS, bitmap)
            }
            Ask::EncryptionTicket(vouch) => {
                let answered = self.vouch(vouch);
                answered.unwrap_or_else(|refused| status(self.of_healing(refused)))
            }
            Ask::FixEncryption {
                coin,
                layout,
                tickets,
            } => {
                let answered = self.fix_encryption(*coin, *layout, tickets);
                answered.unwrap_or_else(|refused| status(self.of_healing(refused)))
            }
            _ => self.answer_of_lockers(ask).unwrap_or_else(status),
        }
    }

    /// A status of the groups whose statuses a dialect has of its own.
    pub fn of_healing(&self, refused: Status) -> Status {
        match (self.dialect, refused) {
            (Dialect::Spec, Status::INVALID_LENGTH) => Status::HEALING_INVALID_LENGTH,
            (Dialect::Spec, Status::UNEVEN_RECORDS) => Status::HEALING_UNEVEN_RECORDS,
            (Dialect::Spec, Status::RAIDA_OUT_OF_RANGE) => Status::HEALING_RAIDA_OUT_OF_RANGE,
            (_, refused) => refused,
        }
    }

    /// Makes a ticket for a client that proves to own a coin that is not for sale.
    fn vouch(&self, asked: &Vouch) -> Result<Expected, Status> {
        if let Proof::Number { key_id, .. } = asked.proof
            && key_id != 1
        {
            return Err(Status::INVALID_COIN);
        }
        if asked.broken >= SERVERS {
            return Err(Status::RAIDA_OUT_OF_RANGE);
        }
        let coin = asked.coin.ok_or(Status::INVALID_COIN)?;
        if matches!(asked.protection, Protection::None) && !self.allows_unencrypted {
            return Err(Status::KEY_NOT_FOUND);
        }
        if !other_servers::shares_a_secret(asked.broken) {
            return Err(Status::RAIDA_OUT_OF_RANGE);
        }
        let own = self.an(coin).filter(|an| TradeKey::new(*an).is_none());
        let own = own.ok_or(Status::KEY_NOT_FOUND)?;
        let is_proved = match (asked.proof, asked.protection) {
            (Proof::Number { an, .. }, _) => an == own,
            (Proof::Key, Protection::Coin(key, _) | Protection::CoinHmac(key, _)) => key == coin,
            (Proof::Key, Protection::TwoCoinsHmac((first, _), (second, _))) => {
                first == coin || second == coin
            }
            (Proof::Key, Protection::None | Protection::Locker(_)) => false,
        };
        let voucher = Voucher {
            part: asked.part,
            coin,
            minute: self.keys.now(),
        };
        let ticket = Expected::Ticket(asked.broken, voucher);
        is_proved.then_some(ticket).ok_or(Status::KEY_NOT_FOUND)
    }

    /// Gives a coin, owned by anybody or nobody, the number whose halves two helpers vouch for.
    fn fix_encryption(
        &mut self,
        coin: Named,
        layout: Layout,
        tickets: &[Presented],
    ) -> Result<Expected, Status> {
        if tickets.is_empty() {
            return Err(Status::INVALID_LENGTH);
        }
        let coin = coin.ok_or(Status::INVALID_COIN)?;
        if tickets.len() > 255 {
            return Err(Status::INVALID_LENGTH);
        }
        let mut answer = vec![REFUSED; tickets.len()];
        let mut taken = Vec::new();
        for (index, presented) in tickets.iter().enumerate() {
            let is_of_coin = layout == Layout::Short || presented.of == Some(coin);
            if presented.half > 1 || !is_of_coin {
                continue;
            }
            let &Presented { helper, ticket, .. } = presented;
            let (standing, part) = self.keys.present(helper, &ticket, coin);
            if standing == Standing::TooEarly {
                answer[index] = TOO_EARLY;
            }
            if let Some(part) = part {
                answer[index] = ACCEPTED_TICKET;
                taken.push((presented, part));
            }
        }
        let of_half = |half| taken.iter().filter(move |(taken, _)| taken.half == half);
        let pair = of_half(0).find_map(|(first, front)| {
            let other = |(second, _): &&(&Presented, _)| second.helper != first.helper;
            let (_, back) = of_half(1).find(other)?;
            Some([*front, *back].concat())
        });
        if let Some(number) = pair {
            let used = taken.iter().map(|(presented, _)| presented.ticket);
            self.keys.write_down(used);
            if self.is_on_sale(coin) {
                answer.fill(REFUSED);
                self.count_fix(Fix::ForSale);
            } else {
                let too_early = answer.iter_mut().filter(|said| **said == TOO_EARLY);
                too_early.for_each(|said| *said = REFUSED);
                let number = number.try_into().expect("two halves");
                self.count_fix(match self.value(coin) {
                    Some(_) => Fix::Written,
                    None => Fix::OfNobodys,
                });
                self.give(coin, Some(An::new(number)));
            }
        } else if taken.len() > 1 {
            self.count_fix(Fix::NoPair);
        }
        Ok(Expected::Exactly(Status::SUCCESS, answer))
    }

    /// What the answer to a request of group 8 is, and what it changes; a refusal has no payload.
    fn answer_of_lockers(&mut self, ask: &Ask) -> Result<Expected, Status> {
        match ask {
            Ask::StoreSum(store) => {
                let stored = self.store(store)?;
                Ok(status(verdict(stored)))
            }
            Ask::StoreMultiple(stores) => {
                let mut payload = Vec::new();
                let stored: Vec<bool> = stores
                    .iter()
                    .map(|store| !store.coins.is_empty() && self.store(store).unwrap_or(false))
                    .collect();
                let mut answer = StoreAnswer::begin(&mut payload, stored.len(), self.dialect);
                let stored = (0..stored.len()).filter(|&locker| stored[locker]);
                stored.for_each(|locker| answer.stored(locker));
                Ok(Expected::Exactly(answer.finish(), payload))
            }
            Ask::Peek(key) => {
                let key = LockerKey::new(*key).ok_or(Status::ALL_FAIL)?;
                Ok(contents(self.under(key.an())))
            }
            Ask::Remove(key, records) => {
                let key = LockerKey::new(*key).ok_or(Status::ALL_FAIL)?.an();
                if self.under(key).is_empty() {
                    return Err(Status::ALL_FAIL);
                }
                let records = records.iter();
                let passed = self.exchange(records.map(|&(coin, new)| (coin, key, Some(new))));
                let mut payload = Vec::new();
                let mut answer = PassFail::begin(&mut payload, passed.len());
                let records = (0..passed.len()).filter(|&record| passed[record].1);
                records.for_each(|record| answer.pass(record));
                Ok(Expected::Exactly(answer.finish(Bitmap::Always), payload))
            }
            Ask::PutForSale { store, address } => {
                self.put_for_sale(store, *address)?;
                Ok(status(Status::ALL_PASS))
            }
            &Ask::ListForSale { currency, most } => {
                let of_it = self.sales.iter();
                let of_it = of_it.filter(|sale| sale.key.currency() == currency);
                let listed = of_it.map(|sale| (sale.key, sale.offer().value));
                let listed = listed.collect();
                Ok(Expected::Listed(currency, most, listed))
            }
            &Ask::Buy {
                into,
                offer,
                transaction,
            } => {
                let into = LockerKey::new(into).ok_or(Status::INVALID_PARAMETER)?.an();
                match self.paid.get(&transaction) {
                    Some(&paid) if paid == (offer, into) => return Ok(status(Status::ALL_PASS)),
                    Some(_) => return Err(Status::PAYMENT_REFUSED),
                    None => {}
                }
                let bought = self.sales.iter().find(|sale| sale.offer() == offer);
                let coins = bought.ok_or(Status::NO_SUCH_OFFER)?.coins.clone();
                self.move_all(&coins, Some(into));
                self.paid.insert(transaction, (offer, into));
                Ok(status(Status::ALL_PASS))
            }
            &Ask::RemoveTrade(key, into) => {
                if into.is_some_and(|into| LockerKey::new(into).is_none()) {
                    return Err(Status::WRONG_LOCKER_KEY);
                }
                let key = TradeKey::new(key).ok_or(Status::ALL_FAIL)?.an();
                let coins = self.under(key);
                self.move_all(&coins, into);
                Ok(status(verdict(!coins.is_empty())))
            }
            &Ask::PeekTrade(name) => {
                let name = TradeKey::new(name).ok_or(Status::ALL_FAIL)?.an();
                let of_id = self.sales.iter().find(|sale| {
                    let id = self.id(sale.key);
                    id.is_some_and(|id| id.to_bytes() == *name.expose())
                });
                let of_id = of_id.map(|sale| sale.coins.clone());
                Ok(contents(of_id.unwrap_or_else(|| self.under(name))))
            }
            _ => unreachable!("a request of another group"),
        }
    }

    /// Puts coins into a locker where they may be moved: all or none.
    fn store(&mut self, store: &Store) -> Result<bool, Status> {
        let key = LockerKey::new(store.key).ok_or(Status::WRONG_LOCKER_KEY)?;
        let coins = all(&store.coins).ok_or(Status::INVALID_COIN)?;
        let is_right = self.may_move(&coins, store.sum);
        if is_right {
            self.move_all(&coins, Some(key.an()));
        }
        Ok(is_right)
    }

    fn put_for_sale(&mut self, store: &Store, address: Seller) -> Result<(), Status> {
        if Currency::from_byte(store.key.expose()[13]).is_none() {
            return Err(Status::UNKNOWN_CURRENCY);
        }
        let key = TradeKey::new(store.key).ok_or(Status::WRONG_LOCKER_KEY)?;
        if address == Seller::Nowhere {
            return Err(Status::INVALID_PARAMETER);
        }
        let coins = all(&store.coins).ok_or(Status::INVALID_COIN)?;
        if !ACCEPTED.contains(&key.currency()) {
            return Err(Status::UNKNOWN_CURRENCY);
        }
        if !self.may_move(&coins, store.sum) {
            return Err(Status::ALL_FAIL);
        }
        let others = self.under(key.an());
        let is_mixed = others.iter().any(|other| !coins.contains(other));
        let sale = Sale {
            key,
            coins: coins.clone(),
        };
        if is_mixed || self.on_offer(sale.offer()) > 0 {
            return Err(Status::OFFER_EXISTS);
        }
        self.move_all(&coins, Some(key.an()));
        self.sales.push(sale);
        Ok(())
    }

    /// Judges records one after the other; those of a coin see each other. What passes changes at
    /// the end, in the order of the records.
    fn exchange(
        &mut self,
        records: impl Iterator<Item = (Named, An, Option<An>)>,
    ) -> Vec<(Named, bool)> {
        let mut becomes: Vec<(Coin, Option<An>)> = Vec::new();
        let mut passed = Vec::new();
        for (named, an, new) in records {
            let movable = named.filter(|&coin| !self.is_on_sale(coin));
            let right = movable.filter(|&coin| {
                let earlier = becomes.iter().find(|(other, _)| *other == coin);
                earlier.map_or(self.an(coin), |(_, new)| *new) == Some(an)
            });
            passed.push((named, right.is_some()));
            if let Some(coin) = right {
                becomes.retain(|(other, _)| *other != coin);
                becomes.push((coin, new));
            }
        }
        for (coin, new) in becomes {
            self.give(coin, new);
        }
        self.end_empty_sales();
        passed
    }

    /// Gives coins, in this order, the same AN, or frees them.
    fn move_all(&mut self, coins: &[Coin], into: Option<An>) {
        coins.iter().for_each(|&coin| self.give(coin, into));
        self.end_empty_sales();
    }

    /// Gives a coin this AN, or frees it.
    fn give(&mut self, coin: Coin, new: Option<An>) {
        match new.is_some() && self.an(coin) == new {
            true => self.keys.may_change(coin),
            false => self.keys.change(coin),
        }
        self.changing.insert(coin);
        match new {
            Some(_) => self.months.insert(coin, self.month()),
            None => self.months.remove(&coin),
        };
        self.stored.remove(&coin);
        for sale in &mut self.sales {
            sale.coins.retain(|other| *other != coin);
        }
        match new {
            Some(an) => self.circulating.insert(coin, Value::Known(an)),
            None => self.circulating.remove(&coin),
        };
        if new.is_some_and(|an| an.is_marked()) {
            self.stores += 1;
            self.stored.insert(coin, self.stores);
        }
    }

    fn end_empty_sales(&mut self) {
        self.sales.retain(|sale| !sale.coins.is_empty());
    }

    /// The coins under a key, in the order stored.
    pub fn under(&self, key: An) -> Vec<Coin> {
        let there = self.stored.iter();
        let there = there.filter(|(coin, _)| self.an(**coin) == Some(key));
        let mut there: Vec<(u64, Coin)> = there.map(|(&coin, &stored)| (stored, coin)).collect();
        there.sort_unstable();
        there.into_iter().map(|(_, coin)| coin).collect()
    }

    /// What is for sale.
    pub fn sales(&self) -> &[Sale] {
        &self.sales
    }

    /// Payments that have bought something, and what.
    pub fn paid(&self) -> impl Iterator<Item = (u8, Offer, An)> {
        let paid = self.paid.iter();
        paid.map(|(&transaction, &(offer, into))| (transaction, offer, into))
    }

    /// How often just this is for sale.
    pub fn on_offer(&self, offer: Offer) -> usize {
        let sales = self.sales.iter();
        sales.filter(|sale| sale.offer() == offer).count()
    }

    /// What a listing calls this, once it has been listed.
    pub fn id(&self, key: TradeKey) -> Option<PublicId> {
        self.ids.get(key.an().expose()).copied()
    }

    /// A listing has called it so.
    pub fn learn_id(&mut self, key: TradeKey, id: PublicId) {
        let before = self.ids.insert(*key.an().expose(), id);
        assert!(before.is_none_or(|before| before == id), "another name");
    }

    /// Whether somebody can know its AN and move it by that.
    pub fn is_movable(&self, coin: Coin) -> bool {
        self.an(coin).is_some() && !self.is_on_sale(coin)
    }

    /// Coins that lie under the key of something for sale.
    pub fn on_sale(&self) -> impl Iterator<Item = Coin> {
        self.coins().filter(|&coin| self.is_on_sale(coin))
    }

    fn is_on_sale(&self, coin: Coin) -> bool {
        let an = self.an(coin);
        let mut sales = self.sales.iter();
        sales.any(|sale| Some(sale.key.an()) == an)
    }

    /// Whether a request with this sum may move these coins.
    fn may_move(&self, coins: &[Coin], sum: An) -> bool {
        self.proves(coins, sum) && !coins.iter().any(|&coin| self.is_on_sale(coin))
    }

    /// Request `id` has created this coin under this AN.
    pub fn learn(&mut self, id: u64, coin: Coin, an: An) {
        if let Some(value) = self.circulating.get_mut(&coin)
            && *value == Value::Awaited(id)
        {
            *value = Value::Known(an);
        }
    }

    /// Whether this is the XOR of the ANs: where all are in circulation and known, none is named
    /// twice, and none cancels out.
    fn proves(&self, coins: &[Coin], sum: An) -> bool {
        let ans: Option<Vec<An>> = coins.iter().map(|&coin| self.an(coin)).collect();
        let Some(ans) = ans.filter(|_| !has_twice(coins)) else {
            return false;
        };
        let cancels_out = |an: &An| ans.iter().filter(|other| *other == an).count() % 2 == 0;
        ans.iter().fold(An::ZERO, |sum, an| sum ^ *an) == sum && !ans.iter().any(cancels_out)
    }

    fn is(&self, coin: Named, an: An) -> bool {
        coin.is_some_and(|coin| self.an(coin) == Some(an))
    }

    fn count_fix(&mut self, fix: Fix) {
        *self.fixes.entry(fix).or_default() += 1;
    }

    fn count_powned(&mut self, coin: Coin) {
        self.counts.coins_powned += 1;
        self.counts.value_powned += u128::from(coin.denomination.worth_units());
    }
}

fn name(ask: &Ask) -> (u8, Vec<u8>) {
    (ask.command().code(), ask.payload())
}

fn all(coins: &[Named]) -> Option<Vec<Coin>> {
    coins.iter().copied().collect()
}

fn has_twice(coins: &[Coin]) -> bool {
    coins.iter().collect::<BTreeSet<_>>().len() < coins.len()
}

fn status(status: Status) -> Expected {
    Expected::Exactly(status, vec![])
}

fn worth(coins: &[Coin]) -> Worth {
    Worth::of(coins.iter().copied()).expect("few coins")
}

fn contents(coins: Vec<Coin>) -> Expected {
    let mut payload = Vec::new();
    let status = Contents::answer(coins, &mut payload);
    Expected::Exactly(status, payload)
}

fn verdict(passed: bool) -> Status {
    if passed {
        Status::ALL_PASS
    } else {
        Status::ALL_FAIL
    }
}

fn pass_fail(passed: &[bool]) -> Expected {
    let mut payload = Vec::new();
    let mut answer = PassFail::begin(&mut payload, passed.len());
    let records = passed.iter().enumerate();
    records
        .filter(|(_, passed)| **passed)
        .for_each(|(record, _)| answer.pass(record));
    let status = answer.finish(Bitmap::IfMixed);
    Expected::Exactly(status, payload)
}
