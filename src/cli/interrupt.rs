use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::output::warn;
use crate::load::Stop;

/// Writes this message to standard error when Ctrl-C ends the program. Ctrl-C ends it as before.
///
/// # Errors
/// The system has no room for the handler.
pub fn tell(text: String) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT])?;
    let listen = move || {
        for signal in signals.forever() {
            warn(&text);
            let _ = emulate_default_handler(signal);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)
        .map(drop)
}

/// Lets Ctrl-C, and what else asks a program to end, end a run in order: `stop` hears of the first
/// signal, the second one ends the process at once. Each signal's meaning is written to standard
/// error.
///
/// # Errors
/// The system has no room for the handlers.
pub fn listen(stop: Stop, first: String, second: String) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let listen = move || {
        for signal in signals.forever() {
            if !stop.is_asked() {
                stop.ask();
                warn(&first);
                continue;
            }
            warn(&second);
            // As if nobody had listened; it does not come back.
            let _ = emulate_default_handler(signal);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)
        .map(drop)
}
