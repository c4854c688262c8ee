use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Setup, Verdict};
use crate::coin::{An, Coin};
use crate::load::at_rest::AtRest;
use crate::load::purse::Held;

/// Coins whose numbers requests change, each in one request at a time. So it is known at every
/// moment which number is in force: a node that forgets a change, or makes a change without
/// reporting it, fails a later request.
pub(super) struct UnderWay {
    coins: Vec<Held>,
    coins_per_request: usize,
    at_rest: AtRest,
    /// By slot: the coins under way.
    by_slot: Vec<Vec<usize>>,
}

impl UnderWay {
    pub(super) fn new(setup: Setup) -> UnderWay {
        assert!(setup.coins_per_request > 0);
        let coins: Vec<Coin> = setup.coins.iter().map(|held| held.coin).collect();
        let rng = &mut SmallRng::from_rng(&mut rand::rng());
        UnderWay {
            at_rest: AtRest::new(setup.choice, &coins, rng),
            by_slot: vec![Vec::with_capacity(setup.coins_per_request); setup.slots],
            coins: setup.coins,
            coins_per_request: setup.coins_per_request,
        }
    }

    /// The coins of a new request; `None` where too few are at rest.
    pub(super) fn begin(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
    ) -> Option<impl Iterator<Item = &Held> + Clone> {
        let taken = &mut self.by_slot[slot];
        debug_assert!(taken.is_empty());
        let enough = self.at_rest.take(self.coins_per_request, rng, taken);
        enough.then(|| taken.iter().map(|&coin| &self.coins[coin]))
    }

    /// Handles the answer to a request that asked for these numbers to be in force.
    pub(super) fn end(&mut self, slot: usize, verdict: Verdict, asked: impl Fn(&Held) -> An) {
        for coin in self.by_slot[slot].drain(..) {
            let held = &mut self.coins[coin];
            let an = asked(held);
            match verdict {
                Verdict::Right => held.got(an),
                // Which of its coins passed is no longer relevant.
                Verdict::Wrong => held.may_have_got(an),
                Verdict::Refused => {}
            }
            if !held.is_in_doubt() {
                self.at_rest.put(coin);
            }
        }
    }

    /// Handles a missing answer. The coins stay out of all further requests.
    pub(super) fn lose(&mut self, slot: usize, asked: impl Fn(&Held) -> An) {
        for coin in self.by_slot[slot].drain(..) {
            let held = &mut self.coins[coin];
            held.may_have_got(asked(held));
        }
    }

    /// Handles a request that was never sent.
    pub(super) fn withdraw(&mut self, slot: usize) {
        for coin in self.by_slot[slot].drain(..) {
            self.at_rest.put(coin);
        }
    }

    pub(super) fn into_coins(self) -> Vec<Held> {
        self.coins
    }
}
