//! Which records of a request passed.

use super::Status;

/// Composes the answer "which records passed": a status, and a bitmap with bit i (byte i/8, bit
/// i%8, low bit first) for record i (docs/protocol.md section 4). Records may be reported in any
/// order, as their shards answer; one that is never reported has failed.
///
/// ```
/// use raida::protocol::{PassFail, Status, pass_fail::Bitmap};
/// let mut payload = Vec::new();
/// let mut answer = PassFail::begin(&mut payload, 3);
/// answer.pass(2);
/// answer.pass(0);
/// assert_eq!(answer.finish(Bitmap::IfMixed), Status::MIXED);
/// assert_eq!(payload, [0b101]);
/// ```
pub struct PassFail<'b> {
    payload: &'b mut Vec<u8>,
    start: usize,
    records: usize,
    passed: usize,
}

/// When the bitmap is part of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bitmap {
    /// With status 243 only: the other statuses say it all.
    IfMixed,
    /// With every status.
    Always,
}

impl<'b> PassFail<'b> {
    /// Begins an answer for this many records; none has passed yet.
    #[inline]
    pub fn begin(payload: &'b mut Vec<u8>, records: usize) -> PassFail<'b> {
        let start = payload.len();
        payload.resize(start + records.div_ceil(8), 0);
        PassFail {
            payload,
            start,
            records,
            passed: 0,
        }
    }

    /// Records that record `record` passed. A second call changes nothing.
    ///
    /// # Panics
    /// When there is no such record.
    #[inline]
    pub fn pass(&mut self, record: usize) {
        assert!(record < self.records, "the request has no such record");
        let byte = &mut self.payload[self.start + record / 8];
        let bit = 1 << (record % 8);
        self.passed += usize::from(*byte & bit == 0);
        *byte |= bit;
    }

    /// Number of records that have passed.
    #[inline]
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// The records that have passed, rising.
    #[inline]
    pub fn passing(&self) -> impl Iterator<Item = usize> + '_ {
        let bitmap = &self.payload[self.start..];
        (0..self.records).filter(|record| bitmap[record / 8] >> (record % 8) & 1 != 0)
    }

    /// Ends the answer: 241 where every record passed, 242 where none did, 243 otherwise.
    #[inline]
    pub fn finish(self, bitmap: Bitmap) -> Status {
        self.finish_with(bitmap, &[])
    }

    /// Ends the answer; more follows after the bitmap.
    #[inline]
    pub(super) fn finish_with(self, bitmap: Bitmap, more: &[u8]) -> Status {
        let status = match self.passed {
            0 => Status::ALL_FAIL,
            passed if passed == self.records => Status::ALL_PASS,
            _ => Status::MIXED,
        };
        if bitmap == Bitmap::IfMixed && status != Status::MIXED {
            self.payload.truncate(self.start);
        }
        self.payload.extend_from_slice(more);
        status
    }
}

impl std::fmt::Debug for PassFail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PassFail({} of {} so far)", self.passed, self.records)
    }
}

/// The answer as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed<'a> {
    status: Status,
    bitmap: &'a [u8],
    records: usize,
}

impl<'a> Passed<'a> {
    /// Reads the answer to a request of this many records. `None` where the status is no pass/fail
    /// status, or a bitmap is due and shorter than the records.
    pub fn read(status: Status, payload: &'a [u8], records: usize) -> Option<Passed<'a>> {
        let bitmap = match status {
            Status::ALL_PASS | Status::ALL_FAIL => &[],
            Status::MIXED => payload.get(..records.div_ceil(8))?,
            _ => return None,
        };
        Some(Passed {
            status,
            bitmap,
            records,
        })
    }

    /// Whether record `record` passed; `false` where there is no such record.
    #[inline]
    pub fn passed(&self, record: usize) -> bool {
        record < self.records
            && match self.bitmap.get(record / 8) {
                Some(byte) => byte & (1 << (record % 8)) != 0,
                None => self.status == Status::ALL_PASS,
            }
    }

    /// Whether each record passed, in the order of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        (0..self.records).map(|record| self.passed(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(records: usize, passing: &[usize], bitmap: Bitmap) -> (Status, Vec<u8>) {
        let mut payload = vec![0xaa];
        let mut answer = PassFail::begin(&mut payload, records);
        for &record in passing {
            answer.pass(record);
        }
        (answer.finish(bitmap), payload)
    }

    #[test]
    fn a_mixed_answer_carries_one_bit_a_record_low_bit_first() {
        assert_eq!(
            answer(9, &[8, 0], Bitmap::IfMixed),
            (Status::MIXED, vec![0xaa, 0b1, 0b1])
        );
    }

    #[test]
    fn an_answer_that_is_the_same_for_all_needs_no_bitmap() {
        assert_eq!(
            answer(2, &[1, 0, 0], Bitmap::IfMixed),
            (Status::ALL_PASS, vec![0xaa])
        );
        assert_eq!(
            answer(2, &[], Bitmap::IfMixed),
            (Status::ALL_FAIL, vec![0xaa])
        );
        assert_eq!(
            answer(2, &[0, 1], Bitmap::Always),
            (Status::ALL_PASS, vec![0xaa, 0b11])
        );
    }

    #[test]
    fn a_client_reads_what_a_server_composed() {
        for records in 1..=20 {
            for passing in [0, 1, records / 2, records] {
                for bitmap in [Bitmap::IfMixed, Bitmap::Always] {
                    let all: Vec<usize> = (0..passing).collect();
                    let (status, payload) = answer(records, &all, bitmap);
                    let passed = Passed::read(status, &payload[1..], records).unwrap();
                    assert_eq!(passed.iter().filter(|&p| p).count(), passing);
                    assert!(!passed.passed(records));
                }
            }
        }
    }

    #[test]
    fn a_bitmap_that_is_cut_or_another_status_is_no_answer() {
        assert_eq!(Passed::read(Status::MIXED, &[1], 9), None);
        assert_eq!(Passed::read(Status::SUCCESS, &[], 1), None);
    }
}
