//! Measuring one attack: rounds in which the honest client is served beside it and, in turn, beside
//! as many honest requests.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::attack::{Attack, OnMemory, Victim};
use crate::crowd::{Crowd, Load, Running};
use crate::honest::{Honest, Manner, Served};
use crate::machine::{Cpus, own_cpu, run_first, socket_buffers};
use crate::site::{Cores, Site, coins};

/// Time from a crowd's start until the client is measured.
const WARM_UP: Duration = Duration::from_millis(250);
/// How often the target of the attack acts.
const VICTIM_EVERY: Duration = Duration::from_millis(200);
/// How long a node may work after the attackers have gone.
const REST_MAX: Duration = Duration::from_secs(5);
/// A node at rest takes no more of a CPU: its clock counts hundredths of a second.
const REST_CPU: f64 = 0.1;
/// This often in a row: a node that waits for its CPU seems to rest as well.
const RESTFUL_LOOKS: u32 = 2;
/// How long a node may keep the memory that an attack took.
const BACK_AFTER: Duration = Duration::from_secs(10);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub rounds: u32,
    /// How long the client asks as fast as it is answered, each time and in each manner.
    pub closed: Duration,
    /// How long it asks at a steady pace.
    pub paced: Duration,
    /// How long memory is attacked.
    pub memory: Duration,
}

/// What came of one attack.
pub struct Measured {
    /// By manner of the honest client.
    pub manners: Vec<(Manner, Vec<Pair>)>,
    pub beside_honest: Vec<Side>,
    pub beside_attack: Vec<Side>,
    /// What is wrong on a fresh node.
    pub faults: Vec<String>,
    /// How often the node did not come to rest after the attackers had gone.
    pub restless: u32,
    /// Memory of the measured node, and of one with defaults.
    pub memory: Vec<Memory>,
}

/// The client in one round: beside honest requests, and beside the attack.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub beside_honest: Served,
    pub beside_attack: Served,
}

/// A stretch of time beside a crowd.
pub struct Side {
    served: Vec<Served>,
    pub load: Load,
    /// The part of a CPU that the node took, 0 to 1, or more where it has several.
    pub node_cpu: f64,
    /// The part of their CPU that crowd and client took.
    pub clients_cpu: f64,
    /// Bytes in the kernel's buffers of TCP at the end of it, of the whole machine.
    pub socket_buffers: u64,
    /// What the target of the attack asked.
    pub asked: u32,
    /// Which of these requests failed.
    pub failed: Vec<String>,
}

/// Memory of a node, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub cores: Cores,
    pub rest: u64,
    pub peak: u64,
    /// The pages that it can have in its cache.
    pub pages: u64,
    /// What it held in the end; `None` where that was not looked at.
    pub after: Option<u64>,
}

impl Memory {
    /// What it held at most beside its pages.
    pub fn over_pages(&self) -> u64 {
        self.peak.saturating_sub(self.pages)
    }
}

/// Measures an attack.
pub fn measure(attack: &dyn Attack, cpus: Cpus, extent: Extent) -> Measured {
    let fresh = || {
        let site = Site::new(attack, cpus, Cores::One);
        let victim = attack.victim(&site);
        site.process.forget_peak();
        let rest = site.process.resident();
        (site, victim, rest)
    };
    let (mut site, mut victim, mut rest) = fresh();
    let mut measured = Measured {
        manners: attack.manners().iter().map(|&m| (m, Vec::new())).collect(),
        beside_honest: Vec::new(),
        beside_attack: Vec::new(),
        faults: Vec::new(),
        restless: 0,
        memory: Vec::new(),
    };
    for _ in 0..extent.rounds {
        let attackers = attack.attackers(&site);
        let attacked = beside(&site, attackers, attack.manners(), &mut victim, extent);
        if !comes_to_rest(&site) {
            // Work that still goes on there would be measured beside the honest crowd as well.
            measured.restless += 1;
            measured.memory.push(memory(&site, Cores::One, rest));
            drop((site, victim));
            (site, victim, rest) = fresh();
        }
        let per_second = attacked.load.sent_per_second();
        let crowd = attack.honest_crowd(&site, per_second);
        let calm = beside(&site, crowd, attack.manners(), &mut victim, extent);
        let pairs = calm.served.iter().zip(&attacked.served);
        for ((_, list), (&beside_honest, &beside_attack)) in measured.manners.iter_mut().zip(pairs)
        {
            list.push(Pair {
                beside_honest,
                beside_attack,
            });
        }
        measured.beside_attack.push(attacked);
        measured.beside_honest.push(calm);
    }
    measured.memory.push(memory(&site, Cores::One, rest));
    drop((site, victim));
    measured.faults = attack.faults(cpus);
    if attack.on_memory() != OnMemory::No {
        let as_it_comes = memory_as_it_comes(attack, cpus, extent.memory, &mut measured.restless);
        measured.memory.push(as_it_comes);
    }
    measured
}

fn memory(site: &Site, cores: Cores, rest: u64) -> Memory {
    Memory {
        cores,
        rest,
        peak: site.process.peak(),
        pages: site.page_bytes(),
        after: None,
    }
}

/// The client beside a crowd, in each manner in turn.
fn beside(
    site: &Site,
    crowd: Box<dyn Crowd>,
    manners: &[Manner],
    victim: &mut Option<Victim>,
    extent: Extent,
) -> Side {
    let running = Running::start(crowd);
    running.count();
    std::thread::sleep(WARM_UP);
    let (start, node, own) = (Instant::now(), site.cpu(), own_cpu());
    let ends = AtomicBool::new(false);
    let (served, asked, failed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_again_and_again(victim, &ends));
        let client = scope.spawn(|| {
            run_first();
            let honest = Honest::new(site.address(), coins().honest);
            let ask = |&manner: &Manner| honest.ask(manner, extent.closed, extent.paced);
            manners.iter().map(ask).collect::<Vec<Served>>()
        });
        let served = client.join().expect("the client's thread");
        ends.store(true, SeqCst);
        let (asked, failed) = asking.join().expect("the thread of whoever it is about");
        (served, asked, failed)
    });
    let seconds = start.elapsed().as_secs_f64();
    Side {
        served,
        node_cpu: (site.cpu() - node).as_secs_f64() / seconds,
        clients_cpu: (own_cpu() - own).as_secs_f64() / seconds,
        socket_buffers: socket_buffers(),
        load: running.end(),
        asked,
        failed,
    }
}

fn ask_again_and_again(victim: &mut Option<Victim>, ends: &AtomicBool) -> (u32, Vec<String>) {
    let Some(ask) = victim else {
        return (0, Vec::new());
    };
    let (mut asked, mut failed) = (0, Vec::new());
    while !ends.load(SeqCst) {
        asked += 1;
        failed.extend(ask().err());
        std::thread::sleep(VICTIM_EVERY);
    }
    (asked, failed)
}

/// Waits until the node has nothing to do; `false` where it goes on.
fn comes_to_rest(site: &Site) -> bool {
    let look = Duration::from_millis(200);
    let until = Instant::now() + REST_MAX;
    let mut restful = 0;
    while restful < RESTFUL_LOOKS && Instant::now() < until {
        let (start, cpu) = (Instant::now(), site.cpu());
        std::thread::sleep(look);
        let taken = (site.cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        restful = if taken <= REST_CPU { restful + 1 } else { 0 };
    }
    restful == RESTFUL_LOOKS
}

/// What an attack on memory takes of a node with a shard for each CPU, and what it gives back.
fn memory_as_it_comes(
    attack: &dyn Attack,
    cpus: Cpus,
    time: Duration,
    restless: &mut u32,
) -> Memory {
    let site = Site::new(attack, cpus, Cores::All);
    site.process.forget_peak();
    let rest = site.process.resident();
    let running = Running::start(attack.attackers(&site));
    std::thread::sleep(time);
    running.end();
    let end = Instant::now();
    *restless += u32::from(!comes_to_rest(&site));
    let may_keep = rest + rest / 5;
    let resident = || site.process.resident();
    let after = (attack.on_memory() == OnMemory::GivenBack).then(|| {
        while resident() > may_keep && end.elapsed() < BACK_AFTER {
            std::thread::sleep(Duration::from_millis(100));
        }
        resident()
    });
    Memory {
        after,
        ..memory(&site, Cores::All, rest)
    }
}
