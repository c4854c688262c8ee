//! Which parts of each change were made, according to the coins' values, and whether that is
//! allowed.

use std::cmp::Reverse;
use std::collections::HashMap;

use raida::client::Client;
use raida::coin::{An, Coin};

use super::{Book, Change, Outcome, Value, an, owner};

/// A part of a change.
type Place = (usize, usize);

impl Book {
    /// Asks the node which of all the values that coins had or might have they have now; `None`
    /// where one has none of them and may have been taken out of circulation.
    pub(super) fn find_values(
        &self,
        client: &mut Client,
        history: &[Change],
    ) -> Vec<Option<Value>> {
        let settled = self.values.iter().copied().enumerate();
        let proposed = history.iter().flat_map(|change| &change.parts);
        let proposed = proposed.filter_map(|part| Some((part.coin, part.new?)));
        let candidates: Vec<(usize, Value)> = settled.chain(proposed).collect();
        let asked: Vec<(Coin, An)> = candidates
            .iter()
            .map(|&(coin, value)| (self.coins[coin], an(value)))
            .collect();
        let passed = client.detect(&asked).unwrap();
        let mut found = vec![None; self.coins.len()];
        for (&(coin, value), _) in candidates.iter().zip(&passed).filter(|(_, p)| **p) {
            let before = found[coin].replace(value);
            assert!(before.is_none_or(|b| b == value), "two values are right");
        }
        let mut may_be_free = vec![false; self.coins.len()];
        let parts = history.iter().flat_map(|change| &change.parts);
        parts
            .filter(|part| part.new.is_none())
            .for_each(|part| may_be_free[part.coin] = true);
        let lost: Vec<String> = (0..found.len())
            .filter(|&coin| found[coin].is_none() && !may_be_free[coin])
            .map(|coin| self.coins[coin].to_string())
            .collect();
        assert!(lost.is_empty(), "neither old nor proposed: {lost:?}");
        found
    }

    /// Says which parts of each change were made, and compares that with the answers. Of coins that
    /// were stored where they were, values tell nothing: those count as not made.
    ///
    /// No coin comes to the same value twice, so the value that is found names the change that it
    /// is from, the value that this one replaced names the change before it, and so on to the
    /// first. Where two would have done the very same to all their coins, as two who take one offer
    /// into one locker, it was the one that was answered.
    pub(super) fn judge(
        &self,
        shards: u16,
        history: &[Change],
        found: &[Option<Value>],
    ) -> Vec<Vec<bool>> {
        let mut made_by: HashMap<(usize, Option<Value>), Vec<Place>> = HashMap::new();
        for (index, change) in history.iter().enumerate() {
            for (at, part) in change.parts.iter().enumerate() {
                if part.new != Some(part.old) {
                    let made_by = made_by.entry((part.coin, part.new)).or_default();
                    made_by.push((index, at));
                }
            }
        }
        let mut applied: Vec<Vec<bool>> = history
            .iter()
            .map(|change| vec![false; change.parts.len()])
            .collect();
        for (coin, &last) in found.iter().enumerate() {
            let mut value = last;
            while value != Some(self.values[coin]) {
                let candidates = made_by[&(coin, value)].iter();
                let likely = |&&(index, at): &&Place| match &history[index].outcome {
                    Outcome::Answered(passed) if passed[at] => (2, Reverse(index)),
                    Outcome::Open => (1, Reverse(index)),
                    _ => (0, Reverse(index)),
                };
                let &(index, at) = candidates.max_by_key(likely).expect("someone proposed it");
                applied[index][at] = true;
                value = Some(history[index].parts[at].old);
            }
        }
        let judged = history.iter().zip(&applied);
        for (change, applied) in judged.filter(|(change, _)| !change.stores_again()) {
            self.judge_one(shards, change, applied, found);
        }
        applied
    }

    fn judge_one(&self, shards: u16, change: &Change, applied: &[bool], found: &[Option<Value>]) {
        let tell = || {
            let lines = change.parts.iter().zip(applied).map(|(part, applied)| {
                let coin = self.coins[part.coin];
                format!("\n  {coin} of {}: applied {applied}", owner(coin, shards))
            });
            lines.collect::<String>()
        };
        let command = change.command;
        assert!(
            !change.is_forbidden || !applied.contains(&true),
            "{command:?} took coins that it had no right to:{}",
            tell()
        );
        match &change.outcome {
            Outcome::Answered(passed) => assert!(
                passed == applied,
                "{command:?} was answered {passed:?}, but:{}",
                tell()
            ),
            Outcome::Refused(status) => assert!(
                !applied.contains(&true),
                "{command:?} was refused with {status}, but:{}",
                tell()
            ),
            Outcome::Open => {
                // A coin that others change too may have had another value by then; one that still
                // has the value that was to be replaced did not.
                let passed_over = change.parts.iter().zip(applied).any(|(p, &applied)| {
                    !applied && (change.is_whole() || found[p.coin] == Some(p.old))
                });
                let is_torn = applied.contains(&true) && passed_over;
                assert!(
                    !is_torn,
                    "{command:?} has no answer and was torn:{}",
                    tell()
                );
            }
        }
    }
}
