//! A folder that one process at a time works in.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::plain_file;

/// A file or folder that is locked for as long as this value lives.
///
/// A program that this process starts has a copy of the descriptor until it is executed, and the
/// lock goes with the last copy. So the end of this value takes the lock off and does not only
/// close.
#[derive(Debug)]
pub struct Locked(File);

/// A folder that one process alone works in, for as long as this value lives. The locks are the
/// kernel's: they go with the process, however that ends.
///
/// The folder itself is locked, so that nobody can take the lock away by removing a file. The file
/// `lock` in it is locked as well: it names the process, and versions that know the file alone keep
/// away.
#[derive(Debug)]
pub struct FolderLock {
    /// `None` on a file system that locks files only.
    _folder: Option<Locked>,
    _file: Locked,
}

/// A folder that cannot be locked.
#[derive(Debug)]
pub enum LockRefused {
    /// Another process has it: its number as it wrote it down, or "unknown".
    Taken {
        /// The other process.
        process: String,
    },
    /// The file system failed.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl Locked {
    /// Locks what is open; `None` where another process has it locked.
    ///
    /// # Errors
    /// Where the file system fails, or has no locks.
    pub fn take(file: File) -> io::Result<Option<Locked>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Locked(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Where it fails, closing is all that is left to do.
        let _ = self.0.unlock();
    }
}

impl FolderLock {
    /// Locks a folder, which is there.
    ///
    /// # Errors
    /// Where another process has it, or the file system fails.
    pub fn take(folder: &Path) -> Result<FolderLock, LockRefused> {
        let path = folder.join("lock");
        let at = |path: &Path| {
            let path = path.to_owned();
            |error| LockRefused::Io { path, error }
        };
        let opened = File::open(folder).map_err(at(folder))?;
        plain_file::check_folder(&opened).map_err(at(folder))?;
        let opened = match Locked::take(opened) {
            Ok(Some(opened)) => Some(opened),
            Ok(None) => return Err(taken(&path)),
            // A file system that locks files only, as NFS; the file's lock has to do.
            Err(error) if !is_real(&error) => None,
            Err(error) => return Err(at(folder)(error)),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A link would have this process write its number into another file.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP) => io::Error::other("it is a symbolic link: remove it"),
                _ => error,
            })
            .map_err(at(&path))?;
        let file_type = file.metadata().map_err(at(&path))?.file_type();
        plain_file::check(file_type).map_err(at(&path))?;
        let Some(file) = Locked::take(file).map_err(at(&path))? else {
            return Err(taken(&path));
        };
        let mut text = &file.0;
        let noted = text
            .set_len(0)
            .and_then(|()| text.rewind())
            .and_then(|()| writeln!(text, "{}", std::process::id()));
        noted.map_err(at(&path))?;
        Ok(FolderLock {
            _folder: opened,
            _file: file,
        })
    }
}

/// Whether the error is more than the word that folders cannot be locked here.
fn is_real(error: &io::Error) -> bool {
    let cannot = [
        libc::EBADF,
        libc::EINVAL,
        libc::ENOLCK,
        libc::ENOSYS,
        libc::EOPNOTSUPP,
    ];
    !error
        .raw_os_error()
        .is_some_and(|code| cannot.contains(&code))
}

/// What the process that has the lock wrote down. What cannot be read is as unknown as what was not
/// written yet.
fn taken(path: &Path) -> LockRefused {
    let mut text = String::new();
    // Whatever stands there by now: a number, and an end of the line.
    let _ = plain_file::open(path).and_then(|file| file.take(32).read_to_string(&mut text));
    let process = match text.trim() {
        "" => "unknown".to_owned(),
        number => number.to_owned(),
    };
    LockRefused::Taken { process }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_lock_file_is_removed_or_replaced_stays_taken() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        for replace in [false, true] {
            let file = folder.path().join("lock");
            let _ = std::fs::remove_file(&file);
            if replace {
                std::fs::write(&file, "").unwrap();
            }
            let refused = FolderLock::take(folder.path()).unwrap_err();
            let LockRefused::Taken { process } = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(process, "unknown");
            assert_eq!(file.exists(), replace, "a refused process makes nothing");
        }
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_lock_file_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::write(&theirs, "theirs").unwrap();
        std::os::unix::fs::symlink(&theirs, folder.path().join("lock")).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        let LockRefused::Io { error, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(error.to_string(), "it is a symbolic link: remove it");
        assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
    }

    #[test]
    fn a_version_that_locks_the_file_alone_keeps_others_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "4711\n").unwrap();
        let file = File::open(&path).unwrap();
        let file = Locked::take(file).unwrap().unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        assert!(matches!(refused, LockRefused::Taken { process } if process == "4711"));
        drop(file);
        FolderLock::take(folder.path()).unwrap();
    }
    #[test]
    fn what_a_program_being_started_has_copies_of_is_free_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        // As fork makes them: they stand for the same lock.
        let copies = [lock._folder.as_ref().unwrap(), &lock._file]
            .map(|locked| locked.0.try_clone().unwrap());
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
        drop(copies);
    }
}
