use serde::{Deserialize, Serialize};

use super::{mailbox::Mailbox, server::all};
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
    /// Tickets it keeps now, those included that are over and not replaced yet.
    pub tickets_kept: u64,
    /// What was done about healing.
    pub healing: HealingCounts,
}

/// Asks every core, and puts their answers together.
///
/// # Errors
/// What to tell the asker where a core does not answer.
pub(super) fn report(cores: &[Mailbox]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for core in all(cores, Mailbox::ask_counts)? {
        counts.requests += core.counters.requests;
        counts.echoes += core.counters.echoes;
        counts.coins_powned += core.counters.coins_powned;
        counts.value_powned_units += core.counters.value_powned;
        counts.tickets_kept += core.tickets as u64;
        counts.healing += core.healing;
    }
    Ok(counts)
}
