use std::cell::RefCell;

/// Maximum number of bytes that one read takes, and the size of the buffers that connections share.
pub(super) const READ_BYTES: usize = 32 * 1024;

/// The beginning of a request up to this size, bytes, is kept in memory of exactly its size:
/// thousands of clients that send a byte and wait cost next to nothing.
pub(super) const KEPT_BYTES: usize = 2 * 1024;

/// Number of buffers kept for the next connection, each way. All connections of a core run one
/// after the other, and few need their buffers while others run.
const SPARE_BUFFERS: usize = 16;

/// An outgoing buffer that grew beyond this many bytes is given back to the allocator.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// The bytes that a connection has received and not yet handled.
///
/// An idle connection holds no memory. A connection with the beginning of a small request holds as
/// much as that beginning. A connection with a large request holds a buffer that grows with what
/// arrives, up to the request's size, and ends with the request.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// All of it is initialised; `start..end` has arrived and is not handled.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// Memory that the connections of one core take turns in using.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Each [`READ_BYTES`] long.
    reading: RefCell<Vec<Vec<u8>>>,
    /// Each empty.
    writing: RefCell<Vec<Vec<u8>>>,
}

impl Inbound {
    /// The bytes that have arrived and are not handled.
    #[inline]
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `length` of those bytes.
    #[inline]
    pub(super) fn request(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.end][..length]
    }

    /// Memory that is kept for it, bytes.
    #[inline]
    pub(super) fn kept_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Drops the first `length` bytes.
    #[inline]
    pub(super) fn consume(&mut self, length: usize) {
        debug_assert!(length <= self.end - self.start, "nothing to leave behind");
        self.start += length;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room to read into, never empty. `needed` is the size, bytes, at which the request at the
    /// front can be looked at again: more than is pending.
    pub(super) fn room(&mut self, needed: usize, buffers: &Buffers) -> &mut [u8] {
        let pending = self.end - self.start;
        assert!(
            pending < needed,
            "a request that can be handled comes first"
        );
        // Doubling keeps the copies in proportion to the bytes. The buffer never grows beyond what
        // is needed, so a large buffer ends with its request. It never grows far beyond what has
        // arrived, so announcing a large request takes no memory.
        let size = needed.min((2 * pending).max(READ_BYTES));
        if size > READ_BYTES {
            if self.end == self.bytes.len() {
                let mut larger = Vec::with_capacity(size);
                larger.extend_from_slice(self.pending());
                larger.resize(size, 0);
                self.replace(larger, buffers);
            }
        } else if self.bytes.len() < READ_BYTES {
            let mut buffer = buffers.reading();
            buffer[..pending].copy_from_slice(self.pending());
            self.replace(buffer, buffers);
        } else if self.end == self.bytes.len() || self.bytes.len() - self.start < size {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, pending);
        }
        &mut self.bytes[self.end..]
    }

    /// Records that `length` bytes have been read into the room.
    #[inline]
    pub(super) fn filled(&mut self, length: usize) {
        self.end += length;
        debug_assert!(self.end <= self.bytes.len(), "read beyond the room");
    }

    /// Gives back memory that is not needed while nothing is being read.
    pub(super) fn settle(&mut self, buffers: &Buffers) {
        let pending = self.end - self.start;
        if pending == 0 {
            if !self.bytes.is_empty() {
                self.replace(Vec::new(), buffers);
            }
        } else if pending <= KEPT_BYTES && self.bytes.len() > KEPT_BYTES {
            self.replace(self.pending().to_vec(), buffers);
        }
    }

    /// Replaces the buffer by `bytes`, which starts with what is pending.
    fn replace(&mut self, bytes: Vec<u8>, buffers: &Buffers) {
        let old = std::mem::replace(&mut self.bytes, bytes);
        (self.start, self.end) = (0, self.end - self.start);
        if old.len() == READ_BYTES {
            let mut spare = buffers.reading.borrow_mut();
            if spare.len() < SPARE_BUFFERS {
                spare.push(old);
            }
        }
    }
}

impl Buffers {
    /// An empty buffer for answers.
    #[inline]
    pub(super) fn writing(&self) -> Vec<u8> {
        self.writing.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a buffer for answers.
    #[inline]
    pub(super) fn written(&self, mut buffer: Vec<u8>) {
        let mut spare = self.writing.borrow_mut();
        if spare.len() < SPARE_BUFFERS && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }

    fn reading(&self) -> Vec<u8> {
        let spare = self.reading.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; READ_BYTES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in pieces of at most `piece` bytes and takes off requests of `length` bytes.
    fn requests(stream: &[u8], piece: usize, length: usize) -> (Vec<Vec<u8>>, usize) {
        let (buffers, mut inbound) = (Buffers::default(), Inbound::default());
        let (mut fed, mut taken, mut largest) = (0, Vec::new(), 0);
        while fed < stream.len() {
            let room = inbound.room(length, &buffers);
            let read = room.len().min(piece).min(stream.len() - fed);
            room[..read].copy_from_slice(&stream[fed..fed + read]);
            inbound.filled(read);
            fed += read;
            largest = largest.max(inbound.bytes.len());
            while inbound.pending().len() >= length {
                taken.push(inbound.request(length).to_vec());
                inbound.consume(length);
            }
            inbound.settle(&buffers);
        }
        (taken, largest)
    }

    #[test]
    fn requests_come_out_as_they_went_in_however_they_are_cut() {
        let stream: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        for length in [
            1,
            48,
            1_000,
            READ_BYTES - 1,
            READ_BYTES,
            READ_BYTES + 1,
            99_999,
        ] {
            for piece in [999, 4_096, 1_000_000] {
                let (taken, _) = requests(&stream, piece, length);
                let whole = stream.len() / length * length;
                assert_eq!(taken.concat(), stream[..whole], "{length} by {piece}");
            }
        }
    }

    #[test]
    fn memory_follows_what_arrived_not_what_was_announced() {
        let (taken, largest) = requests(&[7; 100_000], 10_000, 1 << 30);
        assert!(taken.is_empty());
        assert!(largest <= 256 * 1024, "{largest} bytes for 100,000");
    }

    #[test]
    fn a_connection_at_rest_holds_no_buffer() {
        let (buffers, mut inbound) = (Buffers::default(), Inbound::default());
        inbound.room(1, &buffers)[..3].copy_from_slice(b"abc");
        inbound.filled(3);
        inbound.settle(&buffers);
        assert_eq!(inbound.bytes.capacity(), 3);
        inbound.consume(3);
        inbound.settle(&buffers);
        assert_eq!(inbound.bytes.capacity(), 0);
        assert_eq!(buffers.reading.borrow().len(), 1);
    }
}
