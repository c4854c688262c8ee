//! Coins, and numbers that they have or get.

use raida::coin::{An, Coin, PageId};

/// Coins of several pages, so of all shards.
pub fn coin(index: usize) -> Coin {
    PageId::from_index(8_000 + index % 3).unwrap().coin(index)
}

pub fn an(index: usize) -> An {
    An::new([index as u8 + 1; 16])
}

/// A number that no coin had yet.
pub fn number(number: u8) -> An {
    An::new(std::array::from_fn(|i| number ^ (i as u8) << 4))
}
