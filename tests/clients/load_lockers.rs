//! Loads of lockers and trades, against a small node over real sockets.

use std::time::Duration;

use crate::load_on::*;
use crate::small_node::{Fault, RAIDA, SmallNode};
use raida::client::Client;
use raida::coin::{An, Coin};
use raida::load::kind::{KINDS, Mix, Numbers, Setup, Verdict};
use raida::load::{Choice, Held, Keyring, Kind, Pace, Plan, Purse, Spacing};
use raida::protocol::lockers::{
    Contents, Currency, ListForSale, Offer, Peek, Price, PublicIdKey, TradeKey, Value,
};
use raida::protocol::{Command, Dialect, Status};
use rand::SeedableRng;
use rand::rngs::SmallRng;

fn of_lockers() -> impl Iterator<Item = &'static str> {
    let kinds = KINDS.iter().filter(|kind| match kind.numbers {
        Numbers::Known | Numbers::KnownBySum => false,
        Numbers::KnownInLockers | Numbers::Drawn => true,
    });
    kinds.map(|kind| kind.name)
}

fn assert_nothing_for_sale(node: &SmallNode) {
    assert_eq!(node.state.lock().unwrap().lockers.sales.len(), 0);
}

/// One kind, prepared, for requests of this many of 64 coins, one at a time.
fn kind(name: &str, coins_per_request: usize, node: &SmallNode) -> (Purse, Box<dyn Kind>) {
    let mut purse = Purse::new(owned(64)).unwrap();
    let mut kind = Mix::one(name).unwrap().kind(Setup {
        coins: purse.deal(1).remove(0),
        coins_per_request,
        slots: 1,
        choice: Choice::Uniform,
        side_door: plan(node, UDP).side_door(),
    });
    kind.prepare();
    (purse, kind)
}

fn request(kind: &mut dyn Kind) -> Option<(Command, Vec<u8>)> {
    let mut payload = vec![];
    let command = kind.request(0, &mut SmallRng::from_rng(&mut rand::rng()), &mut payload);
    command.map(|command| (command, payload))
}

/// What the node answers to a request of the kind.
fn ask(client: &mut Client, (command, payload): &(Command, Vec<u8>)) -> (Status, Vec<u8>) {
    client.connection().send(*command, Some(payload)).unwrap();
    let reply = client.connection().receive().unwrap();
    (reply.status, reply.payload)
}

/// Ten coins in each of some lockers, as a file of coins may have them: in any order.
fn in_lockers() -> Vec<(Coin, An)> {
    let mut coins = owned(60);
    for (index, (_, an)) in coins.iter_mut().enumerate() {
        let mut key = [0xff; 16];
        key[0] = index as u8 % 6;
        *an = An::new(key);
    }
    coins
}

#[test]
fn lockers_and_trades_of_a_good_node_are_right_however_they_are_asked_for() {
    let node = node();
    for stream in STREAMS {
        for kind in of_lockers() {
            for coins_per_request in [1, 3] {
                let (outcome, settled) = load(kind, coins_per_request, &plan(&node, stream), &node);
                assert!(outcome.fault.is_none(), "{:?}", outcome.fault);
                assert_all_right(&outcome.measured[0]);
                assert_nothing_for_sale(&node);
                assert_own_numbers(&node, settled);
            }
        }
    }
}

#[test]
fn lockers_and_trades_are_mixed_with_other_kinds_and_shared_by_threads() {
    let node = node();
    let plan = Plan {
        cpus: vec![None, None],
        ..plan(&node, TCP)
    };
    let mix = "detect=3,pown=1,put=1,peek=2,list=1,buy=1,take=1,offer=1";
    let (outcome, settled) = load(mix, 1, &plan, &node);
    assert!(outcome.fault.is_none(), "{:?}", outcome.fault);
    assert_all_right(&outcome.measured[0]);
    assert!(
        outcome.kinds.iter().all(|kind| kind.right > 0),
        "{:?}",
        outcome.kinds
    );
    assert_nothing_for_sale(&node);
    assert_own_numbers(&node, settled);
}

#[test]
fn a_turn_ends_when_what_was_made_ready_is_used_up_and_lasts_no_longer() {
    for (kind, command) in [
        ("put", Command::StoreSum),
        ("take", Command::Remove),
        ("offer", Command::PutForSale),
        ("buy", Command::Buy),
    ] {
        for pace in [
            Pace::Closed,
            Pace::Open {
                rate: 5_000.0,
                spacing: Spacing::Even,
            },
        ] {
            let node = node();
            let long = Plan {
                duration: Duration::from_secs(20),
                pace,
                ..plan(&node, TCP)
            };
            let (outcome, settled) = load(kind, 4, &long, &node);
            assert_all_right(&outcome.measured[0]);
            assert_own_numbers(&node, settled);
            for slice in &outcome.measured[0].slices {
                assert!(
                    slice.is_cut_short && slice.took < Duration::from_secs(2),
                    "{slice:?}"
                );
                assert_eq!(slice.tally.right, 16, "{command:?}");
                assert!(slice.rate() > 8.0);
            }
        }
    }
}

#[test]
fn lockers_that_are_there_already_are_looked_into_as_they_are() {
    let node = SmallNode::start();
    node.put(in_lockers());
    for threads in [1, 2] {
        let mut purse = Purse::new(in_lockers()).unwrap();
        assert_eq!(purse.locker_sizes(), Some(vec![10; 6]));
        let plan = Plan {
            cpus: vec![None; threads],
            ..plan(&node, TCP)
        };
        let (outcome, held) = load_purse("peek", 10, &plan, &mut purse);
        assert_all_right(&outcome.measured[0]);
        purse.collect(held);
        let settled = purse.settle(&mut client(&node)).unwrap();
        assert_eq!((settled.wrong, settled.astray), (0, 0));
    }
    assert_eq!(
        (node.asked(Command::StoreSum), node.asked(Command::Pown)),
        (0, 0)
    );
}

#[test]
fn a_key_that_lies_in_a_locker_takes_the_whole_locker_with_it() {
    let mut purse = Purse::new(in_lockers()).unwrap();
    let keys = purse.keys(2);
    assert_eq!((keys.len(), purse.len()), (2, 40));
    assert_eq!(purse.locker_sizes(), Some(vec![10; 4]));
    let dealt = purse.deal(3);
    for part in &dealt {
        let mut keys: Vec<_> = part.iter().map(|held| *held.an().expose()).collect();
        keys.sort_unstable();
        assert!(
            keys.chunk_by(|a, b| a == b)
                .all(|locker| locker.len() == 10)
        );
    }
    assert_eq!(dealt.iter().map(Vec::len).sum::<usize>(), 40);
}

#[test]
fn requests_are_encrypted_by_lockers() {
    let node = node();
    for stream in STREAMS {
        for kind in ["detect", "put", "peek"] {
            let mut purse = Purse::new(owned(64)).unwrap();
            let plain = plan(&node, stream);
            let keys = purse.keys_in_lockers(5, &plain.side_door()).unwrap();
            assert_eq!((keys.len(), purse.len()), (5, 59));
            assert!(
                keys.iter()
                    .all(|&(coin, an)| an.is_locker_key() && node.an(coin) == Some(an))
            );
            let encrypted = Plan {
                keyring: Keyring::aes_locker(keys),
                ..plain
            };
            let (outcome, held) = load_purse(kind, 2, &encrypted, &mut purse);
            assert_all_right(&outcome.measured[0]);
            purse.collect(held);
            let settled = purse.settle(&mut client(&node)).unwrap();
            assert_own_numbers(&node, settled);
        }
    }
}

#[test]
fn coins_of_a_lost_request_are_found_again_whether_or_not_it_was_done() {
    for name in ["put", "take", "offer", "buy"] {
        for is_done in [true, false] {
            let node = node();
            let mut client = client(&node);
            let (mut purse, mut kind) = kind(name, 64, &node);
            let asked = request(&mut *kind).unwrap();
            if is_done {
                assert_eq!(ask(&mut client, &asked).0, Status::ALL_PASS);
            }
            kind.lost(0);
            assert!(
                request(&mut *kind).is_none(),
                "the coins of {name} are in doubt"
            );
            kind.finish().unwrap();
            assert_nothing_for_sale(&node);
            purse.collect(kind.coins());
            let settled = purse.settle(&mut client).unwrap();
            assert_own_numbers(&node, settled);
        }
    }
}

#[test]
fn what_is_not_taken_out_of_its_locker_for_the_next_turn_is_told_and_its_coins_are_found_again() {
    for name in ["put", "offer", "buy"] {
        for fault in [Fault::Refuse(Status::new(254)), Fault::Hangup] {
            let node = node();
            node.fail(Command::Remove, 3, fault);
            let (outcome, settled) = load(name, 4, &plan(&node, TCP), &node);
            let why = outcome.fault.unwrap().to_string();
            assert!(why.contains("take coins out of lockers"), "{name}: {why}");
            let last = outcome.measured[0].slices.last().unwrap();
            assert_eq!(last.tally.right, 0, "{name}");
            assert_nothing_for_sale(&node);
            assert_own_numbers(&node, settled);
        }
    }
}

#[test]
fn coins_that_share_a_number_are_known() {
    let of = |coins: Vec<(Coin, An)>| Purse::new(coins).unwrap().share_a_number();
    let mut alike = owned(2);
    alike[1].1 = alike[0].1;
    assert!(of(in_lockers()) && !of(owned(64)) && of(alike));
    assert!(!of(in_lockers().into_iter().take(6).collect()));
}

#[test]
fn a_locker_that_shows_other_coins_or_another_order_is_wrong() {
    let node = node();
    let mut client = client(&node);
    let (_, mut kind) = kind("peek", 8, &node);
    let asked = request(&mut *kind).unwrap();
    let (status, shown) = ask(&mut client, &asked);
    let coins = |order: &[usize]| -> Vec<u8> {
        let coins: &[[u8; 5]] = shown.as_chunks().0;
        order.iter().flat_map(|&coin| coins[coin]).collect()
    };
    for (status, payload, expected) in [
        (status, shown.clone(), Verdict::Right),
        (status, coins(&[1, 0, 2, 3, 4, 5, 6, 7]), Verdict::Wrong),
        (status, coins(&[0, 1, 2, 3, 4, 5, 6]), Verdict::Wrong),
        (status, coins(&[0, 0, 2, 3, 4, 5, 6, 7]), Verdict::Wrong),
        (Status::ALL_FAIL, vec![], Verdict::Wrong),
        (Status::new(254), vec![], Verdict::Refused),
    ] {
        assert_eq!(kind.answer(0, status, &payload), expected, "{payload:?}");
    }
}

#[test]
fn the_order_of_lockers_that_were_there_is_learned_once_and_has_to_stay() {
    let node = SmallNode::start();
    node.put(in_lockers());
    let coins = Purse::new(in_lockers()).unwrap().deal(1).remove(0);
    let mut kind = Mix::one("peek").unwrap().kind(Setup {
        coins,
        coins_per_request: 10,
        slots: 1,
        choice: Choice::Uniform,
        side_door: plan(&node, UDP).side_door(),
    });
    kind.prepare();
    let (_, payload) = request(&mut *kind).unwrap();
    let key = Peek::parse(&payload).unwrap().key.an();
    let lie_there = in_lockers().into_iter().filter(|&(_, an)| an == key);
    let mut coins: Vec<Coin> = lie_there.map(|(coin, _)| coin).collect();
    let mut answer = |coins: &[Coin]| {
        let mut payload = vec![];
        let status = Contents::answer(coins.iter().copied(), &mut payload);
        kind.answer(0, status, &payload)
    };
    assert_eq!(answer(&coins[1..]), Verdict::Wrong);
    coins.rotate_left(3);
    assert_eq!(answer(&coins), Verdict::Right);
    assert_eq!(answer(&coins), Verdict::Right);
    coins.swap(0, 1);
    assert_eq!(answer(&coins), Verdict::Wrong);
}

#[test]
fn a_locker_that_cannot_be_there_must_not_be_found() {
    let node = node();
    let mut client = client(&node);
    let (_, mut kind) = kind("peek", 1, &node);
    let mut not_found = 0;
    for _ in 0..64 {
        let asked = request(&mut *kind).unwrap();
        let (status, payload) = ask(&mut client, &asked);
        if status == Status::ALL_FAIL {
            not_found += 1;
            assert_eq!(kind.answer(0, Status::ALL_PASS, &[0; 5]), Verdict::Wrong);
        }
        assert_eq!(kind.answer(0, status, &payload), Verdict::Right);
    }
    assert_eq!(not_found, 1);
}

#[test]
fn a_list_shows_its_own_offers_in_their_order_whatever_others_stand_among_them() {
    let node = node();
    let mut client = client(&node);
    let (_, mut kind) = kind("list", 16, &node);
    let asked = request(&mut *kind).unwrap();
    let (_, payload) = ask(&mut client, &asked);
    let ids = PublicIdKey::new([RAIDA; 32]);
    let own: Vec<(TradeKey, Value)> = {
        let state = node.state.lock().unwrap();
        let value = Value::of(owned(16).into_iter().map(|(coin, _)| coin)).unwrap();
        state
            .lockers
            .sales
            .iter()
            .map(|&key| (key, value))
            .collect()
    };
    let other = |number: u8| {
        let price = Price::new(
            own[0]
                .0
                .price()
                .get()
                .wrapping_sub(1_000 + u32::from(number)),
        );
        (
            TradeKey::of([number; 9], price, Currency::CloudCoin),
            Value::from_units(7),
        )
    };
    let list = |sales: &[(TradeKey, Value)]| {
        let asked = ListForSale {
            currency: Currency::CloudCoin,
            most: 255,
        };
        let mut out = vec![];
        let listed = sales
            .iter()
            .map(|(key, value)| (key.public_id(&ids), *value));
        asked.answer(listed, Dialect::Spec, &mut out);
        out
    };
    assert_eq!(payload, list(&own));
    let [a, b, c, d] = own[..] else {
        panic!("64 coins are four lockers of 16")
    };
    let full = |last: &[(TradeKey, Value)]| {
        let others = (0..255 - last.len()).map(|number| other(number as u8));
        others.chain(last.iter().copied()).collect::<Vec<_>>()
    };
    for (sales, expected) in [
        (vec![a, b, c, d], Verdict::Right),
        (
            vec![other(1), a, b, other(2), c, d, other(3)],
            Verdict::Right,
        ),
        (full(&[]), Verdict::Right),
        (full(&[a, b]), Verdict::Right),
        (full(&[a, c]), Verdict::Wrong),
        (vec![a, b, c], Verdict::Wrong),
        (vec![a, b, d, c], Verdict::Wrong),
        (vec![a, a, b, c, d], Verdict::Wrong),
        (vec![], Verdict::Wrong),
    ] {
        assert_eq!(
            kind.answer(0, Status::ALL_PASS, &list(&sales)),
            expected,
            "{}",
            sales.len()
        );
    }
    kind.finish().unwrap();
    assert_nothing_for_sale(&node);
    let offer = Offer {
        currency: Currency::CloudCoin,
        value: own[0].1,
        price: own[0].0.price(),
    };
    assert!(own[1..].iter().all(|(key, _)| key.price() != offer.price));
}

#[test]
fn a_take_that_leaves_a_coin_behind_is_wrong() {
    for (status, payload, expected) in [
        (Status::ALL_PASS, &[0b111][..], Verdict::Right),
        (Status::ALL_PASS, &[0b110], Verdict::Wrong),
        (Status::ALL_PASS, &[], Verdict::Wrong),
        (Status::MIXED, &[0b011], Verdict::Wrong),
        (Status::ALL_FAIL, &[0], Verdict::Wrong),
        (Status::ALL_FAIL, &[], Verdict::Wrong),
        (Status::new(254), &[], Verdict::Refused),
    ] {
        let (_, mut kind) = kind("take", 3, &node());
        request(&mut *kind).unwrap();
        assert_eq!(kind.answer(0, status, payload), expected, "{payload:?}");
    }
}

#[test]
fn what_a_node_will_not_have_for_sale_is_told_and_its_coins_are_given_back() {
    for (name, made) in [("list", 3), ("buy", 3)] {
        let node = node();
        node.fail(
            Command::PutForSale,
            made,
            Fault::Refuse(Status::UNKNOWN_CURRENCY),
        );
        let (outcome, settled) = load(name, 2, &plan(&node, TCP), &node);
        let why = outcome.fault.unwrap().to_string();
        assert!(why.contains("trade.currencies"), "{why}");
        assert_eq!(outcome.measured[0].whole().right, 0);
        assert_nothing_for_sale(&node);
        assert_own_numbers(&node, settled);
    }
}

#[test]
fn a_purchase_that_is_refused_is_counted_and_its_offer_taken_back() {
    let node = node();
    node.fail(Command::Buy, 3, Fault::Refuse(Status::NO_SETTLEMENT));
    let (outcome, settled) = load("buy", 1, &plan(&node, TCP), &node);
    let whole = outcome.measured[0].whole();
    assert_eq!((whole.wrong, whole.refused, whole.lost), (0, 1, 0));
    assert_nothing_for_sale(&node);
    assert_own_numbers(&node, settled);
}

#[test]
fn offers_of_a_program_never_have_the_same_price() {
    let node = node();
    let mut purse = Purse::new(owned(64)).unwrap();
    let parts: Vec<Vec<Held>> = purse.deal(2);
    let mut kinds: Vec<Box<dyn Kind>> = parts
        .into_iter()
        .map(|coins| {
            Mix::one("list").unwrap().kind(Setup {
                coins,
                coins_per_request: 1,
                slots: 1,
                choice: Choice::Uniform,
                side_door: plan(&node, UDP).side_door(),
            })
        })
        .collect();
    kinds.iter_mut().for_each(|kind| kind.prepare());
    let mut prices: Vec<u32> = {
        let state = node.state.lock().unwrap();
        let sales = state.lockers.sales.iter();
        sales.map(|key| key.price().get()).collect()
    };
    prices.sort_unstable();
    prices.dedup();
    assert_eq!(prices.len(), 64);
    kinds.iter_mut().for_each(|kind| kind.finish().unwrap());
    assert_nothing_for_sale(&node);
}
