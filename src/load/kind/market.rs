use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::lots::{Lots, locker_key};
use crate::coin::An;
use crate::load::side_door::{Chore, ChoreError, SideDoor};
use crate::protocol::lockers::{
    Address, Currency, LockerKey, Offer, Price, PutForSale, RemoveTrade, TradeKey, Value,
};
use crate::protocol::{Command, Status};

/// The currency of the offers.
pub(super) const CURRENCY: Currency = Currency::CloudCoin;

/// No two offers of this program have the same price, so that no two offers have the same terms.
/// The first price is drawn, since there may be offers of other programs.
static NEXT_PRICE: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(rand::rng().next_u32()));

/// A lot that is up for sale, or may be.
#[derive(Clone, Copy)]
pub(super) struct Sale {
    pub(super) lot: usize,
    pub(super) key: TradeKey,
    /// The number that the lot's coins have if the offer turns out not to be there; `None` where
    /// they have kept theirs then.
    pub(super) or_else: Option<An>,
}

impl Sale {
    /// Makes an offer of a lot at a price that nothing else has.
    pub(super) fn new(lot: usize, rng: &mut SmallRng) -> Sale {
        let mut secret = [0; TradeKey::SECRET_SIZE];
        rng.fill_bytes(&mut secret);
        let price = Price::new(NEXT_PRICE.fetch_add(1, Relaxed));
        Sale {
            lot,
            key: TradeKey::of(secret, price, CURRENCY),
            or_else: None,
        }
    }

    /// Appends the request that puts the lot up.
    pub(super) fn compose(&self, lots: &Lots, payload: &mut Vec<u8>) -> Command {
        let address = Address::new(b"raida bench: nobody").expect("it is neither short nor long");
        let (coins, sum) = (lots.coins(self.lot), lots.sum(self.lot));
        PutForSale::compose(coins, sum, self.key, &address, payload);
        Command::PutForSale
    }

    /// The terms by which a buyer names it.
    pub(super) fn offer(&self, lots: &Lots) -> Offer {
        Offer {
            currency: self.key.currency(),
            value: Value::of(lots.coins(self.lot))
                .expect("eight bytes hold what a request's coins are worth"),
            price: self.key.price(),
        }
    }
}

/// How many offers are under way at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// One: each waits for the one before, so that they are on the list in this order.
    Kept,
    /// Several, in any order.
    Any,
}

/// Puts lots up for sale, and hands over the offers that were made or may have been.
pub(super) fn put_up(
    lots: &mut Lots,
    which: impl IntoIterator<Item = usize>,
    order: Order,
    door: &SideDoor,
    mut made: impl FnMut(Sale),
) -> Result<(), ChoreError> {
    let rng = &mut SmallRng::from_rng(&mut rand::rng());
    let sales: Vec<Sale> = which.into_iter().map(|lot| Sale::new(lot, rng)).collect();
    let mut answers = Vec::with_capacity(sales.len());
    let at_once = match order {
        Order::Kept => 1,
        Order::Any => SideDoor::IN_FLIGHT_MAX,
    };
    let asked = door.ask(
        Chore::Offer,
        at_once,
        &sales,
        |sale, payload| sale.compose(lots, payload),
        |sale, status| {
            answers.push((*sale, status));
            status == Some(Status::ALL_PASS)
        },
    );
    for (sale, status) in answers {
        match status {
            Some(Status::ALL_PASS) => lots.got(sale.lot, sale.key.an()),
            Some(status) if !status.is_verdict() => continue,
            _ => lots.may_have_got(sale.lot, sale.key.an()),
        }
        made(sale);
    }
    asked
}

/// Takes offers back: their coins go into lockers. For an offer that is not there, nothing is in
/// doubt any more afterwards.
pub(super) fn take_back(
    lots: &mut Lots,
    sales: &[Sale],
    door: &SideDoor,
) -> Result<(), ChoreError> {
    let rng = &mut SmallRng::from_rng(&mut rand::rng());
    let tasks: Vec<(Sale, LockerKey)> = sales.iter().map(|&sale| (sale, locker_key(rng))).collect();
    door.ask(
        Chore::TakeBack,
        SideDoor::IN_FLIGHT_MAX,
        &tasks,
        |(sale, into), payload| {
            RemoveTrade::compose(sale.key, Some(*into), payload);
            Command::RemoveTrade
        },
        |(sale, into), status| match status {
            Some(Status::ALL_PASS) => {
                lots.got(sale.lot, into.an());
                true
            }
            Some(Status::ALL_FAIL) if lots.lot(sale.lot)[0].is_in_doubt() => {
                lots.is_settled(sale.lot, sale.or_else);
                true
            }
            Some(status) if !status.is_verdict() => false,
            _ => {
                lots.may_have_got(sale.lot, into.an());
                false
            }
        },
    )
}
