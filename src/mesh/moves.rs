use std::collections::{BTreeMap, HashMap};

use crate::{
    coin::{An, Coin, Mfs, ShardId, locker_home},
    shard::{KeyUpdate, Update, payment_prefix},
    store::{book::Notes, record::Change},
};

/// What changes mean for lockers, by the shard that keeps track of them. `values` are what the
/// `coins` (rising) were before; `changes` are in the order of the coins, and the ranks of `notes`
/// in theirs.
pub(super) fn moves(
    shards: u16,
    coins: &[Coin],
    values: &[Option<(An, Mfs)>],
    changes: &[Change],
    notes: &Notes,
) -> BTreeMap<ShardId, Update> {
    let mut by_key = ByKey::default();
    let mut ranks = notes.ranks.iter();
    let mut at = 0;
    for &Change { coin, an, mfs } in changes {
        at += coins[at..]
            .iter()
            .take_while(|&&other| other < coin)
            .count();
        if let Some((old, _)) = values[at].filter(|(old, _)| old.is_marked()) {
            by_key.update(old, GONE).gone.push(coin);
        }
        if an.is_marked() && !mfs.is_free() {
            let rank = *ranks
                .next()
                .expect("there is a rank for each coin that is stored");
            by_key.update(an, COME).come.push((coin, rank));
        }
    }
    assert!(
        ranks.next().is_none(),
        "there is a rank for a coin that is not stored"
    );

    let mut by_shard: BTreeMap<ShardId, Update> = BTreeMap::new();
    for update in by_key.updates {
        let home = update.key.locker_home(shards);
        by_shard.entry(home).or_default().keys.push(update);
    }
    if let Some(sale) = &notes.sale {
        let home = sale.key.locker_home(shards);
        by_shard.entry(home).or_default().sale = Some(sale.clone());
    }
    if let Some(key) = notes.ended {
        let home = key.locker_home(shards);
        by_shard.entry(home).or_default().ended = Some(key);
    }
    if let Some(payment) = notes.payment {
        let home = locker_home(payment_prefix(&payment.id), shards);
        by_shard.entry(home).or_default().payment = Some(payment);
    }
    by_shard
}

/// Updates by their keys. Coins in a row mostly leave the same key, and come under the same key.
#[derive(Default)]
struct ByKey {
    updates: Vec<KeyUpdate>,
    places: HashMap<[u8; An::SIZE], usize>,
    last: [usize; 2],
}

const GONE: usize = 0;
const COME: usize = 1;

impl ByKey {
    #[inline]
    fn update(&mut self, key: An, way: usize) -> &mut KeyUpdate {
        let last = &mut self.last[way];
        let is_last = (self.updates.get(*last)).is_some_and(|update| update.key == key);
        if !is_last {
            let next = self.updates.len();
            *last = *self.places.entry(*key.expose()).or_insert(next);
            if *last == next {
                self.updates.push(KeyUpdate {
                    key,
                    gone: Vec::new(),
                    come: Vec::new(),
                });
            }
        }
        &mut self.updates[*last]
    }
}
