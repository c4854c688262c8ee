use std::collections::BTreeMap;

use crate::client::heal::mark_of;
use crate::client::wallet::{Filed, Mark};
use crate::client::{ClientError, Outcome, PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::{Found, VOTES_NEEDED};

/// A request to a server: which of a wallet's coins, by their places, and the outcome of each.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub outcomes: Vec<(usize, Outcome)>,
    pub error: Option<ClientError>,
}

/// Asks which of their two numbers coins have that servers were asked to change, and records the
/// answers. A server's own report is not enough: if it did nothing, only the number before is
/// valid. Where it does not answer this question, its report is believed once 13 others have shown
/// that they have the new number.
///
/// Where the old number is still in force, `is_over` says whether the change is known to be over:
/// then the new number is dropped. Else both stay in the file, since a request that was given up
/// may still be carried out.
pub(super) fn settle(
    coins: &mut [Filed],
    sent: &PerRaida<Option<Sent>>,
    raidas: &Raidas,
    is_over: impl Fn(Outcome) -> bool,
) {
    let mut became: PerRaida<BTreeMap<usize, Outcome>> = PerRaida::from_fn(|_| BTreeMap::new());
    for (raida, sent) in sent.iter() {
        let outcomes = sent.iter().flat_map(|sent| &sent.outcomes);
        became[raida] = outcomes.copied().collect();
    }
    let questions = PerRaida::from_fn(|raida| {
        // A server that could not be reached a moment ago would only cost another time-out.
        let error = sent[raida].as_ref().and_then(|sent| sent.error.as_ref());
        if let Some(ClientError::Unreachable(..)) = error {
            return vec![];
        }
        in_doubt(coins, raida)
    });
    let asked = |raida: RaidaId| {
        let records: Vec<(Coin, An, An)> = (questions[raida].iter())
            .filter_map(|&place| {
                let file = &coins[place].file;
                Some((file.coin, file.an(raida), file.pan(raida)?))
            })
            .collect();
        (!records.is_empty()).then_some(records)
    };
    let answers = raidas.ask(raidas.timeout, asked, |client, records| {
        client.find(&records)
    });
    let mut shown: BTreeMap<usize, usize> = BTreeMap::new();
    let mut only_said: Vec<(RaidaId, usize)> = vec![];
    for (raida, answer) in answers.iter() {
        let found = match answer {
            Some(Ok(found)) => found.as_slice(),
            silent => {
                let mark = match silent {
                    Some(Err(error)) => mark_of(error),
                    _ => Mark::NoAnswer,
                };
                let doubtful = in_doubt(coins, raida);
                let done = |place: &&usize| became[raida].get(place) == Some(&Outcome::Changed);
                only_said.extend(doubtful.iter().filter(done).map(|&place| (raida, place)));
                set_marks(coins, &doubtful, raida, mark);
                continue;
            }
        };
        for (&place, &found) in questions[raida].iter().zip(found) {
            let file = &mut coins[place].file;
            let outcome = became[raida].get(&place).copied();
            match found {
                // No pass either: the coin does not have its new number yet.
                Found::An if !is_over(outcome.unwrap_or(Outcome::Unknown)) => {
                    file.pown.0[raida] = Mark::NoAnswer;
                }
                found => {
                    *shown.entry(place).or_default() += usize::from(found == Found::Pan);
                    file.settle(raida, found);
                }
            }
        }
    }
    for (raida, place) in only_said {
        if shown
            .get(&place)
            .is_some_and(|&servers| servers >= VOTES_NEEDED)
        {
            coins[place].file.settle(raida, Found::Pan);
        }
    }
}

/// The places of the coins that have two numbers for a server.
fn in_doubt(coins: &[Filed], raida: RaidaId) -> Vec<usize> {
    let places = 0..coins.len();
    places
        .filter(|&place| coins[place].file.pan(raida).is_some())
        .collect()
}

fn set_marks(coins: &mut [Filed], places: &[usize], raida: RaidaId, mark: Mark) {
    for &place in places {
        coins[place].file.pown.0[raida] = mark;
    }
}
