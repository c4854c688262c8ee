use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::shown::Shown;

use serde::Deserialize;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{NetworkStatus, Request, folder::control_socket};

/// Time in which a supervisor has to take a request and to answer one about its status.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for requests where nodes have to start or stop first: more than a node is given for both,
/// with all its tries.
const PATIENCE_FOR_NODES: Duration = Duration::from_secs(900);
/// Maximum number of bytes of an answer: 25 nodes take 5 KB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A network that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no network runs in {folder}: start it with `raida network --dir {folder}`, or name the folder of one that runs with --dir",
        folder = .0.shown()
    )]
    NoNetwork(PathBuf),
    /// Another user's network runs there.
    #[error("{path} is not for this user: ask as the user that the network runs as", path = .0.shown())]
    NotAllowed(PathBuf),
    /// Something went wrong on the way.
    #[error("{path}: {error}; is the network just being stopped? `raida network status` tells", path = .path.shown())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// It does not do what was asked.
    #[error("the network refuses: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error(
        "the network's answer is not understood: {0}; is it of another version than this program?"
    )]
    Malformed(serde_json::Error),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Error { error: String },
    Status(NetworkStatus),
}

/// Asks the network in this folder, and waits until what was asked for is done.
///
/// # Errors
/// Where no network runs there, or it does not answer.
pub fn ask(folder: &Path, request: &Request) -> Result<NetworkStatus, AskError> {
    let path = control_socket(folder);
    let line = exchange(&path, request).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NoNetwork(folder.to_owned())
        }
        io::ErrorKind::PermissionDenied => AskError::NotAllowed(path.clone()),
        _ => AskError::Io {
            path: path.clone(),
            error,
        },
    })?;
    match serde_json::from_str(&line).map_err(AskError::Malformed)? {
        Answer::Status(status) => Ok(status),
        Answer::Error { error } => Err(AskError::Refused(error)),
    }
}

fn exchange(path: &Path, request: &Request) -> io::Result<String> {
    let mut socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(match request {
        Request::Status => PATIENCE,
        Request::Start { .. } | Request::Stop { .. } | Request::Down => PATIENCE_FOR_NODES,
    }))?;
    let question = serde_json::to_string(request)? + "\n";
    socket.write_all(question.as_bytes())?;
    let mut answer = BufReader::new(socket.take(ANSWER_BYTES_MAX));
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if *request == Request::Down {
        // The connection is closed when the folder is free for another network.
        answer.read_to_string(&mut String::new())?;
    }
    Ok(line)
}
