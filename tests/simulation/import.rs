//! An import that is cut short anywhere leaves every page as it was or as imported, and the next
//! import does the rest.

use std::{collections::BTreeMap, rc::Rc};

use raida::{
    coin::{An, Mfs, PageId},
    store::{
        PageImage,
        import::{Import, OnConflict, Outcome, import},
        recovery::RecoveryError,
        snapshot::Snapshot,
        verify::{Report, verify},
    },
};

use crate::{
    disk::{Faults, SimStorage},
    node,
    random::Random,
    world::World,
};

const HISTORIES: u64 = 200;
const STEPS_MAX: u64 = 1_000_000;
/// Imports of a history.
const IMPORTS: usize = 4;

/// The pages of a data folder that were ever written.
type Pages = BTreeMap<PageId, Box<PageImage>>;

fn run_import(
    world: &Rc<World>,
    steps: u64,
    input: &Rc<Import>,
) -> Option<Result<Outcome, RecoveryError>> {
    let (storage, input) = (SimStorage::new(world), input.clone());
    let imported = async move {
        let secret = node::secret();
        import(&storage, &secret, &input, OnConflict::Replace, || ()).await
    };
    world.run(steps, imported).ok()
}

fn read(world: &Rc<World>) -> Pages {
    let storage = SimStorage::new(world);
    let read = async move {
        let mut pages = Pages::new();
        let snapshot = Snapshot::open(&storage, &node::secret()).await?;
        let each = |id, image: &PageImage| pages.insert(id, Box::new(image.clone())).is_none();
        snapshot.for_each_page(each).await?;
        Ok::<Pages, RecoveryError>(pages)
    };
    world.run(STEPS_MAX, read).unwrap().unwrap()
}

fn check(world: &Rc<World>) -> Report {
    let storage = SimStorage::new(world);
    let verified = async move { verify(&storage, |_, _| ()).await };
    world.run(STEPS_MAX, verified).unwrap().unwrap()
}

/// Draws an import, and puts it into `pages` too.
fn draw(random: &mut Random, pages: &mut Pages) -> Import {
    let mut input = Import::default();
    for _ in 0..random.between(1, 12) {
        // Of the first and the second denomination, so that two files take part.
        let number = *random.pick(&[0, 1, 2, 5, 9]) + 1_000 * random.below(2);
        let id = PageId::from_index(number as usize).unwrap();
        let page = pages
            .entry(id)
            .or_insert_with(|| node::secret().derive_page(id));
        if random.permille(300) {
            let (an, months) = (random.wide(), random.below(50));
            page.ans.fill(An::new(an.to_be_bytes()));
            page.mfs.fill(Mfs::new(months as u8));
            input.add_page(id, page.clone());
        } else {
            let place = *random.pick(&[0, 1, 1_023]);
            page.ans[place] = An::new(random.wide().to_be_bytes());
            page.mfs[place] = Mfs::new(random.between(1, 50) as u8);
            input.add_coin(id.coin(place), page.ans[place], page.mfs[place]);
        }
    }
    input
}

/// Whether a page is the same. One never written is as good as one that holds what follows from the
/// secret, as recovery writes it over a first image cut short.
fn is_same(id: PageId, one: &Pages, other: &Pages) -> bool {
    let page = |pages: &Pages| match pages.get(&id) {
        Some(image) => image.clone(),
        None => node::secret().derive_page(id),
    };
    let (one, other) = (page(one), page(other));
    one.ans == other.ans && one.mfs == other.mfs
}

fn crash(world: &World, random: &mut Random) {
    match random.permille(500) {
        true => world.kill(),
        false => world.fail_power(),
    }
}

/// Gives how many imports were cut short between two of their pages.
fn live(seed: u64) -> usize {
    let mut halves = 0;
    let world = World::new(seed);
    let mut random = Random::new(seed ^ 0x1a90);
    let mut before = Pages::new();
    for _ in 0..IMPORTS {
        let mut after = before.clone();
        let input = Rc::new(draw(&mut random, &mut after));
        for _ in 0..random.below(6) {
            let some = [0, 0, 20, 300];
            world.disk.borrow_mut().set_faults(Faults {
                read_errors: *random.pick(&some),
                write_errors: *random.pick(&some),
                sync_errors: *random.pick(&some),
                blocks_max: None,
            });
            let steps = random.between(20, 400);
            if let Some(Err(RecoveryError::Damaged(fault))) = run_import(&world, steps, &input) {
                panic!("history {seed}: {fault}");
            }
            crash(&world, &mut random);
            let now = read(&world);
            let (mut old, mut new) = (0, 0);
            for &id in after.keys() {
                match (is_same(id, &now, &before), is_same(id, &now, &after)) {
                    (true, true) => {}
                    (true, false) => old += 1,
                    (false, true) => new += 1,
                    (false, false) => panic!("history {seed}: {id:?} is half imported"),
                }
            }
            halves += usize::from(old > 0 && new > 0);
            let report = check(&world);
            assert!(
                report.faults.is_empty() && report.can_start,
                "history {seed}: {report:?}"
            );
        }
        world.disk.borrow_mut().set_faults(Faults::default());
        let outcome = run_import(&world, STEPS_MAX, &input).unwrap();
        assert!(
            matches!(outcome, Ok(Outcome::Done(_))),
            "history {seed}: {outcome:?}"
        );
        world.fail_power();
        let now = read(&world);
        assert!(now.keys().eq(after.keys()), "history {seed}");
        let same = after.keys().all(|&id| is_same(id, &now, &after));
        assert!(
            same,
            "history {seed}: an import that is done is not all there"
        );
        let report = check(&world);
        assert!(
            report.faults.is_empty() && report.can_start,
            "history {seed}: {report:?}"
        );
        before = after;
    }
    halves
}

#[test]
fn every_page_is_as_it_was_or_as_it_was_to_be() {
    let halves: usize = crate::in_parallel(HISTORIES, live).iter().sum();
    assert!(
        halves > 27,
        "only {halves} imports were cut short half done"
    );
}
