//! The file that holds a node's admin key.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::plain_file;
use crate::protocol::AdminKey;
use crate::shown::{Shown, remedy};

/// Why an admin key could not be read from its file.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// The file could not be read.
    #[error("cannot read the admin key {file}: {cause}; name its file with --admin-key-file, or the node's data folder with --data{next}", file = .0.shown(), cause = .1, next = remedy(.1))]
    Unreadable(PathBuf, io::Error),
    /// The file holds something else.
    #[error("{file} holds no admin key: 32 hex digits and a line end are expected", file = .0.shown())]
    NotAKey(PathBuf),
}

/// Reads an admin key: 32 hex digits, white space around them.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read(file: &Path) -> Result<AdminKey, AdminKeyError> {
    let text = plain_file::read_text(file, plain_file::SECRET_BYTES_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

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
