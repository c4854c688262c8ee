use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use glommio::timer::Timer;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::deadlines::Deadline;
use super::inbound::{Inbound, READ_BYTES};
use super::limits::Admission;
use super::parked::Place;
use super::pipeline::Pipeline;
use super::readiness::{Interest, Watched};
use super::serve::Worker;
use super::{HEADER_BYTES_MAX, Handled, Handler, Origin, Session, Split, Transport};
use crate::store::turn;

/// Connections accepted before others get a turn.
const ACCEPTS_A_TURN: usize = 16;

/// How long not to accept after an error, such as no file descriptor left: it does not go away by
/// trying again at once, and the connection that could not be accepted keeps waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that a connection has handled before others get a turn.
const REQUESTS_A_TURN: usize = 256;

/// Answers that one connection may wait for; then it is not read from.
const WAITING_MAX: usize = 256;

/// Bytes of answers that one connection may have waiting; then it is not read from. One answer may
/// go beyond this.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// How long a client may take to close after our last answer. To close while bytes of the client's
/// are on their way would reset the connection, and could take the answer from it.
const LINGER_MS: u64 = 500;

/// Accepts this core's connections until listening stops.
pub(super) async fn accept<H: Handler>(
    listener: Watched<TcpListener>,
    worker: Rc<Worker>,
    handler: H,
) {
    let mut accepted = 0;
    while !worker.stop.is_stopped() {
        poll_fn(|cx| listener.poll_readable(cx)).await;
        // Not to be inherited by programs that this process might start.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::accept_with(listener.socket(), flags) {
            Ok(connection) => {
                start(TcpStream::from(connection), &worker, &handler);
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
                tracing::warn!(%error, "cannot accept connections, trying again");
                Timer::new(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn start<H: Handler>(stream: TcpStream, worker: &Rc<Worker>, handler: &H) {
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
            tracing::warn!(%error, "cannot watch a connection, closing it");
            return;
        }
    };
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let session = handler.session(Origin {
        transport: Transport::Tcp,
        peer,
    });
    glommio::spawn_local(run(stream, session, peer, admission, Rc::clone(worker))).detach();
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
    let mut connection = Connection {
        deadline: worker.deadlines.enter(waker.clone()),
        pipeline: Pipeline::new(waker),
        worker,
        stream,
        session,
        peer,
        inbound: Inbound::default(),
        needed: 1,
        skip: 0,
        state: State::Open,
        ended: false,
        out: Vec::new(),
        out_sent: 0,
        sent: 0,
        part: None,
        part_due_ms: None,
        write_due: None,
        waits_since: None,
        _admission: admission,
    };
    while let Next::Turn = poll_fn(|cx| connection.step(cx)).await {
        turn().await;
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
    /// Bytes of a refused request that are still to come.
    skip: usize,

    /// Answers that wait for others.
    pipeline: Rc<Pipeline>,
    /// Answers on their way; the first `out_sent` bytes have gone.
    out: Vec<u8>,
    out_sent: usize,
    /// Bytes sent since the start.
    sent: u64,

    deadline: Deadline,
    /// What the client is being waited for, and until when.
    part: Option<Part>,
    part_due_ms: Option<u64>,
    /// By when, and up to which byte since the start, the client has to take answers.
    write_due: Option<(u64, u64)>,
    /// See [`Flight::wait_for_room`](super::flight::Flight::wait_for_room).
    waits_since: Option<u64>,
    _admission: Admission,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Requests come in.
    Open,
    /// No more is read; what was taken on is answered.
    Finishing,
    /// All is sent and the client knows that it is all; what it still sends is thrown away.
    Lingering,
}

/// What a connection waits for its client to send; each has its time.
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
    /// There is no whole one.
    Starved,
    /// Too many answers wait.
    Paused,
    /// Others want a turn.
    Budget,
}

enum Next {
    /// There is more to do after others had their turn.
    Turn,
    /// It is over.
    Close,
}

impl<S: Session> Connection<S> {
    /// Does what can be done without waiting. Everything that the connection waits for wakes it.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.worker.cut.get() {
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
        if self.out.capacity() == 0 {
            self.out = self.worker.buffers.writing();
        }
        let mut budget = REQUESTS_A_TURN;
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
        self.pipeline.collect(&mut self.out);
        if self.write(cx).is_err() {
            return Poll::Ready(Next::Close);
        }
        if self.pipeline.has_ended() && self.out.is_empty() {
            return Poll::Ready(Next::Close);
        }
        self.inbound.settle(&self.worker.buffers);
        self.set_deadline(halt, budget < REQUESTS_A_TURN);
        // Whatever paused it may have gone with the write, and then nothing would wake it.
        if halt == Halt::Budget || halt == Halt::Paused && !self.is_paused() {
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

    /// Handles requests that have arrived whole.
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
                return Halt::Starved;
            }
            if self.is_paused() {
                self.wait_for_room(waker);
                return Halt::Paused;
            }
            if *budget == 0 {
                return Halt::Budget;
            }
            match self.session.split(pending) {
                Split::Whole { length } if (1..=pending.len()).contains(&length) => {
                    self.session.prepare(&pending[length..]);
                    *budget -= 1;
                    self.needed = 1;
                    self.handle(length);
                    self.inbound.consume(length);
                }
                Split::Incomplete { needed }
                    if needed <= self.worker.limits.max_request_bytes() =>
                {
                    self.needed = needed.max(pending.len() + 1);
                    return Halt::Starved;
                }
                Split::Refused { length } => {
                    *budget -= 1;
                    self.needed = 1;
                    self.refuse(length.filter(|length| *length > 0));
                }
                split => {
                    // A session that lets through what is over the limit, or nonsense: nobody
                    // knows where the next request starts.
                    tracing::warn!(peer = %self.peer, ?split, "framing lost, closing a connection");
                    self.give_up_reading();
                }
            }
        }
    }

    fn handle(&mut self, length: usize) {
        let before = self.out.len();
        let request = self.inbound.request(length);
        match self.session.handle(request, self.peer, &mut self.out) {
            Handled::Answered => self.put_in_order(before),
            Handled::Silent => self.out.truncate(before),
            Handled::Parked(id) => {
                let number = self.pipeline.append(&self.out[before..], false);
                self.out.truncate(before);
                let place = Place::Stream(Rc::clone(&self.pipeline), number);
                self.worker
                    .parked
                    .keep(id, place, self.worker.flight.enter());
            }
            Handled::Later(later) => {
                self.out.truncate(before);
                self.pipeline.wait_for(later, self.worker.flight.enter());
            }
        }
    }

    /// Puts the answer that was appended from `before` on behind those that wait.
    fn put_in_order(&mut self, before: usize) {
        if !self.pipeline.is_empty() && self.out.len() > before {
            self.pipeline.append(&self.out[before..], true);
            self.out.truncate(before);
        }
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

    /// What was taken on is answered, then the connection closes.
    fn give_up_reading(&mut self) {
        self.inbound.clear();
        self.skip = 0;
        self.needed = 1;
        self.state = State::Finishing;
    }

    /// Whether so many answers wait that no request may be taken on.
    fn is_paused(&self) -> bool {
        let unsent = self.out.len() - self.out_sent;
        self.worker.flight.is_full()
            || unsent >= ANSWER_BYTES_MAX
            || !self.pipeline.is_empty()
                && (self.pipeline.waiting() >= WAITING_MAX
                    || unsent + self.pipeline.ready_bytes() >= ANSWER_BYTES_MAX)
    }

    /// Has this connection woken when its core has room again. The other reasons to pause end with
    /// an answer or a write, which wake it anyway.
    fn wait_for_room(&mut self, waker: &Waker) {
        let flight = &self.worker.flight;
        if flight.is_full() && flight.wait_for_room(&mut self.waits_since, waker) {
            count(&self.worker.limits.counters().paused);
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_readable(cx));
            let needed = self.needed.max(self.inbound.pending().len() + 1);
            let room = self.inbound.room(needed, &self.worker.buffers);
            let size = room.len();
            // Not the standard library's: that goes through the C library, whose calls make way for
            // the cancellation of threads, 20 ns each time.
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

    /// Sends what the client's window takes.
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
        self.wait_for_part(Some(Part::End));
        self.linger(cx)
    }

    /// Waits for the client to close, for a while.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.is_late() {
            return Poll::Ready(Next::Close);
        }
        let read = self.read(cx);
        self.inbound.clear();
        self.inbound.settle(&self.worker.buffers);
        match ready!(read) {
            Ok(1..) => Poll::Ready(Next::Turn),
            Ok(0) | Err(_) => Poll::Ready(Next::Close),
        }
    }

    /// Sets the time by which the client has to send or take something. `progress` says whether it
    /// has completed a request since.
    fn set_deadline(&mut self, halt: Halt, progress: bool) {
        let part = match self.state {
            State::Open if halt == Halt::Paused => None, // it is we who are late
            State::Open if self.skip > 0 || self.needed > HEADER_BYTES_MAX => Some(Part::Body),
            State::Open if !self.inbound.pending().is_empty() => Some(Part::Header),
            State::Open if self.out.is_empty() && self.pipeline.is_empty() => Some(Part::Request),
            _ => None,
        };
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
        let timeout_ms = part.map(|part| match part {
            Part::Request => limits.idle_timeout_ms(),
            Part::Header => limits.header_timeout_ms(),
            Part::Body => limits.body_timeout_ms(),
            Part::End => LINGER_MS,
        });
        self.part = part;
        self.part_due_ms = timeout_ms.map(|ms| self.worker.deadlines.after_ms(ms));
        self.deadline.set(self.part_due_ms);
    }

    /// Whether the connection is to be closed at once. A client that is late with a request still
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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
