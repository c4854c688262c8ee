use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use super::Server;
use crate::protocol::RaidaId;

/// The shortest time between two look-ups of a name: a server that is down, or a stranger who
/// claims in its name, is no reason to keep asking where it is.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(10);
/// Addresses of a name, at most.
const ADDRESSES_MAX: usize = 8;

/// Where the network's servers are, by their numbers; shared by all cores.
///
/// Names are looked up by threads that last as long as the look-up does, one a name at most: the
/// system's resolver blocks, for tens of seconds where a name server is silent, and one name must
/// not hold up the others. An address that is written as one needs no thread.
#[derive(Clone, Debug)]
pub struct Book(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Grows with every change, so that a core sees without the lock whether its copy is current.
    edition: AtomicU64,
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    entries: Vec<Entry>,
    /// Who waits for the end of a look-up.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Entry {
    server: Server,
    addresses: Arc<[SocketAddr]>,
    is_looked_up: bool,
    looked_up: Option<Instant>,
}

/// A core's copy of a [`Book`].
#[derive(Debug)]
pub(super) struct Copied {
    edition: u64,
    /// By RAIDA number; none at all where no server is known.
    addresses: Vec<Arc<[SocketAddr]>>,
}

impl Book {
    /// The book of these servers, by their numbers, or an empty one. Look-ups begin at once.
    pub fn new(servers: Vec<Server>) -> Book {
        let book = Book(Arc::new(Shared {
            edition: AtomicU64::new(0),
            contents: Mutex::default(),
        }));
        book.change(servers);
        book
    }

    /// Replaces the servers. What is known of those that stay is kept.
    pub fn change(&self, servers: Vec<Server>) {
        let mut contents = self.0.contents();
        let mut old = std::mem::take(&mut contents.entries).into_iter();
        contents.entries = servers
            .into_iter()
            .map(|server| match old.next() {
                Some(entry) if entry.server == server => entry,
                _ => Entry::new(server),
            })
            .collect();
        drop(contents);
        self.0.changed();
        RaidaId::all().for_each(|raida| self.look_up(raida, Duration::MAX));
    }

    /// Where the servers are now.
    pub(super) fn copy(&self) -> Copied {
        let contents = self.0.contents();
        Copied {
            edition: self.edition(),
            addresses: contents
                .entries
                .iter()
                .map(|e| e.addresses.clone())
                .collect(),
        }
    }

    /// Whether a copy is no longer right.
    #[inline]
    pub(super) fn differs(&self, copied: &Copied) -> bool {
        self.edition() != copied.edition
    }

    /// Looks up again where a server is, since it may have moved, unless that was done just now.
    pub(super) fn look_again(&self, raida: RaidaId) {
        self.look_up(raida, LOOK_UP_INTERVAL);
    }

    /// Ready while no look-up of this server is under way.
    pub(super) fn poll_looked_up(&self, raida: RaidaId, context: &mut Context<'_>) -> Poll<()> {
        let mut contents = self.0.contents();
        match contents.entries.get(usize::from(raida.get())) {
            Some(entry) if entry.is_looked_up => {
                contents.waiting.push(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn edition(&self) -> u64 {
        self.0.edition.load(Ordering::Acquire)
    }

    /// Starts a look-up, unless one is under way, the last one was less than `interval` ago, or
    /// there is nothing to look up.
    fn look_up(&self, raida: RaidaId, interval: Duration) {
        let mut contents = self.0.contents();
        let Some(entry) = contents.entries.get_mut(usize::from(raida.get())) else {
            return;
        };
        let is_recent = |at: Instant| at.elapsed() < interval;
        if entry.server.literal().is_some()
            || entry.is_looked_up
            || entry.looked_up.is_some_and(is_recent)
        {
            return;
        }
        let (shared, server) = (self.0.clone(), entry.server.clone());
        let thread = thread::Builder::new().name(format!("look-up-{raida}"));
        match thread.spawn(move || shared.look_up(raida, &server)) {
            Ok(_) => entry.is_looked_up = true,
            Err(error) => {
                entry.looked_up = Some(Instant::now());
                tracing::warn!(%raida, %error, "no thread to look up where a server is");
            }
        }
    }
}

impl Copied {
    /// Whether any server is known.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Where a server is: `None` where it is not in the list, empty where its name has no address.
    pub fn addresses(&self, raida: RaidaId) -> Option<&Arc<[SocketAddr]>> {
        self.addresses.get(usize::from(raida.get()))
    }

    /// Whether this is one of a server's addresses.
    pub fn is_address_of(&self, raida: RaidaId, address: IpAddr) -> bool {
        let same = |known: &SocketAddr| known.ip().to_canonical() == address.to_canonical();
        let addresses = self.addresses(raida);
        addresses.is_some_and(|addresses| addresses.iter().any(same))
    }
}

impl Shared {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // An entry changes as a whole or not at all, even after a panic elsewhere.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// Looks up where a server is, on a thread of its own.
    fn look_up(&self, raida: RaidaId, server: &Server) {
        let found = (server.host.as_str(), server.port).to_socket_addrs();
        let found = found.map(|addresses| {
            let mut once = Vec::new();
            for address in addresses {
                if !once.contains(&address) && once.len() < ADDRESSES_MAX {
                    once.push(address);
                }
            }
            once
        });
        let mut guard = self.contents();
        let contents = &mut *guard;
        if let Some(entry) = contents.entries.get_mut(usize::from(raida.get()))
            && entry.server == *server
        {
            entry.is_looked_up = false;
            entry.looked_up = Some(Instant::now());
            match found {
                Ok(addresses) if !addresses.is_empty() && *entry.addresses != *addresses => {
                    entry.addresses = addresses.into();
                    self.changed();
                }
                Ok(_) => {}
                // The server may still be where it was known to be: the name server may be the one
                // that is down.
                Err(error) => tracing::warn!(
                    %raida, %server, %error,
                    "cannot look up where a server is: check peers.servers and the name server"
                ),
            }
        }
        let waiting = std::mem::take(&mut contents.waiting);
        drop(guard);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Entry {
    fn new(server: Server) -> Entry {
        Entry {
            addresses: server.literal().into_iter().collect(),
            server,
            is_looked_up: false,
            looked_up: None,
        }
    }
}

impl Server {
    /// The address, where it is written as one.
    fn literal(&self) -> Option<SocketAddr> {
        let address = self.host.parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(address, self.port))
    }
}
