//! Any header, any body, any length, split at any byte, over TCP and UDP: the node answers with the
//! status of docs/protocol.md or not at all, and nobody else notices.
//!
//! What is sent is random, or a right request that was damaged. A few lines here say after
//! docs/protocol.md which answers are possible; meanwhile other clients have all their right
//! answers.
//!
//! `RAIDA_GARBAGE_SEED=<number>` sends the same again.

#[path = "support/real_node/mod.rs"]
mod real_node;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use raida::service::DatagramRules;
use raida::{
    coin::{An, Coin, Denomination, Mfs, PageId},
    protocol::{
        AdminKey, Command, Dialect, Protection, RaidaId, ResponseCounter, Status, TRAILER,
        authentication::{Detect, DetectSum, Pown, PownDerive, PownSum},
        challenge::Challenge,
        executive::{AllSns, AvailableSns, CreateCoins, DeleteCoins, SessionId},
        healing::{Find, Fix, GetTicket, PartialGenerator, TicketId, Validate, in_dialect},
        key_healing::{
            self, EncryptionTicket, FixEncryption, GetEncryptionTicket, Half, Presented,
        },
        lockers::{
            Address, Buy, Currency, ListForSale, LockerKey, Memo, Offer, Peek, PeekTrade, Price,
            PutForSale, ReceiptId, Remove, RemoveTrade, StoreMultiple, StoreSum, TradeKey,
            TradePart, TransactionId, Value,
        },
        status_group::Stats,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use real_node::{
    ADMIN_KEY, COIN_ID, PATIENCE, RAIDA, RealNode,
    wire::{Wire, compose},
};

/// Longest body that the node here takes, bytes.
const BODY_MAX: usize = 256 * 1024;
const STREAMS: usize = 800;
const DATAGRAMS: usize = 8_000;
/// Bytes by which resident memory may grow under garbage: far fewer than garbage asks for.
const GROWTH_MAX: usize = 64 << 20;
/// Few pages, since garbage names any page, and a page in memory is no leak.
const CACHE_PAGES: usize = 256;
/// Connections that announce a long body and send little of it.
const ANNOUNCERS: usize = 400;

// Where types 4 and 5 differ from the others in a header.
const HEADER_MIN: usize = 32;
const HEADER_MAX: usize = 48;

fn seed() -> u64 {
    let seed = match std::env::var("RAIDA_GARBAGE_SEED") {
        Ok(seed) => seed.parse().expect("RAIDA_GARBAGE_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("a clock after 1970").as_nanos() as u64
        }
    };
    // Shown where the test fails.
    println!("RAIDA_GARBAGE_SEED={seed}");
    seed
}

/// What a node may answer to the request at the front of some bytes.
#[derive(Debug)]
struct Verdict {
    /// Any of these; none: silence.
    statuses: Vec<Status>,
    /// Bytes of the answer's header.
    header: usize,
    /// The answer's group and echo bytes.
    group: u8,
    echo: [u8; 2],
    /// Bytes of the request, where it is known where it ends.
    length: Option<usize>,
}

/// What happens to a datagram.
enum OfDatagram {
    Silence,
    Answer(Verdict),
    /// It is answered if its key is right; the test does not check that here.
    ByItsKey,
}

/// docs/protocol.md, "Amplification" and "Refusals over UDP".
fn judge_datagram(bytes: &[u8], dialect: Dialect) -> OfDatagram {
    if is_answer_like(bytes) {
        return OfDatagram::Silence;
    }
    let Some(mut verdict) = judge(bytes, dialect, true) else {
        return OfDatagram::Silence;
    };
    if verdict.statuses == [Status::UNKNOWN_VERSION] {
        return OfDatagram::Silence;
    }
    if bytes.len() < REFUSED_BYTES_MIN {
        let is_served = verdict.statuses.contains(&Status::SUCCESS);
        let is_bare = verdict.length == Some(verdict.header);
        return match (is_served && is_bare, bytes[16]) {
            (false, _) => OfDatagram::Silence,
            (true, 0) => OfDatagram::Answer(verdict),
            (true, _) => OfDatagram::ByItsKey,
        };
    }
    let may_be_long = matches!(
        Command::from_codes(bytes[4], bytes[5]),
        Some(
            Command::Audit
                | Command::Peek
                | Command::PeekTrade
                | Command::ListForSale
                | Command::AvailableSns
                | Command::AllSns
                | Command::CreateCoins
                | Command::Validate
        )
    );
    if may_be_long
        && !verdict
            .statuses
            .iter()
            .all(|status| status.is_header_refusal())
    {
        verdict.statuses.push(Status::ASK_OVER_TCP);
    }
    OfDatagram::Answer(verdict)
}

/// Whether a server can have answered this: it has the number of one, a status that there is, and
/// the length that its header says, and no 1, 1 where a request has that.
fn is_answer_like(bytes: &[u8]) -> bool {
    if bytes.len() < HEADER_MIN || bytes[0] > 24 || bytes[1] != 0 || bytes[8] != 0 {
        return false;
    }
    let body = u32::from_be_bytes([0, bytes[9], bytes[10], bytes[11]]) as usize;
    let is_plain =
        bytes[4..6] == [0, 1] && bytes[14..16] != [1, 1] && bytes.len() == HEADER_MIN + body;
    let is_verified =
        [4, 5].contains(&bytes[16]) && bytes[14..16] == [0, 0] && bytes.len() == HEADER_MAX + body;
    Status::new(bytes[2]).name() != "unknown" && (is_plain || is_verified)
}

/// docs/protocol.md section 3, for the bytes of a request that have come; `None` where more must
/// come.
fn judge(bytes: &[u8], dialect: Dialect, is_datagram: bool) -> Option<Verdict> {
    if bytes.len() < HEADER_MIN {
        return None;
    }
    let knows_version = bytes[0] == 1 || bytes[0] == 0 && dialect == Dialect::Spec;
    let kind = bytes[16];
    let knows_framing = knows_version && [0, 1, 2, 4, 5].contains(&kind);
    let is_verified = knows_framing && kind >= 4;
    let header = if is_verified { HEADER_MAX } else { HEADER_MIN };
    if is_datagram && bytes.len() < header {
        return None;
    }
    let number = |at: usize, size: usize| {
        let bytes = bytes[at..at + size].iter();
        bytes.fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let mut body = if is_verified {
        number(17, 2)
    } else {
        number(22, 2)
    };
    if !is_verified && body == 0xffff {
        body = number(24, 4);
    }
    let echo = bytes.get(header - 2..header);
    let mut verdict = Verdict {
        statuses: vec![],
        header,
        group: 0,
        echo: echo.map_or([0; 2], |echo| [echo[0], echo[1]]),
        length: (knows_framing && body <= BODY_MAX).then_some(header + body),
    };
    let command = Command::from_codes(bytes[4], bytes[5]);
    let checks = [
        (knows_version, Status::UNKNOWN_VERSION),
        (bytes[1] == 0, Status::WRONG_SPLIT),
        (bytes[2] == RAIDA.get(), Status::WRONG_RAIDA),
        (bytes[4] <= 15, Status::UNKNOWN_GROUP),
        (bytes[3] <= 3, Status::WRONG_SHARD),
        (command.is_some(), Status::UNKNOWN_COMMAND),
        (number(6, 2) == usize::from(COIN_ID), Status::WRONG_COIN_ID),
        (knows_framing, Status::UNKNOWN_ENCRYPTION),
        (body <= BODY_MAX, Status::INVALID_LENGTH),
    ];
    if let Some((_, status)) = checks.iter().find(|(is_right, _)| !is_right) {
        // It is answered as soon as 32 bytes are there, so perhaps without the echo bytes.
        if !is_datagram && is_verified {
            verdict.echo = [0; 2];
        }
        verdict.statuses = vec![*status];
        return Some(verdict);
    }
    let command = command.expect("checked");
    if bytes.len() < header + body {
        if !is_datagram {
            return None;
        }
        verdict.group = bytes[4];
        verdict.statuses = vec![Status::INVALID_LENGTH];
        return Some(verdict);
    }
    verdict.group = bytes[4];
    verdict.statuses = body_statuses(command, kind, dialect, &bytes[header..header + body]);
    Some(verdict)
}

/// docs/protocol.md sections 3 and 5, for a body that is whole. Whether a key is right is not
/// looked at.
fn body_statuses(command: Command, kind: u8, dialect: Dialect, body: &[u8]) -> Vec<Status> {
    let unread = match kind {
        0 => vec![],
        1 | 2 => vec![Status::KEY_NOT_FOUND, Status::WRONG_CHALLENGE],
        _ => vec![Status::UNKNOWN_KEY_COIN, Status::WRONG_HMAC],
    };
    let mut served = match command {
        Command::Echo | Command::Version | Command::Audit => vec![Status::SUCCESS],
        Command::Stats => vec![
            Status::INVALID_LENGTH,
            Status::WRONG_ADMIN_KEY,
            Status::SUCCESS,
        ],
        Command::Detect | Command::Pown => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::ALL_PASS,
            Status::ALL_FAIL,
            Status::MIXED,
        ],
        Command::GetTicket | Command::GetTicketSum | Command::Fix => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::NO_TICKET_SLOT,
            Status::INVALID_COIN,
            Status::ALL_PASS,
            Status::ALL_FAIL,
            Status::MIXED,
        ],
        Command::Validate => vec![
            Status::INVALID_LENGTH,
            Status::NO_SUCH_TICKET,
            Status::TICKET_CLAIMED,
            Status::RAIDA_OUT_OF_RANGE,
            Status::SUCCESS,
        ],
        // The node shares no secrets.
        Command::EncryptionTicket => vec![
            Status::INVALID_LENGTH,
            Status::RAIDA_OUT_OF_RANGE,
            Status::INVALID_COIN,
            Status::KEY_NOT_FOUND,
        ],
        Command::FixEncryption => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::INVALID_COIN,
            Status::RAIDA_OUT_OF_RANGE,
        ],
        Command::Find => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::INVALID_COIN,
            Status::NEITHER,
            Status::ALL_AN,
            Status::ALL_PAN,
            Status::FOUND_MIXED,
        ],
        // Of several coins: only the one dialect takes them.
        Command::PownSum => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::INVALID_COIN,
            Status::INVALID_PARAMETER,
            Status::ALL_PASS,
            Status::ALL_FAIL,
        ],
        Command::DetectSum | Command::PownDerive => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::INVALID_COIN,
            Status::ALL_PASS,
            Status::ALL_FAIL,
        ],
        Command::AvailableSns | Command::CreateCoins | Command::FreeCoins | Command::AllSns => {
            vec![
                Status::INVALID_LENGTH,
                Status::WRONG_ADMIN_KEY,
                Status::UNEVEN_RECORDS,
                Status::INVALID_COIN,
                Status::NOT_RESERVED,
                Status::SUCCESS,
            ]
        }
        Command::StoreSum => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::WRONG_LOCKER_KEY,
            Status::INVALID_COIN,
            Status::ALL_PASS,
            Status::ALL_FAIL,
        ],
        Command::StoreMultiple => vec![
            Status::INVALID_LENGTH,
            Status::INVALID_PARAMETER,
            Status::ALL_PASS,
            Status::ALL_FAIL,
            Status::MIXED,
        ],
        Command::Peek | Command::PeekTrade => {
            vec![Status::INVALID_LENGTH, Status::ALL_PASS, Status::ALL_FAIL]
        }
        Command::Remove => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::ALL_PASS,
            Status::ALL_FAIL,
            Status::MIXED,
        ],
        Command::PutForSale => vec![
            Status::INVALID_LENGTH,
            Status::UNEVEN_RECORDS,
            Status::UNKNOWN_CURRENCY,
            Status::WRONG_LOCKER_KEY,
            Status::INVALID_PARAMETER,
            Status::INVALID_COIN,
            Status::OFFER_EXISTS,
            Status::ALL_PASS,
            Status::ALL_FAIL,
        ],
        Command::ListForSale => vec![
            Status::INVALID_LENGTH,
            Status::UNKNOWN_CURRENCY,
            Status::ALL_PASS,
        ],
        Command::Buy => vec![
            Status::INVALID_LENGTH,
            Status::INVALID_PARAMETER,
            Status::UNKNOWN_CURRENCY,
            Status::NO_SUCH_OFFER,
            Status::PAYMENT_PENDING,
            Status::NO_SETTLEMENT,
        ],
        Command::RemoveTrade => vec![
            Status::INVALID_LENGTH,
            Status::WRONG_LOCKER_KEY,
            Status::ALL_PASS,
            Status::ALL_FAIL,
        ],
        Command::DeleteCoins => vec![
            Status::INVALID_LENGTH,
            Status::WRONG_ADMIN_KEY,
            Status::UNEVEN_RECORDS,
            Status::ALL_PASS,
            Status::ALL_FAIL,
            Status::MIXED,
        ],
    };
    if command.heals() {
        for status in &mut served {
            *status = in_dialect(*status, dialect);
        }
    }
    let is_verified = kind >= 4;
    let shortest = if is_verified { 34 } else { 2 };
    let is_bare = body.is_empty();
    if is_bare && !command.takes_no_body() {
        return vec![Status::EMPTY_BODY];
    }
    if is_bare && [1, 2].contains(&kind) && command != Command::Echo {
        // What it answers would show key stream.
        return vec![Status::EMPTY_BODY];
    }
    if !is_bare && body.len() < shortest {
        return vec![Status::INVALID_LENGTH];
    }
    if !is_bare && !body.ends_with(&TRAILER) {
        return vec![Status::WRONG_TRAILER];
    }
    if !is_bare && !is_verified && body.len() < 18 {
        return vec![Status::INVALID_LENGTH];
    }
    if let (0, Some(challenge)) = (kind, body.first_chunk())
        && !is_bare
        && !Challenge::read(*challenge).is_right()
    {
        return vec![Status::WRONG_CHALLENGE];
    }
    [served, unread].concat()
}

/// The answers to a stream, in order; whether the node closes after the last.
fn judge_stream(mut bytes: &[u8], dialect: Dialect) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    while let Some(verdict) = judge(bytes, dialect, false) {
        let length = verdict.length;
        verdicts.push(verdict);
        match length {
            Some(length) => bytes = bytes.get(length..).unwrap_or_default(),
            None => break,
        }
    }
    verdicts
}

/// Length of the shortest datagram that gets a refusal.
const REFUSED_BYTES_MIN: usize = 50;
/// How many times its request an answer may be, over UDP.
const AMPLIFICATION: usize = 10;

/// The statuses that have been answered.
type Seen = [bool; 256];

/// Statuses that garbage must get sooner or later: all that section 3 and groups 0, 1 and 3 know.
const ANSWERED: [u8; 23] = [
    2, 3, 4, 5, 6, 7, 16, 25, 27, 33, 34, 36, 37, 38, 39, 40, 41, 204, 241, 242, 243, 250, 255,
];

/// Removes the answer at the front, which must be a possible one.
fn check<'a>(verdict: &Verdict, answer: &'a [u8], request: &[u8], seen: &mut Seen) -> &'a [u8] {
    let shown = || {
        let front = &request[..request.len().min(64)];
        format!(
            "{verdict:?}\n  request {front:02x?}\n  answer {:02x?}",
            &answer[..answer.len().min(48)]
        )
    };
    assert!(answer.len() >= verdict.header, "no answer: {}", shown());
    let status = Status::new(answer[2]);
    assert!(verdict.statuses.contains(&status), "{}", shown());
    seen[usize::from(answer[2])] = true;
    assert_eq!(answer[..2], [RAIDA.get(), 0], "{}", shown());
    assert_eq!(answer[3], verdict.group, "{}", shown());
    let echo = if verdict.header == HEADER_MAX { 46 } else { 6 };
    // A refusal may know the echo bytes or not, by how much of the header was there.
    let is_echo = answer[echo..echo + 2] == verdict.echo || verdict.echo == [0; 2];
    assert!(is_echo, "{}", shown());
    let body = u32::from_be_bytes([0, answer[9], answer[10], answer[11]]) as usize;
    assert!(answer.len() >= verdict.header + body, "cut: {}", shown());
    let (this, rest) = answer.split_at(verdict.header + body);
    assert!(body == 0 || this.ends_with(&TRAILER), "{}", shown());
    rest
}

/// Makes up requests, right and wrong.
struct Maker {
    random: StdRng,
    coins: Vec<(Coin, An)>,
    locker: An,
    next: u64,
}

impl Maker {
    fn new(seed: u64, coins: &[(Coin, An, Mfs)]) -> Maker {
        Maker {
            random: StdRng::seed_from_u64(seed),
            coins: coins.iter().map(|&(coin, an, _)| (coin, an)).collect(),
            locker: coins.last().expect("some").1,
            next: seed,
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.random.random()).collect()
    }

    fn protection(&mut self) -> Protection {
        let mut coin = || *self.coins.choose(&mut self.random).expect("some");
        let ((coin, an), other) = (coin(), coin());
        match self.random.random_range(0..5) {
            0 => Protection::None,
            1 => Protection::Coin(coin, an),
            2 => Protection::Locker(self.locker),
            3 => Protection::CoinHmac(coin, an),
            _ => Protection::TwoCoinsHmac((coin, an), other),
        }
    }

    /// A payload that the command takes, or one that starts like it, or anything. Free coins comes
    /// without the admin key: damaged, it would free the coins of others.
    fn payload(&mut self, command: Command) -> Vec<u8> {
        let mut out = Vec::new();
        let count = self.random.random_range(1..30).min(self.coins.len());
        let coins: Vec<(Coin, An)> = self
            .coins
            .sample(&mut self.random, count)
            .copied()
            .collect();
        let named = || coins.iter().map(|(coin, _)| *coin);
        let key = AdminKey::new(ADMIN_KEY);
        let session = SessionId::new(7);
        let sum = coins.iter().fold(An::ZERO, |sum, (_, an)| sum ^ *an);
        let wrong_sum = An::new([0x77; 16]);
        let no_locker = LockerKey::new(An::new([0xff; 16])).expect("a locker's key");
        let no_trade = TradeKey::of([0x33; 9], Price::new(4), Currency::Monero);
        match command {
            Command::Echo | Command::Version | Command::Audit => {}
            Command::Stats => Stats::compose(&key, &mut out),
            Command::Detect => Detect::compose(coins.iter().copied(), &mut out),
            Command::DetectSum => DetectSum::compose(named(), sum, &mut out),
            Command::Pown => {
                // To what it is already: later requests find the same coins.
                Pown::compose(coins.iter().map(|&(c, an)| (c, an, an)), &mut out);
            }
            Command::PownSum => PownSum::compose(named(), sum, An::ZERO, &mut out),
            Command::PownDerive => {
                // With wrong numbers: right ones would change the coins.
                let wrong = coins.iter().map(|&(c, an)| (c, an ^ wrong_sum));
                PownDerive::compose(RAIDA, wrong, sum, &mut out);
            }
            Command::GetTicket => GetTicket::compose(coins.iter().copied(), &mut out),
            Command::GetTicketSum => DetectSum::compose(named(), sum, &mut out),
            Command::Validate => {
                let ticket = TicketId::new(self.random.random_range(1..=u32::MAX));
                Validate::compose(RAIDA, ticket.expect("not 0"), &mut out);
            }
            Command::Find => Find::compose(coins.iter().map(|&(c, an)| (c, sum, an)), &mut out),
            Command::Fix => {
                let generator = PartialGenerator::new([7; 16]);
                Fix::compose(
                    named(),
                    &generator,
                    |raida| TicketId::new(raida.get().into()),
                    &mut out,
                );
            }
            Command::EncryptionTicket => {
                let (coin, an) = coins[0];
                GetEncryptionTicket {
                    broken: RaidaId::new(self.random.random_range(0..25)).expect("below 25"),
                    coin,
                    part: key_healing::split(sum)[0],
                    an: self.random.random_bool(0.5).then_some(an),
                }
                .compose(&mut out);
            }
            Command::FixEncryption => {
                let presented = |half| Presented {
                    helper: RAIDA,
                    half,
                    ticket: EncryptionTicket::new(*sum.expose()),
                };
                let halves = [Half::First, Half::Second].map(presented);
                FixEncryption::compose(coins[0].0, &halves, &mut out);
            }
            Command::AvailableSns => {
                let all = Denomination::all();
                AvailableSns::compose(session, &key, all, &mut out);
            }
            Command::CreateCoins => CreateCoins::compose(session, &key, named(), &mut out),
            Command::DeleteCoins => {
                let wrong = coins.iter().map(|&(coin, an)| (coin, an ^ sum));
                DeleteCoins::compose(&key, wrong, &mut out);
            }
            Command::FreeCoins => return self.any_bytes(),
            // With wrong sums and keys of lockers that are not there: the coins stay what they are.
            Command::StoreSum => StoreSum::compose(named(), wrong_sum, no_locker, &mut out),
            Command::StoreMultiple => {
                let lockers = coins
                    .iter()
                    .map(|&(coin, _)| ([coin], wrong_sum, no_locker));
                StoreMultiple::compose(lockers, &mut out);
            }
            Command::Peek => {
                let key = LockerKey::new(self.locker).expect("a locker's key");
                Peek::compose(key, &mut out);
            }
            Command::Remove => Remove::compose(no_locker, coins.iter().copied(), &mut out),
            Command::PutForSale => {
                let address = Address::new(&[b'a'; 16]).expect("16 bytes");
                PutForSale::compose(named(), wrong_sum, no_trade, &address, &mut out);
            }
            Command::ListForSale => ListForSale {
                currency: Currency::Monero,
                most: 9,
            }
            .compose(&mut out),
            Command::Buy => Buy {
                into: no_locker,
                offer: Offer {
                    currency: Currency::Monero,
                    value: Value::from_units(7),
                    price: no_trade.price(),
                },
                transaction: TransactionId::new([5; 32]),
                receipt: ReceiptId::new([6; 16]),
                memo: Memo::new(b"thanks").expect("6 bytes"),
            }
            .compose(&mut out),
            Command::PeekTrade => PeekTrade::compose(no_trade.into(), TradePart::Coins, &mut out),
            Command::RemoveTrade => RemoveTrade::compose(no_trade, Some(no_locker), &mut out),
            Command::AllSns => AllSns::compose(&key, coins[0].0.denomination, &mut out),
        }
        match self.random.random_range(0..4) {
            0 => out.truncate(self.random.random_range(0..=out.len())),
            1 => out.extend(self.any_bytes()),
            _ => {}
        }
        out
    }

    fn any_bytes(&mut self) -> Vec<u8> {
        let length = match self.random.random_range(0..10) {
            0..6 => self.random.random_range(0..100),
            6..9 => self.random.random_range(0..2_000),
            _ => self.random.random_range(0..20_000),
        };
        self.bytes(length)
    }

    /// A request whose frame is right, whatever it holds.
    fn framed(&mut self) -> Vec<u8> {
        let commands: Vec<Command> = Command::all().collect();
        let command = *commands.choose(&mut self.random).expect("some");
        let protection = self.protection();
        let payload = match self.random.random_range(0..10) {
            0 => None,
            1 if command != Command::FreeCoins => Some(self.any_bytes()),
            _ => Some(self.payload(command)),
        };
        self.next += 1;
        compose(command, protection, payload.as_deref(), self.next).bytes
    }

    /// A request that was damaged, or bytes that never were one.
    fn damaged(&mut self) -> Vec<u8> {
        let mut bytes = self.framed();
        for _ in 0..self.random.random_range(1..3) {
            let at = self.random.random_range(0..bytes.len().max(1));
            match self.random.random_range(0..12) {
                0..3 if !bytes.is_empty() => bytes[at] ^= 1 << self.random.random_range(0..8),
                3 if !bytes.is_empty() => {
                    let at = at % 32.min(bytes.len());
                    bytes[at] = self.random.random();
                }
                4 => bytes.truncate(at),
                5 => bytes.extend(self.any_bytes()),
                6..9 if bytes.len() >= 32 => self.change_length(&mut bytes),
                9 if bytes.len() >= 32 => {
                    bytes[16] = self.random.random_range(0..7);
                }
                10 if bytes.len() >= 32 => {
                    // Types 4 and 5 whose header is cut short.
                    bytes[16] = self.random.random_range(4..6);
                    bytes.truncate(self.random.random_range(32..=48));
                }
                11 => {
                    let random = self.any_bytes();
                    let from = self.random.random_range(0..32).min(bytes.len());
                    bytes.truncate(from);
                    bytes.extend(random);
                }
                _ => {}
            }
        }
        bytes
    }

    /// Has the header claim another length: a little off, none, the longest, too long, or far too
    /// long in the long form.
    fn change_length(&mut self, bytes: &mut [u8]) {
        let at = if bytes[16] >= 4 { 17 } else { 22 };
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let near = old
            .wrapping_add(self.random.random_range(0..5))
            .wrapping_sub(2);
        let length = [near, 0, 1, 2, 17, 18, 33, 34, 0xfffe, 0xffff];
        let length = *length.choose(&mut self.random).expect("some");
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        if at == 22 && length == 0xffff {
            let long = [
                0,
                18,
                old.into(),
                BODY_MAX as u32,
                BODY_MAX as u32 + 1,
                u32::MAX,
            ];
            let long = *long.choose(&mut self.random).expect("some");
            bytes[24..28].copy_from_slice(&long.to_be_bytes());
        }
    }
}

/// Sends bytes in pieces of any size and gives all that is answered.
fn stream(node: SocketAddr, bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut stream = TcpStream::connect(node).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = match random.random_range(0..4) {
            0 => random.random_range(1..=8),
            1 => random.random_range(1..=64),
            _ => random.random_range(1..=rest.len()),
        };
        let (now, later) = rest.split_at(piece.min(rest.len()));
        if stream.write_all(now).is_err() {
            break; // the node has answered its last and closed
        }
        rest = later;
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answers,
            Ok(length) => answers.extend_from_slice(&buffer[..length]),
            // Whether all answers are there is the caller's to see.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return answers,
            Err(error) => panic!("the node neither answers nor closes: {error}"),
        }
    }
}

fn throw_streams(node: SocketAddr, dialect: Dialect, mut maker: Maker) -> Seen {
    let mut seen = [false; 256];
    let all_seen = |seen: &Seen| ANSWERED.iter().all(|&status| seen[usize::from(status)]);
    let mut thrown = 0;
    // A refused header ends a stream, so that some statuses are rare.
    while thrown < STREAMS || thrown < 10 * STREAMS && !all_seen(&seen) {
        thrown += 1;
        let mut bytes = Vec::new();
        for _ in 0..maker.random.random_range(1..12) {
            match maker.random.random_bool(0.7) {
                true => bytes.extend(maker.framed()),
                false => bytes.extend(maker.damaged()),
            }
        }
        let answers = stream(node, &bytes, &mut maker.random);
        let mut rest = &answers[..];
        let mut request = &bytes[..];
        for verdict in judge_stream(&bytes, dialect) {
            rest = check(&verdict, rest, request, &mut seen);
            let length = verdict.length.unwrap_or(request.len());
            request = request.get(length..).unwrap_or_default();
        }
        assert!(rest.is_empty(), "answered more than was asked: {rest:02x?}");
    }
    seen
}

/// The answer to a datagram that was sent. Requests of a kind are alike here, and one that changes
/// something gets no answer while another thread's is under way: then it is sent again.
fn receive(socket: &UdpSocket, sent: &[u8], answer: &mut [u8]) -> usize {
    const AGAIN: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    let command = sent.get(4..6);
    let command = command.and_then(|codes| Command::from_codes(codes[0], codes[1]));
    let may_be_silent = command.is_some_and(Command::is_carried_out_once);
    let patience = if may_be_silent { AGAIN } else { PATIENCE };
    socket.set_read_timeout(Some(patience)).expect("a time-out");
    let mut is_again = false;
    let length = loop {
        match socket.recv(answer) {
            Ok(length) => break length,
            Err(_) if may_be_silent && Instant::now() < deadline => {
                is_again = true;
                socket.send(sent).expect("the node takes datagrams");
            }
            Err(error) => panic!("no answer to {sent:02x?}: {error}"),
        }
    };
    if is_again {
        // Those before may only have been slow.
        while socket.recv(&mut vec![0; 65_536]).is_ok() {}
    }
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    length
}

fn throw_datagrams(node: SocketAddr, dialect: Dialect, mut maker: Maker) -> Seen {
    let mut seen = [false; 256];
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(node).expect("an address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut answer = vec![0; 65_536];
    let mut silent = 0;
    for number in 0..DATAGRAMS {
        let mut bytes = match maker.random.random_bool(0.3) {
            true => maker.framed(),
            false => maker.damaged(),
        };
        bytes.truncate(65_507);
        let verdict = judge_datagram(&bytes, dialect);
        if let OfDatagram::ByItsKey = verdict {
            continue;
        }
        socket.send(&bytes).expect("the node takes datagrams");
        match verdict {
            OfDatagram::Answer(verdict) => {
                let length = receive(&socket, &bytes, &mut answer);
                assert!(length <= AMPLIFICATION * bytes.len(), "{length} bytes");
                let rest = check(&verdict, &answer[..length], &bytes, &mut seen);
                assert!(rest.is_empty(), "more than an answer");
            }
            OfDatagram::Silence | OfDatagram::ByItsKey => silent += 1,
        }
        if number % 100 == 99 {
            // A forbidden answer would come before this one.
            let asked = compose(Command::Echo, Protection::None, None, u64::MAX);
            socket.send(&asked.bytes).expect("the node takes datagrams");
            let length = socket.recv(&mut answer).expect("an answer in time");
            assert_eq!((length, answer[2]), (32, Status::SUCCESS.code()));
            assert_eq!(answer[6..8], [0xff; 2], "an answer that must not be");
        }
    }
    assert!(silent > 0, "nothing was made up that gets no answer");
    seen
}

/// A client that does all right, until told to stop; gives how many answers it had.
fn be_a_neighbour(mut wire: Wire, coin: Coin, mut an: An, is_over: &AtomicBool) -> u64 {
    let mut answers = 0;
    let counter = ResponseCounter::Restart;
    while answers < 20 || !is_over.load(Ordering::Relaxed) {
        let mut new = *an.expose();
        new[..8].copy_from_slice(&u64::to_be_bytes(answers));
        let new = An::new(new);
        let mut payload = Vec::new();
        Pown::compose([(coin, an, new)], &mut payload);
        let pown = compose(
            Command::Pown,
            Protection::Coin(coin, an),
            Some(&payload),
            answers,
        );
        assert_eq!(wire.ask(&pown, counter).status, Status::ALL_PASS);
        payload.clear();
        Detect::compose([(coin, new), (coin, an)], &mut payload);
        let protection = Protection::CoinHmac(coin, new);
        let detect = compose(Command::Detect, protection, Some(&payload), answers);
        let answer = wire.ask(&detect, counter);
        assert_eq!(
            (answer.status, &answer.payload[..]),
            (Status::MIXED, &[0b01][..])
        );
        an = new;
        answers += 2;
    }
    answers
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: usize = kibibytes.expect("a line").parse().expect("a number");
    kibibytes * 1024
}

/// Many connections announce a body of the longest kind and send none of it.
fn announce(node: SocketAddr) {
    let mut payload = compose(Command::Detect, Protection::None, Some(&[0; 21]), 1).bytes;
    payload[22..24].copy_from_slice(&[0xff; 2]);
    payload[24..28].copy_from_slice(&(BODY_MAX as u32).to_be_bytes());
    let before = resident_bytes();
    let streams: Vec<TcpStream> = (0..ANNOUNCERS)
        .map(|_| {
            let mut stream = TcpStream::connect(node).expect("a connection");
            stream.write_all(&payload).expect("the node takes requests");
            stream
        })
        .collect();
    // The node answers this after it has seen all or most of the earlier ones.
    let echo = compose(Command::Echo, Protection::None, None, 1);
    for _ in 0..50 {
        let answer = Wire::tcp(node).ask(&echo, ResponseCounter::Restart);
        assert_eq!(answer.status, Status::SUCCESS);
    }
    let growth = resident_bytes().saturating_sub(before);
    assert!(
        growth < ANNOUNCERS * BODY_MAX / 4,
        "grown by {growth} bytes"
    );
    drop(streams);
}

fn survive(shards: u16, dialect: Dialect) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let months = Mfs::new(40);
    let coins: Vec<(Coin, An, Mfs)> = (0..60)
        .map(|number| {
            let page = PageId::from_index(number * 241 % 15_000).expect("a page");
            let mut an: [u8; 16] = random.random();
            if number >= 58 {
                an[12..].fill(0xff);
            }
            (page.coin(number), An::new(an), months)
        })
        .collect();
    let mut node = RealNode::start(&coins, |settings| {
        settings.shards = shards;
        settings.rules.dialect = dialect;
        settings.cache_pages = CACHE_PAGES;
        settings.rules.max_body_bytes = BODY_MAX;
        settings.network.max_body_bytes = BODY_MAX;
        settings.datagrams = DatagramRules {
            amplification: AMPLIFICATION,
            refusals_per_s: 0,
        };
        settings.network.header_timeout = Duration::from_secs(20);
        settings.network.body_timeout = Duration::from_secs(20);
    });
    let address = node.address();
    let (neighbours, coins) = coins.split_at(4);
    // The garbage never names it: a damaged pown may still be a pown.
    let (witness, coins) = coins.split_at(1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbours: Vec<_> = neighbours
            .iter()
            .enumerate()
            .map(|(number, &(coin, an, _))| {
                let wire = match number % 2 {
                    0 => Wire::tcp(address),
                    _ => Wire::udp(address),
                };
                let is_over = &is_over;
                scope.spawn(move || be_a_neighbour(wire, coin, an, is_over))
            })
            .collect();
        let throw = || {
            let streams = Maker::new(seed ^ 1, coins);
            let datagrams = Maker::new(seed ^ 2, coins);
            let streams = scope.spawn(move || throw_streams(address, dialect, streams));
            let datagrams = scope.spawn(move || throw_datagrams(address, dialect, datagrams));
            [streams, datagrams].map(|thrower| thrower.join())
        };
        // The first round fills buffers that the node keeps; the same again must not need more.
        let first = throw();
        let before = resident_bytes();
        let second = throw();
        let growth = resident_bytes().saturating_sub(before);
        let announced = std::panic::catch_unwind(|| announce(address));
        is_over.store(true, Ordering::Relaxed);
        let resumed = |panic| std::panic::resume_unwind(panic);
        for (thrown, seen) in first.into_iter().chain(second).enumerate() {
            let seen = seen.unwrap_or_else(resumed);
            // Every second one is by datagrams, which get no answer to a wrong version.
            let is_possible = |status: &&u8| thrown % 2 == 0 || **status != 255;
            let mut possible = ANSWERED.iter().filter(is_possible);
            let missing = possible.find(|status| !seen[usize::from(**status)]);
            assert_eq!(missing, None, "a status that nothing was made up for");
        }
        announced.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(growth < GROWTH_MAX, "grown by {growth} bytes");
        for neighbour in neighbours {
            assert!(neighbour.join().expect("a neighbour undisturbed") >= 20);
        }
    });
    let mut payload = Vec::new();
    Detect::compose([(witness[0].0, witness[0].1)], &mut payload);
    for mut wire in [Wire::tcp(address), Wire::udp(address)] {
        let detect = compose(Command::Detect, Protection::None, Some(&payload), 9);
        let answer = wire.ask(&detect, ResponseCounter::Restart);
        assert_eq!(answer.status, Status::ALL_PASS);
    }
    node.stop();
}

#[test]
fn one_shard_answers_garbage_by_the_protocol_and_neighbours_as_ever() {
    survive(1, Dialect::Spec);
}

#[test]
fn three_shards_answer_garbage_by_the_protocol_and_neighbours_as_ever() {
    survive(3, Dialect::Raidax);
}
