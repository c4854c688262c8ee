//! Clients, wallets, the load generator and its reports, against servers that tests make up.

mod client;
mod commands;
mod fuzzed;
mod heal;
mod key_healing_client;
mod load;
mod load_lockers;
#[path = "../support/load_on/mod.rs"]
mod load_on;
mod locker_commands;
mod report;
mod settle_bitcoin;
#[path = "../support/small_node/mod.rs"]
mod small_node;
#[path = "../../fuzz/targets.rs"]
mod targets;
mod wallet;
