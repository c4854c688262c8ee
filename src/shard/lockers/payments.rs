use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::{arena::Arena, table::Table};
use crate::store::book::{Payment, PaymentId};

/// Which payments were used, so that none is used twice, and which are being looked at.
pub(super) struct Payments {
    used: Arena<Used>,
    by_id: Table,
    under_way: HashSet<PaymentId, RandomState>,
    most: usize,
}

/// What is known of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentState {
    /// Nothing; it is the asker's to look at now, to be [ended](crate::shard::Request::EndPayment).
    New,
    /// Somebody is looking at it right now.
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
            under_way: HashSet::default(),
            most,
        }
    }

    /// Says what is known of a payment, and lets the asker look at it where nobody has.
    pub(super) fn begin(&mut self, id: PaymentId) -> PaymentState {
        if let Some(used) = self.find(&id) {
            return PaymentState::Used(self.used.get(used).digest);
        }
        if self.used.len() + self.under_way.len() >= self.most {
            return PaymentState::TooMany;
        }
        match self.under_way.insert(id) {
            true => PaymentState::New,
            false => PaymentState::UnderWay,
        }
    }

    /// Ends a look at a payment.
    pub(super) fn end(&mut self, id: &PaymentId) {
        self.under_way.remove(id);
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

    #[test]
    fn a_payment_is_looked_at_by_one_at_a_time_and_used_once() {
        let mut payments = Payments::new(10);
        assert_eq!(payments.begin([1; 32]), PaymentState::New);
        assert_eq!(payments.begin([1; 32]), PaymentState::UnderWay);
        assert_eq!(payments.begin([2; 32]), PaymentState::New);
        payments.end(&[1; 32]);
        assert_eq!(payments.begin([1; 32]), PaymentState::New);
        payments.enter(&payment(1));
        payments.enter(&payment(1));
        payments.end(&[1; 32]);
        assert_eq!(payments.begin([1; 32]), PaymentState::Used([2; 16]));
        assert_eq!((payments.len(), payments.at(0)), (1, payment(1)));
    }

    #[test]
    fn what_cannot_be_remembered_is_not_taken() {
        let mut payments = Payments::new(2);
        payments.enter(&payment(1));
        assert_eq!(payments.begin([2; 32]), PaymentState::New);
        assert_eq!(payments.begin([3; 32]), PaymentState::TooMany);
        assert_eq!(payments.begin([1; 32]), PaymentState::Used([2; 16]));
        payments.end(&[2; 32]);
        assert_eq!(payments.begin([3; 32]), PaymentState::New);
    }
}
