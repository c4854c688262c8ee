//! What a node tells its operator about itself: a Unix socket in the data folder, served by a
//! thread that is none of the node's cores. It asks them through a mailbox each; nothing on a
//! request's way knows of it.

mod ask;
mod counts;
mod latency;
mod mailbox;
mod server;

pub use ask::{AskError, ask_address, ask_counts, ask_latency};
pub use counts::Counts;
pub use latency::{CommandLatency, LatencyReport, Quantiles, ShardLatency, Times};
pub use mailbox::{Mailbox, answer, mailboxes};
pub use server::Server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The words of a question, one a line; its answer is one line of JSON.
const LATENCY: &str = "latency";
const COUNTS: &str = "counts";
const ADDRESS: &str = "address";

/// Where a node serves, and as which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Its RAIDA number.
    pub raida: u8,
    /// Where it listens, TCP and UDP.
    pub listens: SocketAddr,
}

/// Where a node with this data folder is asked.
fn socket_path(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}
