//! Group 0: echo, version, stats, audit.

use super::{Node, SOFTWARE_VERSION};
use crate::{
    protocol::{
        Status,
        status_group::{Audit, NodeStats, Stats},
    },
    shard::{Reply, Request},
    store::Environment,
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
        for reply in self.ask_all(|| Request::Counters).await? {
            let Reply::Counters(counters, _) = reply else {
                unreachable!("a shard answers counters with counters");
            };
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

    pub(super) async fn audit(&self, out: &mut Vec<u8>) -> Result<Status, Status> {
        let mut audit = Audit::default();
        for reply in self.ask_all(|| Request::Circulating).await? {
            let Reply::Circulating(counts) = reply else {
                unreachable!("a shard answers circulating with counts");
            };
            for (total, count) in audit.0.iter_mut().zip(counts) {
                *total += count;
            }
        }
        audit.write(out);
        Ok(Status::SUCCESS)
    }

    pub(super) async fn ask_all(
        &self,
        request: impl Fn() -> Request,
    ) -> Result<Vec<Reply>, Status> {
        self.mesh
            .ask_all(request)
            .await
            .map_err(|_| Status::UNAVAILABLE)
    }
}
