//! How the bytes of a coin get to their place on disk, so that at every moment they are in some
//! complete file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::CoinFile;
use crate::plain_file;

/// A file to be written, and perhaps an older copy in another folder that is removed after it.
pub struct Filing {
    target: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
    over_itself: bool,
    old: Option<PathBuf>,
}

/// One step of a filing.
pub type Step = fn(&Filing) -> io::Result<()>;

impl Filing {
    /// The steps, in this order: a crash may come between any two. Before the third the old file is
    /// as it was. From the third on the new one is complete. Between the third and the fifth both
    /// are there.
    pub const STEPS: [Step; 6] = [
        Filing::write,
        Filing::sync_file,
        Filing::name,
        Filing::sync_folder,
        Filing::remove_old,
        Filing::sync_old_folder,
    ];

    /// A new file, where none may exist yet.
    pub fn create(target: PathBuf, bytes: Zeroizing<Vec<u8>>) -> Filing {
        Filing {
            target,
            bytes,
            over_itself: false,
            old: None,
        }
    }

    /// New content for a file.
    pub fn replace(target: PathBuf, bytes: Zeroizing<Vec<u8>>) -> Filing {
        Filing {
            target,
            bytes,
            over_itself: true,
            old: None,
        }
    }

    /// A file put into another folder, over a file of that name there.
    pub fn supersede(from: PathBuf, target: PathBuf, bytes: Zeroizing<Vec<u8>>) -> Filing {
        Filing {
            target,
            bytes,
            over_itself: true,
            old: Some(from),
        }
    }

    /// A file put into another folder as it is.
    pub fn relocate(from: PathBuf, target: PathBuf, bytes: Zeroizing<Vec<u8>>) -> Filing {
        Filing {
            target,
            bytes,
            over_itself: false,
            old: Some(from),
        }
    }

    /// The place of the bytes.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Takes a new file back, after any number of steps: no later run may take it, or the part of
    /// it that is written, for a coin. Files that somebody else put there stay. The folder still
    /// has to be synced.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub fn take_back(&self) -> io::Result<()> {
        let begun = |bytes: &[u8]| self.bytes.starts_with(bytes);
        let whole = |bytes: &[u8]| bytes == &self.bytes[..];
        remove_if(&temporary(&self.target), begun)?;
        remove_if(&self.target, whole)
    }

    fn write(&self) -> io::Result<()> {
        // Anybody who can read it owns the coin.
        plain_file::create_anew(&temporary(&self.target))?.write_all(&self.bytes)
    }

    /// Any descriptor of the file will do: the sync concerns the file.
    fn sync_file(&self) -> io::Result<()> {
        File::open(temporary(&self.target))?.sync_all()
    }

    fn name(&self) -> io::Result<()> {
        // Not by a hard link, which would fail by itself where the target exists: memory sticks,
        // where wallets are carried, have no hard links. A process that changes the wallet holds
        // its lock, so nobody comes between.
        if !self.over_itself && self.target.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::fs::rename(temporary(&self.target), &self.target)
    }

    fn sync_folder(&self) -> io::Result<()> {
        sync(folder(&self.target))
    }

    fn remove_old(&self) -> io::Result<()> {
        self.old.as_ref().map_or(Ok(()), std::fs::remove_file)
    }

    fn sync_old_folder(&self) -> io::Result<()> {
        self.old.as_ref().map_or(Ok(()), |old| sync(folder(old)))
    }
}

/// Carries out filings together: each step of all, then the next, so that a folder is synced once.
///
/// # Errors
/// The first step that fails, with its file. Completed steps stay done.
pub fn file_all(filings: &[Filing]) -> Result<(), (PathBuf, io::Error)> {
    let each = |step: Step| {
        filings
            .iter()
            .try_for_each(|filing| step(filing).map_err(|cause| (filing.target.clone(), cause)))
    };
    let [write, sync_file, name, _, remove_old, _] = Filing::STEPS;
    each(write)?;
    each(sync_file)?;
    each(name)?;
    sync_each(filings.iter().map(|filing| folder(&filing.target)))?;
    each(remove_old)?;
    sync_each(
        filings
            .iter()
            .filter_map(|filing| Some(folder(filing.old.as_ref()?))),
    )
}

/// Takes new files back, durably. Returns those that may be there still. Where their folder cannot
/// be synced, a power cut may bring back any of them.
pub fn take_back_all(filings: &[Filing]) -> Vec<PathBuf> {
    let kept = |filing: &&Filing| filing.take_back().is_err();
    let kept: Vec<&Filing> = filings.iter().filter(kept).collect();
    let synced = sync_each(filings.iter().map(|filing| folder(&filing.target)));
    let left = match synced {
        Ok(()) => kept,
        Err(_) => filings.iter().collect(),
    };
    left.iter().map(|filing| filing.target.clone()).collect()
}

/// Removes a file that holds what is asked for. If it does not exist, or is something other than a
/// file, it is left as it is.
fn remove_if(file: &Path, holds: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    match file.symlink_metadata() {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // Reading one byte more than any coin file has reveals longer files.
    let most = CoinFile::SIZE_WITH_PANS + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    plain_file::open(file)?
        .take(most as u64)
        .read_to_end(&mut bytes)?;
    match holds(&bytes) {
        true => std::fs::remove_file(file),
        false => Ok(()),
    }
}

fn sync_each<'a>(folders: impl Iterator<Item = &'a Path>) -> Result<(), (PathBuf, io::Error)> {
    let folders: BTreeSet<&Path> = folders.collect();
    (folders.into_iter())
        .try_for_each(|folder| sync(folder).map_err(|cause| (folder.to_owned(), cause)))
}

/// Makes the names in a folder durable.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder(file: &Path) -> &Path {
    file.parent()
        .expect("a coin file stands in a folder of its wallet")
}

const TEMPORARY: &str = ".part";

/// The place of a file's bytes before it has its name.
fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().expect("a coin file has a name");
    target.with_file_name(format!(".{}{TEMPORARY}", name.to_string_lossy()))
}

/// The name that an unfinished file should get; `None` for any other file.
pub fn unfinished(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(TEMPORARY)
}
