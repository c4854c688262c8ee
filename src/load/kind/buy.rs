use std::collections::VecDeque;

use rand::Rng;
use rand::rngs::SmallRng;

use super::lots::{Lots, locker_key};
use super::market::{Order, Sale, put_up, take_back};
use super::{Kind, Setup, Verdict, all_pass};
use crate::load::LoadError;
use crate::load::purse::Held;
use crate::load::side_door::{ChoreError, SideDoor};
use crate::protocol::lockers::{Buy, LockerKey, Memo, ReceiptId, TransactionId};
use crate::protocol::{Command, Status};

/// Buys lockers, each with a payment of its own, into a locker of its own. Before each turn, the
/// coins bought in the turn before are taken out of there and put up for sale again. A turn is over
/// when everything is bought. Lots that were not bought are taken back after the last turn.
///
/// Needs a node for which every purchase counts as paid (`trade.settlement = "trusted"`).
pub struct BuyKind {
    lots: Lots,
    door: SideDoor,
    /// Offers to buy.
    offers: VecDeque<Sale>,
    /// Lots that are no longer up for sale.
    bought: Vec<usize>,
    /// Offers in doubt: nobody knows whether they are there, or were bought.
    in_doubt: Vec<Sale>,
    /// By slot: the purchase, and the locker that it goes into.
    under_way: Vec<Option<(Sale, LockerKey)>>,
    failure: Option<LoadError>,
}

impl BuyKind {
    /// Buys some of the coins at a time.
    ///
    /// # Panics
    /// When the number of coins is zero.
    pub fn new(setup: Setup) -> BuyKind {
        let (door, slots) = (setup.side_door, setup.slots);
        let lots = Lots::new(setup);
        BuyKind {
            door,
            offers: VecDeque::with_capacity(lots.len()),
            bought: (0..lots.len()).collect(),
            in_doubt: vec![],
            lots,
            under_way: vec![None; slots],
            failure: None,
        }
    }

    fn end(&mut self, slot: usize) -> (Sale, LockerKey) {
        let under_way = self.under_way[slot].take();
        under_way.expect("a request of this slot is under way")
    }

    /// Takes bought coins out of their lockers, and puts them up for sale.
    fn make_ready(&mut self) -> Result<(), ChoreError> {
        let bought = self.bought.drain(..);
        let mut at_large = Vec::with_capacity(bought.len());
        (self.lots).take_out(bought, &self.door, |lot| at_large.push(lot))?;
        let offers = &mut self.offers;
        let made = |sale| offers.push_back(sale);
        put_up(&mut self.lots, at_large, Order::Any, &self.door, made)
    }

    fn doubt(&mut self, sale: Sale, into: LockerKey) {
        self.lots.may_have_got(sale.lot, into.an());
        self.in_doubt.push(Sale {
            or_else: Some(into.an()),
            ..sale
        });
    }
}

impl Kind for BuyKind {
    fn request(
        &mut self,
        slot: usize,
        rng: &mut SmallRng,
        payload: &mut Vec<u8>,
    ) -> Option<Command> {
        if self.failure.is_some() {
            return None;
        }
        let sale = self.offers.pop_front()?;
        let into = locker_key(rng);
        let mut transaction = [0; TransactionId::SIZE];
        let mut receipt = [0; ReceiptId::SIZE];
        rng.fill_bytes(&mut transaction);
        rng.fill_bytes(&mut receipt);
        let buy = Buy {
            into,
            offer: sale.offer(&self.lots),
            transaction: TransactionId::new(transaction),
            receipt: ReceiptId::new(receipt),
            memo: Memo::new(b"raida bench").expect("it is neither empty nor long"),
        };
        buy.compose(payload);
        self.under_way[slot] = Some((sale, into));
        Some(Command::Buy)
    }

    fn answer(&mut self, slot: usize, status: Status, _: &[u8]) -> Verdict {
        let (sale, into) = self.end(slot);
        let verdict = all_pass(status);
        match verdict {
            Verdict::Right => {
                self.lots.got(sale.lot, into.an());
                self.bought.push(sale.lot);
            }
            Verdict::Wrong => self.doubt(sale, into),
            // While a purchase is pending the coins may still go to the buyer.
            Verdict::Refused if status == Status::PAYMENT_PENDING => self.doubt(sale, into),
            Verdict::Refused => self.offers.push_back(sale),
        }
        verdict
    }

    fn lost(&mut self, slot: usize) {
        let (sale, into) = self.end(slot);
        self.doubt(sale, into);
    }

    fn withdraw(&mut self, slot: usize) {
        let (sale, _) = self.end(slot);
        self.offers.push_front(sale);
    }

    fn prepare(&mut self) {
        if self.failure.is_none() {
            self.failure = self.make_ready().err().map(LoadError::from);
        }
    }

    fn is_spent(&self) -> bool {
        self.offers.is_empty() || self.failure.is_some()
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        let mut there: Vec<Sale> = self.offers.drain(..).collect();
        there.append(&mut self.in_doubt);
        let taken_back = take_back(&mut self.lots, &there, &self.door);
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(taken_back?),
        }
    }

    fn coins(self: Box<Self>) -> Vec<Held> {
        self.lots.into_coins()
    }
}
