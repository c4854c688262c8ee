//! What a book file looks like: a header of one block, then chunks of entries.
//!
//! | bytes | header (little-endian) |
//! |---|---|
//! | 0-7 | magic |
//! | 8-11 | format version |
//! | 12-13, 14-15 | shard, shards |
//! | 16-23 | checkpoint round |
//! | 24-31 | bytes of the chunks, all together |
//! | 32-39, 40-47, 48-55 | coins, sales, payments |
//! | 56-59 | checksum over the chunks' checksums, in their order |
//! | 60-63 | checksum over the bytes before |
//! | 64-4095 | zeros |
//!
//! | bytes | chunk: whole blocks, at most 64 |
//! |---|---|
//! | 0-3 | magic |
//! | 4-7 | bytes of entries |
//! | 8-15 | checkpoint round |
//! | 16-19 | checksum over the whole chunk with these four bytes zero |
//! | 20- | entries, then zeros |
//!
//! | bytes | entry |
//! |---|---|
//! | 3 | coin: its page's index x 1,024 + its place; sale: bytes of the address; payment: 0 |
//! | 1 | 0 coin, 1 sale, 2 payment |
//! | 4, 8 | rank (0 but for a coin), moment |
//! | 16, n | sale alone: trade key, address |
//! | 32, 16 | payment alone: name, digest |
//!
//! All that a header says is in its first sector, which a device writes whole or not at all: so a
//! header is the one that was written, or all zeros, or damaged.

use super::{Entry, Payment, PaymentId, Sale, Stamp};
use crate::runtime::{BLOCK_BYTES, is_blank};
use crate::{
    coin::{An, COINS_PER_PAGE, Coin, PageId},
    store::round::ROUND_MAX,
};

/// Bytes of a chunk, at most: what is encoded in one go, and written with one write.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Where the first chunk starts.
pub(super) const FIRST_CHUNK_OFFSET: u64 = BLOCK_BYTES as u64;
/// Bytes of all chunks, at most: offsets in a file are less than 2^63.
const LENGTH_MAX: u64 = i64::MAX as u64 - FIRST_CHUNK_OFFSET;

const MAGIC: [u8; 8] = *b"RAIDABOK";
const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const CHUNK_MAGIC: [u8; 4] = *b"BOOK";
const CHUNK_CRC_OFFSET: usize = 16;
const CHUNK_HEAD_BYTES: usize = 20;

/// Bytes of a coin entry, and of the start of every other entry.
const ENTRY_HEAD_BYTES: usize = 16;
const PAYMENT_ENTRY_BYTES: usize = ENTRY_HEAD_BYTES + size_of::<PaymentId>() + 16;
const KIND_COIN: u8 = 0;
const KIND_SALE: u8 = 1;
const KIND_PAYMENT: u8 = 2;

/// How many entries of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Coins under marked numbers.
    pub coins: u64,
    /// Sales.
    pub sales: u64,
    /// Payments.
    pub payments: u64,
}

/// What the header of a book file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The shard that wrote it, and of how many.
    pub shard: u16,
    pub shards: u16,
    /// The checkpoint round.
    pub round: u64,
    /// Bytes of the chunks.
    pub length: u64,
    pub counts: Counts,
    /// Checksum over the chunks' checksums.
    pub crc: u32,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderFault {
    #[error("the book's header is damaged")]
    Damaged,
    #[error("the book is of format version {0}, which is not one this program reads")]
    Version(u32),
    #[error("the book is another shard's")]
    OtherShard,
    /// The values are impossible though the checksum is right, so the disk is not the cause.
    #[error("the book's header says what is true of no book")]
    Impossible,
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    block[0..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    block[12..14].copy_from_slice(&header.shard.to_le_bytes());
    block[14..16].copy_from_slice(&header.shards.to_le_bytes());
    block[16..24].copy_from_slice(&header.round.to_le_bytes());
    block[24..32].copy_from_slice(&header.length.to_le_bytes());
    block[32..40].copy_from_slice(&header.counts.coins.to_le_bytes());
    block[40..48].copy_from_slice(&header.counts.sales.to_le_bytes());
    block[48..56].copy_from_slice(&header.counts.payments.to_le_bytes());
    block[56..60].copy_from_slice(&header.crc.to_le_bytes());
    let crc = crc32c::crc32c(&block[..60]);
    block[60..64].copy_from_slice(&crc.to_le_bytes());
    block
}

/// Reads the first block of a book file; `None` where a write was cut short, or none was ever made.
pub(super) fn decode_header(block: &[u8]) -> Result<Option<Header>, HeaderFault> {
    if is_blank(block) {
        return Ok(None);
    }
    let (head, rest) = block.split_at(HEADER_BYTES);
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    if head[..8] != MAGIC || crc32c::crc32c(&head[..60]) != u32_at(60) || !is_blank(rest) {
        return Err(HeaderFault::Damaged);
    }
    if u32_at(8) != FORMAT_VERSION {
        return Err(HeaderFault::Version(u32_at(8)));
    }
    let header = Header {
        shard: u16_at(12),
        shards: u16_at(14),
        round: u64_at(16),
        length: u64_at(24),
        counts: Counts {
            coins: u64_at(32),
            sales: u64_at(40),
            payments: u64_at(48),
        },
        crc: u32_at(56),
    };
    match header.is_possible() {
        true => Ok(Some(header)),
        false => Err(HeaderFault::Impossible),
    }
}

impl Header {
    /// Whether such a book is possible: a file system takes a file of its size, its entries have
    /// room in it, and rounds can go on rising. Computing with such a header does not overflow.
    fn is_possible(&self) -> bool {
        let Counts {
            coins,
            sales,
            payments,
        } = self.counts;
        let of_each = [
            (coins, ENTRY_HEAD_BYTES),
            (sales, ENTRY_HEAD_BYTES + An::SIZE),
            (payments, PAYMENT_ENTRY_BYTES),
        ];
        let bytes = of_each.map(|(count, bytes)| u128::from(count) * bytes as u128);
        self.round <= ROUND_MAX
            && self.length <= LENGTH_MAX
            && self.length.is_multiple_of(BLOCK_BYTES as u64)
            && bytes.iter().sum::<u128>() <= u128::from(self.length)
    }
}

/// A chunk that is being filled.
pub(super) struct Chunk {
    bytes: Vec<u8>,
}

impl Chunk {
    pub fn new() -> Chunk {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        bytes.resize(CHUNK_HEAD_BYTES, 0);
        Chunk { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == CHUNK_HEAD_BYTES
    }

    /// Adds an entry; gives false where there is no room for it.
    pub fn push(&mut self, entry: &Entry) -> bool {
        let fits = self.bytes.len() + entry_bytes(entry) <= CHUNK_BYTES;
        if fits {
            encode_entry(entry, &mut self.bytes);
        }
        fits
    }

    /// The finished chunk, ready to write, and its checksum.
    pub fn seal(&mut self, round: u64) -> (&[u8], u32) {
        let length = self.bytes.len() - CHUNK_HEAD_BYTES;
        self.bytes.resize(chunk_bytes(length), 0);
        let head = &mut self.bytes[..CHUNK_HEAD_BYTES];
        head[0..4].copy_from_slice(&CHUNK_MAGIC);
        head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        head[8..16].copy_from_slice(&round.to_le_bytes());
        head[CHUNK_CRC_OFFSET..].fill(0);
        let crc = crc32c::crc32c(&self.bytes);
        self.bytes[CHUNK_CRC_OFFSET..CHUNK_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        (&self.bytes, crc)
    }

    pub fn clear(&mut self) {
        self.bytes.truncate(CHUNK_HEAD_BYTES);
    }
}

/// Bytes that a chunk with `entries` bytes of entries takes on disk.
fn chunk_bytes(entries: usize) -> usize {
    (CHUNK_HEAD_BYTES + entries).next_multiple_of(BLOCK_BYTES)
}

/// Bytes of the chunk that starts with this block; `None` where none does.
pub(super) fn chunk_length(block: &[u8], round: u64) -> Option<usize> {
    let entries = u32::from_le_bytes(block[4..8].try_into().expect("4 bytes")) as usize;
    let is_one = block[..4] == CHUNK_MAGIC
        && block[8..16] == round.to_le_bytes()
        && entries <= CHUNK_BYTES - CHUNK_HEAD_BYTES;
    is_one.then(|| chunk_bytes(entries))
}

/// The round that a chunk's first block names; `None` where no chunk starts with it.
pub(super) fn chunk_round(block: &[u8]) -> Option<u64> {
    let round = u64::from_le_bytes(block[8..16].try_into().expect("8 bytes"));
    chunk_length(block, round).map(|_| round)
}

/// The entries of a chunk, and its checksum; `None` where it is not what was written.
pub(super) fn decode_chunk(chunk: &[u8]) -> Option<(&[u8], u32)> {
    let (head, rest) = chunk.split_at(CHUNK_HEAD_BYTES);
    let said = u32::from_le_bytes(head[CHUNK_CRC_OFFSET..].try_into().expect("4 bytes"));
    let crc = crc32c::crc32c(&head[..CHUNK_CRC_OFFSET]);
    let crc = crc32c::crc32c_append(crc, &[0; CHUNK_HEAD_BYTES - CHUNK_CRC_OFFSET]);
    let crc = crc32c::crc32c_append(crc, rest);
    let length = u32::from_le_bytes(head[4..8].try_into().expect("4 bytes")) as usize;
    (crc == said).then_some((rest.get(..length)?, crc))
}

/// Calls `each` for every entry of a chunk; gives false at the first that is not what
/// `Chunk::push` writes.
pub fn decode_entries(mut entries: &[u8], mut each: impl FnMut(Entry)) -> bool {
    while !entries.is_empty() {
        let Some(entry) = take_entry(&mut entries) else {
            return false;
        };
        each(entry);
    }
    true
}

fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES
        + match entry {
            Entry::Coin(..) => 0,
            Entry::Sale(sale) => An::SIZE + sale.address.len(),
            Entry::Payment(_) => PAYMENT_ENTRY_BYTES - ENTRY_HEAD_BYTES,
        }
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let mut head = |number: u32, kind: u8, rank: u32, moment: u64| {
        debug_assert!(number < 1 << 24);
        out.extend_from_slice(&(number | u32::from(kind) << 24).to_le_bytes());
        out.extend_from_slice(&rank.to_le_bytes());
        out.extend_from_slice(&moment.to_le_bytes());
    };
    match entry {
        Entry::Coin(coin, stamp) => {
            head(coin.number(), KIND_COIN, stamp.rank, stamp.moment);
        }
        Entry::Sale(sale) => {
            let length = sale.address.len();
            assert!(length <= Sale::ADDRESS_MAX, "an address has a limit");
            head(length as u32, KIND_SALE, 0, sale.moment);
            out.extend_from_slice(sale.key.expose());
            out.extend_from_slice(&sale.address);
        }
        Entry::Payment(payment) => {
            head(0, KIND_PAYMENT, 0, payment.moment);
            out.extend_from_slice(&payment.id);
            out.extend_from_slice(&payment.digest);
        }
    }
}

fn take_entry(entries: &mut &[u8]) -> Option<Entry> {
    let word = u32::from_le_bytes(take(entries)?);
    let (number, kind) = (word & 0xff_ffff, (word >> 24) as u8);
    let rank = u32::from_le_bytes(take(entries)?);
    let moment = u64::from_le_bytes(take(entries)?);
    if moment > Stamp::MOMENT_MAX || (kind != KIND_COIN && rank != 0) {
        return None;
    }
    match kind {
        KIND_COIN => Some(Entry::Coin(numbered_coin(number)?, Stamp { moment, rank })),
        KIND_SALE => {
            let key = An::new(take(entries)?);
            let length = Some(number as usize).filter(|&n| n <= Sale::ADDRESS_MAX)?;
            let (address, rest) = entries.split_at_checked(length)?;
            *entries = rest;
            Some(Entry::Sale(Sale {
                key,
                moment,
                address: address.into(),
            }))
        }
        KIND_PAYMENT if number == 0 => Some(Entry::Payment(Payment {
            id: take(entries)?,
            digest: take(entries)?,
            moment,
        })),
        _ => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn numbered_coin(number: u32) -> Option<Coin> {
    let page = PageId::from_index(number as usize / COINS_PER_PAGE)?;
    Some(page.coin(number as usize % COINS_PER_PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let coin = |page: usize, place| PageId::from_index(page).unwrap().coin(place);
        let stamp = |moment, rank| Stamp { moment, rank };
        let sale = |length: usize| {
            Entry::Sale(Sale {
                key: An::new([0xee; 16]),
                moment: 77,
                address: vec![b'x'; length].into(),
            })
        };
        vec![
            Entry::Coin(coin(0, 0), stamp(0, 0)),
            Entry::Coin(coin(14_999, 1_023), stamp(Stamp::MOMENT_MAX, u32::MAX)),
            sale(0),
            sale(Sale::ADDRESS_MAX),
            Entry::Payment(Payment {
                id: [3; 32],
                digest: [4; 16],
                moment: 5,
            }),
            Entry::Coin(coin(7, 9), stamp(6, 2)),
        ]
    }

    fn sealed() -> Vec<u8> {
        let mut chunk = Chunk::new();
        assert!(entries().iter().all(|entry| chunk.push(entry)));
        chunk.seal(9).0.to_vec()
    }

    fn header() -> Header {
        Header {
            shard: 2,
            shards: 3,
            round: 9,
            length: 8_192,
            counts: Counts {
                coins: 5,
                sales: 6,
                payments: 7,
            },
            crc: 8,
        }
    }

    #[test]
    fn entries_read_back_in_their_order() {
        let chunk = sealed();
        assert_eq!(chunk_length(&chunk, 9), Some(chunk.len()));
        assert_eq!(chunk_round(&chunk), Some(9));
        let (bytes, _) = decode_chunk(&chunk).unwrap();
        let mut read = Vec::new();
        assert!(decode_entries(bytes, |entry| read.push(entry)));
        assert_eq!(read, entries());
    }

    #[test]
    fn entries_cut_anywhere_but_between_two_are_told() {
        let chunk = sealed();
        let (bytes, _) = decode_chunk(&chunk).unwrap();
        let mut ends = vec![0];
        for entry in entries() {
            ends.push(ends.last().unwrap() + entry_bytes(&entry));
        }
        for length in 0..bytes.len() {
            let is_read = decode_entries(&bytes[..length], |_| ());
            assert_eq!(is_read, ends.contains(&length), "{length}");
        }
    }

    #[test]
    fn an_entry_after_which_there_is_no_moment_is_none() {
        for entry in entries() {
            let mut chunk = Chunk::new();
            assert!(chunk.push(&entry));
            let mut bytes = decode_chunk(chunk.seal(9).0).unwrap().0.to_vec();
            assert!(decode_entries(&bytes, |_| ()));
            for moment in [u64::MAX, u64::MAX - 1, Stamp::MOMENT_MAX + 1] {
                bytes[8..16].copy_from_slice(&moment.to_le_bytes());
                assert!(!decode_entries(&bytes, |_| ()), "{entry:?} at {moment}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_chunk_is_found_its_padding_included() {
        let chunk = sealed();
        for bit in 0..chunk.len() * 8 {
            let mut torn = chunk.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            let is_sound =
                chunk_length(&torn, 9) == Some(chunk.len()) && decode_chunk(&torn).is_some();
            assert!(!is_sound, "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found_and_zeros_are_none() {
        let block = encode_header(&header());
        assert_eq!(decode_header(&block), Ok(Some(header())));
        for bit in 0..block.len() * 8 {
            let mut torn = block.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_header(&torn).is_err(), "bit {bit}");
        }
        assert_eq!(decode_header(&[0; BLOCK_BYTES]), Ok(None));
        let mut almost = [0; BLOCK_BYTES];
        almost[BLOCK_BYTES - 1] = 1;
        assert_eq!(decode_header(&almost), Err(HeaderFault::Damaged));
    }

    #[test]
    fn a_header_that_is_true_of_no_book_is_refused_though_its_checksum_is_right() {
        let header = header();
        let decoded = |header: &Header| decode_header(&encode_header(header));
        let with_counts = |coins, sales, payments| Header {
            counts: Counts {
                coins,
                sales,
                payments,
            },
            ..header
        };
        let possible = [
            Header {
                round: ROUND_MAX,
                ..header
            },
            with_counts(512, 0, 0),
            with_counts(0, 256, 0),
            with_counts(0, 0, 128),
        ];
        for header in possible {
            assert_eq!(decoded(&header), Ok(Some(header)));
        }
        let absurd = [u64::MAX, u64::MAX - 1, u64::MAX - 4_095, 1 << 63];
        let rounds = absurd.map(|round| Header { round, ..header });
        let lengths = absurd.map(|length| Header { length, ..header });
        let coins = absurd.map(|count| with_counts(count, 0, 0));
        let sales = absurd.map(|count| with_counts(0, count, 0));
        let payments = absurd.map(|count| with_counts(0, 0, count));
        let few = [
            Header {
                length: 8_191,
                ..header
            },
            with_counts(513, 0, 0),
            with_counts(511, 1, 0),
            with_counts(0, 0, 129),
            // 2^64 and 8,192 bytes of entries.
            with_counts((1 << 60) + 512, 0, 0),
        ];
        let all = rounds.into_iter().chain(lengths).chain(coins).chain(sales);
        for header in all.chain(payments).chain(few) {
            assert_eq!(decoded(&header), Err(HeaderFault::Impossible), "{header:?}");
        }
    }

    #[test]
    fn a_chunk_takes_entries_up_to_its_limit_and_no_more() {
        let mut chunk = Chunk::new();
        let coin = entries().remove(0);
        let mut count = 0;
        while chunk.push(&coin) {
            count += 1;
        }
        assert_eq!(count, (CHUNK_BYTES - CHUNK_HEAD_BYTES) / ENTRY_HEAD_BYTES);
        assert_eq!(chunk.seal(1).0.len(), CHUNK_BYTES);
        chunk.clear();
        assert!(chunk.is_empty());
    }
}
