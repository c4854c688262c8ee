use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::baseline::Disk;
use super::carrier::Carrier;
use super::each::Each;
use super::flight::{Flight, Peer, Questions, Stretch};
use super::kind::Kind;
use super::measured::{Contender, Slice};
use super::own_cost::{OwnTime, thread_cpu_time};
use super::pace::Pace;
use super::plan::{Io, LoadError, Plan, Stream};
use super::recorder::Recorder;
use super::tcp::Tcp;
use super::udp::Udp;
use super::uring::{UringTcp, UringUdp};

/// A sleep until a turn begins ends this much early: for the rest the thread polls the clock.
const WAKE_EARLY: Duration = Duration::from_micros(300);

/// A turn, as all threads get it at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) contender: Contender,
    /// From the start of the run.
    pub(super) started: Duration,
    pub(super) begun: Instant,
    pub(super) length: Duration,
    pub(super) pace: Pace,
}

/// An order to a thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// Prepare for a turn, and report when that is done.
    Prepare,
    /// Do a turn.
    Play(Turn),
}

/// A thread's result of a turn.
pub(super) type Done = Result<(Slice, OwnTime), LoadError>;

/// A thread's final state.
pub(super) struct Leftover {
    pub(super) kind: Box<dyn Kind>,
    /// See [`Kind::finish`].
    pub(super) finished: Result<(), LoadError>,
    pub(super) out_of_ports: u64,
    /// Answers of the node that this machine dropped.
    pub(super) dropped: u64,
}

/// One thread of the generator: does turns as they are announced.
pub(super) struct Thread {
    place: (usize, usize),
    flight: Flight,
    lines: Vec<Line>,
    disk: Option<(PathBuf, Disk)>,
}

/// The connection to one contender.
struct Line {
    contender: Contender,
    address: SocketAddr,
    carrier: Box<dyn Carrier>,
}

impl Thread {
    pub(super) fn prepare(
        plan: &Plan,
        index: usize,
        questions: Questions,
        servers: &[(Contender, SocketAddr)],
    ) -> Result<Thread, LoadError> {
        // One write at a time, so one thread is enough.
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
        let mut lines = Vec::new();
        for &(contender, address) in servers {
            let failed = |cause| LoadError::Connection {
                who: contender,
                address,
                cause,
            };
            let mut carrier = carrier(plan, address).map_err(|cause| match plan.io {
                Io::Syscalls => failed(cause),
                // Nothing is connected yet: the ring could not be created.
                Io::Uring => LoadError::Uring(cause),
            })?;
            carrier.ready().map_err(failed)?;
            lines.push(Line {
                contender,
                address,
                carrier,
            });
        }
        let progress = plan.progress.as_ref().map(|p| p.of_thread(index));
        let recorder = Recorder::new(plan.late_after, progress);
        Ok(Thread {
            place: (index, plan.cpus.len()),
            flight: Flight::new(
                questions,
                plan.slots_per_thread(),
                plan.timeout,
                recorder,
                plan.stop.clone(),
            ),
            lines,
            disk,
        })
    }

    /// Follows orders until there are no more.
    pub(super) fn run(
        mut self,
        calls: &Receiver<Call>,
        prepared: &Sender<()>,
        done: &Sender<Done>,
    ) -> Leftover {
        for call in calls {
            let is_heard = match call {
                Call::Prepare => {
                    self.flight.prepare();
                    prepared.send(()).is_ok()
                }
                Call::Play(turn) => done.send(self.turn(turn)).is_ok(),
            };
            if !is_heard {
                break; // nobody waits for it any more
            }
        }
        Leftover {
            finished: self.flight.finish(),
            // The node comes first.
            dropped: self.lines.first().map_or(0, |l| l.carrier.dropped()),
            out_of_ports: self.lines.iter().map(|l| l.carrier.out_of_ports()).sum(),
            kind: self.flight.into_kind(),
        }
    }

    fn turn(&mut self, turn: Turn) -> Done {
        let line = (self.lines.iter_mut()).find(|line| line.contender == turn.contender);
        let Some(line) = line else {
            return self.write(turn);
        };
        let peer = match turn.contender {
            Contender::Node | Contender::Disk => Peer::Node,
            Contender::Echo | Contender::EchoUring => Peer::Echo,
            Contender::Redis => Peer::Redis,
        };
        let failed = |cause| LoadError::Connection {
            who: turn.contender,
            address: line.address,
            cause,
        };
        line.carrier.ready().map_err(failed)?;
        self.flight.begin_turn(
            peer,
            Stretch {
                started: turn.started,
                begun: turn.begun,
                length: turn.length,
                pace: turn.pace,
                thread: self.place,
            },
        );
        sleep_until(turn.begun);
        let before = own_time()?;
        let run = line.carrier.run(&mut self.flight);
        let after = own_time()?;
        run.map_err(failed)?;
        let spun = self.flight.take_spun();
        let slice = self.flight.end_turn();
        let own = OwnTime {
            cpu: (after - before).saturating_sub(spun),
            elapsed: slice.took,
            behind: self.flight.take_behind(),
            waited: self.flight.take_waited(),
        };
        Ok((slice, own))
    }

    fn write(&mut self, turn: Turn) -> Done {
        let Some((folder, disk)) = &mut self.disk else {
            return Ok((Slice::default(), OwnTime::default()));
        };
        let failed = |cause| LoadError::Disk {
            folder: folder.clone(),
            cause,
        };
        let mut recorder = Recorder::new(Duration::MAX, None);
        recorder.begin(turn.started, turn.begun, turn.length);
        sleep_until(turn.begun);
        let until = turn.begun + turn.length;
        disk.run(until, &mut recorder).map_err(failed)?;
        Ok((recorder.end(false), OwnTime::default()))
    }
}

fn carrier(plan: &Plan, address: SocketAddr) -> io::Result<Box<dyn Carrier>> {
    let threads = plan.cpus.len();
    Ok(match (plan.stream, plan.io) {
        (Stream::Udp { .. }, Io::Syscalls) => {
            Box::new(Udp::connect(address, plan.slots_per_thread())?)
        }
        (Stream::Tcp { connections, .. }, Io::Syscalls) => {
            Box::new(Tcp::new(address, connections / threads)?)
        }
        (Stream::TcpEach { connections }, _) => {
            Box::new(Each::new(address, connections / threads)?)
        }
        (Stream::Udp { .. }, Io::Uring) => {
            Box::new(UringUdp::connect(address, plan.slots_per_thread())?)
        }
        (Stream::Tcp { connections, .. }, Io::Uring) => {
            Box::new(UringTcp::new(address, connections / threads)?)
        }
    })
}

fn own_time() -> Result<Duration, LoadError> {
    thread_cpu_time().map_err(|cause| {
        LoadError::Plan(format!(
            "the generator's own CPU time cannot be read: {cause}"
        ))
    })
}

fn sleep_until(time: Instant) {
    let left = time.saturating_duration_since(Instant::now());
    std::thread::sleep(left.saturating_sub(WAKE_EARLY));
    while Instant::now() < time {
        std::hint::spin_loop();
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
