//! Requests that come again (docs/protocol.md, "Repeats") on a real node: a duplicate datagram, a
//! retry over another connection, a replay.

use std::{
    fs, io,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::real_node::{
    ADMIN_KEY, PATIENCE, RAIDA, RealNode,
    plain::Client,
    wire::{Answer, Wire, compose},
};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    node::Settings,
    protocol::{
        AdminKey, Command, Dialect, Protection, ResponseCounter, Status,
        authentication::{Pown, PownDerive, PownSum},
        executive::{AvailableSns, AvailableSnsReply, CreateCoins, SessionId},
        lockers::{
            Address, Buy, Currency, LockerKey, Memo, Offer, Price, PutForSale, ReceiptId, Remove,
            RemoveTrade, StoreMultiple, StoreSum, TradeKey, TransactionId, Value,
        },
        status_group::{NodeStats, Stats},
    },
    settlement::{Method, Program, Variables},
};

const COINS: usize = 24;

/// Coins on pages in a row, so on as many shards as there are.
fn coins() -> Vec<Coin> {
    let coin = |index: usize| PageId::from_index(7_000 + index % 7).unwrap().coin(index);
    (0..COINS).map(coin).collect()
}

/// The number that a coin starts with.
fn own(coin: Coin) -> An {
    let mut bytes = [1; 16];
    bytes[..Coin::SIZE].copy_from_slice(&coin.to_bytes());
    An::new(bytes)
}

fn an(number: u8) -> An {
    An::new([number; 16])
}

fn sum(coins: &[Coin]) -> An {
    (coins.iter()).fold(An::ZERO, |sum, &coin| sum ^ own(coin))
}

fn locker(first: u8) -> LockerKey {
    let mut bytes = [first; 16];
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}

fn trade(first: u8) -> TradeKey {
    TradeKey::of([first; 9], Price::new(first.into()), Currency::Bitcoin)
}

fn start(shards: u16, dialect: Dialect, change: impl FnOnce(&mut Settings)) -> RealNode {
    let coins: Vec<_> = (coins().into_iter())
        .map(|coin| (coin, own(coin), Mfs::new(40)))
        .collect();
    RealNode::start(&coins, |settings| {
        settings.shards = shards;
        settings.rules.dialect = dialect;
        change(settings);
    })
}

fn composed(compose: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    compose(&mut payload);
    payload
}

fn pown(records: &[(Coin, An, An)]) -> Vec<u8> {
    composed(|out| Pown::compose(records.iter().copied(), out))
}

fn store(coins: &[Coin], sum: An, key: LockerKey) -> Vec<u8> {
    composed(|out| StoreSum::compose(coins.iter().copied(), sum, key, out))
}

fn put(coins: &[Coin], key: TradeKey) -> Vec<u8> {
    let address = Address::new(&[b'a'; 20]).expect("20 bytes");
    composed(|out| PutForSale::compose(coins.iter().copied(), sum(coins), key, &address, out))
}

impl Client {
    fn powned(&mut self) -> u64 {
        let payload = composed(|out| Stats::compose(&AdminKey::new(ADMIN_KEY), out));
        let answer = self.ask(Command::Stats, &payload);
        NodeStats::read(&answer.payload)
            .expect("stats")
            .coins_powned
    }
}

/// Every command that changes coins and is carried out once, and the status that it has then. Each
/// on coins of its own, but that the last ones use what those before made.
fn changes(node: &RealNode) -> Vec<(Command, Vec<u8>, Status)> {
    let all = coins();
    let mut changes = vec![];
    let mut add = |command, payload| {
        let status = match command {
            Command::CreateCoins => Status::SUCCESS,
            _ => Status::ALL_PASS,
        };
        changes.push((command, payload, status));
    };
    add(Command::Pown, pown(&[(all[0], own(all[0]), an(0x20))]));
    let several = [
        (all[1], own(all[1]), an(0x21)),
        (all[2], own(all[2]), an(0x22)),
        // Records of a coin see each other.
        (all[1], an(0x21), an(0x23)),
    ];
    add(Command::Pown, pown(&several));
    let into = locker(0x40).an();
    add(Command::Pown, pown(&[(all[3], own(all[3]), into)]));
    let of_one = composed(|out| PownSum::compose([all[4]], own(all[4]), an(0x24), out));
    add(Command::PownSum, of_one);
    let known = all[5..8].iter().map(|&coin| (coin, own(coin)));
    let derive = composed(|out| PownDerive::compose(RAIDA, known, an(0x25), out));
    add(Command::PownDerive, derive);
    let stored = store(&all[8..11], sum(&all[8..11]), locker(0x41));
    add(Command::StoreSum, stored);
    let lockers = [
        (vec![all[11]], own(all[11]), locker(0x42)),
        (vec![all[12], all[13]], sum(&all[12..14]), locker(0x43)),
    ];
    let several = composed(|out| StoreMultiple::compose(lockers, out));
    add(Command::StoreMultiple, several);
    let out_of = [(all[10], an(0x26)), (all[8], an(0x27))];
    let remove = composed(|out| Remove::compose(locker(0x41), out_of, out));
    add(Command::Remove, remove);
    add(Command::PutForSale, put(&all[14..16], trade(0x31)));
    add(Command::PutForSale, put(&all[16..18], trade(0x32)));
    add(Command::PutForSale, put(&all[18..21], trade(0x33)));
    let into = Some(locker(0x44));
    let back = composed(|out| RemoveTrade::compose(trade(0x31), into, out));
    add(Command::RemoveTrade, back);
    let freed = composed(|out| RemoveTrade::compose(trade(0x32), None, out));
    add(Command::RemoveTrade, freed);
    let buy = composed(|out| purchase(trade(0x33), &all[18..21]).compose(out));
    add(Command::Buy, buy);
    let (session, key) = (SessionId::new(5), AdminKey::new(ADMIN_KEY));
    let denomination = all[0].denomination;
    let free = composed(|out| AvailableSns::compose(session, &key, [denomination], out));
    let free = Client::tcp(node).ask(Command::AvailableSns, &free);
    let free = AvailableSnsReply::new(&free.payload).flat_map(|free| {
        let denomination = free.denomination;
        let numbers = free.serial_numbers();
        numbers.map(move |serial_number| Coin {
            denomination,
            serial_number,
        })
    });
    let free: Vec<Coin> = free.take(3).collect();
    let create = composed(|out| CreateCoins::compose(session, &key, free, out));
    add(Command::CreateCoins, create);
    changes
}

fn purchase(key: TradeKey, coins: &[Coin]) -> Buy<'static> {
    Buy {
        into: locker(0x45),
        offer: Offer {
            currency: key.currency(),
            value: Value::of(coins.iter().copied()).expect("few coins"),
            price: key.price(),
        },
        transaction: TransactionId::new([3; 32]),
        receipt: ReceiptId::new([9; 16]),
        memo: Memo::new(b"for the garden").expect("14 bytes"),
    }
}

#[test]
fn what_comes_again_is_answered_as_before_and_changes_nothing() {
    for (shards, dialect) in [
        (1, Dialect::Spec),
        (2, Dialect::Spec),
        (1, Dialect::Raidax),
        (2, Dialect::Raidax),
    ] {
        let mut node = start(shards, dialect, |settings| {
            settings.settlement = Method::Trusted;
        });
        let mut client = Client::tcp(&node);
        for (command, payload, status) in changes(&node) {
            let what = format!("{command:?}, {shards} shards, {dialect:?}");
            let first = client.ask(command, &payload);
            assert_eq!(first.status, status, "{what}");
            let powned = client.powned();
            assert_eq!(
                client.ask(command, &payload),
                first,
                "{what}, same connection"
            );
            // The kernel spreads them over the cores.
            for _ in 0..4 {
                assert_eq!(Client::tcp(&node).ask(command, &payload), first, "{what}");
                assert_eq!(Client::udp(&node).ask(command, &payload), first, "{what}");
            }
            assert_eq!(client.powned(), powned, "{what}");
        }
        let all = coins();
        assert!(client.have(&[
            (all[0], an(0x20)),
            (all[1], an(0x23)),
            (all[4], own(all[4]) ^ an(0x24)),
        ]));
        assert_eq!(client.peek(locker(0x41)), [all[9]]);
        assert_eq!(client.peek(locker(0x44)), all[14..16]);
        assert_eq!(client.peek(locker(0x45)), all[18..21]);
        drop(client);
        node.stop();
    }
}

/// It changes nothing the first time, and nothing the second time.
#[test]
fn a_coin_powned_to_the_number_that_it_has_passes_each_time() {
    for shards in [1, 2] {
        let mut node = start(shards, Dialect::Spec, |_| ());
        let mut client = Client::tcp(&node);
        let coin = coins()[0];
        let same = pown(&[(coin, own(coin), own(coin))]);
        for _ in 0..2 {
            let answers = [
                client.ask(Command::Pown, &same),
                Client::udp(&node).ask(Command::Pown, &same),
            ];
            for answer in answers {
                assert_eq!(answer.status, Status::ALL_PASS);
            }
            assert!(client.have(&[(coin, own(coin))]));
        }
        drop(client);
        node.stop();
    }
}

/// Under any key: only the content of the request counts.
#[test]
fn an_answer_is_sealed_for_the_request_that_it_answers() {
    for shards in [1, 2] {
        let mut node = start(shards, Dialect::Spec, |_| ());
        let all = coins();
        let payload = pown(&[
            (all[0], own(all[0]), an(0x20)),
            (all[1], own(all[1]), an(0x21)),
        ]);
        for (unique, key) in [(1, all[2]), (2, all[3]), (3, all[2])] {
            let under = Protection::CoinHmac(key, own(key));
            let asked = compose(Command::Pown, under, Some(&payload), unique);
            let mut wire = Wire::tcp(node.address());
            let answer = wire.ask(&asked, ResponseCounter::Restart);
            assert_eq!(answer.status, Status::ALL_PASS);
        }
        node.stop();
    }
}

#[test]
fn once_its_coins_have_other_numbers_it_is_a_new_request() {
    for shards in [1, 2] {
        let mut node = start(shards, Dialect::Spec, |_| ());
        let mut client = Client::tcp(&node);
        let fails = |client: &mut Client, node: &RealNode, command, payload: &[u8]| {
            assert_eq!(
                client.ask(command, payload).status,
                Status::ALL_FAIL,
                "{command:?}"
            );
            assert_eq!(
                Client::udp(node).ask(command, payload).status,
                Status::ALL_FAIL,
                "{command:?}"
            );
        };
        let all = coins();
        let passes = |client: &mut Client, command, payload: &[u8]| {
            assert_eq!(
                client.ask(command, payload).status,
                Status::ALL_PASS,
                "{command:?}"
            );
        };
        // Of one coin; of several coins, where one has moved on; of a locker.
        let one = pown(&[(all[0], own(all[0]), an(0x20))]);
        passes(&mut client, Command::Pown, &one);
        passes(
            &mut client,
            Command::Pown,
            &pown(&[(all[0], an(0x20), an(0x21))]),
        );
        fails(&mut client, &node, Command::Pown, &one);

        let known = all[1..4].iter().map(|&coin| (coin, own(coin)));
        let derive = composed(|out| PownDerive::compose(RAIDA, known, an(0x25), out));
        passes(&mut client, Command::PownDerive, &derive);
        let moved = raida::protocol::authentication::derived_an(all[2], own(all[2]), an(0x25));
        passes(
            &mut client,
            Command::Pown,
            &pown(&[(all[2], moved, an(0x22))]),
        );
        fails(&mut client, &node, Command::PownDerive, &derive);

        let stored = store(&all[4..7], sum(&all[4..7]), locker(0x41));
        passes(&mut client, Command::StoreSum, &stored);
        let out = composed(|out| Remove::compose(locker(0x41), [(all[5], own(all[5]))], out));
        passes(&mut client, Command::Remove, &out);
        fails(&mut client, &node, Command::StoreSum, &stored);

        // An offer that was taken back, and the same coins offered again under the same key.
        let offer = put(&all[7..9], trade(0x31));
        passes(&mut client, Command::PutForSale, &offer);
        let into = Some(locker(0x44));
        let back = composed(|out| RemoveTrade::compose(trade(0x31), into, out));
        passes(&mut client, Command::RemoveTrade, &back);
        fails(&mut client, &node, Command::PutForSale, &offer);
        let again = [(all[7], own(all[7])), (all[8], own(all[8]))];
        let out = composed(|out| Remove::compose(locker(0x44), again, out));
        passes(&mut client, Command::Remove, &out);
        passes(&mut client, Command::PutForSale, &offer);
        passes(&mut client, Command::RemoveTrade, &back);
        assert_eq!(client.peek(locker(0x44)), all[7..9]);
        drop(client);
        node.stop();
    }
}

/// A delta that is applied twice undoes itself: a client that sends a pown sum and gets no answer
/// may still ask again.
#[test]
fn a_pown_sum_that_comes_twice_does_not_undo_itself() {
    for shards in [1, 2] {
        let mut node = start(shards, Dialect::Raidax, |_| ());
        let of = &coins()[..4];
        let named = || of.iter().copied();
        // An even number of coins: their XOR stays right.
        let payload = composed(|out| PownSum::compose(named(), sum(of), an(0x30), out));
        for connect in [Client::tcp, Client::udp, Client::tcp] {
            let answer = connect(&node).ask(Command::PownSum, &payload);
            assert_eq!(answer.status, Status::ALL_PASS);
            let new: Vec<_> = named().map(|coin| (coin, own(coin) ^ an(0x30))).collect();
            assert!(Client::tcp(&node).have(&new));
        }
        node.stop();
    }
}

#[test]
fn what_was_not_carried_out_in_full_is_not_remembered() {
    for shards in [1, 2] {
        let mut node = start(shards, Dialect::Spec, |_| ());
        let mut client = Client::tcp(&node);
        let all = coins();
        let records = [(all[0], own(all[0]), an(0x20)), (all[1], an(9), an(0x21))];
        let first = client.ask(Command::Pown, &pown(&records));
        assert_eq!((first.status, first.payload), (Status::MIXED, vec![0b01]));
        let again = client.ask(Command::Pown, &pown(&records));
        assert_eq!(again.status, Status::ALL_FAIL);
        // Only the whole request is the same: neither a part of it nor one with more.
        let both = [
            (all[2], own(all[2]), an(0x22)),
            (all[3], own(all[3]), an(0x23)),
        ];
        assert_eq!(
            client.ask(Command::Pown, &pown(&both)).status,
            Status::ALL_PASS
        );
        for part in [&both[..1], &both[1..]] {
            let answer = client.ask(Command::Pown, &pown(part));
            assert_eq!(answer.status, Status::ALL_FAIL);
        }
        let reversed = [both[1], both[0]];
        assert_eq!(
            client.ask(Command::Pown, &pown(&reversed)).status,
            Status::ALL_FAIL
        );
        drop(client);
        node.stop();
    }
}

/// Coins that are stored where they lie move to the end of the list; a repeat does not move them.
#[test]
fn a_repeat_leaves_the_order_of_a_locker() {
    for shards in [1, 2] {
        let mut node = start(shards, Dialect::Spec, |_| ());
        let mut client = Client::tcp(&node);
        let all = coins();
        let first = store(&all[..2], sum(&all[..2]), locker(0x41));
        let second = store(&all[2..4], sum(&all[2..4]), locker(0x41));
        for payload in [&first, &second, &first] {
            assert_eq!(
                client.ask(Command::StoreSum, payload).status,
                Status::ALL_PASS
            );
        }
        assert_eq!(client.peek(locker(0x41)), all[..4]);
        drop(client);
        node.stop();
    }
}

/// A program that waits until a file is there, and then says that it was paid; it notes each
/// question.
fn slow_program(folder: &Path) -> Method {
    let path = folder.join("settle");
    let script = format!(
        "#!/bin/sh\ncat > /dev/null\necho asked >> {0}/asked\nuntil [ -e {0}/paid ]; do sleep 0.05; done\n",
        folder.display(),
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Method::Command(Program {
        path,
        arguments: vec![],
        environment: Variables::default(),
        timeout: PATIENCE,
        at_most: 4,
        waiting_max: 16,
    })
}

#[test]
fn a_purchase_under_way_is_not_begun_again() {
    for shards in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let method = slow_program(folder.path());
        let mut node = start(shards, Dialect::Spec, |settings| {
            settings.settlement = method
        });
        let on_sale = &coins()[..3];
        let offered = Client::tcp(&node).ask(Command::PutForSale, &put(on_sale, trade(0x33)));
        assert_eq!(offered.status, Status::ALL_PASS);
        let payload = composed(|out| purchase(trade(0x33), on_sale).compose(out));
        thread::scope(|scope| {
            let buy = || scope.spawn(|| Client::tcp(&node).ask(Command::Buy, &payload));
            let first = buy();
            wait_for(&folder.path().join("asked"));
            let mut others = vec![];
            for _ in 0..4 {
                others.push(buy());
                assert_eq!(datagram(&node, &payload), None, "no answer to a datagram");
            }
            fs::write(folder.path().join("paid"), "").unwrap();
            let first = first.join().unwrap();
            assert_eq!(first.status, Status::ALL_PASS);
            for other in others {
                assert_eq!(other.join().unwrap(), first);
            }
        });
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked.lines().count(), 1);
        assert_eq!(Client::tcp(&node).peek(locker(0x45)), on_sale);
        node.stop();
    }
}

/// What a purchase by datagram is answered in a short while.
fn datagram(node: &RealNode, payload: &[u8]) -> Option<Answer> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(node.address()).unwrap();
    let short = Duration::from_millis(100);
    socket.set_read_timeout(Some(short)).unwrap();
    let asked = compose(Command::Buy, Protection::None, Some(payload), 77);
    socket.send(&asked.bytes).unwrap();
    let mut answer = [0; 1_500];
    match socket.recv(&mut answer) {
        Ok(length) => panic!("{length} bytes"),
        Err(error) => {
            let none = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
            assert!(none.contains(&error.kind()), "{error}");
            None
        }
    }
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
}
