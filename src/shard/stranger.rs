use std::net::IpAddr;

/// Whoever is counted as one, as far as an address tells: an IPv4 address, however it is written,
/// or the 2^64 addresses of IPv6 that start alike, since who has one of them commonly has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stranger(u64);

impl Stranger {
    /// Whose address this is.
    #[inline]
    pub fn at(address: IpAddr) -> Stranger {
        Stranger(match address.to_canonical() {
            // ::/32 is not assigned to anybody, so no /64 of it is mistaken for an IPv4 address.
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }

    /// A number that is the stranger's alone.
    #[inline]
    pub fn number(self) -> u64 {
        self.0
    }
}
