//! What the machine can do without a node, to compare a node with: the two are measured in turns in
//! the same run, so that whatever else the machine does hits both.

mod disk;
mod echo;

pub(super) use disk::Disk;
pub(super) use echo::Echo;
