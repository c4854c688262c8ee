use std::{
    future::Future,
    pin::pin,
    sync::{
        Once,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::{join_all, select};
use glommio::{LocalExecutor, Task, timer::sleep};
use rustix::process::{Pid, getpid};
use rustix::thread::gettid;

use super::disk::quiet;

/// A timer that goes off again and again: at `phase`, and each `period` after that.
struct Pulse {
    period: Duration,
    phase: Duration,
}

const fn pulse(period_ms: u64, phase_ms: u64) -> Pulse {
    Pulse {
        period: Duration::from_millis(period_ms),
        phase: Duration::from_millis(phase_ms),
    }
}

/// Two by turns each 20 ms: 50 wake-ups a second, less than 0.1 % of a core. The others are for a
/// machine that stood still for so long that both went off at once.
const PULSES: [Pulse; 5] = [
    pulse(40, 0),
    pulse(40, 20),
    pulse(410, 290),
    pulse(2_030, 1_130),
    pulse(10_010, 6_110),
];

/// Keeps this thread's executor from sleeping over work that it has, for as long as it lives.
///
/// glommio 0.9.0 parks after a turn in which it ran no task. This includes turns in which, before
/// the first task, its preemption timer went off, an old timer's cancellation was over, or another
/// thread's notice came. On a busy machine that happens. What can run then waits for the next
/// event, and where there is none, as while a shard opens, for ever. So there always is one: a
/// timer that went off before such a turn is no event any more until its task has run, but another
/// timer still has to go off.
pub fn keep_awake() {
    for pulse in pulses() {
        pulse.detach();
    }
}

/// Keeps the executor awake until these tasks are cancelled.
fn pulses() -> [Task<()>; PULSES.len()] {
    let start = Instant::now();
    PULSES.map(|pulse| glommio::spawn_local(pulse.beat(start)))
}

/// Ends the tasks that keep the executor awake, which may run other work after this. Meanwhile the
/// calling task has their pulses.
async fn let_sleep(pulses: [Task<()>; PULSES.len()]) {
    let start = Instant::now();
    let cancelled = join_all(pulses.map(Task::cancel));
    let beats = join_all(PULSES.map(|pulse| pulse.beat(start)));
    select(pin!(cancelled), pin!(beats)).await;
}

/// Time that an executor may take to begin before the first nudge, and between nudges.
const NUDGE: Duration = Duration::from_millis(20);

/// Runs an executor of this thread that is [kept awake](keep_awake) from the first moment on, until
/// the work is done and the disk is [quiet].
///
/// There is no timer before the first task runs, and glommio may park before that as well: 100 ms
/// in which a busy machine does not run this thread are enough. Nothing but a signal ends such a
/// sleep. So another thread sends some until the first task runs.
pub fn run_awake<T>(executor: &LocalExecutor, work: impl Future<Output = T>) -> T {
    // A signal that does nothing still interrupts a call to the kernel, as one that is ignored does
    // not.
    static HANDLED: Once = Once::new();
    HANDLED.call_once(|| {
        // SAFETY: the handler does nothing, which it may at any moment.
        let handled = unsafe { signal_hook::low_level::register(libc::SIGURG, || ()) };
        // Only a signal that may not be handled fails, which this one is not.
        handled.expect("a signal that may be handled");
    });
    let (begins, has_begun) = channel::<()>();
    let (process, sleeper) = (getpid(), gettid());
    let nudge = move || {
        while has_begun.recv_timeout(NUDGE) == Err(RecvTimeoutError::Timeout) {
            nudge(process, sleeper);
        }
    };
    // Without this thread the executor merely lacks the nudges.
    let _ = thread::Builder::new().name("begin".to_owned()).spawn(nudge);
    executor.run(async move {
        let pulses = pulses();
        drop(begins);
        let done = work.await;
        quiet().await;
        let_sleep(pulses).await;
        done
    })
}

fn nudge(process: Pid, sleeper: Pid) {
    let (process, sleeper) = (
        process.as_raw_nonzero().get(),
        sleeper.as_raw_nonzero().get(),
    );
    // SAFETY: the call takes no memory; where there is no such thread any more it does nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, process, sleeper, libc::SIGURG) };
}

impl Pulse {
    /// Goes off until it is dropped, the first time at its phase after `start`.
    async fn beat(self, start: Instant) {
        loop {
            sleep(self.next(start.elapsed())).await;
        }
    }

    /// Time from `now` until it goes off the next time. Pulses that went off late, and so together,
    /// are apart again from then on.
    fn next(&self, now: Duration) -> Duration {
        let Some(since_first) = now.checked_sub(self.phase) else {
            return self.phase - now;
        };
        let since_last = since_first.as_nanos() % self.period.as_nanos();
        self.period - Duration::from_nanos(since_last as u64)
    }
}

#[cfg(test)]
mod tests {
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    /// Runs so large a number of threads that some do not run for a while after the preemption
    /// timer is set and before any task has run, here far longer than that timer takes. Without the
    /// nudges one hangs at once.
    #[test]
    fn an_executor_that_parks_before_its_first_task_runs_is_woken() {
        let run = || {
            for _ in 0..10 {
                let executor = LocalExecutorBuilder::new(Placement::Unbound);
                let executor = executor.preempt_timer(Duration::from_micros(100));
                assert_eq!(run_awake(&executor.make().unwrap(), async { 7 }), 7);
            }
        };
        let (ends, has_ended) = channel();
        for _ in 0..16 {
            let ends = ends.clone();
            thread::spawn(move || {
                run();
                let _ = ends.send(());
            });
        }
        for _ in 0..16 {
            let ended = has_ended.recv_timeout(Duration::from_secs(60));
            assert_eq!(ended, Ok(()), "it sleeps");
        }
    }

    #[test]
    fn whenever_an_executor_looks_some_pulse_is_soon_and_all_are_never_together() {
        let ms = Duration::from_millis;
        for now in (0..60_000).map(ms) {
            let next = PULSES.map(|pulse| pulse.next(now));
            let first = next.iter().min().unwrap();
            assert!((ms(1)..=ms(20)).contains(first), "{now:?}: {first:?}");
            let last = next.iter().max().unwrap();
            assert!(*last > *first + ms(20), "{now:?}: {next:?}");
        }
    }
}
