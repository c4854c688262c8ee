//! How shards work together: messages between them, changes of several coins over several shards,
//! and checkpoints of them all. Knows no commands.

mod checkpoint;
mod errand;
mod exchange;
mod inbox;
mod link;
mod moves;
mod together;

pub use checkpoint::{Checkpoints, checkpoint};
pub use inbox::{Inbox, inboxes};
pub use link::{Mesh, PassedListener};
pub use together::{Decision, Held};
