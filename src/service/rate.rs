use std::{
    cell::Cell,
    hash::{BuildHasher, Hash},
    time::Duration,
};

use foldhash::quality::RandomState;

use crate::{protocol::RaidaId, shard::Stranger};

/// How many requests of a sort one address may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second in the long run; 0 for any number.
    pub per_s: u32,
    /// Requests at once, after a time without any.
    pub burst: u32,
}

/// Number of accounts that all addresses share: addresses that fall on the same account share what
/// it allows. An account takes 16 bytes, 64 KiB together, however many addresses there are. A power
/// of two.
const ACCOUNTS: usize = 4_096;

/// What each address sent lately, on one core.
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
        Rates::with_accounts(rate, ACCOUNTS)
    }

    /// The rate of all addresses together.
    pub(super) fn of_all(rate: Rate) -> Rates {
        Rates::with_accounts(rate, 1)
    }

    fn with_accounts(rate: Rate, accounts: usize) -> Rates {
        let interval = match rate.per_s {
            0 => Duration::ZERO,
            per_s => Duration::from_secs(1) / per_s,
        };
        Rates::at(interval, rate, accounts)
    }

    fn at(interval: Duration, rate: Rate, accounts: usize) -> Rates {
        Rates {
            interval,
            ahead: interval * rate.burst.saturating_sub(1),
            accounts: vec![Cell::default(); accounts].into(),
            hash: RandomState::default(),
        }
    }

    /// Whether an address may send another request now; counts it if so.
    #[inline]
    pub(super) fn admits(&self, stranger: Stranger, now: impl FnOnce() -> Duration) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        self.charge_one(self.account(stranger.number()), now())
    }

    fn charge_one(&self, account: &Cell<Duration>, now: Duration) -> bool {
        let paid = account.get().max(now);
        let is_admitted = paid <= now + self.ahead;
        if is_admitted {
            account.set(paid + self.interval);
        }
        is_admitted
    }

    /// Counts `requests` more: an admitted request made as much work as that many requests.
    pub(super) fn charge(&self, stranger: Stranger, requests: usize) {
        let account = self.account(stranger.number());
        account.set(account.get() + self.interval * requests as u32);
    }

    #[inline]
    fn account(&self, owner: impl Hash) -> &Cell<Duration> {
        let owner = self.hash.hash_one(owner) as usize;
        &self.accounts[owner & (self.accounts.len() - 1)]
    }
}

/// Wrong claims in the name of each server from each address, on one core. A ticket's number has 32
/// bits, so a stranger with unlimited tries finds some that others hold.
pub(super) struct WrongClaims(Rates);

impl WrongClaims {
    /// Allows `per_min` wrong claims a minute, and as many at once; 0 for any number.
    pub(super) fn new(per_min: u32) -> WrongClaims {
        let interval = match per_min {
            0 => Duration::ZERO,
            per_min => Duration::from_secs(60) / per_min,
        };
        let rate = Rate {
            per_s: per_min,
            burst: per_min,
        };
        WrongClaims(Rates::at(interval, rate, ACCOUNTS))
    }

    /// Whether a claim in this server's name from this address is looked at now; counts it as wrong
    /// if so. Many claims may be looked at at the same time, so counting them when they turn out
    /// wrong would be too late.
    pub(super) fn admits(
        &self,
        claimant: RaidaId,
        stranger: Stranger,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        let account = self.account(claimant, stranger);
        self.0.interval.is_zero() || self.0.charge_one(account, now())
    }

    /// Takes back the count of one claim that was looked at.
    #[inline]
    pub(super) fn was_right(&self, claimant: RaidaId, stranger: Stranger) {
        let account = self.account(claimant, stranger);
        account.set(account.get().saturating_sub(self.0.interval));
    }

    fn account(&self, claimant: RaidaId, stranger: Stranger) -> &Cell<Duration> {
        self.0.account((stranger, claimant.get()))
    }
}

/// Claims that this node makes because strangers ask for fixes, on one core. The other servers
/// count the wrong ones in its name ([`WrongClaims`]) and beyond a limit accept no claim of it at
/// all: a stranger with invented tickets would stop everybody's fixes. So where many were wrong
/// lately, the node claims only for strangers that have brought no wrong ticket lately.
pub(super) struct OwnClaims {
    /// From one wrong claim to the next; zero for any number.
    interval: Duration,
    ahead: Duration,
    /// By server: when the claims that count would be paid for.
    servers: Box<[Cell<Duration>]>,
    /// When what each stranger brought is forgotten.
    strangers: Rates,
}

/// How long a stranger's wrong ticket is remembered, and at most how long all of them are.
const WRONG_TICKET: Duration = Duration::from_secs(1);
const WRONG_TICKETS_MOST: Duration = Duration::from_secs(600);

impl OwnClaims {
    /// Allows `per_min` wrong claims a minute at each server, and as many at once; 0 for any
    /// number.
    pub(super) fn new(per_min: u32) -> OwnClaims {
        let interval = match per_min {
            0 => Duration::ZERO,
            per_min => Duration::from_secs(60) / per_min,
        };
        OwnClaims {
            interval,
            ahead: interval * per_min.saturating_sub(1),
            servers: vec![Cell::default(); RaidaId::COUNT].into(),
            strangers: Rates::new(Rate { per_s: 1, burst: 1 }),
        }
    }

    /// Whether a stranger has brought no wrong ticket lately.
    pub(super) fn trusts(&self, stranger: Stranger, now: Duration) -> bool {
        self.strangers.account(stranger.number()).get() <= now
    }

    /// Whether a claim is made at this server; it counts as wrong from then on.
    pub(super) fn admits(&self, server: RaidaId, is_trusted: bool, now: Duration) -> bool {
        let account = &self.servers[usize::from(server.get())];
        let paid = account.get().max(now);
        let is_admitted = is_trusted || paid <= now + self.ahead;
        if is_admitted {
            // Claims of trusted strangers make it no worse for others than it already can be.
            account.set(paid.min(now + self.ahead) + self.interval);
        }
        is_admitted
    }

    /// Takes back the count of one claim.
    pub(super) fn was_right(&self, server: RaidaId) {
        let account = &self.servers[usize::from(server.get())];
        account.set(account.get().saturating_sub(self.interval));
    }

    /// Counts `tickets` wrong tickets of a stranger.
    pub(super) fn were_wrong(&self, stranger: Stranger, tickets: usize, now: Duration) {
        let account = self.strangers.account(stranger.number());
        let forgotten = account.get().max(now) + WRONG_TICKET * tickets as u32;
        account.set(forgotten.min(now + WRONG_TICKETS_MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> Stranger {
        Stranger::V4(last.into())
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
        let admits = |text: &str| rates.admits(Stranger::of(text.parse().unwrap()), || SECOND);
        assert!(admits("2001:db8::1"));
        assert!(!admits("2001:db8::2:2"));
        assert!(admits("2001:db8:0:1::1"));
        assert!(admits("192.0.2.7"));
        assert!(!admits("::ffff:192.0.2.7"));
        let by_datagram = Stranger::of_datagram("192.0.2.7".parse().unwrap());
        assert!(rates.admits(by_datagram, || SECOND));
    }

    #[test]
    fn all_addresses_together_have_a_rate_of_their_own() {
        let rates = Rates::of_all(Rate { per_s: 5, burst: 5 });
        let admits = |last: &u8| rates.admits(address(*last), || SECOND);
        assert_eq!((0..100).filter(admits).count(), 5);
    }

    #[test]
    fn wrong_claims_are_counted_by_name_and_address() {
        let raida = |number| RaidaId::new(number).unwrap();
        let claims = WrongClaims::new(60);
        let wrong = |number, last, now| claims.admits(raida(number), address(last), || now);
        let of = |number, last, now| (0..1_000).filter(|_| wrong(number, last, now)).count();
        assert_eq!(of(3, 1, SECOND), 60);
        assert_eq!(of(3, 1, SECOND), 0);
        assert_eq!((of(4, 1, SECOND), of(3, 2, SECOND)), (60, 60));
        assert_eq!(of(3, 1, 31 * SECOND), 30);
        assert_eq!(of(3, 1, 600 * SECOND), 60);
        // Right ones are looked at, and do not count.
        for _ in 0..1_000 {
            assert!(wrong(5, 1, SECOND));
            claims.was_right(raida(5), address(1));
        }
        assert_eq!(of(5, 1, SECOND), 60);
        let any = WrongClaims::new(0);
        assert!((0..1_000).all(|_| any.admits(raida(3), address(1), || SECOND)));
    }

    #[test]
    fn wrong_tickets_of_strangers_do_not_use_up_what_this_node_may_claim() {
        let server = RaidaId::new(3).unwrap();
        let other = RaidaId::new(4).unwrap();
        let claims = OwnClaims::new(60);
        let (liar, honest) = (address(1), address(2));
        let made = |stranger, server, now| {
            let admits = |_: &usize| claims.admits(server, claims.trusts(stranger, now), now);
            (0..1_000).filter(admits).count()
        };
        claims.were_wrong(liar, 24, SECOND);
        assert_eq!(made(liar, server, SECOND), 60);
        assert_eq!(made(liar, server, SECOND), 0);
        assert_eq!(made(honest, server, SECOND), 1_000);
        assert_eq!(
            made(liar, other, SECOND),
            60,
            "each server counts by itself"
        );
        // What was right does not count.
        assert_eq!(made(liar, server, 61 * SECOND), 1_000, "it is forgotten");
        claims.were_wrong(liar, 1_000_000, 61 * SECOND);
        assert_eq!(made(liar, server, 121 * SECOND), 60);
        for _ in 0..10 {
            claims.was_right(server);
        }
        assert_eq!(made(liar, server, 121 * SECOND), 10);
        assert_eq!(
            made(liar, server, 662 * SECOND),
            1_000,
            "no longer than that"
        );
        let any = OwnClaims::new(0);
        any.were_wrong(liar, 24, SECOND);
        assert!((0..1_000).all(|_| any.admits(server, false, SECOND)));
    }

    #[test]
    fn a_rate_of_0_is_none() {
        let rates = Rates::new(Rate { per_s: 0, burst: 1 });
        assert_eq!(admitted(&rates, 1_000, SECOND), 1_000);
    }
}
