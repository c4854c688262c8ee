use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::output::warn;
use crate::load::Stop;

/// Writes this message to standard error when Ctrl-C ends the program. Ctrl-C ends it as before.
///
/// # Errors
/// The system has no room for the handler.
pub fn tell(text: String) -> io::Result<Told> {
    let mut signals = Signals::new([SIGINT])?;
    let told = Told(Arc::new(Mutex::new(text)));
    let text = Arc::clone(&told.0);
    let listen = move || {
        for signal in signals.forever() {
            warn(&text.lock().unwrap_or_else(PoisonError::into_inner));
            let _ = emulate_default_handler(signal);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)?;
    Ok(told)
}

/// What Ctrl-C says.
pub struct Told(Arc<Mutex<String>>);

impl Told {
    /// Has Ctrl-C say this from now on.
    pub fn change(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
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
