use std::io;

use crate::runtime::{BLOCK_BYTES, File};

/// A part of a file kept in memory, so that small looks at the file become large reads.
pub(super) struct Window<'a, F> {
    file: &'a F,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, F: File> Window<'a, F> {
    const BYTES: usize = 4 << 20;

    /// A window on a file of this many bytes.
    pub fn new(file: &'a F, length: u64) -> Window<'a, F> {
        Window {
            file,
            length,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes at `offset`, before the file's end. `length` may reach to the end of the file's
    /// last block.
    pub async fn at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + length as u64 > end {
            let most = (self.length - offset).min(Self::BYTES.max(length) as u64) as usize;
            let most = most.next_multiple_of(BLOCK_BYTES);
            self.bytes = self.file.read_at(offset, most).await?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..from + length])
    }
}
