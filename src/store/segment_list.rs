//! Which log segments hold answered changes that the pages may lack: the list that makes a lost one
//! known.
//!
//! It is a file beside the folders, so that it still tells when one of them is gone. Every shard
//! has two blocks in it, which are written in turns: one that is cut short leaves the other.
//!
//! A segment is listed, durably, before the first answer that rests on it, and is taken off before
//! its file is used for another. In between, its file has to be there, whole. What a checkpoint
//! wrote before segments were taken off is listed too: how long the page files are, how many pages
//! they have and which shards have books, since no log has it any more.

use std::{cell::Cell, io};

use super::page_file::Extents;
use crate::coin::Denomination;
use crate::runtime::{BLOCK_BYTES, File, Storage, is_blank};

/// The file, relative to the data folder.
pub(super) const SEGMENTS_FILE: &str = "segments";

const MAGIC: [u8; 8] = *b"RAIDASEG";
const FORMAT_VERSION: u32 = 1;
const RUN_OFFSET: usize = 24;
const LENGTHS_OFFSET: usize = 72;
const FILES_OFFSET: usize = LENGTHS_OFFSET + 8 * Denomination::COUNT;
const CRC_OFFSET: usize = BLOCK_BYTES - 4;
/// Segments that a block has room for: far more than a log ever has.
const FILES_MAX: usize = (CRC_OFFSET - FILES_OFFSET) / 8;
/// Bytes that a shard has in the file.
const SHARD_BYTES: u64 = 2 * BLOCK_BYTES as u64;
/// Shards that the file has room for. It is that long from the start, so that one cut short shows.
const SHARDS_MAX: u16 = 64;
const FILE_BYTES: u64 = SHARDS_MAX as u64 * SHARD_BYTES;

/// What a checkpoint left on the disk, for which log records may be given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpointed {
    /// What the page files hold at least.
    pub extents: Extents,
    /// How many shards there are.
    pub shards: u16,
    /// One bit a shard, set where it has a book.
    pub books: u64,
}

impl Checkpointed {
    /// What the parts of a checkpoint that two shards made left together.
    pub fn and(mut self, other: &Checkpointed) -> Checkpointed {
        let extents = self.extents.and(&other.extents);
        self = self.or(other);
        self.extents = extents;
        self
    }

    /// What two checkpoints left.
    pub fn or(mut self, other: &Checkpointed) -> Checkpointed {
        self.extents = self.extents.or(&other.extents);
        self.shards = self.shards.max(other.shards);
        self.books |= other.books;
        self
    }
}

/// A log's segments that have to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// The run of the node that the log is of.
    pub run: u64,
    /// The newest checkpoint round that was complete when the run began: where it is not 0, a
    /// recovery has ended once.
    pub round: u64,
    /// Bytes of each segment's file.
    pub segment_bytes: u64,
    /// The number of the oldest.
    pub first: u64,
    /// The numbers in their files' names, the oldest first: segments have rising numbers without a
    /// gap.
    pub files: Vec<u64>,
    /// What checkpoints left, for which the log's earlier records were given up.
    pub checkpointed: Checkpointed,
}

/// What the file says of one shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are 64, which a start reads"
)]
pub(super) enum Region {
    /// Nothing: no answer ever rested on a log of this shard.
    Blank,
    /// This list, and its version.
    Known(Listed, u64),
    /// Neither of the two blocks can be read.
    Damaged,
}

/// The whole file.
pub(super) struct Regions {
    /// By shard.
    pub all: Vec<Region>,
    /// Where the file ends too early; `None` where it is whole.
    pub cut_at: Option<u64>,
}

/// Reads the file; `None` where there is none.
pub(super) async fn read<S: Storage>(storage: &S) -> io::Result<Option<Regions>> {
    let file = match storage.open(SEGMENTS_FILE, false).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.length().await?;
    let bytes = file.read_at(0, FILE_BYTES as usize).await?;
    let blocks = bytes.chunks_exact(SHARD_BYTES as usize);
    Ok(Some(Regions {
        all: (0..)
            .zip(blocks)
            .map(|(shard, blocks)| decode(blocks, shard))
            .collect(),
        cut_at: (length < FILE_BYTES).then_some(length),
    }))
}

/// Makes the file where there is none. From then on the first shard's part can always be read, and
/// a folder without the file, or with a part of it, has lost it.
pub(super) async fn make<S: Storage>(storage: &S) -> io::Result<()> {
    let file = storage.open(SEGMENTS_FILE, true).await?;
    if file.length().await? < FILE_BYTES {
        file.set_length(FILE_BYTES).await?;
        file.sync().await?;
    }
    let first = file.read_at(0, SHARD_BYTES as usize).await?;
    if !matches!(decode(&first, 0), Region::Known(..)) {
        write_both(&file, 0, &Listed::default()).await?;
    }
    Ok(())
}

/// Makes durable what the file says. A process that was killed, or whose sync failed, leaves a
/// block behind that a power failure would still undo; what that block says must be on the disk
/// before the next one takes the place of the one before. It is written again, the same bytes to
/// the same place.
pub(super) async fn make_durable<S: Storage>(storage: &S) -> io::Result<()> {
    let Some(regions) = read(storage).await? else {
        return Ok(());
    };
    let file = storage.open(SEGMENTS_FILE, false).await?;
    for (shard, region) in (0..).zip(regions.all) {
        if let Region::Known(_, version) = region {
            let offset = place(shard, version);
            let block = file.read_at(offset, BLOCK_BYTES).await?;
            file.write_at(&block, offset).await?;
        }
    }
    file.sync().await
}

/// Writes durably that no segment has to be there any more, since a recovery of this round is
/// complete. The file is there, and what it said before is durable.
pub(super) async fn clear<S: Storage>(storage: &S, round: u64) -> io::Result<()> {
    let Some(regions) = read(storage).await? else {
        return Ok(());
    };
    let none = Listed {
        round,
        ..Listed::default()
    };
    let file = storage.open(SEGMENTS_FILE, false).await?;
    for (shard, region) in (0..).zip(regions.all) {
        match region {
            Region::Blank => {}
            Region::Known(_, version) => {
                let block = encode(shard, version + 1, &none);
                file.write_at(&block, place(shard, version + 1)).await?;
            }
            Region::Damaged => drop(write_both(&file, shard, &none).await?),
        }
    }
    file.sync().await
}

/// Where a shard's blocks start.
pub(super) fn start(shard: u16) -> u64 {
    u64::from(shard) * SHARD_BYTES
}

/// Where a shard's block of this version is; the version before it is in the other block.
fn place(shard: u16, version: u64) -> u64 {
    start(shard) + version % 2 * BLOCK_BYTES as u64
}

/// Writes both blocks, so that from then on one of them can always be read.
async fn write_both<F: File>(file: &F, shard: u16, listed: &Listed) -> io::Result<u64> {
    for version in [1, 2] {
        let block = encode(shard, version, listed);
        file.write_at(&block, place(shard, version)).await?;
        file.sync().await?;
    }
    Ok(2)
}

/// Keeps a shard's part of the file up to date.
pub(super) struct SegmentList {
    shard: u16,
    /// The newest version that was written, durable or not; 0 while it is unknown.
    version: Cell<u64>,
    /// The newest version that is durable.
    durable: Cell<u64>,
}

impl SegmentList {
    pub fn new(shard: u16) -> SegmentList {
        SegmentList {
            shard,
            version: Cell::new(0),
            durable: Cell::new(0),
        }
    }

    /// Writes down, durably, which segments have to be there. Await it before the next call.
    ///
    /// # Errors
    /// As the storage gives them: either this list or the one before it counts then.
    pub async fn write<S: Storage>(&self, storage: &S, listed: &Listed) -> io::Result<()> {
        let file = match storage.open(SEGMENTS_FILE, false).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the file while the node runs. Every shard puts its part in again
                // when it writes.
                self.version.set(0);
                let file = storage.open(SEGMENTS_FILE, true).await?;
                file.set_length(FILE_BYTES).await?;
                file
            }
            Err(error) => return Err(error),
        };
        if self.version.get() == 0 {
            let blocks = file
                .read_at(start(self.shard), SHARD_BYTES as usize)
                .await?;
            let version = match decode(&blocks, self.shard) {
                Region::Known(known, version) => {
                    // The sync of a try before may have failed. Until this block is durable, the
                    // next one must not be written over the other.
                    let block = encode(self.shard, version, &known);
                    file.write_at(&block, place(self.shard, version)).await?;
                    file.sync().await?;
                    version
                }
                Region::Blank | Region::Damaged => {
                    write_both(&file, self.shard, &Listed::default()).await?
                }
            };
            self.version.set(version);
            self.durable.set(version);
        }
        // The new version goes over the block that is not the newest durable one.
        let version = self.version.get() + 1;
        let version = version + u64::from(version % 2 == self.durable.get() % 2);
        self.version.set(version);
        let block = encode(self.shard, version, listed);
        file.write_at(&block, place(self.shard, version)).await?;
        file.sync().await?;
        self.durable.set(version);
        Ok(())
    }
}

fn encode(shard: u16, version: u64, listed: &Listed) -> Vec<u8> {
    let files = &listed.files[..listed.files.len().min(FILES_MAX)];
    let mut block = vec![0; BLOCK_BYTES];
    block[..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    block[12..14].copy_from_slice(&shard.to_le_bytes());
    block[14..16].copy_from_slice(&listed.checkpointed.shards.to_le_bytes());
    block[16..RUN_OFFSET].copy_from_slice(&version.to_le_bytes());
    let numbers = [
        listed.run,
        listed.round,
        listed.segment_bytes,
        listed.first,
        files.len() as u64,
        listed.checkpointed.books,
    ];
    let extents = listed.checkpointed.extents.pack();
    let numbers = numbers.iter().chain(&extents);
    let places = block[RUN_OFFSET..].chunks_exact_mut(8);
    for (place, number) in places.zip(numbers.chain(files)) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&block[..CRC_OFFSET]);
    block[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    block
}

fn decode(blocks: &[u8], shard: u16) -> Region {
    let mut newest: Option<(Listed, u64)> = None;
    for block in blocks.chunks_exact(BLOCK_BYTES) {
        if let Some((listed, version)) = decode_block(block, shard)
            && newest.as_ref().is_none_or(|&(_, other)| other < version)
        {
            newest = Some((listed, version));
        }
    }
    match newest {
        Some((listed, version)) => Region::Known(listed, version),
        // The first write was cut short, and nothing that waited for it happened.
        None if blocks.chunks_exact(BLOCK_BYTES).any(is_blank) => Region::Blank,
        None => Region::Damaged,
    }
}

fn decode_block(block: &[u8], shard: u16) -> Option<(Listed, u64)> {
    let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("8 bytes"));
    let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let is_sound = block.starts_with(&MAGIC)
        && block[8..12] == FORMAT_VERSION.to_le_bytes()
        && block[CRC_OFFSET..] == crc32c::crc32c(&block[..CRC_OFFSET]).to_le_bytes()
        && u16_at(12) == shard
        && u64_at(RUN_OFFSET + 32) <= FILES_MAX as u64;
    is_sound.then(|| {
        let numbers = |from: usize, count: usize| (0..count).map(move |i| u64_at(from + i * 8));
        let extents = std::array::from_fn(|i| u64_at(LENGTHS_OFFSET + i * 8));
        let listed = Listed {
            run: u64_at(RUN_OFFSET),
            round: u64_at(RUN_OFFSET + 8),
            segment_bytes: u64_at(RUN_OFFSET + 16),
            first: u64_at(RUN_OFFSET + 24),
            files: numbers(FILES_OFFSET, u64_at(RUN_OFFSET + 32) as usize).collect(),
            checkpointed: Checkpointed {
                extents: Extents::unpack(extents),
                shards: u16_at(14),
                books: u64_at(RUN_OFFSET + 40),
            },
        };
        (listed, u64_at(16))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(first: u64) -> Listed {
        Listed {
            run: 77,
            round: 5,
            segment_bytes: 1 << 20,
            first,
            files: vec![9, 2, first],
            checkpointed: Checkpointed {
                extents: Extents {
                    lengths: std::array::from_fn(|i| i as u64 * 20_480),
                    pages: std::array::from_fn(|i| i as u16),
                },
                shards: 3,
                books: 5,
            },
        }
    }

    #[test]
    fn the_newer_of_two_whole_blocks_counts_and_one_cut_short_leaves_the_other() {
        let blank = vec![0; BLOCK_BYTES];
        let (old, new) = (encode(2, 4, &listed(1)), encode(2, 5, &listed(2)));
        let both = [old.clone(), new.clone()].concat();
        assert_eq!(decode(&both, 2), Region::Known(listed(2), 5));
        assert_eq!(decode(&both, 3), Region::Damaged, "of another shard");
        for byte in [0, 9, 13, 20, 30, 60, 100, 200, 4_000, 4_095] {
            let mut torn = new.clone();
            torn[byte] ^= 8;
            let both = [old.clone(), torn.clone()].concat();
            assert_eq!(decode(&both, 2), Region::Known(listed(1), 4), "{byte}");
            let first = [blank.clone(), torn.clone()].concat();
            assert_eq!(decode(&first, 2), Region::Blank);
            assert_eq!(decode(&[torn.clone(), torn].concat(), 2), Region::Damaged);
        }
        assert_eq!(decode(&[blank.clone(), blank].concat(), 2), Region::Blank);
    }

    #[test]
    fn a_list_holds_as_many_segments_as_fit_and_names_the_first() {
        let many = Listed {
            files: (0..2_000).collect(),
            ..listed(3)
        };
        let block = encode(0, 1, &many);
        let (read, 1) = decode_block(&block, 0).unwrap() else {
            panic!("its version is 1");
        };
        assert_eq!((read.first, read.files.len()), (3, FILES_MAX));
        assert_eq!(read.files, many.files[..FILES_MAX]);
    }
}
