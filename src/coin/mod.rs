//! What a coin is: denominations, serial numbers, authenticity numbers, months, and the arithmetic
//! that says which page and which shard a coin belongs to. Values here are valid by construction;
//! bytes are checked once, where they come in. No I/O and no state.

mod an;
mod denomination;
mod mfs;
mod page;
mod serial_number;
mod worth;

pub use an::{An, AnTag, LockerPrefix, locker_home};
pub use denomination::Denomination;
pub use mfs::Mfs;
pub use page::{PAGES, PAGES_PER_DENOMINATION, PageId, ShardId};
pub use serial_number::{COINS_PER_PAGE, SerialNumber};
pub use worth::{NotAWorth, Worth};

/// A coin: which denomination, and which one of that denomination. 5 bytes on the wire: DN, then SN
/// big-endian.
///
/// ```
/// use raida::coin::Coin;
/// let coin = Coin::from_bytes(&[0xfa, 0x00, 0x09, 0xd2, 0xf5]).unwrap();
/// assert_eq!(coin.denomination.exponent(), -6);
/// assert_eq!(coin.serial_number.get(), 643_829);
/// assert!(Coin::from_bytes(&[7, 0, 0, 0, 0]).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coin {
    /// The denomination (DN).
    pub denomination: Denomination,
    /// The serial number (SN) within the denomination.
    pub serial_number: SerialNumber,
}

impl Coin {
    /// Bytes a coin takes on the wire.
    pub const SIZE: usize = 5;

    /// Reads DN and SN; `None` where no such coin can exist.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Coin> {
        Some(Coin {
            denomination: Denomination::from_byte(bytes[0])?,
            serial_number: SerialNumber::new(u32::from_be_bytes([
                bytes[1], bytes[2], bytes[3], bytes[4],
            ]))?,
        })
    }

    /// DN, then SN big-endian.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let sn = self.serial_number.get().to_be_bytes();
        [self.denomination.to_byte(), sn[0], sn[1], sn[2], sn[3]]
    }

    /// The page that holds the coin's record.
    #[inline]
    pub fn page(self) -> PageId {
        PageId::new(self.denomination, self.serial_number.page_number())
            .expect("a serial number is below 1,024,000, so its page is below 1,000")
    }

    /// The coin's place within its page, 0 to 1,023.
    #[inline]
    pub fn place(self) -> usize {
        self.serial_number.place()
    }

    /// Numbers all coins from 0, below 2^24.
    #[inline]
    pub fn number(self) -> u32 {
        (self.page().index() * COINS_PER_PAGE + self.place()) as u32
    }
}

/// Why a text names no coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a coin is its denomination (-8 to 6), a point and its serial number (0 to 1023999), as in 1.4711"
)]
pub struct NotACoin;

/// Reads what [`Display`](std::fmt::Display) writes: `DN.SN`.
impl std::str::FromStr for Coin {
    type Err = NotACoin;

    fn from_str(text: &str) -> Result<Coin, NotACoin> {
        let (denomination, serial_number) = text.split_once('.').ok_or(NotACoin)?;
        let denomination = denomination.parse().ok().and_then(Denomination::new);
        let serial_number = serial_number.parse().ok().and_then(SerialNumber::new);
        let both = denomination.zip(serial_number).ok_or(NotACoin)?;
        Ok(Coin {
            denomination: both.0,
            serial_number: both.1,
        })
    }
}

impl std::fmt::Display for Coin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.denomination, self.serial_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coin_reads_back_from_its_bytes() {
        for denomination in Denomination::all() {
            for sn in [0, 1, 1_023, 1_024, 500_000, 1_023_999] {
                let coin = Coin {
                    denomination,
                    serial_number: SerialNumber::new(sn).unwrap(),
                };
                assert_eq!(Coin::from_bytes(&coin.to_bytes()), Some(coin));
                assert_eq!(coin.page().coin(coin.place()), coin);
            }
        }
    }

    #[test]
    fn a_coin_reads_back_from_its_text() {
        for text in ["-8.0", "0.1", "6.1023999"] {
            assert_eq!(text.parse::<Coin>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1.", ".1", "7.1", "1.1024000", "1.1.1", "1.-1"] {
            assert_eq!(text.parse::<Coin>(), Err(NotACoin), "{text:?}");
        }
    }

    #[test]
    fn a_coin_that_cannot_exist_is_none() {
        assert_eq!(Coin::from_bytes(&[0xf7, 0, 0, 0, 0]), None);
        assert_eq!(Coin::from_bytes(&[7, 0, 0, 0, 0]), None);
        assert_eq!(Coin::from_bytes(&[0, 0x00, 0x0f, 0xa0, 0x00]), None);
    }
}
