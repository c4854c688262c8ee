//! The network's servers as healing sees them: the one place where votes and connections meet.

use std::net::IpAddr;

use futures_util::future::LocalBoxFuture;

use crate::{
    coin::Coin,
    peer::Peers,
    protocol::{RaidaId, healing::TicketId},
    service::Others,
};

impl Others for Peers {
    fn claim(
        &self,
        issuer: RaidaId,
        ticket: TicketId,
    ) -> LocalBoxFuture<'static, Option<Vec<Coin>>> {
        let claim = Peers::claim(self, issuer, ticket);
        Box::pin(async move {
            let no_vote = |lost: &_| {
                tracing::debug!(target: "raida::healing", raida = %issuer, reason = %lost, "no vote");
            };
            claim.await.inspect_err(no_vote).ok()
        })
    }

    fn may_claim(&self, claimant: RaidaId, address: IpAddr) -> bool {
        Peers::may_claim(self, claimant, address)
    }
    fn look_again(&self, claimant: RaidaId) {
        Peers::look_again(self, claimant);
    }

    fn verifies(&self) -> bool {
        Peers::verifies(self)
    }

    fn are_known(&self) -> bool {
        Peers::are_known(self)
    }
}
