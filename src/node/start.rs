use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};

use super::{
    Adjustable, OnLoss, Settings,
    core::{Core, LastWord, all_ready, lock},
    descriptors::Descriptors,
    key_file::{self, KeysError},
    meeting::Meeting,
};
use crate::runtime::{Disk, Live, run_awake};
use crate::{
    admin::{self, Mailbox, mailboxes},
    coin::{Denomination, PageId, ShardId},
    mesh::inboxes,
    net::{self, Drained, Limits, Stop},
    peer::{Book, Server},
    plain_file,
    protocol::AdminKey,
    service::KeyHealing,
    settlement::{self, Desk, Settlement},
    shard::ShardSettings,
    shown::{Shown, remedy},
    store::{
        DataFolder, FolderError, NodeIdentity,
        log::LogSettings,
        recovery::{Recovered, RecoveryError, recover_with},
        write_secret,
    },
};

/// Memory that an executor registers with the kernel for its I/O, in bytes. It is pinned, so it
/// counts as used; a buffer that does not fit comes from the heap.
const IO_MEMORY: usize = 1 << 20;

/// How long the end of a node waits for a disk to end reads and writes.
const DISK_PATIENCE: Duration = Duration::from_millis(500);

/// A node that runs. Dropping it does not stop it: [`stop`](Control::stop) it, then
/// [`join`](Node::join).
pub struct Node {
    summary: Summary,
    control: Control,
    cores: Vec<JoinHandle<Result<(), GlommioError<()>>>>,
    /// Each core's last words.
    last_words: Mutex<mpsc::Receiver<LastWord>>,
    /// Dropped before the folder is free for another node, which makes a socket of the same name.
    _admin: Option<admin::Server>,
    /// Dropped last of what runs: cores may ask to their end.
    _desk: Desk,
    _folder: DataFolder,
}

/// What can be done to a node while it runs, from any thread.
#[derive(Clone)]
pub struct Control {
    stop: Stop,
    limits: Arc<Limits>,
    adjustable: Arc<Mutex<Adjustable>>,
    book: Book,
    settlement: Settlement,
}

/// What there is to say of a node that has just started.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Where it listens, TCP and UDP.
    pub address: SocketAddr,
    /// Coins in circulation, by denomination index.
    pub coins: [u64; Denomination::COUNT],
    /// The data folder was made by this start.
    pub is_new: bool,
    /// Files are read and written around the page cache.
    pub is_direct: bool,
    /// How many files the process may have open.
    pub descriptors: Descriptors,
    /// The admin key's file, where this start made it.
    pub made_admin_key: Option<PathBuf>,
    /// Coin changes that only the logs had.
    pub changes_recovered: u64,
    /// Batches cut short at the end of a log, none of them answered.
    pub torn_batches: u64,
    /// What is damaged, and not served.
    pub faults: Vec<String>,
    /// What was gone, and was accepted.
    pub accepted: Vec<String>,
    /// From the start to the first request.
    pub took: Duration,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What was cut off because its time was over.
    pub cut: Drained,
}

/// A node that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be worked on.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The sockets cannot be opened.
    #[error("{0}; network.listen, or the flag --listen, names address and port")]
    Listen(io::Error),
    /// The data cannot be served.
    #[error("{folder}: {error}{next}", next = recovery_next(folder, error))]
    Recovery {
        /// The data folder.
        folder: String,
        /// What is wrong with it.
        error: RecoveryError,
    },
    /// The recovery has pages to write and the disk has no room for them.
    #[error(
        "{folder}: the disk is full, and the recovery has pages to write: make room and start again; nothing is lost"
    )]
    NoRoom {
        /// The data folder.
        folder: String,
    },
    /// The admin key cannot be read or made.
    #[error("admin key file {path}: {what}")]
    AdminKey {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The secrets that it shares with the others cannot be read.
    #[error("key file {path}: {error}", path = .path.shown())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        error: KeysError,
    },
    /// Purchases cannot be settled.
    #[error(transparent)]
    Settlement(#[from] settlement::StartError),
    /// A core cannot run.
    #[error("cannot run on a core: {0}")]
    Core(String),
    /// A shard cannot be opened.
    #[error("cannot open a shard: {0}")]
    Shard(io::Error),
}

impl Node {
    /// Starts a node; it serves when this returns.
    ///
    /// # Errors
    /// Where anything that it needs is missing; then no part of it runs.
    pub fn start(settings: &Settings) -> Result<Node, StartError> {
        let start = Instant::now();
        let key_healing = key_healing(settings)?;
        let desk = Desk::start(&settings.settlement)?;
        // Before the folder is made: a port that another program has leaves no folder behind.
        let sockets = net::bind(settings.network.listen, settings.shards)
            .map_err(|error| cannot_listen(error, &settings.data))?;
        let address = sockets[0].address();
        let folder = DataFolder::open(&settings.data, true)?;
        folder.serve_as(NodeIdentity {
            raida: settings.rules.raida.get(),
            coin_id: settings.rules.coin_id,
        })?;
        let (admin_key, made_admin_key) = admin_key(&settings.admin_key_file, folder.path())?;
        let secret = folder.secret()?;

        let (recovered, is_direct) =
            recover_on_this_thread(folder.path(), &secret, settings.on_loss)?;
        let recovered = Arc::new(recovered);
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(|error| StartError::Core(error.to_string()))?;

        let stop = Stop::default();
        let limits = Limits::new(&settings.network);
        let descriptors = Descriptors::raise(settings);
        limits.set_descriptors(descriptors.connections());
        let adjustable = Arc::new(Mutex::new(settings.adjustable));
        let book = Book::new(settings.servers.clone());
        let inboxes = inboxes::<Live>(settings.shards);
        let mailboxes = mailboxes(settings.shards);
        let (drained, checkpointed) = (
            Meeting::of(settings.shards.into()),
            Meeting::of(settings.shards.into()),
        );
        let (ready, is_ready) = mpsc::channel();
        let (ending, last_words) = mpsc::channel();
        let cpus = allowed_cpus();
        let mut cores = Vec::new();
        for (shard, sockets) in (0..settings.shards).zip(sockets) {
            let core = Core {
                data: folder.path().to_owned(),
                clock: settings.clock.clone(),
                shard: ShardSettings {
                    id: ShardId::new(shard),
                    shards: settings.shards,
                    cache_pages: settings.cache_pages.div_ceil(settings.shards.into()),
                    secret: secret.clone(),
                    log: LogSettings {
                        shard,
                        segment_bytes: settings.segment_bytes,
                        durability: settings.durability,
                        flush_interval: settings.adjustable.flush_interval,
                        run: u64::from_le_bytes(run),
                        round: recovered.round,
                    },
                    tickets: settings.tickets,
                    trades: settings.trades,
                    repeats_max: settings.repeats_max,
                    disk_timeout: settings.disk_timeout,
                },
                recovered: recovered.clone(),
                inboxes: inboxes.clone(),
                mailboxes: mailboxes.clone(),
                sockets,
                limits: limits.clone(),
                stop: stop.clone(),
                rules: settings.rules,
                admin_key: admin_key.clone(),
                ticket_coins_max: settings.ticket_coins_max,
                healing_rate: settings.healing_rate,
                wrong_claims_per_min: settings.wrong_claims_per_min,
                datagrams: settings.datagrams,
                key_healing: key_healing.clone(),
                peers: settings.peers.clone(),
                settlement: desk.settlement(),
                currencies: settings.currencies.clone(),
                question_rates: settings.question_rates,
                book: book.clone(),
                adjustable: adjustable.clone(),
                ready: ready.clone(),
                ending: ending.clone(),
                drained: drained.clone(),
                checkpointed: checkpointed.clone(),
            };
            let placement = match settings.pin && usize::from(settings.shards) <= cpus.len() {
                true => Placement::Fixed(cpus[usize::from(shard)]),
                false => Placement::Unbound,
            };
            let executor = LocalExecutorBuilder::new(placement)
                .io_memory(IO_MEMORY)
                .spin_before_park(settings.spin);
            let thread = thread::Builder::new().name(format!("shard-{shard}"));
            let spawned = thread.spawn(move || -> Result<(), GlommioError<()>> {
                run_awake(&executor.make()?, core.run());
                Ok(())
            });
            cores.push(spawned.map_err(|error| StartError::Core(error.to_string()))?);
        }
        let summary = Summary {
            address,
            coins: coins(&recovered),
            is_new: folder.was_created(),
            is_direct,
            descriptors,
            made_admin_key,
            changes_recovered: recovered.changes,
            torn_batches: recovered.torn,
            faults: recovered.faults.iter().map(ToString::to_string).collect(),
            accepted: (recovered.accepted.iter().map(ToString::to_string)).collect(),
            took: Duration::ZERO,
        };
        drop((recovered, ending));
        let mut node = Node {
            summary,
            control: Control {
                stop,
                limits,
                adjustable,
                book,
                settlement: desk.settlement(),
            },
            cores,
            last_words: Mutex::new(last_words),
            _admin: None,
            _desk: desk,
            _folder: folder,
        };
        if let Err(error) = all_ready(&is_ready, settings.shards) {
            node.control.stop();
            let _ = node.join();
            return Err(StartError::Shard(error));
        }
        let address = admin::Address {
            raida: settings.rules.raida.get(),
            listens: node.summary.address,
        };
        let limits = node.control.limits.clone();
        node._admin = serve_admin(&settings.data, address, mailboxes, limits);
        node.summary.took = start.elapsed();
        Ok(node)
    }

    /// What there is to say of the start.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What can be done to it while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Waits until the node has ended.
    ///
    /// # Errors
    /// Where a core could not go on.
    pub fn join(self) -> Result<Ended, StartError> {
        let mut ended = Ended::default();
        // Nobody else ever locks it: the lock only makes the node shareable between threads.
        let last_words = self.last_words.into_inner();
        let last_words = last_words.unwrap_or_else(PoisonError::into_inner);
        let (mut running, mut busy) = (self.cores.len(), self.cores.len());
        let mut outcome = Ok(());
        while busy > 0 {
            // A disk that does not answer may take any time.
            let word = match running {
                0 => last_words.recv_timeout(DISK_PATIENCE).ok(),
                _ => last_words.recv().ok(),
            };
            match word {
                Some(LastWord::Served(Ok(drained))) => {
                    running -= 1;
                    ended.cut.connections_cut += drained.connections_cut;
                    ended.cut.requests_cut += drained.requests_cut;
                }
                Some(LastWord::Served(Err(error))) => {
                    running -= 1;
                    outcome = Err(StartError::Core(error.to_string()));
                }
                Some(LastWord::Quiet) => busy -= 1,
                None => break,
            }
        }
        if running == 0 && busy > 0 {
            tracing::warn!(
                "the disk has not ended what it was told to do: the process keeps the data folder until it has"
            );
            // The kernel may still read the cores' memory, so the folder stays locked.
            std::mem::forget(self._folder);
            return outcome.map(|()| ended);
        }
        for core in self.cores {
            let made = core
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            made.map_err(|error| StartError::Core(error.to_string()))?;
        }
        outcome.map(|()| ended)
    }
}

impl Control {
    /// Asks whether purchases have been paid, as the node's cores do.
    pub fn settlement(&self) -> &Settlement {
        &self.settlement
    }

    /// Limits and counters of the sockets.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Changes what can change while the node runs.
    pub fn adjust(&self, network: &net::Settings, adjustable: Adjustable) {
        self.limits.change(network);
        *lock(&self.adjustable) = adjustable;
    }

    /// Puts other servers in the place of those of the network. Those that stay where they are keep
    /// their connections.
    pub fn change_servers(&self, servers: Vec<Server>) {
        self.book.change(servers);
    }

    /// Has the node answer what it has accepted, write its pages, and end.
    pub fn stop(&self) {
        // The settlement stops first: a client that waits for a purchase gets its answer, and does
        // not hold the node up.
        self.settlement.stop();
        self.stop.stop();
    }
}

/// Why a node has no port. If another node runs on the folder, it has the port too, and the error
/// names it.
fn cannot_listen(error: io::Error, folder: &Path) -> StartError {
    match DataFolder::open(folder, false) {
        Err(in_use @ FolderError::InUse { .. }) => in_use.into(),
        _ => StartError::Listen(error),
    }
}

/// What to do where a recovery failed, as the end of a sentence.
fn recovery_next(folder: &str, error: &RecoveryError) -> String {
    match error {
        // The error itself names the file and says what the system said of it.
        RecoveryError::Io(error) => remedy(error).to_owned(),
        RecoveryError::Damaged(_) | RecoveryError::Lost(_) => {
            format!("; `raida check --data {folder}` says more")
        }
    }
}

/// Answers questions about the node from its data folder. A node without that serves as well.
fn serve_admin(
    folder: &Path,
    address: admin::Address,
    mailboxes: Arc<[Mailbox]>,
    limits: Arc<Limits>,
) -> Option<admin::Server> {
    let started = admin::Server::start(folder, address, mailboxes, limits);
    let warn = |error: &io::Error| {
        tracing::warn!(
            folder = %folder.shown(), %error,
            "cannot make admin.sock there: `raida stats --latency` will not work"
        );
    };
    started.inspect_err(warn).ok()
}

fn recover_on_this_thread(
    folder: &Path,
    secret: &crate::store::NodeSecret,
    on_loss: OnLoss,
) -> Result<(Recovered, bool), StartError> {
    // On a thread of its own, since an executor leaves its mark on the thread it ran on.
    thread::scope(|scope| {
        let recovered = scope.spawn(|| {
            let disk = Disk::new(folder);
            let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY);
            let executor: LocalExecutor = executor
                .make()
                .map_err(|error| StartError::Core(error.to_string()))?;
            let recovered = run_awake(&executor, async {
                recover_with(&disk, secret, on_loss).await
            });
            let recovered = recovered.map_err(|error| {
                let folder = folder.shown().to_string();
                match error {
                    RecoveryError::Io(error) if is_full(&error) => StartError::NoRoom { folder },
                    error => StartError::Recovery { folder, error },
                }
            })?;
            Ok((recovered, disk.is_direct()))
        });
        recovered
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn coins(recovered: &Recovered) -> [u64; Denomination::COUNT] {
    let mut coins = [0; Denomination::COUNT];
    for (page, summary) in PageId::all().zip(&recovered.pages) {
        let count: u32 = summary
            .circulation
            .iter()
            .map(|word| word.count_ones())
            .sum();
        coins[page.denomination().index()] += u64::from(count);
    }
    coins
}

/// What the node needs to vouch for clients, and to believe others that do.
fn key_healing(settings: &Settings) -> Result<KeyHealing, StartError> {
    let secrets = match &settings.keys_file {
        None => None,
        Some(path) => {
            let failed = |error| StartError::Keys {
                path: path.clone(),
                error,
            };
            Some(key_file::read(path, settings.rules.raida).map_err(failed)?)
        }
    };
    if settings.allow_unencrypted_tickets {
        tracing::warn!(
            "keys.allow_unencrypted: the node vouches for clients that ask without encryption, and whoever listens learns half of a coin's next number; for clients under test only, leave it out otherwise"
        );
    }
    Ok(KeyHealing {
        secrets,
        allows_unencrypted: settings.allow_unencrypted_tickets,
    })
}

/// The admin key, and its file where it was made.
fn admin_key(path: &Path, folder: &Path) -> Result<(AdminKey, Option<PathBuf>), StartError> {
    let failed = |what: String| StartError::AdminKey {
        path: path.to_owned(),
        what,
    };
    let refused = |error: io::Error| failed(format!("{error}{}", remedy(&error)));
    let mut made = None;
    if !path.exists() {
        if path.parent() != Some(folder) {
            return Err(failed(
                "is not there; write 32 hexadecimal digits into it".to_owned(),
            ));
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| failed(error.to_string()))?;
        write_secret(path, &bytes).map_err(refused)?;
        made = Some(path.to_owned());
    }
    let text = plain_file::read_own_text(path, plain_file::SECRET_BYTES_MAX);
    let text = text.map_err(refused)?;
    let bytes = crate::hex::read(text.trim())
        .ok_or_else(|| failed("must hold 32 hexadecimal digits and nothing else".to_owned()))?;
    if let Ok(metadata) = fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.shown(), "others can read the admin key: chmod 600 it");
    }
    Ok((AdminKey::new(bytes), made))
}

/// The CPUs that this process may run on.
fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a cpu_set_t is plain bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a cpu_set_t of the size that is given, for the kernel to fill.
    let outcome = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    if outcome != 0 {
        return Vec::new();
    }
    let within = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: every number is below CPU_SETSIZE, so within the set.
    within
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}
