use std::io;

use super::flight::Flight;

/// Carries requests to one address and brings the answers back.
pub(super) trait Carrier {
    /// Prepares for a turn: opens connections that do not exist, or were lost.
    ///
    /// # Errors
    /// Nobody listens there.
    fn ready(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Sends requests as the flight provides them and takes their answers, until its turn is over
    /// and every request was answered or given up.
    ///
    /// # Errors
    /// Nothing can be sent any more.
    fn run(&mut self, flight: &mut Flight) -> io::Result<()>;

    /// Number of times that a request had to wait because this machine had no port left to send it
    /// from.
    fn out_of_ports(&self) -> u64 {
        0
    }

    /// Number of answers that were dropped for lack of room before they were read, where that is
    /// known.
    fn dropped(&self) -> u64 {
        0
    }
}
