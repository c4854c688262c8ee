//! A log record: the new values of the coins that one request changed together, page by page, and
//! what the node has to remember beside them.
//!
//! | bytes | content (little-endian) |
//! |---|---|
//! | 4 | length of what follows |
//! | 2 | pages, then for each: |
//! | 2, 2, 8 | page index, coins, sequence |
//! | 2, 1, 16 each coin | place, MFS, AN |
//!
//! Where the record has notes, they follow; where it has none, its length says so:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | moment, 1 to 2^62 |
//! | 1 | which of the last three parts there are: 1 sale, 2 ended, 4 payment |
//! | 4 | changes to marked numbers, then for each: |
//! | 4 | rank |
//! | 16, 1, n | a sale begins: trade key, bytes of the address, address |
//! | 16 | a sale ends: trade key |
//! | 32, 16 | a payment is used up: its name, its digest |
//!
//! The sale and the payment are of the record's moment. Checksums are the batch's (see `log`): a
//! batch is whole or is not there.

use super::book::{Notes, Payment, PaymentId, Sale, Stamp};
use crate::coin::{An, COINS_PER_PAGE, Coin, Mfs, PageId};

const LENGTH_BYTES: usize = 4;
const PAGE_BYTES: usize = 12;
const CHANGE_BYTES: usize = 19;
/// Notes without ranks and without any of the parts that may be there.
const NOTES_BYTES: usize = 13;
const RANK_BYTES: usize = 4;
/// A sale without its address.
const SALE_BYTES: usize = An::SIZE + 1;
const PAYMENT_BYTES: usize = size_of::<PaymentId>() + 16;

const SALE: u8 = 1;
const ENDED: u8 = 2;
const PAYMENT: u8 = 4;

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
pub fn encoded_bytes(pages: usize, changes: usize, notes: &Notes) -> usize {
    LENGTH_BYTES + 2 + pages * PAGE_BYTES + changes * CHANGE_BYTES + notes_bytes(notes)
}

fn notes_bytes(notes: &Notes) -> usize {
    if notes.moment == 0 {
        return 0;
    }
    let address = |sale: &Sale| SALE_BYTES + sale.address.len();
    NOTES_BYTES
        + notes.ranks.len() * RANK_BYTES
        + notes.sale.as_ref().map_or(0, address)
        + notes.ended.map_or(0, |_| An::SIZE)
        + notes.payment.map_or(0, |_| PAYMENT_BYTES)
}

/// Appends a record. `changes` are in rising order of coin, each coin once, and `pages` names each
/// of their pages once, in rising order.
///
/// # Panics
/// Where pages and changes do not belong together, or notes that have a moment are not of these
/// changes: one rank for each to a marked number, and sale and payment of the notes' moment.
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
    if notes.moment != 0 {
        encode_notes(changes, notes, out);
    }
}

fn encode_notes(changes: &[Change], notes: &Notes, out: &mut Vec<u8>) {
    let marked = changes.iter().filter(|c| c.an.is_marked()).count();
    assert_eq!(
        notes.ranks.len(),
        marked,
        "each change to a marked number has a rank, and no other"
    );
    let same_moment = |moment: u64| {
        assert_eq!(moment, notes.moment, "a record is of one moment");
    };
    let part = |is_there: bool, part: u8| if is_there { part } else { 0 };
    let parts = part(notes.sale.is_some(), SALE)
        | part(notes.ended.is_some(), ENDED)
        | part(notes.payment.is_some(), PAYMENT);
    out.extend_from_slice(&notes.moment.to_le_bytes());
    out.push(parts);
    out.extend_from_slice(&(marked as u32).to_le_bytes());
    for rank in &notes.ranks {
        out.extend_from_slice(&rank.to_le_bytes());
    }
    if let Some(sale) = &notes.sale {
        same_moment(sale.moment);
        let length = u8::try_from(sale.address.len());
        out.extend_from_slice(sale.key.expose());
        out.push(length.expect("an address has no more than Sale::ADDRESS_MAX bytes"));
        out.extend_from_slice(&sale.address);
    }
    if let Some(key) = &notes.ended {
        out.extend_from_slice(key.expose());
    }
    if let Some(payment) = &notes.payment {
        same_moment(payment.moment);
        out.extend_from_slice(&payment.id);
        out.extend_from_slice(&payment.digest);
    }
}

/// A record that cannot be read although the checksums over it fit: not written by this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed log record at byte {at} of its batch")]
pub struct Malformed {
    /// Where in the batch.
    pub at: usize,
}

/// A record as it was read back.
#[derive(Debug, Default)]
pub struct Record {
    /// Its changes, in rising order of coin, and where each stands in its page's order.
    pub changes: Vec<(PageSequence, Change)>,
    /// The record's notes.
    pub notes: Notes,
}

impl Record {
    /// The changes to marked numbers, with their ranks; none where the record has no notes.
    pub fn ranked(&self) -> impl Iterator<Item = (Change, u32)> {
        let changes = self.changes.iter().map(|&(_, change)| change);
        let marked = changes.filter(|change| change.an.is_marked());
        marked.zip(self.notes.ranks.iter().copied())
    }
}

/// Calls `each` for every record in a batch, in order.
///
/// # Errors
/// At the first byte that is not what [`encode`] writes; the records before it were told.
pub fn decode_all(batch: &[u8], mut each: impl FnMut(&Record)) -> Result<(), Malformed> {
    let mut reader = Reader {
        bytes: batch,
        at: 0,
    };
    let mut record = Record::default(); // one for all records, to use its memory again
    while reader.at < batch.len() {
        let length = u32::from_le_bytes(reader.take()?) as usize;
        let end = reader.at + length;
        record.changes.clear();
        reader.take_changes(&mut record.changes)?;
        record.notes.clear();
        if reader.at < end {
            let marked = record.changes.iter().filter(|(_, c)| c.an.is_marked());
            reader.take_notes(marked.count(), &mut record.notes)?;
        }
        if reader.at != end {
            return Err(reader.malformed());
        }
        each(&record);
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take_changes(&mut self, changes: &mut Vec<(PageSequence, Change)>) -> Result<(), Malformed> {
        let pages = u16::from_le_bytes(self.take()?);
        for _ in 0..pages {
            let page = u16::from_le_bytes(self.take()?) as usize;
            let page = PageId::from_index(page).ok_or(self.malformed())?;
            let coins = u16::from_le_bytes(self.take()?);
            let sequence = u64::from_le_bytes(self.take()?);
            for _ in 0..coins {
                let place = u16::from_le_bytes(self.take()?) as usize;
                if place >= COINS_PER_PAGE {
                    return Err(self.malformed());
                }
                let [mfs] = self.take()?;
                let change = Change {
                    coin: page.coin(place),
                    mfs: Mfs::new(mfs),
                    an: An::new(self.take()?),
                };
                changes.push((PageSequence { page, sequence }, change));
            }
        }
        Ok(())
    }

    /// The notes of a record with `marked` changes to marked numbers.
    fn take_notes(&mut self, marked: usize, notes: &mut Notes) -> Result<(), Malformed> {
        let moment = u64::from_le_bytes(self.take()?);
        let [parts] = self.take()?;
        let ranks = u32::from_le_bytes(self.take()?) as usize;
        if moment == 0
            || moment > Stamp::MOMENT_MAX
            || parts & !(SALE | ENDED | PAYMENT) != 0
            || ranks != marked
        {
            return Err(self.malformed());
        }
        notes.moment = moment;
        for _ in 0..ranks {
            notes.ranks.push(u32::from_le_bytes(self.take()?));
        }
        if parts & SALE != 0 {
            let key = An::new(self.take()?);
            let [length] = self.take()?;
            notes.sale = Some(Sale {
                key,
                moment,
                address: self.take_slice(usize::from(length))?.into(),
            });
        }
        if parts & ENDED != 0 {
            notes.ended = Some(An::new(self.take()?));
        }
        if parts & PAYMENT != 0 {
            notes.payment = Some(Payment {
                id: self.take()?,
                digest: self.take()?,
                moment,
            });
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take_slice(N)?;
        Ok(bytes.try_into().expect("the slice has N bytes"))
    }

    fn take_slice(&mut self, length: usize) -> Result<&[u8], Malformed> {
        let end = self.at + length;
        let bytes = self.bytes.get(self.at..end).ok_or(self.malformed())?;
        self.at = end;
        Ok(bytes)
    }

    fn malformed(&self) -> Malformed {
        Malformed { at: self.at }
    }
}

impl Notes {
    /// Makes the notes empty; keeps the memory for ranks.
    fn clear(&mut self) {
        let ranks = std::mem::take(&mut self.ranks);
        *self = Notes {
            ranks,
            ..Notes::default()
        };
        self.ranks.clear();
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
        let each = |record: &Record| {
            assert_eq!(record.notes, Notes::default());
            seen.extend(record.changes.iter().map(|(page, c)| (page.sequence, *c)));
        };
        decode_all(&batch, each).unwrap();
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
            assert!(decode_all(&batch[..length], |_| ()).is_err(), "{length}");
        }
    }

    fn sequences(changes: &[Change]) -> Vec<PageSequence> {
        let mut pages: Vec<PageId> = changes.iter().map(|c| c.coin.page()).collect();
        pages.dedup();
        let numbered = pages.into_iter().zip(1..);
        numbered
            .map(|(page, sequence)| PageSequence { page, sequence })
            .collect()
    }

    fn marked(page: usize, place: usize) -> Change {
        let mut an = [place as u8; 16];
        an[13..].copy_from_slice(&[2, 0xee, 0xee]);
        let an = An::new(an);
        Change {
            an,
            ..change(page, place)
        }
    }

    /// Notes with some of the parts, by the bits of `parts`.
    fn notes(parts: u8, ranks: Vec<u32>) -> Notes {
        let moment = 1_795_219_200_000_000;
        Notes {
            moment,
            ranks,
            sale: (parts & SALE != 0).then(|| Sale {
                key: marked(0, 9).an,
                moment,
                address: vec![b'x'; Sale::ADDRESS_MAX - usize::from(parts)].into(),
            }),
            ended: (parts & ENDED != 0).then(|| marked(0, 8).an),
            payment: (parts & PAYMENT != 0).then_some(Payment {
                id: [7; 32],
                digest: [6; 16],
                moment,
            }),
        }
    }

    fn read(batch: &[u8]) -> Result<Vec<(Vec<Change>, Notes)>, Malformed> {
        let mut seen = Vec::new();
        decode_all(batch, |record| {
            let changes = record.changes.iter().map(|&(_, change)| change);
            seen.push((changes.collect(), record.notes.clone()));
        })?;
        Ok(seen)
    }

    #[test]
    fn notes_read_back_with_the_record_that_they_belong_to() {
        let some = vec![marked(3, 1), change(3, 2), marked(3, 3), marked(4, 0)];
        let none = vec![change(3, 1)];
        let mut batch = Vec::new();
        let mut written = Vec::new();
        for parts in 0..8 {
            for (changes, ranks) in [(&some, vec![9, 0, u32::MAX]), (&none, vec![])] {
                let notes = notes(parts, ranks);
                let pages = sequences(changes);
                let bytes = encoded_bytes(pages.len(), changes.len(), &notes);
                let before = batch.len();
                encode(&pages, changes, &notes, &mut batch);
                assert_eq!(batch.len() - before, bytes);
                written.push((changes.clone(), notes));
            }
            encode(&sequences(&some), &some, &Notes::default(), &mut batch);
            written.push((some.clone(), Notes::default()));
        }
        assert_eq!(read(&batch).unwrap(), written);
    }

    #[test]
    fn ranks_go_with_the_changes_to_marked_numbers() {
        let changes = [marked(3, 1), change(3, 2), marked(4, 0)];
        let mut batch = Vec::new();
        encode(
            &sequences(&changes),
            &changes,
            &notes(0, vec![5, 6]),
            &mut batch,
        );
        let mut ranked = Vec::new();
        decode_all(&batch, |record| ranked.extend(record.ranked())).unwrap();
        assert_eq!(ranked, [(changes[0], 5), (changes[2], 6)]);
    }

    #[test]
    fn notes_that_do_not_fit_their_record_are_malformed() {
        let changes = [marked(3, 1)];
        let mut sound = Vec::new();
        encode(
            &sequences(&changes),
            &changes,
            &notes(7, vec![5]),
            &mut sound,
        );
        for length in 1..sound.len() {
            assert!(read(&sound[..length]).is_err(), "cut at {length}");
            // The cut record, with a length that fits it.
            let mut cut = sound[..length].to_vec();
            if length >= LENGTH_BYTES {
                let rest = (length - LENGTH_BYTES) as u32;
                cut[..LENGTH_BYTES].copy_from_slice(&rest.to_le_bytes());
                let without_notes = LENGTH_BYTES + 2 + PAGE_BYTES + CHANGE_BYTES;
                assert_eq!(read(&cut).is_ok(), length == without_notes, "{length}");
            }
        }
        let at = LENGTH_BYTES + 2 + PAGE_BYTES + CHANGE_BYTES;
        let with = |offset: usize, bytes: &[u8]| {
            let mut other = sound.clone();
            other[at + offset..][..bytes.len()].copy_from_slice(bytes);
            read(&other)
        };
        assert!(with(0, &[0; 8]).is_err(), "no moment");
        for moment in [u64::MAX, u64::MAX - 1, Stamp::MOMENT_MAX + 1] {
            assert!(with(0, &moment.to_le_bytes()).is_err(), "none after it");
        }
        assert!(with(0, &Stamp::MOMENT_MAX.to_le_bytes()).is_ok());
        assert!(with(8, &[8]).is_err(), "an unknown part");
        assert!(with(8, &[3]).is_err(), "a part too few");
        assert!(with(9, &[0]).is_err(), "a rank too few");
        assert!(with(9, &[2]).is_err(), "a rank too many");
        assert!(with(0, &[1]).is_ok(), "another moment");
        let mut longer = sound.clone();
        longer.push(0);
        let length = (longer.len() - LENGTH_BYTES) as u32;
        longer[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        assert!(read(&longer).is_err(), "a byte too many");
    }

    #[test]
    fn a_record_without_notes_is_what_it_always_was() {
        let mut record = Vec::new();
        let changes = [marked(3, 1)];
        encode(
            &sequences(&changes),
            &changes,
            &Notes::default(),
            &mut record,
        );
        let mut bytes = vec![33, 0, 0, 0, 1, 0, 3, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([1, 0, 7]);
        bytes.extend(changes[0].an.expose());
        assert_eq!(record, bytes);
    }
}
