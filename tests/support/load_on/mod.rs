//! Loads on a small node, as the tests of the generator put them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use raida::client::{Client, Options, Transport};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::load::kind::{Mix, Setup};
use raida::load::{
    Addressee, Choice, Held, Io, Keyring, Measured, Outcome, Pace, Plan, Purse, Settled, Spacing,
    Stop, Stream,
};
use raida::protocol::RaidaId;

use crate::small_node::{RAIDA, SmallNode};

pub const UDP: Stream = Stream::Udp { in_flight: 8 };
pub const TCP: Stream = Stream::Tcp {
    connections: 2,
    depth: 4,
};
pub const TCP_EACH: Stream = Stream::TcpEach { connections: 4 };
pub const STREAMS: [Stream; 3] = [UDP, TCP, TCP_EACH];

pub fn owned(count: u32) -> Vec<(Coin, An)> {
    let coin = |sn| Coin {
        denomination: Denomination::new(1).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    };
    (0..count)
        .map(|sn| (coin(sn), An::new(u128::from(sn + 1).to_be_bytes())))
        .collect()
}

pub fn plan(node: &SmallNode, stream: Stream) -> Plan {
    Plan {
        node: SocketAddr::from(([127, 0, 0, 1], node.address.port())),
        addressee: Addressee {
            raida: RaidaId::new(RAIDA).unwrap(),
            coin_id: 6,
        },
        keyring: Keyring::PLAIN,
        stream,
        io: Io::Syscalls,
        cpus: vec![None],
        node_pid: None,
        node_cpus: vec![],
        echo: false,
        echo_uring: false,
        redis: None,
        disk: None,
        pace: Pace::Closed,
        sweep: None,
        sweep_spacing: Spacing::Poisson,
        late_after: Duration::from_secs(1),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(400),
        slices: 2,
        timeout: Duration::from_secs(5),
        progress: None,
        stop: Stop::default(),
    }
}

pub fn client(node: &SmallNode) -> Client {
    let options = Options {
        timeout: Duration::from_secs(20),
        ..Options::new(RaidaId::new(RAIDA).unwrap())
    };
    Client::connect(("127.0.0.1", node.address.port()), Transport::Tcp, options).unwrap()
}

/// A node that knows 64 coins.
pub fn node() -> SmallNode {
    let node = SmallNode::start();
    node.put(owned(64));
    node
}

/// Puts a load on the node with its 64 coins, and then gives them their own numbers back.
pub fn load(
    load: &str,
    coins_per_request: usize,
    plan: &Plan,
    node: &SmallNode,
) -> (Outcome, Settled) {
    let mut purse = Purse::new(owned(64)).unwrap();
    let (outcome, held) = load_purse(load, coins_per_request, plan, &mut purse);
    purse.collect(held);
    let settled = purse.settle(&mut client(node)).unwrap();
    (outcome, settled)
}

pub fn load_purse(
    load: &str,
    coins_per_request: usize,
    plan: &Plan,
    purse: &mut Purse,
) -> (Outcome, Vec<Held>) {
    let mix = match load.contains('=') {
        true => Mix::parse(load).unwrap(),
        false => Mix::one(load).unwrap(),
    };
    let kinds = purse.deal(plan.cpus.len()).into_iter().map(|coins| {
        mix.kind(Setup {
            coins,
            coins_per_request,
            slots: plan.slots_per_thread(),
            choice: Choice::Uniform,
            side_door: plan.side_door(),
        })
    });
    let mut outcome = plan.run(kinds.collect()).unwrap();
    let held = std::mem::take(&mut outcome.coins);
    (outcome, held)
}

/// Nothing but right answers, and every one of them timed.
pub fn assert_all_right(measured: &Measured) {
    let whole = measured.whole();
    assert!(whole.right > 10, "{whole:?}");
    let others = (whole.wrong, whole.refused, whole.late, whole.lost);
    assert_eq!(others, (0, 0, 0, 0), "{whole:?}");
    assert_eq!(whole.latency_ns.len(), whole.right);
}

pub fn assert_own_numbers(node: &SmallNode, settled: Settled) {
    assert_eq!((settled.wrong, settled.astray), (0, 0));
    for (coin, an) in owned(64) {
        assert_eq!(node.an(coin), Some(an));
    }
}
