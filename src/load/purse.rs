use std::collections::{HashMap, HashSet};

use super::choice::Choice;
use super::kind::Lots;
use super::mint_journal::MintJournal;
use super::side_door::{ChoreError, SideDoor};
use crate::client::{Client, ClientError, CoinListError, Outcome};
use crate::coin::{An, Coin, Denomination};
use crate::protocol::AdminKey;
use crate::protocol::executive::SessionId;

/// Coins to ask a node about. Each has two authenticity numbers, its own and a spare one: a load
/// that powns goes back and forth between the two, so a coin never has a number that was not
/// written down before the load began. The XOR of the two is the same for all coins, since a pown
/// by sum changes several coins at once by the same XOR. Loads of fixes, lockers and trades give
/// coins numbers that are drawn on the way; they may only ask about coins that were minted for
/// them.
///
/// Coins that lie in one locker stay together, so that the thread that looks into the locker knows
/// all that is there.
pub struct Purse {
    coins: Vec<Held>,
    /// Coins that no load asks about: keys, and coins that the choice excludes.
    aside: Vec<Held>,
}

/// One coin of a [`Purse`].
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The coin.
    pub coin: Coin,
    own: An,
    spare: An,
    in_force: An,
    /// The other number, where nobody knows which of the two is in force.
    or_in_force: Option<An>,
}

/// Why there are no coins to ask about, or why they could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum PurseError {
    /// The node did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The new coins cannot be written down first.
    #[error(transparent)]
    Journal(#[from] CoinListError),
    /// The run should end.
    #[error("interrupted")]
    Stopped,
    /// There are no free serial numbers.
    #[error("the node has no free serial numbers, or others have reserved them")]
    NoneFree,
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// The state of a node's coins after a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Coins whose number in force differs from the one that the node's answers imply.
    pub wrong: usize,
    /// Coins that did not get their own number back from the node.
    pub astray: usize,
}

impl Held {
    /// The number in force.
    #[inline]
    pub fn an(&self) -> An {
        self.in_force
    }

    /// The one of own and spare number that is not in force.
    #[inline]
    pub fn other_an(&self) -> An {
        match self.in_force == self.own {
            true => self.spare,
            false => self.own,
        }
    }

    /// The number before the load began. No other coin of its purse has the same, unless they lay
    /// in one locker then.
    #[inline]
    pub(super) fn own_an(&self) -> An {
        self.own
    }

    /// Whether nobody knows which number is in force.
    pub fn is_in_doubt(&self) -> bool {
        self.or_in_force.is_some()
    }

    /// Whether it lies in a locker.
    pub fn is_in_locker(&self) -> bool {
        self.in_force.is_locker_key()
    }

    /// Sets the number in force, which is certain from now on.
    pub(super) fn got(&mut self, an: An) {
        (self.in_force, self.or_in_force) = (an, None);
    }

    /// Notes that this number may be in force.
    pub(super) fn may_have_got(&mut self, an: An) {
        self.or_in_force = Some(an);
    }
}

/// Groups coins: those of a locker together, every other coin alone.
#[derive(Default)]
struct Groups {
    lockers: HashMap<[u8; An::SIZE], usize>,
    count: usize,
}

impl Groups {
    /// The number of a coin's group, counted from 0 in their order.
    fn of(&mut self, held: &Held) -> usize {
        let next = self.count;
        let group = match held.is_in_locker() {
            true => *(self.lockers.entry(*held.in_force.expose())).or_insert(next),
            false => next,
        };
        self.count += usize::from(group == next);
        group
    }
}

/// Splits coins into `parts` parts of about the same size.
pub(super) fn deal(coins: impl IntoIterator<Item = Held>, parts: usize) -> Vec<Vec<Held>> {
    let mut groups = Groups::default();
    let mut dealt = vec![Vec::new(); parts];
    for held in coins {
        dealt[groups.of(&held) % parts].push(held);
    }
    dealt
}

impl Purse {
    /// Coins with their own numbers in force, and new spare ones.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn new(coins: impl IntoIterator<Item = (Coin, An)>) -> Result<Purse, PurseError> {
        let mut delta = [0; An::SIZE];
        getrandom::fill(&mut delta)?;
        delta[0] |= 1; // no coin's two numbers are the same
        let held = |(coin, own)| Held {
            coin,
            own,
            spare: own ^ An::new(delta),
            in_force: own,
            or_in_force: None,
        };
        Ok(Purse {
            coins: coins.into_iter().map(held).collect(),
            aside: vec![],
        })
    }

    /// Has a node make coins: up to `count`, evenly of all denominations. All coins that it may
    /// have made are in the journal.
    ///
    /// # Errors
    /// The node refuses, or has no free serial numbers; the journal cannot be written; the run
    /// should end.
    pub fn mint(
        client: &mut Client,
        key: &AdminKey,
        count: usize,
        journal: &mut MintJournal,
    ) -> Result<Purse, PurseError> {
        let all: Vec<Denomination> = Denomination::all().collect();
        let mut made = Vec::with_capacity(count);
        // A session is offered one page of each denomination.
        while made.len() < count {
            let mut session = [0; SessionId::SIZE];
            getrandom::fill(&mut session)?;
            let session = SessionId::new(u32::from_be_bytes(session));
            let of_each = (count - made.len()).div_ceil(all.len());
            let free = client.available_sns(session, key, &all)?;
            let mut wanted: Vec<Coin> = Vec::new();
            for &denomination in &all {
                let of_it = free.iter().filter(|coin| coin.denomination == denomination);
                wanted.extend(of_it.take(of_each));
            }
            wanted.truncate(count - made.len());
            if wanted.is_empty() {
                break;
            }
            journal.ask(&wanted)?;
            for coins in wanted.chunks(client.created_at_once()) {
                let ans = client.create_coins(session, key, coins)?;
                made.extend(coins.iter().copied().zip(ans));
            }
        }
        if made.is_empty() {
            return Err(PurseError::NoneFree);
        }
        Purse::new(made)
    }

    /// Puts coins aside that no request may be about.
    pub fn narrow(&mut self, choice: Choice) {
        self.aside.extend(choice.rule_out(&mut self.coins));
    }

    /// Puts up to `count` coins aside that requests can be encrypted with, evenly from all there
    /// are, and returns them with their numbers, which do not change during a load. A coin that
    /// lies in a locker takes along the other coins there.
    pub fn keys(&mut self, count: usize) -> Vec<(Coin, An)> {
        let mut groups = Groups::default();
        let of: Vec<usize> = self.coins.iter().map(|held| groups.of(held)).collect();
        let step = (groups.count / count.max(1)).max(1);
        let is_key = |group: usize| (group + 1).is_multiple_of(step) && (group + 1) / step <= count;
        let mut first_of = vec![true; groups.count];
        let mut keys = Vec::new();
        let mut group = of.iter();
        let aside = self.coins.extract_if(.., |held| {
            let group = *group.next().expect("every coin has a group");
            if is_key(group) && std::mem::take(&mut first_of[group]) {
                keys.push((held.coin, held.own));
            }
            is_key(group)
        });
        self.aside.extend(aside);
        keys
    }

    /// Like [`Purse::keys`], but each of the keys lies in a locker afterwards: a key that does not
    /// is put into a locker of its own.
    ///
    /// # Errors
    /// The node does not do it.
    pub fn keys_in_lockers(
        &mut self,
        count: usize,
        door: &SideDoor,
    ) -> Result<Vec<(Coin, An)>, ChoreError> {
        let before = self.aside.len();
        let mut keys = self.keys(count);
        let at_large = (self.aside).extract_if(before.., |held| !held.is_in_locker());
        let mut lots = Lots::of_one(at_large.collect());
        let stored = lots.store(0..lots.len(), door, |_| {});
        for held in lots.into_coins() {
            let key = keys.iter_mut().find(|(coin, _)| *coin == held.coin);
            key.expect("a coin at large is a key by itself").1 = held.an();
            self.aside.push(held);
        }
        stored.map(|()| keys)
    }

    /// The coins to ask about.
    pub fn coins(&self) -> impl Iterator<Item = Coin> {
        self.coins.iter().map(|held| held.coin)
    }

    /// Number of coins to ask about.
    pub fn len(&self) -> usize {
        self.coins.len()
    }

    /// Whether there are no coins to ask about.
    pub fn is_empty(&self) -> bool {
        self.coins.is_empty()
    }

    /// The coins with their spare numbers. They must be written down before a load changes any.
    pub fn spares(&self) -> impl Iterator<Item = (Coin, An)> {
        self.all().map(|held| (held.coin, held.spare))
    }

    /// Number of coins in each locker among those to ask about; nothing where a coin lies in none.
    pub fn locker_sizes(&self) -> Option<Vec<usize>> {
        let mut groups = Groups::default();
        let mut sizes = Vec::new();
        for held in &self.coins {
            if !held.is_in_locker() {
                return None;
            }
            let group = groups.of(held);
            sizes.resize(groups.count, 0);
            sizes[group] += 1;
        }
        Some(sizes)
    }

    /// Whether some of the coins to ask about share a number, so that a sum of their numbers may
    /// prove nothing (docs/protocol.md, "Sums").
    pub fn share_a_number(&self) -> bool {
        let mut numbers = HashSet::new();
        let mut held = self.coins.iter();
        !held.all(|held| numbers.insert(*held.an().expose()))
    }

    /// Takes out the coins to ask about, in `parts` parts of about the same size.
    pub fn deal(&mut self, parts: usize) -> Vec<Vec<Held>> {
        deal(self.coins.drain(..), parts)
    }

    /// Puts coins back.
    pub fn collect(&mut self, coins: Vec<Held>) {
        self.coins.extend(coins);
    }

    /// Compares all coins with the node, then gives every one its own number back.
    ///
    /// # Errors
    /// The node does not answer, or refuses; then some coins may have their spare numbers.
    pub fn settle(&mut self, client: &mut Client) -> Result<Settled, PurseError> {
        let known = |held: &&Held| !held.is_in_doubt();
        let claimed: Vec<(Coin, An)> = (self.all())
            .filter(known)
            .map(|held| (held.coin, held.an()))
            .collect();
        let wrong = failing(client, &claimed)?;
        // In a list each, since the two attempts at a coin in doubt must not be in one request.
        self.give_back(client, |held| Some(held.in_force))?;
        self.give_back(client, |held| held.or_in_force)?;
        let own: Vec<(Coin, An)> = (self.all()).map(|held| (held.coin, held.own)).collect();
        let astray = failing(client, &own)?;
        for held in &mut self.coins {
            (held.in_force, held.or_in_force) = (held.own, None);
        }
        Ok(Settled { wrong, astray })
    }

    /// Gives their own number back to coins that have the number given here.
    fn give_back(
        &self,
        client: &mut Client,
        has: impl Fn(&Held) -> Option<An>,
    ) -> Result<(), PurseError> {
        let back: Vec<(Coin, An, An)> = (self.all())
            .filter_map(|held| Some((held.coin, has(held)?, held.own)))
            .filter(|&(_, has, own)| has != own)
            .collect();
        let (outcomes, error) = client.pown(&back);
        if let Some(error) = error {
            return Err(error.into());
        }
        debug_assert!(outcomes.iter().all(|outcome| *outcome != Outcome::NotAsked));
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Held> {
        self.coins.iter().chain(&self.aside)
    }
}

fn failing(client: &mut Client, coins: &[(Coin, An)]) -> Result<usize, PurseError> {
    let passed = client.detect(coins)?;
    Ok(passed.into_iter().filter(|passed| !passed).count())
}
