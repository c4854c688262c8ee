//! Networks of 25 nodes, and the commands that speak with them.

mod heal_commands;
mod healing;
mod key_healing_commands;
mod key_healing_waits;
mod locker_network;
mod mint_killed;
mod network;
#[path = "../support/network_process/mod.rs"]
mod network_process;
#[path = "../support/node_network/mod.rs"]
mod node_network;
#[path = "../support/node_process/mod.rs"]
mod node_process;
