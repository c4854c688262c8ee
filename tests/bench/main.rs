//! `raida bench` as people start it, against real nodes.

mod encryption_ticket;
mod fix;
mod interrupt;
mod lockers;
#[path = "../support/network_process/mod.rs"]
mod network_process;
#[path = "../support/node_process/mod.rs"]
mod node_process;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A bench takes the whole machine. Beside other programs a network of 25 nodes may be too slow for
/// a fix's waits, and a late answer is not right.
static MACHINE: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
