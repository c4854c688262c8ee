use super::{LockerKey, TradeKey, keys};
use crate::{
    coin::{An, Coin},
    protocol::{
        Status,
        records::{Claimed, Coins, Records, write},
    },
};

/// Where a seller wants to be paid: 16 to 120 bytes. The protocol does not interpret them.
#[derive(Clone, Copy)]
pub struct Address {
    length: u8,
    bytes: [u8; Address::LENGTH_MAX],
}

impl Address {
    /// Bytes of the shortest address.
    pub const LENGTH_MIN: usize = 16;
    /// Bytes of the longest address.
    pub const LENGTH_MAX: usize = 120;
    /// Bytes that hold an address in a request, whatever its length.
    const PADDED: usize = 128;

    /// Takes these bytes; `None` where they are too few or too many.
    pub fn new(address: &[u8]) -> Option<Address> {
        if !(Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&address.len()) {
            return None;
        }
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..address.len()].copy_from_slice(address);
        Some(Address {
            length: address.len() as u8,
            bytes,
        })
    }

    /// The address, without padding.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Address {}

/// Shows the length only: nobody else needs to know where somebody is paid.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({} bytes)", self.length)
    }
}

/// Put for sale: put these coins into a trade locker, if this is the XOR of their authenticity
/// numbers. n x (DN SN), XOR (16), trade key (16), address length (1), address (128, padded): 161 +
/// 5n bytes. Answered with 241 or 242 and no payload, or with 148 where the same offer is there
/// already.
#[derive(Clone, Copy, Debug)]
pub struct PutForSale<'a> {
    coins: Coins<'a>,
    /// The XOR of the coins' authenticity numbers, as the client says.
    pub sum: An,
    /// The trade locker to put them into; it states price and currency.
    pub key: TradeKey,
    /// Where the seller wants to be paid.
    pub address: Address,
}

impl<'a> PutForSale<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide; then 50 where the
    /// key names an unknown currency, 199 where it does not have the mark of a trade key, 198 where
    /// the address is too short or too long; then 40 where a coin cannot exist. The padding of the
    /// address is ignored.
    pub fn parse(payload: &'a [u8]) -> Result<PutForSale<'a>, Status> {
        const SHORT: Status = Status::INVALID_LENGTH;
        let (rest, padded) = payload
            .split_last_chunk::<{ Address::PADDED }>()
            .ok_or(SHORT)?;
        let (&length, rest) = rest.split_last().ok_or(SHORT)?;
        let (rest, key) = rest.split_last_chunk().ok_or(SHORT)?;
        let (list, sum) = rest.split_last_chunk().ok_or(SHORT)?;
        let list = Records::<Claimed>::parse(list)?;
        let key = An::new(*key);
        keys::currency(&key).ok_or(Status::UNKNOWN_CURRENCY)?;
        let key = TradeKey::new(key).ok_or(Status::WRONG_LOCKER_KEY)?;
        let address = padded.get(..usize::from(length)).and_then(Address::new);
        let address = address.ok_or(Status::INVALID_PARAMETER)?;
        Ok(PutForSale {
            coins: list.all_possible()?,
            sum: An::new(*sum),
            key,
            address,
        })
    }

    /// Appends the payload.
    pub fn compose(
        coins: impl IntoIterator<Item = Coin>,
        sum: An,
        key: TradeKey,
        address: &Address,
        out: &mut Vec<u8>,
    ) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(sum.expose());
        out.extend_from_slice(key.an().expose());
        out.push(address.length);
        out.extend_from_slice(&address.bytes);
        out.extend_from_slice(&[0; Address::PADDED - Address::LENGTH_MAX]);
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }
}

/// Remove trade locker: take an offer back. Trade key (16): the coins are freed; or trade key (16),
/// locker key (16): they go into that locker. Answered with 241 or, where there is no such trade
/// locker, 242, and no payload.
#[derive(Clone, Copy, Debug)]
pub struct RemoveTrade {
    /// The trade locker.
    pub key: TradeKey,
    /// Where its coins go; `None`: out of circulation.
    pub into: Option<LockerKey>,
}

impl RemoveTrade {
    /// Reads a payload: 16 where it has another size, 199 where the second key is no locker's, 242
    /// where no trade locker has a key like the first.
    pub fn parse(payload: &[u8]) -> Result<RemoveTrade, Status> {
        let (key, rest) = payload.split_first_chunk().ok_or(Status::INVALID_LENGTH)?;
        let into = match rest {
            [] => None,
            rest => {
                let into = rest.try_into().map_err(|_| Status::INVALID_LENGTH)?;
                Some(LockerKey::new(An::new(into)).ok_or(Status::WRONG_LOCKER_KEY)?)
            }
        };
        let key = TradeKey::new(An::new(*key)).ok_or(Status::ALL_FAIL)?;
        Ok(RemoveTrade { key, into })
    }

    /// Appends the payload.
    pub fn compose(key: TradeKey, into: Option<LockerKey>, out: &mut Vec<u8>) {
        out.extend_from_slice(key.an().expose());
        if let Some(into) = into {
            out.extend_from_slice(into.an().expose());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Currency, Price};
    use super::*;
    use crate::protocol::samples::{any_an, any_coin, coin};
    use proptest::prelude::*;

    const SUM: An = An::new([3; 16]);

    fn key() -> TradeKey {
        TradeKey::of([1; 9], Price::new(1_234), Currency::Bitcoin)
    }

    fn sale(coins: &[Coin], address: &[u8]) -> Vec<u8> {
        let mut payload = vec![];
        let address = Address::new(address).unwrap();
        PutForSale::compose(coins.iter().copied(), SUM, key(), &address, &mut payload);
        payload
    }

    #[test]
    fn an_address_has_16_to_120_bytes() {
        let lengths = (0..200).filter(|&length| Address::new(&vec![b'a'; length]).is_some());
        assert!(lengths.eq(16..=120));
        assert_eq!(Address::new(&[b'a'; 16]).unwrap().as_bytes(), [b'a'; 16]);
    }

    #[test]
    fn a_sale_is_refused_for_its_length_then_its_key_then_its_address_then_its_coins() {
        let status = |payload: &[u8]| PutForSale::parse(payload).map(drop);
        let mut payload = sale(&[coin(0, 1)], b"an address to pay");
        let (key_at, length_at) = (5 + 16, 5 + 32);
        assert_eq!((payload.len(), status(&payload)), (166, Ok(())));
        payload[0] = 7;
        assert_eq!(status(&payload), Err(Status::INVALID_COIN));
        for length in [0, 15, 121, 128, 129, 255] {
            payload[length_at] = length;
            assert_eq!(status(&payload), Err(Status::INVALID_PARAMETER));
        }
        payload[key_at + 15] = 0xef;
        assert_eq!(status(&payload), Err(Status::WRONG_LOCKER_KEY));
        payload[key_at + 13] = 3;
        assert_eq!(status(&payload), Err(Status::UNKNOWN_CURRENCY));
        payload.push(0);
        assert_eq!(status(&payload), Err(Status::UNEVEN_RECORDS));
        for length in 0..166 {
            let refusal = status(&payload[..length]);
            assert_eq!(refusal, Err(Status::INVALID_LENGTH), "{length} bytes");
        }
    }

    #[test]
    fn what_pads_an_address_is_ignored() {
        let mut payload = sale(&[coin(0, 1)], b"an address to pay");
        payload[166 - 111..].fill(0xcc);
        let request = PutForSale::parse(&payload).unwrap();
        assert_eq!(request.address.as_bytes(), b"an address to pay");
        assert_eq!(request.key, key());
    }

    #[test]
    fn an_offer_is_taken_back_with_its_key_and_perhaps_a_lockers() {
        let into = LockerKey::new(An::new([0xff; 16])).unwrap();
        let mut payload = vec![];
        RemoveTrade::compose(key(), None, &mut payload);
        let request = RemoveTrade::parse(&payload).unwrap();
        assert_eq!((request.key, request.into), (key(), None));
        payload.clear();
        RemoveTrade::compose(key(), Some(into), &mut payload);
        let request = RemoveTrade::parse(&payload).unwrap();
        assert_eq!((request.key, request.into), (key(), Some(into)));

        let status = |payload: &[u8]| RemoveTrade::parse(payload).map(drop);
        for length in (0..32).filter(|&length| length != 16) {
            assert_eq!(status(&payload[..length]), Err(Status::INVALID_LENGTH));
        }
        assert_eq!(status(&[0; 33]), Err(Status::INVALID_LENGTH));
        payload[15] = 0xef;
        assert_eq!(status(&payload), Err(Status::ALL_FAIL));
        payload[31] = 0xfe;
        assert_eq!(status(&payload), Err(Status::WRONG_LOCKER_KEY));
    }

    proptest! {
        #[test]
        fn a_sale_is_read_as_it_was_composed(
            coins in prop::collection::vec(any_coin(), 1..40),
            sum in any_an(),
            address in prop::collection::vec(any::<u8>(), 16..=120),
            price in any::<u32>(),
        ) {
            let address = Address::new(&address).unwrap();
            let key = TradeKey::of([9; 9], Price::new(price), Currency::Monero);
            let mut payload = vec![];
            PutForSale::compose(coins.iter().copied(), sum, key, &address, &mut payload);
            prop_assert_eq!(payload.len(), 161 + 5 * coins.len());
            let request = PutForSale::parse(&payload).unwrap();
            prop_assert_eq!((request.sum, request.key, request.address), (sum, key, address));
            prop_assert_eq!(request.coins().iter().collect::<Vec<_>>(), coins);
        }

        #[test]
        fn any_sale_is_refused_or_composed_again_but_for_its_padding(
            coins in prop::collection::vec(any::<[u8; 5]>(), 1..4),
            left_over in prop_oneof![3 => Just(0usize), 1 => 1usize..5],
            middle in prop::collection::vec(any::<u8>(), 16 + 13),
            currency in 0u8..4,
            mark in prop::sample::select(vec![0xeeu8, 0xef]),
            length in 0u8..140,
            address in prop::collection::vec(any::<u8>(), 128),
        ) {
            let coins = coins.into_iter().map(|[dn, page, b, c, d]| [dn % 8, 0, page % 16, b & c, d]);
            let coins = coins.flatten().chain(vec![0; left_over]);
            let front = coins.chain(middle).chain([currency, 0xee, mark, length]);
            let mut payload: Vec<u8> = front.collect();
            let padding = payload.len() + usize::from(length);
            payload.extend(address);
            if let Ok(request) = PutForSale::parse(&payload) {
                let PutForSale { sum, key, address, .. } = request;
                let mut again = vec![];
                PutForSale::compose(request.coins().iter(), sum, key, &address, &mut again);
                payload[padding..].fill(0);
                prop_assert_eq!(again, payload);
            }
        }

        #[test]
        fn any_taking_back_is_refused_or_composed_again(
            secret in prop::collection::vec(any::<u8>(), 13),
            currency in 0u8..4,
            mark in prop::sample::select(vec![0xeeu8, 0xef]),
            into in prop_oneof![Just(vec![]), Just(vec![0xff; 16]), Just(vec![0xff; 15])],
        ) {
            let front = secret.into_iter().chain([currency, 0xee, mark]);
            let payload: Vec<u8> = front.chain(into).collect();
            if let Ok(request) = RemoveTrade::parse(&payload) {
                let mut again = vec![];
                RemoveTrade::compose(request.key, request.into, &mut again);
                prop_assert_eq!(again, payload);
            }
        }

        #[test]
        fn bytes_of_any_length_are_parsed_without_a_panic(
            payload in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = PutForSale::parse(&payload).map(|request| request.coins().iter().count());
            let _ = RemoveTrade::parse(&payload);
        }
    }
}
