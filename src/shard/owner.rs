use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    io,
    rc::{Rc, Weak},
    time::Duration,
};

use foldhash::fast::FixedState;

use super::{
    changed::{Changed, Now},
    checkpoints::FlushAll,
    listed::Listed,
    locker_questions::public_id_key,
    lockers::{Lockers, TradeSettings},
    locks::Locks,
    offers::Puts,
    questions::{Askers, Questions},
    repeats::{EndedChange, RepeatKey, Repeats},
    reservations::Reservations,
    single::{ExchangeListener, Singles},
    stall::Stalls,
    sum::{Sum, SumSeeds},
    tickets::{TicketSettings, Tickets},
    transaction::{ChangedBy, Held, TransactionId},
    used_tickets::{UsedTickets, latest_minute},
};
use crate::runtime::{Environment, Signal};
use crate::{
    coin::{An, COINS_PER_PAGE, Coin, Mfs, PageId, ShardId},
    store::{
        NodeSecret, Trouble, UsedFile,
        book::BookFile,
        log::{Durability, Log, LogSettings, Refusal},
        pages::Pages,
        record::{Change, PageSequence},
        recovery::Recovered,
    },
};

/// Records of one request looked at before others get their turn: some 50 µs.
pub const RECORDS_A_TURN: usize = 1_024;

/// Pages brought into memory for one request before others get their turn. One that was never
/// written is made at once, in some 30 µs.
const PAGES_A_TURN: usize = 16;

/// How a shard is set up.
#[derive(Clone)]
pub struct ShardSettings {
    /// Which shard this is.
    pub id: ShardId,
    /// Number of shards.
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

/// The shard cannot do this now: the disk is full or failing, or a page is damaged. Nothing
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage cannot do this now")]
pub struct Unavailable;

/// Why a change was not made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// The storage cannot do this now.
    #[error("the storage cannot do this now")]
    Unavailable,
    /// The maximum number of changes waits already: for one of its coins, or for room in the log.
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
    /// Number of shards.
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
    pub(super) reservations: RefCell<Reservations>,
    pub(super) lockers: RefCell<Lockers>,
    pub(super) askers: Askers,
    pub(super) questions: Questions,
    pub(super) book: BookFile,
    pub(super) secret: NodeSecret,
    /// No change that this shard knows of is later.
    pub(super) moment: Cell<u64>,
    pub(super) tickets: RefCell<Tickets>,
    pub(super) used_tickets: RefCell<UsedTickets>,
    pub(super) used_file: UsedFile,
    pub(super) changed: RefCell<Changed>,
    pub(super) listed: RefCell<Listed>,
    pub(super) notes_changes: Cell<bool>,
    pub(super) is_failure_told: Cell<bool>,
    pub(super) transactions: RefCell<HashMap<TransactionId, Held, FixedState>>,
    pub(super) sum_seeds: SumSeeds,
    /// For sums that are answered at once.
    pub(super) sum: RefCell<Sum>,
    pub(super) flush_all: OnceCell<FlushAll>,
    pub(super) failed_checkpoints: Trouble,
    /// What requests that change something are named with.
    pub repeat_key: RepeatKey,
    pub(super) repeats: RefCell<Repeats>,
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
            // Nobody knows when they changed; it may have been lately.
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
            flush_all: OnceCell::new(),
            failed_checkpoints: Trouble::default(),
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

    /// Ends a request that changes something, which [began](super::question::BeginChange) here.
    pub fn end_change(&self, ended: EndedChange) {
        let now = self.environment.monotonic();
        self.repeats.borrow_mut().end(ended, now);
    }

    /// Requests that were carried out and are remembered, those included that are too old by now.
    pub fn repeats_kept(&self) -> usize {
        self.repeats.borrow().len()
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

    /// A moment after all that this shard knows of and after `others`, which is not given out
    /// again: what the clock says where that is later.
    pub fn next_moment(&self, others: u64) -> u64 {
        let known = self.moment.get().max(others);
        let moment = self.environment.unix_micros().max(known + 1);
        self.moment.set(moment);
        moment
    }

    /// Loads the pages of these coins (rising) and gives the change a number in each, which keeps
    /// them in memory.
    pub(super) async fn begin(
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

    pub(super) fn give_up(&self, pages: &[PageSequence]) {
        for page in pages {
            self.pages.give_up(page.page, page.sequence);
        }
    }

    /// Puts durable changes (rising) into their pages: those of coins that changed `together`, by a
    /// fix or by something else, or of each by itself. They are noted as of `now`, if they are.
    ///
    /// # Panics
    /// When a coin comes out of a locker or goes into one by itself: where it changes with others,
    /// the core that runs the transaction tells the locker.
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
                    // Also for a coin that nobody had here: it may have had an owner elsewhere.
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

    /// Adds to this core's counters.
    pub fn count(&self, add: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        add(&mut counters);
        self.counters.set(counters);
    }
}

/// Now, by both clocks.
pub(super) fn now(environment: &impl Environment) -> Now {
    Now {
        monotonic: environment.monotonic(),
        unix_seconds: environment.unix_seconds(),
    }
}
