//! Changes of one coin that come faster than the disk writes: they wait in order, up to a limit,
//! share records, succeed or fail together, and leave nothing behind where nothing changes.

use std::{
    future::Future,
    net::Ipv4Addr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use futures_util::future::{Either, join_all, join4, select};
use raida::{
    coin::{An, COINS_PER_PAGE, Coin, Mfs, PageId, ShardId},
    mesh::Decision,
    shard::{
        EXCHANGES_MAX, Exchange, NotChanged, Replacement, Single, Stranger, TASKS_MAX,
        TransactionId, question,
    },
    store::{
        book::Notes,
        log::{BACKLOG_BYTES_MAX, Durability, ROOM_WAITERS_MAX, Refusal},
        pages::Lookup,
        record::{Change, PageSequence},
    },
};

use crate::{
    damage::{STEPS, an, change, coin, recover, setup},
    disk::Faults,
    node::{self, Node, Setup},
    world::{SimEnvironment, World},
};

type Mesh = Rc<raida::mesh::Mesh<SimEnvironment>>;
type Answers = Vec<Result<bool, NotChanged>>;

/// What a node of a few shards is asked by one of its cores.
struct Trial {
    world: Rc<World>,
    node: Node,
    /// Where the requests come to: the core that owns the coin, or another.
    core: usize,
}

impl Trial {
    /// Every coin of the first pages has this AN.
    fn start(seed: u64, shards: u16, core: usize, coins: &[(Coin, u8)]) -> Trial {
        Trial::with(seed, core, coins, |setup| setup.shards = shards)
    }

    fn with(seed: u64, core: usize, coins: &[(Coin, u8)], alter: impl FnOnce(&mut Setup)) -> Trial {
        let world = World::new(seed);
        let mut setup = Setup {
            segment_bytes: 131_072,
            ..setup()
        };
        alter(&mut setup);
        let recovered = recover(&world).unwrap();
        let opened = node::open(world.clone(), setup, recovered);
        let node = world.run(STEPS, opened).unwrap().unwrap();
        change(&world, &node, coins);
        Trial { world, node, core }
    }

    fn mesh(&self) -> Mesh {
        self.node.meshes[self.core].clone()
    }

    fn run<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> T {
        self.world.run(STEPS, work).expect("everything ends")
    }

    /// Asks for exchanges, one after the other without waiting.
    fn ask(&self, asked: Vec<Exchange>) -> Pin<Box<dyn Future<Output = Answers>>> {
        let singles = self.node.singles[self.core].clone();
        let key = self.mesh().shard().repeat_key;
        let sender = key.sender(Stranger::of(Ipv4Addr::LOCALHOST.into()), true);
        Box::pin(async move {
            let asked = asked.into_iter().map(|exchange| {
                let singles = singles.clone();
                async move {
                    let asked = singles.ask(Single::Exchange(exchange, sender)).await;
                    asked.expect("an exchange needs no task")
                }
            });
            join_all(asked).await
        })
    }

    /// Holds a coin, has `meanwhile` ask for what it likes, and lets the coin go unchanged.
    fn hold<T: 'static, R: 'static>(
        &self,
        held: Coin,
        meanwhile: impl FnOnce() -> R + 'static,
        then: impl AsyncFnOnce(R) -> T + 'static,
    ) -> T {
        let mesh = self.mesh();
        let world = self.world.clone();
        self.run(async move {
            let id = TransactionId {
                core: mesh.shard().id,
                number: u64::MAX,
            };
            let owner = held.page().owner(mesh.shards());
            let lock = question::Lock {
                id,
                coins: vec![held],
                session: None,
            };
            assert!(mesh.ask(owner, lock).await.is_ok());
            let asked = meanwhile();
            // What is asked of another core is on its way.
            world.sleep(Duration::from_millis(100)).await;
            mesh.ask(owner, question::Release(id)).await;
            then(asked).await
        })
    }

    fn records(&self) -> u64 {
        let logs = self
            .node
            .meshes
            .iter()
            .map(|mesh| mesh.shard().log.counts());
        logs.map(|counts| counts.records).sum()
    }

    fn value(&self, coin: Coin) -> Option<An> {
        let shard = coin.page().owner(self.node.meshes.len() as u16).index();
        match self.node.meshes[shard].shard().pages.lookup(coin) {
            Lookup::Circulating(an, _) => Some(an),
            Lookup::Free => None,
            other => panic!("{coin} is {other:?}"),
        }
    }

    fn counts(&self) -> raida::shard::ChangeCounts {
        let mut total = raida::shard::ChangeCounts::default();
        for mesh in &self.node.meshes {
            total += mesh.shard().change_counts();
        }
        total
    }

    /// The coin's number after a crash.
    fn after_a_crash(self, coin: Coin) -> Option<An> {
        let Trial { world, node, .. } = self;
        drop(node);
        world.fail_power();
        let recovered = recover(&world).unwrap();
        let opened = node::open(world.clone(), setup(), recovered);
        let node = world.run(STEPS, opened).unwrap().unwrap();
        let trial = Trial {
            world,
            node,
            core: 0,
        };
        let mesh = trial.mesh();
        trial.run(async move { mesh.shard().pages.load(coin.page()).await.unwrap() });
        trial.value(coin)
    }
}

/// Asks what a future asks at once, and no more.
fn begin<T: ?Sized + Future>(mut asked: Pin<Box<T>>) -> Pin<Box<T>> {
    let mut context = Context::from_waker(Waker::noop());
    assert!(asked.as_mut().poll(&mut context).is_pending());
    asked
}

fn from_to(coin: Coin, from: u8, to: u8) -> Exchange {
    Exchange {
        coin,
        an: an(from),
        becomes: Replacement::An(an(to)),
    }
}

/// A change of several coins together, and the numbers that they had.
fn together(
    mesh: Mesh,
    changes: Vec<(Coin, u8)>,
) -> Pin<Box<dyn Future<Output = Result<Vec<An>, NotChanged>>>> {
    Box::pin(async move {
        let coins: Vec<Coin> = changes.iter().map(|&(coin, _)| coin).collect();
        let mut had = Vec::new();
        let changed = mesh.change_together(&coins, None, |held| {
            had.extend(held.values.iter().flatten().map(|&(an, _)| an));
            let changes = changes.iter().map(|&(coin, number)| Change {
                coin,
                an: an(number),
                mfs: Mfs::new(45),
            });
            Decision::<()>::Change(changes.collect(), Notes::default())
        });
        changed.await?.unwrap();
        Ok(had)
    })
}

/// Cores of nodes of one shard and of two that a coin's requests may come to.
fn places() -> impl Iterator<Item = (u64, u16, usize)> {
    let places = [(1, 0), (2, 0), (2, 1)];
    (0..8).flat_map(move |seed| places.map(|(shards, core)| (seed, shards, core)))
}

#[test]
fn changes_of_a_coin_that_wait_share_a_record() {
    for (seed, shards, core) in places() {
        let trial = Trial::start(seed, shards, core, &[(coin(0), 1)]);
        let before = trial.records();
        let asked = (1..21).map(|n| from_to(coin(0), n, n + 1)).collect();
        let answers = trial.run(trial.ask(asked));
        assert_eq!(answers, vec![Ok(true); 20], "{seed} {shards} {core}");
        // The first, and all that came while it was written.
        assert_eq!(trial.records() - before, 2, "{seed} {shards} {core}");
        assert_eq!(trial.counts().shared, 18);
        assert_eq!(trial.counts().waiting, 0);
        assert_eq!(trial.value(coin(0)), Some(an(21)));
        assert_eq!(trial.after_a_crash(coin(0)), Some(an(21)));
    }
}

#[test]
fn those_who_share_a_record_see_each_other_in_the_order_they_came() {
    let trial = Trial::start(1, 1, 0, &[(coin(0), 1)]);
    let before = trial.records();
    let free = Exchange {
        becomes: Replacement::Free,
        ..from_to(coin(0), 4, 0)
    };
    let asked = vec![
        from_to(coin(0), 1, 2),
        from_to(coin(0), 1, 9), // nobody's any more
        from_to(coin(0), 2, 2), // no change
        from_to(coin(0), 2, 3),
        from_to(coin(0), 2, 9),
        from_to(coin(0), 3, 4),
        from_to(coin(0), 7, 9), // never anybody's
        free,
        from_to(coin(0), 4, 5),
    ];
    let answers = trial.run(trial.ask(asked));
    let passed = [true, false, true, true, false, true, false, true, false];
    assert_eq!(answers, passed.map(Ok));
    assert_eq!(trial.records() - before, 2);
    assert_eq!(trial.value(coin(0)), None);
    assert_eq!(trial.after_a_crash(coin(0)), None);
}

#[test]
fn a_record_that_cannot_be_written_fails_all_that_share_it() {
    for (seed, shards, core) in places() {
        let trial = Trial::start(seed, shards, core, &[(coin(0), 1)]);
        let asked = vec![
            from_to(coin(0), 8, 9), // wrong whatever comes of the others
            from_to(coin(0), 1, 1), // right whatever comes of them
            from_to(coin(0), 1, 2),
            from_to(coin(0), 2, 3),
            from_to(coin(0), 1, 4), // wrong only if the change before it is made
            from_to(coin(0), 3, 5),
        ];
        let asked = trial.ask(asked);
        let world = trial.world.clone();
        let answers = trial.hold(
            coin(0),
            move || {
                let asked = begin(asked);
                world.disk.borrow_mut().set_faults(Faults {
                    write_errors: 1_000,
                    ..Faults::default()
                });
                let well = world.clone();
                world.spawn(async move {
                    well.sleep(Duration::from_secs(1)).await;
                    well.disk.borrow_mut().set_faults(Faults::default());
                });
                asked
            },
            async |asked| asked.await,
        );
        let refused = Err(NotChanged::Unavailable);
        assert_eq!(
            answers,
            [Ok(false), Ok(true), refused, refused, refused, refused],
            "{seed} {shards} {core}"
        );
        assert_eq!(trial.value(coin(0)), Some(an(1)));
        assert_eq!(trial.counts().waiting, 0);
        // And the coin is free again.
        let answers = trial.run(trial.ask(vec![from_to(coin(0), 1, 7)]));
        assert_eq!(answers, [Ok(true)]);
        assert_eq!(trial.after_a_crash(coin(0)), Some(an(7)));
    }
}

#[test]
fn requests_about_several_coins_have_their_turn_among_those_about_one() {
    for (seed, shards, core) in places() {
        let coins = [(coin(0), 1), (coin(1), 30), (coin(2), 40)];
        let trial = Trial::start(seed, shards, core, &coins);
        let first = trial.ask(vec![from_to(coin(0), 1, 2), from_to(coin(0), 2, 3)]);
        let then = together(trial.mesh(), vec![(coin(0), 1), (coin(1), 31)]);
        let batch = {
            let mesh = trial.mesh();
            // Right when it comes, and right again when it has its turn: one that is wrong when it
            // comes waits for nobody.
            let records = vec![from_to(coin(0), 1, 11), from_to(coin(2), 40, 41)];
            Box::pin(async move { mesh.exchange(records).await })
        };
        let last = trial.ask(vec![from_to(coin(0), 11, 12), from_to(coin(0), 12, 13)]);
        let world = trial.world.clone();
        let (first, had, batch, last) = trial.hold(
            coin(0),
            move || {
                // Each asks when the one before is in line: what another core is asked takes a
                // while.
                let (sleep, asks) = (world.clone(), world.clone());
                let in_turn = async move {
                    let first = begin(first);
                    sleep.sleep(Duration::from_millis(20)).await;
                    let then = begin(then);
                    sleep.sleep(Duration::from_millis(20)).await;
                    // It looks at its coins before it gets in line.
                    let nap = pin!(sleep.sleep(Duration::from_millis(20)));
                    let Either::Right((_, batch)) = select(batch, nap).await else {
                        panic!("its coin is held");
                    };
                    let last = begin(last);
                    join4(first, then, batch, last).await
                };
                let answers = Rc::new(std::cell::RefCell::new(None));
                let told = answers.clone();
                asks.spawn(async move {
                    let came = in_turn.await;
                    *told.borrow_mut() = Some(came);
                });
                (world, answers)
            },
            async |(world, answers)| loop {
                if let Some(came) = answers.borrow_mut().take() {
                    return came;
                }
                world.sleep(Duration::from_millis(1)).await;
            },
        );
        assert_eq!(first, [Ok(true); 2], "{seed} {shards} {core}");
        assert_eq!(had, Ok(vec![an(3), an(30)]));
        assert_eq!(last, [Ok(true); 2], "{seed} {shards} {core}");
        assert_eq!(batch, Ok(vec![true, true]));
        assert_eq!(trial.counts().waiting, 0);
        assert_eq!(trial.value(coin(0)), Some(an(13)));
    }
}

#[test]
fn no_more_wait_for_a_coin_than_may_and_the_others_change_nothing() {
    for (seed, shards, core) in places() {
        let coins: Vec<(Coin, u8)> = (0..4).map(|page| (coin(page), 1)).collect();
        let trial = Trial::start(seed, shards, core, &coins);
        let before = trial.records();
        // No two are the same, or the second would wait for the first.
        let wrong = (0..EXCHANGES_MAX as u8).map(|n| from_to(coin(0), 50 + n, 9));
        let waits = trial.ask(wrong.collect());
        let more = trial.ask(vec![from_to(coin(0), 1, 2); 3]);
        let tasks: Vec<_> = (0..TASKS_MAX)
            .map(|_| together(trial.mesh(), vec![(coin(0), 1)]))
            .collect();
        // Coins before it and behind it, of its shard and another.
        let all = (0..4).map(|page| (coin(page), 9)).collect();
        let mesh = trial.mesh();
        let crowded = async move {
            let alone = together(mesh.clone(), vec![(coin(0), 9)]).await;
            let all = together(mesh.clone(), all).await;
            let batch = (0..4).map(|page| from_to(coin(page), 1, 9)).collect();
            let batch = mesh.exchange(batch).await;
            let of_one = mesh.exchange(vec![from_to(coin(0), 1, 9)]).await;
            (alone, all, batch, of_one)
        };
        let (world, meshes) = (trial.world.clone(), trial.node.meshes.clone());
        let owner = coin(0).page().owner(shards).index();
        let (waited, more, tasks) = {
            let mesh = trial.mesh();
            trial.run(async move {
                let id = TransactionId {
                    core: mesh.shard().id,
                    number: u64::MAX,
                };
                let owner_id = ShardId::new(owner as u16);
                let lock = question::Lock {
                    id,
                    coins: vec![coin(0)],
                    session: None,
                };
                mesh.ask(owner_id, lock).await.unwrap();
                let waits = begin(waits);
                let tasks: Vec<_> = tasks.into_iter().map(begin).collect();
                world.sleep(Duration::from_millis(100)).await;
                let shard = meshes[owner].shard();
                let most = (EXCHANGES_MAX + TASKS_MAX) as u64;
                assert_eq!(shard.change_counts().waiting, most);
                let more = more.await;
                let (alone, all, batch, of_one) = crowded.await;
                let refused = NotChanged::Crowded;
                assert_eq!(alone, Err(refused));
                assert_eq!(all, Err(refused));
                assert_eq!(batch, Err(refused));
                assert_eq!(of_one, Err(refused));
                assert_eq!(shard.change_counts().waiting, most);
                assert_eq!(shard.change_counts().refused, 3 + 4);
                mesh.ask(owner_id, question::Release(id)).await;
                (waits.await, more, join_all(tasks).await)
            })
        };
        assert_eq!(more, [Err(NotChanged::Crowded); 3]);
        assert_eq!(waited, vec![Ok(false); EXCHANGES_MAX]);
        assert!(tasks.iter().all(|had| *had == Ok(vec![an(1)])));
        assert_eq!(trial.counts().waiting, 0);
        assert_eq!(trial.records(), before, "nothing was changed");
        // Nobody holds the other coins.
        let changes = (0..4).map(|page| (coin(page), 5)).collect();
        let had = trial.run(together(trial.mesh(), changes));
        assert_eq!(had, Ok(vec![an(1); 4]));
    }
}

#[test]
fn who_does_not_know_a_coins_number_takes_no_place_in_its_queue() {
    let trial = Trial::start(3, 1, 0, &[(coin(0), 1)]);
    let mut asked = vec![from_to(coin(0), 1, 2)];
    asked.extend(vec![from_to(coin(0), 77, 78); 3 * EXCHANGES_MAX]);
    asked.push(from_to(coin(0), 2, 3));
    let answers = trial.run(trial.ask(asked));
    assert_eq!(trial.counts().refused, 0);
    assert_eq!((answers[0], *answers.last().unwrap()), (Ok(true), Ok(true)));
    let others = &answers[1..answers.len() - 1];
    assert!(others.iter().all(|answer| *answer == Ok(false)));
}

#[test]
fn what_changes_nothing_is_not_logged() {
    for (seed, shards, core) in places() {
        let coins: Vec<(Coin, u8)> = (0..3).map(|page| (coin(page), page as u8 + 1)).collect();
        let trial = Trial::start(seed, shards, core, &coins);
        let before = trial.records();
        let same = |page: u8| from_to(coin(page.into()), page + 1, page + 1);
        let answers = trial.run(trial.ask(vec![same(0); 100]));
        assert_eq!(answers, vec![Ok(true); 100]);
        let mesh = trial.mesh();
        let passed = trial.run(async move { mesh.exchange((0..3).map(same).collect()).await });
        assert_eq!(passed, Ok(vec![true; 3]));
        let had = trial.run(together(trial.mesh(), coins.clone()));
        assert_eq!(had, Ok(vec![an(1), an(2), an(3)]));
        assert_eq!(trial.records(), before, "{seed} {shards} {core}");
        assert_eq!(trial.counts().unchanged, 100 + 3 + 3);

        // Of several coins only those that change.
        let mesh = trial.mesh();
        let records = vec![same(0), from_to(coin(1), 2, 20), same(2)];
        let passed = trial.run(async move { mesh.exchange(records).await });
        assert_eq!(passed, Ok(vec![true; 3]));
        let had = trial.run(together(trial.mesh(), vec![(coin(0), 1), (coin(1), 21)]));
        assert_eq!(had, Ok(vec![an(1), an(20)]));
        assert_eq!(trial.records() - before, 2);
        assert_eq!(trial.value(coin(1)), Some(an(21)));
        assert_eq!(trial.after_a_crash(coin(1)), Some(an(21)));
    }
}

#[test]
fn what_changes_nothing_waits_for_the_change_before_it() {
    let trial = Trial::start(5, 1, 0, &[(coin(0), 1)]);
    // While it is written, the first is no answer to the second.
    let asked = vec![
        from_to(coin(0), 1, 2),
        from_to(coin(0), 2, 2),
        from_to(coin(0), 1, 1),
    ];
    let answers = trial.run(trial.ask(asked));
    assert_eq!(answers, [Ok(true), Ok(true), Ok(false)]);
    let asked = vec![from_to(coin(0), 2, 3), from_to(coin(0), 3, 3)];
    let asked = trial.ask(asked);
    let world = trial.world.clone();
    // The change is never made: so it was not so that nothing changes.
    let answers = trial.run(async move {
        world.disk.borrow_mut().set_faults(Faults {
            write_errors: 1_000,
            ..Faults::default()
        });
        let asked = begin(asked);
        world.sleep(Duration::from_secs(1)).await;
        world.disk.borrow_mut().set_faults(Faults::default());
        asked.await
    });
    assert_eq!(answers, [Err(NotChanged::Unavailable), Ok(false)]);
}

#[test]
fn changes_of_a_coin_whose_page_has_to_be_read_keep_their_order() {
    for (seed, shards, core) in places() {
        let coins: Vec<(Coin, u8)> = (0..6).map(|page| (coin(page), 1)).collect();
        let trial = Trial::with(seed, core, &coins, |setup| {
            setup.shards = shards;
            setup.cache_pages = 1;
            setup.checkpoint_interval = Duration::from_millis(1);
        });
        for page in 0..6 {
            let asked = (1..13).map(|n| from_to(coin(page), n, n + 1)).collect();
            let answers = trial.run(trial.ask(asked));
            assert_eq!(answers, vec![Ok(true); 12], "{seed} {shards} {core}");
        }
    }
}

#[test]
fn in_the_periodic_mode_changes_of_a_coin_keep_their_order() {
    for (seed, shards, core) in places() {
        let trial = Trial::with(seed, core, &[(coin(0), 1)], |setup| {
            setup.shards = shards;
            setup.durability = Durability::Periodic;
        });
        let answers = trial.hold(
            coin(0),
            {
                let asked = trial.ask((1..13).map(|n| from_to(coin(0), n, n + 1)).collect());
                move || begin(asked)
            },
            async |asked| asked.await,
        );
        assert_eq!(answers, vec![Ok(true); 12]);
        assert_eq!(trial.value(coin(0)), Some(an(13)));
    }
}

#[test]
fn no_more_wait_for_room_in_the_log_than_may() {
    const RECORD_PAGES: usize = 40;
    let trial = Trial::with(1, 0, &[], |setup| setup.segment_bytes = 1 << 20);
    let log = trial.mesh().shard().log.clone();
    let page = |index: usize, sequence| PageSequence {
        page: PageId::from_index(index).unwrap(),
        sequence,
    };
    let large: Vec<Change> = (0..RECORD_PAGES)
        .flat_map(|index| {
            let page = PageId::from_index(index).unwrap();
            (0..COINS_PER_PAGE).map(move |place| page.coin(place))
        })
        .map(|coin| Change {
            coin,
            an: an(1),
            mfs: Mfs::new(45),
        })
        .collect();
    let record_bytes = large.len() * 19;
    let fill = BACKLOG_BYTES_MAX.div_ceil(record_bytes);
    let outcomes = trial.run(async move {
        let pages: Vec<PageSequence> = (0..RECORD_PAGES).map(|index| page(index, 1)).collect();
        let append = |number: usize| {
            let (log, pages, large) = (&log, &pages, &large);
            async move {
                let (pages, changes) = match number < fill {
                    true => (&pages[..], &large[..]),
                    false => (&pages[..1], &large[..1]),
                };
                let appended = log.append(pages, changes, &Notes::default()).await?;
                log.durable(&appended).await.unwrap();
                log.settle(appended);
                Ok::<_, Refusal>(())
            }
        };
        let all = join_all((0..fill + ROOM_WAITERS_MAX + 10).map(append));
        all.await
    });
    let (taken, refused) = outcomes.split_at(fill + ROOM_WAITERS_MAX);
    assert!(taken.iter().all(|outcome| *outcome == Ok(())));
    assert_eq!(refused, [Err(Refusal::Crowded); 10]);
    let counts = trial.counts();
    assert_eq!((counts.log_waiting, counts.log_refused), (0, 10));
}
