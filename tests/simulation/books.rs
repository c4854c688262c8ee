//! What is remembered beside the pages, under random histories: changes with notes, checkpoints
//! that write books meanwhile, a disk that fails, and the power. After each start the book is that
//! of all changes that were answered, and of the one under way or not.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    rc::Rc,
    time::Duration,
};

use futures_util::future::join_all;
use raida::runtime::Signal;
use raida::{
    coin::{An, Coin, Mfs, PageId, ShardId},
    store::{
        Checkpointed,
        book::{Book, BookFile, Entry, Notes, Payment, PaymentId, Placed, Sale, Stamp},
        log::{Durability, Log, LogSettings},
        pages::Pages,
        record::{Change, PageSequence},
        recovery::Recovered,
    },
};

use crate::{
    damage::recover,
    disk::Faults,
    node,
    random::Random,
    world::{Cut, SimEnvironment, World},
};

const HISTORIES: u64 = 300;
const STEPS_MAX: u64 = 5_000_000;
pub const MONTH: Mfs = Mfs::new(45);

/// What a node knows of coins, sales and payments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Coins in circulation.
    pub coins: BTreeMap<Coin, (Number, Stamp)>,
    pub sales: BTreeMap<Number, (u64, Box<[u8]>)>,
    pub payments: BTreeMap<PaymentId, ([u8; 16], u64)>,
}

pub type Number = [u8; 16];

impl Known {
    fn change(&mut self, changes: &[Change], notes: &Notes) {
        let mut ranks = notes.ranks.iter();
        for change in changes {
            let mut stamp = Stamp::default();
            if change.an.is_marked() {
                let (moment, rank) = (notes.moment, *ranks.next().unwrap());
                stamp = Stamp { moment, rank };
            }
            match change.mfs.is_free() {
                true => self.coins.remove(&change.coin),
                false => self.coins.insert(change.coin, (*change.an.expose(), stamp)),
            };
        }
        if let Some(key) = notes.ended {
            self.sales.remove(key.expose());
        }
        if let Some(sale) = &notes.sale {
            let sold = (sale.moment, sale.address.clone());
            self.sales.insert(*sale.key.expose(), sold);
        }
        if let Some(payment) = notes.payment {
            let used = (payment.digest, payment.moment);
            self.payments.insert(payment.id, used);
        }
    }

    /// As a recovery tells it.
    pub fn of(book: &Book) -> Known {
        let placed = |p: &Placed| (p.coin, (*p.key.expose(), p.stamp));
        let sale = |s: &Sale| (*s.key.expose(), (s.moment, s.address.clone()));
        let payment = |p: &Payment| (p.id, (p.digest, p.moment));
        let known = Known {
            coins: book.coins.iter().map(placed).collect(),
            sales: book.sales.iter().map(sale).collect(),
            payments: book.payments.iter().map(payment).collect(),
        };
        assert_eq!(known.coins.len(), book.coins.len(), "each coin once");
        assert_eq!(known.sales.len(), book.sales.len(), "each sale once");
        assert_eq!(known.payments.len(), book.payments.len());
        let moments = book.coins.iter().map(|placed| placed.stamp.moment);
        let moments = moments.chain(book.sales.iter().map(|sale| sale.moment));
        let mut moments = moments.chain(book.payments.iter().map(|payment| payment.moment));
        assert!(moments.all(|moment| moment <= book.moment));
        known
    }

    fn difference(&self, told: &Known) -> String {
        let mut text = String::new();
        let coins = self.coins.keys().chain(told.coins.keys());
        for coin in coins.collect::<BTreeSet<_>>() {
            let (wanted, told) = (self.coins.get(coin), told.coins.get(coin));
            if wanted != told {
                text += &format!("{coin}: {wanted:?}, told {told:?}\n");
            }
        }
        for key in self
            .sales
            .keys()
            .chain(told.sales.keys())
            .collect::<BTreeSet<_>>()
        {
            let moment = |known: &Known| known.sales.get(key).map(|(moment, _)| *moment);
            let (wanted, told) = (moment(self), moment(told));
            if wanted != told {
                text += &format!("sale under {key:?}: {wanted:?}, told {told:?}\n");
            }
        }
        let (wanted, told) = (self.payments.len(), told.payments.len());
        text + &format!("{wanted} payments, told {told}")
    }

    /// What a recovery has to tell of it.
    fn remembered(&self) -> Known {
        let mut known = self.clone();
        known
            .coins
            .retain(|_, (number, _)| An::new(*number).is_marked());
        known
    }
}

/// One run of a node as far as its store goes.
pub struct Run {
    world: Rc<World>,
    environment: SimEnvironment,
    shards: u16,
    pages: Vec<Pages<SimEnvironment>>,
    logs: Vec<Rc<Log<SimEnvironment>>>,
    books: Vec<BookFile>,
    /// Where something changed since the newest book.
    pub is_stale: Vec<Cell<bool>>,
    round: Cell<u64>,
    known: RefCell<Known>,
    /// What is known once the change under way is done.
    next: RefCell<Option<Known>>,
    moment: Cell<u64>,
    counts: Rc<Counts>,
}

#[derive(Default)]
pub struct Counts {
    changes: Cell<u64>,
    checkpoints: Cell<u64>,
    failed_checkpoints: Cell<u64>,
    crashes: Cell<u64>,
    crashes_in_recovery: Cell<u64>,
    sold: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Run {
    pub async fn open(
        world: Rc<World>,
        recovered: Recovered,
        known: Known,
        shards: u16,
        segment_bytes: u64,
        counts: Rc<Counts>,
    ) -> std::io::Result<Rc<Run>> {
        let environment = SimEnvironment::new(&world);
        let run = world.random(|random| random.next());
        let wanted = Rc::new(Signal::default());
        let (mut pages, mut logs) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let settings = LogSettings {
                shard,
                segment_bytes,
                durability: Durability::Commit,
                flush_interval: Duration::from_millis(1),
                run,
                round: recovered.round,
            };
            let opened = Pages::open(
                &environment,
                ShardId::new(shard),
                shards,
                100,
                node::secret(),
                &recovered.pages,
                wanted.clone(),
            );
            pages.push(opened.await?);
            logs.push(Log::open(environment.clone(), settings, wanted.clone()).await?);
        }
        let books = (0..shards).map(|shard| BookFile::new(ShardId::new(shard), shards));
        Ok(Rc::new(Run {
            world,
            environment,
            shards,
            pages,
            logs,
            books: books.collect(),
            is_stale: (0..shards).map(|_| Cell::new(false)).collect(),
            round: Cell::new(recovered.round),
            known: RefCell::new(known),
            next: RefCell::default(),
            moment: Cell::new(recovered.book.moment),
            counts,
        }))
    }

    /// Changes coins together. Gives whether the log took it.
    pub async fn change(&self, core: usize, mut changes: Vec<Change>, notes: Notes) -> bool {
        changes.sort_by_key(|change| change.coin);
        let mut sequences: Vec<PageSequence> = Vec::new();
        for change in &changes {
            let page = change.coin.page();
            if sequences.last().is_some_and(|last| last.page == page) {
                continue;
            }
            let pages = &self.pages[page.owner(self.shards).index()];
            let sequence = match pages.ready(page).await {
                Ok(()) => pages.begin(page),
                Err(_) => None, // the disk could not be read
            };
            let Some(sequence) = sequence else {
                self.give_up(&sequences);
                return false;
            };
            sequences.push(PageSequence { page, sequence });
        }
        let mut next = self.known.borrow().clone();
        next.change(&changes, &notes);
        *self.next.borrow_mut() = Some(next);
        let log = &self.logs[core];
        let Ok(appended) = log.append(&sequences, &changes, &notes).await else {
            self.next.take();
            self.give_up(&sequences);
            return false;
        };
        if log.durable(&appended).await.is_err() {
            self.next.take();
            self.give_up(&sequences);
            log.settle(appended);
            return false;
        }
        for at in &sequences {
            let of_page = changes
                .iter()
                .filter(|change| change.coin.page() == at.page);
            let of_page: Vec<Change> = of_page.copied().collect();
            let pages = &self.pages[at.page.owner(self.shards).index()];
            pages.apply(at.page, at.sequence, &of_page, |_, _, _| ());
        }
        self.note_stale(&changes, &notes);
        *self.known.borrow_mut() = self.next.take().unwrap();
        log.settle(appended);
        count(&self.counts.changes);
        true
    }

    fn note_stale(&self, changes: &[Change], notes: &Notes) {
        let known = self.known.borrow();
        let old = changes
            .iter()
            .filter_map(|change| known.coins.get(&change.coin));
        let old = old.map(|(number, _)| An::new(*number));
        let new = changes.iter().map(|change| change.an);
        let sold = notes
            .ended
            .into_iter()
            .chain(notes.sale.as_ref().map(|sale| sale.key));
        for key in old.chain(new).chain(sold).filter(An::is_marked) {
            self.is_stale[key.locker_home(self.shards).index()].set(true);
        }
        if let Some(payment) = &notes.payment {
            self.is_stale[self.keeper(&payment.id)].set(true);
        }
    }

    fn give_up(&self, sequences: &[PageSequence]) {
        for at in sequences {
            self.pages[at.page.owner(self.shards).index()].give_up(at.page, at.sequence);
        }
    }

    fn keeper(&self, id: &PaymentId) -> usize {
        usize::from(id[0]) % usize::from(self.shards)
    }

    /// As `mesh::checkpoint`, with books.
    pub async fn checkpoint(&self) -> bool {
        let round = self.round.get() + 1;
        self.round.set(round);
        let marks = join_all(self.logs.iter().map(|log| log.mark())).await;
        let written = (0..self.shards).map(|shard| self.checkpoint_shard(shard, round));
        let left: Option<Vec<Checkpointed>> = join_all(written).await.into_iter().collect();
        let left = left.map(|left| {
            let all = left.iter();
            all.fold(Checkpointed::default(), |all, part| all.and(part))
        });
        for (log, mark) in self.logs.iter().zip(marks) {
            match &left {
                Some(left) => log.recycle(mark, round, left),
                None => log.checkpoint_failed(),
            }
        }
        left.is_some()
    }

    async fn checkpoint_shard(&self, shard: u16, round: u64) -> Option<Checkpointed> {
        let at = usize::from(shard);
        let counts = self.pages[at].checkpoint(round, async || ()).await.ok()?;
        if !self.write_book(shard, round).await {
            return None;
        }
        Some(Checkpointed {
            shards: self.shards,
            books: u64::from(self.books[at].is_written()) << shard,
            ..counts.left
        })
    }

    async fn write_book(&self, shard: u16, round: u64) -> bool {
        let at = usize::from(shard);
        if !self.is_stale[at].replace(false) {
            return true;
        }
        let next = self.tell(shard);
        let book = self.books[at].write(&self.environment, round, next, &async || ());
        let is_written = book.await.is_ok();
        if !is_written {
            self.is_stale[at].set(true);
        }
        is_written
    }

    /// Tells what is remembered of a shard's lockers, a little at a time, while it changes.
    fn tell(&self, shard: u16) -> impl FnMut(&mut Vec<Entry>) {
        let mut cursor = Cursor::Coin(Bound::Unbounded);
        let is_home = move |key: An| key.locker_home(self.shards) == ShardId::new(shard);
        move |entries| {
            let known = self.known.borrow();
            while entries.len() < 3 {
                match cursor {
                    Cursor::Coin(after) => {
                        let mut rest = known.coins.range((after, Bound::Unbounded));
                        let Some((&coin, &(number, stamp))) = rest.next() else {
                            cursor = Cursor::Sale(Bound::Unbounded);
                            continue;
                        };
                        cursor = Cursor::Coin(Bound::Excluded(coin));
                        if An::new(number).is_marked() && is_home(An::new(number)) {
                            entries.push(Entry::Coin(coin, stamp));
                        }
                    }
                    Cursor::Sale(after) => {
                        let mut rest = known.sales.range((after, Bound::Unbounded));
                        let Some((&number, (moment, address))) = rest.next() else {
                            cursor = Cursor::Payment(Bound::Unbounded);
                            continue;
                        };
                        cursor = Cursor::Sale(Bound::Excluded(number));
                        let key = An::new(number);
                        let (moment, address) = (*moment, address.clone());
                        entries.extend(is_home(key).then_some(Entry::Sale(Sale {
                            key,
                            moment,
                            address,
                        })));
                    }
                    Cursor::Payment(after) => {
                        let mut rest = known.payments.range((after, Bound::Unbounded));
                        let Some((&id, &(digest, moment))) = rest.next() else {
                            return;
                        };
                        cursor = Cursor::Payment(Bound::Excluded(id));
                        if self.keeper(&id) == usize::from(shard) {
                            entries.push(Entry::Payment(Payment { id, digest, moment }));
                        }
                    }
                }
            }
        }
    }

    /// Changes coins as lockers and trades do, one request after the other.
    async fn work(self: Rc<Self>, mut random: Random, requests: u64) {
        for _ in 0..requests {
            let core = random.below(self.shards.into()) as usize;
            let (changes, notes) = self.draw(&mut random);
            if !changes.is_empty() && !self.change(core, changes, notes).await {
                self.world.sleep(Duration::from_millis(1)).await;
            }
            if random.permille(100) {
                let pause = Duration::from_micros(random.below(2_000));
                self.world.sleep(pause).await;
            }
        }
    }

    fn draw(&self, random: &mut Random) -> (Vec<Change>, Notes) {
        let known = self.known.borrow();
        let moment = self.moment.get() + random.between(1, 1_000);
        self.moment.set(moment);
        let to = |an: An| {
            move |coin: Coin| Change {
                coin,
                an,
                mfs: MONTH,
            }
        };
        let under = |key: Number| -> Vec<Coin> {
            let coins = known.coins.iter();
            let coins = coins.filter(|(_, (number, _))| *number == key);
            coins.map(|(coin, _)| *coin).collect()
        };
        // Coins under a sale move only when it ends.
        let mut free: Vec<Coin> = (0..random.between(1, 6))
            .map(|_| draw_coin(random))
            .collect();
        free.sort_unstable();
        free.dedup();
        free.retain(|coin| {
            let number = known.coins.get(coin).map(|(number, _)| number);
            number.is_none_or(|number| !known.sales.contains_key(number))
        });
        let mut notes = Notes {
            moment,
            ..Notes::default()
        };
        let sold = match known.sales.len() as u64 {
            0 => None,
            many => known.sales.keys().nth(random.below(many) as usize).copied(),
        };
        let changes: Vec<Change> = match (random.below(10), sold) {
            (0..=3, _) => free.into_iter().map(to(locker_key(random))).collect(),
            (4, _) => {
                let an = An::new(random.wide().to_be_bytes());
                free.into_iter().map(to(an)).collect()
            }
            (5, _) => {
                let mut changes: Vec<Change> = free.into_iter().map(to(An::ZERO)).collect();
                changes.iter_mut().for_each(|change| change.mfs = Mfs::FREE);
                changes
            }
            (8.., Some(sold)) if random.permille(500) => {
                notes.ended = Some(An::new(sold)); // cancelled: back to the seller
                let an = An::new(random.wide().to_be_bytes());
                under(sold).into_iter().map(to(an)).collect()
            }
            (8.., Some(sold)) => {
                count(&self.counts.sold);
                notes.ended = Some(An::new(sold));
                notes.payment = Some(Payment {
                    id: [random.wide().to_be_bytes(); 2]
                        .concat()
                        .try_into()
                        .unwrap(),
                    digest: random.wide().to_be_bytes(),
                    moment,
                });
                under(sold)
                    .into_iter()
                    .map(to(locker_key(random)))
                    .collect()
            }
            _ => {
                let key = trade_key(random);
                let is_new = !known.sales.contains_key(key.expose());
                // Without a sale, now and then: coins that happen to have such a number.
                if is_new && !free.is_empty() && random.permille(800) {
                    notes.sale = Some(Sale {
                        key,
                        moment,
                        address: vec![b'1'; random.below(256) as usize].into(),
                    });
                }
                match is_new {
                    true => free.into_iter().map(to(key)).collect(),
                    false => Vec::new(),
                }
            }
        };
        let marked = changes.iter().filter(|change| change.an.is_marked());
        notes.ranks = (0..marked.count() as u32).rev().collect();
        if notes.ranks.is_empty() && notes.ended.is_none() && random.permille(500) {
            notes = Notes::default(); // nothing to say
        }
        (changes, notes)
    }

    async fn keep_checkpoints(self: Rc<Self>, mut random: Random, most: u64) {
        loop {
            let pause = Duration::from_micros(random.below(most));
            self.world.sleep(pause).await;
            match self.checkpoint().await {
                true => count(&self.counts.checkpoints),
                false => count(&self.counts.failed_checkpoints),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Cursor {
    Coin(Bound<Coin>),
    Sale(Bound<Number>),
    Payment(Bound<PaymentId>),
}

fn draw_coin(random: &mut Random) -> Coin {
    let page = *random.pick(&[0, 1, 1_000, 14_999]);
    let page = PageId::from_index(page).unwrap();
    page.coin(*random.pick(&[0, 1, 2, 700, 1_023]))
}

pub fn locker_key(random: &mut Random) -> An {
    let mut key = [random.below(5) as u8; 16];
    key[12..].fill(0xff);
    An::new(key)
}

pub fn trade_key(random: &mut Random) -> An {
    let mut key = [random.below(4) as u8; 16];
    key[13] = 1;
    key[14..].fill(0xee);
    An::new(key)
}

fn crash(world: &World, random: &mut Random) {
    match random.permille(300) {
        true => world.kill(),
        false => world.fail_power(),
    }
}

/// A folder's history: what its last run knew, and what it would have known after the change under
/// way.
pub struct History {
    pub world: Rc<World>,
    pub random: Random,
    before: Known,
    after: Option<Known>,
    counts: Rc<Counts>,
}

impl History {
    pub fn new(seed: u64, counts: &Rc<Counts>) -> History {
        History {
            world: World::new(seed),
            random: Random::new(seed ^ 0xb00c),
            before: Known::default(),
            after: None,
            counts: counts.clone(),
        }
    }

    /// Recovers, with crashes on the way, and compares.
    fn recover(&mut self) -> Recovered {
        while self.random.permille(400) {
            let steps = self.random.between(1, 500);
            let recovered = node::recover_folder(self.world.clone());
            match self.world.run(steps, recovered) {
                Err(Cut::Steps) => count(&self.counts.crashes_in_recovery),
                Err(Cut::Hang) => panic!("recovery hangs"),
                Ok(recovered) => drop(self.compare(recovered.unwrap())),
            }
            crash(&self.world, &mut self.random);
        }
        let recovered = recover(&self.world).unwrap();
        self.compare(recovered)
    }

    fn compare(&mut self, recovered: Recovered) -> Recovered {
        assert!(recovered.faults.is_empty(), "{:?}", recovered.faults);
        let told = Known::of(&recovered.book);
        let fits = |known: &Known| known.remembered() == told;
        if let Some(after) = self.after.take_if(|after| fits(after)) {
            self.before = after; // it has happened, and may not be undone
        } else {
            let wanted = self.before.remembered();
            assert!(wanted == told, "{}", wanted.difference(&told));
            self.after = None; // nor may it happen any more
        }
        recovered
    }

    pub fn run(&mut self, shards: u16, steps: u64, requests: u64) {
        let recovered = self.recover();
        let segment_bytes = *self.random.pick(&[12_288, 16_384, 65_536]);
        let opened = Run::open(
            self.world.clone(),
            recovered,
            self.before.clone(),
            shards,
            segment_bytes,
            self.counts.clone(),
        );
        let run = self.world.run(STEPS_MAX, opened).unwrap().unwrap();
        if self.random.permille(300) {
            let some = [0, 0, 20, 300];
            self.world.disk.borrow_mut().set_faults(Faults {
                read_errors: 0,
                write_errors: *self.random.pick(&some),
                sync_errors: *self.random.pick(&some),
                blocks_max: None,
            });
        }
        let most = *self.random.pick(&[500, 5_000, 50_000]);
        let checkpoints = run
            .clone()
            .keep_checkpoints(Random::new(self.random.next()), most);
        self.world.spawn(checkpoints);
        let work = run.clone().work(Random::new(self.random.next()), requests);
        match self.world.run(steps, work) {
            Ok(()) => {}
            Err(Cut::Steps) => count(&self.counts.crashes),
            Err(Cut::Hang) => panic!("requests hang"),
        }
        self.before = run.known.borrow().clone();
        self.after = run.next.borrow_mut().take();
        drop(run);
        crash(&self.world, &mut self.random);
    }
}

/// Lives through the history of a seed. Gives how often each of `COUNTED` happened.
fn live(seed: u64) -> [u64; COUNTED.len()] {
    let counts = Rc::<Counts>::default();
    let mut history = History::new(seed, &counts);
    for _ in 0..history.random.between(2, 6) {
        let shards = history.random.between(1, 4) as u16;
        let requests = *history.random.pick(&[5, 40, 150]);
        let steps = match history.random.permille(700) {
            true => history.random.between(1, requests * 40),
            false => STEPS_MAX,
        };
        history.run(shards, steps, requests);
    }
    history.recover();
    [
        &counts.changes,
        &counts.checkpoints,
        &counts.failed_checkpoints,
        &counts.crashes,
        &counts.crashes_in_recovery,
        &counts.sold,
    ]
    .map(Cell::get)
}

/// What happens in a history, and how often it has to in 500 of them together.
const COUNTED: [(&str, u64); 6] = [
    ("changes", 15_000),
    ("checkpoints", 1_500),
    ("checkpoints that failed", 150),
    ("crashes", 300),
    ("crashes in recovery", 150),
    ("purchases", 600),
];

#[test]
fn a_start_knows_what_every_answered_change_said_of_lockers() {
    let counts = crate::in_parallel(HISTORIES, live);
    for (index, (what, least)) in COUNTED.into_iter().enumerate() {
        let count: u64 = counts.iter().map(|of| of[index]).sum();
        let least = least * HISTORIES / 500;
        println!("{count} {what}");
        assert!(count >= least, "only {count} {what}");
    }
}
