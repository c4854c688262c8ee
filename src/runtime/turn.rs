use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

/// A time long enough to be still ahead when it is first looked at, and short enough to be over
/// when the executor has looked at its ring once.
const INSTANT: Duration = Duration::from_nanos(500);

/// Lets every other task of this core run and the executor look for what the kernel has finished.
///
/// glommio looks at its rings only when no task can run, or when its preemption timer fires (100 ms
/// unless configured): a task that merely yields keeps that from happening, and with it everybody
/// else's reads, writes and timers. So a task that has more to do waits here for a timer that is
/// already over by the time the rings have been seen.
pub async fn turn() {
    let mut timer = Timer::new(INSTANT);
    let mut waited = false;
    poll_fn(|cx| {
        while Pin::new(&mut timer).poll(cx).is_ready() {
            if waited {
                return Poll::Ready(());
            }
            timer = Timer::new(INSTANT); // the thread was interrupted right here
        }
        waited = true;
        Poll::Pending
    })
    .await;
}

/// Tasks of one core that wait for something, in the order in which they came; only the first few
/// may go on.
#[derive(Debug)]
pub struct Line {
    width: usize,
    next: Cell<u64>,
    waiting: RefCell<VecDeque<(u64, Option<Waker>)>>,
}

/// A place in a line, until dropped.
#[derive(Debug)]
pub struct LinePlace {
    line: Rc<Line>,
    number: u64,
}

impl Line {
    /// A line whose first `width` places may go on.
    pub fn new(width: usize) -> Rc<Line> {
        Rc::new(Line {
            width,
            next: Cell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Takes the last place.
    pub fn enter(self: &Rc<Line>) -> LinePlace {
        let number = self.next.get();
        self.next.set(number + 1);
        self.waiting.borrow_mut().push_back((number, None));
        let line = Rc::clone(self);
        LinePlace { line, number }
    }

    fn find(waiting: &VecDeque<(u64, Option<Waker>)>, number: u64) -> usize {
        let found = waiting.binary_search_by_key(&number, |place| place.0);
        found.expect("a place is in line until it is dropped")
    }
}

impl LinePlace {
    /// Waits until it is one of the first.
    pub async fn is_up(&self) {
        poll_fn(|context| {
            let mut waiting = self.line.waiting.borrow_mut();
            match Line::find(&waiting, self.number) {
                place if place < self.line.width => Poll::Ready(()),
                behind => {
                    waiting[behind].1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl Drop for LinePlace {
    fn drop(&mut self) {
        let (line, mut waiting) = (&self.line, self.line.waiting.borrow_mut());
        let place = Line::find(&waiting, self.number);
        waiting.remove(place);
        // Wakes the place that has just become one of the first.
        let up = waiting.get_mut(line.width - 1);
        let next = up.filter(|_| place < line.width).and_then(|up| up.1.take());
        drop(waiting);
        if let Some(next) = next {
            next.wake();
        }
    }
}

thread_local! {
    static LONG_WORK: Rc<Line> = Line::new(1);
}

/// As [`turn`], for long work on one request: of all tasks of this core that wait here only one
/// goes on each time, in the order in which they came. So a request for little waits for one slice
/// of such work, however many requests ask for much.
pub async fn turn_in_line() {
    let place = LONG_WORK.with(Line::enter);
    place.is_up().await;
    turn().await;
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::runtime::run_awake;

    #[test]
    fn of_many_at_long_work_one_goes_on_at_a_time_and_those_behind_one_that_is_gone_too() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .make()
            .unwrap();
        run_awake(&executor, async {
            let (slices, turns) = (Rc::<Cell<u32>>::default(), Rc::<Cell<u32>>::default());
            let counted = turns.clone();
            let counting = glommio::spawn_local(async move {
                loop {
                    turn().await;
                    counted.set(counted.get() + 1);
                }
            });
            let work = (0..8).map(|_| {
                let slices = slices.clone();
                async move {
                    for _ in 0..20 {
                        turn_in_line().await;
                        slices.set(slices.get() + 1);
                    }
                }
            });
            let mut left = Box::pin(turn_in_line());
            let looked = poll_fn(|context| Poll::Ready(left.as_mut().poll(context)));
            assert!(looked.await.is_pending());
            let work: Vec<_> = work.map(glommio::spawn_local).collect();
            turn().await;
            drop(left);
            join_all(work).await;
            assert_eq!(slices.get(), 160);
            // All eight at a time would have left it 20.
            assert!(turns.get() > 40, "{turns:?}");
            counting.cancel().await;
        });
    }
}
