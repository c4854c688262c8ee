//! A client with coins of its own that can predict every answer about them: it makes up requests,
//! sends many at once, and compares the answers with the model.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use raida::{
    coin::{An, COINS_PER_PAGE, Coin, Denomination, PAGES_PER_DENOMINATION, PageId},
    protocol::{
        Command, Dialect, Encryption, Passed, Protection, ResponseCounter, Status,
        authentication::derived_an,
        executive::{AvailableSnsReply, read_created},
        lockers::{Currency, Listed, Listing, Offer, Price, TradeKey, Value as Worth},
        status_group::{Audit, NodeStats, SoftwareVersion},
    },
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::{
    ask::{Ask, Layout, Named, Presented, Proof, Seller, Store, Vouch},
    keys::Standing,
    other_servers::{self, SERVERS, STRANGER, Voucher},
    races::Try,
    real_node::{
        RAIDA,
        wire::{Answer, Asked, Wire, compose},
    },
    shared::{Event, Shared, What},
    world::{Counts, Expected, Value, World},
};

/// Maximum number of requests sent before the client waits for the first answer.
const DEPTH_MAX: usize = 32;
/// Coins of its own that a client asks about.
const POOL_MAX: usize = 250;
/// A reservation lasts 16 s; nothing is created in a session that was shown numbers longer ago.
const RESERVED_FOR_SURE: Duration = Duration::from_secs(4);
/// Pages from here on are never shown, since the first ones have free numbers enough.
const PAGE_NEVER_SHOWN: u16 = 900;
/// Prices that only this client's offers have.
const PRICES_EACH: u32 = 16;
/// The group that has the commands of key healing as well.
const HEALING: u8 = 2;
/// Tickets of a fix, at most: with a few more there are lengths that fit both layouts.
const PRESENTED_MAX: usize = 6;
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
    /// The group that it goes to.
    group: u8,
    asked: Asked,
    expected: Awaited,
    what: String,
}

enum Awaited {
    Own(Expected),
    /// About registers, with the values that were claimed: the answer is noted.
    Shared(SharedAsk),
    /// Tickets that all clients have: the answer is noted.
    Race(Try),
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

    /// The node was started again: it has forgotten reservations, what was carried out, and counts,
    /// and of encryption tickets those that it has not written down, the latest of them of this
    /// minute.
    pub fn node_has_restarted(&mut self, latest_written: Option<u64>) {
        self.world.keys.node_has_restarted(latest_written);
        self.time_passes();
        self.world.counts = Counts::default();
    }

    /// So much time has passed that nothing is reserved any more, and no request is known that was
    /// carried out.
    pub fn time_passes(&mut self) {
        self.shown.clear();
        self.world.reserved.clear();
        self.world.forget_carried_out();
    }

    /// Sends this many requests and checks every answer.
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
            self.world.counts.requests += wire.send_until_answered(&bytes);
            for sent in sent {
                let answer = wire.answer_of_group(sent.group, &sent.asked.sent, self.counter);
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
        match self.random.random_range(0..100) {
            0..20 => return self.make_up_shared(id, shared),
            20..24 => return self.make_up_race(id, shared),
            _ => {}
        }
        let mut ask = loop {
            let ask = match self.random.random_bool(0.04) {
                true => self.repeat(),
                false => self.make_up_ask(),
            };
            if !self.world.is_in_doubt(&ask) {
                break ask;
            }
        };
        let command = ask.command();
        let mut payload = ask.payload();
        let key = match &ask {
            Ask::EncryptionTicket(vouch) => vouch.coin.filter(|_| self.random.random_bool(0.7)),
            _ => None,
        };
        let (protection, refusal) = self.protection(key);
        if let Ask::EncryptionTicket(vouch) = &mut ask {
            vouch.protection = protection;
        }
        let bare = command.takes_no_body() && refusal.is_none() && self.random.random_bool(0.3);
        let shows_key_stream = matches!(protection, Protection::Coin(..) | Protection::Locker(_));
        // Over UDP there would be no answer.
        let bare = bare && (is_tcp || !shows_key_stream || command.answers_nothing());
        // The first fault of the request that the node has to find, if any.
        let wrong = if let Some(status) = refusal {
            Some(status)
        } else if bare {
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
            needs_stream.then_some(Status::ASK_OVER_TCP)
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

    fn sent(&mut self, id: u64, mut asked: Asked, expected: Expected, ask: &Ask) -> Sent {
        Sent {
            id,
            command: ask.command(),
            what: format!("{} under {:?}", describe(ask), asked.sent.header.encryption),
            group: self.group(ask.command(), &mut asked),
            asked,
            expected: Awaited::Own(expected),
        }
    }

    /// Sends a request, now and then, to the other group that has its command; says to which.
    fn group(&mut self, command: Command, asked: &mut Asked) -> u8 {
        let is_in_two = matches!(command, Command::EncryptionTicket | Command::FixEncryption);
        if is_in_two && self.random.random_bool(0.3) {
            asked.bytes[4] = HEALING;
        }
        asked.bytes[4]
    }

    /// A request that was carried out lately, where there is one.
    fn repeat(&mut self) -> Ask {
        let lately: Vec<&Ask> = self.world.lately().collect();
        match lately.choose(&mut self.random) {
            Some(&ask) => ask.clone(),
            None => self.make_up_ask(),
        }
    }

    fn make_up_ask(&mut self) -> Ask {
        match self.random.random_range(0..190) {
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
            57..65 => {
                let mut coins = self.coins();
                if self.random.random_bool(0.5) {
                    coins.truncate(1);
                }
                let (sum, delta) = (self.sum(&coins), self.random_an());
                Ask::PownSum(coins, sum, delta)
            }
            65..72 => {
                let known = self.claims();
                Ask::PownDerive(known, self.random_an())
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
            100..150 => self.make_up_of_lockers(),
            150..161 => self.vouch(),
            _ => self.fix_encryption(),
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

    /// Coins to take from a locker; most of them are in it.
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
        // Nobody can say which of two offers at the same price sells.
        if self.world.on_offer(offer) > 1 {
            offer.value = Worth::from_units(1 + offer.value.units());
        }
        Ask::Buy {
            into,
            offer,
            transaction,
        }
    }

    /// A request to vouch for this client somewhere: mostly about a coin of its own, with a proof.
    fn vouch(&mut self) -> Ask {
        let (coin, right) = self.claim();
        let proof = match self.random.random_bool(0.5) {
            true => Proof::Key,
            false => Proof::Number {
                key_id: match self.random.random_bool(0.04) {
                    true => self.random.random(),
                    false => 1,
                },
                an: right,
            },
        };
        Ask::EncryptionTicket(Vouch {
            broken: self.server(),
            coin,
            part: self.random.random(),
            proof,
            protection: Protection::None,
        })
    }

    /// A server: mostly one that shares a secret with the node, now and then the stranger or the
    /// node itself, or none.
    fn server(&mut self) -> u8 {
        match self.random.random_range(0..40) {
            0 => self.random.random_range(SERVERS..=u8::MAX),
            1 => [RAIDA.get(), STRANGER][self.random.random_range(0..2)],
            _ => {
                let others = (0..SERVERS).filter(|&server| other_servers::shares_a_secret(server));
                let others: Vec<u8> = others.collect();
                *others.choose(&mut self.random).expect("23 others")
            }
        }
    }

    /// A number for a coin that helpers vouch for: about every other time the coin gets it.
    fn fix_encryption(&mut self) -> Ask {
        let (mut named, _) = self.claim();
        if self.random.random_bool(0.1) {
            // One that is for sale, so that it is no longer its owner's alone.
            let on_sale: Vec<Coin> = self.world.on_sale().collect();
            named = on_sale.choose(&mut self.random).copied().or(named);
        } else if self.random.random_bool(0.6) {
            let keys = &self.world.keys;
            let fixable = self.pool.iter().filter(|&&coin| keys.is_fixable(coin));
            let fixable: Vec<Coin> = fixable.copied().collect();
            named = fixable.choose(&mut self.random).copied().or(named);
        }
        let coin = named.unwrap_or(self.pool[0]);
        let old = self.world.an(coin);
        let new = self.new_an(old.unwrap_or(An::ZERO));
        if new.is_marked() {
            self.coming.by_pown.insert(*new.expose());
        }
        let layout = match self.random.random_bool(0.5) {
            true => Layout::Short,
            false => Layout::Long,
        };
        let count = match self.random.random_range(0..20) {
            0 => 1,
            1..16 => 2,
            _ => self.random.random_range(3..=PRESENTED_MAX),
        };
        let mut tickets: Vec<Presented> = Vec::new();
        while tickets.len() < count {
            let half = tickets.len() as u8 % 2;
            let presented = self.ticket(coin, new, half, tickets.last().copied());
            let standing = |of| {
                self.world
                    .keys
                    .standing(presented.helper, &presented.ticket, of)
            };
            if standing(coin) != Standing::Unknown {
                tickets.push(presented);
            }
        }
        // Tickets from before may make up a key as well.
        let keys: BTreeSet<[u8; 16]> = self
            .numbers(&tickets)
            .filter(An::is_marked)
            .map(|an| *an.expose())
            .filter(|key| key != new.expose())
            .collect();
        let Coming { by_pown, by_store } = &self.coming;
        if keys
            .iter()
            .any(|key| by_pown.contains(key) || by_store.contains(key))
        {
            tickets.truncate(1);
        } else {
            self.coming.by_pown.extend(keys);
        }
        if layout == Layout::Long && self.random.random_bool(0.01) {
            // Too many for an answer.
            tickets.resize(256, tickets[0]);
        }
        Ask::FixEncryption {
            coin: named,
            layout,
            tickets,
        }
    }

    /// Every number that tickets may come to.
    fn numbers(&self, tickets: &[Presented]) -> impl Iterator<Item = An> {
        let of_half = |half: u8| {
            let of_half = tickets
                .iter()
                .filter(move |presented| presented.half == half);
            of_half.filter_map(|presented| self.world.keys.part(&presented.ticket))
        };
        let halves = of_half(0).flat_map(move |front| of_half(1).map(move |back| [front, back]));
        halves.map(|halves| An::new(halves.concat().try_into().expect("two halves")))
    }

    /// A ticket for half of a coin's new number: mostly one that a helper has just made.
    fn ticket(&mut self, coin: Coin, new: An, half: u8, before: Option<Presented>) -> Presented {
        let mut presented = Presented {
            helper: self.server(),
            half,
            of: Some(coin),
            ticket: self.random.random(),
        };
        match self.random.random_range(0..50) {
            // The helper that was, or the half that was.
            0..4 => presented.helper = before.map_or(presented.helper, |before| before.helper),
            4..7 => presented.half = 1 - half,
            7 => presented.half = self.random.random(),
            8 => presented.of = self.coins()[0],
            _ => {}
        }
        let front = usize::from(half) * 8;
        let part = new.expose()[front..front + 8].try_into().expect("half");
        match self.random.random_range(0..40) {
            // Just any.
            0 => return presented,
            // The ticket before once more, whichever helper gave it.
            1 => {
                if let Some(before) = before {
                    presented.ticket = before.ticket;
                }
                return presented;
            }
            // One that was made some time, for this coin mostly: presented or not.
            2..8 => {
                let any = self.random.random_bool(0.2);
                let made = self.world.keys.made();
                let made = made.filter(|(.., voucher)| any || voucher.coin == coin);
                let mut made: Vec<(u8, [u8; 16])> =
                    made.map(|(helper, ticket, _)| (helper, ticket)).collect();
                made.sort_unstable();
                if let Some(&(helper, ticket)) = made.choose(&mut self.random) {
                    (presented.helper, presented.ticket) = (helper, ticket);
                }
                return presented;
            }
            _ => {}
        }
        let now = self.world.keys.now();
        let minute = match self.random.random_range(0..50) {
            0..32 => now,
            32..36 => now + 1,
            36..45 => now - self.random.random_range(1..=10),
            45..48 => now - self.random.random_range(10..=13),
            _ => now + self.random.random_range(1..=3),
        };
        let voucher = Voucher { part, coin, minute };
        presented.ticket = self.world.keys.make(presented.helper, voucher);
        if self.random.random_bool(0.02) {
            presented.ticket[self.random.random_range(0..16)] ^=
                1 << self.random.random_range(0..8);
        }
        presented
    }

    /// A coin with an AN, most often the right one.
    fn claim(&mut self) -> (Named, An) {
        self.claims()[0]
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

    /// How a request is encrypted, under this coin where it is under one, and the status where the
    /// node cannot read it.
    fn protection(&mut self, coin: Option<Coin>) -> (Protection, Option<Status>) {
        let any = *self.pool.choose(&mut self.random).expect("some");
        let coin = coin.unwrap_or(any);
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
                    .keys_of_requests()
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
        if let Ask::EncryptionTicket(_) | Ask::FixEncryption { .. } = ask {
            return self.spoil_length_of_healing(ask, payload);
        }
        let is_a_list = matches!(
            ask,
            Ask::Detect(_)
                | Ask::Pown(_)
                | Ask::DetectSum(..)
                | Ask::PownSum(..)
                | Ask::PownDerive(..)
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

    fn spoil_length_of_healing(&mut self, ask: &Ask, payload: &mut Vec<u8>) -> Option<Status> {
        if !self.random.random_bool(0.05) {
            return None;
        }
        let (status, length) = match (ask, self.random.random_bool(0.5)) {
            // 13 bytes are a layout that the field has too.
            (Ask::EncryptionTicket(_), true) => (Status::INVALID_LENGTH, 13),
            (Ask::EncryptionTicket(_), false) => (Status::INVALID_LENGTH, payload.len() + 1),
            // Up to a coin and a count without a ticket.
            (_, true) => (Status::INVALID_LENGTH, self.random.random_range(0..25)),
            // Two more divide into tickets of neither layout, while they are few.
            (_, false) => (Status::UNEVEN_RECORDS, payload.len() + 2),
        };
        let is_impossible = matches!(ask, Ask::FixEncryption { coin: None, .. });
        let is_long = payload.len() > 1_000;
        if is_long || is_impossible && status == Status::UNEVEN_RECORDS {
            return None;
        }
        payload.resize(length, 0);
        Some(self.world.of_healing(status))
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
            ([_], Some(delta)) if self.random.random_bool(0.5) => {
                Ask::PownSum(named(), belief, delta)
            }
            (_, Some(delta)) => {
                let known = shared.numbers(register, belief);
                let derived = coins.iter().zip(&known);
                let derived = derived.map(|(&coin, &an)| derived_an(coin, an, delta));
                let value = shared.propose(register, derived.collect());
                claims[0].2 = Some(value);
                Ask::PownDerive(named().into_iter().zip(known).collect(), delta)
            }
        };
        if let [(register, _, Some(new)), ..] = claims[..]
            && coins.len() == 1
        {
            shared.propose(register, vec![new]);
        }
        for &(register, _, new) in &claims[1..] {
            shared.propose(register, vec![new.expect("a change")]);
        }
        let payload = ask.payload();
        Sent {
            id,
            command: ask.command(),
            group: ask.command().group(),
            asked: compose(ask.command(), Protection::None, Some(&payload), id),
            what: format!("{} of shared coins", describe(&ask)),
            expected: Awaited::Shared(SharedAsk { claims }),
        }
    }

    fn make_up_race(&mut self, id: u64, shared: &Shared) -> Sent {
        let tried = shared.races.enter(&mut self.random);
        let ask = tried.ask(&shared.races);
        let payload = ask.payload();
        Sent {
            id,
            command: ask.command(),
            group: ask.command().group(),
            asked: compose(ask.command(), Protection::None, Some(&payload), id),
            what: format!("{} that all have", describe(&ask)),
            expected: Awaited::Race(tried),
        }
    }

    fn check(&mut self, sent: Sent, answer: Answer, began: Instant, shared: &Shared) {
        let expected = match &sent.expected {
            Awaited::Own(expected) => expected,
            Awaited::Shared(ask) => return self.note(ask, &answer, began, shared),
            Awaited::Race(tried) => {
                assert_eq!(answer.status, Status::SUCCESS, "{}", sent.what);
                return shared.races.note(tried, &answer.payload);
            }
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
                    let worth = coins.iter().map(|c| c.denomination.worth_units());
                    self.world.counts.value_powned += worth.map(u128::from).sum::<u128>();
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
        Ask::PownDerive(known, _) => known.len(),
        Ask::DetectSum(coins, _) | Ask::PownSum(coins, ..) => coins.len(),
        Ask::CreateCoins(_, coins) | Ask::FreeCoins(coins) => coins.len(),
        Ask::StoreSum(store) | Ask::PutForSale { store, .. } => store.coins.len(),
        Ask::StoreMultiple(stores) => stores.iter().map(|store| store.coins.len()).sum(),
        Ask::Remove(_, records) => records.len(),
        Ask::FixEncryption { tickets, .. } => tickets.len(),
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

/// Compares an answer with the expected one.
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
            let wrong = match payload.len() < 100 {
                true => format!("payload {:?}, not {payload:?}", answer.payload),
                false => "another payload".to_owned(),
            };
            holds(answer.payload == *payload, &wrong)
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
                && u128::from(stats.value_powned) >= least.value_powned;
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
        Expected::Ticket(broken, voucher) => {
            says(Status::SUCCESS)?;
            let is_read = other_servers::reads(*broken, &answer.payload, voucher);
            holds(is_read, "a ticket that says something else")
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
