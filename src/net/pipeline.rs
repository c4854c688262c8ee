use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use super::Later;
use super::flight::InFlight;

/// The answers of one connection that cannot go out yet because an earlier one is not ready: kept in
/// the order of their requests, whatever order they become ready in.
#[derive(Debug)]
pub(super) struct Pipeline {
    slots: RefCell<Slots>,
    waker: Waker,
    /// Whether the connection is running, and so will look for itself.
    awake: Cell<bool>,
}

#[derive(Debug, Default)]
struct Slots {
    queue: VecDeque<Slot>,
    /// The number of the slot at the front; slots are numbered from 0 as they are added.
    front: u64,
    waiting: usize,
    ready_bytes: usize,
}

#[derive(Debug)]
enum Slot {
    Waiting,
    Ready(Vec<u8>),
}

impl Pipeline {
    /// `waker` wakes the connection.
    pub(super) fn new(waker: Waker) -> Rc<Pipeline> {
        Rc::new(Pipeline {
            slots: RefCell::default(),
            waker,
            awake: Cell::new(false),
        })
    }

    /// Whether no answer is waited for: the next one can go out as it comes.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.borrow().queue.is_empty()
    }

    /// Answers that are not ready.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.slots.borrow().waiting
    }

    /// Bytes of answers that are ready but have to wait for an earlier one.
    #[inline]
    pub(super) fn ready_bytes(&self) -> usize {
        self.slots.borrow().ready_bytes
    }

    /// Says whether the connection is running: until told otherwise, it need not be woken.
    #[inline]
    pub(super) fn set_awake(&self, awake: bool) {
        self.awake.set(awake);
    }

    /// Lets `answer` append an answer behind those already here. Only where some are: the answer
    /// before it may be the same slot's, so that answers in a row share one allocation.
    pub(super) fn append<R>(&self, answer: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut slots = self.slots.borrow_mut();
        let mut bytes = match slots.queue.back_mut() {
            Some(Slot::Ready(bytes)) => {
                let bytes = std::mem::take(bytes);
                slots.ready_bytes -= bytes.len();
                slots.queue.pop_back();
                bytes
            }
            _ => Vec::new(),
        };
        drop(slots); // the answer is made by code that is not ours
        let result = answer(&mut bytes);
        if !bytes.is_empty() {
            let mut slots = self.slots.borrow_mut();
            slots.ready_bytes += bytes.len();
            slots.queue.push_back(Slot::Ready(bytes));
        }
        result
    }

    /// Keeps a place for an answer, and runs it to its end whether or not the connection lives on.
    pub(super) fn wait_for(self: &Rc<Pipeline>, later: Later, in_flight: InFlight) {
        let number = {
            let mut slots = self.slots.borrow_mut();
            slots.queue.push_back(Slot::Waiting);
            slots.waiting += 1;
            slots.front + slots.queue.len() as u64 - 1
        };
        let pipeline = Rc::clone(self);
        glommio::spawn_local(async move {
            let answer = later.await;
            pipeline.fill(number, answer);
            drop(in_flight);
        })
        .detach();
    }

    /// Moves every answer whose turn has come to `out`.
    pub(super) fn collect(&self, out: &mut Vec<u8>) {
        let mut slots = self.slots.borrow_mut();
        while let Some(Slot::Ready(bytes)) = slots.queue.front() {
            out.extend_from_slice(bytes);
            slots.ready_bytes -= bytes.len();
            slots.queue.pop_front();
            slots.front += 1;
        }
    }

    fn fill(&self, number: u64, answer: Vec<u8>) {
        let mut slots = self.slots.borrow_mut();
        let index = number - slots.front;
        slots.waiting -= 1;
        slots.ready_bytes += answer.len();
        // A slot leaves the front only when it is ready, so a waiting one is still in the queue.
        slots.queue[index as usize] = Slot::Ready(answer);
        if index == 0 && !self.awake.get() {
            self.waker.wake_by_ref();
        }
    }
}
