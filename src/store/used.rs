//! Single-use items that were used (spent encryption tickets), as far as they must survive a
//! restart.
//!
//! A running node remembers in memory what was used, for as long as the item would be accepted at
//! all. A restart loses that memory. This file says up to which moment everything counts as used,
//! and what was used since. That is little: where it becomes more than a block holds, the moment
//! moves on.

use std::{
    cell::{Cell, RefCell},
    io,
};

use crate::runtime::{BLOCK_BYTES, File, Signal, Storage, is_blank};

/// The file, relative to the data folder. There is none before anything was used. It has two
/// blocks, which are written in turns: one that is cut short leaves the other.
pub(super) const USED_FILE: &str = "used";

const MAGIC: [u8; 8] = *b"RAIDAUSD";
const VERSION_OFFSET: usize = 8;
const UNTIL_OFFSET: usize = 16;
const COUNT_OFFSET: usize = 24;
const THINGS_OFFSET: usize = 32;
const CRC_OFFSET: usize = BLOCK_BYTES - 4;
const THING_BYTES: usize = 16;
/// Things that a block holds.
const THINGS_MAX: usize = (CRC_OFFSET - THINGS_OFFSET) / THING_BYTES;
/// Number of moments before the latest whose things are listed; every older thing counts as used.
const MOMENTS_LISTED: u64 = 2;

/// A thing that may be used once: the moment it is from, and what tells it from others of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thing {
    /// When it was made. The user of this type chooses the unit.
    pub moment: u64,
    /// Its name.
    pub name: u64,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Used {
    /// Everything until this moment was used, and these things since. Moment 0 and no things mean
    /// that nothing was used.
    Known(u64, Vec<Thing>),
    /// Nobody knows: neither of the two blocks can be read.
    Unknown,
}

impl Used {
    /// The moment until which everything was used, and what was used since; where that is unknown,
    /// `latest` and nothing since.
    pub fn or_until(&self, latest: u64) -> (u64, &[Thing]) {
        match self {
            Used::Known(until, since) => (*until, since),
            Used::Unknown => (latest, &[]),
        }
    }
}

/// Keeps the file up to date. One value in a node writes it.
pub struct UsedFile {
    until: Cell<u64>,
    since: RefCell<Vec<Thing>>,
    version: Cell<u64>,
    durable: Cell<u64>,
    is_writing: Cell<bool>,
    written: Signal,
}

/// Reads the file. Returns what it says and the version of that; 0 where there is no block.
pub(super) async fn read<S: Storage>(storage: &S) -> io::Result<(Used, u64)> {
    match storage.open(USED_FILE, false).await {
        Ok(file) => Ok(decode(&file.read_at(0, 2 * BLOCK_BYTES).await?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Used::Known(0, vec![]), 0)),
        Err(error) => Err(error),
    }
}

/// Reads the file for a node that goes on from it, and makes what it says durable. A process that
/// was killed, or whose sync failed, leaves a block behind that a power failure would still undo;
/// what that block says must be on the disk before the next one takes the place of the one before.
/// It is written again, the same bytes to the same place: however that is cut short, it costs
/// nothing that is on the disk.
pub(super) async fn take_over<S: Storage>(storage: &S) -> io::Result<(Used, u64)> {
    let (used, version) = read(storage).await?;
    if version > 0 {
        let file = storage.open(USED_FILE, false).await?;
        let block = file.read_at(place(version), BLOCK_BYTES).await?;
        file.write_at(&block, place(version)).await?;
        file.sync().await?;
    }
    Ok((used, version))
}

/// Where the block of this version is; the version before it is in the other block.
fn place(version: u64) -> u64 {
    version % 2 * BLOCK_BYTES as u64
}

impl UsedFile {
    /// Goes on from this version of the file's content, which is durable.
    pub fn new((until, since): (u64, &[Thing]), version: u64) -> UsedFile {
        UsedFile {
            until: Cell::new(until),
            since: RefCell::new(since.to_vec()),
            version: Cell::new(version),
            durable: Cell::new(version),
            is_writing: Cell::new(false),
            written: Signal::default(),
        }
    }

    /// Makes durable that these things were used. Callers that come while another's are being
    /// written go into the next block together.
    ///
    /// # Errors
    /// As the storage gives them; the things may count as used after the next start.
    pub async fn remember<S: Storage>(&self, storage: &S, things: &[Thing]) -> io::Result<()> {
        self.add(things);
        let mine = self.version.get() + 1;
        self.version.set(mine);
        while self.durable.get() < mine {
            let before = self.written.moment();
            if self.is_writing.get() {
                self.written.after(before).await;
                continue;
            }
            let _turn = Turn::take(self);
            // The version tells which block is not the newest.
            let version = self.version.get();
            let version = version + u64::from(version % 2 == self.durable.get() % 2);
            self.version.set(version);
            let block = encode(version, self.until.get(), &self.since.borrow());
            let file = storage.open(USED_FILE, true).await?;
            file.write_at(&block, place(version)).await?;
            file.sync().await?;
            self.durable.set(version);
        }
        Ok(())
    }

    fn add(&self, things: &[Thing]) {
        let mut since = self.since.borrow_mut();
        // Each thing is listed once: a thing whose use came to nothing may be used again.
        for thing in things {
            if !since.contains(thing) {
                since.push(*thing);
            }
        }
        let latest = since.iter().map(|thing| thing.moment).max().unwrap_or(0);
        let mut until = self.until.get().max(latest.saturating_sub(MOMENTS_LISTED));
        since.retain(|thing| thing.moment > until);
        if since.len() > THINGS_MAX {
            until = latest;
            since.clear();
        }
        self.until.set(until);
    }
}

/// The turn of a write; it also ends where the write fails or is dropped.
struct Turn<'a>(&'a UsedFile);

impl<'a> Turn<'a> {
    fn take(of: &'a UsedFile) -> Turn<'a> {
        of.is_writing.set(true);
        Turn(of)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_writing.set(false);
        self.0.written.notify();
    }
}

fn encode(version: u64, until: u64, since: &[Thing]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    block[..VERSION_OFFSET].copy_from_slice(&MAGIC);
    block[VERSION_OFFSET..UNTIL_OFFSET].copy_from_slice(&version.to_le_bytes());
    block[UNTIL_OFFSET..COUNT_OFFSET].copy_from_slice(&until.to_le_bytes());
    block[COUNT_OFFSET..THINGS_OFFSET].copy_from_slice(&(since.len() as u64).to_le_bytes());
    let places = block[THINGS_OFFSET..].chunks_exact_mut(THING_BYTES);
    for (place, thing) in places.zip(since) {
        place[..8].copy_from_slice(&thing.moment.to_le_bytes());
        place[8..].copy_from_slice(&thing.name.to_le_bytes());
    }
    let crc = crc32c::crc32c(&block[..CRC_OFFSET]);
    block[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    block
}

fn decode(blocks: &[u8]) -> (Used, u64) {
    let u64_at = |block: &[u8], at: usize| {
        u64::from_le_bytes(block[at..at + 8].try_into().expect("8 bytes"))
    };
    let is_sound = |block: &&[u8]| {
        let crc = crc32c::crc32c(&block[..CRC_OFFSET]);
        block.starts_with(&MAGIC)
            && block[CRC_OFFSET..] == crc.to_le_bytes()
            && u64_at(block, COUNT_OFFSET) <= THINGS_MAX as u64
    };
    let sound = blocks.chunks_exact(BLOCK_BYTES).filter(is_sound);
    if let Some(block) = sound.max_by_key(|block| u64_at(block, VERSION_OFFSET)) {
        let things = block[THINGS_OFFSET..].chunks_exact(THING_BYTES);
        let things = things.take(u64_at(block, COUNT_OFFSET) as usize);
        let things = things.map(|thing| Thing {
            moment: u64_at(thing, 0),
            name: u64_at(thing, 8),
        });
        let used = Used::Known(u64_at(block, UNTIL_OFFSET), things.collect());
        return (used, u64_at(block, VERSION_OFFSET));
    }
    match blocks.chunks_exact(BLOCK_BYTES).any(is_blank) {
        // A crash cut the first write short, so nothing that waited for it was used.
        true => (Used::Known(0, vec![]), 0),
        false => (Used::Unknown, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(moment: u64, name: u64) -> Thing {
        Thing { moment, name }
    }

    fn blank() -> Vec<u8> {
        vec![0; BLOCK_BYTES]
    }

    #[test]
    fn the_newer_of_two_whole_blocks_counts() {
        let things = [thing(8, 1), thing(9, u64::MAX)];
        let (old, new) = (encode(4, 7, &things[..1]), encode(5, 7, &things));
        let known = (Used::Known(7, things.to_vec()), 5);
        assert_eq!(decode(&[old.clone(), new.clone()].concat()), known);
        assert_eq!(decode(&[new.clone(), old.clone()].concat()), known);
        assert_eq!(decode(&[new.clone(), blank()].concat()), known);
        for sector in (0..BLOCK_BYTES).step_by(512) {
            let mut torn = new.clone();
            torn[sector..sector + 512].fill(0x77);
            let before = (Used::Known(7, things[..1].to_vec()), 4);
            assert_eq!(decode(&[torn.clone(), old.clone()].concat()), before);
            let nothing = (Used::Known(0, vec![]), 0);
            assert_eq!(decode(&[torn.clone(), blank()].concat()), nothing);
            assert_eq!(decode(&[torn.clone(), torn].concat()), (Used::Unknown, 0));
        }
    }

    #[test]
    fn a_block_holds_what_is_recent_and_no_more_than_fits() {
        let file = UsedFile::new((3, &[thing(4, 9)]), 0);
        file.add(&[thing(5, 1), thing(6, 2)]);
        assert_eq!(
            file.until.get(),
            4,
            "what is two moments older counts as used"
        );
        assert_eq!(*file.since.borrow(), [thing(5, 1), thing(6, 2)]);
        file.add(&[thing(4, 3), thing(3, 3)]);
        assert_eq!(file.since.borrow().len(), 2);
        let many: Vec<Thing> = (3..=THINGS_MAX as u64).map(|name| thing(6, name)).collect();
        file.add(&many);
        assert_eq!(file.since.borrow().len(), THINGS_MAX);
        let block = encode(1, file.until.get(), &file.since.borrow());
        let (Used::Known(4, since), 1) = decode(&[block, blank()].concat()) else {
            panic!("it is whole");
        };
        assert_eq!(since, *file.since.borrow());
        file.add(&[thing(6, 0)]);
        assert_eq!((file.until.get(), file.since.borrow().len()), (6, 0));
    }

    #[test]
    fn what_is_used_again_takes_no_more_room() {
        let file = UsedFile::new((3, &[thing(4, 9)]), 0);
        for _ in 0..2 * THINGS_MAX {
            file.add(&[thing(5, 1), thing(4, 9), thing(5, 1)]);
        }
        assert_eq!(*file.since.borrow(), [thing(4, 9), thing(5, 1)]);
        assert_eq!(file.until.get(), 3);
    }
}
