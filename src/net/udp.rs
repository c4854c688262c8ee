use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::runtime::{Timer, UdpSocket};

use super::datagrams::{Address, BATCH, Received, Sending};
use super::parked::Place;
use super::serve::Worker;
use super::stop::Stopped;
use super::{Handled, Handler, Later, Origin, Session, Transport};
use crate::runtime::Rings;
use crate::runtime::turn;
use crate::service::budget::Made;

/// The longest answer a datagram can carry, bytes: 65,535 less the IPv4 and UDP headers.
const ANSWER_BYTES_MAX: usize = 65_507;

/// Bytes of requests and answers handled before others get a turn: a batch of large datagrams holds
/// thousands of coins each.
const BYTES_A_TURN: usize = 64 * 1024;

/// From this many datagrams in one call on, more are assumed to be there already. With 64 in flight
/// this gives 4 % more answers than waiting after each call; with one in flight it would cost a
/// call.
const BUSY: usize = 4;

/// How long to leave alone a socket that fails for want of memory or the like.
const PAUSE: Duration = Duration::from_millis(1);

/// Memory of answers that is kept for others: how many, and the largest, bytes.
const SPARE_ANSWERS: usize = 1_024;
const SPARE_ANSWER_BYTES: usize = 256;

/// How often to try again to send when the kernel has no room; a datagram may get lost anyway.
const SEND_ATTEMPTS: usize = 10;

/// Answers that came later than their datagram's turn and wait to be sent. All that become ready in
/// one turn go out in one batch.
#[derive(Default)]
pub(super) struct Outbox {
    answers: RefCell<VecDeque<(Address, Made)>>,
    /// Empty buffers, for the next answers that are kept.
    spare: RefCell<Vec<Vec<u8>>>,
    waker: Cell<Option<Waker>>,
    /// Whether answers have been taken out and are not sent yet.
    sending: Cell<bool>,
}

impl Outbox {
    /// Whether all answers have been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.answers.borrow().is_empty() && !self.sending.get()
    }

    pub(super) fn push(&self, peer: Address, answer: Made) {
        self.answers.borrow_mut().push_back((peer, answer));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A copy of an answer, to be pushed later.
    fn keep(&self, answer: &[u8]) -> Vec<u8> {
        let mut kept = self.spare.borrow_mut().pop().unwrap_or_default();
        kept.extend_from_slice(answer);
        kept
    }

    pub(super) fn give_back(&self, mut answer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_ANSWERS && answer.capacity() <= SPARE_ANSWER_BYTES {
            answer.clear();
            spare.push(answer);
        }
    }
}

/// Receives this core's datagrams and answers those that can be answered at once, until stopped.
pub(super) async fn receive<H: Handler>(
    socket: Rc<UdpSocket>,
    address: SocketAddr,
    handler: H,
    worker: Rc<Worker>,
    outbox: Rc<Outbox>,
) {
    let mut session = handler.session(Origin {
        transport: Transport::Udp,
        peer: address,
    });
    let counters = worker.limits.counters();
    let mut stopped = worker.stop.stopped();
    let (mut received, mut sending) = (Received::new(), Sending::new());
    while !worker.stop.is_stopped() {
        let count = match received.receive(&*socket) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&socket, &mut stopped, &worker.rings).await;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // The errors include reports about answers that could not be delivered; none is a
                // reason to stop receiving.
                counters.receive_errors.fetch_add(1, Relaxed);
                tracing::debug!(%error, "cannot receive datagrams, trying again");
                Timer::new(PAUSE).await;
                continue;
            }
        };
        received
            .all()
            .for_each(|datagram| session.prepare(datagram));
        let mut handled_bytes = 0;
        for index in 0..count {
            let (datagram, peer) = received.datagram(index);
            let Some(client) = peer.client() else {
                continue;
            };
            handled_bytes += datagram.len();
            let handled = session.handle(datagram, client, sending.answer());
            let is_sendable = sending.appended().len() <= ANSWER_BYTES_MAX;
            match handled {
                Handled::Answered if is_sendable => sending.queue(peer),
                Handled::Parked(id) => {
                    let answer = outbox.keep(sending.appended());
                    let place = Place::Datagram(peer, answer);
                    worker.parked.keep(id, place);
                    sending.cancel();
                }
                Handled::Answered => {
                    sending.cancel();
                    counters.answers_dropped.fetch_add(1, Relaxed);
                }
                Handled::Silent => sending.cancel(),
                Handled::Later(later) => {
                    sending.cancel();
                    answer_later(later, peer, &worker, &outbox);
                }
            }
            if handled_bytes + sending.bytes() >= BYTES_A_TURN && index + 1 < count {
                transmit(&socket, &worker, &mut sending).await;
                handled_bytes = 0;
                turn().await;
            }
        }
        transmit(&socket, &worker, &mut sending).await;
        // While many come, check for more at once: that costs less than waiting.
        if !worker.rings.look_if_due().await && count < BUSY {
            wait(&socket, &mut stopped, &worker.rings).await;
        }
    }
}

/// Sends the answers that come later, until dropped.
pub(super) async fn send(socket: Rc<UdpSocket>, worker: Rc<Worker>, outbox: Rc<Outbox>) {
    let mut sending = Sending::new();
    loop {
        poll_fn(|cx| {
            if !outbox.answers.borrow().is_empty() {
                return Poll::Ready(());
            }
            outbox.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        {
            let mut answers = outbox.answers.borrow_mut();
            let count = answers.len().min(BATCH);
            for (peer, answer) in answers.drain(..count) {
                sending.answer().extend_from_slice(&answer.bytes);
                sending.queue(peer);
                outbox.give_back(answer.bytes);
            }
        }
        outbox.sending.set(true);
        transmit(&socket, &worker, &mut sending).await;
        outbox.sending.set(false);
    }
}

/// Waits until there is a datagram, or the signal to stop.
async fn wait(socket: &UdpSocket, stopped: &mut Stopped, rings: &Rings) {
    // Peeking leaves the datagram where it is: nothing is lost when this is dropped half-way.
    let mut byte = [0];
    let mut peek = pin!(socket.peek_from(&mut byte));
    let mut waited = false;
    poll_fn(|cx| {
        // The next call meets the error and counts it.
        if Pin::new(&mut *stopped).poll(cx).is_ready() || peek.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        waited = true;
        Poll::Pending
    })
    .await;
    if waited {
        rings.were_seen();
    }
}

/// Runs an answer to its end and sends it.
fn answer_later(later: Later, peer: Address, worker: &Worker, outbox: &Rc<Outbox>) {
    let outbox = Rc::clone(outbox);
    let limits = Arc::clone(&worker.limits);
    crate::runtime::spawn_local(async move {
        let answer = later.await;
        if answer.bytes.len() > ANSWER_BYTES_MAX {
            limits.counters().answers_dropped.fetch_add(1, Relaxed);
        } else if !answer.bytes.is_empty() {
            outbox.push(peer, answer);
        }
    })
    .detach();
}

/// Sends all queued answers; an answer that cannot be sent is dropped, as datagrams are.
async fn transmit(socket: &UdpSocket, worker: &Worker, sending: &mut Sending) {
    let mut attempts = 0;
    while !sending.is_empty() {
        match sending.send(socket) {
            Ok(()) => attempts = 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_full(&error) && attempts < SEND_ATTEMPTS => {
                attempts += 1;
                Timer::new(PAUSE).await;
            }
            Err(error) => {
                // The error concerns the first answer alone: no way to that client, a firewall, a
                // port of 0.
                let counters = worker.limits.counters();
                counters.answers_dropped.fetch_add(1, Relaxed);
                tracing::debug!(%error, "cannot send an answer");
                sending.leave_out(1);
            }
        }
    }
}

/// Whether the kernel has no room for a datagram just now.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}
