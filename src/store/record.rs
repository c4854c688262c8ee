//! A log record: the new values of the coins that one request changed together, page by page.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 4 | length of what follows |
//! | 2 | pages, then for each: |
//! | 2, 2, 8 | page index, coins, sequence |
//! | 2, 1, 16 each coin | place, MFS, AN |
//!
//! Checksums are the batch's (see `log`): a batch is whole or is not there.

use super::book::Notes;
use crate::coin::{An, COINS_PER_PAGE, Coin, Mfs, PageId};

const LENGTH_BYTES: usize = 4;
const PAGE_BYTES: usize = 12;
const CHANGE_BYTES: usize = 19;

/// A coin's new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The coin.
    pub coin: Coin,
    /// Its authenticity number from now on.
    pub an: An,
    /// Its months from now on; [`Mfs::FREE`] takes it out of circulation.
    pub mfs: Mfs,
}

/// A page that a record changes, and the number which its owner gave the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSequence {
    /// The page.
    pub page: PageId,
    /// The change's place in the order of this page's changes.
    pub sequence: u64,
}

/// Bytes that [`encode`] will append.
pub fn encoded_bytes(pages: usize, changes: usize, _notes: &Notes) -> usize {
    LENGTH_BYTES + 2 + pages * PAGE_BYTES + changes * CHANGE_BYTES
}

/// Appends a record. `changes` are in rising order of coin, each coin once, and `pages` names each
/// of their pages once, in rising order.
pub fn encode(pages: &[PageSequence], changes: &[Change], notes: &Notes, out: &mut Vec<u8>) {
    debug_assert!(changes.is_sorted_by(|a, b| a.coin < b.coin));
    let length = encoded_bytes(pages.len(), changes.len(), notes) - LENGTH_BYTES;
    out.reserve(LENGTH_BYTES + length);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&(pages.len() as u16).to_le_bytes());
    let mut rest = changes;
    for page in pages {
        let here = rest
            .iter()
            .take_while(|c| c.coin.page() == page.page)
            .count();
        assert!(here > 0, "a record names a page that it does not change");
        let (these, others) = rest.split_at(here);
        out.extend_from_slice(&(page.page.index() as u16).to_le_bytes());
        out.extend_from_slice(&(here as u16).to_le_bytes());
        out.extend_from_slice(&page.sequence.to_le_bytes());
        for change in these {
            out.extend_from_slice(&(change.coin.place() as u16).to_le_bytes());
            out.push(change.mfs.get());
            out.extend_from_slice(change.an.expose());
        }
        rest = others;
    }
    assert!(
        rest.is_empty(),
        "a record changes a page that it does not name"
    );
}

/// A record that cannot be read although the checksums over it fit: not written by this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed log record at byte {at} of its batch")]
pub struct Malformed {
    /// Where in the batch.
    pub at: usize,
}

/// Calls `each` for every change of every record in a batch, in order.
///
/// # Errors
/// At the first byte that is not what [`encode`] writes.
pub fn decode_all(
    batch: &[u8],
    mut each: impl FnMut(PageSequence, Change),
) -> Result<(), Malformed> {
    let mut reader = Reader {
        bytes: batch,
        at: 0,
    };
    while reader.at < batch.len() {
        let length = u32::from_le_bytes(reader.take()?) as usize;
        let end = reader.at + length;
        let pages = u16::from_le_bytes(reader.take()?);
        for _ in 0..pages {
            let page = u16::from_le_bytes(reader.take()?) as usize;
            let page = PageId::from_index(page).ok_or(Malformed { at: reader.at })?;
            let coins = u16::from_le_bytes(reader.take()?);
            let sequence = u64::from_le_bytes(reader.take()?);
            for _ in 0..coins {
                let place = u16::from_le_bytes(reader.take()?) as usize;
                if place >= COINS_PER_PAGE {
                    return Err(Malformed { at: reader.at });
                }
                let [mfs] = reader.take()?;
                let change = Change {
                    coin: page.coin(place),
                    mfs: Mfs::new(mfs),
                    an: An::new(reader.take()?),
                };
                each(PageSequence { page, sequence }, change);
            }
        }
        if reader.at != end {
            return Err(Malformed { at: reader.at });
        }
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let end = self.at + N;
        let bytes = self
            .bytes
            .get(self.at..end)
            .ok_or(Malformed { at: self.at })?;
        self.at = end;
        Ok(bytes.try_into().expect("the slice has N bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(page: usize, place: usize) -> Change {
        Change {
            coin: PageId::from_index(page).unwrap().coin(place),
            an: An::new([place as u8; 16]),
            mfs: Mfs::new(7),
        }
    }

    #[test]
    fn records_read_back_in_order() {
        let first = [change(3, 1), change(3, 900), change(14_999, 0)];
        let second = [change(3, 1)];
        let at = |page, sequence| PageSequence {
            page: PageId::from_index(page).unwrap(),
            sequence,
        };
        let mut batch = Vec::new();
        encode(
            &[at(3, 10), at(14_999, 4)],
            &first,
            &Notes::default(),
            &mut batch,
        );
        assert_eq!(batch.len(), encoded_bytes(2, 3, &Notes::default()));
        encode(&[at(3, 11)], &second, &Notes::default(), &mut batch);
        let mut seen = Vec::new();
        decode_all(&batch, |page, change| seen.push((page.sequence, change))).unwrap();
        let want = [
            (10, first[0]),
            (10, first[1]),
            (4, first[2]),
            (11, second[0]),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn any_cut_but_between_records_is_malformed() {
        let mut batch = Vec::new();
        let page = PageId::from_index(3).unwrap();
        encode(
            &[PageSequence { page, sequence: 1 }],
            &[change(3, 1)],
            &Notes::default(),
            &mut batch,
        );
        for length in 1..batch.len() {
            assert!(decode_all(&batch[..length], |_, _| ()).is_err(), "{length}");
        }
    }
}
