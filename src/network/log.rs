use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A log that has grown beyond this many bytes is started again from the beginning.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are read for the last lines.
const TAIL_BYTES: u64 = 4 << 10;
/// Number of last lines shown of a node that ended.
const TAIL_LINES: usize = 5;

/// The output of a node. It holds one run of the node, and the run before beside it: an end that
/// was followed by a new start can still be examined.
#[derive(Debug)]
pub(super) struct NodeLog {
    path: PathBuf,
}

impl NodeLog {
    /// The log of the node with this data folder.
    pub(super) fn of(folder: &Path) -> NodeLog {
        NodeLog {
            path: folder.join("node.log"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An empty log for a new run.
    pub(super) fn begin(&self) -> io::Result<File> {
        match fs::rename(&self.path, self.path.with_extension("log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .create(true)
            // Append mode: a node goes on at the start of a log that was emptied under it.
            .append(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// Empties a log that has grown too long.
    pub(super) fn keep_in_bounds(&self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(of) if of.len() > LOG_BYTES_MAX => {
                OpenOptions::new().write(true).open(&self.path)?.set_len(0)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The last lines; none where there is nothing to read.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let end = self.end().unwrap_or_default();
        let text = String::from_utf8_lossy(&end);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        last.iter().map(|&line| line.to_owned()).collect()
    }

    fn end(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut end = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut end)?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_keeps_one_run_and_the_one_before() {
        let place = tempfile::tempdir().unwrap();
        let log = NodeLog::of(place.path());
        assert!(log.last_lines().is_empty());
        for run in ["first", "second", "third"] {
            writeln!(log.begin().unwrap(), "{run}").unwrap();
        }
        let text = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
        assert_eq!(text("node.log"), "third\n");
        assert_eq!(text("node.log.1"), "second\n");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_that_grew_too_long_is_begun_anew_under_its_writer() {
        let place = tempfile::tempdir().unwrap();
        let log = NodeLog::of(place.path());
        log.keep_in_bounds().unwrap();
        let mut writer = log.begin().unwrap();
        writer.set_len(LOG_BYTES_MAX).unwrap();
        log.keep_in_bounds().unwrap();
        assert_eq!(fs::metadata(log.path()).unwrap().len(), LOG_BYTES_MAX);
        writer.write_all(b"\n").unwrap();
        log.keep_in_bounds().unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(fs::read(log.path()).unwrap(), b"after\n");
    }

    #[test]
    fn the_last_lines_are_read_from_the_end() {
        let place = tempfile::tempdir().unwrap();
        let log = NodeLog::of(place.path());
        let mut writer = log.begin().unwrap();
        for line in 0..10_000 {
            writeln!(writer, "line {line}").unwrap();
        }
        let expected: Vec<String> = (9_995..10_000).map(|line| format!("line {line}")).collect();
        assert_eq!(log.last_lines(), expected);
    }
}
