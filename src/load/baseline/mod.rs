//! Baselines to compare a node with: what the machine, or another server, can do. All are measured
//! in turns in the same run, so that other work of the machine affects all of them.

mod disk;
mod echo;
mod echo_uring;
mod redis;

pub(super) use disk::Disk;
pub(super) use echo::Echo;
pub(super) use redis::{Durability, Redis};
