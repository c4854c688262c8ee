use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::coin::Coin;
use crate::load::cpu_clock::CpuClock;
use crate::load::resp::{Entry, answer_length, compose_set, compose_words};
use crate::shown::Shown;

/// Maximum time for its start, and for each answer of the preparations.
const PATIENCE: Duration = Duration::from_secs(20);
/// Number of coins put in with one write.
const PRELOAD_AT_ONCE: usize = 500;

/// A Redis server of its own, in a folder of its own, that ends with this value.
pub(in crate::load) struct Redis {
    address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

/// How often a Redis server writes changes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) enum Durability {
    /// Never: the load only reads.
    None,
    /// Before each answer, as a node does.
    Always,
}

impl Redis {
    /// Starts `redis-server` from PATH on these CPUs, with its files in `folder`, and inserts an
    /// entry for each coin.
    ///
    /// # Errors
    /// What is wrong and what to do, in words.
    pub(in crate::load) fn start(
        folder: &Path,
        cpus: &[usize],
        durability: Durability,
        coins: &[Coin],
    ) -> Result<Redis, String> {
        let folder = make_folder(folder)?;
        match Redis::spawn(&folder, cpus, durability) {
            Ok((child, address)) => {
                let mut redis = Redis {
                    address,
                    child,
                    folder,
                };
                redis.prepare(durability, coins)?;
                Ok(redis)
            }
            Err(error) => {
                // The folder is empty: nothing was started in it.
                let _ = std::fs::remove_dir(&folder);
                Err(error)
            }
        }
    }

    /// Its address.
    pub(in crate::load) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its cost.
    pub(in crate::load) fn cpu_clock(&self) -> CpuClock {
        CpuClock::Process(self.child.id())
    }

    fn spawn(
        folder: &Path,
        cpus: &[usize],
        durability: Durability,
    ) -> Result<(Child, SocketAddr), String> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let address = free.map_err(|error| format!("no port is free for redis-server: {error}"))?;
        let append = match durability {
            Durability::None => "no",
            Durability::Always => "yes",
        };
        let log = std::fs::File::create(folder.join("log"))
            .map_err(|error| format!("cannot write to {}: {error}", folder.shown()))?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &address.port().to_string()])
            .args(["--bind", "127.0.0.1"])
            .args(["--save", ""])
            .args(["--appendonly", append, "--appendfsync", "always"])
            .args(["--daemonize", "no"])
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(|error| error.to_string())?)
            .stdout(log);
        // SAFETY: between fork and exec only calls are allowed that take no locks and allocate
        // nothing; prctl(2) is a bare system call, with numbers for arguments.
        unsafe {
            command.pre_exec(|| {
                // So that it ends with this program, however that ends.
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let child = on_cpus(cpus, || command.spawn())?;
        match child {
            Ok(child) => Ok((child, address)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(
                "there is no redis-server on PATH: install it (Debian: apt install redis-server), or leave --baseline redis away"
                    .to_owned(),
            ),
            Err(error) => Err(format!("redis-server cannot be started: {error}")),
        }
    }

    /// Waits until the server answers, checks that it does what it is compared for, and fills it.
    fn prepare(&mut self, durability: Durability, coins: &[Coin]) -> Result<(), String> {
        let broken = |error: io::Error| format!("redis-server does not answer: {error}");
        let mut stream = self.connect()?;
        let append = match durability {
            Durability::None => "no",
            Durability::Always => "yes",
        };
        for (setting, value) in [
            ("save", ""),
            ("appendonly", append),
            ("appendfsync", "always"),
        ] {
            let mut request = vec![];
            compose_words(&["CONFIG", "GET", setting], &mut request);
            stream.write_all(&request).map_err(broken)?;
            let answer = read_answer(&mut stream).map_err(broken)?;
            let mut expected = vec![];
            compose_words(&[setting, value], &mut expected);
            if answer != expected {
                return Err(format!(
                    "redis-server does not take the setting {setting} = \"{value}\": {}",
                    String::from_utf8_lossy(&answer).escape_debug()
                ));
            }
        }
        for some in coins.chunks(PRELOAD_AT_ONCE) {
            let entries: Vec<Entry> = some.iter().map(|&coin| Entry::of(coin)).collect();
            let mut request = vec![];
            compose_set(entries.iter(), &mut request);
            stream.write_all(&request).map_err(broken)?;
            let answer = read_answer(&mut stream).map_err(broken)?;
            if answer != b"+OK\r\n" {
                let words = String::from_utf8_lossy(&answer).into_owned();
                return Err(format!(
                    "redis-server takes no entries: {}",
                    words.trim_end()
                ));
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<TcpStream, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = TcpStream::connect(self.address) {
                let set = stream.set_read_timeout(Some(PATIENCE));
                set.map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let last = log.lines().rfind(|line| !line.trim().is_empty());
                return Err(format!(
                    "redis-server does not start: {}",
                    last.unwrap_or("it says nothing")
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Its data is not needed, so it need not be stopped in order. A process that has ended is
        // waited for all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A new folder within `folder`, named after this process and a number.
fn make_folder(folder: &Path) -> Result<PathBuf, String> {
    for number in 0..1_000 {
        let name = format!("raida-bench-redis-{}-{number}", std::process::id());
        let path = folder.join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(format!(
                    "cannot make a folder for redis-server in {}: {error}",
                    folder.shown()
                ));
            }
        }
    }
    Err(format!("{} is full of old folders", folder.shown()))
}

/// Runs something whose child inherits this thread's CPUs; none means any.
fn on_cpus<T>(cpus: &[usize], spawn: impl FnOnce() -> T) -> Result<T, String> {
    if cpus.is_empty() {
        return Ok(spawn());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    let failed = |error| format!("redis-server cannot run on CPUs {cpus:?}: {error}");
    let before = sched_getaffinity(None).map_err(failed)?;
    sched_setaffinity(None, &set).map_err(failed)?;
    let spawned = spawn();
    sched_setaffinity(None, &before).map_err(failed)?;
    Ok(spawned)
}

fn read_answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = vec![];
    let mut more = [0; 4_096];
    loop {
        match stream.read(&mut more)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => answer.extend_from_slice(&more[..length]),
        }
        if answer_length(&answer) == Some(answer.len()) {
            return Ok(answer);
        }
    }
}
