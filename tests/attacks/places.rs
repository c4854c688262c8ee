//! Requests that wait: how far one address, or many, can keep a node's core from serving others.
//! Here fixes wait for servers that never answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use raida::admin;
use raida::coin::{An, Coin, Mfs, PageId};
use raida::peer::{PeerSettings, Server};
use raida::protocol::authentication::{Detect, Pown};
use raida::protocol::healing::{Fix, PartialGenerator, TicketId};
use raida::protocol::{Command, Dialect, Protection, RaidaId, Status};
use raida::service::budget::BudgetLimits;

use crate::real_node::{COIN_ID, PATIENCE, RAIDA, RealNode, wire::compose};

/// Few places, so that a test need not send much.
const FEW: BudgetLimits = BudgetLimits {
    requests: 1_024,
    bytes: 80 << 20,
};
/// Places that one address has, and how many of them changes may take.
const OF_ONE: usize = 192;
const CHANGES_OF_ONE: usize = 144;
/// Changes of all addresses.
const CHANGES: usize = 768;

/// Coins on pages of both shards, where there are two.
const PAGES: [usize; 2] = [40, 41];

/// Coins to fix, each once: nothing of a fix waits for another.
fn to_fix(number: usize) -> Coin {
    PageId::from_index(100 + number / 1_024)
        .unwrap()
        .coin(number % 1_024)
}

fn owned(page: usize, place: usize) -> (Coin, An) {
    let coin = PageId::from_index(page).unwrap().coin(place);
    (coin, An::new([(page + place) as u8; 16]))
}

struct Trial {
    node: RealNode,
    /// Takes connections and answers nothing.
    _silent: TcpListener,
    fixes: usize,
}

impl Trial {
    fn start(shards: u16, dialect: Dialect) -> Trial {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            host: "127.0.0.1".into(),
            port: silent.local_addr().unwrap().port(),
        };
        let mut coins: Vec<(Coin, An, Mfs)> = Vec::new();
        for page in PAGES {
            let all = (0..200).map(|place| owned(page, place));
            coins.extend(all.map(|(coin, an)| (coin, an, Mfs::new(9))));
        }
        let node = RealNode::start(&coins, |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
            settings.network.waiting = FEW;
            settings.servers = vec![server; RaidaId::COUNT];
            settings.peers = PeerSettings {
                reply_timeout: 2 * PATIENCE,
                verify_source: false,
                calls_per_server_max: 1 << 14,
                calls_max: 1 << 19,
                ..PeerSettings::new(RAIDA, COIN_ID)
            };
        });
        Trial {
            node,
            _silent: silent,
            fixes: 0,
        }
    }

    fn connect(&self, last: u8) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let from = SocketAddr::from(([127, 0, 0, last], 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&self.node.address().into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A fix that waits, of a coin that no other request names.
    fn fix(&mut self) -> Vec<u8> {
        self.fixes += 1;
        let ticket = |raida: RaidaId| (raida != RAIDA).then(|| TicketId::new(7)).flatten();
        let mut payload = Vec::new();
        let generator = PartialGenerator::new([5; 16]);
        Fix::compose([to_fix(self.fixes)], &generator, ticket, &mut payload);
        request(Command::Fix, &payload)
    }

    /// This many fixes of an address, over connections of 100 each.
    fn fix_many(&mut self, last: u8, count: usize) -> Vec<TcpStream> {
        let mut streams = Vec::new();
        for start in (0..count).step_by(100) {
            let fixes: Vec<u8> = (start..count.min(start + 100))
                .flat_map(|_| self.fix())
                .collect();
            let mut stream = self.connect(last);
            stream.write_all(&fixes).unwrap();
            streams.push(stream);
        }
        streams
    }

    fn waiting(&self) -> usize {
        let counts = admin::ask_counts(&self.node.settings().data).unwrap();
        counts.waiting.requests as usize
    }

    fn until_waiting(&self, count: usize) {
        let start = Instant::now();
        while self.waiting() < count {
            assert!(start.elapsed() < PATIENCE, "only {} wait", self.waiting());
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn request(command: Command, payload: &[u8]) -> Vec<u8> {
    compose(command, Protection::None, Some(payload), 1).bytes
}

fn detect(page: usize, place: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    Detect::compose([owned(page, place)], &mut payload);
    request(Command::Detect, &payload)
}

/// A pown that keeps the number.
fn pown(page: usize, place: usize) -> Vec<u8> {
    let (coin, an) = owned(page, place);
    let mut payload = Vec::new();
    Pown::compose([(coin, an, an)], &mut payload);
    request(Command::Pown, &payload)
}

/// The status of the next answer without a body.
fn status(stream: &mut TcpStream) -> Status {
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).unwrap();
    Status::new(answer[2])
}

fn ask(stream: &mut TcpStream, request: &[u8]) -> Status {
    stream.write_all(request).unwrap();
    status(stream)
}

fn ask_datagram(socket: &UdpSocket, node: SocketAddr, request: &[u8]) -> Status {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(request, node).unwrap();
    let mut answer = [0; 64];
    assert_eq!(socket.recv(&mut answer).unwrap(), 32);
    Status::new(answer[2])
}

/// The status of a fix, of group 2, for which there is no room.
fn no_room(dialect: Dialect) -> Status {
    match dialect {
        Dialect::Spec => Status::HEALING_OUT_OF_MEMORY,
        Dialect::Raidax => Status::OUT_OF_MEMORY,
    }
}

/// Shards, and the dialect.
const TRIALS: [(u16, Dialect); 2] = [(1, Dialect::Spec), (2, Dialect::Raidax)];

#[test]
fn an_address_whose_changes_wait_goes_on_asking_and_leaves_places_to_others() {
    for (shards, dialect) in TRIALS {
        let mut trial = Trial::start(shards, dialect);
        // The address has its share on each core that its connections come to.
        let _waiting = trial.fix_many(2, 8 * usize::from(shards) * OF_ONE);
        trial.until_waiting(CHANGES_OF_ONE);
        let waits = trial.waiting();
        assert!(waits <= CHANGES_OF_ONE * usize::from(shards), "{waits}");
        // Questions of the same address are answered, also those that another shard answers.
        let mut same = trial.connect(2);
        let mut other = trial.connect(3);
        for place in 0..100 {
            for page in PAGES {
                assert_eq!(ask(&mut same, &detect(page, place)), Status::ALL_PASS);
                assert_eq!(ask(&mut other, &detect(page, place)), Status::ALL_PASS);
                assert_eq!(ask(&mut other, &pown(page, place)), Status::ALL_PASS);
            }
        }
        let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
        for (request, expected) in [
            (detect(PAGES[0], 1), Status::ALL_PASS),
            (pown(PAGES[1], 1), Status::ALL_PASS),
        ] {
            let answered = ask_datagram(&socket, trial.node.address(), &request);
            assert_eq!(answered, expected);
        }
    }
}

#[test]
fn datagrams_of_an_address_with_its_share_are_refused_and_nothing_has_happened() {
    for (shards, dialect) in TRIALS {
        let mut trial = Trial::start(shards, dialect);
        let node = trial.node.address();
        let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
        // The kernel hands each datagram to the core of its coin's page: all are of one page, so
        // one core has them.
        for _ in 0..CHANGES_OF_ONE {
            socket.send_to(&trial.fix(), node).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        trial.until_waiting(CHANGES_OF_ONE);
        let refused = ask_datagram(&socket, node, &trial.fix());
        assert_eq!(refused, no_room(dialect));
        assert_eq!(trial.waiting(), CHANGES_OF_ONE);
        // Another address is not.
        let other = UdpSocket::bind("127.0.0.3:0").unwrap();
        other.send_to(&trial.fix(), node).unwrap();
        trial.until_waiting(CHANGES_OF_ONE + 1);
    }
}

#[test]
fn a_core_that_is_full_of_changes_answers_questions_and_refuses_changes() {
    for dialect in [Dialect::Spec, Dialect::Raidax] {
        let mut trial = Trial::start(1, dialect);
        let _waiting: Vec<_> = (2..9).map(|last| trial.fix_many(last, 120)).collect();
        trial.until_waiting(CHANGES);
        let mut newcomer = trial.connect(20);
        let socket = UdpSocket::bind("127.0.0.21:0").unwrap();
        for place in 0..3 {
            let (detect, pown) = (detect(PAGES[0], place), pown(PAGES[0], place));
            assert_eq!(ask(&mut newcomer, &detect), Status::ALL_PASS);
            assert_eq!(ask(&mut newcomer, &pown), Status::OUT_OF_MEMORY);
            assert_eq!(ask(&mut newcomer, &trial.fix()), no_room(dialect));
            let node = trial.node.address();
            assert_eq!(ask_datagram(&socket, node, &detect), Status::ALL_PASS);
            assert_eq!(ask_datagram(&socket, node, &pown), Status::OUT_OF_MEMORY);
        }
        assert_eq!(trial.waiting(), CHANGES);
    }
}
