//! The other side of the protocol: what a program needs to hold coins and to talk to nodes. Uses
//! nothing of the server.

mod coin_list;

pub use coin_list::{
    CoinListError, CoinListReader, CoinListWriter, CoinRecord, Existing, Fault, Months,
};
