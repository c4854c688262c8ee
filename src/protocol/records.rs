//! Lists of records in a payload. They are read in place.

use super::Status;
use crate::coin::{An, Coin};

/// One record of a list in a payload: a fixed number of bytes that any bytes can be read as.
pub trait Record: Copy {
    /// The bytes of one record: an array.
    type Bytes;
    /// Splits a list into its records and the bytes that are left over.
    fn split(list: &[u8]) -> (&[Self::Bytes], &[u8]);
    /// Reads one.
    fn read(bytes: &Self::Bytes) -> Self;
    /// Appends one.
    fn write(&self, out: &mut Vec<u8>);
}

/// A list of records, borrowed from a payload: at least one.
pub struct Records<'a, R: Record> {
    records: &'a [R::Bytes],
}

/// A coin as it stands in a request: DN, SN (5 bytes); `None` where it cannot exist.
pub type Claimed = Option<Coin>;

/// Coins that can all exist: the result of checking a list of [`Claimed`] coins.
#[derive(Clone, Copy)]
pub struct Coins<'a>(Records<'a, Claimed>);

impl<'a, R: Record> Records<'a, R> {
    /// Takes the bytes as a list: 16 where there is less than one record, 39 where they do not
    /// divide (docs/protocol.md section 5).
    #[inline]
    pub(super) fn parse(list: &'a [u8]) -> Result<Records<'a, R>, Status> {
        match R::split(list) {
            ([], _) => Err(Status::INVALID_LENGTH),
            (records, []) => Ok(Records { records }),
            _ => Err(Status::UNEVEN_RECORDS),
        }
    }

    /// Number of records: 1 or more.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a list is never empty")]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The record with this number, counted from 0; `None` past the last.
    #[inline]
    pub fn get(&self, record: usize) -> Option<R> {
        self.records.get(record).map(R::read)
    }

    /// The records, in the order of the request.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = R> + Clone + use<'a, R> {
        self.records.iter().map(R::read)
    }
}

// Not derived: a derived implementation would require it of the record as well.
impl<R: Record> Clone for Records<'_, R> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Record> Copy for Records<'_, R> {}

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
    /// Number of coins.
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

impl Record for Claimed {
    type Bytes = [u8; Coin::SIZE];

    #[inline]
    fn split(list: &[u8]) -> (&[Self::Bytes], &[u8]) {
        list.as_chunks()
    }

    #[inline]
    fn read(bytes: &Self::Bytes) -> Claimed {
        Coin::from_bytes(bytes)
    }

    /// A coin that cannot exist is written with a denomination that does not exist.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.map_or([0x7f, 0, 0, 0, 0], Coin::to_bytes));
    }
}

/// DN, SN, AN: 21 bytes.
impl Record for (Claimed, An) {
    type Bytes = [u8; Coin::SIZE + An::SIZE];

    #[inline]
    fn split(list: &[u8]) -> (&[Self::Bytes], &[u8]) {
        list.as_chunks()
    }

    #[inline]
    fn read(bytes: &Self::Bytes) -> (Claimed, An) {
        (
            Claimed::read(&std::array::from_fn(|i| bytes[i])),
            An::new(std::array::from_fn(|i| bytes[Coin::SIZE + i])),
        )
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        out.extend_from_slice(self.1.expose());
    }
}

/// DN, SN, AN, PAN: 37 bytes.
impl Record for (Claimed, An, An) {
    type Bytes = [u8; Coin::SIZE + 2 * An::SIZE];

    #[inline]
    fn split(list: &[u8]) -> (&[Self::Bytes], &[u8]) {
        list.as_chunks()
    }

    #[inline]
    fn read(bytes: &Self::Bytes) -> (Claimed, An, An) {
        (
            Claimed::read(&std::array::from_fn(|i| bytes[i])),
            An::new(std::array::from_fn(|i| bytes[Coin::SIZE + i])),
            An::new(std::array::from_fn(|i| bytes[Coin::SIZE + An::SIZE + i])),
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
