//! One random history: a node runs, clients change coins, the disk fails now and then, the power
//! goes, the node comes back, and everything it holds is compared with what it had said.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::Ipv4Addr,
    ops::AddAssign,
    rc::Rc,
    time::Duration,
};

use futures_util::future::join_all;
use raida::{
    coin::{COINS_PER_PAGE, Coin, Denomination, Mfs, PageId, ShardId, locker_home},
    mesh::{Decision, Mesh},
    shard::{Exchange, KeysOf, NotChanged, Replacement, Sender, Single, Stranger, question},
    store::{
        LOG_FOLDER, PAGE_FOLDER,
        book::Notes,
        log::Durability,
        pages::Lookup,
        record::Change,
        recovery::{Recovered, RecoveryError},
    },
};

use crate::{
    disk::{DiskCounts, Faults},
    model::{self, Model, Value},
    node::{self, Node, Setup, Singles},
    random::Random,
    world::{Cut, SimEnvironment, World},
};

/// November 2026, the month of every change: [`crate::world`] starts there.
const MONTH: Mfs = Mfs::new(45);
const DENOMINATIONS: u64 = 3;
const PAGES: u64 = 4;
const PLACES: u64 = 16;
/// Of a page's coins, those that most requests are about.
const HOT_PLACES: u64 = 4;
/// Steps that a request takes, more or less.
const STEPS_A_REQUEST: u64 = 12;
/// More steps than any run that ends takes.
const STEPS_MAX: u64 = 5_000_000;

/// What happened in a history, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub histories: u64,
    pub starts: u64,
    pub crashes: u64,
    pub periodic_crashes: u64,
    pub crashes_in_recovery: u64,
    pub failed_recoveries: u64,
    pub losses: u64,
    pub refused_losses: u64,
    pub torn_tails: u64,
    pub recovered_changes: u64,
    pub stops: u64,
    pub exchanged: u64,
    pub singles: u64,
    pub chained: u64,
    pub shared: u64,
    pub unchanged: u64,
    pub changed_together: u64,
    pub refused_together: u64,
    pub unavailable: u64,
    pub unavailable_when_full: u64,
    pub exact_answers: u64,
    pub log_batches: u64,
    pub disk: DiskCounts,
}

/// What one history did, to compare with another of the same seed.
pub struct Told {
    pub counts: Counts,
    pub trace: u64,
}

struct History {
    world: Rc<World>,
    model: Rc<RefCell<Model>>,
    counts: Rc<RefCell<Counts>>,
    random: Random,
}

/// Lives through the history of a seed.
///
/// # Errors
/// What the node got wrong.
pub fn live(seed: u64) -> Result<Told, String> {
    let mut random = Random::new(seed);
    let world = World::new(random.next());
    let coins = (0..DENOMINATIONS * PAGES * PLACES).map(coin);
    let mut history = History {
        world,
        model: Rc::new(RefCell::new(Model::new(coins))),
        counts: Rc::default(),
        random,
    };
    let lived = history.live();
    history.world.kill();
    lived?;
    let mut counts = *history.counts.borrow();
    counts.histories = 1;
    counts.disk = history.world.disk.borrow().counts;
    Ok(Told {
        counts,
        trace: history.world.trace(),
    })
}

/// Coins on a few pages of a few denominations, in rising order.
fn coin(index: u64) -> Coin {
    let denomination = Denomination::from_index((index / PLACES / PAGES) as usize * 4);
    let denomination = denomination.expect("there are fifteen");
    let page = PageId::new(denomination, (index / PLACES % PAGES) as u16);
    let page = page.expect("there are a thousand");
    match index % PLACES {
        15 => page.coin(COINS_PER_PAGE - 1),
        place => page.coin(place as usize * 5),
    }
}

impl History {
    fn live(&mut self) -> Result<(), String> {
        for _ in 0..self.random.between(1, 3) {
            let setup = self.draw_setup();
            let node = self.start(&setup)?;
            self.check(&node)?;
            let is_stopped = self.run(node, &setup)?;
            if setup.durability == Durability::Periodic && !is_stopped {
                self.model.borrow_mut().loosen();
                self.counts.borrow_mut().periodic_crashes += 1;
            }
            match is_stopped || self.random.permille(300) {
                true => self.world.kill(),
                false => self.world.fail_power(),
            }
        }
        let setup = self.draw_setup();
        let node = self.start(&setup)?;
        self.check(&node)
    }

    fn draw_setup(&mut self) -> Setup {
        let random = &mut self.random;
        Setup {
            shards: random.between(1, 4) as u16,
            cache_pages: *random.pick(&[1, 1, 2, 3, 100]),
            segment_bytes: *random.pick(&[8_192, 12_288, 16_384, 32_768, 131_072]),
            checkpoint_interval: match random.permille(800) {
                true => Duration::from_micros(random.between(500, 50_000)),
                false => Duration::from_secs(3_600), // on demand alone
            },
            durability: match random.permille(850) {
                true => Durability::Commit,
                false => Durability::Periodic,
            },
            flush_interval: Duration::from_micros(random.between(10, 20_000)),
            // Some operations of this disk take 24 ms, so that it seems dead now and then.
            disk_timeout: match random.permille(300) {
                true => Duration::from_millis(random.between(1, 10)),
                false => Duration::from_secs(10),
            },
        }
    }

    /// Recovers and opens the folder; the power may fail in the middle of that, again and again.
    fn start(&mut self, setup: &Setup) -> Result<Node, String> {
        while self.random.permille(300) {
            if self.random.permille(300) {
                let faults = self.draw_faults();
                self.world.disk.borrow_mut().set_faults(faults);
            }
            let steps = self.random.between(1, 400);
            match self
                .world
                .run(steps, node::recover_folder(self.world.clone()))
            {
                Err(Cut::Steps) => self.counts.borrow_mut().crashes_in_recovery += 1,
                Err(Cut::Hang) => return Err("recovery hangs".to_owned()),
                Ok(Ok(recovered)) => self.examine(&recovered)?,
                Ok(Err(RecoveryError::Io(_))) => self.counts.borrow_mut().failed_recoveries += 1,
                Ok(Err(error)) => return Err(format!("recovery says {error}")),
            }
            match self.random.permille(500) {
                true => self.world.kill(),
                false => self.world.fail_power(),
            }
        }
        if self.random.permille(400)
            && let Some(node) = self.lose_files(setup)?
        {
            return Ok(node);
        }
        loop {
            let recovered = self
                .world
                .run(STEPS_MAX, node::recover_folder(self.world.clone()))
                .map_err(|cut| format!("recovery does not end: {cut:?}"))?
                .map_err(|error| format!("recovery says {error}"))?;
            self.examine(&recovered)?;
            let fails = self.random.permille(50);
            if fails {
                let faults = self.draw_faults();
                self.world.disk.borrow_mut().set_faults(faults);
            }
            let opened = node::open(self.world.clone(), setup.clone(), recovered);
            let opened = self
                .world
                .run(STEPS_MAX, opened)
                .map_err(|cut| format!("opening does not end: {cut:?}"))?;
            self.world.disk.borrow_mut().set_faults(Faults::default());
            match opened {
                Ok(node) => {
                    self.counts.borrow_mut().starts += 1;
                    return Ok(node);
                }
                Err(error) if !fails => return Err(format!("opening says {error}")),
                Err(_) => self.world.kill(),
            }
        }
    }

    /// Takes some files away, or parts of them, and starts. Where that is refused they come back
    /// and there is no node; where it is not, they held nothing that counts, which the caller finds
    /// out.
    fn lose_files(&mut self, setup: &Setup) -> Result<Option<Node>, String> {
        let rest = self.world.disk.borrow().rest();
        let taken = self.take_files_away();
        if taken.is_empty() {
            return Ok(None);
        }
        self.counts.borrow_mut().losses += 1;
        let recovered = self
            .world
            .run(STEPS_MAX, node::recover_folder(self.world.clone()))
            .map_err(|cut| format!("recovery without {taken:?} does not end: {cut:?}"))?;
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(RecoveryError::Lost(_) | RecoveryError::Damaged(_)) => {
                self.counts.borrow_mut().refused_losses += 1;
                self.world.kill();
                self.world.disk.borrow_mut().put_back(rest);
                return Ok(None);
            }
            Err(error) => return Err(format!("recovery without {taken:?} says {error}")),
        };
        let opened = node::open(self.world.clone(), setup.clone(), recovered);
        let opened = self.world.run(STEPS_MAX, opened);
        let node = opened
            .map_err(|cut| format!("opening does not end: {cut:?}"))?
            .map_err(|error| format!("opening says {error}"))?;
        let checked = self.check(&node);
        checked.map_err(|wrong| format!("accepted, though {taken:?} was taken away: {wrong}"))?;
        Ok(Some(node))
    }

    /// Segments for the most part, and now and then something else.
    fn take_files_away(&mut self) -> Vec<String> {
        let mut disk = self.world.disk.borrow_mut();
        let random = &mut self.random;
        let mut names = disk.names(LOG_FOLDER);
        if random.permille(300) {
            names = disk.names(PAGE_FOLDER);
        }
        let often = *random.pick(&[200, 500, 1_000]);
        names.retain(|_| random.permille(often));
        for alone in ["segments", "round"] {
            if disk.exists(alone) && random.permille(100) {
                names.push(alone.to_owned());
            }
        }
        let mut taken = Vec::new();
        for name in names {
            let length = disk.length(&name);
            if random.permille(700) || length == 0 {
                disk.delete(&name);
                taken.push(name);
            } else {
                let left = random.below(length);
                disk.truncate(&name, left);
                taken.push(format!("{name} from byte {left}"));
            }
        }
        taken
    }

    fn examine(&self, recovered: &Recovered) -> Result<(), String> {
        let mut counts = self.counts.borrow_mut();
        counts.torn_tails += recovered.torn;
        counts.recovered_changes += recovered.changes;
        match recovered.faults.first() {
            Some(fault) => Err(format!("recovery finds a fault: {fault}")),
            None => Ok(()),
        }
    }

    /// Lets clients ask the node until the power fails or all is done. Returns whether the node was
    /// stopped in good order.
    fn run(&mut self, node: Node, setup: &Setup) -> Result<bool, String> {
        self.world.disk.borrow_mut().forget_loads();
        if self.random.permille(600) {
            let seed = self.random.next();
            let faults: Vec<Faults> = (0..3).map(|_| self.draw_faults()).collect();
            let weather = weather(self.world.clone(), Random::new(seed), faults);
            self.world.spawn(weather);
        }
        let requests = *self.random.pick(&[3, 10, 30]);
        let clients = self.random.between(1, 6);
        let steps = match self.random.permille(800) {
            true => self.random.between(1, clients * requests * STEPS_A_REQUEST),
            false => STEPS_MAX,
        };
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                let mut random = Random::new(self.random.next());
                let core = random.below(node.meshes.len() as u64) as usize;
                let client = Client {
                    world: self.world.clone(),
                    mesh: node.meshes[core].clone(),
                    singles: node.singles[core].clone(),
                    model: self.model.clone(),
                    counts: self.counts.clone(),
                    random,
                };
                client.run(requests)
            })
            .collect();
        let world = self.world.clone();
        let meshes = node.meshes.clone();
        let (extra, is_stopping) = (self.random.permille(300), self.random.permille(500));
        let is_looking = self.random.permille(500);
        let is_durable = setup.durability == Durability::Commit;
        let model = self.model.clone();
        let coins: Vec<Coin> = model.borrow().coins.iter().map(|c| c.coin).collect();
        let pause = Duration::from_micros(self.random.below(5_000));
        let work = async move {
            if extra {
                let (world, mesh) = (world.clone(), node.meshes[0].clone());
                let checkpoints = node.checkpoints.clone();
                world.clone().spawn(async move {
                    world.sleep(pause).await;
                    for _ in 0..5 {
                        let _ = checkpoints.make(&mesh).await;
                    }
                });
            }
            let answers: Result<Vec<()>, String> = join_all(clients).await.into_iter().collect();
            answers?;
            if is_looking {
                world.disk.borrow_mut().calm();
                let values = read_values(&node.meshes, &coins).await?;
                check_derived(&node.meshes, &coins, &values).await?;
                if is_durable {
                    model.borrow_mut().restart(&values)?;
                }
            }
            if is_stopping {
                world.disk.borrow_mut().calm();
                node.stop().await;
            }
            Ok(())
        };
        let ended = self.world.run(steps, work);
        let batches = meshes.iter().map(|mesh| mesh.shard().log.counts().batches);
        let mut counts = self.counts.borrow_mut();
        counts.log_batches += batches.sum::<u64>();
        for mesh in &meshes {
            let changes = mesh.shard().change_counts();
            counts.shared += changes.shared;
            counts.unchanged += changes.unchanged;
        }
        match ended {
            Err(Cut::Hang) => return Err("requests hang".to_owned()),
            Err(Cut::Steps) => counts.crashes += 1,
            Ok(Err(wrong)) => return Err(wrong),
            Ok(Ok(())) => {
                counts.stops += u64::from(is_stopping);
                if let Some(contradiction) = self.model.borrow().contradiction() {
                    return Err(contradiction);
                }
                return Ok(is_stopping);
            }
        }
        Ok(false)
    }

    fn draw_faults(&mut self) -> Faults {
        let random = &mut self.random;
        let some = [0, 0, 20, 300, 1_000];
        let blocks = self.world.disk.borrow().blocks() as u64;
        Faults {
            read_errors: *random.pick(&some),
            write_errors: *random.pick(&some),
            sync_errors: *random.pick(&some),
            blocks_max: random
                .permille(500)
                .then(|| (blocks + random.below(40)) as usize),
        }
    }

    /// Compares everything that the node holds with what can be.
    fn check(&mut self, node: &Node) -> Result<(), String> {
        let meshes = node.meshes.clone();
        let coins: Vec<Coin> = self.model.borrow().coins.iter().map(|c| c.coin).collect();
        let read = self.world.run(STEPS_MAX, async move {
            let values = read_values(&meshes, &coins).await?;
            check_derived(&meshes, &coins, &values).await?;
            Ok::<_, String>(values)
        });
        let values = read.map_err(|cut| format!("reading does not end: {cut:?}"))??;
        self.model.borrow_mut().restart(&values)
    }
}

/// The disk fails, and is well again.
async fn weather(world: Rc<World>, mut random: Random, faults: Vec<Faults>) {
    for faults in faults {
        let most = *random.pick(&[500, 5_000, 50_000]);
        world.sleep(Duration::from_micros(random.below(most))).await;
        world.disk.borrow_mut().set_faults(faults);
        let most = *random.pick(&[1_000, 20_000, 500_000]);
        world.sleep(Duration::from_micros(random.below(most))).await;
        world.disk.borrow_mut().set_faults(Faults::default());
    }
}

async fn read_values(
    meshes: &[Rc<Mesh<SimEnvironment>>],
    coins: &[Coin],
) -> Result<Vec<Value>, String> {
    let mut values = Vec::with_capacity(coins.len());
    for &coin in coins {
        let shard = meshes[coin.page().owner(meshes.len() as u16).index()].shard();
        let pages = &shard.pages;
        loop {
            // While the disk seems dead, no page is read.
            let moment = shard.stall_changed().moment();
            if shard.is_stalled() {
                shard.stall_changed().after(moment).await;
                continue;
            }
            match pages.lookup(coin) {
                Lookup::Circulating(an, mfs) if mfs == MONTH => {
                    values.push(Some(model::number(an)))
                }
                Lookup::Circulating(_, mfs) => return Err(format!("{coin} is of {mfs:?}")),
                Lookup::Free => values.push(None),
                Lookup::Unloaded => match pages.load(coin.page()).await {
                    Err(fault) if !shard.is_stalled() => return Err(fault.to_string()),
                    _ => continue,
                },
                Lookup::Damaged => return Err(format!("{coin} is on a damaged page")),
            }
            break;
        }
    }
    Ok(values)
}

/// What follows from the values: counts, bitmaps, lockers.
async fn check_derived(
    meshes: &[Rc<Mesh<SimEnvironment>>],
    coins: &[Coin],
    values: &[Value],
) -> Result<(), String> {
    let shards = meshes.len() as u16;
    let mut circulating = vec![[0u32; Denomination::COUNT]; meshes.len()];
    let mut bitmaps: BTreeMap<PageId, [u64; COINS_PER_PAGE / 64]> = BTreeMap::new();
    let mut lockers: Vec<BTreeMap<u128, Vec<Coin>>> = vec![BTreeMap::new(); meshes.len()];
    for (coin, value) in coins.iter().zip(values) {
        let bitmap = bitmaps.entry(coin.page()).or_default();
        let owner = coin.page().owner(shards).index();
        if let Some(value) = value {
            circulating[owner][coin.denomination.index()] += 1;
            bitmap[coin.place() / 64] |= 1 << (coin.place() % 64);
            let an = model::an(*value);
            if an.is_marked() {
                let home = locker_home(an.locker_prefix(), shards).index();
                lockers[home].entry(*value).or_default().push(*coin);
            }
        }
    }
    for (shard, mesh) in meshes.iter().enumerate() {
        let pages = &mesh.shard().pages;
        if pages.circulating() != circulating[shard] {
            return Err(format!("shard {shard} counts {:?}", pages.circulating()));
        }
        for key in lockers.iter().flat_map(|keys| keys.keys()) {
            let prefix = key.to_be_bytes()[..5].try_into().expect("five bytes");
            let keys = question::LockerKeys(prefix, KeysOf::All);
            let found = mesh.ask(ShardId::new(shard as u16), keys).await;
            let found: Vec<u128> = found.into_iter().map(model::number).collect();
            let mut lie = Vec::new();
            let an = model::an(*key);
            mesh.shard()
                .locker_coins_now(&an, |coins| lie.extend(coins));
            lie.sort_unstable();
            let wanted = lockers[shard].get(key);
            if wanted.map_or(&[][..], Vec::as_slice) != lie {
                return Err(format!(
                    "shard {shard} has {lie:?} in {key:x}, not {wanted:?}"
                ));
            }
            let wanted = wanted.is_some();
            if found.contains(key) != wanted || found.len() != usize::from(wanted) {
                return Err(format!("shard {shard} has lockers {found:x?} for {key:x}"));
            }
        }
    }
    for (page, bitmap) in bitmaps {
        let pages = &meshes[page.owner(shards).index()].shard().pages;
        if pages.circulation(page) != bitmap {
            return Err(format!("{page}'s bitmap is wrong"));
        }
    }
    Ok(())
}

/// Someone who changes coins, one request after the other.
struct Client {
    world: Rc<World>,
    mesh: Rc<Mesh<SimEnvironment>>,
    singles: Rc<Singles>,
    model: Rc<RefCell<Model>>,
    counts: Rc<RefCell<Counts>>,
    random: Random,
}

impl Client {
    async fn run(mut self, requests: u64) -> Result<(), String> {
        for _ in 0..requests {
            if self.random.permille(100) {
                let pause = Duration::from_micros(self.random.below(3_000));
                self.world.sleep(pause).await;
            }
            match self.random.below(12) {
                0..=1 => self.detect().await?,
                2..=5 => self.exchange().await?,
                6..=7 => self.chain().await?,
                _ => self.change_together().await?,
            }
        }
        Ok(())
    }

    /// Coins of this draw: most often a few that others want too, now and then most of all.
    fn draw_coins(&mut self) -> Vec<usize> {
        let pages = DENOMINATIONS * PAGES;
        let (few, places) = *self.random.pick(&[
            (1, HOT_PLACES),
            (3, HOT_PLACES),
            (8, HOT_PLACES),
            (40, PLACES),
            (200, PLACES),
        ]);
        let draw = |random: &mut Random| random.below(pages) * PLACES + random.below(places);
        let mut coins: Vec<usize> = (0..few).map(|_| draw(&mut self.random) as usize).collect();
        coins.sort_unstable();
        coins.dedup();
        coins
    }

    async fn detect(&mut self) -> Result<(), String> {
        let mut coins = self.draw_coins();
        let owner = self.owner(coins[0]);
        coins.retain(|&coin| self.owner(coin) == owner);
        let mut glances = Vec::new();
        let mut records = Vec::new();
        for &coin in &coins {
            let glance = self.model.borrow().glance(coin);
            glances.push(glance);
            let an = match self.random.permille(900) {
                true => glance.value.unwrap_or(0),
                false => self.random.wide(),
            };
            records.push((coin, an));
        }
        let asked = records.iter().map(|&(c, an)| (self.coin(c), model::an(an)));
        let detect = question::Detect(asked.collect());
        let Ok(passed) = self.mesh.ask(owner, detect).await else {
            return self.was_unavailable();
        };
        let mut model = self.model.borrow_mut();
        for ((&(coin, an), passed), glance) in records.iter().zip(passed).zip(glances) {
            if passed {
                model.saw(coin, an);
            }
            if model.is_settled(glance, 0) {
                self.counts.borrow_mut().exact_answers += 1;
                if passed != (glance.value == Some(an)) {
                    return Err(format!("detect of {} gives {passed}", self.coin(coin)));
                }
            }
        }
        Ok(())
    }

    async fn exchange(&mut self) -> Result<(), String> {
        let mut coins = self.draw_coins();
        let owner = self.owner(coins[0]);
        coins.retain(|&coin| self.owner(coin) == owner);
        let mut records: Vec<(usize, u128, Value)> = Vec::new();
        for &coin in &coins {
            let mut an = match self.random.permille(900) {
                true => self.model.borrow().coins[coin].current.unwrap_or(1),
                false => self.random.wide(),
            };
            let times = if self.random.permille(150) { 2 } else { 1 };
            for _ in 0..times {
                let becomes = match self.random.permille(850) {
                    false if self.model.borrow_mut().frees_first(coin, an) => None,
                    _ => Some(draw_an(&mut self.random)),
                };
                records.push((coin, an, becomes));
                if self.random.permille(700) {
                    an = becomes.unwrap_or(an);
                }
            }
        }
        // Records of a coin keep their order; coins come in any.
        let turn = self.random.below(coins.len() as u64) as usize;
        let first = records.iter().position(|r| r.0 == coins[turn]);
        records.rotate_left(first.expect("each coin has a record"));
        let (glances, tickets): (Vec<_>, Vec<_>) = {
            let mut model = self.model.borrow_mut();
            let of_coin = |coin: usize| records.iter().filter(move |r| r.0 == coin);
            let glances = coins.iter().map(|&coin| model.glance(coin)).collect();
            let exchange = |&coin: &usize| {
                let changes = of_coin(coin).map(|r| (r.1, r.2)).collect();
                model.exchange(coin, changes)
            };
            (glances, coins.iter().map(exchange).collect())
        };
        let asked = records.iter().map(|&(coin, an, becomes)| Exchange {
            coin: self.coin(coin),
            an: model::an(an),
            becomes: becomes.map_or(Replacement::Free, |an| Replacement::An(model::an(an))),
        });
        let asked: Vec<Exchange> = asked.collect();
        let Ok(passed) = self.ask_exchange(asked).await else {
            for ticket in tickets {
                self.model.borrow_mut().refused(ticket);
            }
            return self.was_unavailable();
        };
        let mut model = self.model.borrow_mut();
        for (ticket, glance) in tickets.into_iter().zip(glances) {
            let of_coin = records
                .iter()
                .zip(&passed)
                .filter(|(r, _)| r.0 == ticket.coin);
            let (asked, told): (Vec<(u128, Value)>, Vec<bool>) =
                of_coin.map(|(r, &passed)| ((r.1, r.2), passed)).unzip();
            let mut counts = self.counts.borrow_mut();
            counts.exchanged += told.iter().filter(|&&passed| passed).count() as u64;
            if model.is_settled(glance, 1) {
                counts.exact_answers += 1;
                if model::try_records(&asked, glance.value).1 != told {
                    let coin = self.coin(ticket.coin);
                    return Err(format!("exchange of {coin} answers {told:?}"));
                }
            }
            model.done(ticket, told);
        }
        Ok(())
    }

    fn sender(&self) -> Sender {
        let key = self.mesh.shard().repeat_key;
        key.sender(Stranger::of(Ipv4Addr::LOCALHOST.into()), true)
    }

    /// Exchanges of one coin, one after the other without waiting for answers.
    async fn chain(&mut self) -> Result<(), String> {
        let random = &mut self.random;
        let coin = random.below(DENOMINATIONS * PAGES) * PLACES + random.below(HOT_PLACES);
        let coin = coin as usize;
        let mut an = self.model.borrow().coins[coin].current.unwrap_or(2) & !1;
        let mut records: Vec<(u128, Value)> = Vec::new();
        for _ in 0..random.between(2, 6) {
            let becomes = match random.below(20) {
                0 if self.model.borrow_mut().frees_first(coin, an) => None,
                0..=3 => Some(an),
                _ => Some(random.wide() & !1),
            };
            // The same again would wait for the first, and be answered as that.
            if records.contains(&(an, becomes)) {
                continue;
            }
            records.push((an, becomes));
            if random.permille(850) {
                an = becomes.unwrap_or(an);
            }
        }
        let (glance, tickets): (_, Vec<_>) = {
            let mut model = self.model.borrow_mut();
            let glance = model.glance(coin);
            let tickets = records
                .iter()
                .map(|&record| model.exchange(coin, vec![record]));
            (glance, tickets.collect())
        };
        let sender = self.sender();
        let had_to_wait = Cell::new(false);
        let asked = records.iter().map(async |&(an, becomes)| {
            let exchange = Exchange {
                coin: self.coin(coin),
                an: model::an(an),
                becomes: becomes.map_or(Replacement::Free, |an| Replacement::An(model::an(an))),
            };
            match self.singles.ask(Single::Exchange(exchange, sender)).await {
                Some(passed) => passed,
                // Somebody else asked for the same, or too much is under way: it loses its turn.
                None => {
                    had_to_wait.set(true);
                    let passed = self.mesh.exchange(vec![exchange]).await;
                    passed.map(|passed| passed[0])
                }
            }
        });
        let answers = join_all(asked).await;
        let mut model = self.model.borrow_mut();
        let mut counts = self.counts.borrow_mut();
        let is_settled = model.is_settled(glance, records.len()) && !had_to_wait.get();
        let mut told = Vec::new();
        for (ticket, answer) in tickets.into_iter().zip(answers) {
            match answer {
                Ok(passed) => {
                    counts.exchanged += u64::from(passed);
                    counts.chained += u64::from(passed);
                    told.push(passed);
                    model.done(ticket, vec![passed]);
                }
                Err(_) => model.refused(ticket),
            }
        }
        if told.len() < records.len() {
            drop(counts);
            return self.was_unavailable();
        }
        if is_settled {
            counts.exact_answers += 1;
            if model::try_records(&records, glance.value).1 != told {
                let coin = self.coin(coin);
                return Err(format!("a chain of exchanges of {coin} answers {told:?}"));
            }
        }
        Ok(())
    }

    /// Asks for exchanges of one shard, without a task where it is a single one that can do so.
    async fn ask_exchange(&mut self, records: Vec<Exchange>) -> Result<Vec<bool>, NotChanged> {
        if let [record] = records[..]
            && !record.is_marked()
            && self.random.permille(700)
            && let Some(passed) = self
                .singles
                .ask(Single::Exchange(record, self.sender()))
                .await
        {
            self.counts.borrow_mut().singles += 1;
            return passed.map(|passed| vec![passed]);
        }
        self.mesh.exchange(records).await
    }

    async fn change_together(&mut self) -> Result<(), String> {
        let indices = self.draw_coins();
        let coins: Vec<Coin> = indices.iter().map(|&coin| self.coin(coin)).collect();
        let (mesh, model) = (self.mesh.clone(), self.model.clone());
        let random = &mut self.random;
        let glances: Vec<_> = indices
            .iter()
            .map(|&coin| model.borrow().glance(coin))
            .collect();
        let mut tickets = Vec::new();
        let mut wrong = None;
        let changed = mesh
            .change_together(&coins, None, |held| {
                let mut model = model.borrow_mut();
                let mut changes = Vec::new();
                let mut decided = Vec::new();
                for ((&index, value), glance) in indices.iter().zip(held.values).zip(&glances) {
                    let old = value.map(|(an, _)| model::number(an));
                    if model.is_settled(*glance, 0) && glance.value != old {
                        wrong = Some(format!("{} is not what it was", coin(index as u64)));
                    }
                    if let Some(old) = old {
                        model.saw(index, old);
                    }
                    let new = match old {
                        Some(_) if random.permille(150) => None,
                        Some(old) => Some(old ^ random.wide()),
                        None => Some(draw_an(random)),
                    };
                    let (an, mfs) = match new {
                        Some(an) => (an, MONTH),
                        None => (random.wide(), Mfs::FREE),
                    };
                    changes.push(Change {
                        coin: coin(index as u64),
                        an: model::an(an),
                        mfs,
                    });
                    decided.push((index, old, new));
                }
                if random.permille(150) {
                    return Decision::Refuse(());
                }
                tickets = model.together(&decided);
                let marked = changes.iter().filter(|change| change.an.is_marked());
                let notes = Notes {
                    ranks: (0..).take(marked.count()).collect(),
                    ..Notes::default()
                };
                Decision::Change(changes, notes)
            })
            .await;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let mut model = model.borrow_mut();
        match changed {
            Ok(Ok(())) => self.counts.borrow_mut().changed_together += 1,
            Ok(Err(())) => self.counts.borrow_mut().refused_together += 1,
            Err(_) => {
                for ticket in tickets {
                    model.refused(ticket);
                }
                drop(model);
                return self.was_unavailable();
            }
        }
        for ticket in tickets {
            model.done(ticket, vec![true]);
        }
        Ok(())
    }

    fn was_unavailable(&self) -> Result<(), String> {
        let mut counts = self.counts.borrow_mut();
        counts.unavailable += 1;
        counts.unavailable_when_full += u64::from(self.world.disk.borrow().is_full());
        Ok(())
    }

    fn coin(&self, index: usize) -> Coin {
        coin(index as u64)
    }

    fn owner(&self, index: usize) -> ShardId {
        self.coin(index).page().owner(self.mesh.shards())
    }
}

/// An AN, now and then a locker's.
fn draw_an(random: &mut Random) -> u128 {
    let an = random.wide();
    match random.permille(200) {
        true => an | 0xffff_ffff,
        false => an & !1,
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.histories += more.histories;
        self.starts += more.starts;
        self.crashes += more.crashes;
        self.periodic_crashes += more.periodic_crashes;
        self.crashes_in_recovery += more.crashes_in_recovery;
        self.failed_recoveries += more.failed_recoveries;
        self.losses += more.losses;
        self.refused_losses += more.refused_losses;
        self.torn_tails += more.torn_tails;
        self.recovered_changes += more.recovered_changes;
        self.stops += more.stops;
        self.exchanged += more.exchanged;
        self.singles += more.singles;
        self.chained += more.chained;
        self.shared += more.shared;
        self.unchanged += more.unchanged;
        self.changed_together += more.changed_together;
        self.refused_together += more.refused_together;
        self.unavailable += more.unavailable;
        self.unavailable_when_full += more.unavailable_when_full;
        self.exact_answers += more.exact_answers;
        self.log_batches += more.log_batches;
        self.disk += more.disk;
    }
}
