use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::task::Waker;

use super::Later;
use crate::service::budget::{Made, Share};

/// The answers of one connection that cannot go out yet because they, or an earlier answer, are not
/// ready. They are kept in the order of their requests, whatever order they become ready in.
#[derive(Debug)]
pub(super) struct Pipeline {
    slots: RefCell<Slots>,
    waker: Waker,
    /// Whether the connection is running, and so will check by itself.
    awake: Cell<bool>,
    /// Whether an answer of unknown size is being made.
    is_alone: Cell<bool>,
    /// Whether the connection is over: nobody takes answers any more.
    is_over: Cell<bool>,
}

#[derive(Debug, Default)]
struct Slots {
    queue: VecDeque<Slot>,
    /// The composed answers, back to back: each `Composed` slot's bytes in the order of the slots.
    composed: Vec<u8>,
    /// Bytes of `composed` that have been sent.
    gone: usize,
    /// Bytes of `composed` that were ever there before its beginning: positions count from the
    /// first.
    before: u64,
    /// The number of the slot at the front; slots are numbered from 0 as they are added.
    front: u64,
    waiting: usize,
    ready_bytes: usize,
    /// The next answer will never come.
    has_ended: bool,
}

#[derive(Debug)]
enum Slot {
    /// The answer will never come, and none behind it may go.
    End,
    /// The answer is being made.
    Waiting,
    /// It was made.
    Made(Made),
    /// The answer lies among the composed ones, from this position on.
    Composed {
        start: u64,
        length: usize,
        is_ready: bool,
    },
}

/// Memory that is kept while no answer waits, bytes.
const KEPT_BYTES_MAX: usize = 2 * 1024;

/// An answer of at least this many bytes is not copied where it is the first to go.
const MOVED_BYTES_MIN: usize = 16 * 1024;

impl Pipeline {
    /// `waker` wakes the connection.
    pub(super) fn new(waker: Waker) -> Rc<Pipeline> {
        Rc::new(Pipeline {
            slots: RefCell::default(),
            waker,
            awake: Cell::new(false),
            is_alone: Cell::new(false),
            is_over: Cell::new(false),
        })
    }

    /// Whether no answer is waited for: the next answer can go out as it comes.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.borrow().queue.is_empty()
    }

    /// Number of answers that are not ready.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.slots.borrow().waiting
    }

    /// Bytes of answers that are ready but have to wait for an earlier one.
    #[inline]
    pub(super) fn ready_bytes(&self) -> usize {
        self.slots.borrow().ready_bytes
    }

    /// Whether an answer of unknown size is being made: until it is made, no answer comes after it.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.get()
    }

    /// Whether the next answer can go out.
    pub(super) fn is_front_ready(&self) -> bool {
        let slots = self.slots.borrow();
        slots.queue.front().is_some_and(Slot::is_ready)
    }

    /// Bytes of composed answers that are kept here.
    #[inline]
    pub(super) fn kept_bytes(&self) -> usize {
        self.slots.borrow().composed.capacity()
    }

    /// Marks the connection as over: no answer is kept any more.
    pub(super) fn end(&self) {
        self.is_over.set(true);
        let mut slots = self.slots.borrow_mut();
        let made = slots.queue.iter_mut().filter_map(|slot| match slot {
            Slot::Made(made) => Some(mem::take(made)),
            Slot::Waiting | Slot::Composed { .. } | Slot::End => None,
        });
        let made: Vec<Made> = made.collect();
        drop(slots);
        drop(made); // giving bytes back may wake others
    }

    /// Records whether the connection is running: while it is, it need not be woken.
    #[inline]
    pub(super) fn set_awake(&self, awake: bool) {
        self.awake.set(awake);
    }

    /// Puts an answer behind those already here. Where it may not go yet, returns the number to
    /// [release](Pipeline::release) it under.
    pub(super) fn append(&self, answer: &[u8], is_ready: bool) -> u64 {
        let mut slots = self.slots.borrow_mut();
        let start = slots.before + slots.composed.len() as u64;
        slots.composed.extend_from_slice(answer);
        match is_ready {
            true => slots.ready_bytes += answer.len(),
            false => slots.waiting += 1,
        }
        slots.queue.push_back(Slot::Composed {
            start,
            length: answer.len(),
            is_ready,
        });
        slots.last_number()
    }

    /// Lets an answer go, which `complete` may still change.
    pub(super) fn release(&self, number: u64, complete: impl FnOnce(&mut [u8])) {
        let mut slots = self.slots.borrow_mut();
        let Slots {
            queue,
            composed,
            before,
            front,
            waiting,
            ready_bytes,
            ..
        } = &mut *slots;
        let index = (number - *front) as usize;
        // A slot leaves the front only when it is ready, so a waiting one is still in the queue.
        let Slot::Composed {
            start,
            length,
            is_ready,
        } = &mut queue[index]
        else {
            unreachable!("the number is of a composed answer");
        };
        let at = (*start - *before) as usize;
        complete(&mut composed[at..at + *length]);
        *is_ready = true;
        *waiting -= 1;
        *ready_bytes += *length;
        self.wake_for(index);
    }

    /// Gives up an answer: those before it go, and then the connection has to close.
    pub(super) fn end_at(&self, number: u64) {
        if self.is_over.get() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let index = (number - slots.front) as usize;
        slots.waiting -= 1;
        // Its bytes stay among the composed until the connection goes.
        slots.queue[index] = Slot::End;
        self.wake_for(index);
    }

    /// Whether all answers before one that never comes have gone.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.slots.borrow().has_ended
    }

    /// Keeps a place for an answer, and runs it to its end whether or not the connection lives on.
    /// `is_alone`: its size is unknown.
    pub(super) fn wait_for(self: &Rc<Pipeline>, later: Later, is_alone: bool) {
        self.is_alone.set(is_alone);
        let number = {
            let mut slots = self.slots.borrow_mut();
            slots.queue.push_back(Slot::Waiting);
            slots.waiting += 1;
            slots.last_number()
        };
        let pipeline = Rc::clone(self);
        crate::runtime::spawn_local(async move {
            let answer = later.await;
            if is_alone {
                pipeline.is_alone.set(false);
                pipeline.wake();
            }
            match answer.bytes.is_empty() {
                true => pipeline.end_at(number),
                false => pipeline.fill(number, answer),
            }
        })
        .detach();
    }

    /// Moves answers whose turn has come to `out`, until there are `most` bytes or more in it, and
    /// their shares to `share`.
    pub(super) fn collect(&self, out: &mut Vec<u8>, most: usize, share: &mut Option<Share>) {
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        while let Some(slot) = slots.queue.front_mut()
            && out.len() < most
        {
            let length = match slot {
                Slot::Made(made) => {
                    let Made { bytes, share: its } = mem::take(made);
                    let length = bytes.len();
                    match out.is_empty() && length >= MOVED_BYTES_MIN {
                        true => *out = bytes,
                        false => out.extend_from_slice(&bytes),
                    }
                    match (&mut *share, its) {
                        (Some(share), Some(its)) => share.join(its),
                        (none @ None, its) => *none = its,
                        (Some(_), None) => {}
                    }
                    length
                }
                Slot::Composed {
                    start,
                    length,
                    is_ready: true,
                } => {
                    let at = (*start - slots.before) as usize;
                    out.extend_from_slice(&slots.composed[at..at + *length]);
                    slots.gone = at + *length;
                    *length
                }
                Slot::Waiting | Slot::Composed { .. } => break,
                Slot::End => {
                    slots.has_ended = true;
                    break;
                }
            };
            slots.ready_bytes -= length;
            slots.queue.pop_front();
            slots.front += 1;
        }
        slots.tidy();
    }

    fn fill(&self, number: u64, answer: Made) {
        if self.is_over.get() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let index = (number - slots.front) as usize;
        slots.waiting -= 1;
        slots.ready_bytes += answer.bytes.len();
        // A slot leaves the front only when it is ready, so a waiting one is still in the queue.
        slots.queue[index] = Slot::Made(answer);
        self.wake_for(index);
    }

    /// Handles that an answer became ready: the connection can go on if it is the next.
    fn wake_for(&self, index: usize) {
        if index == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        if !self.awake.get() {
            self.waker.wake_by_ref();
        }
    }
}

impl Slot {
    fn is_ready(&self) -> bool {
        match self {
            Slot::Waiting => false,
            Slot::Made(_) | Slot::End => true,
            Slot::Composed { is_ready, .. } => *is_ready,
        }
    }
}

impl Slots {
    fn last_number(&self) -> u64 {
        self.front + self.queue.len() as u64 - 1
    }

    /// Gives back memory of answers that have gone.
    fn tidy(&mut self) {
        if self.gone == self.composed.len() {
            self.before += self.gone as u64;
            self.gone = 0;
            self.composed.clear();
            if self.composed.capacity() > KEPT_BYTES_MAX {
                self.composed = Vec::new();
            }
        } else if self.gone > self.composed.len() / 2 {
            self.before += self.gone as u64;
            let gone = mem::take(&mut self.gone);
            self.composed.drain(..gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pipeline: &Pipeline) -> Vec<u8> {
        let mut out = Vec::new();
        pipeline.collect(&mut out, usize::MAX, &mut None);
        out
    }

    #[test]
    fn answers_leave_in_the_order_of_their_requests_as_they_are_completed() {
        let pipeline = Pipeline::new(Waker::noop().clone());
        let first = pipeline.append(b"1_", false);
        pipeline.append(b"22", true);
        let third = pipeline.append(b"3_", false);
        pipeline.append(b"44", true);
        assert_eq!((pipeline.waiting(), pipeline.ready_bytes()), (2, 4));
        pipeline.release(third, |answer| answer[1] = b'c');
        assert_eq!(sent(&pipeline), b"");
        pipeline.release(first, |answer| answer[1] = b'a');
        assert_eq!(sent(&pipeline), b"1a223c44");
        assert!(pipeline.is_empty());
        assert_eq!((pipeline.waiting(), pipeline.ready_bytes()), (0, 0));
    }

    #[test]
    fn an_answer_that_never_comes_is_the_end_of_what_goes() {
        let pipeline = Pipeline::new(Waker::noop().clone());
        let first = pipeline.append(b"1_", false);
        let second = pipeline.append(b"2_", false);
        pipeline.append(b"33", true);
        pipeline.end_at(second);
        assert_eq!(sent(&pipeline), b"");
        assert!(!pipeline.has_ended());
        pipeline.release(first, |answer| answer[1] = b'a');
        assert_eq!(sent(&pipeline), b"1a");
        assert!(pipeline.has_ended());
        assert_eq!((sent(&pipeline), pipeline.waiting()), (vec![], 0));
    }

    #[test]
    fn memory_is_given_back_while_answers_always_wait() {
        let pipeline = Pipeline::new(Waker::noop().clone());
        let mut waiting = pipeline.append(&[0; 100], false);
        let mut largest = 0;
        for _ in 0..1_000 {
            let next = pipeline.append(&[1; 100], false);
            pipeline.release(waiting, |_| ());
            assert_eq!(sent(&pipeline).len(), 100);
            waiting = next;
            largest = largest.max(pipeline.slots.borrow().composed.capacity());
        }
        assert!(largest <= 1_000, "{largest}");
        assert!(!pipeline.is_empty());
    }
}
