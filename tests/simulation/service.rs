//! The commands themselves in the simulator: what they wait for and what they do not, while
//! somebody holds coins, and what they say to a request that comes again.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::Ipv4Addr,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use futures_util::future::{Either, join_all, select};
use raida::runtime::Signal;
use raida::{
    coin::{An, Coin, Mfs, ShardId},
    mesh::{Decision, Mesh},
    protocol::{
        AdminKey, Command, Dialect, Protection, RaidaId, Request, ResponseCounter, ResponseHeader,
        Rules, Status,
        authentication::{DetectSum, Pown, PownDerive, PownSum},
        lockers::{
            Address, Currency, LockerKey, Price, PutForSale, Remove, StoreMultiple, StoreSum,
            TradeKey,
        },
    },
    service::{
        DatagramRules, Healing, KeyHealing, NoOthers, Outcome, Rate, Release, Service, Session,
        Trading, Transport,
    },
    shard::{TransactionId, question},
    store::{book::Notes, record::Change},
};

use crate::{
    damage::{STEPS, coin, recover, setup},
    node::{self, Setup},
    world::{Cut, SimEnvironment, World},
};

const RAIDA: RaidaId = match RaidaId::new(14) {
    Some(raida) => raida,
    None => panic!("14 is a server's number"),
};
const COIN_ID: u16 = 6;

/// A node whose commands are asked directly.
struct Served {
    world: Rc<World>,
    meshes: Vec<Rc<Mesh<SimEnvironment>>>,
    cores: Vec<(Service<SimEnvironment>, Rc<Parked>)>,
}

/// The answers of one core that were held back and may go now.
#[derive(Default)]
struct Parked {
    released: RefCell<Vec<Release>>,
    more: Signal,
}

impl Parked {
    /// Hears of a core's answers from now on.
    fn listen(world: &World, service: &Service<SimEnvironment>) -> Rc<Parked> {
        let parked = Rc::<Parked>::default();
        let (service, place) = (service.clone(), parked.clone());
        world.spawn(async move {
            let mut released = vec![];
            loop {
                poll_fn(|context| service.poll_released(context, &mut released)).await;
                place.released.borrow_mut().append(&mut released);
                place.more.notify();
            }
        });
        parked
    }

    async fn wait(&self, id: usize) -> Release {
        loop {
            let moment = self.more.moment();
            {
                let mut released = self.released.borrow_mut();
                if let Some(at) = released.iter().position(|release| release.id == id) {
                    return released.remove(at);
                }
            }
            self.more.after(moment).await;
        }
    }
}

fn own(coin: Coin) -> An {
    let mut bytes = [1; 16];
    bytes[..Coin::SIZE].copy_from_slice(&coin.to_bytes());
    An::new(bytes)
}

fn an(number: u8) -> An {
    An::new([number; 16])
}

fn sum(coins: &[Coin]) -> An {
    (coins.iter()).fold(An::ZERO, |sum, &coin| sum ^ own(coin))
}

fn locker(first: u8) -> LockerKey {
    let mut bytes = [first; 16];
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}

impl Served {
    /// A node on which these coins have their own numbers.
    fn start(coins: &[Coin], shards: u16, dialect: Dialect) -> Served {
        let world = World::new(5);
        let recovered = recover(&world).unwrap();
        let setup = Setup { shards, ..setup() };
        let opened = node::open_meshes(world.clone(), setup, recovered);
        let (meshes, _) = world.run(STEPS, opened).unwrap().unwrap();
        let rules = Rules {
            raida: RAIDA,
            coin_id: COIN_ID,
            dialect,
            response_counter: ResponseCounter::Restart,
            max_body_bytes: 1 << 20,
        };
        let service = |mesh: &Rc<Mesh<SimEnvironment>>| {
            let healing = Healing {
                max_coins: 4_096,
                rate: Rate { per_s: 0, burst: 1 },
                wrong_claims_per_min: 0,
                keys: KeyHealing::default(),
                others: Rc::new(NoOthers),
            };
            let key = AdminKey::new([9; 16]);
            let trading = Trading::without_settlement();
            let datagrams = DatagramRules {
                amplification: 1_000,
                refusals_per_s: 0,
            };
            Service::new(mesh.clone(), rules, key, datagrams, healing, trading)
        };
        let services = meshes.iter().map(service);
        let cores = services.map(|service| {
            let parked = Parked::listen(&world, &service);
            (service, parked)
        });
        let cores = cores.collect();
        let mesh = meshes[0].clone();
        let mut rising = coins.to_vec();
        rising.sort_unstable();
        let made = world.run(STEPS, async move {
            let changes = rising.iter().map(|&coin| Change {
                coin,
                an: own(coin),
                mfs: Mfs::new(45),
            });
            let changes: Vec<Change> = changes.collect();
            let made = mesh.change_together(&rising, None, |_| {
                Decision::<()>::Change(changes, Notes::default())
            });
            made.await
        });
        assert_eq!(made.unwrap(), Ok(Ok(())));
        Served {
            world,
            meshes,
            cores,
        }
    }

    /// Somebody holds these coins (rising), until they are let go.
    fn hold(&self, coins: &[Coin]) -> Vec<(ShardId, TransactionId)> {
        let mesh = self.meshes[0].clone();
        let shards = mesh.shards();
        let coins = coins.to_vec();
        let held = self.world.run(STEPS, async move {
            let mut held = vec![];
            for shard in (0..shards).map(ShardId::new) {
                let own = |coin: &&Coin| coin.page().owner(shards) == shard;
                let coins: Vec<Coin> = coins.iter().filter(own).copied().collect();
                let id = TransactionId {
                    core: shard,
                    number: 1 << 40,
                };
                let session = None;
                let lock = question::Lock { id, coins, session };
                assert!(mesh.ask(shard, lock).await.is_ok());
                held.push((shard, id));
            }
            held
        });
        held.unwrap()
    }

    fn let_go(&self, held: Vec<(ShardId, TransactionId)>) {
        let mesh = self.meshes[0].clone();
        let released = self.world.run(STEPS, async move {
            for (shard, id) in held {
                mesh.ask(shard, question::Release(id)).await;
            }
        });
        released.unwrap();
    }

    fn session(&self, core: usize, transport: Transport) -> Client {
        let (service, parked) = &self.cores[core];
        let mut session = service.session(transport);
        session.come_from(Ipv4Addr::new(192, 0, 2, 7).into());
        Client {
            world: self.world.clone(),
            parked: parked.clone(),
            session,
            transport,
            asked: 0,
        }
    }
}

struct Client {
    world: Rc<World>,
    parked: Rc<Parked>,
    session: Session<SimEnvironment>,
    transport: Transport,
    asked: u8,
}

/// An answer that has been asked for; `None` where there is none.
type Answer = Pin<Box<dyn Future<Output = Option<Status>>>>;

impl Client {
    /// Asks; what comes of it is in the future.
    fn ask(&mut self, command: Command, payload: &[u8]) -> Answer {
        self.asked += 1;
        let mut bytes = vec![];
        let request = Request {
            to: RAIDA,
            coin_id: COIN_ID,
            command,
            protection: Protection::None,
            echo: [0, self.asked],
            challenge: [self.asked; 12],
            nonce: [0; 22],
            payload: Some(payload),
        };
        let sent = request.compose(&mut bytes).expect("a request that fits");
        let status = move |answer: &[u8]| {
            let header = ResponseHeader::parse(answer, sent.header.encryption);
            header.expect("a whole header").status
        };
        let mut out = vec![];
        let outcome = match self.transport {
            Transport::Tcp => self.session.request(&mut bytes, &mut out),
            Transport::Udp => self.session.datagram(&mut bytes, &mut out),
        };
        match outcome {
            Outcome::Answered => {
                let status = status(&out);
                Box::pin(async move { Some(status) })
            }
            Outcome::Silent => Box::pin(async { None }),
            Outcome::Later(answer) => Box::pin(async move {
                let answer = answer.await;
                (!answer.bytes.is_empty()).then(|| status(&answer.bytes))
            }),
            Outcome::Parked(id) => {
                let parked = self.parked.clone();
                Box::pin(async move {
                    let release = parked.wait(id).await;
                    release.complete(&mut out);
                    release.goes.then(|| status(&out))
                })
            }
        }
    }

    /// Asks and waits; a hang is an error.
    fn answer(&mut self, command: Command, payload: &[u8]) -> Result<Option<Status>, Cut> {
        let answer = self.ask(command, payload);
        self.world.run(STEPS, answer)
    }
}

fn pown(records: &[(Coin, An, An)]) -> Vec<u8> {
    let mut payload = vec![];
    Pown::compose(records.iter().copied(), &mut payload);
    payload
}

fn derive(coins: &[(Coin, An)], delta: An) -> Vec<u8> {
    let mut payload = vec![];
    PownDerive::compose(RAIDA, coins.iter().copied(), delta, &mut payload);
    payload
}

/// Requests that prove coins which are another's with the wrong numbers.
fn wrong_proofs(coins: &[Coin], mine: Coin, dialect: Dialect) -> Vec<(Command, Vec<u8>, Status)> {
    let named = || coins.iter().copied();
    let wrong = sum(coins) ^ an(9);
    let mut asked = vec![];
    let mut ask = |command, status, compose: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = vec![];
        compose(&mut payload);
        asked.push((command, payload, status));
    };
    let fails = Status::ALL_FAIL;
    ask(Command::DetectSum, fails, &|out| {
        DetectSum::compose(named(), wrong, out);
    });
    let of_sum = match dialect {
        Dialect::Spec => &coins[..1],
        Dialect::Raidax => coins,
    };
    ask(Command::PownSum, fails, &|out| {
        PownSum::compose(of_sum.iter().copied(), an(9), an(3), out);
    });
    ask(Command::PownDerive, fails, &|out| {
        let known = coins.iter().map(|&coin| (coin, own(coin) ^ an(9)));
        PownDerive::compose(RAIDA, known, an(3), out);
    });
    ask(Command::StoreSum, fails, &|out| {
        StoreSum::compose(named(), wrong, locker(0x41), out);
    });
    ask(Command::StoreMultiple, fails, &|out| {
        let lockers = [(coins.to_vec(), wrong, locker(0x41))];
        StoreMultiple::compose(lockers, out);
    });
    ask(Command::PutForSale, fails, &|out| {
        let key = TradeKey::of([7; 9], Price::new(5), Currency::Bitcoin);
        let address = Address::new(&[b'a'; 20]).expect("20 bytes");
        PutForSale::compose(named(), wrong, key, &address, out);
    });
    // Of several coins one is the asker's, which passes.
    let with_mine = |an_of: &dyn Fn(Coin) -> An, new: An| {
        let mut records: Vec<_> = named().map(|coin| (coin, an_of(coin), new)).collect();
        records.push((mine, own(mine), an(0x60)));
        records
    };
    let wrong_of = |coin| own(coin) ^ an(9);
    asked.push((
        Command::Pown,
        pown(&with_mine(&wrong_of, an(3))),
        Status::MIXED,
    ));
    // Into a locker: several shards are told.
    let into = locker(0x42).an();
    let records: Vec<_> = named().map(|coin| (coin, wrong_of(coin), into)).collect();
    asked.push((Command::Pown, pown(&records), fails));
    asked
}

#[test]
fn who_does_not_know_the_numbers_of_coins_waits_for_nobody_who_holds_them() {
    for (shards, dialect) in [(1, Dialect::Spec), (2, Dialect::Raidax), (2, Dialect::Spec)] {
        let coins = [coin(0), coin(1), coin(2)];
        let mine = coin(3);
        let all = [&coins[..], &[mine]].concat();
        let served = Served::start(&all, shards, dialect);
        let held = served.hold(&coins);
        for (command, payload, status) in wrong_proofs(&coins, mine, dialect) {
            let mut client = served.session(0, Transport::Tcp);
            let answer = client.answer(command, &payload);
            assert_eq!(answer, Ok(Some(status)), "{command:?} on {shards} shards");
        }
        // Who knows them waits.
        let mut owner = served.session(0, Transport::Tcp);
        let known: Vec<_> = coins.iter().map(|&coin| (coin, own(coin))).collect();
        let right = derive(&known, an(3));
        let waiting = owner.answer(Command::PownDerive, &right);
        assert_eq!(waiting, Err(Cut::Hang), "{shards} shards");
        served.let_go(held);
    }
}

/// A client's own locker coins are no reason to hold another client's.
#[test]
fn a_removal_holds_no_coins_that_lie_elsewhere() {
    for shards in [1, 2] {
        let (mine, theirs) = (coin(0), [coin(1), coin(2)]);
        let all = [mine, theirs[0], theirs[1]];
        let served = Served::start(&all, shards, Dialect::Spec);
        let mut client = served.session(0, Transport::Tcp);
        let mut payload = vec![];
        StoreSum::compose([mine], own(mine), locker(0x41), &mut payload);
        let stored = client.answer(Command::StoreSum, &payload);
        assert_eq!(stored, Ok(Some(Status::ALL_PASS)));
        let held = served.hold(&theirs);
        let records = [(theirs[0], an(1)), (mine, an(2)), (theirs[1], an(3))];
        payload.clear();
        Remove::compose(locker(0x41), records, &mut payload);
        let removed = client.answer(Command::Remove, &payload);
        assert_eq!(removed, Ok(Some(Status::MIXED)));
        served.let_go(held);
    }
}

/// Commands that change these two coins, one on each of two shards, together or alone.
fn changes(coins: [Coin; 2]) -> Vec<(Command, Vec<u8>)> {
    let known = coins.map(|coin| (coin, own(coin)));
    let records = [
        (coins[0], own(coins[0]), an(0x51)),
        (coins[1], own(coins[1]), an(0x52)),
    ];
    let mut store = vec![];
    StoreSum::compose(coins, sum(&coins), locker(0x41), &mut store);
    let mut several = vec![];
    let lockers = [
        ([coins[0]], own(coins[0]), locker(0x42)),
        ([coins[1]], own(coins[1]), locker(0x43)),
    ];
    StoreMultiple::compose(lockers, &mut several);
    let mut sum_of_one = vec![];
    PownSum::compose(
        [coins[1]],
        own(coins[1]),
        own(coins[1]) ^ an(0x53),
        &mut sum_of_one,
    );
    vec![
        (Command::Pown, pown(&records[..1])),
        (Command::Pown, pown(&records[1..])),
        (Command::Pown, pown(&records)),
        (Command::PownSum, sum_of_one),
        (Command::PownDerive, derive(&known, an(9))),
        (Command::StoreSum, store),
        (Command::StoreMultiple, several),
    ]
}

/// A world of its own for each: the same coins once more.
fn each_change(shards: u16, each: impl Fn(&Served, Command, &[u8])) {
    let coins = [coin(0), coin(1)];
    for (command, payload) in changes(coins) {
        let served = Served::start(&coins, shards, Dialect::Spec);
        each(&served, command, &payload);
    }
}

#[test]
fn what_was_carried_out_is_answered_again_for_ten_seconds_on_every_core() {
    for shards in [1, 2] {
        each_change(shards, |served, command, payload| {
            let what = format!("{command:?}, {} bytes, {shards} shards", payload.len());
            let mut first = served.session(0, Transport::Tcp);
            let answer = first.answer(command, payload);
            assert_eq!(answer, Ok(Some(Status::ALL_PASS)), "{what}");
            let powned = powned(served);
            for transport in [Transport::Tcp, Transport::Udp] {
                for core in 0..shards.into() {
                    let mut other = served.session(core, transport);
                    let answer = other.answer(command, payload);
                    assert_eq!(answer, Ok(Some(Status::ALL_PASS)), "{what}, core {core}");
                }
            }
            assert_eq!(self::powned(served), powned, "{what}: nothing was changed");
            let world = served.world.clone();
            let nap = async move { world.sleep(Duration::from_secs(11)).await };
            served.world.run(STEPS, nap).unwrap();
            let late = first.answer(command, payload);
            assert_eq!(
                late,
                Ok(Some(Status::ALL_FAIL)),
                "{what}: it is a new request"
            );
        });
    }
}

fn powned(served: &Served) -> u64 {
    let meshes = served.meshes.iter();
    meshes
        .map(|mesh| mesh.shard().counters.get().coins_powned)
        .sum()
}

#[test]
fn the_same_under_way_is_answered_as_the_first_over_a_stream_and_not_by_datagram() {
    for shards in [1, 2] {
        each_change(shards, |served, command, payload| {
            let what = format!("{command:?}, {} bytes, {shards} shards", payload.len());
            let coins = [coin(0), coin(1)];
            let held = served.hold(&coins);
            let mut first = served.session(0, Transport::Tcp);
            let first = first.ask(command, payload);
            // Until it waits for the coins.
            let (done, first) = started(served, first);
            assert_eq!(done, None, "{what}: the coins are held");
            for core in 0..usize::from(shards) {
                let mut datagram = served.session(core, Transport::Udp);
                let answer = datagram.answer(command, payload);
                assert_eq!(
                    answer,
                    Ok(None),
                    "{what}: no answer to a datagram, core {core}"
                );
            }
            // For as long as they live: nothing is begun for a client that has gone.
            let mut sessions: Vec<_> = (0..usize::from(shards))
                .map(|core| served.session(core, Transport::Tcp))
                .collect();
            let streams: Vec<Answer> = (sessions.iter_mut())
                .map(|session| session.ask(command, payload))
                .collect();
            let again: Vec<_> = streams.into_iter().map(|s| started(served, s)).collect();
            let done: Vec<_> = again.iter().map(|(done, _)| done).collect();
            assert!(done.iter().all(|done| done.is_none()), "{what}: {done:?}");
            served.let_go(held);
            let answers = async move {
                let again = again.into_iter().map(|(_, answer)| answer);
                (first.await, join_all(again).await)
            };
            let (first, again) = served.world.run(STEPS, answers).unwrap();
            assert_eq!(first, Some(Status::ALL_PASS), "{what}");
            assert!(
                again.iter().all(|&status| status == first),
                "{what}: {again:?}"
            );
        });
    }
}

/// Lets a request run for a while: its answer where there is one, and the rest of it.
fn started(served: &Served, mut answer: Answer) -> (Option<Option<Status>>, Answer) {
    let world = served.world.clone();
    let ran = async move {
        let nap = pin!(world.sleep(Duration::from_millis(200)));
        let ended = match select(answer.as_mut(), nap).await {
            Either::Left((status, _)) => Some(status),
            Either::Right(_) => None,
        };
        (ended, answer)
    };
    served.world.run(STEPS, ran).unwrap()
}
