use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::coin::An;
use crate::hex;
use crate::protocol::RaidaId;
use crate::protocol::lockers::{Currency, LockerKey, Price, TradeKey};

/// Opens a locker on all 25 servers: 16 random bytes that its owner keeps or hands on.
///
/// The key on each server is derived from it: a server must learn its own key, but it learns
/// nothing of the others' keys, and cannot open the locker there. Key of RAIDA n: the first 12
/// bytes of HMAC-SHA-256 of `raida locker key` and n (one byte) under the secret, then FF FF FF FF.
///
/// ```
/// use raida::client::locker::LockerSecret;
/// use raida::protocol::RaidaId;
/// let secret: LockerSecret = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
/// let keys: Vec<_> = RaidaId::all().map(|raida| secret.key(raida)).collect();
/// assert!(keys[0] != keys[1]);
/// assert_eq!(format!("{secret:?}"), "LockerSecret(secret)");
/// ```
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct LockerSecret([u8; LockerSecret::SIZE]);

impl LockerSecret {
    /// Number of bytes.
    pub const SIZE: usize = 16;

    const LABEL: &[u8] = b"raida locker key";
    const NAME_LABEL: &[u8] = b"raida locker name";

    /// Draws a secret that nobody can guess.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn draw() -> Result<LockerSecret, getrandom::Error> {
        let mut bytes = [0; LockerSecret::SIZE];
        getrandom::fill(&mut bytes)?;
        Ok(LockerSecret(bytes))
    }

    /// The locker's key on a server.
    pub fn key(&self, raida: RaidaId) -> LockerKey {
        let mut key = derive(&self.0, LockerSecret::LABEL, &[raida.get()]);
        key[12..].fill(0xff);
        LockerKey::new(An::new(key)).expect("it ends in FF FF FF FF")
    }

    /// A name for the locker, which opens nothing: 32 hexadecimal digits of the HMAC-SHA-256 of
    /// `raida locker name` under the secret.
    pub fn name(&self) -> String {
        hex::write(&derive::<16>(&self.0, LockerSecret::NAME_LABEL, &[]))
    }

    /// 32 hexadecimal digits, for its owner only.
    pub fn expose(&self) -> String {
        hex::write(&self.0)
    }
}

impl std::fmt::Debug for LockerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockerSecret(secret)")
    }
}

impl FromStr for LockerSecret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<LockerSecret, NotASecret> {
        hex::read(text).map(LockerSecret).ok_or(NotASecret::Locker)
    }
}

/// Owns an offer on all 25 servers: 16 bytes of the form of a trade key, which states price and
/// currency. So the seller needs to keep nothing else.
///
/// As with [`LockerSecret`], the key on each server is derived: the first 9 bytes of HMAC-SHA-256
/// of `raida trade key` and n (one byte) under the whole secret, then price, currency and EE EE as
/// in the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TradeSecret(TradeKey);

impl TradeSecret {
    const LABEL: &[u8] = b"raida trade key";
    const LOCKER_LABEL: &[u8] = b"raida trade locker taken back";

    /// Draws a secret that nobody can guess, for an offer at this price.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn draw(price: Price, currency: Currency) -> Result<TradeSecret, getrandom::Error> {
        let mut bytes = [0; TradeKey::SECRET_SIZE];
        getrandom::fill(&mut bytes)?;
        Ok(TradeSecret(TradeKey::of(bytes, price, currency)))
    }

    /// The trade locker's key on a server.
    pub fn key(&self, raida: RaidaId) -> TradeKey {
        let derived: [u8; An::SIZE] =
            derive(self.0.an().expose(), TradeSecret::LABEL, &[raida.get()]);
        let secret = std::array::from_fn(|i| derived[i]);
        TradeKey::of(secret, self.price(), self.currency())
    }

    /// The locker that coins go through on their way from the offer back into a wallet. It is
    /// derived too, so that an owner of this secret can go on where an earlier way back was
    /// interrupted.
    pub fn way_back(&self) -> LockerSecret {
        LockerSecret(derive(self.0.an().expose(), TradeSecret::LOCKER_LABEL, &[]))
    }

    /// The price.
    pub fn price(&self) -> Price {
        self.0.price()
    }

    /// The currency of the price.
    pub fn currency(&self) -> Currency {
        self.0.currency()
    }

    /// 32 hexadecimal digits, for its owner only.
    pub fn expose(&self) -> String {
        hex::write(self.0.an().expose())
    }
}

impl std::fmt::Debug for TradeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TradeSecret(secret)")
    }
}

impl FromStr for TradeSecret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<TradeSecret, NotASecret> {
        hex::read(text)
            .and_then(|bytes| TradeKey::new(An::new(bytes)))
            .map(TradeSecret)
            .ok_or(NotASecret::Trade)
    }
}

/// Why a text is no secret. Does not quote the text: it may be a secret with a typing error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    /// The text is no locker's secret.
    #[error("a locker's secret is 32 hex digits")]
    Locker,
    /// The text is no offer's secret.
    #[error(
        "an offer's secret is 32 hex digits, of which the last fourteen are price (8), currency (00, 01 or 02) and eeee"
    )]
    Trade,
}

fn derive<const N: usize>(secret: &[u8], label: &[u8], of: &[u8]) -> [u8; N] {
    let mut hmac =
        Hmac::<Sha256>::new_from_slice(secret).expect("an HMAC takes a key of any length");
    hmac.update(label);
    hmac.update(of);
    let hash: [u8; 32] = hmac.finalize().into_bytes().into();
    std::array::from_fn(|i| hash[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    /// Computed with another implementation: Python's `hmac` and `hashlib`.
    #[test]
    fn keys_are_derived_as_documented() {
        let text = "000102030405060708090a0b0c0d0e0f";
        let secret: LockerSecret = text.parse().unwrap();
        assert_eq!(hex::write(secret.key(raida(0)).an().expose()), LOCKER_0);
        assert_eq!(hex::write(secret.key(raida(24)).an().expose()), LOCKER_24);
        assert_eq!(secret.expose(), text);

        let text = "000102030405060708000004d201eeee";
        let secret: TradeSecret = text.parse().unwrap();
        assert_eq!(hex::write(secret.key(raida(7)).an().expose()), TRADE_7);
        assert_eq!(secret.way_back().expose(), WAY_BACK);
        assert_eq!(secret.expose(), text);
        assert_eq!(secret.price(), Price::new(1_234));
        assert_eq!(secret.currency(), Currency::Bitcoin);
    }

    const LOCKER_0: &str = "1d88366498b2e5f0b74b9650ffffffff";
    const LOCKER_24: &str = "61d9270e92fdac928bea8d4dffffffff";
    const TRADE_7: &str = "fc100a8ec1e6d8eca0000004d201eeee";
    const WAY_BACK: &str = "565da52f43fd81055d04ca3725491a7e";

    #[test]
    fn no_two_servers_have_the_same_key_and_each_says_the_price() {
        let locker = LockerSecret::draw().unwrap();
        let trade = TradeSecret::draw(Price::new(5), Currency::Monero).unwrap();
        for one in RaidaId::all() {
            let key = trade.key(one);
            assert_eq!(
                (key.price(), key.currency()),
                (Price::new(5), Currency::Monero)
            );
            for other in RaidaId::all().filter(|&other| other != one) {
                assert!(locker.key(one) != locker.key(other));
                assert!(key != trade.key(other));
            }
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        for wrong in ["", "5ec1e7", &"5ec1e7".repeat(6), &"5ec1e7 ".repeat(5)] {
            let error = wrong.parse::<LockerSecret>().unwrap_err().to_string();
            assert!(error.contains("32 hex digits") && !error.contains("5ec1e7"));
            let error = wrong.parse::<TradeSecret>().unwrap_err().to_string();
            assert!(error.contains("32 hex digits") && !error.contains("5ec1e7"));
        }
        // A locker's, a currency that is none.
        for wrong in ["00".repeat(16), "00".repeat(13) + "03eeee"] {
            assert_eq!(wrong.parse::<TradeSecret>(), Err(NotASecret::Trade));
        }
    }
}
