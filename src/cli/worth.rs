use std::fmt;

/// An amount of money in the smallest unit (0.00000001), shown as coins' worth: whole numbers first,
/// no zeros at the end.
///
/// All coins there can be are worth over 1.1e20 units, more than 64 bits hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worth(pub u128);

impl fmt::Display for Worth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: u128 = 100_000_000;
        let (whole, part) = (self.0 / UNITS, self.0 % UNITS);
        let text = match part {
            0 => whole.to_string(),
            part => format!("{whole}.{part:08}")
                .trim_end_matches('0')
                .to_owned(),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_shows_no_zeros_at_its_end() {
        for (units, text) in [
            (0, "0"),
            (1, "0.00000001"),
            (150_000_000, "1.5"),
            (2_000_000_000, "20"),
        ] {
            assert_eq!(Worth(units).to_string(), text);
        }
    }
}
