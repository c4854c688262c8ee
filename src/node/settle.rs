//! Settlement as trades see it: the one place where purchases of lockers meet the settlement that
//! says whether they are paid.

use futures_util::future::LocalBoxFuture;

use crate::{
    protocol::RaidaId,
    service::{Purchase, Settle, Settled},
    settlement::{self, NotSetUp, Settlement, Verdict},
};

/// Asks in a node's name.
pub(super) struct Cashier {
    pub raida: RaidaId,
    pub settlement: Settlement,
}

impl Settle for Cashier {
    fn takes_time(&self) -> bool {
        self.settlement.takes_time()
    }

    fn ask(&self, purchase: Purchase) -> LocalBoxFuture<'static, Settled> {
        let answer = self.settlement.ask(settlement::Purchase {
            raida: self.raida,
            currency: purchase.offer.currency.name(),
            value: purchase.offer.value.units(),
            price: purchase.offer.price.get(),
            seller: purchase.seller.into(),
            transaction_id: purchase.transaction,
            receipt_id: purchase.receipt,
            memo: purchase.memo,
            locker: purchase.locker.to_bytes(),
        });
        Box::pin(async move {
            match answer.await {
                Ok(Verdict::Paid) => Settled::Paid,
                Ok(Verdict::Seen) => Settled::Seen,
                Ok(Verdict::Pending) => Settled::Pending,
                Ok(Verdict::Refused) => Settled::Refused,
                Err(NotSetUp) => Settled::NotSetUp,
            }
        })
    }
}
