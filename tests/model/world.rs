//! The model: a plain map of coins, and what a node has to answer whose coins these are.

use std::collections::{BTreeMap, BTreeSet};

use raida::{
    coin::{An, Coin, Denomination},
    protocol::{PassFail, Status, executive::AllSns, pass_fail::Bitmap},
};

use crate::ask::{Ask, Named};

/// A coin that is in circulation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Under this AN.
    Known(An),
    /// Under an AN that the answer to this request tells, so that nobody can know it before.
    Awaited(u64),
}

/// The coins of one client, which no other touches.
#[derive(Clone, Default)]
pub struct World {
    circulating: BTreeMap<Coin, Value>,
    /// Pages reserved for sessions: (session, denomination, page).
    pub reserved: BTreeSet<(u32, Denomination, u16)>,
    pub counts: Counts,
}

/// What the client's requests add to the node's counters.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    pub echoes: u64,
    pub coins_powned: u64,
    pub value_powned: u64,
}

/// What has to be answered.
pub enum Expected {
    Exactly(Status, Vec<u8>),
    /// 250 and eight printable characters.
    Version,
    /// 250 and counters at least these.
    Stats(Counts),
    /// 250 and these counts for these denominations; others belong to other clients.
    Audit(Vec<(Denomination, u32)>),
    /// 250 and serial numbers none of which is in circulation.
    AvailableSns {
        session: u32,
        denominations: Vec<Denomination>,
        circulating: BTreeSet<Coin>,
    },
    /// 250 and an AN for each of these coins, which were created by this request.
    Created(u64, Vec<Coin>),
}

impl World {
    /// A world in which these coins are in circulation.
    pub fn new(coins: impl IntoIterator<Item = (Coin, An)>) -> World {
        let coins = coins.into_iter();
        World {
            circulating: coins.map(|(coin, an)| (coin, Value::Known(an))).collect(),
            ..World::default()
        }
    }

    /// A coin's value; `None` where it is free.
    pub fn value(&self, coin: Coin) -> Option<Value> {
        self.circulating.get(&coin).copied()
    }

    /// A coin's AN; `None` where it is free or nobody can know it.
    pub fn an(&self, coin: Coin) -> Option<An> {
        match self.value(coin) {
            Some(Value::Known(an)) => Some(an),
            Some(Value::Awaited(_)) | None => None,
        }
    }

    /// Coins in circulation.
    pub fn coins(&self) -> impl Iterator<Item = Coin> {
        self.circulating.keys().copied()
    }

    /// Keys of lockers that coins lie in.
    pub fn locker_keys(&self) -> impl Iterator<Item = An> {
        let known = self.circulating.values().filter_map(|value| match value {
            Value::Known(an) => Some(*an),
            Value::Awaited(_) => None,
        });
        known.filter(An::is_locker_key)
    }

    /// Coins of a denomination that are in circulation.
    pub fn count(&self, denomination: Denomination) -> u32 {
        let coins = self.coins();
        coins.filter(|c| c.denomination == denomination).count() as u32
    }

    /// What the answer to request `id` is, and what it changes.
    pub fn answer(&mut self, ask: &Ask, id: u64, denominations: &[Denomination]) -> Expected {
        match ask {
            Ask::Echo => {
                self.counts.echoes += 1;
                Expected::Exactly(Status::SUCCESS, vec![])
            }
            Ask::Version => Expected::Version,
            Ask::Stats => Expected::Stats(self.counts),
            Ask::Audit => {
                let counts = denominations.iter().map(|&d| (d, self.count(d)));
                Expected::Audit(counts.collect())
            }
            Ask::Detect(records) => {
                let passed = records.iter().map(|&(coin, an)| self.is(coin, an));
                pass_fail(&passed.collect::<Vec<_>>())
            }
            Ask::Pown(records) => {
                let mut passed = Vec::new();
                for &(coin, an, new) in records {
                    passed.push(self.is(coin, an));
                    if let Some(coin) = coin.filter(|&coin| self.is(Some(coin), an)) {
                        self.circulating.insert(coin, Value::Known(new));
                        self.count_powned(coin);
                    }
                }
                pass_fail(&passed)
            }
            Ask::DeleteCoins(records) => {
                let mut passed = Vec::new();
                for &(coin, an) in records {
                    passed.push(self.is(coin, an));
                    if let Some(coin) = coin.filter(|&coin| self.is(Some(coin), an)) {
                        self.circulating.remove(&coin);
                    }
                }
                pass_fail(&passed)
            }
            Ask::DetectSum(coins, sum) => match all(coins) {
                None => status(Status::INVALID_COIN),
                Some(coins) => status(verdict(self.sum(&coins) == Some(*sum))),
            },
            Ask::PownSum(coins, sum, delta) => {
                let Some(coins) = all(coins) else {
                    return status(Status::INVALID_COIN);
                };
                let is_right = self.sum(&coins) == Some(*sum);
                for coin in coins.into_iter().filter(|_| is_right) {
                    let an = self.an(coin).expect("it is part of a sum");
                    self.circulating.insert(coin, Value::Known(an ^ *delta));
                    self.count_powned(coin);
                }
                status(verdict(is_right))
            }
            Ask::AvailableSns(session, denominations) => Expected::AvailableSns {
                session: *session,
                denominations: denominations.clone(),
                circulating: self.coins().collect(),
            },
            Ask::CreateCoins(session, coins) => {
                let Some(coins) = all(coins) else {
                    return status(Status::INVALID_COIN);
                };
                if has_twice(&coins) {
                    return status(Status::INVALID_COIN);
                }
                let is_reserved = |c: &Coin| {
                    let page = c.page();
                    let place = (*session, page.denomination(), page.number());
                    self.reserved.contains(&place)
                };
                if !coins.iter().all(is_reserved) {
                    return status(Status::NOT_RESERVED);
                }
                if coins.iter().any(|c| self.circulating.contains_key(c)) {
                    return status(Status::INVALID_COIN);
                }
                let created = coins.iter().map(|&coin| (coin, Value::Awaited(id)));
                self.circulating.extend(created);
                Expected::Created(id, coins)
            }
            Ask::FreeCoins(coins) => {
                let Some(coins) = all(coins) else {
                    return status(Status::INVALID_COIN);
                };
                coins.iter().for_each(|coin| {
                    self.circulating.remove(coin);
                });
                status(Status::SUCCESS)
            }
            Ask::AllSns(denomination) => {
                let mut bitmap = vec![0; AllSns::REPLY_SIZE];
                for coin in self.coins().filter(|c| c.denomination == *denomination) {
                    let sn = coin.serial_number.get() as usize;
                    bitmap[sn / 8] |= 1 << (sn % 8);
                }
                Expected::Exactly(Status::SUCCESS, bitmap)
            }
        }
    }

    /// Request `id` has created this coin under this AN.
    pub fn learn(&mut self, id: u64, coin: Coin, an: An) {
        if let Some(value) = self.circulating.get_mut(&coin)
            && *value == Value::Awaited(id)
        {
            *value = Value::Known(an);
        }
    }

    /// The XOR of the ANs, where all are in circulation and known and none is named twice.
    fn sum(&self, coins: &[Coin]) -> Option<An> {
        if has_twice(coins) {
            return None;
        }
        let mut ans = coins.iter().map(|&coin| self.an(coin));
        ans.try_fold(An::ZERO, |sum, an| Some(sum ^ an?))
    }

    fn is(&self, coin: Named, an: An) -> bool {
        coin.is_some_and(|coin| self.an(coin) == Some(an))
    }

    fn count_powned(&mut self, coin: Coin) {
        self.counts.coins_powned += 1;
        self.counts.value_powned += coin.denomination.worth_units();
    }
}

fn all(coins: &[Named]) -> Option<Vec<Coin>> {
    coins.iter().copied().collect()
}

fn has_twice(coins: &[Coin]) -> bool {
    coins.iter().collect::<BTreeSet<_>>().len() < coins.len()
}

fn status(status: Status) -> Expected {
    Expected::Exactly(status, vec![])
}

fn verdict(passed: bool) -> Status {
    if passed {
        Status::ALL_PASS
    } else {
        Status::ALL_FAIL
    }
}

fn pass_fail(passed: &[bool]) -> Expected {
    let mut payload = Vec::new();
    let mut answer = PassFail::begin(&mut payload, passed.len());
    let records = passed.iter().enumerate();
    records
        .filter(|(_, passed)| **passed)
        .for_each(|(record, _)| answer.pass(record));
    let status = answer.finish(Bitmap::IfMixed);
    Expected::Exactly(status, payload)
}
