use std::time::Duration;

use glommio::timer::sleep;

/// How long an executor sleeps at most, twice: where one pulse is overlooked, the other comes. Some
/// 80 wake-ups a second, less than 0.1 % of a core.
const PULSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(30)];

/// Keeps this thread's executor from sleeping over work that it has, for as long as it lives.
///
/// glommio 0.9.0 parks after a turn in which it ran no task, also where the reason was that its
/// preemption timer went off, or another thread's notice came, before it ran the first one. On a busy
/// machine that happens. What can run then waits for the next event, and where there is none, as while
/// a shard opens, for ever. So there always is one.
pub fn keep_awake() {
    for pulse in PULSES {
        glommio::spawn_local(async move {
            loop {
                sleep(pulse).await;
            }
        })
        .detach();
    }
}
