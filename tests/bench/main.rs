//! `raida bench` as people start it, against real nodes.

mod encryption_ticket;
mod fix;
mod lockers;
#[path = "../network_process/mod.rs"]
mod network_process;
#[path = "../node_process/mod.rs"]
mod node_process;
