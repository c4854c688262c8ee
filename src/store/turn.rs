use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
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
