use crate::{
    coin::{COINS_PER_PAGE, Coin, PAGES},
    store::{book::Notes, record::Change},
};

/// Coins sorted before others get their turn.
const SORTED_A_TURN: usize = 8_192;
/// Number of parts that all coins are divided into, some four pages each. Coins are sorted by part
/// first, and then within their part.
const PARTS: usize = 4_096;
/// Coins that a part can hold, each once.
const PART_COINS: usize = (PAGES * COINS_PER_PAGE).div_ceil(PARTS);

/// The coins of a request, rising, each with its place in the request; `None` where one is named
/// twice. Where they are many, `let_others` gives other tasks their turn now and then.
pub(super) async fn ranked(
    request: &[Coin],
    let_others: impl AsyncFn(),
) -> Option<(Vec<Coin>, Vec<u32>)> {
    // Coin and rank as one number: sorting those takes half the time.
    let keyed = |(rank, &coin): (usize, &Coin)| u64::from(coin.number()) << 32 | rank as u64;
    let mut ranked: Vec<u64>;
    if request.len() <= SORTED_A_TURN {
        ranked = request.iter().enumerate().map(keyed).collect();
        ranked.sort_unstable();
    } else {
        let part = |coin: Coin| coin.number() as usize / PART_COINS;
        let mut starts = vec![0; PARTS + 1];
        for some in request.chunks(SORTED_A_TURN) {
            some.iter().for_each(|&coin| starts[part(coin) + 1] += 1);
            let_others().await;
        }
        if starts.iter().any(|&coins| coins > PART_COINS) {
            return None;
        }
        for part in 1..=PARTS {
            starts[part] += starts[part - 1];
        }
        let mut ends = starts.clone();
        ranked = vec![0; request.len()];
        for (chunk, some) in request.chunks(SORTED_A_TURN).enumerate() {
            for (index, coin) in some.iter().enumerate() {
                let end = &mut ends[part(*coin)];
                ranked[*end] = keyed((chunk * SORTED_A_TURN + index, coin));
                *end += 1;
            }
            let_others().await;
        }
        let mut sorted = 0;
        for part in 0..PARTS {
            ranked[starts[part]..starts[part + 1]].sort_unstable();
            sorted += starts[part + 1] - starts[part];
            if sorted >= SORTED_A_TURN {
                sorted = 0;
                let_others().await;
            }
        }
    }
    if ranked.windows(2).any(|pair| pair[0] >> 32 == pair[1] >> 32) {
        return None;
    }
    let rank = |ranked: u64| ranked as u32;
    let ranks = ranked.into_iter().map(rank);
    Some(ranks.map(|rank| (request[rank as usize], rank)).unzip())
}

/// The notes of changes of all the coins of a request, both rising: the places of the coins that
/// enter lockers. `ranks` says which place each coin has in the request.
pub(super) fn noted(changes: &[Change], ranks: &[u32]) -> Notes {
    let entering = changes.iter().zip(ranks);
    let entering = entering.filter(|(change, _)| change.an.is_marked());
    Notes {
        ranks: entering.map(|(_, &rank)| rank).collect(),
        ..Notes::default()
    }
}

/// The notes of changes that may put coins into lockers: the place of each coin in the request.
/// `changes` are rising; `request` names their coins, each once, and may name others.
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
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::coin::{An, Mfs, PageId};

    #[test]
    fn a_requests_coins_rise_with_their_places_and_none_is_named_twice() {
        let coin = |page, place| PageId::from_index(page).unwrap().coin(place);
        let sort = |request: &[Coin]| {
            let mut ranked = pin!(ranked(request, async || ()));
            let mut context = Context::from_waker(Waker::noop());
            match ranked.as_mut().poll(&mut context) {
                Poll::Ready(ranked) => ranked,
                Poll::Pending => unreachable!("others have no turn here"),
            }
        };
        let request = [coin(9, 3), coin(1, 7), coin(9, 1), coin(14_999, 1_023)];
        let (coins, ranks) = sort(&request).unwrap();
        assert!(coins.is_sorted());
        assert_eq!(ranks, [1, 2, 0, 3]);
        let again = ranks.iter().map(|&rank| request[rank as usize]);
        assert!(again.eq(coins));
        assert!(sort(&[coin(1, 1), coin(2, 2), coin(1, 1)]).is_none());

        // Many, all over the pages, in no order: every 7,919th place modulo a prime.
        let many = |of: usize| (0..30_000_usize).map(move |n| n * 7_919 % 1_000_003 * of);
        for of in [1, 15] {
            let at = |n: usize| coin(n / COINS_PER_PAGE, n % COINS_PER_PAGE);
            let mut request: Vec<Coin> = many(of).map(at).collect();
            let (coins, ranks) = sort(&request).unwrap();
            assert!(coins.is_sorted_by(|a, b| a < b) && coins.len() == request.len());
            assert!((coins.iter().zip(ranks)).all(|(&c, rank)| request[rank as usize] == c));
            request[29_999] = request[3];
            assert!(sort(&request).is_none());
        }
        // More of a part than there are.
        assert!(sort(&vec![coin(5, 5); 30_000]).is_none());
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
