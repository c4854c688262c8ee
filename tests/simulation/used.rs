//! What was used stays used: the file of it under random histories of several writers at a time,
//! moments that move on, back and far ahead, a disk that fails or is full, and the power.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use raida::runtime::BLOCK_BYTES;
use raida::store::{
    Thing, Used, UsedFile,
    recovery::Recovered,
    verify::{Report, verify},
};

use crate::{
    damage::{STEPS, recover},
    disk::{Faults, SimStorage},
    node,
    random::Random,
    setting,
    world::{Cut, World},
};

const HISTORIES: u64 = 1_500;
const FILE: &str = "used";
/// More than a block holds.
const MANY: u64 = 260;
/// The moment at which histories start.
const FIRST_MOMENT: u64 = 1_000;

/// A thing, so that it can be looked up.
type Key = (u64, u64);

fn key(thing: &Thing) -> Key {
    (thing.moment, thing.name)
}

/// What the tasks of one history share.
#[derive(Default)]
struct Told {
    /// What anybody tried to remember.
    tried: RefCell<BTreeSet<Key>>,
    /// What is used for good: it was answered, or a start has said so.
    used: RefCell<BTreeSet<Key>>,
    /// Until here everything is used for good.
    until: Cell<u64>,
    under_way: Cell<u64>,
}

#[derive(Default)]
struct Counts {
    remembered: Cell<u64>,
    together: Cell<u64>,
    failed: Cell<u64>,
    crashes: Cell<u64>,
    crashes_in_recovery: Cell<u64>,
    moved_on: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Told {
    /// Checks what a start found; the error says what is wrong with it.
    fn compare(&self, found: &Used) -> Result<(), String> {
        let Used::Known(until, since) = found else {
            return Err("nobody knows what was used".to_owned());
        };
        let (tried, mut used) = (self.tried.borrow(), self.used.borrow_mut());
        let listed = since.len();
        let since: BTreeSet<Key> = since.iter().map(key).collect();
        if since.len() < listed {
            return Err("a thing is listed twice".to_owned());
        }
        let is_used = |thing: &Key| thing.0 <= *until || since.contains(thing);
        if let Some(lost) = used.iter().find(|thing| !is_used(thing)) {
            return Err(format!(
                "{lost:?} is not used any more, but all until {until} and {listed} since"
            ));
        }
        if let Some(new) = since.difference(&tried).next() {
            return Err(format!("nobody used {new:?}"));
        }
        let latest = tried.last().map_or(0, |(moment, _)| *moment);
        if *until > latest || *until < self.until.get() {
            return Err(format!(
                "all is used until {until}, not from {} to {latest}",
                self.until.get()
            ));
        }
        self.until.set(*until);
        used.extend(since);
        Ok(())
    }
}

/// A folder's history.
struct History {
    world: Rc<World>,
    random: Random,
    told: Rc<Told>,
    moment: Rc<Cell<u64>>,
    counts: Rc<Counts>,
}

impl History {
    fn new(seed: u64, counts: &Rc<Counts>) -> History {
        History {
            world: World::new(seed),
            random: Random::new(seed ^ 0x75ed),
            told: Rc::default(),
            moment: Rc::new(Cell::new(FIRST_MOMENT)),
            counts: counts.clone(),
        }
    }

    fn crash(&mut self) {
        match self.random.permille(400) {
            true => self.world.kill(),
            false => self.world.fail_power(),
        }
    }

    /// Recovers, with crashes on the way, and compares.
    fn recover(&mut self) -> Result<Recovered, String> {
        while self.random.permille(300) {
            let steps = self.random.between(1, 120);
            let recovered = node::recover_folder(self.world.clone());
            match self.world.run(steps, recovered) {
                Err(Cut::Steps) => count(&self.counts.crashes_in_recovery),
                Err(Cut::Hang) => return Err("recovery hangs".to_owned()),
                Ok(recovered) => self.told.compare(&recovered.unwrap().used.0)?,
            }
            self.crash();
        }
        let recovered = recover(&self.world).unwrap();
        self.told.compare(&recovered.used.0)?;
        Ok(recovered)
    }

    /// One run of a node: tasks use things until all are through or it crashes.
    fn run(&mut self) -> Result<(), String> {
        let recovered = self.recover()?;
        let (used, version) = &recovered.used;
        let file = Rc::new(UsedFile::new(used.or_until(u64::MAX), *version));
        if self.random.permille(400) {
            let some = [0, 0, 50, 400];
            let mut disk = self.world.disk.borrow_mut();
            let faults = Faults {
                read_errors: 0,
                write_errors: *self.random.pick(&some),
                sync_errors: *self.random.pick(&some),
                blocks_max: self.random.permille(200).then(|| disk.blocks()),
            };
            disk.set_faults(faults);
        }
        let tasks = self.random.between(1, 5);
        let requests = self.random.between(1, 12);
        let work: Vec<_> = (0..tasks)
            .map(|_| {
                let random = Random::new(self.random.next());
                self.work(file.clone(), random, requests)
            })
            .collect();
        let steps = match self.random.permille(800) {
            true => self.random.between(1, tasks * requests * 5),
            false => STEPS,
        };
        let all = async move {
            futures_util::future::join_all(work).await;
        };
        match self.world.run(steps, all) {
            Ok(()) => {}
            Err(Cut::Steps) => count(&self.counts.crashes),
            Err(Cut::Hang) => return Err("a write hangs".to_owned()),
        }
        self.told.under_way.set(0);
        self.crash();
        Ok(())
    }

    /// Uses things, one request after the other.
    fn work(
        &self,
        file: Rc<UsedFile>,
        mut random: Random,
        requests: u64,
    ) -> impl Future<Output = ()> + use<> {
        let (world, told) = (self.world.clone(), self.told.clone());
        let (moment, counts) = (self.moment.clone(), self.counts.clone());
        let storage = SimStorage::new(&self.world);
        async move {
            for _ in 0..requests {
                let things = draw(&mut random, &moment, &told);
                told.tried.borrow_mut().extend(things.iter().map(key));
                told.under_way.set(told.under_way.get() + 1);
                if told.under_way.get() > 1 {
                    count(&counts.together);
                }
                let remembered = file.remember(&storage, &things).await;
                told.under_way.set(told.under_way.get() - 1);
                match remembered {
                    Ok(()) => {
                        told.used.borrow_mut().extend(things.iter().map(key));
                        count(&counts.remembered);
                        if things.len() as u64 >= MANY {
                            count(&counts.moved_on);
                        }
                    }
                    Err(_) => count(&counts.failed),
                }
                if random.permille(300) {
                    let pause = Duration::from_micros(random.below(1_000));
                    world.sleep(pause).await;
                }
            }
        }
    }
}

/// Draws a few things of about now, and seldom more than a block holds.
fn draw(random: &mut Random, moment: &Cell<u64>, told: &Told) -> Vec<Thing> {
    match random.below(100) {
        0..60 => {}
        60..85 => moment.set(moment.get() + 1),
        85..93 => moment.set(moment.get() + random.between(2, 12)),
        93..98 => moment.set(moment.get().saturating_sub(random.between(1, 12))),
        98 => moment.set(moment.get() + random.below(1 << 20)),
        _ => moment.set(moment.get() / 2),
    }
    let count = match random.permille(30) {
        true => MANY,
        false => random.between(1, 4),
    };
    let mut things: Vec<Thing> = (0..count)
        .map(|_| Thing {
            moment: (moment.get() + random.below(3)).saturating_sub(random.below(3)),
            name: random.next(),
        })
        .collect();
    // The same once more, as when a write of it failed.
    if random.permille(100)
        && let Some(&(moment, name)) = told.tried.borrow().last()
    {
        things[0] = Thing { moment, name };
    }
    things
}

fn live(seed: u64, counts: &Rc<Counts>) {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut history = History::new(seed, counts);
        for _ in 0..history.random.between(2, 6) {
            history.run()?;
        }
        history.recover().map(drop)
    }));
    let wrong = match lived {
        Ok(Ok(())) => return,
        Ok(Err(wrong)) => wrong,
        Err(_) => "a panic (above)".to_owned(),
    };
    panic!(
        "history {seed}: {wrong}\nagain: RAIDA_SIMULATION_SEED={seed} cargo test --test simulation used"
    );
}

#[test]
fn what_was_used_stays_used_and_nothing_else_is() {
    let counts = Rc::default();
    if let Some(seed) = setting("RAIDA_SIMULATION_SEED") {
        return live(seed, &counts);
    }
    for seed in 0..HISTORIES {
        live(seed, &counts);
    }
    // In 4,000 histories.
    let least = [
        ("remembered", &counts.remembered, 100_000),
        ("of these, while others were", &counts.together, 100_000),
        ("with more than a block holds", &counts.moved_on, 3_000),
        ("not remembered", &counts.failed, 10_000),
        ("crashes", &counts.crashes, 5_000),
        ("crashes in recovery", &counts.crashes_in_recovery, 2_000),
    ];
    for (what, count, least) in least {
        println!("{} {what}", count.get());
        let least = least * HISTORIES / 4_000;
        assert!(count.get() >= least, "only {} {what}", count.get());
    }
}

fn check(world: &Rc<World>) -> Report {
    let storage = SimStorage::new(world);
    let verified = async move { verify(&storage, |_, _| ()).await };
    world.run(STEPS, verified).unwrap().unwrap()
}

fn used(world: &Rc<World>) -> Used {
    recover(world).unwrap().used.0
}

/// Uses one thing in a run of its own.
fn use_one(world: &Rc<World>, thing: Thing, latest: u64) {
    let recovered = recover(world).unwrap();
    let (used, version) = &recovered.used;
    let file = UsedFile::new(used.or_until(latest), *version);
    let storage = SimStorage::new(world);
    let remembered = async move { file.remember(&storage, &[thing]).await };
    world.run(STEPS, remembered).unwrap().unwrap();
    world.fail_power();
}

/// Each byte of the first sectors of a block, some of the others, and its last ones.
fn bytes_of(block: u64) -> impl Iterator<Item = u64> {
    let length = BLOCK_BYTES as u64;
    let some = (0..64).chain((64..length - 4).step_by(61));
    some.chain(length - 4..length)
        .map(move |byte| block * length + byte)
}

#[test]
fn a_damaged_block_leaves_what_was_used_before_it_and_two_are_told() {
    let world = World::new(1);
    let things = [(10, 1), (10, 2), (11, 3)].map(|(moment, name)| Thing { moment, name });
    things.iter().for_each(|&thing| use_one(&world, thing, 0));
    let known = |until, count: usize| Used::Known(until, things[..count].to_vec());
    assert_eq!(used(&world), known(9, 3));
    // The third version is in the second block.
    let (newer, older) = (1, 0);
    for byte in bytes_of(newer) {
        world.disk.borrow_mut().flip(FILE, byte);
        assert_eq!(used(&world), known(8, 2), "byte {byte}");
        assert_eq!(check(&world).faults, [], "a crash does that too");
        let other = bytes_of(older).nth(byte as usize % 64).unwrap();
        world.disk.borrow_mut().flip(FILE, other);
        assert_eq!(used(&world), Used::Unknown, "bytes {byte}, {other}");
        let report = check(&world);
        assert!(report.can_start);
        assert_eq!(report.faults.len(), 1);
        assert_eq!(report.faults[0].file, FILE);
        world.disk.borrow_mut().flip(FILE, other);
        world.disk.borrow_mut().flip(FILE, byte);
    }
    for byte in bytes_of(older) {
        world.disk.borrow_mut().flip(FILE, byte);
        assert_eq!(used(&world), known(9, 3), "byte {byte}");
        world.disk.borrow_mut().flip(FILE, byte);
    }
    assert_eq!(check(&world).faults, []);
}

#[test]
fn where_nobody_knows_what_was_used_everything_was_from_the_next_use_on() {
    let world = World::new(1);
    let thing = |moment| Thing { moment, name: 7 };
    (10..13).for_each(|moment| use_one(&world, thing(moment), 0));
    for block in 0..2 {
        world
            .disk
            .borrow_mut()
            .flip(FILE, block * BLOCK_BYTES as u64);
    }
    assert_eq!(used(&world), Used::Unknown);
    use_one(&world, thing(501), 500);
    assert_eq!(used(&world), Used::Known(500, vec![thing(501)]));
    use_one(&world, thing(502), 0);
    assert_eq!(used(&world), Used::Known(500, vec![thing(501), thing(502)]));
    assert_eq!(check(&world).faults, []);
}
