//! Group 1: who owns a coin, and handing it on (docs/protocol.md section 5). Sizes here are sizes
//! of the payload: 18 bytes (challenge and trailer) less than on that page.

use sha2::{Digest, Sha256};

use super::{
    Dialect, RaidaId, Status,
    records::{Claimed, Coins, Records, write},
};
use crate::coin::{An, Coin};

/// Detect: are these the coins' authenticity numbers? n x (DN SN AN), 21n bytes.
///
/// [`super::PassFail`] answers it with [`super::pass_fail::Bitmap::IfMixed`]. An impossible coin
/// simply fails.
#[derive(Clone, Copy, Debug)]
pub struct Detect<'a> {
    records: Records<'a, (Claimed, An)>,
}

impl<'a> Detect<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Detect<'a>, Status> {
        Records::parse(payload).map(|records| Detect { records })
    }

    /// Appends the payload that asks about these coins.
    pub fn compose(records: impl IntoIterator<Item = (Coin, An)>, out: &mut Vec<u8>) {
        write(records.into_iter().map(|(coin, an)| (Some(coin), an)), out);
    }

    /// Number of coins asked about: 1 or more.
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

    /// The coins and the numbers claimed for them; `None` for a coin that cannot exist.
    #[inline]
    pub fn records(&self) -> impl ExactSizeIterator<Item = (Option<Coin>, An)> + Clone + use<'a> {
        self.records.iter()
    }
}

/// Detect sum: is this the XOR of the coins' authenticity numbers? n x (DN SN), then the XOR:
/// 16 + 5n bytes. Answered with 241 or 242 and no payload.
#[derive(Clone, Copy, Debug)]
pub struct DetectSum<'a> {
    coins: Coins<'a>,
    sum: An,
}

impl<'a> DetectSum<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<DetectSum<'a>, Status> {
        let (coins, [sum]) = split_sums(payload)?;
        Ok(DetectSum { coins, sum })
    }

    /// Appends the payload that asks about these coins.
    pub fn compose(coins: impl IntoIterator<Item = Coin>, sum: An, out: &mut Vec<u8>) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(sum.expose());
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }

    /// The XOR of their authenticity numbers, as the client says.
    #[inline]
    pub fn sum(&self) -> An {
        self.sum
    }
}

/// Pown: give a new authenticity number to each of these coins whose old one is right. n x (DN SN
/// AN PAN), 37n bytes. Answered as [`Detect`]; an impossible coin simply fails.
#[derive(Clone, Copy, Debug)]
pub struct Pown<'a> {
    records: Records<'a, (Claimed, An, An)>,
}

impl<'a> Pown<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Pown<'a>, Status> {
        Records::parse(payload).map(|records| Pown { records })
    }

    /// Appends the payload: each coin with its authenticity number and the proposed one.
    pub fn compose(records: impl IntoIterator<Item = (Coin, An, An)>, out: &mut Vec<u8>) {
        let claimed = |(coin, an, proposed)| (Some(coin), an, proposed);
        write(records.into_iter().map(claimed), out);
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
    pub fn record(&self, record: usize) -> Option<(Option<Coin>, An, An)> {
        self.records.get(record)
    }

    /// The coins, the numbers claimed for them and the proposed ones; `None` for a coin that cannot
    /// exist.
    #[inline]
    pub fn records(
        &self,
    ) -> impl ExactSizeIterator<Item = (Option<Coin>, An, An)> + Clone + use<'a> {
        self.records.iter()
    }
}

/// Pown sum: n x (DN SN), the XOR of their authenticity numbers, and a delta: 32 + 5n bytes. Where
/// the XOR is right, every number is XORed with delta: all coins or none. Answered with 241 or 242
/// and no payload.
///
/// The XOR of an even number of coins stays the same, so their former owner still knows it.
/// [`Dialect::Spec`] therefore takes [one coin](PownSum::takes); [`PownDerive`] takes any number.
#[derive(Clone, Copy, Debug)]
pub struct PownSum<'a> {
    coins: Coins<'a>,
    sum: An,
    delta: An,
}

impl<'a> PownSum<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<PownSum<'a>, Status> {
        let (coins, [sum, delta]) = split_sums(payload)?;
        Ok(PownSum { coins, sum, delta })
    }

    /// Appends the payload.
    pub fn compose(coins: impl IntoIterator<Item = Coin>, sum: An, delta: An, out: &mut Vec<u8>) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(sum.expose());
        out.extend_from_slice(delta.expose());
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }

    /// The XOR of their authenticity numbers, as the client says.
    #[inline]
    pub fn sum(&self) -> An {
        self.sum
    }

    /// The change that every authenticity number takes.
    #[inline]
    pub fn delta(&self) -> An {
        self.delta
    }

    /// Whether a dialect accepts this many coins (else 198).
    #[inline]
    pub fn takes(dialect: Dialect, coins: usize) -> bool {
        match dialect {
            Dialect::Spec => coins == 1,
            Dialect::Raidax => true,
        }
    }
}

/// Pown derive: n x (DN SN), a delta and a [proof](DeriveProof) of their authenticity numbers: 32 +
/// 5n bytes. Where the proof is right, every number is replaced by the one [derived](derived_an)
/// from it: all coins or none. Answered with 241 or 242 and no payload.
#[derive(Clone, Copy, Debug)]
pub struct PownDerive<'a> {
    coins: Coins<'a>,
    delta: An,
    proof: An,
}

impl<'a> PownDerive<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<PownDerive<'a>, Status> {
        let (coins, [delta, proof]) = split_sums(payload)?;
        Ok(PownDerive {
            coins,
            delta,
            proof,
        })
    }

    /// Appends the payload: coins with the numbers that are in force at this server.
    pub fn compose(
        raida: RaidaId,
        coins: impl IntoIterator<Item = (Coin, An)>,
        delta: An,
        out: &mut Vec<u8>,
    ) {
        let mut proof = DeriveProof::new(raida, delta);
        let coins = coins.into_iter().map(|(coin, an)| {
            proof.add(coin, an);
            Some(coin)
        });
        write(coins, out);
        out.extend_from_slice(delta.expose());
        out.extend_from_slice(proof.finish().expose());
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }

    /// The new numbers are derived from this and the old numbers.
    #[inline]
    pub fn delta(&self) -> An {
        self.delta
    }

    /// The proof that the client gives.
    #[inline]
    pub fn proof(&self) -> An {
        self.proof
    }
}

/// The proof of a [`PownDerive`]: the first 16 bytes of SHA-256(`raida derive`, RAIDA (1), delta,
/// then DN SN AN of each coin in the order of the request).
#[derive(Clone)]
pub struct DeriveProof(Sha256);

impl DeriveProof {
    /// The proof of no coins yet.
    pub fn new(raida: RaidaId, delta: An) -> DeriveProof {
        let start = Sha256::new()
            .chain_update(b"raida derive")
            .chain_update([raida.get()])
            .chain_update(delta.expose());
        DeriveProof(start)
    }

    /// Adds a coin with the number in force.
    #[inline]
    pub fn add(&mut self, coin: Coin, an: An) {
        self.0.update(coin.to_bytes());
        self.0.update(an.expose());
    }

    /// The proof.
    pub fn finish(self) -> An {
        first_half(self.0)
    }
}

/// The authenticity number that a [`PownDerive`] gives a coin: the first 16 bytes of SHA-256(`raida
/// number`, AN, delta, DN, SN). The last byte is 0 where they have the form of a locker's or trade
/// locker's key.
pub fn derived_an(coin: Coin, an: An, delta: An) -> An {
    let hash = Sha256::new()
        .chain_update(b"raida number")
        .chain_update(an.expose())
        .chain_update(delta.expose())
        .chain_update(coin.to_bytes());
    plain(first_half(hash))
}

/// The number itself, or with a last byte of 0 where it has the form of a key.
fn plain(an: An) -> An {
    if !an.is_marked() {
        return an;
    }
    let mut bytes = *an.expose();
    bytes[An::SIZE - 1] = 0;
    An::new(bytes)
}

fn first_half(hash: Sha256) -> An {
    An::new(*hash.finalize().first_chunk().expect("32 bytes"))
}

/// Splits a list of coins from the `N` sixteen-byte numbers that end the payload.
#[inline]
fn split_sums<const N: usize>(payload: &[u8]) -> Result<(Coins<'_>, [An; N]), Status> {
    let mut list = payload;
    let mut sums = [An::ZERO; N];
    for sum in sums.iter_mut().rev() {
        let (rest, &bytes) = list.split_last_chunk().ok_or(Status::INVALID_LENGTH)?;
        list = rest;
        *sum = An::new(bytes);
    }
    Ok((Records::<Claimed>::parse(list)?.all_possible()?, sums))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::{any_an, any_coin, coin};
    use proptest::prelude::*;

    /// The status for a payload of zeros of each length: coin -8 cannot have zeros, 0.0 can.
    fn refusals<'a, T>(
        parse: impl Fn(&'a [u8]) -> Result<T, Status>,
        zeros: &'a [u8],
    ) -> Vec<Option<Status>> {
        (0..=zeros.len())
            .map(|length| parse(&zeros[..length]).err())
            .collect()
    }

    #[test]
    fn sizes_are_those_of_the_page() {
        let zeros = [0; 200];
        // The fixed part and the size of a record, both without challenge and trailer.
        for (refusals, fixed, record) in [
            (refusals(Detect::parse, &zeros), 0, 21),
            (refusals(DetectSum::parse, &zeros), 16, 5),
            (refusals(Pown::parse, &zeros), 0, 37),
            (refusals(PownSum::parse, &zeros), 32, 5),
            (refusals(PownDerive::parse, &zeros), 32, 5),
        ] {
            for (length, refusal) in refusals.into_iter().enumerate() {
                let expected = if length < fixed + record {
                    Some(Status::INVALID_LENGTH)
                } else if (length - fixed) % record != 0 {
                    Some(Status::UNEVEN_RECORDS)
                } else {
                    None
                };
                assert_eq!(refusal, expected, "{length} bytes, {fixed} + {record}n");
            }
        }
    }

    #[test]
    fn an_impossible_coin_fails_alone_or_refuses_the_sum() {
        let mut payload = Vec::new();
        Detect::compose(
            [(coin(6, 1), An::ZERO), (coin(0, 2), An::ZERO)],
            &mut payload,
        );
        payload[0] = 7;
        let coins: Vec<_> = Detect::parse(&payload)
            .unwrap()
            .records()
            .map(|(c, _)| c)
            .collect();
        assert_eq!(coins, [None, Some(coin(0, 2))]);

        payload.clear();
        PownSum::compose([coin(6, 1), coin(0, 2)], An::ZERO, An::ZERO, &mut payload);
        assert!(PownSum::parse(&payload).is_ok());
        payload[6] = 0xff; // the second coin's SN
        assert_eq!(PownSum::parse(&payload).unwrap_err(), Status::INVALID_COIN);
        assert_eq!(
            DetectSum::parse(&payload[..26]).unwrap_err(),
            Status::INVALID_COIN
        );
    }

    fn hash(parts: &[&[u8]]) -> [u8; 16] {
        let hash = Sha256::digest(parts.concat());
        *hash.first_chunk().unwrap()
    }

    #[test]
    fn a_proof_and_what_is_derived_are_hashes_of_these_bytes() {
        let raida = RaidaId::new(14).unwrap();
        let (delta, old) = (An::new([9; 16]), An::new([7; 16]));
        let coins = [(coin(6, 0x0001_0203), old), (coin(-8, 4), An::new([8; 16]))];
        let mut payload = Vec::new();
        PownDerive::compose(raida, coins, delta, &mut payload);
        let request = PownDerive::parse(&payload).unwrap();
        let list = [
            &[6, 0, 1, 2, 3][..],
            &[7; 16],
            &[0xf8, 0, 0, 0, 4],
            &[8; 16],
        ];
        let proof = hash(&[b"raida derive", &[14], &[9; 16], &list.concat()]);
        assert_eq!(request.proof(), An::new(proof));
        let derived = hash(&[b"raida number", &[7; 16], &[9; 16], &[6, 0, 1, 2, 3]]);
        assert_eq!(derived_an(coins[0].0, old, delta), An::new(derived));
    }

    #[test]
    fn no_key_is_derived() {
        let form = |bytes: [u8; 4]| {
            let mut an = [7; 16];
            an[12..].copy_from_slice(&bytes);
            *plain(An::new(an)).expose().last_chunk::<4>().unwrap()
        };
        assert_eq!(form([0xff; 4]), [0xff, 0xff, 0xff, 0]);
        for currency in 0..=2 {
            let [a, b, c, _] = [1, currency, 0xee, 0xee];
            assert_eq!(form([a, b, c, 0xee]), [a, b, c, 0]);
        }
        assert_eq!(form([1, 3, 0xee, 0xee]), [1, 3, 0xee, 0xee]);
        assert_eq!(form([1, 2, 3, 4]), [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn a_detect_reads_back(records in prop::collection::vec((any_coin(), any_an()), 1..40)) {
            let mut payload = Vec::new();
            Detect::compose(records.iter().copied(), &mut payload);
            let detect = Detect::parse(&payload).unwrap();
            let expected: Vec<_> = records.into_iter().map(|(coin, an)| (Some(coin), an)).collect();
            prop_assert_eq!(detect.len(), expected.len());
            prop_assert_eq!(detect.record(0), Some(expected[0]));
            prop_assert_eq!(detect.record(expected.len()), None);
            prop_assert_eq!(detect.records().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn a_pown_reads_back(
            records in prop::collection::vec((any_coin(), any_an(), any_an()), 1..40),
        ) {
            let mut payload = Vec::new();
            Pown::compose(records.iter().copied(), &mut payload);
            let pown = Pown::parse(&payload).unwrap();
            let expected: Vec<_> =
                records.into_iter().map(|(coin, an, pan)| (Some(coin), an, pan)).collect();
            prop_assert_eq!(pown.len(), expected.len());
            prop_assert_eq!(pown.record(0), Some(expected[0]));
            prop_assert_eq!(pown.records().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn the_sums_read_back(
            coins in prop::collection::vec(any_coin(), 1..40),
            sum in any_an(),
            delta in any_an(),
        ) {
            let mut payload = Vec::new();
            PownSum::compose(coins.iter().copied(), sum, delta, &mut payload);
            let pown = PownSum::parse(&payload).unwrap();
            prop_assert_eq!((pown.sum(), pown.delta()), (sum, delta));
            prop_assert_eq!(pown.coins().iter().collect::<Vec<_>>(), coins.clone());

            payload.clear();
            let raida = RaidaId::new(3).unwrap();
            let known = coins.iter().map(|&coin| (coin, sum));
            PownDerive::compose(raida, known, delta, &mut payload);
            let derive = PownDerive::parse(&payload).unwrap();
            prop_assert_eq!(derive.delta(), delta);
            prop_assert_eq!(derive.coins().iter().collect::<Vec<_>>(), coins.clone());

            payload.clear();
            DetectSum::compose(coins.iter().copied(), sum, &mut payload);
            let detect = DetectSum::parse(&payload).unwrap();
            prop_assert_eq!(detect.sum(), sum);
            prop_assert_eq!(detect.coins().len(), coins.len());
            prop_assert_eq!(detect.coins().get(0), Some(coins[0]));
            prop_assert_eq!(detect.coins().iter().collect::<Vec<_>>(), coins);
        }

        #[test]
        fn any_payload_is_parsed_without_a_panic(
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(detect) = Detect::parse(&payload) {
                prop_assert_eq!(detect.records().count(), detect.len());
            }
            if let Ok(pown) = Pown::parse(&payload) {
                prop_assert_eq!(pown.records().count(), pown.len());
            }
            if let Ok(sum) = DetectSum::parse(&payload) {
                prop_assert_eq!(sum.coins().iter().count(), sum.coins().len());
            }
            let _ = PownSum::parse(&payload);
            let _ = PownDerive::parse(&payload);
        }
    }
}
