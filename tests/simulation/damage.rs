//! Damage that no power failure does: the node names it, and serves nothing from it.

use std::{rc::Rc, time::Duration};

use raida::{
    coin::{An, Coin, Mfs, PageId, ShardId},
    mesh::Decision,
    shard::{NotChanged, question::Detect},
    store::{
        LOG_FOLDER, SLOT_BYTES, Slot,
        book::Notes,
        log::Durability,
        page_file_name,
        pages::Lookup,
        record::Change,
        recovery::{Fault, PageSummary, Recovered, RecoveryError},
        slot_offset,
    },
};

use crate::{
    node::{self, Node, Setup},
    world::World,
};

pub const STEPS: u64 = 1_000_000;
/// Where a log segment's first batch starts.
const FIRST_BATCH: u64 = 4_096;

pub fn setup() -> Setup {
    Setup {
        shards: 1,
        cache_pages: 100,
        segment_bytes: 16_384, // three batches
        checkpoint_interval: Duration::from_secs(3_600),
        durability: Durability::Commit,
        flush_interval: Duration::from_millis(1),
        disk_timeout: Duration::from_secs(10),
    }
}

pub fn coin(page: usize) -> Coin {
    PageId::from_index(page).unwrap().coin(7)
}

pub fn an(number: u8) -> An {
    An::new([number; 16])
}

pub fn recover(world: &Rc<World>) -> Result<Recovered, RecoveryError> {
    let recovered = node::recover_folder(world.clone());
    world.run(STEPS, recovered).unwrap()
}

fn start(world: &Rc<World>) -> Node {
    let recovered = recover(world).unwrap();
    open(world, recovered)
}

fn open(world: &Rc<World>, recovered: Recovered) -> Node {
    let opened = node::open(world.clone(), setup(), recovered);
    world.run(STEPS, opened).unwrap().unwrap()
}

/// Gives a coin an AN.
fn try_change(world: &Rc<World>, node: &Node, coin: Coin, number: u8) -> Result<(), NotChanged> {
    let mesh = node.meshes[0].clone();
    let changed = async move {
        let change = Change {
            coin,
            an: an(number),
            mfs: Mfs::new(45),
        };
        mesh.change_together(&[coin], None, |_| {
            Decision::<()>::Change(vec![change], Notes::default())
        })
        .await
    };
    world.run(STEPS, changed).unwrap().map(|_| ())
}

/// Gives each of these coins an AN, in a batch of its own.
pub fn change(world: &Rc<World>, node: &Node, coins: &[(Coin, u8)]) {
    for &(coin, number) in coins {
        let mesh = node.meshes[0].clone();
        let changed = world.run(STEPS, async move {
            let change = Change {
                coin,
                an: an(number),
                mfs: Mfs::new(45),
            };
            mesh.change_together(&[coin], None, |_| {
                Decision::<()>::Change(vec![change], Notes::default())
            })
            .await
        });
        assert_eq!(changed.unwrap(), Ok(Ok(())));
    }
}

/// A folder of four log segments with ten batches, three in each but the last.
fn logged() -> Rc<World> {
    let world = World::new(1);
    let node = start(&world);
    let coins: Vec<(Coin, u8)> = (0..10).map(|i| (coin(i), i as u8 + 1)).collect();
    change(&world, &node, &coins);
    drop(node);
    world.fail_power();
    world
}

/// The log's segments in the order they were written.
fn segments(world: &World) -> Vec<String> {
    let disk = world.disk.borrow();
    let mut used: Vec<(u64, String)> = Vec::new();
    for name in disk.names(LOG_FOLDER) {
        let head = disk.bytes(&name, 0, 4_096);
        if head.starts_with(b"RAIDALOG") {
            let number = u64::from_le_bytes(head[16..24].try_into().unwrap());
            used.push((number, name));
        }
    }
    used.sort_unstable();
    used.into_iter().map(|(_, name)| name).collect()
}

fn refusal(world: &Rc<World>) -> Fault {
    match recover(world) {
        Err(RecoveryError::Damaged(fault) | RecoveryError::Lost(fault)) => fault,
        other => panic!("recovery says {other:?}"),
    }
}

#[test]
fn a_log_of_several_segments_is_recovered_whole() {
    let world = logged();
    assert_eq!(segments(&world).len(), 4);
    let recovered = recover(&world).unwrap();
    assert_eq!((recovered.changes, recovered.torn), (10, 0));
}

#[test]
fn a_flipped_byte_within_a_log_is_refused_with_its_place() {
    for (segment, batch) in [(0, 0), (0, 1), (1, 1), (2, 0)] {
        for byte in [0, 8, 30, 50] {
            let world = logged();
            let name = segments(&world)[segment].clone();
            let offset = FIRST_BATCH + batch * 4_096;
            world.disk.borrow_mut().flip(&name, offset + byte);
            let fault = refusal(&world);
            assert_eq!((fault.file, fault.offset), (name, offset), "byte {byte}");
        }
    }
}

#[test]
fn a_flipped_byte_in_a_segments_last_batch_is_refused_where_another_segment_follows() {
    let world = logged();
    let name = segments(&world)[1].clone();
    let offset = FIRST_BATCH + 2 * 4_096;
    world.disk.borrow_mut().flip(&name, offset + 50);
    let fault = refusal(&world);
    assert_eq!((fault.file, fault.offset), (name, offset));
}

#[test]
fn a_log_that_is_cut_short_at_its_end_is_recovered_up_to_there() {
    let world = logged();
    let last = segments(&world)[3].clone();
    world.disk.borrow_mut().flip(&last, FIRST_BATCH + 50);
    let recovered = recover(&world).unwrap();
    assert_eq!((recovered.changes, recovered.torn), (9, 1));
}

#[test]
fn a_segment_missing_in_the_middle_is_refused() {
    let world = logged();
    let names = segments(&world);
    world.disk.borrow_mut().delete(&names[1]);
    let Err(RecoveryError::Damaged(fault)) = recover(&world) else {
        panic!("a log with a gap");
    };
    assert_eq!((fault.file, fault.offset), (names[2].clone(), 0));
    assert!(fault.what.contains("segment 1"), "{}", fault.what);
}

fn lost(world: &Rc<World>) -> Fault {
    match recover(world) {
        Err(RecoveryError::Lost(fault)) => fault,
        other => panic!("recovery says {other:?}"),
    }
}

#[test]
fn a_segment_that_is_missing_or_cut_short_at_either_end_of_a_log_is_named() {
    for segment in [0, 3] {
        let world = logged();
        let name = segments(&world)[segment].clone();
        let rest = world.disk.borrow().rest();
        world.disk.borrow_mut().delete(&name);
        assert_eq!(lost(&world).file, name);
        // Nothing was changed by the attempt.
        world.disk.borrow_mut().put_back(rest);
        assert_eq!(recover(&world).unwrap().changes, 10);

        let world = logged();
        let name = segments(&world)[segment].clone();
        let length = world.disk.borrow().length(&name);
        assert!(world.disk.borrow_mut().truncate(&name, length - 4_096));
        // Where another follows, the batch that is cut shows first.
        let fault = match (segment, recover(&world)) {
            (0, Err(RecoveryError::Damaged(fault))) | (3, Err(RecoveryError::Lost(fault))) => fault,
            (_, other) => panic!("recovery says {other:?}"),
        };
        assert_eq!((fault.file, fault.offset), (name, length - 4_096));
    }
}

#[test]
fn a_missing_folder_of_logs_is_named_and_what_tells_of_it_as_well() {
    let world = logged();
    for name in segments(&world) {
        world.disk.borrow_mut().delete(&name);
    }
    assert!(lost(&world).file.starts_with("log/"));

    let world = logged();
    world.disk.borrow_mut().delete("segments");
    assert_eq!(lost(&world).file, "segments");
    world.disk.borrow_mut().delete("round");
    assert_eq!(lost(&world).file, "segments");
    let world = logged();
    world.disk.borrow_mut().truncate("segments", 8_192);
    let fault = lost(&world);
    assert_eq!((fault.file.as_str(), fault.offset), ("segments", 8_192));
    let world = logged();
    world.disk.borrow_mut().delete("round");
    assert_eq!(lost(&world).file, "round");
    let world = checkpointed(false);
    world.disk.borrow_mut().delete("segments");
    world.disk.borrow_mut().delete("round");
    assert_eq!(lost(&world).file, "round");
}

#[test]
fn page_files_that_a_checkpoint_wrote_are_missed_once_the_log_is_written_over() {
    let world = World::new(3);
    let node = start(&world);
    for round in 0..10 {
        change(&world, &node, &[(coin(0), round + 1)]);
        let (mesh, checkpoints) = (node.meshes[0].clone(), node.checkpoints.clone());
        let made = async move { checkpoints.make(&mesh).await };
        world.run(STEPS, made).unwrap().unwrap();
        change(&world, &node, &[(coin(1), round + 1), (coin(2), round + 1)]);
    }
    drop(node);
    world.fail_power();
    let name = page_file_name(coin(0).page().denomination());
    world.disk.borrow_mut().delete(&name);
    assert_eq!(lost(&world).file, name);
}

#[test]
fn nobody_misses_a_log_whose_changes_a_stop_has_put_into_the_pages() {
    let world = World::new(4);
    let node = start(&world);
    change(&world, &node, &[(coin(0), 1), (coin(1), 2)]);
    world.run(STEPS, async move { node.stop().await }).unwrap();
    world.kill();
    for name in segments(&world) {
        world.disk.borrow_mut().delete(&name);
    }
    let node = start(&world);
    let want = Lookup::Circulating(an(2), Mfs::new(45));
    assert_eq!(value(&world, &node, coin(1)), want);
}

#[test]
fn an_accepted_loss_leaves_what_the_other_segments_have_and_is_over_then() {
    for segment in 0..4 {
        let world = logged();
        let name = segments(&world)[segment].clone();
        world.disk.borrow_mut().delete(&name);
        let accepting = node::recover_accepting_loss(world.clone());
        let recovered = world.run(STEPS, accepting).unwrap().unwrap();
        let left = if segment == 3 { 9 } else { 7 };
        assert_eq!(recovered.changes, left, "without segment {segment}");
        assert!(recovered.accepted.iter().any(|fault| fault.file == name));
        world.fail_power();
        let again = recover(&world).unwrap();
        assert_eq!((again.changes, again.accepted.len()), (0, 0));
    }
    let world = logged();
    let name = segments(&world)[2].clone();
    world.disk.borrow_mut().flip(&name, 20);
    let accepting = node::recover_accepting_loss(world.clone());
    let recovered = world.run(STEPS, accepting).unwrap().unwrap();
    assert_eq!(recovered.changes, 7);
    world.kill();
    assert_eq!(recover(&world).unwrap().changes, 0);
}

#[test]
fn a_segment_that_is_taken_away_under_a_node_stops_changes_and_loses_nothing_that_was_answered() {
    for is_moved in [false, true] {
        let world = World::new(5);
        let node = start(&world);
        change(&world, &node, &[(coin(0), 1), (coin(1), 2)]);
        for name in segments(&world) {
            let mut disk = world.disk.borrow_mut();
            match is_moved {
                true => disk.rename(&name, &format!("away/{name}")),
                false => disk.delete(&name),
            }
        }
        if is_moved {
            let looks = world.clone();
            let looks = async move { looks.sleep(Duration::from_secs(1)).await };
            world.run(STEPS, looks).unwrap();
        }
        assert!(try_change(&world, &node, coin(0), 9).is_err());
        let want = |number| Lookup::Circulating(an(number), Mfs::new(45));
        assert_eq!(value(&world, &node, coin(0)), want(1), "reads go on");
        let (mesh, checkpoints) = (node.meshes[0].clone(), node.checkpoints.clone());
        let made = async move { checkpoints.make(&mesh).await };
        world.run(STEPS, made).unwrap().unwrap();
        assert!(try_change(&world, &node, coin(0), 9).is_err());
        let looks = world.clone();
        let looks = async move { looks.sleep(Duration::from_secs(1)).await };
        world.run(STEPS, looks).unwrap();
        drop(node);
        world.fail_power();
        let node = start(&world);
        assert_eq!(value(&world, &node, coin(0)), want(1));
        assert_eq!(value(&world, &node, coin(1)), want(2));
        change(&world, &node, &[(coin(0), 3)]);
    }
}

#[test]
fn a_page_file_that_is_taken_away_under_a_node_fails_checkpoints_and_keeps_the_log() {
    let world = World::new(6);
    let node = start(&world);
    change(&world, &node, &[(coin(0), 1), (coin(1), 2)]);
    let name = page_file_name(coin(0).page().denomination());
    world.disk.borrow_mut().rename(&name, "away");
    let (mesh, checkpoints) = (node.meshes[0].clone(), node.checkpoints.clone());
    let made = async move { checkpoints.make(&mesh).await };
    assert!(world.run(STEPS, made).unwrap().is_err());
    drop(node);
    world.kill();
    assert_eq!(recover(&world).unwrap().changes, 2);
}

#[test]
fn a_damaged_segment_header_is_refused_whichever_copy_it_is_in() {
    for byte in [3, 20, 512 + 3, 512 + 20] {
        let world = logged();
        let name = segments(&world)[2].clone();
        world.disk.borrow_mut().flip(&name, byte);
        let fault = refusal(&world);
        assert_eq!((fault.file, fault.offset), (name, 0), "byte {byte}");
    }
}

/// A folder whose pages were written by three checkpoints. With `in_use`, a log is in use that
/// changes page 0 alone.
fn checkpointed(in_use: bool) -> Rc<World> {
    let world = World::new(2);
    for round in 0..3 {
        let node = start(&world);
        change(
            &world,
            &node,
            &[
                (coin(0), 10 + round),
                (coin(1), 20 + round),
                (coin(2), 30 + round),
            ],
        );
        world.run(STEPS, async move { node.stop().await }).unwrap();
        world.kill();
    }
    // Once more, so that the logs are given up.
    let node = start(&world);
    if in_use {
        change(&world, &node, &[(coin(0), 99)]);
    }
    drop(node);
    world.fail_power();
    world
}

/// Where a page's newest image starts.
fn newest(world: &World, page: PageId) -> (String, u64) {
    let name = page_file_name(page.denomination());
    let round = |slot| {
        let head = world
            .disk
            .borrow()
            .bytes(&name, slot_offset(page, slot), 4_096);
        u64::from_le_bytes(head[24..32].try_into().unwrap())
    };
    let slot = match round(Slot::A) > round(Slot::B) {
        true => Slot::A,
        false => Slot::B,
    };
    (name.clone(), slot_offset(page, slot))
}

fn value(world: &Rc<World>, node: &Node, coin: Coin) -> Lookup {
    let mesh = node.meshes[0].clone();
    world
        .run(STEPS, async move {
            let pages = &mesh.shard().pages;
            let _ = pages.load(coin.page()).await;
            pages.lookup(coin)
        })
        .unwrap()
}

fn is_served(world: &Rc<World>, node: &Node, coin: Coin) -> bool {
    let mesh = node.meshes[0].clone();
    let asked = async move {
        let detect = Detect(vec![(coin, an(1))]);
        mesh.ask(ShardId::new(0), detect).await.is_ok()
    };
    world.run(STEPS, asked).unwrap()
}

#[test]
fn a_flipped_byte_in_a_page_is_named_and_the_page_alone_not_served() {
    let page = coin(1).page();
    for in_use in [false, true] {
        for byte in [0, 20, 300, 511, 512, 3_072 + 7, 4_095, 4_096, 4_208, 20_479] {
            let world = checkpointed(in_use);
            let (file, offset) = newest(&world, page);
            assert!(byte < SLOT_BYTES as u64);
            world.disk.borrow_mut().flip(&file, offset + byte);
            let recovered = recover(&world).unwrap();
            // The ANs are looked at when they are needed.
            let found = recovered.faults.first().cloned();
            assert_eq!(found.is_some(), byte < 4_096, "byte {byte}, {in_use}");
            if let Some(fault) = found {
                assert_eq!((fault.file, fault.offset), (file.clone(), offset));
            }
            let node = open(&world, recovered);
            assert_eq!(value(&world, &node, coin(1)), Lookup::Damaged);
            assert!(!is_served(&world, &node, coin(1)));
            let last = if in_use { 99 } else { 12 };
            let want = |number| Lookup::Circulating(an(number), Mfs::new(45));
            assert_eq!(value(&world, &node, coin(0)), want(last));
            assert_eq!(value(&world, &node, coin(2)), want(32));
            let mesh = node.meshes[0].clone();
            let load = async move { mesh.shard().pages.load(page).await };
            let fault = world.run(STEPS, load).unwrap().unwrap_err();
            assert_eq!(fault.file, file);
            drop(node);
            world.kill();
        }
    }
}

#[test]
fn a_damaged_page_that_the_log_changes_stops_the_start() {
    for byte in [20, 3_500, 5_000] {
        let world = checkpointed(true);
        let (file, offset) = newest(&world, coin(0).page());
        world.disk.borrow_mut().flip(&file, offset + byte);
        let fault = refusal(&world);
        assert_eq!(fault.file, file);
        assert_eq!(fault.offset / 4_096, (offset + byte) / 4_096);
    }
}

#[test]
fn a_second_recovery_finds_what_the_first_left() {
    let world = logged();
    let first = recover(&world).unwrap();
    world.kill();
    let second = recover(&world).unwrap();
    assert_eq!((second.changes, second.pages_written), (0, 0));
    // But for what the log named, which is given up by then.
    let is_logged = |of: &PageSummary| of.logged.iter().any(|&coins| coins != 0);
    assert!(first.pages.iter().any(is_logged));
    for (first, second) in first.pages.into_iter().zip(second.pages) {
        let logged = Default::default();
        assert_eq!(PageSummary { logged, ..first }, second);
    }
}
