use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use raida::protocol::Dialect;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::attack::{Attack, OWNER, attackers, honest};
use crate::crowd::{Crowd, Datagrams, Pace, Tally};
use crate::machine::Cpus;
use crate::site::{Cores, Site, coins};
use crate::wire::{
    ALL_PASS, ALL_ROOTS, AUDIT, AVAILABLE_CHANGE, AVAILABLE_SNS, BRANCH, CREATE_COINS, DETECT,
    DETECT_SUM, ECHO, FIND, GET_TICKET, GET_TICKET_BY_SUM, HEADER, LIST_FOR_SALE, LOCKER_DOWNLOAD,
    Number, Owned, PEEK, PEEK_TRADE, POWN, PUT_FOR_SALE, REMOVE, SHOW_STATS, VALIDATE_TICKET,
    VERSION, ask, detect, header, random_number, request, request_to, sum, with_numbers,
    without_numbers,
};

/// How long an answer to a datagram is waited for where there may be none.
const PATIENCE: Duration = Duration::from_millis(150);

/// Datagrams with the address of another node, or of the node itself, as their source.
pub struct Forged;

impl Forged {
    const PER_SECOND: f64 = 1_000.0;
}

impl Attack for Forged {
    fn name(&self) -> &'static str {
        "forged"
    }

    fn what(&self) -> &'static str {
        "5: 1,000 datagrams a second to two nodes, with the other one, or the node itself, as their \
         source: refused headers, requests, and every answer that they give"
    }

    fn other_node(&self, _node: SocketAddr) -> Option<Vec<(&'static str, String)>> {
        Some(Vec::new())
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let other = site.other.as_ref().expect("another node").address;
        Box::new(ForgedSources::new(site.address(), other))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, requests, per_second))
    }
}

/// Writes the source of its datagrams itself.
struct ForgedSources {
    socket: Socket,
    /// Whole packets, with where they go.
    packets: Vec<(SockAddr, Vec<u8>)>,
    pace: Pace,
    next: usize,
    tally: Tally,
}

impl ForgedSources {
    fn new(node: SocketAddr, other: SocketAddr) -> ForgedSources {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )
        .expect("a raw socket: run this as root, or with CAP_NET_RAW");
        let mut datagrams = vec![vec![0; HEADER], vec![0xff; HEADER], vec![1; 600]];
        for raida in [0, 1] {
            let node = if raida == 0 { node } else { other };
            let asked = [
                header(raida, ECHO, 0),
                header(raida, VERSION, 0),
                header(raida, AUDIT, 0),
                request_to(raida, ECHO, b""),
                request_to(raida, VERSION, b""),
                request_to(raida, AUDIT, b""),
                request_to(raida, DETECT, &with_numbers(&[coins().honest])),
                request_to(raida, DETECT, &with_numbers(&coins().attacker[..2])),
                request_to(raida, GET_TICKET, &with_numbers(&[coins().honest])),
                request_to(raida, (15, 200), &[0; 64]),
                request_to(raida, (1, 10), &[0; 5]),
                header(raida, DETECT, 600),
            ];
            for request in asked {
                // The answer to a request is a datagram that the network sends; so is the request.
                datagrams.extend(answer_to(node, &request));
                datagrams.push(request);
            }
        }
        let mut packets = Vec::new();
        for datagram in datagrams {
            for (from, to) in [(other, node), (node, other), (node, node), (other, other)] {
                let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
                    unreachable!("nodes listen on 127.0.0.1");
                };
                packets.push((SocketAddr::V4(to).into(), packet(from, to, &datagram)));
            }
        }
        ForgedSources {
            socket,
            packets,
            pace: Pace::of(Forged::PER_SECOND),
            next: 0,
            tally: Tally::default(),
        }
    }
}

impl Crowd for ForgedSources {
    fn turn(&mut self, now: Instant) {
        let due = self.pace.due(now);
        self.pace.begin(due);
        for _ in 0..due {
            let (to, packet) = &self.packets[self.next % self.packets.len()];
            self.next += 1;
            if self.socket.send_to(packet, to).is_ok() {
                self.tally.sent += 1;
                self.tally.bytes_out += packet.len() as u64 - 28;
            }
        }
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// An IPv4 packet (RFC 791) with a UDP datagram (RFC 768) in it. The kernel writes identification,
/// length and checksum of the packet; a checksum of 0 in the datagram stands for none.
fn packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend_from_slice(&from.ip().octets());
    bytes.extend_from_slice(&to.ip().octets());
    bytes.extend_from_slice(&from.port().to_be_bytes());
    bytes.extend_from_slice(&to.port().to_be_bytes());
    bytes.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The answer to a datagram, if one comes.
fn answer_to(node: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, 77), 0)).expect("a loopback address");
    socket.connect(node).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.send(request).ok()?;
    let mut answer = vec![0; 1 << 16];
    let length = socket.recv(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// Requests with the longest possible answers, which the node would send to an address that did not
/// ask.
pub struct Reflection;

impl Reflection {
    const PER_SECOND: f64 = 2_000.0;
    const LOCKED: u32 = 4_000;
    const KEY: Number = [
        0x6c, 0x6f, 0x63, 0x6b, 9, 9, 9, 9, 9, 9, 9, 9, 0xff, 0xff, 0xff, 0xff,
    ];
    const OFFERS: usize = 60;

    /// How much longer an answer than its request may be.
    fn most(dialect: Dialect) -> f64 {
        match dialect {
            Dialect::Spec => 3.0,
            Dialect::Raidax => 10.0,
        }
    }

    /// Every request that a stranger, or the operator, can send in a datagram and that gets a long
    /// answer. The vote is left out: it is exempt.
    fn requests(node: SocketAddr, admin_key: &[u8; 16]) -> Vec<(&'static str, Vec<u8>)> {
        let all = coins();
        let own = &all.attacker;
        let few = &own[..2];
        let wrong = |coin: &Owned| coin.under(random_number());
        let mixed: Vec<Owned> = own.iter().take(20).map(wrong).chain([own[0]]).collect();
        let find = |coin: &Owned| [&with_numbers(&[*coin])[..], &random_number()].concat();
        let found: Vec<u8> = mixed.iter().flat_map(find).collect();
        let session = 7u32.to_be_bytes();
        let numbers = [[0x11; 16], [0x22; 16]].concat();
        let public_id = first_offer(node).unwrap_or([0x33; 16]);
        let remove = [&Self::KEY[..], &with_numbers(&mixed)].concat();
        let flags = [1; 16];
        let sns = [&session[..], admin_key, &flags].concat();
        let create = [&session[..], admin_key, &without_numbers(own)].concat();
        let level = [0, 0, 0, 0];
        let claim = [&[3][..], &long_ticket(node)].concat();
        vec![
            ("echo", header(0, ECHO, 0)),
            ("echo with a body", request(ECHO, b"")),
            ("version", header(0, VERSION, 0)),
            ("audit", header(0, AUDIT, 0)),
            ("audit with a body", request(AUDIT, b"")),
            ("show stats", request(SHOW_STATS, admin_key)),
            ("detect", detect(&mixed)),
            (
                "detect sum",
                request(DETECT_SUM, &[&without_numbers(few)[..], &sum(few)].concat()),
            ),
            (
                "pown",
                request(
                    POWN,
                    &[&with_numbers(&few[..1])[..], &few[0].number].concat(),
                ),
            ),
            ("get ticket", request(GET_TICKET, &with_numbers(&mixed))),
            (
                "get ticket by sum",
                request(
                    GET_TICKET_BY_SUM,
                    &[&without_numbers(few)[..], &sum(few)].concat(),
                ),
            ),
            ("validate", request(VALIDATE_TICKET, &claim)),
            ("find", request(FIND, &found)),
            ("get available SNs", request(AVAILABLE_SNS, &sns)),
            ("create coins", request(CREATE_COINS, &create)),
            ("locker download", request(LOCKER_DOWNLOAD, &numbers)),
            ("peek", request(PEEK, &Self::KEY)),
            ("peek trade locker", request(PEEK_TRADE, &public_id)),
            ("remove", request(REMOVE, &remove)),
            ("list", request(LIST_FOR_SALE, &[1, 255])),
            (
                "list, skipping",
                request(LIST_FOR_SALE, &[1, 255, 0, 0, 0, 0]),
            ),
            (
                "get available change",
                request(AVAILABLE_CHANGE, &[&session[..], &[1, 2]].concat()),
            ),
            (
                "get branch",
                request(BRANCH, &[&[0][..], &level, &level].concat()),
            ),
            ("get all roots", request(ALL_ROOTS, &[0; 480])),
            ("a refused header", vec![0; HEADER]),
            ("an unknown command", request((15, 200), b"")),
        ]
    }

    /// Puts lockers with one coin each up for sale.
    fn offer(node: SocketAddr) {
        for (number, coin) in coins().aimed_at.iter().take(Self::OFFERS).enumerate() {
            let mut key = [number as u8; 16];
            key[9..13].copy_from_slice(&(500 + number as u32).to_be_bytes());
            key[13] = 1;
            key[14..].fill(0xee);
            let mut address = [0; 129];
            address[0] = 34;
            address[1..35].fill(b'a');
            let coin = [*coin];
            let payload = [&without_numbers(&coin)[..], &sum(&coin), &key, &address].concat();
            let answer = ask(
                OWNER,
                node,
                &request(PUT_FOR_SALE, &payload),
                Duration::from_secs(2),
            );
            let status = answer.expect("an answer to an offer").status;
            assert_eq!(status, ALL_PASS, "an offer");
        }
    }
}

/// A ticket of a thousand coins.
fn long_ticket(node: SocketAddr) -> [u8; 4] {
    let get = request(GET_TICKET, &with_numbers(&coins().many[..1_000]));
    let answer = ask(OWNER, node, &get, Duration::from_secs(2)).expect("an answer for a ticket");
    answer.payload.try_into().expect("a ticket of four bytes")
}

/// The public id of an offer; none where the dialect lists none.
fn first_offer(node: SocketAddr) -> Option<Number> {
    let list = request(LIST_FOR_SALE, &[1, 1]);
    let answer = ask(OWNER, node, &list, Duration::from_secs(2)).expect("an answer for a list");
    let id = (answer.payload.len() == 29).then(|| answer.payload.first_chunk());
    id.flatten().copied()
}

impl Attack for Reflection {
    fn name(&self) -> &'static str {
        "reflection"
    }

    fn what(&self) -> &'static str {
        "6: 2,000 datagrams a second of every command whose answer is longer, one address"
    }

    fn coins(&self) -> Vec<Owned> {
        let coin = |serial| Owned {
            denomination: 4,
            serial,
            number: Self::KEY,
        };
        (0..Self::LOCKED).map(coin).collect()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        let requests = Self::requests(site.address(), &[0x44; 16]);
        let requests = requests.into_iter().map(|(_, request)| request).collect();
        let (node, from) = (site.address(), attackers(1));
        Box::new(Datagrams::new(node, &from, requests, Self::PER_SECOND))
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        let requests = coins().crowd.iter().map(|coin| detect(&[*coin])).collect();
        let (node, from) = (site.address(), honest(1));
        Box::new(Datagrams::new(node, &from, requests, per_second))
    }

    /// Bytes back by bytes sent, of every command in both dialects.
    fn faults(&self, cpus: Cpus) -> Vec<String> {
        let mut faults = Vec::new();
        for dialect in [Dialect::Spec, Dialect::Raidax] {
            let site = Site::new(&Speaking(dialect), cpus, Cores::One);
            Self::offer(site.address());
            let admin_key = *site.admin_key().expose();
            for (name, request) in Self::requests(site.address(), &admin_key) {
                let answer = answer_to(site.address(), &request);
                let length = answer.map_or(0, |answer| answer.len());
                let times = length as f64 / request.len() as f64;
                if times > Self::most(dialect) {
                    let sent = request.len();
                    faults.push(format!(
                        "{name} ({dialect:?}): {length} bytes for {sent}, {times:.1} times"
                    ));
                }
            }
        }
        faults
    }
}

/// A node that speaks this dialect.
struct Speaking(Dialect);

impl Attack for Speaking {
    fn name(&self) -> &'static str {
        Reflection.name()
    }

    fn what(&self) -> &'static str {
        Reflection.what()
    }

    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        let dialect = match self.0 {
            Dialect::Spec => "spec",
            Dialect::Raidax => "raidax",
        };
        vec![("protocol.dialect", dialect.to_owned())]
    }

    fn coins(&self) -> Vec<Owned> {
        Reflection.coins()
    }

    fn attackers(&self, site: &Site) -> Box<dyn Crowd> {
        Reflection.attackers(site)
    }

    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd> {
        Reflection.honest_crowd(site, per_second)
    }
}
