use std::{cell::Cell, hash::BuildHasher, net::IpAddr, time::Duration};

use foldhash::quality::RandomState;

/// How many requests of a sort one address may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second for as long as it likes; 0 for as many as it likes.
    pub per_s: u32,
    /// Requests at once, after some time without any.
    pub burst: u32,
}

/// Addresses share so many accounts: those that fall on the same one share what it allows. An account
/// takes 16 bytes, 64 KiB together, however many addresses there are.
const ACCOUNTS: usize = 4_096;

/// What each address has sent lately, on one core.
pub(super) struct Rates {
    /// From one request to the next at the rate allowed.
    interval: Duration,
    /// How far ahead of the rate an address may be.
    ahead: Duration,
    /// When what each has sent would be paid for.
    accounts: Box<[Cell<Duration>]>,
    hash: RandomState,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Rates {
        let interval = match rate.per_s {
            0 => Duration::ZERO,
            per_s => Duration::from_secs(1) / per_s,
        };
        Rates {
            interval,
            ahead: interval * rate.burst.saturating_sub(1),
            accounts: vec![Cell::default(); ACCOUNTS].into(),
            hash: RandomState::default(),
        }
    }

    /// Whether an address may send another request now; counts it if so.
    #[inline]
    pub(super) fn admits(&self, address: IpAddr, now: impl FnOnce() -> Duration) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        let now = now();
        let account = self.account(address);
        let paid = account.get().max(now);
        let is_admitted = paid <= now + self.ahead;
        if is_admitted {
            account.set(paid + self.interval);
        }
        is_admitted
    }

    /// Counts so many requests more: one that was admitted makes as much work as these.
    pub(super) fn charge(&self, address: IpAddr, requests: usize) {
        let account = self.account(address);
        account.set(account.get() + self.interval * requests as u32);
    }

    /// Whoever has one address of IPv6 has the 2^64 that start as it does.
    fn account(&self, address: IpAddr) -> &Cell<Duration> {
        let owner = match address.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        &self.accounts[self.hash.hash_one(owner) as usize % ACCOUNTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn admitted(rates: &Rates, count: usize, now: Duration) -> usize {
        let admits = |_: &usize| rates.admits(address(1), || now);
        (0..count).filter(admits).count()
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let rates = Rates::new(Rate {
            per_s: 10,
            burst: 20,
        });
        assert_eq!(admitted(&rates, 100, SECOND), 20);
        assert_eq!(admitted(&rates, 100, SECOND), 0);
        assert_eq!(admitted(&rates, 100, SECOND + SECOND / 10), 1);
        assert_eq!(admitted(&rates, 100, 2 * SECOND), 9);
        assert_eq!(admitted(&rates, 100, 60 * SECOND), 20);
        assert!(rates.admits(address(2), || 60 * SECOND), "it sent nothing");
    }

    #[test]
    fn what_is_refused_does_not_count() {
        let rates = Rates::new(Rate { per_s: 1, burst: 1 });
        assert_eq!(admitted(&rates, 1_000, SECOND), 1);
        assert_eq!(admitted(&rates, 1, 2 * SECOND), 1);
    }

    #[test]
    fn work_that_one_request_makes_for_others_counts() {
        let rates = Rates::new(Rate {
            per_s: 100,
            burst: 10,
        });
        assert_eq!(admitted(&rates, 1, SECOND), 1);
        rates.charge(address(1), 24);
        // 25 are to be paid for, and 10 may be ahead.
        assert_eq!(admitted(&rates, 1, SECOND + SECOND * 15 / 100), 0);
        assert_eq!(admitted(&rates, 1, SECOND + SECOND * 16 / 100), 1);
    }

    #[test]
    fn addresses_that_belong_to_one_share_an_account() {
        let rates = Rates::new(Rate { per_s: 1, burst: 1 });
        let admits = |text: &str| rates.admits(text.parse().unwrap(), || SECOND);
        assert!(admits("2001:db8::1"));
        assert!(!admits("2001:db8::2:2"));
        assert!(admits("2001:db8:0:1::1"));
        assert!(admits("192.0.2.7"));
        assert!(!admits("::ffff:192.0.2.7"));
    }

    #[test]
    fn a_rate_of_0_is_none() {
        let rates = Rates::new(Rate { per_s: 0, burst: 1 });
        assert_eq!(admitted(&rates, 1_000, SECOND), 1_000);
    }
}
