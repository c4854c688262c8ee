//! A disk that keeps exactly what the storage trait promises.
//!
//! A file is what reads see (`current`), what a power failure leaves for sure (`durable`), and the
//! writes between the two. When the power fails, each of these keeps all, none, or any of its
//! 512-byte sectors. A sync that failed leaves its writes as a power failure would, while reads go
//! on to see them, and no later sync makes them durable: that is how Linux does it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    io, mem,
    rc::Rc,
    task::{Poll, Waker},
};

use raida::runtime::{BLOCK_BYTES, File, Storage};
use raida::store::SLOT_BYTES;

use crate::{random::Random, world::World};

const SECTOR_BYTES: usize = 512;
const ALL_SECTORS: u8 = 0xff;
const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;
/// What a used segment's header starts with.
const SEGMENT_MAGIC: &[u8] = b"RAIDALOG";

type Block = [u8; BLOCK_BYTES];
/// `None` is a block of zeros.
type Content = Option<Rc<Block>>;
type FileId = usize;

/// How often things go wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub read_errors: u64,
    pub write_errors: u64,
    pub sync_errors: u64,
    /// Blocks that files may take in all; `None` where there is no end of room.
    pub blocks_max: Option<usize>,
}

/// What happened on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskCounts {
    pub torn_writes: u64,
    pub lost_writes: u64,
    pub failed_writes: u64,
    pub failed_syncs: u64,
    pub failed_reads: u64,
    pub refused_for_room: u64,
    pub recycled_segments: u64,
    pub undone_writes: u64,
    pub page_syncs: u64,
    pub evictions: u64,
}

pub struct Disk {
    random: Random,
    files: Vec<FileData>,
    names: BTreeMap<String, FileId>,
    /// Removed since the last power failure, which may bring them back.
    removed: Vec<(String, FileId)>,
    blocks: usize,
    faults: Faults,
    is_calm: bool,
    pub counts: DiskCounts,
    loaded: BTreeSet<(FileId, u64)>,
    /// Writes under way: file, first block, blocks.
    writing: Vec<(FileId, usize, usize)>,
}

/// What lies on a disk that nobody uses.
pub struct Rest {
    files: Vec<FileData>,
    names: BTreeMap<String, FileId>,
    removed: Vec<(String, FileId)>,
    blocks: usize,
}

#[derive(Clone, Default)]
struct FileData {
    name: String,
    current: Image,
    durable: Image,
    /// Not durable yet, in the order they were made.
    pending: Vec<Pending>,
    /// Rises with each write.
    writes: u64,
    /// Rises with each sync that failed; every open handle hears of it once.
    errors: u64,
    /// Which blocks have room on the disk.
    allocated: Vec<bool>,
}

#[derive(Clone, Default)]
struct Image {
    blocks: Vec<Content>,
    length: u64,
}

#[derive(Clone)]
struct Pending {
    write: u64,
    what: PendingWhat,
}

#[derive(Clone)]
enum PendingWhat {
    Block(usize, Content),
    Length(u64),
}

/// Something that the disk was asked to do.
pub enum Operation {
    Create(String),
    Remove(String),
    Read(FileId, u64, usize),
    Write(FileId, u64, Vec<Content>),
    /// Up to this write; and the error count that the handle knows.
    Sync(FileId, u64, Rc<Cell<u64>>),
    SetLength(FileId, u64),
    Reserve(FileId, u64),
}

/// Where the outcome of an operation appears.
#[derive(Default)]
pub struct Answer {
    result: RefCell<Option<io::Result<Vec<u8>>>>,
    waker: RefCell<Option<Waker>>,
}

impl Answer {
    pub fn give(&self, result: io::Result<Vec<u8>>) {
        *self.result.borrow_mut() = Some(result);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn wait(&self) -> io::Result<Vec<u8>> {
        poll_fn(|context| match self.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Disk {
    pub fn new(random: Random) -> Disk {
        Disk {
            random,
            files: Vec::new(),
            names: BTreeMap::new(),
            removed: Vec::new(),
            blocks: 0,
            faults: Faults::default(),
            is_calm: false,
            counts: DiskCounts::default(),
            loaded: BTreeSet::new(),
            writing: Vec::new(),
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        if !self.is_calm {
            self.faults = faults;
        }
    }

    /// Nothing goes wrong until the process ends.
    pub fn calm(&mut self) {
        self.faults = Faults::default();
        self.is_calm = true;
    }

    pub fn forget_faults(&mut self) {
        self.faults = Faults::default();
        self.is_calm = false;
        self.loaded.clear();
    }

    pub fn is_full(&self) -> bool {
        self.faults.blocks_max.is_some()
    }

    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Starts counting loads again: a page that is read twice from here on has left memory in
    /// between.
    pub fn forget_loads(&mut self) {
        self.loaded.clear();
    }

    /// Names of the files in a folder, with the folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{folder}/");
        let names = self.names.keys().filter(|name| name.starts_with(&prefix));
        names.cloned().collect()
    }

    pub fn bytes(&self, name: &str, offset: u64, length: usize) -> Vec<u8> {
        self.files[self.names[name]].current.read(offset, length)
    }

    /// Damages a byte for good.
    pub fn flip(&mut self, name: &str, offset: u64) {
        let file = &mut self.files[self.names[name]];
        let index = offset as usize / BLOCK_BYTES;
        for image in [&mut file.current, &mut file.durable] {
            let mut block = image.block(index).map_or([0; BLOCK_BYTES], |b| *b);
            block[offset as usize % BLOCK_BYTES] ^= 0x20;
            image.set(index, Some(Rc::new(block)));
        }
    }

    /// Puts other bytes in the place of the first ones for good.
    pub fn overwrite(&mut self, name: &str, bytes: &[u8]) {
        let file = &mut self.files[self.names[name]];
        for image in [&mut file.current, &mut file.durable] {
            let mut block = image.block(0).map_or([0; BLOCK_BYTES], |b| *b);
            block[..bytes.len()].copy_from_slice(bytes);
            image.set(0, Some(Rc::new(block)));
        }
    }

    pub fn delete(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// Cuts a file short for good. Gives whether that took anything away.
    pub fn truncate(&mut self, name: &str, length: u64) -> bool {
        let file = &mut self.files[self.names[name]];
        let was = file.current.length.max(file.durable.length);
        for image in [&mut file.current, &mut file.durable] {
            image.cut(image.length.min(length));
        }
        file.pending.clear();
        was > length
    }

    pub fn length(&self, name: &str) -> u64 {
        self.files[self.names[name]].current.length
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let file = self.names.remove(from).expect("there is one");
        self.names.insert(to.to_owned(), file);
    }

    pub fn exists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// What lies there now, to be [put back](Disk::put_back).
    pub fn rest(&self) -> Rest {
        Rest {
            files: self.files.clone(),
            names: self.names.clone(),
            removed: self.removed.clone(),
            blocks: self.blocks,
        }
    }

    pub fn put_back(&mut self, rest: Rest) {
        let Rest {
            files,
            names,
            removed,
            blocks,
        } = rest;
        (self.files, self.names) = (files, names);
        (self.removed, self.blocks) = (removed, blocks);
    }

    /// Takes note of an operation, and gives the nanoseconds until it ends.
    ///
    /// # Panics
    /// When a write is asked for where another is under way: nobody knows which comes last.
    pub fn begin(&mut self, operation: &Operation) -> u64 {
        if let Operation::Write(file, offset, blocks) = operation {
            let first = *offset as usize / BLOCK_BYTES;
            let end = first + blocks.len();
            let overlaps = |&(other, start, count): &(FileId, usize, usize)| {
                other == *file && start < end && first < start + count
            };
            let name = &self.files[*file].name;
            assert!(
                !self.writing.iter().any(overlaps),
                "two writes at a time to byte {offset} of {name}"
            );
            self.writing.push((*file, first, blocks.len()));
        }
        let (least, most) = match operation {
            Operation::Read(..) => (2_000, 40_000),
            Operation::Write(..) => (5_000, 120_000),
            Operation::Sync(..) => (10_000, 120_000),
            _ => (2_000, 20_000),
        };
        let slow = match self.random.below(1_000) {
            0..10 => 200,
            10..60 => 30,
            _ => 1,
        };
        slow * self.random.between(least, most)
    }

    pub fn finish(&mut self, operation: Operation) -> io::Result<Vec<u8>> {
        match operation {
            Operation::Create(name) => self.create(name),
            Operation::Remove(name) => self.remove(&name),
            Operation::Read(file, offset, length) => self.read(file, offset, length),
            Operation::Write(file, offset, blocks) => {
                let this = (file, offset as usize / BLOCK_BYTES, blocks.len());
                let at = self.writing.iter().position(|write| *write == this);
                self.writing
                    .swap_remove(at.expect("a write that ends was begun"));
                self.write(file, offset, blocks)
            }
            Operation::Sync(file, write, seen) => self.sync(file, write, &seen),
            Operation::SetLength(file, length) => {
                self.files[file].set_length(length);
                Ok(Vec::new())
            }
            Operation::Reserve(file, length) => self.reserve(file, length),
        }
    }

    /// The process that asked is gone. A write goes through, in part, or not at all.
    pub fn abandon(&mut self, operation: Operation) {
        match operation {
            Operation::Write(file, offset, blocks) => {
                self.writing.clear();
                let kept = self.kept();
                self.write_some(file, offset, blocks, kept);
            }
            Operation::Read(..) | Operation::Sync(..) => {}
            other if self.random.permille(500) => drop(self.finish(other)),
            _ => {}
        }
    }

    pub fn fail_power(&mut self) {
        for (name, file) in mem::take(&mut self.removed) {
            if self.random.permille(300) && !self.names.contains_key(&name) {
                self.names.insert(name, file);
            }
        }
        for file in 0..self.files.len() {
            let until = self.files[file].writes;
            self.lose(file, until);
            let file = &mut self.files[file];
            file.current = file.durable.clone();
        }
    }

    /// Makes some sectors of the writes up to `until` durable, and none of the others ever.
    fn lose(&mut self, file: FileId, until: u64) {
        let pending = mem::take(&mut self.files[file].pending);
        let mut kept = Kept::All;
        let mut last = 0;
        for some in pending {
            if some.write > until {
                self.files[file].pending.push(some);
                continue;
            }
            if some.write != last {
                last = some.write;
                kept = self.kept();
            }
            let durable = &mut self.files[file].durable;
            match some.what {
                PendingWhat::Length(length) if kept != Kept::None => durable.cut(length),
                PendingWhat::Length(_) => {}
                PendingWhat::Block(index, content) => {
                    let mask = kept.mask(&mut self.random);
                    durable.put(index, &content, mask);
                }
            }
        }
    }

    fn kept(&mut self) -> Kept {
        match self.random.below(4) {
            0 => {
                self.counts.lost_writes += 1;
                Kept::None
            }
            1 | 2 => {
                self.counts.torn_writes += 1;
                Kept::Some
            }
            _ => Kept::All,
        }
    }

    fn create(&mut self, name: String) -> io::Result<Vec<u8>> {
        self.removed.retain(|(removed, _)| *removed != name);
        if !self.names.contains_key(&name) {
            self.names.insert(name.clone(), self.files.len());
            self.files.push(FileData {
                name,
                ..FileData::default()
            });
        }
        Ok(Vec::new())
    }

    fn remove(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let Some(file) = self.names.remove(name) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let allocated = mem::take(&mut self.files[file].allocated);
        self.blocks -= allocated.iter().filter(|&&is| is).count();
        self.removed.push((name.to_owned(), file));
        Ok(Vec::new())
    }

    fn read(&mut self, file: FileId, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.random.permille(self.faults.read_errors) {
            self.counts.failed_reads += 1;
            return Err(io::Error::from_raw_os_error(IO_ERROR));
        }
        if length == SLOT_BYTES && !self.loaded.insert((file, offset)) {
            self.counts.evictions += 1;
        }
        Ok(self.files[file].current.read(offset, length))
    }

    fn write(&mut self, file: FileId, offset: u64, blocks: Vec<Content>) -> io::Result<Vec<u8>> {
        if self.random.permille(self.faults.write_errors) {
            self.counts.failed_writes += 1;
            let kept = self.kept();
            self.write_some(file, offset, blocks, kept);
            return Err(io::Error::from_raw_os_error(IO_ERROR));
        }
        let first = offset as usize / BLOCK_BYTES;
        if !self.allocate(file, first, blocks.len()) {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        self.count_write(file, offset, &blocks);
        self.write_some(file, offset, blocks, Kept::All);
        Ok(Vec::new())
    }

    fn count_write(&mut self, file: FileId, offset: u64, blocks: &[Content]) {
        let data = &self.files[file];
        if !data.name.ends_with(".segment") {
            return;
        }
        let is_header = |content: &Content| {
            content
                .as_ref()
                .is_some_and(|block| block.starts_with(SEGMENT_MAGIC))
        };
        if offset == 0 && is_header(&blocks[0]) && is_header(&data.current.block(0)) {
            self.counts.recycled_segments += 1;
        }
        if offset > 0 && blocks.iter().all(Option::is_none) {
            self.counts.undone_writes += 1;
        }
    }

    fn write_some(&mut self, file: FileId, offset: u64, blocks: Vec<Content>, kept: Kept) {
        let file = &mut self.files[file];
        file.writes += 1;
        for (index, content) in blocks.into_iter().enumerate() {
            let index = offset as usize / BLOCK_BYTES + index;
            let mask = kept.mask(&mut self.random);
            if mask == 0 {
                continue;
            }
            file.current.put(index, &content, mask);
            // What is not kept here stays what it was, so the whole block may count as written.
            file.pending.push(Pending {
                write: file.writes,
                what: PendingWhat::Block(index, file.current.block(index)),
            });
        }
    }

    fn sync(&mut self, file: FileId, write: u64, seen: &Cell<u64>) -> io::Result<Vec<u8>> {
        if self.random.permille(self.faults.sync_errors) {
            self.counts.failed_syncs += 1;
            self.lose(file, write);
            let file = &mut self.files[file];
            file.errors += 1;
        }
        let data = &mut self.files[file];
        if seen.replace(data.errors) != data.errors {
            return Err(io::Error::from_raw_os_error(IO_ERROR));
        }
        for some in mem::take(&mut data.pending) {
            if some.write > write {
                data.pending.push(some);
                continue;
            }
            match some.what {
                PendingWhat::Block(index, content) => {
                    data.durable.put(index, &content, ALL_SECTORS)
                }
                PendingWhat::Length(length) => data.durable.cut(length),
            }
        }
        self.counts.page_syncs += u64::from(data.name.ends_with(".pages"));
        Ok(Vec::new())
    }

    fn reserve(&mut self, file: FileId, length: u64) -> io::Result<Vec<u8>> {
        let blocks = (length as usize).div_ceil(BLOCK_BYTES);
        if !self.allocate(file, 0, blocks) {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        let file = &mut self.files[file];
        if file.current.length < length {
            file.set_length(length);
        }
        Ok(Vec::new())
    }

    fn allocate(&mut self, file: FileId, first: usize, blocks: usize) -> bool {
        let allocated = &mut self.files[file].allocated;
        if allocated.len() < first + blocks {
            allocated.resize(first + blocks, false);
        }
        let range = &mut allocated[first..first + blocks];
        let wanted = range.iter().filter(|&&is| !is).count();
        let most = self.faults.blocks_max.unwrap_or(usize::MAX);
        if wanted > 0 && self.blocks + wanted > most {
            self.counts.refused_for_room += 1;
            return false;
        }
        range.fill(true);
        self.blocks += wanted;
        true
    }
}

/// How much of a write there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    None,
    Some,
    All,
}

impl Kept {
    fn mask(self, random: &mut Random) -> u8 {
        match self {
            Kept::None => 0,
            Kept::Some => random.next() as u8,
            Kept::All => ALL_SECTORS,
        }
    }
}

impl FileData {
    fn set_length(&mut self, length: u64) {
        self.current.cut(length);
        self.writes += 1;
        self.pending.push(Pending {
            write: self.writes,
            what: PendingWhat::Length(length),
        });
    }
}

impl Image {
    fn block(&self, index: usize) -> Content {
        self.blocks.get(index).cloned().flatten()
    }

    fn set(&mut self, index: usize, content: Content) {
        if content.is_some() && self.blocks.len() <= index {
            self.blocks.resize(index + 1, None);
        }
        if let Some(block) = self.blocks.get_mut(index) {
            *block = content;
        }
    }

    /// Writes these sectors of a block.
    fn put(&mut self, index: usize, content: &Content, sectors: u8) {
        if sectors == 0 {
            return;
        }
        let last = 8 - sectors.leading_zeros() as u64;
        let end = index as u64 * BLOCK_BYTES as u64 + last * SECTOR_BYTES as u64;
        self.length = self.length.max(end);
        if sectors == ALL_SECTORS {
            return self.set(index, content.clone());
        }
        let mut block = self.block(index).map_or([0; BLOCK_BYTES], |b| *b);
        let new = content.as_deref().unwrap_or(&[0; BLOCK_BYTES]);
        for sector in 0..8 {
            if sectors >> sector & 1 == 1 {
                let bytes = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                block[bytes.clone()].copy_from_slice(&new[bytes]);
            }
        }
        self.set(index, pack(&block));
    }

    fn cut(&mut self, length: u64) {
        if length < self.length {
            self.blocks
                .truncate((length as usize).div_ceil(BLOCK_BYTES));
        }
        self.length = length;
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let first = offset as usize / BLOCK_BYTES;
        for (index, some) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
            if let Some(Some(block)) = self.blocks.get(first + index) {
                some.copy_from_slice(&block[..some.len()]);
            }
        }
        bytes
    }
}

fn pack(bytes: &[u8]) -> Content {
    let block: &Block = bytes.try_into().expect("writes are whole blocks");
    (*block != [0; BLOCK_BYTES]).then(|| Rc::new(*block))
}

/// The data folder on the simulated disk, as one shard's core sees it.
#[derive(Clone)]
pub struct SimStorage {
    world: Rc<World>,
}

/// An open file.
pub struct SimFile {
    world: Rc<World>,
    id: FileId,
    errors_seen: Rc<Cell<u64>>,
}

impl SimStorage {
    pub fn new(world: &Rc<World>) -> SimStorage {
        SimStorage {
            world: world.clone(),
        }
    }
}

impl Storage for SimStorage {
    type File = SimFile;

    async fn open(&self, name: &str, create: bool) -> io::Result<SimFile> {
        let find = || {
            let disk = self.world.disk.borrow();
            let id = *disk.names.get(name)?;
            Some((id, disk.files[id].errors))
        };
        let found = match find() {
            None if create => {
                let created = self.world.submit(Operation::Create(name.to_owned()));
                created.wait().await?;
                find()
            }
            found => found,
        };
        let (id, errors) = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile {
            world: self.world.clone(),
            id,
            errors_seen: Rc::new(Cell::new(errors)),
        })
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut disk = self.world.disk.borrow_mut();
        let names = disk.names(folder);
        let mut names: Vec<String> = names
            .into_iter()
            .map(|name| name[folder.len() + 1..].to_owned())
            .collect();
        // In no order.
        for i in (1..names.len()).rev() {
            let j = disk.random.below(i as u64 + 1) as usize;
            names.swap(i, j);
        }
        Ok(names)
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.world.submit(Operation::Remove(name.to_owned()));
        removed.wait().await.map(drop)
    }
}

impl SimFile {
    async fn ask(&self, operation: Operation) -> io::Result<Vec<u8>> {
        self.world.submit(operation).wait().await
    }
}

impl File for SimFile {
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64) && length.is_multiple_of(BLOCK_BYTES));
        self.ask(Operation::Read(self.id, offset, length)).await
    }

    async fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64));
        let blocks = bytes.chunks(BLOCK_BYTES).map(pack).collect();
        let written = self.ask(Operation::Write(self.id, offset, blocks)).await;
        written.map(drop)
    }

    async fn sync(&self) -> io::Result<()> {
        let write = self.world.disk.borrow().files[self.id].writes;
        let seen = self.errors_seen.clone();
        self.ask(Operation::Sync(self.id, write, seen))
            .await
            .map(drop)
    }

    async fn length(&self) -> io::Result<u64> {
        Ok(self.world.disk.borrow().files[self.id].current.length)
    }

    async fn set_length(&self, length: u64) -> io::Result<()> {
        let set = self.ask(Operation::SetLength(self.id, length)).await;
        set.map(drop)
    }

    async fn reserve(&self, length: u64) -> io::Result<()> {
        let reserved = self.ask(Operation::Reserve(self.id, length)).await;
        reserved.map(drop)
    }

    fn is_same(&self, other: &SimFile) -> bool {
        self.id == other.id
    }

    fn is_unlinked(&self) -> bool {
        let disk = self.world.disk.borrow();
        !disk.names.values().any(|&id| id == self.id)
    }
}

impl std::ops::AddAssign for DiskCounts {
    fn add_assign(&mut self, more: DiskCounts) {
        self.torn_writes += more.torn_writes;
        self.lost_writes += more.lost_writes;
        self.failed_writes += more.failed_writes;
        self.failed_syncs += more.failed_syncs;
        self.failed_reads += more.failed_reads;
        self.refused_for_room += more.refused_for_room;
        self.recycled_segments += more.recycled_segments;
        self.undone_writes += more.undone_writes;
        self.page_syncs += more.page_syncs;
        self.evictions += more.evictions;
    }
}
