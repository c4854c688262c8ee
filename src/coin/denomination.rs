/// What a coin is worth: 10 to the power of this, -8 (0.00000001) to 6 (1,000,000). One signed byte
/// on the wire (docs/protocol.md section 1).
///
/// ```
/// use raida::coin::Denomination;
/// let smallest = Denomination::from_byte(0xf8).unwrap();
/// assert_eq!((smallest.exponent(), smallest.index(), smallest.worth_units()), (-8, 0, 1));
/// assert!(Denomination::from_byte(7).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Denomination(i8);

impl Denomination {
    /// How many denominations there are.
    pub const COUNT: usize = 15;
    const LEAST: i8 = -8;
    const MOST: i8 = 6;

    /// The denomination worth 10^`exponent`; `None` outside -8 to 6.
    #[inline]
    pub fn new(exponent: i8) -> Option<Denomination> {
        (Self::LEAST..=Self::MOST)
            .contains(&exponent)
            .then_some(Denomination(exponent))
    }

    /// Reads the signed byte of the wire.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<Denomination> {
        Self::new(byte as i8)
    }

    /// The denomination with this index, 0 (worth 10^-8) to 14 (worth 10^6).
    pub fn from_index(index: usize) -> Option<Denomination> {
        (index < Self::COUNT).then(|| Denomination(index as i8 + Self::LEAST))
    }

    /// The signed byte of the wire.
    #[inline]
    pub fn to_byte(self) -> u8 {
        self.0 as u8
    }

    /// The power of ten.
    pub fn exponent(self) -> i8 {
        self.0
    }

    /// DN + 8: 0 to 14.
    #[inline]
    pub fn index(self) -> usize {
        (self.0 - Self::LEAST) as usize
    }

    /// What one coin is worth in the smallest unit (0.00000001): 10^(DN + 8).
    pub fn worth_units(self) -> u64 {
        10u64.pow(self.index() as u32)
    }

    /// All fifteen, the smallest first.
    pub fn all() -> impl ExactSizeIterator<Item = Denomination> {
        (0..Self::COUNT).map(|index| Denomination(index as i8 + Self::LEAST))
    }
}

impl std::fmt::Display for Denomination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::fmt::Debug for Denomination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DN {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_byte_lead_back_to_the_same_denomination() {
        for (index, denomination) in Denomination::all().enumerate() {
            assert_eq!(denomination.index(), index);
            assert_eq!(Denomination::from_index(index), Some(denomination));
            assert_eq!(
                Denomination::from_byte(denomination.to_byte()),
                Some(denomination)
            );
        }
        assert_eq!(Denomination::from_index(15), None);
    }

    #[test]
    fn a_million_is_worth_ten_to_the_fourteen_units() {
        assert_eq!(
            Denomination::new(6).unwrap().worth_units(),
            100_000_000_000_000
        );
    }
}
