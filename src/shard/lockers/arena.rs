/// Items of a block.
const BLOCK: usize = 4_096;

/// Items that never move. A task that goes through them by number, with turns of other tasks in
/// between, misses none that stayed. Every insertion takes about equally long.
pub(super) struct Arena<T> {
    blocks: Vec<Box<[T]>>,
    used: u32,
    /// Numbers that were given back.
    free: Vec<u32>,
}

impl<T: Default> Arena<T> {
    pub(super) fn new() -> Arena<T> {
        Arena {
            blocks: Vec::new(),
            used: 0,
            free: Vec::new(),
        }
    }

    /// One past the highest number ever given.
    pub(super) fn end(&self) -> u32 {
        self.used
    }

    /// Items in it.
    pub(super) fn len(&self) -> usize {
        self.used as usize - self.free.len()
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> &T {
        &self.blocks[number as usize / BLOCK][number as usize % BLOCK]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.blocks[number as usize / BLOCK][number as usize % BLOCK]
    }

    /// Puts an item in and gives its number.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            if self.used as usize == self.blocks.len() * BLOCK {
                self.blocks.push((0..BLOCK).map(|_| T::default()).collect());
            }
            self.used += 1;
            self.used - 1
        });
        *self.get_mut(number) = item;
        number
    }

    /// Takes an item out; what is left in its place is the default.
    pub(super) fn remove(&mut self, number: u32) {
        *self.get_mut(number) = T::default();
        self.free.push(number);
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_numbers_and_numbers_are_used_again() {
        let mut arena = Arena::new();
        let numbers: Vec<u32> = (0..10_000u64).map(|item| arena.insert(item + 1)).collect();
        assert_eq!(arena.len(), 10_000);
        for (item, &number) in numbers.iter().enumerate() {
            assert_eq!(*arena.get(number), item as u64 + 1);
        }
        let bytes = arena.bytes();
        numbers
            .iter()
            .step_by(2)
            .for_each(|&number| arena.remove(number));
        assert_eq!((arena.len(), *arena.get(numbers[0])), (5_000, 0));
        let again: Vec<u32> = (0..5_000).map(|item| arena.insert(item)).collect();
        assert!(again.iter().all(|number| number % 2 == 0));
        assert_eq!((arena.len(), arena.end()), (10_000, 10_000));
        assert!(arena.bytes() < bytes + 8_192 * 4 + 1);
    }
}
