//! The load generator, against a small node over real sockets, for a fraction of a second each.

mod small_node;

use std::net::SocketAddr;
use std::time::Duration;

use raida::client::{Client, Options, Transport};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::load::kind::{DetectKind, EchoKind, PownKind};
use raida::load::{Addressee, Contender, Kind, LoadError, Measured, Plan, Purse, Settled, Stream};
use raida::protocol::{Command, RaidaId};
use small_node::{ADMIN_KEY, Fault, RAIDA, SmallNode};

const UDP: Stream = Stream::Udp { in_flight: 8 };
const TCP: Stream = Stream::Tcp {
    connections: 2,
    depth: 4,
};

fn owned(count: u32) -> Vec<(Coin, An)> {
    let coin = |sn| Coin {
        denomination: Denomination::new(1).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    };
    (0..count)
        .map(|sn| (coin(sn), An::new(u128::from(sn + 1).to_be_bytes())))
        .collect()
}

fn plan(node: &SmallNode, stream: Stream) -> Plan {
    Plan {
        node: SocketAddr::from(([127, 0, 0, 1], node.address.port())),
        addressee: Addressee {
            raida: RaidaId::new(RAIDA).unwrap(),
            coin_id: 6,
        },
        stream,
        cpus: vec![None],
        node_pid: None,
        echo: None,
        disk: None,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(400),
        slices: 2,
        timeout: Duration::from_millis(100),
    }
}

fn client(node: &SmallNode) -> Client {
    let options = Options {
        timeout: Duration::from_secs(20),
        ..Options::new(RaidaId::new(RAIDA).unwrap())
    };
    Client::connect(("127.0.0.1", node.address.port()), Transport::Tcp, options).unwrap()
}

/// Powns for a while, then gives the coins their own numbers back.
fn pown(plan: Plan, node: &SmallNode) -> (Measured, Settled) {
    let mut purse = Purse::new(owned(64)).unwrap();
    let kind = PownKind::new(purse.deal(1).remove(0), 2, plan.slots_per_thread());
    let (mut measured, coins) = plan.run(vec![Box::new(kind)]).unwrap();
    purse.collect(coins);
    let settled = purse.settle(&mut client(node)).unwrap();
    (measured.remove(0), settled)
}

#[test]
fn every_answer_of_a_good_node_is_right() {
    for stream in [UDP, TCP] {
        let node = SmallNode::start();
        node.put(owned(64));
        let plan = plan(&node, stream);
        let slots = plan.slots_per_thread();
        for coins_per_request in [1, 3] {
            let held = Purse::new(owned(64)).unwrap().deal(1).remove(0);
            let kind = DetectKind::new(held, coins_per_request, slots);
            let kinds: [Box<dyn Kind>; 2] = [Box::new(kind), Box::new(EchoKind)];
            for kind in kinds {
                let (measured, _) = plan.run(vec![kind]).unwrap();
                let total = measured[0].whole();
                assert!(total.right > 10, "{total:?}");
                assert_eq!((total.wrong, total.refused, total.lost), (0, 0, 0));
                assert_eq!(total.latency_ns.len(), total.right);
            }
        }
    }
}

#[test]
fn powned_coins_have_their_own_numbers_again_afterwards() {
    for stream in [UDP, TCP] {
        let node = SmallNode::start();
        node.put(owned(64));
        let (measured, settled) = pown(plan(&node, stream), &node);
        let total = measured.whole();
        assert!(total.right > 10, "{total:?}");
        assert_eq!((total.wrong, total.lost), (0, 0));
        assert_eq!((settled.wrong, settled.astray), (0, 0));
        for (coin, an) in owned(64) {
            assert_eq!(node.an(coin), Some(an));
        }
    }
}

#[test]
fn an_answer_that_does_not_come_is_lost_and_its_coins_are_found_again() {
    let node = SmallNode::start();
    node.put(owned(64));
    node.fail(Command::Pown, 4, Fault::Silent);
    let (measured, settled) = pown(plan(&node, UDP), &node);
    let whole = measured.whole();
    assert_eq!((whole.wrong, whole.lost), (0, 1));
    assert_eq!((settled.wrong, settled.astray), (0, 0));
    for (coin, an) in owned(64) {
        assert_eq!(node.an(coin), Some(an));
    }
}

#[test]
fn a_node_that_knows_other_numbers_is_wrong() {
    let node = SmallNode::start();
    node.put(owned(64).into_iter().map(|(coin, an)| (coin, an ^ an)));
    let held = Purse::new(owned(64)).unwrap().deal(1).remove(0);
    let plan = plan(&node, UDP);
    let kind = DetectKind::new(held, 1, plan.slots_per_thread());
    let (measured, _) = plan.run(vec![Box::new(kind)]).unwrap();
    let total = measured[0].whole();
    assert!(total.wrong > 0 && total.first_wrong.is_some(), "{total:?}");
}

#[test]
fn baselines_take_turns_with_the_node() {
    let folder = tempfile::tempdir().unwrap();
    for stream in [UDP, TCP] {
        let node = SmallNode::start();
        let plan = Plan {
            echo: Some(vec![None, None]),
            disk: Some(folder.path().to_owned()),
            ..plan(&node, stream)
        };
        let (measured, _) = plan.run(vec![Box::new(EchoKind)]).unwrap();
        let contenders: Vec<Contender> = measured.iter().map(|one| one.contender).collect();
        assert_eq!(
            contenders,
            [Contender::Node, Contender::Echo, Contender::Disk]
        );
        for one in measured {
            assert_eq!(one.slices.len(), 2);
            let total = one.total();
            assert!(total.right > 0 && total.wrong == 0, "{one:?}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn minted_coins_are_taken_out_of_circulation_again() {
    let node = SmallNode::start();
    let mut client = client(&node);
    let mut purse = Purse::mint(&mut client, &ADMIN_KEY, 30).unwrap();
    assert_eq!((purse.len(), node.coins()), (30, 30));
    purse.settle(&mut client).unwrap();
    purse.delete(&mut client, &ADMIN_KEY).unwrap();
    assert_eq!(node.coins(), 0);
}

#[test]
fn what_threads_cannot_share_evenly_is_refused() {
    let node = SmallNode::start();
    let plan = Plan {
        cpus: vec![None; 3],
        ..plan(&node, UDP)
    };
    let kinds = (0..3).map(|_| -> Box<dyn Kind> { Box::new(EchoKind) });
    let refused = plan.run(kinds.collect());
    assert!(matches!(refused, Err(LoadError::Plan(_))));
}
