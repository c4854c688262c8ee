use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::seats::{Network, NoSeat, Room, Seat, Seats, network};
use serde::{Deserialize, Serialize};

use super::{HEADER_BYTES_MAX, Settings};
use crate::service::budget::BudgetLimits;

pub(super) use super::seats::Busy;

/// The settings in force on all cores, the open connections, and counts of what was accepted and
/// turned away. Shared; the data path only ever reads it.
#[derive(Debug)]
pub struct Limits {
    max_connections: AtomicUsize,
    max_connections_per_address: AtomicUsize,
    max_body_bytes: AtomicUsize,
    header_timeout_ms: AtomicU64,
    body_timeout_ms: AtomicU64,
    idle_timeout_ms: AtomicU64,
    drain_timeout_ms: AtomicU64,
    waiting_requests: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Maximum number of connections that file descriptors allow.
    descriptors: AtomicUsize,
    counters: Counters,
    /// Times count from here on all cores.
    start: Instant,
    open: AtomicUsize,
    /// Locked when a connection opens or closes, never between.
    seats: Mutex<Seats>,
}

/// Counts since the start, all cores together; each may be read at any time.
#[derive(Debug, Default)]
#[repr(align(128))] // separate from the limits, which every core reads all the time
pub struct Counters {
    /// TCP connections that were served.
    pub accepted: AtomicU64,
    /// TCP connections closed at once because `max_connections` were open, and none of them idle.
    pub refused_full: AtomicU64,
    /// TCP connections closed at once because their address had `max_connections_per_address`, and
    /// none of them idle.
    pub refused_address: AtomicU64,
    /// Idle connections closed to make room for others.
    pub evicted: AtomicU64,
    /// Errors from accept itself, such as no file descriptor left.
    pub accept_errors: AtomicU64,
    /// Connections closed because a request's header did not come in time.
    pub timed_out_header: AtomicU64,
    /// Connections closed because a request's body did not come in time.
    pub timed_out_body: AtomicU64,
    /// Connections closed after a time without requests.
    pub timed_out_idle: AtomicU64,
    /// Connections closed because the client did not take its answers.
    pub timed_out_write: AtomicU64,
    /// Answers that no datagram can hold, or that the kernel would not send.
    pub answers_dropped: AtomicU64,
    /// Errors from receiving datagrams.
    pub receive_errors: AtomicU64,
}

/// Connections now, and what was accepted and turned away since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: u64,
    /// Admitted at a time.
    pub most: u64,
    /// Served since the start.
    pub accepted: u64,
    /// Closed at once because all places were taken.
    pub refused_full: u64,
    /// Closed at once because their address had the maximum number.
    pub refused_address: u64,
    /// Idle ones closed to make room for others.
    pub evicted: u64,
    /// Errors from accept itself.
    pub accept_errors: u64,
    /// Closed because a header, a body, a request or the taking of an answer took too long.
    pub timed_out: u64,
}

/// One connection's place under the limits, until dropped.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Arc<Limits>,
    network: Network,
    seat: Arc<Seat>,
}

impl Limits {
    /// Applies the settings, with nothing open and all counts 0.
    pub fn new(settings: &Settings) -> Arc<Limits> {
        let limits = Limits {
            max_connections: AtomicUsize::new(0),
            max_connections_per_address: AtomicUsize::new(0),
            max_body_bytes: AtomicUsize::new(0),
            header_timeout_ms: AtomicU64::new(0),
            body_timeout_ms: AtomicU64::new(0),
            idle_timeout_ms: AtomicU64::new(0),
            drain_timeout_ms: AtomicU64::new(0),
            waiting_requests: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            descriptors: AtomicUsize::new(usize::MAX),
            counters: Counters::default(),
            start: Instant::now(),
            open: AtomicUsize::new(0),
            seats: Mutex::default(),
        };
        limits.change(settings);
        Arc::new(limits)
    }

    /// Applies other settings, all but the address. Connections over a lower limit stay. Time-outs
    /// that run keep the time they started with.
    pub fn change(&self, settings: &Settings) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.max_connections
            .store(settings.max_connections, Relaxed);
        self.max_connections_per_address
            .store(settings.max_connections_per_address, Relaxed);
        self.max_body_bytes.store(settings.max_body_bytes, Relaxed);
        self.header_timeout_ms
            .store(ms(settings.header_timeout), Relaxed);
        self.body_timeout_ms
            .store(ms(settings.body_timeout), Relaxed);
        self.idle_timeout_ms
            .store(ms(settings.idle_timeout), Relaxed);
        self.drain_timeout_ms
            .store(ms(settings.drain_timeout), Relaxed);
        self.waiting_requests
            .store(settings.waiting.requests, Relaxed);
        self.waiting_bytes.store(settings.waiting.bytes, Relaxed);
    }

    /// Admits no more connections than there are file descriptors for, whatever the settings say.
    pub fn set_descriptors(&self, connections: usize) {
        self.descriptors.store(connections, Relaxed);
    }

    /// TCP connections that are admitted at a time, all cores together.
    pub fn max_connections(&self) -> usize {
        let most = self.max_connections.load(Relaxed);
        most.min(self.descriptors.load(Relaxed))
    }

    /// What waiting requests may take of a core at present.
    pub fn waiting(&self) -> BudgetLimits {
        BudgetLimits {
            requests: self.waiting_requests.load(Relaxed),
            bytes: self.waiting_bytes.load(Relaxed),
        }
    }

    /// What was accepted and turned away since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Number of connections, and of what was turned away.
    pub fn connection_counts(&self) -> ConnectionCounts {
        let counters = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        ConnectionCounts {
            open: self.open_connections() as u64,
            most: self.max_connections() as u64,
            accepted: get(&counters.accepted),
            refused_full: get(&counters.refused_full),
            refused_address: get(&counters.refused_address),
            evicted: get(&counters.evicted),
            accept_errors: get(&counters.accept_errors),
            timed_out: get(&counters.timed_out_header)
                + get(&counters.timed_out_body)
                + get(&counters.timed_out_idle)
                + get(&counters.timed_out_write),
        }
    }

    /// TCP connections open now, all cores together.
    pub fn open_connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Maximum number of bytes of the body of a stream's request, at present.
    pub fn max_body_bytes(&self) -> usize {
        self.max_body_bytes.load(Relaxed)
    }

    /// Takes a place for a client's connection, or counts the refusal. Where all places are taken,
    /// the connection that has been idle longest makes room.
    pub(super) fn admit(self: &Arc<Limits>, peer: SocketAddr) -> Option<Admission> {
        let network = network(peer.ip());
        let room = Room {
            most: self.max_connections(),
            most_of_address: self.max_connections_per_address.load(Relaxed),
            stuck_ms: self.header_timeout_ms(),
        };
        let now_ms = self.start.elapsed().as_millis() as u64; // 64 bits are 584 million years
        let mut seats = self.seats();
        let taken = seats.take(network, now_ms, room);
        self.open.store(seats.open(), Relaxed);
        drop(seats);
        let counters = &self.counters;
        match taken {
            Ok((seat, is_freed)) => {
                counters.accepted.fetch_add(1, Relaxed);
                counters.evicted.fetch_add(is_freed.into(), Relaxed);
                let limits = Arc::clone(self);
                Some(Admission {
                    limits,
                    network,
                    seat,
                })
            }
            Err(NoSeat::Full) => {
                counters.refused_full.fetch_add(1, Relaxed);
                None
            }
            Err(NoSeat::OfAddress) => {
                counters.refused_address.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// The start of times, the same on all cores.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// The longest request a stream may have, header included, bytes.
    pub(super) fn max_request_bytes(&self) -> usize {
        self.max_body_bytes().saturating_add(HEADER_BYTES_MAX)
    }

    pub(super) fn header_timeout_ms(&self) -> u64 {
        self.header_timeout_ms.load(Relaxed)
    }

    pub(super) fn body_timeout_ms(&self) -> u64 {
        self.body_timeout_ms.load(Relaxed)
    }

    pub(super) fn idle_timeout_ms(&self) -> u64 {
        self.idle_timeout_ms.load(Relaxed)
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms.load(Relaxed))
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // Nothing under the lock panics; if it did, counts could be wrong and nothing else.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Records what the connection is doing, and when it was used, if it was.
    #[inline]
    pub(super) fn say(&self, busy: Busy, used_ms: Option<u64>) {
        self.seat.say(busy, used_ms);
    }

    /// Whether the connection has to make room for another.
    #[inline]
    pub(super) fn is_evicted(&self) -> bool {
        self.seat.is_evicted()
    }

    /// Registers `waker`, which is woken when the connection has to make room.
    pub(super) fn wake_by(&self, waker: &Waker) {
        self.seat.wake_by(waker);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut seats = self.limits.seats();
        seats.leave(self.network, &self.seat);
        self.limits.open.store(seats.open(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_connections: usize, max_connections_per_address: usize) -> Arc<Limits> {
        Limits::new(&Settings {
            max_connections,
            max_connections_per_address,
            ..Settings::default()
        })
    }

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_again_after_its_connection() {
        let limits = limits(2, 2);
        let first = limits.admit(peer("10.0.0.1:1"));
        let second = limits.admit(peer("10.0.0.2:1"));
        for admission in [&first, &second] {
            admission.as_ref().unwrap().say(Busy::WithRequests, None);
        }
        assert!(limits.admit(peer("10.0.0.3:1")).is_none());
        drop(first);
        let third = limits.admit(peer("10.0.0.3:1"));
        assert!(third.is_some());
        drop((second, third));
        assert_eq!(limits.open_connections(), 0);
        assert_eq!(limits.counters().refused_full.load(Relaxed), 1);
    }

    #[test]
    fn no_more_are_admitted_than_there_are_descriptors_for() {
        let limits = limits(10, 10);
        limits.set_descriptors(1);
        let first = limits.admit(peer("10.0.0.1:1")).unwrap();
        first.say(Busy::WithRequests, None);
        assert!(limits.admit(peer("10.0.0.2:1")).is_none());
        assert_eq!(limits.max_connections(), 1);
    }

    #[test]
    fn a_limit_of_none_admits_none() {
        let limits = limits(10, 0);
        assert!(limits.admit(peer("10.0.0.1:1")).is_none());
        assert_eq!(limits.open_connections(), 0);
    }
}
