//! One thread, one clock, one source of randomness, one disk: everything that a node takes from
//! outside, so that a seed decides all that happens.

use std::{
    cell::{Cell, RefCell},
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use raida::runtime::Environment;
use slab::Slab;

use crate::{
    disk::{Answer, Disk, Operation, SimStorage},
    random::Random,
};

/// Seconds since 1970 at which every history starts: 21 November 2026.
const START_UNIX_SECONDS: u64 = 1_795_219_200;
/// Virtual time after which the simulator takes something for hung: many times the longest pause
/// between two tries of the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a run did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The steps it was given are used up: this is where the power fails.
    Steps,
    /// Nothing goes on any more, or too long.
    Hang,
}

pub struct World {
    now: Cell<u64>,
    random: RefCell<Random>,
    events: RefCell<BinaryHeap<Reverse<Event>>>,
    events_made: Cell<u64>,
    /// How often, in a thousand, a task that could go on is kept waiting: a core that is slow.
    slowness: u64,
    /// And how long at most, in nanoseconds.
    stall_max: u64,
    tasks: RefCell<Slab<Task>>,
    ready: Arc<Mutex<Vec<usize>>>,
    pub disk: RefCell<Disk>,
    /// Rises with everything that happens, in a way that depends on all of it.
    trace: Cell<u64>,
}

struct Event {
    at: u64,
    number: u64,
    what: What,
}

enum What {
    Wake(Waker),
    Disk(Operation, Rc<Answer>),
}

struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: usize,
    is_queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl World {
    pub fn new(seed: u64) -> Rc<World> {
        let mut random = Random::new(seed);
        let slowness = *random.pick(&[0, 10, 50, 200]);
        let stall_max = *random.pick(&[50_000, 500_000, 5_000_000]);
        let disk = Disk::new(Random::new(random.next()));
        Rc::new(World {
            now: Cell::new(0),
            random: RefCell::new(random),
            events: RefCell::default(),
            events_made: Cell::new(0),
            slowness,
            stall_max,
            tasks: RefCell::default(),
            ready: Arc::default(),
            disk: RefCell::new(disk),
            trace: Cell::new(0),
        })
    }

    pub fn trace(&self) -> u64 {
        self.trace.get()
    }

    pub fn random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }

    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let waker = Arc::new(TaskWaker {
            id: entry.key(),
            is_queued: AtomicBool::new(false),
            ready: self.ready.clone(),
        });
        waker.wake_by_ref();
        entry.insert(Task {
            future: Some(Box::pin(future)),
            waker,
        });
    }

    pub async fn sleep(&self, duration: Duration) {
        let at = self.now.get() + duration.as_nanos() as u64;
        let mut is_set = false;
        poll_fn(|context| {
            if self.now.get() >= at {
                return Poll::Ready(());
            }
            if !mem::replace(&mut is_set, true) {
                self.push(at, What::Wake(context.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }

    /// Hands an operation to the disk. It goes on though nobody waits for it any more, as those of
    /// io_uring do.
    pub fn submit(&self, operation: Operation) -> Rc<Answer> {
        let answer = Rc::new(Answer::default());
        let nanoseconds = self.disk.borrow_mut().begin(&operation);
        let at = self.now.get() + nanoseconds;
        self.push(at, What::Disk(operation, answer.clone()));
        answer
    }

    /// Runs until `main` ends, and whatever else there is with it.
    pub fn run<T: 'static>(
        &self,
        steps: u64,
        main: impl Future<Output = T> + 'static,
    ) -> Result<T, Cut> {
        let result = Rc::new(RefCell::new(None));
        let place = result.clone();
        self.spawn(async move {
            let value = main.await;
            *place.borrow_mut() = Some(value);
        });
        let deadline = self.now.get() + PATIENCE.as_nanos() as u64;
        for _ in 0..steps {
            if !self.step() || self.now.get() > deadline {
                return Err(Cut::Hang);
            }
            if let Some(value) = result.borrow_mut().take() {
                return Ok(value);
            }
        }
        Err(Cut::Steps)
    }

    /// The process is killed: what it had asked of the disk may still happen, and what the disk
    /// said it had is there.
    pub fn kill(&self) {
        self.end_process();
        self.disk.borrow_mut().forget_faults();
    }

    /// The power fails: of what was not made durable, any sector may be there or not.
    pub fn fail_power(&self) {
        self.end_process();
        let mut disk = self.disk.borrow_mut();
        disk.fail_power();
        disk.forget_faults();
    }

    fn end_process(&self) {
        self.ready.lock().unwrap().clear();
        // Tasks look at the world while they are dropped.
        let tasks = mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let mut events: Vec<Event> = self.events.take().into_iter().map(|e| e.0).collect();
        events.sort_unstable_by_key(|event| (event.at, event.number));
        for event in events {
            if let What::Disk(operation, _) = event.what {
                self.disk.borrow_mut().abandon(operation);
            }
        }
        self.ready.lock().unwrap().clear();
    }

    /// Polls one task that can go on, or lets time pass until one can.
    fn step(&self) -> bool {
        loop {
            let next = {
                let mut ready = self.ready.lock().unwrap();
                match ready.len() {
                    0 => None,
                    1 => ready.pop(),
                    many => {
                        let at = self.random.borrow_mut().below(many as u64) as usize;
                        Some(ready.swap_remove(at))
                    }
                }
            };
            match next {
                Some(id) if self.random.borrow_mut().permille(self.slowness) => self.stall(id),
                Some(id) => {
                    self.poll(id);
                    return true;
                }
                None if self.advance() => {}
                None => return false,
            }
        }
    }

    fn stall(&self, id: usize) {
        if let Some(task) = self.tasks.borrow().get(id) {
            let at = self.now.get() + self.random.borrow_mut().below(self.stall_max);
            task.waker.is_queued.store(false, Relaxed);
            self.push(at, What::Wake(task.waker.clone().into()));
        }
    }

    fn poll(&self, id: usize) {
        let taken = {
            let mut tasks = self.tasks.borrow_mut();
            tasks.get_mut(id).and_then(|task| {
                task.waker.is_queued.store(false, Relaxed);
                Some((task.future.take()?, task.waker.clone()))
            })
        };
        let Some((mut future, waker)) = taken else {
            return;
        };
        let trace = self.trace.get() ^ (self.now.get() << 8) ^ id as u64;
        self.trace
            .set(trace.rotate_left(7).wrapping_mul(0x9e37_79b9));
        let waker = Waker::from(waker);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            drop(future);
            self.tasks.borrow_mut().remove(id);
        } else {
            self.tasks.borrow_mut()[id].future = Some(future);
        }
    }

    fn advance(&self) -> bool {
        let Some(Reverse(event)) = self.events.borrow_mut().pop() else {
            return false;
        };
        self.now.set(event.at);
        match event.what {
            What::Wake(waker) => waker.wake(),
            What::Disk(operation, answer) => {
                let result = self.disk.borrow_mut().finish(operation);
                answer.give(result);
            }
        }
        true
    }

    fn push(&self, at: u64, what: What) {
        let number = self.events_made.get();
        self.events_made.set(number + 1);
        let event = Event { at, number, what };
        self.events.borrow_mut().push(Reverse(event));
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.number == other.number
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Relaxed) {
            self.ready.lock().unwrap().push(self.id);
        }
    }
}

/// What one shard's core takes from outside.
#[derive(Clone)]
pub struct SimEnvironment {
    world: Rc<World>,
    storage: SimStorage,
}

impl SimEnvironment {
    pub fn new(world: &Rc<World>) -> SimEnvironment {
        SimEnvironment {
            world: world.clone(),
            storage: SimStorage::new(world),
        }
    }
}

impl Environment for SimEnvironment {
    type Storage = SimStorage;

    fn storage(&self) -> &SimStorage {
        &self.storage
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.world.spawn(task);
    }

    async fn sleep(&self, duration: Duration) {
        self.world.sleep(duration).await;
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.world.now.get())
    }

    fn unix_seconds(&self) -> u64 {
        START_UNIX_SECONDS + self.monotonic().as_secs()
    }

    fn unix_micros(&self) -> u64 {
        START_UNIX_SECONDS * 1_000_000 + self.monotonic().as_micros() as u64
    }

    fn random(&self, bytes: &mut [u8]) {
        self.world.random(|random| {
            for some in bytes.chunks_mut(8) {
                some.copy_from_slice(&random.next().to_le_bytes()[..some.len()]);
            }
        });
    }
}
