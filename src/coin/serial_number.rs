/// Coins a page holds (docs/protocol.md section 1).
pub const COINS_PER_PAGE: usize = 1_024;

/// A coin's number within its denomination, 0 to 1,023,999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber(u32);

impl SerialNumber {
    /// One more than the highest serial number: coins in a denomination.
    pub const COUNT: u32 = 1_024_000;

    /// `None` where no such serial number can exist.
    #[inline]
    pub fn new(number: u32) -> Option<SerialNumber> {
        (number < Self::COUNT).then_some(SerialNumber(number))
    }

    /// The plain number.
    #[inline]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Which page of the denomination, 0 to 999.
    #[inline]
    pub fn page_number(self) -> u16 {
        (self.0 / COINS_PER_PAGE as u32) as u16
    }

    /// Which place in that page, 0 to 1,023.
    #[inline]
    pub fn place(self) -> usize {
        self.0 as usize % COINS_PER_PAGE
    }
}

impl std::fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SN {}", self.0)
    }
}
