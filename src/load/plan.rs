use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::choice::Choice;
use super::flight::{Addressee, SLOTS_MAX};
use super::keyring::Keyring;
use super::measured::Contender;
use super::pace::{Pace, Spacing};
use super::progress::Progress;
use super::side_door::{ChoreError, SideDoor};
use super::stop::Stop;
use crate::client::Options;
use crate::coin::Coin;
use crate::protocol::Status;
use crate::shown::Shown;

/// How requests are carried, and how many of them are under way, all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Datagrams.
    Udp {
        /// Maximum number of requests under way.
        in_flight: usize,
    },
    /// Kept connections.
    Tcp {
        /// Number of connections.
        connections: usize,
        /// Maximum number of requests under way on each.
        depth: usize,
    },
    /// A connection for each request.
    TcpEach {
        /// Maximum number at a time.
        connections: usize,
    },
}

/// How the generator's threads speak to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// By calls: recvmmsg and sendmmsg over UDP, epoll over TCP.
    Syscalls,
    /// By one ring for each thread.
    Uring,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node.
    pub node: SocketAddr,
    /// The node's identity.
    pub addressee: Addressee,
    /// The encryption of requests to it.
    pub keyring: Keyring,
    /// The transport of requests.
    pub stream: Stream,
    /// How they get to the kernel.
    pub io: Io,
    /// CPUs of the generator's threads, the first thread's first; `None` lets it run anywhere.
    pub cpus: Vec<Option<usize>>,
    /// The node's process, where it runs on this machine and its CPU time matters.
    pub node_pid: Option<u32>,
    /// The node's CPUs, for the baselines to run on; none where any CPU will do.
    pub node_cpus: Vec<usize>,
    /// Compare with a bare echo, by calls to the kernel.
    pub echo: bool,
    /// Compare with a bare echo, by io_uring.
    pub echo_uring: bool,
    /// Compare with a Redis server.
    pub redis: Option<RedisPlan>,
    /// A folder on a disk to compare with.
    pub disk: Option<PathBuf>,
    /// When requests go out; a sweep has its own paces.
    pub pace: Pace,
    /// Rates to go through one by one.
    pub sweep: Option<Sweep>,
    /// How requests follow each other in a sweep.
    pub sweep_spacing: Spacing,
    /// An answer that comes later than this, from when its request was due, is late.
    pub late_after: Duration,
    /// The time before anything is counted.
    pub warm_up: Duration,
    /// The time that is counted, of each contender; of each step of a sweep.
    pub duration: Duration,
    /// Number of parts of that time, in turns with the other contenders'.
    pub slices: u32,
    /// After this time an answer counts as missing. A request that is due and cannot be sent may
    /// wait for the same time.
    pub timeout: Duration,
    /// Where to report how the run goes, with as many threads as `cpus`.
    pub progress: Option<Arc<Progress>>,
    /// Ends the run early.
    pub stop: Stop,
}

/// The requests to a Redis server beside a node.
#[derive(Clone, Debug)]
pub struct RedisPlan {
    /// The folder in which it makes its own folder.
    pub folder: PathBuf,
    /// Its entries.
    pub coins: Vec<Coin>,
    /// The entries that requests are about.
    pub choice: Choice,
    /// Number of entries of a request.
    pub per_request: usize,
    /// The part of requests that write, 0 to 1; with any, every write is synced before its answer.
    pub writes: f64,
}

/// Rates that rise until the node is saturated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sweep {
    /// From a tenth to eleven tenths of what a closed loop reaches, in tenths.
    Auto,
    /// Evenly from one to the other.
    Range {
        /// The first rate.
        from: f64,
        /// The last rate.
        to: f64,
        /// Number of rates.
        steps: u32,
    },
}

/// A run that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The plan is impossible.
    #[error("{0}")]
    Plan(String),
    /// A connection to the node, or to a baseline, fails.
    #[error("the connection to {who} at {address} fails: {cause}", who = .who.name())]
    Connection {
        /// The other end.
        who: Contender,
        /// Its address.
        address: SocketAddr,
        /// What is wrong.
        cause: io::Error,
    },
    /// The bare echo cannot be started.
    #[error("cannot start the {who}: {cause}", who = .who.name())]
    Echo {
        /// The echo.
        who: Contender,
        /// What is wrong.
        cause: io::Error,
    },
    /// A Redis server cannot be started, or does not do what it is compared for.
    #[error("{0}")]
    Redis(String),
    /// The bare disk cannot be written to.
    #[error("cannot write to {folder}: {cause}", folder = folder.shown())]
    Disk {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        cause: io::Error,
    },
    /// What requests need could not be prepared, or not be taken back.
    #[error(transparent)]
    Chore(#[from] ChoreError),
    /// No encryption ticket was given at all.
    #[error(
        "the node gave no encryption ticket: it says \"{0}\"; it takes secrets that it shares with the others (`raida keys new`, and its file in keys.file), --encryption 1, 2 or 4, and limits.healing_per_s = 0"
    )]
    NoEncryptionTicket(Status),
    /// A ring could not be created.
    #[error("this kernel does not do io_uring as it is needed here: {0}; take --io syscalls")]
    Uring(io::Error),
}

impl Plan {
    /// Maximum number of requests that one thread has under way.
    pub fn slots_per_thread(&self) -> usize {
        let all = match self.stream {
            Stream::Udp { in_flight } => in_flight,
            Stream::Tcp { connections, depth } => connections * depth,
            Stream::TcpEach { connections } => connections,
        };
        all / self.cpus.len()
    }

    /// The way to the node for requests that are not measured.
    pub fn side_door(&self) -> SideDoor {
        SideDoor {
            node: self.node,
            options: Options {
                coin_id: self.addressee.coin_id,
                timeout: self.timeout,
                ..Options::new(self.addressee.raida)
            },
        }
    }

    /// Checks that it can be carried out.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let threads = self.cpus.len();
        let no = |what: String| Err(LoadError::Plan(what));
        let (what, count) = match self.stream {
            Stream::Udp { in_flight } => ("requests in flight", in_flight),
            Stream::Tcp { connections, .. } | Stream::TcpEach { connections } => {
                ("connections", connections)
            }
        };
        if threads == 0 || count == 0 || !count.is_multiple_of(threads) {
            return no(format!(
                "{count} {what} cannot be shared by {threads} threads evenly"
            ));
        }
        let slots = self.slots_per_thread();
        if !(1..=SLOTS_MAX).contains(&slots) {
            return no(format!(
                "{slots} requests under way a thread; permitted are 1 to {SLOTS_MAX}"
            ));
        }
        if self.slices == 0 || self.duration.is_zero() {
            return no("nothing is counted in no time".to_owned());
        }
        if let Pace::Open { rate, .. } = self.pace
            && !(rate > 0.0 && rate.is_finite())
        {
            return no(format!("{rate} requests a second is no rate"));
        }
        if self.redis.is_some() && matches!(self.stream, Stream::Udp { .. }) {
            return no("Redis does not speak UDP: leave --udp or --baseline redis away".to_owned());
        }
        if (self.redis.as_ref()).is_some_and(|redis| redis.coins.is_empty()) {
            return no("Redis has no entries to be asked about".to_owned());
        }
        if matches!(self.stream, Stream::TcpEach { .. }) && self.io == Io::Uring {
            return no(
                "a connection a request is made by calls to the kernel only: leave --io uring or --connect-each away"
                    .to_owned(),
            );
        }
        self.check_sweep()
    }

    fn check_sweep(&self) -> Result<(), LoadError> {
        let no = |what: &str| Err(LoadError::Plan(what.to_owned()));
        let Some(sweep) = self.sweep else {
            return Ok(());
        };
        if self.contenders().count() > 1 {
            return no("a sweep is of the node alone: leave --baseline away");
        }
        if matches!(self.pace, Pace::Open { .. }) {
            return no("a sweep has rates of its own: leave --rate away");
        }
        match sweep {
            Sweep::Auto => Ok(()),
            Sweep::Range { from, to, steps } if from > 0.0 && from <= to && steps > 0 => Ok(()),
            Sweep::Range { .. } => no("a sweep goes from a rate above 0 to one no lower, in steps"),
        }
    }

    /// The contenders, the node first.
    pub(super) fn contenders(&self) -> impl Iterator<Item = Contender> {
        let all = [
            (Contender::Node, true),
            (Contender::Echo, self.echo),
            (Contender::EchoUring, self.echo_uring),
            (Contender::Redis, self.redis.is_some()),
            (Contender::Disk, self.disk.is_some()),
        ];
        all.into_iter()
            .filter_map(|(contender, takes_part)| takes_part.then_some(contender))
    }
}
