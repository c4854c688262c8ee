//! What strangers try against a node and a wallet, and the outcome. `tests/memory.rs` is a program
//! of its own, since it takes whole cores.

mod datagrams;
mod fix;
mod holds;
mod invented_tickets;
mod key_tickets;
mod lying_server;
#[path = "../support/network_process/mod.rs"]
mod network_process;
#[path = "../support/node_process/mod.rs"]
mod node_process;
mod numbers;
mod one_coin;
#[path = "../net/peer/server.rs"]
mod other_server;
mod places;
#[path = "../support/real_node/mod.rs"]
mod real_node;
mod sums;
mod tickets;
