//! Book files that are damaged or gone: a node does not start, and a rebuild saves what it can.

use std::{collections::BTreeSet, rc::Rc};

use raida::store::{
    BOOK_FOLDER,
    book::Stamp,
    rebuild::{Rebuilt, rebuild},
    recovery::{Fault, RecoveryError},
    verify::{Report, verify},
};

use crate::{
    books::{History, Known},
    damage::{STEPS, recover},
    disk::SimStorage,
    node,
    random::Random,
    world::World,
};

/// A folder whose book says something of everything, in the files of several shards, and its
/// history.
fn written(shards: u16) -> History {
    for seed in 0.. {
        let mut history = History::new(seed, &Rc::default());
        history.random = Random::new(7 + seed);
        history.run(shards, STEPS, 60);
        let book = recover(&history.world).unwrap().book;
        history.world.kill();
        if !book.sales.is_empty() && !book.payments.is_empty() && book.coins.len() > 10 {
            return history;
        }
    }
    unreachable!("some seed does it");
}

fn books(world: &World) -> Vec<String> {
    world.disk.borrow().names(BOOK_FOLDER)
}

/// The books that hold something now.
fn whole_books(world: &World) -> Vec<String> {
    let is_whole = |name: &String| {
        world
            .disk
            .borrow()
            .bytes(name, 0, 4_096)
            .starts_with(b"RAIDABOK")
    };
    books(world).into_iter().filter(is_whole).collect()
}

fn newest_book(world: &World) -> String {
    let round = |name: &String| {
        let header = world.disk.borrow().bytes(name, 0, 4_096);
        u64::from_le_bytes(header[16..24].try_into().unwrap())
    };
    whole_books(world).into_iter().max_by_key(round).unwrap()
}

fn refusal(world: &Rc<World>) -> Fault {
    match recover(world) {
        Err(RecoveryError::Damaged(fault)) => fault,
        other => panic!("recovery says {other:?}"),
    }
}

fn check(world: &Rc<World>) -> Report {
    let storage = SimStorage::new(world);
    let verified = async move { verify(&storage, |_, _| ()).await };
    world.run(STEPS, verified).unwrap().unwrap()
}

fn mend(world: &Rc<World>) -> Rebuilt {
    let storage = SimStorage::new(world);
    let rebuilt = async move { rebuild(&storage, &node::secret()).await };
    world.run(STEPS, rebuilt).unwrap().unwrap()
}

#[test]
fn a_flipped_byte_anywhere_in_a_book_keeps_a_node_from_starting() {
    let history = written(2);
    let world = &history.world;
    let name = &newest_book(world);
    let length = 4_096 * 2;
    assert_eq!(world.disk.borrow().bytes(name, length, 4_096), [0; 4_096]);
    for byte in (0..128)
        .chain((128..length).step_by(61))
        .chain([length - 1])
    {
        world.disk.borrow_mut().flip(name, byte);
        let fault = refusal(world);
        let part = if byte < 4_096 { 0 } else { 4_096 };
        assert_eq!((&fault.file, fault.offset), (name, part), "byte {byte}");
        let report = check(world);
        assert!(!report.can_start && report.faults == [fault], "byte {byte}");
        assert_eq!(report.rebuildable, 1);
        world.disk.borrow_mut().flip(name, byte);
    }
    assert_eq!(check(world).faults, []);
    recover(world).unwrap();
}

/// A book's header with another number at this byte, and the checksum that belongs to it.
fn header_with(header: &[u8], numbers: &[(usize, u64)]) -> Vec<u8> {
    let mut header = header[..64].to_vec();
    for (at, number) in numbers {
        header[*at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Where a book's header has its round, its length, and its counts of coins, sales and payments.
const NUMBERS: [usize; 5] = [16, 24, 32, 40, 48];

#[test]
fn a_header_with_absurd_numbers_and_the_right_checksum_is_refused_as_damage() {
    let history = written(2);
    let world = &history.world;
    let before = Known::of(&recover(world).unwrap().book);
    world.kill();
    let name = newest_book(world);
    let header = world.disk.borrow().bytes(&name, 0, 4_096);
    let absurd = |random: &mut Random| match random.below(6) {
        0 => u64::MAX - random.below(4_100),
        1 => (i64::MAX as u64) + 1 - random.below(8_200),
        2 => 1 << random.below(64),
        3 => (1 << 60) + random.below(1 << 20),
        4 => random.below(1 << 20) * 4_096,
        _ => random.next(),
    };
    let singly = NUMBERS.map(|at| [u64::MAX, u64::MAX - 1, 1 << 63].map(|n| vec![(at, n)]));
    let mut random = Random::new(35);
    let mut several = || -> Vec<(usize, u64)> {
        let mut all = NUMBERS.map(|at| (at, absurd(&mut random)));
        // One before the other file's is no damage: that file counts then.
        all[0].1 |= 1 << 40;
        let chosen = random.below(31) + 1;
        let is_chosen = |(bit, _): &(usize, _)| chosen >> bit & 1 == 1;
        let all = all.into_iter().enumerate().filter(is_chosen);
        all.map(|(_, number)| number).collect()
    };
    let several: Vec<_> = (0..100).map(|_| several()).collect();
    for numbers in singly.into_iter().flatten().chain(several) {
        let other = header_with(&header, &numbers);
        if other == header[..64] {
            continue;
        }
        world.disk.borrow_mut().overwrite(&name, &other);
        let fault = refusal(world);
        assert_eq!(fault.file, name, "{numbers:?}: {fault}");
        let report = check(world);
        assert!(!report.can_start && report.faults == [fault], "{numbers:?}");
        assert_eq!(report.rebuildable, 1, "{numbers:?}");
    }
    let rebuilt = mend(world);
    assert!(rebuilt.losses.is_some());
    assert_eq!(Known::of(&recover(world).unwrap().book), before);
}

#[test]
fn absurd_numbers_in_all_headers_are_counted_to_the_end() {
    let mut history = written(3);
    history.run(3, STEPS, 60);
    let world = &history.world;
    for name in books(world) {
        let header = world.disk.borrow().bytes(&name, 0, 4_096);
        let header = match header.starts_with(b"RAIDABOK") {
            true => header,
            false => continue,
        };
        let counts = [(32, u64::MAX), (40, u64::MAX), (48, u64::MAX)];
        let header = header_with(&header, &counts);
        world.disk.borrow_mut().overwrite(&name, &header);
    }
    refusal(world);
    assert!(mend(world).losses.unwrap().is_more);
    recover(world).unwrap();
}

#[test]
fn a_book_that_is_gone_keeps_a_node_from_starting() {
    let history = written(1);
    let world = &history.world;
    for name in books(world) {
        let is_whole = whole_books(world).contains(&name);
        world.disk.borrow_mut().delete(&name);
        let fault = refusal(world);
        assert_eq!(fault.file.strip_prefix("book/1-0-").map(str::len), Some(1));
        assert!(fault.what.contains("missing"), "{fault}");
        assert!(!check(world).can_start, "{name}, {is_whole}");
    }
    let rebuilt = mend(world);
    assert!(rebuilt.losses.unwrap().is_more);
    let book = recover(world).unwrap().book;
    assert!(book.sales.is_empty() && book.payments.is_empty() && !book.coins.is_empty());
    assert!(
        book.coins
            .iter()
            .all(|placed| placed.stamp == Stamp::default())
    );
    assert_eq!(check(world).faults, []);
}

#[test]
fn a_rebuild_saves_every_part_that_can_be_read_and_tells_the_rest() {
    let history = written(3);
    let world = &history.world;
    let before = Known::of(&recover(world).unwrap().book);
    world.kill();
    // The header: every chunk is there all the same.
    let name = whole_books(world).pop().unwrap();
    world.disk.borrow_mut().flip(&name, 20);
    let rebuilt = mend(world);
    assert_eq!(rebuilt.repaired.len(), 1);
    assert!(
        rebuilt.losses.unwrap().is_more,
        "nobody knows how much it had"
    );
    assert_eq!(Known::of(&recover(world).unwrap().book), before);
    world.kill();
    // The only chunk: the older of the two files has one of its own, as it was then.
    let files: BTreeSet<String> = whole_books(world).into_iter().collect();
    for name in &files {
        world.disk.borrow_mut().flip(name, 4_096 + 100);
    }
    let fault = refusal(world);
    assert!(files.contains(&fault.file));
    let losses = mend(world).losses.unwrap();
    assert_eq!(losses.entries.payments, before.payments.len() as u64);
    assert_eq!(losses.entries.sales, before.sales.len() as u64);
    assert!(!losses.is_more);
    let report = check(world);
    assert_eq!((report.faults, report.can_start), (vec![], true));
    assert_eq!(report.lockers.payments, 0);
    assert_eq!(report.lockers.coins, report.lockers.coins_without_order);
    recover(world).unwrap();
}

#[test]
fn a_rebuild_that_is_cut_short_anywhere_can_be_made_again() {
    for steps in 1.. {
        let history = written(1);
        let world = &history.world;
        let before = Known::of(&recover(world).unwrap().book);
        world.kill();
        let name = whole_books(world).pop().unwrap();
        world.disk.borrow_mut().flip(&name, 20);
        let storage = SimStorage::new(world);
        let cut = world.run(steps, async move {
            rebuild(&storage, &node::secret()).await.map(drop)
        });
        let is_done = cut.is_ok();
        world.fail_power();
        match recover(world) {
            Ok(recovered) => assert_eq!(Known::of(&recovered.book), before, "{steps} steps"),
            Err(RecoveryError::Damaged(_)) if !is_done => {
                mend(world);
                assert_eq!(Known::of(&recover(world).unwrap().book), before);
            }
            Err(error) => panic!("after {steps} steps: {error}"),
        }
        if is_done {
            return;
        }
    }
}
