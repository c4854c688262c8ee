use crate::hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Currency, Price};
use crate::coin::An;

// Position of the public part of a trade key. The bytes before it are the owner's secret.
const PRICE: usize = 9;
const CURRENCY: usize = PRICE + Price::SIZE;

/// The key of a locker: an authenticity number whose last four bytes are FF. Anybody who knows it
/// owns the coins that have it. Printing it shows nothing.
///
/// ```
/// use raida::{coin::An, protocol::lockers::LockerKey};
/// assert!(LockerKey::new(An::new([0xff; 16])).is_some());
/// assert!(LockerKey::new(An::new([0xfe; 16])).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LockerKey(An);

impl LockerKey {
    /// Takes the number as a key; `None` where it does not have the mark.
    #[inline]
    pub fn new(an: An) -> Option<LockerKey> {
        an.is_locker_key().then_some(LockerKey(an))
    }

    /// The authenticity number that the locker's coins have.
    #[inline]
    pub fn an(&self) -> An {
        self.0
    }
}

impl std::fmt::Debug for LockerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockerKey(secret)")
    }
}

/// The key of a trade locker: an authenticity number whose bytes 9-12 are its price, byte 13 its
/// currency and bytes 14-15 EE. It is as good as the coins, so the server never tells it to a
/// client that does not know it; others know the locker by its [`PublicId`]. Printing it shows
/// nothing.
///
/// ```
/// use raida::protocol::lockers::{Currency, Price, PublicIdKey, TradeKey, TradeName};
/// let key = TradeKey::of([7; 9], Price::new(1_234), Currency::Bitcoin);
/// assert_eq!(key.an().expose()[9..], [0, 0, 4, 0xd2, 1, 0xee, 0xee]);
///
/// // What a listing says: the same terms, under a name that is not the key.
/// let id = key.public_id(&PublicIdKey::new([9; 32]));
/// assert_eq!((id.price(), id.currency()), (key.price(), key.currency()));
/// assert!(TradeName::from(id) != TradeName::from(key));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TradeKey {
    an: An,
    currency: Currency,
}

impl TradeKey {
    /// Bytes that the owner chooses, at random: only they keep the key from others.
    pub const SECRET_SIZE: usize = PRICE;

    /// Takes the number as a key; `None` where it does not have the mark or names an unknown
    /// currency.
    #[inline]
    pub fn new(an: An) -> Option<TradeKey> {
        let currency = currency(&an).filter(|_| an.is_trade_key())?;
        Some(TradeKey { an, currency })
    }

    /// A key that states this price; `secret` should be random.
    pub fn of(secret: [u8; Self::SECRET_SIZE], price: Price, currency: Currency) -> TradeKey {
        let mut bytes = [0xee; An::SIZE];
        bytes[..PRICE].copy_from_slice(&secret);
        bytes[PRICE..CURRENCY].copy_from_slice(&price.get().to_be_bytes());
        bytes[CURRENCY] = currency.to_byte();
        TradeKey {
            an: An::new(bytes),
            currency,
        }
    }

    /// The authenticity number that the locker's coins have.
    #[inline]
    pub fn an(&self) -> An {
        self.an
    }

    /// The price.
    #[inline]
    pub fn price(&self) -> Price {
        price(self.an.expose())
    }

    /// The currency of the price.
    #[inline]
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// The name that a listing on the node with this key gives the locker: bytes 0-8 are a keyed
    /// hash of the whole key, the rest is the key's.
    pub fn public_id(&self, key: &PublicIdKey) -> PublicId {
        let mut bytes = *self.an.expose();
        bytes[..PRICE].copy_from_slice(&key.hash(&self.an)[..PRICE]);
        PublicId {
            bytes,
            currency: self.currency,
        }
    }
}

impl std::fmt::Debug for TradeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TradeKey(secret)")
    }
}

/// The key that a node derives public ids with: 32 random bytes. The node keeps them, so that ids
/// stay the same, and shows them to nobody. Anybody who has them can try keys against a listing,
/// which takes 2^72 tries where the key's owner chose well.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PublicIdKey([u8; PublicIdKey::SIZE]);

impl PublicIdKey {
    /// Number of bytes.
    pub const SIZE: usize = 32;

    /// The hashed text starts with this, so that the bytes can serve other purposes as well.
    const LABEL: &[u8] = b"public id of a trade locker";

    /// Takes the bytes as they are.
    #[inline]
    pub const fn new(bytes: [u8; Self::SIZE]) -> PublicIdKey {
        PublicIdKey(bytes)
    }

    fn hash(&self, an: &An) -> [u8; 32] {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("an HMAC takes a key of any length");
        hmac.update(Self::LABEL);
        hmac.update(an.expose());
        hmac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for PublicIdKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublicIdKey(secret)")
    }
}

/// The name of a trade locker in a listing. Everyone may know it: it opens nothing. It has the form
/// of a trade key, price and currency included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicId {
    bytes: [u8; PublicId::SIZE],
    currency: Currency,
}

impl PublicId {
    /// Bytes an id takes.
    pub const SIZE: usize = An::SIZE;

    /// Takes the bytes as an id; `None` where they do not have its form.
    #[inline]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<PublicId> {
        TradeKey::new(An::new(*bytes)).map(|form| PublicId {
            bytes: *bytes,
            currency: form.currency,
        })
    }

    /// The bytes of the wire.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        self.bytes
    }

    /// The price.
    #[inline]
    pub fn price(&self) -> Price {
        price(&self.bytes)
    }

    /// The currency of the price.
    #[inline]
    pub fn currency(&self) -> Currency {
        self.currency
    }
}

/// 32 hexadecimal digits.
impl std::fmt::Display for PublicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::write(&self.bytes))
    }
}

impl std::fmt::Debug for PublicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicId({self})")
    }
}

/// Names a trade locker in a request: by its key or its public id, which look alike. Printing it
/// shows nothing.
///
/// Look it up [as an id](TradeName::as_public_id) first: anybody with a listing can offer coins
/// under a key that equals another's id, but nobody can make a key whose id is another's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TradeName(TradeKey);

impl TradeName {
    /// Takes the bytes as a name; `None` where neither a key nor an id has their form.
    #[inline]
    pub(super) fn from_bytes(bytes: &[u8; An::SIZE]) -> Option<TradeName> {
        TradeKey::new(An::new(*bytes)).map(TradeName)
    }

    /// The bytes of the wire.
    #[inline]
    pub(super) fn expose(&self) -> &[u8; An::SIZE] {
        self.0.an.expose()
    }

    /// The id, if the name is one.
    #[inline]
    pub fn as_public_id(&self) -> PublicId {
        PublicId {
            bytes: *self.0.an.expose(),
            currency: self.0.currency,
        }
    }

    /// The key, if the name is one.
    #[inline]
    pub fn as_key(&self) -> TradeKey {
        self.0
    }
}

impl From<TradeKey> for TradeName {
    fn from(key: TradeKey) -> TradeName {
        TradeName(key)
    }
}

impl From<PublicId> for TradeName {
    fn from(id: PublicId) -> TradeName {
        TradeName(TradeKey {
            an: An::new(id.bytes),
            currency: id.currency,
        })
    }
}

impl std::fmt::Debug for TradeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TradeName(secret)")
    }
}

/// The currency that a key of a trade locker names, whether or not the key has the mark.
#[inline]
pub(super) fn currency(an: &An) -> Option<Currency> {
    Currency::from_byte(an.expose()[CURRENCY])
}

#[inline]
fn price(bytes: &[u8; An::SIZE]) -> Price {
    let [p0, p1, p2, p3] = std::array::from_fn(|i| bytes[PRICE + i]);
    Price::new(u32::from_be_bytes([p0, p1, p2, p3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> TradeKey {
        TradeKey::of([1; 9], Price::new(0x0102_0304), Currency::Monero)
    }

    #[test]
    fn a_locker_key_ends_in_four_bytes_ff() {
        for at in 0..16 {
            let mut bytes = [0xff; 16];
            bytes[at] = 0xfe;
            assert_eq!(LockerKey::new(An::new(bytes)).is_some(), at < 12);
        }
    }

    #[test]
    fn a_trade_key_says_price_and_currency_before_its_mark() {
        let bytes = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 2, 0xee, 0xee];
        assert_eq!(key().an(), An::new(bytes));
        assert_eq!(TradeKey::new(An::new(bytes)), Some(key()));
        assert_eq!(key().price(), Price::new(0x0102_0304));
        assert_eq!(key().currency(), Currency::Monero);
        for (at, wrong) in [(13, 3), (14, 0xef), (15, 0xef)] {
            let mut bytes = bytes;
            bytes[at] = wrong;
            assert_eq!(TradeKey::new(An::new(bytes)), None);
            assert_eq!(PublicId::from_bytes(&bytes), None);
        }
    }

    /// The result of Python's `hmac.new(bytes([7] * 32), b"public id of a trade locker" + key,
    /// "sha256")`.
    #[test]
    fn a_public_id_is_a_keyed_hash_and_the_terms() {
        let id = key().public_id(&PublicIdKey::new([7; 32]));
        assert_eq!(id.to_string(), "28266bace3bfed27590102030402eeee");
        assert_eq!(
            (id.price(), id.currency()),
            (key().price(), key().currency())
        );
        let other = key().public_id(&PublicIdKey::new([8; 32]));
        assert_ne!(id.to_bytes()[..9], other.to_bytes()[..9]);
    }

    #[test]
    fn keys_that_differ_in_their_terms_alone_have_ids_that_differ_in_their_hash() {
        let ids = PublicIdKey::new([7; 32]);
        let hash = |key: TradeKey| key.public_id(&ids).to_bytes()[..9].to_vec();
        let dearer = TradeKey::of([1; 9], Price::new(0x0102_0305), Currency::Monero);
        let other = TradeKey::of([1; 9], Price::new(0x0102_0304), Currency::Bitcoin);
        assert_ne!(hash(key()), hash(dearer));
        assert_ne!(hash(key()), hash(other));
    }

    #[test]
    fn printing_a_key_shows_nothing_of_it() {
        let locker = LockerKey::new(An::new([0xff; 16])).unwrap();
        let shown = format!(
            "{locker:?} {:?} {:?} {:?}",
            key(),
            TradeName::from(key()),
            PublicIdKey::new([7; 32])
        );
        assert_eq!(
            shown,
            "LockerKey(secret) TradeKey(secret) TradeName(secret) PublicIdKey(secret)"
        );
    }

    proptest! {
        #[test]
        fn a_public_id_shows_nothing_of_the_key_but_its_terms(
            secret in any::<[u8; 9]>(),
            price in any::<u32>(),
            node in any::<[u8; 32]>(),
        ) {
            let key = TradeKey::of(secret, Price::new(price), Currency::Bitcoin);
            let id = key.public_id(&PublicIdKey::new(node));
            prop_assert_ne!(&id.to_bytes()[..9], &secret[..]);
            prop_assert_eq!(PublicId::from_bytes(&id.to_bytes()), Some(id));
            prop_assert_eq!(TradeName::from(id).as_public_id(), id);
            prop_assert_eq!(TradeName::from(key).as_key(), key);
            prop_assert!(TradeName::from(id).as_key() != key);
        }
    }
}
