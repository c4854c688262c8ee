use crate::{
    coin::{An, Coin, Mfs},
    store::record::Change,
};

/// A coin's new value, where its owner proved to be one.
#[derive(Clone, Copy, Debug)]
pub enum Replacement {
    /// This AN, and the current month.
    An(An),
    /// Out of circulation, with an AN that nobody knows.
    Free,
}

/// One record of a request that changes each coin by itself.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The coin.
    pub coin: Coin,
    /// What its AN must be.
    pub an: An,
    /// What it becomes.
    pub becomes: Replacement,
}

impl Exchange {
    /// Whether the coin comes out of a locker or goes into one, if this is its AN: then others have
    /// to hear of it, and it is no change that its shard makes [by
    /// itself](super::question::ExchangeEach).
    #[inline]
    pub fn is_marked(&self) -> bool {
        let goes = match &self.becomes {
            Replacement::An(an) => an.is_marked(),
            Replacement::Free => false,
        };
        goes || self.an.is_marked()
    }
}

/// What becomes of coins that are held.
#[derive(Debug)]
pub struct Exchanged {
    /// By record, whether it passed.
    pub passed: Vec<bool>,
    /// How many passed and left their coin as it was.
    pub unchanged: usize,
    /// What changes, by rising coin; a coin that no record passed for is not in it.
    pub changes: Vec<Change>,
    /// For each change to a marked number, the record that made it.
    pub ranks: Vec<u32>,
}

/// Judges records one after the other: each that names the right AN changes its coin, and records
/// of the same coin see each other in the order they stand in. `coins` are rising, each once, and
/// `values` what they are worth now (`None` for a free coin); records of other coins are wrong.
/// `unknown_an` gives an AN that nobody knows.
///
/// A record that names the AN and months which its coin has already passes and changes nothing.
/// Only where that AN is [marked](An::is_marked) it is a change: of the coin's place in its locker.
pub fn exchange(
    records: &[Exchange],
    coins: &[Coin],
    values: &[Option<(An, Mfs)>],
    month: Mfs,
    unknown_an: impl Fn() -> An,
) -> Exchanged {
    let mut values: Vec<_> = values.iter().map(|&value| (value, None)).collect();
    let mut passed = Vec::with_capacity(records.len());
    let mut unchanged = 0;
    for (number, record) in records.iter().enumerate() {
        let Ok(at) = coins.binary_search(&record.coin) else {
            passed.push(false);
            continue;
        };
        let (value, changed_by) = &mut values[at];
        let is_right = value.is_some_and(|(an, _)| an == record.an);
        passed.push(is_right);
        if is_right {
            let becomes = match record.becomes {
                Replacement::An(an) => Some((an, month)),
                Replacement::Free => None,
            };
            if becomes == *value && !record.an.is_marked() {
                unchanged += 1;
                continue;
            }
            *changed_by = Some(number as u32);
            *value = becomes;
        }
    }
    let (mut changes, mut ranks) = (Vec::new(), Vec::new());
    for (&coin, (value, changed_by)) in coins.iter().zip(values) {
        let Some(record) = changed_by else {
            continue;
        };
        let (an, mfs) = value.unwrap_or_else(|| (unknown_an(), Mfs::FREE));
        changes.push(Change { coin, an, mfs });
        if an.is_marked() {
            ranks.push(record);
        }
    }
    Exchanged {
        passed,
        unchanged,
        changes,
        ranks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    fn an(number: u8) -> An {
        An::new([number; 16])
    }

    #[test]
    fn records_of_a_coin_see_each_other_and_others_do_not_change() {
        let coin = |place| PageId::from_index(5).unwrap().coin(place);
        let coins = [coin(1), coin(2), coin(3)];
        let month = Mfs::new(7);
        let values = [Some((an(1), month)), Some((an(2), month)), None];
        let record = |place, old, becomes| Exchange {
            coin: coin(place),
            an: an(old),
            becomes,
        };
        let records = [
            record(1, 1, Replacement::An(an(10))),
            record(2, 9, Replacement::An(an(20))),
            record(1, 10, Replacement::An(an(11))),
            record(1, 1, Replacement::An(an(12))),
            record(3, 0, Replacement::An(an(30))),
        ];
        let done = exchange(&records, &coins, &values, Mfs::new(8), || an(99));
        assert_eq!(done.passed, [true, false, true, false, false]);
        assert_eq!(done.changes.len(), 1);
        assert_eq!(
            (done.changes[0].an, done.changes[0].mfs),
            (an(11), Mfs::new(8))
        );
        let same = [
            record(1, 1, Replacement::An(an(1))),
            record(2, 2, Replacement::An(an(2))),
            record(2, 2, Replacement::An(an(9))),
            record(4, 1, Replacement::Free),
        ];
        let done = exchange(&same, &coins, &values, month, || an(99));
        assert_eq!(done.passed, [true, true, true, false]);
        assert_eq!((done.changes.len(), done.unchanged), (1, 2));
        assert_eq!(done.changes[0].coin, coin(2));
        let done = exchange(&same, &coins, &values, Mfs::new(8), || an(99));
        assert_eq!((done.changes.len(), done.unchanged), (2, 0), "other months");
        let key = An::new([0xff; 16]);
        let same = [record(1, 0xff, Replacement::An(key))];
        let done = exchange(&same, &coins[..1], &[Some((key, month))], month, || an(99));
        assert_eq!((done.changes.len(), done.ranks), (1, vec![0]));
        let freed = [
            record(1, 1, Replacement::Free),
            record(1, 1, Replacement::Free),
        ];
        let done = exchange(&freed, &coins, &values, Mfs::new(8), || an(99));
        assert_eq!(done.passed, [true, false]);
        assert_eq!(
            (done.changes[0].an, done.changes[0].mfs),
            (an(99), Mfs::FREE)
        );
    }
}
