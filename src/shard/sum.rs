use crate::coin::{An, Coin};

/// The XOR of the authenticity numbers of some coins. A client proves that it knows this sum
/// instead of each number.
///
/// A number that occurs an even number of times leaves nothing in the XOR. A client that names two
/// coins that share a number, of one locker or not, would prove nothing about them, and could take
/// them. So a sum is [no proof](Sum::proves) where any number is in it an even number of times
/// (docs/protocol.md, "Sums").
///
/// Numbers are told apart by a keyed hash of 62 bits. Two that differ count as one in 1 of 4 x
/// 10^18 pairs, and the sum is refused then: the error is on the safe side.
#[derive(Debug)]
pub struct Sum {
    seeds: SumSeeds,
    xor: An,
    /// What was added, hashed. There are twice as many places as numbers; a free place is 0.
    places: Vec<u64>,
    /// Numbers that occur an even number of times.
    even: usize,
    has_equal: bool,
}

/// What numbers are hashed with, so that nobody can choose numbers that all want one place.
#[derive(Clone, Copy)]
pub struct SumSeeds([u64; 2]);

/// In a place: the place is taken.
const TAKEN: u64 = 1;
/// In a place: the number occurs an even number of times.
const IS_EVEN: u64 = 2;

impl SumSeeds {
    /// Seeds from bytes that nobody else knows.
    pub fn new(secret: &[u8; 32]) -> SumSeeds {
        let (words, _) = secret.as_chunks();
        SumSeeds([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])])
    }
}

impl std::fmt::Debug for SumSeeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SumSeeds(secret)")
    }
}

impl Sum {
    /// An empty sum, with room for this many numbers.
    pub fn new(seeds: SumSeeds, room: usize) -> Sum {
        Sum {
            seeds,
            xor: An::ZERO,
            // Zeroed pages of the system, where they are many: nothing is written here.
            places: vec![0; Self::places_for(room)],
            even: 0,
            has_equal: false,
        }
    }

    /// Makes the sum empty again, with room for this many numbers.
    pub fn begin(&mut self, room: usize) {
        self.xor = An::ZERO;
        self.places.clear();
        self.places.resize(Self::places_for(room), 0);
        (self.even, self.has_equal) = (0, false);
    }

    /// One number needs no place: nothing can equal it.
    fn places_for(room: usize) -> usize {
        match room {
            0 | 1 => 0,
            _ => (2 * room).next_power_of_two(),
        }
    }

    /// Adds a coin's number.
    ///
    /// # Panics
    /// When there is no room for it.
    #[inline]
    pub fn add(&mut self, an: An) {
        self.xor ^= an;
        if !self.places.is_empty() {
            self.count(u128::from_le_bytes(*an.expose()));
        }
    }

    /// Counts a coin as if it were a number: [`has_equal`](Sum::has_equal) tells whether one came
    /// twice.
    #[inline]
    pub fn add_coin(&mut self, coin: Coin) {
        let bytes = coin.to_bytes();
        let mut number = [0; 16];
        number[..Coin::SIZE].copy_from_slice(&bytes);
        if !self.places.is_empty() {
            self.count(u128::from_le_bytes(number));
        }
    }

    #[inline]
    fn count(&mut self, number: u128) {
        let SumSeeds([low, high]) = self.seeds;
        let product = u128::from(number as u64 ^ low) * u128::from((number >> 64) as u64 ^ high);
        let hash = product as u64 ^ (product >> 64) as u64;
        let entry = hash & !IS_EVEN | TAKEN;
        let last = self.places.len() - 1;
        // The high bits, since the two low ones are not the hash's.
        let mut at = (hash >> 32) as usize & last;
        loop {
            let place = &mut self.places[at];
            if *place == 0 {
                *place = entry;
                return;
            }
            if *place & !IS_EVEN == entry {
                *place ^= IS_EVEN;
                match *place & IS_EVEN {
                    0 => self.even -= 1,
                    _ => self.even += 1,
                }
                self.has_equal = true;
                return;
            }
            at = (at + 1) & last;
        }
    }

    /// Whether two of the numbers are the same.
    pub fn has_equal(&self) -> bool {
        self.has_equal
    }

    /// Whether this sum proves, as far as a sum can, that its sender knows the numbers.
    pub fn proves(&self, sum: An) -> bool {
        // Both are looked at, so that the time is the same whichever is wrong.
        (self.xor == sum) & (self.even == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;
    use proptest::prelude::*;

    fn coin(page: usize, place: usize) -> Coin {
        PageId::from_index(page).unwrap().coin(place)
    }

    const SEEDS: SumSeeds = SumSeeds([0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3211]);

    fn an(number: u8) -> An {
        An::new([number; 16])
    }

    fn key(number: u8) -> An {
        let mut bytes = [number; 16];
        bytes[12..].fill(0xff);
        An::new(bytes)
    }

    fn of(ans: &[An]) -> Sum {
        let mut sum = Sum::new(SEEDS, ans.len());
        ans.iter().for_each(|&an| sum.add(an));
        sum
    }

    #[test]
    fn coins_that_share_a_number_prove_nothing_in_pairs_whatever_the_number() {
        for shared in [key(1), an(1)] {
            assert!(of(&[an(7), shared]).proves(an(7) ^ shared));
            assert!(of(&[shared, an(2), shared, shared]).proves(shared ^ an(2)));
            assert!(!of(&[shared, shared]).proves(An::ZERO));
            assert!(!of(&[an(7), shared, an(2), shared]).proves(an(7) ^ an(2)));
            assert!(!of(&[shared; 4]).proves(An::ZERO));
            // Two that occur twice, and one that occurs three times.
            let pairs = [shared, an(2), shared, an(2), an(3), an(3), an(3)];
            assert!(!of(&pairs).proves(an(3)));
            assert!(!of(&pairs[..4]).proves(An::ZERO));
        }
        assert!(!of(&[an(7)]).proves(An::ZERO));
        assert!(of(&[An::ZERO]).proves(An::ZERO));
        assert!(!of(&[An::ZERO, an(1), An::ZERO]).proves(an(1)));
    }

    #[test]
    fn a_sum_begins_anew() {
        let mut sum = of(&[an(1), an(1)]);
        assert!(sum.has_equal());
        sum.begin(3);
        [an(1), an(2), an(3)].into_iter().for_each(|an| sum.add(an));
        assert!(!sum.has_equal() && sum.proves(an(1) ^ an(2) ^ an(3)));
    }

    #[test]
    fn a_coin_that_comes_twice_is_noticed() {
        let mut coins = Sum::new(SEEDS, 3);
        coins.add_coin(coin(0, 1));
        coins.add_coin(coin(1, 1));
        assert!(!coins.has_equal());
        coins.add_coin(coin(0, 1));
        assert!(coins.has_equal());
    }

    proptest! {
        #[test]
        fn exactly_the_sums_without_an_even_number_of_equals_prove(
            numbers in prop::collection::vec(0u8..40, 1..60),
        ) {
            let ans: Vec<An> = numbers.iter().map(|&number| an(number)).collect();
            let xor = ans.iter().fold(An::ZERO, |xor, &an| xor ^ an);
            let times = |number| numbers.iter().filter(|&&other| other == number).count();
            let is_proof = numbers.iter().all(|&number| times(number) % 2 == 1);
            let sum = of(&ans);
            prop_assert_eq!(sum.proves(xor), is_proof);
            prop_assert_eq!(sum.has_equal(), numbers.iter().any(|&number| times(number) > 1));
            prop_assert!(!sum.proves(xor ^ an(99)));
        }
    }
}
