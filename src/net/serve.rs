use std::cell::Cell;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runtime::{Timer, UdpSocket};

use super::deadlines::Deadlines;
use super::inbound::Buffers;
use super::lines::Lines;
use super::listen::stop_listening;
use super::parked::Parked;
use super::udp::Outbox;
use super::{Handler, Limits, Sockets, Stop, tcp, udp};
use crate::runtime::Rings;
use crate::runtime::{Interest, Readiness};
use crate::service::budget::Budget;

/// How often a stopping core checks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(2);

/// What was left when the time to stop was over; nothing if all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off: clients that did not take their answers, or whose answers
    /// were not ready.
    pub connections_cut: usize,
    /// Requests that were still waiting for their answer.
    pub requests_cut: usize,
}

/// What the connections and the datagrams of one core share.
pub(super) struct Worker {
    pub(super) limits: Arc<Limits>,
    pub(super) stop: Stop,
    pub(super) budget: Rc<Budget>,
    pub(super) parked: Rc<Parked>,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) buffers: Buffers,
    pub(super) readiness: Rc<Readiness>,
    pub(super) rings: Rc<Rings>,
    pub(super) lines: Rc<Lines>,
    /// Whether the time to stop is over: connections close at once.
    pub(super) cut: Cell<bool>,
}

/// Serves on this core until `stop`. Then accepts and reads no more, answers what was taken on, and
/// closes; what is not done within `drain_timeout` is cut off.
///
/// Await it on a glommio executor. Other tasks of the executor that requests depend on have to run
/// until this returns.
pub async fn serve<H: Handler>(
    sockets: Sockets,
    handler: H,
    limits: Arc<Limits>,
    stop: Stop,
) -> std::io::Result<Drained> {
    let readiness = Readiness::new()?;
    let budget = Rc::clone(handler.budget());
    let start = limits.start();
    let worker = Rc::new(Worker {
        limits,
        stop,
        rings: Rings::new({
            let budget = Rc::clone(&budget);
            move || budget.waiting()
        }),
        lines: Rc::default(),
        budget,
        parked: Rc::default(),
        deadlines: Deadlines::new(start),
        buffers: Buffers::default(),
        readiness: Rc::clone(&readiness),
        cut: Cell::new(false),
    });
    let address = sockets.address();
    let stopper = sockets.tcp.try_clone()?;
    sockets.tcp.set_nonblocking(true)?;
    let listener = readiness.watch(sockets.tcp, Interest::Read)?;
    // SAFETY: `into_raw_fd` gives the descriptor of an open, bound socket to this owner.
    let socket = Rc::new(unsafe { UdpSocket::from_raw_fd(sockets.udp.into_raw_fd()) });

    let watching = crate::runtime::spawn_local(readiness.run(Rc::clone(&worker.rings)));
    let outbox = Rc::new(Outbox::default());
    let sending = crate::runtime::spawn_local(udp::send(
        Rc::clone(&socket),
        Rc::clone(&worker),
        Rc::clone(&outbox),
    ));
    let releasing = crate::runtime::spawn_local(
        Rc::clone(&worker.parked).release(handler.clone(), Rc::clone(&outbox)),
    );
    let accepting =
        crate::runtime::spawn_local(tcp::accept(listener, Rc::clone(&worker), handler.clone()));
    let receiving = crate::runtime::spawn_local(udp::receive(
        socket,
        address,
        handler,
        Rc::clone(&worker),
        Rc::clone(&outbox),
    ));

    worker.stop.stopped().await;
    let deadline = Instant::now() + worker.limits.drain_timeout();
    stop_listening(&stopper);
    accepting.await;
    receiving.await;
    worker.deadlines.wake_all();
    let left = || Drained {
        connections_cut: worker.deadlines.connections(),
        requests_cut: worker.budget.waiting(),
    };
    while (left() != Drained::default() || !outbox.is_sent()) && Instant::now() < deadline {
        Timer::new(DRAIN_LOOK).await;
    }
    let cut = left();
    worker.cut.set(true);
    while worker.deadlines.connections() > 0 {
        worker.deadlines.wake_all();
        Timer::new(DRAIN_LOOK).await;
    }
    sending.cancel().await;
    releasing.cancel().await;
    watching.cancel().await;
    Ok(cut)
}
