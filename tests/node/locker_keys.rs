//! Encryption type 2: a client that knows a locker's key can encrypt under it as long as a coin
//! lies in the locker, on any shard (docs/protocol.md sections 3 and 5).

use crate::real_node::{
    RealNode,
    wire::{Answer, Asked, Wire, compose},
};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    protocol::{
        Command, Dialect, Protection, ResponseCounter, Status,
        authentication::{Detect, Pown},
    },
};

/// A client's end of a conversation, and how many requests it has sent.
struct Client {
    wire: Wire,
    asked: u64,
}

impl Client {
    fn tcp(node: &RealNode) -> Client {
        Client {
            wire: Wire::tcp(node.address()),
            asked: 0,
        }
    }

    fn compose(&mut self, command: Command, protection: Protection, payload: &[u8]) -> Asked {
        self.asked += 1;
        compose(command, protection, Some(payload), self.asked)
    }

    fn ask(&mut self, command: Command, protection: Protection, payload: &[u8]) -> Answer {
        let asked = self.compose(command, protection, payload);
        self.wire.ask(&asked, ResponseCounter::Restart)
    }

    fn echo_status(&mut self, key: An) -> Status {
        let answer = self.ask(Command::Echo, Protection::Locker(key), &[]);
        answer.status
    }
}

/// A locker's key: its first five bytes, and one that tells it from others that share them.
fn locker(first: u8, other: u8) -> An {
    let mut bytes = [first; 16];
    bytes[5..12].fill(other);
    bytes[12..].fill(0xff);
    An::new(bytes)
}

fn an(number: u8) -> An {
    An::new([number; 16])
}

/// Coins on pages in a row, so on as many shards as there are.
fn coins() -> [Coin; 4] {
    [7_000, 7_001, 7_002, 7_003].map(|index| PageId::from_index(index).expect("a page").coin(9))
}

fn start(shards: u16) -> RealNode {
    let coins = coins().map(|coin| (coin, an(1), Mfs::new(40)));
    RealNode::start(&coins, |settings| settings.shards = shards)
}

fn pown(records: &[(Coin, An, An)]) -> Vec<u8> {
    let mut payload = Vec::new();
    Pown::compose(records.iter().copied(), &mut payload);
    payload
}

fn detect(records: &[(Coin, An)]) -> Vec<u8> {
    let mut payload = Vec::new();
    Detect::compose(records.iter().copied(), &mut payload);
    payload
}

#[test]
fn a_lockers_key_is_good_while_a_coin_lies_in_the_locker() {
    for shards in [1, 2, 3] {
        let mut node = start(shards);
        let mut client = Client::tcp(&node);
        let [first, second, ..] = coins();
        let key = locker(0x41, 1);
        assert_eq!(client.echo_status(key), Status::KEY_NOT_FOUND);

        let into = pown(&[(first, an(1), key), (second, an(1), key)]);
        let moved = client.ask(Command::Pown, Protection::None, &into);
        assert_eq!(moved.status, Status::ALL_PASS);
        let mixed = detect(&[(first, key), (second, an(1)), (second, key)]);
        let answer = client.ask(Command::Detect, Protection::Locker(key), &mixed);
        assert_eq!(
            (answer.status, answer.payload),
            (Status::MIXED, vec![0b101])
        );

        let out = pown(&[(first, key, an(2))]);
        let moved = client.ask(Command::Pown, Protection::Locker(key), &out);
        assert_eq!(moved.status, Status::ALL_PASS);
        assert_eq!(client.echo_status(key), Status::SUCCESS);
        let out = pown(&[(second, key, an(2))]);
        let moved = client.ask(Command::Pown, Protection::Locker(key), &out);
        assert_eq!(moved.status, Status::ALL_PASS);
        assert_eq!(client.echo_status(key), Status::KEY_NOT_FOUND);
        drop(client);
        node.stop();
    }
}

#[test]
fn of_lockers_that_share_five_bytes_each_has_its_own_key() {
    for shards in [1, 2, 3] {
        let mut node = start(shards);
        let mut client = Client::tcp(&node);
        let keys = [1, 2, 3, 4].map(|other| locker(0x41, other));
        let records: Vec<(Coin, An, An)> = coins()
            .into_iter()
            .zip(keys)
            .map(|(coin, key)| (coin, an(1), key))
            .collect();
        let moved = client.ask(Command::Pown, Protection::None, &pown(&records));
        assert_eq!(moved.status, Status::ALL_PASS);

        let mut clients = [client, {
            let wire = Wire::udp(node.address());
            Client { wire, asked: 1_000 }
        }];
        for client in &mut clients {
            for (coin, key) in coins().into_iter().zip(keys) {
                let right = detect(&[(coin, key)]);
                let answer = client.ask(Command::Detect, Protection::Locker(key), &right);
                assert_eq!(answer.status, Status::ALL_PASS);
            }
            assert_eq!(client.echo_status(locker(0x41, 5)), Status::WRONG_CHALLENGE);
            assert_eq!(client.echo_status(locker(0x42, 1)), Status::KEY_NOT_FOUND);
        }
        drop(clients);

        node.restart(|settings| settings.shards = 1 + shards % 3);
        let mut client = Client::tcp(&node);
        for key in keys {
            assert_eq!(client.echo_status(key), Status::SUCCESS);
        }
        let out = pown(&[(coins()[0], keys[0], an(2))]);
        let moved = client.ask(Command::Pown, Protection::Locker(keys[1]), &out);
        assert_eq!(moved.status, Status::ALL_PASS);
        assert_eq!(client.echo_status(keys[0]), Status::WRONG_CHALLENGE);
        assert_eq!(client.echo_status(keys[1]), Status::SUCCESS);
        drop(client);
        node.stop();
    }
}

#[test]
fn a_lockers_key_counts_from_the_request_that_makes_it_to_the_one_that_empties_it() {
    for shards in [1, 2, 3] {
        let mut node = start(shards);
        let mut client = Client::tcp(&node);
        let [first, ..] = coins();
        for round in 0..20 {
            let (old, new) = (an(1 + round), an(2 + round));
            let key = locker(0x41, round);
            let requests = [
                client.compose(Command::Pown, Protection::None, &pown(&[(first, old, key)])),
                client.compose(Command::Echo, Protection::Locker(key), &[]),
                client.compose(Command::Pown, Protection::None, &pown(&[(first, key, new)])),
                client.compose(Command::Echo, Protection::Locker(key), &[]),
            ];
            // All at once: the node has the second before the first has taken effect.
            let bytes: Vec<u8> = requests.iter().flat_map(|r| r.bytes.clone()).collect();
            client.wire.send(&bytes);
            let statuses = requests.map(|request| {
                let answer = client.wire.answer(&request.sent, ResponseCounter::Restart);
                answer.status
            });
            assert_eq!(
                statuses,
                [
                    Status::ALL_PASS,
                    Status::SUCCESS,
                    Status::ALL_PASS,
                    Status::KEY_NOT_FOUND
                ],
                "{shards} shards, round {round}"
            );
        }
        drop(client);
        node.stop();
    }
}

/// Strangers can make any number of lockers whose keys start like somebody's, whose first five
/// bytes travel in plain: their lockers only come later.
#[test]
fn of_lockers_that_share_five_bytes_the_sixteen_oldest_are_tried_also_after_a_restart() {
    const LOCKERS: usize = 20;
    const TRIED: usize = 16;
    let coins: Vec<Coin> = (0..LOCKERS)
        .map(|index| PageId::from_index(7_000 + index).expect("a page").coin(9))
        .collect();
    // Neither ascending nor descending by age.
    let keys: Vec<An> = (0..LOCKERS)
        .map(|age| locker(0x41, (7 * age % LOCKERS) as u8))
        .collect();
    for shards in [1, 2, 3] {
        let own: Vec<_> = coins
            .iter()
            .map(|&coin| (coin, an(1), Mfs::new(40)))
            .collect();
        let mut node = RealNode::start(&own, |settings| settings.shards = shards);
        let mut client = Client::tcp(&node);
        for (&coin, &key) in coins.iter().zip(&keys) {
            let moved = client.ask(
                Command::Pown,
                Protection::None,
                &pown(&[(coin, an(1), key)]),
            );
            assert_eq!(moved.status, Status::ALL_PASS);
        }
        let tried = |client: &mut Client| -> Vec<bool> {
            let known = keys.iter().map(|&key| client.echo_status(key));
            known.map(|status| status == Status::SUCCESS).collect()
        };
        let expected: Vec<bool> = (0..LOCKERS).map(|age| age < TRIED).collect();
        assert_eq!(tried(&mut client), expected);
        assert_eq!(client.echo_status(keys[TRIED]), Status::WRONG_CHALLENGE);
        drop(client);

        node.restart(|settings| settings.shards = 1 + shards % 3);
        let mut client = Client::tcp(&node);
        assert_eq!(tried(&mut client), expected);
        let out = pown(&[(coins[3], keys[3], an(2))]);
        let moved = client.ask(Command::Pown, Protection::Locker(keys[3]), &out);
        assert_eq!(moved.status, Status::ALL_PASS);
        let expected: Vec<bool> = (0..LOCKERS).map(|age| age != 3 && age <= TRIED).collect();
        assert_eq!(tried(&mut client), expected, "the next one moves up");
        drop(client);
        node.stop();
    }
}

#[test]
fn a_trade_key_is_no_key_of_a_request_in_spec_and_takes_no_lockers_place() {
    for shards in [1, 2] {
        for (dialect, expected) in [
            (Dialect::Spec, Status::KEY_NOT_FOUND),
            (Dialect::Raidax, Status::SUCCESS),
        ] {
            let coins: Vec<Coin> = (0..18)
                .map(|index| PageId::from_index(7_000 + index).expect("a page").coin(9))
                .collect();
            let own: Vec<_> = coins
                .iter()
                .map(|&coin| (coin, an(1), Mfs::new(40)))
                .collect();
            let mut node = RealNode::start(&own, |settings| {
                settings.shards = shards;
                settings.rules.dialect = dialect;
            });
            let mut client = Client::tcp(&node);
            let trade = |number: u8| {
                let mut bytes = *locker(0x41, number).expose();
                bytes[13..].copy_from_slice(&[1, 0xee, 0xee]);
                An::new(bytes)
            };
            let older: Vec<(Coin, An, An)> = (0..17)
                .map(|number| (coins[number], an(1), trade(number as u8)))
                .collect();
            let moved = client.ask(Command::Pown, Protection::None, &pown(&older));
            assert_eq!(moved.status, Status::ALL_PASS);
            assert_eq!(client.echo_status(trade(0)), expected);
            let key = locker(0x41, 99);
            let moved = client.ask(
                Command::Pown,
                Protection::None,
                &pown(&[(coins[17], an(1), key)]),
            );
            assert_eq!(moved.status, Status::ALL_PASS);
            assert_eq!(client.echo_status(key), Status::SUCCESS);
            drop(client);
            node.stop();
        }
    }
}
