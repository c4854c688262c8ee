use std::{
    io::{self, PipeReader, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
};

use rustix::{
    io::{ioctl_fionbio, ioctl_fionread},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal},
};

use super::{Program, said::Said};

/// What a program may write, in bytes. A program that writes more counts as faulty.
pub(super) const SAID_MAX: usize = 64 * 1024;

/// One run of the operator's program, in a process group of its own. Killed with its group when
/// dropped.
pub(super) struct Process {
    child: Child,
    /// Readable once the process has ended.
    handle: OwnedFd,
    /// What the program has not read of its question. This is a second reader beside the program's
    /// own, so the question can be looked at after the program has gone.
    input: PipeReader,
    /// What it writes, until that has an end.
    output: Option<PipeReader>,
    said: Said,
    is_reaped: bool,
}

impl Process {
    /// Starts the program; `line` is all that it can read.
    pub fn start(program: &Program, line: &[u8]) -> io::Result<Process> {
        let (input, mut question) = io::pipe()?;
        // An empty pipe holds at least a page, and a question is shorter: this never has to wait.
        ioctl_fionbio(&question, true)?;
        question.write_all(line)?;
        drop(question);
        let (output, says) = io::pipe()?;
        ioctl_fionbio(&output, true)?;
        // Nothing here may make the standard library fork (a closure to run before exec does):
        // forking copies the page tables of a node with all its pages, and then has every core
        // fault. As it is, it calls posix_spawn, which copies nothing.
        let child = Command::new(&program.path)
            .args(&program.arguments)
            // The node's own environment may hold secrets that the program does not need.
            .env_clear()
            .envs(program.environment.iter())
            .stdin(input.try_clone()?)
            .stdout(says.try_clone()?)
            .stderr(says)
            .process_group(0)
            .spawn()?;
        let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                // Nobody could watch the process. It has not been reaped, so its number is still
                // its own.
                kill_group(&child);
                let mut child = child;
                let _ = child.wait();
                return Err(error.into());
            }
        };
        Ok(Process {
            child,
            handle,
            input,
            output: Some(output),
            said: Said::default(),
            is_reaped: false,
        })
    }

    /// Becomes readable when the process has ended.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Becomes readable when it has written something; `None` once it writes no more.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Takes what it has written by now, up to a bound.
    pub fn listen(&mut self) {
        let mut bytes = [0; 4_096];
        while let Some(output) = &mut self.output
            && self.said.bytes() <= SAID_MAX
        {
            match output.read(&mut bytes) {
                Ok(0) => self.output = None,
                Ok(more) => self.said.push(&bytes[..more]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.output = None,
            }
        }
        // Full, or at its end: there is nothing to wait for any more.
        self.output = None;
    }

    /// What it wrote.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Whether it has read its question to the end.
    pub fn has_read_all(&self) -> bool {
        ioctl_fionread(&self.input).is_ok_and(|left| left == 0)
    }

    /// Ends it and its children at once, save those that left its group.
    pub fn kill(&self) {
        if !self.is_reaped {
            // It may have left its group itself. Fails only where it has ended.
            let _ = pidfd_send_signal(&self.handle, Signal::KILL);
            kill_group(&self.child);
        }
    }

    /// How it ended, once [`end`](Process::end) is readable. Its children end with it.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        // Kills before reaping: until then its number, which is its group's, cannot be another's.
        self.kill();
        self.listen();
        let status = self.child.wait()?;
        self.is_reaped = true;
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // Does not wait here: a process that hangs in the kernel ends when it can.
        let _ = self.child.try_wait();
    }
}

fn kill_group(child: &Child) {
    // Fails only where all of the group have ended.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}
