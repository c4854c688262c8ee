use std::{future::Future, io, time::Duration};

use super::signal::yield_now;

/// Alignment and granularity of every read and write: offsets and lengths are multiples of this, in
/// bytes, so that direct I/O can serve them on any device.
pub const BLOCK_BYTES: usize = 4_096;

/// Whether this holds only zeros, as a place does that was never written.
pub fn is_blank(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    let mut pieces = bytes.chunks(BLOCK_BYTES);
    pieces.all(|piece| *piece == ZEROS[..piece.len()])
}

/// Everything the store and the shards take from outside: files, time, randomness and somewhere to
/// run a task. A node on glommio and a node in a simulator differ in this alone
/// (docs/architecture.md, "Rules that always hold", 8).
pub trait Environment: Clone + 'static {
    /// Where the data folder's files live.
    type Storage: Storage;

    /// The data folder.
    fn storage(&self) -> &Self::Storage;

    /// Runs a task on this core until it ends; nobody waits for it.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Lets this core's other tasks run, and the executor see what the kernel has finished.
    fn turn(&self) -> impl Future<Output = ()> {
        yield_now()
    }

    /// As [`turn`](Environment::turn), for long work on one request: of all that wait here only one
    /// goes on each time.
    fn turn_in_line(&self) -> impl Future<Output = ()> {
        self.turn()
    }

    /// Waits at least this long.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Time since some moment, the same one on all cores of a node; never goes back.
    fn monotonic(&self) -> Duration;

    /// Seconds since 1970 in UTC.
    fn unix_seconds(&self) -> u64;

    /// Microseconds since 1970 in UTC, as far as anybody knows.
    fn unix_micros(&self) -> u64 {
        self.unix_seconds() * 1_000_000
    }

    /// Fills `bytes` from a source that nobody can predict.
    fn random(&self, bytes: &mut [u8]);
}

/// The data folder, as little of a file system as the store needs: small enough that a test can
/// stand in for it and tear writes, lose them, or run out of room.
pub trait Storage: Clone + 'static {
    /// An open file.
    type File: File;

    /// Opens a file for reading and writing; `name` is relative to the data folder, with `/`
    /// between its parts. Where `create` is set, a missing file is made, empty, and its name is
    /// durable before this returns; the folder it is in exists already.
    ///
    /// # Errors
    /// As the operating system gives them; `NotFound` for a missing file without `create`.
    fn open(&self, name: &str, create: bool) -> impl Future<Output = io::Result<Self::File>>;

    /// Names of the files in a folder, in no order; empty where there is no such folder.
    fn list(&self, folder: &str) -> impl Future<Output = io::Result<Vec<String>>>;

    /// Removes a file.
    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>>;

    /// Whether an open file is still the one with this name. What cannot be told counts as yes.
    fn is_in_place(&self, name: &str, file: &Self::File) -> impl Future<Output = bool> {
        async move {
            match self.open(name, false).await {
                Ok(other) => file.is_same(&other),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        }
    }
}

/// An open file. Reads and writes are whole blocks of [`BLOCK_BYTES`].
///
/// A write that has returned may still be lost, in whole or in any of its 512-byte sectors, until a
/// later [`sync`](File::sync) has returned; so may a write that failed.
pub trait File: 'static {
    /// Reads `length` bytes; what lies beyond the end of the file reads as zeros.
    fn read_at(&self, offset: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>>;

    /// Writes all of `bytes`, growing the file where needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> impl Future<Output = io::Result<()>>;

    /// Makes every write that returned before this call durable.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// The file's length in bytes.
    fn length(&self) -> impl Future<Output = io::Result<u64>>;

    /// Cuts or grows (sparsely) the file to this length.
    fn set_length(&self, length: u64) -> impl Future<Output = io::Result<()>>;

    /// Makes sure that the file has room on the disk for `length` bytes.
    ///
    /// # Errors
    /// `StorageFull` where there is not enough.
    fn reserve(&self, length: u64) -> impl Future<Output = io::Result<()>>;

    /// Whether the two are the same file.
    fn is_same(&self, other: &Self) -> bool;

    /// Whether no name leads to the file any more, so that nobody finds it when this process has
    /// ended. Costs no I/O.
    fn is_unlinked(&self) -> bool;
}
