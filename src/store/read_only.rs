use std::{cell::Cell, io, rc::Rc};

use crate::runtime::{File, Storage};

/// A data folder that refuses every change. Counts what is read.
#[derive(Clone)]
pub(super) struct ReadOnly<S> {
    storage: S,
    meter: Rc<Meter>,
}

/// A file of a [`ReadOnly`] folder.
pub(super) struct ReadOnlyFile<F> {
    file: F,
    meter: Rc<Meter>,
}

struct Meter {
    bytes: Cell<u64>,
    progress: Box<dyn Fn(u64)>,
}

impl<S: Storage> ReadOnly<S> {
    /// Reads from `storage`, and tells `progress` after each read how many bytes were read in all.
    pub fn new(storage: S, progress: impl Fn(u64) + 'static) -> ReadOnly<S> {
        ReadOnly {
            storage,
            meter: Rc::new(Meter {
                bytes: Cell::new(0),
                progress: Box::new(progress),
            }),
        }
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.meter.bytes.get()
    }
}

impl<S: Storage> Storage for ReadOnly<S> {
    type File = ReadOnlyFile<S::File>;

    async fn open(&self, name: &str, create: bool) -> io::Result<Self::File> {
        if create {
            return refused();
        }
        Ok(ReadOnlyFile {
            file: self.storage.open(name, false).await?,
            meter: self.meter.clone(),
        })
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.storage.list(folder).await
    }

    async fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }
}

impl<F: File> File for ReadOnlyFile<F> {
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.file.read_at(offset, length).await?;
        let meter = &self.meter;
        meter.bytes.set(meter.bytes.get() + length as u64);
        (meter.progress)(meter.bytes.get());
        Ok(bytes)
    }

    async fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn length(&self) -> io::Result<u64> {
        self.file.length().await
    }

    async fn set_length(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    async fn reserve(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.file.is_same(&other.file)
    }

    fn is_unlinked(&self) -> bool {
        self.file.is_unlinked()
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}
