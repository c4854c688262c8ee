use std::collections::VecDeque;

use rand::rngs::SmallRng;

use super::lots::Lots;
use super::market::{Sale, take_back};
use super::{Kind, Setup, Verdict, all_pass};
use crate::load::LoadError;
use crate::load::purse::Held;
use crate::load::side_door::{ChoreError, SideDoor};
use crate::protocol::{Command, Status};

/// Puts coins up for sale, each lot at a price of its own. Before each turn the offers of the turn
/// before are taken back, and their coins taken out of lockers. A turn is over when all coins are
/// up for sale.
pub struct OfferKind {
    lots: Lots,
    door: SideDoor,
    at_rest: VecDeque<usize>,
    /// Offers that are there or may be.
    made: Vec<Sale>,
    under_way: Vec<Option<Sale>>,
    failure: Option<LoadError>,
}

impl OfferKind {
    /// Puts some of the coins up for sale at a time.
    ///
    /// # Panics
    /// When the number of coins is zero.
    pub fn new(setup: Setup) -> OfferKind {
        let (door, slots) = (setup.side_door, setup.slots);
        let lots = Lots::new(setup);
        OfferKind {
            door,
            at_rest: (0..lots.len()).collect(),
            made: Vec::with_capacity(lots.len()),
            lots,
            under_way: vec![None; slots],
            failure: None,
        }
    }

    fn end(&mut self, slot: usize) -> Sale {
        let under_way = self.under_way[slot].take();
        under_way.expect("a request of this slot is under way")
    }

    /// Takes all offers back, and then their coins out of the lockers that they go into.
    fn make_ready(&mut self) -> Result<(), ChoreError> {
        take_back(&mut self.lots, &self.made, &self.door)?;
        let lots = self.made.drain(..).map(|sale| sale.lot);
        let at_rest = &mut self.at_rest;
        (self.lots).take_out(lots, &self.door, |lot| at_rest.push_back(lot))
    }
}

impl Kind for OfferKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        let lot = self.at_rest.pop_front()?;
        let sale = Sale::new(lot, rng);
        self.under_way[slot] = Some(sale);
        Some(sale.compose(&self.lots, payload))
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let sale = self.end(slot);
        let verdict = all_pass(status);
        match verdict {
            Verdict::Right => self.lots.got(sale.lot, sale.key.an()),
            Verdict::Wrong => self.lots.may_have_got(sale.lot, sale.key.an()),
            Verdict::Refused => {
                self.at_rest.push_back(sale.lot);
                return verdict;
            }
        }
        self.made.push(sale);
        verdict
    }

    fn lost(&mut self, slot: usize) {
        let sale = self.end(slot);
        self.lots.may_have_got(sale.lot, sale.key.an());
        self.made.push(sale);
    }

    fn withdraw(&mut self, slot: usize) {
        let sale = self.end(slot);
        self.at_rest.push_front(sale.lot);
    }

    fn prepare(&mut self) {
        if self.failure.is_none()
            && let Err(error) = self.make_ready()
        {
            self.at_rest.clear();
            self.failure = Some(error.into());
        }
    }

    fn is_spent(&self) -> bool {
        self.at_rest.is_empty()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(take_back(&mut self.lots, &self.made, &self.door)?),
        }
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.lots.into_coins()
    }
}
