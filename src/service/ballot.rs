use crate::{coin::Coin, protocol::healing::VOTES_NEEDED};

/// The votes of the other servers on the coins of a fix: which coins each server has heard, from
/// the coin's owner, to be right.
#[derive(Debug)]
pub(super) struct Ballot {
    /// Rising, each once.
    coins: Vec<Coin>,
    votes: Vec<Votes>,
    /// Servers that have not answered yet.
    expected: usize,
    /// Servers that have answered.
    answered: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    count: u32,
    /// The number of the last answer that had this coin, so that one answer is one vote.
    last: u32,
}

impl Ballot {
    /// Makes a ballot on these coins with this many voters.
    pub(super) fn new(mut coins: Vec<Coin>, voters: usize) -> Ballot {
        coins.sort_unstable();
        coins.dedup();
        Ballot {
            votes: vec![Votes::default(); coins.len()],
            coins,
            expected: voters,
            answered: 0,
        }
    }

    /// Number of coins that it is about, each counted once.
    pub(super) fn coins(&self) -> usize {
        self.coins.len()
    }

    /// Counts a server's vote for these coins; coins that are not on the ballot do not matter.
    pub(super) fn vote(&mut self, coins: impl IntoIterator<Item = Coin>) {
        self.expected = self.expected.saturating_sub(1);
        self.answered += 1;
        for coin in coins {
            if let Ok(at) = self.coins.binary_search(&coin) {
                let votes = &mut self.votes[at];
                votes.count += u32::from(votes.last != self.answered);
                votes.last = self.answered;
            }
        }
    }

    /// Counts a server that is down, slow, refuses, or says something that cannot be understood.
    pub(super) fn no_vote(&mut self) {
        self.expected = self.expected.saturating_sub(1);
    }

    /// Whether no vote that can still come would change the outcome.
    pub(super) fn is_decided(&self) -> bool {
        let can_still = |votes: &Votes| votes.count as usize + self.expected >= VOTES_NEEDED;
        let is_open = |votes: &Votes| !is_approved(votes) && can_still(votes);
        self.expected == 0 || !self.votes.iter().any(is_open)
    }

    /// The coins that are to be repaired, rising.
    pub(super) fn approved(&self) -> Vec<Coin> {
        let all = self.coins.iter().zip(&self.votes);
        let approved = all.filter(|(_, votes)| is_approved(votes));
        approved.map(|(&coin, _)| coin).collect()
    }
}

fn is_approved(votes: &Votes) -> bool {
    votes.count as usize >= VOTES_NEEDED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    fn coin(place: usize) -> Coin {
        PageId::from_index(7).unwrap().coin(place)
    }

    #[test]
    fn thirteen_votes_repair_a_coin_and_twelve_do_not() {
        let mut ballot = Ballot::new(vec![coin(1), coin(2)], 24);
        for _ in 0..12 {
            ballot.vote([coin(1), coin(2)]);
        }
        assert!(!ballot.is_decided());
        ballot.vote([coin(1)]);
        assert!(!ballot.is_decided(), "11 servers can still vote for coin 2");
        for _ in 0..11 {
            ballot.vote([coin(1)]);
        }
        assert!(ballot.is_decided());
        assert_eq!(ballot.approved(), [coin(1)]);
    }

    #[test]
    fn it_is_decided_as_soon_as_too_few_are_left() {
        let mut ballot = Ballot::new(vec![coin(1)], 24);
        for _ in 0..11 {
            ballot.no_vote();
        }
        assert!(!ballot.is_decided(), "13 are left");
        ballot.no_vote();
        assert!(ballot.is_decided());
        assert!(ballot.approved().is_empty());
    }

    #[test]
    fn with_thirteen_tickets_every_one_has_to_vote() {
        let mut ballot = Ballot::new(vec![coin(1)], 13);
        for _ in 0..12 {
            ballot.vote([coin(1)]);
            assert!(!ballot.is_decided());
        }
        ballot.vote([coin(1)]);
        assert!(ballot.is_decided());
        assert_eq!(ballot.approved(), [coin(1)]);
        assert!(Ballot::new(vec![coin(1)], 12).is_decided());
    }

    #[test]
    fn a_server_votes_once_whatever_it_lists() {
        let mut ballot = Ballot::new(vec![coin(2), coin(1), coin(2)], 24);
        for _ in 0..24 {
            ballot.vote(vec![coin(9), coin(2), coin(2), coin(9)]);
        }
        assert_eq!(ballot.approved(), [coin(2)]);
        let mut ballot = Ballot::new(vec![coin(1)], 24);
        ballot.vote(vec![coin(1); 100]);
        assert!(ballot.approved().is_empty());
    }
}
