use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{Buyer, arena::Arena, table::Table};
use crate::store::book::{Payment, PaymentId};

/// Which payments were used, so that none is used twice, and which are being looked at.
pub(super) struct Payments {
    used: Arena<Used>,
    by_id: Table,
    /// Payments that are looked at, by buyer. A payment's name is no secret: others may name it as
    /// well, and must not keep the one who paid from it.
    asked: HashSet<Buyer, RandomState>,
    /// Being used up, and for what.
    in_use: HashMap<PaymentId, [u8; 16], RandomState>,
    most: usize,
}

/// What is known of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentState {
    /// Nothing. The asker may look at it now, until the look is
    /// [ended](crate::shard::question::EndPayment).
    New,
    /// It is looked at for the same right now, or being used up for something else.
    UnderWay,
    /// It was used for what this stands for.
    Used([u8; 16]),
    /// No more payments can be remembered.
    TooMany,
}

#[derive(Clone, Copy, Default)]
struct Used {
    id: PaymentId,
    digest: [u8; 16],
    moment: u64,
}

impl Payments {
    pub(super) fn new(most: usize) -> Payments {
        Payments {
            used: Arena::new(),
            by_id: Table::new(),
            asked: HashSet::default(),
            in_use: HashMap::default(),
            most,
        }
    }

    /// Says what is known of a payment, and lets the asker look at it where nobody does for the
    /// same.
    pub(super) fn begin(&mut self, buyer: Buyer) -> PaymentState {
        if let Some(used) = self.find(&buyer.payment) {
            return PaymentState::Used(self.used.get(used).digest);
        }
        if self.used.len() + self.asked.len() >= self.most {
            return PaymentState::TooMany;
        }
        match self.asked.insert(buyer) {
            true => PaymentState::New,
            false => PaymentState::UnderWay,
        }
    }

    /// Lets a buyer who was let look at a payment use it up, where nobody else has or is about to.
    pub(super) fn use_up(&mut self, buyer: Buyer) -> PaymentState {
        if let Some(used) = self.find(&buyer.payment) {
            return PaymentState::Used(self.used.get(used).digest);
        }
        let by = *self.in_use.entry(buyer.payment).or_insert(buyer.digest);
        match by == buyer.digest {
            true => PaymentState::New,
            false => PaymentState::UnderWay,
        }
    }

    /// Ends a look at a payment, and its use.
    pub(super) fn end(&mut self, buyer: &Buyer) {
        self.asked.remove(buyer);
        if self.in_use.get(&buyer.payment) == Some(&buyer.digest) {
            self.in_use.remove(&buyer.payment);
        }
    }

    /// Remembers that a payment was used.
    pub(super) fn enter(&mut self, payment: &Payment) {
        let &Payment { id, digest, moment } = payment;
        if self.find(&id).is_some() {
            return;
        }
        let number = self.used.insert(Used { id, digest, moment });
        let used = &self.used;
        self.by_id.insert(&id, number, |other| used.get(other).id);
    }

    /// How many were used.
    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    /// The used payment with this number, below [`len`](Payments::len).
    pub(super) fn at(&self, number: u32) -> Payment {
        let &Used { id, digest, moment } = self.used.get(number);
        Payment { id, digest, moment }
    }

    fn find(&self, id: &PaymentId) -> Option<u32> {
        self.by_id
            .find(id, |number| self.used.get(number).id == *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(number: u8) -> Payment {
        Payment {
            id: [number; 32],
            digest: [number + 1; 16],
            moment: 7,
        }
    }

    fn buyer(number: u8, digest: u8) -> Buyer {
        Buyer {
            payment: [number; 32],
            digest: [digest; 16],
        }
    }

    #[test]
    fn a_payment_is_looked_at_once_at_a_time_for_the_same_and_used_once() {
        let mut payments = Payments::new(10);
        let (own, others) = (buyer(1, 2), buyer(1, 3));
        assert_eq!(payments.begin(own), PaymentState::New);
        assert_eq!(payments.begin(own), PaymentState::UnderWay);
        assert_eq!(
            payments.begin(others),
            PaymentState::New,
            "its name is known"
        );
        assert_eq!(payments.use_up(own), PaymentState::New);
        assert_eq!(payments.use_up(others), PaymentState::UnderWay);
        payments.end(&others);
        assert_eq!(payments.begin(others), PaymentState::New);
        assert_eq!(payments.use_up(others), PaymentState::UnderWay, "still");
        payments.end(&own);
        assert_eq!(
            payments.use_up(others),
            PaymentState::New,
            "nothing came of it"
        );
        payments.end(&others);
        assert_eq!(payments.begin(own), PaymentState::New);
        payments.enter(&payment(1));
        payments.enter(&payment(1));
        payments.end(&own);
        for by in [own, others] {
            assert_eq!(payments.begin(by), PaymentState::Used([2; 16]));
            assert_eq!(payments.use_up(by), PaymentState::Used([2; 16]));
        }
        assert_eq!((payments.len(), payments.at(0)), (1, payment(1)));
    }

    #[test]
    fn what_cannot_be_remembered_is_not_taken() {
        let mut payments = Payments::new(2);
        payments.enter(&payment(1));
        assert_eq!(payments.begin(buyer(2, 3)), PaymentState::New);
        assert_eq!(payments.begin(buyer(3, 4)), PaymentState::TooMany);
        assert_eq!(payments.begin(buyer(1, 2)), PaymentState::Used([2; 16]));
        payments.end(&buyer(2, 3));
        assert_eq!(payments.begin(buyer(3, 4)), PaymentState::New);
    }
}
