//! The client library, against a small node over real sockets.

use std::time::Duration;

use crate::small_node::{ADMIN_KEY, Fault, RAIDA, SmallNode};
use raida::client::{Client, ClientError, Options, Outcome, Transport};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::protocol::authentication::derived_an;
use raida::protocol::executive::SessionId;
use raida::protocol::{AdminKey, Command, Protection, RaidaId, Status};

fn coin(dn: i8, sn: u32) -> Coin {
    Coin {
        denomination: Denomination::new(dn).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    }
}

fn an(number: u32) -> An {
    An::new((u128::from(number) << 64 | 0xa5).to_be_bytes())
}

fn owned(count: u32) -> Vec<(Coin, An)> {
    (0..count).map(|sn| (coin(1, sn), an(sn))).collect()
}

fn node(coins: u32) -> SmallNode {
    let node = SmallNode::start();
    node.put(owned(coins));
    node
}

fn options() -> Options {
    Options {
        timeout: Duration::from_secs(20),
        ..Options::new(RaidaId::new(RAIDA).unwrap())
    }
}

fn connect(node: &SmallNode, transport: Transport, options: Options) -> Client {
    Client::connect(("127.0.0.1", node.address.port()), transport, options).unwrap()
}

/// Longest time that a person waits for an answer that does not come.
fn impatient() -> Options {
    Options {
        timeout: Duration::from_millis(200),
        ..options()
    }
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

#[test]
fn every_command_is_answered_over_both_transports_in_every_encryption() {
    let keys = [(coin(6, 1), an(1_001)), (coin(6, 2), an(1_002))];
    for transport in BOTH {
        for protection in [
            Protection::None,
            Protection::Coin(keys[0].0, keys[0].1),
            Protection::CoinHmac(keys[0].0, keys[0].1),
            Protection::TwoCoinsHmac(keys[0], keys[1]),
        ] {
            let node = node(10);
            node.put(keys);
            let options = Options {
                protection,
                ..options()
            };
            let mut client = connect(&node, transport, options);
            assert_eq!(client.echo().unwrap(), 7);
            assert_eq!(client.version().unwrap().as_str(), "small 1 ");
            assert_eq!(client.audit().unwrap().0[9], 10);

            let coins = [coin(1, 0), coin(1, 1)];
            assert!(client.detect_sum(&coins, an(0) ^ an(1)).unwrap());
            assert!(!client.detect_sum(&coins, an(0)).unwrap());
            assert!(client.pown_sum(&coins, an(0) ^ an(1), an(50)).unwrap());
            assert!(!client.pown_sum(&coins, an(0), an(50)).unwrap());
            let mine = [(coin(1, 4), an(4)), (coin(1, 5), an(5))];
            assert!(client.pown_derive(&mine[..1], an(4)).unwrap());
            let derived = derived_an(mine[0].0, an(4), an(4));
            assert!(node.an(coin(1, 4)) == Some(derived));
            assert!(!client.pown_derive(&mine, an(4)).unwrap());
            assert!(node.an(coin(1, 5)) == Some(an(5)));
            let verdicts = client.detect(&[
                (coins[0], an(0) ^ an(50)),
                (coins[1], an(1)),
                (coin(1, 2), an(2)),
            ]);
            assert_eq!(verdicts.unwrap(), [true, false, true]);
            let (outcomes, error) =
                client.pown(&[(coin(1, 2), an(2), an(3)), (coin(1, 3), an(2), an(9))]);
            assert!(error.is_none());
            assert_eq!(outcomes, [Outcome::Changed, Outcome::Failed]);
            assert!(node.an(coin(1, 2)) == Some(an(3)));

            let session = SessionId::new(5);
            let one = [Denomination::new(-8).unwrap()];
            let free = client.available_sns(session, &ADMIN_KEY, &one).unwrap();
            assert_eq!((free.len(), free[0]), (1_024, coin(-8, 0)));
            let made = client
                .create_coins(session, &ADMIN_KEY, &free[..2])
                .unwrap();
            assert!(node.an(free[1]) == Some(made[1]));
            client.free_coins(session, &ADMIN_KEY, &free[..1]).unwrap();
            assert!(node.an(free[0]).is_none());
            let (outcomes, _) =
                client.delete_coins(&ADMIN_KEY, &[(free[1], made[1]), (free[0], made[0])]);
            assert_eq!(outcomes, [Outcome::Changed, Outcome::Failed]);

            let stats = client.stats(&ADMIN_KEY).unwrap();
            assert_eq!((stats.echoes, stats.coins_powned), (1, 1));
            let all = client.all_sns(&ADMIN_KEY, Denomination::new(1).unwrap());
            match transport {
                Transport::Tcp => assert_eq!(all.unwrap().len(), 10),
                Transport::Udp => assert!(matches!(all, Err(ClientError::NeedsTcp(_)))),
            }
        }
    }
}

#[test]
fn a_long_list_is_answered_in_the_order_asked() {
    for (transport, count) in [(Transport::Tcp, 20_000), (Transport::Udp, 1_000)] {
        let node = node(count);
        let mut coins = owned(count);
        for wrong in coins.iter_mut().step_by(7) {
            wrong.1 = an(u32::MAX);
        }
        let verdicts = connect(&node, transport, options()).detect(&coins).unwrap();
        let expected: Vec<bool> = (0..count).map(|place| place % 7 != 0).collect();
        assert!(verdicts == expected, "{transport:?}");
        assert!(node.asked(Command::Detect) > 4);
    }
}

#[test]
fn datagrams_that_overtake_each_other_find_their_requests() {
    let node = node(1_000);
    node.fail(Command::Detect, 0, Fault::Late);
    node.fail(Command::Detect, 2, Fault::Late);
    let mut coins = owned(1_000);
    coins[3].1 = an(4);
    let mut client = connect(&node, Transport::Udp, options());
    let verdicts = client.detect(&coins).unwrap();
    let failed: Vec<usize> = (0..1_000).filter(|&place| !verdicts[place]).collect();
    assert_eq!(failed, [3]);
}

#[test]
fn a_refusal_is_an_error_with_its_status() {
    for transport in BOTH {
        let node = node(1);
        let mut client = connect(&node, transport, options());
        let refused = client.stats(&AdminKey::new([0; 16])).unwrap_err();
        assert!(matches!(
            refused,
            ClientError::Refused(_, Status::WRONG_ADMIN_KEY)
        ));
        // The same connection goes on.
        client.echo().unwrap();

        let stranger = Options {
            protection: Protection::CoinHmac(coin(5, 5), an(5)),
            ..options()
        };
        let refused = connect(&node, transport, stranger).echo().unwrap_err();
        assert!(matches!(
            refused,
            ClientError::Refused(_, Status::UNKNOWN_KEY_COIN)
        ));
    }
}

#[test]
fn another_raida_than_the_one_asked_is_noticed() {
    for transport in BOTH {
        let node = node(1);
        let options = Options::new(RaidaId::new(3).unwrap());
        let error = connect(&node, transport, options).echo().unwrap_err();
        let ClientError::OtherRaida(_, other) = error else {
            panic!("{error}");
        };
        assert_eq!(other.get(), RAIDA);
    }
}

#[test]
fn nobody_there_is_said_at_once() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let tcp = Client::connect(("127.0.0.1", port), Transport::Tcp, options());
    assert!(matches!(tcp.err(), Some(ClientError::Unreachable(..))));
    let mut udp = Client::connect(("127.0.0.1", port), Transport::Udp, options()).unwrap();
    assert!(matches!(udp.echo(), Err(ClientError::Unreachable(..))));
}

#[test]
fn after_a_missing_answer_a_stream_is_not_used_again() {
    let node = node(1);
    node.fail(Command::Echo, 0, Fault::Silent);
    let mut client = connect(&node, Transport::Tcp, impatient());
    assert!(matches!(client.echo(), Err(ClientError::TimedOut(..))));
    assert!(matches!(client.echo(), Err(ClientError::Broken(..))));
    assert_eq!(node.asked(Command::Echo), 1);
}

#[test]
fn after_a_missing_answer_datagrams_go_on() {
    let node = node(1);
    node.fail(Command::Echo, 0, Fault::Late);
    let mut client = connect(&node, Transport::Udp, impatient());
    assert!(matches!(client.echo(), Err(ClientError::TimedOut(..))));
    client.echo().unwrap();
    // The late answer to the first echo is on its way in: it is no answer to this one.
    client.version().unwrap();
}

#[test]
fn pown_tells_what_changed_from_what_did_not_and_what_nobody_knows() {
    for (fault, expected) in [
        (Fault::Hangup, Outcome::Unknown),
        (Fault::Nonsense, Outcome::Unknown),
        (Fault::Refuse(Status::UNAVAILABLE), Outcome::NotAsked),
    ] {
        let node = node(20_000);
        node.fail(Command::Pown, 1, fault);
        let proposals: Vec<(Coin, An, An)> = (owned(20_000).into_iter())
            .map(|(coin, old)| (coin, old, old ^ an(77_777)))
            .collect();
        let (outcomes, error) = connect(&node, Transport::Tcp, options()).pown(&proposals);
        assert!(error.is_some(), "{fault:?}");
        let batch = outcomes
            .iter()
            .position(|o| *o != Outcome::Changed)
            .unwrap();
        assert_eq!(outcomes[batch], expected, "{fault:?}");
        assert_eq!(outcomes[2 * batch - 1], expected, "{fault:?}");
        assert_eq!(outcomes[19_999], Outcome::NotAsked, "{fault:?}");
        for (&(coin, old, new), outcome) in proposals.iter().zip(outcomes) {
            let held = node.an(coin).unwrap();
            match outcome {
                Outcome::Changed => assert!(held == new),
                Outcome::NotAsked | Outcome::Failed => assert!(held == old),
                Outcome::Unknown => assert!(held == old || held == new),
            }
        }
    }
}
