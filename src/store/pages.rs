//! The pages of a shard: which are in memory, which on disk, and the way between.
//!
//! Memory never holds a value that is not durable (docs/architecture.md, "Rules that always hold",
//! 3): a change gets its sequence number first, is written to the log, and only then
//! [`apply`](Pages::apply)ed. A page with changes under way, or with changes that no checkpoint
//! holds yet, stays in memory.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    task::Waker,
    time::Duration,
};

use foldhash::fast::FixedState;
use futures_util::stream::{self, StreamExt};

use super::{
    frames::Frames,
    page_file::{Extents, PageFiles, Slot, page_file_name, slot_offset},
    record::Change,
    recovery::PageSummary,
    secret::NodeSecret,
    segment_list::Checkpointed,
    slot::{self, MISSING_MAX, PageImage, SLOT_META_BYTES},
    trouble::Trouble,
};
use crate::coin::{An, COINS_PER_PAGE, Coin, Denomination, Mfs, PAGES, PageId, ShardId};
use crate::runtime::{Environment, Signal, Storage};

/// Page writes under way at once in a checkpoint: enough to keep a device busy, few enough that a
/// commit's write does not queue behind many.
const CHECKPOINT_PARALLEL: usize = 8;

/// Coins looked at together in a batch: enough to keep the memory busy, few enough that nothing
/// fetched is pushed out before it is looked at.
const WINDOW: usize = 16;

/// What the memory says of a coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In circulation, with its AN and months.
    Circulating(An, Mfs),
    /// Not in circulation.
    Free,
    /// In circulation, but the page is not in memory: [`Pages::load`] it and look again.
    Unloaded,
    /// The page is damaged and not served.
    Damaged,
}

/// A page that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{page} cannot be read: {file} at byte {offset}: {what}")]
pub struct PageFault {
    /// Which page.
    pub page: PageId,
    /// Its file, relative to the data folder.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointCounts {
    /// Pages written.
    pub pages: u64,
    /// What it left on the disk, with all that was there before.
    pub left: Checkpointed,
}

/// The pages that one shard owns.
pub struct Pages<E: Environment> {
    environment: E,
    shards: u16,
    capacity: usize,
    secret: NodeSecret,
    files: PageFiles<<E::Storage as Storage>::File>,
    table: RefCell<Table>,
    /// Notified when memory has no room for pages that a checkpoint would let go.
    checkpoint_wanted: Rc<Signal>,
    /// A change ended, so that another may begin.
    ended: Signal,
    is_stalled: Cell<bool>,
    failed_reads: Trouble,
}

struct Table {
    /// By [`local_index`](Pages::local_index): the frame that a page is in. All that a look-up of a
    /// page in memory reads besides the page, and small enough to stay in the processor's cache.
    frame_of: Vec<FrameIndex>,
    /// By local index, everything else.
    entries: Vec<Entry>,
    frames: Frames,
    /// By frame: the page that is in it.
    owners: Vec<PageId>,
    /// By frame: whether it was looked at since the hand came by.
    referenced: Vec<bool>,
    /// The frame where CLOCK goes on.
    hand: usize,
    loading: HashMap<PageId, Loading, FixedState>,
    /// Coins in circulation by denomination.
    circulating: [u32; Denomination::COUNT],
    dirty: usize,
    /// The least that the page files hold.
    extents: Extents,
}

/// A page that is being read.
struct Loading {
    since: Duration,
    /// Who waits for it.
    waiting: Vec<Waker>,
}

/// A frame's number, or [`NOWHERE`](FrameIndex::NOWHERE).
#[derive(Clone, Copy, PartialEq, Eq)]
struct FrameIndex(u16);

impl FrameIndex {
    /// The page is not in memory.
    const NOWHERE: FrameIndex = FrameIndex(u16::MAX);

    fn new(frame: usize) -> FrameIndex {
        debug_assert!(frame < PAGES, "a shard has no more frames than pages");
        FrameIndex(frame as u16)
    }

    #[inline]
    fn get(self) -> Option<usize> {
        (self != FrameIndex::NOWHERE).then_some(usize::from(self.0))
    }
}

#[derive(Default)]
struct Entry {
    circulation: [u64; COINS_PER_PAGE / 64],
    /// The highest sequence number given.
    sequence: u64,
    /// Sequence numbers given and not yet applied or given up, rising.
    under_way: Vec<u64>,
    slot: Option<Slot>,
    dirty: bool,
    /// Being written by a checkpoint: the disk does not have it yet.
    writing: bool,
    /// Never in memory then.
    damaged: bool,
}

/// The next step to have a page in memory.
enum Step {
    /// Nothing.
    Loaded,
    /// Someone else reads it.
    Wait,
    /// The page has to be read from this slot.
    Read(Slot),
}

impl Entry {
    fn is_circulating(&self, place: usize) -> bool {
        self.circulation[place / 64] >> (place % 64) & 1 == 1
    }

    fn may_leave(&self) -> bool {
        !self.dirty && !self.writing && self.under_way.is_empty()
    }
}

impl<E: Environment> Pages<E> {
    /// Takes over the pages that `shard` of `shards` owns, out of what recovery found. Keeps at
    /// most `capacity` pages in memory, plus those that a change needs.
    ///
    /// # Errors
    /// As the storage gives them.
    pub async fn open(
        environment: &E,
        shard: ShardId,
        shards: u16,
        capacity: usize,
        secret: NodeSecret,
        recovered: &[PageSummary],
        checkpoint_wanted: Rc<Signal>,
    ) -> io::Result<Self> {
        assert_eq!(recovered.len(), PAGES);
        let files = PageFiles::open(environment.storage()).await?;
        let mut entries: Vec<Entry> = Vec::new();
        entries.resize_with(PAGES.div_ceil(shards as usize) + 16, Entry::default);
        let mut circulating = [0; Denomination::COUNT];
        let mut extents = Extents::default();
        for page in PageId::owned(shard, shards) {
            let summary = &recovered[page.index()];
            if summary.slot.is_none() && !summary.damaged && summary.sequence == 0 {
                continue; // never written: as an entry is by itself
            }
            let coins: u32 = summary
                .circulation
                .iter()
                .map(|word| word.count_ones())
                .sum();
            circulating[page.denomination().index()] += coins;
            if let Some(slot) = summary.slot {
                extents.reach(page, slot, true);
            }
            entries[local_index(page, shards)] = Entry {
                circulation: summary.circulation,
                sequence: summary.sequence,
                slot: summary.slot,
                damaged: summary.damaged,
                ..Entry::default()
            };
        }
        Ok(Pages {
            environment: environment.clone(),
            shards,
            capacity: capacity.max(1),
            secret,
            files,
            table: RefCell::new(Table {
                frame_of: vec![FrameIndex::NOWHERE; entries.len()],
                entries,
                frames: Frames::default(),
                owners: Vec::new(),
                referenced: Vec::new(),
                hand: 0,
                loading: HashMap::default(),
                circulating,
                dirty: 0,
                extents,
            }),
            checkpoint_wanted,
            ended: Signal::default(),
            is_stalled: Cell::new(false),
            failed_reads: Trouble::default(),
        })
    }

    /// What memory says of a coin; never waits.
    #[inline]
    pub fn lookup(&self, coin: Coin) -> Lookup {
        let local = local_index(coin.page(), self.shards);
        self.table.borrow_mut().lookup(coin, local)
    }

    /// Looks at many coins in one go, until `each` says to stop by giving `false`. What a coin's
    /// look-up reads is fetched while others before it are looked at.
    pub fn lookup_all<'a, T>(
        &self,
        mut items: impl Iterator<Item = (Coin, T)> + 'a,
        mut each: impl FnMut(T, Lookup) -> bool,
    ) {
        let mut table = self.table.borrow_mut();
        if items.size_hint().1 == Some(1) {
            if let Some((coin, item)) = items.next() {
                each(
                    item,
                    table.lookup(coin, local_index(coin.page(), self.shards)),
                );
            }
            return;
        }
        let mut window: [Option<(Coin, usize, T)>; WINDOW] = [const { None }; WINDOW];
        loop {
            let mut filled = 0;
            for place in &mut window {
                let Some((coin, item)) = items.next() else {
                    break;
                };
                let local = local_index(coin.page(), self.shards);
                if let Some(frame) = table.frame_of[local].get() {
                    table.frames.prefetch(frame, coin.place());
                }
                *place = Some((coin, local, item));
                filled += 1;
            }
            for place in &mut window[..filled] {
                let (coin, local, item) = place.take().expect("it was just filled");
                if !each(item, table.lookup(coin, local)) {
                    return;
                }
            }
            if filled < WINDOW {
                return;
            }
        }
    }

    /// Has the processor fetch what a look-up of this coin, soon to come, will read.
    #[inline]
    pub fn prefetch(&self, coin: Coin) {
        let table = self.table.borrow();
        let local = local_index(coin.page(), self.shards);
        if let Some(frame) = table.frame_of[local].get() {
            table.frames.prefetch(frame, coin.place());
        }
    }

    /// Brings a page into memory, if it is not there. What is in memory may leave again whenever
    /// the caller waits for something else.
    ///
    /// # Errors
    /// Where the page is damaged or cannot be read.
    pub async fn load(&self, page: PageId) -> Result<(), PageFault> {
        let index = local_index(page, self.shards);
        loop {
            let slot = match self.next_step(page, index)? {
                Step::Loaded => return Ok(()),
                Step::Wait => {
                    self.loaded(page).await;
                    continue;
                }
                Step::Read(slot) => slot,
            };
            let mut image = PageImage::blank();
            let read = self.files.read(page, slot, &mut image).await;
            let mut table = self.table.borrow_mut();
            let result = match read {
                Ok(Some(meta)) if meta.head.sequence <= table.entries[index].sequence => {
                    table.place(page, index, &image, self.capacity, self.shards);
                    Ok(())
                }
                Ok(_) => {
                    table.entries[index].damaged = true;
                    let fault = self.fault(page, Some(slot), "does not fit its checksum");
                    tracing::error!(%fault, "a page is not served");
                    Err(fault)
                }
                Err(error) => {
                    // Strangers decide how often a load is tried.
                    let times = self.failed_reads.met(self.environment.monotonic(), &error);
                    let fault = self.fault(page, Some(slot), &error.to_string());
                    if let Some(times) = times {
                        tracing::error!(%fault, times, "a page cannot be read");
                    }
                    Err(fault)
                }
            };
            if result.is_ok()
                && let Some(over) = self.failed_reads.over(self.environment.monotonic())
            {
                tracing::warn!(times = over.times, "pages can be read again");
            }
            let loading = table.loading.remove(&page);
            let waiting = loading.map_or_else(Vec::new, |loading| loading.waiting);
            let crowded = table.dirty * 2 > self.capacity || table.frames.len() > self.capacity;
            drop(table);
            for waker in waiting {
                waker.wake();
            }
            if crowded {
                self.checkpoint_wanted.notify();
            }
            return result;
        }
    }

    /// What to do next to have a page in memory.
    fn next_step(&self, page: PageId, index: usize) -> Result<Step, PageFault> {
        let mut table = self.table.borrow_mut();
        let entry = &table.entries[index];
        let slot = entry.slot;
        if entry.damaged {
            return Err(self.fault(page, slot, "is damaged"));
        }
        if table.frame_of[index] != FrameIndex::NOWHERE {
            return Ok(Step::Loaded);
        }
        let Some(slot) = slot else {
            let image = self.secret.derive_page(page);
            table.place(page, index, &image, self.capacity, self.shards);
            return Ok(Step::Loaded);
        };
        if self.is_stalled.get() {
            return Err(self.fault(page, Some(slot), "the disk does not answer"));
        }
        if table.loading.contains_key(&page) {
            return Ok(Step::Wait);
        }
        let loading = Loading {
            since: self.environment.monotonic(),
            waiting: Vec::new(),
        };
        table.loading.insert(page, loading);
        Ok(Step::Read(slot))
    }

    /// Since when the disk has not answered for a page; `None` where none is being read.
    pub fn waits_since(&self) -> Option<Duration> {
        let table = self.table.borrow();
        table.loading.values().map(|loading| loading.since).min()
    }

    /// Sets whether the disk does not answer; while it does not, no page is read from it.
    pub fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.set(is_stalled);
    }

    /// Gives the next change of a page its sequence number. The page stays in memory until the
    /// change is [`apply`](Pages::apply)ed or [given up](Pages::give_up). `None`, and nothing has
    /// happened, where the page has to be [made ready](Pages::ready) first.
    pub fn begin(&self, page: PageId) -> Option<u64> {
        let mut table = self.table.borrow_mut();
        let local = local_index(page, self.shards);
        if table.frame_of[local] == FrameIndex::NOWHERE {
            return None;
        }
        let entry = &mut table.entries[local];
        if entry.under_way.len() >= MISSING_MAX {
            return None;
        }
        entry.sequence += 1;
        entry.under_way.push(entry.sequence);
        Some(entry.sequence)
    }

    /// Waits until a change of the page may [`begin`](Pages::begin): the page is in memory, and not
    /// more of its changes are under way than a slot can list. A caller that begins changes of
    /// several pages does so in rising order, so that no two wait for each other.
    ///
    /// # Errors
    /// Where the page is damaged or cannot be read.
    pub async fn ready(&self, page: PageId) -> Result<(), PageFault> {
        loop {
            let moment = self.ended.moment();
            let under_way = {
                let table = self.table.borrow();
                table.entries[local_index(page, self.shards)]
                    .under_way
                    .len()
            };
            if under_way < MISSING_MAX {
                return self.load(page).await;
            }
            self.ended.after(moment).await;
        }
    }

    /// Puts a durable change into the page. Tells `replaced` every coin's old and new AN where the
    /// coin is in circulation.
    ///
    /// # Panics
    /// When the change was not begun, or the page left memory in between: states that only a
    /// mistake of this program leads to, and in which it must not go on.
    pub fn apply(
        &self,
        page: PageId,
        sequence: u64,
        changes: &[Change],
        mut replaced: impl FnMut(Coin, Option<An>, Option<An>),
    ) {
        let mut table = self.table.borrow_mut();
        let Table {
            frame_of,
            entries,
            frames,
            circulating,
            dirty,
            ..
        } = &mut *table;
        let local = local_index(page, self.shards);
        let entry = &mut entries[local];
        entry.end(page, sequence);
        let frame = frame_of[local]
            .get()
            .expect("a page with a change under way stays in memory");
        let image = frames.get_mut(frame);
        let count = &mut circulating[page.denomination().index()];
        for change in changes {
            debug_assert_eq!(change.coin.page(), page);
            let place = change.coin.place();
            let old = (!image.mfs[place].is_free()).then_some(image.ans[place]);
            let new = (!change.mfs.is_free()).then_some(change.an);
            image.ans[place] = change.an;
            image.mfs[place] = change.mfs;
            *count = *count + u32::from(new.is_some()) - u32::from(old.is_some());
            let bit = 1u64 << (place % 64);
            match new {
                Some(_) => entry.circulation[place / 64] |= bit,
                None => entry.circulation[place / 64] &= !bit,
            }
            replaced(change.coin, old, new);
        }
        if !entry.dirty {
            entry.dirty = true;
            *dirty += 1;
        }
        drop(table);
        self.ended.notify();
    }

    /// Ends a change that will not happen.
    pub fn give_up(&self, page: PageId, sequence: u64) {
        self.table.borrow_mut().entries[local_index(page, self.shards)].end(page, sequence);
        self.ended.notify();
    }

    /// Coins in circulation in this shard's pages, by denomination index.
    pub fn circulating(&self) -> [u32; Denomination::COUNT] {
        self.table.borrow().circulating
    }

    /// One bit a coin of the page, set where it is in circulation.
    pub fn circulation(&self, page: PageId) -> [u64; COINS_PER_PAGE / 64] {
        self.table.borrow().entries[local_index(page, self.shards)].circulation
    }

    /// Whether the page is damaged and not served.
    pub fn is_damaged(&self, page: PageId) -> bool {
        self.table.borrow().entries[local_index(page, self.shards)].damaged
    }

    /// Pages in memory now.
    pub fn loaded_count(&self) -> usize {
        self.table.borrow().frames.len()
    }

    /// Calls `each` for every coin in circulation of a page that is in memory.
    pub fn for_each_circulating(&self, page: PageId, mut each: impl FnMut(Coin, An)) {
        let table = self.table.borrow();
        let local = local_index(page, self.shards);
        let Some(frame) = table.frame_of[local].get() else {
            return;
        };
        let image = table.frames.get(frame);
        for (place, mfs) in image.mfs.iter().enumerate() {
            if !mfs.is_free() {
                each(page.coin(place), image.ans[place]);
            }
        }
    }

    /// Writes every page that has changes which its newest image lacks, and makes that durable.
    /// `durable` is awaited between taking images and writing them, where their changes may not be
    /// in a log on the disk yet.
    ///
    /// # Errors
    /// As the storage gives them; the pages then remain to be written, and the logs must be kept.
    pub async fn checkpoint(
        &self,
        round: u64,
        durable: impl AsyncFn(),
    ) -> io::Result<CheckpointCounts> {
        let pages: Vec<PageId> = {
            let table = self.table.borrow();
            let is_dirty = |page: &PageId| table.entries[local_index(*page, self.shards)].dirty;
            table.owners.iter().copied().filter(is_dirty).collect()
        };
        let written = self.write_pages(&pages, round, &durable).await;
        let mut table = self.table.borrow_mut();
        for page in &pages {
            let entry = &mut table.entries[local_index(*page, self.shards)];
            if !entry.writing {
                continue;
            }
            entry.writing = false;
            match &written {
                Ok(()) => {
                    let slot = entry.slot.map_or(Slot::A, Slot::other);
                    let is_first = entry.slot.replace(slot).is_none();
                    table.extents.reach(*page, slot, is_first);
                }
                Err(_) if entry.dirty => {}
                Err(_) => {
                    entry.dirty = true;
                    table.dirty += 1;
                }
            }
        }
        written?;
        Ok(CheckpointCounts {
            pages: pages.len() as u64,
            left: Checkpointed {
                extents: table.extents,
                ..Checkpointed::default()
            },
        })
    }

    /// Makes sure that the page files are where a start will look for them.
    async fn check_places(&self) -> io::Result<()> {
        let storage = self.environment.storage();
        for denomination in Denomination::all() {
            if !self.files.is_in_place(storage, denomination).await {
                let name = page_file_name(denomination);
                return Err(io::Error::other(format!(
                    "{name} was removed or moved away under the running node: put it back where it was, or stop the node; its log has the changes until then"
                )));
            }
        }
        Ok(())
    }

    async fn write_pages(
        &self,
        pages: &[PageId],
        round: u64,
        durable: &impl AsyncFn(),
    ) -> io::Result<()> {
        for some in pages.chunks(CHECKPOINT_PARALLEL) {
            let mut images = Vec::with_capacity(some.len());
            for &page in some {
                images.push(self.take_image(page, round));
            }
            durable().await;
            let writes = stream::iter(some.iter().zip(&images))
                .map(|(&page, (slot, bytes))| self.files.write(page, *slot, bytes));
            // All writes are awaited, even when one fails: a write that is left to itself may land
            // after the next try's.
            let writes = writes.buffer_unordered(CHECKPOINT_PARALLEL);
            let written: Vec<io::Result<()>> = writes.collect().await;
            written.into_iter().collect::<io::Result<()>>()?;
        }
        for denomination in Denomination::all() {
            if pages.iter().any(|page| page.denomination() == denomination) {
                self.files.sync(denomination).await?;
            }
        }
        self.check_places().await
    }

    /// The page's bytes to write now, and the slot to write them to.
    fn take_image(&self, page: PageId, round: u64) -> (Slot, Vec<u8>) {
        let mut table = self.table.borrow_mut();
        let Table {
            frame_of,
            entries,
            frames,
            dirty,
            ..
        } = &mut *table;
        let local = local_index(page, self.shards);
        let entry = &mut entries[local];
        let frame = frame_of[local].get();
        let image = frames.get(frame.expect("a dirty page stays in memory"));
        let bytes = slot::encode(page, entry.sequence, round, &entry.under_way, image);
        entry.dirty = false;
        entry.writing = true;
        *dirty -= 1;
        (entry.slot.map_or(Slot::A, Slot::other), bytes)
    }

    async fn loaded(&self, page: PageId) {
        std::future::poll_fn(
            |context| match self.table.borrow_mut().loading.get_mut(&page) {
                Some(loading) => {
                    loading.waiting.push(context.waker().clone());
                    std::task::Poll::Pending
                }
                None => std::task::Poll::Ready(()),
            },
        )
        .await
    }

    fn fault(&self, page: PageId, slot: Option<Slot>, what: &str) -> PageFault {
        PageFault {
            page,
            file: page_file_name(page.denomination()),
            offset: slot.map_or(0, |slot| slot_offset(page, slot) + SLOT_META_BYTES as u64),
            what: what.to_owned(),
        }
    }
}

/// The place of a page among those of its owner. Places are dense, and each page of a shard has its
/// own.
#[inline]
fn local_index(page: PageId, shards: u16) -> usize {
    // A shard owns the pages whose (number + denomination index) leave the same remainder. Laid
    // out by denomination, a run of `shards` pages has exactly one of each shard.
    let denomination = page.denomination().index();
    let number = page.number() as usize;
    let stride = 1_000usize.div_ceil(shards as usize);
    denomination * stride + number / shards as usize
}

impl Entry {
    fn end(&mut self, page: PageId, sequence: u64) {
        let at = self.under_way.iter().position(|&s| s == sequence);
        let at = at.unwrap_or_else(|| panic!("change {sequence} of {page:?} was not begun"));
        self.under_way.remove(at);
    }
}

impl Table {
    #[inline]
    fn lookup(&mut self, coin: Coin, local: usize) -> Lookup {
        let Some(frame) = self.frame_of[local].get() else {
            return self.lookup_unloaded(coin, local);
        };
        self.referenced[frame] = true;
        let (image, place) = (self.frames.get(frame), coin.place());
        match image.mfs[place] {
            Mfs::FREE => Lookup::Free,
            mfs => Lookup::Circulating(image.ans[place], mfs),
        }
    }

    fn lookup_unloaded(&self, coin: Coin, local: usize) -> Lookup {
        let entry = &self.entries[local];
        if entry.damaged {
            Lookup::Damaged
        } else if entry.is_circulating(coin.place()) {
            Lookup::Unloaded
        } else {
            Lookup::Free
        }
    }

    /// Gives a page a frame, another page's where memory is full.
    fn place(
        &mut self,
        page: PageId,
        index: usize,
        image: &PageImage,
        capacity: usize,
        shards: u16,
    ) {
        let frame = match self.evict(capacity, shards) {
            Some(frame) => {
                *self.frames.get_mut(frame) = image.clone();
                (self.owners[frame], self.referenced[frame]) = (page, true);
                frame
            }
            None => {
                self.frames.push(image);
                self.owners.push(page);
                self.referenced.push(true);
                self.frames.len() - 1
            }
        };
        self.frame_of[index] = FrameIndex::new(frame);
    }

    /// Frees a frame by CLOCK; `None` where memory has room, or where no page may leave: then
    /// memory grows past its capacity by the pages that changes hold, which requests in flight
    /// bound.
    fn evict(&mut self, capacity: usize, shards: u16) -> Option<usize> {
        while self.frames.len() > capacity {
            // Memory is past its capacity: give back a frame for good, and fill its place with the
            // last.
            let frame = self.advance(shards)?;
            self.frames.swap_remove(frame);
            self.owners.swap_remove(frame);
            self.referenced.swap_remove(frame);
            if let Some(&moved) = self.owners.get(frame) {
                self.frame_of[local_index(moved, shards)] = FrameIndex::new(frame);
            }
        }
        if self.frames.len() < capacity {
            return None;
        }
        self.advance(shards)
    }

    /// Moves the hand to the first page that was not looked at since it last came by, and takes
    /// its frame.
    fn advance(&mut self, shards: u16) -> Option<usize> {
        for _ in 0..2 * self.frames.len() {
            self.hand = (self.hand + 1) % self.frames.len();
            let local = local_index(self.owners[self.hand], shards);
            if !self.entries[local].may_leave() {
                continue;
            }
            if std::mem::take(&mut self.referenced[self.hand]) {
                continue;
            }
            self.frame_of[local] = FrameIndex::NOWHERE;
            return Some(self.hand);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_one_shard_never_share_an_entry() {
        for shards in 1..=9 {
            let mut seen = std::collections::HashSet::new();
            for page in PageId::all() {
                let index = local_index(page, shards);
                assert!(index < PAGES.div_ceil(shards as usize) + 16);
                assert!(
                    seen.insert((page.owner(shards), index)),
                    "{page:?} of {shards}"
                );
            }
        }
    }
}
