//! What the machine, or another server, can do, to compare a node with: all are measured in turns
//! in the same run, so that whatever else the machine does hits all of them.

mod disk;
mod echo;
mod echo_uring;
mod redis;

pub(super) use disk::Disk;
pub(super) use echo::Echo;
pub(super) use redis::{Durability, Redis};
