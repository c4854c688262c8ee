//! The machine: which CPU runs what, and what a process takes of it.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The two CPUs of a measurement: where the machine has one, both are that one.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Runs the nodes.
    pub node: usize,
    /// Runs the clients.
    pub clients: usize,
    all: CpuSet,
}

impl Cpus {
    /// Gives the first CPU to the node and the last to the clients, this thread and those that it
    /// starts.
    pub fn share() -> Cpus {
        let all = sched_getaffinity(None).expect("the CPUs that this thread may use");
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu));
        let node = numbers.next().expect("a CPU");
        let clients = numbers.next_back().unwrap_or(node);
        keep_to(&only(clients));
        Cpus { node, clients, all }
    }

    /// Starts something on the node's CPU: what it starts stays there.
    pub fn on_node<T>(self, start: impl FnOnce() -> T) -> T {
        self.within(&only(self.node), start)
    }

    /// Starts something that may use every CPU.
    pub fn on_all<T>(self, start: impl FnOnce() -> T) -> T {
        self.within(&self.all, start)
    }

    fn within<T>(self, cpus: &CpuSet, start: impl FnOnce() -> T) -> T {
        keep_to(cpus);
        let started = start();
        keep_to(&only(self.clients));
        started
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    cpus
}

fn keep_to(cpus: &CpuSet) {
    sched_setaffinity(None, cpus).expect("this thread may choose its CPU");
}

/// Gives this thread priority on its CPU, so that the honest client does not wait for the attackers
/// that share the CPU. Returns whether that is allowed.
pub fn run_first() -> bool {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: sched_setscheduler reads the structure, which lives until it returns.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0 }
}

/// Lets this process open as many descriptors as it may; gives how many.
pub fn raise_descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit may rise to the hard one");
    limit.maximum.unwrap_or(u64::MAX)
}

/// CPU time that this thread has taken.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// CPU time that this process has taken.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// What the machine does besides: its load average of the last minute.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Bytes that TCP's buffers take of the kernel's memory, of the whole machine: no process is
/// charged with them.
pub fn socket_buffers() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = pages.and_then(|line| line.rsplit(' ').next());
    pages.and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4_096
}

/// A process that is watched from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Memory that it holds now, in bytes.
    pub fn resident(self) -> u64 {
        self.kib("smaps_rollup", "Rss:") << 10
    }

    /// The most memory that it held since [`forget_peak`](Process::forget_peak), in bytes.
    pub fn peak(self) -> u64 {
        self.kib("status", "VmHWM:") << 10
    }

    /// Has its peak begin again at what it holds now.
    pub fn forget_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").expect("a peak to reset");
    }

    /// CPU time that it and its children that ended have taken.
    pub fn cpu(self) -> Duration {
        let stat = self.read("stat");
        // The name, in brackets, may hold anything: field 3 is the first after it.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks = fields.split(' ').skip(11).take(4);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        // SAFETY: sysconf takes a number and no memory.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    fn kib(self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// Empty where the process has ended.
    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default()
    }
}
