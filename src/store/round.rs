//! The newest checkpoint round that is known to be complete, where no log says so.
//!
//! A page slot of a complete round is durable, so one that is not whole is damage; a slot of a
//! younger round may have been cut short by a crash. Logs in use name the round in their headers;
//! once recovery has given them up, this file does. Without it a damaged page of a folder with empty
//! logs would pass for one that was never written.

use std::io;

use super::environment::{BLOCK_BYTES, File, Storage};

/// The file, relative to the data folder: outside the folder of pages, so that it still tells when
/// that is gone.
pub(super) const ROUND_FILE: &str = "round";

const MAGIC: [u8; 8] = *b"RAIDARND";
const SECTOR_BYTES: usize = 512;
const COPY_BYTES: usize = 20;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompleteRound {
    /// There is no such file, or a crash kept it from being filled: no recovery ever ended.
    Unknown,
    /// Every slot of this round or an older one is durable.
    Known(u64),
    /// Neither of its copies can be read.
    Damaged,
}

impl CompleteRound {
    /// The round, or 0, the round before all others.
    pub fn or_zero(self) -> u64 {
        match self {
            CompleteRound::Known(round) => round,
            CompleteRound::Unknown | CompleteRound::Damaged => 0,
        }
    }
}

/// Reads the file.
pub(super) async fn read<S: Storage>(storage: &S) -> io::Result<CompleteRound> {
    match storage.open(ROUND_FILE, false).await {
        Ok(file) => Ok(decode(&file.read_at(0, BLOCK_BYTES).await?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(CompleteRound::Unknown),
        Err(error) => Err(error),
    }
}

/// Says, durably, that all slots of `round` and of older rounds are durable.
pub(super) async fn write<S: Storage>(storage: &S, round: u64) -> io::Result<()> {
    let file = storage.open(ROUND_FILE, true).await?;
    file.write_at(&encode(round), 0).await?;
    file.sync().await
}

/// A block with the round in each of its first two sectors, of which a write cut short leaves one:
/// the old or the new.
fn encode(round: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    for at in [0, SECTOR_BYTES] {
        let copy = &mut block[at..at + COPY_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..16].copy_from_slice(&round.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..16]);
        copy[16..].copy_from_slice(&crc.to_le_bytes());
    }
    block
}

fn decode(block: &[u8]) -> CompleteRound {
    let copy = |at: usize| {
        let copy = &block[at..at + COPY_BYTES];
        let crc = u32::from_le_bytes(copy[16..].try_into().expect("4 bytes"));
        (copy[..8] == MAGIC && crc32c::crc32c(&copy[..16]) == crc)
            .then(|| u64::from_le_bytes(copy[8..16].try_into().expect("8 bytes")))
    };
    match copy(0).max(copy(SECTOR_BYTES)) {
        Some(round) => CompleteRound::Known(round),
        None if block.iter().all(|&byte| byte == 0) => CompleteRound::Unknown,
        None => CompleteRound::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_cut_short_between_sectors_leaves_a_round() {
        let (old, new) = (encode(7), encode(8));
        assert_eq!(decode(&new), CompleteRound::Known(8));
        for kept in [0, SECTOR_BYTES] {
            let mut torn = new.clone();
            torn[kept..kept + SECTOR_BYTES].copy_from_slice(&old[kept..kept + SECTOR_BYTES]);
            assert_eq!(decode(&torn), CompleteRound::Known(8));
        }
        assert_eq!(decode(&vec![0; BLOCK_BYTES]), CompleteRound::Unknown);
    }

    #[test]
    fn one_damaged_copy_does_no_harm_and_two_are_told() {
        let mut block = encode(7);
        block[9] ^= 1;
        assert_eq!(decode(&block), CompleteRound::Known(7));
        block[SECTOR_BYTES + 9] ^= 1;
        assert_eq!(decode(&block), CompleteRound::Damaged);
    }
}
