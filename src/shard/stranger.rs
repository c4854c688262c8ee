use std::net::IpAddr;

/// Who sends requests, as far as that is known: what belongs to one stranger gets one share of what
/// there is for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stranger {
    /// An address of IPv4, however it is written.
    V4(u32),
    /// The 2^64 addresses of IPv6 that start alike: the holder of one of them has all.
    V6(u64),
    /// The same two, as datagrams bear them. Datagrams may come from anybody, so they take nothing
    /// from the client that has the address and connects from it.
    DatagramsOfV4(u32),
    /// See [`Stranger::DatagramsOfV4`].
    DatagramsOfV6(u64),
    /// Everybody who sends datagrams: these may bear any address.
    Datagrams,
}

impl Stranger {
    /// Who connects from this address.
    #[inline]
    pub const fn of(address: IpAddr) -> Stranger {
        match address.to_canonical() {
            IpAddr::V4(address) => Stranger::V4(address.to_bits()),
            IpAddr::V6(address) => Stranger::V6((address.to_bits() >> 64) as u64),
        }
    }

    /// Who sends datagrams that bear this address.
    #[inline]
    pub const fn of_datagram(address: IpAddr) -> Stranger {
        match Stranger::of(address) {
            Stranger::V4(address) => Stranger::DatagramsOfV4(address),
            Stranger::V6(network) => Stranger::DatagramsOfV6(network),
            other => other,
        }
    }

    /// A number that is the stranger's alone. Addresses of IPv6 that nobody has stand for the other
    /// kinds: nothing in ::/32 is assigned; in the upper half, within fc00::/6, only fc00::/7,
    /// fe80::/10 and ff00::/8 are in use; and 4000:: to 7fff:: is not in use.
    #[inline]
    pub const fn number(self) -> u64 {
        match self {
            Stranger::V4(address) => address as u64,
            Stranger::V6(network) => network,
            Stranger::DatagramsOfV4(address) => 1 << 32 | address as u64,
            Stranger::DatagramsOfV6(network) => network ^ 1 << 63,
            Stranger::Datagrams => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_belong_to_one_are_one_stranger() {
        let of = |text: &str| Stranger::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }

    #[test]
    fn each_stranger_has_a_number_of_its_own() {
        let number = |text: &str| Stranger::of(text.parse().unwrap()).number();
        let by_datagram = |text: &str| Stranger::of_datagram(text.parse().unwrap()).number();
        let numbers = [
            number("192.0.2.7"),
            number("192.0.2.8"),
            number("2001:db8::1"),
            number("2001:db8:0:1::1"),
            number("fd00::1"),
            by_datagram("192.0.2.7"),
            by_datagram("2001:db8::1"),
            by_datagram("fd00::1"),
            Stranger::Datagrams.number(),
        ];
        let different: std::collections::HashSet<u64> = numbers.into();
        assert_eq!(different.len(), numbers.len());
    }
}
