use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{HEADER_BYTES_MAX, Settings};

/// The settings in force on all cores, the connections that are open, and counts of what was taken
/// and turned away. Shared; the data path only ever reads it.
#[derive(Debug)]
pub struct Limits {
    max_connections: AtomicUsize,
    max_connections_per_address: AtomicUsize,
    max_body_bytes: AtomicUsize,
    header_timeout_ms: AtomicU64,
    body_timeout_ms: AtomicU64,
    idle_timeout_ms: AtomicU64,
    drain_timeout_ms: AtomicU64,
    counters: Counters,
    open: AtomicUsize,
    /// Locked when a connection opens or closes, never between.
    by_network: Mutex<HashMap<Network, usize>>,
}

/// Counts since the start, all cores together; each may be read at any time.
#[derive(Debug, Default)]
#[repr(align(128))] // apart from the limits, which every core reads all the time
pub struct Counters {
    /// TCP connections that were served.
    pub accepted: AtomicU64,
    /// TCP connections closed at once because `max_connections` were open.
    pub refused_full: AtomicU64,
    /// TCP connections closed at once because their address had `max_connections_per_address`.
    pub refused_address: AtomicU64,
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
    /// Times a connection stopped reading because its core had too many requests in flight.
    pub paused: AtomicU64,
    /// Datagrams dropped because their core had too many requests in flight.
    pub datagrams_dropped: AtomicU64,
    /// Answers that no datagram can hold, or that the kernel would not send.
    pub answers_dropped: AtomicU64,
    /// Errors from receiving datagrams.
    pub receive_errors: AtomicU64,
}

/// One connection's place under the limits, until dropped.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Arc<Limits>,
    network: Network,
}

/// Whose connections are counted together: an IPv4 address, or an IPv6 /64, since a single client
/// commonly has all 2^64 addresses of one.
type Network = u64;

impl Limits {
    /// Puts settings in force, with nothing open and all counts 0.
    pub fn new(settings: &Settings) -> Arc<Limits> {
        let limits = Limits {
            max_connections: AtomicUsize::new(0),
            max_connections_per_address: AtomicUsize::new(0),
            max_body_bytes: AtomicUsize::new(0),
            header_timeout_ms: AtomicU64::new(0),
            body_timeout_ms: AtomicU64::new(0),
            idle_timeout_ms: AtomicU64::new(0),
            drain_timeout_ms: AtomicU64::new(0),
            counters: Counters::default(),
            open: AtomicUsize::new(0),
            by_network: Mutex::new(HashMap::new()),
        };
        limits.change(settings);
        Arc::new(limits)
    }

    /// Puts other settings in force, all but the address. Connections over a lower limit stay;
    /// time-outs that run keep the time they started with.
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
    }

    /// What was taken and turned away since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// TCP connections open now, all cores together.
    pub fn open_connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The longest body a stream's request may have, bytes, as it is now.
    pub fn max_body_bytes(&self) -> usize {
        self.max_body_bytes.load(Relaxed)
    }

    /// Takes a place for a client's connection, or counts the refusal.
    pub(super) fn admit(self: &Arc<Limits>, peer: SocketAddr) -> Option<Admission> {
        if self.open.fetch_add(1, Relaxed) >= self.max_connections.load(Relaxed) {
            self.open.fetch_sub(1, Relaxed);
            self.counters.refused_full.fetch_add(1, Relaxed);
            return None;
        }
        let network = network(peer.ip());
        let mut by_network = self.by_network();
        let of_network = by_network.entry(network).or_insert(0);
        if *of_network >= self.max_connections_per_address.load(Relaxed) {
            if *of_network == 0 {
                by_network.remove(&network); // a limit of 0 must not leave an entry an address
            }
            drop(by_network);
            self.open.fetch_sub(1, Relaxed);
            self.counters.refused_address.fetch_add(1, Relaxed);
            return None;
        }
        *of_network += 1;
        drop(by_network);
        self.counters.accepted.fetch_add(1, Relaxed);
        Some(Admission {
            limits: Arc::clone(self),
            network,
        })
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

    fn by_network(&self) -> std::sync::MutexGuard<'_, HashMap<Network, usize>> {
        // Every change under the lock is a single insert, remove or count: nothing is half done
        // should a thread ever panic while it holds it.
        self.by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limits.open.fetch_sub(1, Relaxed);
        if let Entry::Occupied(mut of_network) = self.limits.by_network().entry(self.network) {
            *of_network.get_mut() -= 1;
            if *of_network.get() == 0 {
                of_network.remove();
            }
        }
    }
}

fn network(address: IpAddr) -> Network {
    match address.to_canonical() {
        // ::/32 is not assigned to anybody, so no /64 of it can be mistaken for an IPv4 address.
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
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
        assert!(first.is_some() && second.is_some());
        assert!(limits.admit(peer("10.0.0.3:1")).is_none());
        drop(first);
        let third = limits.admit(peer("10.0.0.3:1"));
        assert!(third.is_some());
        drop((second, third));
        assert_eq!(limits.open_connections(), 0);
        assert!(limits.by_network().is_empty());
        assert_eq!(limits.counters().refused_full.load(Relaxed), 1);
    }

    #[test]
    fn an_address_is_counted_however_it_is_written() {
        let limits = limits(10, 1);
        let _v4 = limits.admit(peer("10.0.0.1:1")).unwrap();
        assert!(limits.admit(peer("[::ffff:10.0.0.1]:2")).is_none());
        let _v6 = limits.admit(peer("[2001:db8::1]:1")).unwrap();
        assert!(limits.admit(peer("[2001:db8::ffff:2]:1")).is_none());
        assert!(limits.admit(peer("[2001:db8:0:1::1]:1")).is_some());
        assert_eq!(limits.counters().refused_address.load(Relaxed), 2);
    }

    #[test]
    fn a_limit_of_none_admits_none_and_remembers_none() {
        let limits = limits(10, 0);
        assert!(limits.admit(peer("10.0.0.1:1")).is_none());
        assert!(limits.by_network().is_empty());
        assert_eq!(limits.open_connections(), 0);
    }
}
