//! Plain files, read up to a bound. A name that somebody gives may stand for something else: a
//! FIFO without a writer would hang its reader, a device or a file full of holes has no end.

use std::{
    fs::{File, FileType, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// The longest file that holds a key or another secret, bytes: its digits, and some space around
/// them.
pub const SECRET_BYTES_MAX: usize = 4 << 10;
/// The longest configuration, list of hosts or other text that a person writes, bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// The longest result of a measurement, or log of one, bytes.
pub const RESULT_BYTES_MAX: usize = 64 << 20;

const ROOT: u32 = 0;

/// Opens a file to be read.
///
/// # Errors
/// There is none, it cannot be read, or it is something else than a plain file.
pub fn open(path: &Path) -> io::Result<File> {
    // Does not wait for a FIFO's writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Makes a file that only its owner can read, in place of what stands there: of a run that did not
/// end, or of somebody who wants what is written, as a link to a file of his.
///
/// # Errors
/// What stands there cannot be removed, or no file can be made.
pub fn create_anew(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nor is a link followed that somebody makes now.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Says whether a file of this type is a plain one.
///
/// # Errors
/// It is something else.
pub fn check(file_type: FileType) -> io::Result<()> {
    if file_type.is_file() {
        return Ok(());
    }
    let what = match file_type {
        other if other.is_dir() => "a folder",
        other if other.is_fifo() => "a FIFO",
        other if other.is_socket() => "a socket",
        other if other.is_char_device() || other.is_block_device() => "a device",
        _ => "something else",
    };
    let text = format!("it is {what} and not a plain file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// As [`open`], or it is longer.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > most as u64 {
        return Err(too_long(length, most));
    }
    // It may grow while it is read.
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= most {
        true => Ok(bytes),
        false => Err(too_long(bytes.len() as u64, most)),
    }
}

/// Reads a text of at most `most` bytes.
///
/// # Errors
/// As [`read`], or it is no UTF-8.
pub fn read_text(path: &Path, most: usize) -> io::Result<String> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// Reads a text of at most `most` bytes that no other user may have put there.
///
/// # Errors
/// As [`read_text`], or it is somebody else's, who knows what is in it.
pub fn read_own_text(path: &Path, most: usize) -> io::Result<String> {
    check_owner(&open(path)?.metadata()?)?;
    read_text(path, most)
}

/// Whether a folder is one that nobody else decides about.
///
/// # Errors
/// It belongs to another user, or all users can write into it.
pub fn check_folder(folder: &File) -> io::Result<()> {
    let metadata = folder.metadata()?;
    check_owner(&metadata)?;
    if metadata.mode() & 0o002 != 0 {
        let text = "all users can write into it, and so decide what is in it: chmod o-w";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

fn check_owner(metadata: &Metadata) -> io::Result<()> {
    check_user(metadata.uid(), rustix::process::geteuid().as_raw())
}

/// Root may work with what is anybody's, and what is root's is good for anybody.
fn check_user(owner: u32, user: u32) -> io::Result<()> {
    if owner == user || owner == ROOT || user == ROOT {
        return Ok(());
    }
    let text = format!(
        "it belongs to user {owner}, who knows or decides what is in it, and this process runs as user {user}: use your own, or chown it"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn too_long(length: u64, most: usize) -> io::Error {
    let text = format!("it has {length} bytes, and such a file has {most} at most");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"text");
        assert_eq!(read_text(&file, 9).unwrap(), "text");
        let error = read(&file, 3).unwrap_err().to_string();
        assert_eq!(error, "it has 4 bytes, and such a file has 3 at most");
        std::fs::write(&file, [0xff]).unwrap();
        let error = read_text(&file, 9).unwrap_err().to_string();
        assert_eq!(error, "it is not text in UTF-8");
        // Holes take no disk, and would take memory.
        let holes = File::create(&file).unwrap();
        holes.set_len(1 << 42).unwrap();
        assert!(read(&file, 1 << 20).is_err());
        assert_eq!(
            read(&folder.path().join("none"), 9).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_folder_that_all_can_write_into_is_refused() {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let check = |mode| {
            std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            check_folder(&File::open(folder.path()).unwrap())
        };
        assert!(check(0o700).is_ok() && check(0o775).is_ok());
        let error = check(0o777).unwrap_err().to_string();
        assert!(error.contains("all users can write into it"), "{error}");
        for (owner, user) in [(1_000, 1_000), (0, 1_000), (1_000, 0)] {
            check_user(owner, user).unwrap();
        }
        let error = check_user(1_000, 1_001).unwrap_err().to_string();
        assert!(error.starts_with("it belongs to user 1000, "), "{error}");
    }

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let fifo = std::ffi::CString::new(at("fifo").to_str().unwrap()).unwrap();
        // SAFETY: the name is a string that ends with 0.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("link")).unwrap();
        let why = |path: &Path| read(path, 9).unwrap_err().to_string();
        assert_eq!(why(&at("fifo")), "it is a FIFO and not a plain file");
        assert_eq!(why(&at("link")), "it is a device and not a plain file");
        assert_eq!(why(folder.path()), "it is a folder and not a plain file");
        assert!(open(&at("socket")).is_err());
    }
}
