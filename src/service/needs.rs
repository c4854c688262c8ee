//! What a request takes of its core's memory if it has to wait.

use super::budget::Needs;
use crate::protocol::{Command, RequestHeader};

/// Bytes that a waiting request takes, however short it is: its task, with what its command keeps
/// from one wait to the next, and its place in the order of its connection.
const TASK: usize = 4 << 10;
/// Bytes of the first 1,024 coins that a shard lists, and of an answer with them.
const FIRST_COINS: usize = 16 << 10;

/// Bytes that a coin takes which is looked at: the coin with its number and its record's number,
/// and its shard's answer about it.
const LOOKED_AT: usize = 80;
/// Bytes that a coin takes which changes together with others: the coin and its rank, sorted and in
/// the order asked; its lock; its value before and after, in memory and on its way to the log.
pub(super) const CHANGED: usize = 240;
/// Bytes that a coin takes which others vouch for: it can be on 24 lists, in pieces as they come.
const VOUCHED_FOR: usize = 24 * 16;

/// Bytes of a coin on the wire; with one number; with two.
const NAMED: usize = 5;
const WITH_NUMBER: usize = 21;
const WITH_NUMBERS: usize = 37;

impl Needs {
    /// Maximum memory that such a request takes, without coins that it does not name and that only
    /// turn up during the work.
    #[inline]
    pub(crate) fn of(header: &RequestHeader) -> Needs {
        let command = header.command;
        // What `each` of its records of `record` bytes takes, and what the request takes besides.
        let (each, record, besides) = match command {
            Command::Echo | Command::Version | Command::Stats | Command::Audit => (0, NAMED, 0),
            Command::Detect | Command::GetTicket => (LOOKED_AT, WITH_NUMBER, 0),
            Command::DetectSum | Command::GetTicketSum => (LOOKED_AT, NAMED, 0),
            Command::Find => (LOOKED_AT + 16, WITH_NUMBERS, 0),
            Command::Pown => (CHANGED, WITH_NUMBERS, 0),
            Command::Remove | Command::DeleteCoins => (CHANGED, WITH_NUMBER, 0),
            Command::PownSum
            | Command::PownDerive
            | Command::CreateCoins
            | Command::FreeCoins
            | Command::StoreSum
            | Command::StoreMultiple => (CHANGED, NAMED, 0),
            Command::PutForSale => (CHANGED, NAMED, FIRST_COINS),
            Command::Fix => (CHANGED + VOUCHED_FOR, NAMED, 0),
            // The coins of a ticket, 4,096 at most, each with what stands for its number.
            Command::Validate => (0, NAMED, 128 << 10),
            Command::EncryptionTicket | Command::FixEncryption => (CHANGED, WITH_NUMBER, 0),
            Command::AvailableSns => (0, NAMED, 64 << 10),
            // The bitmap, and the pages' parts of it.
            Command::AllSns => (0, NAMED, 512 << 10),
            Command::Peek | Command::PeekTrade => (0, NAMED, FIRST_COINS),
            Command::ListForSale => (0, NAMED, 64 << 10),
            Command::Buy => (0, NAMED, FIRST_COINS),
            Command::RemoveTrade => (0, NAMED, FIRST_COINS),
        };
        // An encrypted body is in memory twice: as it came, and decrypted.
        let length = header.body_length;
        Needs {
            changes: command.changes(),
            bytes: TASK + besides + 2 * length + length.div_ceil(record) * each,
            is_open: matches!(
                command,
                Command::Peek | Command::PeekTrade | Command::Buy | Command::RemoveTrade
            ),
        }
    }
}
