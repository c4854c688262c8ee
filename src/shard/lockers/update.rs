use crate::{
    coin::{An, Coin},
    store::book::{Payment, Sale, Stamp},
};

use super::Lockers;

/// What a durable change means for the lockers of one shard: it is applied as a whole, so that
/// nobody sees half of a store.
#[derive(Debug, Default)]
pub struct Update {
    /// The change's moment.
    pub moment: u64,
    /// Which coins leave which keys and come under which.
    pub keys: Vec<KeyUpdate>,
    /// The sale that begins.
    pub sale: Option<Sale>,
    /// The key whose sale ends.
    pub ended: Option<An>,
    /// The payment that is used up.
    pub payment: Option<Payment>,
}

/// What happens under one key.
pub struct KeyUpdate {
    /// The key.
    pub key: An,
    /// Coins that leave it, rising.
    pub gone: Vec<Coin>,
    /// Coins that come, each with its place in the request.
    pub come: Vec<(Coin, u32)>,
}

impl Update {
    /// Sets the moment of all of it.
    pub fn set_moment(&mut self, moment: u64) {
        self.moment = moment;
        if let Some(sale) = &mut self.sale {
            sale.moment = moment;
        }
        if let Some(payment) = &mut self.payment {
            payment.moment = moment;
        }
    }
}

impl std::fmt::Debug for KeyUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let KeyUpdate { gone, come, .. } = self;
        f.debug_struct("KeyUpdate")
            .field("gone", &gone.len())
            .field("come", &come.len())
            .finish_non_exhaustive()
    }
}

impl Lockers {
    /// Applies a change.
    pub fn update(&mut self, update: &Update) {
        let Update {
            moment,
            keys,
            sale,
            ended,
            payment,
        } = update;
        self.is_changed = true;
        self.version += 1;
        // First, since a coin may go from one key of this shard to another.
        for KeyUpdate { key, gone, .. } in keys {
            self.index.remove(key, gone);
        }
        for KeyUpdate { key, gone, come } in keys {
            let stamp = |rank| Stamp {
                moment: *moment,
                rank,
            };
            let stamped = come.iter().map(|&(coin, rank)| (coin, stamp(rank)));
            self.index.insert(*key, stamped);
            if !gone.is_empty()
                && let Some(moment) = self.sales.moment(key)
            {
                self.sales.reduce(key, self.index.of_moment(key, moment));
            }
        }
        if let Some(key) = ended {
            self.sales.end(key);
        }
        if let Some(sale) = sale {
            let coins = self.index.of_moment(&sale.key, sale.moment);
            self.sales.begin(sale.clone(), coins);
        }
        if let Some(payment) = payment {
            self.payments.enter(payment);
        }
    }
}
