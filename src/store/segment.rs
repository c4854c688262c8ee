//! How a log segment lies on disk: a block of header, then batches, each starting on a block.
//!
//! The header stands twice, in the first two sectors, so that a header can be told from one that
//! was being written when the power went: sectors are written whole or not at all, so two sound
//! headers that differ are a segment on its way to a new use, and an unsound one is damage.
//!
//! A batch names its segment's use (a random number), its own number in the log, and the checksum
//! of the batch before it. So the remains of an earlier use of the segment, or of a write that
//! failed, never read as a continuation.

use crate::runtime::{BLOCK_BYTES, is_blank};

/// Bytes before a batch's records.
pub const BATCH_HEAD_BYTES: usize = 40;
/// Where a segment's first batch starts.
pub const FIRST_BATCH_OFFSET: u64 = BLOCK_BYTES as u64;

const SEGMENT_MAGIC: [u8; 8] = *b"RAIDALOG";
const BATCH_MAGIC: [u8; 4] = *b"BTCH";
/// Segments are listed.
const FORMAT_VERSION: u32 = 2;
/// Segments are not listed.
const FIRST_VERSION: u32 = 1;
const SECTOR_BYTES: usize = 512;
const HEADER_BYTES: usize = 64;

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The shard that writes the log.
    pub shard: u16,
    /// The segment's number in that log, rising by one.
    pub number: u64,
    /// Random, drawn at each start of the node: logs of one run belong together.
    pub run: u64,
    /// Random, drawn at each use of the segment.
    pub usage: u64,
    /// Number of the first batch in the segment.
    pub first_batch: u64,
    /// Checksum of the batch before the first.
    pub chain: u32,
    /// The newest checkpoint round known complete when the segment was taken into use.
    pub round: u64,
    /// Whether there is a list of segments that names it, once anybody rests
    /// on it. Not so for segments of the format's first version.
    pub has_list: bool,
}

/// What the first block of a segment file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// In use, or in use until the node last stopped.
    Used(SegmentHeader),
    /// Holds nothing that counts.
    Unused,
    /// Neither of the above: damage.
    Damaged,
}

/// The block that takes a segment into use.
pub fn encode_header(header: &SegmentHeader) -> Vec<u8> {
    let mut copy = [0u8; HEADER_BYTES];
    copy[0..8].copy_from_slice(&SEGMENT_MAGIC);
    let version = match header.has_list {
        true => FORMAT_VERSION,
        false => FIRST_VERSION,
    };
    copy[8..12].copy_from_slice(&version.to_le_bytes());
    copy[12..14].copy_from_slice(&header.shard.to_le_bytes());
    copy[16..24].copy_from_slice(&header.number.to_le_bytes());
    copy[24..32].copy_from_slice(&header.run.to_le_bytes());
    copy[32..40].copy_from_slice(&header.usage.to_le_bytes());
    copy[40..48].copy_from_slice(&header.first_batch.to_le_bytes());
    copy[48..56].copy_from_slice(&header.round.to_le_bytes());
    copy[56..60].copy_from_slice(&header.chain.to_le_bytes());
    let crc = crc32c::crc32c(&copy[..60]);
    copy[60..64].copy_from_slice(&crc.to_le_bytes());
    let mut block = vec![0u8; BLOCK_BYTES];
    block[..HEADER_BYTES].copy_from_slice(&copy);
    block[SECTOR_BYTES..SECTOR_BYTES + HEADER_BYTES].copy_from_slice(&copy);
    block
}

/// Reads the first block of a segment file.
pub fn decode_header(block: &[u8]) -> Header {
    let copy = |at: usize| -> Header {
        let bytes = &block[at..at + HEADER_BYTES];
        if is_blank(&block[at..at + SECTOR_BYTES]) {
            return Header::Unused;
        }
        let crc = u32::from_le_bytes(bytes[60..64].try_into().expect("4 bytes"));
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
        let sound = bytes[..8] == SEGMENT_MAGIC
            && [FIRST_VERSION, FORMAT_VERSION].contains(&version)
            && crc32c::crc32c(&bytes[..60]) == crc;
        if !sound {
            return Header::Damaged;
        }
        let u64_at = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("8 bytes"));
        Header::Used(SegmentHeader {
            shard: u16::from_le_bytes([bytes[12], bytes[13]]),
            number: u64_at(16),
            run: u64_at(24),
            usage: u64_at(32),
            first_batch: u64_at(40),
            round: u64_at(48),
            has_list: version == FORMAT_VERSION,
            chain: u32::from_le_bytes(bytes[56..60].try_into().expect("4 bytes")),
        })
    };
    match (copy(0), copy(SECTOR_BYTES)) {
        (Header::Damaged, _) | (_, Header::Damaged) => Header::Damaged,
        (one, other) if one == other => one,
        _ => Header::Unused,
    }
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Bytes of records.
    pub length: usize,
    /// The use of the segment it was written for.
    pub usage: u64,
    /// Its number in the log, rising by one.
    pub number: u64,
    /// Checksum of the batch before it.
    pub chain: u32,
    /// Checksum over the head and the records.
    pub crc: u32,
}

/// Bytes a batch with this many bytes of records takes, up to the next block.
pub fn batch_bytes(records: usize) -> usize {
    (BATCH_HEAD_BYTES + records).next_multiple_of(BLOCK_BYTES)
}

/// Turns `frame`, which holds [`BATCH_HEAD_BYTES`] of room and then records, into a batch padded to
/// whole blocks. Gives its checksum.
pub fn seal_batch(frame: &mut Vec<u8>, usage: u64, number: u64, chain: u32) -> u32 {
    let length = frame.len() - BATCH_HEAD_BYTES;
    frame[0..4].copy_from_slice(&BATCH_MAGIC);
    frame[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    frame[8..16].copy_from_slice(&usage.to_le_bytes());
    frame[16..24].copy_from_slice(&number.to_le_bytes());
    frame[24..28].copy_from_slice(&chain.to_le_bytes());
    frame[28..36].fill(0);
    let head_crc = crc32c::crc32c(&frame[..28]);
    frame[28..32].copy_from_slice(&head_crc.to_le_bytes());
    frame[36..40].fill(0);
    let crc = crc32c::crc32c(frame);
    frame[36..40].copy_from_slice(&crc.to_le_bytes());
    frame.resize(batch_bytes(length), 0);
    crc
}

/// Reads a batch's head; `None` where there is none.
pub fn decode_batch_head(bytes: &[u8]) -> Option<BatchHead> {
    let head = bytes.get(..BATCH_HEAD_BYTES)?;
    let u32_at = |i: usize| u32::from_le_bytes(head[i..i + 4].try_into().expect("4 bytes"));
    let u64_at = |i: usize| u64::from_le_bytes(head[i..i + 8].try_into().expect("8 bytes"));
    (head[..4] == BATCH_MAGIC && crc32c::crc32c(&head[..28]) == u32_at(28)).then(|| BatchHead {
        length: u32_at(4) as usize,
        usage: u64_at(8),
        number: u64_at(16),
        chain: u32_at(24),
        crc: u32_at(36),
    })
}

/// The records of the batch at the start of `bytes`; `None` where it is not whole.
pub fn decode_batch<'a>(bytes: &'a [u8], head: &BatchHead) -> Option<&'a [u8]> {
    let whole = bytes.get(..BATCH_HEAD_BYTES + head.length)?;
    let crc = crc32c::crc32c(&whole[..36]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &whole[BATCH_HEAD_BYTES..]);
    (crc == head.crc).then_some(&whole[BATCH_HEAD_BYTES..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u64) -> SegmentHeader {
        SegmentHeader {
            shard: 1,
            number,
            run: 99,
            usage: 7 + number,
            first_batch: 12,
            chain: 4,
            round: 3,
            has_list: number.is_multiple_of(2),
        }
    }

    #[test]
    fn a_header_cut_short_between_sectors_is_unused_and_a_flipped_bit_is_damage() {
        let (old, new) = (encode_header(&header(1)), encode_header(&header(2)));
        assert_eq!(decode_header(&new), Header::Used(header(2)));
        let mut torn = old.clone();
        torn[..512].copy_from_slice(&new[..512]);
        assert_eq!(decode_header(&torn), Header::Unused);
        assert_eq!(decode_header(&[0; BLOCK_BYTES]), Header::Unused);
        let mut flipped = new;
        flipped[20] ^= 1;
        assert_eq!(decode_header(&flipped), Header::Damaged);
    }

    #[test]
    fn a_batch_reads_back_and_a_flipped_bit_is_found() {
        let mut frame = vec![0; BATCH_HEAD_BYTES];
        frame.extend((0..5_000u32).map(|i| i as u8));
        seal_batch(&mut frame, 5, 6, 7);
        assert_eq!(frame.len(), batch_bytes(5_000));
        let head = decode_batch_head(&frame).unwrap();
        assert_eq!(
            (head.length, head.usage, head.number, head.chain),
            (5_000, 5, 6, 7)
        );
        assert_eq!(decode_batch(&frame, &head).unwrap().len(), 5_000);
        for byte in 0..BATCH_HEAD_BYTES + 5_000 {
            let mut torn = frame.clone();
            torn[byte] ^= 4;
            let sound = decode_batch_head(&torn).is_some_and(|h| decode_batch(&torn, &h).is_some());
            assert!(!sound, "byte {byte}");
        }
    }
}
