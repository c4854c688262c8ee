//! Encryption tickets that every client has, of coins that belong to all. Nobody can predict who is
//! first, but each ticket is taken from one of them, once; and a coin has a number whose two halves
//! came in one request, or the number that it had.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard},
};

use raida::coin::{An, Coin};
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};

use crate::{
    ask::{Ask, Layout, Presented},
    other_servers::{Part, Voucher, seal},
};

/// Coins, and what is raced for.
#[derive(Default)]
pub struct Races {
    races: Mutex<Vec<Race>>,
    /// The latest minute of tickets that a number came of.
    latest_written: Mutex<Option<u64>>,
}

struct Race {
    coin: Coin,
    /// Numbers that it may have.
    numbers: Vec<An>,
    tickets: Vec<Raced>,
    /// What was presented, each once: the same again would be the same request.
    tried: HashSet<Vec<u8>>,
    /// The minute in which it got the last of them.
    newest: Option<u64>,
    /// Whether that minute, and the node's start, are long enough ago for the tickets to be valid.
    is_fresh: bool,
    is_written: bool,
}

/// A ticket, good when the race begins.
#[derive(Clone)]
struct Raced {
    presented: Presented,
    part: Part,
    minute: u64,
    is_tried: bool,
    is_taken: bool,
    /// The coin may have got its number since the ticket was made.
    is_too_early: bool,
}

/// What one client presents.
pub struct Try {
    race: usize,
    tickets: Vec<Presented>,
}

impl Try {
    pub fn ask(&self, races: &Races) -> Ask {
        Ask::FixEncryption {
            coin: Some(races.races()[self.race].coin),
            layout: Layout::Long,
            tickets: self.tickets.clone(),
        }
    }
}

impl Races {
    pub fn add(&self, coin: Coin, an: An) {
        self.races().push(Race {
            coin,
            numbers: vec![an],
            tickets: vec![],
            tried: HashSet::new(),
            newest: None,
            is_fresh: false,
            is_written: false,
        });
    }

    /// Nobody talks: helpers make tickets in this minute, for two numbers of each coin, on a node
    /// that was started in that one.
    pub fn begin(&self, minute: u64, started: u64, random: &mut StdRng) {
        for race in self.races().iter_mut() {
            let coin = race.coin;
            race.is_fresh = minute > race.newest.unwrap_or(started) + 1;
            race.is_written = false;
            let tickets = (0..4).map(|place: u8| {
                let part = random.random();
                let helper = place + 2;
                Raced {
                    presented: Presented {
                        helper,
                        half: place % 2,
                        of: Some(coin),
                        ticket: seal(helper, &Voucher { part, coin, minute }),
                    },
                    part,
                    minute,
                    is_tried: false,
                    is_taken: false,
                    is_too_early: false,
                }
            });
            race.tickets = tickets.collect();
            race.tried.clear();
        }
    }

    /// Some of the tickets of some coin, in some order.
    pub fn enter(&self, random: &mut StdRng) -> Try {
        let mut races = self.races();
        let (number, order) = loop {
            let number = random.random_range(0..races.len());
            let race = &mut races[number];
            let mut order: Vec<u8> = (0..race.tickets.len() as u8).collect();
            order.shuffle(random);
            order.truncate(random.random_range(1..=order.len()));
            if race.tried.insert(order.clone()) {
                break (number, order);
            }
        };
        let tried = order.into_iter().map(|place| {
            let ticket = &mut races[number].tickets[usize::from(place)];
            ticket.is_tried = true;
            ticket.presented
        });
        Try {
            race: number,
            tickets: tried.collect(),
        }
    }

    /// What the node has answered to that: a byte for each ticket.
    pub fn note(&self, tried: &Try, accepted: &[u8]) {
        assert_eq!(
            accepted.len(),
            tried.tickets.len(),
            "an answer of another size"
        );
        let mut races = self.races();
        let race = &mut races[tried.race];
        let mut taken: Vec<(Presented, Part)> = vec![];
        for (presented, accepted) in tried.tickets.iter().zip(accepted) {
            let same = |raced: &&mut Raced| raced.presented.ticket == presented.ticket;
            let raced = race.tickets.iter_mut().find(same);
            let raced = raced.expect("a ticket of this race");
            match *accepted {
                0 => {}
                1 => {
                    assert!(!raced.is_taken, "a ticket was taken twice");
                    assert!(race.is_fresh, "a ticket was taken that is too early");
                    raced.is_taken = true;
                    taken.push((*presented, raced.part));
                }
                255 => raced.is_too_early = true,
                other => panic!("neither taken nor refused: {other}"),
            }
        }
        let of_half = |half| {
            taken
                .iter()
                .find(move |(presented, _)| presented.half == half)
        };
        if let (Some((_, front)), Some((_, back))) = (of_half(0), of_half(1)) {
            let number = [*front, *back].concat();
            let written = race.tickets[0].minute;
            let mut latest = self.latest_written.lock().expect("no client has failed");
            *latest = (*latest).max(Some(written));
            race.numbers
                .push(An::new(number.try_into().expect("two halves")));
            assert!(!race.is_written, "written twice with tickets of one minute");
            race.is_written = true;
        }
    }

    /// No client sends: each presented ticket was taken once, or came when the coin had its number
    /// already. Returns each coin and the numbers that it may have.
    pub fn end(&self) -> Vec<(Coin, Vec<An>)> {
        let mut races = self.races();
        let ended = races.iter_mut().map(|race| {
            let may_be_too_early = race.is_written || !race.is_fresh;
            let is_right = |raced: &Raced| match raced.is_tried {
                true => raced.is_taken || raced.is_too_early && may_be_too_early,
                false => !raced.is_taken,
            };
            assert!(
                race.tickets.iter().all(is_right),
                "nobody's ticket was taken"
            );
            if race.is_written {
                race.newest = Some(race.tickets[0].minute);
            }
            (race.coin, race.numbers.clone())
        });
        ended.collect()
    }

    /// The node was started again, in a minute that it goes by where it has seen no change.
    pub fn node_has_restarted(&self) {
        for race in self.races().iter_mut() {
            race.newest = None;
        }
    }

    /// A coin turned out to have this number.
    pub fn settle(&self, coin: Coin, number: An) {
        let mut races = self.races();
        let race = races.iter_mut().find(|race| race.coin == coin);
        race.expect("a coin that is raced for").numbers = vec![number];
    }

    /// The latest minute of tickets that a number came of, ever.
    pub fn latest_written(&self) -> Option<u64> {
        *self.latest_written.lock().expect("no client has failed")
    }

    fn races(&self) -> MutexGuard<'_, Vec<Race>> {
        self.races.lock().expect("no client has failed")
    }
}
