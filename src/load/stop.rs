use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a run should end early: it then sends nothing more, waits for requests under way, and
/// leaves coins as at a normal end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for the end.
    pub fn ask(&self) {
        // No other memory is read because of it.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has asked for it.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
