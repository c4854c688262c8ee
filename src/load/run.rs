use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::baseline::{Durability, Echo, Redis};
use super::cpu_clock::CpuClock;
use super::flight::Questions;
use super::kind::{Kind, KindCount};
use super::measured::{Contender, Measured, Slice, SweepStep};
use super::own_cost::{Faults, Generator, OwnTime};
use super::pace::Pace;
use super::plan::{LoadError, Plan, Stream, Sweep};
use super::purse::Held;
use super::resp::RedisRequests;
use super::tally::Tally;
use super::thread::{Call, Done, Leftover, Thread, Turn, pin};

/// One in this many parts of a slice is not counted, so that caches and queues are the contender's
/// own.
const SETTLE_PART: u32 = 10;
/// Time from announcing a turn to its first request, so that every thread is ready.
const LEAD: Duration = Duration::from_millis(20);
/// Below this part of the wanted rate, a node is saturated.
const REACHED: f64 = 0.95;
/// A p99 of this many times the best p99 of a sweep so far, and over the time after it, is an
/// explosion.
const P99_EXPLODES: u64 = 20;
const P99_EXPLODES_OVER_NS: u64 = 5_000_000;
/// How long a closed loop runs, at most, to find the peak that a sweep's rates are parts of.
const PEAK_TIME_MAX: Duration = Duration::from_secs(3);

/// The result of a run.
pub struct Outcome {
    /// The result of each contender, the node first. For a sweep: the node, one slice for each
    /// step.
    pub measured: Vec<Measured>,
    /// The steps of a sweep.
    pub sweep: Option<Vec<SweepStep>>,
    /// The rate that a closed loop reached before a sweep without given rates.
    pub peak: Option<f64>,
    /// For a mix, by kind: the node's answers.
    pub kinds: Vec<KindCount>,
    /// The generator's cost.
    pub generator: Generator,
    /// The kinds' coins, as they are now.
    pub coins: Vec<Held>,
    /// Why what requests need could not be prepared, or not be taken back.
    pub fault: Option<LoadError>,
}

/// The baselines, as long as the run lasts.
struct Servers {
    // Each ends when it is dropped.
    _echo: Option<Echo>,
    _echo_uring: Option<Echo>,
    _redis: Option<Redis>,
    addresses: Vec<(Contender, SocketAddr)>,
    clocks: Vec<(Contender, CpuClock)>,
}

/// Announces turns to all threads, and gathers their results.
struct Conductor<'scope, 'plan> {
    plan: &'plan Plan,
    clocks: Vec<(Contender, CpuClock)>,
    threads: Vec<Player<'scope>>,
    start: Instant,
    own_times: Vec<(Contender, OwnTime)>,
}

/// A thread as its conductor sees it.
struct Player<'scope> {
    calls: Sender<Call>,
    /// Receives that the thread is ready: once it is connected, and then after each call to
    /// prepare.
    prepared: Receiver<()>,
    done: Receiver<Done>,
    handle: ScopedJoinHandle<'scope, Result<Leftover, LoadError>>,
}

/// The result of a sweep.
struct Swept {
    /// Of all steps, one slice each.
    all: Measured,
    steps: Vec<SweepStep>,
    /// The rate that a closed loop reached before.
    peak: Option<f64>,
}

impl Plan {
    /// Carries out the plan, with one kind for each thread.
    ///
    /// # Errors
    /// The plan is not possible, or a contender fails completely. Coins are lost track of then.
    ///
    /// # Panics
    /// When the number of kinds differs from the number of threads.
    pub fn run(&self, kinds: Vec<Box<dyn Kind>>) -> Result<Outcome, LoadError> {
        self.check()?;
        assert_eq!(kinds.len(), self.cpus.len(), "a kind a thread");
        let servers = Servers::start(self)?;
        std::thread::scope(|scope| {
            let mut conductor = Conductor::gather(self, &servers, kinds, scope)?;
            let (measured, sweep, peak) = match self.sweep {
                None => (conductor.contest()?, None, None),
                Some(sweep) => {
                    let Swept { all, steps, peak } = conductor.sweep(sweep)?;
                    (vec![all], Some(steps), peak)
                }
            };
            let own_times = std::mem::take(&mut conductor.own_times);
            let leftovers = conductor.dismiss()?;
            let faults = Faults {
                out_of_ports: leftovers.iter().map(|leftover| leftover.out_of_ports).sum(),
                dropped: leftovers.iter().map(|leftover| leftover.dropped).sum(),
            };
            let judged = match &sweep {
                // Only the last step shows the limit: the others had room left.
                Some(steps) => steps
                    .last()
                    .map_or(vec![], |step| vec![step.measured.clone()]),
                None => vec![],
            };
            let judged = if judged.is_empty() {
                &measured
            } else {
                &judged
            };
            let cpus = self.node_cpus.len();
            let generator = Generator::judge(&own_times, judged, cpus, faults);
            let mut kinds: Vec<KindCount> = Vec::new();
            let mut coins = Vec::new();
            let mut fault = None;
            for leftover in leftovers {
                fault = fault.or(leftover.finished.err());
                for count in leftover.kind.counts() {
                    match kinds.iter_mut().find(|kind| kind.name == count.name) {
                        Some(kind) => kind.add(&count),
                        None => kinds.push(count),
                    }
                }
                coins.extend(leftover.kind.coins());
            }
            Ok(Outcome {
                measured,
                sweep,
                peak,
                kinds,
                generator,
                coins,
                fault,
            })
        })
    }
}

impl Servers {
    fn start(plan: &Plan) -> Result<Servers, LoadError> {
        let mut servers = Servers {
            _echo: None,
            _echo_uring: None,
            _redis: None,
            addresses: vec![(Contender::Node, plan.node)],
            clocks: vec![],
        };
        if let Some(pid) = plan.node_pid {
            (servers.clocks).push((Contender::Node, CpuClock::Process(pid)));
        }
        let cpus: Vec<Option<usize>> = match plan.node_cpus.is_empty() {
            true => vec![None],
            false => plan.node_cpus.iter().map(|&cpu| Some(cpu)).collect(),
        };
        if plan.echo {
            let failed = |cause| LoadError::Echo {
                who: Contender::Echo,
                cause,
            };
            let echo = match plan.stream {
                Stream::Udp { .. } => Echo::udp(&cpus),
                Stream::Tcp { .. } | Stream::TcpEach { .. } => Echo::tcp(&cpus),
            };
            let echo = echo.map_err(failed)?;
            servers.add(Contender::Echo, echo.address(), echo.cpu_clock());
            servers._echo = Some(echo);
        }
        if plan.echo_uring {
            let failed = |cause| LoadError::Echo {
                who: Contender::EchoUring,
                cause,
            };
            let echo = match plan.stream {
                Stream::Udp { .. } => Echo::udp_uring(&cpus),
                Stream::Tcp { .. } | Stream::TcpEach { .. } => Echo::tcp_uring(&cpus),
            };
            let echo = echo.map_err(failed)?;
            servers.add(Contender::EchoUring, echo.address(), echo.cpu_clock());
            servers._echo_uring = Some(echo);
        }
        if let Some(redis) = &plan.redis {
            let durability = match redis.writes > 0.0 {
                true => Durability::Always,
                false => Durability::None,
            };
            let redis = Redis::start(&redis.folder, &plan.node_cpus, durability, &redis.coins)
                .map_err(LoadError::Redis)?;
            servers.add(Contender::Redis, redis.address(), redis.cpu_clock());
            servers._redis = Some(redis);
        }
        Ok(servers)
    }

    fn add(&mut self, contender: Contender, address: SocketAddr, clock: CpuClock) {
        self.addresses.push((contender, address));
        self.clocks.push((contender, clock));
    }
}

impl<'scope, 'plan> Conductor<'scope, 'plan> {
    /// Starts the threads, and waits until each is connected to all peers.
    fn gather<'env>(
        plan: &'plan Plan,
        servers: &'env Servers,
        kinds: Vec<Box<dyn Kind>>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Result<Conductor<'scope, 'plan>, LoadError>
    where
        'plan: 'env,
    {
        let mut threads = Vec::new();
        for (index, kind) in kinds.into_iter().enumerate() {
            let (calls, called) = channel();
            let (tell, done) = channel();
            let (is_prepared, prepared) = channel();
            let handle = scope.spawn(move || {
                pin(plan.cpus[index]);
                let questions = questions(plan, kind);
                let thread = Thread::prepare(plan, index, questions, &servers.addresses)?;
                // If the receiver no longer waits, it sees the turns end.
                let _ = is_prepared.send(());
                Ok(thread.run(&called, &is_prepared, &tell))
            });
            threads.push(Player {
                calls,
                prepared,
                done,
                handle,
            });
        }
        let is_ready = threads.iter().all(|thread| thread.prepared.recv().is_ok());
        let conductor = Conductor {
            plan,
            clocks: servers.clocks.clone(),
            threads,
            start: Instant::now(),
            own_times: vec![],
        };
        match is_ready {
            true => Ok(conductor),
            false => Err(conductor.failure()),
        }
    }

    /// Warm-up of all contenders, then slices in turns.
    fn contest(&mut self) -> Result<Vec<Measured>, LoadError> {
        let plan = self.plan;
        let mut measured: Vec<Measured> = plan.contenders().map(Measured::nothing).collect();
        for one in &mut measured {
            let warm_up = self.turn(one.contender, plan.warm_up, plan.pace, false)?;
            one.between.add(&warm_up.tally);
        }
        let length = plan.duration / plan.slices;
        for _ in 0..plan.slices {
            for one in &mut measured {
                let settle = self.turn(one.contender, length / SETTLE_PART, plan.pace, false)?;
                one.between.add(&settle.tally);
                one.slices
                    .push(self.turn(one.contender, length, plan.pace, true)?);
            }
        }
        Ok(measured)
    }

    /// Rate after rate, until one is too much.
    fn sweep(&mut self, sweep: Sweep) -> Result<Swept, LoadError> {
        let (node, plan) = (Contender::Node, self.plan);
        let mut all = Measured::nothing(node);
        let warm_up = self.turn(node, plan.warm_up, Pace::Closed, false)?;
        all.between.add(&warm_up.tally);
        let mut peak = None;
        let rates: Vec<f64> = match sweep {
            Sweep::Auto => {
                let time = plan.duration.min(PEAK_TIME_MAX);
                let slice = self.turn(node, time, Pace::Closed, false)?;
                all.between.add(&slice.tally);
                let reached = slice.rate();
                if reached <= 0.0 {
                    return Ok(Swept {
                        all,
                        steps: vec![],
                        peak: Some(0.0),
                    });
                }
                peak = Some(reached);
                (1..=11)
                    .map(|part| reached * f64::from(part) / 10.0)
                    .collect()
            }
            Sweep::Range { from, to, steps } => (0..steps)
                .map(|step| from + (to - from) * f64::from(step) / f64::from((steps - 1).max(1)))
                .collect(),
        };
        let mut steps: Vec<SweepStep> = Vec::new();
        for rate in rates {
            let pace = Pace::Open {
                rate,
                spacing: plan.sweep_spacing,
            };
            let mut measured = Measured::nothing(node);
            let settle = self.turn(node, plan.duration / SETTLE_PART, pace, false)?;
            measured.between.add(&settle.tally);
            self.own_times.clear(); // only the last step's matter
            measured
                .slices
                .push(self.turn(node, plan.duration, pace, true)?);
            all.between.add(&settle.tally);
            all.slices.extend(measured.slices.iter().cloned());
            let best = steps.iter().map(|step| p99(&step.measured)).min();
            let explodes = best.is_some_and(|best| {
                p99(&measured) > (best * P99_EXPLODES).max(P99_EXPLODES_OVER_NS)
            });
            let is_saturated = !keeps_up(&measured.slices[0], plan.duration) || explodes;
            steps.push(SweepStep {
                rate_wanted: rate,
                measured,
                is_saturated,
            });
            if is_saturated {
                break;
            }
        }
        Ok(Swept { all, steps, peak })
    }

    fn turn(
        &mut self,
        contender: Contender,
        length: Duration,
        pace: Pace,
        is_counted: bool,
    ) -> Result<Slice, LoadError> {
        if length.is_zero() || self.plan.stop.is_asked() {
            return Ok(Slice::default());
        }
        if let Some(progress) = &self.plan.progress {
            progress.turn_to(contender);
        }
        self.prepare();
        let cpu_before = self.server_cpu(contender)?;
        let begun = Instant::now() + LEAD;
        let turn = Turn {
            contender,
            started: begun - self.start,
            begun,
            length,
            pace,
        };
        for thread in &self.threads {
            // A thread that has ended is noticed below.
            let _ = thread.calls.send(Call::Play(turn));
        }
        let done: Vec<_> = self
            .threads
            .iter()
            .map(|thread| thread.done.recv())
            .collect();
        let cpu_after = self.server_cpu(contender)?;
        let mut all: Option<Slice> = None;
        for result in done {
            // A thread that sends nothing has panicked, and is joined when the scope ends.
            let (slice, own) = result.unwrap_or_else(|_| {
                Err(LoadError::Plan(
                    "a thread of the generator failed".to_owned(),
                ))
            })?;
            if is_counted {
                match self.own_times.iter_mut().find(|(of, _)| *of == contender) {
                    Some((_, all)) => all.add(own),
                    None => self.own_times.push((contender, own)),
                }
            }
            match &mut all {
                Some(all) => all.join(slice),
                None => all = Some(slice),
            }
        }
        let mut slice = all.unwrap_or_default();
        slice.server_cpu = cpu_after
            .zip(cpu_before)
            .map(|(after, before)| after.saturating_sub(before));
        Ok(slice)
    }

    /// Waits until every thread has prepared for a turn.
    fn prepare(&self) {
        for thread in &self.threads {
            let _ = thread.calls.send(Call::Prepare);
        }
        for thread in &self.threads {
            // A thread that has ended is noticed when its turn is over.
            let _ = thread.prepared.recv();
        }
    }

    fn server_cpu(&self, contender: Contender) -> Result<Option<Duration>, LoadError> {
        let clock = self.clocks.iter().find(|(of, _)| *of == contender);
        let Some((_, clock)) = clock else {
            return Ok(None);
        };
        let read = clock.read().map_err(|cause| {
            LoadError::Plan(format!(
                "the CPU time of the {} cannot be read: {cause}",
                contender.name()
            ))
        });
        read.map(Some)
    }

    /// Ends the threads.
    fn dismiss(self) -> Result<Vec<Leftover>, LoadError> {
        let threads: Vec<_> = self
            .threads
            .into_iter()
            .map(|thread| thread.handle)
            .collect();
        let join = |handle: ScopedJoinHandle<'_, _>| {
            handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    }

    /// Why a thread could not be prepared.
    fn failure(self) -> LoadError {
        match self.dismiss() {
            Err(error) => error,
            Ok(_) => LoadError::Plan("a thread of the generator failed".to_owned()),
        }
    }
}

/// The requests of one thread.
fn questions(plan: &Plan, kind: Box<dyn Kind>) -> Questions {
    let redis = plan.redis.as_ref().map(|redis| {
        RedisRequests::new(
            &redis.coins,
            redis.choice,
            redis.per_request,
            redis.writes,
            plan.slots_per_thread(),
            &mut SmallRng::from_rng(&mut rand::rng()),
        )
    });
    Questions {
        kind,
        addressee: plan.addressee,
        keyring: plan.keyring.clone(),
        redis,
    }
}

/// Whether requests were answered as fast as they were due. That refers to the times drawn: at
/// random, more or fewer than the rate are due in a time.
fn keeps_up(slice: &Slice, length: Duration) -> bool {
    let Tally {
        right,
        wrong,
        refused,
        late,
        lost,
        ..
    } = slice.tally;
    let due = (right + wrong + refused + late + lost) as f64;
    slice.rate() >= REACHED * due / length.min(slice.took).as_secs_f64().max(1e-9)
}

fn p99(measured: &Measured) -> u64 {
    measured.total().latency_ns.value_at_quantile(0.99)
}
