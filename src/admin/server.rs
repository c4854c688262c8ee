use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{ADDRESS, Address, COUNTS, LATENCY, counts, latency, mailbox::Mailbox, socket_path};
use crate::net::Limits;

/// Clients that wait while one is served; more are refused by the kernel.
const WAITING_MAX: i32 = 8;
/// Time that a client has to ask, and again to take the answer: the next client waits meanwhile.
const CLIENT_MAX: Duration = Duration::from_secs(1);
/// Time that all cores together have to answer. A core that serves does in less than a millisecond.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Bytes of a question, at most.
const QUESTION_BYTES_MAX: usize = 64;
/// Pause where no connection can be taken for want of descriptors.
const NO_ACCEPT: Duration = Duration::from_millis(100);

/// Answers questions about a node on a Unix socket in its data folder, one client at a time, until
/// dropped. Only the node's user may ask.
pub struct Server {
    path: PathBuf,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What questions are about.
struct Subject {
    address: Address,
    cores: Arc<[Mailbox]>,
    limits: Arc<Limits>,
}

/// What a wait for a socket came to.
#[derive(PartialEq)]
enum Waited {
    Ready,
    TimeIsUp,
    Stopped,
}

impl Server {
    /// Starts to serve. The caller has the data folder to itself, so a socket that is there already
    /// was left by a node that was killed, and is replaced.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn start(
        folder: &Path,
        address: Address,
        cores: Arc<[Mailbox]>,
        limits: Arc<Limits>,
    ) -> io::Result<Server> {
        let path = socket_path(folder);
        let listener = listen(&path)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let is_stopped = stop.clone();
        let subject = Subject {
            address,
            cores,
            limits,
        };
        let serve = move || serve(&listener, &subject, &is_stopped);
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(serve);
        Ok(Server {
            path,
            stop,
            thread: Some(thread?),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Cannot fail: the number stays far below where the kernel would have it wait.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
        // What cannot be removed is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens: nobody gets in while others may write.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(WAITING_MAX)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

fn serve(listener: &UnixListener, subject: &Subject, stop: &OwnedFd) {
    while wait(listener, PollFlags::IN, stop, None) != Waited::Stopped {
        match listener.accept() {
            Ok((client, _)) => {
                if let Err(error) = answer(client, subject, stop) {
                    tracing::debug!(%error, "a client of the admin socket got no answer");
                }
            }
            // The client has gone again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "the admin socket takes no client");
                wait(stop, PollFlags::IN, stop, Some(Instant::now() + NO_ACCEPT));
            }
        }
    }
}

fn answer(mut client: UnixStream, subject: &Subject, stop: &OwnedFd) -> io::Result<()> {
    let Subject {
        address,
        cores,
        limits,
    } = subject;
    client.set_nonblocking(true)?;
    let answer = match question(&mut client, stop)?.as_deref() {
        Some(LATENCY) => latency::report(cores).map(|report| json!(report)),
        Some(COUNTS) => counts::report(cores, limits).map(|report| json!(report)),
        Some(ADDRESS) => Ok(json!(address)),
        Some(other) => Err(format!(
            "{other:?} is no question that is known here: ask {LATENCY:?}, {COUNTS:?} or {ADDRESS:?}"
        )),
        None => Err(format!("a question is one line, as in {LATENCY:?}")),
    };
    let answer = answer.unwrap_or_else(|error| json!({ "error": error }));
    let line = answer.to_string() + "\n";
    let deadline = Instant::now() + CLIENT_MAX;
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        ready(&client, PollFlags::OUT, stop, deadline)?;
        match client.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Asks every core, and gives their answers in the order of their shards.
///
/// # Errors
/// What to tell the asker where a core does not answer.
pub(super) fn all<T>(
    cores: &[Mailbox],
    ask: impl Fn(&Mailbox) -> Receiver<T>,
) -> Result<Vec<T>, String> {
    let deadline = Instant::now() + ANSWER_MAX;
    let asked: Vec<_> = cores.iter().map(ask).collect();
    let answers = asked.into_iter().enumerate().map(|(shard, answer)| {
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("shard {shard} gave no answer within 2 s"),
            RecvTimeoutError::Disconnected => {
                format!("shard {shard} answers no questions: the node stops, or is stuck")
            }
        })
    });
    answers.collect()
}

/// The client's line without its end; `None` where it is too long, cut off or no text.
fn question(client: &mut UnixStream, stop: &OwnedFd) -> io::Result<Option<String>> {
    let deadline = Instant::now() + CLIENT_MAX;
    let mut bytes = [0; QUESTION_BYTES_MAX];
    let mut length = 0;
    while length < bytes.len() {
        ready(client, PollFlags::IN, stop, deadline)?;
        match client.read(&mut bytes[length..]) {
            Ok(0) => return Ok(None),
            Ok(more) => length += more,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        }
        if let Some(end) = bytes[..length].iter().position(|&byte| byte == b'\n') {
            let line = std::str::from_utf8(&bytes[..end]);
            return Ok(line.ok().map(|line| line.trim().to_owned()));
        }
    }
    Ok(None)
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

/// Waits for a client.
///
/// # Errors
/// Where it takes too long, or the node stops.
fn ready(
    client: &UnixStream,
    what: PollFlags,
    stop: &OwnedFd,
    deadline: Instant,
) -> io::Result<()> {
    match wait(client, what, stop, Some(deadline)) {
        Waited::Ready => Ok(()),
        Waited::TimeIsUp => Err(io::ErrorKind::TimedOut.into()),
        Waited::Stopped => Err(io::Error::other("the node stops")),
    }
}

/// Waits for a socket, for the end of the node, or for the end of the time.
fn wait(socket: impl AsFd, what: PollFlags, stop: &OwnedFd, deadline: Option<Instant>) -> Waited {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| left.try_into().ok());
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(&socket, what)];
        match poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            // The only other failures are of memory: as good as the end.
            Err(_) => return Waited::Stopped,
            Ok(0) => return Waited::TimeIsUp,
            Ok(_) if !fds[0].revents().is_empty() => return Waited::Stopped,
            Ok(_) => return Waited::Ready,
        }
    }
}
