//! Work on a data folder that no node serves, from an ordinary thread.

use std::{cell::OnceCell, io, path::Path};

use crate::runtime::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::{
    folder::{DataFolder, FolderError, NodeIdentity},
    import::{self, Import, OnConflict, Outcome},
    rebuild::{self, Rebuilt},
    recovery::RecoveryError,
    secret::NodeSecret,
    slot::PageImage,
    snapshot::Snapshot,
    verify::{self, Report},
};
use crate::coin::{Denomination, PageId};
use crate::runtime::{Disk, run_awake};
use crate::shown::{Shown, remedy};

/// A data folder that this process alone works on, and serves to nobody.
///
/// Its methods block until they are done. They run an executor on the calling thread, which must
/// not be one already.
pub struct OfflineFolder {
    folder: DataFolder,
    secret: NodeSecret,
    /// One executor for all work: glommio 0.9.0 never closes the eventfd of an executor that ran a
    /// task.
    executor: OnceCell<LocalExecutor>,
}

/// Why a data folder could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It is in use, missing, or cannot be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It is damaged, or the disk failed.
    #[error("{folder}: {error}{next}", next = next_step(.folder, .error))]
    Store {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        error: RecoveryError,
    },
    /// The kernel gives no io_uring.
    #[error(
        "cannot read and write with io_uring: {0}; it takes a Linux kernel from 5.8 on, and permission to use it"
    )]
    Executor(String),
}

/// What a person can do about it, as the end of a sentence.
fn next_step(folder: &str, error: &RecoveryError) -> String {
    match error {
        RecoveryError::Damaged(_) => format!(
            "; `raida check --data {folder}` says all that is damaged, a backup brings it back"
        ),
        RecoveryError::Lost(_) => {
            format!("; `raida check --data {folder}` says all that is gone")
        }
        RecoveryError::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
            "; make room and run the same command again".to_owned()
        }
        RecoveryError::Io(error) => remedy(error).to_owned(),
    }
}

impl OfflineFolder {
    /// Opens a data folder and locks it, making it where it is missing and `create` is set.
    ///
    /// # Errors
    /// Where it is in use, missing, or cannot be read and written.
    pub fn open(path: &Path, create: bool) -> Result<OfflineFolder, FolderError> {
        let folder = DataFolder::open(path, create)?;
        let secret = folder.secret()?;
        Ok(OfflineFolder {
            folder,
            secret,
            executor: OnceCell::new(),
        })
    }

    /// Takes note whose folder it is, where nothing says that yet.
    ///
    /// # Errors
    /// It is another node's; or the file system fails.
    pub fn serve_as(&self, node: NodeIdentity) -> Result<(), FolderError> {
        self.folder.serve_as(node)
    }

    /// Whether opening it made it.
    pub fn was_created(&self) -> bool {
        self.folder.was_created()
    }

    /// Verifies everything in it, changing nothing. Tells `progress` bytes read and bytes to read.
    ///
    /// # Errors
    /// The disk failed.
    pub fn verify(&self, progress: impl Fn(u64, u64) + 'static) -> Result<Report, OfflineError> {
        self.run(async |disk| Ok(verify::verify(&disk, progress).await?))
    }

    /// Rewrites data that is damaged and follows from other data.
    ///
    /// # Errors
    /// Data is damaged that follows from no other data, or the disk failed.
    pub fn rebuild(&self) -> Result<Rebuilt, OfflineError> {
        self.run(async |disk| rebuild::rebuild(&disk, &self.secret).await)
    }

    /// Puts coins into it. Tells `progress` twice a page of the import.
    ///
    /// # Errors
    /// It is damaged, or the disk failed or is full.
    pub fn import(
        &self,
        import: &Import,
        on_conflict: OnConflict,
        progress: impl Fn(),
    ) -> Result<Outcome, OfflineError> {
        self.run(async |disk| {
            import::import(&disk, &self.secret, import, on_conflict, progress).await
        })
    }

    /// Coins in circulation by denomination index, changing nothing.
    ///
    /// # Errors
    /// It is damaged, or the disk failed.
    pub fn coins(&self) -> Result<[u32; Denomination::COUNT], OfflineError> {
        self.run(async |disk| Ok(Snapshot::open(&disk, &self.secret).await?.coins()))
    }

    /// Calls `each` for every page that was ever written, by rising index, changing nothing. Tells
    /// `start` first how many there are.
    ///
    /// # Errors
    /// It is damaged, the disk failed, or `each` fails.
    pub fn for_each_page<E: From<OfflineError>>(
        &self,
        start: impl FnOnce(u64),
        mut each: impl FnMut(PageId, &PageImage) -> Result<(), E>,
    ) -> Result<(), E> {
        // The error of `each` is kept aside, so that it stays apart from the store's errors.
        let mut outcome = Ok(());
        self.run(async |disk| {
            let snapshot = Snapshot::open(&disk, &self.secret).await?;
            start(snapshot.written() as u64);
            let each = |page, image: &PageImage| {
                outcome = each(page, image);
                outcome.is_ok()
            };
            snapshot.for_each_page(each).await
        })?;
        outcome
    }

    fn executor(&self) -> Result<&LocalExecutor, OfflineError> {
        if let Some(executor) = self.executor.get() {
            return Ok(executor);
        }
        let made = LocalExecutorBuilder::new(Placement::Unbound).make();
        let made = made.map_err(|error| OfflineError::Executor(error.to_string()))?;
        Ok(self.executor.get_or_init(|| made))
    }

    fn run<T>(
        &self,
        work: impl AsyncFnOnce(Disk) -> Result<T, RecoveryError>,
    ) -> Result<T, OfflineError> {
        let path = self.folder.path();
        let done = run_awake(self.executor()?, async { work(Disk::new(path)).await });
        done.map_err(|error| OfflineError::Store {
            folder: path.shown().to_string(),
            error,
        })
    }
}
