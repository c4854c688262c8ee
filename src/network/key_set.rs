//! The secrets that each two servers of a network share, and the files in which they are handed
//! out, one for each server.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::plain_file;
use crate::protocol::{
    RaidaId,
    key_file::{self, SecretBytes},
    key_healing::SharedSecret,
};
use crate::shown::{Shown, remedy};

/// A secret for each two of the 25 servers. Wiped from memory when dropped.
pub struct KeySet(Zeroizing<Vec<[SecretBytes; RaidaId::COUNT]>>);

/// Why there is no set of secrets.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// A server has a file already.
    #[error(
        "{file} is there already: no file was written; name another folder, or move the old set away",
        file = .0.shown()
    )]
    Exists(PathBuf),
    /// A file or the folder cannot be written.
    #[error(
        "cannot write {path}: {error}; no file was written, name another folder{next}",
        path = .path.shown(), next = remedy(error)
    )]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}; no file was written")]
    NoRandomness(#[from] getrandom::Error),
}

/// The file of a server in a set's folder.
pub fn key_file(folder: &Path, raida: RaidaId) -> PathBuf {
    folder.join(format!("raida{raida}.keys"))
}

impl KeySet {
    /// Draws a set.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn draw() -> Result<KeySet, KeySetError> {
        let none = [[0; SharedSecret::SIZE]; RaidaId::COUNT];
        let mut secrets = Zeroizing::new(vec![none; RaidaId::COUNT]);
        for one in 0..RaidaId::COUNT {
            // A server shares nothing with itself: zeros.
            for other in 0..one {
                getrandom::fill(&mut secrets[one][other])?;
                secrets[other][one] = secrets[one][other];
            }
        }
        Ok(KeySet(secrets))
    }

    /// Writes a file for each server into a folder, which is made where it is missing, and waits
    /// until all are on disk. No existing file is touched, and after an error none of the 25 is
    /// left.
    ///
    /// # Errors
    /// One of them is there already, or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), KeySetError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| KeySetError::File { path, error }
        };
        let mut draft = Draft::default();
        if !folder.is_dir() {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(folder);
            made.map_err(at(folder))?;
            draft.folder = Some(folder.to_owned());
        }
        let opened = File::open(folder).map_err(at(folder))?;
        plain_file::check_folder(&opened).map_err(at(folder))?;
        for (raida, secrets) in RaidaId::all().zip(&*self.0) {
            let path = key_file(folder, raida);
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&path);
            let mut file = file.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => KeySetError::Exists(path.clone()),
                _ => at(&path)(error),
            })?;
            draft.files.push(path.clone());
            let text = key_file::compose(raida, secrets);
            let written = file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_all());
            written.map_err(at(&path))?;
        }
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(at(folder))?;
        draft.keep();
        Ok(())
    }
}

/// The files of a set made so far. They are removed unless the whole set is made.
#[derive(Default)]
struct Draft {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Draft {
    fn keep(mut self) {
        self.folder = None;
        self.files.clear();
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A file that cannot be removed either is harmless: a part of a set that nobody was given.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// The lines that count.
    fn lines(folder: &Path, raida: RaidaId) -> Vec<String> {
        let text = fs::read_to_string(key_file(folder, raida)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn each_two_servers_have_a_secret_of_their_own_and_none_has_one_with_itself() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/set");
        KeySet::draw().unwrap().write(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), RaidaId::COUNT);
        let all: Vec<Vec<String>> = RaidaId::all().map(|raida| lines(&folder, raida)).collect();
        let mut seen = HashSet::new();
        for (one, secrets) in all.iter().enumerate() {
            assert_eq!(secrets.len(), RaidaId::COUNT);
            assert_eq!(secrets[one], "0".repeat(32));
            for (other, secret) in secrets[..one].iter().enumerate() {
                assert_eq!(*secret, all[other][one]);
                assert!(seen.insert(secret), "RAIDA {one} and {other}");
            }
        }
        for raida in RaidaId::all() {
            let path = key_file(&folder, raida);
            assert_eq!(mode(&path), 0o600);
            let read = key_file::parse(&fs::read(path).unwrap(), raida).unwrap();
            assert!(!read.has_own);
        }
    }

    #[test]
    fn a_file_that_is_there_is_left_alone_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let theirs = place.path().join("raida17.keys");
        fs::write(&theirs, "theirs").unwrap();
        let refused = KeySet::draw().unwrap().write(place.path()).unwrap_err();
        assert!(refused.to_string().contains("raida17.keys is there"));
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = KeySet::draw().unwrap().write(&file).unwrap_err();
        assert!(refused.to_string().contains("cannot write"), "{refused}");
    }
}
