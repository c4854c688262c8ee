use crate::coin::{An, Coin};

/// When a coin came under the number it has. Lists are ordered by this.
///
/// Moments are microseconds since 1970 by the clock, but they rise along the changes of each coin
/// even where the clock does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The moment of the request; 0 where nobody knows, for a coin that was imported.
    pub moment: u64,
    /// The coin's place in the request.
    pub rank: u32,
}

impl Stamp {
    /// No moment is later, and a later one can always be given: 146,000 years from 1970.
    pub const MOMENT_MAX: u64 = 1 << 62;
}

/// What a log record says beside its coins' new values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The record's moment; 0 where it has nothing to say.
    pub moment: u64,
    /// For each change to a [marked](An::is_marked) number, in the order of the record: the coin's
    /// place in the request.
    pub ranks: Vec<u32>,
    /// The sale that begins, at the record's moment: with the coins that the record puts under its
    /// key. They stay there, and none is stored there again, until it ends.
    pub sale: Option<Sale>,
    /// The trade key whose sale ends: all coins that came with it leave with the record.
    pub ended: Option<An>,
    /// The payment that is used up, at the record's moment.
    pub payment: Option<Payment>,
}

impl Notes {
    /// Sets the moment of all of it.
    pub fn set_moment(&mut self, moment: u64) {
        self.moment = moment;
        if let Some(sale) = &mut self.sale {
            sale.moment = moment;
        }
        if let Some(payment) = &mut self.payment {
            payment.moment = moment;
        }
    }
}

/// A coin under a marked number, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The number.
    pub key: An,
    /// The coin.
    pub coin: Coin,
    /// Since when.
    pub stamp: Stamp,
}

/// An offer of the coins under a trade key.
#[derive(Clone, PartialEq, Eq)]
pub struct Sale {
    /// The trade key.
    pub key: An,
    /// When it was offered.
    pub moment: u64,
    /// Where the seller wants to be paid, as the seller wrote it: up to [`Sale::ADDRESS_MAX`]
    /// bytes.
    pub address: Box<[u8]>,
}

impl Sale {
    /// Bytes of an address, at most.
    pub const ADDRESS_MAX: usize = 255;
}

impl std::fmt::Debug for Sale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moment = self.moment;
        f.debug_struct("Sale")
            .field("moment", &moment)
            .finish_non_exhaustive()
    }
}

/// What names a payment: 32 bytes that its buyer gives.
pub type PaymentId = [u8; 32];

/// A payment that has been used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// Its name.
    pub id: PaymentId,
    /// Stands for what it bought, and for whom.
    pub digest: [u8; 16],
    /// When it was used.
    pub moment: u64,
}

impl std::fmt::Debug for Payment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moment = self.moment;
        f.debug_struct("Payment")
            .field("moment", &moment)
            .finish_non_exhaustive()
    }
}

/// One thing that a book file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Since when a coin is under the marked number that it has.
    Coin(Coin, Stamp),
    /// What is for sale.
    Sale(Sale),
    /// A payment that has been used.
    Payment(Payment),
}
