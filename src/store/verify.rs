//! Checks whether a data folder matches its checksums, and whether a node can start on it. Nothing
//! on disk changes.

use std::io;

use futures_util::stream::{self, StreamExt};

use super::{
    BOOK_FOLDER, LOG_FOLDER, PAGE_FOLDER,
    book::{self, Book, Placed, Stamp},
    log,
    page_file::{PageFiles, Slot, page_file_name, slot_offset},
    read_only::ReadOnly,
    recovery::{self, Fault, Survey, SurveyedPage},
    round::{self, CompleteRound, ROUND_FILE},
    slot::{
        self, LOCKER_COINS_OFFSET, MISSING_OFFSET, PageImage, SLOT_BYTES, SLOT_META_BYTES,
        SlotHead, TRADE_COINS_OFFSET,
    },
    used::{self, USED_FILE, Used},
};
use crate::coin::{Denomination, Mfs, PAGES, PageId};
use crate::runtime::{File, Storage, is_blank};

/// Pages whose slots are read at once: 640 KB.
const PAGES_AT_ONCE: usize = 16;
/// Such reads under way: enough to keep a device busy.
const PARALLEL: usize = 8;

/// What the verification found in a data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Damage: something that was durable and is not what it was.
    pub faults: Vec<Fault>,
    /// How many of the faults a [rebuild](super::rebuild) puts right: the damaged data follows from
    /// other data, in whole or as far as it can be saved.
    pub rebuildable: u64,
    /// How many of the faults, the first of them, are files that are gone or cut short.
    pub lost: u64,
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
    /// What there is of lockers, with the logs' changes, without damaged pages.
    pub lockers: Lockers,
    /// Bytes read.
    pub bytes_read: u64,
}

/// What pages, books and logs together say of lockers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lockers {
    /// Lockers: different keys that coins are under.
    pub lockers: u64,
    /// Coins in them.
    pub coins: u64,
    /// Those of them whose place in their locker's list is unknown; they come first.
    pub coins_without_order: u64,
    /// Coins under numbers of the form of a trade key, whether they are for sale or not.
    pub trade_coins: u64,
    /// What is for sale.
    pub sales: u64,
    /// Payments that have been used.
    pub payments: u64,
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
    let files = PageFiles::open_existing(&storage).await?;
    let mut survey = recovery::survey(&storage, &files).await?;
    let mut book_faults = survey.books.faults.clone();
    book_faults.extend(survey.books.read(&storage, &mut survey.gathered).await?);
    survey.gathered.arrange();

    let mut report = Report {
        can_start: survey.lost.is_empty() && survey.log_faults.is_empty() && book_faults.is_empty(),
        lost: survey.lost.len() as u64,
        segments: survey.segments.len() as u64,
        batches: survey.batches,
        torn_batches: survey.torn.len() as u64,
        ..Report::default()
    };
    report.faults.extend(survey.lost.iter().cloned());
    report.faults.extend(survey.log_faults.iter().cloned());
    report.rebuildable = book_faults.len() as u64;
    report.faults.extend(book_faults);
    let of_others = survey.books.read_others(&storage).await?;
    report.warnings.extend(of_others);
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
    if used::read(&storage).await?.0 == Used::Unknown {
        report.faults.push(Fault {
            file: USED_FILE.to_owned(),
            offset: 0,
            what: "it cannot be read; a start takes no encryption ticket of the time before it"
                .to_owned(),
        });
    }
    look_for_strangers(&storage, &mut report.warnings).await?;
    let mut coins = Vec::new();
    scan_pages(&files, &survey, &mut coins, &mut report).await?;
    report.lockers = Lockers::of(&survey.gathered.into_book(coins));
    report.bytes_read = storage.bytes_read();
    Ok(report)
}

/// Number of bytes to read in heads, segments, slots and books.
async fn expected_bytes<S: Storage>(storage: &S) -> io::Result<u64> {
    let pages = PageFiles::open_existing(storage).await?.reached().await?;
    let mut bytes = (pages.len() * 2 * (SLOT_META_BYTES + SLOT_BYTES)) as u64;
    for folder in [LOG_FOLDER, BOOK_FOLDER] {
        for name in storage.list(folder).await? {
            let file = storage.open(&format!("{folder}/{name}"), false).await?;
            bytes += file.length().await?;
        }
    }
    Ok(bytes)
}

/// Warns of files that no node made.
async fn look_for_strangers<S: Storage>(storage: &S, warnings: &mut Vec<Fault>) -> io::Result<()> {
    let page_files: Vec<String> = Denomination::all().map(page_file_name).collect();
    for folder in [PAGE_FOLDER, LOG_FOLDER, BOOK_FOLDER] {
        let mut names = storage.list(folder).await?;
        names.sort();
        for name in names {
            let file = format!("{folder}/{name}");
            let belongs = match folder {
                LOG_FOLDER => log::parse_segment_name(&name).is_some(),
                BOOK_FOLDER => book::is_name(&name),
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
    coins: &mut Vec<Placed>,
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
            if scan_page(id, slots, surveyed, &mut image, report) {
                survey.gathered.place(id, &image, coins);
            }
        }
    }
    // Pages that only the logs know.
    for id in PageId::all().filter(|id| !has_image[id.index()]) {
        if let Some(surveyed) = &survey.pages[id.index()]
            && scan_page(id, &[], surveyed, &mut image, report)
        {
            survey.gathered.place(id, &image, coins);
        }
    }
    Ok(())
}

/// Returns whether the page is sound; if so, its coins in circulation are in `image`.
fn scan_page(
    id: PageId,
    slots: &[u8],
    surveyed: &SurveyedPage,
    image: &mut PageImage,
    report: &mut Report,
) -> bool {
    let mut faults = Vec::new();
    let base = surveyed.summary.slot;
    let slots = [Slot::A, Slot::B].into_iter().zip(slots.chunks(SLOT_BYTES));
    let mut slots: Vec<(Slot, &[u8])> = slots.collect();
    slots.sort_by_key(|&(slot, _)| Some(slot) == base); // the last is left in `image`
    for (slot, bytes) in slots {
        let fault = |at: usize, what: &str| Fault {
            file: page_file_name(id.denomination()),
            offset: slot_offset(id, slot) + at as u64,
            what: format!("{id}: {what}"),
        };
        let meta = match slot::decode_meta(bytes, id) {
            Ok(Some(meta)) => meta,
            Ok(None) => {
                if !is_blank(bytes)
                    && let Some(at) = bytes.iter().position(|&byte| byte != 0)
                {
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
            } else if let Some((at, what)) = miscount(&meta.head, image) {
                report.rebuildable += 1;
                faults.push(fault(at, &what));
            } else if !meta.is_in_order() {
                let what = "the sequences that the image lacks are out of order";
                faults.push(fault(MISSING_OFFSET, what));
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
    let is_sound = faults.is_empty();
    if is_sound {
        report.coins[id.denomination().index()] += surveyed.circulating();
        if base.is_none() {
            image.mfs.fill(Mfs::FREE); // the coins that the secret gives are not in circulation
        }
        surveyed.apply(image);
    } else if changes > 0 || surveyed.rewrite {
        report.can_start = false;
    }
    report.faults.extend(faults);
    is_sound
}

/// A count in a head that does not match the page: where, and what.
pub(super) fn miscount(head: &SlotHead, image: &PageImage) -> Option<(usize, String)> {
    let counts = [
        (
            LOCKER_COINS_OFFSET,
            "locker",
            Some(head.locker_coins),
            image.locker_coins(),
        ),
        (
            TRADE_COINS_OFFSET,
            "trade",
            head.trade_coins,
            image.trade_coins(),
        ),
    ];
    let wrong = |said: Option<u16>, found: u16| said.is_some_and(|said| said != found);
    let (at, kind, said, found) = counts
        .into_iter()
        .find(|&(_, _, said, found)| wrong(said, found))?;
    let said = said.unwrap_or_default();
    let what = format!("the head counts {said} {kind} coins, the page holds {found}");
    Some((at, what))
}

impl Lockers {
    fn of(book: &Book) -> Lockers {
        let in_lockers = || {
            book.coins
                .iter()
                .filter(|placed| placed.key.is_locker_key())
        };
        let mut keys: Vec<[u8; 16]> = in_lockers().map(|placed| *placed.key.expose()).collect();
        let coins = keys.len() as u64;
        keys.sort_unstable();
        keys.dedup();
        let is_lost = |placed: &&Placed| placed.stamp == Stamp::default();
        Lockers {
            lockers: keys.len() as u64,
            coins,
            coins_without_order: in_lockers().filter(is_lost).count() as u64,
            trade_coins: book.coins.len() as u64 - coins,
            sales: book.sales.len() as u64,
            payments: book.payments.len() as u64,
        }
    }
}
