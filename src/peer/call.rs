use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::{Lost, counters::Counting};
use crate::{coin::Coin, protocol::healing::TicketId};

/// What becomes of a claim.
type Outcome = Result<Vec<Coin>, Lost>;

/// A claim under way, as its caller holds it. It goes on by itself. Dropping it gives up the
/// answer, but not the claim: the server may have seen that.
#[must_use = "a claim's answer comes to whoever awaits it"]
#[derive(Debug)]
pub struct Call(Rc<Slot>);

#[derive(Debug)]
struct Slot {
    outcome: RefCell<Option<Outcome>>,
    waker: RefCell<Option<Waker>>,
}

/// The same claim, as the task that asks the server holds it.
#[derive(Debug)]
pub(super) struct Asked {
    pub ticket: TicketId,
    /// By when it has to be answered.
    pub due: Instant,
    slot: Rc<Slot>,
    counting: Rc<Counting>,
    is_told: bool,
    _seat: Seat,
}

/// A place among the calls in flight, free again when dropped.
#[derive(Debug)]
pub(super) struct Seat(Rc<Cell<usize>>, Rc<Cell<usize>>);

impl Seat {
    /// Takes a place of this server's and one of all servers', if both have one left.
    pub fn take(
        (own, own_max): (&Rc<Cell<usize>>, usize),
        (all, all_max): (&Rc<Cell<usize>>, usize),
    ) -> Option<Seat> {
        if own.get() >= own_max || all.get() >= all_max {
            return None;
        }
        own.set(own.get() + 1);
        all.set(all.get() + 1);
        Some(Seat(own.clone(), all.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.set(self.1.get() - 1);
    }
}

impl Call {
    /// A claim, in its two halves.
    pub(super) fn begin(
        ticket: TicketId,
        due: Instant,
        seat: Seat,
        counting: &Rc<Counting>,
    ) -> (Call, Asked) {
        let slot = Rc::new(Slot {
            outcome: RefCell::new(None),
            waker: RefCell::new(None),
        });
        let asked = Asked {
            ticket,
            due,
            slot: slot.clone(),
            counting: counting.clone(),
            is_told: false,
            _seat: seat,
        };
        (Call(slot), asked)
    }

    /// A claim that is lost before it began.
    pub(super) fn lost(lost: Lost, counting: &Counting) -> Call {
        let outcome = Err(lost);
        counting.ended(&outcome);
        Call(Rc::new(Slot {
            outcome: RefCell::new(Some(outcome)),
            waker: RefCell::new(None),
        }))
    }
}

impl Future for Call {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.0.outcome.take() {
            return Poll::Ready(outcome);
        }
        *self.0.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Asked {
    /// Whether anybody still waits for the answer.
    pub fn is_wanted(&self) -> bool {
        Rc::strong_count(&self.slot) > 1
    }

    /// Tells the caller the outcome. An [`Asked`] that is merely dropped tells [`Lost::Down`].
    pub fn end(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        self.is_told = true;
        match self.is_wanted() {
            true => self.counting.ended(&outcome),
            false => self.counting.count(|counters| counters.given_up += 1),
        }
        *self.slot.outcome.borrow_mut() = Some(outcome);
        let waker = self.slot.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A drop without an outcome ends the call, so that its caller does not wait for ever.
impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(Err(Lost::Down));
        }
    }
}
