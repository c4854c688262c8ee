//! All 25 nodes of a network on this machine, for trials and tests: each is a process of its own
//! with its own data folder and port, and all are started, watched and stopped together. Of the
//! protocol this module knows only that a serving node answers echo; it sends that as any client
//! does.
//!
//! | room | what it is |
//! |---|---|
//! | [`Settings`] | what a network should be |
//! | `folder` | the files below the network's folder, and the lock that gives it to one process |
//! | [`KeySet`] | the secrets that they share, two by two, as files |
//! | `preflight` | what must hold before anything starts: free ports, enough descriptors |
//! | `process` | one child: born with its parent's death as its own, signalled, waited for |
//! | `log` | what a child writes, kept in bounds |
//! | `readiness` | which nodes answer echo, asked from threads of their own |
//! | `node` | one node's states, and how often it is started again |
//! | [`Supervisor`] | the loop over all of it |
//! | `control`, [`ask`], [`Request`] | a Unix socket in the folder: what runs, stop, start |

mod ask;
mod control;
mod event;
mod folder;
mod key_set;
mod log;
mod node;
mod preflight;
mod process;
mod readiness;
mod request;
mod settings;
mod status;
mod supervisor;

pub use ask::{AskError, ask};
pub use event::{Event, Next};
pub use folder::{hosts_file, node_folder};
pub use key_set::{KeySet, KeySetError, key_file};
pub use request::Request;
pub use settings::{Key, Settings};
pub use status::{NetworkStatus, NodeState, NodeStatus};
pub use supervisor::{Ended, Supervisor};

use std::{io, net::IpAddr, path::PathBuf};

use crate::shown::{Shown, remedy};

/// A network that cannot be started, or whose supervisor had to give up. No node of it runs then.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Another process has the folder.
    #[error(
        "a network runs in {folder} already, process {process}: ask it with `raida network status --dir {folder}`, end it with `raida network down --dir {folder}`, or name another folder with --dir",
        folder = folder.shown()
    )]
    InUse {
        /// The network's folder.
        folder: PathBuf,
        /// The other process, as it wrote it down, or "unknown".
        process: String,
    },
    /// The folder or a file in it is not available.
    #[error("{path}: {error}; nothing was started, name another folder with --dir{next}", path = path.shown(), next = remedy(error))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The nodes' secrets are not available.
    #[error("{0}; nothing was started")]
    Keys(#[from] KeySetError),
    /// Nobody can listen there.
    #[error(
        "{0} is no address of this machine: nothing was started; --bind takes one that `ip address` lists"
    )]
    NoAddress(IpAddr),
    /// Ports that nodes need are in use.
    #[error(
        "{which}: nothing was started; choose other ports with --base-port, or another address with --bind; {how}"
    )]
    NoPorts {
        /// The first of them and what is in its way, and the others.
        which: String,
        /// What is in its way, and what else to do.
        how: String,
    },
    /// The system allows too few open files.
    #[error(
        "{allowed} open files are allowed and each node may need {needed}: nothing was started; raise it with `ulimit -n {needed}`"
    )]
    TooFewDescriptors {
        /// The hard limit.
        allowed: u64,
        /// What a process needs.
        needed: u64,
    },
    /// Not one node came to serve.
    #[error(
        "not one node came to serve, so the network was stopped; {folder}/raidaN/node.log says why",
        folder = .0.shown()
    )]
    NothingServes(PathBuf),
    /// The system refuses what the supervisor itself needs.
    #[error("the network cannot be watched: {0}; its nodes are stopped")]
    System(#[from] io::Error),
}
