//! Lockers (docs/protocol.md, "Group 8: lockers") on a real node: what lies where, in which order,
//! and what happens when two want the same.

use std::thread;

use crate::real_node::{RealNode, plain::Client, wire::Answer};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    protocol::{
        Command, Dialect, Passed, Status,
        authentication::{DetectSum, PownSum},
        lockers::{
            Address, Currency, LockerKey, Peek, Price, PutForSale, Remove, StoreMultiple, StoreSum,
            Stored, TradeKey,
        },
    },
};

impl Client {
    fn store(&mut self, coins: &[Coin], sum: An, key: LockerKey) -> Status {
        let mut payload = Vec::new();
        StoreSum::compose(coins.iter().copied(), sum, key, &mut payload);
        self.ask(Command::StoreSum, &payload).status
    }

    fn remove(&mut self, key: LockerKey, records: &[(Coin, An)]) -> Answer {
        let mut payload = Vec::new();
        Remove::compose(key, records.iter().copied(), &mut payload);
        self.ask(Command::Remove, &payload)
    }
}

fn key(first: u8) -> LockerKey {
    let mut bytes = [first; 16];
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}

fn an(number: u8) -> An {
    An::new([number; 16])
}

/// The number that a coin starts with: each has another, since numbers that coins share prove
/// nothing in a sum.
fn own(coin: Coin) -> An {
    let mut bytes = [1; 16];
    bytes[..Coin::SIZE].copy_from_slice(&coin.to_bytes());
    An::new(bytes)
}

/// Coins on pages in a row, so on as many shards as there are.
fn coins(count: usize) -> Vec<Coin> {
    let coin = |index: usize| {
        PageId::from_index(7_000 + index % 30)
            .unwrap()
            .coin(index / 30)
    };
    (0..count).map(coin).collect()
}

fn start(count: usize, shards: u16) -> RealNode {
    let coins: Vec<_> = (coins(count).into_iter())
        .map(|coin| (coin, own(coin), Mfs::new(40)))
        .collect();
    RealNode::start(&coins, |settings| settings.shards = shards)
}

/// The XOR of the numbers that coins start with.
fn sum(coins: &[Coin]) -> An {
    (coins.iter()).fold(An::ZERO, |sum, &coin| sum ^ own(coin))
}

#[test]
fn a_lockers_coins_are_listed_in_the_order_stored_also_after_a_restart() {
    for shards in [1, 2, 3] {
        let mut node = start(9, shards);
        let mut client = Client::tcp(&node);
        let all = coins(9);
        let mine = key(0x41);
        let first = [all[5], all[2], all[7]];
        let second = [all[6], all[0]];
        assert_eq!(client.store(&first, sum(&first), mine), Status::ALL_PASS);
        assert_eq!(client.store(&second, sum(&second), mine), Status::ALL_PASS);
        assert_eq!(
            client.pown(&[(all[1], own(all[1]), mine.an())]),
            Status::ALL_PASS
        );
        let order = vec![all[5], all[2], all[7], all[6], all[0], all[1]];
        assert_eq!(client.peek(mine), order);

        // What is stored where it lies moves to the end.
        assert_eq!(client.store(&[all[2]], mine.an(), mine), Status::ALL_PASS);
        let order = vec![all[5], all[7], all[6], all[0], all[1], all[2]];
        assert_eq!(client.peek(mine), order);
        drop(client);
        for shards in [2, 1, 3] {
            node.restart(|settings| settings.shards = shards);
            assert_eq!(Client::tcp(&node).peek(mine), order, "{shards} shards");
        }
        node.stop();
    }
}

#[test]
fn whichever_command_moves_a_coin_its_lockers_know() {
    let mut node = start(4, 2);
    let mut client = Client::tcp(&node);
    let all = coins(4);
    let (mine, other) = (key(0x41), key(0x42));
    assert_eq!(client.store(&all, sum(&all), mine), Status::ALL_PASS);
    // Pown out, pown sum from one locker into another, store from one into another.
    assert_eq!(client.pown(&[(all[0], mine.an(), an(7))]), Status::ALL_PASS);
    assert_eq!(client.peek(mine), all[1..]);
    let mut payload = Vec::new();
    let delta = mine.an() ^ other.an();
    PownSum::compose([all[1]], mine.an(), delta, &mut payload);
    assert_eq!(
        client.ask(Command::PownSum, &payload).status,
        Status::ALL_PASS
    );
    assert_eq!(client.store(&[all[2]], mine.an(), other), Status::ALL_PASS);
    assert_eq!(client.peek(mine), [all[3]]);
    assert_eq!(client.peek(other), all[1..3]);
    assert_eq!(client.store(&[all[3]], mine.an(), other), Status::ALL_PASS);
    assert_eq!(client.peek(mine), []);
    assert_eq!(client.peek(other), all[1..]);
    let out = [(all[1], an(8)), (all[0], an(9)), (all[2], mine.an())];
    let answer = client.remove(other, &out);
    assert_eq!(
        (answer.status, answer.payload),
        (Status::MIXED, vec![0b101])
    );
    assert_eq!(client.peek(other), [all[3]]);
    assert_eq!(client.peek(mine), [all[2]]);
    assert!(client.have(&[(all[0], an(7)), (all[1], an(8))]));
    drop(client);
    node.stop();
}

#[test]
fn a_store_is_all_or_nothing() {
    let mut node = start(5, 3);
    let mut client = Client::tcp(&node);
    let all = coins(5);
    let mine = key(0x41);
    let twice = [all[0], all[1], all[0]];
    assert_eq!(client.store(&twice, own(all[1]), mine), Status::ALL_FAIL);
    let thrice = [all[0], all[0], all[1], all[0]];
    assert_eq!(
        client.store(&thrice, sum(&all[..2]), mine),
        Status::ALL_FAIL
    );
    assert_eq!(client.store(&all, an(9), mine), Status::ALL_FAIL);
    let mut payload = Vec::new();
    let stranger = PageId::from_index(5).unwrap().coin(5);
    let lockers = [
        (vec![all[0], all[1]], sum(&all[..2]), mine),
        (vec![all[2], stranger], sum(&all[2..3]), key(0x42)),
        (vec![all[3], all[2]], sum(&all[2..4]), mine),
    ];
    StoreMultiple::compose(lockers, &mut payload);
    let answer = client.ask(Command::StoreMultiple, &payload);
    let stored = Stored::read(answer.status, &answer.payload, 3).expect("an answer");
    assert_eq!(
        [0, 1, 2].map(|locker| stored.stored(locker)),
        [true, false, true]
    );
    assert_eq!(client.peek(mine), [all[0], all[1], all[3], all[2]]);
    assert_eq!(client.peek(key(0x42)), []);
    drop(client);
    node.stop();
}

#[test]
fn of_stores_of_the_same_coins_at_once_one_wins() {
    const CLIENTS: u8 = 8;
    for shards in [1, 2] {
        let mut node = start(40, shards);
        let all = coins(40);
        let stored: Vec<bool> = thread::scope(|scope| {
            let store = |client: u8| {
                let (node, mut coins) = (&node, all.clone());
                scope.spawn(move || {
                    coins.rotate_left(client.into());
                    let mut wire = Client::tcp(node);
                    wire.store(&coins, sum(&coins), key(0x50 + client)) == Status::ALL_PASS
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(store).collect();
            clients.into_iter().map(|c| c.join().unwrap()).collect()
        });
        // The others know a sum that is right, of coins that lie in a locker now.
        assert_eq!(
            stored.iter().filter(|&&stored| stored).count(),
            1,
            "{stored:?}"
        );
        let mut client = Client::tcp(&node);
        let counts: Vec<usize> = (0..CLIENTS)
            .map(|other| client.peek(key(0x50 + other)).len())
            .collect();
        assert_eq!(
            counts.iter().filter(|&&count| count == 40).count(),
            1,
            "{counts:?}"
        );
        assert_eq!(counts.iter().sum::<usize>(), 40);

        // Stores of one coin, whose number is the sum: of the clients that know the number, one
        // succeeds.
        let one = &all[..1];
        let number = (0..CLIENTS).map(|n| key(0x50 + n).an());
        let number = number
            .into_iter()
            .find(|&an| client.have(&[(one[0], an)]))
            .unwrap();
        let stored: usize = thread::scope(|scope| {
            let store = |client: u8| {
                let node = &node;
                scope.spawn(move || {
                    Client::tcp(node).store(one, number, key(0x70 + client)) == Status::ALL_PASS
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(store).collect();
            clients
                .into_iter()
                .map(|c| usize::from(c.join().unwrap()))
                .sum()
        });
        assert_eq!(stored, 1);
        drop(client);
        node.stop();
    }
}

/// All coins of a locker have the same number, and two of the same leave nothing in a sum.
#[test]
fn nobody_takes_coins_of_a_locker_in_pairs() {
    for shards in [1, 2] {
        let mut node = start(5, shards);
        let mut client = Client::tcp(&node);
        let all = coins(5);
        let (mine, thief) = (key(0x41), key(0x66));
        assert_eq!(
            client.store(&all[..4], sum(&all[..4]), mine),
            Status::ALL_PASS
        );
        let with_one = [&all[1..3], &all[4..]].concat();
        for (coins, sum) in [
            (&all[..2], An::ZERO),
            (&all[..4], An::ZERO),
            (&with_one, own(all[4])),
        ] {
            assert_eq!(client.store(coins, sum, thief), Status::ALL_FAIL);
            let named = || coins.iter().copied();
            let mut payload = Vec::new();
            DetectSum::compose(named(), sum, &mut payload);
            for command in [Command::DetectSum, Command::GetTicketSum] {
                assert_eq!(client.ask(command, &payload).status, Status::ALL_FAIL);
            }
            payload.clear();
            PownSum::compose(named(), sum, an(7), &mut payload);
            assert_eq!(
                client.ask(Command::PownSum, &payload).status,
                Status::ALL_FAIL
            );
            payload.clear();
            let address = Address::new(&[b'a'; 20]).expect("20 bytes");
            let trade = TradeKey::of([7; 9], Price::new(5), Currency::Bitcoin);
            PutForSale::compose(named(), sum, trade, &address, &mut payload);
            assert_eq!(
                client.ask(Command::PutForSale, &payload).status,
                Status::ALL_FAIL
            );
        }
        assert_eq!(client.peek(mine), all[..4]);
        // Who knows the key proves it with an odd number of them.
        assert_eq!(
            client.store(&all[..3], mine.an(), key(0x42)),
            Status::ALL_PASS
        );
        drop(client);
        node.stop();
    }
}

#[test]
fn a_peek_that_races_stores_and_removals_sees_all_coins_or_none() {
    for shards in [1, 2, 3] {
        let mut node = start(30, shards);
        let all = coins(30);
        let mine = key(0x41);
        thread::scope(|scope| {
            let mover = scope.spawn(|| {
                let mut client = Client::tcp(&node);
                for _ in 0..150 {
                    assert_eq!(client.store(&all, sum(&all), mine), Status::ALL_PASS);
                    let out: Vec<_> = all.iter().map(|&coin| (coin, own(coin))).collect();
                    let answer = client.remove(mine, &out);
                    assert_eq!(answer.status, Status::ALL_PASS);
                    let passed = Passed::read(answer.status, &answer.payload, 30);
                    assert!(passed.expect("a bitmap").passed(29));
                }
            });
            let mut seen = [0, 0];
            let mut client = Client::tcp(&node);
            while !mover.is_finished() {
                match client.peek(mine) {
                    coins if coins.is_empty() => seen[0] += 1,
                    coins => {
                        assert_eq!(coins, all);
                        seen[1] += 1;
                    }
                }
            }
            assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
        });
        node.stop();
    }
}

#[test]
fn one_store_takes_as_many_coins_as_a_body_holds() {
    const COINS: usize = 13_100;
    for shards in [1, 2] {
        let mut node = start(COINS, shards);
        let mut client = Client::tcp(&node);
        let all = coins(COINS);
        let mine = key(0x41);
        assert_eq!(client.store(&all, sum(&all), mine), Status::ALL_PASS);
        assert_eq!(client.peek(mine), all);
        let mut udp = Client::udp(&node);
        let mut payload = Vec::new();
        Peek::compose(mine, &mut payload);
        assert_eq!(
            udp.ask(Command::Peek, &payload).status,
            Status::ASK_OVER_TCP
        );
        drop(client);
        node.restart(|settings| settings.rules.dialect = Dialect::Spec);
        assert_eq!(Client::tcp(&node).peek(mine), all);
        node.stop();
    }
}
