//! Tickets of the real program: who can claim one, how often and how long, what a full pool and a
//! client that asks too often are told, and what is written down about it.

use std::ffi::OsStr;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::node_process::{NodeProcess, PATIENCE, Serve, admin_key, mint, options};
use raida::client::{Client, ClientError, Transport};
use raida::coin::{An, Coin};
use raida::protocol::healing::{Find, TicketId, Validate};
use raida::protocol::request::{Protection, Request};
use raida::protocol::{Command, RaidaId, Status};

const SHARDS: u16 = 2;

struct Node {
    folder: tempfile::TempDir,
    process: NodeProcess,
    coins: Vec<(Coin, An)>,
}

impl Node {
    fn new(change: impl FnOnce(Serve) -> Serve) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // A claim over UDP may be answered with 64 coins.
        let serve = Serve::on(&data).with("network.udp_amplification", 10);
        let process = change(serve.with("shards.count", SHARDS)).start();
        let coins = mint(&mut process.client(), &admin_key(&data), &[0, 1], 4, 8);
        Node {
            folder,
            process,
            coins,
        }
    }

    fn client(&self) -> Client {
        self.process.client()
    }

    /// A ticket for all the coins.
    fn ticket(&self) -> TicketId {
        self.try_ticket().unwrap()
    }

    fn try_ticket(&self) -> Result<TicketId, ClientError> {
        let tickets = self.client().get_ticket(&self.coins)?;
        assert!(tickets.passed.iter().all(|&passed| passed));
        Ok(tickets.issued[0].1)
    }

    /// Claims a ticket in a server's name, over a connection of its own or as a datagram.
    fn claim(&self, over: Transport, raida: u8, ticket: u32) -> Result<Vec<Coin>, Status> {
        let mut client = Client::connect(self.process.host(), over, options()).unwrap();
        let connection = client.connection();
        let claimant = RaidaId::new(raida).unwrap();
        let mut payload = vec![];
        match TicketId::new(ticket) {
            Some(ticket) => Validate::compose(claimant, ticket, &mut payload),
            None => payload.extend([raida, 0, 0, 0, 0]),
        }
        connection.send(Command::Validate, Some(&payload)).unwrap();
        let reply = connection.receive().unwrap();
        match reply.status {
            Status::SUCCESS => Ok(Validate::read(&reply.payload).unwrap().iter().collect()),
            refusal => Err(refusal),
        }
    }

    /// What the node says it has done about healing.
    fn counts(&self) -> serde_json::Value {
        let words = ["stats", "--detail", "--json", "--data"].map(OsStr::new);
        let data = self.folder.path().join("data");
        let words: Vec<&OsStr> = words.into_iter().chain([data.as_os_str()]).collect();
        let output = crate::node_process::raida(&words);
        assert!(output.status.success(), "{output:?}");
        let counts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        counts["healing"].clone()
    }

    fn listed(&self) -> Vec<Coin> {
        self.coins.iter().map(|&(coin, _)| coin).collect()
    }
}

#[test]
fn every_server_claims_a_ticket_once_whatever_shard_it_speaks_to() {
    let node = Node::new(|serve| serve);
    // Connections fall to shards at random, tickets to those of their connections.
    for _ in 0..4 {
        let ticket = node.ticket().get();
        for raida in 0..25 {
            let over = [Transport::Tcp, Transport::Udp][usize::from(raida % 2)];
            assert_eq!(node.claim(over, raida, ticket), Ok(node.listed()));
        }
        for over in [Transport::Tcp, Transport::Udp] {
            let again = node.claim(over, 7, ticket);
            assert_eq!(again, Err(Status::HEALING_TICKET_CLAIMED));
            for never in [0, ticket ^ 1, ticket ^ 2, !ticket] {
                let refused = node.claim(over, 7, never);
                assert_eq!(refused, Err(Status::HEALING_NO_SUCH_TICKET));
            }
        }
    }
}

/// A ticket says who owned coins when it was issued. A later owner does not lose them to it.
#[test]
fn a_coin_that_has_another_owner_since_is_not_vouched_for() {
    let node = Node::new(|serve| serve);
    let sum = |coins: &[(Coin, An)]| coins.iter().fold(An::ZERO, |sum, (_, an)| sum ^ *an);
    let mut held = node.coins.clone();
    for by_sum in [false, true] {
        let ticket = match by_sum {
            false => node.client().get_ticket(&held).unwrap().issued[0].1,
            true => {
                let coins = node.listed();
                let ticket = node.client().get_ticket_sum(&coins, sum(&held));
                ticket.unwrap().expect("the sum is right")
            }
        };
        // Those of both shards, and of each only some.
        let (mut kept, mut given) = (vec![], vec![]);
        for (place, record) in held.iter_mut().enumerate() {
            match place % 3 {
                0 => {
                    let new = record.1 ^ An::new([7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 0]);
                    given.push((record.0, record.1, new));
                    record.1 = new;
                }
                _ => kept.push(record.0),
            }
        }
        for over in [Transport::Tcp, Transport::Udp] {
            let raida = 1 + u8::from(over == Transport::Udp);
            assert_eq!(node.claim(over, raida, ticket.get()), Ok(node.listed()));
        }
        assert!(node.client().pown(&given).1.is_none());
        for raida in 3..11 {
            let over = [Transport::Tcp, Transport::Udp][usize::from(raida % 2)];
            assert_eq!(node.claim(over, raida, ticket.get()), Ok(kept.clone()));
        }
        // Nothing is left of it.
        let all = held.iter_mut().filter(|(coin, _)| kept.contains(coin));
        let given: Vec<_> = all
            .map(|record| {
                let old = record.1;
                record.1 = old ^ An::new([9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 0]);
                (record.0, old, record.1)
            })
            .collect();
        assert!(node.client().pown(&given).1.is_none());
        let refused = node.claim(Transport::Tcp, 20, ticket.get());
        assert_eq!(refused, Err(Status::HEALING_NO_SUCH_TICKET));
    }
}

#[test]
fn a_ticket_ends_with_its_time_and_leaves_its_place() {
    let lifetime = Duration::from_secs(2);
    let node = Node::new(|serve| {
        serve
            .with("shards.count", 1)
            .with("tickets.pool", 64)
            .with("tickets.shares", 1)
            .with("tickets.lifetime_s", lifetime.as_secs())
    });
    let start = Instant::now();
    let first = node.ticket().get();
    // 64 tickets of 64 coins on average: these hold 64 each.
    assert_eq!(node.coins.len(), 64);
    let mut last = first;
    let full = loop {
        match node.try_ticket() {
            Ok(ticket) => last = ticket.get(),
            Err(ClientError::Refused(_, status)) => break status,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(full, Status::HEALING_NO_TICKET_SLOT);
    if start.elapsed() < lifetime {
        assert_eq!(node.claim(Transport::Tcp, 1, first), Ok(node.listed()));
    }
    std::thread::sleep(lifetime);
    for ticket in [first, last] {
        let refused = node.claim(Transport::Tcp, 2, ticket);
        assert_eq!(refused, Err(Status::HEALING_NO_SUCH_TICKET));
    }
    node.ticket();
}

#[test]
fn a_claim_from_another_address_is_refused_counted_and_told_of() {
    let servers: Vec<String> = (0..25).map(|k| format!("\"127.0.1.{k}:50000\"")).collect();
    let servers = format!("[{}]", servers.join(", "));
    let node = Node::new(|serve| serve.with("peers.servers", servers));
    let ticket = node.ticket().get();
    let refused = node.claim(Transport::Tcp, 3, ticket);
    assert_eq!(refused, Err(Status::HEALING_NO_SUCH_TICKET));
    assert_eq!(node.counts()["claims_from_elsewhere"], 1);
    assert_eq!(node.counts()["tickets_issued"], 1);
    node.process.wait_for_log("not its address");
    let log = node.process.stop().log;
    let line = log.lines().find(|line| line.contains("not its address"));
    let line = line.unwrap();
    assert!(line.contains("raida=3"), "{line}");
    assert!(line.contains("from=127.0.0.1"), "{line}");
}

#[test]
fn an_address_that_asks_too_often_is_told_so_and_others_are_served() {
    let node = Node::new(|serve| {
        serve
            .with("shards.count", 1)
            .with("limits.healing_per_s", 1)
            .with("limits.healing_burst", 5)
    });
    let mut client = node.client();
    let answers: Vec<_> = (0..10).map(|_| client.get_ticket(&node.coins)).collect();
    let refused = |answer: &&Result<_, ClientError>| {
        matches!(
            answer,
            Err(ClientError::Refused(_, Status::TOO_MANY_REQUESTS))
        )
    };
    let refused = answers.iter().filter(refused).count();
    assert!((4..=5).contains(&refused), "{refused} of 10 were refused");
    assert!(answers.iter().take(5).all(Result::is_ok));
    // What is no healing has no such limit, and another address has one of its own.
    assert!(
        client
            .detect(&node.coins)
            .unwrap()
            .iter()
            .all(|&passed| passed)
    );
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    assert_eq!(find_from(&other, &node), Status::ALL_AN.code());
    let again = node.client().get_ticket(&node.coins);
    assert!(matches!(
        again,
        Err(ClientError::Refused(_, Status::TOO_MANY_REQUESTS))
    ));
    // Datagrams that bear the address, which may be anybody's, count by themselves.
    let same = UdpSocket::bind("127.0.0.1:0").unwrap();
    let found: Vec<u8> = (0..10).map(|_| find_from(&same, &node)).collect();
    assert_eq!(found[..5], [Status::ALL_AN.code(); 5]);
    let too_many = Status::TOO_MANY_REQUESTS.code();
    let refused = found.iter().filter(|&&code| code == too_many).count();
    assert!((4..=5).contains(&refused), "{refused} of 10 were refused");
    assert!(node.counts()["too_many_requests"].as_u64() >= Some(9));
}

/// The status that a find gets from this socket.
fn find_from(socket: &UdpSocket, node: &Node) -> u8 {
    let (coin, an) = node.coins[0];
    let mut payload = vec![];
    Find::compose([(coin, an, an ^ An::new([1; 16]))], &mut payload);
    let mut request = vec![];
    Request {
        to: options().raida,
        coin_id: options().coin_id,
        command: Command::Find,
        protection: Protection::None,
        echo: [1, 2],
        challenge: [3; 12],
        nonce: [4; 22],
        payload: Some(&payload),
    }
    .compose(&mut request)
    .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&request, node.process.address).unwrap();
    let mut answer = [0; 64];
    socket.recv(&mut answer).unwrap();
    answer[2]
}

#[test]
fn the_trail_tells_of_every_ticket_and_claim_and_of_no_secret() {
    let node = Node::new(|serve| serve.with("log.healing", "debug").with("log.level", "off"));
    let ticket = node.ticket().get();
    node.claim(Transport::Tcp, 9, ticket).unwrap();
    node.claim(Transport::Udp, 9, ticket).unwrap_err();
    node.process.wait_for_log("claimed already");
    let coins = node.coins.clone();
    let log = node.process.stop().log;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines[0].contains("ticket issued coins=64 to=127.0.0.1"));
    assert!(lines[1].contains("ticket claimed raida=9 from=127.0.0.1"));
    assert!(lines[2].contains("claim refused raida=9 from=127.0.0.1"));
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let log = log.to_lowercase();
    for secret in coins.iter().map(|(_, an)| hex(an.expose())) {
        assert!(!log.contains(&secret));
    }
    for form in [ticket.to_string(), hex(&ticket.to_be_bytes())] {
        assert!(!log.contains(&form), "{form} in {log}");
    }
}
