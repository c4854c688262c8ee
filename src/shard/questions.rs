use std::{cell::RefCell, collections::HashMap, hash::BuildHasher};

use foldhash::fast::{FixedState, RandomState};

use super::Stranger;
use crate::coin::ShardId;

/// How many questions to the settlement may be under way, since each takes a process of the
/// operator's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Questions {
    /// Maximum for one address.
    pub per_address: usize,
    /// Maximum for all datagrams together.
    pub by_datagram: usize,
}

/// The shard that counts the questions of a stranger.
pub fn question_home(stranger: Stranger, shards: u16) -> ShardId {
    let hash = FixedState::default().hash_one(stranger);
    ShardId::new((hash % u64::from(shards)) as u16)
}

/// Whose questions are under way.
#[derive(Default)]
pub(super) struct Askers(RefCell<HashMap<Stranger, usize, RandomState>>);

impl Askers {
    /// Counts a question, where its stranger may ask another one.
    pub(super) fn begin(&self, stranger: Stranger, most: Questions) -> bool {
        let most = match stranger {
            Stranger::Datagrams => most.by_datagram,
            _ => most.per_address,
        };
        let mut under_way = self.0.borrow_mut();
        let asked = under_way.entry(stranger).or_default();
        let may_ask = *asked < most;
        *asked += usize::from(may_ask);
        if *asked == 0 {
            under_way.remove(&stranger);
        }
        may_ask
    }

    /// A question that was counted has its answer.
    pub(super) fn end(&self, stranger: Stranger) {
        let mut under_way = self.0.borrow_mut();
        let asked = under_way.get_mut(&stranger);
        let asked = asked.expect("a question begins before it ends");
        *asked -= 1;
        if *asked == 0 {
            under_way.remove(&stranger);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_has_few_questions_under_way_and_nothing_is_kept_of_those_that_ended() {
        let askers = Askers::default();
        let most = Questions {
            per_address: 2,
            by_datagram: 3,
        };
        let asked = |stranger| (0..9).filter(|_| askers.begin(stranger, most)).count();
        let (one, other) = (Stranger::V4(1), Stranger::V6(1));
        assert_eq!([asked(one), asked(other)], [2, 2]);
        assert_eq!(asked(Stranger::Datagrams), 3);
        askers.end(one);
        assert_eq!(asked(one), 1, "one ended");
        for (stranger, times) in [(one, 2), (other, 2), (Stranger::Datagrams, 3)] {
            (0..times).for_each(|_| askers.end(stranger));
        }
        assert!(askers.0.borrow().is_empty());
        let none = Questions {
            per_address: 0,
            ..most
        };
        assert!(!askers.begin(one, none) && askers.0.borrow().is_empty());
    }
}
