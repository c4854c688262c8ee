use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::kind::{Kind, Verdict};
use super::tally::Tally;
use crate::protocol::{
    Datagram, Dialect, Encryption, Frame, Protection, RaidaId, Request, ResponseCounter,
    ResponseHeader, Rules, Sent, datagram, frame, open_response,
};

/// The most requests a thread can have under way: an answer names its request by two bytes, and what
/// is left of them tells an answer that comes late from one to a newer request.
pub(super) const SLOTS_MAX: usize = 1 << SLOT_BITS;

const SLOT_BITS: u32 = 10;

/// Which node requests are for.
#[derive(Clone, Copy, Debug)]
pub struct Addressee {
    /// Its number.
    pub raida: RaidaId,
    /// Its coin.
    pub coin_id: u16,
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A node, which answers requests.
    Node,
    /// What sends back every byte that it gets.
    Echo,
}

/// One thread's requests under way. Times are handed in, one a batch: a look at the clock costs as
/// much as a tenth of a request.
pub(super) struct Flight {
    kind: Box<dyn Kind>,
    addressee: Addressee,
    peer: Peer,
    slots: Vec<Slot>,
    under_way: usize,
    payload: Vec<u8>,
    rng: SmallRng,
    tally: Tally,
}

/// A place for a request under way.
struct Slot {
    /// The request, byte by byte.
    bytes: Vec<u8>,
    sent: Option<Sent>,
    at: Instant,
    /// How often the place was used: tells answers to earlier requests apart.
    uses: u16,
}

impl Flight {
    pub(super) fn new(kind: Box<dyn Kind>, addressee: Addressee, slots: usize) -> Flight {
        assert!(slots <= SLOTS_MAX, "the plan was checked");
        let slot = || Slot {
            bytes: Vec::new(),
            sent: None,
            at: Instant::now(),
            uses: 0,
        };
        Flight {
            kind,
            addressee,
            peer: Peer::Node,
            slots: (0..slots).map(|_| slot()).collect(),
            under_way: 0,
            payload: Vec::new(),
            rng: SmallRng::from_rng(&mut rand::rng()),
            tally: Tally::default(),
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Speaks to another peer from now on, and counts anew.
    ///
    /// # Panics
    /// When requests are under way.
    pub(super) fn turn_to(&mut self, peer: Peer) -> Tally {
        assert_eq!(self.under_way, 0);
        self.peer = peer;
        std::mem::take(&mut self.tally)
    }

    pub(super) fn end(self) -> (Box<dyn Kind>, Tally) {
        (self.kind, self.tally)
    }

    /// Puts a request into a free slot; `None` where the kind has nothing left to ask.
    pub(super) fn begin(&mut self, slot: usize, now: Instant) -> Option<&[u8]> {
        let place = &mut self.slots[slot];
        debug_assert!(place.sent.is_none());
        self.payload.clear();
        let asks = (self.kind).request(slot, &mut self.rng, &mut self.payload);
        if !asks {
            return None;
        }
        place.uses = place.uses.wrapping_add(1);
        place.bytes.clear();
        let (mut challenge, mut nonce) = ([0; 12], [0; 22]);
        self.rng.fill_bytes(&mut challenge);
        self.rng.fill_bytes(&mut nonce[..8]);
        let request = Request {
            to: self.addressee.raida,
            coin_id: self.addressee.coin_id,
            command: self.kind.command(),
            protection: Protection::None,
            echo: echo_bytes(slot, place.uses),
            challenge,
            nonce,
            payload: Some(&self.payload),
        };
        let sent = request
            .compose(&mut place.bytes)
            .expect("a plain request may be 4 GiB long, and the plan allows far less");
        place.sent = Some(sent);
        place.at = now;
        self.under_way += 1;
        Some(&place.bytes)
    }

    /// The request in a slot, as [`Flight::begin`] gave it.
    pub(super) fn request(&self, slot: usize) -> &[u8] {
        &self.slots[slot].bytes
    }

    /// The slot whose request a datagram answers; `None` for one that answers none under way.
    pub(super) fn slot_of(&self, answer: &[u8]) -> Option<usize> {
        let echo = match self.peer {
            Peer::Node => ResponseHeader::parse(answer, Encryption::None)?.echo,
            Peer::Echo => match datagram(answer, &self.rules()) {
                Datagram::Whole { header, .. } => header.echo(),
                _ => return None,
            },
        };
        let (slot, uses) = read_echo_bytes(echo);
        let place = self.slots.get(slot)?;
        (place.sent.is_some() && echo_bytes(slot, place.uses) == echo_bytes(slot, uses))
            .then_some(slot)
    }

    /// How many bytes the answer at the front of a stream has; `None` while that is not known.
    pub(super) fn answer_length(&self, bytes: &[u8]) -> Option<usize> {
        match self.peer {
            Peer::Node => ResponseHeader::parse(bytes, Encryption::None)
                .map(|header| Encryption::None.header_size() + header.body_length),
            Peer::Echo => match frame(bytes, &self.rules()) {
                Frame::Whole { length, .. } => Some(length),
                Frame::Incomplete { .. } | Frame::Refused { .. } => None,
            },
        }
    }

    /// Takes the whole answer to a slot's request.
    pub(super) fn answer(&mut self, slot: usize, answer: &mut [u8], now: Instant) {
        let place = &mut self.slots[slot];
        let sent = place.sent.take().expect("a request is under way here");
        self.under_way -= 1;
        let took = now.saturating_duration_since(place.at);
        if self.peer == Peer::Echo {
            self.kind.withdraw(slot);
            match *answer == *place.bytes {
                true => self.tally.right(took),
                false => self.tally.wrong(|| "an echo of other bytes".to_owned()),
            }
            return;
        }
        let header_size = Encryption::None.header_size();
        let opened = match ResponseHeader::parse(answer, Encryption::None) {
            Some(header) => open_response(
                &sent,
                &header,
                &mut answer[header_size..],
                ResponseCounter::Restart,
            )
            .map_err(|error| error.to_string()),
            None => Err("an answer shorter than a header".to_owned()),
        };
        match opened {
            Ok(opened) => match self.kind.answer(slot, opened.status, opened.payload) {
                Verdict::Right => self.tally.right(took),
                Verdict::Refused => self.tally.refused(|| opened.status.to_string()),
                Verdict::Wrong => {
                    let name = opened.status.name();
                    (self.tally).wrong(|| format!("\"{name}\" where it cannot be"));
                }
            },
            Err(error) => {
                self.kind.lost(slot);
                self.tally.wrong(|| error);
            }
        }
    }

    /// Gives up on a slot's request.
    pub(super) fn lose(&mut self, slot: usize) {
        if self.slots[slot].sent.take().is_some() {
            self.under_way -= 1;
            self.tally.lost += 1;
            match self.peer {
                Peer::Node => self.kind.lost(slot),
                Peer::Echo => self.kind.withdraw(slot),
            }
        }
    }

    /// Whether a slot's request waits for longer than `timeout`.
    pub(super) fn is_overdue(&self, slot: usize, now: Instant, timeout: Duration) -> bool {
        let place = &self.slots[slot];
        place.sent.is_some() && now.saturating_duration_since(place.at) > timeout
    }

    pub(super) fn stray(&mut self) {
        self.tally.stray += 1;
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
