use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::shown::Shown;

use serde::{Deserialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{ADDRESS, Address, COUNTS, Counts, LATENCY, LatencyReport, socket_path};

/// Time that the node has to take a question, and again to answer it. It is longer than the node
/// gives its cores and earlier clients.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum size of an answer in bytes: all commands on more shards than possible take less.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A node that cannot be asked about itself.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no node runs on the data folder {folder}: start one with `raida serve --data {folder}`, or name the folder of one that runs with --data (a node that cannot make {folder}/admin.sock warns of it in its log)",
        folder = .0.shown()
    )]
    NoNode(PathBuf),
    /// The socket is another user's.
    #[error("{path} is not for this user: ask as the user that the node runs as", path = .0.shown())]
    NotAllowed(PathBuf),
    /// Something went wrong on the way.
    #[error("{path}: {error}; try again, the node may be busy or stopping", path = .path.shown())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The node has no answer.
    #[error("the node has no answer: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error(
        "the node's answer is not understood: {0}; is it of another version than this program?"
    )]
    Malformed(serde_json::Error),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: String },
    Report(T),
}

/// Asks the node that runs on this data folder how long its requests took.
///
/// # Errors
/// Where no node runs there, or it does not answer.
pub fn ask_latency(folder: &Path) -> Result<LatencyReport, AskError> {
    report(folder, LATENCY)
}

/// Asks the node that runs on this data folder what it has counted.
///
/// # Errors
/// Where no node runs there, or it does not answer.
pub fn ask_counts(folder: &Path) -> Result<Counts, AskError> {
    report(folder, COUNTS)
}

/// Asks the node that runs on this data folder where it serves.
///
/// # Errors
/// Where no node runs there, or it does not answer.
pub fn ask_address(folder: &Path) -> Result<Address, AskError> {
    report(folder, ADDRESS)
}

fn report<T: DeserializeOwned>(folder: &Path, question: &str) -> Result<T, AskError> {
    let path = socket_path(folder);
    let line = ask(&path, question).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NoNode(folder.to_owned())
        }
        io::ErrorKind::PermissionDenied => AskError::NotAllowed(path),
        _ => AskError::Io { path, error },
    })?;
    match serde_json::from_str(&line).map_err(AskError::Malformed)? {
        Answer::Report(report) => Ok(report),
        Answer::Error { error } => Err(AskError::Refused(error)),
    }
}

fn ask(path: &Path, question: &str) -> io::Result<String> {
    let mut socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(socket.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    match line.ends_with('\n') {
        true => Ok(line),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
