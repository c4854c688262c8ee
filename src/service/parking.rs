use std::{
    cell::{Cell, RefCell},
    mem,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;

use super::{
    budget,
    latency::Latency,
    order::{Order, Place},
};
use crate::{
    protocol::{Command, Encryption, Status, complete},
    shard::{Shard, Unavailable},
    store::Environment,
};

/// Requests about one coin whose answers wait for the coin's owner: composed but for the status, and
/// kept by whoever sends them. They take a place here instead of a task, a future and a copy of the
/// request each.
pub(super) struct Parking<E: Environment> {
    shard: Rc<Shard<E>>,
    latency: Rc<Latency>,
    requests: RefCell<Slab<Parked>>,
    released: RefCell<Vec<Release>>,
    waker: Cell<Option<Waker>>,
}

pub(super) struct Parked {
    pub command: Command,
    pub encryption: Encryption,
    /// When it began.
    pub start: Duration,
    /// What the coin is worth in the smallest unit, where it is powned.
    pub powned: Option<u64>,
    /// Where the request stands among its connection's.
    pub place: Option<(Rc<Order>, Place)>,
    /// Its place among all that wait.
    pub _waits: budget::Place,
}

/// Word that a composed answer may go, once [completed](Release::complete).
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The number that the request was [parked](super::Outcome::Parked) under.
    pub id: usize,
    status: Status,
    execution_micros: u32,
    encryption: Encryption,
}

impl Release {
    /// Writes into the composed answer what was not known when it was composed.
    pub fn complete(&self, answer: &mut [u8]) {
        complete(answer, self.encryption, self.status, self.execution_micros);
    }
}

impl<E: Environment> Parking<E> {
    pub fn new(shard: Rc<Shard<E>>, latency: Rc<Latency>) -> Rc<Self> {
        Rc::new(Parking {
            shard,
            latency,
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

    /// Ends a request: its coin passed, or did not, or its owner cannot say.
    pub fn end(&self, id: usize, passed: Result<bool, Unavailable>) {
        let mut requests = self.requests.borrow_mut();
        let parked = &mut requests[id];
        if let Some((order, place)) = parked.place.take() {
            order.leave(place);
        }
        let status = match passed {
            Ok(true) => Status::ALL_PASS,
            Ok(false) => Status::ALL_FAIL,
            Err(Unavailable) => Status::UNAVAILABLE,
        };
        if let (Ok(true), Some(worth)) = (passed, parked.powned) {
            self.shard.count(|counters| {
                counters.coins_powned += 1;
                counters.value_powned = counters.value_powned.saturating_add(worth);
            });
        }
        self.released.borrow_mut().push(Release {
            id,
            status,
            execution_micros: 0, // until it goes
            encryption: parked.encryption,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until requests have ended, and puts word of them in place of what is in `released`. From
    /// then on their numbers are free for others.
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
            for release in released.iter_mut() {
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
