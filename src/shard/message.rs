use crate::{
    coin::{
        An, AnTag, COINS_PER_PAGE, Coin, Denomination, LockerPrefix, Mfs, PageId, SerialNumber,
        ShardId,
    },
    protocol::{
        RaidaId,
        healing::{Found, TicketId},
        lockers::{Currency, Offer, TradeName},
    },
    store::{
        Thing,
        book::PaymentId,
        log::{LogCounts, Position},
        pages::CheckpointCounts,
        record::{Change, PageSequence},
    },
};

use super::{
    Counters,
    lockers::{Buyer, Held, HoldRefused, IndexCounts, OnOffer, PaymentState, TradeCounts, Update},
    offers::Put,
    sum::Sum,
    tickets::{ClaimRefused, PoolIsFull},
};

/// A change of several coins together, over shards: which core runs it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// The core that received the request.
    pub core: ShardId,
    /// Its number there.
    pub number: u64,
}

/// A coin's new value, where its owner proved to be one.
#[derive(Clone, Copy, Debug)]
pub enum Replacement {
    /// This AN, and the current month.
    An(An),
    /// Out of circulation, with an AN that nobody knows.
    Free,
}

/// One record of a request that changes each coin by itself.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The coin.
    pub coin: Coin,
    /// What its AN must be.
    pub an: An,
    /// What it becomes.
    pub becomes: Replacement,
}

impl Exchange {
    /// Whether the coin comes out of a locker or goes into one, if this is its AN: then others have to
    /// hear of it, and it is no change that its shard makes [by itself](Request::Exchange).
    #[inline]
    pub fn is_marked(&self) -> bool {
        let goes = match &self.becomes {
            Replacement::An(an) => an.is_marked(),
            Replacement::Free => false,
        };
        goes || self.an.is_marked()
    }
}

/// On whose word coins change together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// Their owner's, or that of 13 servers, or of who runs this one: tickets from before are void.
    Owner,
    /// That of two helpers.
    Helpers,
}

/// What a shard is asked. Coins are always the shard's own.
#[derive(Debug)]
pub enum Request {
    /// Which of these coins have this AN? Answered by [`Reply::Passed`].
    Detect(Vec<(Coin, An)>),
    /// The XOR of the ANs. Answered by [`Reply::Sum`].
    Sum(Vec<Coin>),
    /// The AN of a coin in circulation. Answered by [`Reply::Sum`], as a sum of one.
    An(Coin),
    /// Change every coin whose AN is right; answered by [`Reply::Passed`] when that is durable. None of
    /// them is [marked](Exchange::is_marked).
    Exchange(Vec<Exchange>),
    /// Which of two numbers has each coin? Answered by [`Reply::Found`].
    Find(Vec<(Coin, An, An)>),
    /// Claim a ticket of this shard in a server's name. Answered by [`Reply::Claimed`].
    Claim(TicketId, RaidaId),
    /// Take back a claim that was made just now and not answered. Answered by [`Reply::Done`].
    WithdrawClaim(TicketId, RaidaId),
    /// Use up these encryption tickets for a coin. Answered by [`Reply::Used`].
    UseTickets(Coin, Vec<Thing>),
    /// Take that back: nothing came of it. Answered by [`Reply::Done`].
    GiveBackTickets(Vec<Thing>),
    /// Remember, for the next start, that these were used: asked of the first shard only. Answered by
    /// [`Reply::Done`] when it is durable.
    RememberUsed(Vec<Thing>),
    /// Which of these coins still have the ANs that these tags stand for? Answered by
    /// [`Reply::Passed`].
    Unchanged(Vec<(Coin, AnTag)>),
    /// As [`Request::Sum`], and what stands for each AN. Answered by [`Reply::SumAndTags`].
    SumAndTags(Vec<Coin>),
    /// Hold these coins (rising, each once) for a transaction; with a session, say whether their
    /// pages are its own. Answered by [`Reply::Locked`].
    Lock(TransactionId, Vec<Coin>, Option<u32>),
    /// Put a transaction's changes, which are durable, into the pages, and let its coins go. No change of
    /// these coins will be earlier than the moment after this one.
    Apply(TransactionId, Vec<Change>, u64, ChangedBy),
    /// Let a transaction's coins go unchanged.
    Release(TransactionId),
    /// Keys of lockers of this shard that start with these bytes. Answered by [`Reply::Keys`].
    LockerKeys(LockerPrefix),
    /// The coins under this key, in the order stored. Answered by [`Reply::Coins`] or, where there are
    /// more than so many, by [`Reply::TooMany`].
    LockerCoins(An, usize),
    /// Whether any coin lies under this key. Answered by [`Reply::Is`].
    HasLocker(An),
    /// Which of these keys have something for sale. Answered by [`Reply::Passed`].
    AreOnSale(Vec<An>),
    /// Take up what a durable change means for this shard's lockers. Answered by [`Reply::Done`].
    Update(Update),
    /// Wait until nobody else is about to do this. Answered by [`Reply::Done`].
    AcquirePut(Put),
    /// Let others do it. Answered by [`Reply::Done`].
    ReleasePut(Put),
    /// Whether there is such an offer. Answered by [`Reply::Is`].
    IsOffered(Offer),
    /// Hold a trade locker with this offer for a buyer. Answered by [`Reply::Held`].
    HoldSale(Offer, Buyer),
    /// Let what lies under this key go again, which was held for a payment: at once or, where it is
    /// pending, when it has had its time. Answered by [`Reply::Done`].
    ReleaseSale(An, Buyer, bool),
    /// Whether what lies under this key is held for a payment. Answered by [`Reply::Is`].
    IsSaleHeld(An),
    /// The first offers in a currency, so many at most. Answered by [`Reply::OnOffer`].
    ListOffers(Currency, usize),
    /// The coins that are called so: as a public id of this shard, or as a key of it. Answered by
    /// [`Reply::Named`] or, where there are more than so many, by [`Reply::TooMany`].
    PeekTrade(TradeName, usize),
    /// What is known of a payment; where that is nothing, it is the asker's to look at, until
    /// [`Request::EndPayment`]. Answered by [`Reply::Payment`].
    BeginPayment(PaymentId),
    /// The look at a payment is over. Answered by [`Reply::Done`].
    EndPayment(PaymentId),
    /// Answered by [`Reply::LockerCounts`].
    LockerCounts,
    /// Coins in circulation. Answered by [`Reply::Circulating`].
    Circulating,
    /// Which coins of a denomination are in circulation. Answered by [`Reply::Circulation`].
    Circulation(Denomination),
    /// Free serial numbers, at most so many, whose pages become the session's. Answered by
    /// [`Reply::SerialNumbers`].
    Reserve(u32, Denomination, usize),
    /// Answered by [`Reply::Counters`].
    Counters,
    /// Wait until all that the log has written is in the pages. Answered by [`Reply::Mark`].
    Mark,
    /// Write what waits in the log. Answered by [`Reply::Done`].
    Flush,
    /// Write every changed page, as part of this round; only after [`Request::Mark`]. Answered by
    /// [`Reply::Checkpointed`].
    Checkpoint(u64),
    /// Write the log's segments before this position over: a checkpoint of this round has them.
    Recycle(Position, u64),
    /// A checkpoint failed: wait no longer for it to free a segment.
    CheckpointFailed,
    /// Have a checkpoint made soon.
    WantCheckpoint,
}

/// What a shard answers.
#[derive(Debug)]
pub enum Reply {
    /// By record, whether it passed.
    Passed(Vec<bool>),
    /// By record, what it has.
    Found(Vec<Found>),
    /// The coins of a ticket.
    Claimed(Result<Vec<(Coin, AnTag)>, ClaimRefused>),
    /// Which encryption tickets had not been used before, and are not from before the coin was another's.
    Used(Result<Vec<bool>, PoolIsFull>),
    /// The XOR of the ANs, and what stands for each; `None` where one of the coins is not in circulation.
    SumAndTags(Option<(Sum, Vec<AnTag>)>),
    /// The XOR of the ANs; `None` where one of the coins is not in circulation.
    Sum(Option<Sum>),
    /// A transaction's coins, held.
    Locked(Locked),
    /// Keys.
    Keys(Vec<An>),
    /// Coins in the order stored.
    Coins(Vec<Coin>),
    /// There are so many coins, more than were to be listed.
    TooMany(usize),
    /// Yes or no.
    Is(bool),
    /// A trade locker that is held now.
    Held(Result<Held, HoldRefused>),
    /// Offers, in the order they were made.
    OnOffer(Vec<OnOffer>),
    /// Coins under a public id; and coins under a key.
    Named(Option<Vec<Coin>>, Vec<Coin>),
    /// What is known of a payment.
    Payment(PaymentState),
    /// Lockers, and what is for sale.
    LockerCounts(IndexCounts, TradeCounts),
    /// By denomination index.
    Circulating([u32; Denomination::COUNT]),
    /// By page, one bit a coin.
    Circulation(Vec<(PageId, [u64; COINS_PER_PAGE / 64])>),
    /// Free serial numbers, rising.
    SerialNumbers(Vec<SerialNumber>),
    /// Counts since the start.
    Counters(Counters, LogCounts),
    /// Up to where a log is settled.
    Mark(Position),
    /// Pages were written.
    Checkpointed(CheckpointCounts),
    /// It is done.
    Done,
}

/// Coins held for a transaction.
#[derive(Debug)]
pub struct Locked {
    /// AN and months of each coin, in the order asked; `None` where it is free.
    pub values: Vec<Option<(An, Mfs)>>,
    /// The pages and the number each gave this change.
    pub pages: Vec<PageSequence>,
    /// Whether all the pages are the session's; true without a session.
    pub reserved: bool,
    /// The latest moment that the shard knows: whatever becomes of the coins comes after it.
    pub moment: u64,
}
