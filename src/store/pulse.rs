use std::time::{Duration, Instant};

use glommio::timer::sleep;

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

/// Two by turns each 20 ms: 50 wake-ups a second, less than 0.1 % of a core. The others are for a machine
/// that stood still for so long that both went off at once.
const PULSES: [Pulse; 5] = [
    pulse(40, 0),
    pulse(40, 20),
    pulse(410, 290),
    pulse(2_030, 1_130),
    pulse(10_010, 6_110),
];

/// Keeps this thread's executor from sleeping over work that it has, for as long as it lives.
///
/// glommio 0.9.0 parks after a turn in which it ran no task, also where the reason was that its
/// preemption timer went off, an old one's cancellation was over, or another thread's notice came, before
/// it ran the first one. On a busy machine that happens. What can run then waits for the next event, and
/// where there is none, as while a shard opens, for ever. So there always is one: a timer that went off
/// before such a turn is no event any more until its task has run, but then another one is to come.
pub fn keep_awake() {
    let start = Instant::now();
    for pulse in PULSES {
        glommio::spawn_local(async move {
            loop {
                sleep(pulse.next(start.elapsed())).await;
            }
        })
        .detach();
    }
}

impl Pulse {
    /// How long after this it goes off the next time. Pulses that went off late, and so together, are
    /// apart again from then on.
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
    use super::*;

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
