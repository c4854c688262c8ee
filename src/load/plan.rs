use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::baseline::{Disk, Echo};
use super::cpu_clock::CpuClock;
use super::flight::{Addressee, Flight, Peer, SLOTS_MAX};
use super::kind::Kind;
use super::purse::Held;
use super::tally::Tally;
use super::tcp::Tcp;
use super::udp::Udp;

/// The part of a slice that is not counted, so that caches and queues are the contender's own: one
/// in so many.
const SETTLE_PART: u32 = 10;
/// From the end of the preparations to the first request.
const LEAD: Duration = Duration::from_millis(20);

/// What carries requests, and how many of them are under way, all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Datagrams.
    Udp {
        /// Requests under way.
        in_flight: usize,
    },
    /// Kept connections.
    Tcp {
        /// How many.
        connections: usize,
        /// Requests under way on each.
        depth: usize,
    },
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node.
    pub node: SocketAddr,
    /// Which node that is.
    pub addressee: Addressee,
    /// What carries requests.
    pub stream: Stream,
    /// CPUs of the generator's threads, the first thread's first; `None` lets it run anywhere.
    pub cpus: Vec<Option<usize>>,
    /// The node's process, where it runs on this machine and its CPU time is of interest.
    pub node_pid: Option<u32>,
    /// A bare echo to compare with, a thread on each of these CPUs.
    pub echo: Option<Vec<Option<usize>>>,
    /// A folder on a disk to compare with.
    pub disk: Option<PathBuf>,
    /// The time before anything is counted.
    pub warm_up: Duration,
    /// The time that is counted, of each contender.
    pub duration: Duration,
    /// Parts of that time, in turns with the other contenders'.
    pub slices: u32,
    /// After this an answer counts as missing.
    pub timeout: Duration,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The node.
    Node,
    /// The bare echo.
    Echo,
    /// The bare disk.
    Disk,
}

/// What one contender did.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Who.
    pub contender: Contender,
    /// The slices, in the order of time: slice i of every contender is of about the same time.
    pub slices: Vec<Slice>,
    /// What came of the requests between the slices and before: no rate, but answers to be checked.
    pub between: Tally,
}

/// What one contender did in one slice.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// What came of its requests.
    pub tally: Tally,
    /// How long it took.
    pub took: Duration,
    /// How long the server's threads were on a CPU meanwhile, where that is known.
    pub server_cpu: Option<Duration>,
    /// Its parts, in the order of time.
    pub intervals: Vec<Interval>,
}

/// A part of a slice.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Since the start of the run.
    pub from: Duration,
    /// How long it was.
    pub length: Duration,
    /// Right answers in it.
    pub right: u64,
    /// Their latencies, in nanoseconds.
    pub latency_ns: hdrhistogram::Histogram<u64>,
}

/// A run that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The plan asks for what cannot be.
    #[error("{0}")]
    Plan(String),
    /// A connection to the node, or to the bare echo, fails.
    #[error("the connection to {who} at {address} fails: {cause}")]
    Connection {
        /// Who is at the other end.
        who: &'static str,
        /// Where.
        address: SocketAddr,
        /// What is wrong.
        cause: io::Error,
    },
    /// The bare echo cannot be started.
    #[error("cannot start the bare echo: {0}")]
    Echo(io::Error),
    /// The bare disk cannot be written to.
    #[error("cannot write to {folder}: {cause}", folder = folder.display())]
    Disk {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        cause: io::Error,
    },
}

impl Measured {
    /// Every request, in the slices and between them.
    pub fn whole(&self) -> Tally {
        let mut whole = self.total();
        whole.add(&self.between);
        whole
    }

    /// The slices together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for slice in &self.slices {
            total.add(&slice.tally);
        }
        total
    }

    /// Right answers for each second that the server was on a CPU, slice by slice; empty where that
    /// is not known.
    pub fn rates_by_cpu(&self) -> Vec<f64> {
        let rate = |slice: &Slice| {
            let seconds = slice.server_cpu?.as_secs_f64().max(1e-9);
            Some(slice.tally.right as f64 / seconds)
        };
        self.slices.iter().filter_map(rate).collect()
    }

    /// Right answers a second, slice by slice.
    pub fn rates(&self) -> Vec<f64> {
        self.slices.iter().map(Slice::rate).collect()
    }
}

impl Slice {
    /// Right answers a second.
    pub fn rate(&self) -> f64 {
        self.tally.right as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// One entry of the timetable.
#[derive(Clone, Copy, Debug)]
struct Turn {
    contender: Contender,
    /// Counted from the start of the run.
    from: Duration,
    until: Duration,
    is_counted: bool,
}

impl Plan {
    /// How many requests one thread has under way at most.
    pub fn slots_per_thread(&self) -> usize {
        let all = match self.stream {
            Stream::Udp { in_flight } => in_flight,
            Stream::Tcp { connections, depth } => connections * depth,
        };
        all / self.cpus.len()
    }

    /// Carries the plan out, a kind a thread, and gives back the kinds' coins.
    ///
    /// # Errors
    /// The plan is not possible, or a contender fails altogether. Coins are lost track of then.
    pub fn run(&self, kinds: Vec<Box<dyn Kind>>) -> Result<(Vec<Measured>, Vec<Held>), LoadError> {
        self.check()?;
        assert_eq!(kinds.len(), self.cpus.len(), "a kind a thread");
        let echo = match (&self.echo, self.stream) {
            (None, _) => None,
            (Some(cpus), Stream::Udp { .. }) => Some(Echo::udp(cpus).map_err(LoadError::Echo)?),
            (Some(cpus), Stream::Tcp { .. }) => Some(Echo::tcp(cpus).map_err(LoadError::Echo)?),
        };
        let echo_at = echo.as_ref().map(|echo| (echo.address(), echo.cpu_clock()));
        let timetable = self.timetable();
        let (ready, start) = (Barrier::new(kinds.len()), std::sync::OnceLock::new());
        let results: Vec<Result<_, LoadError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = kinds
                .into_iter()
                .enumerate()
                .map(|(index, kind)| {
                    let (timetable, ready, start) = (&timetable, &ready, &start);
                    let echo_at = echo_at.clone();
                    scope.spawn(move || {
                        pin(self.cpus[index]);
                        let thread = Thread::prepare(self, index, kind, echo_at);
                        ready.wait();
                        let start = *start.get_or_init(|| Instant::now() + LEAD);
                        thread?.run(timetable, start)
                    })
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        let mut coins = Vec::new();
        let mut slices: Vec<Option<Slice>> = vec![None; timetable.len()];
        for result in results {
            let (some, held) = result?;
            coins.extend(held);
            for (all, slice) in slices.iter_mut().zip(some) {
                let all = all.get_or_insert_default();
                all.tally.add(&slice.tally);
                all.took = all.took.max(slice.took);
                all.server_cpu = all.server_cpu.or(slice.server_cpu);
            }
        }
        Ok((self.by_contender(&timetable, slices), coins))
    }

    fn check(&self) -> Result<(), LoadError> {
        let threads = self.cpus.len();
        let no = |what: String| Err(LoadError::Plan(what));
        let (what, count) = match self.stream {
            Stream::Udp { in_flight } => ("requests in flight", in_flight),
            Stream::Tcp { connections, .. } => ("connections", connections),
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
        Ok(())
    }

    fn contenders(&self) -> impl Iterator<Item = Contender> {
        let echo = self.echo.is_some().then_some(Contender::Echo);
        let disk = self.disk.is_some().then_some(Contender::Disk);
        [Some(Contender::Node), echo, disk].into_iter().flatten()
    }

    /// Who is asked when: everybody's warm-up, then slices in turns.
    fn timetable(&self) -> Vec<Turn> {
        let mut turns = Vec::new();
        let mut time = Duration::ZERO;
        let mut add = |contender, length, is_counted| {
            let (from, until) = (time, time + length);
            time = until;
            turns.push(Turn {
                contender,
                from,
                until,
                is_counted,
            });
        };
        for contender in self.contenders() {
            add(contender, self.warm_up, false);
        }
        let length = self.duration / self.slices;
        for _ in 0..self.slices {
            for contender in self.contenders() {
                add(contender, length / SETTLE_PART, false);
                add(contender, length, true);
            }
        }
        turns
    }

    fn by_contender(&self, timetable: &[Turn], slices: Vec<Option<Slice>>) -> Vec<Measured> {
        let mut measured: Vec<Measured> = (self.contenders())
            .map(|contender| Measured {
                contender,
                slices: vec![],
                between: Tally::default(),
            })
            .collect();
        for (turn, slice) in timetable.iter().zip(slices) {
            let of = measured.iter_mut().find(|m| m.contender == turn.contender);
            let (Some(of), Some(slice)) = (of, slice) else {
                continue;
            };
            match turn.is_counted {
                true => of.slices.push(slice),
                false => of.between.add(&slice.tally),
            }
        }
        measured
    }
}

/// One thread of the generator.
struct Thread {
    flight: Flight,
    node: Driver,
    echo: Option<Driver>,
    disk: Option<(PathBuf, Disk)>,
}

struct Driver {
    who: &'static str,
    address: SocketAddr,
    socket: Carrier,
    cpu_clock: Option<CpuClock>,
}

enum Carrier {
    Udp(Udp),
    Tcp(Tcp),
}

impl Thread {
    fn prepare(
        plan: &Plan,
        index: usize,
        kind: Box<dyn Kind>,
        echo: Option<(SocketAddr, CpuClock)>,
    ) -> Result<Thread, LoadError> {
        // One at a time, so one thread is enough.
        let disk = match &plan.disk {
            Some(folder) if index == 0 => {
                let failed = |cause| LoadError::Disk {
                    folder: folder.clone(),
                    cause,
                };
                Some((folder.clone(), Disk::open(folder).map_err(failed)?))
            }
            _ => None,
        };
        // One thread looks at the clocks for all.
        let driver = |who, address, clock: Option<CpuClock>| {
            Driver::connect(plan, who, address, clock.filter(|_| index == 0))
        };
        Ok(Thread {
            flight: Flight::new(kind, plan.addressee, plan.slots_per_thread()),
            node: driver("the node", plan.node, plan.node_pid.map(CpuClock::Process))?,
            echo: echo
                .map(|(address, clock)| driver("the bare echo", address, Some(clock)))
                .transpose()?,
            disk,
        })
    }

    fn run(
        mut self,
        timetable: &[Turn],
        start: Instant,
    ) -> Result<(Vec<Slice>, Vec<Held>), LoadError> {
        let mut slices = Vec::with_capacity(timetable.len());
        for turn in timetable {
            let from = start + turn.from;
            std::thread::sleep(from.saturating_duration_since(Instant::now()));
            slices.push(self.turn(turn.contender, start + turn.until)?);
        }
        let (kind, _) = self.flight.end();
        Ok((slices, kind.coins()))
    }

    fn turn(&mut self, contender: Contender, until: Instant) -> Result<Slice, LoadError> {
        let begun = Instant::now();
        let (peer, driver) = match (contender, &mut self.echo) {
            (Contender::Node, _) => (Peer::Node, &mut self.node),
            (Contender::Echo, Some(echo)) => (Peer::Echo, echo),
            (Contender::Echo, None) => return Ok(Slice::default()),
            (Contender::Disk, _) => return self.write(until),
        };
        self.flight.turn_to(peer);
        let cpu_before = driver.cpu_time()?;
        driver.run(&mut self.flight, until)?;
        let cpu_after = driver.cpu_time()?;
        Ok(Slice {
            took: begun.elapsed(),
            tally: self.flight.turn_to(peer),
            server_cpu: cpu_after
                .zip(cpu_before)
                .map(|(after, before)| after - before),
            intervals: vec![],
        })
    }

    fn write(&mut self, until: Instant) -> Result<Slice, LoadError> {
        let Some((folder, disk)) = &mut self.disk else {
            return Ok(Slice::default());
        };
        let begun = Instant::now();
        let tally = disk.run(until).map_err(|cause| LoadError::Disk {
            folder: folder.clone(),
            cause,
        })?;
        Ok(Slice {
            tally,
            took: begun.elapsed(),
            server_cpu: None,
            intervals: vec![],
        })
    }
}

impl Driver {
    fn connect(
        plan: &Plan,
        who: &'static str,
        address: SocketAddr,
        cpu_clock: Option<CpuClock>,
    ) -> Result<Driver, LoadError> {
        let socket = match plan.stream {
            Stream::Udp { .. } => Udp::connect(address, plan.timeout).map(Carrier::Udp),
            Stream::Tcp { connections, .. } => {
                let of_thread = connections / plan.cpus.len();
                Tcp::connect(address, of_thread, plan.timeout).map(Carrier::Tcp)
            }
        };
        match socket {
            Ok(socket) => Ok(Driver {
                who,
                address,
                socket,
                cpu_clock,
            }),
            Err(cause) => Err(LoadError::Connection {
                who,
                address,
                cause,
            }),
        }
    }

    fn cpu_time(&self) -> Result<Option<Duration>, LoadError> {
        let Some(clock) = &self.cpu_clock else {
            return Ok(None);
        };
        let read = clock.read().map_err(|cause| {
            LoadError::Plan(format!(
                "the CPU time of {} cannot be read: {cause}",
                self.who
            ))
        });
        read.map(Some)
    }

    fn run(&mut self, flight: &mut Flight, until: Instant) -> Result<(), LoadError> {
        let run = match &mut self.socket {
            Carrier::Udp(udp) => udp.run(flight, until),
            Carrier::Tcp(tcp) => tcp.run(flight, until),
        };
        run.map_err(|cause| LoadError::Connection {
            who: self.who,
            address: self.address,
            cause,
        })
    }
}

/// Keeps this thread on a CPU, where one is named.
pub(super) fn pin(cpu: Option<usize>) {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        tracing::warn!(cpu = id, "cannot stay on this CPU");
    }
}
