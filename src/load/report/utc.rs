use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, civil};

/// A time to the second, in UTC; it is displayed in the format of RFC 3339, which ends with the
/// year 9999.
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
        // A clock before 1970 is wrong.
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
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = civil::date(1970, 1, 1).to_datetime(civil::Time::midnight());
        let time = time.saturating_add(SignedDuration::from_secs(seconds));
        write!(f, "{}", time.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_months_and_leap_years_are_those_of_the_calendar() {
        // The results of `date -u -d @N +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_795_231_955, "2026-11-21T03:32:35Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Utc::at_unix_seconds(seconds).to_string(), text);
        }
    }
    /// Written in another way than it is computed.
    #[test]
    fn each_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..4 * 146_097 {
            let shown = Utc::at_unix_seconds(days * 86_400).to_string();
            assert_eq!(shown, format!("{year}-{month:02}-{day:02}T00:00:00Z"));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u32::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day == length) {
                (_, false) => (year, month, day + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
        }
    }

    #[test]
    fn a_time_after_the_year_9999_shows_as_the_last_before() {
        let shown = Utc::at_unix_seconds(u64::MAX).to_string();
        assert_eq!(shown, "9999-12-31T23:59:59Z");
    }
}
