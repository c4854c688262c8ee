//! Where a page lies: one file a denomination, sparse, two slots a page.

use std::io;

use super::slot::{self, HeadFault, PageImage, SLOT_BYTES, SLOT_META_BYTES, SlotMeta};
use crate::coin::{Denomination, PAGES, PAGES_PER_DENOMINATION, PageId};
use crate::runtime::{File, Storage};

/// One of a page's two slots. A checkpoint writes the one that holds the older image, so that a
/// write cut short never costs the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first in the file.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The slot to write next, where this one holds the newest image.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// The fifteen page files of a data folder, open.
pub struct PageFiles<F> {
    /// By denomination index; `None` where there is no file, and so no page was ever written.
    files: Vec<Option<F>>,
}

/// The page file of a denomination, named by its byte on the wire, relative to the data folder.
pub fn page_file_name(denomination: Denomination) -> String {
    format!(
        "{}/{:02x}.pages",
        super::PAGE_FOLDER,
        denomination.to_byte()
    )
}

/// Where a slot starts in its file, in bytes.
pub fn slot_offset(page: PageId, slot: Slot) -> u64 {
    (page.number() as u64 * 2 + (slot == Slot::B) as u64) * SLOT_BYTES as u64
}

/// The least that page files hold, by denomination index: a file that holds less has lost
/// something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Bytes of each file.
    pub lengths: [u64; Denomination::COUNT],
    /// Pages that were written to each.
    pub pages: [u16; Denomination::COUNT],
}

/// The bits that hold a file's length; those above hold its pages.
const LENGTH_BITS: u32 = 48;

impl Extents {
    /// The extents that hold these slots; a page may come more than once.
    pub(super) fn of(slots: impl Iterator<Item = (PageId, Slot)>) -> Extents {
        let mut extents = Extents::default();
        let mut seen = vec![false; PAGES];
        for (page, slot) in slots {
            let is_first = !std::mem::replace(&mut seen[page.index()], true);
            extents.reach(page, slot, is_first);
        }
        extents
    }

    /// Extends them to hold this slot as well, the first of its page or another.
    pub(super) fn reach(&mut self, page: PageId, slot: Slot, is_first: bool) {
        let denomination = page.denomination().index();
        let length = &mut self.lengths[denomination];
        *length = (*length).max(slot_offset(page, slot) + SLOT_BYTES as u64);
        self.pages[denomination] += u16::from(is_first);
    }

    /// Extents that hold both of these, which may be the same pages.
    pub fn or(mut self, other: &Extents) -> Extents {
        for (length, other) in self.lengths.iter_mut().zip(other.lengths) {
            *length = (*length).max(other);
        }
        for (pages, other) in self.pages.iter_mut().zip(other.pages) {
            *pages = (*pages).max(other);
        }
        self
    }

    /// Extents that hold both of these, which are different pages.
    pub fn and(self, other: &Extents) -> Extents {
        let mut both = self.or(other);
        for ((both, one), other) in both.pages.iter_mut().zip(self.pages).zip(other.pages) {
            *both = one + other;
        }
        both
    }

    /// Encodes it as one number for each file.
    pub(super) fn pack(&self) -> [u64; Denomination::COUNT] {
        std::array::from_fn(|i| self.lengths[i] | u64::from(self.pages[i]) << LENGTH_BITS)
    }

    /// Decodes it. Older files have no count of pages, which reads as 0.
    pub(super) fn unpack(numbers: [u64; Denomination::COUNT]) -> Extents {
        Extents {
            lengths: numbers.map(|number| number & ((1 << LENGTH_BITS) - 1)),
            pages: numbers.map(|number| (number >> LENGTH_BITS) as u16),
        }
    }
}

impl<F: File> PageFiles<F> {
    /// Opens all page files, making those that are missing.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn open<S: Storage<File = F>>(storage: &S) -> io::Result<Self> {
        let mut files = Vec::with_capacity(Denomination::COUNT);
        for denomination in Denomination::all() {
            let file = storage.open(&page_file_name(denomination), true).await?;
            files.push(Some(file));
        }
        Ok(PageFiles { files })
    }

    /// Opens the page files that are there, for reading alone.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn open_existing<S: Storage<File = F>>(storage: &S) -> io::Result<Self> {
        let mut files = Vec::with_capacity(Denomination::COUNT);
        for denomination in Denomination::all() {
            let name = page_file_name(denomination);
            files.push(match storage.open(&name, false).await {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            });
        }
        Ok(PageFiles { files })
    }

    /// Pages that may have been written: those that start before their file ends. A file grows
    /// with the pages written to it, so that a node of few pages starts without reading holes.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn reached(&self) -> io::Result<Vec<PageId>> {
        let mut pages = Vec::new();
        for (denomination, length) in Denomination::all().zip(self.lengths().await?) {
            let all = (0..PAGES_PER_DENOMINATION).map_while(|n| PageId::new(denomination, n));
            pages.extend(all.take_while(|&page| slot_offset(page, Slot::A) < length));
        }
        Ok(pages)
    }

    /// Bytes of each file, by denomination index.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn lengths(&self) -> io::Result<[u64; Denomination::COUNT]> {
        let mut lengths = [0; Denomination::COUNT];
        for (length, file) in lengths.iter_mut().zip(&self.files) {
            if let Some(file) = file {
                *length = file.length().await?;
            }
        }
        Ok(lengths)
    }

    /// Reads the first block of a slot: everything but its ANs.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn read_meta(
        &self,
        page: PageId,
        slot: Slot,
    ) -> io::Result<Result<Option<SlotMeta>, HeadFault>> {
        let Some(file) = self.file(page) else {
            return Ok(Ok(None));
        };
        let block = file
            .read_at(slot_offset(page, slot), SLOT_META_BYTES)
            .await?;
        Ok(slot::decode_meta(&block, page))
    }

    /// Reads a whole slot into `image`; `None` where it is not whole, or was never written.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn read(
        &self,
        page: PageId,
        slot: Slot,
        image: &mut PageImage,
    ) -> io::Result<Option<SlotMeta>> {
        let Some(file) = self.file(page) else {
            return Ok(None);
        };
        let bytes = file.read_at(slot_offset(page, slot), SLOT_BYTES).await?;
        Ok(match slot::decode_meta(&bytes, page) {
            Ok(Some(meta)) if slot::decode(&bytes, &meta, image) => Some(meta),
            _ => None,
        })
    }

    /// Writes a slot. Durable after [`sync`](PageFiles::sync).
    ///
    /// # Errors
    /// As the storage gives them; what the slot then holds is unknown.
    pub async fn write(&self, page: PageId, slot: Slot, bytes: &[u8]) -> io::Result<()> {
        debug_assert_eq!(bytes.len(), SLOT_BYTES);
        let file = self.file(page).ok_or(io::ErrorKind::NotFound)?;
        file.write_at(bytes, slot_offset(page, slot)).await
    }

    /// Writes to a slot the bytes that it holds already.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn write_again(&self, page: PageId, slot: Slot) -> io::Result<()> {
        let offset = slot_offset(page, slot);
        let file = self.file(page).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.read_at(offset, SLOT_BYTES).await?;
        self.write(page, slot, &bytes).await
    }

    /// Makes every write to a denomination's pages durable.
    ///
    /// # Errors
    /// As the storage gives them; what the slots written since the last sync hold is then unknown.
    pub async fn sync(&self, denomination: Denomination) -> io::Result<()> {
        match &self.files[denomination.index()] {
            Some(file) => file.sync().await,
            None => Ok(()),
        }
    }

    /// Whether a denomination's file is still where it was opened.
    pub(super) async fn is_in_place<S: Storage<File = F>>(
        &self,
        storage: &S,
        denomination: Denomination,
    ) -> bool {
        match &self.files[denomination.index()] {
            Some(file) => {
                let name = page_file_name(denomination);
                storage.is_in_place(&name, file).await
            }
            None => true,
        }
    }

    /// Reads both slots of this page and of those that follow in its file: `pages` pages,
    /// [`SLOT_BYTES`] a slot.
    pub(super) async fn read_slots(&self, first: PageId, pages: usize) -> io::Result<Vec<u8>> {
        let length = pages * 2 * SLOT_BYTES;
        match self.file(first) {
            Some(file) => file.read_at(slot_offset(first, Slot::A), length).await,
            None => Ok(vec![0; length]),
        }
    }

    fn file(&self, page: PageId) -> Option<&F> {
        self.files[page.denomination().index()].as_ref()
    }
}
