use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::CliError;
use super::output::{Answer, print, print_json, progress_bytes};
use super::settings::FolderArgs;
use super::totals::Totals;
use crate::coin::PAGES;
use crate::shown::Shown;
use crate::store::offline::{OfflineError, OfflineFolder};
use crate::store::rebuild::Rebuilt;
use crate::store::recovery::{Fault, RecoveryError};
use crate::store::verify::Report;

/// Maximum number of damages, and of warnings, that are shown; the output for programs has all of
/// them.
const SHOWN: usize = 20;

/// Verify a data folder: checksums, log, indexes, value totals.
///
/// Exit status 1 when anything is damaged; each damage is named by file and offset. Nothing is
/// changed, unless --rebuild is given. The node that owns the data folder must not be running.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida check --data raida-data
  raida check --data raida-data --rebuild")]
pub struct CheckCommand {
    #[command(flatten)]
    folder: FolderArgs,
    /// Rebuild derived data: the book of lockers and trades from the pages, the log and the
    /// readable parts of the book, and counts in pages' heads. Says what could not be saved
    #[arg(long)]
    rebuild: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// How a rebuild ended.
enum Ended {
    Done(Rebuilt),
    /// Something is damaged that cannot be derived from anything else.
    Refused(Fault),
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
        let rebuilt = match self.rebuild {
            true => Some(rebuild(&folder)?),
            false => None,
        };
        let bar = progress_bytes(0, "checking");
        let shown = bar.clone();
        let report = folder.verify(move |read, total| {
            shown.set_length(total);
            shown.set_position(read);
        })?;
        bar.finish_and_clear();
        if self.json {
            print_json(&as_json(&report, rebuilt.as_ref(), start.elapsed()))?;
        } else {
            let rebuilt = rebuilt.map_or(String::new(), |ended| told(&ended, &report));
            print(&(rebuilt + &as_text(&path, &report, start.elapsed())))?;
        }
        Ok(match report.faults.is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}

fn rebuild(folder: &OfflineFolder) -> Result<Ended, CliError> {
    match folder.rebuild() {
        Ok(rebuilt) => Ok(Ended::Done(rebuilt)),
        Err(OfflineError::Store {
            error: RecoveryError::Damaged(fault) | RecoveryError::Lost(fault),
            ..
        }) => Ok(Ended::Refused(fault)),
        Err(error) => Err(error.into()),
    }
}

/// What a rebuild did, and what it could not save.
fn told(ended: &Ended, report: &Report) -> String {
    let Rebuilt { repaired, losses } = match ended {
        Ended::Done(rebuilt) => rebuilt,
        Ended::Refused(fault) => {
            return format!("not rebuilt, since it follows from nothing else: {fault}\n");
        }
    };
    if repaired.is_empty() {
        return "nothing had to be rebuilt\n".to_owned();
    }
    let mut text = String::new();
    for fault in repaired {
        text += &format!("rebuilt  {fault}\n");
    }
    let Some(losses) = losses else { return text };
    let lost = losses.entries;
    let up_to = |number: u64, what: &str| match losses.is_more {
        true => format!("an unknown number of {what}s"),
        false => count(number, what),
    };
    if lost.coins > 0 || losses.is_more {
        text += &format!(
            "lost     the order of lists: of {} in lockers, {} come first that have no place of their own\n",
            count(report.lockers.coins, "coin"),
            report.lockers.coins_without_order,
        );
    }
    if lost.sales > 0 || losses.is_more {
        text += &format!(
            "lost     {}: their coins stay under their trade keys, where whoever has the key offers them again or takes them\n",
            up_to(lost.sales, "offer")
        );
    }
    if lost.payments > 0 || losses.is_more {
        text += &format!(
            "lost     {}: a payment made before now could be used again; compare purchases with what was paid\n",
            up_to(lost.payments, "used payment")
        );
    }
    text
}

fn as_text(path: &Path, report: &Report, took: Duration) -> String {
    let folder = path.shown();
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
    text += &format!("pages    {} of {PAGES} written\n", report.pages_written);
    text += &format!("lockers  {}\n", locker_line(report));
    text += &format!("log      {}\n", log_line(report));
    let (bytes, seconds) = (HumanBytes(report.bytes_read), took.as_secs_f64());
    text += &format!("read     {bytes} in {seconds:.2} s\n");
    if (report.faults.len() as u64) > report.rebuildable {
        text += "next: bring the damaged files back from a backup, all of the folder at once\n";
    }
    if report.lost > 0 {
        text += &format!(
            "next: without a backup, `raida serve --accept-loss --data {folder}` starts with what is left, and undoes answered changes; or empty the whole folder, and have the coins healed by the other servers\n"
        );
    }
    if report.rebuildable > 0 {
        text += &format!(
            "next: a backup has the whole book; without one, `raida check --rebuild --data {folder}` saves what it can\n"
        );
    }
    text
}

fn locker_line(report: &Report) -> String {
    let lockers = report.lockers;
    let parts = [
        count(lockers.lockers, "locker") + " of " + &count(lockers.coins, "coin"),
        count(lockers.trade_coins, "coin") + " under trade keys",
        count(lockers.sales, "offer"),
        count(lockers.payments, "used payment"),
    ];
    parts.join(", ")
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

fn as_json(report: &Report, rebuilt: Option<&Ended>, took: Duration) -> Value {
    let list = |faults: &[Fault]| -> Vec<Value> {
        let one = |fault: &Fault| json!({ "file": fault.file, "offset": fault.offset, "what": fault.what });
        faults.iter().map(one).collect()
    };
    json!({
        "sound": report.faults.is_empty(),
        "can_start": report.can_start,
        "faults": list(&report.faults),
        "warnings": list(&report.warnings),
        "lost": report.lost,
        "rebuildable": report.rebuildable,
        "rebuilt": rebuilt.map(|ended| match ended {
            Ended::Done(rebuilt) => json!({
                "done": true,
                "repaired": list(&rebuilt.repaired),
                "lost": rebuilt.losses.map(|losses| json!({
                    "coins": losses.entries.coins,
                    "offers": losses.entries.sales,
                    "payments": losses.entries.payments,
                    "and_more": losses.is_more,
                })),
            }),
            Ended::Refused(fault) => json!({
                "done": false,
                "refused": list(std::slice::from_ref(fault)),
            }),
        }),
        "pages_written": report.pages_written,
        "circulation": Totals(report.coins).json(),
        "lockers": {
            "lockers": report.lockers.lockers,
            "coins": report.lockers.coins,
            "coins_without_order": report.lockers.coins_without_order,
            "trade_coins": report.lockers.trade_coins,
            "offers": report.lockers.sales,
            "payments": report.lockers.payments,
        },
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
