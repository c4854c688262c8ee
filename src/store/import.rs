//! Coins from elsewhere into a data folder that no node serves.
//!
//! Every page that changes is written in full into the slot that holds its older image, in a
//! checkpoint round of its own. A crash at any moment leaves each page in its old or its new state,
//! and the same import, run again, does the rest.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    page_file::{Extents, PageFiles, Slot},
    recovery::{self, PageSummary, RecoveryError},
    round,
    secret::NodeSecret,
    slot::{self, PageImage},
};
use crate::coin::{An, COINS_PER_PAGE, Coin, Denomination, Mfs, PageId};
use crate::runtime::{File, Storage};

/// Pages read or written at once.
const PARALLEL: usize = 64;
/// Conflicts that are named; the others are counted.
const EXAMPLES: usize = 5;

/// Coins and pages to put into a data folder, all of it in memory: 17.5 KB for each page that it
/// touches.
#[derive(Default)]
pub struct Import {
    pages: BTreeMap<PageId, Page>,
}

/// What an import says of one page.
struct Page {
    image: Box<PageImage>,
    /// One bit a place, set where the import says something of it; the others stay as they are.
    given: [u64; COINS_PER_PAGE / 64],
}

/// What to do with a coin in circulation that an import contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Write nothing at all: it is somebody's coin.
    Refuse,
    /// What the import says counts.
    Replace,
}

/// How an import ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The data folder holds what the import says, durably.
    Done(Counts),
    /// Nothing was written.
    Refused(Conflicts),
}

/// What an import did to coins that were in circulation before it or are after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Coins that were free.
    pub new: u64,
    /// Coins that were the same already.
    pub unchanged: u64,
    /// Coins that had another AN or other months.
    pub replaced: u64,
    /// Coins taken out of circulation.
    pub freed: u64,
    /// Pages written.
    pub pages_written: u64,
}

/// Coins in circulation that an import contradicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// How many.
    pub count: u64,
    /// The first few.
    pub examples: Vec<Conflict>,
}

/// One such coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The coin.
    pub coin: Coin,
    /// What is different.
    pub difference: Difference,
}

/// What an import would change of a coin in circulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Its AN, and perhaps its months.
    An,
    /// Its months alone.
    Months {
        /// In the data folder.
        here: Mfs,
        /// In the import.
        there: Mfs,
    },
    /// The import says that it is free.
    Free,
}

impl Import {
    /// Adds a whole page, the ANs of free coins included.
    pub fn add_page(&mut self, page: PageId, image: Box<PageImage>) {
        let given = [u64::MAX; COINS_PER_PAGE / 64];
        self.pages.insert(page, Page { image, given });
    }

    /// Adds a coin.
    pub fn add_coin(&mut self, coin: Coin, an: An, mfs: Mfs) {
        let page = self.pages.entry(coin.page()).or_insert_with(|| Page {
            image: PageImage::blank(),
            given: [0; COINS_PER_PAGE / 64],
        });
        let place = coin.place();
        page.image.ans[place] = an;
        page.image.mfs[place] = mfs;
        page.given[place / 64] |= 1 << (place % 64);
    }

    /// Pages that it says something of.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Coins that it puts into circulation, by denomination index.
    pub fn coins(&self) -> [u32; Denomination::COUNT] {
        let mut coins = [0; Denomination::COUNT];
        for (id, page) in &self.pages {
            let circulation = page.image.circulation();
            let count: u32 = circulation.iter().map(|word| word.count_ones()).sum();
            coins[id.denomination().index()] += count;
        }
        coins
    }
}

/// Brings a data folder in order, then puts `import` into it. Tells `progress` whenever a page is
/// compared and whenever one is written or need not be: twice a page of the import.
///
/// # Errors
/// Where the storage fails: pages written before that keep what they got. Where anything in the
/// folder is damaged: then nothing is written.
pub async fn import<S: Storage>(
    storage: &S,
    secret: &NodeSecret,
    import: &Import,
    on_conflict: OnConflict,
    progress: impl Fn(),
) -> Result<Outcome, RecoveryError> {
    let recovered = recovery::recover(storage, secret).await?;
    if let Some(fault) = recovered.faults.into_iter().next() {
        return Err(RecoveryError::Damaged(fault));
    }
    let target = Target {
        files: PageFiles::open(storage).await?,
        secret,
        summaries: &recovered.pages,
        round: recovery::next_round(recovered.round)?,
    };
    let mut compared: Vec<(PageId, Comparison)> = stream::iter(&import.pages)
        .map(async |(&id, page)| {
            let comparison = target.compare(id, page).await;
            progress();
            comparison.map(|comparison| (id, comparison))
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    compared.sort_by_key(|&(id, _)| id);

    let mut counts = Counts::default();
    let mut conflicts = Conflicts::default();
    let mut stale = Vec::new();
    for (id, comparison) in compared {
        counts.new += comparison.counts.new;
        counts.unchanged += comparison.counts.unchanged;
        counts.replaced += comparison.counts.replaced;
        counts.freed += comparison.counts.freed;
        conflicts.count += comparison.counts.replaced + comparison.counts.freed;
        let room = EXAMPLES - conflicts.examples.len();
        conflicts
            .examples
            .extend(comparison.conflicts.into_iter().take(room));
        match comparison.differs {
            true => stale.push(id),
            false => progress(),
        }
    }
    if conflicts.count > 0 && on_conflict == OnConflict::Refuse {
        return Ok(Outcome::Refused(conflicts));
    }
    counts.pages_written = stale.len() as u64;
    target.write(&stale, &import.pages, progress).await?;
    if !stale.is_empty() {
        let images = recovered
            .pages
            .iter()
            .enumerate()
            .filter_map(|(index, summary)| {
                let id = PageId::from_index(index).expect("there is a summary a page");
                Some((id, summary.slot?))
            });
        let images = images.chain(stale.iter().map(|&id| (id, target.slot(id))));
        let extents = Extents::of(images);
        round::write(storage, target.round, &extents, recovered.round).await?;
    }
    Ok(Outcome::Done(counts))
}

/// The pages that an import goes into.
struct Target<'a, F> {
    files: PageFiles<F>,
    secret: &'a NodeSecret,
    summaries: &'a [PageSummary],
    round: u64,
}

/// What an import would change in a page.
#[derive(Default)]
struct Comparison {
    counts: Counts,
    conflicts: Vec<Conflict>,
    differs: bool,
}

impl<F: File> Target<'_, F> {
    async fn compare(&self, id: PageId, page: &Page) -> Result<Comparison, RecoveryError> {
        let slot = self.summaries[id.index()].slot;
        let mut comparison = Comparison {
            // A page that the import knows is written even where it has no coin in circulation.
            differs: slot.is_none(),
            ..Comparison::default()
        };
        let old = match slot {
            None => PageImage::blank(), // its ANs are nobody's, so nothing is lost with them
            Some(_) => recovery::read_image(&self.files, self.secret, id, slot).await?,
        };
        for place in page.places() {
            let (here, there) = (old.mfs[place], page.image.mfs[place]);
            let same_an = old.ans[place] == page.image.ans[place];
            comparison.differs |= !same_an || here != there;
            let counts = &mut comparison.counts;
            let difference = match (here.is_free(), there.is_free()) {
                (true, true) => continue,
                (true, false) => {
                    counts.new += 1;
                    continue;
                }
                (false, false) if same_an && here == there => {
                    counts.unchanged += 1;
                    continue;
                }
                (false, false) if same_an => Difference::Months { here, there },
                (false, false) => Difference::An,
                (false, true) => Difference::Free,
            };
            match difference {
                Difference::Free => counts.freed += 1,
                Difference::An | Difference::Months { .. } => counts.replaced += 1,
            }
            if comparison.conflicts.len() < EXAMPLES {
                let coin = id.coin(place);
                comparison.conflicts.push(Conflict { coin, difference });
            }
        }
        Ok(comparison)
    }

    /// Writes these pages, durably.
    async fn write(
        &self,
        stale: &[PageId],
        pages: &BTreeMap<PageId, Page>,
        progress: impl Fn(),
    ) -> Result<(), RecoveryError> {
        let mut writes = stream::iter(stale)
            .map(async |&id| {
                let written = self.write_page(id, &pages[&id]).await;
                progress();
                written
            })
            .buffer_unordered(PARALLEL);
        while let Some(written) = writes.next().await {
            written?;
        }
        for denomination in Denomination::all() {
            if stale.iter().any(|id| id.denomination() == denomination) {
                self.files.sync(denomination).await?;
            }
        }
        Ok(())
    }

    async fn write_page(&self, id: PageId, page: &Page) -> Result<(), RecoveryError> {
        let summary = &self.summaries[id.index()];
        let sequence = summary.sequence + 1;
        let merged;
        let image = if page.is_whole() {
            &page.image
        } else {
            let mut old = recovery::read_image(&self.files, self.secret, id, summary.slot).await?;
            for place in page.places() {
                old.ans[place] = page.image.ans[place];
                old.mfs[place] = page.image.mfs[place];
            }
            merged = old;
            &merged
        };
        let bytes = slot::encode(id, sequence, self.round, &[], image);
        Ok(self.files.write(id, self.slot(id), &bytes).await?)
    }

    /// The slot of a page to write: the one without its newest image.
    fn slot(&self, id: PageId) -> Slot {
        self.summaries[id.index()].slot.map_or(Slot::A, Slot::other)
    }
}

impl Page {
    fn is_whole(&self) -> bool {
        self.given.iter().all(|&word| word == u64::MAX)
    }

    /// The places that the import says something of.
    fn places(&self) -> impl Iterator<Item = usize> {
        (0..COINS_PER_PAGE).filter(|place| self.given[place / 64] >> (place % 64) & 1 == 1)
    }
}
