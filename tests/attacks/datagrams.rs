//! What a stranger can make a node send by datagrams whose source is forged: no answer to an
//! answer, few refusals, and never many times the bytes that were sent.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use raida::{
    admin::ask_counts,
    client::{Client, ClientError, Options, Transport},
    coin::{An, Coin, Mfs, PageId},
    node::Settings,
    protocol::{
        AdminKey, Command, Datagram, Dialect, Frame, Protection, RaidaId, Request, Response,
        ResponseCounter, Rules, Sealing, Status,
        authentication::Detect,
        datagram,
        executive::{AllSns, CreateCoins, SessionId},
        frame,
        healing::{GetTicket, TicketAnswer, Validate},
        lockers::{LockerKey, Peek},
        refuse,
    },
    service::DatagramRules,
};

use crate::real_node::{ADMIN_KEY, COIN_ID, PATIENCE, RAIDA, RealNode, wire::Wire, wire::compose};

const DIALECTS: [Dialect; 2] = [Dialect::Spec, Dialect::Raidax];

fn raida(number: u8) -> RaidaId {
    RaidaId::new(number).expect("a server's number")
}

fn rules(number: u8, dialect: Dialect) -> Rules {
    Rules {
        raida: raida(number),
        coin_id: COIN_ID,
        dialect,
        response_counter: ResponseCounter::Restart,
        max_body_bytes: 1 << 20,
    }
}

fn coin(number: usize) -> Coin {
    PageId::from_index(number * 7 % 15_000)
        .unwrap()
        .coin(number % 1_024)
}

fn an(number: usize) -> An {
    An::new((0x5eed_0000_0000_0000_0000_u128 + number as u128).to_be_bytes())
}

fn locker() -> LockerKey {
    let mut key = [0x41; 16];
    key[12..].fill(0xff);
    LockerKey::new(An::new(key)).expect("it has the mark")
}

fn coins(count: usize) -> Vec<(Coin, An, Mfs)> {
    (0..count)
        .map(|number| (coin(number), an(number), Mfs::new(9)))
        .collect()
}

/// Asks by datagrams from an address of the loopback.
struct Stranger {
    socket: UdpSocket,
}

impl Stranger {
    fn at(last: u8, node: SocketAddr) -> Stranger {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).expect("a socket");
        socket.connect(node).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Stranger { socket }
    }

    /// Sends a datagram that must be answered, and returns the answer.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.socket.send(bytes).expect("the node takes datagrams");
        self.receive()
    }

    /// Sends datagrams that must not be answered: only the echoes that are sent after them get
    /// answers by the time that the echoes have theirs.
    fn assert_silent<'a>(&mut self, to: RaidaId, datagrams: impl IntoIterator<Item = &'a [u8]>) {
        const MARK: [u8; 2] = [0xee, 0x77];
        let mut echo = Vec::new();
        echo_request(to, MARK).compose(&mut echo).expect("an echo");
        let mut datagrams = datagrams.into_iter().peekable();
        while datagrams.peek().is_some() {
            let some: Vec<&[u8]> = datagrams.by_ref().take(100).collect();
            for bytes in &some {
                self.socket.send(bytes).expect("the node takes datagrams");
            }
            // One core receives some, another others: almost certainly each gets an echo.
            for _ in 0..20 {
                let answer = self.ask(&echo);
                let is_mark = answer.len() == 32 && answer[6..8] == MARK;
                assert!(is_mark, "{answer:02x?} answers one of {some:02x?}");
            }
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut answer = vec![0; 65_536];
        let length = self.socket.recv(&mut answer).expect("an answer in time");
        answer.truncate(length);
        answer
    }
}

fn echo_request(to: RaidaId, echo: [u8; 2]) -> Request<'static> {
    Request {
        to,
        coin_id: COIN_ID,
        command: Command::Echo,
        protection: Protection::None,
        echo,
        challenge: [0; 12],
        nonce: [1; 22],
        payload: None,
    }
}

/// Every kind of server answer that can be read as a request: all statuses, groups and types, and
/// bodies of many lengths. The fields that the asker chooses (echo bytes, challenge, key coin, how
/// long the work took) hold values that make a right header.
fn answers(from: RaidaId, dialect: Dialect) -> Vec<Vec<u8>> {
    let rules = rules(from.get(), dialect);
    let (first, second) = (an(1), an(2));
    let mut answers = Vec::new();
    let statuses = (0..=255)
        .map(Status::new)
        .filter(|status| status.name() != "unknown");
    for status in statuses {
        for protection in [
            Protection::None,
            Protection::Coin(coin(1), first),
            Protection::Locker(first),
            // The request that this answer makes has its length where these have their first bytes.
            Protection::CoinHmac(PageId::from_index(8_000).unwrap().coin(0), first),
            Protection::TwoCoinsHmac((coin(1), first), (coin(2), second)),
        ] {
            let key = protection.key();
            for command in [Command::Echo, Command::Peek] {
                let mut request = Vec::new();
                let asked = Request {
                    to: from,
                    coin_id: COIN_ID,
                    command,
                    protection,
                    echo: COIN_ID.to_be_bytes(),
                    challenge: [0; 12],
                    nonce: [0; 22],
                    payload: Some(&[]),
                };
                let sent = asked.compose(&mut request).expect("a short request");
                let end = sent.header.header_size();
                request[end - 2..end].copy_from_slice(&COIN_ID.to_be_bytes());
                let Frame::Whole { header, .. } = frame(&request, &rules) else {
                    panic!("a right request");
                };
                for payload in [0, 4, 8, 16, 32, 75, 435] {
                    for micros in [
                        0,
                        6,
                        0x0001_0006,
                        0x0003_0006,
                        0x0101,
                        0x010a_0006,
                        0x0257_0101,
                    ] {
                        for challenge in [0, 1, 2, 4, 5] {
                            let mut answer = Vec::new();
                            let mut response = Response::begin(&mut answer, &header);
                            response.payload().extend(std::iter::repeat_n(0, payload));
                            let mut challenge_answer = [0; 16];
                            challenge_answer[0] = challenge;
                            challenge_answer[14..].copy_from_slice(&[1, 1]);
                            response.finish(Sealing {
                                rules: &rules,
                                status,
                                key: &key,
                                challenge_answer,
                                execution_micros: micros,
                                nonce: [0; 22],
                            });
                            answers.push(answer);
                        }
                    }
                }
            }
        }
        for header in [&[1; 32][..], &[1; 48]] {
            let mut header = header.to_vec();
            for kind in [0, 4, 9] {
                header[16] = kind;
                let end = header.len();
                for at in [6, 30, end - 2] {
                    header[at..at + 2].copy_from_slice(&COIN_ID.to_be_bytes());
                }
                let mut answer = Vec::new();
                refuse(&mut answer, &header, status, &rules, 0);
                answers.push(answer);
            }
        }
    }
    answers
}

#[test]
fn no_node_answers_what_another_or_itself_can_have_answered() {
    let mut right_headers = HashSet::new();
    for dialect in DIALECTS {
        // From 2 on, the first byte of an answer is no version.
        for from in 0..=2 {
            let answers = answers(raida(from), dialect);
            for to in RaidaId::all() {
                for answer in &answers {
                    let found = datagram(answer, &rules(to.get(), dialect));
                    assert_eq!(
                        found,
                        Datagram::Silence,
                        "{to} answers {from}: {:02x?}",
                        &answer[..48.min(answer.len())]
                    );
                    // Over TCP some of them would be requests: they are not all wrong for another
                    // reason.
                    if let Frame::Whole { header, .. } = frame(answer, &rules(to.get(), dialect)) {
                        right_headers.insert((from, to.get(), header.command.name()));
                    }
                }
            }
        }
    }
    assert!(right_headers.len() > 10, "{right_headers:?}");
}

/// A node with this number and no limit on refusals.
fn node_of(number: u8, dialect: Dialect, shards: u16, coins: &[(Coin, An, Mfs)]) -> RealNode {
    RealNode::start(coins, |settings| {
        settings.rules.raida = raida(number);
        settings.rules.dialect = dialect;
        settings.shards = shards;
        unlimited(settings);
    })
}

fn unlimited(settings: &mut Settings) {
    settings.datagrams.refusals_per_s = 0;
}

#[test]
fn what_real_nodes_answer_is_answered_by_none_of_them() {
    for (dialect, shards) in [(Dialect::Spec, 1), (Dialect::Raidax, 2)] {
        let held = coins(4);
        let mut nodes: Vec<(u8, RealNode)> = [0, 1, 3, 7, 16]
            .map(|number| (number, node_of(number, dialect, shards, &held)))
            .into();
        // The answers that a stranger gets from them: all, over TCP.
        let mut said = Vec::new();
        for (number, node) in &nodes {
            let to = raida(*number);
            for command in Command::all() {
                for protection in [
                    Protection::None,
                    Protection::Coin(held[1].0, held[1].1),
                    Protection::CoinHmac(held[2].0, held[2].1),
                    Protection::CoinHmac(held[2].0, an(999)),
                ] {
                    for payload in [None, Some(&[0; 0][..]), Some(&[0; 21]), Some(&[7; 63])] {
                        for spoilt in [
                            None,
                            Some((2, 5)),
                            (Some((5, 99))),
                            Some((6, 1)),
                            Some((1, 1)),
                        ] {
                            let mut bytes = Vec::new();
                            let asked = Request {
                                to,
                                command,
                                protection,
                                payload,
                                ..echo_request(to, COIN_ID.to_be_bytes())
                            };
                            asked.compose(&mut bytes).expect("a short request");
                            if let Some((at, value)) = spoilt {
                                bytes[at] = value;
                            }
                            said.push((*number, bytes));
                        }
                    }
                }
            }
            // One after the other on one connection.
            let mut wire = Wire::tcp(node.address());
            for (of, bytes) in &mut said {
                if of != number {
                    continue;
                }
                wire.send(bytes);
                *bytes = one_answer(&mut wire, bytes[16] >= 4);
            }
        }
        let distinct: HashSet<Vec<u8>> = said.into_iter().map(|(_, bytes)| bytes).collect();
        assert!(distinct.len() > 100, "{}", distinct.len());
        for (number, node) in &nodes {
            let mut stranger = Stranger::at(1, node.address());
            stranger.assert_silent(raida(*number), distinct.iter().map(Vec::as_slice));
        }
        nodes.iter_mut().for_each(|(_, node)| node.stop());
    }
}

fn one_answer(wire: &mut Wire, is_verified: bool) -> Vec<u8> {
    use std::io::Read;
    let Wire::Tcp(stream) = wire else {
        unreachable!("a stream");
    };
    let mut answer = vec![0; if is_verified { 48 } else { 32 }];
    stream.read_exact(&mut answer).expect("an answer in time");
    let body = u32::from_be_bytes([0, answer[9], answer[10], answer[11]]) as usize;
    let header = answer.len();
    answer.resize(header + body, 0);
    stream
        .read_exact(&mut answer[header..])
        .expect("a whole body");
    answer
}

#[test]
fn a_short_datagram_is_answered_only_where_it_is_a_right_echo_version_or_audit() {
    for (dialect, shards) in [(Dialect::Spec, 2), (Dialect::Raidax, 1)] {
        let held = coins(2);
        let mut node = node_of(14, dialect, shards, &held);
        let mut stranger = Stranger::at(1, node.address());
        let right = Protection::CoinHmac(held[0].0, held[0].1);
        for command in [Command::Echo, Command::Version, Command::Audit] {
            for protection in [Protection::None, right] {
                let bare = compose(command, protection, None, 5).bytes;
                assert_eq!(stranger.ask(&bare)[2], Status::SUCCESS.code());
                // As many faults as possible.
                let wrong: Vec<Vec<u8>> = [0, 1, 2, 3, 4, 5, 6, 16]
                    .map(|at| {
                        let mut wrong = bare.clone();
                        wrong[at] = 0x77;
                        wrong
                    })
                    .into();
                stranger.assert_silent(RAIDA, wrong.iter().map(Vec::as_slice));
                stranger.assert_silent(RAIDA, (0..bare.len()).map(|length| &bare[..length]));
            }
            let unknown = Protection::CoinHmac(coin(700), an(700));
            let bare = compose(command, unknown, None, 5).bytes;
            stranger.assert_silent(RAIDA, [&bare[..]]);
        }
        for command in Command::all() {
            for protection in [
                Protection::None,
                right,
                Protection::Coin(held[0].0, held[0].1),
            ] {
                let whole = compose(command, protection, Some(&[0; 64]), 5).bytes;
                let short = [32, 33, 48, 49].map(|length| &whole[..length]);
                stranger.assert_silent(RAIDA, short);
                assert_eq!(stranger.ask(&whole[..50])[2], Status::INVALID_LENGTH.code());
            }
        }
        // Only over TCP is a wrong version answered.
        let mut other = compose(Command::Detect, Protection::None, Some(&[0; 21]), 5).bytes;
        other[0] = 9;
        stranger.assert_silent(RAIDA, [&other[..]]);
        let mut wire = Wire::tcp(node.address());
        wire.send(&other);
        assert_eq!(wire.receive_all()[2], Status::UNKNOWN_VERSION.code());
        node.stop();
    }
}

/// Datagrams that are refused, each for another reason and by another part of the node. Changing
/// requests differ from round to round: a duplicate gets no answer while the first is under way.
fn refused(held: &[(Coin, An, Mfs)], round: u8) -> Vec<Vec<u8>> {
    let mut wrong_raida = compose(Command::Detect, Protection::None, Some(&[0; 21]), 5).bytes;
    wrong_raida[2] = 3;
    let mut cut = compose(Command::Detect, Protection::None, Some(&[0; 42]), 5).bytes;
    cut.pop();
    let mut spoilt = compose(Command::Detect, Protection::None, Some(&[0; 42]), 5).bytes;
    spoilt[40] ^= 1;
    let unknown_key = Protection::Coin(coin(700), an(700));
    let wrong_key = Protection::CoinHmac(held[0].0, an(700));
    let mut create = Vec::new();
    let key = AdminKey::new([7; 16]);
    CreateCoins::compose(SessionId::new(round.into()), &key, [coin(3)], &mut create);
    let mut fix = [0x7f; 200];
    fix[199] = round;
    let whole =
        |command, protection, payload: &[u8]| compose(command, protection, Some(payload), 5).bytes;
    vec![
        wrong_raida,
        cut,
        spoilt,
        whole(Command::Detect, Protection::None, &[0; 5]),
        whole(Command::Pown, unknown_key, &[0; 37]),
        whole(Command::Detect, wrong_key, &[0; 21]),
        whole(Command::CreateCoins, Protection::None, &create),
        whole(Command::GetTicket, Protection::None, &[0x7f; 21]),
        whole(Command::Fix, Protection::None, &fix),
    ]
}

#[test]
fn refusals_over_udp_are_few_a_second_for_an_address_and_for_all() {
    const PER_S: u32 = 20;
    for (dialect, shards) in [(Dialect::Spec, 1), (Dialect::Raidax, 2)] {
        let held = coins(4);
        let mut node = RealNode::start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.datagrams.refusals_per_s = PER_S;
        });
        let mut payload = Vec::new();
        Detect::compose([(held[0].0, held[0].1)], &mut payload);
        let right = compose(Command::Detect, Protection::None, Some(&payload), 0xabcd).bytes;
        let start = Instant::now();
        let refusals_of = |last: u8, rounds: usize| {
            let stranger = Stranger::at(last, node.address());
            for round in 0..rounds {
                refused(&held, 30 * last + round as u8)
                    .iter()
                    .for_each(|bytes| {
                        stranger.socket.send(bytes).unwrap();
                    });
                // A right request is answered, and no later than usual.
                stranger.socket.send(&right).unwrap();
            }
            let (mut refusals, mut answers) = (0, 0);
            stranger
                .socket
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let mut answer = [0; 2_048];
            while let Ok(length) = stranger.socket.recv(&mut answer) {
                assert!(length <= 48);
                match answer[2] == Status::ALL_PASS.code() {
                    true => answers += 1,
                    false => refusals += 1,
                }
            }
            assert_eq!(answers, rounds);
            refusals
        };
        let one = refusals_of(1, 30);
        let seconds = start.elapsed().as_secs_f64();
        let most = f64::from(PER_S * u32::from(shards)) * (1.0 + seconds);
        assert!(
            one > 0 && f64::from(one) <= most,
            "{one} refusals in {seconds} s"
        );
        // Another address has its own refusals, until the share of all together is used up.
        assert!(refusals_of(2, 3) > 0);
        let all: u32 = (3..6).map(|last| refusals_of(last, 3)).sum();
        assert!(all > 0);
        let counts = ask_counts(&node.settings().data).unwrap().datagrams;
        assert!(counts.refusals_unsent >= u64::from(9 * 30 - one));
        node.stop();
    }
}

#[test]
fn forged_sources_are_sent_few_refusals_all_together() {
    const PER_S: u32 = 5;
    let held = coins(4);
    let mut node = RealNode::start(&held, |settings| settings.datagrams.refusals_per_s = PER_S);
    let refused = refused(&held, 0);
    let start = Instant::now();
    let strangers: Vec<Stranger> = (1..=250)
        .map(|last| Stranger::at(last, node.address()))
        .collect();
    for stranger in &strangers {
        for bytes in &refused {
            stranger.socket.send(bytes).unwrap();
        }
    }
    // Answered after all of those before.
    let mut last = Stranger::at(251, node.address());
    let echo = compose(Command::Echo, Protection::None, None, 5).bytes;
    last.socket.send(&echo).unwrap();
    last.receive();
    std::thread::sleep(Duration::from_millis(100));
    let seconds = start.elapsed().as_secs_f64();
    let mut refusals = 0;
    for stranger in &strangers {
        stranger.socket.set_nonblocking(true).unwrap();
        let mut answer = [0; 2_048];
        while stranger.socket.recv(&mut answer).is_ok() {
            refusals += 1;
        }
    }
    let most = f64::from(PER_S) * 10.0 * (1.0 + seconds);
    assert!(
        refusals > 0 && f64::from(refusals) <= most,
        "{refusals} in {seconds} s"
    );
    node.stop();
}

/// A node with a locker of this many coins.
fn with_locker(count: usize, times: usize, dialect: Dialect, shards: u16) -> RealNode {
    let an = locker().an();
    let mut held = coins(60);
    held.extend((100..100 + count).map(|number| (coin(number), an, Mfs::new(9))));
    RealNode::start(&held, |settings| {
        settings.rules.dialect = dialect;
        settings.shards = shards;
        settings.datagrams = DatagramRules {
            amplification: times,
            refusals_per_s: 0,
        };
    })
}

#[test]
fn an_answer_is_at_most_so_many_times_its_datagram_and_no_byte_more() {
    for (dialect, times, shards) in [
        (Dialect::Spec, 3, 1),
        (Dialect::Spec, 3, 2),
        (Dialect::Raidax, 10, 2),
    ] {
        let mut payload = Vec::new();
        Peek::compose(locker(), &mut payload);
        let key = (coin(1), an(1));
        for (protection, around) in [
            (Protection::None, 32 + 2),
            (Protection::Coin(key.0, key.1), 32 + 2),
            (Protection::CoinHmac(key.0, key.1), 48 + 34),
        ] {
            let asked = compose(Command::Peek, protection, Some(&payload), 5);
            let fits = (times * asked.bytes.len() - around) / Coin::SIZE;
            for count in [fits, fits + 1] {
                let mut node = with_locker(count, times, dialect, shards);
                let mut wire = Wire::udp(node.address());
                let answer = wire.ask(&asked, ResponseCounter::Restart);
                let expected = match count <= fits {
                    true => Status::ALL_PASS,
                    false => Status::ASK_OVER_TCP,
                };
                assert_eq!(answer.status, expected, "{count} of {fits} coins");
                let over_tcp = Wire::tcp(node.address()).ask(&asked, ResponseCounter::Restart);
                assert_eq!(over_tcp.status, Status::ALL_PASS);
                assert_eq!(over_tcp.payload.len(), Coin::SIZE * count);
                // A longer datagram may get a longer answer.
                let mut longer = asked.bytes.clone();
                longer.resize(asked.bytes.len() + 2, 0);
                wire.send(&longer);
                let answer = wire.answer(&asked.sent, ResponseCounter::Restart);
                assert_eq!(answer.status, Status::ALL_PASS);
                let counts = ask_counts(&node.settings().data).unwrap().datagrams;
                assert_eq!(counts.answers_too_long, u64::from(count > fits));
                node.stop();
            }
        }
    }
}

#[test]
fn a_bare_audit_is_refused_where_it_is_too_short_and_is_told_so() {
    for (dialect, times, status) in [
        (Dialect::Spec, 3, Status::ASK_OVER_TCP),
        (Dialect::Raidax, 10, Status::SUCCESS),
    ] {
        let mut node = with_locker(1, times, dialect, 1);
        let bare = compose(Command::Audit, Protection::None, None, 5);
        let mut wire = Wire::udp(node.address());
        assert_eq!(wire.ask(&bare, ResponseCounter::Restart).status, status);
        let whole = compose(Command::Audit, Protection::None, Some(&[]), 5);
        assert_eq!(
            wire.ask(&whole, ResponseCounter::Restart).status,
            Status::SUCCESS
        );
        node.stop();
    }
}

/// A client that is told to ask over TCP has lost nothing.
#[test]
fn what_is_refused_for_the_length_of_its_answer_has_changed_nothing() {
    for (dialect, times, shards) in [(Dialect::Spec, 3, 2), (Dialect::Raidax, 10, 1)] {
        let mut node = with_locker(0, times, dialect, shards);
        let (mut udp, mut tcp) = (Wire::udp(node.address()), Wire::tcp(node.address()));
        let counter = ResponseCounter::Restart;
        // A claim of a ticket for 60 coins: 23 bytes of body for 300 coins' bytes and more.
        let mut payload = Vec::new();
        let held = coins(60);
        let mine = held.iter().map(|&(coin, an, _)| (coin, an));
        GetTicket::compose(mine, &mut payload);
        let asked = compose(Command::GetTicket, Protection::None, Some(&payload), 1);
        let answer = tcp.ask(&asked, counter);
        let ticket = TicketAnswer::read(answer.status, &answer.payload, 60);
        let ticket = ticket.unwrap().ticket.unwrap();
        let mut claim = Vec::new();
        Validate::compose(raida(3), ticket, &mut claim);
        let claim = compose(Command::Validate, Protection::None, Some(&claim), 2);
        let over_udp = udp.ask(&claim, counter).status;
        let is_too_long = 32 + 2 + 60 * Coin::SIZE > times * claim.bytes.len();
        if is_too_long {
            assert_eq!(over_udp, Status::ASK_OVER_TCP);
            let over_tcp = tcp.ask(&claim, counter);
            assert_eq!(over_tcp.status, Status::SUCCESS);
            assert_eq!(over_tcp.payload.len(), 60 * Coin::SIZE);
        } else {
            assert_eq!(over_udp, Status::SUCCESS);
        }
        // Coins that would be created and whose numbers would be lost.
        let key = AdminKey::new(ADMIN_KEY);
        let session = SessionId::new(9);
        let options = Options::new(RAIDA);
        let host = ("127.0.0.1", node.address().port());
        let mut client = Client::connect(host, Transport::Tcp, options).unwrap();
        let free = client
            .available_sns(session, &key, &[coin(0).denomination])
            .unwrap();
        let mut create = Vec::new();
        CreateCoins::compose(session, &key, free.iter().copied().take(500), &mut create);
        let create = compose(Command::CreateCoins, Protection::None, Some(&create), 3);
        let status = match times {
            3 => Status::ASK_OVER_TCP,
            _ => Status::SUCCESS,
        };
        assert_eq!(udp.ask(&create, counter).status, status);
        // As a first request, or as a repeat that was answered just now.
        let created = tcp.ask(&create, counter);
        assert_eq!(created.status, Status::SUCCESS);
        assert_eq!(created.payload.len(), 500 * An::SIZE);
        assert_eq!(tcp.ask(&create, counter).payload, created.payload);
        let mut all = Vec::new();
        AllSns::compose(&key, coin(0).denomination, &mut all);
        let all = compose(Command::AllSns, Protection::None, Some(&all), 4);
        assert_eq!(udp.ask(&all, counter).status, Status::ASK_OVER_TCP);
        node.stop();
    }
}

#[test]
fn the_client_asks_over_tcp_what_it_is_refused_over_udp() {
    let mut node = with_locker(1_000, 3, Dialect::Spec, 2);
    let host = ("127.0.0.1", node.address().port());
    let mut options = Options::new(RAIDA);
    options.timeout = PATIENCE;
    let mut client = Client::connect(host, Transport::Udp, options).unwrap();
    for _ in 0..2 {
        let listed = client.peek(locker()).unwrap();
        assert_eq!(listed.len(), 1_000);
    }
    // A stranger is still spoken to over UDP.
    assert_eq!(client.connection().transport(), Transport::Udp);
    assert!(client.audit().is_ok());
    let refused = client
        .connection()
        .send(Command::Peek, Some(locker().an().expose()));
    refused.unwrap();
    let refused = client.connection().receive().unwrap().status;
    assert!(refused.to_string().starts_with("ask over TCP"), "{refused}");
    let error = ClientError::Refused("host".into(), refused);
    assert!(!error.leaves_doubt());
    node.stop();
}

/// The header of a request of types 4 and 5 is not that of an answer, whatever its length.
#[test]
fn requests_of_all_types_are_never_taken_for_answers() {
    for number in 0..25 {
        for dialect in DIALECTS {
            for command in Command::all() {
                for protection in [
                    Protection::None,
                    Protection::Coin(coin(1), an(1)),
                    Protection::Locker(an(1)),
                    Protection::CoinHmac(coin(1), an(1)),
                    Protection::TwoCoinsHmac((coin(1), an(1)), (coin(2), an(2))),
                ] {
                    for payload in [None, Some(0), Some(1), Some(21), Some(1_000)] {
                        let is_bare = payload.is_none();
                        let payload = payload.map(|length| vec![0; length]);
                        let mut bytes = Vec::new();
                        let asked = Request {
                            command,
                            protection,
                            payload: payload.as_deref(),
                            nonce: [0; 22],
                            ..echo_request(raida(number), [0, 0])
                        };
                        asked.compose(&mut bytes).unwrap();
                        let found = datagram(&bytes, &rules(number, dialect));
                        let is_whole = matches!(found, Datagram::Whole { .. });
                        assert_eq!(is_whole, !is_bare || command.takes_no_body());
                    }
                }
            }
        }
    }
}
