//! The file that holds a node's admin key.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::protocol::AdminKey;

/// Why an admin key could not be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// The file could not be read.
    #[error("cannot read the admin key {file}: {cause}; name its file with --admin-key-file, or the node's data folder with --data", file = .0.display(), cause = .1)]
    Unreadable(PathBuf, io::Error),
    /// The file holds something else.
    #[error("{file} holds no admin key: 32 hex digits and a line end are expected", file = .0.display())]
    NotAKey(PathBuf),
    /// The file could not be written.
    #[error("cannot write the admin key {file}: {cause}", file = .0.display(), cause = .1)]
    Unwritable(PathBuf, io::Error),
}

/// Reads an admin key: 32 hex digits, white space around them.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read(file: &Path) -> Result<AdminKey, AdminKeyError> {
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|cause| AdminKeyError::Unreadable(file.to_owned(), cause))?;
    let digits = text.trim();
    // from_str_radix alone would take a sign.
    let hex = digits.len() == 2 * AdminKey::SIZE && digits.bytes().all(|d| d.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(digits, 16).ok())
        .flatten()
        .map(|number| AdminKey::new(number.to_be_bytes()))
        .ok_or_else(|| AdminKeyError::NotAKey(file.to_owned()))
}

/// Reads an admin key, or where there is no such file makes a random one, readable by its owner
/// only.
///
/// # Errors
/// The file cannot be read, holds something else, or cannot be written.
pub fn read_or_create(file: &Path) -> Result<AdminKey, AdminKeyError> {
    match read(file) {
        Err(AdminKeyError::Unreadable(_, cause)) if cause.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    let mut key = Zeroizing::new([0; AdminKey::SIZE]);
    let text = getrandom::fill(&mut *key)
        .map(|()| Zeroizing::new(format!("{:032x}\n", u128::from_be_bytes(*key))))
        .map_err(io::Error::other);
    let written = text.and_then(|text| {
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()
    });
    written.map_err(|cause| AdminKeyError::Unwritable(file.to_owned(), cause))?;
    Ok(AdminKey::new(*key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_created_key_reads_back_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin.key");
        let key = read_or_create(&file).unwrap();
        assert!(read(&file).unwrap() == key);
        assert!(read_or_create(&file).unwrap() == key);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn anything_but_32_hex_digits_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin.key");
        for text in [
            "",
            "5ec1e7",
            "+ec1e7c1e75ec1e7c1e75ec1e7c1e75e",
            &"5".repeat(33),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains("32 hex digits") && !error.contains("5ec1e7"));
        }
    }
}
