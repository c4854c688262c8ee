//! Whether a data folder is what its checksums say, and whether a node can start on it. Nothing on
//! disk changes.

use std::io;

use futures_util::stream::{self, StreamExt};

use super::{
    LOG_FOLDER, PAGE_FOLDER,
    environment::{File, Storage},
    log,
    page_file::{PageFiles, Slot, page_file_name, slot_offset},
    read_only::ReadOnly,
    recovery::{self, Fault, Survey, SurveyedPage},
    round::{self, CompleteRound, ROUND_FILE},
    slot::{
        self, LOCKER_COINS_OFFSET, MISSING_OFFSET, PageImage, SLOT_BYTES, SLOT_META_BYTES, SlotMeta,
    },
};
use crate::coin::{Denomination, PAGES, PageId};

/// Pages whose slots are read at once: 640 KB.
const PAGES_AT_ONCE: usize = 16;
/// Such reads under way: enough to keep a device busy.
const PARALLEL: usize = 8;

/// What is to be said of a data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Damage: something that was durable and is not what it was.
    pub faults: Vec<Fault>,
    /// What a crash may leave behind and a start puts right, and what does not belong here.
    pub warnings: Vec<Fault>,
    /// Whether a node would start; damaged pages alone do not keep it from that, they are not
    /// served.
    pub can_start: bool,
    /// Pages that something was ever written to.
    pub pages_written: u64,
    /// Coins in circulation by denomination index, with the logs' changes, without damaged pages.
    pub coins: [u32; Denomination::COUNT],
    /// Log segments in use.
    pub segments: u64,
    /// Whole batches in the logs.
    pub batches: u64,
    /// Batches cut short at the end of a log, none of them answered.
    pub torn_batches: u64,
    /// Coin changes in the logs that the page files lack.
    pub pending_changes: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

/// Reads everything in a data folder that no node serves. Tells `progress` how many bytes are read
/// and how many there are to read; the second is an estimate that ends up right.
///
/// # Errors
/// As the storage gives them.
pub async fn verify<S: Storage>(
    storage: &S,
    progress: impl Fn(u64, u64) + 'static,
) -> io::Result<Report> {
    let total = expected_bytes(storage).await?;
    let storage = ReadOnly::new(storage.clone(), move |read| progress(read, total.max(read)));
    let lost = recovery::lost_page_files(&storage).await?;
    let files = PageFiles::open_existing(&storage).await?;
    let survey = recovery::survey(&storage, &files).await?;

    let mut report = Report {
        can_start: lost.is_empty() && survey.log_faults.is_empty(),
        segments: survey.segments.len() as u64,
        batches: survey.batches,
        torn_batches: survey.torn.len() as u64,
        ..Report::default()
    };
    report.faults.extend(lost);
    report.faults.extend(survey.log_faults.iter().cloned());
    for fault in &survey.torn {
        let what = format!("{}, which a crash does; nobody was told of it", fault.what);
        report.warnings.push(Fault {
            what,
            ..fault.clone()
        });
    }
    if round::read(&storage).await? == CompleteRound::Damaged {
        report.faults.push(Fault {
            file: ROUND_FILE.to_owned(),
            offset: 0,
            what: "the checkpoint round cannot be read; the next start writes it anew".to_owned(),
        });
    }
    look_for_strangers(&storage, &mut report.warnings).await?;
    scan_pages(&files, &survey, &mut report).await?;
    report.bytes_read = storage.bytes_read();
    Ok(report)
}

/// Heads, segments and slots.
async fn expected_bytes<S: Storage>(storage: &S) -> io::Result<u64> {
    let pages = PageFiles::open_existing(storage).await?.reached().await?;
    let mut bytes = (pages.len() * 2 * (SLOT_META_BYTES + SLOT_BYTES)) as u64;
    for name in storage.list(LOG_FOLDER).await? {
        let file = storage.open(&format!("{LOG_FOLDER}/{name}"), false).await?;
        bytes += file.length().await?;
    }
    Ok(bytes)
}

/// Files that no node made.
async fn look_for_strangers<S: Storage>(storage: &S, warnings: &mut Vec<Fault>) -> io::Result<()> {
    let page_files: Vec<String> = Denomination::all().map(page_file_name).collect();
    for folder in [PAGE_FOLDER, LOG_FOLDER] {
        let mut names = storage.list(folder).await?;
        names.sort();
        for name in names {
            let file = format!("{folder}/{name}");
            let belongs = match folder {
                LOG_FOLDER => log::parse_segment_name(&name).is_some(),
                _ => page_files.contains(&file),
            };
            if !belongs {
                warnings.push(Fault {
                    file,
                    offset: 0,
                    what: "does not belong into a data folder".to_owned(),
                });
            }
        }
    }
    Ok(())
}

async fn scan_pages<F: File>(
    files: &PageFiles<F>,
    survey: &Survey,
    report: &mut Report,
) -> io::Result<()> {
    // A denomination's pages lie in one file, so no read may go from one to the next.
    let reached = files.reached().await?;
    let of_a_file = reached.chunk_by(|a, b| a.denomination() == b.denomination());
    let at_once = of_a_file.flat_map(|pages| pages.chunks(PAGES_AT_ONCE));
    let mut reads = stream::iter(at_once)
        .map(async |pages| (pages, files.read_slots(pages[0], pages.len()).await))
        .buffered(PARALLEL);
    let mut image = PageImage::blank();
    let mut has_image = vec![false; PAGES];
    while let Some((pages, slots)) = reads.next().await {
        for (&id, slots) in pages.iter().zip(slots?.chunks_exact(2 * SLOT_BYTES)) {
            let surveyed = survey.pages[id.index()].as_ref();
            let surveyed = surveyed.expect("the survey has every page that its file reaches");
            has_image[id.index()] = true;
            scan_page(id, slots, surveyed, &mut image, report);
        }
    }
    // Pages that only the logs know.
    for id in PageId::all().filter(|id| !has_image[id.index()]) {
        if let Some(surveyed) = &survey.pages[id.index()] {
            scan_page(id, &[], surveyed, &mut image, report);
        }
    }
    Ok(())
}

fn scan_page(
    id: PageId,
    slots: &[u8],
    surveyed: &SurveyedPage,
    image: &mut PageImage,
    report: &mut Report,
) {
    let mut faults = Vec::new();
    let base = surveyed.summary.slot;
    for (slot, bytes) in [Slot::A, Slot::B].into_iter().zip(slots.chunks(SLOT_BYTES)) {
        let fault = |at: usize, what: &str| Fault {
            file: page_file_name(id.denomination()),
            offset: slot_offset(id, slot) + at as u64,
            what: format!("{id}: {what}"),
        };
        let meta = match slot::decode_meta(bytes, id) {
            Ok(Some(meta)) => meta,
            Ok(None) => {
                if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
                    report.warnings.push(fault(at, "data without a head, as the page's first write leaves it when it is cut short"));
                }
                continue;
            }
            Err(error) => {
                faults.push(fault(0, &error.to_string()));
                continue;
            }
        };
        let whole = slot::decode(bytes, &meta, image);
        if Some(slot) == base {
            if !whole {
                faults.push(recovery::an_fault(id, slot));
            } else if let Some((at, what)) = contradiction(&meta, image) {
                faults.push(fault(at, &what));
            }
        } else if !whole && surveyed.fault.is_none() {
            let newer = surveyed.rewrite && meta.head.sequence >= surveyed.summary.sequence;
            let what = match newer || base.is_none() {
                true => {
                    "the newest image was cut short, which a crash does; the older one and the logs have everything"
                }
                false => "the older image is damaged; the page's next checkpoint writes over it",
            };
            report.warnings.push(fault(0, what));
        }
    }
    if let Some(fault) = &surveyed.fault
        && faults.iter().all(|other| other.offset != fault.offset)
    {
        faults.push(fault.clone());
    }
    let changes = surveyed.changes.len() as u64;
    report.pending_changes += changes;
    report.pages_written += surveyed.was_written() as u64;
    if faults.is_empty() {
        report.coins[id.denomination().index()] += surveyed.circulating();
    } else if changes > 0 || surveyed.rewrite {
        report.can_start = false;
    }
    report.faults.extend(faults);
}

/// What a whole slot says of its page that the page does not bear out: where, and what.
fn contradiction(meta: &SlotMeta, image: &PageImage) -> Option<(usize, String)> {
    let (said, found) = (meta.head.locker_coins, image.locker_coins());
    if said != found {
        let what = format!("the head counts {said} locker coins, the page holds {found}");
        return Some((LOCKER_COINS_OFFSET, what));
    }
    let rising = meta.missing.is_sorted_by(|a, b| a < b);
    if !rising
        || meta
            .missing
            .last()
            .is_some_and(|&last| last > meta.head.sequence)
    {
        let what = "the sequences that the image lacks are out of order".to_owned();
        return Some((MISSING_OFFSET, what));
    }
    None
}
