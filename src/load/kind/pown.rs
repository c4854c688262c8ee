use std::collections::VecDeque;

use rand::rngs::SmallRng;

use super::{Kind, Verdict, all_pass};
use crate::load::purse::Held;
use crate::protocol::authentication::Pown;
use crate::protocol::{Command, Status};

/// Gives coins their other authenticity number, each coin in one request at a time, so that it is
/// known at every moment which number is in force: a node that forgets a change, or makes one that it
/// did not tell, fails a later request.
pub struct PownKind {
    coins: Vec<Held>,
    coins_per_request: usize,
    /// Coins not under way, the one that has rested longest first.
    at_rest: VecDeque<usize>,
    /// By slot: the coins under way.
    under_way: Vec<Vec<usize>>,
}

impl PownKind {
    /// Changes some of `coins` at a time, with at most `slots` requests under way.
    ///
    /// # Panics
    /// When none is to be changed at a time.
    pub fn new(coins: Vec<Held>, coins_per_request: usize, slots: usize) -> PownKind {
        assert!(coins_per_request > 0);
        PownKind {
            at_rest: (0..coins.len()).collect(),
            under_way: vec![Vec::with_capacity(coins_per_request); slots],
            coins,
            coins_per_request,
        }
    }
}

impl Kind for PownKind {
    fn command(&self) -> Command {
        Command::Pown
    }

    fn request(&mut self, slot: usize, _: &mut SmallRng, payload: &mut Vec<u8>) -> bool {
        if self.at_rest.len() < self.coins_per_request {
            return false;
        }
        let under_way = &mut self.under_way[slot];
        under_way.extend(self.at_rest.drain(..self.coins_per_request));
        let records = under_way.iter().map(|&coin| {
            let held = &self.coins[coin];
            (held.coin, held.an(), held.other_an())
        });
        Pown::compose(records, payload);
        true
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let verdict = all_pass(status);
        for coin in self.under_way[slot].drain(..) {
            match verdict {
                Verdict::Right => self.coins[coin].change(),
                // Which of its coins passed does not matter any more.
                Verdict::Wrong => self.coins[coin].doubt(),
                Verdict::Refused => {}
            }
            if !self.coins[coin].is_in_doubt() {
                self.at_rest.push_back(coin);
            }
        }
        verdict
    }

    fn lost(&mut self, slot: usize) {
        for coin in self.under_way[slot].drain(..) {
            self.coins[coin].doubt();
        }
    }

    fn withdraw(&mut self, slot: usize) {
        self.at_rest.extend(self.under_way[slot].drain(..));
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.coins
    }
}
