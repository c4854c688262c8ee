use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd,
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::shown::Shown;

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{
    Program, Verdict,
    process::{Process, SAID_MAX},
    question::Question,
    queue::Queue,
};

/// Time that killed processes have to end when the node ends. A process that hangs in the kernel is
/// left to the process that inherits it.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// Shortest time between two log lines that there is no room: a stranger can cause them.
const FULL_INTERVAL: Duration = Duration::from_secs(10);
/// Pause where the kernel has no memory for a wait.
const NO_POLL: Duration = Duration::from_millis(100);

/// The thread's own: starts programs in the order of questions and watches them. When dropped, all
/// that run are killed and all questions pending.
pub(super) struct Runner {
    program: Program,
    queue: Arc<Queue>,
    waiting: VecDeque<Arc<Question>>,
    runs: Vec<Run>,
    said_full: Option<Instant>,
    turned_away: u64,
}

struct Run {
    process: Process,
    /// `None` where the verdict was given before the process had ended: it was killed, and keeps
    /// its place until it is gone.
    question: Option<Arc<Question>>,
    due: Instant,
}

/// Why a program gave no verdict.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it cannot be started: {0}")]
    NotStarted(io::Error),
    #[error("it took longer than {} s and was killed", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the purchase waited {} s for other programs to end", .0.as_secs_f64())]
    NoTurn(Duration),
    #[error("it wrote more than {SAID_MAX} bytes and was killed")]
    SaidTooMuch,
    #[error("it ended ({0}) without reading the purchase to its end")]
    NotRead(ExitStatus),
    #[error("it ended with {0}; a verdict is exit status 0, 1, 2 or 4")]
    NoVerdict(ExitStatus),
    #[error("nobody knows how it ended: {0}")]
    NotReaped(io::Error),
}

impl Runner {
    pub fn new(program: Program, queue: Arc<Queue>) -> Runner {
        Runner {
            program,
            queue,
            waiting: VecDeque::new(),
            runs: Vec::new(),
            said_full: None,
            turned_away: 0,
        }
    }

    /// Runs programs until the queue is closed.
    pub fn run(mut self) {
        while !self.queue.is_closed() {
            self.take_in();
            self.start_next();
            self.wait();
            self.look();
        }
    }

    fn take_in(&mut self) {
        self.queue.silence();
        while let Some(question) = self.queue.take() {
            self.waiting.push_back(question);
        }
        self.turned_away += self.queue.turned_away();
        let is_due = |said: Instant| said.elapsed() >= FULL_INTERVAL;
        if self.turned_away > 0 && self.said_full.is_none_or(is_due) {
            self.said_full = Some(Instant::now());
            tracing::warn!(
                purchases = std::mem::take(&mut self.turned_away),
                "too many wait for trade.command: they count as pending; a faster program helps, or a larger trade.commands_at_once"
            );
        }
    }

    /// Starts programs as far as there is room, and gives up what has waited too long.
    fn start_next(&mut self) {
        let now = Instant::now();
        while let Some(question) = self.waiting.front() {
            let is_late = now >= question.asked + self.program.timeout;
            if question.is_wanted() && !is_late && self.runs.len() >= self.program.at_most {
                return;
            }
            let Some(question) = self.waiting.pop_front() else {
                return;
            };
            if !question.is_wanted() {
                self.queue.end(&question, Verdict::Pending);
            } else if is_late {
                let failure = Failure::NoTurn(self.program.timeout);
                self.fail(&question, &failure, String::new());
            } else {
                self.start(question);
            }
        }
    }

    fn start(&mut self, question: Arc<Question>) {
        match Process::start(&self.program, question.purchase.line().as_bytes()) {
            Ok(process) => self.runs.push(Run {
                process,
                question: Some(question),
                due: Instant::now() + self.program.timeout,
            }),
            Err(error) => self.fail(&question, &Failure::NotStarted(error), String::new()),
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let running = self.runs.iter().filter(|run| run.question.is_some());
        let first = self.waiting.front();
        let due = running.map(|run| run.due);
        let due = due.chain(first.map(|question| question.asked + self.program.timeout));
        let left = due
            .min()
            .map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| left.try_into().ok());
        let mut fds = vec![PollFd::from_borrowed_fd(self.queue.as_fd(), PollFlags::IN)];
        for Run { process, .. } in &self.runs {
            let both = [Some(process.end()), process.output()];
            let both = both.into_iter().flatten();
            fds.extend(both.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => thread::sleep(NO_POLL),
        }
    }

    /// Sees what has become of those that run.
    fn look(&mut self) {
        for mut run in std::mem::take(&mut self.runs) {
            run.process.listen();
            if has_ended(&run.process) {
                self.ended(run);
                continue;
            }
            let failure = if run.process.said().bytes() > SAID_MAX {
                Some(Failure::SaidTooMuch)
            } else if Instant::now() >= run.due {
                Some(Failure::TimedOut(self.program.timeout))
            } else {
                None
            };
            if let Some(failure) = failure
                && let Some(question) = run.question.take()
            {
                run.process.kill();
                self.fail(&question, &failure, run.process.said().text());
            }
            self.runs.push(run);
        }
    }

    fn ended(&self, mut run: Run) {
        let status = run.process.reap();
        let Some(question) = run.question else {
            return;
        };
        let said = run.process.said().text();
        let verdict = match status {
            Err(error) => Err(Failure::NotReaped(error)),
            Ok(_) if run.process.said().bytes() > SAID_MAX => Err(Failure::SaidTooMuch),
            Ok(status) => match status.code() {
                // A program that says yes to anything, as `true` does, must not give coins away.
                Some(0..=2 | 4) if !run.process.has_read_all() => Err(Failure::NotRead(status)),
                Some(0) => Ok(Verdict::Paid),
                Some(1) => Ok(Verdict::Pending),
                Some(2) => Ok(Verdict::Refused),
                Some(4) => Ok(Verdict::Seen),
                _ => Err(Failure::NoVerdict(status)),
            },
        };
        match verdict {
            Err(failure) => self.fail(&question, &failure, said),
            Ok(verdict) => {
                let took = question.asked.elapsed();
                if said.is_empty() {
                    tracing::debug!(purchase = ?question.purchase, ?verdict, ?took, "settled");
                } else {
                    tracing::info!(purchase = ?question.purchase, ?verdict, ?took, said, "settled");
                }
                self.queue.end(&question, verdict);
            }
        }
    }

    /// A purchase counts as pending for a reason that the operator can do something about.
    fn fail(&self, question: &Question, failure: &Failure, said: String) {
        tracing::warn!(
            program = %self.program.path.shown(), purchase = ?question.purchase, %failure, said,
            "trade.command gave no verdict: the purchase counts as pending"
        );
        self.queue.end(question, Verdict::Pending);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Where the thread panicked, nobody has closed the queue.
        self.queue.close();
        for run in &self.runs {
            run.process.kill();
        }
        let running = self.runs.iter().filter_map(|run| run.question.as_ref());
        for question in running.chain(&self.waiting) {
            self.queue.end(question, Verdict::Pending);
        }
        let deadline = Instant::now() + LAST_WAIT;
        for run in &mut self.runs {
            let left = deadline.saturating_duration_since(Instant::now());
            if ends_within(&run.process, left) {
                // Nobody asks any more how it ended.
                let _ = run.process.reap();
            }
        }
    }
}

fn has_ended(process: &Process) -> bool {
    ends_within(process, Duration::ZERO)
}

fn ends_within(process: &Process, time: Duration) -> bool {
    let time = time.try_into().ok();
    let mut end = [PollFd::from_borrowed_fd(process.end(), PollFlags::IN)];
    matches!(poll(&mut end, time.as_ref()), Ok(1))
}
