//! What a client may ask, and its payload.

use raida::{
    coin::{An, Coin, Denomination},
    protocol::{
        AdminKey, Command, Protection,
        authentication::{Detect, DetectSum, Pown, PownDerive, PownSum},
        executive::{AllSns, AvailableSns, CreateCoins, DeleteCoins, FreeCoins, SessionId},
        lockers::{
            Address, Buy, Currency, ListForSale, LockerKey, Memo, Offer, Peek, PeekTrade, Price,
            PutForSale, ReceiptId, Remove, RemoveTrade, StoreMultiple, StoreSum, TradeKey,
            TradeName, TradePart, TransactionId,
        },
        status_group::Stats,
    },
};

use crate::{
    other_servers::{Part, Ticket},
    real_node::{ADMIN_KEY, COIN_ID, RAIDA},
};

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
    /// With the numbers from which the proof is made, and the delta.
    PownDerive(Vec<(Named, An)>, An),
    AvailableSns(u32, Vec<Denomination>),
    CreateCoins(u32, Vec<Named>),
    DeleteCoins(Vec<(Named, An)>),
    FreeCoins(Vec<Named>),
    AllSns(Denomination),
    StoreSum(Store),
    StoreMultiple(Vec<Store>),
    Peek(An),
    Remove(An, Vec<(Named, An)>),
    PutForSale {
        store: Store,
        address: Seller,
    },
    ListForSale {
        currency: Currency,
        most: u8,
    },
    Buy {
        into: An,
        offer: Offer,
        transaction: u8,
    },
    RemoveTrade(An, Option<An>),
    /// By a key or a public id.
    PeekTrade(An),
    EncryptionTicket(Vouch),
    FixEncryption {
        coin: Named,
        layout: Layout,
        tickets: Vec<Presented>,
    },
}

/// Vouch for a client at another server.
#[derive(Clone)]
pub struct Vouch {
    /// The server; it may be none.
    pub broken: u8,
    pub coin: Named,
    pub part: Part,
    pub proof: Proof,
    /// What the request comes under.
    pub protection: Protection,
}

/// How a client proves that a coin is its own.
#[derive(Clone, Copy)]
pub enum Proof {
    /// The request comes under the coin's number.
    Key,
    /// It names the number. With the denomination of the key id, which may be wrong.
    Number { key_id: u8, an: An },
}

/// How tickets are presented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Short,
    Long,
}

/// A ticket as it is presented: whose it is said to be and which half is said to be in it, which
/// may be none.
#[derive(Clone, Copy)]
pub struct Presented {
    pub helper: u8,
    pub half: u8,
    /// In the long layout, whose coin it is said to be of.
    pub of: Named,
    pub ticket: Ticket,
}

/// Coins, what the XOR of their ANs is said to be, and the key they are to come under, which may be
/// none.
#[derive(Clone)]
pub struct Store {
    pub coins: Vec<Named>,
    pub sum: An,
    pub key: An,
}

/// Where a seller wants to be paid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seller {
    Somewhere,
    /// An address too short to be one.
    Nowhere,
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
            Ask::PownDerive(..) => Command::PownDerive,
            Ask::AvailableSns(..) => Command::AvailableSns,
            Ask::CreateCoins(..) => Command::CreateCoins,
            Ask::DeleteCoins(_) => Command::DeleteCoins,
            Ask::FreeCoins(_) => Command::FreeCoins,
            Ask::AllSns(_) => Command::AllSns,
            Ask::StoreSum(_) => Command::StoreSum,
            Ask::StoreMultiple(_) => Command::StoreMultiple,
            Ask::Peek(_) => Command::Peek,
            Ask::Remove(..) => Command::Remove,
            Ask::PutForSale { .. } => Command::PutForSale,
            Ask::ListForSale { .. } => Command::ListForSale,
            Ask::Buy { .. } => Command::Buy,
            Ask::RemoveTrade(..) => Command::RemoveTrade,
            Ask::PeekTrade(_) => Command::PeekTrade,
            Ask::EncryptionTicket(_) => Command::EncryptionTicket,
            Ask::FixEncryption { .. } => Command::FixEncryption,
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
            Ask::PownDerive(known, delta) => {
                let written = known.iter().map(|&(c, an)| (some(c), an));
                PownDerive::compose(RAIDA, written, *delta, &mut out);
                spoil(&mut out, 0, COIN_SIZE, known.iter().map(|(c, _)| *c));
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
            Ask::StoreSum(store) => {
                StoreSum::compose(store.written(), store.sum, a_locker(), &mut out);
                store.spoil(&mut out, 0);
            }
            Ask::StoreMultiple(stores) => {
                let written = stores.iter().map(|s| (s.written(), s.sum, a_locker()));
                StoreMultiple::compose(written, &mut out);
                let mut at = 1;
                for store in stores {
                    at += 2;
                    store.spoil(&mut out, at);
                    at += store.coins.len() * COIN_SIZE + 2 * An::SIZE;
                }
            }
            Ask::Peek(key) => {
                Peek::compose(a_locker(), &mut out);
                put(&mut out, 0, *key);
            }
            Ask::Remove(key, records) => {
                let written = records.iter().map(|&(coin, an)| (some(coin), an));
                Remove::compose(a_locker(), written, &mut out);
                put(&mut out, 0, *key);
                let coins = records.iter().map(|(coin, _)| *coin);
                spoil(&mut out, An::SIZE, DETECT_SIZE, coins);
            }
            Ask::PutForSale { store, address } => {
                let somewhere = Address::new(&[b'a'; Address::LENGTH_MIN]).expect("long enough");
                let (written, key) = (store.written(), a_trade_locker());
                PutForSale::compose(written, store.sum, key, &somewhere, &mut out);
                store.spoil(&mut out, 0);
                if *address == Seller::Nowhere {
                    out[store.coins.len() * COIN_SIZE + 2 * An::SIZE] -= 1;
                }
            }
            &Ask::ListForSale { currency, most } => {
                ListForSale { currency, most }.compose(&mut out);
            }
            &Ask::Buy {
                into,
                offer,
                transaction,
            } => {
                let buy = Buy {
                    into: a_locker(),
                    offer,
                    transaction: TransactionId::new([transaction; TransactionId::SIZE]),
                    receipt: ReceiptId::new([3; ReceiptId::SIZE]),
                    memo: Memo::new(b"for the model").expect("13 bytes"),
                };
                buy.compose(&mut out);
                put(&mut out, 0, into);
            }
            &Ask::RemoveTrade(key, into) => {
                RemoveTrade::compose(a_trade_locker(), into.map(|_| a_locker()), &mut out);
                put(&mut out, 0, key);
                if let Some(into) = into {
                    put(&mut out, An::SIZE, into);
                }
            }
            Ask::PeekTrade(name) => {
                PeekTrade::compose(
                    TradeName::from(a_trade_locker()),
                    TradePart::Coins,
                    &mut out,
                );
                put(&mut out, 0, *name);
            }
            Ask::EncryptionTicket(vouch) => vouch.compose(&mut out),
            Ask::FixEncryption {
                coin,
                layout,
                tickets,
            } => {
                out.extend_from_slice(&bytes(*coin));
                if *layout == Layout::Short {
                    out.push(tickets.len() as u8);
                }
                tickets
                    .iter()
                    .for_each(|ticket| ticket.compose(*layout, &mut out));
            }
        }
        out
    }
}

impl Vouch {
    fn compose(&self, out: &mut Vec<u8>) {
        match self.proof {
            Proof::Key => {
                out.push(self.broken);
                out.extend_from_slice(&bytes(self.coin));
                out.extend_from_slice(&self.part);
            }
            Proof::Number { key_id, an } => {
                // Whatever comes after the thousands says nothing.
                let serial_number = u32::from(self.broken) * 1_000 + u32::from(self.part[0]);
                out.push(key_id);
                out.extend_from_slice(&serial_number.to_be_bytes());
                out.extend_from_slice(&self.part);
                out.extend_from_slice(&bytes(self.coin));
                out.extend_from_slice(an.expose());
            }
        }
    }
}

impl Presented {
    fn compose(&self, layout: Layout, out: &mut Vec<u8>) {
        match layout {
            Layout::Short => out.extend_from_slice(&[self.helper, self.half, 0]),
            Layout::Long => {
                let [high, low] = COIN_ID.to_be_bytes();
                out.extend_from_slice(&[self.helper, high, low, self.half, 0]);
                out.extend_from_slice(&bytes(self.of));
            }
        }
        out.extend_from_slice(&self.ticket);
    }
}

impl Store {
    fn written(&self) -> impl Iterator<Item = Coin> {
        self.coins.iter().copied().map(some)
    }

    /// Writes the real value over its placeholder in a payload, from `at`.
    fn spoil(&self, payload: &mut [u8], at: usize) {
        spoil(payload, at, COIN_SIZE, self.coins.iter().copied());
        put(
            payload,
            at + self.coins.len() * COIN_SIZE + An::SIZE,
            self.key,
        );
    }
}

/// Placeholder for a key, which the right key replaces; there may be none.
fn a_locker() -> LockerKey {
    LockerKey::new(An::new([0xff; An::SIZE])).expect("the mark of a locker")
}

/// The same for the key of a trade locker.
fn a_trade_locker() -> TradeKey {
    TradeKey::of(
        [0; TradeKey::SECRET_SIZE],
        Price::new(0),
        Currency::CloudCoin,
    )
}

fn put(payload: &mut [u8], at: usize, an: An) {
    payload[at..at + An::SIZE].copy_from_slice(an.expose());
}

fn bytes(coin: Named) -> [u8; Coin::SIZE] {
    let mut bytes = some(coin).to_bytes();
    spoil(&mut bytes, 0, Coin::SIZE, [coin].into_iter());
    bytes
}

/// Placeholder for a coin that cannot exist, until its denomination is made impossible.
fn some(coin: Named) -> Coin {
    coin.unwrap_or_else(|| Coin::from_bytes(&[0; Coin::SIZE]).expect("coin 0 of denomination 0"))
}

/// Makes the denominations of coins that cannot exist impossible: records of `size` bytes, from
/// `at`.
fn spoil(payload: &mut [u8], at: usize, size: usize, coins: impl Iterator<Item = Named>) {
    for (record, coin) in coins.enumerate() {
        if coin.is_none() {
            payload[at + record * size] = 7;
        }
    }
}
