use std::{
    fmt::{self, Display, Formatter},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    BOOK_FOLDER, LOG_FOLDER, NodeSecret, PAGE_FOLDER, round::ROUND_FILE,
    segment_list::SEGMENTS_FILE,
};
use crate::folder_lock::{FolderLock, LockRefused};
use crate::hex;
use crate::plain_file;
use crate::runtime::remove_scratch;
use crate::shown::{Shown, remedy};

/// A data folder that this process alone works on, for as long as this value lives. The kernel
/// holds the lock and frees it when the process ends, in whatever way.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    created: bool,
    _lock: FolderLock,
}

/// A data folder that cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process works on it.
    #[error(
        "{folder} is in use by process {process}: a data folder serves one node at a time; stop that process, or name another folder with --data"
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process, as it wrote it down, or "unknown".
        process: String,
    },
    /// There is no data folder, and the caller did not ask to make one.
    #[error(
        "{folder} is not a data folder: `raida serve` or `raida import` makes one, --data names another"
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// It is a wallet.
    #[error("{folder} is a wallet, which has a folder Bank, and no data folder: name another one with --data", folder = folder.shown())]
    Wallet {
        /// The folder.
        folder: PathBuf,
    },
    /// The node's secret is gone, and other files are there.
    #[error(
        "{path} is missing, though a node has run here: restore it from a backup. Or empty the whole folder: the node then starts as a new one, and coins are healed by the other servers of its network"
    )]
    SecretLost {
        /// The file.
        path: PathBuf,
    },
    /// The node's secret is not what it must be.
    #[error(
        "{path} must hold 32 hexadecimal digits: restore it from a backup, since free coins' numbers follow from it"
    )]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// Another node has served from the folder.
    #[error(
        "{folder} is the data folder of {was}, and this node is {is}: set node.raida_id and node.coin_id as they were, or name another folder with --data; if the coins in it are this node's all the same, remove {folder}/{IDENTITY_FILE}",
        folder = folder.shown()
    )]
    OtherNode {
        /// The folder.
        folder: PathBuf,
        /// The node that has served from it.
        was: NodeIdentity,
        /// The node that wants to serve from it.
        is: NodeIdentity,
    },
    /// The file that names the folder's node is malformed.
    #[error(
        "{path} must say whose data folder this is, as in \"RAIDA 7, coin id 6\": restore it from a backup, or remove it if you know that it is this node's"
    )]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("{path}: {error}{next}", next = remedy(error))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// In a data folder: the node whose it is.
const IDENTITY_FILE: &str = "node";

/// Identifies a node: its number and its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its RAIDA number.
    pub raida: u8,
    /// Its coin id.
    pub coin_id: u16,
}

impl Display for NodeIdentity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "RAIDA {}, coin id {}", self.raida, self.coin_id)
    }
}

impl NodeIdentity {
    fn parse(text: &str) -> Option<NodeIdentity> {
        let (raida, coin_id) = text
            .trim()
            .strip_prefix("RAIDA ")?
            .split_once(", coin id ")?;
        Some(NodeIdentity {
            raida: raida.parse().ok()?,
            coin_id: coin_id.parse().ok()?,
        })
    }
}

impl DataFolder {
    /// Opens a data folder, making it where it is missing and `create` is set, and locks it.
    ///
    /// # Errors
    /// Where it is in use, missing, or cannot be read and written.
    pub fn open(path: &Path, create: bool) -> Result<DataFolder, FolderError> {
        let secret = path.join("secret");
        let lost = || FolderError::SecretLost {
            path: secret.clone(),
        };
        let is_there = secret.try_exists().map_err(|error| FolderError::Io {
            path: secret.clone(),
            error,
        })?;
        if !is_there && !create {
            if has_served(path) {
                return Err(lost());
            }
            return Err(FolderError::Missing {
                folder: path.to_owned(),
            });
        }
        if !is_there && path.join("Bank").is_dir() {
            return Err(FolderError::Wallet {
                folder: path.to_owned(),
            });
        }
        make(path)?;
        // The lock comes before anything is made in the folder: another node's folder stays as that
        // node has it.
        let lock = FolderLock::take(path).map_err(|refused| match refused {
            LockRefused::Taken { process } => FolderError::InUse {
                folder: path.to_owned(),
                process,
            },
            LockRefused::Io { path, error } => FolderError::Io { path, error },
        })?;
        for folder in [PAGE_FOLDER, LOG_FOLDER, BOOK_FOLDER] {
            make(&path.join(folder))?;
        }
        // Looked at under the lock: another process may just have made it.
        let created = !secret.exists();
        if created && has_served(path) {
            return Err(lost());
        }
        remove_scratch(path).map_err(|error| FolderError::Io {
            path: path.to_owned(),
            error,
        })?;
        if created {
            let mut bytes = [0u8; NodeSecret::SIZE];
            getrandom::fill(&mut bytes).map_err(|error| FolderError::Io {
                path: secret.clone(),
                error: io::Error::other(error.to_string()),
            })?;
            // Makes the names in the folder durable too, but not the folder's own.
            let written = write_secret(&secret, &bytes).and_then(|()| sync_parent(path));
            written.map_err(|error| FolderError::Io {
                path: secret.clone(),
                error,
            })?;
        }
        Ok(DataFolder {
            path: path.to_owned(),
            created,
            _lock: lock,
        })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether opening it made it.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Writes down which node serves from the folder, where no node has yet.
    ///
    /// # Errors
    /// Another one has; or the file system fails.
    pub fn serve_as(&self, is: NodeIdentity) -> Result<(), FolderError> {
        if self.is_of(is)? {
            return Ok(());
        }
        let path = self.path.join(IDENTITY_FILE);
        write_whole(&path, &format!("{is}\n")).map_err(|error| FolderError::Io { path, error })
    }

    /// Whether this node serves from the folder; `false` where none has yet.
    ///
    /// # Errors
    /// Another one has; or the file system fails.
    fn is_of(&self, is: NodeIdentity) -> Result<bool, FolderError> {
        let path = self.path.join(IDENTITY_FILE);
        let was = match plain_file::read_text(&path, plain_file::SECRET_BYTES_MAX) {
            Ok(text) => NodeIdentity::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(FolderError::Io { path, error }),
        };
        match was {
            Some(was) if was == is => Ok(true),
            Some(was) => Err(FolderError::OtherNode {
                folder: self.path.clone(),
                was,
                is,
            }),
            None => Err(FolderError::Identity { path }),
        }
    }

    /// The secret that the folder was made with.
    ///
    /// # Errors
    /// Where it cannot be read or is not 32 hexadecimal digits.
    pub fn secret(&self) -> Result<NodeSecret, FolderError> {
        let path = self.path.join("secret");
        let text = plain_file::read_own_text(&path, plain_file::SECRET_BYTES_MAX);
        let text = text.map_err(|error| FolderError::Io {
            path: path.clone(),
            error,
        })?;
        let bytes = hex::read(text.trim()).ok_or(FolderError::Secret { path })?;
        Ok(NodeSecret::new(bytes))
    }
}

/// Whether a recovery ever ended in this folder.
fn has_served(folder: &Path) -> bool {
    folder.join(ROUND_FILE).exists() || folder.join(SEGMENTS_FILE).exists()
}

/// Makes a folder that only its owner can look into, where there is none.
fn make(folder: &Path) -> Result<(), FolderError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| FolderError::Io {
        path: folder.to_owned(),
        error,
    })
}

/// Writes 16 bytes as hexadecimal digits into a file that only its owner can read, durably and
/// under its name only when it is whole.
///
/// # Errors
/// As the file system gives them.
pub fn write_secret(path: &Path, bytes: &[u8; 16]) -> io::Result<()> {
    let digits = Zeroizing::new(hex::write(bytes));
    write_whole(path, &Zeroizing::new(format!("{}\n", *digits)))
}

/// Writes a file that only its owner can read, durably and under its name only when it is whole.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = plain_file::create_anew(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_parent(path)
}

/// Makes a name durable: that of the folder or file at `path`.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_with_the_process_number() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let first = DataFolder::open(&path, true).unwrap();
        assert!(first.was_created());
        let refused = DataFolder::open(&path, true).unwrap_err().to_string();
        assert!(
            refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(first);
        assert!(!DataFolder::open(&path, false).unwrap().was_created());
    }

    #[test]
    fn the_secret_stays_the_same_and_is_nobody_elses() {
        let place = tempfile::tempdir().unwrap();
        let secret = |path: &Path| {
            *DataFolder::open(path, true)
                .unwrap()
                .secret()
                .unwrap()
                .expose()
        };
        let first = secret(place.path());
        assert_eq!(first, secret(place.path()));
        let mode = fs::metadata(place.path().join("secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_folder_whose_secret_alone_is_gone_is_no_new_one() {
        for left in ["round", "segments"] {
            let place = tempfile::tempdir().unwrap();
            drop(DataFolder::open(place.path(), true).unwrap());
            fs::remove_file(place.path().join("secret")).unwrap();
            fs::write(place.path().join(left), "").unwrap();
            for create in [true, false] {
                let refused = DataFolder::open(place.path(), create).unwrap_err();
                assert!(matches!(refused, FolderError::SecretLost { .. }));
            }
            fs::remove_file(place.path().join(left)).unwrap();
            assert!(DataFolder::open(place.path(), true).unwrap().was_created());
        }
    }

    #[test]
    fn a_folder_is_one_nodes() {
        let place = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(place.path(), true).unwrap();
        let seven = NodeIdentity {
            raida: 7,
            coin_id: 6,
        };
        for _ in 0..2 {
            folder.serve_as(seven).unwrap();
        }
        for other in [
            NodeIdentity { raida: 3, ..seven },
            NodeIdentity {
                coin_id: 2,
                ..seven
            },
        ] {
            let refused = folder.serve_as(other).unwrap_err().to_string();
            assert!(
                refused.contains("RAIDA 7, coin id 6, and this node is"),
                "{refused}"
            );
        }
        let file = place.path().join(IDENTITY_FILE);
        fs::write(&file, "RAIDA x").unwrap();
        assert!(matches!(
            folder.serve_as(seven),
            Err(FolderError::Identity { .. })
        ));
        fs::remove_file(file).unwrap();
        folder.serve_as(seven).unwrap();
    }

    #[test]
    fn a_missing_folder_is_said_to_be_missing() {
        let place = tempfile::tempdir().unwrap();
        let missing = DataFolder::open(&place.path().join("none"), false).unwrap_err();
        assert!(matches!(missing, FolderError::Missing { .. }));
        assert!(!place.path().join("none").exists());
    }
}
