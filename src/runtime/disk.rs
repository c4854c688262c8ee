//! The storage of a real node: files of a folder through io_uring, around the page cache where the
//! file system allows it.
//!
//! The kernel reads and writes this process's memory until a read or a write has ended, and a disk
//! may take its time. An executor gives that memory back when it ends; what is allocated there next
//! would be written to the disk in the place of a page. So each executor waits for [`quiet`] before
//! it ends, and [`run_awake`](super::run_awake) does for all.

use std::{
    cell::Cell,
    io,
    ops::Deref,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::plain_file;
use crate::shown::remedy;

use glommio::{
    GlommioError,
    io::{BufferedFile, DmaFile, OpenOptions},
    timer::sleep,
};
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::environment::{BLOCK_BYTES, File, Storage};

/// The folder of a disk in which each write is synced: of logs.
pub const SYNCED_FOLDER: &str = "log";

/// A folder on a real file system. Use it on a glommio executor only.
#[derive(Clone)]
pub struct Disk {
    folder: Rc<Path>,
    direct: Rc<Cell<bool>>,
    /// Whether this thread's executor has been shown a file that tells whether the device can be
    /// polled.
    is_probed: Rc<Cell<bool>>,
}

/// A file of a [`Disk`].
pub enum DiskFile {
    /// Opened with `O_DIRECT`.
    Direct(Rc<Open<DmaFile>>),
    /// Opened with `O_DIRECT` and `O_DSYNC`: what was written is durable.
    Durable(Rc<Open<DmaFile>>),
    /// Through the page cache, where the file system has no direct I/O.
    Buffered(Rc<Open<BufferedFile>>),
}

/// An open file, which is closed before its executor ends.
///
/// glommio closes a dropped file with the next turn of its ring. After the executor's last task
/// there is no such turn, and the descriptor then stays open for as long as the process lives.
pub struct Open<F: Close>(Option<F>);

/// A file of glommio's, seen as something to close.
pub trait Close: 'static + Sized {
    /// Closes it; nothing can be done where that fails.
    fn close(self) -> impl Future<Output = ()>;
}

impl Close for DmaFile {
    async fn close(self) {
        let _ = DmaFile::close(self).await;
    }
}

impl Close for BufferedFile {
    async fn close(self) {
        let _ = BufferedFile::close(self).await;
    }
}

impl<F: Close> Open<F> {
    fn new(file: F) -> Rc<Open<F>> {
        Rc::new(Open(Some(file)))
    }
}

impl<F: Close> Deref for Open<F> {
    type Target = F;

    fn deref(&self) -> &F {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<F: Close> Drop for Open<F> {
    fn drop(&mut self) {
        let Some(file) = self.0.take() else { return };
        // Where the executor has ended, or ends by a panic, nobody can run this any more.
        if let Some(count) = UNDER_WAY.get()
            && !std::thread::panicking()
        {
            UNDER_WAY.set(Some(count + 1));
            let closed = async move {
                file.close().await;
                one_is_over();
            };
            glommio::spawn_local(closed).detach();
        }
    }
}

impl Disk {
    /// The storage in an existing folder. Tries whether the file system has direct I/O; a sync
    /// makes writes durable all the same where it has not.
    pub fn new(folder: &Path) -> Disk {
        // A thread may run one executor after the other.
        if UNDER_WAY.get().is_none() {
            UNDER_WAY.set(Some(0));
        }
        Disk {
            folder: folder.into(),
            direct: Rc::new(Cell::new(has_direct_io(folder))),
            is_probed: Rc::default(),
        }
    }

    /// Whether files are read and written around the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.get()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Lets glommio find out from real data whether the device can be polled.
    ///
    /// It finds out once a thread, by a polled read of the first bytes of the first file that is
    /// opened, and takes any success for a yes. Where these bytes were never written, as at the
    /// start of a sparse page file, the file system answers without asking the device, and on a
    /// device that cannot be polled every later read of real data would fail with `EOPNOTSUPP`.
    async fn probe(&self) -> io::Result<()> {
        let path = scratch(&self.folder);
        let written = path.clone();
        let write = move || {
            // A whole block, and not zeros: a file system keeps this only in a block.
            std::fs::write(&written, [0xa5; BLOCK_BYTES])?;
            std::fs::File::open(&written)?.sync_all()
        };
        let probed = match glommio::executor().spawn_blocking(write).await {
            Ok(()) => DmaFile::open(&path).await.map_err(plain),
            Err(error) => Err(error),
        };
        let removed = glommio::executor().spawn_blocking(move || std::fs::remove_file(path));
        let (file, ()) = (probed?, removed.await?);
        file.close().await.map_err(plain)
    }
}

thread_local! {
    /// Reads and writes of this thread that the kernel is not done with, and files that it has not
    /// closed yet; `None` once there may be no more.
    static UNDER_WAY: Cell<Option<usize>> = const { Cell::new(Some(0)) };
}

/// Time between two looks at whether reads and writes have ended.
const QUIET_LOOK: Duration = Duration::from_millis(5);

/// Waits until the kernel uses no memory of this thread's executor for a file any more and has
/// closed the files that were dropped, however long that takes. From then on no file can be read or
/// written on it, and it may end.
pub async fn quiet() {
    while UNDER_WAY.get().is_some_and(|count| count > 0) {
        sleep(QUIET_LOOK).await;
    }
    UNDER_WAY.set(None);
}

/// A read or a write, which is brought to its end even where it is dropped.
struct ToItsEnd<F: Future + 'static>(Option<Pin<Box<F>>>);

async fn to_its_end<T: 'static>(work: impl Future<Output = T> + 'static) -> io::Result<T> {
    let ended = || io::Error::other("the executor ends: it reads and writes no files any more");
    let count = UNDER_WAY.get().ok_or_else(ended)?;
    UNDER_WAY.set(Some(count + 1));
    Ok(ToItsEnd(Some(Box::pin(work))).await)
}

fn one_is_over() {
    UNDER_WAY.set(UNDER_WAY.get().map(|count| count - 1));
}

impl<F: Future + 'static> Future for ToItsEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let work = self.0.as_mut().expect("not polled after it is ready");
        let output = ready!(work.as_mut().poll(context));
        self.0 = None;
        one_is_over();
        Poll::Ready(output)
    }
}

impl<F: Future + 'static> Drop for ToItsEnd<F> {
    fn drop(&mut self) {
        let Some(work) = self.0.take() else { return };
        // Where the executor has ended, this belongs to a task that is dropped with it.
        if UNDER_WAY.get().is_some() {
            let rest = async {
                drop(work.await);
                one_is_over();
            };
            glommio::spawn_local(rest).detach();
        }
    }
}

/// Tries direct I/O with a file of its own, which it removes.
fn has_direct_io(folder: &Path) -> bool {
    let path = scratch(folder);
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    let _ = std::fs::remove_file(&path);
    // tmpfs takes the flag on newer kernels, but keeps everything in the page cache regardless.
    opened.is_ok() && !is_tmpfs(folder)
}

/// Whether every write to a file is followed by a sync, so that write and sync are best done in
/// one.
fn is_log(name: &str) -> bool {
    Path::new(name).starts_with(SYNCED_FOLDER)
}

/// Prefix of the names of files that are removed at once.
const SCRATCH: &str = ".direct-io-";

/// Removes files that a killed process had no time to remove. Call it only while this process holds
/// the folder's lock.
pub fn remove_scratch(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A name for a file that is removed at once, never given twice: every core makes some, all in the
/// same folder.
fn scratch(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{SCRATCH}{}-{number}", std::process::id()))
}

fn is_tmpfs(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else {
        return false;
    };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` ends in a zero byte and `stat` has room for what statfs writes.
    let outcome = unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: statfs has filled `stat` where it returned 0, and is not read otherwise.
    outcome == 0 && unsafe { stat.assume_init() }.f_type == libc::TMPFS_MAGIC
}

impl Storage for Disk {
    type File = DiskFile;

    async fn open(&self, name: &str, create: bool) -> io::Result<DiskFile> {
        let opened = self.open_named(name, create).await;
        opened.map_err(|error| of_file(name, error))
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let path = self.path(folder);
        let listed = move || {
            let entries = match std::fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        let listed = glommio::executor().spawn_blocking(listed).await;
        listed.map_err(|error| of_file(folder, error))
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let removed = glommio::executor().spawn_blocking(move || std::fs::remove_file(path));
        removed.await.map_err(|error| of_file(name, error))
    }
}

impl Disk {
    async fn open_named(&self, name: &str, create: bool) -> io::Result<DiskFile> {
        if self.is_direct() && !self.is_probed.get() {
            if let Err(error) = self.probe().await {
                // A full disk must not keep a node from starting.
                tracing::warn!(%error, "cannot try direct I/O: files go through the page cache");
                self.direct.set(false);
            }
            self.is_probed.set(true);
        }
        let path = self.path(name);
        let found = path.clone();
        // A FIFO or a device would not be read to its end, or for ever.
        let look = move || match std::fs::metadata(found) {
            Ok(metadata) => plain_file::check(metadata.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        glommio::executor().spawn_blocking(look).await?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600);
        let file = if self.is_direct() && is_log(name) {
            // A write and a sync in one saves a trip to the kernel and a turn of the executor.
            options.custom_flags(libc::O_DSYNC);
            DiskFile::Durable(Open::new(options.dma_open(&path).await.map_err(plain)?))
        } else if self.is_direct() {
            DiskFile::Direct(Open::new(options.dma_open(&path).await.map_err(plain)?))
        } else {
            DiskFile::Buffered(Open::new(
                options.buffered_open(&path).await.map_err(plain)?,
            ))
        };
        // Also where the file was there before: a name that a killed process made may not be
        // durable yet.
        if create {
            let parent = path
                .parent()
                .expect("a file's path has a folder")
                .to_owned();
            let synced = move || std::fs::File::open(parent)?.sync_all();
            glommio::executor().spawn_blocking(synced).await?;
        }
        Ok(file)
    }
}

impl File for DiskFile {
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            let rest = length - bytes.len();
            let read = match self {
                DiskFile::Direct(file) | DiskFile::Durable(file) => {
                    let file = file.clone();
                    to_its_end(async move { file.read_at_aligned(at, rest).await }).await?
                }
                DiskFile::Buffered(file) => {
                    let file = file.clone();
                    to_its_end(async move { file.read_at(at, rest).await }).await?
                }
            }
            .map_err(plain)?;
            if read.is_empty() {
                break;
            }
            bytes.extend_from_slice(&read);
            if !bytes.len().is_multiple_of(BLOCK_BYTES) {
                break; // the end of the file, which is no whole block
            }
        }
        bytes.resize(length, 0);
        Ok(bytes)
    }

    async fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            let at = offset + written as u64;
            let count = match self {
                DiskFile::Direct(file) | DiskFile::Durable(file) => {
                    let mut buffer = file.alloc_dma_buffer(rest.len());
                    buffer.as_bytes_mut().copy_from_slice(rest);
                    let file = file.clone();
                    to_its_end(async move { file.write_at(buffer, at).await }).await?
                }
                DiskFile::Buffered(file) => {
                    let (file, bytes) = (file.clone(), rest.to_vec());
                    to_its_end(async move { file.write_at(bytes, at).await }).await?
                }
            }
            .map_err(plain)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // A short write ends where it likes; direct I/O goes on at a block, and writing the
            // start of that block again does no harm.
            written += if count == rest.len() {
                count
            } else {
                count / BLOCK_BYTES * BLOCK_BYTES
            };
            if count < rest.len() && count < BLOCK_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        match self {
            DiskFile::Durable(_) => return Ok(()),
            DiskFile::Direct(file) => file.fdatasync().await,
            DiskFile::Buffered(file) => file.fdatasync().await,
        }
        .map_err(plain)
    }

    async fn length(&self) -> io::Result<u64> {
        match self {
            DiskFile::Direct(file) | DiskFile::Durable(file) => file.file_size().await,
            DiskFile::Buffered(file) => file.file_size().await,
        }
        .map_err(plain)
    }

    async fn set_length(&self, length: u64) -> io::Result<()> {
        match self {
            DiskFile::Direct(file) | DiskFile::Durable(file) => file.truncate(length).await,
            DiskFile::Buffered(file) => file.truncate(length).await,
        }
        .map_err(plain)
    }

    async fn reserve(&self, length: u64) -> io::Result<()> {
        let reserved = match self {
            DiskFile::Direct(file) | DiskFile::Durable(file) => {
                file.pre_allocate(length, false).await
            }
            DiskFile::Buffered(file) => file.pre_allocate(length, false).await,
        };
        match reserved.map_err(plain) {
            // A file system that cannot reserve room reports a full disk when the file is filled.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    fn is_same(&self, other: &DiskFile) -> bool {
        use DiskFile::{Buffered, Direct, Durable};
        match (self, other) {
            (Direct(file) | Durable(file), Direct(other) | Durable(other)) => file.is_same(other),
            (Buffered(file), Buffered(other)) => file.is_same(other),
            _ => false,
        }
    }

    fn is_unlinked(&self) -> bool {
        let descriptor = match self {
            DiskFile::Direct(file) | DiskFile::Durable(file) => file.as_raw_fd(),
            DiskFile::Buffered(file) => file.as_raw_fd(),
        };
        // SAFETY: `self` keeps the descriptor open for as long as it is borrowed here.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        // Only what the kernel knows without asking a disk or a server: this runs on a core.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let told = statx(descriptor, c"", flags, StatxFlags::NLINK);
        told.is_ok_and(|told| told.stx_nlink == 0)
    }
}

/// The error with the file's or folder's name, of the same kind: the place that reports it knows
/// only the data folder.
fn of_file(name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}{}", remedy(&error)))
}

/// The operating system's error alone, without the executor's wrapping.
fn plain(error: GlommioError<()>) -> io::Error {
    let raw = error.raw_os_error();
    match raw {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::runtime::run_awake;

    #[test]
    fn data_is_read_after_a_sparse_file_was_opened_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        // The first executor writes, the second opens a hole first, as a node that starts again.
        for is_written in [false, true] {
            let disk = path.clone();
            let work = async || {
                let disk = Disk::new(&disk);
                let sparse = disk.open("sparse", true).await.unwrap();
                sparse.set_length(1 << 20).await.unwrap();
                let file = disk.open("data", true).await.unwrap();
                if !is_written {
                    file.write_at(&[7; BLOCK_BYTES], 0).await.unwrap();
                    file.sync().await.unwrap();
                }
                assert_eq!(
                    file.read_at(0, BLOCK_BYTES).await.unwrap(),
                    [7; BLOCK_BYTES]
                );
                assert_eq!(
                    sparse.read_at(0, BLOCK_BYTES).await.unwrap(),
                    [0; BLOCK_BYTES]
                );
            };
            // On a thread of its own, since an executor leaves its mark on the thread it ran on.
            let run = || {
                let executor = LocalExecutorBuilder::new(Placement::Unbound);
                run_awake(&executor.make().unwrap(), work());
            };
            std::thread::scope(|scope| scope.spawn(run).join().unwrap());
        }
        let mut left: Vec<_> = std::fs::read_dir(path).unwrap().collect();
        left.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
