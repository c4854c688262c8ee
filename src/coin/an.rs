use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::ShardId;

/// An authenticity number: 16 bytes that only the coin's owner and the server know.
///
/// Comparing takes the same time wherever two numbers differ, and printing one shows nothing of it
/// (docs/architecture.md, "Rules that always hold", 7).
///
/// ```
/// use raida::coin::An;
/// let an = An::new([7; 16]);
/// assert_eq!(format!("{an:?}"), "An(secret)");
/// assert_eq!(an ^ an, An::ZERO);
/// ```
#[derive(Clone, Copy, Zeroize)]
#[repr(transparent)]
pub struct An([u8; 16]);

impl An {
    /// Bytes an authenticity number takes.
    pub const SIZE: usize = 16;
    /// Sixteen zero bytes: where an XOR of authenticity numbers starts.
    pub const ZERO: An = An([0; 16]);

    /// Takes the sixteen bytes as they are.
    #[inline]
    pub const fn new(bytes: [u8; 16]) -> An {
        An(bytes)
    }

    /// The bytes themselves: for the wire, the disk and ciphers, never for a log or a listing.
    #[inline]
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether the number marks a locker: its last four bytes are FF (docs/protocol.md, "Group 8:
    /// lockers").
    #[inline]
    pub fn is_locker_key(&self) -> bool {
        self.0[12..] == [0xff; 4]
    }

    /// Whether the number has the form of a trade locker's key: its last two bytes are EE, and the
    /// one before them is a currency's, 0 to 2 (docs/protocol.md, "Group 8: lockers"). One random
    /// number in 5.6 million has.
    #[inline]
    pub fn is_trade_key(&self) -> bool {
        self.0[14..] == [0xee; 2] && self.0[13] <= 2
    }

    /// The bytes by which requests under encryption type 2 name a locker.
    #[inline]
    pub fn locker_prefix(&self) -> LockerPrefix {
        *self.0.first_chunk().expect("16 bytes")
    }

    /// Whether a node has to remember which coins have this number: it is a locker's or a trade
    /// locker's key.
    #[inline]
    pub fn is_marked(&self) -> bool {
        self.is_locker_key() || self.is_trade_key()
    }
}

/// The first bytes of a locker's key: all that a request under encryption type 2 says of it.
pub type LockerPrefix = [u8; 5];

/// The shard where lockers whose keys start with these bytes are kept track of: a CRC-32C of them
/// modulo the shards.
#[inline]
pub fn locker_home(prefix: LockerPrefix, shards: u16) -> ShardId {
    ShardId::new((crc32c::crc32c(&prefix) % u32::from(shards)) as u16)
}

impl An {
    /// The shard that keeps track of the locker under this key, by its [first bytes](locker_home).
    #[inline]
    pub fn locker_home(&self, shards: u16) -> ShardId {
        locker_home(self.locker_prefix(), shards)
    }
}

/// Tells whether a coin still has the authenticity number that it had: four bytes that stand for
/// it. Another number has the same ones one time in four billion. Printing it shows nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnTag(u32);

impl An {
    /// What stands for this number where there is no room for it.
    #[inline]
    pub fn tag(&self) -> AnTag {
        let (words, _) = self.0.as_chunks();
        let words = words.iter().map(|&word| u32::from_ne_bytes(word));
        AnTag(words.fold(0, |tag, word| tag ^ word))
    }
}

impl std::fmt::Debug for AnTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnTag(secret)")
    }
}

impl PartialEq for An {
    #[inline]
    fn eq(&self, other: &An) -> bool {
        // As one number: byte by byte it takes sixteen calls that must not be inlined.
        let number = u128::from_ne_bytes(self.0);
        number.ct_eq(&u128::from_ne_bytes(other.0)).into()
    }
}

impl Eq for An {}

impl std::ops::BitXor for An {
    type Output = An;

    #[inline]
    fn bitxor(self, other: An) -> An {
        An((u128::from_ne_bytes(self.0) ^ u128::from_ne_bytes(other.0)).to_ne_bytes())
    }
}

impl std::ops::BitXorAssign for An {
    #[inline]
    fn bitxor_assign(&mut self, other: An) {
        *self = *self ^ other;
    }
}

impl std::fmt::Debug for An {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("An(secret)")
    }
}
