//! One running node, from its data folder and settings to its stop: recovery, an executor a core,
//! and on each a shard, its end of the mesh, the commands and the sockets. Decides nothing itself;
//! it is where the layers above are put together.

mod core;
mod descriptors;
mod handler;
mod key_file;
mod meeting;
mod memory;
mod others;
mod settings;
mod settle;
mod start;

pub use descriptors::Descriptors;
pub use handler::Bytes;
pub use key_file::KeysError;
pub use settings::{Adjustable, Durability, OnLoss, Settings};
pub use start::{Control, Ended, Node, StartError, Summary};
