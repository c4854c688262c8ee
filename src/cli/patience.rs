use std::thread::sleep;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::encryption::numbers;
use crate::client::key_healing::{Patience, UnixSeconds};
use crate::protocol::RaidaId;

/// Whether to wait for servers that take no tickets yet.
#[derive(clap::Args, Debug)]
pub(super) struct PatienceArgs {
    /// Do not wait for broken servers that take no tickets yet; say when to come back
    #[arg(long)]
    no_wait: bool,
}

/// Waits, and shows on the terminal how long.
pub(super) struct Countdown<'a> {
    bar: &'a ProgressBar,
    /// What the bar says when it goes on.
    then: &'static str,
    is_patient: bool,
    waited: Duration,
}

impl PatienceArgs {
    pub(super) fn start<'a>(&self, bar: &'a ProgressBar, then: &'static str) -> Countdown<'a> {
        Countdown {
            bar,
            then,
            is_patient: !self.no_wait,
            waited: Duration::ZERO,
        }
    }
}

impl Countdown<'_> {
    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

impl Patience for Countdown<'_> {
    fn now(&mut self) -> UnixSeconds {
        UnixSeconds::now()
    }

    fn wait(&mut self, servers: &[RaidaId], time: Duration) -> bool {
        if !self.is_patient {
            return false;
        }
        let why = format!(
            "RAIDA {} takes no tickets from before its coin changed there or it started",
            numbers(servers)
        );
        if self.bar.is_hidden() {
            // Not to standard output, which may be read by a program.
            eprintln!(
                "{why}: new ones are asked for in {} s; --no-wait does not wait, and Ctrl-C does no harm",
                time.as_secs()
            );
        }
        let start = Instant::now();
        while let Some(left) = time
            .checked_sub(start.elapsed())
            .filter(|left| !left.is_zero())
        {
            self.bar.set_message(format!(
                "{why}: new ones are asked for in {} (Ctrl-C does no harm)",
                minutes(left)
            ));
            sleep(left.min(Duration::from_secs(1)));
        }
        self.bar.set_message(self.then);
        self.waited += time;
        true
    }
}

/// `2:59`, rounded up.
fn minutes(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1_000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shown_in_minutes_and_seconds() {
        let shown = [180_000, 179_001, 60_000, 59_999, 1, 0].map(Duration::from_millis);
        let shown = shown.map(minutes);
        assert_eq!(shown, ["3:00", "3:00", "1:00", "1:00", "0:01", "0:00"]);
    }

    #[test]
    fn who_does_not_wait_is_back_at_once() {
        let bar = ProgressBar::hidden();
        let mut patience = PatienceArgs { no_wait: true }.start(&bar, "");
        let servers: Vec<RaidaId> = RaidaId::all().take(2).collect();
        assert!(!patience.wait(&servers, Duration::from_secs(3_600)));
        assert_eq!(patience.waited(), Duration::ZERO);
        let mut patience = PatienceArgs { no_wait: false }.start(&bar, "");
        assert!(patience.wait(&servers, Duration::from_millis(1)));
        assert_eq!(patience.waited(), Duration::from_millis(1));
    }
}
