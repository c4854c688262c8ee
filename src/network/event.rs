use std::{fmt, path::PathBuf, time::Duration};

use super::NetworkStatus;
use crate::protocol::RaidaId;
use crate::shown::Shown;

/// An event that the operator of a network should know. Its text describes it.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node answers.
    Ready(RaidaId),
    /// Every node that was to start at first serves or was given up.
    Up(NetworkStatus),
    /// A node ended by itself.
    Ended {
        /// The node.
        raida: RaidaId,
        /// How it ended.
        how: String,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        last_lines: Vec<String>,
        /// What happens to it next.
        next: Next,
    },
    /// A node ended that had been asked to, in order.
    Stopped(RaidaId),
    /// A node ended that had been asked to, and left something unanswered.
    CutOff {
        /// The node.
        raida: RaidaId,
        /// How it ended.
        how: String,
    },
    /// All nodes are being stopped.
    Stopping,
    /// A node's log is longer than it should be and cannot be emptied.
    LogGrows(PathBuf, String),
}

/// What happens to a node that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is started again after this time.
    Again(Duration),
    /// It has ended so often in a row that it is left alone.
    GivenUp(u32),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Ready(raida) => write!(f, "RAIDA {raida} is ready"),
            Event::Up(status) => {
                let (ready, all) = (status.ready(), status.nodes.len());
                write!(f, "{ready} of {all} nodes are ready")
            }
            Event::Stopped(raida) => write!(f, "RAIDA {raida} is stopped"),
            Event::CutOff { raida, how } => write!(
                f,
                "RAIDA {raida} did not stop in order: {how}; what it answered is on disk"
            ),
            Event::Stopping => f.write_str("stops all nodes; a second signal ends them at once"),
            Event::LogGrows(log, error) => write!(
                f,
                "{} has grown too long and cannot be emptied: {error}; it grows on",
                log.shown()
            ),
            Event::Ended {
                raida,
                how,
                log,
                last_lines,
                next,
            } => {
                write!(f, "RAIDA {raida} ended by itself: {how}; ")?;
                match next {
                    Next::Again(pause) => {
                        write!(f, "it starts again in {} ms", pause.as_millis())?;
                    }
                    Next::GivenUp(times) => write!(
                        f,
                        "{times} times in a row, so it is left alone until `raida network start {raida}`"
                    )?,
                }
                write!(f, "; the end of {}:", log.shown())?;
                if last_lines.is_empty() {
                    write!(f, "\n    (empty)")?;
                }
                for line in last_lines {
                    write!(f, "\n    {line}")?;
                }
                Ok(())
            }
        }
    }
}
