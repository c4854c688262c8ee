//! Every command that waits for coins, asked about a coin for which the maximum number of requests
//! wait already: the node refuses it at once, with the dialect's status, and nothing changes.

use std::{
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use raida::runtime::Environment;
use raida::{
    coin::{An, Coin, Denomination, Mfs, PageId, SerialNumber},
    mesh::Decision,
    protocol::{
        AdminKey, Command, Dialect, Protection, RaidaId, Request as Composed, ResponseCounter,
        Rules, Status,
        authentication::{Pown, PownSum},
        executive::{AvailableSns, CreateCoins, DeleteCoins, FreeCoins, SessionId},
        healing::{Fix, PartialGenerator, TicketId},
        key_healing::{
            FixEncryption, Half, Minute, Presented, SharedSecret, SharedSecrets, Voucher, split,
        },
        lockers::{
            Address, Buy, Currency, LockerKey, Memo, Offer, Price, PutForSale, ReceiptId, Remove,
            RemoveTrade, StoreMultiple, StoreSum, TradeKey, TransactionId as Payment, Value,
        },
    },
    service::{
        DatagramRules, Healing, KeyHealing, NoVote, Others, Outcome, Purchase, Rate, Service,
        Settle, Settled, Trading, Transport,
    },
    shard::{EXCHANGES_MAX, TASKS_MAX, TransactionId, question},
    store::{book::Notes, record::Change},
};

use crate::{
    damage::{STEPS, an, coin, recover, setup},
    node::{self, Setup},
    world::{SimEnvironment, World},
};

const OWN: RaidaId = match RaidaId::new(14) {
    Some(own) => own,
    None => panic!("14 is a server's number"),
};
const COIN_ID: u16 = 6;
const ADMIN: [u8; 16] = [9; 16];
const SESSION: SessionId = SessionId::new(0);

/// Every other server has issued a ticket for this coin.
struct Voters(Coin);

impl Others for Voters {
    fn claim(&self, _: RaidaId, _: TicketId) -> LocalBoxFuture<'static, Result<Vec<Coin>, NoVote>> {
        Box::pin(std::future::ready(Ok(vec![self.0])))
    }

    fn may_claim(&self, _: RaidaId, _: IpAddr) -> bool {
        true
    }

    fn look_again(&self, _: RaidaId) {}

    fn verifies(&self) -> bool {
        false
    }

    fn are_known(&self) -> bool {
        true
    }
}

/// Everything is paid.
struct AllPaid;

impl Settle for AllPaid {
    fn ask(&self, _: Purchase) -> LocalBoxFuture<'static, Settled> {
        Box::pin(std::future::ready(Settled::Paid))
    }
}

struct Trial {
    world: Rc<World>,
    meshes: Vec<Rc<raida::mesh::Mesh<SimEnvironment>>>,
    services: Vec<Service<SimEnvironment>>,
    next: u64,
}

/// The coins of a trial, by what can be done with them.
struct Coins {
    plain: Coin,
    /// Of another page, and another shard where there are two.
    other: Coin,
    in_locker: Coin,
    for_sale: Coin,
    free: Coin,
}

impl Trial {
    fn start(shards: u16, dialect: Dialect) -> Trial {
        let world = World::new(7);
        let setup = Setup {
            shards,
            segment_bytes: 131_072,
            ..setup()
        };
        let recovered = recover(&world).unwrap();
        let opened = node::open_meshes(world.clone(), setup, recovered);
        let (meshes, _) = world.run(STEPS, opened).unwrap().unwrap();
        let secrets: Vec<_> = RaidaId::all()
            .map(|raida| Some(secret_with(raida)))
            .collect();
        let secrets = secrets.try_into().expect("one for each server");
        let secrets = Arc::new(SharedSecrets::new(secrets));
        let service = |mesh: &Rc<raida::mesh::Mesh<SimEnvironment>>| {
            Service::new(
                mesh.clone(),
                Rules {
                    raida: OWN,
                    coin_id: COIN_ID,
                    dialect,
                    response_counter: ResponseCounter::Continue,
                    max_body_bytes: 1 << 20,
                },
                AdminKey::new(ADMIN),
                DatagramRules {
                    amplification: 1_000,
                    refusals_per_s: 0,
                },
                Healing {
                    max_coins: 4_096,
                    rate: Rate { per_s: 0, burst: 1 },
                    wrong_claims_per_min: 0,
                    keys: KeyHealing {
                        secrets: Some(secrets.clone()),
                        ..KeyHealing::default()
                    },
                    others: Rc::new(Voters(coin(0))),
                },
                Trading {
                    settlement: Rc::new(AllPaid),
                    ..Trading::without_settlement()
                },
            )
        };
        let services = meshes.iter().map(service).collect();
        Trial {
            world,
            meshes,
            services,
            next: 0,
        }
    }

    /// Asks, by a datagram to one core.
    fn begin(&mut self, core: usize, command: Command, payload: &[u8]) -> (Outcome, Vec<u8>) {
        let mut bytes = Vec::new();
        self.next += 1;
        let request = Composed {
            to: OWN,
            coin_id: COIN_ID,
            command,
            protection: Protection::None,
            echo: [1, 2],
            challenge: [self.next as u8; 12],
            nonce: [0; 22],
            payload: Some(payload),
        };
        request.compose(&mut bytes).unwrap();
        let mut session = self.services[core].session(Transport::Udp);
        session.come_from(Ipv4Addr::LOCALHOST.into());
        let mut answer = Vec::new();
        (session.datagram(&mut bytes, &mut answer), answer)
    }

    /// Asks, and gives the whole answer.
    fn ask(&mut self, core: usize, command: Command, payload: &[u8]) -> Vec<u8> {
        let (outcome, mut answer) = self.begin(core, command, payload);
        match outcome {
            Outcome::Answered => answer,
            Outcome::Silent => panic!("{} is answered", command.name()),
            Outcome::Later(later) => self.world.run(STEPS, later).expect("it is answered").bytes,
            Outcome::Parked(id) => {
                let service = self.services[core].clone();
                let released = self.world.run(STEPS, async move {
                    let mut released = Vec::new();
                    std::future::poll_fn(|cx| service.poll_released(cx, &mut released)).await;
                    released
                });
                let released = released.expect("it is answered");
                let release = released.iter().find(|release| release.id == id);
                release.expect("nothing else waits").complete(&mut answer);
                answer
            }
        }
    }

    fn status(&mut self, core: usize, command: Command, payload: &[u8]) -> Status {
        Status::new(self.ask(core, command, payload)[2])
    }

    /// Gives coins numbers.
    fn give(&self, coins: &[(Coin, An)]) {
        let mesh = self.meshes[0].clone();
        for &(coin, an) in coins {
            let mesh = mesh.clone();
            let given = self.world.run(STEPS, async move {
                let change = Change {
                    coin,
                    an,
                    mfs: Mfs::new(45),
                };
                let coins = [coin];
                let changed = mesh.change_together(&coins, None, |_| {
                    Decision::<()>::Change(vec![change], Notes::default())
                });
                changed.await
            });
            assert_eq!(given.unwrap(), Ok(Ok(())));
        }
    }

    /// Holds a coin and has as many requests about several coins wait for it as may, until the
    /// number that this gives is released.
    fn crowd(&self, coin: Coin, number: u64) -> TransactionId {
        let core = self.meshes[0].shard().id;
        let owner = coin.page().owner(self.meshes.len() as u16);
        let id = move |waiter| TransactionId {
            core,
            number: 1 << 40 | number << 20 | waiter,
        };
        let mesh = self.meshes[0].clone();
        let lock = async move {
            let lock = question::Lock {
                id: id(0),
                coins: vec![coin],
                session: None,
            };
            mesh.ask(owner, lock).await.is_ok()
        };
        assert_eq!(self.world.run(STEPS, lock), Ok(true));
        for waiter in 1..=TASKS_MAX as u64 {
            let mesh = self.meshes[0].clone();
            self.world.spawn(async move {
                let lock = question::Lock {
                    id: id(waiter),
                    coins: vec![coin],
                    session: None,
                };
                assert!(mesh.ask(owner, lock).await.is_ok());
                mesh.ask(owner, question::Release(id(waiter))).await;
            });
        }
        id(0)
    }

    fn release(&self, coin: Coin, id: TransactionId) {
        let mesh = self.meshes[0].clone();
        let owner = coin.page().owner(self.meshes.len() as u16);
        let release = async move { mesh.ask(owner, question::Release(id)).await };
        assert_eq!(self.world.run(STEPS, release), Ok(()));
    }

    /// Lets all that can go on go on.
    fn pause(&self) {
        self.sleep(Duration::from_millis(200));
    }

    fn sleep(&self, duration: Duration) {
        let world = self.world.clone();
        let sleep = async move { world.sleep(duration).await };
        self.world.run(STEPS, sleep).unwrap();
    }
}

fn secret_with(raida: RaidaId) -> SharedSecret {
    SharedSecret::new(&[raida.get() + 1; 16])
}

fn key(mark: [u8; 4], number: u8) -> An {
    let mut bytes = [number; 16];
    bytes[12..].copy_from_slice(&mark);
    An::new(bytes)
}

fn locker(number: u8) -> LockerKey {
    LockerKey::new(key([0xff; 4], number)).unwrap()
}

fn offer_key(price: u32) -> TradeKey {
    let mut bytes = [6; 16];
    bytes[9..13].copy_from_slice(&price.to_be_bytes());
    bytes[13..].copy_from_slice(&[0, 0xee, 0xee]);
    TradeKey::new(An::new(bytes)).unwrap()
}

fn address() -> Address {
    Address::new(b"an address of twenty").unwrap()
}

fn payload(compose: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    compose(&mut payload);
    payload
}

/// Everything that changes coins, each of a kind that would be done if the coin were free.
fn commands(trial: &Trial, coins: &Coins) -> Vec<(Command, Vec<u8>)> {
    let Coins {
        plain,
        other,
        in_locker,
        for_sale,
        free,
    } = *coins;
    let admin = AdminKey::new(ADMIN);
    let minute = Minute::of_unix_seconds(trial.meshes[0].shard().environment.unix_seconds());
    let tickets: Vec<Presented> = RaidaId::all()
        .filter(|helper| *helper != OWN)
        .zip([Half::First, Half::Second].into_iter().cycle())
        .map(|(helper, half)| Presented {
            helper,
            half,
            ticket: secret_with(helper).seal(&Voucher {
                part: split(An::new(std::array::from_fn(|at| at as u8)))[half as usize],
                coin: plain,
                minute: minute.low_bits(),
            }),
        })
        .collect();
    let offer = Offer {
        currency: Currency::CloudCoin,
        value: Value::of([for_sale]).unwrap(),
        price: Price::new(5),
    };
    vec![
        (
            Command::Pown,
            payload(|out| Pown::compose([(plain, an(1), an(9))], out)),
        ),
        (
            Command::Pown,
            payload(|out| Pown::compose([(plain, an(1), an(9)), (other, an(2), an(9))], out)),
        ),
        (
            Command::Pown, // into a locker
            payload(|out| Pown::compose([(plain, an(1), locker(8).an())], out)),
        ),
        (
            Command::PownSum,
            payload(|out| PownSum::compose([plain], an(1), an(8), out)),
        ),
        (
            Command::StoreSum,
            payload(|out| StoreSum::compose([plain, other], an(1) ^ an(2), locker(8), out)),
        ),
        (
            Command::StoreMultiple,
            payload(|out| StoreMultiple::compose([([plain], an(1), locker(8))], out)),
        ),
        (
            Command::Remove,
            payload(|out| Remove::compose(locker(3), [(in_locker, an(9))], out)),
        ),
        (
            Command::PutForSale,
            payload(|out| PutForSale::compose([plain], an(1), offer_key(7), &address(), out)),
        ),
        (
            Command::RemoveTrade,
            payload(|out| RemoveTrade::compose(offer_key(5), Some(locker(8)), out)),
        ),
        // A buyer who has paid prevents the seller from taking it back.
        (
            Command::Buy,
            payload(|out| {
                Buy {
                    into: locker(8),
                    offer,
                    transaction: Payment::new([1; 32]),
                    receipt: ReceiptId::new([2; 16]),
                    memo: Memo::new(b"mine").unwrap(),
                }
                .compose(out);
            }),
        ),
        (
            Command::CreateCoins,
            payload(|out| CreateCoins::compose(SESSION, &admin, [free], out)),
        ),
        (
            Command::DeleteCoins,
            payload(|out| DeleteCoins::compose(&admin, [(plain, an(1))], out)),
        ),
        (
            Command::FreeCoins,
            payload(|out| FreeCoins::compose(SESSION, &admin, [plain], out)),
        ),
        (
            Command::Fix,
            payload(|out| {
                let ticket = |raida| (raida != OWN).then(|| TicketId::new(77).unwrap());
                Fix::compose([plain], &PartialGenerator::new([5; 16]), ticket, out);
            }),
        ),
        (
            Command::FixEncryption,
            payload(|out| FixEncryption::compose(plain, &tickets, out)),
        ),
    ]
}

#[test]
fn every_command_is_refused_at_once_where_too_many_wait_for_a_coin() {
    for (shards, core) in [(1, 0), (2, 0), (2, 1)] {
        for dialect in [Dialect::Spec, Dialect::Raidax] {
            let mut trial = Trial::start(shards, dialect);
            let mut coins = Coins {
                plain: coin(0),
                other: coin(1),
                in_locker: PageId::from_index(2).unwrap().coin(9),
                for_sale: PageId::from_index(3).unwrap().coin(9),
                free: PageId::from_index(0).unwrap().coin(9), // for now
            };
            trial.give(&[
                (coins.plain, an(1)),
                (coins.other, an(2)),
                (coins.in_locker, an(3)),
                (coins.for_sale, an(4)),
            ]);
            let stored = payload(|out| {
                StoreSum::compose([coins.in_locker], an(3), locker(3), out);
            });
            let put = payload(|out| {
                PutForSale::compose([coins.for_sale], an(4), offer_key(5), &address(), out);
            });
            for (command, payload) in [(Command::StoreSum, stored), (Command::PutForSale, put)] {
                assert_eq!(trial.status(core, command, &payload), Status::ALL_PASS);
            }

            // Tickets for a key that are from before a change, or from before the start, are no
            // good.
            (0..16).for_each(|_| trial.sleep(Duration::from_secs(50)));
            let reserved = payload(|out| {
                let one = Denomination::from_index(0);
                AvailableSns::compose(SESSION, &AdminKey::new(ADMIN), one, out);
            });
            let answer = trial.ask(core, Command::AvailableSns, &reserved);
            let first = u32::from_be_bytes(answer[35..39].try_into().unwrap());
            coins.free = Coin {
                denomination: Denomination::from_index(0).unwrap(),
                serial_number: SerialNumber::new(first).unwrap(),
            };
            let all = [coins.plain, coins.in_locker, coins.for_sale, coins.free];
            let holders: Vec<TransactionId> = (0..)
                .zip(all)
                .map(|(number, coin)| trial.crowd(coin, number))
                .collect();
            trial.pause();
            let owner = coins.plain.page().owner(shards).index();
            for number in 0..EXCHANGES_MAX as u8 {
                // Whatever the number: nobody knows what becomes of a coin that is held.
                let wrong = an(77 + number);
                let payload = payload(|out| Pown::compose([(coins.plain, wrong, an(76))], out));
                let (outcome, _) = trial.begin(owner, Command::Pown, &payload);
                assert!(matches!(outcome, Outcome::Parked(_)));
            }

            for (command, payload) in commands(&trial, &coins) {
                let answer = trial.ask(core, command, &payload);
                let status = Status::new(answer[2]);
                let healing = matches!(command.group(), 2 | 4);
                let refused = match healing && dialect == Dialect::Spec {
                    true => Status::HEALING_OUT_OF_MEMORY,
                    false => Status::OUT_OF_MEMORY,
                };
                let what = (shards, core, dialect, command.name(), payload.len());
                assert_eq!(status, refused, "{what:?}: {answer:x?}");
            }

            // All is as it was, and goes on as soon as the coins are let go.
            for (&coin, &id) in all.iter().zip(&holders) {
                trial.release(coin, id);
            }
            trial.pause();
            for mesh in &trial.meshes {
                assert_eq!(mesh.shard().change_counts().waiting, 0);
            }
            let still = payload(|out| {
                let same = [(coins.plain, an(1), an(1)), (coins.other, an(2), an(2))];
                Pown::compose(same, out);
            });
            assert_eq!(trial.status(core, Command::Pown, &still), Status::ALL_PASS);
            let removed = payload(|out| {
                Remove::compose(locker(3), [(coins.in_locker, an(9))], out);
            });
            assert_eq!(
                trial.status(core, Command::Remove, &removed),
                Status::ALL_PASS
            );
            let again = commands(&trial, &coins);
            let buys = again.iter().find(|(command, _)| *command == Command::Buy);
            let (command, payload) = buys.expect("it is among them");
            assert_eq!(trial.status(core, *command, payload), Status::ALL_PASS);
        }
    }
}
