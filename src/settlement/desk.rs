use std::os::unix::fs::MetadataExt;
use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crate::shown::Shown;

use rustix::fs::{Access, access};

use super::{
    Answer, Method, NotSetUp, Purchase, Verdict, question::Question, queue::Queue, runner::Runner,
};

/// Where purchases are settled, from a node's start to its end. Dropping it kills the programs that
/// run; questions are then answered as pending.
pub struct Desk {
    settlement: Settlement,
    thread: Option<JoinHandle<()>>,
}

/// Asks whether purchases have been paid; from any thread, and any number of them.
#[derive(Clone)]
pub struct Settlement(Way);

#[derive(Clone)]
enum Way {
    None,
    Trusted,
    Command(Arc<Queue>),
}

/// Purchases cannot be settled as the operator wants.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program cannot be started.
    #[error(
        "trade.command {path}: {what}; name a program with its whole path, and make it executable (chmod +x) for the user that the node runs as", path = path.shown()
    )]
    Program {
        /// The program's file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no thread to watch programs.
    #[error("no thread to watch trade.command: {0}")]
    Thread(io::Error),
}

impl Desk {
    /// Starts to settle.
    ///
    /// # Errors
    /// Where the program is no file that can be executed, or there is no thread for it.
    pub fn start(method: &Method) -> Result<Desk, StartError> {
        let program = match method {
            Method::None => return Ok(Desk::without_thread(Way::None)),
            Method::Trusted => {
                tracing::warn!(
                    "trade.settlement = \"trusted\": every purchase counts as paid, so whoever asks gets the coins; for development only"
                );
                return Ok(Desk::without_thread(Way::Trusted));
            }
            Method::Command(program) => program,
        };
        let failed = |what: String| StartError::Program {
            path: program.path.clone(),
            what,
        };
        let file = program.path.metadata();
        let file = file.map_err(|error| failed(error.to_string()))?;
        if !file.is_file() {
            return Err(failed("it is no file".to_owned()));
        }
        let (mode, owner) = (file.mode() & 0o7777, file.uid());
        let is_strange = owner != 0 && owner != rustix::process::geteuid().as_raw();
        if mode & 0o022 != 0 || is_strange {
            tracing::warn!(
                path = %program.path.shown(), mode = format!("{mode:o}"), owner,
                "others can change trade.command, which decides who is given coins: chmod go-w, and chown it to root or the node's user"
            );
        }
        access(&program.path, Access::EXEC_OK).map_err(|error| failed(error.to_string()))?;
        let queue = Queue::new(program.at_most + program.waiting_max);
        let queue = Arc::new(queue.map_err(StartError::Thread)?);
        let runner = Runner::new(program.clone(), queue.clone());
        let thread = thread::Builder::new().name("settlement".to_owned());
        let thread = thread.spawn(move || runner.run());
        Ok(Desk {
            settlement: Settlement(Way::Command(queue)),
            thread: Some(thread.map_err(StartError::Thread)?),
        })
    }

    /// What a core asks with.
    pub fn settlement(&self) -> Settlement {
        self.settlement.clone()
    }

    fn without_thread(way: Way) -> Desk {
        Desk {
            settlement: Settlement(way),
            thread: None,
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.settlement.stop();
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Settlement {
    /// Whether an answer has to be waited for: then each question takes a process.
    pub fn takes_time(&self) -> bool {
        matches!(self.0, Way::Command(_))
    }

    /// Asks whether a purchase has been paid. Blocks nobody; the answer wakes the task that waits
    /// for it, within twice the program's time.
    pub fn ask(&self, purchase: Purchase) -> Answer {
        match &self.0 {
            Way::None => Answer::known(Err(NotSetUp)),
            Way::Trusted => Answer::known(Ok(Verdict::Paid)),
            Way::Command(queue) => {
                let question = Question::new(purchase);
                queue.put(question.clone());
                Answer::to(question)
            }
        }
    }

    /// Has programs that run be killed, and everything be pending from now on: a node that stops
    /// has no time for them, and a buyer can ask again. Waits for nothing.
    pub fn stop(&self) {
        if let Way::Command(queue) = &self.0 {
            queue.close();
        }
    }
}
