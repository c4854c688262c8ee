/// When a coin was last changed: months from start, counted from February 2023 in UTC
/// (docs/protocol.md section 1). 0 means the coin is free, not in circulation.
///
/// ```
/// use raida::coin::Mfs;
/// assert_eq!(Mfs::at_unix_seconds(1_795_219_200), Mfs::new(45)); // 21 November 2026
/// assert!(Mfs::FREE.is_free());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Mfs(u8);

impl Mfs {
    /// The coin is not in circulation.
    pub const FREE: Mfs = Mfs(0);

    /// Takes the byte as it is: every value means something.
    #[inline]
    pub const fn new(months: u8) -> Mfs {
        Mfs(months)
    }

    /// The month that holds this second since 1970; never [`Mfs::FREE`], and never past what a byte
    /// holds, so that a wrong clock cannot take a coin out of circulation.
    pub fn at_unix_seconds(seconds: u64) -> Mfs {
        let (year, month) = civil_month(seconds / 86_400);
        let months = (year - 2023) * 12 + (month - 2);
        Mfs(months.clamp(1, 255) as u8)
    }

    /// The byte of the wire and the disk.
    #[inline]
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether the coin is out of circulation.
    #[inline]
    pub fn is_free(self) -> bool {
        self.0 == 0
    }
}

/// Year and month of a day counted from 1970-01-01, in the proleptic Gregorian calendar: years are
/// taken to start in March, so that the leap day comes last.
fn civil_month(days: u64) -> (i64, i64) {
    let days = days as i64 + 719_468; // from 0000-03-01 to 1970-01-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_change_at_the_first_second_of_the_month() {
        // 2023-03-01, 2024-02-29 to 03-01, 2025-01-01: seconds from `date -u -d ... +%s`.
        assert_eq!(Mfs::at_unix_seconds(1_677_628_799), Mfs::new(1)); // still 0, kept at 1
        assert_eq!(Mfs::at_unix_seconds(1_677_628_800), Mfs::new(1));
        assert_eq!(Mfs::at_unix_seconds(1_709_251_199), Mfs::new(12));
        assert_eq!(Mfs::at_unix_seconds(1_709_251_200), Mfs::new(13));
        assert_eq!(Mfs::at_unix_seconds(1_735_689_599), Mfs::new(22));
        assert_eq!(Mfs::at_unix_seconds(1_735_689_600), Mfs::new(23));
    }

    #[test]
    fn a_wrong_clock_never_frees_a_coin() {
        assert_eq!(Mfs::at_unix_seconds(0), Mfs::new(1));
        assert_eq!(Mfs::at_unix_seconds(u32::MAX as u64 * 4), Mfs::new(255));
    }
}
