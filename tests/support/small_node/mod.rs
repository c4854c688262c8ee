//! A node small enough to understand at a glance: it keeps coins in a map, forgets them when it
//! ends, and can be told to fail. What it reads and writes is the real protocol over real sockets.

#![allow(dead_code, reason = "each test program uses a part of it")]

mod lockers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raida::coin::{An, Coin, Denomination, Mfs, SerialNumber};
use raida::protocol::authentication::{
    DeriveProof, Detect, DetectSum, Pown, PownDerive, PownSum, derived_an,
};
use raida::protocol::executive::{
    AllSns, AvailableSns, CreateCoins, DeleteCoins, FreeCoins, write_created, write_free_sns,
};
use raida::protocol::healing::{
    Find, FindAnswer, Found, GetTicket, TicketAnswer, TicketId, Validate,
};
use raida::protocol::key_healing::{GetEncryptionTicket, SharedSecret, SharedSecrets, Voucher};
use raida::protocol::lockers::Contents;
use raida::protocol::pass_fail::Bitmap;
use raida::protocol::status_group::{Audit, NodeStats, SoftwareVersion, Stats};
use raida::protocol::{
    AdminKey, Command, Datagram, Dialect, Frame, Key, KeySource, PassFail, RaidaId, RequestHeader,
    Response, ResponseCounter, Rules, Sealing, Status, datagram, frame, open, refuse,
};

/// What the node does with a request instead of answering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Carries it out and says nothing.
    Silent,
    /// Carries it out and closes the connection.
    Hangup,
    /// Closes the connection, and carries it out when it is told to.
    Postpone,
    /// Refuses it.
    Refuse(Status),
    /// Answers with the wrong number of bytes.
    Nonsense,
    /// Says that the first coins of denomination 0 are there: this many coins, each this often.
    Lists { coins: u32, times: u32 },
    /// Over UDP: answers after the next request's answer.
    Late,
    /// Does nothing at all for this long, for any client, then answers.
    Stall(Duration),
}

pub struct SmallNode {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
}

/// Hears of every request before it is carried out.
pub type Watch = Arc<dyn Fn(RaidaId, Command) + Send + Sync>;

#[derive(Default)]
pub struct State {
    pub coins: BTreeMap<Coin, (An, Mfs)>,
    /// Closes connections instead of answering.
    pub is_down: bool,
    pub watch: Option<Watch>,
    /// Closes a connection that sends nothing for this long after it was opened.
    pub first_request_within: Option<Duration>,
    /// Connections that were accepted and are not at their end.
    connections: usize,
    /// How purchases stand; `None`: they are paid.
    pub purchase: Option<Status>,
    raida: u8,
    /// What it shares with the others; without it nobody gets an encryption ticket.
    pub secrets: Option<SharedSecrets>,
    pub stats: NodeStats,
    /// The faults to come: the request of this command with this number, counted from 0.
    pub faults: Vec<(Command, usize, Fault)>,
    /// Requests of each command so far.
    pub asked: BTreeMap<u8, usize>,
    next_an: u128,
    /// Coins of each ticket, the first with the number 1, and who has claimed it.
    tickets: Vec<(Vec<Coin>, BTreeSet<u8>)>,
    pub lockers: lockers::Lockers,
    held_back: Option<(Vec<u8>, SocketAddr)>,
    postponed: Vec<(Command, Vec<u8>)>,
}

pub const RAIDA: u8 = 14;
pub const ADMIN_KEY: AdminKey = AdminKey::new([0x5e; 16]);

fn rules(raida: u8) -> Rules {
    Rules {
        raida: RaidaId::new(raida).unwrap(),
        coin_id: 6,
        dialect: Dialect::Spec,
        response_counter: ResponseCounter::Restart,
        max_body_bytes: 1 << 20,
    }
}

impl SmallNode {
    pub fn start() -> SmallNode {
        SmallNode::start_as(RAIDA)
    }

    pub fn start_as(raida: u8) -> SmallNode {
        // A port that is free for TCP may be taken for UDP: try until both are.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            raida,
            secrets: Some(SharedSecrets::new(std::array::from_fn(|other| {
                Some(SharedSecret::new(&[other as u8 + 1; SharedSecret::SIZE]))
            }))),
            ..State::default()
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let shared = shared.clone();
                shared.lock().unwrap().connections += 1;
                std::thread::spawn(move || {
                    serve_stream(stream.unwrap(), raida, &shared);
                    shared.lock().unwrap().connections -= 1;
                });
            }
        });
        let shared = state.clone();
        std::thread::spawn(move || serve_datagrams(&udp, raida, &shared));
        SmallNode { address, state }
    }

    pub fn put(&self, coins: impl IntoIterator<Item = (Coin, An)>) {
        let mut state = self.state.lock().unwrap();
        for (coin, an) in coins {
            state.coins.insert(coin, (an, Mfs::new(1)));
        }
    }

    pub fn fail(&self, command: Command, number: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.faults.push((command, number, fault));
    }

    /// Waits until everything sent before is carried out and its senders have gone.
    pub fn wait_until_idle(&self) {
        // Connections are accepted in the order in which they were made: once this one is at its
        // end, the earlier ones are counted.
        let mut last = TcpStream::connect(self.address).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        assert_eq!(last.read(&mut [0]).unwrap(), 0);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.state.lock().unwrap().connections > 0 {
            assert!(Instant::now() < deadline, "a connection is open still");
            std::thread::yield_now();
        }
    }

    pub fn carry_out_postponed(&self) {
        self.state.lock().unwrap().carry_out_postponed();
    }

    pub fn asked(&self, command: Command) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.get(&command.code()).copied().unwrap_or(0)
    }

    pub fn an(&self, coin: Coin) -> Option<An> {
        let state = self.state.lock().unwrap();
        state.coins.get(&coin).map(|&(an, _)| an)
    }

    pub fn coins(&self) -> usize {
        self.state.lock().unwrap().coins.len()
    }
}

fn serve_stream(mut stream: TcpStream, raida: u8, state: &Mutex<State>) {
    let rules = rules(raida);
    let mut bytes = vec![];
    let mut more = vec![0; 65_536];
    let patience = state.lock().unwrap().first_request_within;
    stream.set_read_timeout(patience).unwrap();
    loop {
        match frame(&bytes, &rules) {
            Frame::Incomplete { .. } => match stream.read(&mut more) {
                Ok(read @ 1..) => {
                    bytes.extend_from_slice(&more[..read]);
                    stream.set_read_timeout(None).unwrap();
                }
                _ => return,
            },
            Frame::Whole { header, length } => {
                let mut out = vec![];
                let body = header.header_size();
                let mut locked = state.lock().unwrap();
                let fault = locked.answer(&header, &mut bytes[body..length], &mut out);
                drop(locked);
                match fault {
                    Some(Fault::Hangup) => return hang_up(stream),
                    Some(Fault::Silent) => {}
                    // The client may have been killed.
                    _ => drop(stream.write_all(&out)),
                }
                bytes.drain(..length);
            }
            Frame::Refused { status, .. } => {
                let mut out = vec![];
                refuse(&mut out, &bytes, status, &rules, 0);
                let _ = stream.write_all(&out);
                return;
            }
        }
    }
}

fn serve_datagrams(socket: &UdpSocket, raida: u8, state: &Mutex<State>) {
    let rules = rules(raida);
    let mut bytes = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        let mut out = vec![];
        let mut state = state.lock().unwrap();
        let fault = match datagram(&bytes[..length], &rules) {
            Datagram::Whole { header, length } => {
                let body = header.header_size();
                state.answer(&header, &mut bytes[body..length], &mut out)
            }
            Datagram::Refused { status } => {
                refuse(&mut out, &bytes[..length], status, &rules, 0);
                None
            }
            _ => continue,
        };
        match fault {
            Some(Fault::Silent | Fault::Hangup) => {}
            Some(Fault::Late) => state.held_back = Some((out, from)),
            _ => {
                socket.send_to(&out, from).unwrap();
                if let Some((late, from)) = state.held_back.take() {
                    socket.send_to(&late, from).unwrap();
                }
            }
        }
    }
}

/// Sends no more, and reads what still comes: closing with unread bytes would take earlier answers
/// from the client.
fn hang_up(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut rest = [0; 65_536];
    while stream.read(&mut rest).is_ok_and(|length| length > 0) {}
}

impl State {
    pub fn carry_out_postponed(&mut self) {
        for (command, payload) in std::mem::take(&mut self.postponed) {
            self.carry_out(command, &payload, &mut vec![]).unwrap();
        }
    }

    fn answer(
        &mut self,
        header: &RequestHeader,
        body: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Option<Fault> {
        let command = header.command;
        if self.is_down {
            return Some(Fault::Hangup);
        }
        if let Some(watch) = &self.watch {
            watch(RaidaId::new(self.raida).unwrap(), command);
        }
        let number = self.asked.entry(command.code()).or_default();
        let this = (command, *number);
        *number += 1;
        let fault = (self.faults.iter())
            .find(|&&(command, number, _)| (command, number) == this)
            .map(|&(_, _, fault)| fault);
        if let Some(Fault::Stall(time)) = fault {
            std::thread::sleep(time);
        }

        let key = self.key(header);
        let rules = rules(self.raida);
        let mut response = Response::begin(out, header);
        let (status, challenge_answer) = match open(header, body, &key, &rules) {
            Ok(opened) if fault == Some(Fault::Postpone) => {
                self.postponed.push((command, opened.payload.to_vec()));
                return Some(Fault::Hangup);
            }
            Ok(opened) => {
                let status = match fault {
                    Some(Fault::Refuse(status)) => status,
                    Some(Fault::Lists { coins, times }) => {
                        let one = |sn| Coin {
                            denomination: Denomination::new(0).unwrap(),
                            serial_number: SerialNumber::new(sn).unwrap(),
                        };
                        let all = (0..times).flat_map(|_| (0..coins).map(one));
                        Contents::answer(all, response.payload())
                    }
                    _ => {
                        let status = self.carry_out(command, opened.payload, response.payload());
                        status.unwrap_or_else(|refused| {
                            response.clear();
                            refused
                        })
                    }
                };
                (status, opened.challenge_answer)
            }
            Err(refusal) => (refusal.status, refusal.challenge_answer),
        };
        let status = if fault == Some(Fault::Nonsense) {
            response.clear();
            response.payload().push(1);
            Status::MIXED
        } else {
            status
        };
        response.finish(Sealing {
            rules: &rules,
            status,
            key: &key,
            challenge_answer,
            execution_micros: 7,
            nonce: std::array::from_fn(|i| i as u8),
        });
        fault
    }

    fn key(&self, header: &RequestHeader) -> Key {
        let an = |coin: Option<Coin>| self.coins.get(&coin?).map(|&(an, _)| an);
        let key = match header.key_source() {
            KeySource::None => None,
            KeySource::Locker(start) => {
                let mut ans = self.coins.values().map(|&(an, _)| an);
                ans.find(|an| an.is_locker_key() && an.expose().starts_with(&start))
                    .map(Key::from_an)
            }
            KeySource::Coin(coin) if header.encryption.has_hmac() => {
                an(coin).map(Key::from_hashed_an)
            }
            KeySource::Coin(coin) => an(coin).map(Key::from_an),
            KeySource::TwoCoins(first, second) => an(first)
                .zip(an(second))
                .map(|(first, second)| Key::from_hashed_ans(first, second)),
        };
        key.unwrap_or(Key::None)
    }

    fn carry_out(
        &mut self,
        command: Command,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let check = |key: &AdminKey| {
            if *key == ADMIN_KEY {
                Ok(())
            } else {
                Err(Status::WRONG_ADMIN_KEY)
            }
        };
        self.stats.requests += 1;
        match command {
            // It knows of no other servers, and nobody asks it for tickets by sum.
            Command::GetTicketSum | Command::Fix | Command::FixEncryption => {
                return Err(Status::UNKNOWN_COMMAND);
            }
            Command::PeekTrade
            | Command::StoreSum
            | Command::Peek
            | Command::Remove
            | Command::PutForSale
            | Command::ListForSale
            | Command::Buy
            | Command::StoreMultiple
            | Command::RemoveTrade => return self.carry_out_lockers(command, payload, out),
            Command::GetTicket => {
                let request = GetTicket::parse(payload)?;
                let mut answer = PassFail::begin(out, request.len());
                let mut listed = vec![];
                for (record, (coin, an)) in request.records().enumerate() {
                    if self.holds(coin, an) {
                        answer.pass(record);
                        listed.push(coin);
                    }
                }
                return TicketAnswer::finish(answer, |_| {
                    self.tickets.push((listed, BTreeSet::new()));
                    TicketId::new(self.tickets.len() as u32).ok_or(Status::NO_TICKET_SLOT)
                });
            }
            Command::EncryptionTicket => {
                let request = GetEncryptionTicket::parse(payload)?;
                let secrets = self.secrets.as_ref();
                let secret = secrets.and_then(|secrets| secrets.of(request.broken));
                let secret = secret.ok_or(Status::RAIDA_OUT_OF_RANGE)?;
                let is_proved = (request.an).is_some_and(|an| self.holds(request.coin, an));
                if !is_proved {
                    return Err(Status::KEY_NOT_FOUND);
                }
                let ticket = secret.seal(&Voucher {
                    part: request.part,
                    coin: request.coin,
                    minute: 0,
                });
                out.extend_from_slice(ticket.expose());
            }
            Command::Validate => {
                let Validate { claimant, ticket } = Validate::parse(payload)?;
                let place = ticket.ok_or(Status::NO_SUCH_TICKET)?.get() as usize - 1;
                let ticket = self.tickets.get_mut(place);
                let (coins, claimed) = ticket.ok_or(Status::NO_SUCH_TICKET)?;
                if !claimed.insert(claimant.get()) {
                    return Err(Status::TICKET_CLAIMED);
                }
                Validate::answer(coins.iter().copied(), out);
            }
            Command::Find => {
                let request = Find::parse(payload)?;
                let mut answer = FindAnswer::begin(out, request.len());
                for (record, (coin, an, pan)) in request.records().enumerate() {
                    match () {
                        () if self.holds(coin, an) => answer.found(record, Found::An),
                        () if self.holds(coin, pan) => answer.found(record, Found::Pan),
                        () => {}
                    }
                }
                return Ok(answer.finish());
            }
            Command::Echo => self.stats.echoes += 1,
            Command::Version => SoftwareVersion::new(*b"small 1 ").unwrap().write(out),
            Command::Stats => {
                check(&Stats::parse(payload)?.key)?;
                self.stats.write(out);
            }
            Command::Audit => {
                let mut audit = Audit::default();
                for coin in self.coins.keys() {
                    audit.0[coin.denomination.index()] += 1;
                }
                audit.write(out);
            }
            Command::Detect => {
                let request = Detect::parse(payload)?;
                let mut answer = PassFail::begin(out, request.len());
                for (record, (coin, an)) in request.records().enumerate() {
                    if coin.is_some_and(|coin| self.holds(coin, an)) {
                        answer.pass(record);
                    }
                }
                return Ok(answer.finish(Bitmap::IfMixed));
            }
            Command::DetectSum => {
                let request = DetectSum::parse(payload)?;
                let proves = self.proves(request.coins().iter(), request.sum());
                let mut coins: Vec<Coin> = request.coins().iter().collect();
                coins.sort_unstable();
                let is_once = coins.windows(2).all(|two| two[0] != two[1]);
                return Ok(self.verdict(is_once && proves));
            }
            Command::Pown => {
                let request = Pown::parse(payload)?;
                let mut answer = PassFail::begin(out, request.len());
                for (record, (coin, an, proposed)) in request.records().enumerate() {
                    let is_for_sale = self.lockers.sales.iter().any(|key| key.an() == an);
                    if let Some(coin) = coin.filter(|&coin| !is_for_sale && self.holds(coin, an)) {
                        self.coins.insert(coin, (proposed, Mfs::new(2)));
                        self.stats.coins_powned += 1;
                        answer.pass(record);
                    }
                }
                return Ok(answer.finish(Bitmap::IfMixed));
            }
            Command::PownDerive => {
                let request = PownDerive::parse(payload)?;
                let mut proof = DeriveProof::new(RaidaId::new(RAIDA).unwrap(), request.delta());
                let held = request
                    .coins()
                    .iter()
                    .map(|coin| (coin, self.coins.get(&coin)));
                let known = held.map(|(coin, held)| {
                    proof.add(coin, held?.0);
                    Some(())
                });
                let right = known.collect::<Option<Vec<()>>>().is_some();
                let right = right && proof.finish() == request.proof();
                if right {
                    for coin in request.coins().iter() {
                        let held = self.coins.get_mut(&coin).unwrap();
                        held.0 = derived_an(coin, held.0, request.delta());
                    }
                }
                return Ok(self.verdict(right));
            }
            Command::PownSum => {
                let request = PownSum::parse(payload)?;
                let right = self.proves(request.coins().iter(), request.sum());
                if right {
                    for coin in request.coins().iter() {
                        let held = self.coins.get_mut(&coin).unwrap();
                        held.0 ^= request.delta();
                    }
                }
                return Ok(self.verdict(right));
            }
            Command::AvailableSns => {
                let request = AvailableSns::parse(payload)?;
                check(&request.key)?;
                for denomination in request.denominations() {
                    let coins = &self.coins;
                    let free = (0..SerialNumber::COUNT).filter_map(SerialNumber::new);
                    let free = free.filter(|&serial_number| {
                        let coin = Coin {
                            denomination,
                            serial_number,
                        };
                        !coins.contains_key(&coin)
                    });
                    write_free_sns(denomination, free, out);
                }
            }
            Command::CreateCoins => {
                let request = CreateCoins::parse(payload)?;
                check(&request.key)?;
                let coins: Vec<Coin> = request.coins()?.iter().collect();
                if coins.iter().any(|coin| self.coins.contains_key(coin)) {
                    return Err(Status::INVALID_COIN);
                }
                for coin in coins {
                    self.next_an = self
                        .next_an
                        .wrapping_add(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
                    let an = An::new(self.next_an.to_be_bytes());
                    self.coins.insert(coin, (an, Mfs::new(2)));
                    write_created([an], out);
                }
            }
            Command::DeleteCoins => {
                let request = DeleteCoins::parse(payload)?;
                check(&request.key)?;
                let records = request.records()?;
                let mut answer = PassFail::begin(out, records.len());
                for (record, (coin, an)) in records.iter().enumerate() {
                    if let Some(coin) = coin.filter(|&coin| self.holds(coin, an)) {
                        self.coins.remove(&coin);
                        answer.pass(record);
                    }
                }
                return Ok(answer.finish(Bitmap::IfMixed));
            }
            Command::FreeCoins => {
                let request = FreeCoins::parse(payload)?;
                check(&request.key)?;
                for coin in request.coins()?.iter() {
                    self.coins.remove(&coin);
                }
            }
            Command::AllSns => {
                let request = AllSns::parse(payload)?;
                check(&request.key)?;
                let denomination: Denomination = request.denomination()?;
                let start = out.len();
                out.resize(start + AllSns::REPLY_SIZE, 0);
                for coin in self.coins.keys() {
                    if coin.denomination == denomination {
                        let sn = coin.serial_number.get() as usize;
                        out[start + sn / 8] |= 1 << (sn % 8);
                    }
                }
            }
        }
        Ok(Status::SUCCESS)
    }

    fn holds(&self, coin: Coin, an: An) -> bool {
        self.coins.get(&coin).is_some_and(|&(held, _)| held == an)
    }

    /// Whether this is the XOR of the coins' numbers, and no key of a locker or an offer is in it
    /// an even number of times.
    fn proves(&self, coins: impl Iterator<Item = Coin>, claimed: An) -> bool {
        let mut sum = An::ZERO;
        let mut times: BTreeMap<[u8; An::SIZE], usize> = BTreeMap::new();
        for coin in coins {
            let an = self.coins.get(&coin).map_or(An::ZERO, |&(an, _)| an);
            sum ^= an;
            if an.is_marked() {
                *times.entry(*an.expose()).or_default() += 1;
            }
        }
        sum == claimed && times.values().all(|times| times % 2 == 1)
    }

    fn verdict(&self, right: bool) -> Status {
        if right {
            Status::ALL_PASS
        } else {
            Status::ALL_FAIL
        }
    }
}
