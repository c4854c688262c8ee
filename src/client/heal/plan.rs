use crate::client::PerRaida;
use crate::client::wallet::{Mark, PownString};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// Which of some coins each server has to fix: those that it fails and at least 13 others have
/// listed on their tickets. `marks` has what the servers said of each coin, `listed` whose tickets
/// list it.
///
/// A server that did not say whether it knows a coin gets no fix. If it is down, it would hold
/// everybody up for nothing; if it had the right number, the fix would leave two numbers in doubt.
/// It is asked again in the next round.
pub fn plan(marks: &[PownString], listed: &[PerRaida<bool>]) -> PerRaida<Vec<usize>> {
    PerRaida::from_fn(|broken| {
        let coins = marks.iter().zip(listed).enumerate();
        coins
            .filter(|(_, (marks, listed))| {
                marks.0[broken] == Mark::Failed && votes(listed, broken) >= VOTES_NEEDED
            })
            .map(|(place, _)| place)
            .collect()
    })
}

/// A server has no vote about itself.
fn votes(listed: &PerRaida<bool>, broken: RaidaId) -> usize {
    let others = listed.iter().filter(|&(raida, _)| raida != broken);
    others.filter(|&(_, listed)| *listed).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A coin: its marks from 25 letters, and the servers whose tickets list it, which are those
    /// that pass it.
    fn coin(letters: &str) -> (PownString, PerRaida<bool>) {
        let mut letters = letters.chars();
        let marks = PerRaida::from_fn(|_| match letters.next().unwrap() {
            'p' => Mark::Passed,
            'f' => Mark::Failed,
            'n' => Mark::NoAnswer,
            'e' => Mark::Error,
            other => panic!("{other}"),
        });
        (PownString(marks), marks.map(|mark| mark == Mark::Passed))
    }

    fn planned(coins: &[&str]) -> Vec<(u8, Vec<usize>)> {
        let (marks, listed): (Vec<_>, Vec<_>) = coins.iter().map(|coin| self::coin(coin)).unzip();
        let planned = plan(&marks, &listed).into_iter();
        planned
            .filter(|(_, coins)| !coins.is_empty())
            .map(|(raida, coins)| (raida.get(), coins))
            .collect()
    }

    #[test]
    fn each_server_fixes_the_coins_that_it_fails() {
        let coins = [
            "fpppppppppppppppppppppppf",
            "ppppppppppppppppppppppppp",
            "fpfpppppppppppppppppppppp",
        ];
        let expected = [(0, vec![0, 2]), (2, vec![2]), (24, vec![0])];
        assert_eq!(planned(&coins), expected);
    }

    #[test]
    fn thirteen_votes_repair_and_twelve_do_not() {
        let thirteen = "pppppppppppppffffffffffff";
        assert_eq!(planned(&[thirteen]).len(), 12);
        assert_eq!(planned(&["ppppppppppppfffffffffffff"]), []);
    }

    #[test]
    fn a_server_that_said_nothing_is_not_sent_a_fix() {
        assert_eq!(planned(&["npppppppppppppppppppppppe"]), []);
        assert_eq!(planned(&["nfppppppppppppppppppppppe"]), [(1, vec![0])]);
    }

    #[test]
    fn a_coin_that_passes_without_a_ticket_has_no_vote() {
        let (marks, mut listed) = coin("pppppppppppppffffffffffff");
        listed[RaidaId::new(12).unwrap()] = false;
        let planned = plan(&[marks], &[listed]);
        assert_eq!(planned.count(|coins| !coins.is_empty()), 0);
    }
}
