use crate::{
    coin::{COINS_PER_PAGE, Coin},
    store::{book::Notes, record::Change},
};

/// The coins of a request, rising, each with its place in the request; `None` where one is named twice.
pub(super) fn ranked(request: impl Iterator<Item = Coin>) -> Option<(Vec<Coin>, Vec<u32>)> {
    let request: Vec<Coin> = request.collect();
    // Coin and rank as one number: sorting those takes half the time.
    let number = |coin: Coin| (coin.page().index() * COINS_PER_PAGE + coin.place()) as u64;
    let mut ranked: Vec<u64> = (request.iter().zip(0..))
        .map(|(&coin, rank): (_, u64)| number(coin) << 32 | rank)
        .collect();
    ranked.sort_unstable();
    if ranked.windows(2).any(|pair| pair[0] >> 32 == pair[1] >> 32) {
        return None;
    }
    let rank = |ranked: u64| ranked as u32;
    let ranks = ranked.into_iter().map(rank);
    Some(ranks.map(|rank| (request[rank as usize], rank)).unzip())
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
    fn a_requests_coins_rise_with_their_places_and_none_is_named_twice() {
        let coin = |page, place| PageId::from_index(page).unwrap().coin(place);
        let request = [coin(9, 3), coin(1, 7), coin(9, 1), coin(14_999, 1_023)];
        let (coins, ranks) = ranked(request.into_iter()).unwrap();
        assert!(coins.is_sorted());
        assert_eq!(ranks, [1, 2, 0, 3]);
        let again = ranks.iter().map(|&rank| request[rank as usize]);
        assert!(again.eq(coins));
        assert!(ranked([coin(1, 1), coin(2, 2), coin(1, 1)].into_iter()).is_none());
    }

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
