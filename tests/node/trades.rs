//! The marketplace (docs/protocol.md, "Group 8: lockers") on a real node: who can take what, and
//! what a payment buys.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread, time::Duration};

use crate::real_node::{RealNode, plain::Client};
use raida::{
    coin::{An, Coin, Mfs, PageId},
    node::Settings,
    protocol::{
        Command, Dialect, Status,
        authentication::PownSum,
        lockers::{
            Address, Buy, Currency, ListForSale, Listed, Listing, LockerKey, Memo, Offer,
            PeekTrade, Price, PublicId, PutForSale, ReceiptId, Remove, RemoveTrade, StoreSum,
            TradeKey, TradeName, TradePart, TransactionId, Value,
        },
    },
    settlement::{Method, Program, Variables},
};

impl Client {
    fn put(&mut self, coins: &[Coin], sum: An, key: TradeKey) -> Status {
        let mut payload = Vec::new();
        let address = Address::new(b"bc1q-where-the-seller-is").expect("24 bytes");
        PutForSale::compose(coins.iter().copied(), sum, key, &address, &mut payload);
        self.ask(Command::PutForSale, &payload).status
    }

    fn list(&mut self, currency: Currency) -> Vec<Listed> {
        let mut payload = Vec::new();
        ListForSale {
            currency,
            most: 255,
        }
        .compose(&mut payload);
        let answer = self.ask(Command::ListForSale, &payload);
        let listing = Listing::read(answer.status, &answer.payload, currency);
        listing.expect("a listing").iter().collect()
    }

    fn paid_where(&mut self, name: TradeName) -> Option<Address> {
        let mut payload = Vec::new();
        PeekTrade::compose(name, TradePart::Address, &mut payload);
        let answer = self.ask(Command::PeekTrade, &payload);
        let address = PeekTrade::read_address(answer.status, &answer.payload);
        address.expect("an answer")
    }

    fn buy(&mut self, offer: Offer, into: LockerKey, transaction: u8) -> Status {
        let mut payload = Vec::new();
        Buy {
            into,
            offer,
            transaction: TransactionId::new([transaction; 32]),
            receipt: ReceiptId::new([9; 16]),
            memo: Memo::new(b"for the garden").expect("14 bytes"),
        }
        .compose(&mut payload);
        self.ask(Command::Buy, &payload).status
    }

    fn cancel(&mut self, key: TradeKey, into: Option<LockerKey>) -> Status {
        let mut payload = Vec::new();
        RemoveTrade::compose(key, into, &mut payload);
        self.ask(Command::RemoveTrade, &payload).status
    }
}

fn locker(first: u8) -> LockerKey {
    let mut bytes = [first; 16];
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}

fn trade(first: u8, price: u32) -> TradeKey {
    TradeKey::of([first; 9], Price::new(price), Currency::Bitcoin)
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

/// The XOR of the numbers that coins start with.
fn sum(coins: &[Coin]) -> An {
    (coins.iter()).fold(An::ZERO, |sum, &coin| sum ^ own(coin))
}

/// Coins on pages in a row, so on as many shards as there are.
fn coins() -> [Coin; 6] {
    std::array::from_fn(|index| PageId::from_index(7_000 + index).unwrap().coin(9))
}

fn start(shards: u16, change: impl FnOnce(&mut Settings)) -> RealNode {
    let coins = coins().map(|coin| (coin, own(coin), Mfs::new(40)));
    RealNode::start(&coins, |settings| {
        settings.shards = shards;
        settings.rules.dialect = Dialect::Spec;
        change(settings);
    })
}

fn offer(coins: &[Coin], key: TradeKey) -> Offer {
    Offer {
        currency: key.currency(),
        value: Value::of(coins.iter().copied()).expect("few coins"),
        price: key.price(),
    }
}

fn trusted(settings: &mut Settings) {
    settings.settlement = Method::Trusted;
}

#[test]
fn what_is_offered_is_listed_looked_into_bought_and_gone_also_over_restarts() {
    for shards in [1, 2, 3] {
        let mut node = start(shards, trusted);
        let mut client = Client::tcp(&node);
        let all = coins();
        let (first, second) = (trade(0x31, 500), trade(0x32, 700));
        let cheap = [all[3], all[1]];
        let dear = [all[4], all[0], all[2]];
        assert_eq!(client.put(&dear, sum(&dear), second), Status::ALL_PASS);
        assert_eq!(client.put(&cheap, sum(&cheap), first), Status::ALL_PASS);
        // The wrong sum comes first.
        assert_eq!(client.put(&all[5..], an(9), first), Status::ALL_FAIL);
        assert_eq!(
            client.put(&all[5..], own(all[5]), first),
            Status::OFFER_EXISTS
        );
        let listed = client.list(Currency::Bitcoin);
        let offers: Vec<Offer> = listed.iter().map(|on| on.offer).collect();
        assert_eq!(offers, [offer(&dear, second), offer(&cheap, first)]);
        assert_eq!(client.list(Currency::Monero), []);
        drop(client);

        node.restart(|settings| settings.shards = 1 + shards % 3);
        let mut client = Client::tcp(&node);
        assert_eq!(client.list(Currency::Bitcoin), listed, "ids stay the same");
        let id = listed[1].id.expect("this dialect says it");
        assert_eq!(client.look(id.into()), cheap);
        assert_eq!(client.look(first.into()), cheap);
        // Where it is to be paid, whichever shard keeps it, also after a restart.
        for name in [id.into(), first.into()] {
            let address = client.paid_where(name).expect("it is on offer");
            assert_eq!(address.as_bytes(), b"bc1q-where-the-seller-is");
        }
        assert_eq!(client.paid_where(trade(0x33, 700).into()), None);
        let bought = offer(&cheap, first);
        assert_eq!(client.buy(bought, locker(0x41), 1), Status::ALL_PASS);
        assert_eq!(client.peek(locker(0x41)), cheap);
        assert_eq!(client.buy(bought, locker(0x41), 1), Status::ALL_PASS);
        assert_eq!(client.buy(bought, locker(0x42), 1), Status::PAYMENT_REFUSED);
        assert_eq!(client.buy(bought, locker(0x42), 2), Status::NO_SUCH_OFFER);
        let other = offer(&dear, second);
        assert_eq!(client.buy(other, locker(0x41), 1), Status::PAYMENT_REFUSED);
        drop(client);

        node.restart(|_| ());
        let mut client = Client::tcp(&node);
        assert_eq!(client.buy(bought, locker(0x41), 1), Status::ALL_PASS);
        assert_eq!(client.buy(other, locker(0x41), 1), Status::PAYMENT_REFUSED);
        assert_eq!(
            client.peek(locker(0x41)),
            cheap,
            "it was told, not done again"
        );
        assert_eq!(client.cancel(second, Some(locker(0x43))), Status::ALL_PASS);
        assert_eq!(client.peek(locker(0x43)), dear);
        assert_eq!(client.cancel(second, None), Status::ALL_FAIL);
        assert_eq!(client.list(Currency::Bitcoin), []);
        drop(client);
        node.stop();
    }
}

/// Everything that a client can try who knows only a listing and the numbers of the coins.
#[test]
fn who_has_only_a_listing_can_take_nothing() {
    for shards in [1, 2] {
        let mut node = start(shards, |_| ());
        let mut client = Client::tcp(&node);
        let all = coins();
        let (key, on_sale) = (trade(0x31, 500), &all[..2]);
        assert_eq!(client.put(on_sale, sum(on_sale), key), Status::ALL_PASS);
        let listed = client.list(Currency::Bitcoin);
        let id: PublicId = listed[0].id.expect("this dialect says it");
        assert_eq!(client.look(id.into()), on_sale);

        let guess = An::new(id.to_bytes());
        let form = TradeKey::new(guess).expect("an id has a key's form");
        assert_eq!(client.cancel(form, Some(locker(0x66))), Status::ALL_FAIL);
        assert_eq!(client.cancel(form, None), Status::ALL_FAIL);
        let mut payload = Vec::new();
        for &coin in on_sale {
            assert_eq!(client.pown(&[(coin, guess, an(6))]), Status::ALL_FAIL);
            payload.clear();
            StoreSum::compose([coin], guess, locker(0x66), &mut payload);
            assert_eq!(
                client.ask(Command::StoreSum, &payload).status,
                Status::ALL_FAIL
            );
        }
        // The client offers a coin of its own under the id as a key, so that the name means two
        // things.
        assert_eq!(client.put(&all[3..4], own(all[3]), form), Status::ALL_PASS);
        assert_eq!(client.look(id.into()), on_sale, "an id goes before a key");
        assert_eq!(client.cancel(form, Some(locker(0x67))), Status::ALL_PASS);
        assert_eq!(client.peek(locker(0x67)), all[3..4]);
        assert_eq!(client.look(id.into()), on_sale);
        // No settlement is configured that could say that it was paid.
        let wanted = listed[0].offer;
        assert_eq!(client.buy(wanted, locker(0x66), 1), Status::NO_SETTLEMENT);
        assert!(on_sale.iter().all(|&coin| client.have(&[(coin, key.an())])));
        drop(client);
        node.stop();
    }
}

#[test]
fn what_is_for_sale_moves_by_buy_and_by_remove_only() {
    let mut node = start(2, |_| ());
    let mut client = Client::tcp(&node);
    let all = coins();
    let (key, on_sale) = (trade(0x31, 500), &all[..2]);
    assert_eq!(client.put(on_sale, sum(on_sale), key), Status::ALL_PASS);
    // A client that knows the key cannot do any of this either.
    assert_eq!(
        client.pown(&[(on_sale[0], key.an(), an(6))]),
        Status::ALL_FAIL
    );
    let mut payload = Vec::new();
    PownSum::compose(on_sale[..1].iter().copied(), key.an(), an(6), &mut payload);
    assert_eq!(
        client.ask(Command::PownSum, &payload).status,
        Status::ALL_FAIL
    );
    payload.clear();
    StoreSum::compose(
        on_sale.iter().copied(),
        An::ZERO,
        locker(0x66),
        &mut payload,
    );
    assert_eq!(
        client.ask(Command::StoreSum, &payload).status,
        Status::ALL_FAIL
    );
    assert_eq!(
        client.put(on_sale, An::ZERO, trade(0x32, 9)),
        Status::ALL_FAIL
    );
    payload.clear();
    Remove::compose(locker(0x66), [(on_sale[0], an(6))], &mut payload);
    assert_eq!(
        client.ask(Command::Remove, &payload).status,
        Status::ALL_FAIL
    );
    assert_eq!(client.look(key.into()), on_sale);
    assert!(client.have(&[(on_sale[0], key.an())]));

    assert_eq!(client.cancel(key, None), Status::ALL_PASS);
    assert!(!client.have(&[(on_sale[0], key.an())]), "it is free");
    // A number of the same form that nothing is for sale under is a number like any other.
    assert_eq!(
        client.pown(&[(all[3], own(all[3]), key.an())]),
        Status::ALL_PASS
    );
    assert_eq!(client.look(key.into()), all[3..4]);
    assert_eq!(client.list(Currency::Bitcoin), []);
    assert_eq!(
        client.pown(&[(all[3], key.an(), own(all[3]))]),
        Status::ALL_PASS
    );
    drop(client);
    node.stop();
}

#[test]
fn what_comes_under_a_key_later_is_no_part_of_the_sale() {
    for shards in [1, 2] {
        let mut node = start(shards, trusted);
        let mut client = Client::tcp(&node);
        let all = coins();
        let (key, on_sale) = (trade(0x31, 500), &all[..2]);
        assert_eq!(client.put(on_sale, sum(on_sale), key), Status::ALL_PASS);
        let listed = client.list(Currency::Bitcoin);
        assert_eq!(
            client.pown(&[(all[4], own(all[4]), key.an())]),
            Status::ALL_PASS
        );
        assert_eq!(client.list(Currency::Bitcoin), listed);
        let id = listed[0].id.expect("this dialect says it");
        assert_eq!(client.look(id.into()), on_sale);
        assert_eq!(
            client.pown(&[(all[4], key.an(), own(all[4]))]),
            Status::ALL_FAIL
        );
        drop(client);

        node.restart(|settings| settings.shards = 3 - shards);
        let mut client = Client::tcp(&node);
        assert_eq!(client.list(Currency::Bitcoin), listed);
        let bought = client.buy(listed[0].offer, locker(0x41), 1);
        assert_eq!(bought, Status::ALL_PASS);
        assert_eq!(client.peek(locker(0x41)), on_sale);
        assert_eq!(
            client.pown(&[(all[4], key.an(), own(all[4]))]),
            Status::ALL_PASS
        );
        drop(client);
        node.stop();
    }
}

#[test]
fn of_the_same_offers_made_at_once_one_is_made() {
    for shards in [1, 2, 3] {
        let mut node = start(shards, |_| ());
        let all = coins();
        let statuses: Vec<Status> = thread::scope(|scope| {
            let put = |index: usize| {
                let node = &node;
                let key = trade(0x31 + index as u8, 500);
                scope
                    .spawn(move || Client::tcp(node).put(&all[index..=index], own(all[index]), key))
            };
            let clients: Vec<_> = (0..6).map(put).collect();
            clients.into_iter().map(|c| c.join().unwrap()).collect()
        });
        // Six coins of one denomination: the same value.
        let made = statuses
            .iter()
            .filter(|&&status| status == Status::ALL_PASS);
        assert_eq!(made.count(), 1, "{statuses:?}");
        assert!(
            statuses
                .iter()
                .all(|&s| s == Status::ALL_PASS || s == Status::OFFER_EXISTS)
        );
        node.stop();
    }
}

#[test]
fn a_currency_that_is_not_accepted_is_unknown() {
    let mut node = start(1, |settings| settings.currencies = vec![Currency::Monero]);
    let mut client = Client::tcp(&node);
    let status = client.put(&coins()[..1], own(coins()[0]), trade(0x31, 5));
    assert_eq!(status, Status::UNKNOWN_CURRENCY);
    drop(client);
    node.stop();
}

/// A program that says what a file says: 0 paid, 1 pending, 2 refused, 4 seen.
fn program(folder: &Path) -> Method {
    let path = folder.join("settle");
    let says = folder.join("says");
    fs::write(&says, "4").unwrap();
    let script = format!(
        "#!/bin/sh\ncat > {}/asked\nexit $(cat {})\n",
        folder.display(),
        says.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Method::Command(Program {
        path,
        arguments: vec![],
        environment: Variables::default(),
        timeout: Duration::from_secs(20),
        at_most: 4,
        waiting_max: 16,
    })
}

#[test]
fn a_payment_that_was_seen_keeps_others_out_and_what_is_paid_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let method = program(folder.path());
    let mut node = start(2, |settings| settings.settlement = method);
    let mut client = Client::tcp(&node);
    let (key, on_sale) = (trade(0x31, 500), &coins()[..2]);
    assert_eq!(client.put(on_sale, sum(on_sale), key), Status::ALL_PASS);
    let offer = offer(on_sale, key);
    assert_eq!(client.buy(offer, locker(0x41), 1), Status::PAYMENT_PENDING);
    let asked: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("asked")).unwrap()).unwrap();
    assert_eq!(asked["seller"], "bc1q-where-the-seller-is");
    assert_eq!(asked["price"], 500);
    assert_eq!(asked["transaction_id"], "01".repeat(32));

    // Reserved for the first: nobody else sees it, buys it, or takes it back.
    assert_eq!(client.list(Currency::Bitcoin), []);
    assert_eq!(client.buy(offer, locker(0x42), 2), Status::NO_SUCH_OFFER);
    assert_eq!(
        client.buy(offer, locker(0x66), 1),
        Status::PAYMENT_REFUSED,
        "the name of a payment is no secret"
    );
    assert_eq!(
        client.cancel(key, Some(locker(0x43))),
        Status::PAYMENT_PENDING
    );
    assert_eq!(client.buy(offer, locker(0x41), 1), Status::PAYMENT_PENDING);
    // A check without a result ends no reservation.
    fs::write(folder.path().join("says"), "1").unwrap();
    assert_eq!(client.buy(offer, locker(0x41), 1), Status::PAYMENT_PENDING);
    assert_eq!(client.list(Currency::Bitcoin), []);

    fs::write(folder.path().join("says"), "2").unwrap();
    assert_eq!(client.buy(offer, locker(0x41), 1), Status::PAYMENT_REFUSED);
    assert_eq!(
        client.list(Currency::Bitcoin).len(),
        1,
        "it is there for others again"
    );
    fs::write(folder.path().join("says"), "0").unwrap();
    assert_eq!(client.buy(offer, locker(0x42), 2), Status::ALL_PASS);
    assert_eq!(client.peek(locker(0x42)), on_sale);
    fs::write(folder.path().join("says"), "2").unwrap();
    assert_eq!(
        client.buy(offer, locker(0x42), 2),
        Status::ALL_PASS,
        "its outcome again"
    );
    drop(client);
    node.stop();
}

#[test]
fn a_hold_ends_with_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let method = program(folder.path());
    let mut node = start(1, |settings| {
        settings.settlement = method;
        settings.trades.pending = Duration::ZERO;
    });
    let mut client = Client::tcp(&node);
    let (key, on_sale) = (trade(0x31, 500), &coins()[..2]);
    assert_eq!(client.put(on_sale, sum(on_sale), key), Status::ALL_PASS);
    let offer = offer(on_sale, key);
    assert_eq!(client.buy(offer, locker(0x41), 1), Status::PAYMENT_PENDING);
    assert_eq!(client.list(Currency::Bitcoin).len(), 1);
    assert_eq!(client.buy(offer, locker(0x42), 2), Status::PAYMENT_PENDING);
    assert_eq!(client.cancel(key, Some(locker(0x43))), Status::ALL_PASS);
    fs::write(folder.path().join("says"), "0").unwrap();
    assert_eq!(client.buy(offer, locker(0x41), 1), Status::NO_SUCH_OFFER);
    drop(client);
    node.stop();
}

#[test]
fn of_buyers_who_all_paid_one_gets_the_coins() {
    for shards in [1, 2, 3] {
        let mut node = start(shards, trusted);
        let (key, on_sale) = (trade(0x31, 500), &coins()[..4]);
        assert_eq!(
            Client::tcp(&node).put(on_sale, sum(on_sale), key),
            Status::ALL_PASS
        );
        let offer = offer(on_sale, key);
        let bought: Vec<usize> = thread::scope(|scope| {
            let buy = |buyer: u8| {
                let node = &node;
                scope.spawn(move || {
                    let mut client = Client::tcp(node);
                    let status = client.buy(offer, locker(0x40 + buyer), buyer);
                    let got = client.peek(locker(0x40 + buyer)).len();
                    assert_eq!(got > 0, status == Status::ALL_PASS, "{status}");
                    got
                })
            };
            let buyers: Vec<_> = (0..8).map(buy).collect();
            buyers.into_iter().map(|b| b.join().unwrap()).collect()
        });
        assert_eq!(
            bought.iter().filter(|&&got| got == 4).count(),
            1,
            "{bought:?}"
        );
        assert_eq!(bought.iter().sum::<usize>(), 4);
        node.stop();
    }
}
