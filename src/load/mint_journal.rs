use std::collections::HashSet;
use std::path::Path;

use super::{PurseError, Stop};
use crate::client::{CoinListError, CoinListWriter, Existing};
use crate::coin::{Coin, Mfs};

/// The coins that a run makes, in a file of their own until they are out of circulation again: a
/// person who finds it after the program was killed knows what to delete.
pub struct MintJournal {
    file: CoinListWriter,
    coins: Vec<Coin>,
    stop: Stop,
}

impl MintJournal {
    /// Makes the file beside `file`, with the process's number in its name.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(file: &Path, stop: Stop) -> Result<MintJournal, CoinListError> {
        Ok(MintJournal {
            file: CoinListWriter::create(file, Existing::Keep)?,
            coins: vec![],
            stop,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.file.so_far()
    }

    /// The coins that may be in circulation.
    pub fn coins(&self) -> &[Coin] {
        &self.coins
    }

    /// Writes down coins that a node is about to be asked to make, and waits until that is on disk.
    ///
    /// # Errors
    /// The disk is full or fails, or the run should end: do not ask for them.
    pub fn ask(&mut self, coins: &[Coin]) -> Result<(), PurseError> {
        if self.stop.is_asked() {
            return Err(PurseError::Stopped);
        }
        self.file.write_unknown(coins, Mfs::new(1))?;
        self.coins.extend_from_slice(coins);
        Ok(())
    }

    /// These are out of circulation again. Another program that has made coins of these serial
    /// numbers since keeps them.
    pub fn gone(&mut self, coins: &[Coin]) {
        let gone: HashSet<Coin> = coins.iter().copied().collect();
        self.coins.retain(|coin| !gone.contains(coin));
    }

    /// None of the coins is in circulation: removes the file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn discard(self) -> Result<(), CoinListError> {
        self.file.discard()
    }
}
