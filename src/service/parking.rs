use std::{
    cell::{Cell, RefCell},
    mem,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;

use super::{
    authentication::verdict,
    budget,
    datagrams::{CameAs, Datagrams},
    latency::Latency,
    order::{Order, Place},
};
use crate::runtime::Environment;
use crate::{
    protocol::{Command, Encryption, Status, complete},
    shard::{NotChanged, Shard},
};

/// Requests about one coin whose answers wait for the coin's owner. The answers are composed except
/// for the status, and their senders keep them. Each takes a place here instead of a task, a future
/// and a copy of the request.
pub(super) struct Parking<E: Environment> {
    shard: Rc<Shard<E>>,
    latency: Rc<Latency>,
    datagrams: Rc<Datagrams>,
    requests: RefCell<Slab<Parked>>,
    released: RefCell<Vec<Release>>,
    waker: Cell<Option<Waker>>,
}

pub(super) struct Parked {
    pub command: Command,
    pub encryption: Encryption,
    /// When it began.
    pub start: Duration,
    /// The datagram that it came as; `None` where it came over a stream.
    pub datagram: Option<CameAs>,
    /// Its position among its connection's requests.
    pub place: Option<(Rc<Order>, Place)>,
    /// What has become of its answer.
    pub answer: Answer,
    /// Its place among all that wait; `None` once its answer is given up.
    pub waits: Option<budget::Place>,
}

/// What has become of a parked answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// It waits for the coin's owner.
    #[default]
    Waits,
    /// It may go.
    Released,
    /// It never goes, whatever the coin's owner says later.
    GivenUp,
}

/// Notice that a composed answer may go, once [completed](Release::complete).
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The number that the request was [parked](super::Outcome::Parked) under.
    pub id: usize,
    /// `None` where the request gets no answer.
    status: Option<Status>,
    execution_micros: u32,
    encryption: Encryption,
    /// Whether the answer goes: a datagram may be refused silently, and gets no answer where the
    /// same request is under way.
    pub goes: bool,
    is_given_up: bool,
}

impl Release {
    /// Whether there is no answer and never will be: nobody knows what becomes of the change.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Writes into the composed answer what was not known when it was composed.
    pub fn complete(&self, answer: &mut [u8]) {
        if let Some(status) = self.status {
            complete(answer, self.encryption, status, self.execution_micros);
        }
    }
}

impl<E: Environment> Parking<E> {
    pub fn new(shard: Rc<Shard<E>>, latency: Rc<Latency>, datagrams: Rc<Datagrams>) -> Rc<Self> {
        Rc::new(Parking {
            shard,
            latency,
            datagrams,
            requests: RefCell::default(),
            released: RefCell::default(),
            waker: Cell::default(),
        })
    }

    /// Gives a request a number.
    pub fn enter(&self, parked: Parked) -> usize {
        self.requests.borrow_mut().insert(parked)
    }

    /// Takes a request out again that did not have to wait.
    pub fn withdraw(&self, id: usize) {
        let Parked { place, .. } = self.requests.borrow_mut().remove(id);
        if let Some((order, place)) = place {
            order.leave(place);
        }
    }

    /// Ends a request: its coin passed, or did not, or its owner cannot say, or it gets no answer.
    pub fn end(&self, id: usize, passed: Option<Result<bool, NotChanged>>) {
        let mut requests = self.requests.borrow_mut();
        let parked = &mut requests[id];
        if let Some((order, place)) = parked.place.take() {
            order.leave(place);
        }
        let status = passed.map(|passed| passed.map_or_else(Status::from, verdict));
        if parked.answer == Answer::GivenUp {
            requests.remove(id);
            return;
        }
        parked.answer = Answer::Released;
        let now = || self.shard.environment.monotonic();
        let goes = status.is_some_and(|status| {
            status.is_verdict()
                || parked
                    .datagram
                    .is_none_or(|datagram| self.datagrams.may_refuse(datagram, status, now))
        });
        self.released.borrow_mut().push(Release {
            id,
            status,
            execution_micros: 0, // until it goes
            encryption: parked.encryption,
            goes,
            is_given_up: false,
        });
        self.wake();
    }

    /// Gives up the answers of requests that began before this time and still wait. Their numbers
    /// are free for others once their coins' owners have said what became of them. Returns how many
    /// there were.
    pub fn give_up(&self, before: Duration) -> usize {
        let mut requests = self.requests.borrow_mut();
        let mut released = self.released.borrow_mut();
        let mut count = 0;
        for (id, parked) in requests.iter_mut() {
            if parked.answer == Answer::Waits && parked.start <= before {
                parked.answer = Answer::GivenUp;
                parked.waits = None;
                count += 1;
                released.push(Release {
                    id,
                    status: None,
                    execution_micros: 0,
                    encryption: parked.encryption,
                    goes: false,
                    is_given_up: true,
                });
            }
        }
        drop((requests, released));
        if count > 0 {
            self.wake();
        }
        count
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until requests have ended, and replaces the content of `released` by notices of them.
    /// From then on their numbers are free for others.
    pub fn poll_released(
        &self,
        context: &mut Context<'_>,
        released: &mut Vec<Release>,
    ) -> Poll<()> {
        released.clear();
        mem::swap(released, &mut self.released.borrow_mut());
        if !released.is_empty() {
            let mut requests = self.requests.borrow_mut();
            // They go together, as they came from the log: one look at the clock is enough.
            let now = self.shard.environment.monotonic();
            for release in released.iter_mut().filter(|release| !release.is_given_up) {
                let Parked { command, start, .. } = requests.remove(release.id);
                let took = now.saturating_sub(start);
                release.execution_micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                self.latency.record(command, took);
            }
            return Poll::Ready(());
        }
        self.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}
