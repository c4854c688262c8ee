use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time to the second, in UTC; shows itself as RFC 3339 has it.
///
/// ```
/// use raida::load::report::Utc;
/// assert_eq!(Utc::at_unix_seconds(951_782_400).to_string(), "2000-02-29T00:00:00Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(u64);

impl Utc {
    /// The machine's time.
    pub fn now() -> Utc {
        // A clock before 1970 is no clock.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Utc(since.unwrap_or_default().as_secs())
    }

    /// Seconds since 1970.
    pub fn at_unix_seconds(seconds: u64) -> Utc {
        Utc(seconds)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut day, mut year) = (self.0 / 86_400, 1970);
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        while day >= 365 + u64::from(is_leap(year)) {
            day -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        let (hours, minutes, seconds) = (self.0 / 3_600 % 24, self.0 / 60 % 60, self.0 % 60);
        let day = day + 1;
        write!(
            f,
            "{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_months_and_leap_years_are_those_of_the_calendar() {
        // As `date -u -d @N +%FT%TZ` has them.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_795_231_955, "2026-11-21T03:32:35Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc::at_unix_seconds(seconds).to_string(), text);
        }
    }
}
