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

/// Maximum number of waits for servers that accept no tickets yet. One wait is enough unless the
/// coin changes there again, or the server starts again. A lying server could make a client wait
/// for ever.
pub const WAITS_MAX: usize = 2;

/// Time, as far as waiting needs it.
pub trait Patience {
    /// The present time.
    fn now(&mut self) -> UnixSeconds;

    /// Waits for this long; these servers need it before they accept new tickets. Returns whether
    /// it waited: if not, they are given up for this time.
    fn wait(&mut self, servers: &[RaidaId], time: Duration) -> bool;
}

/// Looks at a wallet, mends its broken servers like [`fix_encryption`](super::fix_encryption), and
/// has `then` heal the rest. Where it is too early for a server that is still broken then, it waits
/// and does all of it again, at most [`WAITS_MAX`] times, for those servers alone. The state before
/// a wait is on disk, so the wait can be interrupted at any time.
///
/// `then` gets the look, its marks from before the first attempt, and where no number in doubt may
/// be replaced ([`under_way`](super::under_way())). Returns its last result, and the last result
/// for each server that was broken.
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
        // Repairs by tickets and fixes on a server are as good as a fix of its keys.
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
