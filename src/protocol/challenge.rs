//! The sixteen bytes that prove a body was read with the right key.

use super::Key;

/// Twelve random bytes and their CRC-32: the front of every body of types 0, 1 and 2. A right CRC
/// shows that the body was decrypted with the right key; the answer shows the client that the
/// server knows the key (docs/protocol.md sections 3 and 4).
///
/// The answer to an encrypted challenge is the challenge XOR the key and travels in the clear:
/// anybody who learns the challenge has the key. So printing one shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; 16]);

impl Challenge {
    /// Bytes a challenge takes.
    pub const SIZE: usize = 16;
    /// The answer where no challenge could be read.
    pub const NO_ANSWER: [u8; 16] = [0; 16];

    /// Makes a challenge of twelve bytes, which should be random.
    pub fn new(random: [u8; 12]) -> Challenge {
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(&random);
        bytes[12..].copy_from_slice(&crc32fast::hash(&random).to_be_bytes());
        Challenge(bytes)
    }

    /// Takes sixteen bytes as read, right or not.
    #[inline]
    pub fn read(bytes: [u8; 16]) -> Challenge {
        Challenge(bytes)
    }

    /// The bytes as they go into a body, before encryption.
    #[inline]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether the last four bytes are the CRC-32 of the first twelve.
    #[inline]
    pub fn is_right(self) -> bool {
        let [random @ .., a, b, c, d] = self.0;
        crc32fast::hash(&random) == u32::from_be_bytes([a, b, c, d])
    }

    /// The answer in the response: the challenge as it is for type 0, XOR the key for types 1 and
    /// 2.
    #[inline]
    pub fn answer(self, key: &Key) -> [u8; 16] {
        key.mask(self.0)
    }
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenge(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_challenge_is_right_and_any_flipped_bit_makes_it_wrong() {
        // "echo with a challenge over udp" of the recorded conversation.
        let recorded = 0x6853_3971_aee9_937f_7596_813f_3fe7_0c8a_u128;
        let challenge = Challenge::read(recorded.to_be_bytes());
        assert!(challenge.is_right());
        let [random @ .., _, _, _, _] = challenge.bytes();
        assert_eq!(Challenge::new(random), challenge);
        for bit in 0..128 {
            assert!(!Challenge::read((recorded ^ (1 << bit)).to_be_bytes()).is_right());
        }
    }
}
