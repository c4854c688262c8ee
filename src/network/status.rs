use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The status of a network, as its supervisor reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its folder.
    pub folder: PathBuf,
    /// The supervisor's process number.
    pub pid: u32,
    /// All 25 nodes by RAIDA number.
    pub nodes: Vec<NodeStatus>,
}

/// The status of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its RAIDA number.
    pub raida: u8,
    /// Where it is reached, TCP and UDP, when it runs.
    pub host: SocketAddr,
    /// Its process number, where it has a process.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: NodeState,
    /// How often it was started again after it had ended by itself.
    pub restarts: u64,
    /// How it last ended by itself or not in order; `None` where it never did.
    pub last_end: Option<String>,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Nothing: it was left out, or stopped.
    Down,
    /// It has a process that does not answer yet.
    Starting,
    /// It answers.
    Ready,
    /// It was asked to stop and still has a process.
    Stopping,
    /// It ended by itself and is started again after a pause.
    Pausing,
    /// It ended by itself too often and is left alone until someone starts it.
    Failed,
}

impl NetworkStatus {
    /// Nodes that answer.
    pub fn ready(&self) -> usize {
        self.count(NodeState::Ready)
    }

    /// Nodes that were given up.
    pub fn failed(&self) -> usize {
        self.count(NodeState::Failed)
    }

    /// Whether every node answers, except those that are down.
    pub fn is_well(&self) -> bool {
        self.ready() + self.count(NodeState::Down) == self.nodes.len()
    }

    fn count(&self, state: NodeState) -> usize {
        let in_it = self.nodes.iter().filter(|node| node.state == state);
        in_it.count()
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NodeState::Down => "down",
            NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Stopping => "stopping",
            NodeState::Pausing => "pausing",
            NodeState::Failed => "failed",
        })
    }
}
