use std::io::{BufWriter, ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::CliError;
use crate::shown::plain;

/// What a command that could be carried out found: the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Exit status 0.
    Yes,
    /// Exit status 1: a coin fails, a check finds damage, a configuration is refused.
    No,
    /// Exit status 2: it could not be carried out, and the log says why.
    Failed,
}

/// Writes a message to standard error: something that a person has to know and no exit status
/// tells.
pub fn warn(text: &str) {
    eprintln!("raida: {}", plain(text));
}

/// Prints text to standard output.
///
/// # Errors
/// The output cannot be written. A reader that has seen enough and closed the pipe is no error.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out
        .write_all(plain(text).as_bytes())
        .and_then(|()| out.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a report as one line of JSON to standard output, as it is made.
///
/// # Errors
/// As [`print`].
pub fn print_json(report: &impl Serialize) -> Result<(), CliError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = match serde_json::to_writer(&mut out, report) {
        Ok(()) => out.write_all(b"\n").and_then(|()| out.flush()),
        Err(error) => Err(error.into()),
    };
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A progress bar on standard error; invisible unless standard output is a terminal.
pub fn progress(steps: u64, what: &'static str) -> ProgressBar {
    bar(
        steps,
        what,
        "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
    )
}

/// The same, where the steps are bytes.
pub fn progress_bytes(bytes: u64, what: &'static str) -> ProgressBar {
    bar(bytes, what, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
}

/// A line on standard error that says what the program waits for; invisible unless standard output
/// is a terminal.
pub fn waiting() -> ProgressBar {
    if !std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let line = ProgressBar::new_spinner();
    line.enable_steady_tick(std::time::Duration::from_millis(100));
    line
}

fn bar(steps: u64, what: &'static str, template: &'static str) -> ProgressBar {
    if !std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template)
        .expect("the templates are constants and well-formed");
    ProgressBar::new(steps).with_style(style).with_message(what)
}
