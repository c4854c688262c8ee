//! The page files of an existing server's Data folder: `<DN>/<page high byte>/<page>.bin`, all in
//! hex, DN as its signed byte (f8 to 06), the page number in 4 digits. A file is 1,024 times the
//! coin's AN (16 bytes) and months from start (1 byte). The program reads them to import from such
//! a server, and writes them to go back to it. What is read and written again is the same byte for
//! byte.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::slot::PageImage;
use crate::coin::{An, COINS_PER_PAGE, Denomination, Mfs, PAGES_PER_DENOMINATION, PageId};
use crate::plain_file;
use crate::shown::{Shown, remedy};

const RECORD_SIZE: usize = An::SIZE + 1;
/// Bytes of a page file: 17,408.
pub const FILE_SIZE: usize = COINS_PER_PAGE * RECORD_SIZE;

/// One page as it stands in its file, free coins' ANs included.
pub struct RaidaxPage {
    /// Which page.
    pub page: PageId,
    /// What it holds.
    pub image: Box<PageImage>,
}

/// Why a Data folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RaidaxError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {cause}{next}", path = .0.shown(), cause = .1, next = remedy(.1))]
    Unreadable(PathBuf, io::Error),
    /// Something is there that does not belong into a Data folder.
    #[error("{path} does not belong into a Data folder: expected {expected}; move it away", path = path.shown())]
    Foreign {
        /// What was found.
        path: PathBuf,
        /// What should be in its place.
        expected: String,
    },
    /// A page file is not 17,408 bytes long.
    #[error("{path} is {size} bytes long, a page file is {FILE_SIZE}: get an undamaged copy", path = path.shown())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// Two files claim to be the same page, one with capital letters in its name.
    #[error("{first} and {second} are the same page: move one away", first = .0.shown(), second = .1.shown())]
    Twice(PathBuf, PathBuf),
    /// The place for the new Data folder is taken.
    #[error("{path} exists and may hold coins; name another folder, or replace it with --overwrite", path = .0.shown())]
    Exists(PathBuf),
    /// A file or folder could not be written.
    #[error("cannot write {path}: {cause}{next}", path = .0.shown(), cause = .1, next = remedy(.1))]
    Unwritable(PathBuf, io::Error),
}

/// The page files of a Data folder, found and named, not yet read. As an iterator it reads them by
/// rising page; its length is exact.
pub struct RaidaxPages {
    files: std::vec::IntoIter<(PageId, PathBuf)>,
}

impl RaidaxPages {
    /// Looks through a Data folder.
    ///
    /// # Errors
    /// The folder cannot be read, or holds anything but page files: better to ask than to leave a
    /// page behind because of its name.
    pub fn open(folder: &Path) -> Result<RaidaxPages, RaidaxError> {
        let mut files: Vec<(PageId, PathBuf)> = vec![];
        for (name, path) in entries(folder)? {
            let denomination = hex(&name, 2)
                .and_then(|byte| Denomination::from_byte(byte as u8))
                .ok_or_else(|| foreign(&path, "a folder f8 to ff or 00 to 06, a denomination"))?;
            for (name, path) in entries(&path)? {
                let high = hex(&name, 2)
                    .filter(|high| *high <= (PAGES_PER_DENOMINATION - 1) >> 8)
                    .ok_or_else(|| foreign(&path, "a folder 00 to 03, a page's high byte"))?;
                for (name, path) in entries(&path)? {
                    let page = name
                        .strip_suffix(".bin")
                        .and_then(|stem| hex(stem, 4))
                        .filter(|number| number >> 8 == high)
                        .and_then(|number| PageId::new(denomination, number))
                        .ok_or_else(|| {
                            let last = (high << 8 | 0xff).min(PAGES_PER_DENOMINATION - 1);
                            foreign(
                                &path,
                                &format!("a page file {high:02x}00.bin to {last:04x}.bin"),
                            )
                        })?;
                    files.push((page, path));
                }
            }
        }
        files.sort();
        if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(RaidaxError::Twice(pair[0].1.clone(), pair[1].1.clone()));
        }
        Ok(RaidaxPages {
            files: files.into_iter(),
        })
    }
}

impl Iterator for RaidaxPages {
    type Item = Result<RaidaxPage, RaidaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (page, path) = self.files.next()?;
        Some(read_page(page, path))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.files.size_hint()
    }
}

impl ExactSizeIterator for RaidaxPages {}

/// Where a page's file is within a Data folder, in lower case.
///
/// ```
/// use raida::coin::{Denomination, PageId};
/// use raida::store::raidax::page_path;
/// let page = PageId::new(Denomination::new(-8).unwrap(), 999).unwrap();
/// assert_eq!(page_path("Data".as_ref(), page).to_str(), Some("Data/f8/03/03e7.bin"));
/// ```
pub fn page_path(folder: &Path, page: PageId) -> PathBuf {
    folder
        .join(format!("{:02x}", page.denomination().to_byte()))
        .join(format!("{:02x}", page.number() >> 8))
        .join(format!("{:04x}.bin", page.number()))
}

/// Writes a Data folder so that it is either there as a whole or not at all: into a folder beside
/// it, readable by its owner only (who knows an authenticity number owns the coin), which takes the
/// final name in [`RaidaxWriter::finish`] and is removed where the writer is dropped before that.
pub struct RaidaxWriter {
    folder: PathBuf,
    so_far: PathBuf,
    overwrite: bool,
    finished: bool,
}

impl RaidaxWriter {
    /// Starts a folder. One that exists and is not empty is replaced only where `overwrite` is set
    /// and it holds nothing but page files.
    ///
    /// # Errors
    /// There is something that must stay, or the folder cannot be made.
    pub fn create(folder: &Path, overwrite: bool) -> Result<RaidaxWriter, RaidaxError> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        if folder.symlink_metadata().is_ok() {
            if overwrite {
                RaidaxPages::open(&folder)?;
            } else if !folder.is_dir() || !entries(&folder)?.is_empty() {
                return Err(RaidaxError::Exists(folder));
            }
        }
        let so_far = beside(&folder, "part");
        let made = DirBuilder::new().mode(0o700).create(&so_far);
        made.map_err(|cause| RaidaxError::Unwritable(folder.clone(), cause))?;
        Ok(RaidaxWriter {
            folder,
            so_far,
            overwrite,
            finished: false,
        })
    }

    /// Adds a page.
    ///
    /// # Errors
    /// It cannot be written, or was written before.
    pub fn write(&mut self, page: PageId, image: &PageImage) -> Result<(), RaidaxError> {
        let path = page_path(&self.so_far, page);
        let mut bytes = Vec::with_capacity(FILE_SIZE);
        for (an, mfs) in image.ans.iter().zip(&image.mfs) {
            bytes.extend_from_slice(an.expose());
            bytes.push(mfs.get());
        }
        let parent = path.parent().expect("page_path joins three names");
        let written = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .and_then(|()| {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)?;
                file.write_all(&bytes)
            });
        // The error does not name the temporary file: that goes with this writer.
        written.map_err(|cause| RaidaxError::Unwritable(page_path(&self.folder, page), cause))
    }

    /// Waits until everything is on disk and gives the folder its name.
    ///
    /// # Errors
    /// The disk is full or fails, or somebody put something in the folder's place meanwhile.
    pub fn finish(mut self) -> Result<(), RaidaxError> {
        let failed = |cause| RaidaxError::Unwritable(self.folder.clone(), cause);
        sync_file_system(&self.so_far).map_err(failed)?;
        let old = beside(&self.folder, "old");
        let replaced = std::fs::rename(&self.so_far, &self.folder).or_else(|error| {
            if error.kind() != io::ErrorKind::DirectoryNotEmpty || !self.overwrite {
                return Err(error);
            }
            RaidaxPages::open(&self.folder).map_err(io::Error::other)?;
            std::fs::rename(&self.folder, &old)?;
            std::fs::rename(&self.so_far, &self.folder)
        });
        replaced.map_err(failed)?;
        self.finished = true;
        let parent = self.folder.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))
            .and_then(|parent| parent.sync_all())
            .map_err(failed)?;
        match std::fs::remove_dir_all(&old) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(RaidaxError::Unwritable(old, cause))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for RaidaxWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody can be told, and half a folder is of no use.
            let _ = std::fs::remove_dir_all(&self.so_far);
        }
    }
}

/// A name in the same folder. The process number keeps two programs that write the same folder
/// apart.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{ending}", std::process::id()));
    folder.with_file_name(name)
}

/// Waits until all that was written to a file system is on disk: for thousands of small files this
/// takes a tenth of the time of one sync for each file.
fn sync_file_system(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    // SAFETY: syncfs takes a descriptor, which `folder` keeps open, and no memory.
    match unsafe { libc::syncfs(folder.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read_page(page: PageId, path: PathBuf) -> Result<RaidaxPage, RaidaxError> {
    let file = plain_file::open(&path);
    let size = file.and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, file) = match size {
        Ok(opened) => opened,
        Err(cause) => return Err(RaidaxError::Unreadable(path, cause)),
    };
    let mut bytes = Vec::with_capacity(FILE_SIZE);
    if size == FILE_SIZE as u64
        && let Err(cause) = file.take(FILE_SIZE as u64).read_to_end(&mut bytes)
    {
        return Err(RaidaxError::Unreadable(path, cause));
    }
    if bytes.len() != FILE_SIZE {
        return Err(RaidaxError::Size { path, size });
    }
    let mut image = PageImage::blank();
    for (place, record) in bytes.as_chunks::<RECORD_SIZE>().0.iter().enumerate() {
        let [an @ .., months] = record;
        image.ans[place] = An::new(*an);
        image.mfs[place] = Mfs::new(*months);
    }
    Ok(RaidaxPage { page, image })
}

/// Name and path of everything in a folder.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, RaidaxError> {
    let unreadable = |cause| RaidaxError::Unreadable(folder.to_owned(), cause);
    let mut entries = vec![];
    for entry in folder.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A name that is not text is no hex number either, and is refused as such.
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push((name, entry.path()));
    }
    entries.sort();
    Ok(entries)
}

fn hex(text: &str, digits: usize) -> Option<u16> {
    // from_str_radix alone would take a sign.
    let hex = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

fn foreign(path: &Path, expected: &str) -> RaidaxError {
    RaidaxError::Foreign {
        path: path.to_owned(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_bytes(seed: usize) -> Vec<u8> {
        (0..FILE_SIZE)
            .map(|at| (at * 31 + seed * 7) as u8)
            .collect()
    }

    #[test]
    fn a_page_that_cannot_be_written_is_named_as_it_would_be_called() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("Data");
        let mut writer = RaidaxWriter::create(&folder, false).unwrap();
        let so_far = writer.so_far.clone();
        std::fs::remove_dir(&so_far).unwrap();
        std::fs::write(&so_far, "in the way").unwrap();
        let page = PageId::from_index(0).unwrap();
        let error = writer.write(page, &PageImage::blank()).unwrap_err();
        let (error, name) = (error.to_string(), page_path(&folder, page));
        assert!(error.contains(&name.display().to_string()), "{error}");
        drop(writer);
        std::fs::remove_file(&so_far).unwrap();
        let error = RaidaxWriter::create(&place.path().join("none/Data"), false).err();
        let error = error.unwrap().to_string();
        assert!(!error.contains(".part"), "{error}");
    }

    fn put(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn refusal(name: &str, bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "00/00/0000.bin", &page_bytes(0));
        put(folder.path(), name, bytes);
        RaidaxPages::open(folder.path())
            .and_then(|pages| pages.collect::<Result<Vec<_>, _>>())
            .map(|_| ())
            .unwrap_err()
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn what_is_read_is_written_byte_for_byte() {
        let (from, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = place.path().join("Data");
        let names = [
            "F8/00/0000.bin",
            "ff/01/01aB.bin",
            "00/03/03E7.bin",
            "06/02/02ff.bin",
        ];
        for (seed, name) in names.iter().enumerate() {
            put(from.path(), name, &page_bytes(seed));
        }
        let pages = RaidaxPages::open(from.path()).unwrap();
        assert_eq!(pages.len(), 4);
        let mut writer = RaidaxWriter::create(&to, false).unwrap();
        for page in pages {
            let page = page.unwrap();
            writer.write(page.page, &page.image).unwrap();
        }
        assert!(!to.exists());
        writer.finish().unwrap();
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
        for (seed, name) in names.iter().enumerate() {
            let written = std::fs::read(to.join(name.to_lowercase())).unwrap();
            assert_eq!(written, page_bytes(seed), "{name}");
        }
    }

    #[test]
    fn a_record_is_an_then_months() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; FILE_SIZE];
        bytes[RECORD_SIZE..][..16].fill(0xaa);
        bytes[RECORD_SIZE + 16] = 40;
        put(folder.path(), "f8/00/0000.bin", &bytes);
        let page = RaidaxPages::open(folder.path()).unwrap().next().unwrap();
        let page = page.unwrap();
        assert_eq!(page.page.denomination().exponent(), -8);
        assert_eq!(page.image.ans[1], An::new([0xaa; 16]));
        assert_eq!(
            (page.image.mfs[0], page.image.mfs[1]),
            (Mfs::FREE, Mfs::new(40))
        );
    }

    #[test]
    fn what_is_no_page_file_is_refused_by_name() {
        for (name, refused) in [
            (
                "f7/00/0000.bin",
                "f7 does not belong into a Data folder: expected a folder f8 to ff or 00 to 06, a denomination; move it away",
            ),
            (
                "01/04/0400.bin",
                "01/04 does not belong into a Data folder: expected a folder 00 to 03, a page's high byte; move it away",
            ),
            (
                "01/03/03e8.bin",
                "01/03/03e8.bin does not belong into a Data folder: expected a page file 0300.bin to 03e7.bin; move it away",
            ),
            (
                "01/02/0100.bin",
                "01/02/0100.bin does not belong into a Data folder: expected a page file 0200.bin to 02ff.bin; move it away",
            ),
            (
                "01/02/0200.bin.old",
                "01/02/0200.bin.old does not belong into a Data folder: expected a page file 0200.bin to 02ff.bin; move it away",
            ),
        ] {
            assert_eq!(refusal(name, &page_bytes(1)), refused);
        }
    }

    #[test]
    fn a_page_file_of_another_size_is_refused() {
        assert_eq!(
            refusal("01/02/0203.bin", &page_bytes(1)[1..]),
            "01/02/0203.bin is 17407 bytes long, a page file is 17408: get an undamaged copy"
        );
    }

    #[test]
    fn a_page_that_is_there_twice_is_refused() {
        let refused = refusal("00/00/0000.BIN", &page_bytes(1));
        assert!(refused.contains("0000.BIN does not belong"), "{refused}");
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "ff/00/000a.bin", &page_bytes(0));
        put(folder.path(), "FF/00/000a.bin", &page_bytes(1));
        let refused = RaidaxPages::open(folder.path()).err().unwrap().to_string();
        assert!(refused.contains("are the same page"), "{refused}");
    }

    #[test]
    fn a_folder_that_holds_something_is_replaced_only_where_that_is_asked_for() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("Data");
        put(&folder, "00/00/0000.bin", &page_bytes(1));
        let refused = RaidaxWriter::create(&folder, false);
        assert!(matches!(refused.err(), Some(RaidaxError::Exists(_))));

        RaidaxWriter::create(&folder, true)
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(folder.read_dir().unwrap().count(), 0);
        RaidaxWriter::create(&folder, false)
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_holds_something_else_is_never_replaced() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("Data");
        put(&folder, "holiday.jpg", b"mine");
        let refused = RaidaxWriter::create(&folder, true);
        assert!(matches!(refused.err(), Some(RaidaxError::Foreign { .. })));

        std::fs::remove_file(folder.join("holiday.jpg")).unwrap();
        let writer = RaidaxWriter::create(&folder, true).unwrap();
        put(&folder, "holiday.jpg", b"mine");
        assert!(writer.finish().is_err());
        assert_eq!(std::fs::read(folder.join("holiday.jpg")).unwrap(), b"mine");
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let mut writer = RaidaxWriter::create(&place.path().join("Data"), false).unwrap();
        let page = PageId::new(Denomination::new(0).unwrap(), 0).unwrap();
        writer.write(page, &PageImage::blank()).unwrap();
        drop(writer);
        assert_eq!(place.path().read_dir().unwrap().count(), 0);
    }
}
