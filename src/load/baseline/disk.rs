use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use crate::load::recorder::Recorder;

const BLOCK_BYTES: usize = 4_096;
/// Number of blocks written, one after the other and then again from the first.
const BLOCKS: u64 = 4_096;

/// A block, aligned for direct I/O.
#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// A bare disk: one block written directly and synced, then the next. The file has no name and is
/// full of zeros from the start, like a log segment. So no sync has to write a file's length or its
/// block list.
pub(in crate::load) struct Disk {
    file: File,
    block: Block,
    next: u64,
}

impl Disk {
    /// Makes a file in `folder`.
    ///
    /// # Errors
    /// There is no such folder, or its file system cannot hold a file without a name.
    pub(in crate::load) fn open(folder: &Path) -> io::Result<Disk> {
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).mode(0o600);
            options.custom_flags(libc::O_TMPFILE | flags).open(folder)
        };
        let file = match open(libc::O_DIRECT) {
            Ok(file) => file,
            // Memory file systems have no cache to bypass.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => open(0)?,
            Err(error) => return Err(error),
        };
        let mut block = Block([0; BLOCK_BYTES]);
        for index in 0..BLOCKS {
            file.write_all_at(&block.0, index * BLOCK_BYTES as u64)?;
        }
        file.sync_all()?;
        block.0.fill(0xa5);
        Ok(Disk {
            file,
            block,
            next: 0,
        })
    }

    /// Writes until `until`, and records how long each write took.
    ///
    /// # Errors
    /// The disk fails.
    pub(in crate::load) fn run(
        &mut self,
        until: Instant,
        recorder: &mut Recorder,
    ) -> io::Result<()> {
        let mut start = Instant::now();
        while start < until {
            self.file
                .write_all_at(&self.block.0, self.next % BLOCKS * BLOCK_BYTES as u64)?;
            self.file.sync_data()?;
            self.next += 1;
            let end = Instant::now();
            recorder.at(end);
            recorder.right(end - start);
            start = end;
        }
        Ok(())
    }
}
