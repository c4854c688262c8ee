use super::choice::Choice;
use crate::client::{Client, ClientError, Outcome};
use crate::coin::{An, Coin, Denomination};
use crate::protocol::AdminKey;
use crate::protocol::executive::SessionId;

/// Coins to ask a node about. Each has two authenticity numbers, its own and a spare one: a load that
/// powns goes back and forth between the two, so that at no moment a coin has a number that was not
/// written down before the load began. The XOR of the two is the same for all coins, since that is how
/// a pown by sum changes several at once. A load of fixes gives coins numbers that each request
/// derives anew; only coins that were minted for it are to be asked about then.
pub struct Purse {
    coins: Vec<Held>,
    /// Coins that no load asks about: keys, and what the choice of coins leaves out.
    aside: Vec<Held>,
}

/// One coin of a [`Purse`].
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Which one.
    pub coin: Coin,
    own: An,
    spare: An,
    in_force: An,
    /// Where nobody knows which of two numbers is in force: the other one.
    or_in_force: Option<An>,
}

/// Why there are no coins to ask about, or why they are not what they were.
#[derive(Debug, thiserror::Error)]
pub enum PurseError {
    /// The node did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There are no free serial numbers.
    #[error("the node has no free serial numbers, or others have reserved them")]
    NoneFree,
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// How a node's coins were found after a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Coins whose number in force is not the one that the node's answers made it.
    pub wrong: usize,
    /// Coins that the node would not give back their own number.
    pub astray: usize,
}

impl Held {
    /// The number in force.
    #[inline]
    pub fn an(&self) -> An {
        self.in_force
    }

    /// Of own and spare number the one not in force.
    #[inline]
    pub fn other_an(&self) -> An {
        match self.in_force == self.own {
            true => self.spare,
            false => self.own,
        }
    }

    /// Whether nobody knows which number is in force.
    pub fn is_in_doubt(&self) -> bool {
        self.or_in_force.is_some()
    }

    /// The other number is in force from now on.
    pub(super) fn change(&mut self) {
        self.in_force = self.other_an();
    }

    /// The other number may be in force.
    pub(super) fn doubt(&mut self) {
        self.or_in_force = Some(self.other_an());
    }

    /// A fix gave it this number.
    pub(super) fn fixed(&mut self, an: An) {
        self.in_force = an;
    }

    /// A fix may have given it this number.
    pub(super) fn may_be_fixed(&mut self, an: An) {
        self.or_in_force = Some(an);
    }
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

    /// Has a node make coins: up to `count`, evenly of all denominations.
    ///
    /// # Errors
    /// The node refuses, or has no serial numbers free. What it made before is lost then, and in
    /// circulation.
    pub fn mint(client: &mut Client, key: &AdminKey, count: usize) -> Result<Purse, PurseError> {
        let mut session = [0; SessionId::SIZE];
        getrandom::fill(&mut session)?;
        let session = SessionId::new(u32::from_be_bytes(session));
        let all: Vec<Denomination> = Denomination::all().collect();
        let of_each = count.div_ceil(all.len());
        let free = client.available_sns(session, key, &all)?;
        let mut wanted: Vec<Coin> = Vec::new();
        for denomination in all {
            let of_it = free.iter().filter(|coin| coin.denomination == denomination);
            wanted.extend(of_it.take(of_each));
        }
        wanted.truncate(count);
        if wanted.is_empty() {
            return Err(PurseError::NoneFree);
        }
        let mut made = Vec::with_capacity(wanted.len());
        for coins in wanted.chunks(client.created_at_once()) {
            let ans = client.create_coins(session, key, coins)?;
            made.extend(coins.iter().copied().zip(ans));
        }
        Purse::new(made)
    }

    /// Puts coins aside that no request is to be about.
    pub fn narrow(&mut self, choice: Choice) {
        self.aside.extend(choice.rule_out(&mut self.coins));
    }

    /// Puts up to `count` coins aside that requests can be encrypted with, evenly from all there are,
    /// and gives them back with their numbers, which stay as they are while a load goes on.
    pub fn keys(&mut self, count: usize) -> Vec<(Coin, An)> {
        let step = (self.coins.len() / count.max(1)).max(1);
        let mut index = 0;
        let is_key = |_: &mut Held| {
            index += 1;
            index % step == 0 && index / step <= count
        };
        let keys: Vec<Held> = self.coins.extract_if(.., is_key).collect();
        self.aside.extend(&keys);
        keys.iter().map(|held| (held.coin, held.own)).collect()
    }

    /// The coins to ask about.
    pub fn coins(&self) -> impl Iterator<Item = Coin> {
        self.coins.iter().map(|held| held.coin)
    }

    /// How many coins there are to ask about.
    pub fn len(&self) -> usize {
        self.coins.len()
    }

    /// Whether there is none to ask about.
    pub fn is_empty(&self) -> bool {
        self.coins.is_empty()
    }

    /// The coins with their spare numbers, to be written down before a load changes any.
    pub fn spares(&self) -> impl Iterator<Item = (Coin, An)> {
        self.all().map(|held| (held.coin, held.spare))
    }

    /// Takes the coins to ask about out in so many parts of about the same size.
    pub fn deal(&mut self, parts: usize) -> Vec<Vec<Held>> {
        let mut dealt = vec![Vec::new(); parts];
        for (index, held) in self.coins.drain(..).enumerate() {
            dealt[index % parts].push(held);
        }
        dealt
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
        // In a list each, for the two attempts at a coin in doubt must not be in one request.
        self.give_back(client, |held| Some(held.in_force))?;
        self.give_back(client, |held| held.or_in_force)?;
        let own: Vec<(Coin, An)> = (self.all()).map(|held| (held.coin, held.own)).collect();
        let astray = failing(client, &own)?;
        for held in &mut self.coins {
            (held.in_force, held.or_in_force) = (held.own, None);
        }
        Ok(Settled { wrong, astray })
    }

    /// Gives coins their own number back that have the one said here.
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

    /// Takes the coins out of circulation. They have to have their own numbers.
    ///
    /// # Errors
    /// The node does not answer, or refuses.
    pub fn delete(&mut self, client: &mut Client, key: &AdminKey) -> Result<(), PurseError> {
        let coins: Vec<(Coin, An)> = self.all().map(|h| (h.coin, h.own)).collect();
        match client.delete_coins(key, &coins).1 {
            Some(error) => Err(error.into()),
            None => {
                self.coins.clear();
                self.aside.clear();
                Ok(())
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Held> {
        self.coins.iter().chain(&self.aside)
    }
}

fn failing(client: &mut Client, coins: &[(Coin, An)]) -> Result<usize, PurseError> {
    let passed = client.detect(coins)?;
    Ok(passed.into_iter().filter(|passed| !passed).count())
}
