//! From what a crash left behind to pages that hold every answered change.
//!
//! A recovery reads the logs of all earlier shards, applies the changes that the page images lack
//! in the order of each page's sequence numbers, and writes new images. What the node has to
//! remember beside the pages is put together from books and logs, and written as one [book]. Then
//! the logs are given up, and with them the books of shards. A crash anywhere in this leads back to
//! its start.
//!
//! Checkpoint rounds separate damage from what a crash may have cut short: a segment's header names
//! the newest round that was complete when the segment was taken into use. A slot of that round or
//! an older one was made durable; it must be whole. A slot of a younger round may be torn, and then
//! the other slot and the logs have everything. Where no segment is in use, recovery once ended,
//! and since then no change and so no page was written: then every slot must be whole.

use std::{cmp::Reverse, collections::BTreeMap, fmt, io};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    LOG_FOLDER,
    book::{self, Book, BookSurvey, Gathered, Placed},
    log,
    page_file::{Extents, PageFiles, Slot, page_file_name, slot_offset},
    record::{self, Change},
    round::{self, CompleteRound, ROUND_MAX},
    secret::NodeSecret,
    segment::{self, FIRST_BATCH_OFFSET, Header, SegmentHeader},
    segment_list::{self, Checkpointed, Listed, Region, Regions, SEGMENTS_FILE},
    slot::{self, PageImage, SLOT_META_BYTES, SlotMeta},
    used::{self, Used},
    window::Window,
};
use crate::coin::{COINS_PER_PAGE, Coin, Denomination, PAGES, PageId};
use crate::runtime::{BLOCK_BYTES, File, Storage, is_blank, yield_now};

/// Reads and writes under way at once.
const PARALLEL: usize = 64;
/// A page's changes are thinned out to the newest a coin when this many have collected.
const THIN_OUT: usize = 2 * COINS_PER_PAGE;

/// A place on disk where the data is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, relative to the data folder.
    pub file: String,
    /// The first byte of the damaged part.
    pub offset: u64,
    /// What is wrong, and with what.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.offset, self.what)
    }
}

/// Why a data folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The storage failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Answered changes may be lost: the log, or a page that the log has changes for, or a book is
    /// damaged.
    #[error("damaged: {0}")]
    Damaged(Fault),
    /// Answered changes are lost: a file that holds some is gone, or cut short.
    #[error(
        "{0}; a backup of the whole folder brings it back, `raida serve --accept-loss` starts with what is left (its --help says what that costs)"
    )]
    Lost(Fault),
}

/// What to do where a part of a data folder is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// Leave everything as it is.
    #[default]
    Refuse,
    /// Go on with what is left of pages, log and books: answered changes may be undone.
    Accept,
}

/// What is known of a page at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSummary {
    /// Where its newest image is; `None` where it was never written.
    pub slot: Option<Slot>,
    /// The highest sequence number ever given to a change of the page that may be on disk.
    pub sequence: u64,
    /// One bit a coin, set where it is in circulation.
    pub circulation: [u64; COINS_PER_PAGE / 64],
    /// Coins in circulation whose AN is a locker's key.
    pub locker_coins: u16,
    /// Coins in circulation whose AN has the form of a trade locker's key.
    pub trade_coins: u16,
    /// The newest image cannot be read; nothing of the page is served.
    pub damaged: bool,
    /// One bit a coin, set where a log that the start read named the coin.
    pub logged: [u64; COINS_PER_PAGE / 64],
}

impl PageSummary {
    /// The coins of `page`, which this summary describes, that a log read at the start named. Some
    /// may have changed long before the node stopped; all that changed since its last checkpoint
    /// are among them.
    pub fn logged_coins(&self, page: PageId) -> impl Iterator<Item = Coin> + '_ {
        let words = self
            .logged
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0);
        let places = words.flat_map(|(index, &word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| 64 * index + bit)
        });
        places.map(move |place| page.coin(place))
    }
}

/// A data folder in order: the pages hold all answered changes, and nothing in the logs counts any
/// more.
#[derive(Debug)]
pub struct Recovered {
    /// By page index.
    pub pages: Vec<PageSummary>,
    /// The checkpoint round that the recovery wrote, or the newest found.
    pub round: u64,
    /// Coin changes applied from the logs.
    pub changes: u64,
    /// Pages written.
    pub pages_written: u64,
    /// Batches at the end of a log that were cut short, none of them answered.
    pub torn: u64,
    /// Damaged pages, which are not served.
    pub faults: Vec<Fault>,
    /// What was gone, or could not be read of the log, and was accepted.
    pub accepted: Vec<Fault>,
    /// What the node has to remember beside the pages.
    pub book: Book,
    /// Single-use items that were used (spent encryption tickets), and the version of that list.
    pub used: (Used, u64),
}

/// What the logs and the heads of the pages say, before anything is changed.
pub(super) struct Survey {
    /// By page index; `None` for an unknown page.
    pub pages: Vec<Option<Box<SurveyedPage>>>,
    /// Segments in use, the oldest of each log first.
    pub segments: Vec<(String, SegmentHeader)>,
    /// The last batch of each log; possibly nobody waited for its write.
    tails: Vec<Tail>,
    /// Whole batches in the logs.
    pub batches: u64,
    /// Batches cut short.
    pub torn: Vec<Fault>,
    /// The newest round in any head or segment.
    pub round: u64,
    /// Damaged pages.
    pub faults: Vec<Fault>,
    /// Damage in the logs.
    pub log_faults: Vec<Fault>,
    /// What is gone: log segments with changes that the pages may lack, page files, or the files
    /// that tell what has to be there.
    pub lost: Vec<Fault>,
    /// Segments whose headers cannot be read.
    unreadable: Vec<String>,
    /// The book files.
    pub books: BookSurvey,
    /// What the logs say that is not in the pages.
    pub gathered: Gathered,
}

struct Tail {
    file: String,
    offset: u64,
    bytes: usize,
}

/// A page's base image and the changes that it lacks.
#[derive(Default)]
pub(super) struct SurveyedPage {
    pub summary: PageSummary,
    missing: Vec<u64>,
    /// Changes that the base lacks: sequence, and the change.
    pub changes: Vec<(u64, Change)>,
    /// The highest sequence number that the logs know.
    logged: u64,
    /// The newest slot was torn, or an older one is not whole.
    pub rewrite: bool,
    /// The base's head does not count trade coins.
    is_uncounted: bool,
    /// The base's round is not known to be complete: it can be read, and may not be durable.
    unsure: bool,
    /// One of its slots was written once.
    has_head: bool,
    /// One of its slots is of a version that came after `round`.
    is_after_round: bool,
    pub fault: Option<Fault>,
}

/// Brings a data folder in order.
///
/// # Errors
/// Where the storage fails, or where damage means that answered changes may be lost.
pub async fn recover<S: Storage>(
    storage: &S,
    secret: &NodeSecret,
) -> Result<Recovered, RecoveryError> {
    recover_with(storage, secret, OnLoss::Refuse).await
}

/// Brings a data folder in order, where a part of it may be gone.
///
/// # Errors
/// As [`recover`]; with [`OnLoss::Accept`] not for what is gone, nor for a damaged log or book.
pub async fn recover_with<S: Storage>(
    storage: &S,
    secret: &NodeSecret,
    on_loss: OnLoss,
) -> Result<Recovered, RecoveryError> {
    let (files, mut survey) = open(storage, on_loss).await?;
    let mut faults = survey.books.faults.clone();
    if faults.is_empty() {
        faults = survey.books.read(storage, &mut survey.gathered).await?;
    }
    if let Some(fault) = faults.first() {
        let is_accepted = on_loss == OnLoss::Accept;
        let newer = survey.books.of_another_version();
        if let Some(fault) = newer.or_else(|| (!is_accepted).then(|| fault.clone())) {
            return Err(RecoveryError::Damaged(fault));
        }
        // Entries that were read before are added a second time, which does no harm.
        survey.books.salvage(storage, &mut survey.gathered).await?;
        survey.lost.extend(faults);
    }
    bring_in_order(storage, secret, &files, survey).await
}

/// Opens the page files and surveys the folder.
///
/// # Errors
/// Where the storage fails, or page files or logs are damaged so that answered changes may be lost.
pub(super) async fn open<S: Storage>(
    storage: &S,
    on_loss: OnLoss,
) -> Result<(PageFiles<S::File>, Survey), RecoveryError> {
    // The survey comes before any file is made: a file that is gone would otherwise be there again,
    // and empty.
    let survey = survey(storage, &PageFiles::open_existing(storage).await?).await?;
    if on_loss == OnLoss::Refuse {
        if let Some(fault) = survey.log_faults.first() {
            return Err(RecoveryError::Damaged(fault.clone()));
        }
        if let Some(fault) = survey.lost.first() {
            return Err(RecoveryError::Lost(fault.clone()));
        }
    }
    Ok((PageFiles::open(storage).await?, survey))
}

/// The round after the newest one.
///
/// # Errors
/// There is no next round; only an attacker can have written such a round.
pub(super) fn next_round(newest: u64) -> Result<u64, RecoveryError> {
    if newest <= ROUND_MAX {
        return Ok(newest + 1);
    }
    let text = format!(
        "its newest checkpoint has the number {newest}, which no node counts up to: restore the folder from a backup"
    );
    Err(RecoveryError::Io(io::Error::new(
        io::ErrorKind::InvalidData,
        text,
    )))
}

/// Writes pages and book according to the survey and all that was gathered, and gives up everything
/// else.
pub(super) async fn bring_in_order<S: Storage>(
    storage: &S,
    secret: &NodeSecret,
    files: &PageFiles<S::File>,
    mut survey: Survey,
) -> Result<Recovered, RecoveryError> {
    make_durable(storage, files, &survey).await?;
    let round = next_round(survey.round)?;
    let mut changes = 0;
    let mut pages = vec![PageSummary::default(); PAGES];
    let mut stale: Vec<(usize, Box<SurveyedPage>)> = Vec::new();
    let mut marked: Vec<(PageId, Slot)> = Vec::new();
    for (index, surveyed) in survey.pages.into_iter().enumerate() {
        let Some(page) = surveyed else { continue };
        changes += page.changes.len() as u64;
        match &page.fault {
            Some(fault) if !page.changes.is_empty() => {
                return Err(RecoveryError::Damaged(fault.clone()));
            }
            None if !page.changes.is_empty() || page.rewrite => stale.push((index, page)),
            _ => {
                let id = PageId::from_index(index).expect("the survey has a page an index");
                marked.extend(page.slot_of_marked_coins().map(|slot| (id, slot)));
                pages[index] = page.summary;
            }
        }
    }
    let pages_written = stale.len() as u64;
    survey.gathered.arrange();
    let mut coins: Vec<Placed> = Vec::new();
    let mut rewrites = stream::iter(stale)
        .map(|(index, page)| rewrite(files, secret, index, *page, round))
        .buffer_unordered(PARALLEL);
    while let Some((id, summary, image)) = rewrites.try_next().await? {
        survey.gathered.place(id, &image, &mut coins);
        pages[id.index()] = summary;
    }
    drop(rewrites);
    for denomination in Denomination::all() {
        files.sync(denomination).await?;
    }
    let mut images = stream::iter(marked)
        .map(async |(id, slot)| (id, read_image(files, secret, id, Some(slot)).await))
        .buffer_unordered(PARALLEL);
    while let Some((id, image)) = images.next().await {
        let summary = &mut pages[id.index()];
        match image {
            Ok(image) => {
                survey.gathered.place(id, &image, &mut coins);
                summary.trade_coins = image.trade_coins();
            }
            Err(RecoveryError::Damaged(fault)) => {
                summary.damaged = true;
                survey.faults.push(fault);
            }
            Err(error) => return Err(error),
        }
    }
    drop(images);
    let book = survey.gathered.into_book(coins);
    let target = survey.books.recovery_target();
    book::make_pair(storage, target).await?;
    let told = book.entries();
    book::write_book(storage, target, round, told, &async || (), &yield_now).await?;
    let images = pages.iter().enumerate().filter_map(|(index, summary)| {
        let page = PageId::from_index(index).expect("there is a summary a page");
        Some((page, summary.slot?))
    });
    let extents = Extents::of(images);
    segment_list::make(storage).await?;
    round::write(storage, round, &extents, round).await?;
    let used = used::take_over(storage).await?;
    // The list is cleared before the segments, so that an empty segment does not count as missing.
    segment_list::clear(storage, round).await?;
    let names = survey.segments.iter().map(|(name, _)| name);
    give_up_logs(storage, names.chain(&survey.unreadable)).await?;
    survey.books.give_up(storage).await?;
    Ok(Recovered {
        pages,
        round,
        changes,
        pages_written,
        torn: survey.torn.len() as u64,
        faults: survey.faults,
        accepted: survey.lost.into_iter().chain(survey.log_faults).collect(),
        book,
        used,
    })
}

/// Makes durable what the survey found and recovery builds on. A process that was killed, or whose
/// sync failed, leaves writes behind that are seen here and that a power failure would still undo
/// one by one: a record that some pages are already rewritten from, or the image that a rewritten
/// page had before. A later sync need not cover the writes of a failed one. So they are written
/// again, the same bytes to the same place: if that is cut short, nothing on the disk is lost.
async fn make_durable<S: Storage>(
    storage: &S,
    files: &PageFiles<S::File>,
    survey: &Survey,
) -> io::Result<()> {
    let unsure = survey.pages.iter().enumerate().filter_map(|(index, page)| {
        let summary = &page.as_ref().filter(|page| page.unsure)?.summary;
        let page = PageId::from_index(index).expect("the survey has a page an index");
        Some((page, summary.slot.expect("an image is in a slot")))
    });
    stream::iter(unsure)
        .map(|(page, slot)| files.write_again(page, slot))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    for denomination in Denomination::all() {
        files.sync(denomination).await?;
    }
    for tail in &survey.tails {
        let file = storage.open(&tail.file, false).await?;
        let bytes = file.read_at(tail.offset, tail.bytes).await?;
        file.write_at(&bytes, tail.offset).await?;
    }
    for name in storage.list(LOG_FOLDER).await? {
        if log::parse_segment_name(&name).is_some() {
            let file = storage.open(&format!("{LOG_FOLDER}/{name}"), false).await?;
            if file.length().await? > 0 {
                let header = file.read_at(0, BLOCK_BYTES).await?;
                file.write_at(&header, 0).await?;
            }
            file.sync().await?;
        }
    }
    segment_list::make_durable(storage).await?;
    survey.books.make_durable(storage).await
}

/// Reads all heads and logs, and finds for each page its base image and what that lacks. Changes
/// nothing.
pub(super) async fn survey<S: Storage>(
    storage: &S,
    files: &PageFiles<S::File>,
) -> io::Result<Survey> {
    let mut log_faults = Vec::new();
    let segments = list_segments(storage, &mut log_faults).await?;
    let unreadable = log_faults.iter().map(|fault| fault.file.clone()).collect();
    let named = segments.iter().map(|s| s.header.round).max().unwrap_or(0);
    let last = round::read(storage).await?;
    let (mut round, complete) = match last {
        CompleteRound::Unknown => (named, named),
        CompleteRound::Known { round, .. } => (named.max(round), named.max(round)),
        // Nobody knows what may be torn, so every slot must be whole.
        CompleteRound::Damaged => (named, u64::MAX),
    };
    let listed = segment_list::read(storage).await?;
    let has_listed = segments.iter().any(|segment| segment.header.has_list);
    let mut lost = lost_files(files, &last, listed.as_ref(), has_listed).await?;
    let regions = listed.as_ref().map_or(&[][..], |listed| &listed.all);
    lost.extend(lost_segments(regions, &segments, &log_faults).await?);
    let checkpointed: Vec<&Checkpointed> = known(regions).map(|(_, of)| &of.checkpointed).collect();
    let books = BookSurvey::of(storage, &last, &checkpointed).await?;
    round = round.max(books.round);
    let mut pages: Vec<Option<Box<SurveyedPage>>> = Vec::new();
    pages.resize_with(PAGES, || None);
    let mut surveys = stream::iter(files.reached().await?)
        .map(|page| survey_page(files, page, complete))
        .buffer_unordered(PARALLEL);
    while let Some((index, page, newest)) = surveys.try_next().await? {
        pages[index] = Some(Box::new(page));
        round = round.max(newest);
    }
    drop(surveys);
    for fault in lost_pages(&left(&last, regions), &pages) {
        // A file that is cut short is reported already.
        if lost.iter().all(|other| other.file != fault.file) {
            lost.push(fault);
        }
    }
    let mut read = Read {
        pages: &mut pages,
        gathered: Gathered::default(),
        tails: Vec::new(),
        faults: log_faults,
    };
    let (batches, torn) = read_logs(&segments, &mut read).await?;
    let Read {
        gathered,
        tails,
        faults: log_faults,
        ..
    } = read;
    if last == CompleteRound::Unknown
        && lost.is_empty()
        && pages.iter().flatten().any(|page| page.is_after_round)
    {
        lost.push(lost_round());
    }
    for page in pages.iter_mut().flatten() {
        page.thin_out();
        page.summary.sequence = page.summary.sequence.max(page.logged);
    }
    Ok(Survey {
        faults: pages
            .iter()
            .flatten()
            .filter_map(|p| p.fault.clone())
            .collect(),
        segments: segments.into_iter().map(|s| (s.name, s.header)).collect(),
        pages,
        tails,
        batches,
        torn,
        round,
        log_faults,
        lost,
        unreadable,
        books,
        gathered,
    })
}

/// What the list of segments says, by shard.
fn known(regions: &[Region]) -> impl Iterator<Item = (u16, &Listed)> {
    (0..)
        .zip(regions)
        .filter_map(|(shard, region)| match region {
            Region::Known(listed, _) => Some((shard, listed)),
            Region::Blank | Region::Damaged => None,
        })
}

/// Files that are gone or cut short: those that tell what has to be there, and page files, which
/// only ever grow. These are too short for the images that a recovery, or a checkpoint for which
/// log records were given up, left in them.
async fn lost_files<F: File>(
    files: &PageFiles<F>,
    last: &CompleteRound,
    listed: Option<&Regions>,
    has_listed: bool,
) -> io::Result<Vec<Fault>> {
    let mut lost = Vec::new();
    let mut add = |file: &str, offset: u64, what: String| {
        let file = file.to_owned();
        lost.push(Fault { file, offset, what });
    };
    let regions = listed.map_or(&[][..], |listed| &listed.all);
    let has_list = has_listed || matches!(last, CompleteRound::Known { has_list: true, .. });
    let cut_at = listed.map_or(Some(0), |listed| listed.cut_at);
    if has_list && (cut_at.is_some() || regions.first() == Some(&Region::Blank)) {
        let what = "the list of log segments ends here, or is missing: nobody knows whether log segments are lost";
        add(SEGMENTS_FILE, cut_at.unwrap_or(0), what.to_owned());
    }
    if *last == CompleteRound::Unknown && known(regions).any(|(_, of)| of.round > 0) {
        let Fault { file, offset, what } = lost_round();
        add(&file, offset, what);
    }
    for (shard, region) in regions.iter().enumerate() {
        if *region == Region::Damaged {
            let what = format!(
                "the list of log segments cannot be read: nobody knows whether some of shard {shard} are lost"
            );
            add(SEGMENTS_FILE, segment_list::start(shard as u16), what);
        }
    }
    let lengths = left(last, regions).lengths;
    for (denomination, (was, is)) in
        Denomination::all().zip(lengths.into_iter().zip(files.lengths().await?))
    {
        if is < was {
            let what =
                format!("the page file ends here, or is missing; it had {was} bytes or more");
            add(&page_file_name(denomination), is, what);
        }
    }
    Ok(lost)
}

/// The least that the page files held when a recovery, or a checkpoint for which log records were
/// given up, had left them.
fn left(last: &CompleteRound, regions: &[Region]) -> Extents {
    let mut left = match last {
        CompleteRound::Known { extents, .. } => *extents,
        CompleteRound::Unknown | CompleteRound::Damaged => Extents::default(),
    };
    for (_, of) in known(regions) {
        left = left.or(&of.checkpointed.extents);
    }
    left
}

/// Page files that are long enough and have fewer pages than there were: the others are blank.
fn lost_pages(left: &Extents, pages: &[Option<Box<SurveyedPage>>]) -> Vec<Fault> {
    let mut found = [0; Denomination::COUNT];
    for (id, page) in PageId::all().zip(pages) {
        if page.as_ref().is_some_and(|page| page.has_head) {
            found[id.denomination().index()] += 1;
        }
    }
    let lost = Denomination::all().zip(found.into_iter().zip(left.pages));
    lost.filter(|(_, (is, was))| is < was)
        .map(|(denomination, (is, was))| Fault {
            file: page_file_name(denomination),
            offset: 0,
            what: format!("{is} pages are in the file, it had {was} or more: the others are blank"),
        })
        .collect()
}

fn lost_round() -> Fault {
    Fault {
        file: round::ROUND_FILE.to_owned(),
        offset: 0,
        what: "the file is missing that every recovery leaves: nobody knows whether page files are lost"
            .to_owned(),
    }
}

/// Log segments that hold changes which the pages may lack, and that are gone or cut short.
async fn lost_segments<F: File>(
    regions: &[Region],
    segments: &[SegmentFile<F>],
    damaged: &[Fault],
) -> io::Result<Vec<Fault>> {
    let mut lost = Vec::new();
    for (shard, of) in known(regions) {
        for (number, &file_number) in (of.first..).zip(&of.files) {
            let is_it = |s: &&SegmentFile<F>| {
                (s.header.run, s.header.shard, s.header.number) == (of.run, shard, number)
            };
            let file = log::segment_name(shard, file_number);
            if damaged.iter().any(|fault| fault.file == file) {
                continue;
            }
            let (offset, what) = match segments.iter().find(is_it) {
                Some(segment) => match segment.file.length().await? {
                    length if length < of.segment_bytes => {
                        let bytes = of.segment_bytes;
                        (
                            length,
                            format!("the log segment ends here; it had {bytes} bytes"),
                        )
                    }
                    _ => continue,
                },
                None => (0, "the log segment is missing".to_owned()),
            };
            let what = format!("{what}: changes that were answered are lost with it");
            lost.push(Fault { file, offset, what });
        }
    }
    Ok(lost)
}

struct SegmentFile<F> {
    name: String,
    file: F,
    header: SegmentHeader,
}

/// Opens the segments in use, the oldest of each log first.
async fn list_segments<S: Storage>(
    storage: &S,
    faults: &mut Vec<Fault>,
) -> io::Result<Vec<SegmentFile<S::File>>> {
    let mut segments = Vec::new();
    for name in storage.list(LOG_FOLDER).await? {
        if log::parse_segment_name(&name).is_none() {
            continue;
        }
        let name = format!("{LOG_FOLDER}/{name}");
        let file = storage.open(&name, false).await?;
        match segment::decode_header(&file.read_at(0, BLOCK_BYTES).await?) {
            Header::Used(header) => segments.push(SegmentFile { name, file, header }),
            Header::Unused => {}
            Header::Damaged => faults.push(Fault {
                file: name,
                offset: 0,
                what: "the log segment's header is damaged".to_owned(),
            }),
        }
    }
    segments.sort_by_key(|s| (s.header.run, s.header.shard, s.header.number));
    Ok(segments)
}

/// Chooses a page's base image: the newest that is whole, where the newest may be torn.
async fn survey_page<F: File>(
    files: &PageFiles<F>,
    page: PageId,
    complete: u64,
) -> io::Result<(usize, SurveyedPage, u64)> {
    let mut surveyed = SurveyedPage::default();
    let mut found: Vec<(Slot, SlotMeta)> = Vec::new();
    for slot in [Slot::A, Slot::B] {
        match files.read_meta(page, slot).await? {
            Ok(Some(meta)) => found.push((slot, meta)),
            Ok(None) => {}
            Err(fault) => {
                surveyed.has_head = true;
                surveyed.damage(page, slot, &fault.to_string());
            }
        }
    }
    surveyed.has_head |= !found.is_empty();
    // Ordered by round, not by sequence: an image that lacked a change and the next image, which
    // has it, may have the same sequence.
    found.sort_by_key(|(_, meta)| Reverse(meta.head.round));
    surveyed.is_after_round = (found.iter()).any(|(_, meta)| meta.head.trade_coins.is_some());
    let round = found
        .iter()
        .map(|(_, meta)| meta.head.round)
        .max()
        .unwrap_or(0);
    if surveyed.fault.is_some() {
        return Ok((page.index(), surveyed, round));
    }
    let mut image = None;
    let both_written = found.len() == 2;
    for (slot, meta) in found {
        let durable = meta.head.round <= complete;
        let whole = if durable {
            meta.whole
        } else {
            let image = image.get_or_insert_with(PageImage::blank);
            files.read(page, slot, image).await?.is_some()
        };
        if whole {
            surveyed.unsure = !durable;
            surveyed.summary.slot = Some(slot);
            surveyed.summary.sequence = meta.head.sequence;
            surveyed.summary.circulation = meta.circulation;
            surveyed.summary.locker_coins = meta.head.locker_coins;
            surveyed.summary.trade_coins = meta.head.trade_coins.unwrap_or(0);
            surveyed.is_uncounted = meta.head.trade_coins.is_none();
            surveyed.missing = meta.missing;
            break;
        }
        if durable {
            surveyed.damage(page, slot, "the page's months do not fit their checksum");
            break;
        }
        surveyed.rewrite = true;
    }
    if both_written && surveyed.summary.slot.is_none() {
        // A write goes to one slot at a time, and only once the other is durable.
        surveyed.damage(page, Slot::A, "neither of the page's slots is whole");
    }
    Ok((page.index(), surveyed, round))
}

/// What is read from logs so far.
struct Read<'a> {
    pages: &'a mut [Option<Box<SurveyedPage>>],
    gathered: Gathered,
    tails: Vec<Tail>,
    faults: Vec<Fault>,
}

/// Adds to each page the changes that its base lacks. Gives how many batches are whole, and those
/// that were cut short.
async fn read_logs<F: File>(
    segments: &[SegmentFile<F>],
    read: &mut Read<'_>,
) -> io::Result<(u64, Vec<Fault>)> {
    let mut logs: BTreeMap<(u64, u16), Vec<&SegmentFile<F>>> = BTreeMap::new();
    for segment in segments {
        logs.entry((segment.header.run, segment.header.shard))
            .or_default()
            .push(segment);
    }
    let (mut batches, mut torn) = (0, Vec::new());
    for log in logs.values() {
        // The next segment and batch of the log; the oldest segment that is left says where that
        // starts.
        let first = log[0].header;
        let mut next = (first.number, first.first_batch, first.chain);
        let mut tail = None;
        let mut before: Option<(&SegmentFile<F>, u64)> = None;
        for (i, segment) in log.iter().enumerate() {
            let header = segment.header;
            // The reading goes on behind a gap: an operator who accepts the loss wants what is
            // left.
            if header.number != next.0 {
                read.faults.push(Fault {
                    file: segment.name.clone(),
                    offset: 0,
                    what: format!(
                        "segment {} of shard {}'s log is missing",
                        next.0, header.shard
                    ),
                });
            } else if let Some((before, stop)) = before
                && (header.first_batch, header.chain) != (next.1, next.2)
            {
                read.faults.push(Fault {
                    file: before.name.clone(),
                    offset: stop,
                    what: format!(
                        "batch {} of shard {}'s log cannot be read, though segment {} follows",
                        next.1, header.shard, header.number
                    ),
                });
            }
            let last = i + 1 == log.len();
            let end = read_segment(segment, last, read).await?;
            batches += end.batch - header.first_batch;
            if end.torn {
                torn.push(Fault {
                    file: segment.name.clone(),
                    offset: end.offset,
                    what: format!("batch {} was cut short", end.batch),
                });
            }
            next = (header.number + 1, end.batch, end.chain);
            before = Some((segment, end.offset));
            if let Some((offset, bytes)) = end.last {
                let file = segment.name.clone();
                tail = Some(Tail {
                    file,
                    offset,
                    bytes,
                });
            }
        }
        read.tails.extend(tail);
    }
    Ok((batches, torn))
}

struct SegmentEnd {
    batch: u64,
    chain: u32,
    /// Where the batches end.
    offset: u64,
    /// Where the last whole batch starts, and its bytes.
    last: Option<(u64, usize)>,
    torn: bool,
}

async fn read_segment<F: File>(
    segment: &SegmentFile<F>,
    last: bool,
    read: &mut Read<'_>,
) -> io::Result<SegmentEnd> {
    let header = segment.header;
    let length = segment.file.length().await?;
    let mut end = SegmentEnd {
        batch: header.first_batch,
        chain: header.chain,
        offset: FIRST_BATCH_OFFSET,
        last: None,
        torn: false,
    };
    let mut window = Window::new(&segment.file, length);
    let mut offset = FIRST_BATCH_OFFSET;
    while offset < length {
        let head = segment::decode_batch_head(window.at(offset, BLOCK_BYTES).await?);
        let head = head.filter(|head| {
            head.usage == header.usage && head.number == end.batch && head.chain == end.chain
        });
        let Some(head) = head else { break };
        let bytes = segment::batch_bytes(head.length);
        if offset + bytes as u64 > length {
            break;
        }
        let batch = window.at(offset, bytes).await?;
        let Some(records) = segment::decode_batch(batch, &head) else {
            break;
        };
        let decoded = record::decode_all(records, |record| {
            for &(at, change) in &record.changes {
                let page = read.pages[at.page.index()].get_or_insert_default();
                page.add(at.sequence, change);
            }
            read.gathered.add_record(record);
        });
        if let Err(malformed) = decoded {
            read.faults.push(Fault {
                file: segment.name.clone(),
                offset: offset + (segment::BATCH_HEAD_BYTES + malformed.at) as u64,
                what: malformed.to_string(),
            });
        }
        end.batch += 1;
        end.chain = head.crc;
        end.last = Some((offset, bytes));
        offset += bytes as u64;
        end.offset = offset;
    }
    // One batch is written at a time, so nothing whole can follow a torn one; something that does
    // shows that what is unreadable here was once durable.
    let stop = offset;
    end.offset = stop;
    let mut later = None;
    while offset < length {
        let head = segment::decode_batch_head(window.at(offset, BLOCK_BYTES).await?);
        if offset == stop {
            end.torn = !is_blank(window.at(offset, BLOCK_BYTES).await?)
                && head.is_none_or(|head| head.usage == header.usage);
        }
        if let Some(head) = head
            && head.usage == header.usage
            && head.number > end.batch
        {
            later = Some(head.number);
            break;
        }
        offset += BLOCK_BYTES as u64;
    }
    if let Some(later) = later {
        read.faults.push(Fault {
            file: segment.name.clone(),
            offset: stop,
            what: format!(
                "batch {} of shard {}'s log cannot be read, though batch {later} follows",
                end.batch, header.shard
            ),
        });
    }
    if !last || later.is_some() {
        end.torn = false;
    }
    Ok(end)
}

/// Applies a page's changes to its base and writes the result to the other slot.
async fn rewrite<F: File>(
    files: &PageFiles<F>,
    secret: &NodeSecret,
    index: usize,
    page: SurveyedPage,
    round: u64,
) -> Result<(PageId, PageSummary, Box<PageImage>), RecoveryError> {
    let id = PageId::from_index(index).expect("the survey has a page an index");
    let image = current_image(files, secret, id, &page).await?;
    let mut summary = page.summary;
    let target = summary.slot.map_or(Slot::A, Slot::other);
    let bytes = slot::encode(id, summary.sequence, round, &[], &image);
    files.write(id, target, &bytes).await?;
    summary.slot = Some(target);
    summary.circulation = image.circulation();
    summary.locker_coins = image.locker_coins();
    summary.trade_coins = image.trade_coins();
    Ok((id, summary, image))
}

/// A page as it is once the changes that its base lacks are applied.
pub(super) async fn current_image<F: File>(
    files: &PageFiles<F>,
    secret: &NodeSecret,
    id: PageId,
    page: &SurveyedPage,
) -> Result<Box<PageImage>, RecoveryError> {
    let mut image = read_image(files, secret, id, page.summary.slot).await?;
    page.apply(&mut image);
    Ok(image)
}

/// The image in a slot, or that of a page never written.
pub(super) async fn read_image<F: File>(
    files: &PageFiles<F>,
    secret: &NodeSecret,
    id: PageId,
    slot: Option<Slot>,
) -> Result<Box<PageImage>, RecoveryError> {
    let Some(slot) = slot else {
        return Ok(secret.derive_page(id));
    };
    let mut image = PageImage::blank();
    match files.read(id, slot, &mut image).await? {
        Some(_) => Ok(image),
        None => Err(RecoveryError::Damaged(an_fault(id, slot))),
    }
}

/// A slot whose head and months are sound, and whose ANs are not.
pub(super) fn an_fault(page: PageId, slot: Slot) -> Fault {
    Fault {
        file: page_file_name(page.denomination()),
        offset: slot_offset(page, slot) + SLOT_META_BYTES as u64,
        what: format!("the ANs of {page} do not fit their checksum"),
    }
}

/// Makes the logs say that nothing in them counts, the oldest segment of each first, so that what a
/// crash in between leaves is still a log without a gap.
async fn give_up_logs<S: Storage>(
    storage: &S,
    segments: impl Iterator<Item = &String>,
) -> io::Result<()> {
    for name in segments {
        let file = storage.open(name, false).await?;
        file.write_at(&vec![0; BLOCK_BYTES], 0).await?;
        file.sync().await?;
    }
    Ok(())
}

impl SurveyedPage {
    /// Whether anything was ever written to the page.
    pub fn was_written(&self) -> bool {
        self.summary.slot.is_some() || !self.changes.is_empty()
    }

    /// Applies the changes that the base lacks to `image`.
    pub fn apply(&self, image: &mut PageImage) {
        for (_, change) in &self.changes {
            image.ans[change.coin.place()] = change.an;
            image.mfs[change.coin.place()] = change.mfs;
        }
    }

    /// The slot to read for the marked coins that may be in it.
    fn slot_of_marked_coins(&self) -> Option<Slot> {
        let PageSummary {
            locker_coins,
            trade_coins,
            ..
        } = self.summary;
        let has_some = locker_coins > 0 || trade_coins > 0 || self.is_uncounted;
        self.summary
            .slot
            .filter(|_| has_some && self.fault.is_none())
    }

    /// Coins in circulation once the changes are applied.
    pub fn circulating(&self) -> u32 {
        let mut circulation = self.summary.circulation;
        for (_, change) in &self.changes {
            let place = change.coin.place();
            let bit = 1u64 << (place % 64);
            match change.mfs.is_free() {
                true => circulation[place / 64] &= !bit,
                false => circulation[place / 64] |= bit,
            }
        }
        circulation.iter().map(|word| word.count_ones()).sum()
    }

    fn damage(&mut self, page: PageId, slot: Slot, what: &str) {
        self.summary.damaged = true;
        self.fault.get_or_insert_with(|| Fault {
            file: page_file_name(page.denomination()),
            offset: slot_offset(page, slot),
            what: format!("{page}: {what}"),
        });
    }

    fn add(&mut self, sequence: u64, change: Change) {
        self.logged = self.logged.max(sequence);
        let place = change.coin.place();
        self.summary.logged[place / 64] |= 1 << (place % 64);
        if sequence > self.summary.sequence || self.missing.binary_search(&sequence).is_ok() {
            self.changes.push((sequence, change));
            if self.changes.len() >= THIN_OUT {
                self.thin_out();
            }
        }
    }

    /// Keeps the newest change of each coin.
    fn thin_out(&mut self) {
        self.changes
            .sort_by_key(|(sequence, change)| (change.coin, Reverse(*sequence)));
        self.changes.dedup_by_key(|(_, change)| change.coin);
    }
}

#[cfg(test)]
mod tests {
    use crate::runtime::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::runtime::Disk;
    use crate::runtime::run_awake;
    use crate::store::book::Notes;
    use crate::{
        coin::{An, Mfs},
        store::{BOOK_FOLDER, PAGE_FOLDER, record::PageSequence},
    };

    /// A data folder that holds only empty folders.
    fn empty_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in [PAGE_FOLDER, LOG_FOLDER, BOOK_FOLDER] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_from_before_there_were_books_starts_and_has_one_from_then_on() {
        let folder = empty_folder();
        std::fs::remove_dir(folder.path().join(BOOK_FOLDER)).unwrap();
        let secret = NodeSecret::new([1; 16]);
        let page = PageId::from_index(5).unwrap();
        let (mut locker, mut trade) = ([3; 16], [4; 16]);
        locker[12..].fill(0xff);
        trade[13..].copy_from_slice(&[1, 0xee, 0xee]);
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .make()
            .unwrap();
        run_awake(&executor, async {
            let disk = Disk::new(folder.path());
            let files = PageFiles::open(&disk).await.unwrap();
            // Only coins under a trade key, which the head of that version did not count.
            for (index, key) in [(5, trade), (6, locker)] {
                let page = PageId::from_index(index).unwrap();
                let mut image = PageImage::blank();
                (image.ans[9], image.mfs[9]) = (An::new(key), Mfs::new(40));
                let slot = slot::encode(page, 100, 3, &[], &image);
                let slot = slot::tests::of_version(1, slot);
                files.write(page, Slot::A, &slot).await.unwrap();
            }
            std::fs::create_dir(folder.path().join(BOOK_FOLDER)).unwrap(); // as `DataFolder` does
            for _ in 0..2 {
                let recovered = recover(&disk, &secret).await.unwrap();
                let mut coins = recovered.book.coins;
                coins.sort_by_key(|placed| placed.coin);
                let keys: Vec<[u8; 16]> = coins.iter().map(|placed| *placed.key.expose()).collect();
                assert_eq!(keys, [trade, locker]);
                assert_eq!(coins[0].coin, page.coin(9));
                assert!(
                    coins
                        .iter()
                        .all(|placed| placed.stamp == Default::default())
                );
                assert_eq!((recovered.book.moment, recovered.pages_written), (0, 0));
                assert_eq!(recovered.pages[5].trade_coins, 1);
            }
            std::fs::remove_dir_all(folder.path().join(BOOK_FOLDER)).unwrap();
            let refused = recover(&disk, &secret).await.unwrap_err();
            assert!(refused.to_string().contains("book/1-0-a"), "{refused}");
        });
    }

    #[test]
    fn a_change_that_an_image_lacked_survives_two_recoveries() {
        let folder = empty_folder();
        let secret = NodeSecret::new([1; 16]);
        let page = PageId::from_index(5).unwrap();
        let late = Change {
            coin: page.coin(7),
            an: An::new([9; 16]),
            mfs: Mfs::new(40),
        };
        // A checkpoint took the page's image while change 98 was under way and 100 was done.
        let header = SegmentHeader {
            shard: 0,
            number: 0,
            run: 1,
            usage: 2,
            first_batch: 0,
            chain: 0,
            round: 3,
            has_list: false,
        };
        let mut segment = segment::encode_header(&header);
        let mut frame = vec![0; segment::BATCH_HEAD_BYTES];
        let sequence = 98;
        record::encode(
            &[PageSequence { page, sequence }],
            &[late],
            &Notes::default(),
            &mut frame,
        );
        segment::seal_batch(&mut frame, header.usage, 0, 0);
        segment.extend(frame);

        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .make()
            .unwrap();
        run_awake(&executor, async {
            let disk = Disk::new(folder.path());
            // A folder that was used before.
            recover(&disk, &secret).await.unwrap();
            std::fs::write(folder.path().join("log/0-000000.segment"), segment).unwrap();
            let files = PageFiles::open(&disk).await.unwrap();
            let bytes = slot::encode(page, 100, 3, &[98], &PageImage::blank());
            files.write(page, Slot::A, &bytes).await.unwrap();
            assert_eq!(recover(&disk, &secret).await.unwrap().changes, 1);
            for _ in 0..2 {
                let recovered = recover(&disk, &secret).await.unwrap();
                assert_eq!(recovered.pages_written, 0);
                let slot = recovered.pages[page.index()].slot;
                let image = read_image(&files, &secret, page, slot).await.unwrap();
                assert!(image.ans[7] == late.an && image.mfs[7] == late.mfs);
            }
        });
    }
}
