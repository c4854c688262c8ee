//! What a node and its clients say to each other, byte by byte (docs/protocol.md): headers, bodies,
//! statuses, ciphers, and one file for each command group. Server and client share the code, so
//! that each layout is written once. Bytes in, bytes out: this module has no I/O, no state, no
//! clock and no randomness of its own, and no bytes can make it panic.
//!
//! | room | what it is |
//! |---|---|
//! | [`status`] | the byte that says how a request went |
//! | [`command`] | which groups and commands there are |
//! | [`header`] | a request's header: layout and checks |
//! | [`mod@frame`] | where a request ends, in a stream and in a datagram |
//! | [`cipher`] | keys, counter blocks, HMAC |
//! | [`challenge`] | the sixteen bytes that prove a body was read with the right key |
//! | [`body`] | a request's body: trailer, challenge or HMAC, payload |
//! | [`request`] | composing a request |
//! | [`response`] | composing a response, and reading one |
//! | [`records`] | lists of records in a payload |
//! | [`pass_fail`] | which records passed |
//! | [`admin_key`] | the key that executive commands ask for |
//! | [`status_group`], [`authentication`], [`healing`], [`executive`] | groups 0, 1, 2 and 3 |
//! | [`key_healing`] | group 4 |
//! | [`key_file`] | the secrets that group 4 needs, as a server's file has them |
//! | [`lockers`] | group 8 |

pub mod admin_key;
pub mod authentication;
pub mod body;
pub mod challenge;
pub mod cipher;
pub mod command;
pub mod executive;
pub mod frame;
pub mod header;
pub mod healing;
pub mod key_file;
pub mod key_healing;
pub mod lockers;
pub mod pass_fail;
pub mod records;
pub mod request;
pub mod response;
#[cfg(test)]
mod samples;
pub mod status;
pub mod status_group;

pub use admin_key::AdminKey;
pub use body::{BodyRefusal, Opened, open, try_challenge};
pub use cipher::Key;
pub use command::{Command, command_is_known};
pub use frame::{Datagram, FirstLook, Frame, datagram, first_look, frame};
pub use header::{Encryption, KeySource, RequestHeader};
pub use pass_fail::{PassFail, Passed};
pub use request::{Protection, Request, Sent};
pub use response::{Response, ResponseHeader, Sealing, complete, open_response, refuse};
pub use status::Status;

/// What every request and every response body ends with: `>>` (docs/protocol.md section 3).
pub const TRAILER: [u8; 2] = *b">>";

/// The two published families of statuses and versions; a node speaks one of them (docs/protocol.md
/// sections 3 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// As the specification says: the default.
    #[default]
    Spec,
    /// As the existing server does.
    Raidax,
}

/// Where the key stream of a response of encryption types 1 and 2 begins (docs/protocol.md section
/// 4).
///
/// `Restart` uses the same key stream for the response as for the request. Anybody who sees both
/// learns the XOR of the two plain texts. Since the challenge answer is the challenge XOR the key,
/// anybody who can also guess the first 16 bytes of the response ("audit", say) learns **the key
/// itself**: answer XOR the challenge's ciphertext XOR the response's ciphertext XOR the guess. It
/// is the default only because published clients expect it. `Continue` has neither weakness, and
/// types 4 and 5 have a nonce of their own in each direction and no challenge answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResponseCounter {
    /// Again at the initial counter block, as published clients expect.
    #[default]
    Restart,
    /// At the block after the last one that the request's ciphertext used, as the existing server.
    Continue,
}

/// A server's number in its network: 0 to 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaidaId(u8);

impl RaidaId {
    /// Servers in a network.
    pub const COUNT: usize = 25;

    /// The server with this number; `None` from 25 on.
    #[inline]
    pub const fn new(number: u8) -> Option<RaidaId> {
        if (number as usize) < Self::COUNT {
            Some(RaidaId(number))
        } else {
            None
        }
    }

    /// The plain number.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// All twenty-five, by rising number.
    pub fn all() -> impl ExactSizeIterator<Item = RaidaId> {
        (0..Self::COUNT).map(|number| RaidaId(number as u8))
    }
}

impl std::fmt::Display for RaidaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// The rules that a node applies to requests: its identity, its dialect and its limits.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// This node's number.
    pub raida: RaidaId,
    /// The coin it serves (6 = CloudCoin).
    pub coin_id: u16,
    /// The statuses and versions that it speaks.
    pub dialect: Dialect,
    /// Where the key stream of its responses of types 1 and 2 begins.
    pub response_counter: ResponseCounter,
    /// The longest body that it accepts, in bytes; a request with a longer body is refused with
    /// status 16. Never more than [`Rules::BODY_BYTES_CEILING`], whatever the value is.
    pub max_body_bytes: usize,
}

impl Rules {
    /// The longest body that any node accepts, in bytes. "Create coins" answers 16 bytes for 5 of
    /// the request, and a response's length has three bytes: for a body of 4 MiB the answer has
    /// 13.4 MB of at most 16.7 MB.
    pub const BODY_BYTES_CEILING: usize = 4 << 20;

    /// The limit in force: the configured one, or the ceiling where that is lower.
    #[inline]
    pub fn body_bytes_max(&self) -> usize {
        self.max_body_bytes.min(Self::BODY_BYTES_CEILING)
    }
}
