use std::time::{Duration, Instant};

/// How often a failure that goes on in the same way is logged.
const AGAIN: Duration = Duration::from_secs(60);

/// The last logged failure of something that fails again and again. The same failure is logged
/// once, then each minute with how often it happened.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<(i32, Instant)>,
    since: u64,
}

impl Told {
    /// Counts a failure with this error code. Returns how often it has failed since it was logged
    /// last, this time included, where it should be logged now.
    pub(super) fn again(&mut self, code: i32, now: Instant) -> Option<u64> {
        self.since += 1;
        if let Some((last, when)) = self.last
            && last == code
            && now.saturating_duration_since(when) < AGAIN
        {
            return None;
        }
        self.last = Some((code, now));
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_then_each_minute_with_its_number() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(told.again(24, at(0)), Some(1));
        for second in 1..60 {
            assert_eq!(told.again(24, at(second)), None);
        }
        assert_eq!(told.again(24, at(60)), Some(60));
        assert_eq!(told.again(24, at(61)), None);
        assert_eq!(told.again(23, at(62)), Some(2));
        assert_eq!(told.again(23, at(63)), None);
    }
}
