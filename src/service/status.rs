//! Group 0: echo, version, stats, audit.

use super::{Node, SOFTWARE_VERSION};
use crate::runtime::Environment;
use crate::{
    protocol::{
        Status,
        status_group::{Audit, NodeStats, Stats},
    },
    shard::question,
};

impl<E: Environment> Node<E> {
    pub(super) fn echo(&self) -> Status {
        self.shard().count(|counters| counters.echoes += 1);
        Status::SUCCESS
    }

    pub(super) fn version(&self, out: &mut Vec<u8>) -> Status {
        SOFTWARE_VERSION.write(out);
        Status::SUCCESS
    }

    pub(super) async fn stats(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<Status, Status> {
        let request = Stats::parse(payload)?;
        self.check_admin(&request.key)?;
        let (mut stats, mut value_powned) = (NodeStats::default(), 0u128);
        for (counters, _) in self.mesh.ask_all(|| question::Count).await {
            stats.echoes += counters.echoes;
            stats.coins_powned += counters.coins_powned;
            value_powned += counters.value_powned;
            stats.requests += counters.requests;
        }
        // Eight bytes on the wire.
        stats.value_powned = u64::try_from(value_powned).unwrap_or(u64::MAX);
        stats.write(out);
        Ok(Status::SUCCESS)
    }

    pub(super) async fn audit(&self, out: &mut Vec<u8>) -> Status {
        let mut audit = Audit::default();
        for counts in self.mesh.ask_all(|| question::Circulating).await {
            for (total, count) in audit.0.iter_mut().zip(counts) {
                *total += count;
            }
        }
        audit.write(out);
        Status::SUCCESS
    }
}
