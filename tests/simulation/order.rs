//! What must wait for what, in cases where a random history rarely shows that it did not wait.

use std::{rc::Rc, time::Duration};

use raida::{
    coin::{Mfs, ShardId},
    mesh::Decision,
    shard::{Exchange, Replacement, question},
    store::book::Notes,
    store::record::{Change, PageSequence},
};

use crate::{
    damage::{STEPS, an, change, coin, recover, setup},
    node::{self, Node, Setup},
    world::{Cut, World},
};

fn start(world: &Rc<World>, setup: Setup) -> Node {
    let recovered = recover(world).unwrap();
    let opened = node::open(world.clone(), setup, recovered);
    world.run(STEPS, opened).unwrap().unwrap()
}

fn to(page: usize, number: u8) -> Change {
    Change {
        coin: coin(page),
        an: an(number),
        mfs: Mfs::new(45),
    }
}

#[test]
fn a_mark_waits_for_what_is_written_and_not_yet_in_the_pages() {
    let world = World::new(3);
    let node = start(&world, setup());
    let log = node.meshes[0].shard().log.clone();
    let writer = log.clone();
    let appended = world
        .run(STEPS, async move {
            let page = PageSequence {
                page: coin(0).page(),
                sequence: 1,
            };
            let appended = writer
                .append(&[page], &[to(0, 1)], &Notes::default())
                .await
                .unwrap();
            writer.durable(&appended).await.unwrap();
            appended
        })
        .unwrap();
    let marked = log.clone();
    let early = world.run(STEPS, async move { marked.mark().await });
    assert_eq!(early, Err(Cut::Hang));
    log.settle(appended);
    let late = world.run(STEPS, async move { log.mark().await });
    assert!(late.is_ok());
}

#[test]
fn a_mark_waits_for_every_shard_of_a_change() {
    let world = World::new(4);
    let node = start(
        &world,
        Setup {
            shards: 2,
            ..setup()
        },
    );
    let (first, second) = (node.meshes[0].clone(), node.meshes[1].clone());
    let coins = [coin(0), coin(1)];
    world.spawn(async move {
        let changed = first.change_together(&coins, None, |_| {
            // From here on the other shard hears nothing.
            second.stop();
            Decision::<()>::Change(vec![to(0, 1), to(1, 1)], Notes::default())
        });
        changed.await.unwrap().unwrap();
        unreachable!("the other shard has not applied it");
    });
    let mesh = node.meshes[0].clone();
    let waiter = world.clone();
    let marked = world.run(STEPS, async move {
        while mesh.shard().log.counts().records == 0 {
            waiter.sleep(Duration::from_millis(1)).await;
        }
        mesh.ask(ShardId::new(0), question::Mark).await
    });
    assert_eq!(marked.map(drop), Err(Cut::Hang));
}

#[test]
fn a_checkpoint_wished_for_during_another_is_made() {
    // Whether the change comes while pages are being written is a matter of luck.
    let mut during = 0;
    for seed in 0..20 {
        let world = World::new(seed);
        let node = start(&world, setup());
        let syncs = || world.disk.borrow().counts.page_syncs;
        let wanted = node.meshes[0].shard().checkpoint_wanted.clone();
        change(&world, &node, &[(coin(0), 1)]);
        let before = syncs();
        let (sleeper, dirty) = (world.clone(), node.meshes[0].clone());
        world
            .run(STEPS, async move {
                sleeper.sleep(Duration::from_millis(100)).await; // until somebody hears of wishes
                wanted.notify();
                sleeper.sleep(Duration::from_nanos(1)).await;
                dirty
                    .change_together(&[coin(1)], None, |_| {
                        Decision::<()>::Change(vec![to(1, 1)], Notes::default())
                    })
                    .await
                    .unwrap()
                    .unwrap();
                wanted.notify();
                sleeper.sleep(Duration::from_secs(1)).await;
            })
            .unwrap();
        during += usize::from(syncs() - before >= 2);
        drop(node);
        world.fail_power();
        let missing = recover(&world).unwrap().changes;
        assert_eq!(missing, 0, "seed {seed}: the pages have every change");
    }
    assert!(
        during >= 5,
        "only {during} changes came during a checkpoint"
    );
}

#[test]
fn a_page_takes_more_changes_at_once_than_a_slot_lists() {
    const MANY: usize = 1_000;
    let world = World::new(6);
    let node = start(
        &world,
        Setup {
            segment_bytes: 8_192,
            checkpoint_interval: Duration::from_millis(1),
            ..setup()
        },
    );
    let page = coin(0).page();
    let mesh = node.meshes[0].clone();
    let made: Vec<Change> = (0..MANY)
        .map(|place| Change {
            coin: page.coin(place),
            an: an(1),
            mfs: Mfs::new(45),
        })
        .collect();
    let passed = world.run(STEPS, async move {
        for some in made.chunks(100) {
            let coins: Vec<_> = some.iter().map(|change| change.coin).collect();
            let some = some.to_vec();
            let changed = mesh.change_together(&coins, None, |_| {
                Decision::<()>::Change(some, Notes::default())
            });
            changed.await.unwrap().unwrap();
        }
        let exchanges = (0..MANY).map(|place| {
            let exchange = Exchange {
                coin: page.coin(place),
                an: an(1),
                becomes: Replacement::An(an(2)),
            };
            mesh.ask(ShardId::new(0), question::ExchangeEach(vec![exchange]))
        });
        futures_util::future::join_all(exchanges).await
    });
    for passed in passed.unwrap() {
        assert_eq!(passed, Ok(vec![true]));
    }
}
