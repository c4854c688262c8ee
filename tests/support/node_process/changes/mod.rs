//! Coins that change hands over many connections at once, and what may be left after a node was
//! killed, stopped, or refused some of the changes.
//!
//! | file | what it is |
//! |---|---|
//! | `load` | one connection's load: what it knows of coins, powns, and what answers mean |
//! | `trading` | the requests of group 8 in that load |
//! | `healing` | fixes of encryption in that load |
//! | `commons` | what the connections of one load know together |
//! | `judge` | what was found of the coins, held against what was answered |
//! | `lockers` | what was found in lockers, on offer and paid, held against the coins |

mod commons;
pub mod healing;
mod judge;
pub mod load;
mod lockers;
mod trading;

use std::collections::BTreeMap;
use std::time::Instant;

use raida::client::Client;
use raida::coin::{An, Coin, ShardId};
use raida::protocol::lockers::{Buy, LockerKey, Memo, Offer, ReceiptId, TradeKey, TransactionId};
use raida::protocol::{Command, Status};
use rand::RngExt;
use rand::rngs::StdRng;

use super::NodeProcess;
use healing::KeyFix;

/// An AN as a number, so that it can be looked up.
pub type Value = u128;

/// A request, or the part of one that concerns one locker, and what became of it.
pub struct Change {
    pub command: Command,
    /// What it would do to coins; nothing where it only looks.
    pub parts: Vec<Part>,
    pub outcome: Outcome,
    /// The purchase that it is.
    bought: Option<Bought>,
    /// The fix of encryption that it is.
    key_fix: Option<KeyFix>,
    /// Nothing of it may ever be done: it claims coins by a key that proves nothing, by a wrong
    /// sum, or by tickets that were used.
    is_forbidden: bool,
    /// The connection that it was sent on, whose changes take effect in their order.
    connection: usize,
    sent: Instant,
    /// When the answer was read.
    answered: Option<Instant>,
}

/// What a request would do to one coin.
#[derive(Clone, Copy)]
pub struct Part {
    pub coin: usize,
    pub old: Value,
    /// `None`: out of circulation. No coin comes to the same value twice in one load, save that it
    /// may be stored again in the locker where it is.
    pub new: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There is no answer.
    Open,
    /// Which parts were made.
    Answered(Vec<bool>),
    /// Not done, for this reason.
    Refused(Status),
}

/// A purchase, as its buyer asked for it.
#[derive(Clone, Copy)]
struct Bought {
    transaction: [u8; 32],
    offer: Offer,
    into: LockerKey,
}

/// The coins, and what each one's AN is while nothing runs.
#[derive(Default)]
pub struct Book {
    pub coins: Vec<Coin>,
    pub values: Vec<Value>,
    /// What lies under each locker's and trade locker's key, in the order stored.
    lockers: BTreeMap<Value, Vec<Coin>>,
    /// What is on offer, for each currency in the order in which it was offered.
    offers: Vec<TradeKey>,
    /// What was bought.
    bought: Vec<Bought>,
    /// Fixes of encryption whose tickets were accepted, the newest last.
    key_fixes: Vec<KeyFix>,
    /// Fixes that were not made, and had no answer: their tickets may be used or not.
    open_key_fixes: Vec<KeyFix>,
}

impl Book {
    pub fn new(coins: Vec<(Coin, An)>) -> Book {
        Book {
            values: coins.iter().map(|(_, an)| value(*an)).collect(),
            coins: coins.into_iter().map(|(coin, _)| coin).collect(),
            ..Book::default()
        }
    }

    /// A coin's AN.
    pub fn an(&self, coin: usize) -> An {
        an(self.values[coin])
    }

    pub fn coin_and_an(&self, coin: usize) -> (Coin, An) {
        (self.coins[coin], self.an(coin))
    }

    /// Adds a coin that was put into circulation.
    pub fn add(&mut self, coin: Coin, an: An) {
        self.coins.push(coin);
        self.values.push(value(an));
    }

    /// Notes a change that was made.
    pub fn set(&mut self, coin: usize, an: An) {
        self.values[coin] = value(an);
    }

    /// Asks the node which values the coins have now and what lies in lockers, is on offer and was
    /// paid, holds that against what was answered and what was not, and takes it over. Returns the
    /// parts of the changes that were made.
    pub fn settle(
        &mut self,
        node: &NodeProcess,
        shards: u16,
        history: &[Change],
    ) -> Vec<Vec<bool>> {
        let mut client = node.client();
        let found = self.find_values(&mut client, history);
        let mut applied = self.judge(shards, history, &found);
        self.settle_lockers(&mut client, history, &found, &mut applied);
        self.settle_purchases(&mut client, history, &applied);
        self.settle_key_fixes(history, &applied);
        let both = self.coins.iter().zip(found);
        let left: Vec<(Coin, Value)> = both.filter_map(|(c, value)| Some((*c, value?))).collect();
        (self.coins, self.values) = left.into_iter().unzip();
        self.assert_all_in_circulation(&mut client);
        self.assert_offers_are_kept_from_others(&mut client);
        applied
    }

    /// Asserts that every coin has its value and no other coin is there, that lockers hold what
    /// they held in the same order, and the same is on offer and paid.
    pub fn assert_kept(&self, node: &NodeProcess) {
        let mut client = node.client();
        let found = self.find_values(&mut client, &[]);
        let values: Vec<Option<Value>> = self.values.iter().copied().map(Some).collect();
        assert_eq!(found, values);
        self.assert_all_in_circulation(&mut client);
        self.assert_lockers_kept(&mut client);
    }

    fn assert_all_in_circulation(&self, client: &mut Client) {
        let counted: u32 = client.audit().unwrap().0.iter().sum();
        assert_eq!(counted as usize, self.coins.len());
    }
}

impl Change {
    /// Whether it makes all its parts or none, whatever their coins' values are.
    fn is_whole(&self) -> bool {
        !matches!(self.command, Command::Pown | Command::Remove)
    }

    /// Whether it presents tickets that were accepted before, and is answered.
    pub fn is_replay(&self) -> bool {
        self.is_forbidden && self.key_fix.is_some() && self.outcome != Outcome::Open
    }

    /// Whether it stores coins where they are: all that changes is their order.
    fn stores_again(&self) -> bool {
        self.parts.iter().any(|part| part.new == Some(part.old))
    }
}

impl Bought {
    /// The request, which is the same each time.
    fn buy(&self) -> Buy<'static> {
        Buy {
            into: self.into,
            offer: self.offer,
            transaction: TransactionId::new(self.transaction),
            receipt: ReceiptId::new([7; 16]),
            memo: Memo::new(b"the same each time").expect("18 bytes"),
        }
    }
}

fn owner(coin: Coin, shards: u16) -> ShardId {
    coin.page().owner(shards)
}

fn value(an: An) -> Value {
    Value::from_be_bytes(*an.expose())
}

fn an(value: Value) -> An {
    An::new(value.to_be_bytes())
}

/// The key of a locker that a value is.
fn locker(value: Value) -> Option<LockerKey> {
    LockerKey::new(an(value))
}

/// The key of a trade locker that a value is: no other value that is drawn here has its form.
fn trade(value: Value) -> Option<TradeKey> {
    TradeKey::new(an(value))
}

/// Draws a value that puts no coin into a locker, and none of these XOR it.
fn draw(random: &mut StdRng, olds: &[Value]) -> Value {
    loop {
        let drawn = random.random();
        let mut all = olds.iter().map(|old| old ^ drawn).chain([drawn]);
        if !all.any(|value| an(value).is_marked()) {
            return drawn;
        }
    }
}

/// Draws the key of a locker that nothing is in yet.
fn draw_locker(random: &mut StdRng) -> LockerKey {
    let mut bytes: [u8; 16] = random.random();
    bytes[12..].fill(0xff);
    LockerKey::new(An::new(bytes)).expect("the mark of a locker")
}
