//! Coins on disk.

pub mod raidax;
