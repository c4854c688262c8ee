use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fix::fix_servers;
use super::{
    EncryptionHealth, KeyFix, KeyHealingError, Network, Settings, UnixSeconds, observe, under_way,
};
use crate::client::heal::{self, HealError, Looked};
use crate::client::wallet::Wallet;
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::key_healing::TOO_EARLY_WAIT;

/// How often servers are waited for that take no tickets yet. One wait is enough unless the coin
/// changes there again, or the server starts again; and a server that lies could have a client wait
/// for ever.
pub const WAITS_MAX: usize = 2;

/// Time, as far as it is waited for.
pub trait Patience {
    /// What time it is.
    fn now(&mut self) -> UnixSeconds;

    /// Lets so much time pass, which these servers need before they take new tickets. Whether it
    /// has: else they are given up for this time.
    fn wait(&mut self, servers: &[RaidaId], time: Duration) -> bool;
}

/// Looks at a wallet, mends its broken servers as [`fix_encryption`](super::fix_encryption) does,
/// and has `then` heal what is left; where it is too early for a server that is still broken then,
/// waits and does all of it again, at most [`WAITS_MAX`] times, for those servers alone. What is
/// known before a wait is on disk, so that it can be broken off at any time.
///
/// `then` gets the look, its marks of before the first attempt, and where no number in doubt must
/// be replaced ([`under_way`](super::under_way())). Its last result is given, and for each server
/// that was broken what became of it last.
///
/// # Errors
/// As [`Looked::at`], [`fix_encryption`](super::fix_encryption) and `then` give them.
pub fn mend<T, N: Network + heal::Network>(
    wallet: &mut Wallet,
    health: &mut EncryptionHealth,
    network: &N,
    max_failures: u32,
    patience: &mut impl Patience,
    mut draw: impl FnMut() -> Result<An, getrandom::Error>,
    mut then: impl FnMut(&mut Wallet, Looked, &BTreeSet<(RaidaId, Coin)>) -> Result<T, HealError>,
) -> Result<(T, Vec<(RaidaId, KeyFix)>), KeyHealingError> {
    let mut fixes: BTreeMap<RaidaId, KeyFix> = BTreeMap::new();
    let mut looked = Looked::at(wallet, network)?;
    let before = looked.before.clone();
    observe(health, wallet.coins());
    let mut servers = health.broken();
    let mut waits = 0;
    loop {
        let now = patience.now();
        let settings = Settings {
            max_failures,
            ..Settings::at(now)
        };
        let fixed = fix_servers(wallet, health, network, settings, &servers, &mut draw)?;
        for (broken, fix) in fixed {
            looked.changed.extend(fix.coin());
            fixes.insert(broken, fix);
        }
        let spared = under_way(wallet.coins(), health, now);
        let healed = then(wallet, looked, &spared)?;
        // What tickets and fixes repaired on a server is as good as a fix of its keys.
        let known = health.clone();
        observe(health, wallet.coins());
        health.save(wallet, &known).map_err(HealError::from)?;
        let is_early = |fix: &KeyFix| matches!(fix, KeyFix::TooEarly { .. });
        let early = fixes.iter().filter(|(_, fix)| is_early(fix));
        servers = early
            .map(|(&broken, _)| broken)
            .filter(|&broken| health.is_broken(broken))
            .collect();
        if servers.is_empty() || waits == WAITS_MAX || !patience.wait(&servers, TOO_EARLY_WAIT) {
            return Ok((healed, fixes.into_iter().collect()));
        }
        waits += 1;
        looked = Looked {
            before: before.clone(),
            ..Looked::at(wallet, network)?
        };
        observe(health, wallet.coins());
        servers.retain(|&broken| health.is_broken(broken));
    }
}
