use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Weak,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};

use crate::{
    client::{Client, Options, Transport},
    protocol::RaidaId,
};

/// Time that a node has for one echo. A node with a bound port that does not serve yet takes the
/// connection and answers later.
const ECHO_MAX: Duration = Duration::from_secs(1);
/// Pause from one refused connection to the next try: short against a start, which takes 30 ms
/// alone and about 2 s as one of 25 on 2 cores.
const LOOK: Duration = Duration::from_millis(25);

/// Finds out which nodes have come to serve, with a thread for each node that ends with the answer.
pub(super) struct Readiness {
    found: Receiver<Ready>,
    finder: Sender<Ready>,
    /// Readable when something was found.
    wake: Arc<OwnedFd>,
}

/// This node answered echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) raida: RaidaId,
    /// The node's run that was asked about.
    pub(super) run: u64,
}

/// A search that goes on until it succeeds or this is dropped.
pub(super) struct Search {
    _is_wanted: Arc<()>,
}

impl Readiness {
    pub(super) fn new() -> io::Result<Readiness> {
        let (finder, found) = channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Readiness {
            found,
            finder,
            wake: Arc::new(wake),
        })
    }

    /// Asks a node again and again whether it serves.
    pub(super) fn search(
        &self,
        ready: Ready,
        host: SocketAddr,
        coin_id: u16,
    ) -> io::Result<Search> {
        let is_wanted = Arc::new(());
        let wanted = Arc::downgrade(&is_wanted);
        let (finder, wake) = (self.finder.clone(), self.wake.clone());
        let options = Options {
            coin_id,
            timeout: ECHO_MAX,
            ..Options::new(ready.raida)
        };
        let search = move || {
            if serves(host, options, &wanted) && finder.send(ready).is_ok() {
                // Cannot fail: the number stays far below the kernel's limit.
                let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
            }
        };
        thread::Builder::new()
            .name(format!("echo-{}", ready.raida))
            .spawn(search)?;
        Ok(Search {
            _is_wanted: is_wanted,
        })
    }

    /// What was found since the last call.
    pub(super) fn found(&self) -> Vec<Ready> {
        // Fails where nothing was found since the last call, which the channel says too.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        self.found.try_iter().collect()
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Whether the node answered before nobody wanted to know any more.
fn serves(host: SocketAddr, options: Options, wanted: &Weak<()>) -> bool {
    let name = host.ip().to_string();
    while wanted.strong_count() > 0 {
        let client = Client::connect((&name, host.port()), Transport::Tcp, options);
        if client.and_then(|mut client| client.echo()).is_ok() {
            return true;
        }
        thread::sleep(LOOK);
    }
    false
}
