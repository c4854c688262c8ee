use std::{
    cell::RefCell,
    future::Future,
    rc::Rc,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    disk::Disk,
    environment::Environment,
    turn::{turn, turn_in_line},
    wall_clock::WallClock,
};

/// Bytes of randomness taken from the operating system at once: a call costs as much as a few
/// hundred bytes do.
const RANDOM_BYTES: usize = 1_024;

/// The environment of a real node: a glommio executor, its clock and one on the wall, the system's
/// random source and a folder on a [`Disk`].
#[derive(Clone)]
pub struct Live {
    disk: Disk,
    clock: WallClock,
    start: Instant,
    random: Rc<RefCell<Random>>,
}

/// What all monotonic clocks of this process count from: cores tell each other moments.
static START: OnceLock<Instant> = OnceLock::new();

struct Random {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
}

impl Live {
    /// An environment for the executor that this runs on.
    pub fn new(disk: Disk) -> Live {
        Live::with_clock(disk, WallClock::Machine)
    }

    /// As [`Live::new`], with the time of this clock.
    pub fn with_clock(disk: Disk, clock: WallClock) -> Live {
        Live {
            disk,
            clock,
            start: *START.get_or_init(Instant::now),
            random: Rc::new(RefCell::new(Random {
                bytes: [0; RANDOM_BYTES],
                used: RANDOM_BYTES,
            })),
        }
    }
}

impl Environment for Live {
    type Storage = Disk;

    fn storage(&self) -> &Disk {
        &self.disk
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }

    async fn turn(&self) {
        turn().await;
    }

    async fn turn_in_line(&self) {
        turn_in_line().await;
    }

    async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed() + self.clock.passed()
    }

    fn unix_seconds(&self) -> u64 {
        self.clock.unix_seconds()
    }

    fn unix_micros(&self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(now.tv_nsec / 1_000).unwrap_or(0)
    }

    fn random(&self, bytes: &mut [u8]) {
        if bytes.len() > RANDOM_BYTES / 4 {
            return system_random(bytes);
        }
        let mut random = self.random.borrow_mut();
        if random.used + bytes.len() > RANDOM_BYTES {
            system_random(&mut random.bytes);
            random.used = 0;
        }
        let used = random.used..random.used + bytes.len();
        random.used = used.end;
        bytes.copy_from_slice(&random.bytes[used.clone()]);
        // Bytes that were given out are not kept: they become someone's AN.
        random.bytes[used].fill(0);
    }
}

fn system_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("Linux gives randomness to whoever asks since version 3.17");
}
