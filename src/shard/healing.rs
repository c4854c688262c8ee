//! Tickets and encryption tickets: issued, claimed, used up.

use std::{future::Future, rc::Rc, time::Duration};

use super::{
    Shard, Unavailable,
    ask::{Answered, Question, Short},
    changed::{Changed, Now},
    owner::now,
    stranger::Stranger,
    tickets::{ClaimRefused, NotIssued, PoolIsFull},
};
use crate::runtime::Environment;
use crate::{
    coin::{AnTag, Coin},
    protocol::{
        RaidaId,
        healing::TicketId,
        key_healing::{Minute, Verdict},
    },
    store::Thing,
};

/// Claim a ticket of this shard in a server's name: its coins.
#[derive(Debug)]
pub struct Claim(pub TicketId, pub RaidaId);

/// Take back a claim that was made just now and not answered.
#[derive(Debug)]
pub struct WithdrawClaim(pub TicketId, pub RaidaId);

/// Use up these encryption tickets for a coin, except those from before its last possible change.
/// The answer says which are accepted; these are used up now.
#[derive(Debug)]
pub struct UseTickets(pub Coin, pub Vec<Thing>);

/// Take that back, since nothing came of it.
#[derive(Debug)]
pub struct GiveBackTickets(pub Vec<Thing>);

/// Remember, for the next start, that these were used: asked of the first shard only. The answer
/// comes when it is durable.
#[derive(Debug)]
pub struct RememberUsed(pub Vec<Thing>);

impl Short for Claim {
    type Answer = Result<Vec<(Coin, AnTag)>, ClaimRefused>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Self::Answer {
        shard.claim(self.0, self.1)
    }
}

impl Short for WithdrawClaim {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.withdraw_claim(self.0, self.1);
    }
}

impl Short for UseTickets {
    type Answer = Result<Vec<Verdict>, PoolIsFull>;

    fn answer<E: Environment>(self, shard: &Shard<E>) -> Self::Answer {
        shard.use_tickets(self.0, &self.1)
    }
}

impl Short for GiveBackTickets {
    type Answer = ();

    fn answer<E: Environment>(self, shard: &Shard<E>) {
        shard.used_tickets.borrow_mut().give_back(&self.0);
    }
}

impl Question for RememberUsed {
    type Answer = Result<(), Unavailable>;

    fn begin<E: Environment>(
        self,
        shard: &Rc<Shard<E>>,
    ) -> Answered<Self::Answer, impl Future<Output = Self::Answer> + 'static> {
        let shard = shard.clone();
        Answered::Later(async move { shard.remember_used(&self.0).await })
    }
}

impl<E: Environment> Shard<E> {
    /// Issues a ticket of this shard to somebody for coins whose ANs were right, `count` of them.
    /// It lives from before they were looked at.
    ///
    /// # Errors
    /// As many are issued as there can be, or as this one may have.
    pub fn issue(
        &self,
        before: Duration,
        to: Stranger,
        count: usize,
        coins: impl Iterator<Item = (Coin, AnTag)>,
    ) -> Result<TicketId, NotIssued> {
        let random = |bytes: &mut [u8]| self.environment.random(bytes);
        let mut tickets = self.tickets.borrow_mut();
        tickets.issue(before, to, count, coins, random)
    }

    /// Claims a ticket of this shard in a server's name.
    ///
    /// # Errors
    /// There is no such ticket, or it was claimed before.
    pub fn claim(
        &self,
        ticket: TicketId,
        claimant: RaidaId,
    ) -> Result<Vec<(Coin, AnTag)>, ClaimRefused> {
        let now = self.environment.monotonic();
        let mut tickets = self.tickets.borrow_mut();
        Ok(tickets.claim(now, ticket, claimant)?.collect())
    }

    /// Takes back a claim that was made just now and not answered.
    pub fn withdraw_claim(&self, ticket: TicketId, claimant: RaidaId) {
        self.tickets.borrow_mut().withdraw(ticket, claimant);
    }

    /// Sets whether the shard notes from now on when coins change and which are on tickets.
    /// Requests that use encryption tickets or fix coins need this; a node that takes none can do
    /// without.
    pub fn note_changes(&self, is_noted: bool) {
        self.notes_changes.set(is_noted);
        if !is_noted {
            *self.changed.borrow_mut() = Changed::new(now(&self.environment));
        }
    }

    /// Notes that a ticket of this node, which lives from `since` at most, lists these coins. Their
    /// ANs were found right in the same turn, before anything else could change them.
    #[inline]
    pub fn list(&self, since: Duration, coins: impl IntoIterator<Item = Coin>) {
        if self.notes_changes.get() {
            self.listed.borrow_mut().add(coins, since);
        }
    }

    /// The time that changes are noted with; `None` where they are not noted.
    #[inline]
    pub(super) fn noted_now(&self) -> Option<Now> {
        self.notes_changes.get().then(|| now(&self.environment))
    }

    /// The current minute, by which encryption tickets are dated.
    pub fn minute(&self) -> Minute {
        Minute::of_unix_seconds(self.environment.unix_seconds())
    }

    fn use_tickets(&self, coin: Coin, tickets: &[Thing]) -> Result<Vec<Verdict>, PoolIsFull> {
        let now = now(&self.environment);
        let newest = self.changed.borrow().minute(coin, now);
        let is_too_early = |ticket: &Thing| !Minute(ticket.moment).is_good_since(newest);
        let mut used = self.used_tickets.borrow_mut();
        let now = Minute::of_unix_seconds(now.unix_seconds);
        used.use_up(now, coin, tickets, is_too_early)
    }

    /// Encryption tickets that are remembered as used.
    pub fn used_ticket_count(&self) -> usize {
        self.used_tickets.borrow().len()
    }

    /// Tickets in the pool, those included that are over and not replaced yet.
    pub fn ticket_count(&self) -> usize {
        self.tickets.borrow().len()
    }

    async fn remember_used(&self, tickets: &[Thing]) -> Result<(), Unavailable> {
        self.check_disk()?;
        let storage = self.environment.storage();
        let remembered = self.used_file.remember(storage, tickets);
        match self.write_other(remembered).await {
            Ok(()) => {
                self.is_failure_told.set(false);
                Ok(())
            }
            // Clients decide how often this is tried: it is told once until it works again.
            Err(error) => {
                if !self.is_failure_told.replace(true) {
                    tracing::error!(%error, "no key is healed: used tickets cannot be written down");
                }
                Err(Unavailable)
            }
        }
    }
}
