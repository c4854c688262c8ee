//! The file with the secrets that the node shares with the others, as it is found on disk.

use std::{
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use crate::plain_file;
use crate::protocol::{
    RaidaId,
    key_file::{self, KeyFileError},
    key_healing::SharedSecrets,
};
use crate::shown::{Shown, remedy};

/// The longest file that is read, in bytes: 25 secrets take 825, the rest is for comments.
const SIZE_MAX: usize = 65_536;
/// The user id of root, who can read and change everything anyway.
const ROOT: u32 = 0;
/// Access for the group and for all others.
const OTHERS: u32 = 0o077;

/// Why a node cannot have the secrets that it shares with the others. Says nothing of what they
/// are.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error(
        "cannot be read: {0}; name the file that `raida keys new` made for this node, or leave keys.file out{next}",
        next = remedy(.0)
    )]
    Unreadable(#[from] io::Error),
    /// Somebody but its owner may read or change it.
    #[error(
        "is open to others (mode {mode:04o}): chmod 600 {path}; if anybody may have read it, have `raida keys new` make another set",
        path = .path.shown()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can change it.
    #[error(
        "belongs to another user ({owner}): chown {user} {path}, who runs the node",
        path = .path.shown()
    )]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// Whose it is, by number.
        owner: u32,
        /// Who runs the node, by number.
        user: u32,
    },
    /// It is far longer than 25 secrets.
    #[error(
        "is longer than {SIZE_MAX} bytes; name the file that `raida keys new` made for this node"
    )]
    TooLong,
    /// Something else stands in it.
    #[error("{0}; name the file that `raida keys new` made for this node")]
    Malformed(#[from] KeyFileError),
}

/// Reads the file of the node with this number.
pub(super) fn read(path: &Path, own: RaidaId) -> Result<Arc<SharedSecrets>, KeysError> {
    let file = plain_file::open(path)?;
    // The metadata of the open file: another file may have its name by now.
    let metadata = file.metadata()?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user && owner != ROOT {
        return Err(KeysError::OfAnother {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(KeysError::OpenToOthers {
            path: path.to_owned(),
            mode,
        });
    }
    // Room for all of it at once: growing would leave copies of the secrets in memory.
    let most = SIZE_MAX + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(most));
    file.take(most as u64).read_to_end(&mut text)?;
    if text.len() > SIZE_MAX {
        return Err(KeysError::TooLong);
    }
    let read = key_file::parse(&text, own)?;
    if read.has_own {
        tracing::warn!(
            path = %path.shown(), raida = %own,
            "the secrets between servers have one in this node's own line, which is not used: are they another node's?"
        );
    }
    Ok(Arc::new(read.secrets))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    struct Trial {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Trial {
        fn new(text: &[u8], mode: u32) -> Trial {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("raida3.keys");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Trial {
                _folder: folder,
                path,
            }
        }

        fn read(&self) -> Result<Arc<SharedSecrets>, KeysError> {
            read(&self.path, RaidaId::new(3).unwrap())
        }

        fn refusal(&self) -> String {
            self.read().unwrap_err().to_string()
        }
    }

    fn good() -> String {
        let lines = (0..25).map(|raida| format!("{:032x}\n", raida + 0x5ec1e7));
        lines.collect()
    }

    #[test]
    fn a_file_that_its_owner_alone_can_read_is_read() {
        for mode in [0o600, 0o400] {
            let secrets = Trial::new(good().as_bytes(), mode).read().unwrap();
            for raida in RaidaId::all() {
                assert_eq!(secrets.of(raida).is_some(), raida.get() != 3);
            }
        }
    }

    #[test]
    fn a_file_that_others_have_any_access_to_is_refused_with_what_to_do() {
        for bit in 0..6 {
            let trial = Trial::new(good().as_bytes(), 0o600 | 1 << bit);
            let refusal = trial.refusal();
            let chmod = format!("chmod 600 {}", trial.path.display());
            assert!(refusal.contains(&chmod), "{refusal}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_holds_something_else_is_refused_and_not_shown() {
        let mut trial = Trial::new(&vec![b'#'; SIZE_MAX + 1], 0o600);
        assert!(trial.refusal().contains("65536 bytes"));
        trial.path.set_extension("gone");
        assert!(trial.refusal().contains("No such file"));
        let short = good().lines().take(24).collect::<Vec<_>>().join("\n");
        let refusal = Trial::new(short.as_bytes(), 0o600).refusal();
        assert!(refusal.starts_with("24 secrets") && !refusal.contains("5ec1"));
        let refusal = Trial::new(good().replacen("0000", "", 1).as_bytes(), 0o600).refusal();
        assert!(refusal.starts_with("line 1 ") && !refusal.contains("5ec1"));
    }
}
