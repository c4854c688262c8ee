//! What a client may ask, and its payload.

use raida::{
    coin::{An, Coin, Denomination},
    protocol::{
        AdminKey, Command,
        authentication::{Detect, DetectSum, Pown, PownSum},
        executive::{AllSns, AvailableSns, CreateCoins, DeleteCoins, FreeCoins, SessionId},
        status_group::Stats,
    },
};

use crate::real_node::ADMIN_KEY;

/// A coin as a request names it; `None`: one that cannot exist.
pub type Named = Option<Coin>;

/// A request, in the terms of the model.
#[derive(Clone)]
pub enum Ask {
    Echo,
    Version,
    Stats,
    Audit,
    Detect(Vec<(Named, An)>),
    DetectSum(Vec<Named>, An),
    Pown(Vec<(Named, An, An)>),
    PownSum(Vec<Named>, An, An),
    AvailableSns(u32, Vec<Denomination>),
    CreateCoins(u32, Vec<Named>),
    DeleteCoins(Vec<(Named, An)>),
    FreeCoins(Vec<Named>),
    AllSns(Denomination),
}

const COIN_SIZE: usize = Coin::SIZE;
const DETECT_SIZE: usize = Coin::SIZE + An::SIZE;
const POWN_SIZE: usize = Coin::SIZE + 2 * An::SIZE;
const KEY_SIZE: usize = AdminKey::SIZE;
const SESSION_SIZE: usize = SessionId::SIZE;

impl Ask {
    pub fn command(&self) -> Command {
        match self {
            Ask::Echo => Command::Echo,
            Ask::Version => Command::Version,
            Ask::Stats => Command::Stats,
            Ask::Audit => Command::Audit,
            Ask::Detect(_) => Command::Detect,
            Ask::DetectSum(..) => Command::DetectSum,
            Ask::Pown(_) => Command::Pown,
            Ask::PownSum(..) => Command::PownSum,
            Ask::AvailableSns(..) => Command::AvailableSns,
            Ask::CreateCoins(..) => Command::CreateCoins,
            Ask::DeleteCoins(_) => Command::DeleteCoins,
            Ask::FreeCoins(_) => Command::FreeCoins,
            Ask::AllSns(_) => Command::AllSns,
        }
    }

    /// Where the admin key stands in the payload, where there is one.
    pub fn admin_key_at(&self) -> Option<usize> {
        match self {
            Ask::Stats | Ask::DeleteCoins(_) | Ask::AllSns(_) => Some(0),
            Ask::AvailableSns(..) | Ask::CreateCoins(..) | Ask::FreeCoins(_) => Some(SESSION_SIZE),
            _ => None,
        }
    }

    pub fn payload(&self) -> Vec<u8> {
        let key = AdminKey::new(ADMIN_KEY);
        let mut out = Vec::new();
        match self {
            Ask::Echo | Ask::Version | Ask::Audit => {}
            Ask::Stats => Stats::compose(&key, &mut out),
            Ask::Detect(records) => {
                Detect::compose(records.iter().map(|&(c, an)| (some(c), an)), &mut out);
                spoil(&mut out, 0, DETECT_SIZE, records.iter().map(|(c, _)| *c));
            }
            Ask::DetectSum(coins, sum) => {
                DetectSum::compose(coins.iter().copied().map(some), *sum, &mut out);
                spoil(&mut out, 0, COIN_SIZE, coins.iter().copied());
            }
            Ask::Pown(records) => {
                let written = records.iter().map(|&(c, an, new)| (some(c), an, new));
                Pown::compose(written, &mut out);
                spoil(&mut out, 0, POWN_SIZE, records.iter().map(|(c, ..)| *c));
            }
            Ask::PownSum(coins, sum, delta) => {
                PownSum::compose(coins.iter().copied().map(some), *sum, *delta, &mut out);
                spoil(&mut out, 0, COIN_SIZE, coins.iter().copied());
            }
            Ask::AvailableSns(session, denominations) => {
                let session = SessionId::new(*session);
                AvailableSns::compose(session, &key, denominations.iter().copied(), &mut out);
            }
            Ask::CreateCoins(session, coins) => {
                let session = SessionId::new(*session);
                CreateCoins::compose(session, &key, coins.iter().copied().map(some), &mut out);
                let at = SESSION_SIZE + KEY_SIZE;
                spoil(&mut out, at, COIN_SIZE, coins.iter().copied());
            }
            Ask::DeleteCoins(records) => {
                let written = records.iter().map(|&(c, an)| (some(c), an));
                DeleteCoins::compose(&key, written, &mut out);
                let coins = records.iter().map(|(c, _)| *c);
                spoil(&mut out, KEY_SIZE, DETECT_SIZE, coins);
            }
            Ask::FreeCoins(coins) => {
                let session = SessionId::new(0);
                FreeCoins::compose(session, &key, coins.iter().copied().map(some), &mut out);
                let at = SESSION_SIZE + KEY_SIZE;
                spoil(&mut out, at, COIN_SIZE, coins.iter().copied());
            }
            Ask::AllSns(denomination) => AllSns::compose(&key, *denomination, &mut out),
        }
        out
    }
}

/// Stands in for a coin that cannot exist until it is spoilt.
fn some(coin: Named) -> Coin {
    coin.unwrap_or_else(|| Coin::from_bytes(&[0; Coin::SIZE]).expect("coin 0 of denomination 0"))
}

/// Makes the denominations of coins that cannot exist impossible: records of `size` bytes, from `at`.
fn spoil(payload: &mut [u8], at: usize, size: usize, coins: impl Iterator<Item = Named>) {
    for (record, coin) in coins.enumerate() {
        if coin.is_none() {
            payload[at + record * size] = 7;
        }
    }
}
