use std::collections::VecDeque;

/// Items of a block: some 16 to 128 KiB.
const BLOCK: usize = 4_096;

/// A queue in blocks. Its items never move, and an empty block is used again. So the queue takes
/// memory for the most items that it ever held at one time, and every push takes equally long.
pub(super) struct Blocks<T> {
    blocks: VecDeque<Box<[T]>>,
    spare: Vec<Box<[T]>>,
    /// Number of items that are gone from the first block.
    gone: usize,
    len: usize,
}

impl<T: Copy + Default> Blocks<T> {
    pub(super) fn new() -> Blocks<T> {
        Blocks {
            blocks: VecDeque::new(),
            spare: Vec::new(),
            gone: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&T> {
        (self.len > 0).then(|| self.get(0))
    }

    /// The item with this number, counted from the front.
    ///
    /// # Panics
    /// When there is no such item.
    #[inline]
    pub(super) fn get(&self, index: usize) -> &T {
        assert!(index < self.len, "there is no item {index}");
        let at = self.gone + index;
        &self.blocks[at / BLOCK][at % BLOCK]
    }

    /// As [`get`](Blocks::get), mutably.
    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        assert!(index < self.len, "there is no item {index}");
        let at = self.gone + index;
        &mut self.blocks[at / BLOCK][at % BLOCK]
    }

    #[inline]
    pub(super) fn push_back(&mut self, item: T) {
        let at = self.gone + self.len;
        if at == self.blocks.len() * BLOCK {
            let spare = self.spare.pop();
            let block = spare.unwrap_or_else(|| vec![T::default(); BLOCK].into());
            self.blocks.push_back(block);
        }
        self.blocks[at / BLOCK][at % BLOCK] = item;
        self.len += 1;
    }

    /// Number of blocks that it takes memory for.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len() + self.spare.len()
    }

    /// Takes `count` items off the back.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub(super) fn drop_back(&mut self, count: usize) {
        assert!(count <= self.len, "there are fewer than {count} items");
        self.len -= count;
    }

    /// Takes `count` items off the front.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub(super) fn drop_front(&mut self, count: usize) {
        assert!(count <= self.len, "there are fewer than {count} items");
        self.gone += count;
        self.len -= count;
        while self.gone >= BLOCK {
            self.gone -= BLOCK;
            self.spare.extend(self.blocks.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_blocks_are_used_again() {
        let mut queue = Blocks::new();
        let (mut pushed, mut dropped) = (0u32, 0u32);
        for round in 0..200 {
            for _ in 0..997 {
                queue.push_back(pushed);
                pushed += 1;
            }
            for index in [0, queue.len() / 2, queue.len() - 1] {
                assert_eq!(*queue.get(index), dropped + index as u32);
            }
            // Up to 10 rounds' items are kept.
            if round >= 10 {
                queue.drop_front(997);
                dropped += 997;
            }
            assert_eq!(queue.front(), Some(&dropped));
        }
        let blocks = queue.blocks();
        assert!(blocks <= 11 * 997 / BLOCK + 2, "{blocks} blocks");
        let (length, last) = (queue.len(), *queue.get(queue.len() - 1));
        for count in [1, 10_000] {
            (0..count).for_each(|_| queue.push_back(0));
            queue.drop_back(count as usize);
            assert_eq!((queue.len(), *queue.get(length - 1)), (length, last));
        }
        queue.drop_front(queue.len());
        assert_eq!(queue.front(), None);
        queue.push_back(7);
        *queue.get_mut(0) += 1;
        assert_eq!(queue.front(), Some(&8));
    }
}
