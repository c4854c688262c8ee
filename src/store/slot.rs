//! One page as it lies on disk.
//!
//! | bytes | content |
//! |---|---|
//! | 0-511 | head: magic, format version, page, sequence, checkpoint round, counts, checksums |
//! | 512-3071 | sequences up to the head's that are *not* in this image, 8 bytes each |
//! | 3072-4095 | MFS of the 1,024 coins |
//! | 4096-20479 | AN of the 1,024 coins |
//!
//! The head fits one sector, which a device writes whole or not at all. So a head is always
//! readable, and a write cut short by a power failure shows as a head whose checksums do not fit
//! what follows.

use crate::coin::{An, COINS_PER_PAGE, Mfs, PageId};
use crate::runtime::is_blank;

/// Bytes a slot takes on disk.
pub const SLOT_BYTES: usize = 20_480;
/// Bytes at the start of a slot that hold everything but the ANs.
pub const SLOT_META_BYTES: usize = 4_096;
/// Changes of one page that may be under way while it is written.
pub const MISSING_MAX: usize = 320;

const MAGIC: [u8; 8] = *b"RAIDAPAG";
/// Heads count trade coins.
const FORMAT_VERSION: u32 = 2;
/// Heads do not count trade coins.
const FIRST_VERSION: u32 = 1;
const HEAD_BYTES: usize = 512;
/// Where the sequences that the image lacks start, in bytes.
pub(super) const MISSING_OFFSET: usize = HEAD_BYTES;
/// Where the head has the count of locker coins, in bytes.
pub(super) const LOCKER_COINS_OFFSET: usize = 40;
/// Where the head has the count of trade coins, in bytes.
pub(super) const TRADE_COINS_OFFSET: usize = 42;
const MFS_OFFSET: usize = 3_072;
const _: () = assert!(MISSING_OFFSET + MISSING_MAX * 8 == MFS_OFFSET);

/// A page's records: 1,024 ANs in one array, their MFS in another. 17,408 bytes.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct PageImage {
    /// Authenticity numbers by place.
    pub ans: [An; COINS_PER_PAGE],
    /// Months by place; [`Mfs::FREE`] where the coin is not in circulation.
    pub mfs: [Mfs; COINS_PER_PAGE],
}

impl PageImage {
    /// A page of zero ANs, all free: room to fill, not a page to serve.
    pub fn blank() -> Box<PageImage> {
        Box::new(PageImage {
            ans: [An::ZERO; COINS_PER_PAGE],
            mfs: [Mfs::FREE; COINS_PER_PAGE],
        })
    }

    /// One bit a coin, set where it is in circulation.
    pub fn circulation(&self) -> [u64; COINS_PER_PAGE / 64] {
        let mut bits = [0u64; COINS_PER_PAGE / 64];
        for (place, mfs) in self.mfs.iter().enumerate() {
            bits[place / 64] |= u64::from(!mfs.is_free()) << (place % 64);
        }
        bits
    }

    /// Coins in circulation whose AN is a locker's key.
    pub fn locker_coins(&self) -> u16 {
        self.count(An::is_locker_key)
    }

    /// Coins in circulation whose AN has the form of a trade locker's key.
    pub fn trade_coins(&self) -> u16 {
        self.count(An::is_trade_key)
    }

    fn count(&self, is_one: impl Fn(&An) -> bool) -> u16 {
        let coins = self.ans.iter().zip(&self.mfs);
        coins
            .filter(|(an, mfs)| !mfs.is_free() && is_one(an))
            .count() as u16
    }
}

/// The head of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHead {
    /// Which page this is.
    pub page: PageId,
    /// Every change of the page up to here is in the image, save those listed as missing.
    pub sequence: u64,
    /// The checkpoint round that wrote the slot.
    pub round: u64,
    /// Coins in circulation whose AN is a locker's key.
    pub locker_coins: u16,
    /// Coins in circulation whose AN has the form of a trade locker's key; `None` where the slot is
    /// of the first version of the format, which did not count them.
    pub trade_coins: Option<u16>,
    missing: u16,
    meta_crc: u32,
    an_crc: u32,
}

/// What the first block of a slot tells without its ANs.
#[derive(Clone, Debug)]
pub struct SlotMeta {
    /// The head.
    pub head: SlotHead,
    /// Whether the checksum over the months and the missing sequences fits; where it does not, the
    /// fields below mean nothing.
    pub whole: bool,
    /// Sequences up to the head's that the image lacks, rising.
    pub missing: Vec<u64>,
    /// One bit a coin, set where it is in circulation.
    pub circulation: [u64; COINS_PER_PAGE / 64],
}

impl SlotMeta {
    /// Whether the missing sequences are as they were once written: rising, and none above the
    /// head's.
    pub fn is_in_order(&self) -> bool {
        let last = self.missing.last();
        self.missing.is_sorted_by(|a, b| a < b) && last.is_none_or(|&s| s <= self.head.sequence)
    }
}

/// Why a slot's head cannot be read. The device writes a head whole or not at all, so this is
/// damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// The first bytes are not those of a slot.
    #[error("does not start as a page slot")]
    Magic,
    /// The head's checksum does not fit.
    #[error("the head's checksum does not fit")]
    Checksum,
    /// Written by another version of the format.
    #[error("format version {0} is not one this program reads")]
    Version(u32),
    /// A sound head, of a page that belongs elsewhere.
    #[error("holds another page")]
    OtherPage,
}

/// Writes a page as a slot. `missing` holds the sequences up to `sequence` that are not in `image`.
///
/// # Panics
/// When more than [`MISSING_MAX`] are missing: the caller waits until fewer are.
pub fn encode(
    page: PageId,
    sequence: u64,
    round: u64,
    missing: &[u64],
    image: &PageImage,
) -> Vec<u8> {
    assert!(missing.len() <= MISSING_MAX, "too many changes under way");
    debug_assert!(missing.iter().all(|&s| s <= sequence));
    let mut slot = vec![0u8; SLOT_BYTES];
    for (bytes, sequence) in slot[MISSING_OFFSET..].chunks_exact_mut(8).zip(missing) {
        bytes.copy_from_slice(&sequence.to_le_bytes());
    }
    for (byte, mfs) in slot[MFS_OFFSET..].iter_mut().zip(&image.mfs) {
        *byte = mfs.get();
    }
    for (bytes, an) in slot[SLOT_META_BYTES..]
        .chunks_exact_mut(An::SIZE)
        .zip(&image.ans)
    {
        bytes.copy_from_slice(an.expose());
    }
    let meta_crc = crc32c::crc32c(&slot[HEAD_BYTES..SLOT_META_BYTES]);
    let an_crc = crc32c::crc32c(&slot[SLOT_META_BYTES..]);
    slot[0..8].copy_from_slice(&MAGIC);
    slot[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    slot[12..14].copy_from_slice(&(page.index() as u16).to_le_bytes());
    slot[14..16].copy_from_slice(&(missing.len() as u16).to_le_bytes());
    slot[16..24].copy_from_slice(&sequence.to_le_bytes());
    slot[24..32].copy_from_slice(&round.to_le_bytes());
    slot[32..36].copy_from_slice(&meta_crc.to_le_bytes());
    slot[36..40].copy_from_slice(&an_crc.to_le_bytes());
    slot[LOCKER_COINS_OFFSET..][..2].copy_from_slice(&image.locker_coins().to_le_bytes());
    slot[TRADE_COINS_OFFSET..][..2].copy_from_slice(&image.trade_coins().to_le_bytes());
    let head_crc = crc32c::crc32c(&slot[..HEAD_BYTES - 4]);
    slot[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&head_crc.to_le_bytes());
    slot
}

/// Reads the first block of a slot; `None` where nothing was ever written there.
///
/// # Errors
/// A head that is not what this program wrote for `page`.
pub fn decode_meta(block: &[u8], page: PageId) -> Result<Option<SlotMeta>, HeadFault> {
    let head = &block[..HEAD_BYTES];
    if is_blank(head) {
        return Ok(None);
    }
    if head[0..8] != MAGIC {
        return Err(HeadFault::Magic);
    }
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    if crc32c::crc32c(&head[..HEAD_BYTES - 4]) != u32_at(HEAD_BYTES - 4) {
        return Err(HeadFault::Checksum);
    }
    let counts_trade_coins = match u32_at(8) {
        FORMAT_VERSION => true,
        FIRST_VERSION => false,
        other => return Err(HeadFault::Version(other)),
    };
    if u16_at(12) as usize != page.index() {
        return Err(HeadFault::OtherPage);
    }
    let head = SlotHead {
        page,
        sequence: u64_at(16),
        round: u64_at(24),
        locker_coins: u16_at(LOCKER_COINS_OFFSET),
        trade_coins: counts_trade_coins.then(|| u16_at(TRADE_COINS_OFFSET)),
        missing: u16_at(14),
        meta_crc: u32_at(32),
        an_crc: u32_at(36),
    };
    let meta = &block[HEAD_BYTES..SLOT_META_BYTES];
    let missing = (head.missing as usize).min(MISSING_MAX);
    let mut circulation = [0u64; COINS_PER_PAGE / 64];
    for (place, &mfs) in block[MFS_OFFSET..SLOT_META_BYTES].iter().enumerate() {
        circulation[place / 64] |= u64::from(mfs != 0) << (place % 64);
    }
    Ok(Some(SlotMeta {
        head,
        whole: crc32c::crc32c(meta) == head.meta_crc,
        missing: meta[..missing * 8]
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
            .collect(),
        circulation,
    }))
}

/// Reads a whole slot into `image`. Gives whether all of it is what was once written; where it is
/// not, `image` must not be used.
pub fn decode(slot: &[u8], meta: &SlotMeta, image: &mut PageImage) -> bool {
    if !meta.whole || crc32c::crc32c(&slot[SLOT_META_BYTES..SLOT_BYTES]) != meta.head.an_crc {
        return false;
    }
    for (an, bytes) in image
        .ans
        .iter_mut()
        .zip(slot[SLOT_META_BYTES..].chunks_exact(An::SIZE))
    {
        *an = An::new(bytes.try_into().expect("16 bytes"));
    }
    for (mfs, byte) in image.mfs.iter_mut().zip(&slot[MFS_OFFSET..SLOT_META_BYTES]) {
        *mfs = Mfs::new(*byte);
    }
    true
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use super::*;

    fn page() -> PageId {
        PageId::from_index(4_321).unwrap()
    }

    fn image() -> Box<PageImage> {
        let mut image = PageImage::blank();
        for place in 0..COINS_PER_PAGE {
            image.ans[place] = An::new([place as u8; 16]);
            image.mfs[place] = Mfs::new((place % 50) as u8);
        }
        image
    }

    #[test]
    fn a_slot_reads_back_as_it_was_written() {
        let image = image();
        let slot = encode(page(), 77, 5, &[70, 76], &image);
        let meta = decode_meta(&slot, page()).unwrap().unwrap();
        assert!(meta.whole);
        assert_eq!((meta.head.sequence, meta.head.round), (77, 5));
        assert_eq!(meta.missing, [70, 76]);
        assert_eq!(meta.circulation, image.circulation());
        let mut back = PageImage::blank();
        assert!(decode(&slot, &meta, &mut back));
        assert!(back.ans == image.ans && back.mfs == image.mfs);
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let slot = encode(page(), 77, 5, &[70], &image());
        for byte in (0..SLOT_BYTES).step_by(13) {
            let mut torn = slot.clone();
            torn[byte] ^= 0x10;
            let sound = match decode_meta(&torn, page()) {
                Ok(Some(meta)) => decode(&torn, &meta, &mut PageImage::blank()),
                Ok(None) | Err(_) => false,
            };
            assert!(!sound, "byte {byte}");
        }
    }

    #[test]
    fn a_page_in_another_pages_place_is_refused() {
        let slot = encode(page(), 77, 5, &[], &image());
        let other = PageId::from_index(4_322).unwrap();
        assert_eq!(decode_meta(&slot, other).unwrap_err(), HeadFault::OtherPage);
    }

    #[test]
    fn a_slot_never_written_is_nothing() {
        assert!(
            decode_meta(&[0; SLOT_META_BYTES], page())
                .unwrap()
                .is_none()
        );
    }

    /// A slot as another version of the format has it, which counts no trade coins.
    pub(in crate::store) fn of_version(version: u32, mut slot: Vec<u8>) -> Vec<u8> {
        slot[8..12].copy_from_slice(&version.to_le_bytes());
        slot[TRADE_COINS_OFFSET..][..2].fill(0);
        let head_crc = crc32c::crc32c(&slot[..HEAD_BYTES - 4]);
        slot[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&head_crc.to_le_bytes());
        slot
    }

    #[test]
    fn heads_count_coins_under_both_kinds_of_keys_and_the_first_version_one() {
        let mut image = PageImage::blank();
        image.mfs.fill(Mfs::new(40));
        image.mfs[0] = Mfs::FREE;
        for place in [0, 1, 2, 60] {
            image.ans[place] = An::new([0xff; 16]);
        }
        let mut trade = [1; 16];
        trade[14..].fill(0xee);
        image.ans[70] = An::new(trade);
        trade[13] = 3; // no currency's
        image.ans[71] = An::new(trade);
        let slot = encode(page(), 77, 5, &[], &image);
        let head = |slot: &[u8]| decode_meta(slot, page()).unwrap().unwrap().head;
        assert_eq!((image.locker_coins(), image.trade_coins()), (3, 1));
        let counts = |head: SlotHead| (head.locker_coins, head.trade_coins);
        assert_eq!(counts(head(&slot)), (3, Some(1)));
        let old = of_version(1, slot);
        assert_eq!(counts(head(&old)), (3, None));
        let meta = decode_meta(&old, page()).unwrap().unwrap();
        assert!(decode(&old, &meta, &mut PageImage::blank()));
        let newer = of_version(3, old);
        assert_eq!(
            decode_meta(&newer, page()).unwrap_err(),
            HeadFault::Version(3)
        );
    }
}
