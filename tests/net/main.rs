//! Connections, from both sides: what a node's sockets do, and the node as a client of others. Much
//! of it is about time, so that nothing else runs beside it.

mod net;
mod peer;
#[path = "../support/real_node/mod.rs"]
mod real_node;
