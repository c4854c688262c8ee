//! A client with coins of its own, every answer about which it can predict: it makes up requests,
//! sends many at once, and holds the answers against the model.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use raida::{
    coin::{An, COINS_PER_PAGE, Coin, Denomination, PAGES_PER_DENOMINATION, PageId},
    protocol::{
        Command, Dialect, Encryption, Passed, Protection, ResponseCounter, Status,
        executive::{AvailableSnsReply, read_created},
        lockers::{Currency, Listed, Listing, Offer, Price, TradeKey, Value as Worth},
        status_group::{Audit, NodeStats, SoftwareVersion},
    },
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::{
    ask::{Ask, Named, Seller, Store},
    real_node::wire::{Answer, Asked, Wire, compose},
    shared::{Event, Shared, What},
    world::{Counts, Expected, Value, World},
};

/// Requests sent before the first answer is waited for, at most.
const DEPTH_MAX: usize = 32;
/// Coins of its own that a client asks about.
const POOL_MAX: usize = 250;
/// A reservation lasts 16 s; nothing is created in a session that was shown numbers longer ago.
const RESERVED_FOR_SURE: Duration = Duration::from_secs(4);
/// Pages from here on are never shown, since the first ones have free numbers enough.
const PAGE_NEVER_SHOWN: u16 = 900;
/// Prices that only this client's offers have.
const PRICES_EACH: u32 = 16;
/// Payments of this client alone; seven clients' fit into a byte.
const PAYMENTS_EACH: u8 = 36;

/// A client, with what only it changes.
pub struct Owner {
    pub world: World,
    number: u8,
    denominations: Vec<Denomination>,
    counter: ResponseCounter,
    random: StdRng,
    pool: Vec<Coin>,
    /// Serial numbers that sessions were shown, and when that was asked.
    shown: Vec<(u32, Instant, Vec<Coin>)>,
    /// Keys that coins are to come under by requests that are sent together. Which of two such that
    /// touch no coin in common is first, nobody can say, save that stores keep their order.
    coming: Coming,
    /// What was answered to what.
    pub told: HashSet<(Command, Status)>,
    next: u64,
}

#[derive(Default)]
struct Coming {
    by_pown: BTreeSet<[u8; 16]>,
    by_store: BTreeSet<[u8; 16]>,
}

/// A request that was sent, and what has to be answered.
struct Sent {
    id: u64,
    command: Command,
    asked: Asked,
    expected: Awaited,
    what: String,
}

enum Awaited {
    Own(Expected),
    /// About registers, with the values that were claimed: the answer is noted.
    Shared(SharedAsk),
}

struct SharedAsk {
    claims: Vec<(usize, An, Option<An>)>,
}

impl Owner {
    pub fn new(
        number: u8,
        denominations: Vec<Denomination>,
        coins: Vec<(Coin, Option<An>)>,
        (counter, dialect): (ResponseCounter, Dialect),
        random: StdRng,
    ) -> Owner {
        let circulating = coins.iter().filter_map(|&(coin, an)| Some((coin, an?)));
        Owner {
            world: World::new(circulating, dialect),
            number,
            denominations,
            counter,
            random,
            pool: coins.into_iter().map(|(coin, _)| coin).collect(),
            shown: Vec::new(),
            coming: Coming::default(),
            told: HashSet::new(),
            next: u64::from(number) << 40,
        }
    }

    /// The node was started again: it has forgotten reservations and counts.
    pub fn node_has_restarted(&mut self) {
        self.shown.clear();
        self.world.reserved.clear();
        self.world.counts = Counts::default();
    }

    /// Sends so many requests and checks every answer.
    pub fn converse(&mut self, wire: &mut Wire, requests: usize, shared: &Shared) {
        let is_tcp = matches!(wire, Wire::Tcp(_));
        let mut done = 0;
        while done < requests {
            let depth = match is_tcp {
                true if self.random.random_bool(0.7) => self.random.random_range(1..=DEPTH_MAX),
                _ => 1,
            };
            let began = Instant::now();
            self.coming = Coming::default();
            let sent: Vec<Sent> = (0..depth).map(|_| self.make_up(is_tcp, shared)).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|s| s.asked.bytes.clone()).collect();
            wire.send(&bytes);
            for sent in sent {
                let answer = wire.answer(&sent.asked.sent, self.counter);
                self.check(sent, answer, began, shared);
            }
            done += depth;
        }
    }

    /// Asks one thing alone and checks the answer.
    pub fn ask(&mut self, wire: &mut Wire, ask: Ask) -> Answer {
        let id = self.id();
        let expected = self.world.answer(&ask, id, &self.denominations);
        let payload = ask.payload();
        let asked = compose(ask.command(), Protection::None, Some(&payload), id);
        self.world.counts.requests += 1;
        let answer = wire.ask(&asked, self.counter);
        self.check_own(&expected, &answer)
            .unwrap_or_else(|wrong| panic!("{}: {wrong}", describe(&ask)));
        answer
    }

    /// Asks what no model predicts.
    pub fn ask_unpredicted(&mut self, wire: &mut Wire, ask: &Ask) -> Answer {
        let asked = compose(
            ask.command(),
            Protection::None,
            Some(&ask.payload()),
            self.id(),
        );
        self.world.counts.requests += 1;
        wire.ask(&asked, self.counter)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn make_up(&mut self, is_tcp: bool, shared: &Shared) -> Sent {
        self.world.counts.requests += 1;
        let id = self.id();
        if self.random.random_bool(0.2) {
            return self.make_up_shared(id, shared);
        }
        let ask = self.make_up_ask();
        let command = ask.command();
        let mut payload = ask.payload();
        let (protection, refusal) = self.protection();
        let bare = command.takes_no_body() && refusal.is_none() && self.random.random_bool(0.3);
        // What is wrong with the request, if anything: the first that the node has to find.
        let wrong = if let Some(status) = refusal {
            Some(status)
        } else if bare {
            let shows_key_stream =
                matches!(protection, Protection::Coin(..) | Protection::Locker(_));
            (shows_key_stream && !command.answers_nothing()).then_some(Status::EMPTY_BODY)
        } else if let Some(status) = self.spoil_length(&ask, &mut payload) {
            Some(status)
        } else if let Some(at) = ask.admin_key_at()
            && self.random.random_bool(0.05)
        {
            payload[at + self.random.random_range(0..16)] ^= 1;
            Some(Status::WRONG_ADMIN_KEY)
        } else {
            let needs_stream = command == Command::AllSns && !is_tcp;
            needs_stream.then_some(Status::INVALID_LENGTH)
        };
        let payload = (!bare).then_some(&payload[..]);
        let mut asked = compose(command, protection, payload, id);
        if refusal.is_some() && self.random.random_bool(0.1) && spoil_key_coin(&mut asked) {
            // A coin that cannot exist, which is refused as one that is not there.
            return self.sent(id, asked, status(missing_key(&protection)), &ask);
        }
        if let Some(wrong) = wrong {
            return self.sent(id, asked, status(wrong), &ask);
        }
        let expected = self.world.answer(&ask, id, &self.denominations);
        if let Ask::AvailableSns(session, _) = ask {
            self.shown.retain(|(other, ..)| *other != session);
        }
        self.sent(id, asked, expected, &ask)
    }

    fn sent(&self, id: u64, asked: Asked, expected: Expected, ask: &Ask) -> Sent {
        Sent {
            id,
            command: ask.command(),
            what: format!("{} under {:?}", describe(ask), asked.sent.header.encryption),
            asked,
            expected: Awaited::Own(expected),
        }
    }

    fn make_up_ask(&mut self) -> Ask {
        match self.random.random_range(0..150) {
            0..22 => Ask::Detect(self.claims()),
            22..32 => {
                let coins = self.coins();
                let sum = self.sum(&coins);
                Ask::DetectSum(coins, sum)
            }
            32..57 => {
                let claims = self.claims();
                let records = claims.into_iter().map(|(coin, an)| {
                    let new = self.new_an(an);
                    (coin, an, new)
                });
                let records: Vec<_> = records.collect();
                let marked = records.iter().filter(|(.., new)| new.is_marked());
                self.coming
                    .by_pown
                    .extend(marked.map(|(.., new)| *new.expose()));
                Ask::Pown(records)
            }
            57..72 => {
                let coins = self.coins();
                let (sum, delta) = (self.sum(&coins), self.random_an());
                Ask::PownSum(coins, sum, delta)
            }
            72..77 => Ask::Echo,
            77..79 => Ask::Version,
            79..82 => Ask::Audit,
            82..83 => Ask::Stats,
            83..84 => Ask::AllSns(self.denomination()),
            84..88 => {
                let session = self.session();
                let mut denominations = self.denominations.clone();
                if self.random.random_bool(0.5) {
                    denominations.truncate(1);
                }
                Ask::AvailableSns(session, denominations)
            }
            88..93 => self.create(),
            93..97 => Ask::DeleteCoins(self.claims()),
            97..100 => Ask::FreeCoins(self.coins()),
            _ => self.make_up_of_lockers(),
        }
    }

    /// A request of group 8.
    fn make_up_of_lockers(&mut self) -> Ask {
        match self.random.random_range(0..50) {
            0..10 => {
                let key = self.locker_to_store_in();
                Ask::StoreSum(self.store(key))
            }
            10..15 => {
                let lockers = self.random.random_range(1..=4);
                let lockers = (0..lockers).map(|_| {
                    let key = self.locker_to_store_in();
                    let mut store = self.store(key);
                    if self.random.random_bool(0.03) {
                        store.coins.clear();
                    }
                    store
                });
                Ask::StoreMultiple(lockers.collect())
            }
            15..20 => Ask::Peek(self.locker_or_none()),
            20..27 => self.remove(),
            27..36 => {
                let key = self.trade_or_none();
                let address = match self.random.random_bool(0.04) {
                    true => Seller::Nowhere,
                    false => Seller::Somewhere,
                };
                let mut store = self.store(key);
                // Few, so that offers are of the same value now and then, and some coins are left.
                store.coins.truncate(3);
                store.sum = self.sum(&store.coins);
                Ask::PutForSale { store, address }
            }
            36..40 => Ask::ListForSale {
                currency: *Currency::ALL.choose(&mut self.random).expect("three"),
                most: match self.random.random_bool(0.7) {
                    true => u8::MAX,
                    false => self.random.random_range(0..6),
                },
            },
            40..44 => self.buy(),
            44..47 => {
                let into = match self.random.random_bool(0.8) {
                    true => Some(self.locker_or_none()),
                    false => None,
                };
                Ask::RemoveTrade(self.trade_or_none(), into)
            }
            _ => {
                let key = self.trade_key();
                let id = self.world.id(key).filter(|_| self.random.random_bool(0.5));
                let id = id.map(|id| An::new(id.to_bytes()));
                Ask::PeekTrade(id.unwrap_or_else(|| self.trade_or_none()))
            }
        }
    }

    /// Coins for a key, with their sum: mostly such as can be stored.
    fn store(&mut self, key: An) -> Store {
        let mut coins = self.coins();
        if self.random.random_bool(0.7) {
            let can = |coin: &Named| coin.is_none_or(|coin| self.world.is_movable(coin));
            coins.retain(can);
        }
        if coins.is_empty() {
            coins = self.coins();
        }
        let sum = self.sum(&coins);
        Store { coins, sum, key }
    }

    /// Coins of a locker, most of which are there.
    fn remove(&mut self) -> Ask {
        let key = self.locker_or_none();
        let mut coins: Vec<Named> = self.world.under(key).into_iter().map(Some).collect();
        let count = self.count().min(coins.len());
        coins = coins.sample(&mut self.random, count).copied().collect();
        if coins.is_empty() || self.random.random_bool(0.2) {
            coins.extend(self.coins());
        }
        let records = coins.into_iter().map(|coin| (coin, self.new_an(key)));
        let records: Vec<(Named, An)> = records.collect();
        Ask::Remove(key, records)
    }

    /// Something on offer, or a purchase that was made, or something that nobody offers.
    fn buy(&mut self) -> Ask {
        let paid: Vec<(u8, Offer, An)> = self.world.paid().collect();
        let known = paid.choose(&mut self.random).copied();
        let sales = self.world.sales();
        let sale = sales.choose(&mut self.random).map(|sale| sale.offer());
        let mut offer = match (sale, known) {
            (Some(sale), _) if self.random.random_bool(0.7) => sale,
            (_, Some((_, offer, _))) => offer,
            _ => Offer {
                currency: Currency::Bitcoin,
                value: Worth::from_units(self.random.random()),
                price: Price::new(u32::from(self.number) * PRICES_EACH),
            },
        };
        let mut into = self.locker_or_none();
        let first = self.number * PAYMENTS_EACH;
        let mut transaction = first + self.random.random_range(0..PAYMENTS_EACH);
        if let Some(known) = known.filter(|_| self.random.random_bool(0.3)) {
            (transaction, offer, into) = known;
        }
        // Which of two that are offered for the same, nobody can say.
        if self.world.on_offer(offer) > 1 {
            offer.value = Worth::from_units(1 + offer.value.units());
        }
        Ask::Buy {
            into,
            offer,
            transaction,
        }
    }

    fn create(&mut self) -> Ask {
        let fresh =
            |(_, since, _): &&(u32, Instant, Vec<Coin>)| since.elapsed() < RESERVED_FOR_SURE;
        let shown: Vec<(u32, Vec<Coin>)> = self
            .shown
            .iter()
            .filter(fresh)
            .map(|(session, _, coins)| (*session, coins.clone()))
            .collect();
        let Some((session, coins)) = shown.choose(&mut self.random).cloned() else {
            let coin = self.unreserved();
            return Ask::CreateCoins(self.session(), vec![Some(coin)]);
        };
        let count = self.count().min(coins.len());
        let mut created: Vec<Named> = coins
            .sample(&mut self.random, count)
            .map(|coin| Some(*coin))
            .collect();
        if self.random.random_bool(0.1) {
            created.push(Some(self.unreserved()));
        }
        if self.random.random_bool(0.05) {
            created.push(created[0]);
        }
        if self.random.random_bool(0.05) {
            created.push(None);
        }
        Ask::CreateCoins(session, created)
    }

    /// A coin on a page that no session is ever shown.
    fn unreserved(&mut self) -> Coin {
        let number = self
            .random
            .random_range(PAGE_NEVER_SHOWN..PAGES_PER_DENOMINATION);
        let page = PageId::new(self.denomination(), number).expect("a page");
        page.coin(self.random.random_range(0..COINS_PER_PAGE))
    }

    fn session(&mut self) -> u32 {
        u32::from(self.number) * 10 + self.random.random_range(0..2)
    }

    fn denomination(&mut self) -> Denomination {
        *self.denominations.choose(&mut self.random).expect("some")
    }

    fn count(&mut self) -> usize {
        match self.random.random_range(0..10) {
            0..5 => 1,
            5..8 => self.random.random_range(2..=9),
            8 => self.random.random_range(10..=40),
            _ => self.random.random_range(41..=160),
        }
    }

    /// Coins to ask about: now and then the same few, some twice, some that cannot exist.
    fn coins(&mut self) -> Vec<Named> {
        let count = self.count();
        let twice = self.random.random_bool(0.1);
        let impossible = self.random.random_bool(0.03);
        let hot = self.random.random_bool(0.4);
        let pool = match hot {
            true => &self.pool[..6],
            false => &self.pool[..],
        };
        let mut coins: Vec<Named> = pool
            .sample(&mut self.random, count.min(pool.len()))
            .map(|coin| Some(*coin))
            .collect();
        if twice {
            let again = coins[self.random.random_range(0..coins.len())];
            coins.push(again);
        }
        if impossible {
            let at = self.random.random_range(0..=coins.len());
            coins.insert(at, None);
        }
        coins
    }

    /// Coins with ANs, most of them right.
    fn claims(&mut self) -> Vec<(Named, An)> {
        let coins = self.coins();
        let all_right = self.random.random_bool(0.6);
        let mut known: Vec<(Named, An)> = Vec::new();
        for coin in coins {
            let right = coin.and_then(|coin| self.world.an(coin));
            let an = match right {
                Some(an) if all_right || self.random.random_bool(0.6) => an,
                _ => self.random_an(),
            };
            known.push((coin, an));
        }
        known
    }

    fn sum(&mut self, coins: &[Named]) -> An {
        if self.random.random_bool(0.2) {
            return self.random_an();
        }
        let ans = coins
            .iter()
            .flatten()
            .filter_map(|&coin| self.world.an(coin));
        ans.fold(An::ZERO, |sum, an| sum ^ an)
    }

    fn random_an(&mut self) -> An {
        An::new(self.random.random())
    }

    /// A number to give a coin: now and then a locker's key, of two groups of three that share five
    /// bytes, a trade locker's, whether or not anything is for sale under it, or the one it has.
    fn new_an(&mut self, old: An) -> An {
        let an = match self.random.random_range(0..40) {
            0..2 => old,
            2..7 => self.locker_key(),
            7 => self.trade_key().an(),
            _ => self.random_an(),
        };
        let Coming { by_pown, by_store } = &self.coming;
        let is_coming = by_pown.contains(an.expose()) || by_store.contains(an.expose());
        match an.is_marked() && is_coming {
            true => self.random_an(),
            false => an,
        }
    }

    /// A locker's key, now and then a number that is none.
    fn locker_or_none(&mut self) -> An {
        match self.random.random_bool(0.03) {
            true => self.random_an(),
            false => self.locker_key(),
        }
    }

    /// The same, of a locker that a store sum may put coins into.
    fn locker_to_store_in(&mut self) -> An {
        let key = self.locker_or_none();
        if self.coming.by_pown.contains(key.expose()) {
            return self.random_an();
        }
        self.coming.by_store.insert(*key.expose());
        key
    }

    fn trade_key(&mut self) -> TradeKey {
        trade_key(self.number, self.random.random_range(0..TRADE_KEYS))
    }

    /// A trade locker's key, now and then a number that is none.
    fn trade_or_none(&mut self) -> An {
        match self.random.random_bool(0.04) {
            true => self.random_an(),
            false => self.trade_key().an(),
        }
    }

    fn locker_key(&mut self) -> An {
        let mut bytes = [self.number; 16];
        bytes[4] = self.random.random_range(0..2);
        bytes[11] = self.random.random_range(0..3);
        bytes[12..].fill(0xff);
        An::new(bytes)
    }

    /// How a request is encrypted, and the status where the node cannot read it.
    fn protection(&mut self) -> (Protection, Option<Status>) {
        let coin = *self.pool.choose(&mut self.random).expect("some");
        let other = *self.pool.choose(&mut self.random).expect("some");
        let mut key = |coin: Coin| match self.world.value(coin) {
            None => (self.random_an(), Key::Missing),
            Some(Value::Known(an)) if self.random.random_bool(0.93) => (an, Key::Right),
            Some(_) => (self.random_an(), Key::Wrong),
        };
        let ((an, is), (other_an, other_is)) = (key(coin), key(other));
        match self.random.random_range(0..10) {
            0..2 => (Protection::Coin(coin, an), is.refusal(Encryption::CoinKey)),
            2..4 => (
                Protection::CoinHmac(coin, an),
                is.refusal(Encryption::CoinKeyHmac),
            ),
            4..6 => (
                Protection::TwoCoinsHmac((coin, an), (other, other_an)),
                is.max(other_is).refusal(Encryption::TwoCoinKeyHmac),
            ),
            6..8 => {
                let key = self.locker_key();
                let shares = |other: An| other.expose()[..5] == key.expose()[..5];
                let keys: BTreeSet<[u8; 16]> = self
                    .world
                    .locker_keys()
                    .filter(|other| shares(*other))
                    .map(|an| *an.expose())
                    .collect();
                let is = match keys.contains(key.expose()) {
                    true => Key::Right,
                    false if keys.is_empty() => Key::Missing,
                    false => Key::Wrong,
                };
                (Protection::Locker(key), is.refusal(Encryption::LockerKey))
            }
            _ => (Protection::None, None),
        }
    }

    /// Now and then makes a payload too short, or one that does not divide; the status for that.
    fn spoil_length(&mut self, ask: &Ask, payload: &mut Vec<u8>) -> Option<Status> {
        let is_a_list = matches!(
            ask,
            Ask::Detect(_)
                | Ask::Pown(_)
                | Ask::DetectSum(..)
                | Ask::PownSum(..)
                | Ask::StoreSum(_)
                | Ask::Remove(..)
                | Ask::PutForSale { .. }
        );
        // Others take any length, or have an admin key that is looked at before.
        if !is_a_list || !self.random.random_bool(0.03) {
            return None;
        }
        if self.random.random_bool(0.5) {
            payload.truncate(self.random.random_range(0..16));
            return Some(Status::INVALID_LENGTH);
        }
        payload.push(0);
        Some(Status::UNEVEN_RECORDS)
    }

    fn make_up_shared(&mut self, id: u64, shared: &Shared) -> Sent {
        let register = self.random.random_range(0..shared.count());
        let (coins, belief) = shared.belief(register);
        let change = self.random.random_bool(0.6);
        let new = change.then(|| self.random_an());
        let mut claims = vec![(register, belief, new)];
        let named = || coins.iter().map(|coin| Some(*coin)).collect::<Vec<_>>();
        let delta = new.map(|new| belief ^ new);
        let ask = match (&coins[..], delta) {
            ([coin], None) if self.random.random_bool(0.5) => {
                Ask::Detect(vec![(Some(*coin), belief)])
            }
            ([coin], Some(_)) if self.random.random_bool(0.5) => {
                // Other registers of one coin as well, each by itself.
                let mut records = vec![(Some(*coin), belief, new.expect("a change"))];
                for other in 0..shared.count() {
                    let (coins, belief) = shared.belief(other);
                    if other != register && coins.len() == 1 && self.random.random_bool(0.5) {
                        let new = self.random_an();
                        records.push((Some(coins[0]), belief, new));
                        claims.push((other, belief, Some(new)));
                    }
                }
                Ask::Pown(records)
            }
            (_, None) => Ask::DetectSum(named(), belief),
            (_, Some(delta)) => Ask::PownSum(named(), belief, delta),
        };
        let payload = ask.payload();
        Sent {
            id,
            command: ask.command(),
            asked: compose(ask.command(), Protection::None, Some(&payload), id),
            what: format!("{} of shared coins", describe(&ask)),
            expected: Awaited::Shared(SharedAsk { claims }),
        }
    }

    fn check(&mut self, sent: Sent, answer: Answer, began: Instant, shared: &Shared) {
        let expected = match &sent.expected {
            Awaited::Own(expected) => expected,
            Awaited::Shared(ask) => return self.note(ask, &answer, began, shared),
        };
        self.told.insert((sent.command, answer.status));
        if let Err(wrong) = self.check_own(expected, &answer) {
            panic!("client {}: {}: {wrong}", self.number, sent.what);
        }
        match expected {
            Expected::Created(id, coins) => {
                assert_eq!(*id, sent.id);
                let ans = read_created(&answer.payload, coins.len()).expect("checked");
                for (&coin, an) in coins.iter().zip(ans) {
                    self.world.learn(*id, coin, an);
                    if self.pool.len() < POOL_MAX && !self.pool.contains(&coin) {
                        self.pool.push(coin);
                    }
                }
            }
            Expected::Listed(currency, most, offered) => {
                for (key, listed) in offered.iter().zip(self.listed(*currency, *most, &answer)) {
                    if let Some(id) = listed.id {
                        self.world.learn_id(key.0, id);
                    }
                }
            }
            Expected::AvailableSns { session, .. } => {
                let session = *session;
                let coins = shown(&answer.payload);
                for &coin in &coins {
                    let page = coin.page();
                    for (other, since, others) in &self.shown {
                        let is_others = others.iter().any(|coin| coin.page() == page);
                        let still = since.elapsed() < Duration::from_secs(16);
                        assert!(
                            *other == session || !is_others || !still,
                            "a page of session {other} was shown to session {session}"
                        );
                    }
                    let place = (session, page.denomination(), page.number());
                    self.world.reserved.insert(place);
                }
                self.shown.push((session, began, coins));
            }
            _ => {}
        }
    }

    fn check_own(&self, expected: &Expected, answer: &Answer) -> Result<(), String> {
        let Expected::Listed(currency, most, offered) = expected else {
            return check_own(expected, answer);
        };
        if Listing::read(answer.status, &answer.payload, *currency).is_none() {
            return Err(format!("answered {:?} and no listing", answer.status));
        }
        let listed = self.listed(*currency, *most, answer);
        let told = listed.iter().map(|on| (on.offer.price, on.offer.value));
        let first = offered.iter().map(|(key, worth)| (key.price(), *worth));
        if !told.clone().eq(first.clone().take(told.len())) {
            return Err("another listing".to_owned());
        }
        // Others offer too, but so little that it has room beside this client's.
        match *most == u8::MAX && told.len() < first.len() {
            true => Err("a listing without what is on offer".to_owned()),
            false => Ok(()),
        }
    }

    /// What an answer lists of this client's offers.
    fn listed(&self, currency: Currency, most: u8, answer: &Answer) -> Vec<Listed> {
        let listing = Listing::read(answer.status, &answer.payload, currency);
        let listing = listing.expect("it was read before");
        assert!(
            listing.len() <= usize::from(most),
            "more than were asked for"
        );
        let own = u32::from(self.number) * PRICES_EACH..(u32::from(self.number) + 1) * PRICES_EACH;
        let listed = listing.iter();
        let own = listed.filter(|listed| own.contains(&listed.offer.price.get()));
        own.collect()
    }

    /// Looks into all lockers and at all offers, by key and by id.
    pub fn look_at_lockers(&mut self, wire: &mut Wire) {
        let keys: BTreeSet<[u8; 16]> =
            (self.world.locker_keys().map(|key| *key.expose())).collect();
        for key in keys {
            self.ask(wire, Ask::Peek(An::new(key)));
        }
        for currency in Currency::ALL {
            let most = u8::MAX;
            let all = self.ask(wire, Ask::ListForSale { currency, most });
            for most in 0..4 {
                let some = self.ask(wire, Ask::ListForSale { currency, most });
                let is_first = all.payload.starts_with(&some.payload);
                assert!(is_first, "fewer offers are the first of more");
            }
        }
        for number in 0..TRADE_KEYS {
            let key = trade_key(self.number, number);
            self.ask(wire, Ask::PeekTrade(key.an()));
            if let Some(id) = self.world.id(key) {
                self.ask(wire, Ask::PeekTrade(An::new(id.to_bytes())));
            }
        }
        for (transaction, offer, into) in self.world.paid().collect::<Vec<_>>() {
            let again = Ask::Buy {
                into,
                offer,
                transaction,
            };
            self.ask(wire, again);
        }
    }

    fn note(&mut self, ask: &SharedAsk, answer: &Answer, began: Instant, shared: &Shared) {
        let passed = Passed::read(answer.status, &answer.payload, ask.claims.len());
        let passed = passed.unwrap_or_else(|| panic!("shared coins: {answer:?}"));
        let answered = Instant::now();
        for (record, &(register, an, new)) in ask.claims.iter().enumerate() {
            let what = match (passed.passed(record), new) {
                (false, _) => What::WasNot(an),
                (true, None) => What::Was(an),
                (true, Some(new)) => {
                    let (coins, _) = shared.belief(register);
                    let count = coins.len() as u64;
                    self.world.counts.coins_powned += count;
                    let value: u64 = coins.iter().map(|c| c.denomination.worth_units()).sum();
                    self.world.counts.value_powned += value;
                    What::Became(an, new)
                }
            };
            let sent = began;
            shared.note(
                register,
                Event {
                    sent,
                    answered,
                    what,
                },
            );
        }
    }
}

/// Trade keys of one client.
const TRADE_KEYS: u8 = 6;
/// The first of them, that share a price and a currency.
const SAME_TERMS: u8 = 2;

/// A client's trade keys: the last names a currency that the node does not accept.
fn trade_key(client: u8, number: u8) -> TradeKey {
    let mut secret = [client; TradeKey::SECRET_SIZE];
    secret[8] = number;
    let (price, currency) = match number {
        ..SAME_TERMS => (0, Currency::CloudCoin),
        5 => (5, Currency::Monero),
        number => (u32::from(number), Currency::Bitcoin),
    };
    let price = u32::from(client) * PRICES_EACH + price;
    TradeKey::of(secret, Price::new(price), currency)
}

/// Whether a key that a request names is what it claims; the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Right,
    Wrong,
    Missing,
}

impl Key {
    fn refusal(self, encryption: Encryption) -> Option<Status> {
        match (self, encryption.has_hmac()) {
            (Key::Right, _) => None,
            (Key::Wrong, false) => Some(Status::WRONG_CHALLENGE),
            (Key::Wrong, true) => Some(Status::WRONG_HMAC),
            (Key::Missing, false) => Some(Status::KEY_NOT_FOUND),
            (Key::Missing, true) => Some(Status::UNKNOWN_KEY_COIN),
        }
    }
}

fn missing_key(protection: &Protection) -> Status {
    match protection.encryption().has_hmac() {
        true => Status::UNKNOWN_KEY_COIN,
        false => Status::KEY_NOT_FOUND,
    }
}

/// Has a request name a key coin that cannot exist; `false` where it names none.
fn spoil_key_coin(asked: &mut Asked) -> bool {
    let at = match asked.sent.header.encryption {
        Encryption::CoinKey => 17,
        Encryption::CoinKeyHmac | Encryption::TwoCoinKeyHmac => 19,
        Encryption::None | Encryption::LockerKey => return false,
    };
    asked.bytes[at] = 7;
    true
}

fn status(status: Status) -> Expected {
    Expected::Exactly(status, vec![])
}

fn describe(ask: &Ask) -> String {
    let records = match ask {
        Ask::Detect(records) | Ask::DeleteCoins(records) => records.len(),
        Ask::Pown(records) => records.len(),
        Ask::DetectSum(coins, _) | Ask::PownSum(coins, ..) => coins.len(),
        Ask::CreateCoins(_, coins) | Ask::FreeCoins(coins) => coins.len(),
        Ask::StoreSum(store) | Ask::PutForSale { store, .. } => store.coins.len(),
        Ask::StoreMultiple(stores) => stores.iter().map(|store| store.coins.len()).sum(),
        Ask::Remove(_, records) => records.len(),
        _ => 0,
    };
    format!("{:?} of {records}", ask.command())
}

/// The coins that an answer to "get available SNs" shows.
fn shown(payload: &[u8]) -> Vec<Coin> {
    let coins = AvailableSnsReply::new(payload).flat_map(|free| {
        let denomination = free.denomination;
        free.serial_numbers().map(move |serial_number| Coin {
            denomination,
            serial_number,
        })
    });
    coins.collect()
}

/// Holds an answer against what it has to be.
fn check_own(expected: &Expected, answer: &Answer) -> Result<(), String> {
    let says = |status: Status| {
        if answer.status == status {
            return Ok(());
        }
        Err(format!("answered {:?}, not {status:?}", answer.status))
    };
    let holds = |what: bool, wrong: &str| match what {
        true => Ok(()),
        false => Err(wrong.to_owned()),
    };
    match expected {
        Expected::Exactly(status, payload) => {
            says(*status)?;
            holds(answer.payload == *payload, "another payload")
        }
        Expected::Version => {
            says(Status::SUCCESS)?;
            holds(
                SoftwareVersion::read(&answer.payload).is_some(),
                "no version",
            )
        }
        Expected::Stats(least) => {
            says(Status::SUCCESS)?;
            let stats = NodeStats::read(&answer.payload).ok_or("no stats")?;
            let at_least = stats.echoes >= least.echoes
                && stats.coins_powned >= least.coins_powned
                && stats.value_powned >= least.value_powned;
            holds(at_least, "less than this client alone has done")
        }
        Expected::Audit(counts) => {
            says(Status::SUCCESS)?;
            let audit = Audit::read(&answer.payload).ok_or("no audit")?;
            for (denomination, count) in counts {
                let told = audit.0[denomination.index()];
                if told != *count {
                    return Err(format!("{told} coins of {denomination}, not {count}"));
                }
            }
            Ok(())
        }
        Expected::AvailableSns {
            denominations,
            circulating,
            ..
        } => {
            says(Status::SUCCESS)?;
            let mut reply = AvailableSnsReply::new(&answer.payload);
            let told: Vec<Denomination> = reply.by_ref().map(|free| free.denomination).collect();
            holds(reply.is_whole(), "a list that does not end")?;
            let mut asked = denominations.clone();
            asked.sort();
            holds(told == asked, "other denominations")?;
            let coins = shown(&answer.payload);
            let distinct: BTreeSet<Coin> = coins.iter().copied().collect();
            holds(distinct.len() == coins.len(), "a number twice")?;
            holds(distinct.is_disjoint(circulating), "a coin that is taken")?;
            for denomination in asked {
                let count = coins
                    .iter()
                    .filter(|c| c.denomination == denomination)
                    .count();
                holds((1..=1_024).contains(&count), "too many or none")?;
            }
            Ok(())
        }
        Expected::Listed(..) => unreachable!("what is listed is told apart by whose it is"),
        Expected::Created(_, coins) => {
            says(Status::SUCCESS)?;
            let ans = read_created(&answer.payload, coins.len()).ok_or("no list of ANs")?;
            let distinct: BTreeSet<[u8; 16]> = ans.map(|an| *an.expose()).collect();
            holds(distinct.len() == coins.len(), "the same AN twice")
        }
    }
}
