//! The network's servers as healing sees them: the one place where votes and connections meet.

use std::net::IpAddr;

use futures_util::future::LocalBoxFuture;

use crate::{
    coin::Coin,
    peer::{Lost, Peers},
    protocol::{RaidaId, Status, healing::TicketId},
    service::{NoVote, Others},
};

impl Others for Peers {
    fn claim(
        &self,
        issuer: RaidaId,
        ticket: TicketId,
    ) -> LocalBoxFuture<'static, Result<Vec<Coin>, NoVote>> {
        let claim = Peers::claim(self, issuer, ticket);
        Box::pin(async move {
            claim.await.map_err(|lost| {
                tracing::debug!(target: "raida::healing", raida = %issuer, reason = %lost, "no vote");
                match lost {
                    Lost::Refused(status) if status != Status::TOO_MANY_REQUESTS => {
                        NoVote::WrongTicket
                    }
                    _ => NoVote::NoAnswer,
                }
            })
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
