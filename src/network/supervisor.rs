use std::{
    io::{self, Read},
    net::SocketAddr,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::getpid,
    thread::gettid,
};

use super::{
    Event, NetworkError, NetworkStatus, Request, Settings,
    control::{Control, For, Outcome},
    folder::{Folder, at, control_socket},
    node::Node,
    preflight,
    readiness::Readiness,
    request::Raida,
};
use crate::protocol::RaidaId;

/// How often growing logs are checked.
const LOG_LOOK: Duration = Duration::from_secs(60);

/// Runs the nodes of one network. It sleeps until a node ends or answers, a client asks or a time
/// is over. Then it checks everything, which for 25 nodes takes microseconds.
pub struct Supervisor<'a> {
    folder: Folder,
    down: Vec<RaidaId>,
    nodes: Vec<Node>,
    readiness: Readiness,
    control: Control,
    signals: UnixStream,
    news: News<'a>,
    stage: Stage,
    logs_due: Instant,
}

/// What the caller that runs the network hears, and what of it counts at the end.
struct News<'a> {
    tell: &'a mut dyn FnMut(Event),
    cut_off: Vec<RaidaId>,
}

/// What a network is doing as a whole.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Nobody was told yet that it is up.
    Starting,
    Up,
    Stopping,
    /// Asked to stop a second time, without waiting.
    Killing,
}

/// How a network ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Nodes that did not stop in order.
    pub cut_off: Vec<RaidaId>,
}

impl<'a> Supervisor<'a> {
    /// Takes the folder and writes into it, and checks that nodes can start; starts none.
    ///
    /// Each byte that comes from `signals` asks for a stop, the second one for a stop at once.
    ///
    /// # Errors
    /// Where anything that the nodes need is not available.
    pub fn new(
        settings: &Settings,
        signals: UnixStream,
        tell: &'a mut dyn FnMut(Event),
    ) -> Result<Supervisor<'a>, NetworkError> {
        preflight::allow_descriptors()?;
        let is_up = |raida: &RaidaId| !settings.down.contains(raida);
        // The port of a node that is left out may be in use, by the program that plays its part.
        let listens: Vec<SocketAddr> = RaidaId::all()
            .filter(is_up)
            .map(|raida| settings.listens(raida))
            .collect();
        // A folder may be in use, which says more than the ports of its user. A folder that was not
        // there before is not left behind by a failed start.
        let is_new = !settings.folder.exists();
        let folder = Folder::open(&settings.folder)?;
        if let Err(error) = preflight::ports_are_free(&listens) {
            if is_new {
                folder.remove();
            }
            return Err(error);
        }
        folder.write(settings)?;
        let socket = control_socket(folder.path());
        let control = Control::open(folder.path()).map_err(|error| at(&socket, error))?;
        signals.set_nonblocking(true)?;
        Ok(Supervisor {
            nodes: RaidaId::all()
                .map(|raida| Node::new(settings, folder.path(), raida))
                .collect(),
            folder,
            down: settings.down.clone(),
            readiness: Readiness::new()?,
            control,
            signals,
            news: News {
                tell,
                cut_off: Vec::new(),
            },
            stage: Stage::Starting,
            logs_due: Instant::now() + LOG_LOOK,
        })
    }

    /// Starts the nodes and watches them until it is asked to stop and they have stopped.
    ///
    /// # Errors
    /// Where not one node comes to serve, or nodes cannot be watched any more. All are stopped
    /// then.
    ///
    /// # Panics
    /// When it is not called from the process's main thread: the kernel kills nodes when the thread
    /// that started them ends.
    pub fn run(mut self) -> Result<Ended, NetworkError> {
        assert_eq!(gettid(), getpid(), "nodes live as long as the main thread");
        let now = Instant::now();
        for raida in RaidaId::all().filter(|raida| !self.down.contains(raida)) {
            let event = self.nodes[index(raida)].start(now, &self.readiness);
            self.news.extend(event);
        }
        let mut serves_nothing = false;
        loop {
            let now = Instant::now();
            self.look_at_signals(now);
            self.look_at_nodes(now);
            self.look_at_clients(now);
            if self.stage == Stage::Starting && self.nodes.iter().all(Node::is_settled) {
                self.stage = Stage::Up;
                let status = status(&self.folder, &self.nodes);
                if status.ready() == 0 && status.failed() > 0 {
                    serves_nothing = true;
                    self.stop(now);
                } else {
                    self.news.tell(Event::Up(status));
                }
            }
            self.answer_clients();
            if is_stopping(self.stage) && self.nodes.iter().all(|node| node.process().is_none()) {
                break;
            }
            self.wait()?;
        }
        let path = self.folder.path().to_owned();
        let clients = self.control.close();
        drop(self.folder);
        // The client that asked for the end can start the next network now.
        drop(clients);
        match serves_nothing {
            true => Err(NetworkError::NothingServes(path)),
            false => Ok(Ended {
                cut_off: self.news.cut_off,
            }),
        }
    }

    /// Sleeps until something happens.
    fn wait(&self) -> io::Result<()> {
        let nodes = self.nodes.iter();
        let processes = nodes.filter_map(|node| Some(node.process()?.as_fd()));
        let mut fds: Vec<PollFd<'_>> = [self.signals.as_fd(), self.readiness.as_fd()]
            .into_iter()
            .chain(processes)
            .chain(self.control.fds())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let due = self.nodes.iter().filter_map(Node::due);
        let due = due.chain(self.control.due()).chain([self.logs_due]).min();
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| left.try_into().ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn look_at_signals(&mut self, now: Instant) {
        let mut bytes = [0; 16];
        // Fails where there is none; the other end is never closed before the process ends.
        let signals = self.signals.read(&mut bytes).unwrap_or(0);
        for _ in 0..signals {
            self.stop(now);
        }
    }

    fn look_at_nodes(&mut self, now: Instant) {
        for ready in self.readiness.found() {
            let event = self.nodes[index(ready.raida)].found_ready(ready, now);
            self.news.extend(event);
        }
        for node in &mut self.nodes {
            let event = node.look(now, &self.readiness);
            self.news.extend(event);
        }
        if now >= self.logs_due {
            self.logs_due = now + LOG_LOOK;
            for node in &self.nodes {
                self.news.extend(node.keep_log_in_bounds());
            }
        }
    }

    fn look_at_clients(&mut self, now: Instant) {
        // Moved out meanwhile: requests change everything else.
        let mut requests = Vec::new();
        self.control.look(now, |request| {
            let outcome = match &request {
                Request::Status => Outcome::Answer(status(&self.folder, &self.nodes)),
                Request::Start { .. } if is_stopping(self.stage) => {
                    Outcome::Refuse("all nodes are being stopped".to_owned())
                }
                Request::Start { raidas } | Request::Stop { raidas } => Outcome::Wait(For::Nodes(
                    raidas.iter().map(|&Raida(raida)| raida).collect(),
                )),
                Request::Down => Outcome::Wait(For::End),
            };
            requests.push(request);
            outcome
        });
        for request in requests {
            self.carry_out(&request, now);
        }
    }

    fn carry_out(&mut self, request: &Request, now: Instant) {
        match request {
            Request::Start { raidas } if !is_stopping(self.stage) => {
                for &Raida(raida) in raidas {
                    let event = self.nodes[index(raida)].start(now, &self.readiness);
                    self.news.extend(event);
                }
            }
            Request::Stop { raidas } => {
                for &Raida(raida) in raidas {
                    self.nodes[index(raida)].stop(now);
                }
            }
            Request::Down if !is_stopping(self.stage) => self.stop(now),
            Request::Start { .. } | Request::Down | Request::Status => {}
        }
    }

    fn answer_clients(&mut self) {
        let (folder, nodes) = (&self.folder, &self.nodes);
        let is_over = |what: &For| match what {
            For::Nodes(raidas) => raidas.iter().all(|&raida| nodes[index(raida)].is_settled()),
            For::End => nodes.iter().all(|node| node.process().is_none()),
        };
        self.control.answer(is_over, || status(folder, nodes));
    }

    /// Stops all nodes; the second time at once.
    fn stop(&mut self, now: Instant) {
        if is_stopping(self.stage) {
            self.stage = Stage::Killing;
            self.nodes.iter().for_each(Node::kill);
            return;
        }
        self.stage = Stage::Stopping;
        // The client that asked for the stop knows about the nodes stopped before.
        self.news.cut_off.clear();
        self.news.tell(Event::Stopping);
        for node in &mut self.nodes {
            node.stop(now);
        }
    }
}

fn status(folder: &Folder, nodes: &[Node]) -> NetworkStatus {
    NetworkStatus {
        folder: folder.path().to_owned(),
        pid: std::process::id(),
        nodes: nodes.iter().map(Node::status).collect(),
    }
}

fn is_stopping(stage: Stage) -> bool {
    matches!(stage, Stage::Stopping | Stage::Killing)
}

fn index(raida: RaidaId) -> usize {
    raida.get().into()
}

impl News<'_> {
    fn tell(&mut self, event: Event) {
        if let Event::CutOff { raida, .. } = event {
            self.cut_off.push(raida);
        }
        (self.tell)(event);
    }

    fn extend(&mut self, events: Option<Event>) {
        events.into_iter().for_each(|event| self.tell(event));
    }
}
