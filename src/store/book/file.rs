//! A shard's two book files, written in turns.
//!
//! The one that does not hold the newest book is written: its header is overwritten with zeros,
//! then its chunks are written, then its header, each made durable before the next. So a header
//! that is whole says that everything behind it is durable, and a write cut short anywhere leaves
//! the other file.

use std::{cell::Cell, io};

use super::{
    Entry,
    layout::{self, CHUNK_BYTES, Chunk, Counts, FIRST_CHUNK_OFFSET, Header},
};
use crate::runtime::{BLOCK_BYTES, Environment, File, Storage};
use crate::{coin::ShardId, store::BOOK_FOLDER};

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Half {
    A,
    B,
}

impl Half {
    pub const BOTH: [Half; 2] = [Half::A, Half::B];

    pub fn other(self) -> Half {
        match self {
            Half::A => Half::B,
            Half::B => Half::A,
        }
    }
}

/// A book file's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct BookName {
    pub shards: u16,
    pub shard: u16,
    pub half: Half,
}

impl BookName {
    /// The file, relative to the data folder.
    pub fn path(&self) -> String {
        format!("{BOOK_FOLDER}/{}", self.in_folder())
    }

    fn in_folder(&self) -> String {
        let half = match self.half {
            Half::A => 'a',
            Half::B => 'b',
        };
        format!("{}-{}-{half}", self.shards, self.shard)
    }

    /// The name of a file in the folder of books; `None` for a foreign file.
    pub fn parse(name: &str) -> Option<BookName> {
        let (shards, rest) = name.split_once('-')?;
        let (shard, half) = rest.split_once('-')?;
        let parsed = BookName {
            shards: shards.parse().ok()?,
            shard: shard.parse().ok()?,
            half: match half {
                "a" => Half::A,
                "b" => Half::B,
                _ => return None,
            },
        };
        // Also refuses `+1-00-a`, which would be another name of the same file.
        (parsed.shard < parsed.shards && parsed.in_folder() == name).then_some(parsed)
    }

    pub fn with(self, half: Half) -> BookName {
        BookName { half, ..self }
    }
}

/// Where a shard keeps what it has to remember of its lockers.
#[derive(Debug)]
pub struct BookFile {
    name: BookName,
    /// The file to write next, once that is known: the one without the newest durable book. A write
    /// that failed may have left a header that reads as whole and is not durable, so it does not
    /// change this.
    next: Cell<Option<Half>>,
    is_written: Cell<bool>,
}

impl BookFile {
    /// The files of one of `shards` shards.
    pub fn new(shard: ShardId, shards: u16) -> BookFile {
        BookFile {
            name: BookName {
                shards,
                shard: shard.index() as u16,
                half: Half::A,
            },
            next: Cell::new(None),
            is_written: Cell::new(false),
        }
    }

    /// Whether a book was written here: from then on the files have to be there.
    pub fn is_written(&self) -> bool {
        self.is_written.get()
    }

    /// Writes a book: everything there is to remember of the shard's lockers, as of a checkpoint
    /// round, which is later than any before. Await it to its end.
    ///
    /// `next` appends some entries to an empty list, a few thousand at most since that is done in
    /// one go, and none when there are no more. The core's other tasks run in between and may
    /// change what it reads. It has to give all entries that did not change meanwhile; what has
    /// changed since the checkpoint began is in the log as well. `durable` is awaited after the
    /// last entry and before the book counts, where an entry may not be in a log on the disk yet.
    ///
    /// # Errors
    /// As the storage gives them; the book before it is as it was then, and the logs are still
    /// needed.
    pub async fn write<E: Environment>(
        &self,
        environment: &E,
        round: u64,
        next: impl FnMut(&mut Vec<Entry>),
        durable: &impl AsyncFn(),
    ) -> io::Result<()> {
        let storage = environment.storage();
        let half = match self.next.get() {
            Some(half) => half,
            None => {
                let half = self.find_next(storage).await?;
                self.next.set(Some(half));
                half
            }
        };
        let name = self.name.with(half);
        write_book(storage, name, round, next, durable, &|| {
            environment.turn_in_line()
        })
        .await?;
        self.next.set(Some(half.other()));
        self.is_written.set(true);
        Ok(())
    }

    /// The file that does not hold the newest book.
    async fn find_next<S: Storage>(&self, storage: &S) -> io::Result<Half> {
        make_pair(storage, self.name).await?;
        let mut newest = None;
        for half in Half::BOTH {
            let file = storage.open(&self.name.with(half).path(), false).await?;
            let header = layout::decode_header(&file.read_at(0, BLOCK_BYTES).await?);
            let round = header.ok().flatten().map(|header| header.round);
            newest = newest.max(round.map(|round| (round, half)));
        }
        Ok(newest.map_or(Half::A, |(_, half)| half.other()))
    }
}

/// Makes both files of a shard where they are missing, before either says that it holds a book: one
/// without the other then shows that a file was lost.
pub(in crate::store) async fn make_pair<S: Storage>(storage: &S, name: BookName) -> io::Result<()> {
    for half in Half::BOTH {
        storage.open(&name.with(half).path(), true).await?;
    }
    Ok(())
}

/// Writes a book to this file, which exists. `turn` is awaited between parts of the work.
pub(in crate::store) async fn write_book<S: Storage, T: Future<Output = ()>>(
    storage: &S,
    name: BookName,
    round: u64,
    mut next: impl FnMut(&mut Vec<Entry>),
    durable: &impl AsyncFn(),
    turn: &impl Fn() -> T,
) -> io::Result<()> {
    let file = storage.open(&name.path(), false).await?;
    // A damaged header already says that what follows does not count. It stays until the end: a
    // crash before that must not make it look like a write cut short.
    if layout::decode_header(&file.read_at(0, BLOCK_BYTES).await?).is_ok() {
        give_up(&file).await?;
    }
    let mut body = Body {
        file: &file,
        round,
        end: FIRST_CHUNK_OFFSET,
        crc: 0,
        chunk: Chunk::new(),
    };
    let mut counts = Counts::default();
    let mut entries = Vec::new();
    loop {
        entries.clear();
        next(&mut entries);
        if entries.is_empty() {
            break;
        }
        for entry in &entries {
            counts.add(entry);
            if !body.chunk.push(entry) {
                body.write_chunk().await?;
                let fits = body.chunk.push(entry);
                assert!(fits, "an entry is smaller than a chunk");
            }
        }
        turn().await;
    }
    if !body.chunk.is_empty() {
        body.write_chunk().await?;
    }
    let (end, crc) = (body.end, body.crc);
    if file.length().await? > end {
        file.set_length(end).await?; // the rest of an older and longer book counts for nothing
    }
    file.sync().await?;
    durable().await;
    let header = Header {
        shard: name.shard,
        shards: name.shards,
        round,
        length: end - FIRST_CHUNK_OFFSET,
        counts,
        crc,
    };
    file.write_at(&layout::encode_header(&header), 0).await?;
    file.sync().await
}

/// Makes a file say that it holds no book.
pub(in crate::store) async fn give_up(file: &impl File) -> io::Result<()> {
    file.write_at(&[0; BLOCK_BYTES], 0).await?;
    file.sync().await
}

struct Body<'a, F> {
    file: &'a F,
    round: u64,
    end: u64,
    crc: u32,
    chunk: Chunk,
}

impl<F: File> Body<'_, F> {
    async fn write_chunk(&mut self) -> io::Result<()> {
        let (bytes, crc) = self.chunk.seal(self.round);
        debug_assert!(bytes.len() <= CHUNK_BYTES);
        self.file.write_at(bytes, self.end).await?;
        self.end += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &crc.to_le_bytes());
        self.chunk.clear();
        Ok(())
    }
}

impl Counts {
    pub(super) fn add(&mut self, entry: &Entry) {
        *match entry {
            Entry::Coin(..) => &mut self.coins,
            Entry::Sale(_) => &mut self.sales,
            Entry::Payment(_) => &mut self.payments,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_read_back_is_the_same_and_a_foreign_one_is_none() {
        for half in Half::BOTH {
            let name = BookName {
                shards: 16,
                shard: 15,
                half,
            };
            let path = name.path();
            let in_folder = path.strip_prefix("book/").unwrap();
            assert_eq!(BookName::parse(in_folder), Some(name));
        }
        for foreign in [
            "", "1-0", "1-1-a", "01-0-a", "+1-0-a", "1-0-c", "1-0-a~", "x-0-a",
        ] {
            assert_eq!(BookName::parse(foreign), None, "{foreign}");
        }
    }
}
