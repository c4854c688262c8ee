use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// Requests of one core that wait for their answer, at most. A waiting request holds its own copy of
/// what it needs, 64 KiB at worst when it came as a datagram: 256 MiB a core if all are that big.
pub(super) const IN_FLIGHT_MAX: usize = 4_096;

/// Once full, reading starts again below this many: far enough down that waking every connection is
/// paid for by as many answers.
const IN_FLIGHT_RESUME: usize = IN_FLIGHT_MAX * 3 / 4;

/// The requests of this core that wait for their answer, and the connections that wait for fewer.
#[derive(Debug, Default)]
pub(super) struct Flight {
    count: Cell<usize>,
    paused: RefCell<Vec<Waker>>,
    /// Counts the times that the paused were woken, so that each is in the list once.
    round: Cell<u64>,
}

/// One request that waits for its answer, until dropped.
#[derive(Debug)]
pub(super) struct InFlight(Rc<Flight>);

impl Flight {
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count.get()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.count.get() >= IN_FLIGHT_MAX
    }

    /// Counts one more, also beyond the maximum: whoever asks looks at [`Flight::is_full`] before it
    /// takes a request on.
    pub(super) fn enter(self: &Rc<Flight>) -> InFlight {
        self.count.set(self.count.get() + 1);
        InFlight(Rc::clone(self))
    }

    /// Has `waker` woken when there is room again. `waits_since` belongs to the caller and starts as
    /// `None`; returns whether the caller was not waiting already.
    pub(super) fn wait_for_room(&self, waits_since: &mut Option<u64>, waker: &Waker) -> bool {
        debug_assert!(self.is_full(), "nobody wakes those who wait without need");
        if *waits_since == Some(self.round.get()) {
            return false;
        }
        *waits_since = Some(self.round.get());
        self.paused.borrow_mut().push(waker.clone());
        true
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let flight = &self.0;
        flight.count.set(flight.count.get() - 1);
        if flight.count.get() <= IN_FLIGHT_RESUME && !flight.paused.borrow().is_empty() {
            flight.round.set(flight.round.get() + 1);
            let paused = flight.paused.take();
            paused.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_paused_connection_is_woken_once_when_there_is_room() {
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let flight = Rc::new(Flight::default());
        let mut waits_since = None;
        for round in 1..=3 {
            let mut under_way: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| flight.enter()).collect();
            assert!(flight.is_full());
            assert!(flight.wait_for_room(&mut waits_since, &waker));
            assert!(!flight.wait_for_room(&mut waits_since, &waker));
            under_way.truncate(IN_FLIGHT_RESUME + 1);
            assert_eq!(woken.0.load(Ordering::Relaxed), round - 1);
            under_way.clear();
            assert_eq!(woken.0.load(Ordering::Relaxed), round);
        }
    }
}
