use std::collections::HashSet;

use rand::rngs::SmallRng;

use super::lots::Lots;
use super::market::{CURRENCY, Order, Sale, put_up, take_back};
use super::{Kind, Setup, Verdict};
use crate::load::LoadError;
use crate::load::purse::Held;
use crate::load::side_door::SideDoor;
use crate::protocol::lockers::{ListForSale, Listing, Offer};
use crate::protocol::{Command, Status};

/// Asks which lockers are for sale, for as many as one answer holds. That many are put up before
/// the first turn, or as many as there are coins for, and taken back after the last one. Each
/// answer has to show them in their order. Lockers of others may stand among them, and some or all
/// of them may have no room because of lockers in front of them.
pub struct ListKind {
    lots: Lots,
    door: SideDoor,
    /// Lots to put up.
    to_offer: Vec<usize>,
    made: Vec<Sale>,
    /// The offers made, in this order.
    offers: Vec<Offer>,
    own: HashSet<Offer>,
    failure: Option<LoadError>,
}

impl ListKind {
    /// Puts up lots of `coins_per_request` coins.
    ///
    /// # Panics
    /// When the number of coins is zero.
    pub fn new(setup: Setup) -> ListKind {
        let door = setup.side_door;
        let lots = Lots::new(setup);
        ListKind {
            door,
            to_offer: (0..lots.len().min(usize::from(u8::MAX))).collect(),
            lots,
            made: vec![],
            offers: vec![],
            own: HashSet::new(),
            failure: None,
        }
    }

    /// Whether a listing shows its own offers correctly.
    fn is_shown(&self, listing: &Listing<'_>) -> bool {
        let mut expected = self.offers.iter();
        let mut next = expected.next();
        for listed in listing.iter() {
            if next == Some(&listed.offer) {
                next = expected.next();
            } else if self.own.contains(&listed.offer) {
                return false;
            }
        }
        let is_full = listing.len() == usize::from(u8::MAX);
        next.is_none() || is_full
    }
}

impl Kind for ListKind {
    fn request(&mut self, _: usize, _: &mut SmallRng, payload: &mut Vec<u8>) -> Option<Command> {
        if self.failure.is_some() {
            return None;
        }
        let list = ListForSale {
            currency: CURRENCY,
            most: u8::MAX,
        };
        list.compose(payload);
        Some(Command::ListForSale)
    }

    fn answer(&mut self, _: usize, status: Status, payload: &[u8]) -> Verdict {
        if !status.is_verdict() {
            return Verdict::Refused;
        }
        let listing = Listing::read(status, payload, CURRENCY);
        match listing.is_some_and(|listing| self.is_shown(&listing)) {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }

    fn lost(&mut self, _: usize) {}

    fn withdraw(&mut self, _: usize) {}

    fn prepare(&mut self) {
        let lots = std::mem::take(&mut self.to_offer);
        let made = |sale| self.made.push(sale);
        if let Err(error) = put_up(&mut self.lots, lots, Order::Kept, &self.door, made) {
            self.failure = Some(error.into());
        }
        let offers = self.made.iter().map(|sale| sale.offer(&self.lots));
        self.offers = offers.collect();
        self.own = self.offers.iter().copied().collect();
    }

    fn is_spent(&self) -> bool {
        self.failure.is_some()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        let taken_back = take_back(&mut self.lots, &self.made, &self.door);
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(taken_back?),
        }
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.lots.into_coins()
    }
}
