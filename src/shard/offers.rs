use std::{cell::RefCell, collections::HashSet};

use foldhash::fast::RandomState;

use crate::{protocol::lockers::Offer, store::Signal};

/// Who is about to make which offer: one at a time, so that no two make the same one. A shard keeps
/// those that hash to it.
#[derive(Default)]
pub(super) struct OfferLocks {
    held: RefCell<HashSet<Offer, RandomState>>,
    released: Signal,
}

impl OfferLocks {
    /// Waits until nobody else is about to make this offer.
    pub(super) async fn acquire(&self, offer: Offer) {
        loop {
            let moment = self.released.moment();
            if self.held.borrow_mut().insert(offer) {
                return;
            }
            self.released.after(moment).await;
        }
    }

    /// Lets the next one make it.
    pub(super) fn release(&self, offer: &Offer) {
        self.held.borrow_mut().remove(offer);
        self.released.notify();
    }
}
