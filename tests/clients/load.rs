//! The load generator, against a small node over real sockets, for a fraction of a second each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::load_on::*;
use crate::small_node::{ADMIN_KEY, Fault, RAIDA, SmallNode};
use raida::client::{CoinListReader, Hosts, Months, PerRaida, Raidas};
use raida::coin::An;
use raida::load::kind::{
    EchoKind, EncryptionTicketKind, FixKind, KINDS, Mix, Numbers, Setup, Verdict,
};
use raida::load::{
    Choice, Contender, Held, Io, Keyring, Kind, LoadError, MintJournal, Pace, Plan, Progress,
    Purse, PurseError, RedisPlan, Repair, Spacing, Stop, Stream, Sweep, TicketStock, Vouched,
};
use raida::protocol::executive::SessionId;
use raida::protocol::healing::Fix;
use raida::protocol::key_healing::GetEncryptionTicket;
use raida::protocol::{Command, RaidaId, Status};
use rand::SeedableRng;
use rand::rngs::SmallRng;

fn open(rate: f64) -> Pace {
    Pace::Open {
        rate,
        spacing: Spacing::Even,
    }
}

#[test]
fn every_answer_of_a_good_node_is_right_whatever_is_asked_and_however() {
    let ask = |stream| {
        let node = node();
        for kind in KINDS.iter().filter(|kind| kind.numbers == Numbers::Known) {
            for coins_per_request in [1, 3] {
                let (outcome, settled) =
                    load(kind.name, coins_per_request, &plan(&node, stream), &node);
                assert_all_right(&outcome.measured[0]);
                assert_own_numbers(&node, settled);
            }
        }
    };
    // Most of the time they wait for one another.
    std::thread::scope(|scope| {
        for stream in STREAMS {
            scope.spawn(move || ask(stream));
        }
    });
}

#[test]
fn a_ring_carries_what_calls_to_the_kernel_carry() {
    let node = node();
    for stream in [UDP, TCP] {
        for pace in [Pace::Closed, open(1_000.0)] {
            for (kind, coins_per_request) in [("detect", 3), ("pown", 1), ("pown-derive", 20)] {
                let plan = Plan {
                    io: Io::Uring,
                    pace,
                    ..plan(&node, stream)
                };
                let plan = match coins_per_request {
                    20 => Plan {
                        stream: match stream {
                            UDP => Stream::Udp { in_flight: 1 },
                            _ => Stream::Tcp {
                                connections: 1,
                                depth: 1,
                            },
                        },
                        ..plan
                    },
                    _ => plan,
                };
                let (outcome, settled) = load(kind, coins_per_request, &plan, &node);
                assert_all_right(&outcome.measured[0]);
                assert_own_numbers(&node, settled);
            }
        }
    }
}

#[test]
fn a_ring_loses_what_is_not_answered_and_goes_on() {
    let one_deep = Stream::Tcp {
        connections: 4,
        depth: 1,
    };
    for (stream, fault) in [
        (UDP, Fault::Silent),
        (one_deep, Fault::Silent),
        (TCP, Fault::Hangup),
    ] {
        let node = node();
        node.fail(Command::Echo, 20, fault);
        let plan = Plan {
            io: Io::Uring,
            timeout: Duration::from_millis(300),
            ..plan(&node, stream)
        };
        let (outcome, _) = load("echo", 1, &plan, &node);
        let whole = outcome.measured[0].whole();
        assert!(
            whole.wrong == 0 && (1..=4).contains(&whole.lost),
            "{whole:?}"
        );
        let last = outcome.measured[0].slices.last().unwrap();
        assert!(last.tally.right > 0 && last.tally.lost == 0, "{last:?}");
    }
}

#[test]
fn an_answer_under_encryption_is_opened_and_checked() {
    let node = node();
    for stream in STREAMS {
        for kind in ["detect", "pown-derive"] {
            for make in [Keyring::aes, Keyring::aes_hmac] {
                let mut purse = Purse::new(owned(64)).unwrap();
                let keys = purse.keys(5);
                assert_eq!((keys.len(), purse.len()), (5, 59));
                let encrypted = Plan {
                    keyring: make(keys),
                    ..plan(&node, stream)
                };
                let (outcome, held) = load_purse(kind, 2, &encrypted, &mut purse);
                assert_all_right(&outcome.measured[0]);
                purse.collect(held);
                let settled = purse.settle(&mut client(&node)).unwrap();
                assert_own_numbers(&node, settled);
            }
        }
    }
}

#[test]
fn an_answer_made_with_another_key_is_wrong_or_refused() {
    let node = node();
    let mut keys = Purse::new(owned(8)).unwrap().keys(8);
    for (_, an) in &mut keys {
        *an = An::new([9; 16]);
    }
    for make in [Keyring::aes, Keyring::aes_hmac] {
        let encrypted = Plan {
            keyring: make(keys.clone()),
            ..plan(&node, UDP)
        };
        let (outcome, _) = load("detect", 1, &encrypted, &node);
        let total = outcome.measured[0].whole();
        assert_eq!((total.right, total.lost), (0, 0));
        assert!(total.wrong + total.refused > 0);
    }
}

#[test]
fn a_mix_asks_each_kind_as_often_as_its_share_and_checks_it_by_its_rules() {
    let node = node();
    for stream in STREAMS {
        let (outcome, settled) = load("detect=6,pown=3,echo=1", 2, &plan(&node, stream), &node);
        assert_all_right(&outcome.measured[0]);
        assert_own_numbers(&node, settled);
        let all = outcome.measured[0].whole().right as f64;
        for (kind, share) in outcome.kinds.iter().zip([0.6, 0.3, 0.1]) {
            let part = kind.right as f64 / all;
            // Five standard deviations of a binomial, and more for short runs.
            assert!(
                (part - share).abs() < 0.02 + 5.0 * (0.25 / all).sqrt(),
                "{kind:?} of {all}"
            );
        }
        for (command, kind) in [(Command::Detect, 0), (Command::Pown, 1)] {
            assert!(node.asked(command) as u64 >= outcome.kinds[kind].right);
        }
    }
}

#[test]
fn an_answer_that_does_not_come_is_lost_and_its_coins_are_found_again() {
    for kind in ["pown", "pown-sum", "pown-derive"] {
        let node = node();
        for command in [Command::Pown, Command::PownSum, Command::PownDerive] {
            node.fail(command, 4, Fault::Silent);
        }
        let lossy = Plan {
            timeout: Duration::from_millis(300),
            ..plan(&node, UDP)
        };
        let (outcome, settled) = load(kind, 2, &lossy, &node);
        let whole = outcome.measured[0].whole();
        assert_eq!((whole.wrong, whole.lost), (0, 1));
        assert_own_numbers(&node, settled);
    }
}

#[test]
fn coins_of_a_lost_fix_are_found_again_whether_or_not_it_was_done() {
    for is_done in [true, false] {
        let node = node();
        let raida = RaidaId::new(RAIDA).unwrap();
        let mut purse = Purse::new(owned(64)).unwrap();
        let held = purse.deal(1).swap_remove(0);
        let vouched = Vouched {
            coins: held.iter().map(|held| held.coin).collect(),
            ans: PerRaida::from_fn(|_| None),
        };
        let hosts = Hosts(PerRaida::from_fn(|_| "127.0.0.1:1".parse().unwrap()));
        let raidas = Raidas::new(hosts, 6, Duration::from_secs(5));
        let stock = TicketStock::open(raida, Repair::All, &raidas, vec![vouched]).unwrap();
        let mut kind = FixKind::new(raida, Repair::All, Arc::new(stock), vec![(0, held)], 1);
        kind.prepare();
        let rng = &mut SmallRng::seed_from_u64(1);
        // One that is answered, so that the number before the lost one is not the coin's own
        // either.
        for is_answered in [true, false] {
            let mut payload = vec![];
            assert_eq!(kind.request(0, rng, &mut payload), Some(Command::Fix));
            let fix = Fix::parse(&payload).unwrap();
            let claimed = RaidaId::all().filter(|&raida| fix.ticket(raida).is_some());
            assert_eq!(claimed.count(), 24, "a ticket of every other server");
            if is_answered || is_done {
                let ans = fix.coins().iter();
                node.put(ans.map(|coin| (coin, fix.generator.an(raida, coin))));
            }
            match is_answered {
                true => {
                    let verdict = kind.answer(0, Status::ALL_PASS, &[]);
                    assert_eq!(verdict, Verdict::Right);
                }
                false => kind.lost(0),
            }
        }
        let mut payload = vec![];
        assert_eq!(
            kind.request(0, rng, &mut payload),
            None,
            "they are in doubt"
        );
        assert!(!kind.waits());
        let held = Box::new(kind).coins();
        assert!(held.iter().all(|held| held.is_in_doubt()));
        purse.collect(held);
        let settled = purse.settle(&mut client(&node)).unwrap();
        assert_own_numbers(&node, settled);
    }
}

#[test]
fn a_lost_answer_costs_no_more_than_its_own_time() {
    let node = node();
    node.fail(Command::Echo, 20, Fault::Silent);
    let lossy = Plan {
        timeout: Duration::from_secs(1),
        slices: 1,
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("echo", 1, &lossy, &node);
    let slice = &outcome.measured[0].slices[0];
    let lost = outcome.measured[0].whole().lost;
    assert_eq!(lost, 1);
    assert!(slice.took < Duration::from_millis(500), "{:?}", slice.took);
}

#[test]
fn a_connection_that_breaks_is_opened_again_for_the_next_turn() {
    let node = node();
    node.fail(Command::Echo, 20, Fault::Hangup);
    let (outcome, _) = load("echo", 1, &plan(&node, TCP), &node);
    let last = outcome.measured[0].slices.last().unwrap();
    assert!(last.tally.right > 0 && last.tally.lost == 0, "{last:?}");
}

/// A kind that takes long to prepare.
struct Slow(Box<dyn Kind>);

impl Kind for Slow {
    fn request(&mut self, slot: usize, rng: &mut SmallRng, out: &mut Vec<u8>) -> Option<Command> {
        self.0.request(slot, rng, out)
    }

    fn answer(&mut self, slot: usize, status: Status, payload: &[u8]) -> Verdict {
        self.0.answer(slot, status, payload)
    }

    fn lost(&mut self, slot: usize) {
        self.0.lost(slot);
    }

    fn withdraw(&mut self, slot: usize) {
        self.0.withdraw(slot);
    }

    fn prepare(&mut self) {
        std::thread::sleep(Duration::from_millis(400));
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.0.coins()
    }
}

#[test]
fn connections_that_the_node_closes_while_the_load_makes_ready_are_opened_again() {
    for io in [Io::Syscalls, Io::Uring] {
        let node = node();
        node.state.lock().unwrap().first_request_within = Some(Duration::from_millis(100));
        let plan = Plan {
            io,
            ..plan(&node, TCP)
        };
        let mut purse = Purse::new(owned(64)).unwrap();
        let setup = Setup {
            coins: purse.deal(1).remove(0),
            coins_per_request: 1,
            slots: plan.slots_per_thread(),
            choice: Choice::Uniform,
            side_door: plan.side_door(),
        };
        let kind = Slow(Mix::one("detect").unwrap().kind(setup));
        let outcome = plan.run(vec![Box::new(kind)]).unwrap();
        assert_all_right(&outcome.measured[0]);
    }
}

#[test]
fn a_node_that_knows_other_numbers_is_wrong() {
    for kind in ["detect", "detect-sum", "pown", "pown-sum", "pown-derive"] {
        let node = SmallNode::start();
        node.put(owned(64).into_iter().map(|(coin, an)| (coin, an ^ an)));
        let (outcome, _) = load(kind, 1, &plan(&node, UDP), &node);
        let total = outcome.measured[0].whole();
        assert!(total.wrong > 0 && total.first_wrong.is_some(), "{total:?}");
    }
}

#[test]
fn a_node_that_gives_no_encryption_ticket_is_an_error_that_says_what_it_takes() {
    let node = node();
    node.state.lock().unwrap().secrets = None;
    let (outcome, _) = load("encryption-ticket", 1, &plan(&node, UDP), &node);
    let total = outcome.measured[0].whole();
    assert!((total.right, total.wrong) == (0, 0) && total.refused > 0);
    let fault = outcome.fault.unwrap().to_string();
    for text in ["have to share a secret", "keys.file", "--encryption"] {
        assert!(fault.contains(text), "no {text:?} in {fault}");
    }

    // It says yes only to wrong numbers being wrong.
    let node = SmallNode::start();
    node.put(owned(64).into_iter().map(|(coin, an)| (coin, an ^ an)));
    let (outcome, _) = load("encryption-ticket", 1, &plan(&node, UDP), &node);
    let fault = outcome.fault.unwrap().to_string();
    assert!(fault.contains("key not found"), "{fault}");
}

#[test]
fn an_encryption_ticket_that_cannot_be_is_wrong() {
    let mut purse = Purse::new(owned(64)).unwrap();
    let mut kind = EncryptionTicketKind::new(Setup {
        coins: purse.deal(1).remove(0),
        coins_per_request: 1,
        slots: 1,
        choice: Choice::Uniform,
        side_door: plan(&node(), UDP).side_door(),
    });
    let rng = &mut SmallRng::seed_from_u64(1);
    let mut brokens = BTreeSet::new();
    for number in 1..=1_000u32 {
        let mut payload = vec![];
        let asked = kind.request(0, rng, &mut payload);
        assert_eq!(asked, Some(Command::EncryptionTicket));
        let request = GetEncryptionTicket::parse(&payload).unwrap();
        brokens.insert(request.broken.get());
        let own = owned(64)
            .into_iter()
            .find(|&(coin, _)| coin == request.coin);
        let is_right = request.an == own.map(|(_, an)| an);
        assert_eq!(is_right, !number.is_multiple_of(64), "request {number}");
        let ticket: [u8; 16] = std::array::from_fn(|at| (number >> (at % 4 * 8)) as u8);
        if !is_right {
            let right = kind.answer(0, Status::KEY_NOT_FOUND, &[]);
            let given = kind.answer(0, Status::SUCCESS, &ticket);
            assert_eq!((right, given), (Verdict::Right, Verdict::Wrong));
            continue;
        }
        assert_eq!(kind.answer(0, Status::SUCCESS, &ticket), Verdict::Right);
        for (status, wrong) in [
            (Status::SUCCESS, &ticket[..]),
            (Status::SUCCESS, &ticket[..15]),
            (Status::SUCCESS, &[]),
            (Status::ALL_PASS, &[]),
        ] {
            assert_eq!(kind.answer(0, status, wrong), Verdict::Wrong);
        }
        let refused = kind.answer(0, Status::KEY_NOT_FOUND, &[]);
        assert_eq!(refused, Verdict::Refused);
        // Only the one before counts.
        assert_eq!(kind.answer(0, Status::SUCCESS, &[9; 16]), Verdict::Right);
    }
    let others: BTreeSet<u8> = (0..25).filter(|&raida| raida != RAIDA).collect();
    assert_eq!(brokens, others);
}

#[test]
fn refusals_are_counted_apart() {
    let node = node();
    node.fail(Command::Detect, 3, Fault::Refuse(Status::new(254)));
    let (outcome, _) = load("detect", 1, &plan(&node, UDP), &node);
    let total = outcome.measured[0].whole();
    assert_eq!((total.wrong, total.refused), (0, 1));
    assert!(total.first_refused.is_some());
}

#[test]
fn latency_counts_from_when_a_request_was_due_not_from_when_it_was_sent() {
    // A request every 2 ms, one at a time; the node says nothing to anybody for 300 ms. What is due
    // meanwhile waits, all but one of them unsent: 125 of them for 50 ms or more.
    let stall = Duration::from_millis(300);
    let streams = [
        Stream::Udp { in_flight: 1 },
        Stream::Tcp {
            connections: 1,
            depth: 1,
        },
        Stream::TcpEach { connections: 1 },
    ];
    for stream in streams {
        let node = node();
        node.fail(Command::Echo, 30, Fault::Stall(stall));
        let stalled = Plan {
            pace: open(500.0),
            timeout: Duration::from_secs(5),
            slices: 1,
            ..plan(&node, stream)
        };
        let (outcome, _) = load("echo", 1, &stalled, &node);
        let measured = &outcome.measured[0];
        assert_all_right(measured);
        // 40 ms of settling, then 400 ms.
        assert_eq!(measured.whole().right, 20 + 200);
        let whole = measured.whole().latency_ns;
        // Counted from their sending, only one would have waited. How long the rest takes to catch
        // up depends on the machine.
        let waited = whole.count_between(50_000_000, 5_000_000_000);
        assert!(waited >= 70, "{waited} waited for the stalled node");
        assert!(whole.max() >= 290_000_000);
    }
}

#[test]
fn an_open_loop_asks_at_its_rate_whatever_the_answers_take() {
    let node = node();
    for stream in STREAMS {
        for (spacing, least, most) in [(Spacing::Even, 799, 801), (Spacing::Poisson, 640, 960)] {
            let paced = Plan {
                pace: Pace::Open {
                    rate: 2_000.0,
                    spacing,
                },
                cpus: vec![None, None],
                timeout: Duration::from_secs(5),
                ..plan(&node, stream)
            };
            let (outcome, _) = load("echo", 1, &paced, &node);
            let total = outcome.measured[0].total();
            assert_all_right(&outcome.measured[0]);
            assert!(
                (least..=most).contains(&total.right),
                "{spacing:?}: {}",
                total.right
            );
        }
    }
}

#[test]
fn a_right_answer_that_comes_too_late_is_late_and_is_timed() {
    let node = node();
    node.fail(Command::Echo, 5, Fault::Stall(Duration::from_millis(100)));
    let late = Plan {
        pace: open(200.0),
        late_after: Duration::from_millis(60),
        timeout: Duration::from_secs(5),
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("echo", 1, &late, &node);
    let whole = outcome.measured[0].whole();
    assert!((4..=12).contains(&whole.late), "{whole:?}");
    assert_eq!(whole.latency_ns.len(), whole.right + whole.late);
    assert_eq!(whole.right + whole.late, 88);
}

#[test]
fn requests_that_are_due_and_cannot_be_sent_for_too_long_are_lost() {
    let node = node();
    node.fail(Command::Echo, 0, Fault::Stall(Duration::from_millis(500)));
    let stuck = Plan {
        pace: open(1_000.0),
        timeout: Duration::from_millis(100),
        slices: 1,
        ..plan(&node, Stream::Udp { in_flight: 1 })
    };
    let (outcome, _) = load("echo", 1, &stuck, &node);
    let whole = outcome.measured[0].whole();
    assert_eq!((whole.right + whole.lost, whole.wrong), (440, 0));
    assert!(whole.lost > 100, "{whole:?}");
}

#[test]
fn a_sweep_ends_at_the_rate_that_is_too_much() {
    let node = node();
    // An answer takes the small node well over a microsecond.
    let sweep = Plan {
        sweep: Some(Sweep::Range {
            from: 1_000.0,
            to: 5_001_000.0,
            steps: 3,
        }),
        duration: Duration::from_secs(1),
        timeout: Duration::from_millis(300),
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("echo", 1, &sweep, &node);
    let steps = outcome.sweep.unwrap();
    let saturated: Vec<bool> = steps.iter().map(|step| step.is_saturated).collect();
    assert_eq!(saturated, [false, true]);
    assert!((steps[0].measured.rates()[0] - 1_000.0).abs() < 150.0);
    assert_eq!(outcome.measured[0].slices.len(), 2);
}

#[test]
fn a_sweep_finds_its_rates_by_a_closed_loop() {
    let node = node();
    let sweep = Plan {
        sweep: Some(Sweep::Auto),
        duration: Duration::from_millis(200),
        timeout: Duration::from_millis(300),
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("echo", 1, &sweep, &node);
    let (peak, steps) = (outcome.peak.unwrap(), outcome.sweep.unwrap());
    assert!((1..=11).contains(&steps.len()));
    for (part, step) in (1..).zip(&steps) {
        let wanted = peak * f64::from(part) / 10.0;
        assert!((step.rate_wanted - wanted).abs() < 1.0);
    }
}

#[test]
fn intervals_hold_every_answer_of_their_slice_once() {
    let node = node();
    let long = Plan {
        pace: open(500.0),
        duration: Duration::from_millis(2_200),
        slices: 1,
        cpus: vec![None, None],
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("echo", 1, &long, &node);
    let slice = &outcome.measured[0].slices[0];
    assert_eq!(slice.intervals.len(), 2);
    let right: u64 = slice.intervals.iter().map(|interval| interval.right).sum();
    assert_eq!((right, slice.tally.right), (1_100, 1_100));
    let mut from = slice.started;
    for interval in &slice.intervals {
        assert_eq!(interval.from, from);
        assert_eq!(interval.latency_ns.len(), interval.right);
        assert!((500..=600).contains(&interval.right), "{interval:?}");
        from += interval.length;
    }
    assert_eq!(from, slice.started + slice.took);
}

#[test]
fn progress_tells_what_the_outcome_will_say() {
    let node = node();
    let progress = Arc::new(Progress::new(2));
    let watched = Plan {
        cpus: vec![None, None],
        progress: Some(Arc::clone(&progress)),
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("detect", 1, &watched, &node);
    let whole = outcome.measured[0].whole();
    assert_eq!(progress.counts().right, whole.right);
    assert_eq!(progress.contender(), Contender::Node);
    assert!(!progress.last_second().unwrap().is_empty());
}

#[test]
fn baselines_take_turns_with_the_node() {
    let folder = tempfile::tempdir().unwrap();
    for stream in STREAMS {
        let node = SmallNode::start();
        let plan = Plan {
            echo: true,
            echo_uring: true,
            node_cpus: vec![0, 1],
            disk: Some(folder.path().to_owned()),
            ..plan(&node, stream)
        };
        let measured = plan.run(vec![Box::new(EchoKind)]).unwrap().measured;
        let contenders: Vec<Contender> = measured.iter().map(|one| one.contender).collect();
        assert_eq!(
            contenders,
            [
                Contender::Node,
                Contender::Echo,
                Contender::EchoUring,
                Contender::Disk
            ]
        );
        for one in measured {
            assert_eq!(one.slices.len(), 2);
            let total = one.total();
            assert!(total.right > 10 && total.wrong == 0, "{one:?}");
            assert_eq!(total.lost, 0, "{one:?}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_generator_says_what_it_costs_itself() {
    let node = node();
    let plan = Plan {
        echo: true,
        ..plan(&node, UDP)
    };
    let (outcome, _) = load("detect", 1, &plan, &node);
    for contender in [Contender::Node, Contender::Echo] {
        let own = outcome.generator.cost(contender).unwrap();
        assert!(own.cpu_us_per_request > 0.05, "{own:?}");
        assert!((0.001..1.1).contains(&own.cpu_share), "{own:?}");
    }
}

fn has_redis() -> bool {
    let has = std::process::Command::new("redis-server")
        .arg("--version")
        .stdout(std::process::Stdio::null())
        .status()
        .is_ok();
    if !has {
        println!("skipped: redis-server is not on PATH");
    }
    has
}

#[test]
fn redis_is_asked_beside_the_node_and_ends_with_the_run() {
    if !has_redis() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (kind, writes, per_request) in [("detect", 0.0, 1), ("pown", 1.0, 1), ("pown", 0.5, 3)] {
        for stream in [TCP, TCP_EACH] {
            let node = node();
            let plan = Plan {
                redis: Some(RedisPlan {
                    folder: folder.path().to_owned(),
                    coins: owned(64).into_iter().map(|(coin, _)| coin).collect(),
                    choice: Choice::Uniform,
                    per_request,
                    writes,
                }),
                node_cpus: vec![0],
                ..plan(&node, stream)
            };
            let (outcome, settled) = load(kind, per_request, &plan, &node);
            assert_own_numbers(&node, settled);
            let redis = &outcome.measured[1];
            assert_eq!(redis.contender, Contender::Redis);
            assert_all_right(redis);
            assert!(redis.slices.iter().all(|slice| slice.server_cpu.is_some()));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn redis_over_udp_is_refused() {
    let node = node();
    let plan = Plan {
        redis: Some(RedisPlan {
            folder: std::env::temp_dir(),
            coins: owned(1).into_iter().map(|(coin, _)| coin).collect(),
            choice: Choice::Uniform,
            per_request: 1,
            writes: 0.0,
        }),
        ..plan(&node, UDP)
    };
    let Err(LoadError::Plan(why)) = plan.run(vec![Box::new(EchoKind)]) else {
        panic!("Redis was asked over UDP");
    };
    assert!(why.contains("UDP"), "{why}");
}

#[test]
fn minted_coins_are_taken_out_of_circulation_again() {
    let node = SmallNode::start();
    let mut client = client(&node);
    let folder = tempfile::tempdir().unwrap();
    let (file, stop) = (folder.path().join("made.csv"), Stop::default());
    let mut journal = MintJournal::create(&file, stop.clone()).unwrap();
    let mut purse = Purse::mint(&mut client, &ADMIN_KEY, 30, &mut journal).unwrap();
    assert_eq!((purse.len(), node.coins()), (30, 30));
    let listed = CoinListReader::open(journal.path(), Months::Required).unwrap();
    let listed = listed.map(|record| record.unwrap());
    assert_eq!(listed.filter(|record| record.is_unknown()).count(), 30);
    purse.settle(&mut client).unwrap();
    let session = SessionId::new(1);
    client
        .free_coins(session, &ADMIN_KEY, journal.coins())
        .unwrap();
    assert_eq!(node.coins(), 0);

    // The program asks only for coins that are written down, and for none once the run has to end.
    stop.ask();
    let stopped = Purse::mint(&mut client, &ADMIN_KEY, 30, &mut journal);
    assert!(matches!(stopped, Err(PurseError::Stopped)));
    assert_eq!(node.coins(), 0);
    let path = journal.path().to_owned();
    journal.discard().unwrap();
    assert!(!path.exists());
}

#[test]
fn what_threads_cannot_share_evenly_is_refused() {
    let node = SmallNode::start();
    let plan = Plan {
        cpus: vec![None; 3],
        ..plan(&node, UDP)
    };
    let kinds = (0..3).map(|_| -> Box<dyn Kind> { Box::new(EchoKind) });
    let refused = plan.run(kinds.collect()).err();
    assert!(matches!(refused, Some(LoadError::Plan(_))));
}
