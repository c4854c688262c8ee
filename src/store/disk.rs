//! The storage of a real node: files of a folder through io_uring, around the page cache where the
//! file system allows it.

use std::{
    cell::Cell,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use glommio::{
    GlommioError,
    io::{BufferedFile, DmaFile, OpenOptions},
};

use super::environment::{BLOCK_BYTES, File, Storage};

/// A folder on a real file system. Use it on a glommio executor only.
#[derive(Clone)]
pub struct Disk {
    folder: Rc<Path>,
    direct: bool,
    /// The executor knows whether the device can be polled.
    probed: Rc<Cell<bool>>,
}

/// A file of a [`Disk`].
pub enum DiskFile {
    /// Opened with `O_DIRECT`.
    Direct(DmaFile),
    /// Through the page cache, where the file system has no direct I/O.
    Buffered(BufferedFile),
}

impl Disk {
    /// The storage in an existing folder. Tries whether the file system has direct I/O; a sync
    /// makes writes durable all the same where it has not.
    pub fn new(folder: &Path) -> Disk {
        Disk {
            folder: folder.into(),
            direct: has_direct_io(folder),
            probed: Rc::default(),
        }
    }

    /// Whether files are read and written around the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Shows the executor a file with data in it. glommio reads the start of the first file that it
    /// opens on a device, to find out whether the device can be polled, and remembers the answer for
    /// the process. A new or sparse file reads without the device, so it would take any device for
    /// one that can, and every later read and overwrite would fail with EOPNOTSUPP.
    async fn probe(&self) -> io::Result<()> {
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let path = self.path(&format!(".probe-{}-{number}", process::id()));
        let probe = path.clone();
        let write = move || {
            let mut file = std::fs::File::create(probe)?;
            file.write_all(&[1; BLOCK_BYTES])?;
            file.sync_all()
        };
        let mut probed = glommio::executor().spawn_blocking(write).await;
        if probed.is_ok() {
            probed = match DmaFile::open(&path).await {
                Ok(file) => file.close().await.map_err(plain),
                Err(error) => Err(plain(error)),
            };
        }
        let remove = move || std::fs::remove_file(path);
        let _ = glommio::executor().spawn_blocking(remove).await;
        probed
    }
}

/// Tries direct I/O with a file of its own, which it removes.
fn has_direct_io(folder: &Path) -> bool {
    let path = folder.join(format!(".direct-io-{}", process::id()));
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
        if self.direct && !self.probed.get() {
            // Without room for a probe, what is there already has to do.
            let _ = self.probe().await;
            self.probed.set(true);
        }
        let path = self.path(name);
        let is_new = create && !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600);
        let file = if self.direct {
            DiskFile::Direct(options.dma_open(&path).await.map_err(plain)?)
        } else {
            DiskFile::Buffered(options.buffered_open(&path).await.map_err(plain)?)
        };
        if is_new {
            let parent = path
                .parent()
                .expect("a file's path has a folder")
                .to_owned();
            let synced = move || std::fs::File::open(parent)?.sync_all();
            glommio::executor().spawn_blocking(synced).await?;
        }
        Ok(file)
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
        glommio::executor().spawn_blocking(listed).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        glommio::executor()
            .spawn_blocking(move || std::fs::remove_file(path))
            .await
    }
}

impl File for DiskFile {
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            let rest = length - bytes.len();
            let read = match self {
                DiskFile::Direct(file) => file.read_at_aligned(at, rest).await,
                DiskFile::Buffered(file) => file.read_at(at, rest).await,
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
                DiskFile::Direct(file) => {
                    let mut buffer = file.alloc_dma_buffer(rest.len());
                    buffer.as_bytes_mut().copy_from_slice(rest);
                    file.write_at(buffer, at).await
                }
                DiskFile::Buffered(file) => file.write_at(rest.to_vec(), at).await,
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
            DiskFile::Direct(file) => file.fdatasync().await,
            DiskFile::Buffered(file) => file.fdatasync().await,
        }
        .map_err(plain)
    }

    async fn length(&self) -> io::Result<u64> {
        match self {
            DiskFile::Direct(file) => file.file_size().await,
            DiskFile::Buffered(file) => file.file_size().await,
        }
        .map_err(plain)
    }

    async fn set_length(&self, length: u64) -> io::Result<()> {
        match self {
            DiskFile::Direct(file) => file.truncate(length).await,
            DiskFile::Buffered(file) => file.truncate(length).await,
        }
        .map_err(plain)
    }

    async fn reserve(&self, length: u64) -> io::Result<()> {
        match self {
            DiskFile::Direct(file) => file.pre_allocate(length, false).await,
            DiskFile::Buffered(file) => file.pre_allocate(length, false).await,
        }
        .map_err(plain)
    }
}

/// The operating system's error alone, without the executor's wrapping.
fn plain(error: GlommioError<()>) -> io::Error {
    let raw = error.raw_os_error();
    match raw {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}
