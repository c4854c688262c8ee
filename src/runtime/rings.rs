//! When a core that sockets keep busy looks at its executor's rings.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::turn::turn;

/// How long the executor may go without a look at its own rings while sockets keep it busy. A look
/// finds the log's writes and other cores' messages, which answers wait for; timers; and readiness
/// of the streams while datagrams keep the core busy, and the other way round. A look takes 2 to 8
/// µs, the time of four requests.
const LOOK: Duration = Duration::from_micros(200);
/// The least such time while answers wait. At 100,000 changes a second, one every 10 µs, they would
/// otherwise wait many times as long as the 20 µs that their write takes.
const LOOK_IN_FLIGHT: Duration = Duration::from_micros(20);
/// Added for each answer that waits: a quarter of the time that each takes. Where 1,000 wait, the
/// last of them waits for a millisecond anyway.
const LOOK_FOR_EACH: Duration = Duration::from_nanos(250);

/// Work between two looks, at most, as [`Rings::worked`] counts it: some 2 ms. Tasks that wake each
/// other without end, such as connections whose requests wait for nothing but their turn, would
/// otherwise keep the executor from looking until its own alarm, after 100 ms.
const WORK_MAX: u32 = 2_048;

/// The work of a request that a task answers, in units of a request that is answered at once.
pub const TASK_WORK: u32 = 32;

/// The rings of one core, for all that keep it busy.
pub struct Rings {
    waiting: Box<dyn Fn() -> usize>,
    last_look: Cell<Instant>,
    work: Cell<u32>,
    turning: Cell<usize>,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rings")
    }
}

/// A connection that goes on at the next look, until dropped.
pub struct Turning(Rc<Rings>);

impl Drop for Turning {
    fn drop(&mut self) {
        self.0.turning.set(self.0.turning.get() - 1);
    }
}

impl Rings {
    /// `waiting` says how many requests of this core wait for their answers.
    pub fn new(waiting: impl Fn() -> usize + 'static) -> Rc<Rings> {
        Rc::new(Rings {
            waiting: Box::new(waiting),
            last_look: Cell::new(Instant::now()),
            work: Cell::new(0),
            turning: Cell::new(0),
        })
    }

    /// The executor had nothing to do a moment ago, so it looked.
    pub fn were_seen(&self) {
        self.last_look.set(Instant::now());
        self.work.set(0);
    }

    /// Counts a connection that goes on at the next look.
    pub fn wait_for_turn(self: &Rc<Rings>) -> Turning {
        self.turning.set(self.turning.get() + 1);
        Turning(Rc::clone(self))
    }

    /// Number of connections that go on at the next look.
    #[inline]
    pub fn turning(&self) -> usize {
        self.turning.get()
    }

    /// Counts work of a connection.
    #[inline]
    pub fn worked(&self, work: u32) {
        self.work.set(self.work.get().saturating_add(work));
    }

    /// Whether the work since the last look makes the next look due before any more work.
    #[inline]
    pub fn are_overdue(&self) -> bool {
        self.work.get() >= WORK_MAX
    }

    /// Has the executor look at its rings where that is due; says whether it was.
    pub async fn look_if_due(&self) -> bool {
        let look = match (self.waiting)() {
            0 => LOOK,
            waiting => (LOOK_FOR_EACH * waiting as u32).clamp(LOOK_IN_FLIGHT, LOOK),
        };
        let is_due = self.last_look.get().elapsed() >= look;
        if is_due {
            turn().await;
            self.were_seen();
        }
        is_due
    }
}
