use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::CliError;
use super::output::{Answer, print, print_json, progress_bytes};
use super::settings::FolderArgs;
use super::totals::Totals;
use crate::coin::PAGES;
use crate::store::offline::OfflineFolder;
use crate::store::recovery::Fault;
use crate::store::verify::Report;

/// Damages and warnings that are shown of each; a program is told all of them.
const SHOWN: usize = 20;

/// Verify a data folder: checksums, log, indexes, value totals.
///
/// Exit status 1 when anything is damaged; each damage is named by file and offset. Nothing is
/// changed. The node that owns the data folder must not be running.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  raida check --data raida-data")]
pub struct CheckCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl CheckCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The data folder cannot be read.
    pub fn run(self) -> Result<Answer, CliError> {
        let path = self.folder.load()?.node.data_dir;
        let folder = OfflineFolder::open(&path, false)?;
        let start = Instant::now();
        let bar = progress_bytes(0, "checking");
        let shown = bar.clone();
        let report = folder.verify(move |read, total| {
            shown.set_length(total);
            shown.set_position(read);
        })?;
        bar.finish_and_clear();
        if self.json {
            print_json(&as_json(&report, start.elapsed()))?;
        } else {
            print(&as_text(&path, &report, start.elapsed()))?;
        }
        Ok(match report.faults.is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}

fn as_text(path: &Path, report: &Report, took: Duration) -> String {
    let folder = path.display();
    let mut text = match (report.faults.len(), report.can_start) {
        (0, _) => format!("{folder} is sound\n"),
        (_, true) => {
            format!("{folder} is damaged: a node starts, and does not serve these pages\n")
        }
        (_, false) => format!("{folder} is damaged: a node does not start on it\n"),
    };
    for (kind, found) in [("damage ", &report.faults), ("warning", &report.warnings)] {
        for fault in found.iter().take(SHOWN) {
            text += &format!("{kind}  {fault}\n");
        }
        if found.len() > SHOWN {
            let more = found.len() - SHOWN;
            text += &format!("{kind}  and {more} more, which --json lists\n");
        }
    }
    text += &format!("\n{}\n", Totals(report.coins).table());
    text += &format!("pages  {} of {PAGES} written\n", report.pages_written);
    text += &format!("log    {}\n", log_line(report));
    let (bytes, seconds) = (HumanBytes(report.bytes_read), took.as_secs_f64());
    text += &format!("read   {bytes} in {seconds:.2} s\n");
    if !report.faults.is_empty() {
        text += "next: bring the damaged files back from a backup, all of the folder at once\n";
    }
    text
}

fn log_line(report: &Report) -> String {
    if report.segments == 0 {
        return "empty: the pages hold everything".to_owned();
    }
    let mut parts = vec![
        count(report.segments, "segment"),
        count(report.batches, "batch"),
    ];
    if report.torn_batches > 0 {
        parts.push(format!("{} cut short", report.torn_batches));
    }
    parts.push(match report.pending_changes {
        0 => "the pages hold everything".to_owned(),
        changes => count(changes, "coin change") + " that the next start applies",
    });
    parts.join(", ")
}

fn count(number: u64, what: &str) -> String {
    let ending = match (number, what.ends_with('h')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {what}{ending}")
}

fn as_json(report: &Report, took: Duration) -> Value {
    let list = |faults: &[Fault]| -> Vec<Value> {
        let one = |fault: &Fault| json!({ "file": fault.file, "offset": fault.offset, "what": fault.what });
        faults.iter().map(one).collect()
    };
    json!({
        "sound": report.faults.is_empty(),
        "can_start": report.can_start,
        "faults": list(&report.faults),
        "warnings": list(&report.warnings),
        "pages_written": report.pages_written,
        "circulation": Totals(report.coins).json(),
        "log": {
            "segments": report.segments,
            "batches": report.batches,
            "torn_batches": report.torn_batches,
            "pending_changes": report.pending_changes,
        },
        "bytes_read": report.bytes_read,
        "seconds": took.as_secs_f64(),
    })
}
