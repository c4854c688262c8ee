//! Data on disk and the part of it that is kept in memory: pages, page files, the log, checkpoints,
//! recovery. Knows coins and their values; knows nothing of commands, requests or who asks.
//!
//! A data folder holds `pages/` (one file a denomination), `log/` (segments), `book/` (what the
//! node remembers of lockers beside the pages), `round` (the newest checkpoint round that a
//! recovery completed), `segments` (which segments have to be there), `used` (single-use items that
//! were used: spent encryption tickets), `secret`, `lock` and, unless the configuration names
//! another place, `admin.key`.

pub mod book;
mod folder;
mod frames;
pub mod import;
pub mod log;
pub mod offline;
mod page_file;
pub mod pages;
pub mod raidax;
mod read_only;
pub mod rebuild;
pub mod record;
pub mod recovery;
mod round;
mod secret;
pub mod segment;
mod segment_list;
pub mod slot;
pub mod snapshot;
mod trouble;
mod used;
pub mod verify;
mod window;

pub use folder::{DataFolder, FolderError, NodeIdentity, write_secret};
pub use frames::{HUGE_PAGE_BYTES, wants_huge_pages};
pub use page_file::{Extents, PageFiles, Slot, page_file_name, slot_offset};
pub use secret::NodeSecret;
pub use segment_list::Checkpointed;
pub use slot::{PageImage, SLOT_BYTES};
pub use trouble::{Over, Trouble};
pub use used::{Thing, Used, UsedFile};

use crate::runtime::SYNCED_FOLDER;

/// Folder of log segments within a data folder.
pub const LOG_FOLDER: &str = SYNCED_FOLDER;
/// Folder of book files within a data folder.
pub const BOOK_FOLDER: &str = "book";
/// Folder of page files within a data folder.
pub const PAGE_FOLDER: &str = "pages";
