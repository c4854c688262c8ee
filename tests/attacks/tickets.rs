//! What one stranger can take of a node's tickets, and what it can find out about those of others.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use raida::{
    admin::{Counts, ask_counts},
    coin::{An, Coin, Mfs, PageId},
    node::Settings,
    peer::Server,
    protocol::{
        Command, Dialect, Protection, RaidaId, ResponseCounter, Status,
        healing::{GetTicket, TicketAnswer, TicketId, Validate, in_dialect},
    },
    service::Rate,
    shard::TicketSettings,
};

use socket2::{Domain, Socket, Type};

use crate::real_node::{PATIENCE, RAIDA, RealNode, plain, wire::Answer, wire::Wire, wire::compose};

const BOTH: [(Dialect, u16); 2] = [(Dialect::Spec, 1), (Dialect::Raidax, 2)];

fn raida(number: u8) -> RaidaId {
    RaidaId::new(number).expect("a server's number")
}

fn coins(count: usize) -> Vec<(Coin, An)> {
    let coin = |number: usize| {
        PageId::from_index(number * 7 % 15_000)
            .unwrap()
            .coin(number % 1_024)
    };
    let an =
        |number: usize| An::new((0x5eed_0000_0000_0000_0000_u128 + number as u128).to_be_bytes());
    (0..count)
        .map(|number| (coin(number), an(number)))
        .collect()
}

fn start(coins: &[(Coin, An)], change: impl FnOnce(&mut Settings)) -> RealNode {
    let held: Vec<_> = coins
        .iter()
        .map(|&(coin, an)| (coin, an, Mfs::new(9)))
        .collect();
    RealNode::start(&held, change)
}

fn counts(node: &RealNode) -> Counts {
    ask_counts(&node.settings().data).expect("the node counts")
}

/// Somebody at an address of the loopback, who asks for tickets by datagrams.
struct Stranger {
    wire: Wire,
    dialect: Dialect,
    asked: u64,
}

impl Stranger {
    fn at(last: u8, node: &RealNode) -> Stranger {
        Stranger {
            wire: udp_from(last, node.address()),
            dialect: node.settings().rules.dialect,
            asked: 0,
        }
    }

    fn ask(&mut self, command: Command, payload: &[u8]) -> Answer {
        self.asked += 1;
        let asked = compose(command, Protection::None, Some(payload), self.asked);
        self.wire.ask(&asked, ResponseCounter::Restart)
    }

    /// The status that the node gives for these coins, and the ticket.
    fn ticket(&mut self, coins: &[(Coin, An)]) -> (Status, Option<TicketId>) {
        let mut payload = Vec::new();
        GetTicket::compose(coins.iter().copied(), &mut payload);
        let answer = self.ask(Command::GetTicket, &payload);
        let read = TicketAnswer::read(answer.status, &answer.payload, coins.len());
        (answer.status, read.and_then(|read| read.ticket))
    }

    fn no_slot(&self) -> Status {
        in_dialect(Status::NO_TICKET_SLOT, self.dialect)
    }

    /// Asks for tickets for these coins until there are no more: how many it gets.
    fn take_all(&mut self, coins: &[(Coin, An)], most: usize) -> usize {
        for taken in 0..most {
            let (status, ticket) = self.ticket(coins);
            if ticket.is_none() {
                assert_eq!(status, self.no_slot());
                return taken;
            }
        }
        panic!("{most} tickets and no end");
    }
}

fn udp_from(last: u8, node: SocketAddr) -> Wire {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).expect("a socket");
    socket.connect(node).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    Wire::Udp(socket)
}

pub(crate) fn tcp_from(last: u8, node: SocketAddr) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&address.into()).expect("an address");
    socket.connect(&node.into()).expect("a connection");
    Wire::Tcp(socket.into())
}

fn claim(wire: &mut Wire, claimant: u8, ticket: u32, unique: u64) -> Answer {
    let mut payload = vec![claimant];
    payload.extend(ticket.to_be_bytes());
    let asked = compose(Command::Validate, Protection::None, Some(&payload), unique);
    wire.ask(&asked, ResponseCounter::Restart)
}

#[test]
fn a_ticket_names_a_coin_once_however_often_it_is_asked_for() {
    for (dialect, shards) in BOTH {
        let held = coins(4);
        let mut node = start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.datagrams.amplification = 1_000;
        });
        let mut stranger = Stranger::at(1, &node);
        // Four coins in turn, and a wrong number of the first now and then: the answer's bits are
        // as many as the request's records.
        let wrong = (held[0].0, An::new([9; 16]));
        let asked: Vec<(Coin, An)> = (0..3_000)
            .map(|record| match record % 10 {
                9 => wrong,
                _ => held[record % 4],
            })
            .collect();
        let mut payload = Vec::new();
        GetTicket::compose(asked.iter().copied(), &mut payload);
        let answer = stranger.ask(Command::GetTicket, &payload);
        assert_eq!(answer.status, Status::MIXED);
        let read = TicketAnswer::read(answer.status, &answer.payload, asked.len()).unwrap();
        for record in 0..asked.len() {
            assert_eq!(read.passed.passed(record), record % 10 != 9);
        }
        let ticket = read.ticket.unwrap();
        let mut wire = Wire::tcp(node.address());
        let claimed = claim(&mut wire, 3, ticket.get(), 1);
        assert_eq!(claimed.status, Status::SUCCESS);
        let listed: Vec<Coin> = Validate::read(&claimed.payload).unwrap().iter().collect();
        // In the order of their first mention.
        assert_eq!(
            listed,
            held.iter().map(|(coin, _)| *coin).collect::<Vec<_>>()
        );
        node.stop();
    }
}

/// Addresses share 4,096 accounts, which the node draws: about one new address in a hundred shares
/// an account with one that has its share already. This many of a few addresses may; more do once
/// in 100,000 runs.
const SHARERS: usize = 3;

#[test]
fn one_address_has_a_share_of_the_tickets_and_others_the_rest() {
    const POOL: usize = 1_024;
    for (dialect, shards) in BOTH {
        let held = coins(3_000);
        let mut node = start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.tickets = TicketSettings {
                pool: POOL,
                lifetime: Duration::from_secs(3_600),
                shares: 8,
                per_coin: 0,
            };
        });
        let shards = usize::from(shards);
        // One coin each: as many as an eighth of the pool's tickets, on the shard that has the
        // coin.
        let mut first = Stranger::at(1, &node);
        let on_shard = |shard: usize| {
            let owned = held.iter().filter(move |(coin, _)| {
                let page = coin.page();
                (page.number() as usize + page.denomination().index()) % shards == shard
            });
            owned.copied().collect::<Vec<_>>()
        };
        for shard in 0..shards {
            let one = [on_shard(shard)[0]];
            assert_eq!(first.take_all(&one, POOL), POOL / 8);
        }
        // A ticket that names the same coin thousands of times is no longer than one that names it
        // once; a ticket of many coins is.
        let mut second = Stranger::at(2, &node);
        assert_eq!(
            second.take_all(&vec![on_shard(0)[0]; 3_000], POOL),
            POOL / 8
        );
        let mut third = Stranger::at(3, &node);
        let long = &on_shard(0)[..1_000];
        assert_eq!(third.take_all(long, POOL), POOL * 64 / 8 / 1_000);
        // An honest client that comes now gets what it needs.
        let healing = counts(&node).healing;
        assert_eq!(healing.tickets_refused, 0);
        assert_eq!(healing.tickets_refused_share, shards as u64 + 2);
        let gets_it =
            |coins: &[(Coin, An)], last: u8| Stranger::at(last, &node).ticket(coins).1.is_some();
        let long = (4..8).filter(|&last| gets_it(long, last)).count();
        let short = (8..16)
            .filter(|&last| gets_it(&on_shard(0)[..1], last))
            .count();
        assert!(long + short + SHARERS >= 12, "{long} of 4, {short} of 8");
        node.stop();
    }
}

#[test]
fn twenty_addresses_that_take_what_they_can_leave_tickets_for_who_comes_then() {
    const POOL: usize = 1_024;
    for (dialect, shards) in BOTH {
        let held = coins(200);
        let mut node = start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.tickets = TicketSettings {
                pool: POOL,
                lifetime: Duration::from_secs(3_600),
                shares: 8,
                per_coin: 0,
            };
        });
        let mut taken = 0;
        for last in 1..=20 {
            let mut stranger = Stranger::at(last, &node);
            for coin in &held[..usize::from(shards)] {
                taken += stranger.take_all(&[*coin], POOL);
            }
        }
        assert!(taken > usize::from(shards) * POOL / 3, "{taken}");
        // Each of them for itself, several tickets, and one of many coins.
        let gets_all = |&last: &u8| {
            let mut honest = Stranger::at(last, &node);
            let mut ones = held[..usize::from(shards)].iter();
            ones.all(|coin| honest.ticket(&[*coin]).1.is_some()) && honest.ticket(&held).1.is_some()
        };
        let served = (21..=30).filter(gets_all).count();
        assert!(served + SHARERS >= 10, "{served} of 10");
        assert_eq!(counts(&node).healing.tickets_refused, 0);
        node.stop();
    }
}

/// Twenty-five nodes of defaults have one client that heals 3,000 coins on 11 servers, while
/// strangers take what they can.
#[test]
fn many_addresses_do_not_fill_the_pool_with_one_coin() {
    const POOL: usize = 1_024;
    const OF_A_COIN: usize = 24;
    for (dialect, shards) in BOTH {
        let held = coins(100);
        let mut node = start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.tickets = TicketSettings {
                pool: POOL,
                lifetime: Duration::from_secs(3_600),
                shares: 8,
                per_coin: OF_A_COIN as u16,
            };
        });
        let taken: usize = (1..33)
            .map(|last| Stranger::at(last, &node).take_all(&held[..1], POOL))
            .sum();
        assert_eq!(taken, OF_A_COIN);
        // Listing the coin among others does not get around the limit.
        let mut other = Stranger::at(40, &node);
        assert_eq!(other.take_all(&held[..3], POOL), 0);
        // A client with other coins does not notice, though the whole pool has no room for this
        // coin's tickets.
        assert_eq!(other.take_all(&held[1..], POOL), OF_A_COIN);
        let healing = counts(&node).healing;
        assert_eq!(
            (healing.tickets_refused, healing.tickets_refused_coin),
            (0, 34)
        );
        // Tickets of a former owner take nothing from the present owner.
        let (coin, an) = held[0];
        let new = an ^ An::new((1_u128 << 64).to_be_bytes());
        let powned = plain::Client::tcp(&node).pown(&[(coin, an, new)]);
        assert_eq!(powned, Status::ALL_PASS);
        assert_eq!(
            Stranger::at(41, &node).take_all(&[(coin, new)], POOL),
            OF_A_COIN
        );
        node.stop();
    }
}

/// Datagrams may bear any address. They take nothing from the client that has the address.
#[test]
fn forged_datagrams_take_neither_tickets_nor_requests_from_who_connects_from_the_address() {
    const POOL: usize = 1_024;
    for (dialect, shards) in BOTH {
        let all = coins(POOL);
        let mut node = start(&all, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.healing_rate = Rate {
                per_s: 1,
                burst: 400,
            };
            settings.datagrams.refusals_per_s = 0;
            settings.tickets = TicketSettings {
                pool: POOL,
                lifetime: Duration::from_secs(3_600),
                shares: 8,
                per_coin: 128,
            };
        });
        // From the address that the honest client has, all that one address may have, and more.
        let mut forged = Stranger::at(9, &node);
        let mut statuses = Vec::new();
        for number in 0..800 {
            let coin = all[number % all.len()];
            statuses.push(forged.ticket(&[coin]).0);
        }
        assert!(statuses.contains(&forged.no_slot()));
        assert!(statuses.contains(&Status::TOO_MANY_REQUESTS));
        let mut honest = Stranger {
            wire: tcp_from(9, node.address()),
            dialect,
            asked: 1_000,
        };
        for coin in &all[..100] {
            assert_eq!(honest.ticket(&[*coin]).0, Status::ALL_PASS);
        }
        node.stop();
    }
}

#[test]
fn a_heal_of_3_000_coins_on_11_servers_gets_its_tickets_while_strangers_take_theirs() {
    for (dialect, shards) in BOTH {
        let all = coins(6_000);
        let (held, theirs) = all.split_at(3_000);
        let mut node = start(&all, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.datagrams.amplification = 1_000;
            settings.healing_rate = Rate {
                per_s: 10,
                burst: 2_000,
            };
        });
        let mut strangers: Vec<Stranger> = (2..6).map(|last| Stranger::at(last, &node)).collect();
        let mut honest = Stranger::at(1, &node);
        let mut tickets = Vec::new();
        for _ in 0..11 {
            let (status, ticket) = honest.ticket(held);
            assert_eq!(status, Status::ALL_PASS);
            tickets.push(ticket.unwrap());
            for stranger in &mut strangers {
                for _ in 0..8 {
                    stranger.ticket(theirs);
                }
            }
        }
        let mut wire = Wire::tcp(node.address());
        for (claimant, ticket) in (0..).zip(tickets) {
            let claimed = claim(&mut wire, claimant, ticket.get(), 9);
            assert_eq!(claimed.status, Status::SUCCESS);
            assert_eq!(claimed.payload.len(), 3_000 * Coin::SIZE);
        }
        assert!(counts(&node).healing.too_many_requests > 0, "the strangers");
        node.stop();
    }
}

#[test]
fn a_ticket_costs_as_many_requests_as_it_takes_room() {
    for (dialect, shards) in BOTH {
        let held = coins(3_000);
        let mut node = start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.healing_rate = Rate {
                per_s: 1,
                burst: 100,
            };
        });
        // 47 requests' worth each; what one core allows it may on another too.
        let mut long = Stranger::at(1, &node);
        let statuses = (0..20).map(|_| long.ticket(&held).0);
        let passed = statuses
            .filter(|status| *status == Status::ALL_PASS)
            .count();
        assert!(
            (3..=4 * usize::from(shards)).contains(&passed),
            "{passed} of 20"
        );
        let mut short = Stranger::at(2, &node);
        let statuses = (0..100).map(|_| short.ticket(&held[..1]).0);
        assert_eq!(
            statuses
                .filter(|status| *status == Status::ALL_PASS)
                .count(),
            100
        );
        node.stop();
    }
}

/// A list of servers which all live where the tests do.
fn servers() -> Vec<Server> {
    let server = |number: u16| Server {
        host: "127.0.0.1".to_owned(),
        port: 40_000 + number,
    };
    (0..25).map(server).collect()
}

#[test]
fn a_node_that_knows_the_others_takes_no_claims_over_udp() {
    for (dialect, shards) in BOTH {
        for verify_source in [true, false] {
            let held = coins(3);
            let mut node = start(&held, |settings| {
                settings.rules.dialect = dialect;
                settings.shards = shards;
                settings.servers = servers();
                settings.peers.verify_source = verify_source;
            });
            let ticket = Stranger::at(1, &node).ticket(&held).1.unwrap().get();
            let mut udp = Wire::udp(node.address());
            for claimant in 0..25 {
                let refused = claim(&mut udp, claimant, ticket, u64::from(claimant));
                assert_eq!(refused.status, Status::UNKNOWN_ENCRYPTION);
            }
            assert_eq!(counts(&node).healing.claims_over_udp, 25);
            // None of it is used up.
            let mut tcp = Wire::tcp(node.address());
            for claimant in 0..25 {
                let claimed = claim(&mut tcp, claimant, ticket, 1);
                assert_eq!(claimed.status, Status::SUCCESS);
            }
            node.restart(|settings| settings.servers.clear());
            let ticket = Stranger::at(1, &node).ticket(&held).1.unwrap().get();
            let mut udp = Wire::udp(node.address());
            assert_eq!(claim(&mut udp, 3, ticket, 1).status, Status::SUCCESS);
            node.stop();
        }
    }
}

#[test]
fn tickets_cannot_be_guessed_in_the_name_of_a_server_and_its_own_claims_are_answered() {
    const WRONG: u32 = 40;
    for (dialect, shards) in BOTH {
        let held = coins(3);
        let mut node = start(&held, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.servers = servers();
            settings.wrong_claims_per_min = WRONG;
        });
        let mut stranger = Stranger::at(1, &node);
        let none = in_dialect(Status::NO_SUCH_TICKET, dialect);
        // Right claims do not count, whatever shard has the ticket, nor do those that were made
        // before.
        let mut honest = Wire::tcp(node.address());
        for _ in 0..2 * WRONG {
            let ticket = stranger.ticket(&held).1.unwrap().get();
            assert_eq!(claim(&mut honest, 7, ticket, 1).status, Status::SUCCESS);
            let again = claim(&mut honest, 7, ticket, 1).status;
            assert_eq!(again, in_dialect(Status::TICKET_CLAIMED, dialect));
        }
        // Many connections, so that every core is asked; pipelined, so that many are looked at at
        // once.
        let mut guessers: Vec<Wire> = (0..8).map(|_| Wire::tcp(node.address())).collect();
        let (mut wrong, mut refused) = (0, 0);
        for round in 0..40_u32 {
            for (number, guesser) in (0..).zip(&mut guessers) {
                let guess = 0x1000_0001 + 16 * round + 1_000 * number;
                match claim(guesser, 7, guess, 1).status {
                    Status::TOO_MANY_REQUESTS => refused += 1,
                    status => {
                        assert_eq!(status, none);
                        wrong += 1;
                    }
                }
            }
        }
        let most = WRONG * u32::from(shards) * 2;
        assert!(
            wrong >= WRONG && wrong <= most,
            "{wrong} guesses were looked at"
        );
        assert!(refused >= 320 - most);
        // Claims in the names of others still work, from the same address and on the same
        // connections.
        let ticket = stranger.ticket(&held).1.unwrap().get();
        for guesser in &mut guessers {
            let claimant = (0..25).find(|number| *number != 7).unwrap();
            let status = claim(guesser, claimant, ticket, 1).status;
            let again = in_dialect(Status::TICKET_CLAIMED, dialect);
            assert!([Status::SUCCESS, again].contains(&status), "{status}");
        }
        let healing = counts(&node).healing;
        assert_eq!(healing.claims_not_looked_at, u64::from(refused));
        assert_eq!(healing.claims_unknown, u64::from(wrong));
        node.stop();
    }
}

/// What is answered at the end of a pipe of guesses.
#[test]
fn guesses_under_way_at_the_same_time_are_counted_before_they_are_looked_at() {
    const WRONG: u32 = 10;
    let held = coins(3);
    let mut node = start(&held, |settings| {
        settings.shards = 2;
        settings.servers = servers();
        settings.wrong_claims_per_min = WRONG;
    });
    let mut wire = Wire::tcp(node.address());
    let mut asked = Vec::new();
    for guess in 0..200_u32 {
        let mut payload = vec![7];
        payload.extend((0x1000_0001 + guess).to_be_bytes());
        let claim = compose(
            Command::Validate,
            Protection::None,
            Some(&payload),
            guess.into(),
        );
        asked.push(claim);
    }
    let bytes: Vec<u8> = asked.iter().flat_map(|claim| claim.bytes.clone()).collect();
    wire.send(&bytes);
    let statuses = asked
        .iter()
        .map(|claim| wire.answer(&claim.sent, ResponseCounter::Restart).status);
    let refused = statuses
        .filter(|status| *status == Status::TOO_MANY_REQUESTS)
        .count();
    // One connection is one core's.
    assert!(
        refused >= 200 - 2 * WRONG as usize,
        "{refused} of 200 were refused"
    );
    node.stop();
    assert_eq!(RAIDA, raida(14));
}
