use super::{LockerKey, Offer};
use crate::hex;
use crate::{coin::An, protocol::Status};

/// Names a payment in its currency's own ledger. It is no secret: everyone can read it there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId([u8; TransactionId::SIZE]);

impl TransactionId {
    /// Bytes an id takes.
    pub const SIZE: usize = 32;

    /// Takes the bytes as they are.
    #[inline]
    pub const fn new(bytes: [u8; Self::SIZE]) -> TransactionId {
        TransactionId(bytes)
    }

    /// The bytes, in the order of the wire.
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

/// 64 hexadecimal digits.
impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::write(&self.0))
    }
}

impl std::fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TransactionId({self})")
    }
}

/// With it a buyer proves to the settler of payments that a payment is the buyer's own. Printing it
/// shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReceiptId([u8; ReceiptId::SIZE]);

impl ReceiptId {
    /// Bytes an id takes.
    pub const SIZE: usize = 16;

    /// Takes the bytes as they are.
    #[inline]
    pub const fn new(bytes: [u8; Self::SIZE]) -> ReceiptId {
        ReceiptId(bytes)
    }

    /// The bytes themselves: for the wire and for the settler of the payment, never for a log.
    #[inline]
    pub const fn expose(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

impl std::fmt::Debug for ReceiptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReceiptId(secret)")
    }
}

/// What a buyer writes to the settler of the payment: 1 to 254 bytes, not always a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Memo<'a>(&'a [u8]);

impl<'a> Memo<'a> {
    /// Bytes of the longest memo.
    pub const LENGTH_MAX: usize = 254;

    /// Takes these bytes; `None` where there are none or too many.
    #[inline]
    pub fn new(memo: &'a [u8]) -> Option<Memo<'a>> {
        (1..=Self::LENGTH_MAX)
            .contains(&memo.len())
            .then_some(Memo(memo))
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Shows the length only: the content is between buyer and seller.
impl std::fmt::Debug for Memo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memo({} bytes)", self.0.len())
    }
}

/// Buy: I have paid for the trade locker with exactly this offer; put its coins into this locker.
/// Locker key (16), currency (1), value (8), price (4), transaction id (32), receipt id (16), memo
/// (1-254): 77 bytes and the memo. Answered with 241, 51, 150, 180 or 203, and no payload.
#[derive(Clone, Copy, Debug)]
pub struct Buy<'a> {
    /// The locker that the coins go into.
    pub into: LockerKey,
    /// What is bought, and for how much.
    pub offer: Offer,
    /// The payment.
    pub transaction: TransactionId,
    /// Proof that the payment is the buyer's.
    pub receipt: ReceiptId,
    /// The buyer's memo.
    pub memo: Memo<'a>,
}

impl<'a> Buy<'a> {
    /// Reads a payload: 16 where it is too short, 198 where the key is no locker's, 50 where there
    /// is no such currency, 198 where the memo is too long.
    pub fn parse(payload: &'a [u8]) -> Result<Buy<'a>, Status> {
        const SHORT: Status = Status::INVALID_LENGTH;
        let (into, rest) = payload.split_first_chunk().ok_or(SHORT)?;
        let (offer, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (transaction, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (receipt, memo) = rest.split_first_chunk().ok_or(SHORT)?;
        if memo.is_empty() {
            return Err(SHORT);
        }
        Ok(Buy {
            into: LockerKey::new(An::new(*into)).ok_or(Status::INVALID_PARAMETER)?,
            offer: Offer::from_bytes(offer).ok_or(Status::UNKNOWN_CURRENCY)?,
            transaction: TransactionId(*transaction),
            receipt: ReceiptId(*receipt),
            memo: Memo::new(memo).ok_or(Status::INVALID_PARAMETER)?,
        })
    }

    /// Appends the payload.
    pub fn compose(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.into.an().expose());
        self.offer.write(out);
        out.extend_from_slice(&self.transaction.0);
        out.extend_from_slice(&self.receipt.0);
        out.extend_from_slice(self.memo.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Currency, Price, Value};
    use super::*;
    use proptest::prelude::*;

    fn buy(memo: &[u8]) -> Buy<'_> {
        Buy {
            into: LockerKey::new(An::new([0xff; 16])).unwrap(),
            offer: Offer {
                currency: Currency::Bitcoin,
                value: Value::from_units(5),
                price: Price::new(7),
            },
            transaction: TransactionId::new([1; 32]),
            receipt: ReceiptId::new([2; 16]),
            memo: Memo::new(memo).unwrap(),
        }
    }

    fn composed(memo: &[u8]) -> Vec<u8> {
        let mut payload = vec![];
        buy(memo).compose(&mut payload);
        payload
    }

    #[test]
    fn a_memo_has_1_to_254_bytes() {
        let lengths = (0..300).filter(|&length| Memo::new(&[b'm'; 300][..length]).is_some());
        assert!(lengths.eq(1..=254));
    }

    #[test]
    fn a_purchase_is_refused_for_its_length_then_its_key_its_currency_and_its_memo() {
        let status = |payload: &[u8]| Buy::parse(payload).map(drop);
        let mut payload = composed(&[b'm'; 254]);
        assert_eq!((payload.len(), status(&payload)), (77 + 254, Ok(())));
        payload.push(b'm');
        assert_eq!(status(&payload), Err(Status::INVALID_PARAMETER));
        payload[16] = 3;
        assert_eq!(status(&payload), Err(Status::UNKNOWN_CURRENCY));
        payload[15] = 0xfe;
        assert_eq!(status(&payload), Err(Status::INVALID_PARAMETER));
        for length in 0..78 {
            assert_eq!(status(&payload[..length]), Err(Status::INVALID_LENGTH));
        }
    }

    #[test]
    fn printing_a_purchase_shows_neither_key_nor_receipt_nor_memo() {
        assert_eq!(
            format!("{:?}", buy(b"for Bob")),
            format!(
                "Buy {{ into: LockerKey(secret), offer: {:?}, transaction: TransactionId({}), \
                 receipt: ReceiptId(secret), memo: Memo(7 bytes) }}",
                buy(b"m").offer,
                "01".repeat(32)
            )
        );
    }

    proptest! {
        #[test]
        fn any_payload_is_refused_or_composed_again(
            front in prop::collection::vec(any::<u8>(), 12),
            mark in prop::sample::select(vec![0xfeu8, 0xff]),
            currency in 0u8..4,
            rest in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..320),
                prop::collection::vec(any::<u8>(), 58..64),
            ],
        ) {
            let front = front.into_iter().chain([0xff, 0xff, 0xff, mark, currency]);
            let payload: Vec<u8> = front.chain(rest).collect();
            if let Ok(request) = Buy::parse(&payload) {
                let mut again = vec![];
                request.compose(&mut again);
                prop_assert_eq!(again, payload);
            }
        }
    }
}
