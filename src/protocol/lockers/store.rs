use super::LockerKey;
use crate::{
    coin::{An, Coin},
    protocol::{
        Dialect, PassFail, Passed, Status,
        pass_fail::Bitmap,
        records::{Claimed, Coins, Records, write},
    },
};

/// Store sum: put these coins into a locker, if this is the XOR of their authenticity numbers: all
/// or none. n x (DN SN), XOR (16), locker key (16): 32 + 5n bytes. Answered with 241 or 242 and no
/// payload.
#[derive(Clone, Copy, Debug)]
pub struct StoreSum<'a> {
    coins: Coins<'a>,
    /// The XOR of the coins' authenticity numbers, as the client says.
    pub sum: An,
    /// The locker to put them into.
    pub key: LockerKey,
}

impl<'a> StoreSum<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 199 where the key is
    /// no locker's, 40 where a coin cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<StoreSum<'a>, Status> {
        let (rest, key) = payload.split_last_chunk().ok_or(Status::INVALID_LENGTH)?;
        let (list, sum) = rest.split_last_chunk().ok_or(Status::INVALID_LENGTH)?;
        let list = Records::<Claimed>::parse(list)?;
        let key = LockerKey::new(An::new(*key)).ok_or(Status::WRONG_LOCKER_KEY)?;
        Ok(StoreSum {
            coins: list.all_possible()?,
            sum: An::new(*sum),
            key,
        })
    }

    /// Appends the payload.
    pub fn compose(
        coins: impl IntoIterator<Item = Coin>,
        sum: An,
        key: LockerKey,
        out: &mut Vec<u8>,
    ) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(sum.expose());
        out.extend_from_slice(key.an().expose());
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }
}

/// Store multiple: lockers (1), then each as in [`StoreSum`] with its number of coins (2) before
/// it. Each locker is stored by itself, all of its coins or none. Answered by [`StoreAnswer`].
#[derive(Clone, Copy, Debug)]
pub struct StoreMultiple<'a> {
    lockers: u8,
    list: &'a [u8],
}

impl<'a> StoreMultiple<'a> {
    /// Maximum number of lockers in one request.
    pub const LOCKERS_MAX: usize = u8::MAX as usize;
    /// Maximum number of coins for one locker.
    pub const COINS_MAX: usize = u16::MAX as usize;

    /// Reads a payload: 198 where there are no lockers, 16 where it is shorter or longer than the
    /// lockers need.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<StoreMultiple<'a>, Status> {
        let (&lockers, list) = payload.split_first().ok_or(Status::INVALID_LENGTH)?;
        if lockers == 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        let mut rest = list;
        for _ in 0..lockers {
            (_, rest) = split_locker(rest).ok_or(Status::INVALID_LENGTH)?;
        }
        match rest {
            [] => Ok(StoreMultiple { lockers, list }),
            _ => Err(Status::INVALID_LENGTH),
        }
    }

    /// Appends the payload: for each locker its coins, the XOR of their authenticity numbers and
    /// its key.
    ///
    /// # Panics
    /// When there are no lockers or over [`StoreMultiple::LOCKERS_MAX`], or over
    /// [`StoreMultiple::COINS_MAX`] coins for one of them: the counts on the wire hold no more.
    pub fn compose<C: IntoIterator<Item = Coin>>(
        lockers: impl IntoIterator<Item = (C, An, LockerKey)>,
        out: &mut Vec<u8>,
    ) {
        let counted = out.len();
        out.push(0);
        let mut count = 0;
        for (coins, sum, key) in lockers {
            count += 1;
            let start = out.len();
            out.extend_from_slice(&[0; COUNT_SIZE]);
            StoreSum::compose(coins, sum, key, out);
            let coins = (out.len() - start - COUNT_SIZE - 2 * An::SIZE) / Coin::SIZE;
            let coins = u16::try_from(coins).expect("at most COINS_MAX coins for a locker");
            out[start..start + COUNT_SIZE].copy_from_slice(&coins.to_be_bytes());
        }
        assert!(count > 0, "at least one locker");
        out[counted] = u8::try_from(count).expect("at most LOCKERS_MAX lockers");
    }

    /// Number of lockers: 1 to 255.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a request has at least one locker"
    )]
    pub fn len(&self) -> usize {
        usize::from(self.lockers)
    }

    /// The lockers, in the order of the request. A locker that could not be stored alone either is
    /// its refusal, and no reason not to store the others: it has no coins (16), its key is no
    /// locker's (199), or one of its coins cannot exist (40).
    #[inline]
    pub fn lockers(&self) -> impl Iterator<Item = Result<StoreSum<'a>, Status>> + Clone + use<'a> {
        let mut rest = self.list;
        (0..self.lockers).map_while(move |_| {
            let (locker, others) = split_locker(rest)?;
            rest = others;
            Some(StoreSum::parse(locker))
        })
    }
}

/// Bytes of the number of coins before each locker.
const COUNT_SIZE: usize = 2;

/// The part that [`StoreSum`] reads of the first locker of a list, and the rest of the list; `None`
/// where the list ends before the locker does.
#[inline]
fn split_locker(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = list.split_first_chunk::<COUNT_SIZE>()?;
    let coins = usize::from(u16::from_be_bytes(*count));
    rest.split_at_checked(coins * Coin::SIZE + 2 * An::SIZE)
}

/// Composes the answer to [`StoreMultiple`]: 241 where all lockers were stored, 242 where none was,
/// 243 otherwise. In the `spec` dialect a byte for each locker follows, 1 stored, 0 not; in the
/// `raidax` dialect 243 has a bitmap and the others have no payload. Lockers may be reported in any
/// order; one that is never reported was not stored.
#[derive(Debug)]
pub struct StoreAnswer<'b>(Form<'b>);

#[derive(Debug)]
enum Form<'b> {
    Bytes {
        payload: &'b mut Vec<u8>,
        start: usize,
        stored: usize,
    },
    Bits(PassFail<'b>),
}

impl<'b> StoreAnswer<'b> {
    /// Begins an answer for this many lockers; none is stored yet.
    #[inline]
    pub fn begin(payload: &'b mut Vec<u8>, lockers: usize, dialect: Dialect) -> StoreAnswer<'b> {
        StoreAnswer(match dialect {
            Dialect::Raidax => Form::Bits(PassFail::begin(payload, lockers)),
            Dialect::Spec => {
                let start = payload.len();
                payload.resize(start + lockers, 0);
                Form::Bytes {
                    payload,
                    start,
                    stored: 0,
                }
            }
        })
    }

    /// Records that this locker was stored. A second call changes nothing.
    ///
    /// # Panics
    /// When there is no such locker.
    #[inline]
    pub fn stored(&mut self, locker: usize) {
        match &mut self.0 {
            Form::Bits(answer) => answer.pass(locker),
            Form::Bytes {
                payload,
                start,
                stored,
            } => {
                let byte = &mut payload[*start + locker];
                *stored += usize::from(*byte == 0);
                *byte = 1;
            }
        }
    }

    /// Ends the answer.
    #[inline]
    pub fn finish(self) -> Status {
        match self.0 {
            Form::Bits(answer) => answer.finish(Bitmap::IfMixed),
            Form::Bytes {
                payload,
                start,
                stored,
            } => status(stored, payload.len() - start),
        }
    }
}

#[inline]
fn status(stored: usize, lockers: usize) -> Status {
    match stored {
        0 => Status::ALL_FAIL,
        stored if stored == lockers => Status::ALL_PASS,
        _ => Status::MIXED,
    }
}

/// The answer to [`StoreMultiple`] as a client reads it, in whichever dialect it comes.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// A byte for each locker, as in the `spec` dialect.
    Bytes(&'a [u8]),
    /// As in the `raidax` dialect.
    Bits(Passed<'a>),
}

impl<'a> Stored<'a> {
    /// Reads the answer to a request of this many lockers; `None` where the payload is no such
    /// answer. One dialect cannot be taken for the other: a bitmap has fewer bytes than there are
    /// lockers, except where there is one locker, and then the answer is never mixed.
    pub fn read(status: Status, payload: &'a [u8], lockers: usize) -> Option<Stored<'a>> {
        if payload.is_empty() || payload.len() != lockers {
            return Passed::read(status, payload, lockers).map(Stored::Bits);
        }
        let stored = payload.iter().filter(|&&byte| byte == 1).count();
        let is_clear = payload.iter().all(|&byte| byte <= 1);
        (is_clear && status == self::status(stored, lockers)).then_some(Stored::Bytes(payload))
    }

    /// Whether this locker was stored; `false` where there is no such locker.
    #[inline]
    pub fn stored(&self, locker: usize) -> bool {
        match self {
            Stored::Bytes(bytes) => bytes.get(locker) == Some(&1),
            Stored::Bits(passed) => passed.passed(locker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::{any_an, any_coin, coin};
    use proptest::prelude::*;

    fn key() -> LockerKey {
        LockerKey::new(An::new([0xff; 16])).unwrap()
    }

    fn store(coins: &[Coin]) -> Vec<u8> {
        let mut payload = vec![];
        StoreSum::compose(coins.iter().copied(), An::new([3; 16]), key(), &mut payload);
        payload
    }

    fn several(lockers: &[&[Coin]]) -> Vec<u8> {
        let mut payload = vec![];
        let lockers = lockers.iter().map(|coins| {
            let coins = coins.iter().copied();
            (coins, An::new([3; 16]), key())
        });
        StoreMultiple::compose(lockers, &mut payload);
        payload
    }

    #[test]
    fn a_store_is_refused_for_its_length_then_its_key_then_its_coins() {
        let status = |payload: &[u8]| StoreSum::parse(payload).map(drop);
        let mut payload = store(&[coin(0, 1), coin(0, 2)]);
        assert_eq!(status(&payload), Ok(()));
        payload[0] = 7;
        assert_eq!(status(&payload), Err(Status::INVALID_COIN));
        *payload.last_mut().unwrap() = 0xfe;
        assert_eq!(status(&payload), Err(Status::WRONG_LOCKER_KEY));
        for length in 0..42 {
            let refusal = match length {
                0..37 => Status::INVALID_LENGTH,
                // The key then ends in FF FF FF FF as well.
                37 => Status::INVALID_COIN,
                _ => Status::UNEVEN_RECORDS,
            };
            assert_eq!(status(&payload[..length]), Err(refusal), "{length} bytes");
        }
    }

    #[test]
    fn several_lockers_are_refused_where_there_are_none_or_the_length_is_another() {
        let status = |payload: &[u8]| StoreMultiple::parse(payload).map(drop);
        let mut payload = several(&[&[coin(0, 1)], &[coin(0, 2), coin(0, 3)]]);
        assert_eq!(status(&payload), Ok(()));
        for length in 0..payload.len() {
            assert_eq!(status(&payload[..length]), Err(Status::INVALID_LENGTH));
        }
        payload.push(0);
        assert_eq!(status(&payload), Err(Status::INVALID_LENGTH));
        payload[0] = 0;
        assert_eq!(status(&payload), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn a_locker_that_cannot_be_stored_is_no_reason_not_to_store_the_others() {
        let one: &[Coin] = &[coin(0, 1)];
        let mut payload = several(&[one, &[], one, one]);
        let (first, empty) = (1, 1 + 39);
        payload[first + 38] = 0xfe;
        payload[empty + 34 + 2] = 7;
        let request = StoreMultiple::parse(&payload).unwrap();
        let refusals: Vec<_> = request.lockers().map(|l| l.map(drop)).collect();
        let expected = [
            Err(Status::WRONG_LOCKER_KEY),
            Err(Status::INVALID_LENGTH),
            Err(Status::INVALID_COIN),
            Ok(()),
        ];
        assert_eq!((request.len(), &refusals[..]), (4, &expected[..]));
    }

    #[test]
    fn as_many_lockers_and_coins_as_their_counts_hold_are_read() {
        let coins = vec![coin(0, 1); StoreMultiple::COINS_MAX];
        let payload = several(&[&coins]);
        let request = StoreMultiple::parse(&payload).unwrap();
        let locker = request.lockers().next().unwrap().unwrap();
        assert_eq!(locker.coins().len(), 65_535);
        let one: &[Coin] = &[coin(0, 1)];
        let payload = several(&[one; StoreMultiple::LOCKERS_MAX]);
        let request = StoreMultiple::parse(&payload).unwrap();
        assert_eq!(request.lockers().filter(Result::is_ok).count(), 255);
    }

    #[test]
    fn the_dialects_say_in_bytes_or_bits_which_lockers_were_stored() {
        use Dialect::{Raidax, Spec};
        let cases: [(&[usize], Dialect, Status, &[u8]); 6] = [
            (&[2, 0, 0], Spec, Status::MIXED, &[1, 0, 1]),
            (&[2, 0, 0], Raidax, Status::MIXED, &[0b101]),
            (&[], Spec, Status::ALL_FAIL, &[0; 3]),
            (&[], Raidax, Status::ALL_FAIL, &[]),
            (&[0, 1, 2], Spec, Status::ALL_PASS, &[1; 3]),
            (&[0, 1, 2], Raidax, Status::ALL_PASS, &[]),
        ];
        for (stored, dialect, status, expected) in cases {
            let mut payload = vec![0xaa];
            let mut answer = StoreAnswer::begin(&mut payload, 3, dialect);
            stored.iter().for_each(|&locker| answer.stored(locker));
            assert_eq!(answer.finish(), status);
            assert_eq!(payload[1..], *expected);
        }
    }

    #[test]
    fn bytes_that_say_another_thing_than_the_status_are_no_answer() {
        for (status, payload) in [
            (Status::ALL_PASS, &[1, 0, 1][..]),
            (Status::ALL_FAIL, &[0, 0, 1]),
            (Status::MIXED, &[1, 1, 1]),
            (Status::MIXED, &[2, 0, 1]),
            (Status::MIXED, &[]),
            (Status::SUCCESS, &[1, 1, 1]),
            (Status::SUCCESS, &[]),
        ] {
            assert!(Stored::read(status, payload, 3).is_none(), "{payload:?}");
        }
    }

    /// The existing server's bitmap has one byte too many where the number of its bits is a
    /// multiple of 8.
    #[test]
    fn a_bitmap_that_is_longer_than_it_need_be_is_read() {
        let stored = Stored::read(Status::MIXED, &[0b1000_0001, 0], 8).unwrap();
        assert!(
            (0..9)
                .map(|l| stored.stored(l))
                .eq((0..9).map(|l| l == 0 || l == 7))
        );
    }

    proptest! {
        #[test]
        fn a_client_reads_what_a_server_composed_without_being_told_the_dialect(
            lockers in prop::collection::vec(any::<bool>(), 1..=255),
            raidax in any::<bool>(),
        ) {
            let dialect = if raidax { Dialect::Raidax } else { Dialect::Spec };
            let mut payload = vec![];
            let mut answer = StoreAnswer::begin(&mut payload, lockers.len(), dialect);
            (0..lockers.len()).filter(|&l| lockers[l]).for_each(|l| answer.stored(l));
            let status = answer.finish();
            let read = Stored::read(status, &payload, lockers.len()).unwrap();
            for locker in 0..=lockers.len() {
                let expected = lockers.get(locker).copied().unwrap_or(false);
                prop_assert_eq!(read.stored(locker), expected);
            }
        }

        #[test]
        fn stores_are_read_as_they_were_composed(
            lockers in prop::collection::vec(
                (prop::collection::vec(any_coin(), 1..20), any_an()),
                1..8,
            ),
        ) {
            let mut payload = vec![];
            let composed = lockers.iter().map(|(coins, sum)| (coins.iter().copied(), *sum, key()));
            StoreMultiple::compose(composed, &mut payload);
            let request = StoreMultiple::parse(&payload).unwrap();
            let read = request.lockers().map(|locker| {
                let locker = locker.unwrap();
                (locker.coins().iter().collect::<Vec<_>>(), locker.sum)
            });
            prop_assert_eq!(read.collect::<Vec<_>>(), lockers);
        }

        #[test]
        fn any_payload_is_refused_or_composed_again(
            front in prop_oneof![Just(vec![]), Just(vec![1, 0, 2]), Just(vec![1, 0, 1])],
            coins in prop::collection::vec((0u8..8, 0u8..17, any::<u8>()), 1..3),
            left_over in prop_oneof![3 => Just(0usize), 1 => 1usize..5],
            sum in any_an(),
            mark in prop::sample::select(vec![0xfeu8, 0xff]),
        ) {
            let coins = coins.into_iter().map(|(dn, page, place)| [dn, 0, page, 0xff, place]);
            let coins = coins.flatten().chain(vec![0; left_over]);
            let sums = sum.expose().iter().copied().chain([0xff; 15]).chain([mark]);
            let payload: Vec<u8> = front.into_iter().chain(coins).chain(sums).collect();
            let mut again = vec![];
            if let Ok(request) = StoreSum::parse(&payload) {
                StoreSum::compose(request.coins().iter(), request.sum, request.key, &mut again);
                prop_assert_eq!(&again, &payload);
            }
            again.clear();
            if let Ok(request) = StoreMultiple::parse(&payload) {
                let lockers: Result<Vec<_>, _> = request.lockers().collect();
                if let Ok(lockers) = lockers {
                    let parts = lockers.iter().map(|l| (l.coins().iter(), l.sum, l.key));
                    StoreMultiple::compose(parts, &mut again);
                    prop_assert_eq!(&again, &payload);
                }
            }
        }

        #[test]
        fn bytes_of_any_length_are_parsed_without_a_panic(
            lockers in 0u8..5,
            payload in prop::collection::vec(0u8..3, 0..300),
        ) {
            let payload: Vec<u8> = [lockers].into_iter().chain(payload).collect();
            let _ = StoreSum::parse(&payload).map(|request| request.coins().iter().count());
            if let Ok(request) = StoreMultiple::parse(&payload) {
                prop_assert_eq!(request.lockers().count(), request.len());
            }
        }
    }
}
