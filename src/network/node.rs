use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    Event, Next, NodeState, NodeStatus, Settings,
    folder::{node_config, node_folder},
    log::NodeLog,
    process::NodeProcess,
    readiness::{Readiness, Ready, Search},
};
use crate::protocol::RaidaId;

/// Time from its start until a node answers. Recovery of full logs takes less than 5 s alone; 25
/// nodes share a machine's cores and its disk.
const START_MAX: Duration = Duration::from_secs(120);
/// Time from SIGTERM until a node is gone: 5 s for requests and connections, and a checkpoint. A
/// node that takes longer is killed, and loses nothing that it answered.
const STOP_MAX: Duration = Duration::from_secs(15);
/// A node that served for this long before it ended has not failed "in a row".
const STEADY: Duration = Duration::from_secs(10);
/// Number of starts in a row that may end by themselves.
const ENDS_IN_A_ROW_MAX: u32 = 5;
/// Pause before the first new start; each further one in a row waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// One node: what it is doing, and what should become of it.
pub(super) struct Node {
    raida: RaidaId,
    program: PathBuf,
    config: PathBuf,
    log: NodeLog,
    host: SocketAddr,
    coin_id: u16,
    state: State,
    /// Somebody wants it to run.
    is_wanted: bool,
    /// Number of starts so far. It separates what was found out about one run from what is true of
    /// the next.
    runs: u64,
    ends_in_a_row: u32,
    restarts: u64,
    last_end: Option<String>,
}

enum State {
    Down,
    Starting {
        process: NodeProcess,
        _search: Search,
        /// `None` once its time was over and it was killed.
        until: Option<Instant>,
    },
    Ready {
        process: NodeProcess,
        since: Instant,
    },
    Stopping {
        process: NodeProcess,
        /// As above.
        until: Option<Instant>,
    },
    Pausing {
        until: Instant,
    },
    Failed,
}

/// How a process ended.
struct End {
    how: String,
    /// As it does when it is asked to stop.
    is_orderly: bool,
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> End {
        // A node that does not listen for signals yet dies of the first one, and has done nothing.
        let is_orderly = status.success() || status.signal() == Some(Signal::TERM.as_raw());
        End {
            how: status.to_string(),
            is_orderly,
        }
    }
}

impl Node {
    /// A node that is down.
    pub(super) fn new(settings: &Settings, folder: &Path, raida: RaidaId) -> Node {
        Node {
            raida,
            program: settings.program.clone(),
            config: node_config(folder, raida),
            log: NodeLog::of(&node_folder(folder, raida)),
            host: settings.host(raida),
            coin_id: settings.coin_id,
            state: State::Down,
            is_wanted: false,
            runs: 0,
            ends_in_a_row: 0,
            restarts: 0,
            last_end: None,
        }
    }

    pub(super) fn process(&self) -> Option<&NodeProcess> {
        match &self.state {
            State::Starting { process, .. }
            | State::Ready { process, .. }
            | State::Stopping { process, .. } => Some(process),
            State::Down | State::Pausing { .. } | State::Failed => None,
        }
    }

    /// Whether it stays as it is unless something happens.
    pub(super) fn is_settled(&self) -> bool {
        match self.state {
            State::Down | State::Ready { .. } | State::Failed => true,
            State::Starting { .. } | State::Stopping { .. } | State::Pausing { .. } => false,
        }
    }

    /// When it has to be checked again though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Starting { until, .. } | State::Stopping { until, .. } => until,
            State::Pausing { until } => Some(until),
            State::Down | State::Ready { .. } | State::Failed => None,
        }
    }

    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus {
            raida: self.raida.get(),
            host: self.host,
            pid: self.process().map(NodeProcess::id),
            state: match self.state {
                State::Down => NodeState::Down,
                State::Starting { .. } => NodeState::Starting,
                State::Ready { .. } => NodeState::Ready,
                State::Stopping { .. } => NodeState::Stopping,
                State::Pausing { .. } => NodeState::Pausing,
                State::Failed => NodeState::Failed,
            },
            restarts: self.restarts,
            last_end: self.last_end.clone(),
        }
    }

    /// Asks it to run. A node that was given up has all its tries again.
    pub(super) fn start(&mut self, now: Instant, readiness: &Readiness) -> Option<Event> {
        self.is_wanted = true;
        match self.state {
            State::Down | State::Failed | State::Pausing { .. } => {
                self.ends_in_a_row = 0;
                self.run(now, readiness)
            }
            // A node that stops is started when it has stopped.
            State::Starting { .. } | State::Ready { .. } | State::Stopping { .. } => None,
        }
    }

    /// Asks it to stop.
    pub(super) fn stop(&mut self, now: Instant) {
        self.is_wanted = false;
        self.state = match std::mem::replace(&mut self.state, State::Down) {
            State::Starting { process, .. } | State::Ready { process, .. } => {
                process.stop();
                State::Stopping {
                    process,
                    until: Some(now + STOP_MAX),
                }
            }
            stopping @ State::Stopping { .. } => stopping,
            State::Down | State::Pausing { .. } | State::Failed => State::Down,
        };
    }

    /// Nobody waits for it any more.
    pub(super) fn kill(&self) {
        if let Some(process) = self.process() {
            process.kill();
        }
    }

    /// Handles that it answered echo.
    pub(super) fn found_ready(&mut self, ready: Ready, now: Instant) -> Option<Event> {
        assert_eq!(ready.raida, self.raida, "found out about this node");
        if ready.run != self.runs {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Down) {
            State::Starting { process, .. } => {
                self.state = State::Ready {
                    process,
                    since: now,
                };
                Some(Event::Ready(self.raida))
            }
            // It was asked to stop meanwhile, or has ended.
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Does what its process's end and the time require.
    pub(super) fn look(&mut self, now: Instant, readiness: &Readiness) -> Option<Event> {
        if let Some(ended) = self.ended() {
            return self.has_ended(ended, now, readiness);
        }
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        match &mut self.state {
            State::Pausing { .. } => {
                self.restarts += 1;
                self.run(now, readiness)
            }
            State::Starting { process, until, .. } | State::Stopping { process, until } => {
                process.kill();
                *until = None;
                None
            }
            State::Down | State::Ready { .. } | State::Failed => None,
        }
    }

    /// Starts the node's log again where it has grown too long.
    pub(super) fn keep_log_in_bounds(&self) -> Option<Event> {
        let error = self.log.keep_in_bounds().err()?;
        Some(Event::LogGrows(
            self.log.path().to_owned(),
            error.to_string(),
        ))
    }

    fn ended(&mut self) -> Option<End> {
        let process = match &mut self.state {
            State::Starting { process, .. }
            | State::Ready { process, .. }
            | State::Stopping { process, .. } => process,
            State::Down | State::Pausing { .. } | State::Failed => return None,
        };
        match process.ended() {
            Ok(ended) => ended.map(End::from),
            Err(error) => Some(End {
                how: format!("it cannot be waited for: {error}"),
                is_orderly: false,
            }),
        }
    }

    fn has_ended(&mut self, end: End, now: Instant, readiness: &Readiness) -> Option<Event> {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Stopping { until, .. } => {
                if self.is_wanted {
                    self.ends_in_a_row = 0;
                    // What it says is no news: a caller that wants it waits until the node serves.
                    return self.run(now, readiness);
                }
                let how = match until {
                    Some(_) => end.how,
                    None => format!("it was killed after {} s", STOP_MAX.as_secs()),
                };
                let raida = self.raida;
                if end.is_orderly {
                    return Some(Event::Stopped(raida));
                }
                self.last_end = Some(how.clone());
                Some(Event::CutOff { raida, how })
            }
            State::Starting { until: None, .. } => {
                let how = format!("it did not answer for {} s", START_MAX.as_secs());
                Some(self.failed(how, now))
            }
            State::Ready { since, .. } if now.saturating_duration_since(since) >= STEADY => {
                self.ends_in_a_row = 0;
                Some(self.failed(end.how, now))
            }
            _ => Some(self.failed(end.how, now)),
        }
    }

    /// Starts a process.
    fn run(&mut self, now: Instant, readiness: &Readiness) -> Option<Event> {
        self.runs += 1;
        let ready = Ready {
            raida: self.raida,
            run: self.runs,
        };
        let log = self.log.begin();
        let process = log.and_then(|log| NodeProcess::start(&self.program, &self.config, log));
        let search = readiness.search(ready, self.host, self.coin_id);
        match process.and_then(|process| Ok((process, search?))) {
            Ok((process, search)) => {
                self.state = State::Starting {
                    process,
                    _search: search,
                    until: Some(now + START_MAX),
                };
                None
            }
            Err(error) => Some(self.failed(format!("it cannot be started: {error}"), now)),
        }
    }

    /// Handles that it ended by itself: decides what happens next.
    fn failed(&mut self, how: String, now: Instant) -> Event {
        self.ends_in_a_row += 1;
        self.last_end = Some(how.clone());
        let next = next(self.ends_in_a_row);
        self.state = match next {
            Next::Again(pause) => State::Pausing { until: now + pause },
            Next::GivenUp(_) => State::Failed,
        };
        Event::Ended {
            raida: self.raida,
            how,
            log: self.log.path().to_owned(),
            last_lines: self.log.last_lines(),
            next,
        }
    }
}

/// What happens to a node that has ended by itself `ends_in_a_row` times in a row.
fn next(ends_in_a_row: u32) -> Next {
    match ends_in_a_row < ENDS_IN_A_ROW_MAX {
        true => Next::Again(FIRST_PAUSE * 2u32.pow(ends_in_a_row.saturating_sub(1))),
        false => Next::GivenUp(ends_in_a_row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_node_is_given_up() {
        let pauses: Vec<Next> = (1..=ENDS_IN_A_ROW_MAX).map(next).collect();
        let again = |ms| Next::Again(Duration::from_millis(ms));
        assert_eq!(
            pauses,
            [
                again(200),
                again(400),
                again(800),
                again(1_600),
                Next::GivenUp(5)
            ]
        );
    }
}
