use super::{COINS_PER_PAGE, Coin, Denomination, SerialNumber};

/// Pages a denomination has.
pub const PAGES_PER_DENOMINATION: u16 = 1_000;
/// Pages a node has: 15 denominations of 1,000.
pub const PAGES: usize = Denomination::COUNT * PAGES_PER_DENOMINATION as usize;

/// One page of 1,024 coins: a denomination and a page number, 0 to 999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(u16);

impl PageId {
    /// `None` where the denomination has no such page.
    #[inline]
    pub fn new(denomination: Denomination, number: u16) -> Option<PageId> {
        (number < PAGES_PER_DENOMINATION)
            .then(|| PageId(denomination.index() as u16 * PAGES_PER_DENOMINATION + number))
    }

    /// The page with this dense index, 0 to 14,999: denomination index x 1,000 + page number.
    #[inline]
    pub fn from_index(index: usize) -> Option<PageId> {
        (index < PAGES).then_some(PageId(index as u16))
    }

    /// The dense index, 0 to 14,999.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The denomination of the page's coins.
    #[inline]
    pub fn denomination(self) -> Denomination {
        Denomination::from_index((self.0 / PAGES_PER_DENOMINATION) as usize)
            .expect("a page index is below 15,000, so its denomination index is below 15")
    }

    /// The page's number within its denomination, 0 to 999.
    #[inline]
    pub fn number(self) -> u16 {
        self.0 % PAGES_PER_DENOMINATION
    }

    /// The coin at a place of this page.
    ///
    /// # Panics
    /// When `place` is 1,024 or more.
    pub fn coin(self, place: usize) -> Coin {
        assert!(place < COINS_PER_PAGE, "a page has 1,024 places");
        let serial_number = self.number() as u32 * COINS_PER_PAGE as u32 + place as u32;
        Coin {
            denomination: self.denomination(),
            serial_number: SerialNumber::new(serial_number)
                .expect("page below 1,000 and place below 1,024 make a serial number"),
        }
    }

    /// The shard that owns the page: (page number + denomination index) mod shards, simple enough
    /// for the kernel to compute when it steers a datagram (docs/architecture.md, "Shape").
    #[inline]
    pub fn owner(self, shards: u16) -> ShardId {
        let index = self.0 / PAGES_PER_DENOMINATION;
        ShardId((self.0 % PAGES_PER_DENOMINATION + index) % shards)
    }

    /// The pages that a shard of `shards` owns, by rising index.
    pub fn owned(shard: ShardId, shards: u16) -> impl Iterator<Item = PageId> {
        (0..Denomination::COUNT as u16).flat_map(move |index| {
            let first = (shards + shard.0 - index % shards) % shards;
            let numbers = (first..PAGES_PER_DENOMINATION).step_by(shards as usize);
            numbers.map(move |number| PageId(index * PAGES_PER_DENOMINATION + number))
        })
    }

    /// All pages, by rising index.
    pub fn all() -> impl ExactSizeIterator<Item = PageId> {
        (0..PAGES).map(|index| PageId(index as u16))
    }
}

impl std::fmt::Display for PageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "page {} of denomination {}",
            self.number(),
            self.denomination()
        )
    }
}

impl std::fmt::Debug for PageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DN {} page {}", self.denomination(), self.number())
    }
}

/// One shard of a node: the part that one core owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard with this number, counted from 0.
    #[inline]
    pub const fn new(number: u16) -> ShardId {
        ShardId(number)
    }

    /// The shard's number, for indexing.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_one_owner_and_shards_get_even_parts() {
        for shards in 1..=7 {
            for shard in (0..shards).map(ShardId::new) {
                let owned = PageId::all().filter(|page| page.owner(shards) == shard);
                assert!(
                    owned.eq(PageId::owned(shard, shards)),
                    "{shard} of {shards}"
                );
            }
            let mut owned = vec![0usize; shards as usize];
            for page in PageId::all() {
                owned[page.owner(shards).index()] += 1;
            }
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            assert!(most - least <= 15, "{shards} shards own {owned:?}");
        }
    }
}
