//! Requests by io_uring: a ring a thread, multishot receive into buffers that the kernel picks, and all
//! that is to be sent handed over with the call that waits. Needs Linux 6.1.

mod ring;
mod tcp;
mod udp;

pub(super) use ring::{Completion, Received, Ring, Shape};
pub(super) use tcp::UringTcp;
pub(super) use udp::UringUdp;
