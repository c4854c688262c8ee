//! What is on disk and what is kept of it in memory: pages, page files, the log, checkpoints,
//! recovery. Knows coins and their values; knows nothing of commands, requests or who asks.
//!
//! A data folder holds `pages/` (one file a denomination), `log/` (segments), `book/` (what is remembered
//! of lockers beside the pages), `round` (the newest checkpoint round that a recovery completed),
//! `segments` (which segments have to be there),
//! `used` (what may be used once only, and was), `secret`, `lock` and, unless the configuration names another place, `admin.key`.

pub mod book;
mod disk;
mod environment;
mod folder;
mod frames;
pub mod import;
mod live;
pub mod log;
pub mod offline;
mod page_file;
pub mod pages;
mod prefetch;
mod pulse;
pub mod raidax;
mod read_only;
pub mod rebuild;
pub mod record;
pub mod recovery;
mod round;
mod secret;
mod segment;
mod segment_list;
mod signal;
mod slot;
pub mod snapshot;
mod trouble;
mod turn;
mod used;
pub mod verify;
mod wall_clock;
mod window;

pub use disk::{Disk, DiskFile, quiet};
pub use environment::{BLOCK_BYTES, Environment, File, Storage};
pub use folder::{DataFolder, FolderError, NodeIdentity, from_hex, write_secret};
pub use frames::{HUGE_PAGE_BYTES, wants_huge_pages};
pub use live::Live;
pub use page_file::{Extents, PageFiles, Slot, page_file_name, slot_offset};
pub use prefetch::{LINE_BYTES, prefetch};
pub use pulse::{keep_awake, run_awake};
pub use secret::NodeSecret;
pub use segment_list::Checkpointed;
pub use signal::{Moment, Signal, yield_now};
pub use slot::{PageImage, SLOT_BYTES};
pub use trouble::{Over, Trouble};
pub use turn::{Line, LinePlace, turn};
pub use used::{Thing, Used, UsedFile};
pub use wall_clock::{Moved, WallClock};

/// Folder of log segments within a data folder.
pub const LOG_FOLDER: &str = "log";
/// Folder of book files within a data folder.
pub const BOOK_FOLDER: &str = "book";
/// Folder of page files within a data folder.
pub const PAGE_FOLDER: &str = "pages";
