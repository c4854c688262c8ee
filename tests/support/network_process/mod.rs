//! A whole network as `raida network` runs it: 25 real processes and the one that watches them.
//!
//! ```no_run
//! let network = Network::new().down(&[3, 7]).start();
//! network.client(0).echo().unwrap();
//! assert!(network.ask(&["start", "3"]).status.success());
//! ```

#![allow(dead_code, reason = "each test program uses a part of it")]

#[allow(
    clippy::duplicate_mod,
    reason = "a test may start nodes and networks, which both need it"
)]
#[path = "../moved_clock/mod.rs"]
mod moved_clock;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use moved_clock::MovedClock;
use raida::client::{Client, Options, Transport};
use raida::protocol::{AdminKey, RaidaId};
use serde_json::Value;

/// Far beyond what anything here takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// In what a network prints, whole, when it is up.
const GREETING: &str = "Try:";
/// Ports that no other test uses, below those that Linux gives to outgoing connections: 25 a
/// network.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const NODES: u16 = RaidaId::COUNT as u16;

/// How to start a network, by default of all 25 nodes, in a folder and on ports of its own.
pub struct Network {
    folder: tempfile::TempDir,
    flags: Vec<String>,
    base_port: u16,
    /// Of all its nodes.
    pub clock: MovedClock,
}

/// A network that runs. Killed when dropped, with all its nodes.
pub struct NetworkProcess {
    network: Network,
    child: Child,
}

impl Network {
    pub fn new() -> Network {
        let network = Network::empty(free_ports());
        // 25 nodes' logs take 400 MB of disk otherwise, for each test.
        network.with("storage.segment_bytes", 1 << 20)
    }

    fn empty(base_port: u16) -> Network {
        let folder = tempfile::tempdir().unwrap();
        let clock = MovedClock::new(&folder.path().join("clock"));
        Network {
            folder,
            flags: Vec::new(),
            base_port,
            clock,
        }
    }

    /// Sets a key of every node's configuration.
    pub fn with(mut self, key: &str, value: impl ToString) -> Network {
        self.flags.push("--set".to_owned());
        self.flags.push(format!("{key}={}", value.to_string()));
        self
    }

    /// Has RAIDA 0 listen on this port, the others on those after it.
    pub fn on_ports_from(mut self, base_port: u16) -> Network {
        self.base_port = base_port;
        self
    }

    /// Leaves these nodes out.
    pub fn down(mut self, raidas: &[u8]) -> Network {
        let raidas: Vec<String> = raidas.iter().map(u8::to_string).collect();
        self.flags.push("--down".to_owned());
        self.flags.push(raidas.join(","));
        self
    }

    /// Leaves out all but these nodes.
    pub fn only(self, raidas: &[u8]) -> Network {
        let others: Vec<u8> = (0..RaidaId::COUNT as u8)
            .filter(|raida| !raidas.contains(raida))
            .collect();
        self.down(&others)
    }

    /// Its folder, as `--dir` and `--network` take it.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    /// A node's data folder.
    pub fn data(&self, raida: u8) -> PathBuf {
        self.dir().join(format!("raida{raida}"))
    }

    /// Where a node listens when it runs.
    pub fn address(&self, raida: u8) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base_port + u16::from(raida)).into()
    }

    /// The command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raida"));
        command.arg("network").arg("--dir").arg(self.dir());
        command.arg("--base-port").arg(self.base_port.to_string());
        command.args(&self.flags).stdin(Stdio::null());
        self.clock.give_to(&mut command);
        command
    }

    /// Starts it and waits until it is up.
    pub fn start(self) -> NetworkProcess {
        let said = self.folder.path().join("said");
        let said = File::create(said).unwrap();
        let mut command = self.command();
        command.stdout(said.try_clone().unwrap()).stderr(said);
        let child = command.spawn().unwrap();
        let mut network = NetworkProcess {
            network: self,
            child,
        };
        let deadline = Instant::now() + PATIENCE;
        while !network.said().contains(GREETING) {
            if let Some(status) = network.child.try_wait().unwrap() {
                panic!("the network does not start, {status}: {}", network.said());
            }
            assert!(Instant::now() < deadline, "not up: {}", network.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        network
    }
}

impl NetworkProcess {
    pub fn dir(&self) -> PathBuf {
        self.network.dir()
    }

    pub fn data(&self, raida: u8) -> PathBuf {
        self.network.data(raida)
    }

    /// Lets this many seconds pass on the clocks of all nodes.
    pub fn pass(&self, seconds: u64) {
        self.network.clock.pass(seconds);
    }

    pub fn address(&self, raida: u8) -> SocketAddr {
        self.network.address(raida)
    }

    /// The command that would run the same network again.
    pub fn command(&self) -> Command {
        self.network.command()
    }

    /// The process that watches the nodes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it printed so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.network.folder.path().join("said")).unwrap()
    }

    /// Waits until it has printed `text`.
    pub fn wait_until_said(&self, text: &str) {
        self.wait_until(|| self.said().contains(text));
    }

    pub fn wait_until(&self, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "it said: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A client of a node, over TCP.
    pub fn client(&self, raida: u8) -> Client {
        let mut options = Options::new(RaidaId::new(raida).unwrap());
        options.timeout = PATIENCE;
        let port = self.address(raida).port();
        Client::connect(("127.0.0.1", port), Transport::Tcp, options).unwrap()
    }

    /// A node's admin key.
    pub fn admin_key(&self, raida: u8) -> AdminKey {
        let text = std::fs::read_to_string(self.data(raida).join("admin.key")).unwrap();
        let key = u128::from_str_radix(text.trim(), 16).unwrap();
        AdminKey::new(key.to_be_bytes())
    }

    /// Runs `raida network WORDS` on it.
    pub fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raida"));
        command
            .arg("network")
            .args(words)
            .arg("--dir")
            .arg(self.dir());
        command.output().unwrap()
    }

    /// What it says of itself.
    pub fn status(&self) -> Value {
        let output = self.ask(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// What it says of a node.
    pub fn node(&self, raida: u8) -> Value {
        self.status()["nodes"][usize::from(raida)].clone()
    }

    /// A node's process number; `None` where it has none.
    pub fn pid(&self, raida: u8) -> Option<u32> {
        let pid = self.node(raida)["pid"].as_u64()?;
        Some(u32::try_from(pid).unwrap())
    }

    /// Sends a signal to the process that watches the nodes.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes two numbers and no memory; the child was not waited for, so its number
        // is nobody else's.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits for its end; returns how it ended, and how to start it again on the same folder.
    pub fn ended(mut self) -> (ExitStatus, Network) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.child.wait().unwrap();
        let empty = Network::empty(0);
        (status, std::mem::replace(&mut self.network, empty))
    }
}

impl Drop for NetworkProcess {
    fn drop(&mut self) {
        // It may have ended and been waited for already. Its nodes die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills a node's process as a power cut does. Its number comes from a status just before.
pub fn kill_node(pid: u32) {
    // SAFETY: kill takes two numbers and no memory; the process is a node of a network of this
    // test.
    assert_eq!(unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) }, 0);
}

/// Whether a process is there and not only waits for its parent to notice its end.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| {
        // The name, in brackets, may hold anything.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
        !matches!(state, Some(Some('Z' | 'X')))
    })
}

/// The first of 25 ports that are free, and not given to another network of this program; another
/// program's tests start at another one.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let blocks = (PORTS.end - PORTS.start) / NODES;
    // The process number times a prime, so that programs started one after the other are far apart.
    let first = (std::process::id() % u32::from(blocks) * 101 % u32::from(blocks)) as u16;
    for _ in 0..blocks {
        let block = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
        let base = PORTS.start + block * NODES;
        let is_free = |port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        };
        if (base..base + NODES).all(is_free) {
            return base;
        }
    }
    panic!("no 25 ports in a row are free in {PORTS:?}");
}
