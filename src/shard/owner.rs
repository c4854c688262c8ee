use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    io,
    rc::{Rc, Weak},
    time::Duration,
};

use foldhash::fast::FixedState;
use futures_util::stream::{self, StreamExt};

use super::{
    changed::{Changed, FixLook, Now},
    exchange::exchange,
    listed::Listed,
    lockers::{Cursor, IndexCounts, KeysOf, Lockers, Place, TradeCounts, TradeSettings, Update},
    locks::{Crowded, Entered, Locks},
    message::{ChangedBy, Exchange, Locked, Reply, Request, TransactionId},
    offers::Puts,
    questions::{Askers, Questions},
    repeats::{Begun, EndedChange, RepeatKey, Repeats},
    reservations::Reservations,
    single::{ExchangeListener, Singles},
    stall::Stalls,
    stranger::Stranger,
    sum::{Sum, SumSeeds},
    tickets::{ClaimRefused, NotIssued, PoolIsFull, TicketSettings, Tickets},
    used_tickets::{UsedTickets, latest_minute},
};
use crate::{
    coin::{
        An, AnTag, COINS_PER_PAGE, Coin, Denomination, LockerPrefix, Mfs, PAGES_PER_DENOMINATION,
        PageId, SerialNumber, ShardId, locker_home,
    },
    protocol::{
        RaidaId,
        healing::{Found, TicketId},
        key_healing::{Minute, Verdict},
        lockers::{PublicIdKey, TradeName},
    },
    store::{
        Environment, NodeSecret, Signal, Thing, UsedFile,
        book::{Book, BookFile, Entry, Notes},
        log::{Durability, Log, LogSettings, Refusal},
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
    /// How many requests that were carried out it remembers.
    pub repeats_max: usize,
    /// How long the disk may take before it counts as one that does not answer.
    pub disk_timeout: Duration,
}

/// The shard cannot do this now: the disk is full or failing, or a page is damaged. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage cannot do this now")]
pub struct Unavailable;

/// Why a change was not made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// The storage cannot do this now.
    #[error("the storage cannot do this now")]
    Unavailable,
    /// As many changes wait as may: for one of its coins, or for room in the log.
    #[error("too many changes wait already")]
    Crowded,
}

impl From<Unavailable> for NotChanged {
    fn from(_: Unavailable) -> NotChanged {
        NotChanged::Unavailable
    }
}

impl From<Refusal> for NotChanged {
    fn from(refusal: Refusal) -> NotChanged {
        match refusal {
            Refusal::Crowded => NotChanged::Crowded,
            Refusal::Unavailable | Refusal::TooLarge { .. } => NotChanged::Unavailable,
        }
    }
}

/// What a shard's core has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests received by this core.
    pub requests: u64,
    /// Echoes among them.
    pub echoes: u64,
    /// Coins that got a new owner.
    pub coins_powned: u64,
    /// Their worth in the smallest unit: more than 64 bits hold, after 184,467 coins of a million.
    pub value_powned: u128,
    /// Requests that were answered as the same before them.
    pub repeats: u64,
    /// Datagrams that got no answer, since the same was under way.
    pub repeats_unanswered: u64,
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
    /// The month of a second, which is that of the next ones most often.
    pub(super) month: Cell<(u64, Mfs)>,
    /// Notified when a checkpoint would help.
    pub checkpoint_wanted: Rc<Signal>,
    pub(super) durability: Durability,
    pub(super) locks: Locks,
    pub(super) stalls: Stalls,
    pub(super) singles: RefCell<Singles>,
    pub(super) on_exchanged: OnceCell<ExchangeListener>,
    /// For tasks that outlive a call.
    pub(super) myself: Weak<Shard<E>>,
    pub(super) puts: Puts,
    reservations: RefCell<Reservations>,
    lockers: RefCell<Lockers>,
    askers: Askers,
    questions: Questions,
    book: BookFile,
    secret: NodeSecret,
    /// No change that this shard knows of is later.
    moment: Cell<u64>,
    tickets: RefCell<Tickets>,
    used_tickets: RefCell<UsedTickets>,
    used_file: UsedFile,
    changed: RefCell<Changed>,
    listed: RefCell<Listed>,
    notes_changes: Cell<bool>,
    is_failure_told: Cell<bool>,
    transactions: RefCell<HashMap<TransactionId, Held, FixedState>>,
    sum_seeds: SumSeeds,
    /// For sums that are answered at once.
    sum: RefCell<Sum>,
    /// What requests that change something are named with.
    pub repeat_key: RepeatKey,
    pub(super) repeats: RefCell<Repeats>,
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
        let now = now(&environment);
        let latest = latest_minute(now.unix_seconds);
        let mut changed = Changed::new(now);
        for page in PageId::all().filter(|page| page.owner(settings.shards) == settings.id) {
            let summary = &recovered.pages[page.index()];
            if summary.logged == [0; COINS_PER_PAGE / 64] {
                continue;
            }
            let logged = summary.logged_coins(page);
            // Nobody knows when they changed: lately, perhaps.
            changed.note_all(logged, now);
        }
        let used = used.or_until(latest);
        if used.0 > latest && settings.id == ShardId::new(0) {
            tracing::warn!(
                minutes = used.0 - latest,
                "the clock was ahead when a key was healed last, or is behind: no encryption ticket is taken for so long; with a right clock the file `used` can be removed while the node is stopped, 11 minutes after its last fix"
            );
        }
        let sum_seeds = SumSeeds::new(&settings.secret.derive(b"sums"));
        let mut seed = [0; 8];
        environment.random(&mut seed);
        let shard = Rc::new_cyclic(|myself| Shard {
            id: settings.id,
            shards: settings.shards,
            pages,
            log,
            environment,
            counters: Cell::default(),
            month: Cell::new((0, Mfs::at_unix_seconds(0))),
            checkpoint_wanted,
            durability: settings.log.durability,
            locks: Locks::default(),
            stalls: Stalls::new(settings.disk_timeout),
            singles: RefCell::default(),
            on_exchanged: OnceCell::new(),
            myself: myself.clone(),
            puts: Puts::default(),
            reservations: RefCell::default(),
            lockers: RefCell::new(Lockers::new(
                public_id_key(&settings.secret),
                settings.trades,
            )),
            askers: Askers::default(),
            questions: Questions {
                per_address: settings.trades.questions_per_address,
                by_datagram: settings.trades.questions_by_datagram,
            },
            book: BookFile::new(settings.id, settings.shards),
            secret: settings.secret.clone(),
            moment: Cell::new(recovered.book.moment),
            tickets: RefCell::new(Tickets::new(
                settings.tickets,
                settings.id,
                settings.shards,
                u64::from_le_bytes(seed),
            )),
            used_tickets: RefCell::new(UsedTickets::new(settings.tickets.pool, used)),
            used_file: UsedFile::new(used, *version),
            changed: RefCell::new(changed),
            listed: RefCell::new(Listed::new(settings.tickets.lifetime)),
            notes_changes: Cell::new(false),
            is_failure_told: Cell::new(false),
            transactions: RefCell::default(),
            sum_seeds,
            sum: RefCell::new(Sum::new(sum_seeds, 0)),
            repeat_key: RepeatKey::new(&settings.secret.derive(b"repeats")),
            repeats: RefCell::new(Repeats::new(settings.repeats_max)),
        });
        shard.take_over_lockers(&recovered.book).await;
        let owner = Rc::downgrade(&shard);
        shard.log.listen(Box::new(move |tickets, outcome| {
            if let Some(shard) = owner.upgrade() {
                shard.end_singles(tickets, outcome);
            }
        }));
        let watch = Shard::watch_disk(
            shard.environment.clone(),
            settings.disk_timeout,
            Rc::downgrade(&shard),
        );
        shard.environment.spawn(watch);
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
            Request::Numbers(coins) if coins.len() <= RECORDS_A_TURN => {
                let mut numbers = Vec::with_capacity(coins.len());
                match self.numbers_now(coins.iter().copied(), |an| numbers.push(an))? {
                    Ok(()) => Reply::Numbers(numbers),
                    Err(unavailable) => return Some(Err(unavailable)),
                }
            }
            Request::An(coin) => match self.an_now(*coin)? {
                Ok(an) => Reply::An(an),
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
            Request::Newest(coin) => {
                let now = now(&self.environment);
                Reply::Minute(self.changed.borrow().minute(*coin, now))
            }
            Request::LookForFix(coins, came) => Reply::Looked(self.look_for_fix(coins, *came)),
            Request::LockerKeys(prefix, of) => Reply::Keys(self.locker_keys(*prefix, *of)),
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
            Request::FindSale(offer, buyer) => {
                let now = self.environment.monotonic();
                Reply::FoundSale(self.lockers.borrow().find_sale(offer, buyer, now))
            }
            Request::HoldSale(sale, buyer, from) => {
                let now = self.environment.monotonic();
                Reply::Held(self.lockers.borrow_mut().hold(sale, *buyer, *from, now))
            }
            Request::LetSaleGo(sale, buyer) => {
                self.lockers.borrow_mut().let_go(sale, buyer);
                Reply::Done
            }
            Request::EndHolds(payment) => {
                self.lockers.borrow_mut().end_holds(payment);
                Reply::Done
            }
            Request::TakeSale(taker) => {
                let now = self.environment.monotonic();
                Reply::Taken(self.lockers.borrow_mut().take_sale(taker, now))
            }
            Request::GiveBackSale(sale, keep) => {
                let mut lockers = self.lockers.borrow_mut();
                lockers.give_back_sale(sale);
                if let &Some((buyer, from)) = keep {
                    // Where it cannot be kept, it is there for all again.
                    let _ = lockers.hold(sale, buyer, from, self.environment.monotonic());
                }
                Reply::Done
            }
            Request::ListOffers(currency, most) => {
                let now = self.environment.monotonic();
                Reply::OnOffer(self.lockers.borrow().list(*currency, *most, now))
            }
            Request::BeginPayment(buyer) => {
                Reply::Payment(self.lockers.borrow_mut().begin_payment(*buyer))
            }
            Request::UsePayment(buyer) => {
                Reply::Payment(self.lockers.borrow_mut().use_payment(*buyer))
            }
            Request::EndPayment(buyer) => {
                self.lockers.borrow_mut().end_payment(buyer);
                Reply::Done
            }
            Request::BeginQuestion(stranger) => {
                Reply::Is(self.askers.begin(*stranger, self.questions))
            }
            Request::EndQuestion(stranger) => {
                self.askers.end(*stranger);
                Reply::Done
            }
            Request::BeginChange(name, waits) => {
                let now = self.environment.monotonic();
                match self.repeats.borrow_mut().begin(*name, now) {
                    Ok(known) => Reply::Begun(Begun::New(known)),
                    Err(_) if *waits => return None,
                    Err(_) => Reply::Begun(Begun::UnderWay),
                }
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
            Request::Recycle(mark, round, checkpointed) => {
                self.log.recycle(*mark, *round, checkpointed);
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
            Request::Exchange(records) => passed(self.exchange_known(&records).await),
            // Boxed so that an exchange, the most frequent that waits, has not to carry their size.
            request => Box::pin(self.answer_rarely(request)).await,
        }
    }

    async fn answer_rarely(&self, request: Request) -> Result<Reply, Unavailable> {
        Ok(match request {
            Request::Detect(records) => Reply::Passed(self.detect(&records).await?),
            Request::Numbers(coins) => Reply::Numbers(self.numbers(&coins).await?),
            Request::DetectForTicket(records) => {
                let is_right = |(_, an): &(Coin, An), real: An| real == *an;
                Reply::Passed(self.pass_for_ticket(&records, is_right).await?)
            }
            Request::UnchangedForTicket(coins) => {
                let is_same = |(_, tag): &(Coin, AnTag), real: An| real.tag() == *tag;
                Reply::Passed(self.pass_for_ticket(&coins, is_same).await?)
            }
            Request::Find(records) => Reply::Found(self.find(&records).await?),
            Request::An(coin) => Reply::An(self.value(coin).await?.map(|(an, _)| an)),
            Request::Unchanged(coins) => Reply::Passed(self.unchanged(&coins).await?),
            Request::Lock(id, coins, session) => match self.lock(id, coins, session).await {
                Ok(locked) => Reply::Locked(locked),
                Err(NotChanged::Crowded) => Reply::Crowded,
                Err(NotChanged::Unavailable) => return Err(Unavailable),
            },
            Request::Apply(id, changes, moment, by) => {
                self.apply(id, &changes, moment, by);
                Reply::Done
            }
            Request::LockerCoins(key, most) => match self.locker_coins(&key, most).await {
                Ok(coins) => Reply::Coins(coins),
                Err(count) => Reply::TooMany(count),
            },
            Request::PeekTrade(name, most) => self.peek_trade(&name, most).await,
            Request::Seller(name) => {
                Reply::Seller(self.lockers.borrow().seller(&name).map(Box::from))
            }
            Request::AcquirePut(put) => {
                self.check_disk()?;
                match self.puts.acquire(put).await {
                    Ok(()) => Reply::Done,
                    Err(crowded) => {
                        self.crowded(crowded);
                        Reply::Crowded
                    }
                }
            }
            Request::Release(id) => {
                self.release(id);
                Reply::Done
            }
            Request::RememberUsed(tickets) => {
                self.check_disk()?;
                let storage = self.environment.storage();
                let remembered = self.used_file.remember(storage, &tickets);
                let remembered = self.write_other(remembered).await;
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
            Request::BeginChange(name, _) => {
                let now = self.environment.monotonic();
                let begun = self.repeats.borrow_mut().begin(name, now);
                Reply::Begun(match begun {
                    Ok(known) => Begun::New(known),
                    Err(under_way) if under_way.is_crowded() => return Ok(Reply::Crowded),
                    Err(under_way) => Begun::Ended(under_way.outcome().await),
                })
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

    /// Issues a ticket of this shard to somebody for coins whose ANs were right, `count` of them. It
    /// lives from before they were looked at.
    ///
    /// # Errors
    /// As many are issued as there can be, or as this one may have.
    pub fn issue(
        &self,
        before: Duration,
        to: Stranger,
        count: usize,
        coins: impl Iterator<Item = (Coin, AnTag)>,
    ) -> Result<TicketId, NotIssued> {
        let random = |bytes: &mut [u8]| self.environment.random(bytes);
        let mut tickets = self.tickets.borrow_mut();
        tickets.issue(before, to, count, coins, random)
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

    /// Whether it is noted from now on when coins change and which are on tickets, for whoever asks to use
    /// encryption tickets or to fix coins: where nobody can, it need not be.
    pub fn note_changes(&self, is_noted: bool) {
        self.notes_changes.set(is_noted);
        if !is_noted {
            *self.changed.borrow_mut() = Changed::new(now(&self.environment));
        }
    }

    /// A ticket of this node that lives from `since` at most lists these coins, whose ANs were found right in
    /// the same turn: before anything else could change them.
    #[inline]
    pub fn list(&self, since: Duration, coins: impl IntoIterator<Item = Coin>) {
        if self.notes_changes.get() {
            self.listed.borrow_mut().add(coins, since);
        }
    }

    /// What changes are noted at; `None` where they are not.
    #[inline]
    pub(super) fn noted_now(&self) -> Option<Now> {
        self.notes_changes.get().then(|| now(&self.environment))
    }

    /// By which encryption tickets are dated.
    pub fn minute(&self) -> Minute {
        Minute::of_unix_seconds(self.environment.unix_seconds())
    }

    fn use_tickets(&self, coin: Coin, tickets: &[Thing]) -> Result<Vec<Verdict>, PoolIsFull> {
        let now = now(&self.environment);
        let newest = self.changed.borrow().minute(coin, now);
        let is_too_early = |ticket: &Thing| !Minute(ticket.moment).is_good_since(newest);
        let mut used = self.used_tickets.borrow_mut();
        let now = Minute::of_unix_seconds(now.unix_seconds);
        used.use_up(now, coin, tickets, is_too_early)
    }

    /// Whether a fix that came then may change these coins, which it holds. What is refused for being
    /// changed lately, and for nothing else, is remembered: the fix has all the votes that it needs.
    fn look_for_fix(&self, coins: &[Coin], came: Duration) -> Vec<FixLook> {
        let now = self.environment.monotonic();
        let (mut changed, listed) = (self.changed.borrow_mut(), self.listed.borrow());
        let looks = coins.iter().map(|&coin| {
            if listed.has(coin, now) {
                return FixLook::VouchedHere;
            }
            let look = changed.look(coin, came);
            // What is for sale moves only to its buyer, or back.
            let found = self.pages.lookup(coin);
            let is_for_sale = matches!(found, Lookup::Circulating(an, _) if an.is_trade_key());
            if look == FixLook::ChangedLately && !is_for_sale {
                changed.refuse(coin, now);
            }
            look
        });
        looks.collect()
    }

    /// Encryption tickets that are remembered as used.
    pub fn used_ticket_count(&self) -> usize {
        self.used_tickets.borrow().len()
    }

    /// Tickets in the pool, those included that are over and not replaced yet.
    pub fn ticket_count(&self) -> usize {
        self.tickets.borrow().len()
    }

    /// Whether these coins of this shard, so many, are in circulation and their numbers
    /// [prove](Sum::proves) this sum; `None` where a page would have to be loaded.
    pub fn proves_now(
        &self,
        coins: impl Iterator<Item = Coin> + Clone,
        count: usize,
        sum: An,
    ) -> Option<Result<bool, Unavailable>> {
        let mut known = self.sum.borrow_mut();
        known.begin(count);
        let mut all_circulate = true;
        let looked_at = self.numbers_now(coins.clone(), |an| match an {
            Some(an) => known.add(an),
            None => all_circulate = false,
        })?;
        let proves = known.proves(sum) & all_circulate;
        if known.has_equal() {
            // A coin named three times leaves its number in the sum, and is named too often all the
            // same.
            known.begin(count);
            coins.for_each(|coin| known.add_coin(coin));
            return Some(looked_at.map(|()| proves & !known.has_equal()));
        }
        Some(looked_at.map(|()| proves))
    }

    /// An empty sum of this node's.
    pub fn sum_of(&self, room: usize) -> Sum {
        Sum::new(self.sum_seeds, room)
    }

    /// The AN of one of this shard's coins (`None` within where it is free); `None` where its page would
    /// have to be loaded.
    #[inline]
    pub fn an_now(&self, coin: Coin) -> Option<Result<Option<An>, Unavailable>> {
        match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) => Some(Ok(Some(an))),
            Lookup::Free => Some(Ok(None)),
            Lookup::Unloaded => None,
            Lookup::Damaged => Some(Err(Unavailable)),
        }
    }

    /// Gives the ANs of coins in their order (`None` of a free one), as far as memory knows; `None`
    /// where a page would have to be loaded, and what was given does not count.
    fn numbers_now(
        &self,
        coins: impl Iterator<Item = Coin>,
        mut give: impl FnMut(Option<An>),
    ) -> Option<Result<(), Unavailable>> {
        let mut outcome = Some(Ok(()));
        self.pages
            .lookup_all(coins.map(|coin| (coin, ())), |(), found| {
                match found {
                    Lookup::Circulating(an, _) => give(Some(an)),
                    Lookup::Free => give(None),
                    Lookup::Unloaded => outcome = None,
                    Lookup::Damaged => outcome = Some(Err(Unavailable)),
                }
                matches!(outcome, Some(Ok(())))
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
            self.environment.turn_in_line().await;
        }
        Ok(passed)
    }

    /// Which coins pass, each of which is on a ticket from then on.
    async fn pass_for_ticket<T>(
        &self,
        records: &[(Coin, T)],
        is_right: impl Fn(&(Coin, T), An) -> bool,
    ) -> Result<Vec<bool>, Unavailable> {
        self.prefetch(records.iter().map(|(coin, _)| *coin)).await;
        let mut passed = Vec::with_capacity(records.len());
        for some in records.chunks(RECORDS_A_TURN) {
            // Its ticket lives from before it was asked for.
            let since = self.environment.monotonic();
            for record in some {
                let value = self.value(record.0).await?;
                let passes = value.is_some_and(|(real, _)| is_right(record, real));
                if passes {
                    self.list(since, [record.0]);
                }
                passed.push(passes);
            }
            self.environment.turn_in_line().await;
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
            self.environment.turn_in_line().await;
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
            self.environment.turn_in_line().await;
        }
        Ok(passed)
    }

    async fn numbers(&self, coins: &[Coin]) -> Result<Vec<Option<An>>, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let mut numbers = Vec::with_capacity(coins.len());
        for some in coins.chunks(RECORDS_A_TURN) {
            for &coin in some {
                numbers.push(self.value(coin).await?.map(|(an, _)| an));
            }
            self.environment.turn_in_line().await;
        }
        Ok(numbers)
    }

    /// A coin's AN and months, loading its page where needed; `None` where it is free.
    pub(super) async fn value(&self, coin: Coin) -> Result<Option<(An, Mfs)>, Unavailable> {
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

    /// Ends a request that changes something, which [began](Request::BeginChange) here.
    pub fn end_change(&self, ended: EndedChange) {
        let now = self.environment.monotonic();
        self.repeats.borrow_mut().end(ended, now);
    }

    /// Requests that were carried out and are remembered, those included that are too old by now.
    pub fn repeats_kept(&self) -> usize {
        self.repeats.borrow().len()
    }

    /// As [`Shard::exchange`], and several records hold only coins of which one of them says the right
    /// AN: whoever does not know it waits for nobody, and keeps nobody waiting.
    async fn exchange_known(&self, records: &[Exchange]) -> Result<Vec<bool>, NotChanged> {
        if records.len() == 1 {
            return self.exchange(records).await;
        }
        let named: Vec<(Coin, An)> = records.iter().map(|r| (r.coin, r.an)).collect();
        let is_right = self.detect(&named).await?;
        if is_right.iter().all(|is_right| *is_right) {
            return self.exchange(records).await;
        }
        let (kept, known) = known_coins(records, &is_right);
        let mut passed = vec![false; records.len()];
        if !known.is_empty() {
            for (record, of) in kept.into_iter().zip(self.exchange(&known).await?) {
                passed[record] = of;
            }
        }
        Ok(passed)
    }

    /// Changes every coin whose AN is right, each by itself; records of the same coin see each
    /// other in the order they stand in. What passed is durable when this returns.
    async fn exchange(&self, records: &[Exchange]) -> Result<Vec<bool>, NotChanged> {
        let mut by_coin: Vec<(Coin, usize)> = (records
            .iter()
            .enumerate()
            .map(|(number, record)| (record.coin, number)))
        .collect();
        by_coin.sort_unstable();
        self.check_disk()?;
        let stalls = self.stalls.begun();
        let mut coins = Vec::with_capacity(by_coin.len());
        for (index, of_coin) in by_coin.chunk_by(|a, b| a.0 == b.0).enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn_in_line().await;
            }
            let coin = of_coin[0].0;
            let surely_fails = || self.surely_fails_all(coin, of_coin, records);
            if surely_fails() && self.locks.is_free(coin) {
                continue;
            }
            match self.hold_one(coin).await {
                // Who does not know a coin's number does not hold it while waiting for other coins.
                Ok(has_waited) if has_waited && surely_fails() => self.let_go(&[coin]),
                Ok(_) => coins.push(coin),
                Err(crowded) => {
                    self.let_go(&coins);
                    return Err(self.crowded(crowded));
                }
            }
        }
        let result = match self.check_waited(stalls) {
            Ok(()) => self.exchange_held(records, &coins).await,
            Err(unavailable) => Err(unavailable.into()),
        };
        self.let_go(&coins);
        result
    }

    /// Whether memory knows the number of a coin that nobody changes now, and no record names it.
    fn surely_fails_all(
        &self,
        coin: Coin,
        of_coin: &[(Coin, usize)],
        records: &[Exchange],
    ) -> bool {
        match self.pages.lookup(coin) {
            Lookup::Circulating(an, _) => !of_coin.iter().any(|&(_, n)| records[n].an == an),
            Lookup::Free => true,
            Lookup::Unloaded | Lookup::Damaged => false,
        }
    }

    /// Waits until all these coins, rising and each once, are the caller's.
    async fn hold(&self, coins: &[Coin]) -> Result<(), Crowded> {
        for (index, &coin) in coins.iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn_in_line().await;
            }
            if let Err(crowded) = self.hold_one(coin).await {
                self.let_go(&coins[..index]);
                return Err(crowded);
            }
        }
        Ok(())
    }

    /// Gives whether it had to wait.
    async fn hold_one(&self, coin: Coin) -> Result<bool, Crowded> {
        match self.locks.enter_task(coin)? {
            Entered::Held => Ok(false),
            Entered::Waits(task) => {
                self.locks.turn(task).await;
                Ok(true)
            }
        }
    }

    /// Judges records, those of coins that are not among `coins` (rising, held) as wrong.
    async fn exchange_held(
        &self,
        records: &[Exchange],
        coins: &[Coin],
    ) -> Result<Vec<bool>, NotChanged> {
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
        self.note_unchanged(done.unchanged);
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

    /// The oldest keys that start with these bytes, of lockers that this shard keeps track of.
    pub fn locker_keys(&self, prefix: LockerPrefix, of: KeysOf) -> Vec<An> {
        self.lockers.borrow().keys(prefix, of).collect()
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
    pub(super) async fn commit(&self, changes: &[Change]) -> Result<(), NotChanged> {
        let pages = self.begin(changes.iter().map(|change| change.coin)).await?;
        let appended = match self.log.append(&pages, changes, &Notes::default()).await {
            Ok(appended) => appended,
            Err(refusal) => {
                self.give_up(&pages);
                return Err(refusal.into());
            }
        };
        let durable = self.log.durable(&appended).await;
        match durable {
            Ok(()) => self.put(&pages, changes, None, self.noted_now()),
            Err(_) => self.give_up(&pages),
        }
        self.log.settle(appended);
        durable.map_err(NotChanged::from)
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
                self.environment.turn_in_line().await;
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

    /// Puts durable changes (rising) into their pages: those of coins that changed `together`, by a fix or
    /// by something else, or of each by itself. They are noted as of `now`, if they are.
    ///
    /// # Panics
    /// When a coin comes out of a locker or goes into one by itself: where it is with others, the locker
    /// is told by whoever runs that.
    pub(super) fn put(
        &self,
        pages: &[PageSequence],
        changes: &[Change],
        together: Option<ChangedBy>,
        now: Option<Now>,
    ) {
        let mut changed = self.changed.borrow_mut();
        let mut listed = self.listed.borrow_mut();
        let noted = now.map(|now| (now, changed.era(now)));
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
                    // One that nobody had here as well: it may have had an owner elsewhere.
                    if let Some((now, era)) = noted {
                        match together {
                            Some(ChangedBy::Fix) => changed.note_fix(coin, now),
                            Some(ChangedBy::Other) | None => changed.note(coin, era),
                        }
                        listed.remove(coin);
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
    ) -> Result<Locked, NotChanged> {
        self.check_disk()?;
        let stalls = self.stalls.begun();
        let held = self.hold(&coins).await;
        held.map_err(|crowded| self.crowded(crowded))?;
        let locked = match self.check_waited(stalls) {
            Ok(()) => self.lock_held(&coins, session).await,
            Err(unavailable) => Err(unavailable),
        };
        match locked {
            Ok(locked) => {
                let pages = locked.pages.clone();
                self.transactions
                    .borrow_mut()
                    .insert(id, Held { coins, pages });
                Ok(locked)
            }
            Err(unavailable) => {
                self.let_go(&coins);
                Err(unavailable.into())
            }
        }
    }

    async fn lock_held(&self, coins: &[Coin], session: Option<u32>) -> Result<Locked, Unavailable> {
        self.prefetch(coins.iter().copied()).await;
        let mut values = Vec::with_capacity(coins.len());
        for (index, &coin) in coins.iter().enumerate() {
            if index % RECORDS_A_TURN == RECORDS_A_TURN - 1 {
                self.environment.turn_in_line().await;
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
        self.put(&held.pages, changes, Some(by), self.noted_now());
        self.let_go(&held.coins);
    }

    fn release(&self, id: TransactionId) {
        let held = self.transactions.borrow_mut().remove(&id);
        let held = held.expect("a transaction holds coins before it lets them go");
        self.give_up(&held.pages);
        self.let_go(&held.coins);
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
        let mut counts = self.pages.checkpoint(round, durable).await?;
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
        counts.left.shards = self.shards;
        counts.left.books = u64::from(self.book.is_written()) << self.id.index();
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
                self.environment.turn_in_line().await;
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
        let turn = async || self.environment.turn_in_line().await;
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

/// Now, by both clocks.
fn now(environment: &impl Environment) -> Now {
    Now {
        monotonic: environment.monotonic(),
        unix_seconds: environment.unix_seconds(),
    }
}

/// What a node's public ids are derived with: they stay the same as long as its data folder.
fn public_id_key(secret: &NodeSecret) -> PublicIdKey {
    PublicIdKey::new(secret.derive(b"public ids of trade lockers"))
}

fn passed(exchanged: Result<Vec<bool>, NotChanged>) -> Result<Reply, Unavailable> {
    match exchanged {
        Ok(passed) => Ok(Reply::Passed(passed)),
        Err(NotChanged::Crowded) => Ok(Reply::Crowded),
        Err(NotChanged::Unavailable) => Err(Unavailable),
    }
}

/// The records, with their numbers, of coins of which one says the right AN; `is_right` says which do.
/// Another of the same coin may be right after that one.
fn known_coins(records: &[Exchange], is_right: &[bool]) -> (Vec<usize>, Vec<Exchange>) {
    let right = records.iter().zip(is_right);
    let right = right.filter(|(_, is_right)| **is_right);
    let mut coins: Vec<Coin> = right.map(|(record, _)| record.coin).collect();
    coins.sort_unstable();
    let records = records.iter().enumerate();
    let known = records.filter(|(_, record)| coins.binary_search(&record.coin).is_ok());
    known.map(|(number, &record)| (number, record)).unzip()
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
