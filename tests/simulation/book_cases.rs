//! What is remembered beside the pages, one case at a time: orders, sales and payments, across
//! restarts with other shards and checkpoints in between or not.

use std::rc::Rc;

use raida::{
    coin::{An, Coin, PageId},
    store::{
        book::{Book, Notes, Payment, Placed, Sale},
        record::Change,
    },
};

use crate::{
    books::{Known, MONTH, Run, locker_key, trade_key},
    damage::{STEPS, recover},
    disk::Faults,
    node,
    random::Random,
    world::World,
};

/// A folder that a test changes step by step.
struct Steps {
    world: Rc<World>,
    run: Option<Rc<Run>>,
}

impl Steps {
    fn new() -> Steps {
        Steps::of_seed(3)
    }

    fn of_seed(seed: u64) -> Steps {
        Steps {
            world: World::new(seed),
            run: None,
        }
    }

    /// Ends the running node by a power failure, and starts with this many shards.
    fn start(&mut self, shards: u16) -> Book {
        self.run = None;
        self.world.fail_power();
        let recovered = recover(&self.world).unwrap();
        let book = recovered.book.clone();
        let known = Known::of(&book);
        let world = self.world.clone();
        let opened = Run::open(world, recovered, known, shards, 65_536, Rc::default());
        self.run = Some(self.world.run(STEPS, opened).unwrap().unwrap());
        book
    }

    /// Logs a change by this core.
    fn change(&self, core: usize, moment: u64, coins: &[usize], key: An, notes: Notes) {
        let run = self.run.clone().unwrap();
        let change = |&place: &usize| Change {
            coin: PageId::from_index(place % 3).unwrap().coin(place),
            an: key,
            mfs: MONTH,
        };
        let changes: Vec<Change> = coins.iter().map(change).collect();
        let mut ranked: Vec<(Coin, u32)> = changes.iter().map(|c| c.coin).zip(0..).collect();
        ranked.sort_unstable();
        let ranks = ranked.into_iter().map(|(_, rank)| rank);
        let notes = Notes {
            moment,
            ranks: ranks.filter(|_| key.is_marked()).collect(),
            ..notes
        };
        let changed = async move { run.change(core, changes, notes).await };
        assert!(self.world.run(STEPS, changed).unwrap());
    }

    fn checkpoint(&self) {
        let run = self.run.clone().unwrap();
        let made = async move { run.checkpoint().await };
        assert!(self.world.run(STEPS, made).unwrap());
    }
}

/// The places of a locker's coins in the order of its list.
fn list(book: &Book, key: An) -> Vec<usize> {
    let mut coins: Vec<&Placed> = book.coins.iter().filter(|p| p.key == key).collect();
    coins.sort_by_key(|placed| placed.stamp);
    coins.iter().map(|placed| placed.coin.place()).collect()
}

fn sale(key: An, moment: u64, address: &str) -> Notes {
    let address = address.as_bytes().into();
    Notes {
        sale: Some(Sale {
            key,
            moment,
            address,
        }),
        ..Notes::default()
    }
}

fn ended(key: An) -> Notes {
    Notes {
        ended: Some(key),
        ..Notes::default()
    }
}

fn number(last: u8) -> An {
    An::new([last; 16])
}

#[test]
fn lists_keep_their_order_through_restarts_with_other_shards() {
    let mut steps = Steps::new();
    let key = locker_key(&mut Random::new(1));
    steps.start(1);
    steps.change(0, 10, &[7, 3, 5], key, Notes::default());
    steps.checkpoint();
    steps.change(0, 20, &[4, 1], key, Notes::default());
    assert_eq!(list(&steps.start(2), key), [7, 3, 5, 4, 1]);
    steps.change(1, 30, &[9], key, Notes::default());
    steps.checkpoint();
    assert_eq!(list(&steps.start(3), key), [7, 3, 5, 4, 1, 9]);
    steps.change(2, 40, &[3], key, Notes::default()); // stored again: now the last
    steps.checkpoint();
    steps.checkpoint();
    assert_eq!(list(&steps.start(1), key), [7, 5, 4, 1, 9, 3]);
    assert_eq!(list(&steps.start(1), key), [7, 5, 4, 1, 9, 3]);
}

#[test]
fn a_coin_that_left_and_came_back_is_the_last() {
    for checkpoints in 0..4 {
        let mut steps = Steps::new();
        let key = locker_key(&mut Random::new(1));
        steps.start(2);
        steps.change(0, 10, &[1, 2, 3], key, Notes::default());
        (0..checkpoints & 1).for_each(|_| steps.checkpoint());
        steps.change(1, 20, &[1], number(7), Notes::default());
        (0..checkpoints >> 1).for_each(|_| steps.checkpoint());
        steps.change(0, 30, &[1], key, Notes::default());
        assert_eq!(list(&steps.start(2), key), [2, 3, 1], "{checkpoints}");
    }
}

#[test]
fn a_sale_that_ended_stays_ended_and_one_offered_again_is_the_new_one() {
    let key = trade_key(&mut Random::new(1));
    // After which of the three changes a checkpoint is made, by bit.
    for checkpoints in 0..8 {
        let is_made = |after: u32| checkpoints >> after & 1 == 1;
        let mut steps = Steps::new();
        steps.start(2);
        steps.change(0, 10, &[1, 2], key, sale(key, 10, "first"));
        (0..u32::from(is_made(0))).for_each(|_| steps.checkpoint());
        steps.change(1, 20, &[1, 2], number(7), ended(key));
        (0..u32::from(is_made(1))).for_each(|_| steps.checkpoint());
        // Under the key again, and not for sale.
        steps.change(1, 30, &[2], key, Notes::default());
        (0..u32::from(is_made(2))).for_each(|_| steps.checkpoint());
        let book = steps.start(3);
        assert_eq!(
            (book.sales.len(), book.coins.len()),
            (0, 1),
            "{checkpoints}"
        );
        steps.change(0, 40, &[2], number(8), Notes::default());
        steps.change(2, 50, &[2, 4], key, sale(key, 50, "second"));
        let book = steps.start(1);
        let [sale] = &book.sales[..] else {
            panic!("{:?}", book.sales);
        };
        assert_eq!((sale.moment, &*sale.address), (50, &b"second"[..]));
        assert_eq!(list(&book, key), [2, 4]);
    }
}

#[test]
fn a_payment_is_remembered_in_the_log_in_the_book_and_in_both() {
    let locker = locker_key(&mut Random::new(1));
    let payment = |moment| Payment {
        id: [moment as u8; 32],
        digest: [1; 16],
        moment,
    };
    let buy = |moment| Notes {
        payment: Some(payment(moment)),
        ..Notes::default()
    };
    let mut steps = Steps::new();
    steps.start(2);
    steps.change(0, 10, &[1], locker, buy(10));
    steps.checkpoint(); // the log has it still
    steps.change(1, 20, &[2], locker, buy(20));
    let book = steps.start(3);
    assert_eq!(book.payments, [payment(10), payment(20)]);
    assert_eq!(steps.start(1).payments, book.payments); // in the book alone
    steps.change(0, 30, &[3], locker, buy(30));
    steps.checkpoint();
    let mut payments = steps.start(2).payments;
    payments.sort_by_key(|payment| payment.moment);
    assert_eq!(payments, [payment(10), payment(20), payment(30)]);
}

#[test]
fn a_header_that_a_power_failure_would_still_take_is_not_built_on() {
    let key = locker_key(&mut Random::new(1));
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let mut steps = Steps::of_seed(seed);
        steps.start(1);
        steps.change(0, 10, &[7, 3], key, Notes::default());
        steps.checkpoint();
        // The same book once more; any sync of it may fail; then the process is killed.
        let run = steps.run.take().unwrap();
        run.is_stale[0].set(true);
        let faults = Faults {
            sync_errors: 350,
            ..Faults::default()
        };
        steps.world.disk.borrow_mut().set_faults(faults);
        let again = async move { run.checkpoint().await };
        let _ = steps.world.run(random.between(20, 200), again);
        steps.world.kill();
        let recovered = node::recover_folder(steps.world.clone());
        let _ = steps.world.run(random.between(60, 250), recovered);
        assert_eq!(list(&steps.start(2), key), [7, 3], "seed {seed}");
    }
}
