use std::time::Duration;

use crate::{
    coin::{
        An, AnTag, COINS_PER_PAGE, Coin, Denomination, LockerPrefix, Mfs, PageId, SerialNumber,
        ShardId,
    },
    protocol::{
        RaidaId,
        healing::{Found, TicketId},
        key_healing::{Minute, Verdict},
        lockers::{Currency, Offer, TradeName},
    },
    store::{
        Checkpointed, Thing,
        book::PaymentId,
        log::{LogCounts, Position},
        pages::CheckpointCounts,
        record::{Change, PageSequence},
    },
};

use super::{
    Counters, Stranger,
    changed::FixLook,
    lockers::{
        Buyer, FoundSale, IndexCounts, KeysOf, OnOffer, PaymentState, SaleId, SaleRefused, Taken,
        Taker, TradeCounts, Update,
    },
    offers::Put,
    repeats::{Begun, ChangeName},
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

/// What changes coins, as far as a later fix depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// A fix.
    Fix,
    /// Anything else.
    Other,
}

/// What a shard is asked. Coins are always the shard's own.
#[derive(Debug)]
pub enum Request {
    /// Which of these coins have this AN? Answered by [`Reply::Passed`].
    Detect(Vec<(Coin, An)>),
    /// Their ANs. Answered by [`Reply::Numbers`].
    Numbers(Vec<Coin>),
    /// The AN of a coin in circulation. Answered by [`Reply::An`].
    An(Coin),
    /// Change every coin whose AN is right; answered by [`Reply::Passed`] when that is durable, or by
    /// [`Reply::Crowded`]. None of them is [marked](Exchange::is_marked).
    Exchange(Vec<Exchange>),
    /// Which of two numbers has each coin? Answered by [`Reply::Found`].
    Find(Vec<(Coin, An, An)>),
    /// Claim a ticket of this shard in a server's name. Answered by [`Reply::Claimed`].
    Claim(TicketId, RaidaId),
    /// Take back a claim that was made just now and not answered. Answered by [`Reply::Done`].
    WithdrawClaim(TicketId, RaidaId),
    /// Use up these encryption tickets for a coin, but for those from before it may have changed. Answered
    /// by [`Reply::Used`].
    UseTickets(Coin, Vec<Thing>),
    /// Take that back: nothing came of it. Answered by [`Reply::Done`].
    GiveBackTickets(Vec<Thing>),
    /// Remember, for the next start, that these were used: asked of the first shard only. Answered by
    /// [`Reply::Done`] when it is durable.
    RememberUsed(Vec<Thing>),
    /// Which of these coins still have the ANs that these tags stand for? Answered by
    /// [`Reply::Passed`].
    Unchanged(Vec<(Coin, AnTag)>),
    /// As [`Request::Detect`], for a ticket: the coins that pass are on one from now on. Answered by
    /// [`Reply::Passed`].
    DetectForTicket(Vec<(Coin, An)>),
    /// As [`Request::Unchanged`], for a ticket: the coins that pass are on one from now on. Answered by
    /// [`Reply::Passed`].
    UnchangedForTicket(Vec<(Coin, AnTag)>),
    /// Hold these coins (rising, each once) for a transaction; with a session, say whether their
    /// pages are its own. Answered by [`Reply::Locked`] or [`Reply::Crowded`].
    Lock(TransactionId, Vec<Coin>, Option<u32>),
    /// In which minute a coin got its number, as far as encryption tickets may be from before; the start's
    /// where that is not known. Answered by [`Reply::Minute`].
    Newest(Coin),
    /// Whether a fix that came at this moment, and has votes enough, may change these coins. It holds them.
    /// Answered by [`Reply::Looked`].
    LookForFix(Vec<Coin>, Duration),
    /// Put a transaction's changes, which are durable, into the pages, and let its coins go. No change of
    /// these coins will be earlier than the moment after this one.
    Apply(TransactionId, Vec<Change>, u64, ChangedBy),
    /// Let a transaction's coins go unchanged.
    Release(TransactionId),
    /// The oldest keys of lockers of this shard that start with these bytes. Answered by [`Reply::Keys`].
    LockerKeys(LockerPrefix, KeysOf),
    /// The coins under this key, in the order stored. Answered by [`Reply::Coins`] or, where there are
    /// more than so many, by [`Reply::TooMany`].
    LockerCoins(An, usize),
    /// Whether any coin lies under this key. Answered by [`Reply::Is`].
    HasLocker(An),
    /// Which of these keys have something for sale. Answered by [`Reply::Passed`].
    AreOnSale(Vec<An>),
    /// Take up what a durable change means for this shard's lockers. Answered by [`Reply::Done`].
    Update(Update),
    /// Wait until nobody else is about to do this. Answered by [`Reply::Done`] or [`Reply::Crowded`].
    AcquirePut(Put),
    /// Let others do it. Answered by [`Reply::Done`].
    ReleasePut(Put),
    /// Whether there is such an offer. Answered by [`Reply::Is`].
    IsOffered(Offer),
    /// A trade locker with this offer that this buyer may have. Answered by [`Reply::FoundSale`].
    FindSale(Offer, Buyer),
    /// Keep it for the buyer, whose payment was seen and is not confirmed. Answered by [`Reply::Held`].
    HoldSale(SaleId, Buyer, Stranger),
    /// Keep it no longer: the payment is not what was agreed. Answered by [`Reply::Done`].
    LetSaleGo(SaleId, Buyer),
    /// Keep nothing any longer for a payment, which was used up. Answered by [`Reply::Done`].
    EndHolds(PaymentId),
    /// Let nobody else move its coins until [`Request::GiveBackSale`]. Answered by [`Reply::Taken`].
    TakeSale(Taker),
    /// Let others have it again where it is still for sale; but keep it for this buyer, who has paid.
    /// Answered by [`Reply::Done`].
    GiveBackSale(SaleId, Option<(Buyer, Stranger)>),
    /// The first offers in a currency, so many at most. Answered by [`Reply::OnOffer`].
    ListOffers(Currency, usize),
    /// The coins that are called so: as a public id of this shard, or as a key of it. Answered by
    /// [`Reply::Named`] or, where there are more than so many, by [`Reply::TooMany`].
    PeekTrade(TradeName, usize),
    /// Where what is called so is to be paid. Answered by [`Reply::Seller`].
    Seller(TradeName),
    /// What is known of a payment; where that is nothing, it is the buyer's to look at, until
    /// [`Request::EndPayment`]. Answered by [`Reply::Payment`].
    BeginPayment(Buyer),
    /// The same of who has looked at it and found it paid: it is then his to use up. Answered by
    /// [`Reply::Payment`].
    UsePayment(Buyer),
    /// The look at a payment, and its use, is over. Answered by [`Reply::Done`].
    EndPayment(Buyer),
    /// Count a question to the settlement, asked of the stranger's [home](crate::shard::question_home).
    /// Whether it may be asked now, until [`Request::EndQuestion`]; answered by [`Reply::Is`].
    BeginQuestion(Stranger),
    /// It has its answer. Answered by [`Reply::Done`].
    EndQuestion(Stranger),
    /// Begin a request that changes something, which this shard is the home of; where the same is under
    /// way, wait for that or not. Answered by [`Reply::Begun`] or, where too many wait for that, by
    /// [`Reply::Crowded`].
    BeginChange(ChangeName, bool),
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
    /// Write the log's segments before this position over: a checkpoint of this round has them, and has
    /// left this on the disk.
    Recycle(Position, u64, Box<Checkpointed>),
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
    /// Which encryption tickets are accepted, and used up now.
    Used(Result<Vec<Verdict>, PoolIsFull>),
    /// By coin, its AN; `None` where it is not in circulation.
    Numbers(Vec<Option<An>>),
    /// The AN of a coin; `None` where it is not in circulation.
    An(Option<An>),
    /// A minute.
    Minute(Minute),
    /// By coin, whether a fix may change it.
    Looked(Vec<FixLook>),
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
    /// A trade locker that can be bought.
    FoundSale(Result<FoundSale, SaleRefused>),
    /// Whether a trade locker is kept now.
    Held(Result<bool, SaleRefused>),
    /// A trade locker whose coins nobody else moves now; none where nothing is for sale under the key.
    Taken(Result<Option<Taken>, SaleRefused>),
    /// Offers, in the order they were made.
    OnOffer(Vec<OnOffer>),
    /// Coins under a public id; and coins under a key.
    Named(Option<Vec<Coin>>, Vec<Coin>),
    /// The seller's address; none where nothing is for sale that is called so.
    Seller(Option<Box<[u8]>>),
    /// What is known of a payment.
    Payment(PaymentState),
    /// A request that began, or does not.
    Begun(Begun),
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
    /// As many requests wait for one of the coins, or for room in the log, as may; or for the same
    /// [`Put`], or the same request. Nothing was done.
    Crowded,
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
