//! Healing of keys on a real node: what it vouches for as a helper, and what it takes, and does not
//! take, from helpers as the server that lost a coin. The tests play the other side: they know the
//! secrets that the node shares with the others.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Barrier},
    thread,
};

use raida::runtime::{Moved, WallClock};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    node::Settings,
    protocol::{
        Command, Dialect, Protection, RaidaId, ResponseCounter, ResponseHeader, Status,
        authentication::{Detect, Pown},
        key_healing::{
            EncryptionTicket, FixEncryption, GetEncryptionTicket, Half, KeyPart, Minute, Presented,
            SharedSecret, Verdict, Voucher, join, split,
        },
        lockers::{Address, Currency, LockerKey, Price, PutForSale, StoreSum, TradeKey},
    },
};

use crate::real_node::{
    RAIDA, RealNode,
    plain::Client,
    wire::{Answer, Wire, compose},
};

const COINS: usize = 24;

/// Server 20 has no secret in common with the node.
const STRANGER: u8 = 20;

fn raida(number: u8) -> RaidaId {
    RaidaId::new(number).unwrap()
}

/// What the node shares with a server.
fn secret(number: u8) -> [u8; 16] {
    match number {
        _ if number == RAIDA.get() || number == STRANGER => [0; 16],
        _ => [number + 1; 16],
    }
}

fn shared(number: u8) -> SharedSecret {
    SharedSecret::new(&secret(number))
}

/// Coins of several pages, so of all shards.
fn coin(index: usize) -> Coin {
    PageId::from_index(8_000 + index % 3).unwrap().coin(index)
}

/// A number whose halves differ from each other and from those of other numbers.
fn number(number: u8) -> An {
    An::new(std::array::from_fn(|i| {
        number.wrapping_mul(16) ^ number >> 4 ^ i as u8
    }))
}

fn an(index: usize) -> An {
    number(index as u8 + 100)
}

/// What time it is when nodes start: a ticket's age is what the test says.
const START_SECONDS: u64 = 1_795_231_055;
/// Minutes that a node has run when a test begins: long enough for tickets of any age.
const RUN_MINUTES: u64 = 15;

thread_local! {
    /// What time it is for the nodes and helpers of this thread's test.
    static MINUTE: Cell<u64> = const { Cell::new(0) };
}

/// The minute of now.
fn now() -> u64 {
    MINUTE.get()
}

/// Lets this many minutes pass. Tickets of two minutes later heal a coin that changed.
fn pass(node: &RealNode, minutes: u64) {
    let WallClock::Moved(clock) = &node.settings().clock else {
        panic!("nodes of these tests have a clock of the test's");
    };
    clock.pass(60 * minutes);
    MINUTE.set(now() + minutes);
}

/// Starts a node again, and lets enough time pass for its coins to be healed.
fn restart(node: &mut RealNode, change: impl FnOnce(&mut Settings)) {
    node.restart(change);
    pass(node, 2);
}

fn start(change: impl FnOnce(&mut Settings)) -> RealNode {
    let coins: Vec<(Coin, An, Mfs)> = (0..COINS)
        .map(|index| (coin(index), an(index), Mfs::new(20)))
        .collect();
    let node = RealNode::start(&coins, |settings| {
        settings.shards = 2;
        settings.rules.dialect = Dialect::Spec;
        let file = settings.data.with_file_name("secrets");
        let lines: String = (0..25)
            .map(|number| secret(number).map(|byte| format!("{byte:02x}")).concat() + "\n")
            .collect();
        fs::write(&file, lines).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        settings.keys_file = Some(file);
        settings.clock = WallClock::Moved(Arc::new(Moved::stopped_at(START_SECONDS)));
        change(settings);
    });
    MINUTE.set(Minute::of_unix_seconds(START_SECONDS).0);
    pass(&node, RUN_MINUTES);
    node
}

/// A ticket of a helper, as it would make it.
fn ticket(helper: u8, coin: Coin, part: KeyPart, minute: u64) -> EncryptionTicket {
    shared(helper).seal(&Voucher {
        part,
        coin,
        minute: minute as u16,
    })
}

fn presented(helper: u8, half: Half, ticket: EncryptionTicket) -> Presented {
    Presented {
        helper: raida(helper),
        half,
        ticket,
    }
}

/// Both halves of a number for a coin, of helpers 3 and 7, issued now.
fn good(coin: Coin, an: An) -> [Presented; 2] {
    good_of([3, 7], coin, an, now())
}

fn good_of(helpers: [u8; 2], coin: Coin, an: An, minute: u64) -> [Presented; 2] {
    let [first, second] = split(an);
    [
        presented(
            helpers[0],
            Half::First,
            ticket(helpers[0], coin, first, minute),
        ),
        presented(
            helpers[1],
            Half::Second,
            ticket(helpers[1], coin, second, minute),
        ),
    ]
}

/// One client, over TCP or UDP by turns.
struct Asker {
    clients: [Client; 2],
    next: usize,
}

impl Asker {
    fn of(node: &RealNode) -> Asker {
        Asker {
            clients: [Client::tcp(node), Client::udp(node)],
            next: 0,
        }
    }

    fn ask(&mut self, command: Command, payload: &[u8]) -> Answer {
        self.next += 1;
        self.clients[self.next % 2].ask(command, payload)
    }

    fn try_fix(&mut self, coin: Coin, tickets: &[Presented]) -> Answer {
        let mut payload = vec![];
        FixEncryption::compose(coin, tickets, &mut payload);
        self.ask(Command::FixEncryption, &payload)
    }

    fn verdicts(&mut self, coin: Coin, tickets: &[Presented]) -> Vec<Verdict> {
        let answer = self.try_fix(coin, tickets);
        assert_eq!(answer.status, Status::SUCCESS);
        assert_eq!(answer.payload.len(), tickets.len());
        FixEncryption::read(&answer.payload, tickets.len()).unwrap()
    }

    /// Which tickets were accepted; the others are no good, and not only too early.
    fn fix(&mut self, coin: Coin, tickets: &[Presented]) -> Vec<bool> {
        let verdicts = self.verdicts(coin, tickets);
        assert!(!verdicts.contains(&Verdict::TooEarly), "{verdicts:?}");
        let is_accepted = |&verdict: &Verdict| verdict == Verdict::Accepted;
        verdicts.iter().map(is_accepted).collect()
    }

    fn has(&mut self, coin: Coin, an: An) -> bool {
        let mut payload = vec![];
        Detect::compose([(coin, an)], &mut payload);
        self.ask(Command::Detect, &payload).status == Status::ALL_PASS
    }

    fn pown(&mut self, coin: Coin, an: An, pan: An) {
        let mut payload = vec![];
        Pown::compose([(coin, an, pan)], &mut payload);
        assert_eq!(self.ask(Command::Pown, &payload).status, Status::ALL_PASS);
    }
}

/// Gives the trade key.
fn put_for_sale(asker: &mut Asker, index: usize) -> An {
    let key = TradeKey::of([0x33; 9], Price::new(4), Currency::Bitcoin);
    let address = Address::new(b"bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh").unwrap();
    let mut payload = vec![];
    PutForSale::compose([coin(index)], an(index), key, &address, &mut payload);
    let put = asker.ask(Command::PutForSale, &payload);
    assert_eq!(put.status, Status::ALL_PASS);
    key.an()
}

fn asked(broken: u8, coin: Coin, part: KeyPart, an: Option<An>) -> Vec<u8> {
    let mut payload = vec![];
    GetEncryptionTicket {
        broken: raida(broken),
        coin,
        part,
        an,
    }
    .compose(&mut payload);
    payload
}

/// Asks for a ticket under a protection.
fn get(node: &RealNode, protection: Protection, payload: &[u8]) -> Answer {
    let mut wire = match payload.len() {
        GetEncryptionTicket::SHORT => Wire::tcp(node.address()),
        _ => Wire::udp(node.address()),
    };
    let request = compose(Command::EncryptionTicket, protection, Some(payload), 7);
    wire.ask(&request, ResponseCounter::Restart)
}

/// What the node says of a ticket, by its status.
fn status(node: &RealNode, protection: Protection, payload: &[u8]) -> Status {
    let answer = get(node, protection, payload);
    assert_eq!(answer.status == Status::SUCCESS, !answer.payload.is_empty());
    answer.status
}

#[test]
fn a_helper_vouches_for_whoever_proves_to_own_the_coin_in_either_layout() {
    let node = start(|_| {});
    let [part, _] = split(An::new(std::array::from_fn(|i| i as u8)));
    for index in 0..6 {
        let (coin, an) = (coin(index), an(index));
        let other = (self::coin(index + 6), self::an(index + 6));
        let short = [
            Protection::Coin(coin, an),
            Protection::CoinHmac(coin, an),
            Protection::TwoCoinsHmac((coin, an), other),
            Protection::TwoCoinsHmac(other, (coin, an)),
        ];
        let long = [
            Protection::Coin(other.0, other.1),
            Protection::CoinHmac(other.0, other.1),
            Protection::TwoCoinsHmac(other, other),
        ];
        let short = short.map(|protection| (protection, None));
        let long = long.map(|protection| (protection, Some(an)));
        for (protection, an) in short.into_iter().chain(long) {
            let answer = get(&node, protection, &asked(9, coin, part, an));
            assert_eq!(answer.status, Status::SUCCESS);
            let ticket = EncryptionTicket::read(&answer.payload).unwrap();
            let voucher = Voucher {
                part,
                coin,
                minute: now() as u16,
            };
            assert_eq!(shared(9).open(&ticket), Some(voucher));
            assert_ne!(shared(10).open(&ticket), Some(voucher));
        }
    }
}

#[test]
fn no_ticket_for_somebody_elses_coin() {
    let node = start(|_| {});
    let [part, _] = split(an(50));
    let key = Protection::CoinHmac(coin(0), an(0));
    let refused = Status::KEY_NOT_FOUND;
    // The key is another coin's than the one asked about.
    assert_eq!(status(&node, key, &asked(9, coin(1), part, None)), refused);
    let two = Protection::TwoCoinsHmac((coin(0), an(0)), (coin(2), an(2)));
    assert_eq!(status(&node, two, &asked(9, coin(1), part, None)), refused);
    // A wrong number; a coin that is nobody's.
    for wrong in [an(0), An::ZERO, An::new([0xff; 16])] {
        let payload = asked(9, coin(1), part, Some(wrong));
        assert_eq!(status(&node, key, &payload), refused);
    }
    let free = PageId::from_index(14_000).unwrap().coin(5);
    let payload = asked(9, free, part, Some(An::ZERO));
    assert_eq!(status(&node, key, &payload), refused);
    // Under a locker's key, which is a number of coins and no coin.
    let mut client = Client::tcp(&node);
    let key = An::new([0xff; 16]);
    let mut payload = vec![];
    Pown::compose([(coin(3), an(3), key)], &mut payload);
    assert_eq!(client.ask(Command::Pown, &payload).status, Status::ALL_PASS);
    let under = Protection::Locker(key);
    assert_eq!(
        status(&node, under, &asked(9, coin(3), part, None)),
        refused
    );
    let proven = asked(9, coin(3), part, Some(key));
    assert_eq!(status(&node, under, &proven), Status::SUCCESS);
}

#[test]
fn no_ticket_without_encryption_unless_the_operator_allows_it() {
    let mut node = start(|_| {});
    let [part, _] = split(an(50));
    let short = asked(9, coin(1), part, None);
    let long = asked(9, coin(1), part, Some(an(1)));
    for payload in [&short, &long] {
        let answer = status(&node, Protection::None, payload);
        assert_eq!(answer, Status::KEY_NOT_FOUND);
    }
    node.restart(|settings| settings.allow_unencrypted_tickets = true);
    assert_eq!(status(&node, Protection::None, &long), Status::SUCCESS);
    // The request names no number, and no key proves anything.
    let answer = status(&node, Protection::None, &short);
    assert_eq!(answer, Status::KEY_NOT_FOUND);
    let wrong = asked(9, coin(1), part, Some(an(2)));
    let answer = status(&node, Protection::None, &wrong);
    assert_eq!(answer, Status::KEY_NOT_FOUND);
}

#[test]
fn a_server_without_a_shared_secret_is_refused_and_no_default_takes_its_place() {
    let mut node = start(|_| {});
    let [part, _] = split(an(50));
    let key = Protection::CoinHmac(coin(1), an(1));
    let refused = Status::HEALING_RAIDA_OUT_OF_RANGE;
    for broken in [STRANGER, RAIDA.get()] {
        let short = asked(broken, coin(1), part, None);
        assert_eq!(status(&node, key, &short), refused);
        let tickets = good_of([broken, 7], coin(1), number(broken), now());
        assert_eq!(Asker::of(&node).fix(coin(1), &tickets), [false, true]);
    }
    let mut none = asked(9, coin(1), part, None);
    none[0] = 25;
    assert_eq!(status(&node, key, &none), refused);
    assert!(Asker::of(&node).has(coin(1), an(1)));

    node.restart(|settings| {
        settings.keys_file = None;
        settings.rules.dialect = Dialect::Raidax;
    });
    let refused = Status::RAIDA_OUT_OF_RANGE;
    let payload = asked(9, coin(1), part, None);
    assert_eq!(status(&node, key, &payload), refused);
    let mut asker = Asker::of(&node);
    let answer = asker.try_fix(coin(1), &good(coin(1), an(50)));
    assert_eq!(answer.status, refused);
    assert!(asker.has(coin(1), an(1)));
}

#[test]
fn requests_of_another_size_are_refused_in_both_dialects() {
    let key = Protection::CoinHmac(coin(1), an(1));
    let long = asked(9, coin(1), split(an(50))[0], Some(an(1)));
    for (dialect, status) in [
        (Dialect::Spec, Status::HEALING_INVALID_LENGTH),
        (Dialect::Raidax, Status::INVALID_LENGTH),
    ] {
        let node = start(|settings| settings.rules.dialect = dialect);
        // A layout of 13 bytes exists, which does not say who is broken.
        for length in [0, 1, 13, 15, 33] {
            assert_eq!(self::status(&node, key, &long[..length]), status);
        }
        let mut payload = vec![];
        FixEncryption::compose(coin(1), &good(coin(1), an(50)), &mut payload);
        let mut client = Client::tcp(&node);
        let mut ask = |payload: &[u8]| client.ask(Command::FixEncryption, payload).status;
        assert_eq!(ask(&payload[..6]), status);
        assert_eq!(ask(&payload[..24]), status);
        let uneven = match dialect {
            Dialect::Spec => Status::HEALING_UNEVEN_RECORDS,
            Dialect::Raidax => Status::UNEVEN_RECORDS,
        };
        assert_eq!(ask(&payload[..43]), uneven);
    }
}

#[test]
fn both_commands_are_answered_under_group_2_as_well() {
    let node = start(|_| {});
    let key = Protection::Coin(coin(1), an(1));
    let payload = asked(9, coin(1), split(an(50))[0], None);
    let mut fix = vec![];
    FixEncryption::compose(coin(1), &good(coin(1), an(50)), &mut fix);
    for (command, protection, payload) in [
        (Command::EncryptionTicket, key, payload),
        (Command::FixEncryption, Protection::None, fix),
    ] {
        let mut request = compose(command, protection, Some(&payload), 7);
        request.bytes[4] = 2;
        let mut wire = Wire::udp(node.address());
        wire.send(&request.bytes);
        let answer = wire.receive_all();
        let encryption = request.sent.header.encryption;
        let header = ResponseHeader::parse(&answer, encryption).unwrap();
        assert_eq!((header.group, header.status), (2, Status::SUCCESS));
    }
    assert!(Asker::of(&node).has(coin(1), an(50)));
}

#[test]
fn two_helpers_give_a_coin_its_number_durably_whatever_shard_it_is_in() {
    let mut node = start(|_| {});
    let fixed = |index: usize| number(index as u8 + 1);
    // One that was never in circulation is healed as well.
    let free = PageId::from_index(14_000).unwrap().coin(5);
    let mut asker = Asker::of(&node);
    for index in 0..6 {
        let tickets = good(coin(index), fixed(index));
        assert_eq!(asker.fix(coin(index), &tickets), [true, true]);
        assert!(asker.has(coin(index), fixed(index)) && !asker.has(coin(index), an(index)));
    }
    assert_eq!(asker.fix(free, &good(free, fixed(9))), [true, true]);
    node.restart(|settings| settings.shards = 3);
    let mut asker = Asker::of(&node);
    assert!((0..6).all(|index| asker.has(coin(index), fixed(index))));
    assert!(asker.has(free, fixed(9)));
}

#[test]
fn the_layout_that_names_the_coin_again_is_taken() {
    let node = start(|_| {});
    let long = |coin: Coin, names: Coin, tickets: &[Presented]| {
        let mut payload = coin.to_bytes().to_vec();
        for presented in tickets {
            payload.extend([presented.helper.get(), 0, 6, presented.half as u8, 0]);
            payload.extend(names.to_bytes());
            payload.extend(presented.ticket.expose());
        }
        payload
    };
    let mut asker = Asker::of(&node);
    let payload = long(coin(1), coin(2), &good(coin(1), an(50)));
    let answer = asker.ask(Command::FixEncryption, &payload);
    assert_eq!(
        (answer.status, &*answer.payload),
        (Status::SUCCESS, &[0, 0][..])
    );
    let payload = long(coin(1), coin(1), &good(coin(1), an(50)));
    let answer = asker.ask(Command::FixEncryption, &payload);
    assert_eq!(
        (answer.status, &*answer.payload),
        (Status::SUCCESS, &[1, 1][..])
    );
    assert!(asker.has(coin(1), an(50)));
}

#[test]
fn a_ticket_of_another_coin_is_not_taken() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let tickets = good(coin(1), an(50));
    assert_eq!(asker.fix(coin(2), &tickets), [false, false]);
    let [_, own] = good(coin(2), an(50));
    assert_eq!(asker.fix(coin(2), &[tickets[0], own]), [false, true]);
    assert!(asker.has(coin(1), an(1)) && asker.has(coin(2), an(2)));
    // Tickets that were refused elsewhere are good where they belong.
    assert_eq!(asker.fix(coin(1), &tickets), [true, true]);
}

#[test]
fn a_ticket_with_any_bit_flipped_is_not_taken() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    for bit in 0..128 {
        let [first, mut second] = good(coin(1), number(bit as u8));
        let mut bytes = *second.ticket.expose();
        bytes[bit / 8] ^= 1 << (bit % 8);
        second.ticket = EncryptionTicket::new(bytes);
        assert_eq!(
            asker.fix(coin(1), &[first, second]),
            [true, false],
            "bit {bit}"
        );
    }
    assert!(asker.has(coin(1), an(1)));
}

#[test]
fn a_ticket_is_taken_once_also_after_the_coin_has_another_owner_and_the_node_another_run() {
    let mut node = start(|_| {});
    let mut asker = Asker::of(&node);
    let tickets = good(coin(1), an(50));
    assert_eq!(asker.fix(coin(1), &tickets), [true, true]);
    let other_order = [tickets[1], tickets[0]];
    assert_eq!(asker.fix(coin(1), &other_order), [false, false]);
    // The same request again is answered as the first, which changes nothing.
    assert_eq!(asker.fix(coin(1), &tickets), [true, true]);
    let counts = raida::admin::ask_counts(&node.settings().data).unwrap();
    assert_eq!(counts.healing.keys_fixed, 1);
    // A new owner.
    asker.pown(coin(1), an(50), an(60));
    assert_eq!(asker.fix(coin(1), &tickets), [false, false]);
    let swapped = [
        presented(3, Half::Second, tickets[0].ticket),
        presented(7, Half::First, tickets[1].ticket),
    ];
    assert_eq!(asker.fix(coin(1), &swapped), [false, false]);
    for shards in [1, 3, 2] {
        restart(&mut node, |settings| settings.shards = shards);
        let mut asker = Asker::of(&node);
        // Too early as well, which is all that is known after some minutes.
        let verdicts = asker.verdicts(coin(1), &tickets);
        assert!(!verdicts.contains(&Verdict::Accepted));
        assert!(asker.has(coin(1), an(60)));
        // What was not used before is good in this run as well.
        let fresh = good(coin(2), number(shards as u8));
        assert_eq!(asker.fix(coin(2), &fresh), [true, true]);
    }
}

/// What a power cut leaves: a copy of the data folder while the node runs.
#[test]
fn a_ticket_whose_number_is_durable_is_used_durably() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let tickets = good(coin(1), an(50));
    assert_eq!(asker.fix(coin(1), &tickets), [true, true]);
    asker.pown(coin(1), an(50), an(60));
    let data = node.settings().data.clone();
    let copy = tempfile::tempdir().unwrap();
    for folder in ["pages", "log", "book", ""] {
        fs::create_dir_all(copy.path().join(folder)).unwrap();
        for entry in fs::read_dir(data.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(
                    entry.path(),
                    copy.path().join(folder).join(entry.file_name()),
                )
                .unwrap();
            }
        }
    }
    let mut other = start(|_| {});
    other.restart(|settings| {
        settings.data = copy.path().to_owned();
        settings.admin_key_file = copy.path().join("admin.key");
    });
    let mut asker = Asker::of(&other);
    assert!(asker.has(coin(1), an(60)));
    assert_eq!(asker.fix(coin(1), &tickets), [false, false]);
    assert!(asker.has(coin(1), an(60)));
    other.stop();
}

#[test]
fn a_ticket_is_taken_for_ten_minutes_and_not_from_the_future() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let mut next = 0;
    let mut accepted = |age: i64| {
        next += 1;
        // A coin that has not changed since the node's start, long ago.
        let (coin, an) = (coin(next), number(next as u8));
        let tickets = good_of([3, 7], coin, an, now().wrapping_add_signed(-age));
        let accepted = asker.fix(coin, &tickets);
        assert_eq!(accepted[0], accepted[1]);
        assert_eq!(asker.has(coin, an), accepted[0]);
        accepted[0]
    };
    // A helper's clock may be a moment ahead when the minute turns.
    for age in [0, 1, 9, 10, -1] {
        assert!(accepted(age), "{age} minutes old");
    }
    for age in [11, 12, 60, 32_768, 65_535 - 20, -2, -3, -60, -30_000] {
        assert!(!accepted(age), "{age} minutes old");
    }
}

#[test]
fn both_halves_from_one_helper_or_the_same_half_twice_write_nothing() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    assert_eq!(
        asker.fix(coin(1), &good_of([3, 3], coin(1), an(50), now())),
        [true, true],
        "each is a good ticket"
    );
    for half in [Half::First, Half::Second] {
        let tickets = good(coin(1), number(half as u8 + 70));
        let same = tickets.map(|ticket| Presented { half, ..ticket });
        assert_eq!(asker.fix(coin(1), &same), [true, true]);
    }
    let [first, second] = good(coin(1), an(51));
    assert_eq!(asker.fix(coin(1), &[first]), [true]);
    // The first was accepted, which used it up.
    assert_eq!(asker.fix(coin(1), &[first, second]), [false, true]);
    // One ticket as both halves: the second time it has been used.
    let [first, _] = good(coin(1), an(52));
    let again = Presented {
        half: Half::Second,
        ..first
    };
    assert_eq!(asker.fix(coin(1), &[first, again]), [true, false]);
    assert!(asker.has(coin(1), an(1)));
    // Among several, two that belong together are enough.
    let [first, second] = good(coin(1), an(53));
    let of_one = good_of([3, 3], coin(1), an(53), now() - 1);
    let all = [of_one[1], first, second];
    assert_eq!(asker.fix(coin(1), &all), [true; 3]);
    assert!(asker.has(coin(1), an(53)));
}

#[test]
fn a_helper_outside_0_to_24_or_a_half_outside_0_and_1_is_not_taken() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    for (at, bytes) in [(6, &[25u8, 26, 128, 255][..]), (7, &[2, 3, 129, 254][..])] {
        for &byte in bytes {
            let mut payload = vec![];
            let tickets = good(coin(1), number(byte));
            FixEncryption::compose(coin(1), &tickets, &mut payload);
            payload[at] = byte;
            let answer = asker.ask(Command::FixEncryption, &payload);
            assert_eq!(answer.status, Status::SUCCESS);
            assert_eq!(answer.payload, [0, 1]);
        }
    }
    assert!(asker.has(coin(1), an(1)));
}

#[test]
fn the_key_of_a_coin_that_is_for_sale_is_not_healed() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let key = put_for_sale(&mut asker, 1);
    pass(&node, 2);
    assert_eq!(asker.fix(coin(1), &good(coin(1), an(50))), [false, false]);
    assert!(asker.has(coin(1), key));
}

#[test]
fn a_new_number_may_put_a_coin_into_a_locker() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let mut bytes = [0x42; 16];
    bytes[12..].fill(0xff);
    let key = An::new(bytes);
    assert_eq!(asker.fix(coin(1), &good(coin(1), key)), [true, true]);
    let peeked = asker.ask(Command::Peek, key.expose());
    assert_eq!(peeked.status, Status::ALL_PASS);
    assert_eq!(peeked.payload, coin(1).to_bytes());
    // And out of it again.
    pass(&node, 2);
    assert_eq!(asker.fix(coin(1), &good(coin(1), an(50))), [true, true]);
    assert_eq!(
        asker.ask(Command::Peek, key.expose()).status,
        Status::ALL_FAIL
    );
}

/// Whatever command brings coins into a locker, the first request's coins come first.
#[test]
fn requests_of_one_connection_bring_coins_into_a_locker_in_their_order() {
    let node = start(|_| {});
    let mut wire = Wire::tcp(node.address());
    let mut bytes = [0x42; 16];
    bytes[12..].fill(0xff);
    let key = An::new(bytes);
    let mut sent = vec![];
    for index in 0..COINS {
        let (coin, an) = (coin(index), an(index));
        let mut payload = vec![];
        let command = match index % 3 {
            0 => {
                FixEncryption::compose(coin, &good(coin, key), &mut payload);
                Command::FixEncryption
            }
            1 => {
                let locker = LockerKey::new(key).unwrap();
                StoreSum::compose([coin], an, locker, &mut payload);
                Command::StoreSum
            }
            _ => {
                Pown::compose([(coin, an, key)], &mut payload);
                Command::Pown
            }
        };
        let request = compose(command, Protection::None, Some(&payload), index as u64);
        wire.send(&request.bytes);
        sent.push(request.sent);
    }
    for sent in &sent {
        let answer = wire.answer(sent, ResponseCounter::Restart);
        assert_ne!(answer.status, Status::ALL_FAIL);
    }
    let mut asker = Asker::of(&node);
    let peeked = asker.ask(Command::Peek, key.expose());
    let order: Vec<u8> = (0..COINS)
        .flat_map(|index| coin(index).to_bytes())
        .collect();
    assert_eq!(peeked.payload, order);
}

#[test]
fn of_many_that_present_the_same_tickets_at_once_one_succeeds() {
    let node = start(|_| {});
    const CLIENTS: usize = 8;
    for round in 0..20 {
        let tickets = good(coin(round % 6), number(round as u8 + 1));
        let start = Arc::new(Barrier::new(CLIENTS));
        let accepted: Vec<Vec<bool>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (mut asker, start) = (Asker::of(&node), start.clone());
                    // A third of another coin, so that no two requests are the same.
                    let [other, _] = good(coin((round + 1) % 6), number(100 + client as u8));
                    let [first, second] = tickets;
                    scope.spawn(move || {
                        start.wait();
                        asker.fix(coin(round % 6), &[first, second, other])
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        });
        let winners = accepted
            .iter()
            .filter(|accepted| **accepted == [true, true, false]);
        assert_eq!(winners.count(), 1);
        let losers = accepted.iter().filter(|accepted| **accepted == [false; 3]);
        assert_eq!(losers.count(), CLIENTS - 1);
        pass(&node, 2);
    }
}

#[test]
fn as_many_used_tickets_are_remembered_as_there_may_be_and_no_more_are_taken() {
    // Its least is 512.
    let node = start(|settings| {
        settings.shards = 1;
        settings.tickets.pool = 64;
    });
    let mut asker = Asker::of(&node);
    for number in 0..=255 {
        // Of one half, so that none of them is written and the next are from after that.
        let tickets = good(coin(1), self::number(number));
        let tickets = tickets.map(|ticket| Presented {
            half: Half::First,
            ..ticket
        });
        assert_eq!(asker.fix(coin(1), &tickets), [true, true]);
    }
    for index in [1, 2] {
        let other = An::new([0xab; 16]);
        let answer = asker.try_fix(coin(index), &good(coin(index), other));
        assert_eq!(answer.status, Status::HEALING_NO_TICKET_SLOT);
    }
    let counts = raida::admin::ask_counts(&node.settings().data).unwrap();
    assert_eq!(counts.used_tickets_kept, 512);
    assert_eq!(counts.healing.encryption_fixes_refused, 2);
    assert!(asker.has(coin(1), an(1)) && asker.has(coin(2), an(2)));
}

/// The operator of the node can see the limits and what they did.
#[test]
fn what_was_given_refused_taken_and_kept_is_counted() {
    let node = start(|settings| settings.tickets.pool = 64);
    let key = Protection::CoinHmac(coin(1), an(1));
    let [part, _] = split(an(50));
    for broken in [9, 10, STRANGER] {
        get(&node, key, &asked(broken, coin(1), part, None));
    }
    get(&node, key, &asked(9, coin(2), part, None));
    let mut asker = Asker::of(&node);
    let tickets = good(coin(1), an(50));
    asker.fix(coin(1), &tickets);
    asker.fix(coin(1), &[tickets[1], tickets[0]]);
    asker.verdicts(coin(1), &good(coin(1), an(52)));
    pass(&node, 2);
    asker.fix(coin(1), &good_of([3, 3], coin(1), an(51), now()));
    let counts = raida::admin::ask_counts(&node.settings().data).unwrap();
    let healing = counts.healing;
    assert_eq!(healing.encryption_tickets, 2);
    assert_eq!(healing.encryption_tickets_refused, 2);
    assert_eq!((healing.encryption_fixes, healing.keys_fixed), (4, 1));
    assert_eq!(healing.encryption_tickets_accepted, 4);
    assert_eq!(healing.encryption_tickets_not_accepted, 4);
    assert_eq!(healing.encryption_tickets_too_early, 2);
    assert_eq!(healing.encryption_fixes_refused, 0);
    assert_eq!(counts.used_tickets_kept, 4);
}

/// A former owner of a coin may have collected tickets for it while it was the owner.
#[test]
fn a_ticket_from_before_a_coin_was_anothers_is_void() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let collected = |index: usize, number: u8| {
        let minute = now() - 1;
        good_of([3, 7], coin(index), self::number(number), minute)
    };
    let key = LockerKey::new(An::new([0xff; 16])).unwrap();
    let [powned, stored, kept] = [(1, 50), (2, 51), (3, 52)].map(|(i, n)| collected(i, n));
    asker.pown(coin(1), an(1), an(60));
    let mut payload = vec![];
    StoreSum::compose([coin(2)], an(2), key, &mut payload);
    let answer = asker.ask(Command::StoreSum, &payload);
    assert_eq!(answer.status, Status::ALL_PASS);
    let too_early = [Verdict::TooEarly; 2];
    assert_eq!(asker.verdicts(coin(1), &powned), too_early);
    assert_eq!(asker.verdicts(coin(2), &stored), too_early);
    assert!(asker.has(coin(1), an(60)) && asker.has(coin(2), key.an()));
    assert_eq!(asker.fix(coin(3), &kept), [true, true]);
    // What helpers gave counts as well: it may have been to another owner.
    assert_eq!(asker.verdicts(coin(3), &collected(3, 53)), too_early);
    // The new owner is vouched for.
    pass(&node, 2);
    assert_eq!(asker.fix(coin(1), &good(coin(1), an(61))), [true, true]);
}

/// Its seller has the number, and would take the coin back from the buyer.
#[test]
fn no_ticket_for_a_coin_that_is_for_sale() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let key = put_for_sale(&mut asker, 1);
    let [part, _] = split(an(50));
    let long = asked(9, coin(1), part, Some(key));
    let short = asked(9, coin(1), part, None);
    for (protection, payload) in [
        (Protection::CoinHmac(coin(1), key), &short),
        (Protection::Coin(coin(1), key), &short),
        (Protection::CoinHmac(coin(1), key), &long),
        (Protection::CoinHmac(coin(2), an(2)), &long),
    ] {
        let answer = status(&node, protection, payload);
        assert_eq!(answer, Status::KEY_NOT_FOUND);
    }
}

#[test]
fn tickets_that_cannot_be_written_down_as_used_stay_good() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let in_the_way = node.settings().data.join("used");
    fs::create_dir(&in_the_way).unwrap();
    let tickets = good(coin(1), an(50));
    let answer = asker.try_fix(coin(1), &tickets);
    assert_eq!(answer.status, Status::UNAVAILABLE);
    assert!(asker.has(coin(1), an(1)));
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(asker.fix(coin(1), &tickets), [true, true]);
    assert!(asker.has(coin(1), an(50)));
}

/// A request after it on the same connection sees what it wrote.
#[test]
fn requests_of_one_connection_take_effect_in_their_order() {
    let node = start(|_| {});
    let mut wire = Wire::tcp(node.address());
    let mut sent = vec![];
    for round in 0..COINS as u64 {
        let (coin, before) = (coin(round as usize), an(round as usize));
        let after = number(round as u8 + 1);
        let mut fix = vec![];
        FixEncryption::compose(coin, &good(coin, after), &mut fix);
        let mut detect = vec![];
        Detect::compose([(coin, before), (coin, after)], &mut detect);
        let ticket = asked(9, coin, split(an(50))[0], None);
        for (number, command, protection, payload) in [
            (0, Command::FixEncryption, Protection::None, fix),
            (1, Command::Detect, Protection::None, detect),
            // Its key is the number that was just written.
            (
                2,
                Command::EncryptionTicket,
                Protection::CoinHmac(coin, after),
                ticket,
            ),
        ] {
            let request = compose(command, protection, Some(&payload), round * 3 + number);
            wire.send(&request.bytes);
            sent.push(request.sent);
        }
    }
    for three in sent.chunks(3) {
        let answers = [&three[0], &three[1], &three[2]]
            .map(|sent| wire.answer(sent, ResponseCounter::Restart));
        assert_eq!(answers[0].payload, [1, 1]);
        assert_eq!(
            (answers[1].status, &*answers[1].payload),
            (Status::MIXED, &[2][..])
        );
        assert_eq!(answers[2].status, Status::SUCCESS);
    }
}

#[test]
fn halves_are_joined_in_their_order() {
    let node = start(|_| {});
    let mut asker = Asker::of(&node);
    let an = An::new(std::array::from_fn(|i| i as u8));
    let [first, second] = good(coin(1), an);
    assert_eq!(asker.fix(coin(1), &[second, first]), [true, true]);
    assert!(asker.has(coin(1), an));
    let [low, high] = split(an);
    assert!(asker.has(coin(1), join([low, high])));
}
