use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::json;

use super::CliError;
use super::output::{Answer, print, print_json, progress};
use super::settings::FolderArgs;
use super::totals::Totals;
use crate::client::{CoinListWriter, CoinRecord, Existing};
use crate::coin::PageId;
use crate::shown::Shown;
use crate::store::PageImage;
use crate::store::offline::OfflineFolder;
use crate::store::raidax::RaidaxWriter;

/// Write the coins of a data folder to a CSV or as an existing server's Data folder.
///
/// The output proves ownership of the coins: files are readable by their owner only, and appear as
/// a whole or not at all. The node that owns the data folder must not be running; nothing in it is
/// changed.
#[derive(clap::Args, Debug)]
#[command(override_usage = "raida export (--csv <FILE> | --raidax-data <DIR>) [OPTIONS]")]
#[command(after_help = "Examples:
  raida export --data raida-data --csv coins.csv
  raida export --config /etc/raida/node.toml --raidax-data Data")]
pub struct ExportCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// CSV to write: every coin in circulation, sorted
    #[arg(long, value_name = "FILE", required_unless_present = "raidax_data")]
    csv: Option<PathBuf>,
    /// Folder to write page files to: every page that was ever written
    #[arg(long, value_name = "DIR", conflicts_with = "csv")]
    raidax_data: Option<PathBuf>,
    /// Replace what exists
    #[arg(long)]
    overwrite: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ExportCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The data folder cannot be read, or the output cannot be written.
    pub fn run(self) -> Result<Answer, CliError> {
        let path = self.folder.load()?.node.data_dir;
        let folder = OfflineFolder::open(&path, false)?;
        let start = Instant::now();
        let (exported, target) = match (&self.csv, &self.raidax_data) {
            (Some(file), _) => (write_csv(&folder, file, self.overwrite)?, file),
            (None, Some(data)) => (write_pages(&folder, data, self.overwrite)?, data),
            (None, None) => unreachable!("the command line asks for one of the two"),
        };
        let Exported { totals, pages } = exported;
        let seconds = start.elapsed().as_secs_f64();
        if self.json {
            print_json(&json!({
                "out": target,
                "circulation": totals.json(),
                "pages": pages,
                "seconds": seconds,
            }))?;
        } else {
            print(&format!(
                "{}: {} from {pages} pages, in {seconds:.2} s\nwho can read it owns these coins: keep it safe\n",
                target.shown(),
                totals.phrase(),
            ))?;
        }
        Ok(Answer::Yes)
    }
}

#[derive(Default)]
struct Exported {
    totals: Totals,
    pages: u64,
}

fn write_csv(folder: &OfflineFolder, file: &Path, overwrite: bool) -> Result<Exported, CliError> {
    let existing = match overwrite {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let mut writer = CoinListWriter::create(file, existing)?;
    let exported = write(folder, |page, image| {
        let coins = image.ans.iter().zip(&image.mfs).enumerate();
        for (place, (&an, &mfs)) in coins.filter(|(_, (_, mfs))| !mfs.is_free()) {
            let coin = page.coin(place);
            let mfs = Some(mfs);
            writer.write(&CoinRecord { coin, an, mfs })?;
        }
        Ok(())
    })?;
    writer.finish()?;
    Ok(exported)
}

fn write_pages(folder: &OfflineFolder, data: &Path, overwrite: bool) -> Result<Exported, CliError> {
    let mut writer = RaidaxWriter::create(data, overwrite)?;
    let exported = write(folder, |page, image| Ok(writer.write(page, image)?))?;
    writer.finish()?;
    Ok(exported)
}

/// Hands every page to `each`, and counts.
fn write(
    folder: &OfflineFolder,
    mut each: impl FnMut(PageId, &PageImage) -> Result<(), CliError>,
) -> Result<Exported, CliError> {
    let bar: ProgressBar = progress(0, "exporting");
    let mut exported = Exported::default();
    folder.for_each_page(
        |pages| bar.set_length(pages),
        |page, image| -> Result<(), CliError> {
            each(page, image)?;
            let coins: u32 = image
                .circulation()
                .iter()
                .map(|word| word.count_ones())
                .sum();
            exported.totals.0[page.denomination().index()] += coins;
            exported.pages += 1;
            bar.inc(1);
            Ok(())
        },
    )?;
    bar.finish_and_clear();
    Ok(exported)
}
