use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::runtime::{TcpStream, Timer};
use futures_util::io::{AsyncRead, AsyncWrite};

use super::{Lost, PeerSettings, call::Asked};
use crate::{
    coin::Coin,
    protocol::{
        Command, Encryption, Protection, RaidaId, Request, ResponseCounter, ResponseHeader, Sent,
        Status, TRAILER, healing::Validate, open_response, response::ResponseError,
    },
};

/// Coins of a ticket, at most (docs/protocol.md section 5).
const TICKET_COINS_MAX: usize = 4_096;
/// Bytes of the longest answer body that a connection accepts.
const BODY_BYTES_MAX: usize = TICKET_COINS_MAX * Coin::SIZE + TRAILER.len();
/// Answers to requests that are not encrypted have a header of this size.
const HEADER_BYTES: usize = 32;
/// What a connection has for answers at first, bytes; it grows with the first one that is longer.
const INBOUND_BYTES: usize = 2_048;
/// Answers taken before the core's other tasks have a turn: the longest take 10 µs each.
const ANSWERS_A_TURN: usize = 32;

/// Calls on one connection and their answers, which come in the order of the calls.
#[derive(Debug)]
pub(super) struct Conversation {
    /// Where the server is.
    pub address: SocketAddr,
    with: RaidaId,
    coin_id: u16,
    own: RaidaId,
    idle_timeout: Duration,
    stream: TcpStream,
    /// Calls on their way; the first `sent` bytes have gone.
    outgoing: Vec<u8>,
    sent: usize,
    /// What has come and is not taken yet: the first `filled` bytes.
    inbound: Vec<u8>,
    filled: usize,
    awaited: VecDeque<Awaited>,
    /// Answers taken since others had a turn.
    taken: usize,
    next_echo: u16,
    used: Instant,
    alarm: Alarm,
}

/// A call without an answer. It stays, and so does its deadline, when its caller has given it up:
/// its answer still comes before those to later calls.
#[derive(Debug)]
struct Awaited {
    sent: Sent,
    due: Instant,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Claim(Asked),
    /// Whether the server answers at all.
    Trial,
}

/// What a conversation has come to.
#[derive(Debug)]
pub(super) enum Step {
    /// A claim was answered, if only by a refusal.
    Answered,
    /// The trial was answered.
    TrialPassed,
    /// Many claims were answered, and other tasks get a turn.
    Turn,
    /// It is over.
    Over(End),
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// Nobody used it.
    #[error("nobody used it")]
    Idle,
    /// The server closed it, and owed nothing.
    #[error("the server closed it")]
    Closed,
    /// The server is elsewhere now, by the list of servers or by its name.
    #[error("the server has moved")]
    Moved,
    /// It broke, or the server closed it and owed an answer.
    #[error("it broke: {0}")]
    Broken(io::Error),
    /// An answer did not come in time. Those to later calls would come after it.
    #[error("an answer did not come in time")]
    TimedOut,
    /// What came is no answer to what was asked, so nothing that follows can be trusted.
    #[error("what came is not the answer: {0}")]
    NotAnAnswer(#[from] ResponseError),
    /// An answer is longer than any ticket's.
    #[error("an answer of {0} bytes is announced")]
    TooLong(usize),
    /// Something came, and nothing was asked.
    #[error("bytes came that nobody asked for")]
    Unasked,
}

impl Conversation {
    /// Begins one with this server on a new connection.
    pub fn new(
        (stream, address): (TcpStream, SocketAddr),
        with: RaidaId,
        settings: &PeerSettings,
    ) -> Conversation {
        Conversation {
            address,
            with,
            coin_id: settings.coin_id,
            own: settings.own,
            idle_timeout: settings.idle_timeout,
            stream,
            outgoing: Vec::new(),
            sent: 0,
            inbound: vec![0; INBOUND_BYTES],
            filled: 0,
            awaited: VecDeque::new(),
            taken: 0,
            next_echo: u16::from_be_bytes(random()),
            used: Instant::now(),
            alarm: Alarm::default(),
        }
    }

    /// Whether every call has its answer.
    pub fn is_quiet(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Claims a ticket; [`step`](Conversation::step) sends it.
    pub fn claim(&mut self, asked: Asked) {
        let mut payload = Vec::with_capacity(8);
        Validate::compose(self.own, asked.ticket, &mut payload);
        let due = asked.due;
        self.ask(Command::Validate, &payload, due, Question::Claim(asked));
    }

    /// Asks for any sign of life, due at `due`.
    pub fn try_out(&mut self, due: Instant) {
        self.ask(Command::Echo, &[], due, Question::Trial);
    }

    fn ask(&mut self, command: Command, payload: &[u8], due: Instant, question: Question) {
        let echo = self.next_echo.to_be_bytes();
        self.next_echo = self.next_echo.wrapping_add(1);
        let [random @ .., a, b, c, d, e, f] = random::<18>();
        let mut nonce = [0; 22];
        nonce[..6].copy_from_slice(&[a, b, c, d, e, f]);
        let request = Request {
            to: self.with,
            coin_id: self.coin_id,
            command,
            protection: Protection::None,
            echo,
            challenge: random,
            nonce,
            payload: Some(payload),
        };
        let sent = request
            .compose(&mut self.outgoing)
            .expect("a few bytes are not too long");
        self.used = Instant::now();
        self.awaited.push_back(Awaited {
            sent,
            due,
            question,
        });
    }

    /// Sends what waits to be sent, takes what has come, and looks at the clock. When it is over,
    /// calls that have no answer are lost.
    pub fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Err(error) = self.write(context) {
            return self.over(End::Broken(error));
        }
        let mut is_answered = false;
        loop {
            match self.take_answer() {
                Ok(Some(step)) if matches!(step, Step::TrialPassed) => return Poll::Ready(step),
                Ok(Some(_)) => {
                    is_answered = true;
                    self.taken += 1;
                    if self.taken == ANSWERS_A_TURN {
                        self.taken = 0;
                        return Poll::Ready(Step::Turn);
                    }
                }
                Ok(None) if is_answered => return Poll::Ready(Step::Answered),
                Ok(None) => match self.read(context) {
                    Poll::Ready(Ok(0)) if self.awaited.is_empty() && self.filled == 0 => {
                        return self.over(End::Closed);
                    }
                    Poll::Ready(Ok(0)) => {
                        let closed = io::ErrorKind::UnexpectedEof.into();
                        return self.over(End::Broken(closed));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return self.over(End::Broken(error)),
                    Poll::Pending => break self.taken = 0,
                },
                Err(end) => return self.over(end),
            }
        }
        let due = match self.awaited.front() {
            Some(oldest) => oldest.due,
            None => self.used + self.idle_timeout,
        };
        match self.alarm.poll(due, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if self.awaited.is_empty() => self.over(End::Idle),
            Poll::Ready(()) => self.over(End::TimedOut),
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match Pin::new(&mut self.stream).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.sent += written,
                Poll::Pending => return Ok(()),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }

    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.filled < self.inbound.len(), "a whole answer was taken");
        let room = &mut self.inbound[self.filled..];
        let read = Pin::new(&mut self.stream).poll_read(context, room);
        if let Poll::Ready(Ok(bytes)) = read {
            self.filled += bytes;
        }
        read
    }

    /// Takes the oldest call's answer, if all of it has come.
    fn take_answer(&mut self) -> Result<Option<Step>, End> {
        let Some(oldest) = self.awaited.front() else {
            return match self.filled {
                0 => Ok(None),
                _ => Err(End::Unasked),
            };
        };
        let there = &self.inbound[..self.filled];
        let Some(header) = ResponseHeader::parse(there, Encryption::None) else {
            return Ok(None);
        };
        if header.body_length > BODY_BYTES_MAX {
            return Err(End::TooLong(header.body_length));
        }
        // The header tells whether this is the call's answer, so a wrong one is refused without its
        // body.
        check(&oldest.sent, &header)?;
        let length = HEADER_BYTES + header.body_length;
        if self.filled < length {
            if self.inbound.len() < length {
                self.inbound.resize(HEADER_BYTES + BODY_BYTES_MAX, 0);
            }
            return Ok(None);
        }
        let body = &mut self.inbound[HEADER_BYTES..length];
        let answer = open_response(&oldest.sent, &header, body, ResponseCounter::Restart)?;
        let outcome = coins(answer.status, answer.payload);
        let oldest = self.awaited.pop_front().expect("looked at above");
        self.inbound.copy_within(length..self.filled, 0);
        self.filled -= length;
        self.used = Instant::now();
        Ok(Some(match oldest.question {
            Question::Claim(asked) => {
                asked.end(outcome);
                Step::Answered
            }
            Question::Trial => Step::TrialPassed,
        }))
    }

    /// Ends the conversation, and with it all calls without an answer. If the oldest call ran out
    /// of time, it has held up the others. A wrong answer belongs to the oldest call alone, and
    /// puts the others' answers out of reach.
    fn over(&mut self, end: End) -> Poll<Step> {
        let (oldest, others) = match end {
            End::TimedOut => (Lost::TimedOut, Lost::TimedOut),
            End::NotAnAnswer(_) | End::TooLong(_) => (Lost::Malformed, Lost::Down),
            End::Idle | End::Closed | End::Moved | End::Broken(_) | End::Unasked => {
                (Lost::Down, Lost::Down)
            }
        };
        for (place, call) in self.awaited.drain(..).enumerate() {
            if let Question::Claim(asked) = call.question {
                asked.end(Err(if place == 0 { oldest } else { others }));
            }
        }
        Poll::Ready(Step::Over(end))
    }
}

/// Whether an answer with this header can be that to the call: the rest is checked when it is
/// there.
fn check(sent: &Sent, header: &ResponseHeader) -> Result<(), End> {
    if header.raida != Some(sent.to) {
        return Err(ResponseError::WrongRaida.into());
    }
    // A refused header is answered with group 0, and by some servers without the echo bytes.
    let is_refused = header.status.is_header_refusal();
    let is_ours = header.group == sent.header.command.group() && header.echo == sent.header.echo();
    match is_ours || is_refused {
        true => Ok(()),
        false => Err(ResponseError::WrongEcho.into()),
    }
}

/// What an answer to a claim says.
fn coins(status: Status, payload: &[u8]) -> Result<Vec<Coin>, Lost> {
    match status {
        Status::SUCCESS => match Validate::read(payload) {
            Some(coins) => Ok(coins.iter().collect()),
            None => Err(Lost::Malformed),
        },
        other if other.is_verdict() => Err(Lost::Malformed),
        refusal => Err(Lost::Refused(refusal)),
    }
}

/// Wakes a task at a time that changes often: one timer serves many calls.
#[derive(Debug, Default)]
struct Alarm(Option<(Instant, Timer)>);

impl Alarm {
    /// Ready when this time has come.
    fn poll(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            if due <= now {
                self.0 = None;
                return Poll::Ready(());
            }
            // A timer that rings earlier will do: it is set again then.
            let is_set = |(rings, _): &mut (Instant, Timer)| *rings <= due;
            if self.0.as_mut().is_none_or(|set| !is_set(set)) {
                self.0 = Some((due, Timer::new(due - now)));
            }
            let (_, timer) = self.0.as_mut().expect("set above");
            match Pin::new(timer).poll(context) {
                Poll::Ready(_) => self.0 = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("Linux gives randomness to whoever asks since version 3.17");
    bytes
}
