use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
};

use foldhash::fast::FixedState;
use futures_util::stream::{self, StreamExt};

use super::{
    changed::Changed,
    exchange::exchange,
    lockers::{Cursor, IndexCounts, Lockers, Place, TradeCounts, TradeSettings, Update},
    locks::Locks,
    message::{ChangedBy, Exchange, Locked, Reply, Request, TransactionId},
    offers::Puts,
    reservations::Reservations,
    single::{ExchangeListener, Singles},
    sum::Sum,
    tickets::{ClaimRefused, PoolIsFull, TicketSettings, Tickets},
    used_tickets::{UsedTickets, latest_minute},
};
use crate::{
    coin::{
        An, AnTag, Coin, Denomination, LockerPrefix, Mfs, PAGES_PER_DENOMINATION, PageId,
        SerialNumber, ShardId, locker_home,
    },
    protocol::{
        RaidaId,
        healing::{Found, TicketId},
        key_healing::Minute,
        lockers::{PublicIdKey, TradeName},
    },
    store::{
        Environment, NodeSecret, Signal, Thing, UsedFile,
        book::{Book, BookFile, Entry, Notes},
        log::{Durability, Log, LogSettings},
        pages::{CheckpointCounts, Lookup, Pages},
        record::{Change, PageSequence},
        recovery::Recovered,
    },
};

/// Pages loaded at once for one request.
const LOADS_PARALLEL: usize = 32;
/// Records of one request looked at before others get their turn: some 50 µs.
pub const RECORDS_A_TURN: usize = 1_024;

/// How often a long locker is listed anew because something changed meanwhile; then it is listed in one
/// go.
const LISTING_TRIES: usize = 3;

/// Pages brought into memory for one request before others get their turn. One that was never
/// written is made at once, in some 30 µs.
const PAGES_A_TURN: usize = 16;

/// How a shard is set up.
#[derive(Clone)]
pub struct ShardSettings {
    /// Which shard this is.
    pub id: ShardId,
    /// Of how many.
    pub shards: u16,
    /// Pages that this shard keeps in memory.
    pub cache_pages: usize,
    /// The node's secret.
    pub secret: NodeSecret,
    /// The log's settings.
    pub log: LogSettings,
    /// How many tickets it keeps.
    pub tickets: TicketSettings,
    /// What it keeps track of for trades.
    pub trades: TradeSettings,
}

/// The shard cannot do this now: the disk is full or failing, or a page is damaged. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage cannot do this now")]
pub struct Unavailable;

/// What a shard's core has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests received by this core.
    pub requests: u64,
    /// Echoes among them.
    pub echoes: u64,
    /// Coins that got a new owner.
    pub coins_powned: u64,
    /// Their worth in the smallest unit.
    pub value_powned: u64,
}

/// A shard: its pages, its log, and who waits for what.
pub struct Shard<E: Environment> {
    /// Which shard this is.
    pub id: ShardId,
    /// Of how many.
    pub shards: u16,
    /// Its pages.
    pub pages: Pages<E>,
    /// Its log.
    pub log: Rc<Log<E>>,
    /// Time, randomness and disk.
    pub environment: E,
    /// What this core has done.
    pub counters: Cell<Counters>,
    /// Notified when a checkpoint would help.
    pub checkpoint_wanted: Rc<Signal>,
    pub(super) durability: Durability,
    pub(super) locks: Locks,
    pub(super) singles: RefCell<Singles>,
    pub(super) on_exchanged: OnceCell<ExchangeListener>,
    reservations: RefCell<Reservations>,
    lockers: RefCell<Lockers>,
    puts: Puts,
    book: BookFile,
    secret: NodeSecret,
    /// No change that this shard knows of is later.
    moment: Cell<u64>,
    tickets: RefCell<Tickets>,
    used_tickets: RefCell<UsedTickets>,
    used_file: UsedFile,
    changed: RefCell<Changed>,
    notes_changes: Cell<bool>,
    is_failure_told: Cell<bool>,
    transactions: RefCell<HashMap<TransactionId, Held, FixedState>>,
}

struct Held {
    coins: Vec<Coin>,
    pages: Vec<PageSequence>,
}

impl<E: Environment> Shard<E> {
    /// Takes over a shard's part of a recovered data folder and opens its log.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn open(
        environment: E,
        settings: ShardSettings,
        recovered: &Recovered,
    ) -> io::Result<Rc<Self>> {
        let checkpoint_wanted = Rc::new(Signal::default());
        let pages = Pages::open(
            &environment,
            settings.id,
            settings.shards,
            settings.cache_pages,
            settings.secret.clone(),
            &recovered.pages,
            checkpoint_wanted.clone(),
        )
        .await?;
        let log = Log::open(environment.clone(), settings.log, checkpoint_wanted.clone()).await?;
        let (used, version) = &recovered.used;
        let latest = latest_minute(environment.unix_seconds());
        let used = used.or_until(latest);
        if used.0 > latest && settings.id == ShardId::new(0) {
            tracing::warn!(
                minutes = used.0 - latest,
                "the clock was ahead when a key was healed last, or is behind: no encryption ticket is taken for so long; with a right clock the file `used` can be removed while the node is stopped, 11 minutes after its last fix"
            );
        }
        let shard = Rc::new(Shard {
            id: settings.id,
            shards: settings.shards,
            pages,
            log,
            environment,
            counters: Cell::default(),
            checkpoint_wanted,
            durability: settings.log.durability,
            locks: Locks::default(),
            singles: RefCell::default(),
            on_exchanged: OnceCell::new(),
            reservations: RefCell::default(),
            lockers: RefCell::new(Lockers::new(
                public_id_key(&settings.secret),
                settings.trades,
            )),
            puts: Puts::default(),
            book: BookFile::new(settings.id, settings.shards),
            secret: settings.secret.clone(),
            moment: Cell::new(recovered.book.moment),
            tickets: RefCell::new(Tickets::new(settings.tickets, settings.id, settings.shards)),
            used_tickets: RefCell::new(UsedTickets::new(settings.tickets.pool, used)),
            used_file: UsedFile::new(used, *version),
            changed: RefCell::default(),
            notes_changes: Cell::new(false),
            is_failure_told: Cell::new(false),
            transactions: RefCell::default(),
        });
        shard.take_over_lockers(&recovered.book).await;
        let owner = Rc::downgrade(&shard);
        shard.log.listen(Box::new(move |tickets, outcome| {
            if let Some(shard) = owner.upgrade() {
                shard.end_singles(tickets, outcome);
            }
        }));
        Ok(shard)
    }

    /// Whether a page is this shard's.
    #[inline]
    pub fn owns(&self, page: PageId) -> bool {
        page.owner(self.shards) == self.id
    }

    /// Answers what needs no waiting; `None` where it does, and nothing has happened.
    pub fn answer_now(&self, request: &Request) -> Option<Result<Reply, Unavailable>> {
        Some(Ok(match request {
            Request::Detect(records) if records.len() <= RECORDS_A_TURN => {
                let mut passed = vec![false; records.len()];
                let coins = records.iter().map(|&(coin, _)| coin);
                let an = |record: usize| Some(records.get(record)?.1);
                match self.compare_now(numbered(coins), an, |record| passed[record] = true)? {
                    Ok(()) => Reply::Passed(passed),
                    Err(unavailable) => return Some(Err(unavailable)),
                }
            }
            Request::Sum(coins) => match self.sum_now(coins.iter().copied())? {
                Ok(sum) => Reply::Sum(sum),
                Err(unavailable) => return Some(Err(unavailable)),
            },
            Request::An(coin) => match self.sum_now([*coin].into_iter())? {
                Ok(sum) => Reply::Sum(sum),
                Err(unavailable) => return Some(Err(unavailable)),
            },
            Request::Find(records) if records.len() <= RECORDS_A_TURN => {
                let mut all = vec![Found::Neither; records.len()];
                let coins = records.iter().map(|&(coin, ..)| coin);
                let numbers = |record: usize| records.get(record).map(|&(_, an, pan)| (an, pan));
                match self.find_now(numbered(coins), numbers, |record, found| {
                    all[record] = found
                })? {
                    Ok(()) => Reply::Found(all),
                    Err(unavailable) => return Some(Err(unavailable)),
                }
            }
            Request::Unchanged(coins) if coins.len() <= RECORDS_A_TURN => {
                let mut passed = vec![false; coins.len()];
                match self.unchanged_now(coins, |record| passed[record] = true)? {
                    Ok(()) => Reply::Passed(passed),
                    Err(unavailable) => return Some(Err(unavailable)),
                }
            }
            Request::Claim(ticket, claimant) => Reply::Claimed(self.claim(*ticket, *claimant)),
            Request::WithdrawClaim(ticket, claimant) => {
                self.withdraw_claim(*ticket, *claimant);
                Reply::Done
            }
            Request::UseTickets(coin, tickets) => Reply::Used(self.use_tickets(*coin, tickets)),
            Request::GiveBackTickets(tickets) => {
                self.used_tickets.borrow_mut().give_back(tickets);
                Reply::Done
            }
            Request::LockerKeys(prefix) => {
                Reply::Keys(self.lockers.borrow().keys(*prefix).collect())
            }
            // In the order in which shards send them: what comes next to these lockers builds on it.
            Request::Update(update) => {
                self.update_lockers(update);
                Reply::Done
            }
            Request::HasLocker(key) => Reply::Is(self.lockers.borrow().has(key)),
            Request::LockerCoins(key, most)
                if self.lockers.borrow().len(key) <= RECORDS_A_TURN.min(*most) =>
            {
                Reply::Coins(self.lockers.borrow().coins(key).collect())
            }
            Request::AreOnSale(keys) => {
                let lockers = self.lockers.borrow();
                Reply::Passed(keys.iter().map(|key| lockers.is_on_sale(key)).collect())
            }
            Request::ReleasePut(put) => {
                self.puts.release(put);
                Reply::Done
            }
            Request::IsOffered(offer) => Reply::Is(self.lockers.borrow().is_offered(offer)),
            Request::HoldSale(offer, buyer) => {
                let now = self.environment.monotonic();
                Reply::Held(self.lockers.borrow_mut().hold(offer, *buyer, now))
            }
            Request::ReleaseSale(key, buyer, is_pending) => {
                let mut lockers = self.lockers.borrow_mut();
                lockers.release(key, buyer, *is_pending);
                Reply::Done
            }
            Request::IsSaleHeld(key) => {
                let now = self.environment.monotonic();
                Reply::Is(self.lockers.borrow().is_held(key, now))
            }
            Request::ListOffers(currency, most) => {
                let now = self.environment.monotonic();
                Reply::OnOffer(self.lockers.borrow().list(*currency, *most, now))
            }
            Request::BeginPayment(payment) => {
                Reply::Payment(self.lockers.borrow_mut().begin_payment(*payment))
            }
            Request::EndPayment(payment) => {
                self.lockers.borrow_mut().end_payment(payment);
                Reply::Done
            }
            Request::LockerCounts => {
                let (lockers, trades) = self.lockers.borrow().counts();
                Reply::LockerCounts(lockers, trades)
            }
            Request::Circulating => Reply::Circulating(self.pages.circulating()),
            Request::Circulation(denomination) => {
                let pages = self.own_pages(*denomination);
                Reply::Circulation(
                    pages
                        .map(|page| (page, self.pages.circulation(page)))
                        .collect(),
                )
            }
            Request::Reserve(session, denomination, most) => {
                Reply::SerialNumbers(self.reserve(*session, *denomination, *most))
            }
            Request::Counters => Reply::Counters(self.counters.get(), self.log.counts()),
            Request::Recycle(mark, round) => {
                self.log.recycle(*mark, *round);
                Reply::Done
            }
            Request::CheckpointFailed => {
                self.log.checkpoint_failed();
                Reply::Done
            }
            Request::WantCheckpoint => {
                self.checkpoint_wanted.notify();
                Reply::Done
            }
            _ => return None,
        }))
    }

    /// Answers a request, however long it takes.
    ///
    /// # Errors
    /// [`Unavailable`]; nothing has changed then.
    pub async fn answer(&self, request: Request) -> Result<Reply, Unavailable> {
        if let Some(reply) = self.answer_now(&request) {
            return reply;
        }
        match request {
            Request::Exchange(records) => Ok(Reply::Passed(self.exchange(&records).await?)),
            // Boxed so that an exchange, the most frequent that waits, has not to carry their size.
            request => Box::pin(self.answer_rarely(request)).await,
        }
    }

    async fn answer_rarely(&self, request: Request) -> Result<Reply, Unavailable> {
        Ok(match request {
            Request::Detect(records) => Reply::Passed(self.detect(&records).await?),
            Request::Sum(coins) => Reply::Sum(self.sum(&coins).await?),
            Request::Find(records) => Reply::Found(self.find(&records).await?),
            Request::An(coin) => Reply::Sum(self.sum(&[coin]).await?),
            Request::Unchanged(coins) => Reply::Passed(self.unchanged(&coins).await?),
            Request::SumAndTags(coins) => Reply::SumAndTags(self.sum_and_tags(&coins).await?),
            Request::Lock(id, coins, session) => {
                Reply::Locked(self.lock(id, coins, session).await?)
            }
            Request::Apply(id, changes, moment, by) => {
                self.apply(id, &changes, moment, by);
                Reply::Done
            }
            Request::LockerCoins(key, most) => match self.locker_coins(&key, most).await {
                Ok(coins) => Reply::Coins(coins),
                Err(count) => Reply::TooMany(count),
            },
            Request::PeekTrade(name, most) => self.peek_trade(&name, most).await,
            Request::AcquirePut(put) => {
                self.puts.acquire(put).await;
                Reply::Done
            }
            Request::Release(id) => {
                self.release(id);
                Reply::Done
            }
            Request::RememberUsed(tickets) => {
                let storage = self.environment.storage();
                let remembered = self.used_file.remember(storage, &tickets).await;
                match remembered {
                    Ok(()) => self.is_failure_told.set(false),
                    // Clients decide how often this is tried: it is told once until it works again.
                    Err(error) => {
                        if !self.is_failure_told.replace(true) {
                            tracing::error!(%error, "no key is healed: used tickets cannot be written down");
                        }
                        return Err(Unavailable);
                    }
                }
                Reply::Done
            }
            Request::Mark => Reply::Mark(self.log.mark().await),
            Request::Flush => {
                self.log.flush().await;
                Reply::Done
            }
            _ => unreachable!("the callers answer every other request"),
        })
    }

    /// Tells `pass` which records have the right AN, as far as memory knows; `None` where a page
    /// would have to be loaded, and what was told does not count. `an` gives what a record says: asked
    /// only when its coin is looked at, because carrying the numbers there costs more than the look.
    #[inline]
    pub fn compare_now(
        &self,
        coins: impl Iterator<Item = (Coin, usize)>,
        an: impl Fn(usize) -> Option<An>,
        pass: impl FnMut(usize),
    ) -> Option<Result<(), Unavailable>> {
        self.judge_now(coins, |record, real| an(record) == Some(real), pass)
    }

    /// Tells `pass` which coins still have the ANs that tags stand for, likewise.
    #[inline]
    pub fn unchanged_now(
        &self,
        coins: &[(Coin, AnTag)],
        pass: impl FnMut(usize),
    ) -> Option<Result<(), Unavailable>> {
        let is_same = |record: usize, real: An| coins[record].1 == real.tag();
        self.judge_now(numbered(coins.iter().map(|&(coin, _)| coin)), is_same, pass)
    }

    #[inline]
    fn judge_now(
        &self,
        coins: impl Iterator<Item = (Coin, usize)>,
        is_right: impl Fn(usize, An) -> bool,
        mut pass: impl FnMut(usize),
    ) -> Option<Result<(), Unavailable>> {
        let mut outcome = Some(Ok(()));
        self.pages.lookup_all(coins, |record, found| {
            match found {
                Lookup::Circulating(real, _) if is_right(record, real) => pass(record),
                Lookup::Circulating(..) | Lookup::Free => {}
                Lookup::Unloaded => outcome = None,
                Lookup::Damaged => outcome = Some(Err(Unavailable)),
            }
            matches!(outcome, Some(Ok(())))
        });
        outcome
    }

    /// Tells `found` which of two numbers each record's coin has, as far as memory knows; `None` where a
    /// page would have to be loaded, and what was told does not count. `numbers` gives a record's.
    #[inline]
    pub fn find_now(
        &self,
        coins: impl Iterator<Item = (Coin, usize)>,
        numbers: impl Fn(usize) -> Option<(An, An)>,
        mut found: impl FnMut(usize, Found),
    ) -> Option<Result<(), Unavailable>> {
        let mut outcome = Some(Ok(()));
        self.pages.lookup_all(coins, |record, looked_up| {
            match looked_up {
                Lookup::Circulating(real, _) => {
                    let which = numbers(record).map(|(an, pan)| which(real, an, pan));
                    found(record, which.unwrap_or(Found::Neither));
                }
                Lookup::Free => found(record, Found::Neither),
                Lookup::Unloaded => outcome = None,
                Lookup::Damaged => outcome = Some(Err(Unavailable)),
            }
            matches!(outcome, Some(Ok(())))
        });
        outcome
    }

    /// Issues a ticket of this shard for coins whose ANs were right, `count` of them.
    ///
    /// # Errors
    /// As many are issued as there can be.
    pub fn issue(
        &self,
        count: usize,
        coins: impl Iterator<Item = (Coin, AnTag)>,
    ) -> Result<TicketId, PoolIsFull> {
        let now = self.environment.monotonic();
        let random = |bytes: &mut [u8]| self.environment.random(bytes);
        self.tickets.borrow_mut().issue(now, count, coins, random)
    }

    /// Claims a ticket of this shard in a server's name.
    ///
    /// # Errors
    /// There is no such ticket, or it was claimed before.
    pub fn claim(
        &self,
        ticket: TicketId,
        claimant: RaidaId,
    ) -> Result<Vec<(Coin, AnTag)>, ClaimRefused> {
        let now = self.environment.monotonic();
        let mut tickets = self.tickets.borrow_mut();
        Ok(tickets.claim(now, ticket, claimant)?.collect())
    }

    /// Takes back a claim that was made just now and not answered.
    pub fn withdraw_claim(&self, ticket: TicketId, claimant: RaidaId) {
        self.tickets.borrow_mut().withdraw(ticket, claimant);
    }

    /// Notes from now on when coins change, for whoever asks to use encryption tickets.
    pub fn note_changes(&self) {
        self.notes_changes.set(true);
    }

    /// By which encryption tickets are dated.
    pub fn minute(&self) -> Minute {
        Minute::of_unix_seconds(self.environment.unix_seconds())
    }

    fn use_tickets(&self, coin: Coin, tickets: &[Thing]) -> Result<Vec<bool>, PoolIsFull> {
        let (now, changed) = (self.minute(), self.changed.borrow());
        let is_void = |ticket: &Thing| changed.is_since(coin, Minute(ticket.moment), now);
        let mut used = self.used_tickets.borrow_mut();
        used.use_up(now, coin, tickets, is_void)
    }

    /// Encryption tickets that are remembered as used.
    pub fn used_ticket_count(&self) -> usize {
        self.used_tickets.borrow().len()
    }

    /// Tickets in the pool, those included that are over and not replaced yet.
    pub fn ticket_count(&self) -> usize {
        self.tickets.borrow().len()
    }

    /// The XOR of ANs (`None` within where one is not in circulation); `None` where a page would
    /// have to be loaded.
    pub fn sum_now(
        &self,
        coins: impl Iterator<Item = Coin>,
    ) -> Option<Result<Option<Sum>, Unavailable>> {
        let mut outcome = Some(Ok(Some(Sum::default())));
        self.pages
            .lookup_all(coins.map(|coin| (coin, ())), |(), found| {
                match (found, &mut outcome) {
                    (Lookup::Circulating(an, _), Some(Ok(Some(sum)))) => sum.add(an),
                    (Lookup::Free, Some(Ok(sum))) => *sum = None,
                    (Lookup::Unloaded, _) => outcome = None,
                    (Lookup::Damaged, _) => outcome = Some(Err(Unavailable)),
                    _ => {}
                }
                matches!(outcome, Some(Ok(Some(_))))
            });
        outcome
    }

    async fn detect(&self, records: &[(Coin, An)]) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(records.iter().map(|(coin, _)| *coin)).await;
        let mut passed = Vec::with_capacity(records.len());
        for some in records.chunks(RECORDS_A_TURN) {
            for &(coin, an) in some {
                let value = self.value(coin).await?;
                passed.push(value.is_some_and(|(real, _)| real == an));
            }
            self.environment.turn().await;
        }
        Ok(passed)
    }

    async fn find(&self, records: &[(Coin, An, An)]) -> Result<Vec<Found>, Unavailable> {
        self.prefetch(records.iter().map(|(coin, ..)| *coin)).await;
        let mut all = Vec::with_capacity(records.len());
        for some in records.chunks(RECORDS_A_TURN) {
            for &(coin, an, pan) in some {
                let value = self.value(coin).await?;
                all.push(value.map_or(Found::Neither, |(real, _)| which(real, an, pan)));
            }
            self.environment.turn().await;
        }
        Ok(all)
    }

    async fn unchanged(&self, coins: &[(Coin, AnTag)]) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(coins.iter().map(|(coin, _)| *coin)).await;
        let mut passed = Vec::with_capacity(coins.len());
        for some in coins.chunks(RECORDS_A_TURN) {
            for &(coin, tag) in some {
                let value = self.value(coin).await?;
                passed.push(value.is_some_and(|(real, _)| real.tag() == tag));
            }
            self.environment.turn().await;
        }
        Ok(passed)
    }

    async fn sum(&self, coins: &[Coin]) -> Result<Option<Sum>, Unavailable> {
        Ok(self.sum_and_tags(coins).await?.map(|(sum, _)| sum))
    }

    async fn sum_and_tags(&self, coins: &[Coin]) -> Result<Option<(Sum, Vec<AnTag>)>, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let (mut sum, mut tags) = (Sum::default(), Vec::with_capacity(coins.len()));
        for some in coins.chunks(RECORDS_A_TURN) {
            for &coin in some {
                let Some((an, _)) = self.value(coin).await? else {
                    return Ok(None);
                };
                sum.add(an);
                tags.push(an.tag());
            }
            self.environment.turn().await;
        }
        Ok(Some((sum, tags)))
    }

    /// A coin's AN and months, loading its page where needed; `None` where it is free.
    async fn value(&self, coin: Coin) -> Result<Option<(An, Mfs)>, Unavailable> {
        loop {
            match self.pages.lookup(coin) {
                Lookup::Circulating(an, mfs) => return Ok(Some((an, mfs))),
                Lookup::Free => return Ok(None),
                Lookup::Damaged => return Err(Unavailable),
                Lookup::Unloaded => {
                    let load = Box::pin(self.pages.load(coin.page()));
                    load.await.map_err(|_| Unavailable)?;
                }
            }
        }
    }

    /// Starts the loading of many pages together. They may be gone again when they are looked at,
    /// in a small cache; whoever looks loads them then.
    async fn prefetch(&self, coins: impl Iterator<Item = Coin>) {
        let unloaded = coins.filter(|&coin| self.pages.lookup(coin) == Lookup::Unloaded);
        let mut pages: Vec<PageId> = unloaded.map(Coin::page).collect();
        pages.sort_unstable();
        pages.dedup();
        if pages.len() > 1 {
            let loads = stream::iter(pages).map(|page| self.pages.load(page));
            // A page that cannot be read is met again, by the record that needs it.
            let loaded = loads
                .buffer_unordered(LOADS_PARALLEL)
                .for_each(async |_| ());
            Box::pin(loaded).await;
        }
    }

    /// Changes every coin whose AN is right, each by itself; records of the same coin see each
    /// other in the order they stand in. What passed is durable when this returns.
    async fn exchange(&self, records: &[Exchange]) -> Result<Vec<bool>, Unavailable> {
        let mut coins: Vec<Coin> = records.iter().map(|record| record.coin).collect();
        coins.sort_unstable();
        coins.dedup();
        self.locks
            .acquire(&coins, async || self.environment.turn().await)
            .await;
        let result = self.exchange_held(records, &coins).await;
        self.locks.release(&coins);
        result
    }

    async fn exchange_held(
        &self,
        records: &[Exchange],
        coins: &[Coin],
    ) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let mut values = Vec::with_capacity(coins.len());
        for &coin in coins {
            values.push(self.value(coin).await?);
        }
        let month = self.month();
        let done = exchange(records, coins, &values, month, || self.unknown_an());
        if !done.changes.is_empty() {
            self.commit(&done.changes).await?;
        }
        Ok(done.passed)
    }

    /// An AN that nobody knows, and that marks nothing.
    pub fn unknown_an(&self) -> An {
        loop {
            let mut bytes = [0; An::SIZE];
            self.environment.random(&mut bytes);
            let an = An::new(bytes);
            if !an.is_marked() {
                return an;
            }
        }
    }

    /// A moment after all that this shard knows of and after `others`, which is not given out again:
    /// what the clock says where that is later.
    pub fn next_moment(&self, others: u64) -> u64 {
        let known = self.moment.get().max(others);
        let moment = self.environment.unix_micros().max(known + 1);
        self.moment.set(moment);
        moment
    }

    /// The shard that keeps track of lockers whose keys start with these bytes.
    #[inline]
    pub fn locker_home(&self, prefix: LockerPrefix) -> ShardId {
        locker_home(prefix, self.shards)
    }

    /// The coins under a key that this shard keeps track of, handed to `give` in the order stored;
    /// `None` where they are too many for one go, and nothing was done.
    #[inline]
    pub fn locker_coins_now<T>(
        &self,
        key: &An,
        give: impl FnOnce(&mut dyn Iterator<Item = Coin>) -> T,
    ) -> Option<T> {
        let lockers = self.lockers.borrow();
        (lockers.len(key) <= RECORDS_A_TURN).then(|| give(&mut lockers.coins(key)))
    }

    /// Keys that start with these bytes, of lockers that this shard keeps track of.
    pub fn locker_keys(&self, prefix: LockerPrefix) -> Vec<An> {
        self.lockers.borrow().keys(prefix).collect()
    }

    /// Lockers and what is for sale, of those that this shard keeps track of.
    pub fn locker_counts(&self) -> (IndexCounts, TradeCounts) {
        self.lockers.borrow().counts()
    }

    /// Takes up what a durable change means for this shard's lockers.
    pub fn update_lockers(&self, update: &Update) {
        let moment = self.moment.get().max(update.moment);
        self.moment.set(moment);
        self.lockers.borrow_mut().update(update);
    }

    /// Makes changes of this shard's coins, which the caller holds, durable and then visible.
    async fn commit(&self, changes: &[Change]) -> Result<(), Unavailable> {
        let pages = self.begin(changes.iter().map(|change| change.coin)).await?;
        let Ok(appended) = self.log.append(&pages, changes, &Notes::default()).await else {
            self.give_up(&pages);
            return Err(Unavailable);
        };
        let durable = self.log.durable(&appended).await;
        match durable {
            Ok(()) => self.put(&pages, changes, None),
            Err(_) => self.give_up(&pages),
        }
        self.log.settle(appended);
        durable.map_err(|_| Unavailable)
    }

    /// Loads the pages of these coins (rising) and gives the change a number in each, which keeps
    /// them in memory.
    async fn begin(
        &self,
        coins: impl Iterator<Item = Coin>,
    ) -> Result<Vec<PageSequence>, Unavailable> {
        let mut pages: Vec<PageSequence> = Vec::new();
        for page in coins.map(Coin::page) {
            if pages.last().is_some_and(|last| last.page == page) {
                continue;
            }
            if pages.len() % PAGES_A_TURN == PAGES_A_TURN - 1 {
                self.environment.turn().await;
            }
            let sequence = loop {
                if let Some(sequence) = self.pages.begin(page) {
                    break sequence;
                }
                if Box::pin(self.pages.ready(page)).await.is_err() {
                    self.give_up(&pages);
                    return Err(Unavailable);
                }
            };
            pages.push(PageSequence { page, sequence });
        }
        Ok(pages)
    }

    fn give_up(&self, pages: &[PageSequence]) {
        for page in pages {
            self.pages.give_up(page.page, page.sequence);
        }
    }

    /// Puts durable changes (rising) into their pages: those of coins that changed `together` on
    /// somebody's word, or of each by itself, on its owner's.
    ///
    /// # Panics
    /// When a coin comes out of a locker or goes into one by itself: where it is with others, the locker
    /// is told by whoever runs that.
    pub(super) fn put(
        &self,
        pages: &[PageSequence],
        changes: &[Change],
        together: Option<ChangedBy>,
    ) {
        let is_noted = self.notes_changes.get() && together != Some(ChangedBy::Helpers);
        let now = is_noted.then(|| self.minute());
        let mut changed = self.changed.borrow_mut();
        let mut rest = changes;
        for page in pages {
            let here = rest
                .iter()
                .take_while(|c| c.coin.page() == page.page)
                .count();
            let (these, others) = rest.split_at(here);
            if these.is_empty() {
                // Held for a transaction that left it as it was.
                self.pages.give_up(page.page, page.sequence);
                continue;
            }
            self.pages
                .apply(page.page, page.sequence, these, |coin, old, new| {
                    let is_marked = |an: Option<An>| an.is_some_and(|an| an.is_marked());
                    assert!(
                        together.is_some() || !is_marked(old) && !is_marked(new),
                        "the locker of a coin that changes by itself would not hear of it"
                    );
                    // One that nobody had has no earlier owner with tickets.
                    if let (Some(now), Some(_)) = (now, old) {
                        changed.note(coin, now);
                    }
                });
            rest = others;
        }
        assert!(rest.is_empty(), "a change of a page that was not begun");
    }

    async fn lock(
        &self,
        id: TransactionId,
        coins: Vec<Coin>,
        session: Option<u32>,
    ) -> Result<Locked, Unavailable> {
        self.locks
            .acquire(&coins, async || self.environment.turn().await)
            .await;
        match self.lock_held(&coins, session).await {
            Ok(locked) => {
                let pages = locked.pages.clone();
                self.transactions
                    .borrow_mut()
                    .insert(id, Held { coins, pages });
                Ok(locked)
            }
            Err(unavailable) => {
                self.locks.release(&coins);
                Err(unavailable)
            }
        }
    }

    async fn lock_held(&self, coins: &[Coin], session: Option<u32>) -> Result<Locked, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let mut values = Vec::with_capacity(coins.len());
        for (index, &coin) in coins.iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn().await;
            }
            values.push(self.value(coin).await?);
        }
        let pages = self.begin(coins.iter().copied()).await?;
        let reserved = session.is_none_or(|session| {
            let now = self.environment.monotonic();
            let reservations = self.reservations.borrow();
            pages
                .iter()
                .all(|page| reservations.is_reserved(page.page, session, now))
        });
        Ok(Locked {
            values,
            pages,
            reserved,
            moment: self.moment.get(),
        })
    }

    fn apply(&self, id: TransactionId, changes: &[Change], moment: u64, by: ChangedBy) {
        self.moment.set(self.moment.get().max(moment));
        let held = self.transactions.borrow_mut().remove(&id);
        let held = held.expect("a transaction holds coins before it changes them");
        self.put(&held.pages, changes, Some(by));
        self.locks.release(&held.coins);
    }

    fn release(&self, id: TransactionId) {
        let held = self.transactions.borrow_mut().remove(&id);
        let held = held.expect("a transaction holds coins before it lets them go");
        self.give_up(&held.pages);
        self.locks.release(&held.coins);
    }

    fn own_pages(&self, denomination: Denomination) -> impl Iterator<Item = PageId> {
        let pages = (0..PAGES_PER_DENOMINATION).filter_map(move |n| PageId::new(denomination, n));
        pages.filter(|&page| self.owns(page))
    }

    /// Free serial numbers from the first pages that have some and are nobody else's.
    fn reserve(&self, session: u32, denomination: Denomination, most: usize) -> Vec<SerialNumber> {
        let now = self.environment.monotonic();
        let mut reservations = self.reservations.borrow_mut();
        let mut found = Vec::new();
        for page in self.own_pages(denomination) {
            if found.len() >= most {
                break;
            }
            let circulation = self.pages.circulation(page);
            if self.pages.is_damaged(page)
                || circulation.iter().all(|&word| word == u64::MAX)
                || !reservations.reserve(page, session, now)
            {
                continue;
            }
            let free = (0..crate::coin::COINS_PER_PAGE)
                .filter(|place| circulation[place / 64] >> (place % 64) & 1 == 0)
                .map(|place| page.coin(place).serial_number);
            found.extend(free.take(most - found.len()));
        }
        found
    }

    /// Writes every page with changes that no image on disk has. In the periodic mode the logs are
    /// written first, of all shards, by `flush`.
    ///
    /// # Errors
    /// As the storage gives them; nothing is lost, and the logs are still needed.
    pub async fn checkpoint(
        &self,
        round: u64,
        flush: impl AsyncFn(),
    ) -> io::Result<CheckpointCounts> {
        let periodic = self.durability == Durability::Periodic;
        let durable = async || {
            if periodic {
                flush().await;
            }
        };
        let counts = self.pages.checkpoint(round, durable).await?;
        if self.lockers.borrow_mut().take_changed() {
            let mut cursor = Cursor::start();
            let next = |entries: &mut Vec<Entry>| {
                self.lockers.borrow().entries(&mut cursor, entries);
            };
            let written = self.book.write(&self.environment, round, next, &durable);
            written
                .await
                .inspect_err(|_| self.lockers.borrow_mut().set_changed())?;
        }
        Ok(counts)
    }

    /// The coins under a key that this shard keeps track of, however many there are: as they were at one
    /// moment since the call.
    /// The coins that are called so.
    async fn peek_trade(&self, name: &TradeName, most: usize) -> Reply {
        let as_id = self.lockers.borrow().key_of_public_id(name);
        let count = as_id.map_or(0, |key| self.lockers.borrow().len(&key));
        if count > most {
            return Reply::TooMany(count);
        }
        let of_id = as_id.map(|key| self.lockers.borrow().sale_coins(&key));
        match self.locker_coins(&name.as_key().an(), most - count).await {
            Ok(of_key) => Reply::Named(of_id, of_key),
            Err(more) => Reply::TooMany(count + more),
        }
    }

    /// The coins under a key, in the order stored.
    ///
    /// # Errors
    /// How many they are, where they are more than `most`.
    async fn locker_coins(&self, key: &An, most: usize) -> Result<Vec<Coin>, usize> {
        let within = || match self.lockers.borrow().len(key) {
            count if count > most => Err(count),
            count => Ok(count),
        };
        for _ in 0..LISTING_TRIES {
            let version = self.lockers.borrow().version();
            let (mut coins, mut from) = (Vec::with_capacity(within()?), Place::default());
            loop {
                let next = self.lockers.borrow().stretch(key, from, &mut coins);
                let Some(next) = next else {
                    return Ok(coins);
                };
                from = next;
                self.environment.turn().await;
                if self.lockers.borrow().version() != version {
                    break;
                }
            }
        }
        let mut coins = Vec::with_capacity(within()?);
        coins.extend(self.lockers.borrow().coins(key));
        Ok(coins)
    }

    async fn take_over_lockers(&self, book: &Book) {
        let is_own = |prefix| self.locker_home(prefix) == self.id;
        // Nobody asks yet, so it may be away while others have their turn.
        let none = Lockers::new(public_id_key(&self.secret), TradeSettings::default());
        let mut lockers = self.lockers.replace(none);
        let turn = async || self.environment.turn().await;
        lockers.take_over(book, is_own, turn).await;
        self.lockers.replace(lockers);
    }

    /// Adds to this core's counters.
    pub fn count(&self, add: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        add(&mut counters);
        self.counters.set(counters);
    }
}

/// What a node's public ids are derived with: they stay the same as long as its data folder.
fn public_id_key(secret: &NodeSecret) -> PublicIdKey {
    PublicIdKey::new(secret.derive(b"public ids of trade lockers"))
}

/// Coins with the numbers of their records.
fn numbered(coins: impl Iterator<Item = Coin>) -> impl Iterator<Item = (Coin, usize)> {
    coins.enumerate().map(|(record, coin)| (coin, record))
}

/// Compares with both, so that the time says nothing of which it was.
#[inline]
fn which(real: An, an: An, pan: An) -> Found {
    match (real == an, real == pan) {
        (true, _) => Found::An,
        (false, true) => Found::Pan,
        (false, false) => Found::Neither,
    }
}
