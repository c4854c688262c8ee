use rustix::process::{Resource, getrlimit, setrlimit};

use super::Settings;
use crate::settlement::Method;

/// Files of a process whatever it does: standard streams, the data folder and its lock, signals,
/// the admin socket and its clients, what is read and written by name now and then.
const OF_A_PROCESS: usize = 64;
/// Files of a shard: its sockets, the rings and events of its executor, its log's segments, the
/// page files, what a checkpoint writes.
const OF_A_SHARD: usize = 128;
/// Connections of a shard to the network's other servers.
const PEERS: usize = 24;
/// Files of a settlement program while it runs: three pipes, both ends.
const OF_A_PROGRAM: usize = 6;
/// Connections that may still be closing when others have taken their places.
const CLOSING: usize = 16;
/// Number of connections that are always admitted, even where files are few.
const CONNECTIONS_MIN: usize = 16;

/// How many files this process may have open, and how many of them the node keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Files it may have open (RLIMIT_NOFILE).
    pub limit: usize,
    /// Files that are none of a client's connection.
    pub own: usize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one, and says what a node with these settings has then.
    pub(super) fn raise(settings: &Settings) -> Descriptors {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = rustix::process::Rlimit {
                current: limit.maximum,
                ..limit
            };
            match setrlimit(Resource::Nofile, raised) {
                Ok(()) => limit = raised,
                Err(error) => tracing::warn!(
                    %error,
                    "cannot raise the limit of open files to what it may be at most"
                ),
            }
        }
        let programs = match &settings.settlement {
            Method::Command(program) => program.at_most,
            Method::None | Method::Trusted => 0,
        };
        let own = OF_A_PROCESS
            + usize::from(settings.shards) * (OF_A_SHARD + PEERS)
            + programs * OF_A_PROGRAM
            + CLOSING;
        Descriptors {
            limit: limit.current.map_or(usize::MAX, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            }),
            own,
        }
    }

    /// Connections that there are files for.
    pub fn connections(&self) -> usize {
        self.limit.saturating_sub(self.own).max(CONNECTIONS_MIN)
    }
}
