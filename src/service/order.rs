use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::{
    coin::{An, Coin},
    protocol::{
        Command,
        authentication::{Detect, DetectSum, Pown, PownDerive, PownSum},
        healing::{Find, Fix, GetTicket},
        key_healing::{FixEncryption, GetEncryptionTicket},
        lockers::StoreSum,
    },
    shard::EXCHANGES_MAX,
};

/// Words of a [`Footprint`]'s mask.
const MASK_WORDS: usize = 4;

/// Maximum number of exchanges of one coin that a connection has in the coin's queue: half of the
/// queue, so that no connection alone fills it. Further exchanges wait here, and the connection
/// with them.
const QUEUED_MAX: usize = EXCHANGES_MAX / 2;

/// The order of one connection's requests. They run side by side. Where two touch the same coin and
/// one of them changes it, the later waits for the earlier. So a client that sends on without
/// waiting for answers sees the same as with one request at a time.
///
/// Exchanges of one coin alone, of this core's shard, do not wait here for each other: they wait in
/// the coin's queue, which keeps their order.
#[derive(Default)]
pub(super) struct Order {
    /// Requests under way, in the order they came.
    under_way: RefCell<VecDeque<Entry>>,
    next: Cell<u64>,
    changes: Cell<usize>,
    /// Whether the client has gone.
    is_closed: Cell<bool>,
}

/// The client has gone before its request began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Which coins a request touches, and whether it changes them. Two footprints of one coin each are
/// exact: they share the coin or not. Other footprints that share no bit share no coin; sometimes
/// two share a bit and still no coin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footprint {
    mask: [u64; MASK_WORDS],
    /// The number of the only coin, or [`NOTHING`] or [`MUCH`].
    only: u32,
    changes: bool,
    /// Whether coins come, or may come, into a locker or on offer by it.
    stores: bool,
    /// Whether the locker is unknown before the request is carried out.
    stores_anywhere: bool,
}

/// Not one coin.
const NOTHING: u32 = u32::MAX - 1;
/// More than one coin, or something else.
const MUCH: u32 = u32::MAX;

/// A request's place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

struct Entry {
    place: Place,
    /// The requests that it waits for.
    needs: Footprint,
    /// The requests that wait for it.
    touches: Footprint,
    /// The only coin that it changes, where it waits in that coin's queue.
    queued_for: Option<Coin>,
    /// Number of earlier requests that it waits for.
    waits_for: usize,
    /// The waker of the task that waits for its turn.
    waker: Option<Waker>,
}

impl Order {
    /// Whether every request that changes nothing may be answered at once.
    #[inline]
    pub fn lets_reads_pass(&self) -> bool {
        self.changes.get() == 0
    }

    /// Whether no request is under way.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.under_way.borrow().is_empty()
    }

    /// Number of earlier requests that a request with these coins would have to wait for now.
    /// Called for every request that comes while others are under way. `exchanges` is its only
    /// coin, where it is an exchange of that coin alone.
    #[inline]
    pub fn in_the_way(&self, needs: Footprint, exchanges: Option<Coin>) -> usize {
        let (mut in_the_way, mut queued) = (0, 0);
        for earlier in self.under_way.borrow().iter() {
            if !needs.conflicts_with(&earlier.touches) {
                continue;
            }
            match exchanges.is_some() && exchanges == earlier.queued_for {
                true => queued += 1,
                false => in_the_way += 1,
            }
        }
        match queued < QUEUED_MAX {
            true => in_the_way,
            false => in_the_way + queued,
        }
    }

    /// Puts a request behind all that came before it. While it cannot be read, it `needs` its key
    /// only, and `touches` everything.
    pub fn enter(&self, needs: Footprint, touches: Footprint) -> Place {
        let waits_for = self.in_the_way(needs, None);
        self.push(needs, touches, None, waits_for)
    }

    /// Puts a request about one coin alone behind all requests that came before it; none of them is
    /// in its way. `exchanges` is the coin, where the request changes it and waits in the coin's
    /// queue.
    #[inline]
    pub fn enter_free(&self, footprint: Footprint, exchanges: Option<Coin>) -> Place {
        self.push(footprint, footprint, exchanges, 0)
    }

    fn push(
        &self,
        needs: Footprint,
        touches: Footprint,
        queued_for: Option<Coin>,
        waits_for: usize,
    ) -> Place {
        let place = Place(self.next.get());
        self.next.set(place.0 + 1);
        self.changes
            .set(self.changes.get() + usize::from(touches.changes));
        self.under_way.borrow_mut().push_back(Entry {
            place,
            needs,
            touches,
            queued_for,
            waits_for,
            waker: None,
        });
        place
    }

    /// States more exactly what a request touches than was known when it came.
    pub fn narrow(&self, place: Place, footprint: Footprint) {
        let mut under_way = self.under_way.borrow_mut();
        let at = position(&under_way, place);
        let before = under_way[at].touches;
        let conflicts = |earlier: &&Entry| footprint.conflicts_with(&earlier.touches);
        let waits_for = under_way.iter().take(at).filter(conflicts).count();
        let entry = &mut under_way[at];
        (entry.needs, entry.touches) = (footprint, footprint);
        entry.waits_for = waits_for;
        for later in under_way.iter_mut().skip(at + 1) {
            let (did, does) = (
                later.needs.conflicts_with(&before),
                later.needs.conflicts_with(&footprint),
            );
            later.waits_for = later.waits_for + usize::from(does) - usize::from(did);
            later.wake_if_free();
        }
        let before = usize::from(before.changes);
        self.changes
            .set(self.changes.get() - before + usize::from(footprint.changes));
    }

    /// Waits until no earlier request stands in the way.
    ///
    /// # Errors
    /// Where the client goes before that.
    pub async fn turn(&self, place: Place) -> Result<(), Gone> {
        poll_fn(|context| {
            if self.is_closed.get() {
                return Poll::Ready(Err(Gone));
            }
            let mut under_way = self.under_way.borrow_mut();
            let at = position(&under_way, place);
            let entry = &mut under_way[at];
            if entry.waits_for == 0 {
                return Poll::Ready(Ok(()));
            }
            entry.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Handles that the client has gone: requests that have not had their turn never get it.
    pub fn close(&self) {
        self.is_closed.set(true);
        for entry in self.under_way.borrow_mut().iter_mut() {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends a request.
    pub fn leave(&self, place: Place) {
        let mut under_way = self.under_way.borrow_mut();
        let at = position(&under_way, place);
        let left = under_way.remove(at).expect("it was just found");
        for later in under_way.iter_mut().skip(at) {
            // A queued exchange has not waited here.
            if later.waits_for > 0 && later.needs.conflicts_with(&left.touches) {
                later.waits_for -= 1;
                later.wake_if_free();
            }
        }
        self.changes
            .set(self.changes.get() - usize::from(left.touches.changes));
    }
}

/// The position of a request: places rise. Most often it is the first.
#[inline]
fn position(under_way: &VecDeque<Entry>, place: Place) -> usize {
    if under_way.front().is_some_and(|first| first.place == place) {
        return 0;
    }
    let at = under_way.binary_search_by_key(&place, |entry| entry.place);
    at.expect("a request is under way until it leaves")
}

impl Entry {
    fn wake_if_free(&mut self) {
        if self.waits_for == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

impl Footprint {
    /// Touches everything: for a request that cannot be read yet, or that is about no coin in
    /// particular.
    pub const EVERYTHING: Footprint = Footprint {
        mask: [u64::MAX; MASK_WORDS],
        only: MUCH,
        changes: true,
        stores: true,
        stores_anywhere: false,
    };

    /// Looks at any coin: for a request under a locker's key, which exists while any coin lies in
    /// the locker.
    pub const ANY_COIN: Footprint = Footprint {
        mask: [u64::MAX; MASK_WORDS],
        only: MUCH,
        changes: false,
        stores: false,
        stores_anywhere: false,
    };

    /// What a request touches: `payload` is decrypted.
    pub fn of(command: Command, payload: &[u8], keys: impl Iterator<Item = Coin>) -> Footprint {
        let mut footprint = Footprint::of_nothing(false);
        keys.for_each(|coin| footprint.add(coin));
        match command {
            // A ticket's coins are what they were when it was issued.
            Command::Echo | Command::Version | Command::Validate => {}
            Command::GetTicket => {
                if let Ok(request) = GetTicket::parse(payload) {
                    let coins = request.records().map(|(coin, _)| coin);
                    coins.for_each(|coin| footprint.add(coin));
                }
            }
            Command::Find => {
                if let Ok(request) = Find::parse(payload) {
                    let coins = request.records().map(|(coin, ..)| coin);
                    coins.for_each(|coin| footprint.add(coin));
                }
            }
            // Its key is the proof, or a coin that it names.
            Command::EncryptionTicket => {
                if let Ok(request) = GetEncryptionTicket::parse(payload) {
                    footprint.add(request.coin);
                }
            }
            Command::FixEncryption => {
                footprint.changes = true;
                // Its tickets say the number, which may be a locker's key.
                (footprint.stores, footprint.stores_anywhere) = (true, true);
                if let Ok(request) = FixEncryption::parse(payload) {
                    footprint.add(request.coin);
                }
            }
            Command::Fix => {
                footprint.changes = true;
                if let Ok(request) = Fix::parse(payload) {
                    request.coins().iter().for_each(|coin| footprint.add(coin));
                }
            }
            Command::Detect => {
                if let Ok(request) = Detect::parse(payload) {
                    request
                        .records()
                        .filter_map(|(coin, _)| coin)
                        .for_each(|c| footprint.add(c));
                }
            }
            Command::DetectSum | Command::GetTicketSum => {
                if let Ok(request) = DetectSum::parse(payload) {
                    request.coins().iter().for_each(|coin| footprint.add(coin));
                }
            }
            Command::Pown => {
                footprint.changes = true;
                if let Ok(request) = Pown::parse(payload) {
                    for (coin, _, new) in request.records() {
                        coin.into_iter().for_each(|coin| footprint.add(coin));
                        footprint.add_place(&new);
                    }
                }
            }
            Command::PownSum => {
                footprint.changes = true;
                if let Ok(request) = PownSum::parse(payload) {
                    request.coins().iter().for_each(|coin| footprint.add(coin));
                    // With several, nobody knows before they are looked at.
                    if request.coins().len() == 1 {
                        footprint.add_place(&(request.sum() ^ request.delta()));
                    }
                }
            }
            Command::PownDerive => {
                footprint.changes = true;
                if let Ok(request) = PownDerive::parse(payload) {
                    request.coins().iter().for_each(|coin| footprint.add(coin));
                }
            }
            Command::StoreSum => {
                footprint.changes = true;
                if let Ok(request) = StoreSum::parse(payload) {
                    request.coins().iter().for_each(|coin| footprint.add(coin));
                    footprint.add_place(&request.key.an());
                }
            }
            // A coin comes into a locker and out of it by many commands.
            Command::Peek | Command::PeekTrade | Command::ListForSale => {
                return Footprint::ANY_COIN;
            }
            _ => return Footprint::EVERYTHING,
        }
        footprint
    }

    /// What a request about one coin touches, which does not come into a locker by it.
    pub fn one(coin: Coin, changes: bool, keys: impl Iterator<Item = Coin>) -> Footprint {
        let mut footprint = Footprint::of_nothing(changes);
        keys.for_each(|coin| footprint.add(coin));
        footprint.add(coin);
        footprint
    }

    fn of_nothing(changes: bool) -> Footprint {
        Footprint {
            mask: [0; MASK_WORDS],
            only: NOTHING,
            changes,
            stores: false,
            stores_anywhere: false,
        }
    }

    fn add(&mut self, coin: Coin) {
        let number = coin.number();
        match self.only {
            NOTHING => self.only = number,
            same if same == number => return,
            _ => self.only = MUCH,
        }
        self.mark(number.into());
    }

    /// A locker, or what is on offer, if this is the key of one: coins that come there keep their
    /// order.
    #[inline]
    fn add_place(&mut self, new: &An) {
        if !new.is_marked() {
            return;
        }
        let start = new.expose().first_chunk().expect("16 bytes");
        self.only = MUCH;
        self.stores = true;
        self.mark(u64::from_le_bytes(*start));
    }

    fn mark(&mut self, number: u64) {
        // Fibonacci hashing: the high bits of the product spread runs of coins evenly.
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let (at, bit) = (hash as usize / 64, 1 << (hash % 64));
        for (index, word) in self.mask.iter_mut().enumerate() {
            *word |= if index == at { bit } else { 0 };
        }
    }

    #[inline]
    fn conflicts_with(&self, other: &Footprint) -> bool {
        if !(self.changes || other.changes) {
            return false;
        }
        if self.stores_anywhere && other.stores || other.stores_anywhere && self.stores {
            return true;
        }
        if self.only < NOTHING && other.only < NOTHING {
            return self.only == other.only;
        }
        let mut words = self.mask.iter().zip(&other.mask);
        words.any(|(mine, other)| mine & other != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::{coin::PageId, protocol::lockers::LockerKey};

    fn coin(place: usize) -> Coin {
        PageId::from_index(77).unwrap().coin(place)
    }

    fn enter(order: &Order, footprint: Footprint) -> Place {
        order.enter(footprint, footprint)
    }

    fn pown(coins: &[Coin]) -> Footprint {
        let mut payload = Vec::new();
        Pown::compose(coins.iter().map(|&c| (c, An::ZERO, An::ZERO)), &mut payload);
        Footprint::of(Command::Pown, &payload, std::iter::empty())
    }

    fn detect(coins: &[Coin]) -> Footprint {
        let mut payload = Vec::new();
        Detect::compose(coins.iter().map(|&c| (c, An::ZERO)), &mut payload);
        Footprint::of(Command::Detect, &payload, std::iter::empty())
    }

    #[test]
    fn changes_of_one_coin_each_are_in_the_way_of_the_same_coin_alone() {
        let order = Order::default();
        for place in 0..1_000 {
            enter(&order, pown(&[coin(place)]));
        }
        assert_eq!(order.in_the_way(pown(&[coin(1_000)]), None), 0);
        assert_eq!(order.in_the_way(pown(&[coin(7)]), None), 1);
        // With several coins, a bit in 256 that others have too is enough.
        assert!(order.in_the_way(pown(&[coin(1_001), coin(1_002)]), None) > 0);
    }

    #[test]
    fn a_later_request_waits_for_an_earlier_change_of_its_coin_and_for_no_other() {
        let order = Order::default();
        let first = enter(&order, pown(&[coin(1), coin(2)]));
        let other = enter(&order, pown(&[coin(500)]));
        let reader = enter(&order, detect(&[coin(2)]));
        let writer = enter(&order, pown(&[coin(2)]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(order.turn(other)).poll(&mut context).is_ready());
        let mut reads = pin!(order.turn(reader));
        let mut writes = pin!(order.turn(writer));
        assert!(reads.as_mut().poll(&mut context).is_pending());
        order.leave(first);
        assert!(reads.as_mut().poll(&mut context).is_ready());
        assert!(writes.as_mut().poll(&mut context).is_pending());
        order.leave(reader);
        assert!(writes.as_mut().poll(&mut context).is_ready());
        order.leave(writer);
        order.leave(other);
        assert!(order.lets_reads_pass());
    }

    #[test]
    fn exchanges_of_a_coin_pass_those_that_wait_in_its_queue_and_nothing_else() {
        let order = Order::default();
        let exchange = |place| (pown(&[coin(place)]), Some(coin(place)));
        let (needs, only) = exchange(1);
        let first = order.enter_free(needs, only);
        assert_eq!(order.in_the_way(needs, only), 0);
        assert_eq!(order.in_the_way(needs, None), 1);
        let second = order.enter_free(needs, only);
        let reader = enter(&order, detect(&[coin(1)]));
        assert_eq!(order.in_the_way(needs, only), 1, "a reader is in the way");
        let mut context = Context::from_waker(Waker::noop());
        let mut reads = pin!(order.turn(reader));
        assert!(reads.as_mut().poll(&mut context).is_pending());
        order.leave(first);
        assert!(reads.as_mut().poll(&mut context).is_pending());
        order.leave(second);
        assert!(reads.as_mut().poll(&mut context).is_ready());
        assert_eq!(order.in_the_way(needs, only), 1);
        order.leave(reader);
        assert_eq!(order.in_the_way(needs, only), 0);
    }

    #[test]
    fn what_comes_into_a_locker_waits_for_what_comes_there_before_it() {
        let key = |first: u8| {
            let mut bytes = [first; An::SIZE];
            bytes[12..].fill(0xff);
            LockerKey::new(An::new(bytes)).unwrap()
        };
        let store = |place, key| {
            let mut payload = Vec::new();
            StoreSum::compose([coin(place)], An::ZERO, key, &mut payload);
            Footprint::of(Command::StoreSum, &payload, std::iter::empty())
        };
        let into = |place, key: LockerKey| {
            let mut payload = Vec::new();
            Pown::compose([(coin(place), An::ZERO, key.an())], &mut payload);
            Footprint::of(Command::Pown, &payload, std::iter::empty())
        };
        let heal = |place| {
            let mut payload = Vec::new();
            FixEncryption::compose(coin(place), &[], &mut payload);
            Footprint::of(Command::FixEncryption, &payload, std::iter::empty())
        };
        assert!(store(1, key(1)).conflicts_with(&into(2, key(1))));
        assert!(into(1, key(1)).conflicts_with(&into(2, key(1))));
        assert!(!into(1, key(1)).conflicts_with(&into(2, key(2))));
        assert!(heal(1).conflicts_with(&store(2, key(1))));
        assert!(into(1, key(1)).conflicts_with(&heal(2)));
        assert!(heal(1).conflicts_with(&heal(2)));
        assert!(!heal(1).conflicts_with(&pown(&[coin(2)])));
        assert!(!store(1, key(1)).conflicts_with(&pown(&[coin(2)])));
    }

    #[test]
    fn a_connection_fills_no_more_than_half_of_a_coins_queue() {
        let order = Order::default();
        let (needs, only) = (pown(&[coin(1)]), Some(coin(1)));
        for _ in 0..QUEUED_MAX {
            assert_eq!(order.in_the_way(needs, only), 0);
            order.enter_free(needs, only);
        }
        assert_eq!(order.in_the_way(needs, only), QUEUED_MAX);
        assert_eq!(order.in_the_way(pown(&[coin(2)]), Some(coin(2))), 0);
    }

    #[test]
    fn each_request_is_woken_once_nothing_is_in_its_way_and_not_before() {
        use std::sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        };
        struct Woken(AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let order = Order::default();
        let places: Vec<Place> = (0..50).map(|_| enter(&order, pown(&[coin(1)]))).collect();
        let mut turns: Vec<_> = (places.iter().skip(1))
            .map(|&place| Box::pin(order.turn(place)))
            .collect();
        for turn in &mut turns {
            assert!(turn.as_mut().poll(&mut context).is_pending());
        }
        for (left, &place) in places.iter().enumerate().take(49) {
            order.leave(place);
            assert_eq!(woken.0.load(Relaxed), left + 1);
            assert!(turns[left].as_mut().poll(&mut context).is_ready());
        }
    }

    #[test]
    fn readers_do_not_wait_for_readers() {
        let order = Order::default();
        enter(&order, detect(&[coin(1)]));
        let second = enter(&order, detect(&[coin(1)]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(order.turn(second)).poll(&mut context).is_ready());
    }

    #[test]
    fn a_request_that_is_read_later_stops_others_only_until_then() {
        let order = Order::default();
        let unread = order.enter(detect(&[coin(3)]), Footprint::EVERYTHING);
        let other = enter(&order, detect(&[coin(9)]));
        let mut context = Context::from_waker(Waker::noop());
        let mut turn = pin!(order.turn(other));
        assert!(turn.as_mut().poll(&mut context).is_pending());
        order.narrow(unread, pown(&[coin(500)]));
        assert!(turn.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn what_has_not_begun_when_the_client_goes_never_does() {
        let order = Order::default();
        let first = enter(&order, pown(&[coin(1)]));
        let second = enter(&order, pown(&[coin(1)]));
        let mut context = Context::from_waker(Waker::noop());
        let mut turn = pin!(order.turn(second));
        assert!(turn.as_mut().poll(&mut context).is_pending());
        order.close();
        order.leave(first);
        assert_eq!(turn.as_mut().poll(&mut context), Poll::Ready(Err(Gone)));
    }
}
