//! The real program as a process of its own: started, asked, killed for real.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod changes;
#[allow(
    clippy::duplicate_mod,
    reason = "a test may start nodes and networks, which both need it"
)]
#[path = "../moved_clock/mod.rs"]
pub mod moved_clock;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moved_clock::MovedClock;
use raida::client::{Client, Options, Transport};
use raida::coin::{An, Coin, Denomination};
use raida::protocol::executive::SessionId;
use raida::protocol::{AdminKey, RaidaId};

/// Far beyond what anything here takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The last line of what a node prints when it has started.
const GREETING_ENDS: &str = "raida detect";

/// A running `raida serve`. Killed when dropped.
pub struct NodeProcess {
    child: Child,
    /// Where it listens, TCP and UDP.
    pub address: SocketAddr,
    /// What it printed when it had started.
    pub greeting: String,
    /// What the test moves its clock by, if it does.
    pub clock: Option<Arc<MovedClock>>,
    later: Mutex<Receiver<String>>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended, and what it had to say.
#[derive(Debug)]
pub struct Ending {
    pub status: ExitStatus,
    /// Standard output after the greeting.
    pub out: String,
    /// Standard error, all of it.
    pub log: String,
}

/// How to start a node: `raida serve` on a free port of 127.0.0.1, and these flags.
#[derive(Clone, Debug)]
pub struct Serve {
    data: PathBuf,
    flags: Vec<String>,
    descriptors: Option<(u64, u64)>,
    clock: Option<Arc<MovedClock>>,
}

impl Serve {
    pub fn on(data: &Path) -> Serve {
        Serve {
            data: data.to_owned(),
            flags: Vec::new(),
            descriptors: None,
            clock: None,
        }
    }

    /// Has the node follow a clock that the test moves.
    pub fn by(mut self, clock: Arc<MovedClock>) -> Serve {
        self.clock = Some(clock);
        self
    }

    /// Sets a key of the configuration.
    pub fn with(mut self, key: &str, value: impl ToString) -> Serve {
        self.flags.push("--set".to_owned());
        self.flags.push(format!("{key}={}", value.to_string()));
        self
    }

    /// Gives a flag more.
    pub fn flag(mut self, flag: &str) -> Serve {
        self.flags.push(flag.to_owned());
        self
    }

    /// Uses a configuration file.
    pub fn config(mut self, file: &Path) -> Serve {
        self.flags.push("--config".to_owned());
        self.flags.push(file.display().to_string());
        self
    }

    /// Limits the process's file descriptors: the soft limit, and the hard limit up to which it may
    /// raise it.
    pub fn with_descriptors(mut self, soft: u64, hard: u64) -> Serve {
        self.descriptors = Some((soft, hard));
        self
    }

    /// Starts the process and does not wait for it to serve.
    pub fn spawn(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raida"));
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&self.data)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some((soft, hard)) = self.descriptors {
            let limit = libc::rlimit {
                rlim_cur: soft,
                rlim_max: hard,
            };
            // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe,
            // reads the structure that the closure owns and allocates nothing.
            unsafe {
                command.pre_exec(move || {
                    match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        }
        command.spawn().unwrap()
    }

    /// Starts a node and waits until it serves.
    pub fn start(&self) -> NodeProcess {
        self.try_start()
            .unwrap_or_else(|ending| panic!("the node does not start: {ending:?}"))
    }

    /// Starts a node; gives how it ended where it did not come to serve.
    pub fn try_start(&self) -> Result<NodeProcess, Ending> {
        let mut child = self.spawn();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, later) = channel();
        let out = child.stdout.take().unwrap();
        let error = child.stderr.take().unwrap();
        let sink = Arc::clone(&log);
        let readers = vec![
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = lines.send(line);
                }
            }),
            std::thread::spawn(move || {
                for line in BufReader::new(error).lines().map_while(Result::ok) {
                    let mut log = sink.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }),
        ];
        let mut node = NodeProcess {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            greeting: String::new(),
            clock: self.clock.clone(),
            later: Mutex::new(later),
            log,
            readers,
        };
        let deadline = Instant::now() + PATIENCE;
        while !node.greeting.contains(GREETING_ENDS) {
            let left = deadline.saturating_duration_since(Instant::now());
            match node.later.get_mut().unwrap().recv_timeout(left) {
                Ok(line) => node.greeting.extend([line.as_str(), "\n"]),
                Err(RecvTimeoutError::Disconnected) => {
                    let mut ending = node.ended();
                    ending.out.insert_str(0, &node.greeting);
                    return Err(ending);
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the node neither serves nor ends: {}", node.log())
                }
            }
        }
        let address = node.greeting.split("listening on ").nth(1);
        let address = address.and_then(|rest| rest.split(' ').next());
        node.address = address.and_then(|text| text.parse().ok()).unwrap();
        Ok(node)
    }
}

impl NodeProcess {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The value of a line of the greeting; empty where it has no such line.
    pub fn greeted(&self, name: &str) -> &str {
        let lines = self.greeting.lines().map(str::trim_start);
        let mut values = lines.filter_map(|line| line.strip_prefix(name));
        values.next().map_or("", str::trim)
    }

    /// The first number in a line of the greeting; 0 where it has no such line.
    pub fn greeted_number(&self, name: &str) -> u64 {
        let value = self.greeted(name);
        let word = value.split(' ').next().unwrap_or_default();
        word.parse().unwrap_or(0)
    }

    /// Everything that it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until standard error holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let process = self.child.id() as libc::pid_t;
        // SAFETY: kill takes two numbers and no memory; the child was not waited for, so its number
        // is nobody else's.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// Kills it as a power cut does: it gets no chance to do anything.
    pub fn kill(mut self) -> Ending {
        self.child.kill().unwrap();
        self.ended()
    }

    /// Has it stop in order, and waits for that.
    pub fn stop(mut self) -> Ending {
        self.signal(libc::SIGTERM);
        self.ended()
    }

    /// Waits for it to end.
    pub fn wait(mut self) -> Ending {
        self.ended()
    }

    /// A client of it, over TCP.
    pub fn client(&self) -> Client {
        Client::connect(self.host(), Transport::Tcp, options()).unwrap()
    }

    /// Its address as the client library takes it.
    pub fn host(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.address.port())
    }

    fn ended(&mut self) -> Ending {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ending {
            status,
            out: self
                .later
                .get_mut()
                .unwrap()
                .try_iter()
                .collect::<Vec<_>>()
                .join("\n"),
            log: self.log(),
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ending {
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(libc::SIGKILL)
    }
}

/// Kills a process that was only [spawned](Serve::spawn). Gives whether it served already, and its
/// standard error.
pub fn kill_spawned(mut child: Child) -> (bool, String) {
    child.kill().unwrap();
    let ended = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let served = text(ended.stdout).contains(GREETING_ENDS);
    (served, text(ended.stderr))
}

/// Runs another command of the program to its end.
pub fn raida(words: &[&OsStr]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_raida"))
        .args(words)
        .output()
        .unwrap()
}

/// How nodes started here are asked.
pub fn options() -> Options {
    let mut options = Options::new(RaidaId::new(0).unwrap());
    options.timeout = PATIENCE;
    options
}

/// The admin key that a first start made.
pub fn admin_key(data: &Path) -> AdminKey {
    let text = std::fs::read_to_string(data.join("admin.key")).unwrap();
    let key = u128::from_str_radix(text.trim(), 16).unwrap();
    AdminKey::new(key.to_be_bytes())
}

/// Puts coins into circulation, evenly over `pages` pages of each of these denominations. A session
/// is shown one page of a denomination, so each page takes a session of its own.
pub fn mint(
    client: &mut Client,
    key: &AdminKey,
    denominations: &[i8],
    pages: u32,
    coins_a_page: usize,
) -> Vec<(Coin, An)> {
    let denominations: Vec<Denomination> = denominations
        .iter()
        .map(|&exponent| Denomination::new(exponent).unwrap())
        .collect();
    let mut made = Vec::new();
    for session in 1..=pages {
        let session = SessionId::new(session);
        let free = client.available_sns(session, key, &denominations).unwrap();
        let mut coins: Vec<Coin> = Vec::new();
        for &denomination in &denominations {
            let mut of_it = free.iter().filter(|coin| coin.denomination == denomination);
            let first = *of_it.next().expect("a new node has free numbers");
            coins.push(first);
            let same_page = of_it.filter(|coin| coin.page() == first.page());
            coins.extend(same_page.step_by(7).take(coins_a_page - 1));
        }
        let ans = client.create_coins(session, key, &coins).unwrap();
        made.extend(coins.into_iter().zip(ans));
    }
    made
}
