use crate::coin::{Denomination, SerialNumber};

/// Maximum number of serial numbers listed of one denomination (docs/protocol.md section 5).
const LISTED_MAX: usize = 1_024;
/// Maximum number of ranges of one denomination, and of singles: their counts have one byte each.
const KIND_MAX: usize = 255;
/// A run of this many serial numbers is cheaper as a range (8 bytes) than one by one (4 bytes
/// each); a run of two costs the same, and stays two singles.
const RANGE_RUN_MIN: u32 = 3;

/// Appends one denomination of the answer to "get available SNs": DN, ranges (1), singles (1), each
/// range as first and last SN, each single as SN; at most 3,063 bytes. `free` are the free serial
/// numbers by rising number, no number twice.
///
/// Returns how many were listed: always the first ones of `free`, so that the caller reserves
/// exactly their pages. A run of three or more becomes a range, a shorter one singles. Where one
/// kind is used up, the other takes its place. The list ends where both are used up, or 1,024
/// numbers are listed.
pub fn write_free_sns(
    denomination: Denomination,
    free: impl IntoIterator<Item = SerialNumber>,
    out: &mut Vec<u8>,
) -> usize {
    let mut list = List::default();
    let mut run: Option<(u32, u32)> = None;
    for sn in free.into_iter().take(LISTED_MAX).map(SerialNumber::get) {
        match &mut run {
            Some((_, last)) if *last + 1 == sn => *last = sn,
            _ => {
                if let Some(ended) = run.replace((sn, sn))
                    && !list.add(ended)
                {
                    run = None;
                    break;
                }
            }
        }
    }
    if let Some(last) = run {
        list.add(last);
    }
    list.write(denomination, out);
    list.listed
}

/// The numbers listed so far. The counts come before the numbers on the wire, and ranges before
/// singles, so both wait here until all are known: 3 kB of stack.
struct List {
    ranges: [(u32, u32); KIND_MAX],
    ranges_len: usize,
    singles: [u32; KIND_MAX],
    singles_len: usize,
    listed: usize,
}

impl Default for List {
    fn default() -> List {
        List {
            ranges: [(0, 0); KIND_MAX],
            ranges_len: 0,
            singles: [0; KIND_MAX],
            singles_len: 0,
            listed: 0,
        }
    }
}

impl List {
    /// Lists a run, or as much of its front as there is room for. Returns whether it listed all of
    /// it.
    fn add(&mut self, (first, last): (u32, u32)) -> bool {
        let run = last - first + 1;
        let singles_left = KIND_MAX - self.singles_len;
        let ranges_left = KIND_MAX - self.ranges_len;
        let as_range = ranges_left > 0 && (run >= RANGE_RUN_MIN || (run as usize) > singles_left);
        let listed = if as_range {
            self.ranges[self.ranges_len] = (first, last);
            self.ranges_len += 1;
            run as usize
        } else {
            let listed = singles_left.min(run as usize);
            for (single, sn) in self.singles[self.singles_len..][..listed]
                .iter_mut()
                .zip(first..)
            {
                *single = sn;
            }
            self.singles_len += listed;
            listed
        };
        self.listed += listed;
        listed == run as usize
    }

    fn write(&self, denomination: Denomination, out: &mut Vec<u8>) {
        out.push(denomination.to_byte());
        out.push(self.ranges_len as u8);
        out.push(self.singles_len as u8);
        for (first, last) in &self.ranges[..self.ranges_len] {
            out.extend_from_slice(&first.to_be_bytes());
            out.extend_from_slice(&last.to_be_bytes());
        }
        for single in &self.singles[..self.singles_len] {
            out.extend_from_slice(&single.to_be_bytes());
        }
    }
}

/// The answer to "get available SNs" as a client reads it: an iterator over its denominations, in
/// the order of the answer. It ends at the first part that is no such answer;
/// [`AvailableSnsReply::is_whole`] tells whether that was the end of the answer.
#[derive(Clone, Debug)]
pub struct AvailableSnsReply<'a> {
    rest: &'a [u8],
}

/// The free serial numbers of one denomination, as a node reports them.
#[derive(Clone, Copy, Debug)]
pub struct FreeSns<'a> {
    /// The denomination.
    pub denomination: Denomination,
    ranges: &'a [[u8; 8]],
    singles: &'a [[u8; 4]],
}

impl<'a> AvailableSnsReply<'a> {
    /// Reads an answer's payload.
    pub fn new(payload: &'a [u8]) -> AvailableSnsReply<'a> {
        AvailableSnsReply { rest: payload }
    }

    /// Whether nothing is left unread.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    fn split(&self) -> Option<(FreeSns<'a>, &'a [u8])> {
        let (&[dn, ranges, singles], rest) = self.rest.split_first_chunk()?;
        let (ranges, rest) = rest.split_at_checked(usize::from(ranges) * 8)?;
        let (singles, rest) = rest.split_at_checked(usize::from(singles) * 4)?;
        let free = FreeSns {
            denomination: Denomination::from_byte(dn)?,
            ranges: ranges.as_chunks().0,
            singles: singles.as_chunks().0,
        };
        free.is_possible().then_some((free, rest))
    }
}

impl<'a> Iterator for AvailableSnsReply<'a> {
    type Item = FreeSns<'a>;

    fn next(&mut self) -> Option<FreeSns<'a>> {
        let (free, rest) = self.split()?;
        self.rest = rest;
        Some(free)
    }
}

impl<'a> FreeSns<'a> {
    /// The serial numbers: those of the ranges, then the singles.
    pub fn serial_numbers(&self) -> impl Iterator<Item = SerialNumber> + use<'a> {
        let singles = self.singles.iter().map(|&sn| u32::from_be_bytes(sn));
        self.bounds()
            .flat_map(|(first, last)| first..=last)
            .chain(singles)
            .filter_map(SerialNumber::new)
    }

    fn bounds(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        self.ranges.iter().map(|&[a, b, c, d, e, f, g, h]| {
            (
                u32::from_be_bytes([a, b, c, d]),
                u32::from_be_bytes([e, f, g, h]),
            )
        })
    }

    fn is_possible(&self) -> bool {
        self.bounds()
            .all(|(first, last)| first <= last && SerialNumber::new(last).is_some())
            && self
                .singles
                .iter()
                .all(|&sn| SerialNumber::new(u32::from_be_bytes(sn)).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn smallest() -> Denomination {
        Denomination::from_index(0).unwrap()
    }

    fn sns(numbers: impl IntoIterator<Item = u32>) -> Vec<SerialNumber> {
        numbers
            .into_iter()
            .map(|sn| SerialNumber::new(sn).unwrap())
            .collect()
    }

    fn listed(free: &[SerialNumber]) -> (usize, Vec<u8>, Vec<SerialNumber>) {
        let mut out = Vec::new();
        let count = write_free_sns(smallest(), free.iter().copied(), &mut out);
        let mut reply = AvailableSnsReply::new(&out);
        let mut read: Vec<SerialNumber> = reply.next().unwrap().serial_numbers().collect();
        assert!(reply.is_whole());
        read.sort();
        (count, out, read)
    }

    #[test]
    fn a_run_of_three_is_a_range_and_a_run_of_two_is_two_singles() {
        let free = sns([1, 2, 3, 10, 11, 20]);
        let (count, out, read) = listed(&free);
        assert_eq!((count, &out[..3]), (6, &[0xf8, 1, 3][..]));
        assert_eq!(out.len(), 3 + 8 + 3 * 4);
        assert_eq!(read, free);
    }

    #[test]
    fn no_free_serial_number_is_an_empty_list() {
        assert_eq!(listed(&[]), (0, vec![0xf8, 0, 0], vec![]));
    }

    #[test]
    fn a_whole_denomination_lists_its_first_1_024() {
        let (count, out, read) = listed(&sns(0..2_000));
        assert_eq!((count, out.len()), (1_024, 3 + 8));
        assert_eq!(read, sns(0..1_024));
    }

    #[test]
    fn singles_that_are_used_up_become_ranges_of_one() {
        let free = sns((0..600).map(|i| i * 2));
        let (count, out, read) = listed(&free);
        assert_eq!((count, out[1], out[2]), (510, 255, 255));
        assert_eq!(read, free[..510]);
    }

    proptest! {
        #[test]
        fn what_is_listed_is_the_front_of_what_is_free(
            free in prop::collection::btree_set(0u32..3_000, 0..1_500),
        ) {
            let free = sns(free);
            let (count, out, read) = listed(&free);
            prop_assert_eq!(&read, &free[..count]);
            prop_assert!(count == free.len().min(LISTED_MAX) || (out[1], out[2]) == (255, 255));
        }

        #[test]
        fn any_answer_is_read_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            for free in AvailableSnsReply::new(&payload) {
                prop_assert!(free.serial_numbers().count() <= 255 * 1_024_000 + 255);
            }
        }
    }
}
