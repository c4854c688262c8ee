use std::collections::BTreeSet;
use std::time::Duration;

use super::{EncryptionHealth, UnixSeconds};
use crate::client::wallet::Filed;
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::key_healing::{CLOCK_AHEAD_MINUTES_MAX, TICKET_AGE_MINUTES_MAX};

/// How long after an attempt began its number may come into force: the maximum age of a ticket, and
/// as long again for the attempt itself.
const UNDER_WAY_MAX: Duration =
    Duration::from_secs(2 * 60 * (TICKET_AGE_MINUTES_MAX + CLOCK_AHEAD_MINUTES_MAX));

/// Where a fix of keys may be under way still, so that no other number may replace the one in
/// doubt: on servers that were tried a short time ago, for each coin whose file has two numbers for
/// them. A server that said no, or has neither number, may still have the fix before it: requests
/// overtake each other, and a server that is unavailable may have written the number down before
/// that.
///
/// A number that [`heal`](crate::client::heal) proposed there is spared as well where it is in
/// doubt: the file does not say which of the two proposed it, and waiting does no harm. The key of
/// a locker or an offer is not spared; no fix of keys has such a number.
pub fn under_way(
    coins: &[Filed],
    health: &EncryptionHealth,
    now: UnixSeconds,
) -> BTreeSet<(RaidaId, Coin)> {
    // An attempt far ahead of the clock was noted by a clock that was wrong.
    let tried = |&raida: &RaidaId| {
        let last = health.of(raida).last_attempt;
        last.is_some_and(|at| now.0.abs_diff(at.0) < UNDER_WAY_MAX.as_secs())
    };
    let tried: Vec<RaidaId> = RaidaId::all().filter(tried).collect();
    let in_doubt = |filed: &Filed| {
        let file = &filed.file;
        let is_proposed = |pan: An| !pan.is_marked();
        let doubtful = |&raida: &RaidaId| file.pan(raida).is_some_and(is_proposed);
        let servers = tried.iter().copied().filter(doubtful);
        let coin = file.coin;
        servers.map(|raida| (raida, coin)).collect::<Vec<_>>()
    };
    coins.iter().flat_map(in_doubt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PerRaida;
    use crate::client::wallet::{CoinFile, Folder, Mark, PownString};
    use crate::coin::{Denomination, SerialNumber};

    const NOW: UnixSeconds = UnixSeconds(1_795_231_955);

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    fn fracked(sn: u32) -> Filed {
        let coin = Coin {
            denomination: Denomination::new(0).unwrap(),
            serial_number: SerialNumber::new(sn).unwrap(),
        };
        let ans = PerRaida::from_fn(|raida| An::new([raida.get() + 1; 16]));
        let file = CoinFile::new(coin, 6, ans, PownString::all(Mark::Failed));
        Filed::new(file, Folder::Fracked)
    }

    #[test]
    fn a_number_may_come_into_force_as_long_as_a_ticket_for_it_is_good() {
        let mut coin = fracked(1);
        coin.file.propose(raida(3), An::new([9; 16]));
        coin.file.propose(raida(4), An::new([9; 16]));
        let spared = BTreeSet::from([(raida(3), coin.file.coin)]);
        let coins = [fracked(0), coin, fracked(2)];
        let mut health = EncryptionHealth::default();
        assert!(under_way(&coins, &health, NOW).is_empty());
        // Whatever the result was, and whether or not it is broken now.
        health.mark_tried(raida(3), NOW);
        health.mark_tried(raida(5), NOW);
        let at = |seconds: u64| under_way(&coins, &health, UnixSeconds(seconds));
        assert_eq!(at(NOW.0), spared);
        assert_eq!(at(NOW.0 + 1_319), spared);
        assert!(at(NOW.0 + 1_320).is_empty());
        // The clock was set back, by a little or by years.
        assert_eq!(at(NOW.0 - 60), spared);
        assert!(at(NOW.0 - 100_000_000).is_empty());
    }

    #[test]
    fn the_key_of_a_locker_is_nothing_that_a_fix_of_keys_proposed() {
        let mut coin = fracked(1);
        coin.file.propose(raida(3), An::new([0xff; 16]));
        let mut health = EncryptionHealth::default();
        health.mark_tried(raida(3), NOW);
        assert!(under_way(&[coin], &health, NOW).is_empty());
    }
}
