use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Setup;
use crate::coin::{An, Coin};
use crate::load::at_rest::AtRest;
use crate::load::choice::Choice;
use crate::load::purse::Held;
use crate::load::side_door::{Chore, ChoreError, SideDoor};
use crate::protocol::lockers::{LockerKey, Remove, StoreSum};
use crate::protocol::{Command, Status};

/// Coins in lots of a request's size, each for a locker of its own. Coins that already lie in
/// lockers form lots as they lie; others are grouped in the order of the choice.
pub(in crate::load) struct Lots {
    /// Lot after lot, then the coins left over.
    coins: Vec<Held>,
    size: usize,
    count: usize,
}

impl Lots {
    /// # Panics
    /// When lots would have no coin, or lockers have another number of coins.
    pub(super) fn new(setup: Setup) -> Lots {
        let size = setup.coins_per_request;
        assert!(size > 0);
        let mut coins = setup.coins;
        if !coins.is_empty() && coins.iter().all(Held::is_in_locker) {
            coins.sort_by_key(|held| *held.an().expose());
            let are_whole = |lots: &[Held]| {
                lots.chunk_by(|a, b| a.an() == b.an())
                    .all(|lot| lot.len() == size)
            };
            assert!(
                are_whole(&coins),
                "every locker has as many coins as a request"
            );
        } else {
            coins = chosen(coins, size, setup.choice);
        }
        Lots {
            count: coins.len() / size,
            coins,
            size,
        }
    }

    /// Each coin alone.
    pub(in crate::load) fn of_one(coins: Vec<Held>) -> Lots {
        Lots {
            count: coins.len(),
            coins,
            size: 1,
        }
    }

    /// Number of lots.
    pub(in crate::load) fn len(&self) -> usize {
        self.count
    }

    pub(in crate::load) fn lot(&self, lot: usize) -> &[Held] {
        &self.coins[lot * self.size..][..self.size]
    }

    pub(in crate::load) fn lot_mut(&mut self, lot: usize) -> &mut [Held] {
        &mut self.coins[lot * self.size..][..self.size]
    }

    pub(in crate::load) fn coins(&self, lot: usize) -> impl Iterator<Item = Coin> + Clone {
        self.lot(lot).iter().map(|held| held.coin)
    }

    /// The XOR of a lot's numbers.
    pub(in crate::load) fn sum(&self, lot: usize) -> An {
        let ans = self.lot(lot).iter().map(Held::an);
        ans.fold(An::ZERO, |sum, an| sum ^ an)
    }

    /// The number that all coins of a lot have that lie under one key.
    pub(in crate::load) fn key(&self, lot: usize) -> An {
        self.lot(lot)[0].an()
    }

    pub(in crate::load) fn got(&mut self, lot: usize, an: An) {
        self.lot_mut(lot).iter_mut().for_each(|held| held.got(an));
    }

    pub(in crate::load) fn may_have_got(&mut self, lot: usize, an: An) {
        let held = self.lot_mut(lot).iter_mut();
        held.for_each(|held| held.may_have_got(an));
    }

    /// A change in doubt was not made: the coins have this number, or their numbers of before.
    pub(in crate::load) fn is_settled(&mut self, lot: usize, an: Option<An>) {
        for held in self.lot_mut(lot) {
            held.got(an.unwrap_or(held.an()));
        }
    }

    /// Puts lots into lockers under keys that nobody had before, and returns which lots lie there.
    pub(in crate::load) fn store(
        &mut self,
        lots: impl IntoIterator<Item = usize>,
        door: &SideDoor,
        mut stored: impl FnMut(usize),
    ) -> Result<(), ChoreError> {
        let rng = &mut SmallRng::from_rng(&mut rand::rng());
        let tasks: Vec<(usize, An, LockerKey)> = lots
            .into_iter()
            .map(|lot| (lot, self.sum(lot), locker_key(rng)))
            .collect();
        let mut answers = Vec::with_capacity(tasks.len());
        let asked = door.ask(
            Chore::Store,
            SideDoor::IN_FLIGHT_MAX,
            &tasks,
            |&(lot, sum, key), payload| {
                StoreSum::compose(self.coins(lot), sum, key, payload);
                Command::StoreSum
            },
            |&(lot, _, key), status| {
                answers.push((lot, key.an(), status));
                status == Some(Status::ALL_PASS)
            },
        );
        for (lot, key, status) in answers {
            match status {
                Some(Status::ALL_PASS) => {
                    self.got(lot, key);
                    stored(lot);
                }
                Some(status) if !status.is_verdict() => {}
                _ => self.may_have_got(lot, key),
            }
        }
        asked
    }

    /// Takes lots out of their lockers, each coin under its own number again, and returns which of
    /// these lots lie in no locker now, including those that lay in none before.
    ///
    /// A node accepts no sum as a proof where it contains coins of one locker in pairs. From their
    /// locker such coins can be neither stored nor put up for sale.
    pub(super) fn take_out(
        &mut self,
        lots: impl IntoIterator<Item = usize>,
        door: &SideDoor,
        mut at_large: impl FnMut(usize),
    ) -> Result<(), ChoreError> {
        let lies_in_locker = |&lot: &usize| self.lot(lot)[0].is_in_locker();
        let (stored, others): (Vec<usize>, Vec<usize>) = lots.into_iter().partition(lies_in_locker);
        others.into_iter().for_each(&mut at_large);
        let mut answers = Vec::with_capacity(stored.len());
        let asked = door.ask(
            Chore::TakeOut,
            SideDoor::IN_FLIGHT_MAX,
            &stored,
            |&lot, payload| {
                let key = LockerKey::new(self.key(lot)).expect("the lot lies in a locker");
                let records = self.lot(lot).iter();
                let records = records.map(|held| (held.coin, held.own_an()));
                Remove::compose(key, records, payload);
                Command::Remove
            },
            |&lot, status| {
                answers.push((lot, status));
                status == Some(Status::ALL_PASS)
            },
        );
        for (lot, status) in answers {
            let coins = self.lot_mut(lot).iter_mut();
            match status {
                Some(Status::ALL_PASS) => {
                    coins.for_each(|held| held.got(held.own_an()));
                    at_large(lot);
                }
                Some(status) if !status.is_verdict() => {}
                // Which of its coins were taken out is no longer relevant.
                _ => coins.for_each(|held| held.may_have_got(held.own_an())),
            }
        }
        asked
    }

    pub(in crate::load) fn into_coins(self) -> Vec<Held> {
        self.coins
    }
}

/// The coins in the order in which one request after the other takes them.
fn chosen(coins: Vec<Held>, size: usize, choice: Choice) -> Vec<Held> {
    let names: Vec<Coin> = coins.iter().map(|held| held.coin).collect();
    let rng = &mut SmallRng::from_rng(&mut rand::rng());
    // Then favourites are lots, not coins.
    let choice = match choice {
        Choice::Zipf { .. } => Choice::Uniform,
        other => other,
    };
    let mut at_rest = AtRest::new(choice, &names, rng);
    let mut order = Vec::with_capacity(coins.len());
    while at_rest.take(size, rng, &mut order) {}
    while at_rest.take(1, rng, &mut order) {}
    order.into_iter().map(|coin| coins[coin]).collect()
}

/// The key of a new locker.
pub(super) fn locker_key(rng: &mut SmallRng) -> LockerKey {
    let mut bytes = [0xff; An::SIZE];
    rng.fill_bytes(&mut bytes[..12]);
    LockerKey::new(An::new(bytes)).expect("its last four bytes are FF")
}
