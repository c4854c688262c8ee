use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
        set_parent_process_death_signal,
    },
};

/// A node's process. Killed when dropped, and killed by the kernel when the thread that started it
/// ends.
pub(super) struct NodeProcess {
    child: Child,
    /// Readable once the process has ended. It keeps referring to this process.
    handle: OwnedFd,
}

impl NodeProcess {
    /// Starts `program serve --config config`; its output goes to `log`. Call it from a thread that
    /// lives as long as the node should.
    pub(super) fn start(program: &Path, config: &Path, log: File) -> io::Result<NodeProcess> {
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A process group of its own: Ctrl-C is for the supervisor, which then stops the nodes
            // in order. A node that got both signals would take the second for "at once".
            .process_group(0);
        // The environment's settings for nodes stand in their configurations already. In the
        // environment they would override each node's own settings.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        let parent = getpid();
        // SAFETY: between fork and exec of a process with threads only what is safe in a signal
        // handler may run: this makes system calls and neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || die_with(parent)) };
        let mut child = command.spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => Ok(NodeProcess { child, handle }),
            Err(error) => {
                // Nobody could watch the process. It was not waited for, so both calls can only
                // succeed.
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop in order.
    pub(super) fn stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it at once. What it answered is on disk.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn signal(&self, signal: Signal) {
        // Fails only where the process has ended; the next check finds that.
        let _ = pidfd_send_signal(&self.handle, signal);
    }
}

impl AsFd for NodeProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // The process may have ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_setting(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"RAIDA__")
}

/// Has the kernel kill this process when its parent dies, so that nothing is left of a network
/// whose supervisor was killed. The signal is SIGKILL: a node loses nothing by it, and a hanging
/// node would outlive any other signal.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before that was set.
    match getppid() == Some(parent) {
        true => Ok(()),
        false => Err(Errno::SRCH.into()),
    }
}
