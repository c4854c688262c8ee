use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::CliError;
use super::output::{Answer, print, print_json, progress, progress_bytes};
use super::settings::FolderArgs;
use super::totals::Totals;
use crate::client::{CoinListError, CoinListReader, Months};
use crate::plain_file;
use crate::shown::Shown;
use crate::store::NodeIdentity;
use crate::store::import::{Conflict, Conflicts, Counts, Difference, Import, OnConflict, Outcome};
use crate::store::offline::OfflineFolder;
use crate::store::raidax::RaidaxPages;

/// Put coins into a data folder, from a CSV or from an existing server's Data folder.
///
/// The node that owns the data folder must not be running. All of the input is read and checked
/// before anything is written. If the input contradicts the data folder about a coin in
/// circulation, the import is refused and nothing is written (exit status 1). After a crash or a
/// full disk, the same command again does the rest.
#[derive(clap::Args, Debug)]
#[command(override_usage = "raida import (--csv <FILE> | --raidax-data <DIR>) [OPTIONS]")]
#[command(after_help = "Examples:
  raida import --data raida-data --csv coins.csv
  raida import --config /etc/raida/node.toml --raidax-data /opt/raidax/Data")]
pub struct ImportCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// CSV of coins: denomination,serial_number,authenticity_number,months_from_start
    #[arg(long, value_name = "FILE", required_unless_present = "raidax_data")]
    csv: Option<PathBuf>,
    /// An existing server's Data folder of page files
    #[arg(long, value_name = "DIR", conflicts_with = "csv")]
    raidax_data: Option<PathBuf>,
    /// Where the input contradicts the data folder about a coin in circulation, let the input win
    #[arg(long)]
    replace: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ImportCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The input or the data folder cannot be read, or the folder cannot be written.
    pub fn run(self) -> Result<Answer, CliError> {
        let node = self.folder.load()?.node;
        let path = node.data_dir;
        let start = Instant::now();
        let (import, source) = match (&self.csv, &self.raidax_data) {
            (Some(file), _) => (read_csv(file)?, file),
            (None, Some(folder)) => (read_pages(folder)?, folder),
            (None, None) => unreachable!("the command line asks for one of the two"),
        };
        let on_conflict = match self.replace {
            true => OnConflict::Replace,
            false => OnConflict::Refuse,
        };
        let folder = OfflineFolder::open(&path, true)?;
        // A folder that is named alone may be of any node.
        if self.folder.config.is_some() {
            folder.serve_as(NodeIdentity {
                raida: node.raida_id,
                coin_id: node.coin_id,
            })?;
        }
        let bar = progress(2 * import.pages() as u64, "importing");
        let outcome = folder.import(&import, on_conflict, || bar.inc(1))?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        let totals = Totals(import.coins());
        match outcome {
            Outcome::Done(counts) => {
                if self.json {
                    print_json(&json!({
                        "imported": true,
                        "circulation": totals.json(),
                        "new": counts.new,
                        "unchanged": counts.unchanged,
                        "replaced": counts.replaced,
                        "freed": counts.freed,
                        "pages_written": counts.pages_written,
                        "seconds": seconds,
                    }))?;
                } else {
                    let next = format!("raida serve{}", self.folder.flags());
                    print(&done(source, &path, totals, counts, seconds, &next))?;
                }
                Ok(Answer::Yes)
            }
            Outcome::Refused(conflicts) => {
                if self.json {
                    let examples: Vec<_> = conflicts
                        .examples
                        .iter()
                        .map(|conflict| {
                            json!({
                                "denomination": conflict.coin.denomination.exponent(),
                                "serial_number": conflict.coin.serial_number.get(),
                                "what": what(conflict),
                            })
                        })
                        .collect();
                    print_json(&json!({
                        "imported": false,
                        "conflicts": conflicts.count,
                        "examples": examples,
                    }))?;
                } else {
                    print(&refused(source, &path, &conflicts))?;
                }
                Ok(Answer::No)
            }
        }
    }
}

fn read_csv(file: &Path) -> Result<Import, CliError> {
    let unreadable = |cause| CoinListError::Unreadable(file.to_owned(), cause);
    let bytes = plain_file::open(file).map_err(unreadable)?;
    let length = bytes.metadata().map_err(unreadable)?.len();
    let bar = progress_bytes(length, "reading");
    let mut import = Import::default();
    for record in CoinListReader::new(bar.wrap_read(bytes), file, Months::Required)? {
        let record = record?;
        let mfs = record.mfs.expect("months are required");
        import.add_coin(record.coin, record.an, mfs);
    }
    bar.finish_and_clear();
    Ok(import)
}

fn read_pages(folder: &Path) -> Result<Import, CliError> {
    let pages = RaidaxPages::open(folder)?;
    if pages.len() == 0 {
        return Err(CliError::Unfinished(format!(
            "{} has no page file, so nothing was written: an existing server's Data folder has files as 00/03/03e7.bin: denomination, page",
            folder.shown()
        )));
    }
    let bar = progress(pages.len() as u64, "reading");
    let mut import = Import::default();
    for page in bar.wrap_iter(pages) {
        let page = page?;
        import.add_page(page.page, page.image);
    }
    bar.finish_and_clear();
    Ok(import)
}

fn done(
    source: &Path,
    folder: &Path,
    totals: Totals,
    counts: Counts,
    seconds: f64,
    next: &str,
) -> String {
    let (source, folder) = (source.shown(), folder.shown());
    let mut parts = vec![format!("{} new", counts.new)];
    for (count, what) in [
        (counts.unchanged, "there already"),
        (counts.replaced, "replaced"),
        (counts.freed, "taken out of circulation"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    format!(
        "{source}: {}, now in {folder}\n{}; {} pages written in {seconds:.2} s\ntry: {next}\n",
        totals.phrase(),
        parts.join(", "),
        counts.pages_written
    )
}

fn refused(source: &Path, folder: &Path, conflicts: &Conflicts) -> String {
    let (source, folder) = (source.shown(), folder.shown());
    let count = conflicts.count;
    let coins = if count == 1 { "coin" } else { "coins" };
    let mut text = format!(
        "refused, nothing was written: {source} disagrees with {folder} on {count} {coins} in circulation\n"
    );
    for conflict in &conflicts.examples {
        text += &format!("  coin {} {}\n", conflict.coin, what(conflict));
    }
    let more = count - conflicts.examples.len() as u64;
    if more > 0 {
        text += &format!("  and {more} more\n");
    }
    text +=
        "--replace lets the file win, and whoever owns these coins by the data folder loses them\n";
    text
}

fn what(conflict: &Conflict) -> String {
    match conflict.difference {
        Difference::An => "has another authenticity number".to_owned(),
        Difference::Months { here, there } => format!(
            "has other months: {} in the data folder, {} in the input",
            here.get(),
            there.get()
        ),
        Difference::Free => "is free in the input".to_owned(),
    }
}
