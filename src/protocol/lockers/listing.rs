use super::{Currency, Offer, PublicId, Value};
use crate::protocol::{Dialect, Status};

/// List lockers for sale: which trade lockers are paid in this currency? Currency (1), most (1): 2
/// bytes. Answered as [`ListForSale::answer`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListForSale {
    /// The currency that they are paid in.
    pub currency: Currency,
    /// Maximum number of trade lockers to list.
    pub most: u8,
}

impl ListForSale {
    /// Reads a payload: 16 where it has another size, 50 where there is no such currency.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<ListForSale, Status> {
        let &[currency, most] = payload else {
            return Err(Status::INVALID_LENGTH);
        };
        Ok(ListForSale {
            currency: Currency::from_byte(currency).ok_or(Status::UNKNOWN_CURRENCY)?,
            most,
        })
    }

    /// Appends the payload.
    pub fn compose(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.currency.to_byte(), self.most]);
    }

    /// Appends the answer, with as many of these trade lockers as were asked for, and returns its
    /// status. `spec`: public id (16), currency (1), value (8), price (4), 29 bytes each. `raidax`:
    /// 13 bytes each, without the public id.
    pub fn answer(
        &self,
        lockers: impl IntoIterator<Item = (PublicId, Value)>,
        dialect: Dialect,
        out: &mut Vec<u8>,
    ) -> Status {
        for (id, value) in lockers.into_iter().take(usize::from(self.most)) {
            if dialect == Dialect::Spec {
                out.extend_from_slice(&id.to_bytes());
            }
            let offer = Offer {
                currency: id.currency(),
                value,
                price: id.price(),
            };
            offer.write(out);
        }
        Status::ALL_PASS
    }
}

/// One trade locker of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its public id; `None` where the server speaks the `raidax` dialect, which does not state it.
    pub id: Option<PublicId>,
    /// What is for sale, and for how much.
    pub offer: Offer,
}

/// The answer to [`ListForSale`] as a client reads it, in whichever dialect it comes.
#[derive(Clone, Copy)]
pub struct Listing<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Spec(&'a [[u8; SPEC_SIZE]]),
    Raidax(&'a [[u8; Offer::SIZE]]),
}

const SPEC_SIZE: usize = PublicId::SIZE + Offer::SIZE;

impl<'a> Listing<'a> {
    /// Reads the answer to a request for lockers paid in this currency; `None` where the payload is
    /// no such answer.
    ///
    /// The dialects differ in length, except where both 29 and 13 divide it. Then the answer is
    /// `spec` if it reads as `spec`, each id with the terms that follow it. For that to happen with
    /// a list of the other dialect, its second offer would have to be worth half of all the coins
    /// there can be.
    pub fn read(status: Status, payload: &'a [u8], asked: Currency) -> Option<Listing<'a>> {
        if status != Status::ALL_PASS {
            return None;
        }
        if let (listed, []) = payload.as_chunks()
            && listed.iter().all(|bytes| is_of(read_spec(bytes), asked))
        {
            return Some(Listing(Form::Spec(listed)));
        }
        match payload.as_chunks() {
            (listed, []) if listed.iter().all(|bytes| is_of(read_raidax(bytes), asked)) => {
                Some(Listing(Form::Raidax(listed)))
            }
            _ => None,
        }
    }

    /// Number of trade lockers listed.
    pub fn len(&self) -> usize {
        match self.0 {
            Form::Spec(listed) => listed.len(),
            Form::Raidax(listed) => listed.len(),
        }
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The trade lockers, in the order in which they were put up for sale.
    pub fn iter(&self) -> impl Iterator<Item = Listed> + Clone + use<'a> {
        let (spec, raidax) = match self.0 {
            Form::Spec(listed) => (listed, &[][..]),
            Form::Raidax(listed) => (&[][..], listed),
        };
        let spec = spec.iter().filter_map(read_spec);
        spec.chain(raidax.iter().filter_map(read_raidax))
    }
}

impl std::fmt::Debug for Listing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn is_of(listed: Option<Listed>, currency: Currency) -> bool {
    listed.is_some_and(|listed| listed.offer.currency == currency)
}

fn read_spec(bytes: &[u8; SPEC_SIZE]) -> Option<Listed> {
    let (id, offer) = bytes.split_first_chunk()?;
    let id = PublicId::from_bytes(id)?;
    let offer = Offer::from_bytes(offer.first_chunk()?)?;
    let is_its = (id.currency(), id.price()) == (offer.currency, offer.price);
    is_its.then_some(Listed {
        id: Some(id),
        offer,
    })
}

fn read_raidax(bytes: &[u8; Offer::SIZE]) -> Option<Listed> {
    Some(Listed {
        id: None,
        offer: Offer::from_bytes(bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Price;
    use super::*;
    use crate::protocol::lockers::{PublicIdKey, TradeKey};
    use proptest::prelude::*;

    fn ids() -> PublicIdKey {
        PublicIdKey::new([7; 32])
    }

    fn asked(most: u8) -> ListForSale {
        ListForSale {
            currency: Currency::Bitcoin,
            most,
        }
    }

    fn locker(first: u8, price: u32, units: u64) -> (PublicId, Value) {
        let key = TradeKey::of([first; 9], Price::new(price), Currency::Bitcoin);
        (key.public_id(&ids()), Value::from_units(units))
    }

    #[test]
    fn a_listing_is_asked_for_in_two_bytes_exactly() {
        let mut payload = vec![];
        asked(9).compose(&mut payload);
        assert_eq!(payload, [1, 9]);
        assert_eq!(ListForSale::parse(&payload), Ok(asked(9)));
        for wrong in [&[][..], &[1], &[1, 9, 0], &[9, 9, 0]] {
            assert_eq!(ListForSale::parse(wrong), Err(Status::INVALID_LENGTH));
        }
        assert_eq!(ListForSale::parse(&[3, 9]), Err(Status::UNKNOWN_CURRENCY));
    }

    #[test]
    fn no_more_is_listed_than_was_asked_for() {
        for (most, listed) in [(0, 0), (1, 1), (2, 2), (255, 2)] {
            let mut out = vec![];
            let lockers = [locker(1, 2, 3), locker(4, 5, 6)];
            let status = asked(most).answer(lockers, Dialect::Spec, &mut out);
            let listing = Listing::read(status, &out, Currency::Bitcoin).unwrap();
            assert_eq!((listing.len(), listing.is_empty()), (listed, listed == 0));
        }
    }

    #[test]
    fn a_listing_tells_terms_and_never_the_secret_of_a_key() {
        let (id, value) = locker(0xa5, 1_234, 10_001_010_010_000);
        let mut out = vec![];
        asked(1).answer([(id, value)], Dialect::Spec, &mut out);
        assert_eq!(out[..16], id.to_bytes());
        assert_eq!(out[16..], [1, 0, 0, 9, 24, 138, 166, 39, 144, 0, 0, 4, 210]);
        assert!(!out.contains(&0xa5));
        let mut short = vec![];
        asked(1).answer([(id, value)], Dialect::Raidax, &mut short);
        assert_eq!(short, out[16..]);
    }

    #[test]
    fn a_list_that_is_not_of_what_was_asked_is_no_answer() {
        let mut out = vec![];
        asked(1).answer([locker(1, 2, 3)], Dialect::Spec, &mut out);
        let read = |status, payload: &[u8], currency| {
            Listing::read(status, payload, currency).map(|listing| listing.len())
        };
        assert_eq!(read(Status::ALL_PASS, &out, Currency::Bitcoin), Some(1));
        assert_eq!(read(Status::ALL_PASS, &[], Currency::Bitcoin), Some(0));
        assert_eq!(read(Status::ALL_PASS, &out, Currency::Monero), None);
        assert_eq!(read(Status::ALL_FAIL, &out, Currency::Bitcoin), None);
        assert_eq!(read(Status::ALL_PASS, &out[1..], Currency::Bitcoin), None);
        // An id with the price of another.
        *out.last_mut().unwrap() ^= 1;
        assert_eq!(read(Status::ALL_PASS, &out, Currency::Bitcoin), None);
    }

    proptest! {
        /// A length of 13 and of 29 lockers is right in both dialects.
        #[test]
        fn a_client_reads_what_a_server_composed_without_being_told_the_dialect(
            lockers in prop_oneof![
                prop::collection::vec((any::<u8>(), any::<u32>(), 0..=u64::MAX / 2), 0..40),
                prop::collection::vec((any::<u8>(), any::<u32>(), 0..=u64::MAX / 2), 13),
                prop::collection::vec((any::<u8>(), any::<u32>(), 0..=u64::MAX / 2), 29),
            ],
            raidax in any::<bool>(),
        ) {
            let dialect = if raidax { Dialect::Raidax } else { Dialect::Spec };
            let lockers = lockers.into_iter().map(|(first, price, units)| locker(first, price, units));
            let mut out = vec![];
            let status = asked(255).answer(lockers.clone(), dialect, &mut out);
            let listing = Listing::read(status, &out, Currency::Bitcoin).unwrap();
            let expected = lockers.map(|(id, value)| Listed {
                id: (!raidax).then_some(id),
                offer: Offer { currency: Currency::Bitcoin, value, price: id.price() },
            });
            prop_assert_eq!(listing.iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }

        #[test]
        fn any_payload_is_refused_or_composed_again(
            payload in prop_oneof![
                prop::collection::vec(0u8..5, 2),
                prop::collection::vec(any::<u8>(), 0..4),
            ],
            answer in prop::collection::vec(0u8..3, 0..100),
        ) {
            let mut again = vec![];
            if let Ok(request) = ListForSale::parse(&payload) {
                request.compose(&mut again);
                prop_assert_eq!(again, payload);
            }
            if let Some(listing) = Listing::read(Status::ALL_PASS, &answer, Currency::CloudCoin) {
                prop_assert_eq!(listing.iter().count(), listing.len());
            }
        }
    }
}
