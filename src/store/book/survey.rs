//! Which book files there are in a data folder, which of them count, and what they say.
//!
//! Of a shard's two files the newer counts; a book of an earlier round than the newest recovery's
//! has nothing that the book of that recovery lacks. A file that counts and is damaged or gone is
//! reported: what it said of payments is nowhere else.

use std::io;

use super::{
    Counts, Entry,
    file::{BookName, Half, give_up},
    gathered::Gathered,
    layout::{self, CHUNK_BYTES, FIRST_CHUNK_OFFSET, Header, HeaderFault},
};
use crate::runtime::{BLOCK_BYTES, File, Storage};
use crate::store::{
    BOOK_FOLDER, recovery::Fault, round::CompleteRound, segment_list::Checkpointed, window::Window,
};

/// The book files of a data folder.
pub(in crate::store) struct BookSurvey {
    files: Vec<Found>,
    /// What is damaged or missing, as far as headers tell.
    pub faults: Vec<Fault>,
    /// The newest round in any header.
    pub round: u64,
}

struct Found {
    name: BookName,
    header: Result<Option<Header>, HeaderFault>,
    standing: Standing,
}

/// What a file is to a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It counts.
    Newest,
    /// The other of its pair is newer, or nothing was ever written to it.
    Older,
    /// A recovery's book has all its entries; it should have been removed.
    LeftOver,
}

/// What of damaged books could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Entries that headers count and that no chunk has.
    pub entries: Counts,
    /// Whether an unknown number more is lost.
    pub is_more: bool,
}

impl BookSurvey {
    /// Reads the headers of all book files. Changes nothing. `left` is what checkpoints left, for
    /// which log records were given up.
    pub async fn of<S: Storage>(
        storage: &S,
        complete: &CompleteRound,
        left: &[&Checkpointed],
    ) -> io::Result<BookSurvey> {
        let mut files = Vec::new();
        for name in storage.list(BOOK_FOLDER).await? {
            let Some(name) = BookName::parse(&name) else {
                continue;
            };
            let file = storage.open(&name.path(), false).await?;
            let mut header = layout::decode_header(&file.read_at(0, BLOCK_BYTES).await?);
            if let Ok(Some(Header { shard, shards, .. })) = header
                && (shard, shards) != (name.shard, name.shards)
            {
                header = Err(HeaderFault::OtherShard);
            }
            files.push(Found {
                name,
                header,
                standing: Standing::Older,
            });
        }
        files.sort_by_key(|found| found.name);
        let mut survey = BookSurvey {
            round: files.iter().filter_map(Found::round).max().unwrap_or(0),
            files,
            faults: Vec::new(),
        };
        survey.find_standings(complete);
        survey.find_faults(complete);
        survey.find_lost(left);
        Ok(survey)
    }

    fn find_standings(&mut self, complete: &CompleteRound) {
        let since = match complete {
            CompleteRound::Known { book, .. } => book.unwrap_or(0),
            CompleteRound::Unknown | CompleteRound::Damaged => 0,
        };
        let same_pair = |a: &Found, b: &Found| a.name.pair() == b.name.pair();
        for pair in self.files.chunk_by_mut(same_pair) {
            let newest = pair.iter().filter_map(Found::round).max();
            for found in pair {
                found.standing = match found.round() {
                    Some(_) if newest < Some(since) => Standing::LeftOver,
                    round if round.is_some() && round == newest => Standing::Newest,
                    _ => Standing::Older,
                };
            }
        }
    }

    fn find_faults(&mut self, complete: &CompleteRound) {
        for found in &self.files {
            let missing = found.name.other();
            if let Err(fault) = found.header {
                self.faults.push(found.fault(0, &fault.to_string()));
            } else if found.standing == Standing::Newest && self.find(missing).is_none() {
                let there = found.name.path();
                self.faults.push(Fault {
                    file: missing.path(),
                    offset: 0,
                    what: format!("the book file is missing: {there} was never written alone"),
                });
            }
        }
        let recovered = self
            .newest_of(BookName::RECOVERED)
            .map(|found| found.round());
        let what = match complete {
            _ if !self.faults.is_empty() => return,
            CompleteRound::Known {
                book: Some(book), ..
            } if recovered.is_none() => {
                format!("the book is missing that the recovery of round {book} left")
            }
            CompleteRound::Damaged
                if !self.files.iter().any(|f| f.standing == Standing::Newest) =>
            {
                "there is no book, and the damaged `round` does not tell whether there was one"
                    .to_owned()
            }
            _ => return,
        };
        self.faults.push(Fault {
            file: BookName::RECOVERED.path(),
            offset: 0,
            what,
        });
    }

    /// Finds shards with neither book file, though log records were given up for their books.
    fn find_lost(&mut self, left: &[&Checkpointed]) {
        let mut names: Vec<BookName> = Vec::new();
        for of in left {
            let shards = 0..of.shards.min(64);
            let with_book = shards.filter(|shard| of.books >> shard & 1 == 1);
            names.extend(with_book.map(|shard| BookName {
                shards: of.shards,
                shard,
                half: Half::A,
            }));
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            if !Half::BOTH
                .iter()
                .any(|&half| self.find(name.with(half)).is_some())
            {
                self.faults.push(Fault {
                    file: name.path(),
                    offset: 0,
                    what: "the book of this shard is missing, that a checkpoint left".to_owned(),
                });
            }
        }
    }

    /// A book that a newer program than this one wrote; this one must not give it up.
    pub fn of_another_version(&self) -> Option<Fault> {
        let faults = self.files.iter().filter_map(|found| match found.header {
            Err(fault @ HeaderFault::Version(_)) => Some(found.fault(0, &fault.to_string())),
            _ => None,
        });
        faults.min_by(|a, b| a.file.cmp(&b.file))
    }

    /// The file that a recovery writes its book to: not the newest of that pair.
    pub fn recovery_target(&self) -> BookName {
        let newest = self.newest_of(BookName::RECOVERED);
        newest.map_or(BookName::RECOVERED, |found| found.name.other())
    }

    /// Makes durable the headers of the books that count: a process that was killed, or whose sync
    /// failed, may have left one that reads as whole and that a power failure would still take.
    /// What follows it was durable before it was written.
    pub async fn make_durable<S: Storage>(&self, storage: &S) -> io::Result<()> {
        for found in self.with(Standing::Newest) {
            let file = storage.open(&found.name.path(), false).await?;
            let header = file.read_at(0, BLOCK_BYTES).await?;
            file.write_at(&header, 0).await?;
            file.sync().await?;
        }
        Ok(())
    }

    /// Removes all books but that of the recovery, which is durable and has all they say. A damaged
    /// header is made to say nothing first: a removed file may be there again after a power
    /// failure.
    pub async fn give_up<S: Storage>(&self, storage: &S) -> io::Result<()> {
        let target = self.recovery_target();
        for found in self.files.iter().filter(|found| found.name != target) {
            if found.header.is_err() {
                give_up(&storage.open(&found.name.path(), false).await?).await?;
            }
            if found.name.pair() != target.pair() {
                storage.remove(&found.name.path()).await?;
            }
        }
        Ok(())
    }

    /// Adds what the books that count say. Gives what is damaged in them.
    pub async fn read<S: Storage>(
        &self,
        storage: &S,
        gathered: &mut Gathered,
    ) -> io::Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for found in self.with(Standing::Newest) {
            let Ok(Some(header)) = found.header else {
                unreachable!("the newest has a header");
            };
            let each = |entry| gathered.add_entry(entry);
            faults.extend(found.read(storage, &header, each).await?);
        }
        Ok(faults)
    }

    /// Looks at the books that do not count. Gives what is damaged or left over.
    pub async fn read_others<S: Storage>(&self, storage: &S) -> io::Result<Vec<Fault>> {
        let mut told = Vec::new();
        for found in &self.files {
            match (found.standing, found.header) {
                (Standing::LeftOver, _) => told.push(found.fault(
                    0,
                    "left over: the newest recovery's book has all it says, and the next start removes it",
                )),
                (Standing::Older, Ok(Some(header))) => {
                    let fault = found.read(storage, &header, |_| ()).await?;
                    told.extend(fault.map(|fault| Fault {
                        what: format!("{}; the next checkpoint writes over it", fault.what),
                        ..fault
                    }));
                }
                _ => {}
            }
        }
        Ok(told)
    }

    /// Adds whatever can be read in any of the files, where [`read`](BookSurvey::read) finds
    /// damage: what an older book says is not wrong, only not all.
    pub async fn salvage<S: Storage>(
        &self,
        storage: &S,
        gathered: &mut Gathered,
    ) -> io::Result<Losses> {
        gathered.is_in_part();
        let mut losses = Losses::default();
        for found in &self.files {
            let round = found.round();
            let mut counts = Counts::default();
            for (of_round, entry) in found.whole_chunks(storage).await? {
                if Some(of_round) == round {
                    counts.add(&entry);
                }
                gathered.add_entry(entry);
            }
            match found.header {
                Ok(Some(header)) if found.standing == Standing::Newest => {
                    losses.add(header.counts, counts);
                }
                Err(_) => losses.is_more = true,
                _ => {}
            }
        }
        let is_missing = |fault: &Fault| {
            let is_there = |found: &Found| found.name.path() == fault.file;
            !self.files.iter().any(is_there)
        };
        losses.is_more |= self.faults.iter().any(is_missing);
        Ok(losses)
    }

    fn with(&self, standing: Standing) -> impl Iterator<Item = &Found> {
        let files = self.files.iter();
        files.filter(move |found| found.standing == standing)
    }

    fn newest_of(&self, name: BookName) -> Option<&Found> {
        let mut newest = self.with(Standing::Newest);
        newest.find(|found| found.name.pair() == name.pair())
    }

    fn find(&self, name: BookName) -> Option<&Found> {
        self.files.iter().find(|found| found.name == name)
    }
}

impl Found {
    fn round(&self) -> Option<u64> {
        let header = self.header.ok()??;
        Some(header.round)
    }

    fn fault(&self, offset: u64, what: &str) -> Fault {
        Fault {
            file: self.name.path(),
            offset,
            what: what.to_owned(),
        }
    }

    /// Calls `each` for every entry up to the first that cannot be read; gives what is wrong there.
    async fn read<S: Storage>(
        &self,
        storage: &S,
        header: &Header,
        mut each: impl FnMut(Entry),
    ) -> io::Result<Option<Fault>> {
        let file = storage.open(&self.name.path(), false).await?;
        let (length, end) = (file.length().await?, FIRST_CHUNK_OFFSET + header.length);
        if length < end {
            let what = format!("the book ends here; it had {end} bytes");
            return Ok(Some(self.fault(length, &what)));
        }
        let mut window = Window::new(&file, end);
        let mut offset = FIRST_CHUNK_OFFSET;
        let mut counts = Counts::default();
        let mut crc = 0;
        while offset < end {
            let block = window.at(offset, BLOCK_BYTES).await?;
            let bytes = layout::chunk_length(block, header.round);
            let bytes = bytes.filter(|&bytes| offset + bytes as u64 <= end);
            let chunk = match bytes {
                Some(bytes) => layout::decode_chunk(window.at(offset, bytes).await?),
                None => None,
            };
            let is_read = chunk.is_some_and(|(entries, of_chunk)| {
                crc = crc32c::crc32c_append(crc, &of_chunk.to_le_bytes());
                layout::decode_entries(entries, |entry| {
                    counts.add(&entry);
                    each(entry);
                })
            });
            match bytes {
                Some(bytes) if is_read => offset += bytes as u64,
                _ => return Ok(Some(self.fault(offset, "this part of the book is damaged"))),
            }
        }
        let is_all = (crc, counts) == (header.crc, header.counts);
        Ok((!is_all).then(|| self.fault(0, "the book's header does not fit what follows it")))
    }

    /// The entries of all chunks that are whole, whatever lies between them, each with its chunk's
    /// round.
    async fn whole_chunks<S: Storage>(&self, storage: &S) -> io::Result<Vec<(u64, Entry)>> {
        let file = storage.open(&self.name.path(), false).await?;
        let length = file.length().await?;
        let length = length.next_multiple_of(BLOCK_BYTES as u64);
        let mut window = Window::new(&file, length);
        let mut offset = FIRST_CHUNK_OFFSET;
        let mut found = Vec::new();
        while offset < length {
            let block = window.at(offset, BLOCK_BYTES).await?;
            let mut step = BLOCK_BYTES;
            if let Some(round) = layout::chunk_round(block)
                && let Some(bytes) = layout::chunk_length(block, round)
                && offset + bytes as u64 <= length
                && let Some((entries, _)) = layout::decode_chunk(window.at(offset, bytes).await?)
                && layout::decode_entries(entries, |entry| found.push((round, entry)))
            {
                debug_assert!(bytes <= CHUNK_BYTES);
                step = bytes;
            }
            offset += step as u64;
        }
        Ok(found)
    }
}

impl Losses {
    fn add(&mut self, said: Counts, read: Counts) {
        let lost = &mut self.entries;
        // Headers may be wrong, and then the sum is wrong too; it must only not overflow.
        let add = |lost: &mut u64, said: u64, read: u64| {
            *lost = lost.saturating_add(said.saturating_sub(read));
        };
        add(&mut lost.coins, said.coins, read.coins);
        add(&mut lost.sales, said.sales, read.sales);
        add(&mut lost.payments, said.payments, read.payments);
    }
}

impl BookName {
    /// Where a recovery's book is, in either half.
    const RECOVERED: BookName = BookName {
        shards: 1,
        shard: 0,
        half: Half::A,
    };

    fn pair(&self) -> (u16, u16) {
        (self.shards, self.shard)
    }

    fn other(self) -> BookName {
        self.with(self.half.other())
    }
}
