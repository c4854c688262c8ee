use std::fmt;
use std::str::FromStr;

use super::Coin;

/// An amount of money in the smallest unit (0.00000001), shown as coins' worth: whole numbers
/// first, no zeros at the end.
///
/// All coins there can be are worth over 1.1e20 units, more than 64 bits hold.
///
/// ```
/// use raida::coin::Worth;
/// assert_eq!(Worth(150_000_000).to_string(), "1.5");
/// assert_eq!("1.5".parse(), Ok(Worth(150_000_000)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worth(pub u128);

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount is a number with at most eight decimals, as in 12.5")]
pub struct NotAWorth;

/// Units in 1.
const UNITS: u128 = 100_000_000;
const DECIMALS: usize = 8;
/// Digits before the point: all coins there can be are worth less than 1e13.
const WHOLE_DIGITS_MAX: usize = 18;

impl Worth {
    /// What these coins are worth together.
    pub fn of(coins: impl IntoIterator<Item = Coin>) -> Worth {
        let worth = |coin: Coin| u128::from(coin.denomination.worth_units());
        Worth(coins.into_iter().map(worth).sum())
    }
}

impl FromStr for Worth {
    type Err = NotAWorth;

    fn from_str(text: &str) -> Result<Worth, NotAWorth> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
        };
        if !are_digits(whole, WHOLE_DIGITS_MAX) || !are_digits(part, DECIMALS) {
            return Err(NotAWorth);
        }
        let number = |text: &str| text.parse::<u128>().map_err(|_| NotAWorth);
        Ok(Worth(
            number(whole)? * UNITS + number(&format!("{part:0<DECIMALS$}"))?,
        ))
    }
}

impl fmt::Display for Worth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            assert_eq!(text.parse(), Ok(Worth(units)));
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1.123456789", "1,5", "1e3"] {
            assert_eq!(text.parse::<Worth>(), Err(NotAWorth), "{text:?}");
        }
    }
}
