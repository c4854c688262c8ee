use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

/// Long enough to be still ahead when it is first looked at, short enough to be over when the
/// executor has looked at its ring once.
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

thread_local! {
    static LINE: RefCell<Line> = const { RefCell::new(Line { next: 0, waiting: VecDeque::new() }) };
}

/// Those who wait for their turn at long work, in the order in which they came.
struct Line {
    next: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
}

/// A place in the line, until dropped.
struct Place(u64);

impl Place {
    fn new() -> Place {
        LINE.with_borrow_mut(|line| {
            let number = line.next;
            line.next += 1;
            line.waiting.push_back((number, None));
            Place(number)
        })
    }

    fn poll_first(&self, waker: &Waker) -> Poll<()> {
        LINE.with_borrow_mut(|line| {
            let found = line.waiting.binary_search_by_key(&self.0, |place| place.0);
            match found.expect("a place is in line until it is dropped") {
                0 => Poll::Ready(()),
                behind => {
                    line.waiting[behind].1 = Some(waker.clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = LINE.with_borrow_mut(|line| {
            let found = line.waiting.binary_search_by_key(&self.0, |place| place.0);
            let place = found.expect("a place is in line until it is dropped");
            line.waiting.remove(place);
            let first = line.waiting.front_mut().filter(|_| place == 0);
            first.and_then(|(_, waker)| waker.take())
        });
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// As [`turn`], for long work on one request: of all tasks of this core that wait here only one goes on
/// each time, in the order in which they came. So whoever asks for little waits for one slice of such
/// work, however many ask for much.
pub async fn turn_in_line() {
    let place = Place::new();
    poll_fn(|context| place.poll_first(context.waker())).await;
    turn().await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::future::join_all;
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    #[test]
    fn of_many_at_long_work_one_goes_on_at_a_time_and_those_behind_one_that_is_gone_too() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .make()
            .unwrap();
        executor.run(async {
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
