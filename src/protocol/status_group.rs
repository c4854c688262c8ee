//! Group 0: how a node is doing (docs/protocol.md section 5). Echo, version and audit take no
//! parameters: their payload is ignored.

use super::{AdminKey, Status};
use crate::coin::Denomination;

/// Show stats: the admin key, 16 bytes; anything that follows is ignored.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The key the client gave: the node compares it with its own; 38 where they differ.
    pub key: AdminKey,
}

impl Stats {
    /// Reads a payload: 16 where it is too short.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Stats, Status> {
        let key = payload.first_chunk().ok_or(Status::INVALID_LENGTH)?;
        Ok(Stats {
            key: AdminKey::new(*key),
        })
    }

    /// Appends the payload.
    pub fn compose(key: &AdminKey, out: &mut Vec<u8>) {
        out.extend_from_slice(key.expose());
    }
}

/// What a node did since it started: the answer to "show stats", four numbers of 8 bytes,
/// little-endian unlike everything else on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Echoes answered.
    pub echoes: u64,
    /// Coins that were given a new authenticity number.
    pub coins_powned: u64,
    /// The worth of those coins, in the smallest unit (0.00000001).
    pub value_powned: u64,
    /// Requests of every kind.
    pub requests: u64,
}

impl NodeStats {
    /// Bytes of the answer.
    pub const SIZE: usize = 32;

    /// Appends the answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        for number in [
            self.echoes,
            self.coins_powned,
            self.value_powned,
            self.requests,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reads the answer; `None` where it has another size.
    pub fn read(payload: &[u8]) -> Option<NodeStats> {
        let bytes: &[u8; Self::SIZE] = payload.try_into().ok()?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Some(NodeStats {
            echoes: number(0),
            coins_powned: number(8),
            value_powned: number(16),
            requests: number(24),
        })
    }
}

/// The answer to "version": eight ASCII characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareVersion([u8; 8]);

impl SoftwareVersion {
    /// Takes eight characters; `None` where one of them cannot be printed.
    pub const fn new(characters: [u8; 8]) -> Option<SoftwareVersion> {
        let mut i = 0;
        while i < characters.len() {
            if !characters[i].is_ascii_graphic() && characters[i] != b' ' {
                return None;
            }
            i += 1;
        }
        Some(SoftwareVersion(characters))
    }

    /// Appends the answer.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    /// Reads the answer; `None` where it is anything but eight characters that can be printed.
    pub fn read(payload: &[u8]) -> Option<SoftwareVersion> {
        Self::new(payload.try_into().ok()?)
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked to be ASCII when it was made")
    }
}

impl std::fmt::Display for SoftwareVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to "audit": the number of coins of each denomination in circulation, in the order of
/// [`Denomination::index`]. 15 times (DN, count): 75 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit(pub [u32; Denomination::COUNT]);

impl Audit {
    /// Bytes a denomination takes: DN, then the count.
    const ENTRY: usize = 5;
    /// Bytes of the answer.
    pub const SIZE: usize = Denomination::COUNT * Self::ENTRY;

    /// Appends the answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (denomination, count) in Denomination::all().zip(self.0) {
            out.push(denomination.to_byte());
            out.extend_from_slice(&count.to_be_bytes());
        }
    }

    /// Reads the answer; `None` where it has another size or denominations in another order.
    pub fn read(payload: &[u8]) -> Option<Audit> {
        if payload.len() != Self::SIZE {
            return None;
        }
        let mut counts = [0; Denomination::COUNT];
        let entries = payload.chunks_exact(Self::ENTRY);
        for ((denomination, count), entry) in Denomination::all().zip(&mut counts).zip(entries) {
            if entry[0] != denomination.to_byte() {
                return None;
            }
            *count = u32::from_be_bytes([entry[1], entry[2], entry[3], entry[4]]);
        }
        Some(Audit(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stats_are_little_endian() {
        let stats = NodeStats {
            echoes: 1,
            coins_powned: 2,
            value_powned: 3,
            requests: 4,
        };
        let mut out = Vec::new();
        stats.write(&mut out);
        let mut expected = [0; 32];
        (expected[0], expected[8], expected[16], expected[24]) = (1, 2, 3, 4);
        assert_eq!(out, expected);
        assert_eq!(NodeStats::read(&out), Some(stats));
        assert_eq!(NodeStats::read(&out[1..]), None);
    }

    #[test]
    fn a_key_that_is_cut_is_too_short() {
        let mut payload = Vec::new();
        Stats::compose(&AdminKey::new([3; 16]), &mut payload);
        assert_eq!(Stats::parse(&payload).unwrap().key, AdminKey::new([3; 16]));
        assert_eq!(
            Stats::parse(&payload[1..]).unwrap_err(),
            Status::INVALID_LENGTH
        );
    }

    #[test]
    fn a_version_that_cannot_be_printed_is_none() {
        let version = SoftwareVersion::new(*b"raida0.1").unwrap();
        let mut out = Vec::new();
        version.write(&mut out);
        assert_eq!(SoftwareVersion::read(&out), Some(version));
        assert_eq!(version.to_string(), "raida0.1");
        assert_eq!(SoftwareVersion::read(b"raida\x1b[m"), None);
        assert_eq!(SoftwareVersion::read(b"raida"), None);
    }

    proptest! {
        #[test]
        fn an_audit_reads_back(counts in any::<[u32; Denomination::COUNT]>()) {
            let mut out = Vec::new();
            Audit(counts).write(&mut out);
            prop_assert_eq!((out.len(), out[0], out[70]), (Audit::SIZE, 0xf8, 6));
            prop_assert_eq!(Audit::read(&out), Some(Audit(counts)));
            out.swap(0, 5);
            prop_assert_eq!(Audit::read(&out), None);
        }

        #[test]
        fn any_answer_is_read_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = NodeStats::read(&payload);
            let _ = Audit::read(&payload);
            let _ = SoftwareVersion::read(&payload);
        }
    }
}
