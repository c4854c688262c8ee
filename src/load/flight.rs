use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::advice::next_step;
use super::keyring::Keyring;
use super::kind::{Kind, Verdict};
use super::measured::Slice;
use super::pace::{DueTimes, Pace};
use super::plan::LoadError;
use super::recorder::Recorder;
use super::resp::{self, RedisRequests};
use super::stop::Stop;
use crate::protocol::{
    Datagram, Dialect, Frame, RaidaId, Request, ResponseCounter, ResponseHeader, Rules, Sent,
    datagram, frame, open_response,
};

/// Maximum number of requests that a thread has under way. An answer names its request by two
/// bytes; the bits that are left distinguish a late answer from one to a newer request.
pub(super) const SLOTS_MAX: usize = 1 << SLOT_BITS;

const SLOT_BITS: u32 = 10;

/// A request that goes out this long after it was due, though only this program held it up, shows
/// that this program does not get its CPU.
const BEHIND: Duration = Duration::from_micros(200);

/// Sleep while a request waits for what its kind prepares: nothing notifies of that.
const SLEEP_WAITING: Duration = Duration::from_millis(1);

/// The node that requests are for.
#[derive(Clone, Copy, Debug)]
pub struct Addressee {
    /// Its number.
    pub raida: RaidaId,
    /// Its coin.
    pub coin_id: u16,
}

/// The peer at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A node, which answers requests.
    Node,
    /// A server that sends back every byte that it gets.
    Echo,
    /// A Redis server.
    Redis,
}

/// A turn as one thread sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Its beginning, from the start of the run.
    pub(super) started: Duration,
    pub(super) begun: Instant,
    pub(super) length: Duration,
    pub(super) pace: Pace,
    /// The number of the thread, and how many threads there are.
    pub(super) thread: (usize, usize),
}

/// One thread's requests under way: when each is due, what it says, and its result. Callers pass
/// times in, one for each batch: reading the clock costs a tenth of a request.
pub(super) struct Flight {
    kind: Box<dyn Kind>,
    addressee: Addressee,
    keyring: Keyring,
    peer: Peer,
    redis: Option<RedisRequests>,
    slots: Vec<Slot>,
    /// Slots that wait for a request, the longest waiting first.
    free: VecDeque<usize>,
    under_way: usize,
    due: DueTimes,
    /// When a request that was due could not be sent for lack of a slot or of something to ask.
    held_up_at: Instant,
    timeout: Duration,
    payload: Vec<u8>,
    rng: SmallRng,
    recorder: Recorder,
    stop: Stop,
}

/// A place for a request under way.
struct Slot {
    /// The request, byte by byte.
    bytes: Vec<u8>,
    /// Data to read the answer with; none where no node is asked.
    sent: Option<Sent>,
    is_under_way: bool,
    /// When it was due: its latency counts from then.
    due: Instant,
    /// When it went out: its time-out counts from then.
    at: Instant,
    /// How often the place was used: distinguishes answers to earlier requests.
    uses: u16,
}

/// The parts that a thread's requests are made of.
pub(super) struct Questions {
    pub(super) kind: Box<dyn Kind>,
    pub(super) addressee: Addressee,
    pub(super) keyring: Keyring,
    pub(super) redis: Option<RedisRequests>,
}

impl Flight {
    pub(super) fn new(
        questions: Questions,
        slots: usize,
        timeout: Duration,
        recorder: Recorder,
        stop: Stop,
    ) -> Flight {
        assert!(slots <= SLOTS_MAX, "the plan was checked");
        let now = Instant::now();
        let slot = || Slot {
            bytes: Vec::new(),
            sent: None,
            is_under_way: false,
            due: now,
            at: now,
            uses: 0,
        };
        Flight {
            kind: questions.kind,
            addressee: questions.addressee,
            keyring: questions.keyring,
            peer: Peer::Node,
            redis: questions.redis,
            slots: (0..slots).map(|_| slot()).collect(),
            free: VecDeque::with_capacity(slots),
            under_way: 0,
            due: DueTimes::Closed { until: now },
            held_up_at: now,
            timeout,
            payload: Vec::new(),
            rng: SmallRng::from_rng(&mut rand::rng()),
            recorder,
            stop,
        }
    }

    /// See [`Kind::prepare`].
    pub(super) fn prepare(&mut self) {
        self.kind.prepare();
    }

    /// See [`Kind::finish`].
    pub(super) fn finish(&mut self) -> Result<(), LoadError> {
        self.kind.finish()
    }

    /// Speaks to a peer for a turn, and starts counting from zero. Every slot is free.
    ///
    /// # Panics
    /// When requests are under way.
    pub(super) fn begin_turn(&mut self, peer: Peer, stretch: Stretch) {
        assert_eq!(self.under_way, 0);
        let Stretch {
            started,
            begun,
            length,
            pace,
            thread,
        } = stretch;
        self.peer = peer;
        self.free.clear();
        self.free.extend(0..self.slots.len());
        self.due = DueTimes::new(pace, thread, begun, begun + length, &mut self.rng);
        self.recorder.begin(started, begun, length);
    }

    /// The result of the turn.
    pub(super) fn end_turn(&mut self) -> Slice {
        self.recorder.end(self.kind.is_spent())
    }

    /// See [`Recorder::take_spun`].
    pub(super) fn take_spun(&mut self) -> Duration {
        self.recorder.take_spun()
    }

    /// See [`Recorder::take_behind`].
    pub(super) fn take_behind(&mut self) -> u64 {
        self.recorder.take_behind()
    }

    /// See [`Kind::take_waited`].
    pub(super) fn take_waited(&mut self) -> u64 {
        self.kind.take_waited()
    }

    pub(super) fn into_kind(self) -> Box<dyn Kind> {
        self.kind
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is under way and nothing more will be sent.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        // In a closed loop nothing under way means that there is nothing left to ask, or not yet.
        let has_no_more = || self.kind.is_spent() || !self.due.is_open() && !self.kind.waits();
        self.under_way == 0 && (self.stop.is_asked() || self.due.is_over(now) || has_no_more())
    }

    /// How long to wait for answers; zero where the next request is due very soon.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let patience = self.due.patience(now);
        match self.under_way {
            _ if self.kind.waits() => patience.min(SLEEP_WAITING),
            0 if !self.due.is_open() => Duration::ZERO,
            _ => patience,
        }
    }

    /// Whether a request waits for its time and not for an answer.
    pub(super) fn is_open(&self) -> bool {
        self.due.is_open()
    }

    /// Records time that was spent looking for something to do.
    pub(super) fn spun(&mut self, time: Duration) {
        // The end of a disk write, also of the node's, may be the work of a kernel thread on this
        // very CPU: a spinning thread would make it wait for a time slice, 3 ms.
        rustix::thread::sched_yield();
        self.recorder.spun(time);
    }

    /// Puts the next due request into a free slot, and returns the slot. `None` where none is due,
    /// no slot is free, or the kind has nothing to ask.
    #[inline]
    pub(super) fn begin(&mut self, now: Instant) -> Option<usize> {
        let mut due = self.due.due(now).filter(|_| !self.stop.is_asked())?;
        // A request counts as lost when it could not be sent for as long as a sent request may
        // wait.
        while self.due.is_open() && now.saturating_duration_since(due) > self.timeout {
            self.recorder.lost();
            self.due.pass(&mut self.rng);
            due = self.due.due(now)?;
        }
        let Some(&slot) = self.free.front() else {
            self.held_up_at = now;
            return None;
        };
        if !self.compose(slot) {
            self.held_up_at = now;
            return None;
        }
        self.free.pop_front();
        self.due.pass(&mut self.rng);
        if now.saturating_duration_since(due) > BEHIND && self.held_up_at < due {
            self.recorder.behind();
        }
        let place = &mut self.slots[slot];
        place.is_under_way = true;
        (place.due, place.at) = (due, now);
        self.under_way += 1;
        Some(slot)
    }

    /// Writes a request into a slot; `false` where there is nothing to ask.
    fn compose(&mut self, slot: usize) -> bool {
        let place = &mut self.slots[slot];
        debug_assert!(!place.is_under_way);
        place.bytes.clear();
        if let (Peer::Redis, Some(redis)) = (self.peer, &mut self.redis) {
            redis.compose(slot, &mut self.rng, &mut place.bytes);
            return true;
        }
        self.payload.clear();
        let asks = (self.kind).request(slot, &mut self.rng, &mut self.payload);
        let Some(command) = asks else {
            return false;
        };
        place.uses = place.uses.wrapping_add(1);
        let protection = self.keyring.next();
        let (mut challenge, mut nonce) = ([0; 12], [0; 22]);
        self.rng.fill_bytes(&mut challenge);
        match protection.encryption().has_hmac() {
            true => self.rng.fill_bytes(&mut nonce),
            false => self.rng.fill_bytes(&mut nonce[..8]),
        }
        let request = Request {
            to: self.addressee.raida,
            coin_id: self.addressee.coin_id,
            command,
            protection,
            echo: echo_bytes(slot, place.uses),
            challenge,
            nonce,
            payload: Some(&self.payload),
        };
        let sent = request
            .compose(&mut place.bytes)
            .expect("the plan allows far fewer coins than a request can hold");
        place.sent = Some(sent);
        true
    }

    /// The request in a slot.
    #[inline]
    pub(super) fn request(&self, slot: usize) -> &[u8] {
        &self.slots[slot].bytes
    }

    /// The slot whose request a datagram answers; `None` for a datagram that answers none under
    /// way.
    pub(super) fn slot_of(&self, answer: &[u8]) -> Option<usize> {
        let echo = match self.peer {
            Peer::Node | Peer::Redis => {
                ResponseHeader::parse(answer, self.keyring.encryption())?.echo
            }
            Peer::Echo => match datagram(answer, &self.rules()) {
                Datagram::Whole { header, .. } => header.echo(),
                _ => return None,
            },
        };
        let (slot, uses) = read_echo_bytes(echo);
        let place = self.slots.get(slot)?;
        (place.is_under_way && echo_bytes(slot, place.uses) == echo_bytes(slot, uses))
            .then_some(slot)
    }

    /// Length of the answer at the front of a stream; `None` while it is unknown.
    pub(super) fn answer_length(&self, bytes: &[u8]) -> Option<usize> {
        match self.peer {
            Peer::Node => {
                let encryption = self.keyring.encryption();
                ResponseHeader::parse(bytes, encryption)
                    .map(|header| encryption.header_size() + header.body_length)
            }
            Peer::Echo => match frame(bytes, &self.rules()) {
                Frame::Whole { length, .. } => Some(length),
                Frame::Incomplete { .. } | Frame::Refused { .. } => None,
            },
            Peer::Redis => resp::answer_length(bytes),
        }
    }

    /// Records that a batch of answers has come; [`Flight::answer`] then takes them one by one.
    #[inline]
    pub(super) fn answers_came(&mut self, now: Instant) {
        self.recorder.at(now);
    }

    /// Takes the complete answer to a slot's request.
    pub(super) fn answer(&mut self, slot: usize, answer: &mut [u8], now: Instant) {
        let place = &mut self.slots[slot];
        debug_assert!(place.is_under_way);
        place.is_under_way = false;
        self.under_way -= 1;
        self.free.push_back(slot);
        let took = now.saturating_duration_since(place.due);
        match self.peer {
            Peer::Node => self.answer_of_node(slot, answer, took),
            Peer::Echo => {
                let is_right = *answer == *place.bytes;
                place.sent = None;
                self.kind.withdraw(slot);
                match is_right {
                    true => self.recorder.right(took),
                    false => self.recorder.wrong(|| "an echo of other bytes".to_owned()),
                }
            }
            Peer::Redis => {
                let Some(redis) = &self.redis else {
                    return;
                };
                let words = || String::from_utf8_lossy(answer).trim_end().to_owned();
                match redis.check(slot, answer) {
                    Verdict::Right => self.recorder.right(took),
                    Verdict::Refused => self.recorder.refused(words),
                    Verdict::Wrong => {
                        (self.recorder).wrong(|| format!("\"{}\" where it cannot be", words()));
                    }
                }
            }
        }
    }

    fn answer_of_node(&mut self, slot: usize, answer: &mut [u8], took: Duration) {
        let sent = self.slots[slot].sent.take();
        let sent = sent.expect("a request to a node is under way here");
        let encryption = sent.header.encryption;
        let opened = match ResponseHeader::parse(answer, encryption) {
            Some(header) => open_response(
                &sent,
                &header,
                &mut answer[encryption.header_size()..],
                ResponseCounter::Restart,
            )
            .map_err(|error| error.to_string()),
            None => Err("an answer shorter than a header".to_owned()),
        };
        match opened {
            Ok(opened) => match self.kind.answer(slot, opened.status, opened.payload) {
                Verdict::Right => self.recorder.right(took),
                Verdict::Refused => {
                    let status = opened.status;
                    (self.recorder).refused(|| format!("{status}{}", next_step(status)));
                }
                Verdict::Wrong => {
                    let name = opened.status.name();
                    (self.recorder).wrong(|| format!("\"{name}\" where it cannot be"));
                }
            },
            Err(error) => {
                self.kind.lost(slot);
                self.recorder.wrong(|| error);
            }
        }
    }

    /// Gives up on a slot's request.
    pub(super) fn lose(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        if !place.is_under_way {
            return;
        }
        place.is_under_way = false;
        place.sent = None;
        self.under_way -= 1;
        self.free.push_back(slot);
        self.recorder.lost();
        match self.peer {
            Peer::Node => self.kind.lost(slot),
            Peer::Echo => self.kind.withdraw(slot),
            Peer::Redis => {}
        }
    }

    /// Stops using slots that `is_out` names for this turn: there is no way left to send their
    /// requests.
    pub(super) fn retire(&mut self, is_out: impl Fn(usize) -> bool) {
        self.free.retain(|&slot| !is_out(slot));
    }

    /// Whether a slot's request waits for longer than allowed.
    pub(super) fn is_overdue(&self, slot: usize, now: Instant) -> bool {
        let place = &self.slots[slot];
        place.is_under_way && now.saturating_duration_since(place.at) > self.timeout
    }

    /// How often to check for requests that wait for too long.
    pub(super) fn overdue_every(&self) -> Duration {
        self.timeout / 10
    }

    pub(super) fn stray(&mut self) {
        self.recorder.stray();
    }

    fn rules(&self) -> Rules {
        Rules {
            raida: self.addressee.raida,
            coin_id: self.addressee.coin_id,
            dialect: Dialect::Spec,
            response_counter: ResponseCounter::Restart,
            max_body_bytes: Rules::BODY_BYTES_CEILING,
        }
    }
}

fn echo_bytes(slot: usize, uses: u16) -> [u8; 2] {
    (slot as u16 | uses << SLOT_BITS).to_be_bytes()
}

fn read_echo_bytes(bytes: [u8; 2]) -> (usize, u16) {
    let both = u16::from_be_bytes(bytes);
    (usize::from(both) & (SLOTS_MAX - 1), both >> SLOT_BITS)
}
