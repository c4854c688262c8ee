use crate::coin::Coin;

/// The currency that a trade locker is paid in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Currency {
    /// 0
    CloudCoin = 0,
    /// 1
    Bitcoin = 1,
    /// 2
    Monero = 2,
}

impl Currency {
    /// All of them, by rising number.
    pub const ALL: [Currency; 3] = [Currency::CloudCoin, Currency::Bitcoin, Currency::Monero];

    /// The currency that this byte stands for; `None` from 3 on.
    #[inline]
    pub const fn from_byte(byte: u8) -> Option<Currency> {
        match byte {
            0 => Some(Currency::CloudCoin),
            1 => Some(Currency::Bitcoin),
            2 => Some(Currency::Monero),
            _ => None,
        }
    }

    /// The byte of the wire.
    #[inline]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Its name in reports and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Currency::CloudCoin => "cloudcoin",
            Currency::Bitcoin => "bitcoin",
            Currency::Monero => "monero",
        }
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How much of a currency a trade locker costs, in the unit that buyer and seller agree on: the
/// protocol names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(u32);

impl Price {
    /// Bytes a price takes.
    pub const SIZE: usize = 4;

    /// A price of this amount.
    #[inline]
    pub const fn new(price: u32) -> Price {
        Price(price)
    }

    /// The plain number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The worth of all coins of a trade locker, in the smallest unit (0.00000001).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u64);

impl Value {
    /// Bytes a value takes.
    pub const SIZE: usize = 8;

    /// A value of this many units.
    #[inline]
    pub const fn from_units(units: u64) -> Value {
        Value(units)
    }

    /// The value in the smallest unit.
    #[inline]
    pub const fn units(self) -> u64 {
        self.0
    }

    /// The worth of all these coins. `None` where it does not fit eight bytes, which takes over
    /// 184,467 coins of the highest denomination: such a locker cannot be on offer.
    pub fn of(coins: impl IntoIterator<Item = Coin>) -> Option<Value> {
        let worth = |coin: Coin| coin.denomination.worth_units();
        let mut coins = coins.into_iter();
        let units = coins.try_fold(0u64, |sum, coin| sum.checked_add(worth(coin)))?;
        Some(Value(units))
    }
}

/// What is for sale, and for how much. A buyer names an offer by these terms, and no two trade
/// lockers have the same. Currency (1), value (8), price (4): 13 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// The currency of the price.
    pub currency: Currency,
    /// What the coins are worth.
    pub value: Value,
    /// The price.
    pub price: Price,
}

impl Offer {
    /// Bytes an offer takes.
    pub const SIZE: usize = 1 + Value::SIZE + Price::SIZE;

    /// Reads one; `None` where there is no such currency.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Offer> {
        let [currency, v0, v1, v2, v3, v4, v5, v6, v7, p0, p1, p2, p3] = *bytes;
        Some(Offer {
            currency: Currency::from_byte(currency)?,
            value: Value(u64::from_be_bytes([v0, v1, v2, v3, v4, v5, v6, v7])),
            price: Price(u32::from_be_bytes([p0, p1, p2, p3])),
        })
    }

    /// Appends its bytes.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.currency.to_byte());
        out.extend_from_slice(&self.value.0.to_be_bytes());
        out.extend_from_slice(&self.price.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::coin;

    #[test]
    fn a_currency_is_its_byte_and_there_are_three() {
        let known: Vec<Currency> = (0..=255).filter_map(Currency::from_byte).collect();
        assert_eq!(known, Currency::ALL);
        for (byte, currency) in Currency::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(currency.to_byte()), byte);
        }
    }

    #[test]
    fn a_value_is_the_sum_of_what_coins_are_worth_and_never_wraps() {
        assert_eq!(
            Value::of([coin(-8, 1), coin(0, 1), coin(6, 1)]),
            Some(Value::from_units(100_000_100_000_001))
        );
        let millions = |coins: u32| Value::of((0..coins).map(|sn| coin(6, sn)));
        assert!(millions(184_467).is_some());
        assert_eq!(millions(184_468), None);
    }

    #[test]
    fn an_offer_is_thirteen_bytes_big_endian() {
        let offer = Offer {
            currency: Currency::Bitcoin,
            value: Value::from_units(0x0102_0304_0506_0708),
            price: Price::new(0x090a_0b0c),
        };
        let mut bytes = vec![];
        offer.write(&mut bytes);
        assert_eq!(bytes, [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let bytes: [u8; Offer::SIZE] = bytes.try_into().unwrap();
        assert_eq!(Offer::from_bytes(&bytes), Some(offer));
        assert_eq!(Offer::from_bytes(&[3; Offer::SIZE]), None);
    }
}
