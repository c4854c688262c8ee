//! Keys, counter blocks and HMAC. A request's header says which key it needs.

use super::Encryption;
use crate::coin::An;
use aes::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of an HMAC-SHA-256.
pub const HMAC_SIZE: usize = 32;

/// The key of a request and its response (docs/protocol.md section 3). Wiped from memory when
/// dropped, and printing one shows nothing of it.
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

/// An AES-128 key. Like the other, aligned so that it is moved in whole words: a move in
/// overlapping halves stalls the processor for as long as parsing the rest of a request takes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
#[repr(align(8))]
pub struct PlainKey([u8; 16]);

/// An AES-256 and HMAC-SHA-256 key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
#[repr(align(8))]
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

    /// The sixteen bytes XOR the key, for a challenge answer; the bytes themselves where there is
    /// no 16-byte key.
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

    /// Whether this is the ciphertext's HMAC. The check takes the same time wherever they differ.
    #[inline]
    pub(super) fn verifies(&self, ciphertext: &[u8], hmac: &[u8; HMAC_SIZE]) -> bool {
        self.hmac(ciphertext).ct_eq(hmac).into()
    }
}

/// The counter block that follows those used by `bytes` of key stream. A block used in part counts
/// as used. Blocks are counted as one big-endian number of 128 bits.
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

#[cfg(test)]
mod tests {
    use super::*;

    // NIST SP 800-38A, F.5: first counter block and first two blocks of plain text.
    const COUNTER: u128 = 0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feff;
    const PLAIN: [u128; 2] = [
        0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a,
        0xae2d_8a57_1e03_ac9c_9eb7_6fac_45af_8e51,
    ];

    fn encrypted(key: &Key) -> [u128; 2] {
        let mut bytes: Vec<u8> = PLAIN.iter().flat_map(|block| block.to_be_bytes()).collect();
        key.apply(COUNTER.to_be_bytes(), &mut bytes);
        let (blocks, _) = bytes.as_chunks();
        [0, 1].map(|i| u128::from_be_bytes(blocks[i]))
    }

    #[test]
    fn aes_128_counts_as_the_standard_does() {
        let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128;
        assert_eq!(
            encrypted(&Key::Plain(PlainKey(key.to_be_bytes()))),
            [
                0x874d_6191_b620_e326_1bef_6864_990d_b6ce,
                0x9806_f66b_7970_fdff_8617_187b_b9ff_fdff,
            ]
        );
    }

    #[test]
    fn aes_256_counts_as_the_standard_does() {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&0x603d_eb10_15ca_71be_2b73_aef0_857d_7781_u128.to_be_bytes());
        key[16..].copy_from_slice(&0x1f35_2c07_3b61_08d7_2d98_10a3_0914_dff4_u128.to_be_bytes());
        assert_eq!(
            encrypted(&Key::Hashed(HashedKey(key))),
            [
                0x601e_c313_7757_89a5_b7a7_f504_bbf3_d228,
                0xf443_e3ca_4d62_b59a_ca84_e990_caca_f5c5,
            ]
        );
    }

    #[test]
    fn the_key_of_two_coins_depends_on_their_order() {
        let (first, second) = (An::new([1; 16]), An::new([2; 16]));
        let Key::Hashed(there) = Key::from_hashed_ans(first, second) else {
            panic!("two coins make a hashed key");
        };
        let Key::Hashed(back) = Key::from_hashed_ans(second, first) else {
            panic!("two coins make a hashed key");
        };
        assert_ne!(there.0, back.0);
        let both: Vec<u8> = [[1; 16], [2; 16]].concat();
        assert_eq!(there.0[..], Sha256::digest(both)[..]);
    }

    #[test]
    fn a_block_used_in_part_is_used() {
        let first = [0xff; 16];
        assert_eq!(counter_after(first, 0), first);
        assert_eq!(counter_after(first, 1), 0u128.to_be_bytes());
        assert_eq!(counter_after(first, 16), 0u128.to_be_bytes());
        assert_eq!(counter_after(first, 17), 1u128.to_be_bytes());
    }

    #[test]
    fn printing_a_key_shows_nothing_of_it() {
        for key in [
            Key::None,
            Key::from_an(An::new([0x41; 16])),
            Key::from_hashed_an(An::new([0x41; 16])),
        ] {
            let printed = format!("{key:?}");
            assert!(
                !printed.contains("41") && !printed.contains("65"),
                "{printed}"
            );
        }
    }
}
