use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use crate::runtime::Timer;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::deadlines::Deadline;
use super::inbound::{Inbound, KEPT_BYTES, READ_BYTES};
use super::limits::{Admission, Busy};
use super::parked::Place;
use super::pipeline::Pipeline;
use super::serve::Worker;
use super::told::Told;
use super::{HEADER_BYTES_MAX, Handled, Handler, Origin, Session, Split, Transport};
use crate::runtime::TASK_WORK;
use crate::runtime::turn;
use crate::runtime::{Interest, Watched};
use crate::service::budget::{Account, NoKeeping, Scarce, Share, Waits};
use crate::shard::Stranger;

/// Connections accepted before others get a turn.
const ACCEPTS_A_TURN: usize = 16;

/// How long not to accept after an error, such as no file descriptor left. Trying again at once
/// would not help, and the connection that could not be accepted keeps waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum and minimum number of requests that a connection has handled before others get a turn.
const REQUESTS_A_TURN: usize = 256;
const REQUESTS_A_TURN_MIN: usize = 8;

/// Number of requests that all connections together have handled before the executor looks at its
/// rings, unless very many addresses have more to do: a quarter of a millisecond to half of one. A
/// client that sends one request at a time waits that long for each.
const REQUESTS_A_ROUND: usize = 256;

/// This many bytes of an answer that is made at once count as one request's work.
const BYTES_A_REQUEST: usize = 512;

/// Maximum number of answers that one connection may wait for; beyond it, the connection is not
/// read from.
const WAITING_MAX: usize = 256;

/// Maximum number of bytes of answers that one connection may have waiting; beyond it, the
/// connection is not read from. One answer may exceed this.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// How long a client may take to close after our last answer, or to send more that is thrown away.
/// Closing while the client's bytes are on their way would reset the connection, and could take the
/// answer from the client.
const LINGER_MS: u64 = 500;

/// How long a client may go on sending what is thrown away.
const LINGER_MOST_MS: u64 = 10_000;

/// Accepts this core's connections until listening stops.
pub(super) async fn accept<H: Handler>(
    listener: Watched<TcpListener>,
    worker: Rc<Worker>,
    handler: H,
) {
    let mut accepted = 0;
    let mut told = Told::default();
    while !worker.stop.is_stopped() {
        poll_fn(|cx| listener.poll_readable(cx)).await;
        // Programs that this process may start must not inherit it.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::accept_with(listener.socket(), flags) {
            Ok(connection) => {
                start(TcpStream::from(connection), &worker, &handler, &mut told);
                accepted += 1;
                if accepted % ACCEPTS_A_TURN == 0 {
                    turn().await;
                }
            }
            Err(Errno::AGAIN) => listener.is_empty(),
            // Interrupted, or gone before it was accepted.
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) if worker.stop.is_stopped() => break,
            Err(error) => {
                count(&worker.limits.counters().accept_errors);
                if let Some(times) = told.again(error.raw_os_error(), Instant::now()) {
                    tracing::warn!(%error, times, "cannot accept connections, trying again");
                }
                Timer::new(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn start<H: Handler>(stream: TcpStream, worker: &Rc<Worker>, handler: &H, told: &mut Told) {
    let Ok(peer) = stream.peer_addr() else {
        return; // gone already
    };
    let Some(admission) = worker.limits.admit(peer) else {
        return;
    };
    let stream = match worker.readiness.watch(stream, Interest::ReadAndWrite) {
        Ok(stream) => stream,
        Err(error) => {
            count(&worker.limits.counters().accept_errors);
            let code = error.raw_os_error().unwrap_or_default();
            if let Some(times) = told.again(code, Instant::now()) {
                tracing::warn!(%error, times, "cannot watch a connection, closing it");
            }
            return;
        }
    };
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let session = handler.session(Origin {
        transport: Transport::Tcp,
        peer,
    });
    crate::runtime::spawn_local(run(stream, session, peer, admission, Rc::clone(worker))).detach();
}

/// One connection, from its first byte to its last.
async fn run<S: Session>(
    stream: Watched<TcpStream>,
    session: S,
    peer: SocketAddr,
    admission: Admission,
    worker: Rc<Worker>,
) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    admission.wake_by(&waker);
    let account = worker.budget.account(Stranger::of(peer.ip()));
    let line = worker.lines.of(peer.ip());
    // First of all: on a core without connections nobody has looked at the clock for as long as
    // that was so.
    let deadline = worker.deadlines.enter(waker.clone());
    let first_due_ms = worker.deadlines.after_ms(worker.limits.header_timeout_ms());
    let mut connection = Connection {
        kept: account.keep(),
        account,
        first_due_ms: Some(first_due_ms),
        deadline,
        pipeline: Pipeline::new(waker),
        worker,
        stream,
        session,
        peer,
        inbound: Inbound::default(),
        needed: 1,
        reserved: 0,
        skip: 0,
        state: State::Open,
        ended: false,
        out: Vec::new(),
        out_sent: 0,
        sending: None,
        unsent_max: 0,
        sent: 0,
        part: None,
        part_due_ms: None,
        linger_due_ms: 0,
        write_due: None,
        waits: Waits::NOTHING,
        admission,
    };
    while let Next::Turn = poll_fn(|cx| connection.step(cx)).await {
        let place = line.enter();
        place.is_up().await;
        let turning = connection.worker.rings.wait_for_turn();
        turn().await;
        drop((turning, place));
        connection.worker.rings.were_seen();
    }
}

struct Connection<S> {
    worker: Rc<Worker>,
    stream: Watched<TcpStream>,
    session: S,
    peer: SocketAddr,
    state: State,
    /// Whether the client has sent its last byte.
    ended: bool,

    inbound: Inbound,
    /// Pending bytes at which the session is asked again; at least 1.
    needed: usize,
    /// Bytes that may be kept for the long request at the front.
    reserved: usize,
    /// Bytes of a refused request that are still to come.
    skip: usize,

    /// The account that pays for its places and bytes.
    account: Account,
    /// What this connection keeps of the account from one turn to the next.
    kept: Share,
    waits: Waits,

    /// Answers that wait for others.
    pipeline: Rc<Pipeline>,
    /// Answers on their way; the first `out_sent` bytes have gone.
    out: Vec<u8>,
    out_sent: usize,
    /// The share that answers made by tasks take.
    sending: Option<Share>,
    /// From this many bytes of answers on, no request is taken on this turn.
    unsent_max: usize,
    /// Bytes sent since the start.
    sent: u64,

    deadline: Deadline,
    /// What the connection waits for its client to do, and until when.
    part: Option<Part>,
    part_due_ms: Option<u64>,
    /// When a lingering connection ends, whatever the client still sends.
    linger_due_ms: u64,
    /// When the header of the first request has to be there; `None` from then on.
    first_due_ms: Option<u64>,
    /// Until when, and up to which byte since the start, the client has to take answers.
    write_due: Option<(u64, u64)>,
    admission: Admission,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Requests come in.
    Open,
    /// No more is read; requests taken on are answered.
    Finishing,
    /// All is sent and the client knows that nothing follows; what it still sends is thrown away.
    Lingering,
}

/// What a connection waits for its client to send; each has its own time-out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Request,
    Header,
    Body,
    End,
}

/// Why no more requests are handled now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Halt {
    /// There is no whole request.
    Starved,
    /// Too many answers of this connection wait.
    Paused,
    /// Its address has used its share: the connection is woken when there is room.
    NoRoom,
    /// Other connections want a turn.
    Budget,
}

enum Next {
    /// There is more to do after others had their turn.
    Turn,
    /// The connection is over.
    Close,
}

impl<S: Session> Connection<S> {
    /// Does everything that can be done without waiting. Everything that the connection waits for
    /// wakes it.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        // A lingering connection is gone when both sides have said their last. What the client sent
        // before that has to be read all the same.
        let is_gone = self.state != State::Lingering && self.stream.is_gone();
        if self.worker.cut.get() || is_gone {
            return Poll::Ready(Next::Close);
        }
        self.pipeline.set_awake(true);
        let next = match self.state {
            State::Lingering => self.linger(cx),
            _ => self.advance(cx),
        };
        self.pipeline.set_awake(false);
        next
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.is_late() {
            return Poll::Ready(Next::Close);
        }
        if self.state == State::Open && self.worker.stop.is_stopped() {
            self.state = State::Finishing;
        }
        if self.admission.is_evicted() && self.state == State::Open {
            if self.is_at_rest() {
                return Poll::Ready(Next::Close);
            }
            // It took a request on at the moment when it was chosen to close.
            self.give_up_reading();
        }
        if self.out.capacity() == 0 {
            self.out = self.worker.buffers.writing();
        }
        self.unsent_max = match self.account.can_keep(ANSWER_BYTES_MAX) {
            Ok(()) => ANSWER_BYTES_MAX,
            Err(_) => KEPT_BYTES,
        };
        let others = self.worker.rings.turning();
        let most = (REQUESTS_A_ROUND / (others + 1)).clamp(REQUESTS_A_TURN_MIN, REQUESTS_A_TURN);
        let mut budget = most;
        let mut read_budget = READ_BYTES;
        let halt = loop {
            let halt = self.handle_pending(&mut budget, cx.waker());
            if halt != Halt::Starved || self.state != State::Open {
                break halt;
            }
            if read_budget == 0 {
                break Halt::Budget;
            }
            match self.read(cx) {
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    self.state = State::Finishing;
                    break Halt::Starved;
                }
                Poll::Ready(Ok(length)) => read_budget = read_budget.saturating_sub(length),
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Close),
                Poll::Pending => break Halt::Starved,
            }
        };
        let (sent, most_bytes) = (self.sent, self.out_sent + ANSWER_BYTES_MAX);
        self.pipeline
            .collect(&mut self.out, most_bytes, &mut self.sending);
        if self.write(cx).is_err() {
            return Poll::Ready(Next::Close);
        }
        if self.pipeline.has_ended() && self.out.is_empty() {
            return Poll::Ready(Next::Close);
        }
        self.settle();
        let progress = budget < most;
        self.set_deadline(halt, progress);
        self.say_how_busy(progress || self.sent > sent);
        // What paused it may have gone with the write, and then nothing would wake it.
        if halt == Halt::Budget
            || halt == Halt::Paused && !self.is_paused()
            || self.out.is_empty() && self.pipeline.is_front_ready()
        {
            return Poll::Ready(Next::Turn);
        }
        if self.state == State::Finishing
            && halt == Halt::Starved
            && self.out.is_empty()
            && self.pipeline.is_empty()
        {
            return self.end(cx);
        }
        Poll::Pending
    }

    /// Handles requests that have arrived completely.
    fn handle_pending(&mut self, budget: &mut usize, waker: &Waker) -> Halt {
        loop {
            let pending = self.inbound.pending();
            if self.skip > 0 {
                let skipped = self.skip.min(pending.len());
                self.inbound.consume(skipped);
                self.skip -= skipped;
                if self.skip > 0 {
                    return Halt::Starved;
                }
                continue;
            }
            if pending.len() < self.needed {
                match self.starve(waker) {
                    Some(halt) => return halt,
                    None => {
                        *budget = budget.saturating_sub(1);
                        continue;
                    }
                }
            }
            if self.is_paused() {
                return Halt::Paused;
            }
            if *budget == 0 || self.worker.rings.are_overdue() {
                return Halt::Budget;
            }
            match self.session.split(pending) {
                Split::Whole { length, needs } if (1..=pending.len()).contains(&length) => {
                    if let Some(scarce) = self.account.lacks(&needs) {
                        self.account.wait_for(scarce, &mut self.waits, waker);
                        return Halt::NoRoom;
                    }
                    self.session.prepare(&pending[length..]);
                    self.worker.rings.worked(1);
                    self.needed = 1;
                    let work = self.handle(length, needs.is_open);
                    *budget = budget.saturating_sub(work);
                    self.inbound.consume(length);
                    self.reserved = 0;
                }
                Split::Incomplete { needed }
                    if needed <= self.worker.limits.max_request_bytes() =>
                {
                    self.needed = needed.max(pending.len() + 1);
                }
                Split::Refused { length } => {
                    *budget -= 1;
                    self.needed = 1;
                    self.refuse(length.filter(|length| *length > 0));
                }
                split => {
                    // The session lets through what is over the limit, or nonsense: nobody knows
                    // where the next request starts.
                    tracing::warn!(peer = %self.peer, ?split, "framing lost, closing a connection");
                    self.give_up_reading();
                }
            }
        }
    }

    /// More of the request at the front has to come. Returns why nothing else is done now, unless
    /// there was no room for the request and it was refused.
    fn starve(&mut self, waker: &Waker) -> Option<Halt> {
        if self.needed <= KEPT_BYTES.max(self.reserved) || self.state != State::Open {
            return Some(Halt::Starved);
        }
        match self.reserve() {
            Ok(()) => Some(Halt::Starved),
            Err(NoKeeping::Share) => {
                (self.account).wait_for(Scarce::Kept, &mut self.waits, waker);
                Some(Halt::NoRoom)
            }
            Err(NoKeeping::Core) => {
                self.refuse_for_room();
                None
            }
        }
    }

    /// Takes room for the long request at the front: for all of it before most of it comes. So when
    /// many come at the same time, some can be completed.
    fn reserve(&mut self) -> Result<(), NoKeeping> {
        let more = self.needed.saturating_sub(self.kept.bytes());
        if more > 0 {
            self.account.can_keep(more)?;
            self.kept.hold(self.kept.bytes() + more);
        }
        self.reserved = self.needed;
        Ok(())
    }

    /// Records what is kept until the next turn.
    fn settle(&mut self) {
        let buffers = &self.worker.buffers;
        self.inbound.settle(buffers);
        let unsent = self.out.len() - self.out_sent;
        if unsent == 0 {
            self.sending = None;
        } else if unsent <= KEPT_BYTES && self.out.capacity() > 2 * KEPT_BYTES {
            let rest = self.out[self.out_sent..].to_vec();
            buffers.written(std::mem::replace(&mut self.out, rest));
            self.out_sent = 0;
            self.sending = None;
        }
        let paid = self.sending.as_ref().map_or(0, Share::bytes);
        let inbound = self.inbound.kept_bytes().max(self.reserved);
        let out = self.out.capacity().saturating_sub(paid);
        self.kept.hold(inbound + out + self.pipeline.kept_bytes());
    }

    /// Whether no request is in the works and no answer on its way.
    fn is_at_rest(&self) -> bool {
        self.pipeline.is_empty() && self.out.is_empty()
    }

    /// Informs those that look for a connection to close. `progress` says whether it has completed
    /// a request or taken an answer.
    fn say_how_busy(&self, progress: bool) {
        let busy = match (self.pipeline.waiting(), self.is_at_rest()) {
            (1.., _) => Busy::WithRequests,
            (0, false) => Busy::Sending,
            (0, true) => Busy::No,
        };
        let now_ms = progress.then(|| self.worker.deadlines.now_ms());
        self.admission.say(busy, now_ms);
    }

    /// Returns how much work it was, in requests.
    fn handle(&mut self, length: usize, is_open: bool) -> usize {
        let before = self.out.len();
        let mut work = 1;
        let request = self.inbound.request(length);
        match self.session.handle(request, self.peer, &mut self.out) {
            Handled::Answered => {
                work += (self.out.len() - before) / BYTES_A_REQUEST;
                self.put_in_order(before);
            }
            Handled::Silent => self.out.truncate(before),
            Handled::Parked(id) => {
                let number = self.pipeline.append(&self.out[before..], false);
                self.out.truncate(before);
                let place = Place::Stream(Rc::clone(&self.pipeline), number);
                self.worker.parked.keep(id, place);
            }
            Handled::Later(later) => {
                self.out.truncate(before);
                self.worker.rings.worked(TASK_WORK);
                self.pipeline.wait_for(later, is_open);
            }
        }
        work
    }

    /// Puts the answer that was appended from `before` on behind those that wait.
    fn put_in_order(&mut self, before: usize) {
        if !self.pipeline.is_empty() && self.out.len() > before {
            self.pipeline.append(&self.out[before..], true);
            self.out.truncate(before);
        }
    }

    /// Answers that the core has no room for the request at the front, and skips it.
    fn refuse_for_room(&mut self) {
        self.account.refused();
        let before = self.out.len();
        let here = self.inbound.pending();
        let length = self.needed;
        self.session.refuse_for_room(here, &mut self.out);
        self.skip = length - here.len();
        self.inbound.clear();
        self.put_in_order(before);
        self.needed = 1;
    }

    fn refuse(&mut self, length: Option<usize>) {
        let pending = self.inbound.pending();
        let here = length.unwrap_or(usize::MAX).min(pending.len());
        let before = self.out.len();
        self.session.refuse(&pending[..here], &mut self.out);
        self.put_in_order(before);
        match length {
            Some(length) => {
                self.inbound.consume(here);
                self.skip = length - here;
            }
            None => self.give_up_reading(),
        }
    }

    /// Requests taken on are answered, then the connection closes.
    fn give_up_reading(&mut self) {
        self.inbound.clear();
        self.skip = 0;
        self.needed = 1;
        self.reserved = 0;
        self.state = State::Finishing;
    }

    /// Whether too many answers wait for another request to be taken on. An answer or a write ends
    /// it, which wakes the connection.
    fn is_paused(&self) -> bool {
        let unsent = self.out.len() - self.out_sent;
        unsent >= self.unsent_max
            || !self.pipeline.is_empty()
                && (self.pipeline.waiting() >= WAITING_MAX
                    || self.pipeline.is_alone()
                    || unsent + self.pipeline.ready_bytes() >= self.unsent_max)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_readable(cx));
            let pending = self.inbound.pending().len();
            let needed = self.needed.max(pending + 1);
            // Where no long request can be kept, bytes are taken in short pieces.
            let most = match needed > KEPT_BYTES || self.account.can_keep(READ_BYTES).is_ok() {
                true => usize::MAX,
                false => (KEPT_BYTES - pending).max(1),
            };
            let room = self.inbound.room(needed, &self.worker.buffers);
            let size = room.len().min(most);
            let room = &mut room[..size];
            // Not the standard library's call: that goes through the C library, whose calls allow
            // for the cancellation of threads, 20 ns each time.
            match rustix::net::recv(self.stream.socket(), room, RecvFlags::empty()) {
                Ok((length, _)) => {
                    if length < size {
                        self.stream.is_drained();
                    }
                    self.inbound.filled(length);
                    return Poll::Ready(Ok(length));
                }
                Err(Errno::AGAIN) => self.stream.is_empty(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Sends as much as the client's window takes.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.out_sent < self.out.len() {
            if self.stream.poll_writable(cx).is_pending() {
                // A client that always leaves something must not make this grow for ever.
                if self.out_sent >= self.out.len() / 2 {
                    self.out.drain(..self.out_sent);
                    self.out_sent = 0;
                }
                return Ok(());
            }
            let unsent = &self.out[self.out_sent..];
            // A client that has gone is an error, not a signal that ends the process.
            match rustix::net::send(self.stream.socket(), unsent, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.out_sent += length;
                    self.sent += length as u64;
                }
                Err(Errno::AGAIN) => self.stream.is_full(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out_sent = 0;
        self.worker.buffers.written(std::mem::take(&mut self.out));
        Ok(())
    }

    /// Everything is answered and sent.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.ended || self.stream.socket().shutdown(Shutdown::Write).is_err() {
            return Poll::Ready(Next::Close);
        }
        self.state = State::Lingering;
        self.inbound.clear();
        self.needed = 1;
        let deadlines = &self.worker.deadlines;
        self.linger_due_ms = deadlines.after_ms(LINGER_MOST_MS);
        self.wait_for_part(Some(Part::End));
        self.linger(cx)
    }

    /// Waits for the client to close, for a while.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.is_late() || self.admission.is_evicted() {
            return Poll::Ready(Next::Close);
        }
        let read = self.read(cx);
        self.inbound.clear();
        self.inbound.settle(&self.worker.buffers);
        match ready!(read) {
            Ok(1..) => {
                // No client delays a stopping node by sending more.
                if !self.worker.stop.is_stopped() {
                    self.wait_for_part(Some(Part::End));
                }
                Poll::Ready(Next::Turn)
            }
            Ok(0) | Err(_) => Poll::Ready(Next::Close),
        }
    }

    /// Sets the time by which the client has to send or take something. `progress` says whether it
    /// has completed a request since.
    fn set_deadline(&mut self, halt: Halt, progress: bool) {
        let part = match self.state {
            // The node is late, not the client.
            State::Open if matches!(halt, Halt::Paused | Halt::NoRoom) => None,
            State::Open if self.skip > 0 || self.needed > HEADER_BYTES_MAX => Some(Part::Body),
            State::Open if !self.inbound.pending().is_empty() => Some(Part::Header),
            State::Open if self.out.is_empty() && self.pipeline.is_empty() => Some(Part::Request),
            _ => None,
        };
        if progress || part == Some(Part::Body) {
            self.first_due_ms = None;
        }
        if part != self.part || progress {
            self.wait_for_part(part);
        }
        let queued = self.sent + (self.out.len() - self.out_sent) as u64;
        self.write_due = match self.write_due {
            _ if self.out.is_empty() => None,
            Some((due_ms, mark)) if self.sent < mark => Some((due_ms, mark)),
            _ => {
                let limits = &self.worker.limits;
                let due_ms = self.worker.deadlines.after_ms(limits.idle_timeout_ms());
                Some((due_ms, queued))
            }
        };
        let write_due_ms = self.write_due.map(|(due_ms, _)| due_ms);
        self.deadline
            .set(self.part_due_ms.into_iter().chain(write_due_ms).min());
    }

    fn wait_for_part(&mut self, part: Option<Part>) {
        let limits = &self.worker.limits;
        if let (Some(first_due_ms), Some(Part::Request | Part::Header)) = (self.first_due_ms, part)
        {
            self.part = part;
            self.part_due_ms = Some(first_due_ms);
            return self.deadline.set(self.part_due_ms);
        }
        let timeout_ms = part.map(|part| match part {
            Part::Request => limits.idle_timeout_ms(),
            Part::Header => limits.header_timeout_ms(),
            Part::Body => limits.body_timeout_ms(),
            Part::End => LINGER_MS,
        });
        self.part = part;
        self.part_due_ms = timeout_ms.map(|ms| self.worker.deadlines.after_ms(ms));
        if part == Some(Part::End) {
            self.part_due_ms = self.part_due_ms.min(Some(self.linger_due_ms));
        }
        self.deadline.set(self.part_due_ms);
    }

    /// Whether the connection has to be closed at once. A client that is late with a request still
    /// gets the answers to those before.
    fn is_late(&mut self) -> bool {
        let deadlines = &self.worker.deadlines;
        let counters = self.worker.limits.counters();
        if self.write_due.is_some_and(|(ms, _)| deadlines.is_past(ms)) {
            count(&counters.timed_out_write);
            return true;
        }
        if self.part_due_ms.is_some_and(|ms| deadlines.is_past(ms)) {
            match self.part.take() {
                Some(Part::Request) if self.first_due_ms.is_some() => {
                    count(&counters.timed_out_header);
                }
                Some(Part::Request) => count(&counters.timed_out_idle),
                Some(Part::Header) => count(&counters.timed_out_header),
                Some(Part::Body) => count(&counters.timed_out_body),
                Some(Part::End) | None => return true,
            }
            self.part_due_ms = None;
            self.give_up_reading();
        }
        false
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.pipeline.end();
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
