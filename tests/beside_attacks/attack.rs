//! What an attack is, and what must hold beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::crowd::{Crowd, Load};
use crate::honest::Manner;
use crate::machine::Cpus;
use crate::site::Site;
use crate::wire::Owned;

/// What the honest client at whom the attack is aimed does meanwhile: once per call, again and
/// again. The error says what it got instead.
pub type Victim = Box<dyn FnMut() -> Result<(), String> + Send>;

/// What an attack has to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMemory {
    /// Nothing in particular.
    No,
    /// It takes memory that the node needs for longer: tickets live 300 s.
    Kept,
    /// It takes memory that the node must give back when the attackers have gone.
    GivenBack,
}

/// An attack as a stranger would make it who has only read the protocol.
pub trait Attack {
    /// As `perf/attacks` takes it.
    fn name(&self) -> &'static str;

    /// One line for a person: what is sent.
    fn what(&self) -> &'static str;

    /// Whether the attack is a variant of another one.
    fn is_relative(&self) -> bool {
        false
    }

    /// The node's configuration where it is not the default one: only what the attack needs.
    fn settings(&self, _folder: &Path) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Coins beside those that every node here has.
    fn coins(&self) -> Vec<Owned> {
        Vec::new()
    }

    /// How many file descriptors the node may have at most; `None` for as many as this process.
    fn descriptors(&self) -> Option<u64> {
        None
    }

    /// The configuration of RAIDA 1, where RAIDA 1 runs beside a node with this address.
    fn other_node(&self, _node: SocketAddr) -> Option<Vec<(&'static str, String)>> {
        None
    }

    /// How the honest client asks beside it.
    fn manners(&self) -> &'static [Manner] {
        &[Manner::Udp, Manner::Tcp]
    }

    /// Those who attack.
    fn attackers(&self, site: &Site) -> Box<dyn Crowd>;

    /// As many honest clients, over the same transport: they ask for their own coins as often as
    /// the attackers did, with requests of the same size.
    fn honest_crowd(&self, site: &Site, per_second: f64) -> Box<dyn Crowd>;

    /// What the owner of the coins, or another target of the attack, does meanwhile.
    fn victim(&self, _site: &Site) -> Option<Victim> {
        None
    }

    /// What is wrong on a fresh node that nobody else uses.
    fn faults(&self, _cpus: Cpus) -> Vec<String> {
        Vec::new()
    }

    /// What is wrong with what the attackers were answered.
    fn fault_in(&self, _load: &Load) -> Option<String> {
        None
    }

    /// Whether the attack is on memory: then a node with defaults, a shard for each CPU, is
    /// measured as well.
    fn on_memory(&self) -> OnMemory {
        OnMemory::No
    }
}

/// The address of attacker `number`.
pub fn attacker(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// The addresses of this many attackers.
pub fn attackers(count: u8) -> Vec<Ipv4Addr> {
    (1..=count).map(attacker).collect()
}

/// The addresses of this many honest clients.
pub fn honest(count: u8) -> Vec<Ipv4Addr> {
    (1..=count)
        .map(|number| Ipv4Addr::new(127, 0, 2, number))
        .collect()
}

/// The address of the owner of the coins that an attack is aimed at.
pub const OWNER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 210);
