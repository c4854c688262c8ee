//! What a fix must not overwrite, on a real node. The test plays the 24 others: they vouch for the
//! coins that the test names, when the test says so.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use raida::runtime::{Moved, WallClock};
use raida::{
    admin::ask_counts,
    coin::{An, Coin, Mfs},
    node::Settings,
    peer::{PeerSettings, Server as Place},
    protocol::{
        Command, Dialect, RaidaId, Status,
        authentication::{Detect, DetectSum, Pown, PownSum},
        healing::{Fix, GetTicket, PartialGenerator, TicketId},
        lockers::{LockerKey, StoreSum},
    },
};

use crate::numbers::{an, coin, number};
use crate::other_server::Server;
use crate::real_node::{COIN_ID, PATIENCE, RAIDA, RealNode, plain::Client, wire::Answer};

const COINS: usize = 12;

/// A node, and the others that vouch for all coins there are.
struct Trial {
    node: RealNode,
    clock: Arc<Moved>,
    /// Whether the others answer.
    votes: Arc<AtomicBool>,
    /// Claims that they received.
    claims: Arc<AtomicUsize>,
    _others: Vec<Server>,
}

impl Trial {
    fn start(change: impl FnOnce(&mut Settings)) -> Trial {
        let votes = Arc::new(AtomicBool::new(true));
        let claims = Arc::new(AtomicUsize::new(0));
        let others: Vec<Server> = RaidaId::all()
            .map(|raida| {
                let (votes, claims) = (votes.clone(), claims.clone());
                Server::start(raida, None, move |line| {
                    while let Some(asked) = line.next() {
                        claims.fetch_add(usize::from(asked.validate.is_some()), SeqCst);
                        while !votes.load(SeqCst) && line.wait(Duration::from_millis(2)) {}
                        line.answer_well(&asked, |_| (0..COINS).map(coin).collect());
                    }
                })
            })
            .collect();
        let coins: Vec<(Coin, An, Mfs)> = (0..COINS)
            .map(|index| (coin(index), an(index), Mfs::new(20)))
            .collect();
        let clock = Arc::new(Moved::default());
        let node = RealNode::start(&coins, |settings| {
            let place = |other: &Server| Place {
                host: "127.0.0.1".into(),
                port: other.address.port(),
            };
            settings.servers = others.iter().map(place).collect();
            settings.peers = PeerSettings {
                reply_timeout: PATIENCE,
                ..PeerSettings::new(RAIDA, COIN_ID)
            };
            settings.clock = WallClock::Moved(clock.clone());
            change(settings);
        });
        Trial {
            node,
            clock,
            votes,
            claims,
            _others: others,
        }
    }

    fn client(&self) -> Client {
        Client::tcp(&self.node)
    }

    /// Has coins fixed by votes of all others; gives the answer.
    fn fix(&self, coins: &[usize], generator: u8) -> Answer {
        let payload = fix_payload(coins, generator);
        self.client().ask(Command::Fix, &payload)
    }

    /// Has coins fixed, and something done when the others were asked and have not answered.
    fn fix_during(&self, coins: &[usize], generator: u8, meanwhile: impl FnOnce()) -> Answer {
        self.votes.store(false, SeqCst);
        let before = self.claims.load(SeqCst);
        thread::scope(|scope| {
            let fix = scope.spawn(|| self.fix(coins, generator));
            let start = Instant::now();
            while self.claims.load(SeqCst) < before + 24 {
                assert!(start.elapsed() < PATIENCE, "the others are not asked");
                thread::sleep(Duration::from_millis(1));
            }
            meanwhile();
            self.votes.store(true, SeqCst);
            fix.join().unwrap()
        })
    }

    fn pown(&self, index: usize, old: An, new: An) {
        let mut payload = vec![];
        Pown::compose([(coin(index), old, new)], &mut payload);
        let answer = self.client().ask(Command::Pown, &payload);
        assert_eq!(answer.status, Status::ALL_PASS);
    }

    fn has(&self, index: usize, an: An) -> bool {
        let mut payload = vec![];
        Detect::compose([(coin(index), an)], &mut payload);
        let answer = self.client().ask(Command::Detect, &payload);
        answer.status == Status::ALL_PASS
    }

    /// A ticket of the node for a coin, in one of the ways to get one.
    fn ticket(&self, way: Way, coins: &[usize], ans: &[An]) {
        let mut payload = vec![];
        let records = coins.iter().zip(ans).map(|(&index, &an)| (coin(index), an));
        let (command, mut client) = match way {
            Way::Detect => (Command::GetTicket, Client::tcp(&self.node)),
            Way::DetectByUdp => (Command::GetTicket, Client::udp(&self.node)),
            Way::Sum => (Command::GetTicketSum, Client::tcp(&self.node)),
        };
        match way {
            Way::Detect | Way::DetectByUdp => GetTicket::compose(records, &mut payload),
            Way::Sum => {
                let sum = ans.iter().fold(An::ZERO, |sum, &an| sum ^ an);
                let coins = coins.iter().map(|&index| coin(index));
                DetectSum::compose(coins, sum, &mut payload);
            }
        }
        assert_eq!(client.ask(command, &payload).status, Status::ALL_PASS);
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Detect,
    DetectByUdp,
    Sum,
}

const WAYS: [Way; 3] = [Way::Detect, Way::DetectByUdp, Way::Sum];

fn fix_payload(coins: &[usize], generator: u8) -> Vec<u8> {
    let mut payload = vec![];
    let generator = PartialGenerator::new([generator; 16]);
    let coins = coins.iter().map(|&index| coin(index));
    let ticket = |raida: RaidaId| (raida != RAIDA).then(|| TicketId::new(7).unwrap());
    Fix::compose(coins, &generator, ticket, &mut payload);
    payload
}

/// What a fix gives a coin.
fn fixed(index: usize, generator: u8) -> An {
    PartialGenerator::new([generator; 16]).an(RAIDA, coin(index))
}

/// Both dialects, and one shard or two.
fn everywhere(test: impl Fn(&mut dyn FnMut(&mut Settings))) {
    for (dialect, shards) in [(Dialect::Spec, 2), (Dialect::Raidax, 1)] {
        println!("{dialect:?}, {shards} shards");
        test(&mut |settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
        });
    }
}

#[test]
fn a_fix_that_waits_writes_over_nothing_that_changed_meanwhile() {
    everywhere(|change| {
        let trial = Trial::start(change);
        // The buyer's coins, one by pown and one into his locker; the third is changed by nobody.
        let mut key = [9; 16];
        key[12..].fill(0xff);
        let key = LockerKey::new(An::new(key)).unwrap();
        let answer = trial.fix_during(&[0, 1, 2], 0x51, || {
            trial.pown(0, an(0), number(1));
            let mut payload = vec![];
            StoreSum::compose([coin(1)], an(1), key, &mut payload);
            let stored = trial.client().ask(Command::StoreSum, &payload);
            assert_eq!(stored.status, Status::ALL_PASS);
        });
        assert_eq!((answer.status, &*answer.payload), (Status::MIXED, &[4][..]));
        assert!(trial.has(0, number(1)) && trial.has(1, key.an()));
        assert!(trial.has(2, fixed(2, 0x51)));
        let counts = ask_counts(&trial.node.settings().data).unwrap().healing;
        assert_eq!((counts.coins_repaired, counts.coins_changed_lately), (1, 2));
    });
}

#[test]
fn of_two_fixes_at_the_same_time_one_changes_each_coin() {
    everywhere(|change| {
        let trial = Trial::start(change);
        let requests = || ask_counts(&trial.node.settings().data).unwrap().requests;
        let before = requests();
        let answers = thread::scope(|scope| {
            trial.votes.store(false, SeqCst);
            let fixes = [1u8, 2].map(|generator| {
                let trial = &trial;
                scope.spawn(move || trial.fix(&[0, 1, 2, 3], generator))
            });
            let start = Instant::now();
            while requests() < before + 2 || trial.claims.load(SeqCst) < 24 {
                assert!(start.elapsed() < PATIENCE, "the others are not asked");
                thread::sleep(Duration::from_millis(1));
            }
            trial.votes.store(true, SeqCst);
            fixes.map(|fix| fix.join().unwrap().status)
        });
        let won = answers.map(|status| status == Status::ALL_PASS);
        assert!(won[0] != won[1], "{answers:?}");
        let generator = if won[0] { 1 } else { 2 };
        assert!((0..4).all(|index| trial.has(index, fixed(index, generator))));
        // Both change it, one after the other.
        assert_eq!(trial.fix(&[0, 1, 2, 3], 3).status, Status::ALL_PASS);
        assert_eq!(trial.fix(&[0, 1, 2, 3], 4).status, Status::ALL_PASS);
    });
}

#[test]
fn a_coin_that_its_owner_changed_is_fixed_300_s_later() {
    everywhere(|change| {
        let trial = Trial::start(change);
        trial.pown(0, an(0), number(1));
        let mut payload = vec![];
        PownSum::compose([coin(1)], an(1), number(2), &mut payload);
        let powned = trial.client().ask(Command::PownSum, &payload);
        assert_eq!(powned.status, Status::ALL_PASS);
        let fix = |generator| trial.fix(&[0, 1, 2], generator);
        let answer = fix(0x51);
        assert_eq!((answer.status, &*answer.payload), (Status::MIXED, &[4][..]));
        trial.clock.pass(290);
        assert_eq!(fix(0x52).status, Status::MIXED);
        assert!(trial.has(0, number(1)) && trial.has(2, fixed(2, 0x52)));
        trial.clock.pass(17);
        assert_eq!(fix(0x53).status, Status::ALL_PASS);
        assert!((0..3).all(|index| trial.has(index, fixed(index, 0x53))));
        // A fix is no such change.
        assert_eq!(fix(0x54).status, Status::ALL_PASS);
    });
}

/// What a power cut leaves: a copy of the data folder while the node runs.
fn copy(data: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["pages", "log", "book", ""] {
        fs::create_dir_all(copy.path().join(folder)).unwrap();
        for entry in fs::read_dir(data.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let name = copy.path().join(folder).join(entry.file_name());
                fs::copy(entry.path(), name).unwrap();
            }
        }
    }
    copy
}

#[test]
fn a_crash_makes_no_coin_fixable_that_was_not() {
    everywhere(|change| {
        let mut trial = Trial::start(change);
        trial.pown(0, an(0), number(1));
        let copy = copy(&trial.node.settings().data);
        trial.node.restart(|settings| {
            settings.shards = 3 - settings.shards;
            settings.data = copy.path().to_owned();
            settings.admin_key_file = copy.path().join("admin.key");
        });
        // The change was in the log, and counts as one of the start.
        let answer = trial.fix(&[0, 1], 0x51);
        assert_eq!((answer.status, &*answer.payload), (Status::MIXED, &[2][..]));
        assert!(trial.has(0, number(1)));
        trial.clock.pass(307);
        assert_eq!(trial.fix(&[0, 1], 0x52).status, Status::ALL_PASS);
        trial.node.stop();
    });
}

#[test]
fn who_changes_a_coin_every_few_minutes_does_not_keep_it_broken() {
    everywhere(|change| {
        let trial = Trial::start(change);
        let mut holds = an(0);
        let mut round = 0;
        let mut changed_by_former_owner = || {
            round += 1;
            trial.pown(0, holds, number(round));
            holds = number(round);
        };
        changed_by_former_owner();
        assert_eq!(trial.fix(&[0], 0x51).status, Status::ALL_FAIL);
        for _ in 0..2 {
            trial.clock.pass(120);
            changed_by_former_owner();
            assert_eq!(trial.fix(&[0], 0x51).status, Status::ALL_FAIL);
        }
        trial.clock.pass(70);
        changed_by_former_owner();
        trial.clock.pass(8);
        // It was refused for that reason 318 s ago. A fix does not overwrite what changes
        // meanwhile.
        let answer = trial.fix_during(&[0], 0x52, &mut changed_by_former_owner);
        assert_eq!(answer.status, Status::ALL_FAIL);
        trial.clock.pass(7);
        assert_eq!(trial.fix(&[0], 0x53).status, Status::ALL_PASS);
        assert!(trial.has(0, fixed(0, 0x53)));
    });
}

#[test]
fn a_coin_that_a_ticket_of_the_node_lists_is_not_fixed_while_its_number_is_in_force() {
    everywhere(|change| {
        let trial = Trial::start(|settings| {
            change(settings);
            settings.tickets.lifetime = Duration::from_secs(1_000);
        });
        for (round, way) in WAYS.into_iter().enumerate() {
            let (first, second) = (3 * round, 3 * round + 1);
            let coins = [first, second];
            trial.ticket(way, &coins, &coins.map(an));
            // The third is on no ticket.
            let all = [first, second, 3 * round + 2];
            let answer = trial.fix(&all, 0x51);
            let said = (answer.status, &*answer.payload);
            assert_eq!(said, (Status::MIXED, &[4][..]), "{way:?}");
            assert!(coins.iter().all(|&index| trial.has(index, an(index))));
            // Another number ends the rule for that coin, as soon as 300 s are over.
            trial.pown(first, an(first), number(1));
            trial.clock.pass(307);
            let answer = trial.fix(&all, 0x52);
            let said = (answer.status, &*answer.payload);
            assert_eq!(said, (Status::MIXED, &[5][..]), "{way:?}");
            // The end of the ticket ends it for the other coin.
            trial.clock.pass(710);
            assert_eq!(trial.fix(&all, 0x53).status, Status::ALL_PASS, "{way:?}");
        }
        let counts = ask_counts(&trial.node.settings().data).unwrap().healing;
        assert_eq!(counts.coins_vouched_here, 3 * 3);
    });
}

#[test]
fn a_ticket_that_is_issued_while_a_fix_waits_counts() {
    everywhere(|change| {
        let trial = Trial::start(change);
        for way in WAYS {
            let coins: Vec<usize> = (0..6).collect();
            let ans: Vec<An> = (0..6).map(an).collect();
            let answer = trial.fix_during(&coins, 0x51, || trial.ticket(way, &coins, &ans));
            assert_eq!(answer.status, Status::ALL_FAIL, "{way:?}");
            assert!((0..6).all(|index| trial.has(index, an(index))));
            trial.clock.pass(310);
        }
        // A wrong number is on no ticket.
        let mut payload = vec![];
        GetTicket::compose([(coin(0), number(1))], &mut payload);
        let refused = trial.client().ask(Command::GetTicket, &payload);
        assert_eq!(refused.status, Status::ALL_FAIL);
        assert_eq!(trial.fix(&[0], 0x52).status, Status::ALL_PASS);
    });
}
