use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::{Stranger, tickets::TicketSettings};

/// Number of accounts that all strangers share. Strangers that fall on the same account share what
/// one may have. The seed decides the account, so that nobody can choose another's.
const ACCOUNTS: usize = 4_096;

/// An account may have a whole share while at least this part of the pool is not others'.
const FREELY: f64 = 0.875;

/// What each stranger has of a pool of tickets, so that none takes all of it. 32 KiB, however many
/// strangers there are.
pub(super) struct Shares {
    /// Maximum number of tickets and coins of one account.
    tickets_max: u32,
    coins_max: u32,
    /// All tickets and coins of the pool.
    tickets: f64,
    coins: f64,
    /// Whether one account may have all.
    is_for_one: bool,
    hash: FixedState,
    accounts: Box<[Share]>,
}

/// The part of a pool that nobody has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub tickets: usize,
    pub coins: usize,
}

#[derive(Clone, Copy, Default)]
struct Share {
    tickets: u32,
    coins: u32,
}

/// A stranger's place among the accounts.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Account(u16);

impl Shares {
    /// Shares of a pool; `seed` is a number that nobody knows.
    pub(super) fn new(settings: &TicketSettings, seed: u64) -> Shares {
        let limit = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let coins = settings.coins_most();
        Shares {
            tickets_max: limit((settings.pool / settings.shares).max(1)),
            // In a small pool a share is as much as one long ticket, or nobody could have any.
            coins_max: limit((coins / settings.shares).max(coins.min(TicketSettings::LONG_TICKET))),
            tickets: settings.pool as f64,
            coins: coins as f64,
            is_for_one: settings.shares == 1,
            hash: FixedState::with_seed(seed),
            accounts: vec![Share::default(); ACCOUNTS].into(),
        }
    }

    #[inline]
    pub(super) fn account(&self, stranger: Stranger) -> Account {
        let hash = self.hash.hash_one(stranger.number()) as usize;
        Account((hash % ACCOUNTS) as u16)
    }

    /// Number of coins that another ticket of this account may have while `free` is left; `None`
    /// where the account may have no other ticket.
    ///
    /// That is a share while others have little of the pool, then a share times the cube of the
    /// part that others do not have. So however many accounts take what they can, a new one finds
    /// room: 8 leave half of the pool, 100 a fifth. An account that has nothing may have a ticket
    /// as long as there is one.
    #[inline]
    pub(super) fn left(&self, account: Account, free: Free) -> Option<usize> {
        let Share { tickets, coins } = self.accounts[usize::from(account.0)];
        let part = |own: u32, free: usize, all: f64| match self.is_for_one {
            true => 1.0,
            false => ((free + own as usize) as f64 / all / FREELY)
                .min(1.0)
                .powi(3),
        };
        let tickets_max = f64::from(self.tickets_max) * part(tickets, free.tickets, self.tickets);
        if tickets > 0 && tickets >= tickets_max as u32 {
            return None;
        }
        if coins == 0 {
            return Some(self.coins_max as usize);
        }
        let coins_max = f64::from(self.coins_max) * part(coins, free.coins, self.coins);
        Some((coins_max as u32).saturating_sub(coins) as usize)
    }

    #[inline]
    pub(super) fn take(&mut self, account: Account, coins: u16) {
        let share = &mut self.accounts[usize::from(account.0)];
        share.tickets += 1;
        share.coins += u32::from(coins);
    }

    #[inline]
    pub(super) fn give_back(&mut self, account: Account, coins: u16) {
        let share = &mut self.accounts[usize::from(account.0)];
        share.tickets -= 1;
        share.coins -= u32::from(coins);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr, time::Duration};

    use super::*;

    #[test]
    fn strangers_spread_over_the_accounts_by_the_seed() {
        let settings = TicketSettings {
            pool: 65_536,
            lifetime: Duration::from_secs(300),
            shares: 8,
            per_coin: 0,
        };
        let neighbours: Vec<Stranger> = (0..4_096u32)
            .map(|last| Stranger::of(IpAddr::from((0x0a00_0000 | last).to_be_bytes())))
            .collect();
        let mut layouts = HashSet::new();
        for seed in [
            0x9e37_79b9_7f4a_7c15,
            0xd1b5_4a32_d192_ed03,
            0x0123_4567_89ab_cdef,
        ] {
            let shares = Shares::new(&settings, seed);
            let accounts: Vec<u16> = (neighbours.iter())
                .map(|&stranger| shares.account(stranger).0)
                .collect();
            let used: HashSet<u16> = accounts.iter().copied().collect();
            // By chance, 63 %.
            assert!(used.len() > 2_400, "{} accounts of 4,096", used.len());
            assert!(layouts.insert(accounts), "it does not depend on the seed");
        }
    }
}
