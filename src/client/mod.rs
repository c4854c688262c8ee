//! The other side of the protocol: what a program needs to hold coins and to talk to nodes, over
//! plain blocking sockets. Uses nothing of the server but what both sides share, `coin` and
//! `protocol`.
//!
//! | room | what it is |
//! |---|---|
//! | [`Connection`] | requests out, answers in, several in flight |
//! | [`Client`] | the commands, long lists split into requests that fit |
//! | [`CoinListReader`], [`CoinListWriter`] | a CSV of coins |

mod coin_list;
mod commands;
mod connection;

pub use coin_list::{
    CoinListError, CoinListReader, CoinListWriter, CoinRecord, Existing, Fault, Months,
};
pub use commands::{Client, Outcome};
pub use connection::{ClientError, Connection, Options, Reply, Transport};
