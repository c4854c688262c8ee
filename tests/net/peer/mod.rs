//! A node as a client of the network's other servers, which answer, do not answer, or say anything
//! at all: real sockets on the loopback, a real executor.

mod server;

use std::{
    future::Future,
    net::{SocketAddr, TcpListener, TcpStream},
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{Either, join_all, select},
};
use glommio::{LocalExecutorBuilder, Placement, timer::sleep};
use raida::runtime::run_awake;
use raida::{
    client::{Connection, Options, Transport},
    coin::{An, Coin, Mfs, PageId},
    peer::{Book, Counters, Lost, PeerSettings, Peers, Server as Place},
    protocol::{
        Command, RaidaId, Status,
        healing::{GetTicket, TicketAnswer, TicketId},
    },
};

use self::server::{Line, Server};
use crate::real_node::RealNode;

const OWN: RaidaId = RaidaId::new(3).unwrap();
const OTHER: RaidaId = RaidaId::new(7).unwrap();
/// Far beyond what anything here takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ticket(number: u32) -> TicketId {
    TicketId::new(number).unwrap()
}

/// The coins of a ticket: as many as its number says, and of a page of its own.
fn coins(number: u32) -> Vec<Coin> {
    let page = PageId::from_index(number as usize).unwrap();
    (0..number as usize % 1_000 + 1)
        .map(|at| page.coin(at))
        .collect()
}

fn settings() -> PeerSettings {
    PeerSettings {
        connect_timeout: ms(150),
        reply_timeout: ms(200),
        back_off_first: ms(50),
        back_off_max: ms(200),
        ..PeerSettings::new(OWN, 6)
    }
}

/// Patient ones, for tests that are not about time.
fn patient() -> PeerSettings {
    PeerSettings {
        connect_timeout: PATIENCE,
        reply_timeout: PATIENCE,
        ..settings()
    }
}

/// All servers but one have an address where nobody listens.
fn servers(other: SocketAddr) -> Vec<Place> {
    let place = |raida| Place {
        host: "127.0.0.1".into(),
        port: if raida == OTHER { other.port() } else { 1 },
    };
    RaidaId::all().map(place).collect()
}

/// Runs on an executor of its own, and ends whatever happens.
fn run<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .make()
        .unwrap();
    run_awake(&executor, async {
        match select(pin!(work), pin!(sleep(PATIENCE * 2))).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => panic!("it hangs"),
        }
    })
}

fn peers(other: SocketAddr, settings: PeerSettings) -> Rc<Peers> {
    Peers::new(settings, Book::new(servers(other)))
}

/// Claims a ticket of a server that does `serve` with each connection; gives the outcome and how
/// long it took.
fn claim_from(
    settings: PeerSettings,
    serve: impl Fn(&mut Line) + Send + Sync + 'static,
) -> (Result<Vec<Coin>, Lost>, Duration, Counters) {
    let server = Server::start(OTHER, None, serve);
    let address = server.address;
    run(async move {
        let peers = peers(address, settings);
        let start = Instant::now();
        let outcome = peers.claim(OTHER, ticket(5)).await;
        (outcome, start.elapsed(), peers.counters())
    })
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        sleep(ms(2)).await;
    }
}

/// Claims until there is an answer.
async fn until_answered(peers: &Peers) -> Vec<Coin> {
    let start = Instant::now();
    loop {
        match peers.claim(OTHER, ticket(9)).await {
            Ok(coins) => return coins,
            Err(lost) => assert!(start.elapsed() < PATIENCE, "still {lost:?}"),
        }
        sleep(ms(5)).await;
    }
}

#[test]
fn a_claim_in_our_name_gives_the_coins_of_the_ticket() {
    let (outcome, _, counters) = claim_from(patient(), |line| {
        let asked = line.next().unwrap();
        let validate = asked.validate.unwrap();
        assert_eq!((validate.claimant, validate.ticket), (OWN, Some(ticket(5))));
        line.answer_well(&asked, coins);
        line.stay();
    });
    assert_eq!(outcome, Ok(coins(5)));
    let expected = Counters {
        calls: 1,
        answered: 1,
        connections: 1,
        ..Counters::default()
    };
    assert_eq!(counters, expected);
}

#[test]
fn the_longest_ticket_there_is_is_read() {
    let all: Vec<Coin> = (0..4)
        .flat_map(|page| (0..1_024).map(move |at| PageId::from_index(page).unwrap().coin(at)))
        .collect();
    let expected = all.clone();
    let (outcome, ..) = claim_from(patient(), move |line| line.serve_well(|_| all.clone()));
    assert_eq!(outcome, Ok(expected));
}

#[test]
fn a_hundred_claims_at_once_share_a_connection_and_each_gets_its_own_answer() {
    let server = Server::start(OTHER, None, |line| {
        // All of them come before the first is answered.
        let asked: Vec<_> = (0..100).map_while(|_| line.next()).collect();
        for asked in &asked {
            line.answer_well(asked, coins);
        }
        line.serve_well(coins);
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, patient());
        for _ in 0..2 {
            let claims = (1..=100).map(|number| peers.claim(OTHER, ticket(number)));
            let answers = join_all(claims).await;
            for (number, answer) in (1..=100).zip(answers) {
                assert_eq!(answer, Ok(coins(number)));
            }
        }
        assert_eq!(peers.counters().connections, 1);
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_refusal_is_passed_on_and_the_connection_goes_on() {
    let server = Server::start(OTHER, None, |line| {
        let asked = line.next().unwrap();
        let refusal = line.answer(&asked, Status::HEALING_NO_SUCH_TICKET, &[]);
        line.send(&refusal);
        line.serve_well(coins);
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, patient());
        let refused = peers.claim(OTHER, ticket(1)).await;
        assert_eq!(refused, Err(Lost::Refused(Status::HEALING_NO_SUCH_TICKET)));
        assert_eq!(peers.claim(OTHER, ticket(2)).await, Ok(coins(2)));
        assert_eq!(peers.counters().connections, 1);
    });
}

#[test]
fn garbage_is_a_lost_vote() {
    for garbage in [
        &[0xff; 200][..],
        &[0; 200],
        b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
    ] {
        let (outcome, _, counters) = claim_from(patient(), move |line| {
            line.next();
            line.send(garbage);
            line.stay();
        });
        assert_eq!(outcome, Err(Lost::Malformed));
        assert_eq!(counters.connections_lost, 1);
    }
}

#[test]
fn an_answer_that_is_wrong_in_any_byte_that_says_whose_it_is_is_a_lost_vote() {
    // Server, group, echo bytes, challenge answer, trailer.
    for at in [0, 3, 6, 7, 16, 31, 32 + 30] {
        let (outcome, _, counters) = claim_from(patient(), move |line| {
            let asked = line.next().unwrap();
            let coins: Vec<u8> = coins(5).iter().flat_map(|coin| coin.to_bytes()).collect();
            let mut answer = line.answer(&asked, Status::SUCCESS, &coins);
            assert_eq!(answer.len(), 32 + 32);
            answer[at] ^= 1;
            line.send(&answer);
            line.stay();
        });
        assert_eq!(outcome, Err(Lost::Malformed), "byte {at}");
        assert_eq!(counters.connections_lost, 1, "byte {at}");
    }
}

#[test]
fn a_list_that_no_ticket_has_is_a_lost_vote_and_the_connection_goes_on() {
    let server = Server::start(OTHER, None, |line| {
        // None at all, half a coin, a coin that cannot exist, and a list under a status that has
        // none.
        let lists = [
            (Status::SUCCESS, &[][..]),
            (Status::SUCCESS, &[0, 0, 0, 0, 1, 0, 0]),
            (Status::SUCCESS, &[0, 0, 0, 0, 1, 0x77, 0, 0, 0, 1]),
            (Status::SUCCESS, &[0, 0xff, 0xff, 0xff, 0xff]),
            (Status::ALL_PASS, &[0, 0, 0, 0, 1]),
        ];
        for (status, list) in lists {
            let asked = line.next().unwrap();
            let answer = line.answer(&asked, status, list);
            line.send(&answer);
        }
        line.serve_well(coins);
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, patient());
        for _ in 0..5 {
            assert_eq!(peers.claim(OTHER, ticket(1)).await, Err(Lost::Malformed));
        }
        assert_eq!(peers.claim(OTHER, ticket(2)).await, Ok(coins(2)));
        assert_eq!(peers.counters().connections, 1);
    });
}

#[test]
fn a_header_of_48_bytes_is_a_lost_vote() {
    let (outcome, ..) = claim_from(patient(), |line| {
        let asked = line.next().unwrap();
        let answer = line.answer(&asked, Status::SUCCESS, &[0, 0, 0, 0, 1]);
        let mut longer = answer[..32].to_vec();
        longer.resize(48, 0);
        longer.extend_from_slice(&answer[32..]);
        line.send(&longer);
        line.stay();
    });
    assert_eq!(outcome, Err(Lost::Malformed));
}

#[test]
fn more_coins_than_a_ticket_has_are_not_waited_for() {
    let (outcome, ..) = claim_from(patient(), |line| {
        let asked = line.next().unwrap();
        let list = vec![0; 5 * 4_097];
        let answer = line.answer(&asked, Status::SUCCESS, &list);
        line.send(&answer[..40]);
        line.stay();
    });
    assert_eq!(outcome, Err(Lost::Malformed));
}

#[test]
fn a_byte_now_and_then_is_cut_off_by_the_time_out() {
    let (outcome, took, _) = claim_from(settings(), |line| {
        let asked = line.next().unwrap();
        let answer = line.answer(&asked, Status::SUCCESS, &[0, 0, 0, 0, 1]);
        for byte in answer {
            if !line.wait(ms(20)) {
                break;
            }
            line.send(&[byte]);
        }
    });
    assert_eq!(outcome, Err(Lost::TimedOut));
    assert!(took >= ms(200) && took < ms(600), "{took:?}");
}

#[test]
fn a_server_that_hangs_costs_one_time_out_and_then_nothing() {
    let server = Server::start(OTHER, None, Line::stay);
    let address = server.address;
    run(async move {
        let peers = peers(address, settings());
        let start = Instant::now();
        let claims = (1..=3).map(|number| peers.claim(OTHER, ticket(number)));
        for lost in join_all(claims).await {
            assert_eq!(lost, Err(Lost::TimedOut));
        }
        assert!(start.elapsed() < ms(600), "{:?}", start.elapsed());
        // It accepts connections all the time, and none of them makes anybody wait.
        while peers.counters().connections < 3 {
            let lost = peers.claim(OTHER, ticket(4)).now_or_never();
            assert_eq!(lost, Some(Err(Lost::Down)));
            sleep(ms(3)).await;
            assert!(start.elapsed() < PATIENCE);
        }
    });
}

#[test]
fn an_answer_cut_short_is_a_lost_vote() {
    let (outcome, _, counters) = claim_from(patient(), |line| {
        let asked = line.next().unwrap();
        let answer = line.answer(&asked, Status::SUCCESS, &[0, 0, 0, 0, 1]);
        line.send(&answer[..35]);
    });
    assert_eq!(outcome, Err(Lost::Down));
    assert_eq!((counters.down, counters.connections_lost), (1, 1));
}

#[test]
fn a_refused_connection_is_lost_at_once_and_the_next_claims_do_not_even_try() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    run(async move {
        let peers = peers(
            nobody,
            PeerSettings {
                back_off_first: PATIENCE,
                back_off_max: PATIENCE,
                ..patient()
            },
        );
        assert_eq!(peers.claim(OTHER, ticket(1)).await, Err(Lost::Down));
        let start = Instant::now();
        for number in 1..100 {
            let lost = peers.claim(OTHER, ticket(number)).now_or_never();
            assert_eq!(lost, Some(Err(Lost::Down)));
        }
        assert!(start.elapsed() < ms(100), "{:?}", start.elapsed());
        assert_eq!(peers.counters().connections_failed, 1);
    });
}

/// A listener whose queue is full: the kernel ignores further connections, as a machine that is not
/// there does.
fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, ms(100)) {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue never fills");
    }
    (listener, queued)
}

#[test]
fn a_black_hole_costs_the_connect_time_out_once_and_then_nothing() {
    let (listener, _queued) = black_hole();
    let address = listener.local_addr().unwrap();
    run(async move {
        let peers = peers(address, settings());
        let start = Instant::now();
        let claims = (1..=3).map(|number| peers.claim(OTHER, ticket(number)));
        for lost in join_all(claims).await {
            assert_eq!(lost, Err(Lost::TimedOut));
        }
        let took = start.elapsed();
        assert!(took >= ms(150) && took < ms(350), "{took:?}");
        // While it is tried again and again.
        while peers.counters().connections_failed < 3 {
            let lost = peers.claim(OTHER, ticket(4)).now_or_never();
            assert_eq!(lost, Some(Err(Lost::Down)));
            sleep(ms(3)).await;
            assert!(start.elapsed() < PATIENCE);
        }
    });
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_claims() {
    let server = Server::start(OTHER, None, |line| {
        if line.number > 0 {
            return line.serve_well(coins);
        }
        let asked = line.next().unwrap();
        line.wait(ms(300));
        line.answer_well(&asked, coins);
        line.stay();
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, settings());
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Err(Lost::TimedOut));
        assert_eq!(until_answered(&peers).await, coins(9));
        sleep(ms(150)).await;
        assert_eq!(peers.claim(OTHER, ticket(8)).await, Ok(coins(8)));
    });
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let server = Server::start(OTHER, None, |line| line.serve_well(coins));
    let address = server.address;
    run(async move {
        let peers = peers(address, settings());
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Ok(coins(5)));
        drop(server);
        // It closed the connection, and nobody listens: the next claim finds out.
        sleep(ms(20)).await;
        assert_eq!(peers.claim(OTHER, ticket(6)).await, Err(Lost::Down));
        until("a second failure", || {
            peers.counters().connections_failed >= 2
        })
        .await;
        let _server = Server::start(OTHER, address, |line| line.serve_well(coins));
        assert_eq!(until_answered(&peers).await, coins(9));
    });
}

#[test]
fn a_server_that_is_back_is_tried_out_by_an_echo_before_anybody_waits_for_it() {
    let server = Server::start(OTHER, None, |line| {
        if line.number == 0 {
            line.next();
            return;
        }
        let first = line.next().unwrap();
        assert_eq!(first.header.command, Command::Echo);
        line.answer_well(&first, coins);
        line.serve_well(coins);
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, settings());
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Err(Lost::Down));
        assert_eq!(until_answered(&peers).await, coins(9));
    });
}

#[test]
fn a_claim_that_is_given_up_takes_nobody_elses_answer() {
    let server = Server::start(OTHER, None, |line| {
        let asked: Vec<_> = (0..3).map_while(|_| line.next()).collect();
        for asked in &asked {
            line.answer_well(asked, coins);
        }
        line.stay();
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, patient());
        let kept = peers.claim(OTHER, ticket(1));
        let given_up = peers.claim(OTHER, ticket(2));
        // Both are on their way before the second is given up.
        until("connected", || peers.counters().connections == 1).await;
        sleep(ms(20)).await;
        drop(given_up);
        let last = peers.claim(OTHER, ticket(3));
        assert_eq!((kept.await, last.await), (Ok(coins(1)), Ok(coins(3))));
        assert_eq!(peers.counters().given_up, 1);
    });
}

#[test]
fn a_claim_that_is_given_up_before_the_connection_is_there_is_never_made() {
    let (listener, queued) = black_hole();
    let address = listener.local_addr().unwrap();
    run(async move {
        let peers = peers(address, patient());
        drop(peers.claim(OTHER, ticket(1)));
        let second = peers.claim(OTHER, ticket(2));
        drop(queued);
        let _server = Server::on(listener, OTHER, |line| {
            while let Some(asked) = line.next() {
                assert_eq!(asked.validate.unwrap().ticket, Some(ticket(2)));
                line.answer_well(&asked, coins);
            }
        });
        // The kernel knocks again after a second.
        assert_eq!(second.await, Ok(coins(2)));
        assert_eq!(peers.counters().given_up, 1);
    });
}

#[test]
fn a_connection_comes_from_the_address_that_others_know_this_node_by() {
    let server = Server::start(OTHER, None, |line| {
        let from = line.stream.peer_addr().unwrap().ip();
        assert_eq!(from.to_string(), "127.0.0.5");
        line.serve_well(coins);
    });
    let address = server.address;
    run(async move {
        let from = PeerSettings {
            from: Some("127.0.0.5".parse().unwrap()),
            ..patient()
        };
        let answer = peers(address, from).claim(OTHER, ticket(5)).await;
        assert_eq!(answer, Ok(coins(5)));
        // One that cannot reach the server is no reason not to try.
        let elsewhere = PeerSettings {
            from: Some("192.0.2.1".parse().unwrap()),
            ..patient()
        };
        let nobody = Server::start(OTHER, None, |line| line.serve_well(coins));
        let answer = peers(nobody.address, elsewhere)
            .claim(OTHER, ticket(6))
            .await;
        assert_eq!(answer, Ok(coins(6)));
    });
}

/// A real node that holds coins, and believes this server to be at an address of the loopback.
fn real_node(claimant_at: &str) -> RealNode {
    let held: Vec<_> = (coins(20).into_iter())
        .map(|coin| (coin, An::new([7; 16]), Mfs::new(1)))
        .collect();
    RealNode::start(&held, |settings| {
        settings.servers = with_claimant_at(claimant_at);
    })
}

fn with_claimant_at(host: &str) -> Vec<Place> {
    let mut list = servers(([127, 0, 0, 1], 1).into());
    list[usize::from(OWN.get())].host = host.into();
    list
}

/// A ticket for the coins of a real node.
fn issued(node: &RealNode) -> TicketId {
    let address = node.address();
    let options = Options::new(crate::real_node::RAIDA);
    let host = address.ip().to_string();
    let mut client = Connection::open((&host, address.port()), Transport::Tcp, options).unwrap();
    let records = coins(20).into_iter().map(|coin| (coin, An::new([7; 16])));
    let mut payload = Vec::new();
    GetTicket::compose(records, &mut payload);
    client.send(Command::GetTicket, Some(&payload)).unwrap();
    let reply = client.receive().unwrap();
    let answer = TicketAnswer::read(reply.status, &reply.payload, 20).unwrap();
    answer.ticket.expect("all coins pass")
}

/// Claims a ticket of a real node.
fn claim(node: &RealNode, ticket: TicketId, from: &str) -> Result<Vec<Coin>, Lost> {
    let mut list = servers(([127, 0, 0, 1], 1).into());
    list[usize::from(crate::real_node::RAIDA.get())].port = node.address().port();
    let settings = PeerSettings {
        from: Some(from.parse().unwrap()),
        ..patient()
    };
    run(async move {
        let peers = Peers::new(settings, Book::new(list));
        peers.claim(crate::real_node::RAIDA, ticket).await
    })
}

#[test]
fn a_ticket_of_a_real_node_is_claimed_once_in_this_nodes_name() {
    let node = real_node("127.0.0.1");
    let ticket = issued(&node);
    assert_eq!(claim(&node, ticket, "127.0.0.1"), Ok(coins(20)));
    let again = claim(&node, ticket, "127.0.0.1");
    assert_eq!(again, Err(Lost::Refused(Status::TICKET_CLAIMED)));
}

#[test]
fn a_real_node_takes_a_claim_only_from_the_claimants_address_wherever_that_is_now() {
    let node = real_node("127.0.0.9");
    let ticket = issued(&node);
    let refused = Err(Lost::Refused(Status::NO_SUCH_TICKET));
    assert_eq!(claim(&node, ticket, "127.0.0.1"), refused);
    assert_eq!(claim(&node, ticket, "127.0.0.9"), Ok(coins(20)));
    // As on SIGHUP.
    let control = node.node().control();
    control.change_servers(with_claimant_at("127.0.0.1"));
    let ticket = issued(&node);
    assert_eq!(claim(&node, ticket, "127.0.0.9"), refused);
    assert_eq!(claim(&node, ticket, "127.0.0.1"), Ok(coins(20)));
}

#[test]
fn claims_in_flight_are_bounded_for_a_server_and_in_all() {
    let server = Server::start(OTHER, None, Line::stay);
    let address = server.address;
    run(async move {
        for (calls_per_server_max, calls_max) in [(4, 100), (100, 4)] {
            let peers = peers(
                address,
                PeerSettings {
                    calls_per_server_max,
                    calls_max,
                    ..settings()
                },
            );
            let claims: Vec<_> = (1..=4).map(|n| peers.claim(OTHER, ticket(n))).collect();
            let fifth = peers.claim(OTHER, ticket(5)).now_or_never();
            assert_eq!(fifth, Some(Err(Lost::Busy)));
            for lost in join_all(claims).await {
                assert_eq!(lost, Err(Lost::TimedOut));
            }
            // Their places are free again in any case.
            let next = peers.claim(OTHER, ticket(6)).now_or_never();
            assert_eq!(next, Some(Err(Lost::Down)));
        }
    });
}

#[test]
fn bytes_that_nobody_asked_for_end_the_connection() {
    let server = Server::start(OTHER, None, |line| {
        let asked = line.next().unwrap();
        line.answer_well(&asked, coins);
        line.send(&[1; 100]);
        line.stay();
    });
    let address = server.address;
    run(async move {
        let peers = peers(address, patient());
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Ok(coins(5)));
        until("the connection ends", || {
            peers.counters().connections_lost == 1
        })
        .await;
    });
}

#[test]
fn a_connection_that_nobody_uses_is_closed_and_made_again_when_it_is_needed() {
    let server = Server::start(OTHER, None, |line| line.serve_well(coins));
    let address = server.address;
    run(async move {
        let peers = peers(
            address,
            PeerSettings {
                idle_timeout: ms(50),
                ..patient()
            },
        );
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Ok(coins(5)));
        until("idle", || peers.counters().connections_idle == 1).await;
        assert_eq!(peers.claim(OTHER, ticket(6)).await, Ok(coins(6)));
        assert_eq!(peers.counters().connections, 2);
        assert_eq!(peers.counters().down, 0);
    });
}

#[test]
fn a_server_that_closes_after_each_answer_loses_no_vote() {
    let (server, claims) = (
        Server::start(OTHER, None, |line| {
            let asked = line.next().unwrap();
            line.answer_well(&asked, coins);
        }),
        5,
    );
    let address = server.address;
    run(async move {
        let peers = peers(address, patient());
        for number in 1..=claims {
            assert_eq!(peers.claim(OTHER, ticket(number)).await, Ok(coins(number)));
            // Its end arrives after its answer.
            sleep(ms(20)).await;
        }
    });
    assert_eq!(server.connections(), claims as usize);
}

#[test]
fn nothing_is_claimed_from_this_node_itself_or_without_a_list() {
    run(async {
        let none = Peers::new(settings(), Book::new(vec![]));
        let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
        for (peers, raida) in [(none, OTHER), (peers(nobody, settings()), OWN)] {
            let lost = peers.claim(raida, ticket(1)).now_or_never();
            assert_eq!(lost, Some(Err(Lost::NoSuchPeer)));
        }
    });
}

#[test]
fn a_claim_counts_from_every_address_of_the_servers_name_and_from_no_other() {
    run(async {
        let mut list = servers(([127, 0, 0, 1], 1).into());
        list[7].host = "localhost".into();
        list[8].host = "2001:db8::8".into();
        let peers = Peers::new(settings(), Book::new(list.clone()));
        let address = |text: &str| text.parse().unwrap();
        // The name is looked up on another thread.
        until("looked up", || peers.may_claim(OTHER, address("127.0.0.1"))).await;
        assert!(peers.may_claim(OTHER, address("::ffff:127.0.0.1")));
        assert!(!peers.may_claim(OTHER, address("127.0.0.2")));
        let eight = RaidaId::new(8).unwrap();
        assert!(peers.may_claim(eight, address("2001:db8::8")));
        assert!(!peers.may_claim(eight, address("127.0.0.1")));
        assert!(peers.is_address_of(eight, address("2001:db8::8")));

        let anybody = PeerSettings {
            verify_source: false,
            ..settings()
        };
        assert!(Peers::new(anybody, Book::new(list)).may_claim(OTHER, address("192.0.2.1")));
        let no_list = Peers::new(settings(), Book::new(vec![]));
        assert!(no_list.may_claim(OTHER, address("192.0.2.1")));
    });
}

#[test]
fn a_server_is_reached_by_its_name() {
    let server = Server::start(OTHER, None, |line| line.serve_well(coins));
    let address = server.address;
    run(async move {
        let mut list = servers(address);
        list[7].host = "localhost".into();
        // At once: the name is still being looked up.
        let peers = Peers::new(patient(), Book::new(list));
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Ok(coins(5)));
    });
}

#[test]
fn a_name_that_does_not_exist_is_a_server_that_is_down() {
    run(async move {
        let mut list = servers(([127, 0, 0, 1], 1).into());
        list[7].host = "no-such-name.invalid".into();
        let peers = Peers::new(settings(), Book::new(list));
        let start = Instant::now();
        let lost = peers.claim(OTHER, ticket(5)).await;
        assert!(matches!(lost, Err(Lost::Down | Lost::TimedOut)), "{lost:?}");
        assert!(start.elapsed() < ms(400), "{:?}", start.elapsed());
    });
}

#[test]
fn a_server_that_has_moved_is_asked_where_it_is_now() {
    let place = || Server::start(OTHER, None, |line| line.serve_well(coins));
    let (before, after) = (place(), place());
    let (old, new) = (before.address, after.address);
    run(async move {
        let book = Book::new(servers(old));
        let peers = Peers::new(patient(), book.clone());
        assert_eq!(peers.claim(OTHER, ticket(5)).await, Ok(coins(5)));
        book.change(servers(new));
        assert_eq!(peers.claim(OTHER, ticket(6)).await, Ok(coins(6)));
        book.change(vec![]);
        assert_eq!(peers.claim(OTHER, ticket(7)).await, Err(Lost::NoSuchPeer));
        assert_eq!(peers.counters().down, 0);
    });
    assert_eq!((before.connections(), after.connections()), (1, 1));
}
