//! The page files of an existing server's Data folder: `<DN>/<page high byte>/<page>.bin`, all in
//! hex, DN as its signed byte (f8 to 06), the page number in 4 digits. A file is 1,024 times the
//! coin's AN (16 bytes) and months from start (1 byte). Read to import from such a server, written
//! to go back to it; what is read and written again is the same byte for byte.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::coin::{An, COINS_PER_PAGE, Denomination, Mfs, PAGES_PER_DENOMINATION, PageId};

const RECORD_SIZE: usize = An::SIZE + 1;
/// Bytes of a page file: 17,408.
pub const FILE_SIZE: usize = COINS_PER_PAGE * RECORD_SIZE;

/// One page as it stands in its file, free coins' ANs included.
pub struct RaidaxPage {
    /// Which page.
    pub page: PageId,
    /// The AN of each place.
    pub ans: Box<[An; COINS_PER_PAGE]>,
    /// The months of each place; [`Mfs::FREE`] where the coin is not in circulation.
    pub mfs: Box<[Mfs; COINS_PER_PAGE]>,
}

/// Why a Data folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RaidaxError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {cause}", path = .0.display(), cause = .1)]
    Unreadable(PathBuf, io::Error),
    /// Something is there that does not belong into a Data folder.
    #[error("{path} does not belong into a Data folder: expected {expected}; move it away", path = path.display())]
    Foreign {
        /// What was found.
        path: PathBuf,
        /// What should be in its place.
        expected: String,
    },
    /// A page file is not 17,408 bytes long.
    #[error("{path} is {size} bytes long, a page file is {FILE_SIZE}: get an undamaged copy", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// Two files claim to be the same page, one with capital letters in its name.
    #[error("{first} and {second} are the same page: move one away", first = .0.display(), second = .1.display())]
    Twice(PathBuf, PathBuf),
    /// A page file could not be written.
    #[error("cannot write {path}: {cause}", path = .0.display(), cause = .1)]
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

/// Writes one page file into a Data folder, and its folders where they are missing; on disk when
/// this returns, readable by its owner only.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn write_page(
    folder: &Path,
    page: PageId,
    ans: &[An; COINS_PER_PAGE],
    mfs: &[Mfs; COINS_PER_PAGE],
) -> Result<(), RaidaxError> {
    let path = page_path(folder, page);
    let mut bytes = Vec::with_capacity(FILE_SIZE);
    for (an, mfs) in ans.iter().zip(mfs) {
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
            file.write_all(&bytes)?;
            file.sync_all()
        });
    written.map_err(|cause| RaidaxError::Unwritable(path, cause))
}

fn read_page(page: PageId, path: PathBuf) -> Result<RaidaxPage, RaidaxError> {
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(cause) => return Err(RaidaxError::Unreadable(path, cause)),
    };
    if bytes.len() != FILE_SIZE {
        return Err(RaidaxError::Size {
            path,
            size: bytes.len() as u64,
        });
    }
    let mut ans = Box::new([An::ZERO; COINS_PER_PAGE]);
    let mut mfs = Box::new([Mfs::FREE; COINS_PER_PAGE]);
    for (place, record) in bytes.as_chunks::<RECORD_SIZE>().0.iter().enumerate() {
        let [an @ .., months] = record;
        ans[place] = An::new(*an);
        mfs[place] = Mfs::new(*months);
    }
    Ok(RaidaxPage { page, ans, mfs })
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
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
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
        for page in pages {
            let page = page.unwrap();
            write_page(to.path(), page.page, &page.ans, &page.mfs).unwrap();
        }
        for (seed, name) in names.iter().enumerate() {
            let written = std::fs::read(to.path().join(name.to_lowercase())).unwrap();
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
        assert_eq!(page.ans[1], An::new([0xaa; 16]));
        assert_eq!((page.mfs[0], page.mfs[1]), (Mfs::FREE, Mfs::new(40)));
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
    fn an_existing_page_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "00/00/0000.bin", b"somebody's coins");
        let page = PageId::new(Denomination::new(0).unwrap(), 0).unwrap();
        let refused = write_page(
            folder.path(),
            page,
            &[An::ZERO; COINS_PER_PAGE],
            &[Mfs::FREE; COINS_PER_PAGE],
        );
        assert!(matches!(refused, Err(RaidaxError::Unwritable(..))));
        assert_eq!(
            std::fs::read(page_path(folder.path(), page)).unwrap(),
            b"somebody's coins"
        );
    }
}
