use std::collections::BTreeMap;

use crate::{
    coin::{An, Coin, Mfs, ShardId, locker_home},
    shard::{KeyUpdate, Update, payment_prefix},
    store::{book::Notes, record::Change},
};

/// What changes mean for lockers, by the shard that keeps track of them. `values` are what the `coins`
/// (rising) were before; `changes` are in the order of the coins, and the ranks of `notes` in theirs.
pub(super) fn moves(
    shards: u16,
    coins: &[Coin],
    values: &[Option<(An, Mfs)>],
    changes: &[Change],
    notes: &Notes,
) -> BTreeMap<ShardId, Update> {
    let mut by_key: BTreeMap<[u8; An::SIZE], KeyUpdate> = BTreeMap::new();
    let mut at_key = |key: An, add: &dyn Fn(&mut KeyUpdate)| {
        let update = by_key.entry(*key.expose()).or_insert_with(|| KeyUpdate {
            key,
            gone: Vec::new(),
            come: Vec::new(),
        });
        add(update);
    };
    let mut ranks = notes.ranks.iter();
    let mut at = 0;
    for &Change { coin, an, mfs } in changes {
        at += coins[at..]
            .iter()
            .take_while(|&&other| other < coin)
            .count();
        if let Some((old, _)) = values[at].filter(|(old, _)| old.is_marked()) {
            at_key(old, &|update| update.gone.push(coin));
        }
        if an.is_marked() && !mfs.is_free() {
            let rank = *ranks
                .next()
                .expect("there is a rank for each coin that is stored");
            at_key(an, &|update| update.come.push((coin, rank)));
        }
    }
    assert!(
        ranks.next().is_none(),
        "there is a rank for a coin that is not stored"
    );

    let mut by_shard: BTreeMap<ShardId, Update> = BTreeMap::new();
    for (_, update) in by_key {
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
