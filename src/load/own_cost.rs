use std::io;
use std::time::Duration;

use super::measured::{Contender, Measured};

/// From this part of its CPUs on, the generator is saturated.
const BUSY: f64 = 0.95;
/// From this part of late requests on, the generator causes the latencies.
const BEHIND: f64 = 0.01;
/// If a node is this close to the bare echo's rate, the generator limits both.
const SAME_RATE: f64 = 0.97;

/// The generator's own cost, and whether its figures are the node's or its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generator {
    /// Its cost while each contender was asked, in counted time.
    pub costs: Vec<OwnCost>,
    /// Problems on this side.
    pub faults: Faults,
    /// Why the generator, not the node, limits the node's rate, in words for a person; empty where
    /// nothing indicates it.
    pub limits: Vec<String>,
}

/// Problems on the generator's side, in the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Number of times that a request had to wait because this machine had no port left to send it
    /// from.
    pub out_of_ports: u64,
    /// Answers of the node that found no room in this side's socket: they count as lost.
    pub dropped: u64,
}

/// What the generator cost while it asked one contender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnCost {
    /// The contender.
    pub contender: Contender,
    /// CPU time of its threads for each request, microseconds, in user and kernel mode; without the
    /// time spent waiting for a request's time. On loopback the kernel carries data to the
    /// receiver's socket in the sender's time.
    pub cpu_us_per_request: f64,
    /// The part of its threads' time that was spent on a CPU, 0 to 1; also without waiting.
    pub cpu_share: f64,
    /// The part of the requests of an open loop that went out more than 0.2 ms after they were due
    /// though neither the node nor the plan held them up, 0 to 1. Their latencies still count from
    /// when they were due.
    pub behind_share: f64,
    /// Number of times that a due request had to wait for what its kind prepares.
    pub waited: u64,
}

/// Time of the generator's threads, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnTime {
    pub(super) cpu: Duration,
    pub(super) elapsed: Duration,
    /// Requests that went out late.
    pub(super) behind: u64,
    /// See [`OwnCost::waited`].
    pub(super) waited: u64,
}

impl OwnTime {
    pub(super) fn add(&mut self, other: OwnTime) {
        self.cpu += other.cpu;
        self.elapsed += other.elapsed;
        self.behind += other.behind;
        self.waited += other.waited;
    }
}

impl Generator {
    /// Judges a run of one closed or open loop. `server_cpus` is the number of the node's CPUs.
    pub(super) fn judge(
        times: &[(Contender, OwnTime)],
        measured: &[Measured],
        server_cpus: usize,
        faults: Faults,
    ) -> Generator {
        let mut costs = Vec::new();
        for &(contender, time) in times {
            let Some(of) = measured.iter().find(|one| one.contender == contender) else {
                continue;
            };
            let total = of.total();
            let requests = total.right + total.wrong + total.refused + total.late + total.lost;
            costs.push(OwnCost {
                contender,
                cpu_us_per_request: time.cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
                cpu_share: time.cpu.as_secs_f64() / time.elapsed.as_secs_f64().max(1e-9),
                behind_share: time.behind as f64 / requests.max(1) as f64,
                waited: time.waited,
            });
        }
        let mut generator = Generator {
            costs,
            faults,
            limits: vec![],
        };
        generator.limits = generator.limits(measured, server_cpus);
        generator
    }

    /// Whether the generator limits the node's figures.
    pub fn is_limit(&self) -> bool {
        !self.limits.is_empty()
    }

    /// The cost for one contender.
    pub fn cost(&self, contender: Contender) -> Option<OwnCost> {
        let mut costs = self.costs.iter();
        costs.find(|cost| cost.contender == contender).copied()
    }

    fn limits(&self, measured: &[Measured], server_cpus: usize) -> Vec<String> {
        let mut limits = Vec::new();
        let Some(node) = measured.iter().find(|m| m.contender == Contender::Node) else {
            return limits;
        };
        let own = self
            .cost(Contender::Node)
            .map_or(0.0, |cost| cost.cpu_share);
        let server = server_share(node, server_cpus);
        if own > BUSY && server.is_none_or(|share| share < BUSY) {
            let node = match server {
                Some(share) => format!("the node's {:.0} %", share * 100.0),
                None => "the node's load is not known (--node-pid tells)".to_owned(),
            };
            limits.push(format!(
                "its threads were on a CPU {:.0} % of the time, and {node}: give it more --threads and --cpus",
                own * 100.0
            ));
        }
        let behind = self
            .cost(Contender::Node)
            .map_or(0.0, |cost| cost.behind_share);
        if behind > BEHIND {
            limits.push(format!(
                "{:.1} % of its requests went out more than 0.2 ms late though the node held none of them up: it does not get its CPU, or --rate is more than its --threads can send",
                behind * 100.0
            ));
        }
        let echo = (measured.iter())
            .find(|m| matches!(m.contender, Contender::Echo | Contender::EchoUring));
        if let Some(echo) = echo
            && own > BUSY
            && let (Some(node), Some(echo)) = (median(node.rates()), median(echo.rates()))
            && node > SAME_RATE * echo
        {
            limits.push(
                "the bare echo is no faster than the node: what limits both is the generator"
                    .to_owned(),
            );
        }
        if self.faults.out_of_ports > 0 {
            limits.push(format!(
                "{} times it had to wait for a free port: see net.ipv4.ip_local_port_range and net.ipv4.tcp_tw_reuse, or ask more slowly with --rate",
                self.faults.out_of_ports
            ));
        }
        if self.faults.dropped > 0 {
            limits.push(format!(
                "{} answers came and found no room before it read them, and count as lost: see net.core.rmem_max, or have fewer --in-flight",
                self.faults.dropped
            ));
        }
        let waited = self.cost(Contender::Node).map_or(0, |cost| cost.waited);
        if waited > 0 {
            limits.push(format!(
                "{waited} times a request waited for its tickets, so that the rate, and in an open loop the latencies, are in part those of other servers: take more --slices, since tickets are got before each, or ask more slowly with --rate",
            ));
        }
        limits
    }
}

/// The part of its CPUs that a server used.
fn server_share(measured: &Measured, cpus: usize) -> Option<f64> {
    let (mut cpu, mut took) = (Duration::ZERO, Duration::ZERO);
    for slice in &measured.slices {
        cpu += slice.server_cpu?;
        took += slice.took;
    }
    let all = took.as_secs_f64() * cpus.max(1) as f64;
    (all > 0.0).then(|| cpu.as_secs_f64() / all)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// How long the calling thread has been on a CPU.
///
/// # Errors
/// There is no such clock.
pub(super) fn thread_cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec to the pointer, which leads to a live one.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    match done {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::measured::Slice;

    fn measured(contender: Contender, right: u64, server_busy: Option<f64>) -> Measured {
        let mut slice = Slice {
            took: Duration::from_secs(1),
            server_cpu: server_busy.map(Duration::from_secs_f64),
            ..Slice::default()
        };
        slice.tally.right = right;
        Measured {
            slices: vec![slice],
            ..Measured::nothing(contender)
        }
    }

    fn own(busy: f64, behind: u64) -> Vec<(Contender, OwnTime)> {
        let time = OwnTime {
            cpu: Duration::from_secs_f64(busy),
            elapsed: Duration::from_secs(1),
            behind,
            waited: 0,
        };
        vec![(Contender::Node, time)]
    }

    fn is_limit(own: &[(Contender, OwnTime)], measured: &[Measured], faults: Faults) -> bool {
        Generator::judge(own, measured, 1, faults).is_limit()
    }

    #[test]
    fn a_generator_without_cpu_time_left_is_the_limit_unless_the_node_has_none_either() {
        let none = Faults::default();
        for (own_busy, server_busy, expected) in [
            (0.99, Some(0.5), true),
            (0.99, None, true),
            (0.99, Some(0.98), false),
            (0.6, Some(0.5), false),
            (0.6, None, false),
        ] {
            let node = measured(Contender::Node, 1_000, server_busy);
            let found = is_limit(&own(own_busy, 0), &[node], none);
            assert_eq!(found, expected, "{own_busy} against {server_busy:?}");
        }
    }

    #[test]
    fn a_node_as_fast_as_the_bare_echo_shows_the_generator() {
        let node = measured(Contender::Node, 990, Some(0.98));
        for (echo, expected) in [(1_000, true), (1_200, false)] {
            let echo = measured(Contender::Echo, echo, Some(0.98));
            let both = [node.clone(), echo];
            assert_eq!(is_limit(&own(0.99, 0), &both, Faults::default()), expected);
        }
    }

    #[test]
    fn requests_that_go_out_late_and_answers_without_room_are_the_generators_fault() {
        let node = [measured(Contender::Node, 1_000, Some(0.5))];
        let none = Faults::default();
        assert!(!is_limit(&own(0.5, 5), &node, none));
        assert!(is_limit(&own(0.5, 50), &node, none));
        let mut waited = own(0.5, 0);
        waited[0].1.waited = 1;
        assert!(is_limit(&waited, &node, none));
        for faults in [
            Faults {
                out_of_ports: 1,
                ..none
            },
            Faults { dropped: 1, ..none },
        ] {
            assert!(is_limit(&own(0.5, 0), &node, faults));
        }
    }
}
