use super::{Address, LockerKey, TradeName};
use crate::{
    coin::{An, Coin},
    protocol::{
        Passed, Status,
        records::{Claimed, Coins, Records, write},
    },
};

/// Peek: which coins lie in this locker? Its key: 16 bytes. Answered with [`Contents`].
#[derive(Clone, Copy, Debug)]
pub struct Peek {
    /// The locker.
    pub key: LockerKey,
}

impl Peek {
    /// Reads a payload: 16 where it has another size, 242 where no locker has such a key.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Peek, Status> {
        let key = payload.try_into().map_err(|_| Status::INVALID_LENGTH)?;
        Ok(Peek {
            key: LockerKey::new(An::new(key)).ok_or(Status::ALL_FAIL)?,
        })
    }

    /// Appends the payload.
    pub fn compose(key: LockerKey, out: &mut Vec<u8>) {
        out.extend_from_slice(key.an().expose());
    }
}

/// Peek trade locker: which coins are for sale there? Its key or its public id: 16 bytes. Answered
/// with [`Contents`].
///
/// An addition of this node: with a byte 1 after the name, the request asks where the seller wants
/// to be paid. Answered with the seller's [`Address`].
#[derive(Clone, Copy, Debug)]
pub struct PeekTrade {
    /// The trade locker.
    pub name: TradeName,
    /// The question about it.
    pub asks_for: TradePart,
}

/// A question about an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TradePart {
    /// Which coins it has.
    Coins,
    /// Where the seller wants to be paid.
    Address,
}

impl PeekTrade {
    const ADDRESS: u8 = 1;

    /// Reads a payload: 16 where it has another size or an unknown question, 242 where no trade
    /// locker has such a name.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<PeekTrade, Status> {
        let (name, asks_for) = match payload {
            [name @ .., PeekTrade::ADDRESS] if payload.len() == An::SIZE + 1 => {
                (name, TradePart::Address)
            }
            name => (name, TradePart::Coins),
        };
        let name = name.try_into().map_err(|_| Status::INVALID_LENGTH)?;
        Ok(PeekTrade {
            name: TradeName::from_bytes(name).ok_or(Status::ALL_FAIL)?,
            asks_for,
        })
    }

    /// Appends the payload.
    pub fn compose(name: TradeName, asks_for: TradePart, out: &mut Vec<u8>) {
        out.extend_from_slice(name.expose());
        if asks_for == TradePart::Address {
            out.push(PeekTrade::ADDRESS);
        }
    }

    /// Appends the answer to the question for the address: its length and its bytes with 241; 242
    /// where there is no such offer.
    pub fn answer_address(address: Option<&[u8]>, out: &mut Vec<u8>) -> Status {
        let Some(address) = address else {
            return Status::ALL_FAIL;
        };
        out.push(u8::try_from(address.len()).expect("an address has at most 120 bytes"));
        out.extend_from_slice(address);
        Status::ALL_PASS
    }

    /// Reads that answer: `Some(None)` where there is no such offer, `None` where it is no answer.
    pub fn read_address(status: Status, payload: &[u8]) -> Option<Option<Address>> {
        match (status, payload) {
            (Status::ALL_FAIL, []) => Some(None),
            (Status::ALL_PASS, [length, address @ ..]) if address.len() == usize::from(*length) => {
                Address::new(address).map(Some)
            }
            _ => None,
        }
    }
}

/// The coins of a locker or trade locker, as a client reads the answer to a peek.
#[derive(Clone, Copy, Debug)]
pub enum Contents<'a> {
    /// There is no such locker, or it is empty, which is the same.
    Nothing,
    /// The coins, in the order in which they were stored.
    Coins(Coins<'a>),
}

impl<'a> Contents<'a> {
    /// Appends the answer: the coins in the order in which they were stored, 5n bytes with 241;
    /// none with 242.
    #[inline]
    pub fn answer(coins: impl IntoIterator<Item = Coin>, out: &mut Vec<u8>) -> Status {
        let start = out.len();
        write(coins.into_iter().map(Some), out);
        match out.len() == start {
            true => Status::ALL_FAIL,
            false => Status::ALL_PASS,
        }
    }

    /// Reads the answer; `None` where the payload is no such answer.
    pub fn read(status: Status, payload: &'a [u8]) -> Option<Contents<'a>> {
        match status {
            Status::ALL_FAIL => Some(Contents::Nothing),
            Status::ALL_PASS => {
                let coins = Records::<Claimed>::parse(payload).ok()?;
                coins.all_possible().ok().map(Contents::Coins)
            }
            _ => None,
        }
    }

    /// The coins, in the order in which they were stored.
    pub fn coins(&self) -> impl Iterator<Item = Coin> + Clone + use<'a> {
        let coins = match self {
            Contents::Nothing => None,
            Contents::Coins(coins) => Some(coins.iter()),
        };
        coins.into_iter().flatten()
    }
}

/// Remove: give these coins of a locker new authenticity numbers, so that they leave it. Its key, n
/// x (DN SN, new AN): 16 + 21n bytes. Answered by [`PassFail`](crate::protocol::PassFail) with
/// [`Bitmap::Always`](crate::protocol::pass_fail::Bitmap::Always), or with 242 and no payload where
/// there is no such locker. A coin that is not in the locker simply fails, also one that cannot
/// exist.
#[derive(Clone, Copy, Debug)]
pub struct Remove<'a> {
    /// The locker.
    pub key: LockerKey,
    records: Records<'a, (Claimed, An)>,
}

impl<'a> Remove<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 242 where no locker
    /// has such a key.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Remove<'a>, Status> {
        let (key, list) = payload.split_first_chunk().ok_or(Status::INVALID_LENGTH)?;
        let records = Records::parse(list)?;
        Ok(Remove {
            key: LockerKey::new(An::new(*key)).ok_or(Status::ALL_FAIL)?,
            records,
        })
    }

    /// Appends the payload: each coin with its new number.
    pub fn compose(
        key: LockerKey,
        records: impl IntoIterator<Item = (Coin, An)>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(key.an().expose());
        write(records.into_iter().map(|(coin, an)| (Some(coin), an)), out);
    }

    /// Number of coins: 1 or more.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a request has at least one record"
    )]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The record with this number, counted from 0; `None` past the last.
    #[inline]
    pub fn record(&self, record: usize) -> Option<(Option<Coin>, An)> {
        self.records.get(record)
    }

    /// The coins and their new numbers; `None` for a coin that cannot exist.
    #[inline]
    pub fn records(&self) -> impl ExactSizeIterator<Item = (Option<Coin>, An)> + Clone + use<'a> {
        self.records.iter()
    }
}

/// The answer to [`Remove`] as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed<'a> {
    /// There is no such locker.
    NoLocker,
    /// Which coins have left it.
    Records(Passed<'a>),
}

impl<'a> Removed<'a> {
    /// Reads the answer to a request of this many coins; `None` where the payload is no such
    /// answer.
    pub fn read(status: Status, payload: &'a [u8], records: usize) -> Option<Removed<'a>> {
        match (status, payload) {
            (Status::ALL_FAIL, []) => Some(Removed::NoLocker),
            _ => Passed::read(status, payload, records).map(Removed::Records),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Currency, Price, TradeKey};
    use super::*;
    use crate::protocol::{
        PassFail,
        pass_fail::Bitmap,
        samples::{any_an, any_coin, coin},
    };
    use proptest::prelude::*;

    fn key() -> LockerKey {
        LockerKey::new(An::new([0xff; 16])).unwrap()
    }

    #[test]
    fn a_peek_is_a_key_and_nothing_else() {
        let mut payload = vec![];
        Peek::compose(key(), &mut payload);
        assert_eq!(Peek::parse(&payload).unwrap().key, key());
        for wrong in (0..16).chain([17, 32]) {
            payload.resize(wrong, 0xff);
            let refusal = Peek::parse(&payload).unwrap_err();
            assert_eq!(refusal, Status::INVALID_LENGTH);
            let refusal = PeekTrade::parse(&payload).unwrap_err();
            assert_eq!(refusal, Status::INVALID_LENGTH);
        }
    }

    #[test]
    fn an_address_is_read_as_it_was_answered_and_nothing_else_is_one() {
        let mut out = vec![];
        let status = PeekTrade::answer_address(Some(b"bc1q-where-the-seller-is"), &mut out);
        assert_eq!((status, out.len()), (Status::ALL_PASS, 25));
        let read = PeekTrade::read_address(status, &out).unwrap().unwrap();
        assert_eq!(read.as_bytes(), b"bc1q-where-the-seller-is");
        for wrong in [&out[..24], &[0][..], &[], &[3, 1, 2, 3]] {
            assert_eq!(PeekTrade::read_address(Status::ALL_PASS, wrong), None);
        }
        out.clear();
        let status = PeekTrade::answer_address(None, &mut out);
        assert_eq!((status, out.len()), (Status::ALL_FAIL, 0));
        assert_eq!(PeekTrade::read_address(status, &out), Some(None));
    }

    #[test]
    fn a_key_of_the_wrong_form_is_one_that_no_locker_has() {
        let trade = TradeKey::of([1; 9], Price::new(5), Currency::Bitcoin);
        assert_eq!(Peek::parse(&[0xee; 16]).unwrap_err(), Status::ALL_FAIL);
        let refusal = PeekTrade::parse(&[0xff; 16]).unwrap_err();
        assert_eq!(refusal, Status::ALL_FAIL);
        let named = PeekTrade::parse(trade.an().expose()).unwrap();
        assert_eq!(
            (named.name.as_key(), named.asks_for),
            (trade, TradePart::Coins)
        );
        let mut paid_where = vec![];
        PeekTrade::compose(named.name, TradePart::Address, &mut paid_where);
        let asked = PeekTrade::parse(&paid_where).unwrap();
        assert_eq!(
            (asked.name.as_key(), asked.asks_for),
            (trade, TradePart::Address)
        );
        paid_where[16] = 2;
        let refusal = PeekTrade::parse(&paid_where).unwrap_err();
        assert_eq!(refusal, Status::INVALID_LENGTH);
        let mut remove = vec![];
        Remove::compose(key(), [(coin(0, 1), An::ZERO)], &mut remove);
        remove[15] = 0xfe;
        assert_eq!(Remove::parse(&remove).unwrap_err(), Status::ALL_FAIL);
    }

    #[test]
    fn a_remove_is_refused_for_its_length_before_its_key() {
        let status = |length: usize| Remove::parse(&vec![0; length]).unwrap_err();
        for length in 0..60 {
            let expected = match length {
                0..37 => Status::INVALID_LENGTH,
                37 | 58 => Status::ALL_FAIL,
                _ => Status::UNEVEN_RECORDS,
            };
            assert_eq!(status(length), expected, "{length} bytes");
        }
    }

    #[test]
    fn an_impossible_coin_just_fails_to_be_removed() {
        let mut payload = vec![];
        Remove::compose(key(), [(coin(0, 1), An::ZERO)], &mut payload);
        payload[16] = 7;
        let request = Remove::parse(&payload).unwrap();
        assert_eq!(request.record(0), Some((None, An::ZERO)));
    }

    #[test]
    fn an_answer_without_a_locker_is_no_answer_of_coins_that_failed() {
        let read = |status, payload| Removed::read(status, payload, 2);
        assert_eq!(read(Status::ALL_FAIL, &[]), Some(Removed::NoLocker));
        let Some(Removed::Records(failed)) = read(Status::ALL_FAIL, &[0]) else {
            panic!("it has a bitmap");
        };
        assert!(failed.iter().all(|passed| !passed));
        assert_eq!(read(Status::MIXED, &[]), None);
        assert_eq!(read(Status::SUCCESS, &[]), None);
    }

    #[test]
    fn contents_that_are_no_list_of_coins_are_no_answer() {
        for (status, payload) in [
            (Status::ALL_PASS, &[][..]),
            (Status::ALL_PASS, &[0; 6]),
            (Status::ALL_PASS, &[7, 0, 0, 0, 0]),
            (Status::SUCCESS, &[0; 5]),
        ] {
            assert!(Contents::read(status, payload).is_none(), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn contents_are_read_as_they_were_composed(
            coins in prop::collection::vec(any_coin(), 0..40),
        ) {
            let mut payload = vec![];
            let status = Contents::answer(coins.iter().copied(), &mut payload);
            let expected = if coins.is_empty() { Status::ALL_FAIL } else { Status::ALL_PASS };
            prop_assert_eq!(status, expected);
            let contents = Contents::read(status, &payload).unwrap();
            prop_assert_eq!(contents.coins().collect::<Vec<_>>(), coins);
        }

        #[test]
        fn a_remove_reads_back(records in prop::collection::vec((any_coin(), any_an()), 1..40)) {
            let mut payload = vec![];
            Remove::compose(key(), records.iter().copied(), &mut payload);
            let request = Remove::parse(&payload).unwrap();
            prop_assert_eq!((request.key, request.len()), (key(), records.len()));
            let expected: Vec<_> = records.iter().map(|&(coin, an)| (Some(coin), an)).collect();
            prop_assert_eq!(request.records().collect::<Vec<_>>(), expected);
            payload.clear();
            let mut answer = PassFail::begin(&mut payload, records.len());
            answer.pass(records.len() - 1);
            let status = answer.finish(Bitmap::Always);
            let Some(Removed::Records(passed)) = Removed::read(status, &payload, records.len())
            else {
                panic!("it has a bitmap");
            };
            prop_assert!(passed.iter().enumerate().all(|(i, p)| p == (i + 1 == records.len())));
        }

        #[test]
        fn any_payload_is_refused_or_composed_again(
            front in prop_oneof![
                4 => prop::collection::vec(any::<u8>(), 12),
                1 => prop::collection::vec(any::<u8>(), 0..12),
            ],
            mark in prop::sample::select(vec![[0xff; 4], [0xff, 1, 0xee, 0xee], [0; 4]]),
            rest in prop_oneof![
                Just(vec![]),
                prop::collection::vec((0u8..8, 0u8..17, any::<[u8; 18]>()), 1..4).prop_map(|records| {
                    let record = |(dn, page, rest): (u8, u8, [u8; 18])| {
                        [dn, 0, page].into_iter().chain(rest)
                    };
                    records.into_iter().flat_map(record).collect()
                }),
                prop::collection::vec(any::<u8>(), 0..70),
            ],
        ) {
            let payload: Vec<u8> = front.into_iter().chain(mark).chain(rest).collect();
            let mut again = vec![];
            if let Ok(request) = Peek::parse(&payload) {
                Peek::compose(request.key, &mut again);
                prop_assert_eq!(&again, &payload);
            }
            again.clear();
            if let Ok(request) = PeekTrade::parse(&payload) {
                PeekTrade::compose(request.name, request.asks_for, &mut again);
                prop_assert_eq!(&again, &payload);
            }
            again.clear();
            if let Ok(request) = Remove::parse(&payload)
                && request.records().all(|(coin, _)| coin.is_some())
            {
                let records = request.records().filter_map(|(coin, an)| Some((coin?, an)));
                Remove::compose(request.key, records, &mut again);
                prop_assert_eq!(&again, &payload);
            }
        }
    }
}
