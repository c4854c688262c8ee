use jiff::{SignedDuration, civil};

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
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let date = civil::date(1970, 1, 1).to_datetime(civil::Time::midnight());
        let date = date.saturating_add(SignedDuration::from_secs(seconds));
        let months = (i32::from(date.year()) - 2023) * 12 + (i32::from(date.month()) - 2);
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
