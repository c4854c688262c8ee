//! Purchases by strangers who do not pay, and purchases that others overtake while the node asks
//! the settlement: the buyer who has paid gets the coins, once, and nobody reserves an offer
//! without paying (docs/protocol.md, "Group 8: lockers").

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use crate::real_node::{
    PATIENCE, RealNode,
    plain::Client,
    wire::{Wire, compose},
};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    node::Settings,
    protocol::{
        Command, Dialect, Protection, ResponseCounter, Sent, Status,
        authentication::Detect,
        lockers::{
            Address, Buy, Contents, Currency, ListForSale, Listed, Listing, LockerKey, Memo, Offer,
            Peek, Price, PutForSale, ReceiptId, RemoveTrade, TradeKey, TransactionId, Value,
        },
    },
    service::{QuestionRates, Rate},
    settlement::{Method, Program, Variables},
};
use socket2::{Domain, Socket, Type};

/// Where a seller wants to be paid.
const SELLER: &[u8] = b"bc1q-where-the-seller-is";

fn coins() -> [Coin; 6] {
    std::array::from_fn(|index| PageId::from_index(7_000 + index).expect("a page").coin(9))
}

/// The number that a coin starts with: no two have the same, or their sum would prove nothing.
fn own(coin: Coin) -> An {
    An::new([coin.page().index() as u8; 16])
}

fn locker(first: u8) -> LockerKey {
    let mut bytes = [first; 16];
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}

fn trade(first: u8, price: u32) -> TradeKey {
    TradeKey::of([first; 9], Price::new(price), Currency::Bitcoin)
}

fn offer(coins: &[Coin], key: TradeKey) -> Offer {
    Offer {
        currency: key.currency(),
        value: Value::of(coins.iter().copied()).expect("few coins"),
        price: key.price(),
    }
}

fn put(client: &mut Client, coins: &[Coin], key: TradeKey, address: &[u8]) -> Status {
    let mut payload = Vec::new();
    let sum = coins.iter().fold(An::ZERO, |sum, &coin| sum ^ own(coin));
    let address = Address::new(address).expect("some bytes");
    PutForSale::compose(coins.iter().copied(), sum, key, &address, &mut payload);
    client.ask(Command::PutForSale, &payload).status
}

fn list(client: &mut Client) -> Vec<Listed> {
    let (currency, most) = (Currency::Bitcoin, 255);
    let mut payload = Vec::new();
    ListForSale { currency, most }.compose(&mut payload);
    let answer = client.ask(Command::ListForSale, &payload);
    let listing = Listing::read(answer.status, &answer.payload, currency);
    listing.expect("a listing").iter().collect()
}

fn purchase(offer: Offer, into: LockerKey, transaction: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    Buy {
        into,
        offer,
        transaction: TransactionId::new([transaction; 32]),
        receipt: ReceiptId::new([9; 16]),
        memo: Memo::new(b"for the garden").expect("14 bytes"),
    }
    .compose(&mut payload);
    payload
}

fn buy(client: &mut Client, offer: Offer, into: LockerKey, transaction: u8) -> Status {
    let payload = purchase(offer, into, transaction);
    client.ask(Command::Buy, &payload).status
}

fn cancel(client: &mut Client, key: TradeKey, into: LockerKey) -> Status {
    let mut payload = Vec::new();
    RemoveTrade::compose(key, Some(into), &mut payload);
    client.ask(Command::RemoveTrade, &payload).status
}

fn peek(client: &mut Client, key: LockerKey) -> Vec<Coin> {
    let mut payload = Vec::new();
    Peek::compose(key, &mut payload);
    let answer = client.ask(Command::Peek, &payload);
    let contents = Contents::read(answer.status, &answer.payload);
    contents.expect("an answer to a peek").coins().collect()
}

fn has(client: &mut Client, coin: Coin, an: An) -> bool {
    let mut payload = Vec::new();
    Detect::compose([(coin, an)], &mut payload);
    client.ask(Command::Detect, &payload).status == Status::ALL_PASS
}

/// What a test's program says about a payment: nothing until the test sets it.
struct Ledger(tempfile::TempDir);

impl Ledger {
    fn new() -> Ledger {
        let ledger = Ledger(tempfile::tempdir().expect("a folder"));
        let script = "cd \"$1\"
            read -r line
            payment=$(printf %s \"$line\" | sed 's/.*\"transaction_id\":\"\\(..\\).*/\\1/')
            echo asked >> \"asked-$payment\"
            while [ ! -e \"says-$payment\" ]; do sleep 0.02; done
            exit $(cat \"says-$payment\")";
        fs::write(ledger.path().join("settle"), script).expect("a script");
        ledger
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn settlement(&self) -> Method {
        Method::Command(Program {
            path: "/bin/sh".into(),
            arguments: vec![self.path().join("settle").into(), self.path().into()],
            environment: Variables::default(),
            timeout: PATIENCE,
            at_most: 8,
            waiting_max: 256,
        })
    }

    /// From now on the program says this of a payment: 0 paid, 1 pending, 2 refused, 4 seen.
    fn says(&self, payment: u8, verdict: u8) {
        let whole = self.path().join("being-written");
        fs::write(&whole, verdict.to_string()).expect("a file");
        let says = self.path().join(format!("says-{payment:02x}"));
        fs::rename(whole, says).expect("one folder");
    }

    /// How often it was asked about a payment.
    fn asked(&self, payment: u8) -> usize {
        let asked = fs::read_to_string(self.path().join(format!("asked-{payment:02x}")));
        asked.unwrap_or_default().lines().count()
    }

    /// Waits until it was asked about a payment this often.
    fn wait(&self, payment: u8, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.asked(payment) < times {
            assert!(Instant::now() < deadline, "nobody asks about {payment}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn start(shards: u16, ledger: &Ledger, change: impl FnOnce(&mut Settings)) -> RealNode {
    let coins = coins().map(|coin| (coin, own(coin), Mfs::new(40)));
    RealNode::start(&coins, |settings| {
        settings.shards = shards;
        settings.rules.dialect = Dialect::Spec;
        settings.settlement = ledger.settlement();
        change(settings);
    })
}

/// A client whose requests come from another address of this machine.
fn from(node: &RealNode, last: u8, is_tcp: bool) -> Wire {
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    if !is_tcp {
        let socket = UdpSocket::bind(address).expect("an address of the loopback");
        socket.connect(node.address()).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        return Wire::Udp(socket);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&address.into())
        .expect("an address of the loopback");
    socket
        .connect(&node.address().into())
        .expect("a connection");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    Wire::Tcp(stream)
}

/// Sends a purchase and waits for no answer.
fn send(wire: &mut Wire, offer: Offer, into: LockerKey, transaction: u8) -> Sent {
    let payload = purchase(offer, into, transaction);
    let asked = compose(
        Command::Buy,
        Protection::None,
        Some(&payload),
        transaction.into(),
    );
    wire.send(&asked.bytes);
    asked.sent
}

/// Buys on a connection of its own while others do something else.
fn buying<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    node: &'scope RealNode,
    offer: Offer,
    into: LockerKey,
    transaction: u8,
) -> ScopedJoinHandle<'scope, Status> {
    scope.spawn(move || buy(&mut Client::tcp(node), offer, into, transaction))
}

#[test]
fn purchases_that_nobody_paid_hide_no_offer_and_keep_neither_buyer_nor_seller_out() {
    for (shards, dialect) in [
        (1, Dialect::Spec),
        (2, Dialect::Spec),
        (1, Dialect::Raidax),
        (2, Dialect::Raidax),
    ] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |settings| {
            settings.rules.dialect = dialect;
            settings.trades.questions_per_address = 64;
        });
        let mut client = Client::tcp(&node);
        let (first, second) = (trade(0x31, 500), trade(0x32, 700));
        let all = coins();
        let (cheap, dear) = (&all[..2], &all[2..4]);
        assert_eq!(put(&mut client, cheap, first, SELLER), Status::ALL_PASS);
        assert_eq!(put(&mut client, dear, second, SELLER), Status::ALL_PASS);

        // The program checks it for as long as it takes, and finds no payment.
        let mut strangers = Vec::new();
        for (number, is_tcp) in [(0, true), (1, false)] {
            for (wanted, payment) in [(offer(cheap, first), 0xa0), (offer(dear, second), 0xb0)] {
                let mut wire = from(&node, 2 + number, is_tcp);
                let sent = send(&mut wire, wanted, locker(0x60), payment + number);
                ledger.wait(payment + number, 1);
                strangers.push((wire, sent));
            }
        }
        assert_eq!(list(&mut client).len(), 2, "while it is asked about");
        for (payment, place) in [(0xa0, 0), (0xa1, 2)] {
            ledger.says(payment, 1);
            let (wire, sent) = &mut strangers[place];
            let answer = wire.answer(sent, ResponseCounter::Restart);
            assert_eq!(answer.status, Status::PAYMENT_PENDING);
        }
        assert_eq!(list(&mut client).len(), 2, "and afterwards");

        ledger.says(1, 0);
        let bought = buy(&mut client, offer(cheap, first), locker(0x41), 1);
        assert_eq!(bought, Status::ALL_PASS);
        assert_eq!(peek(&mut client, locker(0x41)), cheap);
        let taken_back = cancel(&mut client, second, locker(0x42));
        assert_eq!(taken_back, Status::ALL_PASS);
        assert_eq!(peek(&mut client, locker(0x42)), dear);
        // A late verdict of any kind changes nothing any more.
        ledger.says(0xb0, 0);
        ledger.says(0xb1, 4);
        drop((client, strangers));
        node.stop();
    }
}

#[test]
fn a_payment_that_is_seen_or_confirmed_too_late_buys_nothing_and_is_not_used_up() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |_| ());
        let mut client = Client::tcp(&node);
        let key = trade(0x31, 500);
        let (all, mine) = (coins(), locker(0x42));
        for verdict in [0, 4] {
            let payment = 0x10 + verdict;
            assert_eq!(put(&mut client, &all[..2], key, SELLER), Status::ALL_PASS);
            thread::scope(|scope| {
                let wanted = offer(&all[..2], key);
                let late = buying(scope, &node, wanted, locker(0x41), payment);
                ledger.wait(payment, 1);
                assert_eq!(cancel(&mut client, key, mine), Status::ALL_PASS);
                ledger.says(payment, verdict);
                assert_eq!(late.join().expect("an answer"), Status::NO_SUCH_OFFER);
            });
            assert_eq!(peek(&mut client, mine), all[..2]);
            assert!(
                all[..2]
                    .iter()
                    .all(|&coin| has(&mut client, coin, mine.an()))
            );
            // The same payment pays for the coins that are there when the buyer asks again.
            let sold = trade(0x33 + verdict, 900);
            let other = &all[2 + usize::from(verdict) / 4..][..1];
            assert_eq!(put(&mut client, other, sold, SELLER), Status::ALL_PASS);
            ledger.says(payment, 0);
            let bought = buy(&mut client, offer(other, sold), locker(0x44), payment);
            assert_eq!(bought, Status::ALL_PASS);
            // For the next one of the loop.
            restore(&mut client, &all[..2], mine.an());
        }
        drop(client);
        node.stop();
    }
}

/// Gives coins of a locker the numbers that they started with.
fn restore(client: &mut Client, coins: &[Coin], from: An) {
    let mut payload = Vec::new();
    let records = coins.iter().map(|&coin| (coin, from, own(coin)));
    raida::protocol::authentication::Pown::compose(records, &mut payload);
    assert_eq!(client.ask(Command::Pown, &payload).status, Status::ALL_PASS);
}

#[test]
fn coins_that_went_and_came_back_under_the_same_key_are_another_offer() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |_| ());
        let mut client = Client::tcp(&node);
        let (key, mine) = (trade(0x31, 500), locker(0x42));
        let coins = &coins()[..2];
        assert_eq!(put(&mut client, coins, key, SELLER), Status::ALL_PASS);
        thread::scope(|scope| {
            let late = buying(scope, &node, offer(coins, key), locker(0x41), 1);
            ledger.wait(1, 1);
            assert_eq!(cancel(&mut client, key, mine), Status::ALL_PASS);
            restore(&mut client, coins, mine.an());
            let elsewhere = b"bc1q-where-somebody-else-is";
            assert_eq!(put(&mut client, coins, key, elsewhere), Status::ALL_PASS);
            ledger.says(1, 0);
            assert_eq!(late.join().expect("an answer"), Status::NO_SUCH_OFFER);
        });
        assert_eq!(list(&mut client).len(), 1);
        assert!(coins.iter().all(|&coin| has(&mut client, coin, key.an())));
        assert!(peek(&mut client, locker(0x41)).is_empty());
        drop(client);
        node.stop();
    }
}

#[test]
fn who_has_paid_first_gets_the_coins_whoever_asked_first() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |_| ());
        let mut client = Client::tcp(&node);
        let key = trade(0x31, 500);
        let coins = &coins()[..2];
        assert_eq!(put(&mut client, coins, key, SELLER), Status::ALL_PASS);
        let wanted = offer(coins, key);
        thread::scope(|scope| {
            let slow = buying(scope, &node, wanted, locker(0x41), 1);
            ledger.wait(1, 1);
            ledger.says(2, 0);
            assert_eq!(
                buy(&mut client, wanted, locker(0x42), 2),
                Status::ALL_PASS,
                "no question keeps anybody out"
            );
            ledger.says(1, 0);
            assert_eq!(slow.join().expect("an answer"), Status::NO_SUCH_OFFER);
        });
        assert_eq!(peek(&mut client, locker(0x42)), coins);
        assert!(peek(&mut client, locker(0x41)).is_empty());
        drop(client);
        node.stop();
    }
}

/// A payment's name is known before the payment is confirmed. A thief asks with it for himself; his
/// question must neither keep the owner out nor count the payment twice.
#[test]
fn one_payment_that_two_name_buys_once_and_neither_question_keeps_the_other_out() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |_| ());
        let mut client = Client::tcp(&node);
        let all = coins();
        let (first, second) = (trade(0x31, 500), trade(0x32, 500));
        let (one, other) = (&all[..1], &all[1..3]);
        assert_eq!(put(&mut client, one, first, SELLER), Status::ALL_PASS);
        assert_eq!(put(&mut client, other, second, SELLER), Status::ALL_PASS);
        let bought = thread::scope(|scope| {
            let asked = [
                buying(scope, &node, offer(one, first), locker(0x41), 1),
                buying(scope, &node, offer(other, second), locker(0x42), 1),
                buying(scope, &node, offer(other, second), locker(0x43), 1),
            ];
            ledger.wait(1, 3);
            ledger.says(1, 0);
            asked.map(|asked| asked.join().expect("an answer"))
        });
        let passed = bought.iter().filter(|&&status| status == Status::ALL_PASS);
        assert_eq!(passed.count(), 1, "{bought:?}");
        let got = [0x41, 0x42, 0x43].map(|key| !peek(&mut client, locker(key)).is_empty());
        assert_eq!(got, bought.map(|status| status == Status::ALL_PASS));
        // The buyer who asks again gets the same answer; the others hear that the payment is spent.
        for (place, offer) in [
            offer(one, first),
            offer(other, second),
            offer(other, second),
        ]
        .into_iter()
        .enumerate()
        {
            let again = buy(&mut client, offer, locker(0x41 + place as u8), 1);
            let expected = match bought[place] {
                Status::ALL_PASS => Status::ALL_PASS,
                _ => Status::PAYMENT_REFUSED,
            };
            assert_eq!(again, expected);
        }
        drop(client);
        node.stop();
    }
}

#[test]
fn a_payment_that_was_seen_keeps_one_offer_also_from_who_has_paid_and_ends_when_it_is_used() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |_| ());
        let mut client = Client::tcp(&node);
        let all = coins();
        let (first, second) = (trade(0x31, 500), trade(0x32, 700));
        let (cheap, dear) = (&all[..2], &all[2..4]);
        assert_eq!(put(&mut client, cheap, first, SELLER), Status::ALL_PASS);
        assert_eq!(put(&mut client, dear, second, SELLER), Status::ALL_PASS);
        ledger.says(1, 4);
        ledger.says(2, 0);
        let wanted = offer(cheap, first);
        for _ in 0..3 {
            let pending = buy(&mut client, wanted, locker(0x41), 1);
            assert_eq!(pending, Status::PAYMENT_PENDING);
        }
        // A seller who pays himself with an earlier confirmed payment cannot have both coins and
        // payment.
        assert_eq!(
            buy(&mut client, wanted, locker(0x42), 2),
            Status::NO_SUCH_OFFER
        );
        assert_eq!(ledger.asked(2), 0, "nor is it asked about for nothing");
        assert_eq!(
            cancel(&mut client, first, locker(0x43)),
            Status::PAYMENT_PENDING
        );
        assert_eq!(list(&mut client).len(), 1);

        // The same for a buyer whose payment the program no longer sees, and finds again.
        ledger.says(1, 1);
        let pending = buy(&mut client, wanted, locker(0x41), 1);
        assert_eq!(pending, Status::PAYMENT_PENDING);
        assert_eq!(list(&mut client).len(), 1);
        ledger.says(1, 0);
        assert_eq!(buy(&mut client, wanted, locker(0x41), 1), Status::ALL_PASS);
        ledger.says(1, 2);
        assert_eq!(buy(&mut client, wanted, locker(0x41), 1), Status::ALL_PASS);
        assert_eq!(peek(&mut client, locker(0x41)), cheap);
        assert_eq!(list(&mut client).len(), 1);

        // After a restart a buyer who has paid gets the same answer; a buyer whose payment was only
        // seen has to ask again.
        ledger.says(3, 4);
        let seen = buy(&mut client, offer(dear, second), locker(0x44), 3);
        assert_eq!(seen, Status::PAYMENT_PENDING);
        assert!(list(&mut client).is_empty());
        drop(client);
        node.restart(|settings| settings.shards = 3 - shards);
        let mut client = Client::tcp(&node);
        assert_eq!(buy(&mut client, wanted, locker(0x41), 1), Status::ALL_PASS);
        assert_eq!(
            buy(&mut client, wanted, locker(0x45), 1),
            Status::PAYMENT_REFUSED
        );
        assert_eq!(list(&mut client).len(), 1);
        let seen = buy(&mut client, offer(dear, second), locker(0x44), 3);
        assert_eq!(seen, Status::PAYMENT_PENDING);
        assert!(list(&mut client).is_empty());
        ledger.says(3, 2);
        let refused = buy(&mut client, offer(dear, second), locker(0x44), 3);
        assert_eq!(refused, Status::PAYMENT_REFUSED);
        assert_eq!(list(&mut client).len(), 1);
        let refused = buy(&mut client, offer(dear, second), locker(0x44), 3);
        assert_eq!(refused, Status::PAYMENT_REFUSED, "again");
        drop(client);
        node.stop();
    }
}

#[test]
fn one_address_has_few_purchases_looked_at_and_others_are_not_kept_waiting() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |settings| {
            settings.trades.questions_per_address = 2;
            settings.trades.questions_by_datagram = 3;
        });
        let mut client = Client::tcp(&node);
        let key = trade(0x31, 500);
        let coins = &coins()[..2];
        assert_eq!(put(&mut client, coins, key, SELLER), Status::ALL_PASS);
        let wanted = offer(coins, key);
        // Two purchases over a connection each are checked, and no third, whichever core gets it.
        let mut open: Vec<Wire> = (0..2)
            .map(|number| {
                let mut wire = from(&node, 2, true);
                send(&mut wire, wanted, locker(0x60), 0xa0 + number);
                ledger.wait(0xa0 + number, 1);
                wire
            })
            .collect();
        for number in 0..6 {
            let mut wire = from(&node, 2, true);
            assert_eq!(
                ask(&mut wire, wanted, 0xb0 + number),
                Status::TOO_MANY_REQUESTS
            );
            assert_eq!(ledger.asked(0xb0 + number), 0);
        }
        // Datagrams bear whatever address their sender likes: those of this one count by
        // themselves, and all together have a share too.
        for (number, last) in [(0, 2), (1, 2), (2, 12)] {
            if number == 2 {
                let mut wire = from(&node, 2, false);
                assert_eq!(ask(&mut wire, wanted, 0xb9), Status::TOO_MANY_REQUESTS);
                assert_eq!(ledger.asked(0xb9), 0);
            }
            let mut wire = from(&node, last, false);
            send(&mut wire, wanted, locker(0x60), 0xc0 + number);
            ledger.wait(0xc0 + number, 1);
            open.push(wire);
        }
        for number in 3..9 {
            let mut wire = from(&node, 10 + number, false);
            assert_eq!(
                ask(&mut wire, wanted, 0xc0 + number),
                Status::TOO_MANY_REQUESTS
            );
        }
        ledger.says(1, 0);
        let mut honest = from(&node, 99, true);
        assert_eq!(ask(&mut honest, wanted, 1), Status::ALL_PASS);
        // An answered purchase no longer counts.
        for payment in [0xa0, 0xa1, 0xc0, 0xc1, 0xc2] {
            ledger.says(payment, 1);
        }
        drop((client, open, honest));
        node.stop();
    }
}

fn ask(wire: &mut Wire, offer: Offer, transaction: u8) -> Status {
    let payload = purchase(offer, locker(0x70), transaction);
    let asked = compose(
        Command::Buy,
        Protection::None,
        Some(&payload),
        transaction.into(),
    );
    wire.ask(&asked, ResponseCounter::Restart).status
}

/// Each process costs the node: only a limited number start per second, however fast the verdicts
/// come.
#[test]
fn one_address_has_few_purchases_a_second_looked_at_and_so_do_all_datagrams() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |settings| {
            let few = |burst| Rate { per_s: 1, burst };
            settings.question_rates = QuestionRates {
                per_address: few(4),
                by_datagram: few(8),
            };
        });
        let mut client = Client::tcp(&node);
        let key = trade(0x31, 500);
        let coins = &coins()[..2];
        assert_eq!(put(&mut client, coins, key, SELLER), Status::ALL_PASS);
        let wanted = offer(coins, key);
        (0..=255).for_each(|payment| ledger.says(payment, 1));
        let looked_at = |wire: &mut Wire, payments: std::ops::Range<u8>| {
            let statuses = payments.map(|payment| ask(wire, wanted, payment));
            let few = [Status::PAYMENT_PENDING, Status::TOO_MANY_REQUESTS];
            statuses
                .map(|status| few.iter().position(|&each| each == status))
                .filter(|place| place.expect("pending or too many") == 0)
                .count()
        };
        let started = Instant::now();
        let of_one = looked_at(&mut from(&node, 2, true), 0..50);
        // Each core counts by itself, and each second gives one more.
        let more = |started: Instant| started.elapsed().as_secs() as usize + 1;
        let cores = usize::from(shards);
        let most = cores * (4 + more(started));
        assert!((4..=most).contains(&of_one), "{of_one} of one address");
        let started = Instant::now();
        let of_all: usize = (0..50_u8)
            .map(|number| {
                let mut wire = from(&node, 10 + number, false);
                looked_at(&mut wire, 50 + number..51 + number)
            })
            .sum();
        let most = cores * (8 + more(started));
        assert!((8..=most).contains(&of_all), "{of_all} by datagram");
        // They delay nobody else, nor the client that has an address that they bear.
        let of_one = looked_at(&mut from(&node, 99, false), 150..200);
        assert!(of_one < 50, "{of_one} by datagram of one address");
        ledger.says(200, 0);
        let mut honest = from(&node, 99, true);
        assert_eq!(ask(&mut honest, wanted, 200), Status::ALL_PASS);
        drop((client, honest));
        node.stop();
    }
}

/// A purchase with an earlier verdict no longer counts: the address may ask any number of times.
#[test]
fn purchases_one_after_the_other_are_never_too_many() {
    let ledger = Ledger::new();
    let mut node = start(2, &ledger, |settings| {
        settings.trades.questions_per_address = 1;
        settings.trades.questions_by_datagram = 1;
    });
    let mut client = Client::tcp(&node);
    let key = trade(0x31, 500);
    let coins = &coins()[..2];
    assert_eq!(put(&mut client, coins, key, SELLER), Status::ALL_PASS);
    for (payment, verdict, expected) in [
        (1, 1, Status::PAYMENT_PENDING),
        (2, 2, Status::PAYMENT_REFUSED),
        (3, 3, Status::PAYMENT_PENDING),
    ] {
        ledger.says(payment, verdict);
        for is_tcp in [true, false, true, false] {
            let mut wire = from(&node, 2, is_tcp);
            assert_eq!(ask(&mut wire, offer(coins, key), payment), expected);
        }
    }
    drop(client);
    node.stop();
}

#[test]
fn one_address_keeps_few_offers() {
    for shards in [1, 2] {
        let ledger = Ledger::new();
        let mut node = start(shards, &ledger, |settings| {
            settings.trades.holds_per_address = 1;
        });
        let mut client = Client::tcp(&node);
        let all = coins();
        for number in 0..6 {
            let key = trade(0x31 + number, 500 + u32::from(number));
            let coin = &all[usize::from(number)..][..1];
            assert_eq!(put(&mut client, coin, key, SELLER), Status::ALL_PASS);
            ledger.says(number, 4);
            let pending = buy(&mut client, offer(coin, key), locker(0x41), number);
            assert_eq!(pending, Status::PAYMENT_PENDING);
        }
        // One a shard.
        let listed = list(&mut client).len();
        assert!((6 - usize::from(shards)..6).contains(&listed), "{listed}");
        drop(client);
        node.stop();
    }
}
