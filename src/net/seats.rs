use crate::shard::Stranger;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use atomic_waker::AtomicWaker;

/// Maximum number of seats of an address that are checked for one that can be freed. Each
/// connection that comes while all are taken costs that much, however many there are.
const LOOKS_MAX: usize = 64;

/// Number of addresses that are checked, those with most connections first.
const ADDRESSES_MAX: usize = 4;

/// Whose connections are counted together: an IPv4 address, or an IPv6 /64, since a single client
/// commonly has all 2^64 addresses of one.
pub(super) type Network = u64;

/// The connections that are open, of all cores.
#[derive(Debug, Default)]
pub(super) struct Seats {
    clients: HashMap<Network, Client>,
    /// All clients, sorted by number of connections.
    by_count: BTreeSet<(usize, Network)>,
    open: usize,
}

/// The connections of one address.
#[derive(Debug, Default)]
struct Client {
    open: usize,
    /// Its seats, the least recently used first as far as is known. A seat that was used since it
    /// was put in is put in again when it comes to the front. Some seats belong to connections that
    /// have ended.
    seats: BinaryHeap<Waiting>,
}

/// A seat, and when it was used last as far as was known when it was put in.
#[derive(Debug)]
struct Waiting {
    since_ms: u64,
    seat: Arc<Seat>,
}

/// What is known of a connection on all cores.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// When its client last had a request handled or took an answer; at first, when it came.
    used_ms: AtomicU64,
    busy: AtomicU8,
    /// The connection has to close: its place belongs to another.
    is_evicted: AtomicBool,
    /// Its place is free again, or belongs to another. Changed under the lock of all seats only.
    is_free: AtomicBool,
    waker: AtomicWaker,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Busy {
    /// Nothing: it waits for its client's next request, or for the rest of one.
    No,
    /// It waits for its client to take answers.
    Sending,
    /// Its client waits for answers.
    WithRequests,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// All are taken, and none can be freed.
    Full,
    /// The address has the maximum number, and none of them can be freed.
    OfAddress,
}

/// Number of seats, and when a connection that only sends counts as idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) most: usize,
    pub(super) most_of_address: usize,
    /// A client that takes none of its answers for this long counts as idle.
    pub(super) stuck_ms: u64,
}

impl Seat {
    /// Records what the connection is doing, and when it was used, if it was.
    #[inline]
    pub(super) fn say(&self, busy: Busy, used_ms: Option<u64>) {
        if let Some(used_ms) = used_ms {
            self.used_ms.store(used_ms, Relaxed);
        }
        self.busy.store(busy as u8, Relaxed);
    }

    /// Whether the connection has to close.
    #[inline]
    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Relaxed)
    }

    /// Registers `waker`, which is woken when the connection has to close.
    pub(super) fn wake_by(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn is_idle(&self, now_ms: u64, stuck_ms: u64) -> bool {
        let busy = self.busy.load(Relaxed);
        let unused_ms = now_ms.saturating_sub(self.used_ms.load(Relaxed));
        busy == Busy::No as u8 || busy == Busy::Sending as u8 && unused_ms > stuck_ms
    }
}

impl Seats {
    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Returns a seat for a connection of this address, and whether another seat was freed for it.
    /// The freed seat is the one that has been idle longest: of the address itself where that has
    /// its maximum, else of the address that has most.
    pub(super) fn take(
        &mut self,
        network: Network,
        now_ms: u64,
        room: Room,
    ) -> Result<(Arc<Seat>, bool), NoSeat> {
        let mut is_freed = false;
        let of_address = self.clients.get(&network).map_or(0, |client| client.open);
        if of_address >= room.most_of_address {
            if !self.free_one(network, now_ms, room.stuck_ms) {
                return Err(NoSeat::OfAddress);
            }
            is_freed = true;
        }
        if self.open >= room.most {
            let most = self.by_count.iter().rev().take(ADDRESSES_MAX);
            let most: [Option<Network>; ADDRESSES_MAX] = {
                let mut most = most.map(|&(_, network)| network);
                std::array::from_fn(|_| most.next())
            };
            let mut most = most.into_iter().flatten();
            if !most.any(|network| self.free_one(network, now_ms, room.stuck_ms)) {
                return Err(NoSeat::Full);
            }
            is_freed = true;
        }
        let seat = Arc::new(Seat::default());
        seat.used_ms.store(now_ms, Relaxed);
        self.count(network, 1);
        let client = self.clients.entry(network).or_default();
        client.put(Waiting {
            since_ms: now_ms,
            seat: Arc::clone(&seat),
        });
        Ok((seat, is_freed))
    }

    /// Gives a seat back, unless it is another's already.
    pub(super) fn leave(&mut self, network: Network, seat: &Seat) {
        if !seat.is_free.swap(true, Relaxed) {
            self.count(network, -1);
        }
    }

    /// Frees the seat of an address that has been idle longest.
    fn free_one(&mut self, network: Network, now_ms: u64, stuck_ms: u64) -> bool {
        let Some(client) = self.clients.get_mut(&network) else {
            return false;
        };
        let mut looks = LOOKS_MAX.min(client.open);
        let freed = loop {
            let Some(first) = client.seats.pop() else {
                break None;
            };
            if first.seat.is_free.load(Relaxed) {
                continue;
            }
            if looks == 0 {
                client.seats.push(first);
                break None;
            }
            looks -= 1;
            let used_ms = first.seat.used_ms.load(Relaxed);
            let since_ms = match first.seat.is_idle(now_ms, stuck_ms) {
                true if used_ms <= first.since_ms => break Some(first.seat),
                true => used_ms,
                // It counts as used now, and is checked again after those that are not.
                false => now_ms,
            };
            let seat = first.seat;
            client.seats.push(Waiting { since_ms, seat });
        };
        let Some(seat) = freed else {
            return false;
        };
        seat.is_free.store(true, Relaxed);
        seat.is_evicted.store(true, Relaxed);
        seat.waker.wake();
        self.count(network, -1);
        true
    }

    /// Counts one connection of an address more, or less.
    fn count(&mut self, network: Network, change: isize) {
        let client = self.clients.entry(network).or_default();
        self.by_count.remove(&(client.open, network));
        client.open = client.open.wrapping_add_signed(change);
        self.open = self.open.wrapping_add_signed(change);
        match client.open {
            0 => drop(self.clients.remove(&network)),
            open => drop(self.by_count.insert((open, network))),
        }
    }
}

impl Client {
    /// Puts a seat in. Removes the seats of ended connections when they are more than the others.
    fn put(&mut self, waiting: Waiting) {
        if self.seats.len() >= 2 * self.open + 16 {
            self.seats
                .retain(|waiting| !waiting.seat.is_free.load(Relaxed));
        }
        self.seats.push(waiting);
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.since_ms == other.since_ms
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// The least recently used one is the greatest.
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        Reverse(self.since_ms).cmp(&Reverse(other.since_ms))
    }
}

/// The network that an address's connections count for.
pub(super) fn network(address: IpAddr) -> Network {
    Stranger::of(address).number()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        most: 10,
        most_of_address: 6,
        stuck_ms: 5_000,
    };

    fn take(seats: &mut Seats, network: Network, now_ms: u64) -> Arc<Seat> {
        seats.take(network, now_ms, ROOM).unwrap().0
    }

    #[test]
    fn the_one_idle_longest_of_the_address_with_most_is_closed_for_a_newcomer() {
        let mut seats = Seats::default();
        let few: Vec<_> = (0..4).map(|now_ms| take(&mut seats, 1, now_ms)).collect();
        let many: Vec<_> = (10..16).map(|now_ms| take(&mut seats, 2, now_ms)).collect();
        many[0].say(Busy::No, Some(20));
        many[1].say(Busy::WithRequests, None);
        let (_, is_freed) = seats.take(3, 30, ROOM).unwrap();
        assert!(is_freed);
        let evicted: Vec<bool> = many.iter().map(|seat| seat.is_evicted()).collect();
        assert_eq!(evicted, [false, false, true, false, false, false]);
        assert!(!few.iter().any(|seat| seat.is_evicted()));
        assert_eq!(seats.open(), 10);
        // The end of the connection gives nothing back a second time.
        seats.leave(2, &many[2]);
        assert_eq!(seats.open(), 10);
    }

    #[test]
    fn an_address_with_all_it_may_have_makes_room_for_itself() {
        let mut seats = Seats::default();
        let own: Vec<_> = (0..6).map(|now_ms| take(&mut seats, 1, now_ms)).collect();
        take(&mut seats, 1, 7);
        assert!(own[0].is_evicted() && !own[1].is_evicted());
        own.iter()
            .for_each(|seat| seat.say(Busy::WithRequests, None));
        // The last one is the only one without a request.
        take(&mut seats, 1, 8);
        assert_eq!(seats.open(), 6);
    }

    #[test]
    fn nobody_with_a_request_in_the_works_is_closed() {
        let mut seats = Seats::default();
        let own: Vec<_> = (0..6).map(|now_ms| take(&mut seats, 1, now_ms)).collect();
        let others: Vec<_> = (0..4).map(|now_ms| take(&mut seats, 2, now_ms)).collect();
        let all = || own.iter().chain(&others);
        all().for_each(|seat| seat.say(Busy::WithRequests, None));
        assert_eq!(seats.take(1, 9, ROOM).err(), Some(NoSeat::OfAddress));
        assert_eq!(seats.take(3, 9, ROOM).err(), Some(NoSeat::Full));
        // A connection that takes none of its answers is idle after a while.
        others[3].say(Busy::Sending, Some(100));
        assert_eq!(seats.take(3, 5_100, ROOM).err(), Some(NoSeat::Full));
        assert!(seats.take(3, 5_101, ROOM).is_ok());
        assert!(others[3].is_evicted());
    }

    #[test]
    fn what_is_looked_at_and_kept_is_bounded() {
        let room = Room {
            most: 20_000,
            most_of_address: 10_000,
            stuck_ms: 5_000,
        };
        let mut seats = Seats::default();
        let take = |seats: &mut Seats, now_ms| seats.take(1, now_ms, room);
        let own: Vec<_> = (0..10_000)
            .map(|now_ms| take(&mut seats, now_ms).unwrap().0)
            .collect();
        own[..LOOKS_MAX]
            .iter()
            .for_each(|seat| seat.say(Busy::WithRequests, None));
        assert!(take(&mut seats, 10_000).is_err());
        assert!(take(&mut seats, 10_001).is_ok());
        own.iter().for_each(|seat| seats.leave(1, seat));
        assert_eq!(seats.open(), 1);
        for now_ms in 0..10_000 {
            let (seat, _) = take(&mut seats, now_ms).unwrap();
            seats.leave(1, &seat);
        }
        assert!(seats.clients[&1].seats.len() <= 20);
        assert_eq!((seats.clients.len(), seats.by_count.len()), (1, 1));
    }

    #[test]
    fn an_address_is_counted_however_it_is_written() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("10.0.0.1"), network("::ffff:10.0.0.1"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    }
}
