//! Memory for pages: many side by side in blocks as large as the processor's huge pages, so that
//! 15,000 of them take 125 entries of its address cache and not 65,000.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use super::slot::PageImage;
use crate::runtime::prefetch;

/// Bytes of a huge page on x86-64 and most ARM. Where the size differs, or the system has no huge
/// pages left, the memory works all the same.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
const CHUNK_BYTES: usize = HUGE_PAGE_BYTES;
/// Pages a chunk holds: 120, which leaves 0.4 % of it unused.
const CHUNK_PAGES: usize = CHUNK_BYTES / size_of::<PageImage>();

/// Pages in memory, each in a frame: numbered from 0, without gaps.
#[derive(Default)]
pub(super) struct Frames {
    chunks: Vec<Chunk>,
    count: usize,
}

/// Room for [`CHUNK_PAGES`] images; only the frames in use are initialised.
struct Chunk(NonNull<PageImage>);

impl Frames {
    /// How many frames there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds a frame with this page.
    pub fn push(&mut self, image: &PageImage) {
        let (chunk, index) = (self.count / CHUNK_PAGES, self.count % CHUNK_PAGES);
        if chunk == self.chunks.len() {
            // A node with few pages does not need a huge one for them.
            self.chunks.push(Chunk::new(chunk > 0));
        }
        // SAFETY: the chunk has room for CHUNK_PAGES images, aligned as they have to be, and
        // `index` is below that; nobody has a reference into it while `self` is borrowed mutably.
        unsafe { self.chunks[chunk].0.add(index).write(image.clone()) };
        self.count += 1;
    }

    /// The page in a frame.
    ///
    /// # Panics
    /// When there is no such frame.
    #[inline]
    pub fn get(&self, frame: usize) -> &PageImage {
        assert!(frame < self.count, "there is no frame {frame}");
        // SAFETY: frames below `count` were written by `push` and never become uninitialised; while
        // the result lives, `self` is borrowed.
        unsafe {
            self.chunks[frame / CHUNK_PAGES]
                .0
                .add(frame % CHUNK_PAGES)
                .as_ref()
        }
    }

    /// The page in a frame, mutably.
    ///
    /// # Panics
    /// When there is no such frame.
    #[inline]
    pub fn get_mut(&mut self, frame: usize) -> &mut PageImage {
        assert!(frame < self.count, "there is no frame {frame}");
        // SAFETY: as in `get`, and `self` is borrowed mutably.
        unsafe {
            self.chunks[frame / CHUNK_PAGES]
                .0
                .add(frame % CHUNK_PAGES)
                .as_mut()
        }
    }

    /// Gives a frame back; the last one's page takes its place.
    ///
    /// # Panics
    /// When there is no such frame.
    pub fn swap_remove(&mut self, frame: usize) {
        let last = self.count - 1;
        if frame != last {
            let image = self.get(last).clone();
            *self.get_mut(frame) = image;
        }
        self.count = last;
        self.chunks.truncate(self.count.div_ceil(CHUNK_PAGES));
    }

    /// Has the processor fetch a place of a frame, which is about to be looked at.
    #[inline]
    pub fn prefetch(&self, frame: usize, place: usize) {
        let image = self.get(frame);
        prefetch(&raw const image.ans[place]);
        prefetch(&raw const image.mfs[place]);
    }
}

impl Chunk {
    const LAYOUT: Layout = match Layout::from_size_align(CHUNK_BYTES, CHUNK_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two is an alignment"),
    };

    fn new(huge: bool) -> Chunk {
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc(Chunk::LAYOUT) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(Chunk::LAYOUT);
        };
        if huge {
            // SAFETY: the memory is ours.
            unsafe { wants_huge_pages(memory.as_ptr(), CHUNK_BYTES) };
        }
        Chunk(memory.cast())
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; images have nothing to drop.
        unsafe { dealloc(self.0.as_ptr().cast(), Chunk::LAYOUT) };
    }
}

/// Asks for huge pages for memory, which starts and ends at the border of one.
///
/// # Safety
/// The memory is the caller's.
pub unsafe fn wants_huge_pages(memory: *mut u8, bytes: usize) {
    let advice = rustix::mm::Advice::LinuxHugepage;
    // SAFETY: this advice does not change what memory holds. A system without huge pages refuses
    // it, which changes nothing either.
    let _ = unsafe { rustix::mm::madvise(memory.cast(), bytes, advice) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::{An, Mfs};

    fn image(number: u8) -> Box<PageImage> {
        let mut image = PageImage::blank();
        image.ans.fill(An::new([number; 16]));
        image.mfs.fill(Mfs::new(number));
        image
    }

    #[test]
    fn frames_hold_what_was_put_into_them_across_chunks() {
        let mut frames = Frames::default();
        let count = 2 * CHUNK_PAGES + 3;
        for number in 0..count {
            frames.push(&image(number as u8));
        }
        frames.get_mut(7).mfs[1_023] = Mfs::new(200);
        frames.swap_remove(CHUNK_PAGES);
        frames.swap_remove(frames.len() - 1);
        for frame in 0..frames.len() {
            let number = if frame == CHUNK_PAGES {
                count - 1
            } else {
                frame
            };
            assert!(frames.get(frame).ans[1_023] == An::new([number as u8; 16]));
            frames.prefetch(frame, 1_023);
        }
        assert_eq!(frames.get(7).mfs[1_023], Mfs::new(200));
        while frames.len() > 1 {
            frames.swap_remove(0);
        }
        assert_eq!(frames.chunks.len(), 1);
    }
}
