//! Rewrites data that follows from other data: the book from pages, logs and the readable part of
//! the book files, and page heads with wrong counts.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    book::{Gathered, Losses},
    page_file::{page_file_name, slot_offset},
    recovery::{self, Fault, OnLoss, RecoveryError},
    secret::NodeSecret,
    slot::PageImage,
    verify::miscount,
};
use crate::coin::PageId;
use crate::runtime::Storage;

/// Pages read at once.
const PARALLEL: usize = 64;

/// The damage in a data folder that is now repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was wrong.
    pub repaired: Vec<Fault>,
    /// What of the book could not be saved; `None` where the book was sound.
    pub losses: Option<Losses>,
}

/// Brings a data folder in order as a recovery does, though its book is damaged or heads count
/// wrong.
///
/// A crash on the way leaves a folder that is still damaged, with everything readable that was
/// readable before. Only a missing book file is not reported a second time.
///
/// # Errors
/// Where the storage fails, or where data is damaged that follows from no other data: the logs,
/// pages that they change, page files that are gone. Where a newer program wrote the book.
pub async fn rebuild<S: Storage>(
    storage: &S,
    secret: &NodeSecret,
) -> Result<Rebuilt, RecoveryError> {
    let (files, mut survey) = recovery::open(storage, OnLoss::Refuse).await?;
    if let Some(fault) = survey.books.of_another_version() {
        return Err(RecoveryError::Damaged(fault));
    }
    let mut repaired = survey.books.faults.clone();
    let unread = &mut Gathered::default();
    repaired.extend(survey.books.read(storage, unread).await?);
    let losses = match repaired.is_empty() {
        true => {
            survey.books.read(storage, &mut survey.gathered).await?;
            None
        }
        false => Some(survey.books.salvage(storage, &mut survey.gathered).await?),
    };
    let written = PageId::all().zip(&survey.pages);
    let written =
        written.filter(|(_, page)| page.as_ref().is_some_and(|page| page.fault.is_none()));
    let slots = written.filter_map(|(id, page)| Some((id, page.as_ref()?.summary.slot?)));
    let wrong: Vec<(PageId, Fault)> = stream::iter(slots.collect::<Vec<_>>())
        .map(async |(id, slot)| {
            let mut image = PageImage::blank();
            let meta = files.read(id, slot, &mut image).await?;
            let wrong = meta.and_then(|meta| miscount(&meta.head, &image));
            let fault = |(at, what): (usize, String)| Fault {
                file: page_file_name(id.denomination()),
                offset: slot_offset(id, slot) + at as u64,
                what: format!("{id}: {what}"),
            };
            Ok::<_, RecoveryError>(wrong.map(|wrong| (id, fault(wrong))))
        })
        .buffered(PARALLEL)
        .try_filter_map(async |wrong| Ok(wrong))
        .try_collect()
        .await?;
    for (id, fault) in wrong {
        let page = survey.pages[id.index()].as_mut();
        page.expect("it was read by what the survey says").rewrite = true;
        repaired.push(fault);
    }
    recovery::bring_in_order(storage, secret, &files, survey).await?;
    Ok(Rebuilt { repaired, losses })
}
