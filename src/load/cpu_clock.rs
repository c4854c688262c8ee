use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long threads have been on a CPU, by the scheduler's own count: the cost of a server, however
/// often other programs kept it from running.
#[derive(Clone, Debug)]
pub(super) enum CpuClock {
    /// All threads of a process, including the kernel's threads that work for it.
    Process(u32),
    /// Threads of this process.
    Threads(Vec<i32>),
}

impl CpuClock {
    /// The total time on a CPU since they started.
    ///
    /// # Errors
    /// There is no such process.
    pub(super) fn read(&self) -> io::Result<Duration> {
        let mut files: Vec<PathBuf> = Vec::new();
        match self {
            CpuClock::Process(pid) => {
                for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
                    files.push(thread?.path());
                }
            }
            CpuClock::Threads(threads) => {
                let path = |thread| PathBuf::from(format!("/proc/self/task/{thread}"));
                files.extend(threads.iter().map(path));
            }
        }
        let mut nanos = 0;
        for file in files {
            // A thread that has ended since is no longer counted.
            let text = fs::read_to_string(file.join("schedstat")).unwrap_or_default();
            let on_cpu = text.split(' ').next().and_then(|n| n.parse().ok());
            nanos += on_cpu.unwrap_or(0u64);
        }
        Ok(Duration::from_nanos(nanos))
    }
}
