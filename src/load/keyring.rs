use crate::coin::{An, Coin};
use crate::protocol::{Encryption, Protection};

/// How requests are encrypted, and the coins or lockers that are keys, in turns: a node has to look
/// up a key for each request, as for any client.
#[derive(Clone, Debug)]
pub struct Keyring {
    encryption: Encryption,
    coins: Vec<(Coin, An)>,
    next: usize,
}

impl Keyring {
    /// No encryption.
    pub const PLAIN: Keyring = Keyring {
        encryption: Encryption::None,
        coins: vec![],
        next: 0,
    };

    /// Type 1, AES-128 with the challenge for a checksum; without coins, no encryption.
    pub fn aes(coins: Vec<(Coin, An)>) -> Keyring {
        Keyring::of(Encryption::CoinKey, coins)
    }

    /// Type 4, AES-256 with an HMAC; without coins, no encryption.
    pub fn aes_hmac(coins: Vec<(Coin, An)>) -> Keyring {
        Keyring::of(Encryption::CoinKeyHmac, coins)
    }

    /// Type 2, like type 1, by the lockers that coins lie in; without coins, no encryption.
    pub fn aes_locker(coins: Vec<(Coin, An)>) -> Keyring {
        Keyring::of(Encryption::LockerKey, coins)
    }

    fn of(encryption: Encryption, coins: Vec<(Coin, An)>) -> Keyring {
        match coins.is_empty() {
            true => Keyring::PLAIN,
            false => Keyring {
                encryption,
                coins,
                next: 0,
            },
        }
    }

    /// The encryption type of every request.
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// The encryption of the next request.
    #[inline]
    pub(super) fn next(&mut self) -> Protection {
        let Some(&(coin, an)) = self.coins.get(self.next) else {
            return Protection::None;
        };
        self.next = (self.next + 1) % self.coins.len();
        match self.encryption {
            Encryption::LockerKey => Protection::Locker(an),
            Encryption::CoinKeyHmac => Protection::CoinHmac(coin, an),
            _ => Protection::Coin(coin, an),
        }
    }
}
