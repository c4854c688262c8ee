use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

/// A point that all cores reach before any goes on. Not on any request's way, so a mutex will do.
#[derive(Clone)]
pub(super) struct Meeting {
    shared: Arc<Mutex<Arrivals>>,
}

struct Arrivals {
    missing: usize,
    waiting: Vec<Waker>,
}

impl Meeting {
    /// A meeting of this many cores.
    pub fn of(cores: usize) -> Meeting {
        Meeting {
            shared: Arc::new(Mutex::new(Arrivals {
                missing: cores,
                waiting: Vec::new(),
            })),
        }
    }

    /// Arrives, and waits for the others.
    pub async fn attend(&self) {
        let mut has_arrived = false;
        poll_fn(|context| {
            // Counting and pushing are done as a whole or not at all, even after a panic elsewhere.
            let mut arrivals = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut has_arrived, true) {
                arrivals.missing -= 1;
                if arrivals.missing == 0 {
                    arrivals.waiting.drain(..).for_each(Waker::wake);
                }
            }
            if arrivals.missing == 0 {
                return Poll::Ready(());
            }
            arrivals.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
