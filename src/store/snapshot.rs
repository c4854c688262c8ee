//! A data folder as it will be once its logs are applied, without applying them: nothing on disk
//! changes.

use futures_util::stream::{self, StreamExt};

use super::{
    page_file::PageFiles,
    read_only::{ReadOnly, ReadOnlyFile},
    recovery::{self, RecoveryError, SurveyedPage},
    secret::NodeSecret,
    slot::PageImage,
};
use crate::coin::{Denomination, PageId};
use crate::runtime::Storage;

/// Pages read ahead of the one that is looked at.
const PARALLEL: usize = 32;

/// What a node would serve from a data folder.
pub struct Snapshot<S: Storage> {
    files: PageFiles<ReadOnlyFile<S::File>>,
    secret: NodeSecret,
    /// The pages that were ever written, by rising index.
    pages: Vec<(PageId, Box<SurveyedPage>)>,
}

impl<S: Storage> Snapshot<S> {
    /// Reads the logs and the heads of all pages.
    ///
    /// # Errors
    /// Where the storage fails, or anything in the folder is damaged: half a folder must not pass
    /// for the whole.
    pub async fn open(storage: &S, secret: &NodeSecret) -> Result<Snapshot<S>, RecoveryError> {
        let storage = ReadOnly::new(storage.clone(), |_| ());
        let files = PageFiles::open_existing(&storage).await?;
        let survey = recovery::survey(&storage, &files).await?;
        if let Some(fault) = survey.lost.into_iter().next() {
            return Err(RecoveryError::Lost(fault));
        }
        let mut faults = survey.log_faults.into_iter().chain(survey.faults);
        match faults.next() {
            Some(fault) => Err(RecoveryError::Damaged(fault)),
            None => Ok(Snapshot {
                files,
                secret: secret.clone(),
                pages: PageId::all()
                    .zip(survey.pages)
                    .filter_map(|(id, page)| Some((id, page?)))
                    .filter(|(_, page)| page.was_written())
                    .collect(),
            }),
        }
    }

    /// How many pages were ever written.
    pub fn written(&self) -> usize {
        self.pages.len()
    }

    /// Coins in circulation, by denomination index.
    pub fn coins(&self) -> [u32; Denomination::COUNT] {
        let mut coins = [0; Denomination::COUNT];
        for (id, surveyed) in &self.pages {
            coins[id.denomination().index()] += surveyed.circulating();
        }
        coins
    }

    /// Calls `each` for every page that was ever written, by rising index, until it gives `false`.
    ///
    /// # Errors
    /// Where a page is damaged or cannot be read.
    pub async fn for_each_page(
        &self,
        mut each: impl FnMut(PageId, &PageImage) -> bool,
    ) -> Result<(), RecoveryError> {
        let mut pages = stream::iter(&self.pages)
            .map(async |(id, surveyed)| {
                let image = recovery::current_image(&self.files, &self.secret, *id, surveyed);
                (*id, image.await)
            })
            .buffered(PARALLEL);
        while let Some((id, image)) = pages.next().await {
            if !each(id, &*image?) {
                break;
            }
        }
        Ok(())
    }
}
