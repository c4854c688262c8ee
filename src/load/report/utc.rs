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
        // In closed form (Howard Hinnant, "chrono-compatible low-level date algorithms"), so that a huge
        // number costs no more than any other. Years begin in March there, which puts the leap day last;
        // eras are the 400 years after which the calendar repeats, the first one from March of year 0.
        let days = self.0 / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_since_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
        let (month, is_next_year) = match months_since_march {
            0..10 => (months_since_march + 3, 0),
            _ => (months_since_march - 9, 1),
        };
        let year = 400 * era + year_of_era + is_next_year;
        let (hours, minutes, seconds) = (self.0 / 3_600 % 24, self.0 / 60 % 60, self.0 % 60);
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
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Utc::at_unix_seconds(seconds).to_string(), text);
        }
    }
    /// Written another way than it is computed.
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
    fn the_last_second_that_can_be_counted_has_a_date_at_once() {
        let shown = Utc::at_unix_seconds(u64::MAX).to_string();
        assert_eq!(shown, "584554051223-11-09T07:00:15Z");
    }
}
