use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{NetworkStatus, Request, folder::control_socket};
use crate::protocol::RaidaId;

/// Clients that are served at the same time; more wait until one has gone.
const CLIENTS_MAX: usize = 16;
/// Clients that wait for their turn; the kernel refuses more.
const WAITING_MAX: i32 = 16;
/// Time in which a client has to ask.
const QUESTION_MAX: Duration = Duration::from_secs(2);
/// Maximum number of bytes of a question: all nodes by name are 100.
const QUESTION_BYTES_MAX: usize = 1_024;
/// How long to pause where no connection can be taken, for want of descriptors.
const NO_ACCEPT: Duration = Duration::from_millis(100);

/// The socket that takes a network's requests. Only its user may ask.
pub(super) struct Control {
    path: PathBuf,
    listener: UnixListener,
    clients: Vec<Client>,
}

/// A client, and where its conversation stands.
struct Client {
    stream: UnixStream,
    stage: Stage,
}

enum Stage {
    Asks {
        line: Vec<u8>,
        until: Instant,
    },
    Waits(For),
    /// Kept so that its end shows when the supervisor's end is near.
    Answered,
}

/// What a client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// These nodes reach the state that was asked for.
    Nodes(Vec<RaidaId>),
    /// No node has a process any more.
    End,
}

/// What comes of a request.
pub(super) enum Outcome {
    Answer(NetworkStatus),
    Wait(For),
    Refuse(String),
}

impl Control {
    /// Starts to listen. The caller holds the folder alone, so an existing socket was left by a
    /// supervisor that was killed, and is replaced.
    pub(super) fn open(folder: &Path) -> io::Result<Control> {
        let path = control_socket(folder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&path)?)?;
        // The rights are set before it listens, so nobody gets in while others may write.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        socket.listen(WAITING_MAX)?;
        socket.set_nonblocking(true)?;
        Ok(Control {
            path,
            listener: OwnedFd::from(socket).into(),
            clients: Vec::new(),
        })
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let has_room = self.clients.len() < CLIENTS_MAX;
        let listener = has_room.then(|| self.listener.as_fd());
        let clients = self.clients.iter().map(|client| client.stream.as_fd());
        listener.into_iter().chain(clients)
    }

    /// When it has to be checked again though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.clients.iter().filter_map(|client| match client.stage {
            Stage::Asks { until, .. } => Some(until),
            Stage::Waits(_) | Stage::Answered => None,
        });
        due.min()
    }

    /// Takes new clients, reads what is there, and has `carry_out` do what was asked.
    pub(super) fn look(&mut self, now: Instant, mut carry_out: impl FnMut(Request) -> Outcome) {
        while self.clients.len() < CLIENTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    let stage = Stage::Asks {
                        line: Vec::new(),
                        until: now + QUESTION_MAX,
                    };
                    self.clients.push(Client { stream, stage });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The client has gone again, or descriptors are short. The socket stays readable:
                // looking at it again at once would be a busy loop.
                Err(_) => {
                    thread::sleep(NO_ACCEPT);
                    break;
                }
            }
        }
        self.clients.retain_mut(|client| {
            let Some(request) = client.read(now) else {
                return true;
            };
            match request.map(|request| request.map(&mut carry_out)) {
                Ok(Ok(Outcome::Wait(what))) => {
                    client.stage = Stage::Waits(what);
                    true
                }
                Ok(Ok(Outcome::Answer(status))) => {
                    client.answer(&json!(status));
                    false
                }
                Ok(Ok(Outcome::Refuse(error)) | Err(error)) => {
                    client.answer(&json!({ "error": error }));
                    false
                }
                // It has gone.
                Err(_) => false,
            }
        });
    }

    /// Answers those whose wait is over.
    pub(super) fn answer(
        &mut self,
        is_over: impl Fn(&For) -> bool,
        status: impl Fn() -> NetworkStatus,
    ) {
        self.clients.retain_mut(|client| match &client.stage {
            Stage::Waits(what) if is_over(what) => {
                let stays = *what == For::End;
                client.stage = Stage::Answered;
                client.answer(&json!(status())) && stays
            }
            _ => true,
        });
    }

    /// Stops listening. Clients that waited for the end see it when the returned value is dropped.
    pub(super) fn close(self) -> impl Sized {
        // A socket file that cannot be removed is replaced by the next start.
        let _ = fs::remove_file(&self.path);
        self.clients
    }
}

impl Client {
    /// Its question once that is complete: `Some(Err)` where the client has gone, or an error for
    /// it.
    fn read(&mut self, now: Instant) -> Option<io::Result<Result<Request, String>>> {
        let mut bytes = [0; QUESTION_BYTES_MAX];
        let read = match self.stream.read(&mut bytes) {
            Ok(0) => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Some(Err(error)),
        };
        let Stage::Asks { line, until } = &mut self.stage else {
            // It has asked already, and says more without waiting for the answer.
            return (read > 0).then(|| Err(io::ErrorKind::InvalidData.into()));
        };
        line.extend_from_slice(&bytes[..read]);
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            return Some(Ok(
                serde_json::from_slice(&line[..end]).map_err(|error| error.to_string())
            ));
        }
        if line.len() >= QUESTION_BYTES_MAX {
            return Some(Ok(Err("a request is one line of JSON".to_owned())));
        }
        (now >= *until).then(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Returns whether the answer could be given. The answer fits into an empty socket's buffer, so
    /// a client that cannot take it has gone.
    fn answer(&mut self, answer: &serde_json::Value) -> bool {
        let line = answer.to_string() + "\n";
        self.stream.write_all(line.as_bytes()).is_ok()
    }
}
