//! The newest checkpoint round that is known to be complete, where no log says so.
//!
//! A page slot of a complete round is durable, so a slot that is not whole is damage; a slot of a
//! younger round may have been cut short by a crash. Logs in use name the round in their headers;
//! once recovery has given them up, this file does. Without it a damaged page of a folder with
//! empty logs would pass for one that was never written, and so would the pages of a file cut
//! short.

use std::io;

use super::page_file::Extents;
use crate::coin::Denomination;
use crate::runtime::{BLOCK_BYTES, File, Storage, is_blank};

/// The highest round that a start accepts. At one round a second it takes longer than 100 billion
/// years to get there, and three times as many rounds are left before the numbers end.
pub(super) const ROUND_MAX: u64 = 1 << 62;

/// The file, relative to the data folder: outside the folder of pages, so that it still tells when
/// that is gone.
pub(super) const ROUND_FILE: &str = "round";

/// Magic of a file that comes with a list of log segments and a book.
const MAGIC: [u8; 8] = *b"RAIDARN3";
/// Written before there were lists.
const BOOK_MAGIC: [u8; 8] = *b"RAIDARN2";
/// Written before there were books.
const FIRST_MAGIC: [u8; 8] = *b"RAIDARND";
const SECTOR_BYTES: usize = 512;
const LENGTHS_OFFSET: usize = 16;
/// Where the book's round is, and in a copy without a book the checksum.
const BOOK_OFFSET: usize = LENGTHS_OFFSET + Denomination::COUNT * 8;
const CRC_OFFSET: usize = BOOK_OFFSET + 8;
const COPY_BYTES: usize = CRC_OFFSET + 4;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompleteRound {
    /// There is no such file, or a crash kept it from being filled: no recovery ever ended.
    Unknown,
    /// A recovery has ended.
    Known {
        /// Every slot of this round or an older one is durable.
        round: u64,
        /// The least that the page files held: their durable images. A file may have been longer by
        /// a write that no power failure has to keep.
        extents: Extents,
        /// The round of the [book](super::book) that a recovery left; `None` where none has left
        /// one.
        book: Option<u64>,
        /// There is a [list of log segments](super::segment_list).
        has_list: bool,
    },
    /// Neither of its copies can be read.
    Damaged,
}

/// Reads the file.
pub(super) async fn read<S: Storage>(storage: &S) -> io::Result<CompleteRound> {
    match storage.open(ROUND_FILE, false).await {
        Ok(file) => Ok(decode(&file.read_at(0, BLOCK_BYTES).await?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(CompleteRound::Unknown),
        Err(error) => Err(error),
    }
}

/// Writes durably that all slots of `round` and of older rounds are durable, in page files that
/// hold at least `extents`; that there is a book of the round `book` or a later one; and that there
/// is a list of log segments.
pub(super) async fn write<S: Storage>(
    storage: &S,
    round: u64,
    extents: &Extents,
    book: u64,
) -> io::Result<()> {
    let file = storage.open(ROUND_FILE, true).await?;
    file.write_at(&encode(round, extents, book), 0).await?;
    file.sync().await
}

/// A block with the same content in each of its first two sectors. A write that is cut short leaves
/// one sector whole, the old or the new.
fn encode(round: u64, extents: &Extents, book: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    for at in [0, SECTOR_BYTES] {
        let copy = &mut block[at..at + COPY_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..16].copy_from_slice(&round.to_le_bytes());
        for (bytes, length) in copy[LENGTHS_OFFSET..]
            .chunks_exact_mut(8)
            .zip(extents.pack())
        {
            bytes.copy_from_slice(&length.to_le_bytes());
        }
        copy[BOOK_OFFSET..CRC_OFFSET].copy_from_slice(&book.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..CRC_OFFSET]);
        copy[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    }
    block
}

fn decode(block: &[u8]) -> CompleteRound {
    let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("8 bytes"));
    let crc_offset = |at: usize| match block[at..at + 8].try_into() {
        Ok(MAGIC | BOOK_MAGIC) => Some(CRC_OFFSET),
        Ok(FIRST_MAGIC) => Some(BOOK_OFFSET),
        _ => None,
    };
    let is_sound = |at: &usize| {
        crc_offset(*at).is_some_and(|length| {
            let copy = &block[*at..*at + length + 4];
            copy[length..] == crc32c::crc32c(&copy[..length]).to_le_bytes()
        })
    };
    let sound = [0, SECTOR_BYTES].into_iter().filter(is_sound);
    match sound.max_by_key(|at| u64_at(at + 8)) {
        Some(at) => CompleteRound::Known {
            round: u64_at(at + 8),
            extents: Extents::unpack(std::array::from_fn(|i| u64_at(at + LENGTHS_OFFSET + i * 8))),
            book: (crc_offset(at) == Some(CRC_OFFSET)).then(|| u64_at(at + BOOK_OFFSET)),
            has_list: block[at..at + 8] == MAGIC,
        },
        None if is_blank(block) => CompleteRound::Unknown,
        None => CompleteRound::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(round: u64) -> CompleteRound {
        CompleteRound::Known {
            round,
            extents: Extents {
                lengths: std::array::from_fn(|i| round * 1_000 + i as u64),
                pages: std::array::from_fn(|i| i as u16 + 9),
            },
            book: Some(round + 500),
            has_list: true,
        }
    }

    fn block(round: u64) -> Vec<u8> {
        match known(round) {
            CompleteRound::Known {
                round,
                extents,
                book: Some(book),
                ..
            } => encode(round, &extents, book),
            _ => unreachable!(),
        }
    }

    #[test]
    fn a_write_cut_short_between_sectors_leaves_a_round() {
        let (old, new) = (block(7), block(8));
        assert_eq!(decode(&new), known(8));
        for kept in [0, SECTOR_BYTES] {
            let mut torn = new.clone();
            torn[kept..kept + SECTOR_BYTES].copy_from_slice(&old[kept..kept + SECTOR_BYTES]);
            assert_eq!(decode(&torn), known(8));
        }
        assert_eq!(decode(&[0; BLOCK_BYTES]), CompleteRound::Unknown);
    }

    #[test]
    fn one_damaged_copy_does_no_harm_and_two_are_told() {
        let mut block = block(7);
        block[9] ^= 1;
        assert_eq!(decode(&block), known(7));
        block[SECTOR_BYTES + 9] ^= 1;
        assert_eq!(decode(&block), CompleteRound::Damaged);
    }

    #[test]
    fn a_round_from_before_there_were_books_is_read() {
        let lengths = [20_480; Denomination::COUNT];
        let mut block = vec![0; BLOCK_BYTES];
        for at in [0, SECTOR_BYTES] {
            block[at..at + 8].copy_from_slice(b"RAIDARND");
            block[at + 8..at + 16].copy_from_slice(&7u64.to_le_bytes());
            for bytes in block[at + 16..at + 136].chunks_exact_mut(8) {
                bytes.copy_from_slice(&20_480u64.to_le_bytes());
            }
            let crc = crc32c::crc32c(&block[at..at + 136]);
            block[at + 136..at + 140].copy_from_slice(&crc.to_le_bytes());
        }
        let known = CompleteRound::Known {
            round: 7,
            extents: Extents {
                lengths,
                ..Extents::default()
            },
            book: None,
            has_list: false,
        };
        assert_eq!(decode(&block), known);
        block.copy_within(0..SECTOR_BYTES, SECTOR_BYTES);
        block[..SECTOR_BYTES].copy_from_slice(&self::block(8)[..SECTOR_BYTES]);
        assert_eq!(decode(&block), self::known(8), "an upgrade cut short");
    }

    #[test]
    fn a_round_from_before_there_were_lists_is_read() {
        let mut block = block(7);
        for at in [0, SECTOR_BYTES] {
            block[at..at + 8].copy_from_slice(b"RAIDARN2");
            let crc = crc32c::crc32c(&block[at..at + CRC_OFFSET]);
            block[at + CRC_OFFSET..at + COPY_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
        let CompleteRound::Known {
            round, has_list, ..
        } = decode(&block)
        else {
            panic!("it is whole");
        };
        assert_eq!((round, has_list), (7, false));
    }
}
