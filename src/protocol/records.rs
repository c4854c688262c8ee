//! Lists of records in a payload. They are read where they lie.

use super::Status;
use crate::coin::{An, Coin};
use std::marker::PhantomData;

/// One record of a list in a payload: a fixed number of bytes that any bytes can be read as.
pub trait Record: Copy {
    /// Bytes a record takes.
    const SIZE: usize;
    /// Reads one; `bytes` has [`Record::SIZE`] bytes.
    fn read(bytes: &[u8]) -> Self;
    /// Appends one.
    fn write(&self, out: &mut Vec<u8>);
}

/// A list of records, borrowed from a payload: at least one.
#[derive(Clone, Copy)]
pub struct Records<'a, R> {
    bytes: &'a [u8],
    record: PhantomData<R>,
}

/// A coin as it stands in a request: DN, SN (5 bytes); `None` where it cannot exist.
pub type Claimed = Option<Coin>;

/// Coins that all can exist: what is left of a list of [`Claimed`] ones after the check.
#[derive(Clone, Copy)]
pub struct Coins<'a>(Records<'a, Claimed>);

impl<'a, R: Record> Records<'a, R> {
    /// Takes the bytes as a list: 16 where there is less than one record, 39 where they do not
    /// divide (PROTOCOL.md section 5).
    #[inline]
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Records<'a, R>, Status> {
        if bytes.len() < R::SIZE {
            Err(Status::INVALID_LENGTH)
        } else if !bytes.len().is_multiple_of(R::SIZE) {
            Err(Status::UNEVEN_RECORDS)
        } else {
            Ok(Records {
                bytes,
                record: PhantomData,
            })
        }
    }

    /// How many records there are.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a list is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len() / R::SIZE
    }

    /// The record with this number, counted from 0; `None` past the last.
    #[inline]
    pub fn get(&self, record: usize) -> Option<R> {
        let start = record.checked_mul(R::SIZE)?;
        let end = start.checked_add(R::SIZE)?;
        self.bytes.get(start..end).map(R::read)
    }

    /// The records, in the order of the request.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = R> + Clone + use<'a, R> {
        self.bytes.chunks_exact(R::SIZE).map(R::read)
    }
}

impl<'a> Records<'a, Claimed> {
    /// The same coins, if all of them can exist; else 40.
    #[inline]
    pub(super) fn all_possible(self) -> Result<Coins<'a>, Status> {
        if self.iter().all(|coin| coin.is_some()) {
            Ok(Coins(self))
        } else {
            Err(Status::INVALID_COIN)
        }
    }
}

impl<'a> Coins<'a> {
    /// How many coins there are.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a list is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The coin with this number, counted from 0; `None` past the last.
    #[inline]
    pub fn get(&self, record: usize) -> Option<Coin> {
        self.0.get(record).flatten()
    }

    /// The coins, in the order of the request.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Coin> + Clone + use<'a> {
        self.0.iter().flatten()
    }
}

/// Appends records one after another.
pub(super) fn write<R: Record>(records: impl IntoIterator<Item = R>, out: &mut Vec<u8>) {
    for record in records {
        record.write(out);
    }
}

/// Sixteen bytes from `at` on, as an authenticity number.
#[inline]
pub(super) fn an_at(bytes: &[u8], at: usize) -> An {
    An::new(std::array::from_fn(|i| bytes[at + i]))
}

impl Record for Claimed {
    const SIZE: usize = Coin::SIZE;

    #[inline]
    fn read(bytes: &[u8]) -> Claimed {
        Coin::from_bytes(&std::array::from_fn(|i| bytes[i]))
    }

    /// A coin that cannot exist is written as one that no denomination has.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.map_or([0x7f, 0, 0, 0, 0], Coin::to_bytes));
    }
}

/// DN, SN, AN: 21 bytes.
impl Record for (Claimed, An) {
    const SIZE: usize = Coin::SIZE + An::SIZE;

    #[inline]
    fn read(bytes: &[u8]) -> (Claimed, An) {
        (Claimed::read(bytes), an_at(bytes, Coin::SIZE))
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        out.extend_from_slice(self.1.expose());
    }
}

/// DN, SN, AN, PAN: 37 bytes.
impl Record for (Claimed, An, An) {
    const SIZE: usize = Coin::SIZE + 2 * An::SIZE;

    #[inline]
    fn read(bytes: &[u8]) -> (Claimed, An, An) {
        (
            Claimed::read(bytes),
            an_at(bytes, Coin::SIZE),
            an_at(bytes, Coin::SIZE + An::SIZE),
        )
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        out.extend_from_slice(self.1.expose());
        out.extend_from_slice(self.2.expose());
    }
}

impl<R: Record> std::fmt::Debug for Records<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records", self.len())
    }
}

impl std::fmt::Debug for Coins<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
