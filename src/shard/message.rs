use crate::{
    coin::{An, AnTag, COINS_PER_PAGE, Coin, Denomination, Mfs, PageId, SerialNumber, ShardId},
    protocol::{
        RaidaId,
        healing::{Found, TicketId},
    },
    store::{
        log::{LogCounts, Position},
        pages::CheckpointCounts,
        record::{Change, PageSequence},
    },
};

use super::{Counters, lockers::KEY_PREFIX_BYTES, tickets::ClaimRefused};

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

/// What a shard is asked. Coins are always the shard's own.
#[derive(Debug)]
pub enum Request {
    /// Which of these coins have this AN? Answered by [`Reply::Passed`].
    Detect(Vec<(Coin, An)>),
    /// The XOR of the ANs. Answered by [`Reply::Sum`].
    Sum(Vec<Coin>),
    /// The AN of a coin in circulation. Answered by [`Reply::Sum`], as a sum of one.
    An(Coin),
    /// Change every coin whose AN is right; answered by [`Reply::Passed`] when that is durable.
    Exchange(Vec<Exchange>),
    /// Which of two numbers has each coin? Answered by [`Reply::Found`].
    Find(Vec<(Coin, An, An)>),
    /// Claim a ticket of this shard in a server's name. Answered by [`Reply::Claimed`].
    Claim(TicketId, RaidaId),
    /// Take back a claim that was made just now and not answered. Answered by [`Reply::Done`].
    WithdrawClaim(TicketId, RaidaId),
    /// Which of these coins still have the ANs that these tags stand for? Answered by
    /// [`Reply::Passed`].
    Unchanged(Vec<(Coin, AnTag)>),
    /// As [`Request::Sum`], and what stands for each AN. Answered by [`Reply::SumAndTags`].
    SumAndTags(Vec<Coin>),
    /// Hold these coins (rising, each once) for a transaction; with a session, say whether their
    /// pages are its own. Answered by [`Reply::Locked`].
    Lock(TransactionId, Vec<Coin>, Option<u32>),
    /// Put a transaction's changes, which are durable, into the pages, and let its coins go.
    Apply(TransactionId, Vec<Change>),
    /// Let a transaction's coins go unchanged.
    Release(TransactionId),
    /// Keys of lockers that start with these bytes. Answered by [`Reply::Keys`].
    LockerKeys([u8; KEY_PREFIX_BYTES]),
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
    /// The XOR of the ANs, and what stands for each; `None` where one of the coins is not in circulation.
    SumAndTags(Option<(An, Vec<AnTag>)>),
    /// The XOR of the ANs; `None` where one of the coins is not in circulation.
    Sum(Option<An>),
    /// A transaction's coins, held.
    Locked(Locked),
    /// Keys.
    Keys(Vec<An>),
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
}
