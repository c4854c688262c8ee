use serde::{Deserialize, Serialize};

use super::{
    mailbox::{CoreCounts, Mailbox},
    server::all,
};
use crate::service::HealingCounts;

/// What a node has done since it started, all shards together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests received.
    pub requests: u64,
    /// Echoes among them.
    pub echoes: u64,
    /// Coins that got a new owner.
    pub coins_powned: u64,
    /// Their worth in the smallest unit.
    pub value_powned_units: u64,
    /// What was done about healing.
    pub healing: Healing,
}

/// What a node has done about healing since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healing {
    /// Tickets it keeps now, those included that are over and not replaced yet.
    pub tickets_kept: u64,
    /// Tickets issued.
    pub tickets_issued: u64,
    /// Tickets that were not issued because all were in use.
    pub tickets_refused: u64,
    /// Claims that were answered with coins.
    pub claims: u64,
    /// Claims that came from another address than the claiming server's.
    pub claims_from_elsewhere: u64,
    /// Claims of tickets that there are not, or not any more.
    pub claims_unknown: u64,
    /// Claims of tickets that the same server had claimed before.
    pub claims_again: u64,
    /// Requests beyond what one address may send.
    pub too_many_requests: u64,
    /// Fixes.
    pub fixes: u64,
    /// Coins repaired by them.
    pub coins_repaired: u64,
    /// Coins that too few servers vouched for.
    pub coins_not_repaired: u64,
    /// Servers that voted, of all fixes.
    pub votes: u64,
    /// Servers that were asked to and had not when it was decided.
    pub votes_missing: u64,
}

/// Asks every core, and puts their answers together.
///
/// # Errors
/// What to tell the asker where a core does not answer.
pub(super) fn report(cores: &[Mailbox]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for core in all(cores, Mailbox::ask_counts)? {
        counts.add(&core);
    }
    Ok(counts)
}

impl Counts {
    fn add(&mut self, core: &CoreCounts) {
        self.requests += core.counters.requests;
        self.echoes += core.counters.echoes;
        self.coins_powned += core.counters.coins_powned;
        self.value_powned_units += core.counters.value_powned;
        self.healing.tickets_kept += core.tickets as u64;
        self.healing.add(&core.healing);
    }
}

impl Healing {
    fn add(&mut self, core: &HealingCounts) {
        self.tickets_issued += core.tickets_issued;
        self.tickets_refused += core.tickets_refused;
        self.claims += core.claims;
        self.claims_from_elsewhere += core.claims_from_elsewhere;
        self.claims_unknown += core.claims_unknown;
        self.claims_again += core.claims_again;
        self.too_many_requests += core.too_many_requests;
        self.fixes += core.fixes;
        self.coins_repaired += core.coins_repaired;
        self.coins_not_repaired += core.coins_not_repaired;
        self.votes += core.votes;
        self.votes_missing += core.votes_missing;
    }
}
