use std::path::Path;
use std::time::SystemTime;

use super::CliError;
use crate::client::{ClientError, CoinListWriter, CoinRecord, Existing, Outcome};
use crate::coin::Mfs;
use crate::shown::Shown;

/// A CSV of the numbers that coins are about to get: written before a node is sent any of them, so
/// that none is ever lost, and left with those that are, or may be, in force.
pub struct NewNumbers<'a> {
    out: &'a Path,
    coins: Vec<CoinRecord>,
}

impl<'a> NewNumbers<'a> {
    /// Writes the file, which must not exist yet.
    ///
    /// # Errors
    /// It exists, or cannot be written.
    pub fn write(out: &'a Path, coins: Vec<CoinRecord>) -> Result<NewNumbers<'a>, CliError> {
        write(out, Existing::Keep, coins.iter().copied())?;
        Ok(NewNumbers { out, coins })
    }

    /// Leaves in the file the coins whose new number is, or may be, in force, by what became of
    /// each; `error` is what ended the sending. What the file held before is safe, so a failure
    /// here loses nothing, but the caller must report it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(self, outcomes: &[Outcome], error: Option<&ClientError>) -> Result<(), CliError> {
        let kept: Vec<CoinRecord> = (self.coins.iter().zip(outcomes))
            .filter_map(|(record, outcome)| match outcome {
                Outcome::Changed => Some(CoinRecord {
                    mfs: Some(this_month()),
                    ..*record
                }),
                Outcome::Unknown => Some(*record),
                Outcome::Failed | Outcome::NotAsked => None,
            })
            .collect();
        let rewritten = if kept.is_empty() {
            std::fs::remove_file(self.out).map_err(|cause| cause.to_string())
        } else {
            write(self.out, Existing::Replace, kept.into_iter()).map_err(|error| error.to_string())
        };
        rewritten.map_err(|cause| {
            let before = error.map_or(String::new(), |error| format!("{error}; then "));
            CliError::Unfinished(format!(
                "{before}{cause}; {} still holds the new number of every coin: find out with `raida detect` which are in force",
                self.out.shown()
            ))
        })
    }
}

fn write(
    out: &Path,
    existing: Existing,
    coins: impl Iterator<Item = CoinRecord>,
) -> Result<(), CliError> {
    let mut writer = CoinListWriter::create(out, existing)?;
    for coin in coins {
        writer.write(&coin)?;
    }
    Ok(writer.finish()?)
}

/// The month that a node writes down for a coin that it changes now.
pub fn this_month() -> Mfs {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is as wrong as any: the month is for show, the server has its own.
    Mfs::at_unix_seconds(now.map_or(0, |since| since.as_secs()))
}
