use std::time::Duration;

use super::{
    Stranger,
    blocks::Blocks,
    coins_once::CoinsOnce,
    ticket_coins::TicketCoins,
    ticket_index::TicketIndex,
    ticket_shares::{Account, Free, Shares},
};
use crate::{
    coin::{AnTag, COINS_PER_PAGE, Coin, PageId, ShardId},
    protocol::{RaidaId, healing::TicketId},
};

/// How many tickets a shard keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketSettings {
    /// Tickets at the same time. A shard sets aside [`TicketSettings::BYTES_A_TICKET`] for each as
    /// it is used, and never more.
    pub pool: usize,
    /// From being issued to its end.
    pub lifetime: Duration,
    /// Number of shares of the pool, 1 or more. One stranger has at most one share of its tickets
    /// and of the coins that they list, and less of it the more others have. With 1 a stranger may
    /// have all.
    pub shares: usize,
    /// Tickets that list the same coin at the same time; 0 for any number.
    pub per_coin: u16,
}

impl TicketSettings {
    /// Coins that all tickets together list at most, for each ticket of the pool.
    pub const COINS_A_TICKET: usize = 64;

    /// Memory of a full pool, bytes a ticket: the ticket itself, what finds it, and that many
    /// coins.
    pub const BYTES_A_TICKET: usize = size_of::<Ticket>()
        + TicketIndex::BYTES_A_TICKET
        + size_of::<(u32, AnTag)>() * Self::COINS_A_TICKET;

    /// Coins of the longest ticket that a node can be set up to issue.
    pub(super) const LONG_TICKET: usize = 4_096;

    /// Coins that all tickets together list at most.
    pub(super) fn coins_most(&self) -> usize {
        self.pool * Self::COINS_A_TICKET
    }
}

/// The pool has no room: every entry is still in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolIsFull;

/// Why a ticket is not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIssued {
    /// The pool is full of live tickets.
    PoolIsFull,
    /// This stranger has the maximum number of live tickets.
    ShareIsUsed,
    /// The maximum number of live tickets lists one of the coins.
    CoinIsListed,
}

/// Why a claim is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// There is no such ticket, or its time is over.
    NoSuchTicket,
    /// This server has claimed it before.
    ClaimedAlready,
}

/// The tickets that a shard issued and that are not over. All live equally long, so they end in the
/// order they were issued: what is over is at the front, and nobody has to search for it.
pub(super) struct Tickets {
    settings: TicketSettings,
    shard: ShardId,
    shards: u16,
    issued: Blocks<Ticket>,
    /// The number of tickets taken from the front of `issued` since the start, its low half.
    gone: u32,
    index: TicketIndex,
    /// The coins of all tickets, each as one number and what stands for its authenticity number
    /// then; those of one ticket after those of the one before.
    coins: Blocks<(u32, AnTag)>,
    /// The number of coins taken from the front since the start, its low half.
    coins_gone: u32,
    /// What each stranger has of it.
    shares: Shares,
    /// What each coin has of it.
    of_coins: TicketCoins,
    once: CoinsOnce,
    random: RandomNumbers,
}

#[derive(Clone, Copy, Default)]
struct Ticket {
    number: u32,
    /// Bit k: RAIDA k has claimed it.
    claimed: u32,
    ends: Duration,
    /// The number of coins before its own (its low half), and the number of its own.
    first: u32,
    count: u16,
    /// The account whose share it counts towards.
    account: Account,
}

/// Tickets at their end that are removed when one with few coins is issued, at most: more than come
/// in, and few enough that nobody waits for it.
const REMOVED_A_TURN: usize = 4;
/// The same limit where there would be no room: after a quiet time all may be at their end. Takes
/// some 50 µs.
const REMOVED_FOR_ROOM: usize = 4_096;

/// What is free for a ticket.
struct Room {
    coins: usize,
    /// Why there is no more.
    beyond: NotIssued,
}

/// Numbers from the system's random source, some at a time: each costs a call to the kernel
/// otherwise.
struct RandomNumbers {
    bytes: [u8; 1_024],
    used: usize,
}

/// Which of the `shards` issued a ticket; the ticket's number tells.
#[inline]
pub fn ticket_owner(ticket: TicketId, shards: u16) -> ShardId {
    ShardId::new((ticket.get() % u32::from(shards)) as u16)
}

impl Tickets {
    /// `seed` is a number that nobody knows.
    pub(super) fn new(settings: TicketSettings, shard: ShardId, shards: u16, seed: u64) -> Tickets {
        Tickets {
            settings,
            shard,
            shards,
            issued: Blocks::new(),
            gone: 0,
            index: TicketIndex::new(settings.pool),
            coins: Blocks::new(),
            coins_gone: 0,
            shares: Shares::new(&settings, seed),
            of_coins: TicketCoins::new(settings.per_coin, seed),
            once: CoinsOnce::new(seed),
            random: RandomNumbers::none(),
        }
    }

    /// Issues a ticket to somebody for these coins, `count` of them and at most 65,535; a coin that
    /// comes twice is in it once. `random` fills bytes that nobody can predict.
    pub(super) fn issue(
        &mut self,
        now: Duration,
        to: Stranger,
        count: usize,
        coins: impl Iterator<Item = (Coin, AnTag)>,
        random: impl Fn(&mut [u8]),
    ) -> Result<TicketId, NotIssued> {
        // Every ticket has a coin, so this number makes room for the coins.
        self.remove_ended(now, REMOVED_A_TURN.max(count));
        let account = self.shares.account(to);
        if (self.room(account)).is_none_or(|room| room.coins < count) {
            self.remove_ended(now, REMOVED_FOR_ROOM);
        }
        let before = self.coins.len();
        let listed = match self.room(account) {
            None => Err(self.no_room()),
            Some(room) => self.list(count, coins, room),
        };
        let count = listed.inspect_err(|_| {
            let all = self.coins.len();
            (before..all).for_each(|at| self.of_coins.end(*self.coins.get(at)));
            self.coins.drop_back(all - before);
        })?;
        let ticket = self.number(&random);
        self.index.prefetch(self.random.next_or_0());
        self.shares.take(account, count);
        self.issued.push_back(Ticket {
            number: ticket.get(),
            claimed: 0,
            ends: now + self.settings.lifetime,
            first: self.coins_gone.wrapping_add(before as u32),
            count,
            account,
        });
        Ok(ticket)
    }

    /// What is free for a ticket of this account; `None` where there can be none.
    #[inline]
    fn room(&self, account: Account) -> Option<Room> {
        let of_pool = self.settings.coins_most() - self.coins.len();
        let free = Free {
            tickets: self.settings.pool - self.issued.len(),
            coins: of_pool,
        };
        let of_share = self.shares.left(account, free)?;
        (!self.is_full()).then(|| Room {
            coins: of_pool.min(of_share),
            beyond: match of_share < of_pool {
                true => NotIssued::ShareIsUsed,
                false => NotIssued::PoolIsFull,
            },
        })
    }

    fn no_room(&self) -> NotIssued {
        match self.is_full() {
            true => NotIssued::PoolIsFull,
            false => NotIssued::ShareIsUsed,
        }
    }

    fn is_full(&self) -> bool {
        self.issued.len() >= self.settings.pool
    }

    /// Puts coins at the end of those of all tickets, each once: how many. After an error some of
    /// them are there.
    #[inline]
    fn list(
        &mut self,
        count: usize,
        coins: impl Iterator<Item = (Coin, AnTag)>,
        room: Room,
    ) -> Result<u16, NotIssued> {
        let is_list = count > 1;
        if is_list {
            self.once.begin(count);
        }
        let mut listed = 0;
        for (coin, tag) in coins.take(count) {
            let number = coin.number();
            if is_list && !self.once.is_new(number) {
                continue;
            }
            if usize::from(listed) == room.coins || listed == u16::MAX {
                return Err(room.beyond);
            }
            if !self.of_coins.list((number, tag)) {
                return Err(NotIssued::CoinIsListed);
            }
            self.coins.push_back((number, tag));
            listed += 1;
        }
        Ok(listed)
    }

    /// Claims a ticket in a server's name: gives its coins, once for each server, with what stood
    /// for their authenticity numbers when it was issued.
    pub(super) fn claim(
        &mut self,
        now: Duration,
        ticket: TicketId,
        claimant: RaidaId,
    ) -> Result<impl Iterator<Item = (Coin, AnTag)> + '_, ClaimRefused> {
        let place = self.index.find(ticket.get(), self.live());
        let place = place.ok_or(ClaimRefused::NoSuchTicket)?;
        let number = ticket.get();
        let ticket = (self.issued).get_mut(place.wrapping_sub(self.gone) as usize);
        // An entry four thousand million tickets old looks like one of now.
        if ticket.number != number || ticket.ends <= now {
            return Err(ClaimRefused::NoSuchTicket);
        }
        let claimant = 1 << claimant.get();
        if ticket.claimed & claimant != 0 {
            return Err(ClaimRefused::ClaimedAlready);
        }
        ticket.claimed |= claimant;
        let first = ticket.first.wrapping_sub(self.coins_gone) as usize;
        let (count, coins) = (usize::from(ticket.count), &self.coins);
        Ok((first..first + count).map(|at| {
            let &(number, tag) = coins.get(at);
            (coin(number), tag)
        }))
    }

    /// Takes a claim back that was made just now and not answered.
    pub(super) fn withdraw(&mut self, ticket: TicketId, claimant: RaidaId) {
        if let Some(place) = self.index.find(ticket.get(), self.live()) {
            let ticket = (self.issued).get_mut(place.wrapping_sub(self.gone) as usize);
            ticket.claimed &= !(1 << claimant.get());
        }
    }

    /// Tickets that are kept, those included whose time is over and whose place was not needed yet.
    pub(super) fn len(&self) -> usize {
        self.issued.len()
    }

    fn remove_ended(&mut self, now: Duration, most: usize) {
        for _ in 0..most {
            let Some(&Ticket { count, account, .. }) =
                self.issued.front().filter(|t| t.ends <= now)
            else {
                return;
            };
            self.shares.give_back(account, count);
            let coins = 0..usize::from(count);
            coins.for_each(|at| self.of_coins.end(*self.coins.get(at)));
            self.issued.drop_front(1);
            self.gone = self.gone.wrapping_add(1);
            self.coins.drop_front(count.into());
            self.coins_gone = self.coins_gone.wrapping_add(count.into());
        }
    }

    /// Whether the ticket at a place is one of those that are kept.
    fn live(&self) -> impl Fn(u32) -> bool + use<> {
        let (gone, kept) = (self.gone, self.issued.len() as u32);
        move |place| place.wrapping_sub(gone) < kept
    }

    /// A number that no ticket has, is not 0, and names this shard; it is in the index from now on.
    fn number(&mut self, random: &impl Fn(&mut [u8])) -> TicketId {
        let shards = u32::from(self.shards);
        let place = self.gone.wrapping_add(self.issued.len() as u32);
        loop {
            let drawn = self.random.next(random);
            let shard = self.shard.index() as u32;
            let number = (drawn - drawn % shards).checked_add(shard);
            let live = self.live();
            if let Some(ticket) = number.and_then(TicketId::new)
                && self.index.enter(ticket.get(), place, live)
            {
                return ticket;
            }
        }
    }
}

impl RandomNumbers {
    fn none() -> RandomNumbers {
        let bytes = [0; 1_024];
        let used = bytes.len();
        RandomNumbers { bytes, used }
    }

    /// The next number if it is already fetched, else 0.
    fn next_or_0(&self) -> u32 {
        let next = self.bytes[self.used..].first_chunk();
        next.map_or(0, |&next| u32::from_ne_bytes(next))
    }

    fn next(&mut self, fill: impl Fn(&mut [u8])) -> u32 {
        if self.used == self.bytes.len() {
            fill(&mut self.bytes);
            self.used = 0;
        }
        let next: &mut [u8] = &mut self.bytes[self.used..self.used + 4];
        self.used += 4;
        // Nothing of a number that is in use stays behind.
        u32::from_ne_bytes(std::array::from_fn(|i| std::mem::take(&mut next[i])))
    }
}

fn coin(number: u32) -> Coin {
    let number = number as usize;
    let page = PageId::from_index(number / COINS_PER_PAGE);
    let page = page.expect("it was made of a coin");
    page.coin(number % COINS_PER_PAGE)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::HashSet};

    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::coin::An;

    const SECOND: Duration = Duration::from_secs(1);
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    fn tickets(pool: usize, shard: u16, shards: u16) -> Tickets {
        let lifetime = 300 * SECOND;
        let settings = TicketSettings {
            pool,
            lifetime,
            shares: 1,
            per_coin: 0,
        };
        Tickets::new(settings, ShardId::new(shard), shards, SEED)
    }

    fn stranger(last: u8) -> Stranger {
        Stranger::of([192, 0, 2, last].into())
    }

    fn source() -> impl Fn(&mut [u8]) {
        let random = RefCell::new(SmallRng::seed_from_u64(1));
        move |bytes| random.borrow_mut().fill_bytes(bytes)
    }

    fn coins(count: usize) -> impl Iterator<Item = (Coin, AnTag)> {
        let page = |i: usize| PageId::from_index(i % 15_000).unwrap();
        let tag = |i: usize| An::new([i as u8; 16]).tag();
        (0..count).map(move |i| (page(i * 7).coin(i % COINS_PER_PAGE), tag(i)))
    }

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    #[test]
    fn each_server_claims_a_ticket_once_and_hears_its_coins_in_order() {
        for count in [1, 9, 10, 4_096] {
            let mut tickets = tickets(64, 0, 1);
            let ticket = tickets
                .issue(SECOND, stranger(1), count, coins(count), source())
                .unwrap();
            for claimant in RaidaId::all() {
                let heard = tickets.claim(SECOND, ticket, claimant).unwrap();
                assert!(heard.eq(coins(count)));
                let again = tickets.claim(SECOND, ticket, claimant).map(drop);
                assert_eq!(again, Err(ClaimRefused::ClaimedAlready));
                tickets.withdraw(ticket, claimant);
                assert!(tickets.claim(SECOND, ticket, claimant).is_ok());
            }
        }
    }

    #[test]
    fn a_ticket_ends_when_its_time_is_over_and_not_before() {
        let mut tickets = tickets(4, 0, 1);
        let ticket = tickets
            .issue(SECOND, stranger(1), 1, coins(1), source())
            .unwrap();
        let almost = 301 * SECOND - Duration::from_nanos(1);
        assert!(tickets.claim(almost, ticket, raida(1)).is_ok());
        let over = tickets.claim(301 * SECOND, ticket, raida(2)).map(drop);
        assert_eq!(over, Err(ClaimRefused::NoSuchTicket));
    }

    #[test]
    fn a_full_pool_refuses_and_takes_more_when_tickets_end() {
        let (mut tickets, random) = (tickets(100, 0, 1), source());
        for second in 0..100 {
            tickets
                .issue(second * SECOND, stranger(1), 1, coins(1), &random)
                .unwrap();
        }
        let full = tickets.issue(299 * SECOND, stranger(1), 1, coins(1), &random);
        assert_eq!(full, Err(NotIssued::PoolIsFull));
        // The first is over at 300 s.
        assert!(
            tickets
                .issue(300 * SECOND, stranger(1), 1, coins(1), &random)
                .is_ok()
        );
        let full = tickets.issue(300 * SECOND, stranger(1), 1, coins(1), &random);
        assert_eq!(full, Err(NotIssued::PoolIsFull));
    }

    #[test]
    fn a_long_list_finds_room_as_soon_as_short_ones_are_over() {
        let (mut tickets, random) = (tickets(128, 0, 1), source());
        for _ in 0..120 {
            tickets
                .issue(SECOND, stranger(1), 1, coins(1), &random)
                .unwrap();
        }
        tickets
            .issue(SECOND, stranger(1), 4_096, coins(4_096), &random)
            .unwrap();
        let all = 128 * TicketSettings::COINS_A_TICKET - 4_096 - 120;
        tickets
            .issue(SECOND, stranger(1), all, coins(all), &random)
            .unwrap();
        let long = tickets.issue(302 * SECOND, stranger(1), 4_096, coins(4_096), &random);
        assert!(long.is_ok());
    }

    #[test]
    fn a_ticket_takes_what_the_configuration_says() {
        // config/node.toml, [tickets] pool.
        assert_eq!(TicketSettings::BYTES_A_TICKET, 560);
    }

    #[test]
    fn long_lists_fill_the_pool_as_well() {
        let (mut tickets, random) = (tickets(128, 0, 1), source());
        for _ in 0..2 {
            tickets
                .issue(SECOND, stranger(1), 4_096, coins(4_096), &random)
                .unwrap();
        }
        assert_eq!(
            tickets.issue(SECOND, stranger(1), 1, coins(1), &random),
            Err(NotIssued::PoolIsFull)
        );
        assert!(
            tickets
                .issue(302 * SECOND, stranger(1), 1, coins(1), &random)
                .is_ok()
        );
    }

    #[test]
    fn a_stranger_has_at_most_a_share_and_gets_it_back_when_tickets_end() {
        let (mut tickets, random) = (tickets(65_536, 0, 1), source());
        let settings = TicketSettings {
            shares: 8,
            ..tickets.settings
        };
        tickets = Tickets::new(settings, ShardId::new(0), 1, SEED);
        let mut issued = |now: Duration, to: u8, count: usize| {
            let issued = tickets.issue(now, stranger(to), count, coins(count), &random);
            issued.map(drop)
        };
        // 8,192 tickets, of one coin each or of 64 coins on average.
        for ticket in 0..8_192 {
            assert_eq!(issued(SECOND + SECOND * ticket / 219, 1, 1), Ok(()));
        }
        assert_eq!(issued(40 * SECOND, 1, 1), Err(NotIssued::ShareIsUsed));
        for _ in 0..128 {
            assert_eq!(issued(40 * SECOND, 2, 4_096), Ok(()));
        }
        assert_eq!(issued(40 * SECOND, 2, 1), Err(NotIssued::ShareIsUsed));
        // Others are none the worse.
        for _ in 0..11 {
            assert_eq!(issued(41 * SECOND, 3, 3_000), Ok(()));
        }
        let almost = 301 * SECOND - Duration::from_nanos(1);
        assert_eq!(issued(almost, 1, 1), Err(NotIssued::ShareIsUsed));
        assert_eq!(issued(301 * SECOND, 1, 1), Ok(()));
        assert_eq!(issued(301 * SECOND, 1, 1), Err(NotIssued::ShareIsUsed));
        for _ in 0..128 {
            assert_eq!(issued(340 * SECOND, 2, 4_096), Ok(()));
        }
        assert_eq!(issued(340 * SECOND, 2, 1), Err(NotIssued::ShareIsUsed));
    }

    #[test]
    fn however_many_strangers_take_what_they_can_a_new_one_finds_room() {
        for (strangers, left_tickets, left_coins) in [(1, 8, 4_096), (20, 6, 3_000), (200, 1, 100)]
        {
            let settings = TicketSettings {
                pool: 8_192,
                lifetime: 300 * SECOND,
                shares: 8,
                per_coin: 0,
            };
            let mut tickets = Tickets::new(settings, ShardId::new(0), 1, SEED);
            let random = source();
            let mut issued = |to: u16, count: usize| {
                let stranger = Stranger::of([10, 0, (to >> 8) as u8, to as u8].into());
                let issued = tickets.issue(SECOND, stranger, count, coins(count), &random);
                issued.is_ok()
            };
            // Half of them take many short tickets, half of them long ones.
            for to in 0..strangers {
                let count = if to % 2 == 0 { 1 } else { 1_000 };
                while issued(to, count) {}
            }
            for ticket in 0..left_tickets {
                assert!(
                    issued(u16::MAX, 1),
                    "{strangers} strangers: ticket {ticket}"
                );
            }
            let is_long = issued(60_001, left_coins);
            assert!(is_long, "{strangers} strangers: {left_coins} coins");
        }
    }

    #[test]
    fn a_long_ticket_is_possible_in_a_small_pool_too() {
        let settings = TicketSettings {
            pool: 64,
            lifetime: 300 * SECOND,
            shares: 8,
            per_coin: 0,
        };
        let mut tickets = Tickets::new(settings, ShardId::new(0), 1, SEED);
        let long = tickets.issue(SECOND, stranger(1), 4_096, coins(4_096), source());
        assert!(long.is_ok());
    }

    #[test]
    fn a_ticket_names_each_coin_once_and_takes_no_more_than_that() {
        let (mut tickets, random) = (tickets(128, 0, 1), source());
        for distinct in [1, 2, 63, 1_500] {
            let each: Vec<(Coin, AnTag)> = coins(distinct).collect();
            let named = || each.iter().copied().cycle().take(4_096);
            let kept = tickets.coins.len();
            let ticket = tickets.issue(SECOND, stranger(1), 4_096, named(), &random);
            let heard = tickets.claim(SECOND, ticket.unwrap(), raida(1)).unwrap();
            assert!(heard.eq(coins(distinct)), "{distinct} coins");
            assert_eq!(tickets.coins.len() - kept, distinct);
        }
    }

    #[test]
    fn a_ticket_that_does_not_fit_leaves_nothing_behind() {
        let (mut tickets, random) = (tickets(128, 0, 1), source());
        tickets
            .issue(SECOND, stranger(1), 4_000, coins(4_000), &random)
            .unwrap();
        let rest = 128 * TicketSettings::COINS_A_TICKET - 4_000;
        let over = tickets.issue(SECOND, stranger(1), rest + 1, coins(rest + 1), &random);
        assert_eq!(over, Err(NotIssued::PoolIsFull));
        let ticket = tickets.issue(SECOND, stranger(1), rest, coins(rest), &random);
        let heard = tickets.claim(SECOND, ticket.unwrap(), raida(1)).unwrap();
        assert!(heard.eq(coins(rest)));
    }

    #[test]
    fn lists_that_others_before_them_have_left_stay_whole() {
        // Two live at any time.
        let (mut tickets, random) = (tickets(4, 0, 1), source());
        for round in 0..100 {
            let now = 150 * SECOND * round;
            let list = || coins(100 + round as usize).skip(round as usize);
            let ticket = tickets
                .issue(now, stranger(1), 100, list(), &random)
                .unwrap();
            for (claimant, at) in [(1, now), (2, now + 100 * SECOND)] {
                let heard = tickets.claim(at, ticket, raida(claimant)).unwrap();
                assert!(heard.eq(list()), "list {round}");
            }
        }
    }

    #[test]
    fn numbers_name_their_shard_and_no_two_are_alike() {
        for shards in [1, 2, 3, 7, 64] {
            for shard in [0, shards - 1] {
                let (mut tickets, random) = (tickets(2_000, shard, shards), source());
                let mut seen = HashSet::new();
                for _ in 0..2_000 {
                    let ticket = tickets
                        .issue(SECOND, stranger(1), 1, coins(1), &random)
                        .unwrap();
                    assert_eq!(ticket_owner(ticket, shards), ShardId::new(shard));
                    assert!(seen.insert(ticket.get()));
                }
            }
        }
    }

    #[test]
    fn a_number_that_is_taken_or_none_is_drawn_again() {
        let drawn = RefCell::new([0, 7, 7, 9].into_iter());
        let random = |bytes: &mut [u8]| {
            for place in bytes.chunks_exact_mut(4) {
                let number: u32 = drawn.borrow_mut().next().unwrap_or(0);
                place.copy_from_slice(&number.to_ne_bytes());
            }
        };
        let mut tickets = tickets(4, 0, 1);
        let mut number = || {
            tickets
                .issue(SECOND, stranger(1), 1, coins(1), random)
                .unwrap()
                .get()
        };
        assert_eq!([number(), number()], [7, 9]);
    }

    #[test]
    fn a_million_tickets_leave_no_memory_behind() {
        let (mut tickets, random) = (tickets(1_000, 0, 1), source());
        for number in 0..1_000_000 {
            // 900 live at any time.
            let now = SECOND * number / 3;
            let ticket = tickets
                .issue(now, stranger(1), 1, coins(1), &random)
                .unwrap();
            assert!(tickets.claim(now, ticket, raida(3)).is_ok());
            // One that fills and one that empties: the rest is used again.
            assert!(tickets.issued.blocks() <= 2 && tickets.coins.blocks() <= 2);
        }
        assert_eq!(tickets.coins.len(), tickets.len());
        assert!(tickets.len() <= 1_000);
    }

    #[test]
    fn a_coin_is_in_few_tickets_at_a_time_whoever_asks() {
        let settings = TicketSettings {
            pool: 1_024,
            lifetime: 300 * SECOND,
            shares: 8,
            per_coin: 5,
        };
        let (mut tickets, random) = (Tickets::new(settings, ShardId::new(0), 1, SEED), source());
        let mut issue = |at, last, count| {
            tickets.issue(at * SECOND, stranger(last), count, coins(count), &random)
        };
        for last in 0..5 {
            issue(u32::from(last), last, 1).unwrap();
        }
        // Not even among others, and these are in no ticket after that.
        for _ in 0..10 {
            assert_eq!(issue(6, 9, 1), Err(NotIssued::CoinIsListed));
            assert_eq!(issue(6, 9, 100), Err(NotIssued::CoinIsListed));
        }
        // The first is over at 300 s.
        assert!(issue(300, 9, 100).is_ok());
        assert_eq!(issue(300, 9, 1), Err(NotIssued::CoinIsListed));
        assert!(issue(301, 9, 1).is_ok());
    }
}
