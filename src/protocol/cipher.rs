//! Keys, counter blocks and HMAC. Which key a request needs stands in its header.

use super::Encryption;
use crate::coin::An;
use aes::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of an HMAC-SHA-256.
pub const HMAC_SIZE: usize = 32;

/// What a request and its response are encrypted with (PROTOCOL.md section 3). Wiped from memory
/// when dropped, and printing one shows nothing of it.
#[derive(Clone, Default)]
pub enum Key {
    /// Type 0: no key.
    #[default]
    None,
    /// Types 1 and 2: the authenticity number of a coin, or a locker's key.
    Plain(PlainKey),
    /// Types 4 and 5: the SHA-256 of one or two authenticity numbers.
    Hashed(HashedKey),
}

/// An AES-128 key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PlainKey([u8; 16]);

/// An AES-256 and HMAC-SHA-256 key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HashedKey([u8; 32]);

impl Key {
    /// The key of types 1 and 2: the key coin's authenticity number, or the locker's.
    #[inline]
    pub fn from_an(an: An) -> Key {
        Key::Plain(PlainKey(*an.expose()))
    }

    /// The key of type 4: SHA-256 of the key coin's authenticity number.
    #[inline]
    pub fn from_hashed_an(an: An) -> Key {
        Key::Hashed(HashedKey(Sha256::digest(an.expose()).into()))
    }

    /// The key of type 5: SHA-256 of the first key coin's authenticity number, then the second's.
    #[inline]
    pub fn from_hashed_ans(first: An, second: An) -> Key {
        let hash = Sha256::new()
            .chain_update(first.expose())
            .chain_update(second.expose());
        Key::Hashed(HashedKey(hash.finalize().into()))
    }

    /// Whether this is the kind of key that the encryption type asks for.
    #[inline]
    pub fn fits(&self, encryption: Encryption) -> bool {
        match self {
            Key::None => encryption == Encryption::None,
            Key::Plain(_) => matches!(encryption, Encryption::CoinKey | Encryption::LockerKey),
            Key::Hashed(_) => encryption.has_hmac(),
        }
    }

    /// Encrypts or decrypts in place, from this counter block on: in CTR mode both are the same.
    #[inline]
    pub(super) fn apply(&self, counter: [u8; 16], bytes: &mut [u8]) {
        match self {
            Key::None => {}
            Key::Plain(key) => {
                ctr::Ctr128BE::<aes::Aes128>::new(&key.0.into(), &counter.into())
                    .apply_keystream(bytes);
            }
            Key::Hashed(key) => {
                ctr::Ctr128BE::<aes::Aes256>::new(&key.0.into(), &counter.into())
                    .apply_keystream(bytes);
            }
        }
    }

    /// The XOR with these sixteen bytes that a challenge answer is made of; the bytes themselves
    /// where there is no 16-byte key.
    #[inline]
    pub(super) fn mask(&self, bytes: [u8; 16]) -> [u8; 16] {
        match self {
            Key::Plain(key) => {
                (u128::from_ne_bytes(bytes) ^ u128::from_ne_bytes(key.0)).to_ne_bytes()
            }
            Key::None | Key::Hashed(_) => bytes,
        }
    }
}

impl HashedKey {
    /// The HMAC of a ciphertext.
    #[inline]
    pub(super) fn hmac(&self, ciphertext: &[u8]) -> [u8; HMAC_SIZE] {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("an HMAC takes a key of any length");
        hmac.update(ciphertext);
        hmac.finalize().into_bytes().into()
    }

    /// Whether this is the ciphertext's HMAC, in the same time wherever it is not.
    #[inline]
    pub(super) fn verifies(&self, ciphertext: &[u8], hmac: &[u8; HMAC_SIZE]) -> bool {
        self.hmac(ciphertext).ct_eq(hmac).into()
    }
}

/// The counter block that comes after those which so many bytes of key stream use; a block used in
/// part counts as used. Blocks are counted as one big-endian number of 128 bits.
#[inline]
pub(super) fn counter_after(counter: [u8; 16], bytes: usize) -> [u8; 16] {
    u128::from_be_bytes(counter)
        .wrapping_add(bytes.div_ceil(16) as u128)
        .to_be_bytes()
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Key::None => "Key::None",
            Key::Plain(_) => "Key::Plain(secret)",
            Key::Hashed(_) => "Key::Hashed(secret)",
        })
    }
}

impl std::fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainKey(secret)")
    }
}

impl std::fmt::Debug for HashedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashedKey(secret)")
    }
}
