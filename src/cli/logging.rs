use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::CliError;
use super::config::{Log, LogFormat, LogLevel};

/// The process's log, whose levels can change while it runs.
#[derive(Clone, Debug)]
pub struct Logging {
    levels: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Sends everything the process logs to standard error from now on.
    ///
    /// # Errors
    /// The process has a log already.
    pub fn start(log: &Log) -> Result<Logging, CliError> {
        let (subscriber, logging) = build(log, std::io::stderr, std::io::stderr().is_terminal());
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|error| CliError::Logging(error.to_string()))?;
        Ok(logging)
    }

    /// From now on, writes messages that are at least as important as the levels of `log`.
    pub fn set_levels(&self, log: &Log) {
        // The only failure is a subscriber that is gone, and then nothing is logged any more.
        let _ = self.levels.reload(levels(log));
    }
}

fn build<W>(log: &Log, writer: W, colours: bool) -> (impl Subscriber + Send + Sync, Logging)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(levels(log));
    let lines = match log.format {
        LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(colours).boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    (subscriber, Logging { levels: handle })
}

fn levels(log: &Log) -> Targets {
    Targets::new()
        .with_default(level(log.level))
        .with_target("raida::healing", level(log.healing))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat) -> Log {
        Log {
            level: LogLevel::Info,
            healing: LogLevel::Info,
            format,
        }
    }

    #[test]
    fn the_level_changes_while_the_process_runs() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, logging) = build(&log(LogFormat::Text), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("unseen");
            assert_eq!(lines.take(), "");
            let set = |level, healing| {
                logging.set_levels(&Log {
                    level,
                    healing,
                    format: LogFormat::Text,
                });
            };
            set(LogLevel::Debug, LogLevel::Info);
            tracing::debug!("seen");
            assert!(lines.take().contains("seen"));
            tracing::debug!(target: "raida::healing", "unseen");
            assert_eq!(lines.take(), "");
            set(LogLevel::Off, LogLevel::Debug);
            tracing::error!("unseen");
            assert_eq!(lines.take(), "");
            tracing::debug!(target: "raida::healing", "seen");
            assert!(lines.take().contains("seen"));
        });
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _logging) = build(&log(LogFormat::Json), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(shards = 2, "ready");
            tracing::warn!("and\nlistening");
        });
        let lines = lines.take();
        let objects: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["message"], "ready");
        assert_eq!(objects[0]["shards"], 2);
    }
}
