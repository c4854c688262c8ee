//! The client side of the protocol: everything that a program needs to hold coins and to talk to
//! nodes, over plain blocking sockets. Uses only those parts of the server that both sides share,
//! `coin` and `protocol`.
//!
//! | room | what it is |
//! |---|---|
//! | [`Connection`] | requests out, answers in, several in flight |
//! | [`Client`] | the commands, long lists split into requests that fit |
//! | [`CoinListReader`], [`CoinListWriter`] | a CSV of coins |
//! | [`HostPort`] | where a node listens |
//! | [`PerRaida`] | one value for each of the 25 servers |
//! | [`Raidas`] | all 25 servers, asked at the same time |
//! | [`wallet`] | folders of coin files |
//! | [`heal`] | coins of a wallet repaired on the servers that lost them |
//! | [`key_healing`] | servers whose numbers are lost brought back by the word of two others |
//! | [`locker`] | coins put into lockers and up for sale, and taken out again, on all 25 servers |

mod coin_list;
mod commands;
mod connection;
pub mod heal;
mod healing;
mod host_port;
pub mod key_healing;
pub mod locker;
mod lockers;
mod per_raida;
mod raidas;
pub mod wallet;

pub use coin_list::{
    CoinListError, CoinListReader, CoinListWriter, CoinRecord, Existing, Fault, Months,
};
pub use commands::{Client, Outcome};
pub use connection::{ClientError, Connection, NotAList, Options, Reply, Transport};
pub use healing::{FixOrder, Tickets, draw_generator};
pub use host_port::{HostPort, NotHostPort};
pub use lockers::{LISTED_COINS_MAX, Purchase, draw_an};
pub use per_raida::PerRaida;
pub use raidas::{Hosts, HostsError, Raidas};
