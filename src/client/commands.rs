use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;

use super::{ClientError, Connection, NotAList, Options, Reply, Transport};
use crate::coin::{An, Coin, Denomination, SerialNumber};
use crate::protocol::authentication::{Detect, DetectSum, Pown, PownDerive, PownSum};
use crate::protocol::executive::{
    AllSns, AvailableSns, AvailableSnsReply, CreateCoins, DeleteCoins, FreeCoins, SessionId,
    read_created,
};
use crate::protocol::response::RESPONSE_PAYLOAD_MAX;
use crate::protocol::status_group::{Audit, NodeStats, SoftwareVersion, Stats};
use crate::protocol::{AdminKey, Command, Passed, Status};

/// The commands of a node. Lists of any length are split into requests that fit, and several
/// requests are under way at a time. What the protocol does all or nothing is one request, or an
/// error.
///
/// After an error other than [`ClientError::Refused`] a client over TCP is of no more use: connect
/// again.
pub struct Client {
    connection: Connection,
    payload: Vec<u8>,
}

/// The result for one coin of a list of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The change was made.
    Changed,
    /// The node says that the coin has another authenticity number; nothing was changed.
    Failed,
    /// The coin was never sent, or the node refused the request it was in; nothing was changed.
    NotAsked,
    /// It was sent and there is no usable answer: the change may have been made.
    Unknown,
}

/// Longest body over TCP, in bytes: the most that two bytes of length can express, in every
/// encryption type. So every node accepts it unless its limit is lower.
const BODY_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Maximum number of requests of a long list under way at a time: enough to keep a node busy while
/// answers travel, few enough that neither side's socket buffers fill up with unread bytes.
const IN_FLIGHT_MAX: usize = 4;

const DETECT_RECORD: usize = Coin::SIZE + An::SIZE;
const POWN_RECORD: usize = Coin::SIZE + 2 * An::SIZE;
const SESSION_AND_KEY: usize = SessionId::SIZE + AdminKey::SIZE;

impl Client {
    /// Connects to a node.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn connect(
        host: (&str, u16),
        transport: Transport,
        options: Options,
    ) -> Result<Client, ClientError> {
        Ok(Client {
            connection: Connection::open(host, transport, options)?,
            payload: vec![],
        })
    }

    /// The connection, for requests that these commands do not cover.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Asks whether the node is there, with a body, so that the answer proves that node and client
    /// have the same key. Returns how long the node took, in microseconds.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn echo(&mut self) -> Result<u32, ClientError> {
        let reply = self.ask(Command::Echo, |_| {})?;
        let done = reply.status == Status::SUCCESS;
        self.some(Command::Echo, done.then_some(reply.execution_micros))
    }

    /// Asks which software the node runs.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn version(&mut self) -> Result<SoftwareVersion, ClientError> {
        let reply = self.ask(Command::Version, |_| {})?;
        let version = SoftwareVersion::read(&reply.payload);
        self.some(Command::Version, version)
    }

    /// Asks what the node did since it started.
    ///
    /// # Errors
    /// No answer, or a refusal, as for a wrong admin key.
    pub fn stats(&mut self, key: &AdminKey) -> Result<NodeStats, ClientError> {
        let reply = self.ask(Command::Stats, |out| Stats::compose(key, out))?;
        self.some(Command::Stats, NodeStats::read(&reply.payload))
    }

    /// Asks how many coins of each denomination are in circulation.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn audit(&mut self) -> Result<Audit, ClientError> {
        let reply = self.ask(Command::Audit, |_| {})?;
        self.some(Command::Audit, Audit::read(&reply.payload))
    }

    /// Asks which of these are the coins' authenticity numbers, in the order asked. Takes any
    /// number of coins.
    ///
    /// # Errors
    /// No answer to one of the requests, or a refusal.
    pub fn detect(&mut self, coins: &[(Coin, An)]) -> Result<Vec<bool>, ClientError> {
        let batch = self.records_per_request(DETECT_RECORD, 0, 0);
        let mut passed = vec![false; coins.len()];
        let error = self.in_batches(
            Command::Detect,
            coins,
            batch,
            |coins, out| Detect::compose(coins.iter().copied(), out),
            |asked, reply| {
                let answer = Passed::read(reply?.status, &reply?.payload, asked.len())?;
                for (place, verdict) in asked.zip(answer.iter()) {
                    passed[place] = verdict;
                }
                Some(())
            },
        );
        error.map_or(Ok(passed), Err)
    }

    /// Asks whether this is the XOR of the coins' authenticity numbers: one request.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn detect_sum(&mut self, coins: &[Coin], sum: An) -> Result<bool, ClientError> {
        let reply = self.ask(Command::DetectSum, |out| {
            DetectSum::compose(coins.iter().copied(), sum, out);
        })?;
        self.some(Command::DetectSum, all_or_none(reply.status))
    }

    /// Proposes a new authenticity number (the last of each three) for each coin whose present one
    /// is right. Takes any number of coins. Returns each one's outcome in the order given, and the
    /// first error.
    ///
    /// Write the proposed numbers down first: once a coin has changed, nothing else claims it.
    pub fn pown(&mut self, coins: &[(Coin, An, An)]) -> (Vec<Outcome>, Option<ClientError>) {
        let batch = self.records_per_request(POWN_RECORD, 0, 0);
        self.change(Command::Pown, coins, batch, |coins, out| {
            Pown::compose(coins.iter().copied(), out);
        })
    }

    /// Gives every coin the authenticity number that is
    /// [derived](crate::protocol::authentication::derived_an) from its own and `delta`, if all
    /// those given are right: all coins or none, one request. Returns whether it was done.
    ///
    /// `delta` must be random, and a different one for every server and request. Write it down
    /// first, as the numbers before: once the coins have changed, nothing else claims them.
    ///
    /// # Errors
    /// No answer, or a refusal. Without an answer it may have been done.
    pub fn pown_derive(&mut self, coins: &[(Coin, An)], delta: An) -> Result<bool, ClientError> {
        let raida = self.connection.options().raida;
        let reply = self.ask(Command::PownDerive, |out| {
            PownDerive::compose(raida, coins.iter().copied(), delta, out);
        })?;
        self.some(Command::PownDerive, all_or_none(reply.status))
    }

    /// Changes every coin's authenticity number by `delta`, if `sum` is their XOR: all coins or
    /// none, one request. Returns whether it was done.
    ///
    /// Servers of the `spec` dialect take one coin, others any number. The XOR of an even number of
    /// coins stays as it was, so their former owner still knows it: use [`Client::pown_derive`] for
    /// several.
    ///
    /// # Errors
    /// No answer, or a refusal. Without an answer it may have been done.
    pub fn pown_sum(&mut self, coins: &[Coin], sum: An, delta: An) -> Result<bool, ClientError> {
        let reply = self.ask(Command::PownSum, |out| {
            PownSum::compose(coins.iter().copied(), sum, delta, out);
        })?;
        self.some(Command::PownSum, all_or_none(reply.status))
    }

    /// Asks for free serial numbers of these denominations, at most 1,024 of each, whose pages are
    /// reserved for the session for 16 seconds. A denomination may have none.
    ///
    /// # Errors
    /// No answer, or a refusal, as for a wrong admin key.
    pub fn available_sns(
        &mut self,
        session: SessionId,
        key: &AdminKey,
        denominations: &[Denomination],
    ) -> Result<Vec<Coin>, ClientError> {
        let reply = self.ask(Command::AvailableSns, |out| {
            AvailableSns::compose(session, key, denominations.iter().copied(), out);
        })?;
        let mut list = AvailableSnsReply::new(&reply.payload);
        let mut coins = vec![];
        for free in &mut list {
            coins.extend(free.serial_numbers().map(|serial_number| Coin {
                denomination: free.denomination,
                serial_number,
            }));
        }
        self.some(Command::AvailableSns, list.is_whole().then_some(coins))
    }

    /// Maximum number of coins that [`Client::create_coins`] takes at a time.
    pub fn created_at_once(&self) -> usize {
        self.records_per_request(Coin::SIZE, SESSION_AND_KEY, An::SIZE)
    }

    /// Puts coins into circulation whose pages the session has reserved: all or none, one request.
    /// Returns their authenticity numbers, in the order asked: nobody else knows them.
    ///
    /// # Errors
    /// No answer, or a refusal. Without an answer it may have been done; the coins' numbers are
    /// lost then, so [`Client::free_coins`] should take them back while the session lasts.
    pub fn create_coins(
        &mut self,
        session: SessionId,
        key: &AdminKey,
        coins: &[Coin],
    ) -> Result<Vec<An>, ClientError> {
        let reply = self.ask(Command::CreateCoins, |out| {
            CreateCoins::compose(session, key, coins.iter().copied(), out);
        })?;
        let created = read_created(&reply.payload, coins.len()).map(|ans| ans.collect());
        self.some(Command::CreateCoins, created)
    }

    /// Takes coins out of circulation whose authenticity numbers are known. Takes any number of
    /// coins. Returns each one's outcome in the order given, and the first error.
    pub fn delete_coins(
        &mut self,
        key: &AdminKey,
        coins: &[(Coin, An)],
    ) -> (Vec<Outcome>, Option<ClientError>) {
        let batch = self.records_per_request(DETECT_RECORD, AdminKey::SIZE, 0);
        self.change(Command::DeleteCoins, coins, batch, |coins, out| {
            DeleteCoins::compose(key, coins.iter().copied(), out);
        })
    }

    /// Takes coins out of circulation, no matter who owns them. Takes any number of coins.
    ///
    /// # Errors
    /// No answer to one of the requests, or a refusal; some of the coins may be free then.
    pub fn free_coins(
        &mut self,
        session: SessionId,
        key: &AdminKey,
        coins: &[Coin],
    ) -> Result<(), ClientError> {
        let batch = self.records_per_request(Coin::SIZE, SESSION_AND_KEY, 0);
        let error = self.in_batches(
            Command::FreeCoins,
            coins,
            batch,
            |coins, out| FreeCoins::compose(session, key, coins.iter().copied(), out),
            |_, reply| (reply?.status == Status::SUCCESS).then_some(()),
        );
        error.map_or(Ok(()), Err)
    }

    /// Asks which serial numbers of a denomination are in circulation. Only over TCP.
    ///
    /// # Errors
    /// No answer, or a refusal, as for a wrong admin key.
    pub fn all_sns(
        &mut self,
        key: &AdminKey,
        denomination: Denomination,
    ) -> Result<Vec<SerialNumber>, ClientError> {
        let reply = self.ask(Command::AllSns, |out| {
            AllSns::compose(key, denomination, out);
        })?;
        let numbers = AllSns::read_reply(&reply.payload).map(|numbers| numbers.collect());
        self.some(Command::AllSns, numbers)
    }

    /// Returns those of these coins that are in circulation, in their order. Only over TCP.
    ///
    /// # Errors
    /// As [`Client::all_sns`].
    pub fn in_circulation(
        &mut self,
        key: &AdminKey,
        coins: impl IntoIterator<Item = Coin>,
    ) -> Result<Vec<Coin>, ClientError> {
        let mut there: BTreeMap<Denomination, HashSet<SerialNumber>> = BTreeMap::new();
        let mut found = Vec::new();
        for coin in coins {
            let numbers = match there.entry(coin.denomination) {
                Entry::Occupied(numbers) => numbers.into_mut(),
                Entry::Vacant(entry) => {
                    let numbers = self.all_sns(key, coin.denomination)?;
                    entry.insert(numbers.into_iter().collect())
                }
            };
            if numbers.contains(&coin.serial_number) {
                found.push(coin);
            }
        }
        Ok(found)
    }

    /// Number of records of `record` bytes that fit a request beside `fixed` bytes of payload,
    /// where each has `answer` bytes of the answer.
    pub(super) fn records_per_request(&self, record: usize, fixed: usize, answer: usize) -> usize {
        let encryption = self.connection.options().protection.encryption();
        let outside = encryption.header_size() + encryption.body_overhead();
        let (request_max, answer_max) = match self.connection.transport() {
            Transport::Tcp => (
                encryption.header_size() + BODY_BYTES_MAX,
                RESPONSE_PAYLOAD_MAX,
            ),
            Transport::Udp => (
                Connection::DATAGRAM_BYTES_MAX,
                Connection::DATAGRAM_BYTES_MAX - outside,
            ),
        };
        let asked = (request_max - outside - fixed) / record;
        let answered = answer_max.checked_div(answer).unwrap_or(usize::MAX);
        asked.min(answered)
    }

    /// One request and its answer.
    pub(super) fn ask(
        &mut self,
        command: Command,
        compose: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Reply, ClientError> {
        self.payload.clear();
        compose(&mut self.payload);
        self.connection.send(command, Some(&self.payload))?;
        let mut reply = self.connection.receive()?;
        if reply.status == Status::ASK_OVER_TCP && self.connection.transport() == Transport::Udp {
            // Nothing was done.
            let mut stream = self.connection.over_tcp()?;
            stream.send(command, Some(&self.payload))?;
            reply = stream.receive()?;
        }
        if reply.status.is_verdict() {
            Ok(reply)
        } else {
            let host = self.connection.host().to_owned();
            Err(ClientError::Refused(host, reply.status))
        }
    }

    /// A change of many coins that each pass or fail on their own.
    pub(super) fn change<T>(
        &mut self,
        command: Command,
        coins: &[T],
        batch: usize,
        compose: impl Fn(&[T], &mut Vec<u8>),
    ) -> (Vec<Outcome>, Option<ClientError>) {
        let mut outcomes = vec![Outcome::NotAsked; coins.len()];
        let error = self.in_batches(command, coins, batch, compose, |asked, reply| {
            outcomes[asked.clone()].fill(Outcome::Unknown);
            let answer = Passed::read(reply?.status, &reply?.payload, asked.len())?;
            for (place, passed) in asked.zip(answer.iter()) {
                outcomes[place] = if passed {
                    Outcome::Changed
                } else {
                    Outcome::Failed
                };
            }
            Some(())
        });
        (outcomes, error)
    }

    /// Sends a list in requests of `batch` records, some of them under way at a time, and hands
    /// over which records each answer is for: `None` where a request was sent and has no usable
    /// answer. It hands over nothing for records that were not sent, or refused. `take` returns
    /// `None` where the answer makes no sense. After an error it sends nothing more, but waits for
    /// what is under way. Returns the first error.
    pub(super) fn in_batches<T>(
        &mut self,
        command: Command,
        coins: &[T],
        batch: usize,
        compose: impl Fn(&[T], &mut Vec<u8>),
        mut take: impl FnMut(Range<usize>, Option<&Reply>) -> Option<()>,
    ) -> Option<ClientError> {
        let mut error = None;
        let mut under_way: VecDeque<Range<usize>> = VecDeque::new();
        let mut next = 0;
        loop {
            while error.is_none() && next < coins.len() && under_way.len() < IN_FLIGHT_MAX {
                let asked = next..coins.len().min(next + batch);
                next = asked.end;
                self.payload.clear();
                compose(&coins[asked.clone()], &mut self.payload);
                match self.connection.send(command, Some(&self.payload)) {
                    Ok(()) => under_way.push_back(asked),
                    Err(failed) => {
                        if failed.leaves_doubt() {
                            take(asked, None);
                        }
                        error = Some(failed);
                    }
                }
            }
            let Some(asked) = under_way.pop_front() else {
                return error;
            };
            let answer = self.connection.receive();
            let host = || self.connection.host().to_owned();
            let failed = match answer {
                Ok(reply) if !reply.status.is_verdict() => {
                    Some(ClientError::Refused(host(), reply.status))
                }
                Ok(reply) => match take(asked, Some(&reply)) {
                    Some(()) => None,
                    None => Some(ClientError::NotAnAnswer(host(), command)),
                },
                // Even where the node cannot be reached now: it was reachable when this was sent.
                Err(failed) => {
                    take(asked, None);
                    Some(failed)
                }
            };
            error = error.or(failed);
        }
    }

    pub(super) fn not_a_list(&self, why: NotAList) -> ClientError {
        ClientError::NotAList(self.connection.host().to_owned(), why)
    }

    pub(super) fn some<T>(&self, command: Command, answer: Option<T>) -> Result<T, ClientError> {
        answer.ok_or_else(|| ClientError::NotAnAnswer(self.connection.host().to_owned(), command))
    }
}

/// The answer to a request that is carried out completely or not at all; `None` where it is no such
/// answer.
pub(super) fn all_or_none(status: Status) -> Option<bool> {
    match status {
        Status::ALL_PASS => Some(true),
        Status::ALL_FAIL => Some(false),
        _ => None,
    }
}
