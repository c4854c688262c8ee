//! Tickets for a lost key that a former owner of a coin has kept: none of them takes the coin back,
//! whenever it was issued, whatever changed the coin, and whatever happened to the server or its
//! clock.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Barrier},
    thread,
};

use crate::node_process::{Serve, admin_key, mint, moved_clock::MovedClock};
use raida::runtime::{Moved, WallClock};
use raida::{
    coin::{An, Coin, Denomination, Mfs},
    node::Settings,
    protocol::{
        AdminKey, Command, Dialect, RaidaId, Status,
        authentication::{Detect, Pown, PownSum},
        executive::{
            AvailableSns, AvailableSnsReply, CreateCoins, DeleteCoins, FreeCoins, SessionId,
            read_created,
        },
        key_healing::{
            FixEncryption, Half, Minute, Presented, SharedSecret, Verdict, Voucher, split,
        },
        lockers::{LockerKey, StoreSum},
    },
};

use crate::numbers::{an, coin, number};
use crate::real_node::{ADMIN_KEY, RAIDA, RealNode, plain::Client};

const COINS: usize = 12;
/// Minutes since 1970 when nodes start.
const START: u64 = 29_920_000;
/// Minutes that they have run when a test begins.
const RUN: u64 = 30;

/// What the node shares with a server.
fn secret(server: u8) -> [u8; SharedSecret::SIZE] {
    [server + 1; SharedSecret::SIZE]
}

fn key_file(own: RaidaId) -> String {
    let line = |server: u8| match server == own.get() {
        true => "0".repeat(32) + "\n",
        false => secret(server).map(|byte| format!("{byte:02x}")).concat() + "\n",
    };
    (0..25).map(line).collect()
}

/// Tickets of two helpers for a number, issued in this minute.
fn tickets(coin: Coin, an: An, minute: u64) -> [Presented; 2] {
    let halves = split(an);
    std::array::from_fn(|half| {
        let helper = [3, 9][half];
        Presented {
            helper: RaidaId::new(helper).unwrap(),
            half: [Half::First, Half::Second][half],
            ticket: SharedSecret::new(&secret(helper)).seal(&Voucher {
                part: halves[half],
                coin,
                minute: minute as u16,
            }),
        }
    })
}

const TOO_EARLY: [Verdict; 2] = [Verdict::TooEarly; 2];
const ACCEPTED: [Verdict; 2] = [Verdict::Accepted; 2];

/// A node whose clocks the test sets.
struct Trial {
    node: RealNode,
    clock: Arc<Moved>,
    now: u64,
}

impl Trial {
    fn start(change: impl FnOnce(&mut Settings)) -> Trial {
        let coins: Vec<(Coin, An, Mfs)> = (0..COINS)
            .map(|index| (coin(index), an(index), Mfs::new(20)))
            .collect();
        let clock = Arc::new(Moved::stopped_at(START * 60 + 31));
        let node = RealNode::start(&coins, |settings| {
            let file = settings.data.with_file_name("secrets");
            fs::write(&file, key_file(RAIDA)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            settings.keys_file = Some(file);
            settings.clock = WallClock::Moved(clock.clone());
            change(settings);
        });
        let mut trial = Trial {
            node,
            clock,
            now: START,
        };
        trial.pass(RUN);
        trial
    }

    /// Lets this many minutes pass.
    fn pass(&mut self, minutes: u64) {
        self.clock.pass(60 * minutes);
        self.now += minutes;
    }

    /// Sets the node's wall clock this many minutes forward, or back.
    fn set(&mut self, minutes: i64) {
        self.clock.set(60 * minutes);
    }

    fn client(&self) -> Client {
        Client::tcp(&self.node)
    }

    fn ask(&self, command: Command, compose: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut payload = vec![];
        compose(&mut payload);
        let answer = self.client().ask(command, &payload);
        let is_done = [Status::ALL_PASS, Status::SUCCESS].contains(&answer.status);
        assert!(is_done, "{command:?}: {}", answer.status);
        answer.payload
    }

    fn pown(&self, index: usize, old: An, new: An) {
        let records = [(coin(index), old, new)];
        self.ask(Command::Pown, |out| Pown::compose(records, out));
    }

    fn present(&self, tickets: &[Presented], coin: Coin) -> Vec<Verdict> {
        let compose = |out: &mut Vec<u8>| FixEncryption::compose(coin, tickets, out);
        let payload = self.ask(Command::FixEncryption, compose);
        FixEncryption::read(&payload, tickets.len()).unwrap()
    }

    /// Presents tickets of this minute for a coin, over TCP.
    fn fix(&self, index: usize, an: An, minute: u64) -> Vec<Verdict> {
        self.present(&tickets(coin(index), an, minute), coin(index))
    }

    fn has(&self, coin: Coin, an: An) -> bool {
        let mut payload = vec![];
        Detect::compose([(coin, an)], &mut payload);
        self.client().ask(Command::Detect, &payload).status == Status::ALL_PASS
    }

    fn used(&self) -> usize {
        let counts = raida::admin::ask_counts(&self.node.settings().data).unwrap();
        counts.used_tickets_kept as usize
    }
}

/// Both dialects, and one shard or two.
fn everywhere(test: impl Fn(Trial)) {
    for (dialect, shards) in [(Dialect::Spec, 2), (Dialect::Raidax, 1)] {
        println!("{dialect:?}, {shards} shards");
        test(Trial::start(|settings| {
            settings.rules.dialect = dialect;
            settings.shards = shards;
        }));
    }
}

#[test]
fn a_ticket_of_the_minute_of_a_sale_or_the_next_does_not_undo_it() {
    everywhere(|mut trial| {
        for (index, minutes_later) in [(0, 0), (1, 1), (2, 9)] {
            let sale = trial.now;
            // Helpers vouch for the seller in the minute of the sale, also with a clock that is a
            // minute ahead, or long before.
            trial.pown(index, an(index), number(1));
            trial.pass(minutes_later);
            for minute in [sale - 1, sale, sale + 1] {
                if minute > trial.now + 1 || minute + 10 < trial.now {
                    continue;
                }
                let said = trial.fix(index, number(2), minute);
                assert_eq!(
                    said, TOO_EARLY,
                    "{minute}, sold at {sale}, now {}",
                    trial.now
                );
            }
            assert!(trial.has(coin(index), number(1)));
        }
        assert_eq!(trial.used(), 0, "none is used up");
        // Helpers vouch for the buyer from the minute after the next on.
        trial.pass(2);
        assert_eq!(trial.fix(2, number(3), trial.now), ACCEPTED);
        assert!(trial.has(coin(2), number(3)));
    });
}

#[test]
fn whatever_writes_a_number_makes_older_tickets_void() {
    everywhere(|mut trial| {
        let mut key = [9; 16];
        key[12..].fill(0xff);
        let key = An::new(key);
        let (session, admin) = (SessionId::new(77), AdminKey::new(ADMIN_KEY));
        type Write<'a> = Box<dyn Fn(&Trial) + 'a>;
        let writes: Vec<(&str, Write<'_>)> = vec![
            ("pown", Box::new(|t| t.pown(0, an(0), number(1)))),
            (
                "pown sum",
                Box::new(|t| {
                    let compose = |out: &mut Vec<u8>| {
                        PownSum::compose([coin(1)], an(1), number(1), out);
                    };
                    drop(t.ask(Command::PownSum, compose));
                }),
            ),
            (
                "store sum",
                Box::new(|t| {
                    let key = LockerKey::new(key).unwrap();
                    let compose = |out: &mut Vec<u8>| {
                        StoreSum::compose([coin(2)], an(2), key, out);
                    };
                    drop(t.ask(Command::StoreSum, compose));
                }),
            ),
            (
                "fix encryption",
                Box::new(|t| assert_eq!(t.fix(3, number(1), t.now), ACCEPTED)),
            ),
            (
                "delete",
                Box::new(|t| {
                    let compose = |out: &mut Vec<u8>| {
                        DeleteCoins::compose(&admin, [(coin(4), an(4))], out);
                    };
                    drop(t.ask(Command::DeleteCoins, compose));
                }),
            ),
            (
                "free",
                Box::new(|t| {
                    let compose = |out: &mut Vec<u8>| {
                        FreeCoins::compose(session, &admin, [coin(5)], out);
                    };
                    drop(t.ask(Command::FreeCoins, compose));
                }),
            ),
        ];
        for (index, (name, write)) in writes.iter().enumerate() {
            let wished = number(0x70 + index as u8);
            write(&trial);
            for minute in [trial.now - 5, trial.now, trial.now + 1] {
                assert_eq!(trial.fix(index, wished, minute), TOO_EARLY, "{name}");
            }
            trial.pass(2);
            assert_eq!(trial.fix(index, wished, trial.now), ACCEPTED, "{name}");
            assert!(trial.has(coin(index), wished), "{name}");
        }
        // A created coin has no owner here yet; on another server it may have had one.
        let ones = Denomination::new(0).unwrap();
        let shown = trial.ask(Command::AvailableSns, |out| {
            AvailableSns::compose(session, &admin, [ones], out);
        });
        let free = AvailableSnsReply::new(&shown).next().unwrap();
        let made = Coin {
            denomination: ones,
            serial_number: free.serial_numbers().next().unwrap(),
        };
        let created = trial.ask(Command::CreateCoins, |out| {
            CreateCoins::compose(session, &admin, [made], out);
        });
        let owned = read_created(&created, 1).unwrap().next().unwrap();
        let old = tickets(made, number(0x7f), trial.now);
        assert_eq!(trial.present(&old, made), TOO_EARLY);
        assert!(trial.has(made, owned));
    });
}

#[test]
fn after_a_start_every_coin_may_have_changed_just_before() {
    everywhere(|mut trial| {
        for shards in [2, 1, 3] {
            let mut stopped = trial.now;
            trial.node.restart(|settings| settings.shards = shards);
            for later in 0..3 {
                // No ticket of a minute up to the start's, or of the next, for any coin.
                for minute in stopped - 5..=stopped + 1 {
                    if minute > trial.now + 1 {
                        continue;
                    }
                    let said = trial.fix(7, number(9), minute);
                    assert_eq!(said, TOO_EARLY, "{later} minutes after the start");
                }
                trial.pass(1);
            }
            assert_eq!(trial.fix(6, number(shards as u8), stopped + 2), ACCEPTED);
            stopped += 3;
            assert_eq!(trial.now, stopped);
        }
        assert!(trial.has(coin(7), an(7)));
    });
}

#[test]
fn setting_the_servers_clock_makes_no_void_ticket_good() {
    everywhere(|mut trial| {
        // Back by less and by more than a ticket lives.
        for (index, back) in [(0, 3), (1, 25)] {
            let before = trial.now - back as u64;
            trial.pass(1);
            trial.pown(index, an(index), number(1));
            let sale = trial.now;
            trial.pass(1);
            trial.set(-back);
            // The clock shows the minutes before the sale once more, and the sale's.
            for _ in 0..back + 2 {
                let shown = trial.now - back as u64;
                for minute in [before, shown - 10, shown, shown + 1, sale] {
                    let is_good = minute + 10 >= shown && minute <= shown + 1;
                    if is_good && minute <= sale + 1 {
                        let said = trial.fix(index, number(2), minute);
                        assert_eq!(said, TOO_EARLY, "{minute}, sold at {sale}, shown {shown}");
                    }
                }
                trial.pass(1);
            }
            trial.set(back);
            assert!(trial.has(coin(index), number(1)));
        }
        // Forward: the clock was slow until now, so the sale was later than it showed.
        trial.pown(2, an(2), number(1));
        trial.set(7);
        for minute in [trial.now, trial.now + 5, trial.now + 7, trial.now + 8] {
            assert_eq!(trial.fix(2, number(2), minute), TOO_EARLY);
        }
        trial.pass(2);
        assert_eq!(trial.fix(2, number(3), trial.now + 7), ACCEPTED);
        trial.set(-7);
    });
}

/// A coin that the fix checked may change before the fix writes: the fix has to check again.
#[test]
fn a_sale_that_was_answered_is_not_undone_by_tickets_that_were_good_when_they_came() {
    everywhere(|mut trial| {
        let (mut sold, mut fixed) = (0, 0);
        let mut holds = an(0);
        for round in 0..60u8 {
            trial.pass(2);
            let (buyers, sellers) = (number(round), number(0x80 + round));
            let good = tickets(coin(0), sellers, trial.now);
            let start = Barrier::new(2);
            let (powned, said) = thread::scope(|scope| {
                let (trial, start) = (&trial, &start);
                let pown = scope.spawn(move || {
                    let (mut client, mut payload) = (trial.client(), vec![]);
                    Pown::compose([(coin(0), holds, buyers)], &mut payload);
                    start.wait();
                    if round % 3 != 0 {
                        // While the tickets are written down.
                        thread::sleep(std::time::Duration::from_micros(40 * u64::from(round)));
                    }
                    client.ask(Command::Pown, &payload).status == Status::ALL_PASS
                });
                let mut client = trial.client();
                let mut payload = vec![];
                FixEncryption::compose(coin(0), &good, &mut payload);
                start.wait();
                let answer = client.ask(Command::FixEncryption, &payload);
                let said = FixEncryption::read(&answer.payload, 2).unwrap();
                (pown.join().unwrap(), said)
            });
            if powned {
                assert!(
                    trial.has(coin(0), buyers),
                    "sold, and not the buyer's: {said:?}"
                );
                assert_eq!(said, TOO_EARLY);
                holds = buyers;
                sold += 1;
            } else {
                assert_eq!(said, ACCEPTED);
                assert!(trial.has(coin(0), sellers));
                holds = sellers;
                fixed += 1;
            }
        }
        println!("{sold} sales came first, {fixed} fixes");
    });
}

#[test]
fn a_server_that_is_killed_and_started_takes_no_ticket_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let secrets = folder.path().join("secrets");
    fs::write(&secrets, key_file(RaidaId::new(0).unwrap())).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let clock = Arc::new(MovedClock::new(&folder.path().join("clock")));
    let serve = |shards: u16| {
        Serve::on(&data)
            .with("shards.count", shards)
            .with("storage.segment_bytes", 1 << 20)
            .with("keys.file", secrets.display())
            .by(clock.clone())
            .start()
    };
    let now = || Minute::of_unix_seconds(clock.unix_seconds()).0;
    let node = serve(2);
    let key = admin_key(&data);
    let made = mint(&mut node.client(), &key, &[0], 1, 2);
    let (sold, own) = made[0];
    clock.pass(600);
    let kept = now();
    let changed = node.client().pown(&[(sold, own, number(1))]);
    assert!(changed.1.is_none());
    node.kill();
    for shards in [1, 2] {
        // Or a little later, where a minute turns meanwhile.
        let started = now();
        let node = serve(shards);
        let fix = |minute: u64| {
            let old = tickets(sold, number(2), minute);
            node.client().fix_encryption(sold, &old).unwrap()
        };
        for _ in 0..2 {
            for minute in [kept, started - 1, started, started + 1] {
                assert_eq!(fix(minute), TOO_EARLY);
            }
            clock.pass(60);
        }
        assert!(node.client().detect(&[(sold, number(1))]).unwrap()[0]);
        clock.pass(120);
        let (other, _) = made[1];
        let good = tickets(other, number(0x30 + shards as u8), now());
        let said = node.client().fix_encryption(other, &good).unwrap();
        assert_eq!(said, ACCEPTED);
        node.kill();
    }
}
