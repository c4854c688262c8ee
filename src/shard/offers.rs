use std::{cell::RefCell, collections::HashSet};

use foldhash::fast::RandomState;

use crate::{
    coin::An,
    protocol::lockers::{Offer, TradeKey},
    store::Signal,
};

/// What only one request at a time may be about to do. Whoever needs both kinds takes the key first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// Put coins under this trade key up for sale.
    Key([u8; An::SIZE]),
    /// Offer this, which nobody else may offer as well.
    Offer(Offer),
}

impl Put {
    /// What is to be done under a key.
    pub fn under(key: TradeKey) -> Put {
        Put::Key(*key.an().expose())
    }
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Put::Key(_) => "Key(secret)",
            Put::Offer(_) => "Offer",
        })
    }
}

/// Who is about to put what up for sale. A shard keeps what hashes to it.
#[derive(Default)]
pub(super) struct Puts {
    held: RefCell<HashSet<Put, RandomState>>,
    released: Signal,
}

impl Puts {
    /// Waits until nobody else is about to do this.
    pub(super) async fn acquire(&self, put: Put) {
        loop {
            let moment = self.released.moment();
            if self.held.borrow_mut().insert(put) {
                return;
            }
            self.released.after(moment).await;
        }
    }

    /// Lets the next one do it.
    pub(super) fn release(&self, put: &Put) {
        self.held.borrow_mut().remove(put);
        self.released.notify();
    }
}
