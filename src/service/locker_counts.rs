use std::{cell::Cell, ops::AddAssign};

use serde::{Deserialize, Serialize};

use crate::protocol::{Command, Status};

/// What a core has done about lockers and trades since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockerCounts {
    /// Stores that were made, each locker of a request counted.
    pub stores: u64,
    /// Coins stored by them.
    pub coins_stored: u64,
    /// Removals from an existing locker.
    pub removals: u64,
    /// Coins that left lockers by these removals.
    pub coins_removed: u64,
    /// Offers made.
    pub offers: u64,
    /// Offers taken back.
    pub offers_removed: u64,
    /// Purchases paid and handed over.
    pub purchases: u64,
    /// Coins handed over by them.
    pub coins_bought: u64,
    /// Purchases whose payment was seen and is not confirmed, for which the offer is kept.
    #[serde(default)]
    pub payments_seen: u64,
    /// Such purchases whose offer is not kept: a buyer has just had his time, or the limits are
    /// reached.
    #[serde(default)]
    pub holds_refused: u64,
    /// Requests refused, by reason.
    pub refused: Refusals,
}

/// Requests about lockers and trades that were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// The size or a parameter is wrong, or the request names a coin that cannot exist (16, 39, 40,
    /// 198).
    pub malformed: u64,
    /// A key without the mark of its kind (199).
    pub wrong_key: u64,
    /// Stores and offers whose sum is wrong, or whose coins cannot be stored (242; of a request
    /// with several lockers, only where none was stored).
    pub wrong_sum: u64,
    /// No such locker or trade locker (242).
    pub no_locker: u64,
    /// A currency that is unknown or not accepted (50).
    pub currency: u64,
    /// No such offer exists, or somebody else is buying it (51).
    pub no_such_offer: u64,
    /// The same offer is there already (148).
    pub offer_exists: u64,
    /// Not paid yet (150).
    pub pending: u64,
    /// Nobody can say whether the offer is paid (180).
    pub no_settlement: u64,
    /// The payment is not as agreed, or was used before (203).
    pub payment_refused: u64,
    /// Purchases of a stranger who has too many purchases checked already (160).
    #[serde(default)]
    pub too_many: u64,
    /// The storage failed (194).
    pub unavailable: u64,
    /// Too many waited for one of the coins (254).
    #[serde(default)]
    pub crowded: u64,
}

impl AddAssign for LockerCounts {
    fn add_assign(&mut self, other: LockerCounts) {
        self.stores += other.stores;
        self.coins_stored += other.coins_stored;
        self.removals += other.removals;
        self.coins_removed += other.coins_removed;
        self.offers += other.offers;
        self.offers_removed += other.offers_removed;
        self.purchases += other.purchases;
        self.coins_bought += other.coins_bought;
        self.payments_seen += other.payments_seen;
        self.holds_refused += other.holds_refused;
        let (refused, others) = (&mut self.refused, other.refused);
        refused.malformed += others.malformed;
        refused.wrong_key += others.wrong_key;
        refused.wrong_sum += others.wrong_sum;
        refused.no_locker += others.no_locker;
        refused.currency += others.currency;
        refused.no_such_offer += others.no_such_offer;
        refused.offer_exists += others.offer_exists;
        refused.pending += others.pending;
        refused.no_settlement += others.no_settlement;
        refused.payment_refused += others.payment_refused;
        refused.too_many += others.too_many;
        refused.unavailable += others.unavailable;
        refused.crowded += others.crowded;
    }
}

/// The counts of one core.
#[derive(Default)]
pub(super) struct Counted(Cell<LockerCounts>);

impl Counted {
    pub(super) fn get(&self) -> LockerCounts {
        self.0.get()
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut LockerCounts)) {
        let mut counts = self.0.get();
        add(&mut counts);
        self.0.set(counts);
    }

    /// Counts what a request was answered with, where that is a refusal.
    #[inline]
    pub(super) fn answered(&self, command: Command, status: Status) {
        if !matches!(status, Status::ALL_PASS | Status::MIXED) {
            self.refused(command, status);
        }
    }

    #[cold]
    fn refused(&self, command: Command, status: Status) {
        let mut counts = self.0.get();
        let refused = &mut counts.refused;
        let reason = match (status, command) {
            (
                Status::ALL_FAIL,
                Command::StoreSum | Command::StoreMultiple | Command::PutForSale,
            ) => &mut refused.wrong_sum,
            (Status::ALL_FAIL, _) => &mut refused.no_locker,
            (Status::WRONG_LOCKER_KEY, _) => &mut refused.wrong_key,
            (Status::UNKNOWN_CURRENCY, _) => &mut refused.currency,
            (Status::NO_SUCH_OFFER, _) => &mut refused.no_such_offer,
            (Status::OFFER_EXISTS, _) => &mut refused.offer_exists,
            (Status::PAYMENT_PENDING, _) => &mut refused.pending,
            (Status::NO_SETTLEMENT, _) => &mut refused.no_settlement,
            (Status::PAYMENT_REFUSED, _) => &mut refused.payment_refused,
            (Status::TOO_MANY_REQUESTS, _) => &mut refused.too_many,
            (Status::UNAVAILABLE, _) => &mut refused.unavailable,
            (Status::OUT_OF_MEMORY, _) => &mut refused.crowded,
            _ => &mut refused.malformed,
        };
        *reason += 1;
        self.0.set(counts);
    }
}
