use crate::{
    coin::Coin,
    store::{book::Notes, record::Change},
};

/// The coins of a request, rising, each with its place in the request; `None` where one is named twice.
pub(super) fn ranked(request: impl Iterator<Item = Coin>) -> Option<(Vec<Coin>, Vec<u32>)> {
    let mut ranked: Vec<(Coin, u32)> = request.zip(0..).collect();
    ranked.sort_unstable();
    let is_twice = ranked.windows(2).any(|pair| pair[0].0 == pair[1].0);
    (!is_twice).then(|| ranked.into_iter().unzip())
}

/// The notes of changes that may put coins into lockers: which place each had in the request. `changes`
/// are rising; `request` names their coins, each once, and may name others.
pub(super) fn stored(changes: &[Change], request: impl Iterator<Item = Coin>) -> Notes {
    let mut notes = Notes::default();
    if !changes.iter().any(|change| change.an.is_marked()) {
        return notes;
    }
    let mut ranks: Vec<(Coin, u32)> = request.zip(0..).collect();
    ranks.sort_unstable();
    let mut ranks = ranks.into_iter();
    for change in changes {
        let rank = ranks.find(|&(coin, _)| coin == change.coin);
        let (_, rank) = rank.expect("only coins of the request change");
        if change.an.is_marked() {
            notes.ranks.push(rank);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::{An, Mfs, PageId};

    #[test]
    fn coins_are_ranked_by_their_places_in_the_request() {
        let coin = |place| PageId::from_index(7).unwrap().coin(place);
        let change = |place, an| Change {
            coin: coin(place),
            an: An::new([an; 16]),
            mfs: Mfs::new(5),
        };
        let request = [9, 4, 6, 1].map(coin);
        let changes = [change(1, 0xff), change(4, 7), change(9, 0xff)];
        let ranks = |changes: &[Change]| stored(changes, request.into_iter()).ranks;
        assert_eq!(ranks(&changes), [3, 0]);
        assert!(ranks(&changes[1..2]).is_empty());
    }
}
