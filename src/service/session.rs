use std::{
    cell::OnceCell,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use super::{
    Caller, Node,
    authentication::verdict,
    budget::{self, Account, AccountId, Full, Made, Needs, Share},
    order::{Footprint, Gone, Order, Place},
    parking, patience,
};
use crate::runtime::Environment;
use crate::{
    coin::Coin,
    protocol::{
        BodyRefusal, Command, Datagram, Encryption, FirstLook, Frame, Key, RequestHeader, Response,
        Sealing, Status, body, challenge::Challenge, datagram, first_look, frame,
        header::KeySource, healing::in_dialect, open, refuse, response::RESPONSE_NONCE_SIZE,
    },
    shard::{Asked, Exchange, Replacement, Single},
};

/// How a request came, as far as its answer depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream: answers of any length.
    Tcp,
    /// A datagram: answers of at most 65,507 bytes.
    Udp,
}

/// What became of a request.
pub enum Outcome {
    /// The response was appended.
    Answered,
    /// There is no response.
    Silent,
    /// The response was appended, except for what [completes](super::Release::complete) it. It may
    /// go when it is [released](super::Service::poll_released) under this number, whatever happens
    /// to the client.
    Parked(usize),
    /// The response comes later. Run it to its end, whatever happens to the client: it may be a
    /// change that holds coins. A response that has not begun when the session is dropped ends by
    /// itself. An empty response is none: over UDP the request may be under way already or refused
    /// silently; otherwise there will never be one, since nobody knows what becomes of the request
    /// while the disk does not answer.
    Later(Pin<Box<dyn Future<Output = Made>>>),
}

/// The requests of one connection, or all datagrams of one core.
pub struct Session<E: Environment> {
    node: Rc<Node<E>>,
    caller: Caller,
    /// A stream's requests have an order, datagrams have none.
    order: Option<Rc<Order>>,
    /// The account of a stream's client, from when it is first needed.
    account: OnceCell<Account>,
    /// Header and length of the whole request that the stream was last found to start with.
    found: Option<(RequestHeader, usize)>,
}

/// Where a request's header has its command group.
const GROUP: usize = 4;

/// A plain request with a body of at most this many bytes, 45 coins in a detect, is answered from
/// memory in less than a microsecond. That is not worth two looks at the clock, which take a tenth
/// of it: the response says 0.
const UNTIMED_BODY_BYTES_MAX: usize = 1_000;

/// The key of plain requests, which are most requests. It stays in its place, since moving a key
/// costs more than the rest of the request.
static NO_KEY: Key = Key::None;

/// A request whose answer takes longer: what its response needs besides status and payload.
#[derive(Clone, Copy)]
struct Pending {
    header: RequestHeader,
    /// When it began.
    start: Duration,
}

/// When a request began; `None` while it takes less than a microsecond.
type Start = Option<Duration>;

/// What happened to a request about one coin.
enum Parked {
    /// It is answered.
    Now(Status),
    /// It waits under this number.
    Under(usize),
    /// The same request is under way, and there is no answer.
    Repeated,
    /// It has to wait for something other than the coin's owner; nothing has happened.
    HasToWait,
}

/// A request that was decrypted.
struct Readable {
    key: Key,
    challenge_answer: [u8; Challenge::SIZE],
    payload: Vec<u8>,
}

impl<E: Environment> Session<E> {
    pub(super) fn new(node: Rc<Node<E>>, transport: Transport) -> Self {
        let order = (transport == Transport::Tcp).then(Rc::default);
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Session {
            node,
            caller: Caller {
                transport,
                address,
                key: KeySource::None,
                datagram_bytes: 0,
                payload_bytes_max: usize::MAX,
                change: None,
                came: Duration::ZERO,
                account: AccountId::NOBODY,
            },
            order,
            account: OnceCell::new(),
            found: None,
        }
    }

    /// Where the next requests come from; nowhere before it is set.
    #[inline]
    pub fn come_from(&mut self, address: IpAddr) {
        self.caller.address = address;
    }

    /// Who sent this request, which came just now, and how long its answer may be.
    #[inline]
    fn caller(&self, header: &RequestHeader) -> Caller {
        let mut caller = self.caller;
        match header.command {
            Command::EncryptionTicket => caller.key = header.key_source(),
            Command::Fix => caller.came = self.node.shard().environment.monotonic(),
            _ => {}
        }
        if caller.transport == Transport::Udp {
            let answer = self.node.datagrams.answer_bytes_max(caller.datagram_bytes);
            caller.payload_bytes_max = Response::payload_bytes_within(answer, header.encryption);
        }
        caller
    }

    /// What the bytes at the start of the stream are.
    #[inline]
    pub fn split(&mut self, bytes: &[u8]) -> Frame {
        let found = frame(bytes, &self.node.rules.get());
        self.found = match found {
            Frame::Whole { header, length } => Some((header, length)),
            _ => None,
        };
        found
    }

    /// Has the processor prefetch what a request will need that is handled soon, as far as `bytes`
    /// tell. `bytes` may be the front of the request only.
    #[inline]
    pub fn prepare(&self, bytes: &[u8]) {
        let shard = self.node.shard();
        match first_look(bytes) {
            Some(FirstLook::Coin(coin)) if shard.owns(coin.page()) => shard.pages.prefetch(coin),
            Some(FirstLook::Pown(coin, an, proposed)) if shard.owns(coin.page()) => {
                let becomes = Replacement::An(proposed);
                shard.prefetch_exchange(&Exchange { coin, an, becomes });
            }
            _ => {}
        }
    }

    /// Answers what [`split`](Session::split) refused; `bytes` is the part that has come.
    pub fn refuse(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.node.shard().count(|counters| counters.requests += 1);
        let status = match self.split(bytes) {
            Frame::Refused { status, .. } => status,
            // The caller cut the request off before it was whole.
            Frame::Incomplete { .. } | Frame::Whole { .. } => Status::INVALID_LENGTH,
        };
        refuse(out, bytes, status, &self.node.rules.get(), 0);
    }

    /// Answers the beginning of a request where there is no room for the request.
    pub fn refuse_for_room(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.node.shard().count(|counters| counters.requests += 1);
        let group = bytes.get(GROUP).copied().unwrap_or_default();
        let rules = self.node.rules.get();
        refuse(out, bytes, self.node.no_room(group), &rules, 0);
    }

    /// Answers a whole request of a stream, decrypting it in place: the request that
    /// [`split`](Session::split) found at the start of the stream, where it was called.
    #[inline]
    pub fn request(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Outcome {
        if let Some((header, length)) = self.found.take()
            && length == bytes.len()
        {
            debug_assert_eq!(
                frame(bytes, &self.node.rules.get()),
                Frame::Whole { header, length }
            );
            return self.handle(&header, &mut bytes[header.header_size()..], out);
        }
        match frame(bytes, &self.node.rules.get()) {
            Frame::Whole { header, length } => {
                self.handle(&header, &mut bytes[header.header_size()..length], out)
            }
            Frame::Refused { .. } | Frame::Incomplete { .. } => {
                self.refuse(bytes, out);
                Outcome::Answered
            }
        }
    }

    /// Answers a datagram, decrypting it in place.
    #[inline]
    pub fn datagram(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Outcome {
        self.caller.datagram_bytes = bytes.len();
        match datagram(bytes, &self.node.rules.get()) {
            Datagram::Silence => Outcome::Silent,
            Datagram::Refused { status } => {
                if !self.node.may_refuse(&self.caller, status) {
                    self.node.shard().count(|counters| counters.requests += 1);
                    return Outcome::Silent;
                }
                self.refuse(bytes, out);
                Outcome::Answered
            }
            Datagram::Cut { header } => {
                let start = self.begin(&header);
                let refusal = unread(Status::INVALID_LENGTH);
                self.node
                    .answer_refusal(&header, &self.caller, start, refusal, out)
            }
            Datagram::Whole { header, length } => {
                self.handle(&header, &mut bytes[header.header_size()..length], out)
            }
        }
    }

    #[inline]
    fn begin(&self, header: &RequestHeader) -> Start {
        let shard = self.node.shard();
        shard.count(|counters| counters.requests += 1);
        let is_short =
            header.encryption == Encryption::None && header.body_length <= UNTIMED_BODY_BYTES_MAX;
        (!is_short).then(|| shard.environment.monotonic())
    }

    /// The account of the sender of this request.
    fn account(&self) -> Account {
        let budget = &self.node.budget;
        match self.order {
            Some(_) => {
                let account = || budget.account(self.caller.stranger());
                self.account.get_or_init(account).clone()
            }
            None => budget.account(self.caller.stranger()),
        }
    }

    /// Answers that there is no room for a request: nothing has happened.
    #[cold]
    fn answer_no_room(
        &self,
        header: &RequestHeader,
        start: Start,
        challenge_answer: [u8; Challenge::SIZE],
        out: &mut Vec<u8>,
    ) -> Outcome {
        let refusal = BodyRefusal {
            status: self.node.no_room(header.group()),
            challenge_answer,
        };
        let caller = self.caller(header);
        self.node
            .answer_refusal(header, &caller, start, refusal, out)
    }

    /// It takes longer. Where the time so far is not known, it is less than a microsecond.
    fn pending(&self, header: &RequestHeader, start: Start) -> Pending {
        Pending {
            header: *header,
            start: start.unwrap_or_else(|| self.node.shard().environment.monotonic()),
        }
    }

    /// Answers a request, and counts it if it was answered in one go.
    #[inline]
    fn handle(&mut self, header: &RequestHeader, body: &mut [u8], out: &mut Vec<u8>) -> Outcome {
        let command = header.command;
        if self.node.latency.is_due(command) {
            return self.measure(header, body, out);
        }
        let outcome = self.answer(header, body, out, None);
        if matches!(outcome, Outcome::Answered) {
            self.node.latency.pass_over(command);
        }
        outcome
    }

    /// Answers a request that is measured if it is answered in one go. This is a function of its
    /// own so that the many requests that are not measured do not read the clock.
    #[cold]
    #[inline(never)]
    fn measure(&mut self, header: &RequestHeader, body: &mut [u8], out: &mut Vec<u8>) -> Outcome {
        let start = self.node.shard().environment.monotonic();
        let outcome = self.answer(header, body, out, Some(start));
        if matches!(outcome, Outcome::Answered) {
            let node = &self.node;
            let took = (node.shard().environment.monotonic()).saturating_sub(start);
            node.latency.record_at_once(header.command, took);
        }
        outcome
    }

    /// Answers a request. `looked` is the clock's time when it came, where the clock was read.
    fn answer(
        &mut self,
        header: &RequestHeader,
        body: &mut [u8],
        out: &mut Vec<u8>,
        looked: Option<Duration>,
    ) -> Outcome {
        let node = &self.node;
        let start = self.begin(header);
        let caller = self.caller(header);
        if let Err(refusal) = body::check_shape(header, body, &node.rules.get()) {
            return node.answer_refusal(header, &caller, start, refusal, out);
        }
        let key_is_settled = match &self.order {
            Some(order) if header.encryption != Encryption::None && !order.lets_reads_pass() => {
                order.in_the_way(key_footprint(header), None) == 0
            }
            _ => true,
        };
        let own_key;
        let key = if header.encryption == Encryption::None {
            &NO_KEY
        } else {
            match node.key_now(header, body) {
                Some(Ok(key)) if key_is_settled => {
                    own_key = key;
                    &own_key
                }
                Some(Err(status)) if key_is_settled => {
                    return node.answer_refusal(header, &caller, start, unread(status), out);
                }
                _ => return self.unread_later(header, start, body, out),
            }
        };
        let opened = match open(header, body, key, &node.rules.get()) {
            Ok(opened) => opened,
            Err(refusal) => return node.answer_refusal(header, &caller, start, refusal, out),
        };
        if !node.admits(header.command, caller) {
            let refusal = BodyRefusal {
                status: Status::TOO_MANY_REQUESTS,
                challenge_answer: opened.challenge_answer,
            };
            return node.answer_refusal(header, &caller, start, refusal, out);
        }
        let single = || node.single(header.command, opened.payload, caller);
        let mut known_single = None;
        let in_the_way = match &self.order {
            None => 0,
            Some(order) if order.is_empty() => 0,
            Some(order) if order.lets_reads_pass() && header.command != Command::Pown => 0,
            Some(order) => {
                known_single = single();
                let footprint = Footprint::of(header.command, opened.payload, key_coins(header));
                order.in_the_way(footprint, known_single.as_ref().and_then(Single::exchanges))
            }
        };
        if in_the_way == 0 {
            let proof = opened.challenge_answer;
            let seal = |response: Response<'_>, status| {
                node.seal(header, &caller, start, response, status, key, proof)
            };
            let mut response = Response::begin(out, header);
            if let Some(status) =
                node.now(header.command, opened.payload, caller, response.payload())
            {
                if !status.is_verdict() {
                    response.clear();
                }
                return seal(response, status);
            }
            response.clear();
            if let Some(single) = known_single.or_else(single) {
                match self.park(header, single, looked) {
                    Err(Full) => {
                        response.withdraw();
                        return self.answer_no_room(header, start, proof, out);
                    }
                    Ok(Parked::Now(status)) => return seal(response, status),
                    Ok(Parked::Under(id)) => {
                        let status = Status::ALL_FAIL; // until it is known
                        seal(response, status);
                        return Outcome::Parked(id);
                    }
                    Ok(Parked::Repeated) => return Outcome::Silent,
                    Ok(Parked::HasToWait) => {}
                }
            }
            response.withdraw();
        }
        let Ok((waits, share)) = self.account().enter(&Needs::of(header)) else {
            return self.answer_no_room(header, start, opened.challenge_answer, out);
        };
        let pending = self.pending(header, start);
        let footprint = || Footprint::of(header.command, opened.payload, key_coins(header));
        let place = self.order.as_ref().map(|order| {
            let footprint = footprint();
            (order.clone(), order.enter(footprint, footprint))
        });
        let readable = Readable {
            key: key.clone(),
            challenge_answer: opened.challenge_answer,
            payload: opened.payload.to_vec(),
        };
        let (node, caller) = (self.node.clone(), caller.paying(&waits));
        patience::later(&self.node, pending.start, waits, async move {
            let made = node.answer_readable(&pending, readable, caller, place.as_ref(), share);
            let made = made.await;
            node.answered_later(&pending, &made);
            leave(place.as_ref());
            made
        })
    }

    /// Asks the owner of the only coin of a request; no earlier request on its connection concerns
    /// that coin.
    ///
    /// # Errors
    /// Where there is no place to wait in; nothing has happened.
    #[inline]
    fn park(
        &self,
        header: &RequestHeader,
        single: Single,
        looked: Option<Duration>,
    ) -> Result<Parked, Full> {
        let (node, coin) = (&self.node, single.coin());
        let changes = matches!(single, Single::Exchange(..));
        let waits = self.account().place(changes)?;
        let place = self.order.as_ref().map(|order| {
            let footprint = Footprint::one(coin, changes, key_coins(header));
            // Only where it cannot be overtaken: on its way to another shard it may turn out to be
            // a repeat, which takes a task there.
            let is_queued = changes && node.shard().owns(coin.page());
            let place = order.enter_free(footprint, is_queued.then_some(coin));
            (order.clone(), place)
        });
        let id = node.parking.enter(parking::Parked {
            command: header.command,
            encryption: header.encryption,
            start: looked.unwrap_or_else(|| node.shard().environment.monotonic()),
            datagram: self.caller.came_as(),
            place,
            answer: parking::Answer::default(),
            waits: Some(waits),
        });
        Ok(match node.mesh.ask_one(single, id) {
            Asked::UnderWay => Parked::Under(id),
            Asked::HasToWait => {
                node.parking.withdraw(id);
                Parked::HasToWait
            }
            Asked::Repeated => {
                node.parking.withdraw(id);
                node.shard()
                    .count(|counters| counters.repeats_unanswered += 1);
                Parked::Repeated
            }
            Asked::Now(passed) => {
                node.parking.withdraw(id);
                Parked::Now(passed.map_or_else(Status::from, verdict))
            }
        })
    }

    /// Answers a request whose key has to be asked for, or is about to change.
    fn unread_later(
        &self,
        header: &RequestHeader,
        start: Start,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Ok((waits, share)) = self.account().enter(&Needs::of(header)) else {
            return self.answer_no_room(header, start, Challenge::NO_ANSWER, out);
        };
        let pending = self.pending(header, start);
        let place = self.order.as_ref().map(|order| {
            let needs = key_footprint(header);
            (order.clone(), order.enter(needs, Footprint::EVERYTHING))
        });
        let (node, caller) = (self.node.clone(), self.caller(header).paying(&waits));
        let mut body = body.to_vec();
        patience::later(&self.node, pending.start, waits, async move {
            let header = &pending.header;
            if let Some((order, at)) = &place
                && order.turn(*at).await == Err(Gone)
            {
                node.budget.dropped();
                leave(place.as_ref());
                return Made::default();
            }
            let key = node.key(header, &body).await;
            let opened = key.map_err(unread).and_then(|key| {
                let opened = open(header, &mut body, &key, &node.rules.get())?;
                if !node.admits(header.command, caller) {
                    return Err(BodyRefusal {
                        status: Status::TOO_MANY_REQUESTS,
                        challenge_answer: opened.challenge_answer,
                    });
                }
                Ok(Readable {
                    challenge_answer: opened.challenge_answer,
                    payload: opened.payload.to_vec(),
                    key,
                })
            });
            let made = match opened {
                Ok(readable) => {
                    drop(body);
                    if let Some((order, at)) = &place {
                        let keys = key_coins(header);
                        order.narrow(*at, Footprint::of(header.command, &readable.payload, keys));
                    }
                    node.answer_readable(&pending, readable, caller, place.as_ref(), share)
                        .await
                }
                Err(refusal) => {
                    let mut out = Vec::new();
                    // Without an answer, nothing is in it.
                    node.answer_refusal(header, &caller, Some(pending.start), refusal, &mut out);
                    paid(out, share)
                }
            };
            node.answered_later(&pending, &made);
            leave(place.as_ref());
            made
        })
    }
}

impl<E: Environment> Node<E> {
    async fn answer_readable(
        &self,
        pending: &Pending,
        readable: Readable,
        caller: Caller,
        place: Option<&(Rc<Order>, Place)>,
        share: Share,
    ) -> Made {
        if let Some((order, at)) = place
            && order.turn(*at).await == Err(Gone)
        {
            self.budget.dropped();
            return Made::default();
        }
        let header = &pending.header;
        let mut out = Vec::new();
        let mut response = Response::begin(&mut out, header);
        let payload = response.payload();
        let status = self
            .later(header.command, &readable.payload, caller, payload)
            .await;
        let Some(status) = status else {
            return Made::default();
        };
        if !status.is_verdict() {
            response.clear();
        }
        // Without an answer, nothing is in it.
        self.seal(
            header,
            &caller,
            Some(pending.start),
            response,
            status,
            &readable.key,
            readable.challenge_answer,
        );
        drop(readable);
        paid(out, share)
    }

    /// The status for a request of this group where there is no room for it.
    pub(super) fn no_room(&self, group: u8) -> Status {
        match group {
            2 | 4 => in_dialect(Status::OUT_OF_MEMORY, self.rules.get().dialect),
            _ => Status::OUT_OF_MEMORY,
        }
    }

    /// Counts a request that a task answered, if it did, and the time that it took.
    fn answered_later(&self, pending: &Pending, made: &Made) {
        if made.bytes.is_empty() {
            return;
        }
        let took = (self.shard().environment.monotonic()).saturating_sub(pending.start);
        self.latency.record(pending.header.command, took);
    }

    fn answer_refusal(
        &self,
        header: &RequestHeader,
        caller: &Caller,
        start: Start,
        refusal: BodyRefusal,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let response = Response::begin(out, header);
        self.seal(
            header,
            caller,
            start,
            response,
            refusal.status,
            &Key::None,
            refusal.challenge_answer,
        )
    }

    /// Whether a refusal may be sent now to this caller, who sent a datagram; counts it.
    #[cold]
    fn may_refuse(&self, caller: &Caller, status: Status) -> bool {
        let now = || self.shard().environment.monotonic();
        let datagram = caller.came_as();
        datagram.is_none_or(|datagram| self.datagrams.may_refuse(datagram, status, now))
    }

    /// Ends a response: [`Outcome::Answered`], or [`Outcome::Silent`] where the request gets none.
    ///
    /// Every answer of every command passes here but those that a header alone is refused with and
    /// the end of [parked](Outcome::Parked) ones; so what holds over UDP for all of them is here. A
    /// command that changes something must not come with an answer that is too long: a client that
    /// is told to ask over TCP has to find everything as it was. It looks at
    /// [`Caller::payload_bytes_max`] first.
    #[inline]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is of another part of the request, and no two go elsewhere together"
    )]
    fn seal(
        &self,
        header: &RequestHeader,
        caller: &Caller,
        start: Start,
        mut response: Response<'_>,
        mut status: Status,
        key: &Key,
        challenge_answer: [u8; Challenge::SIZE],
    ) -> Outcome {
        if caller.transport == Transport::Udp {
            if response.payload_bytes() > caller.payload_bytes_max {
                response.clear();
                status = Status::ASK_OVER_TCP;
            }
            if status == Status::ASK_OVER_TCP {
                self.datagrams.too_long();
            }
            if !status.is_verdict() && !self.may_refuse(caller, status) {
                response.withdraw();
                return Outcome::Silent;
            }
        }
        let environment = &self.shard().environment;
        let mut nonce = [0; RESPONSE_NONCE_SIZE];
        if header.encryption.has_hmac() {
            environment.random(&mut nonce);
        }
        let took = start.map_or(Duration::ZERO, |start| {
            environment.monotonic().saturating_sub(start)
        });
        response.finish(Sealing {
            rules: &self.rules.get(),
            status,
            key,
            challenge_answer,
            execution_micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            nonce,
        });
        Outcome::Answered
    }
}

impl Caller {
    /// Like the function above, for a request that takes its bytes from the account of this place.
    fn paying(self, place: &budget::Place) -> Caller {
        Caller {
            account: place.account_id(),
            ..self
        }
    }
}

impl<E: Environment> Drop for Session<E> {
    fn drop(&mut self) {
        if let Some(order) = &self.order {
            order.close();
        }
    }
}

/// An answer, with the share of its request. The share is reduced to what the answer takes: nothing
/// else is left of the request.
fn paid(bytes: Vec<u8>, mut share: Share) -> Made {
    share.hold(bytes.capacity());
    Made {
        bytes,
        share: Some(share),
    }
}

fn leave(place: Option<&(Rc<Order>, Place)>) {
    if let Some((order, at)) = place {
        order.leave(*at);
    }
}

fn unread(status: Status) -> BodyRefusal {
    BodyRefusal {
        status,
        challenge_answer: Challenge::NO_ANSWER,
    }
}

/// What must be settled before the request's key is known.
fn key_footprint(header: &RequestHeader) -> Footprint {
    match header.key_source() {
        KeySource::Locker(_) => Footprint::ANY_COIN,
        _ => Footprint::of(Command::Echo, &[], key_coins(header)),
    }
}

/// The coins whose ANs are the request's key.
fn key_coins(header: &RequestHeader) -> impl Iterator<Item = Coin> + use<> {
    let (first, second) = match header.key_source() {
        KeySource::None | KeySource::Locker(_) => (None, None),
        KeySource::Coin(coin) => (coin, None),
        KeySource::TwoCoins(first, second) => (first, second),
    };
    first.into_iter().chain(second)
}
