use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The signal to stop: given once, from any thread, seen by every core at once.
///
/// ```
/// let stop = raida::net::Stop::default();
/// let elsewhere = stop.clone();
/// std::thread::spawn(move || elsewhere.stop()).join().unwrap();
/// assert!(stop.is_stopped());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: Vec<(u64, Waker)>,
}

/// Ready once the signal was given; see [`Stop::stopped`].
#[derive(Debug)]
pub struct Stopped {
    shared: Arc<Shared>,
    registered: Option<u64>,
}

impl Stop {
    /// Gives the signal.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.shared.waiting().wakers);
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    /// Whether the signal was given.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed)
    }

    /// Waits for the signal. Only one task may poll it: it remembers the first waker it meets, so
    /// that polling it again costs no lock.
    pub fn stopped(&self) -> Stopped {
        Stopped {
            shared: Arc::clone(&self.shared),
            registered: None,
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A push, a removal and a take are each whole or not at all, so a panic elsewhere while
        // the lock was held leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Stopped {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if self.registered.is_some() {
            return Poll::Pending;
        }
        let mut waiting = self.shared.waiting();
        let id = waiting.next;
        waiting.next += 1;
        waiting.wakers.push((id, cx.waker().clone()));
        drop(waiting);
        self.registered = Some(id);
        // The signal may have come between the check above and the lock: then nobody would wake us.
        if self.shared.stopped.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(registered) = self.registered {
            let mut waiting = self.shared.waiting();
            waiting.wakers.retain(|(id, _)| *id != registered);
        }
    }
}
