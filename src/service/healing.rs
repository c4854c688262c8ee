//! Group 2: get ticket, get ticket by sum, validate, find, fix.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use futures_util::{
    future::{LocalBoxFuture, join_all},
    stream::{FuturesUnordered, StreamExt},
};

use super::{
    Caller, Node, Rate, Transport,
    ballot::Ballot,
    scatter::scatter,
    stored::stored,
    trail::{Fixed, FixesRefused, Refused, Servers},
};
use crate::runtime::Environment;
use crate::{
    coin::{AnTag, Coin},
    mesh::Decision,
    protocol::{
        Command, PassFail, RaidaId, Status,
        authentication::DetectSum,
        healing::{
            Find, FindAnswer, Fix, GetTicket, PartialGenerator, TicketAnswer, TicketId, Validate,
        },
        key_healing::SharedSecrets,
        pass_fail::Bitmap,
    },
    shard::{
        ClaimRefused, FixLook, RECORDS_A_TURN, TicketSettings, Unavailable, question, ticket_owner,
    },
    store::record::Change,
};

/// The other servers of the network, as far as healing needs them.
pub trait Others {
    /// Claims a ticket that a server issued; returns its coins. Giving the future up does no harm;
    /// the claim may be made nevertheless.
    fn claim(
        &self,
        issuer: RaidaId,
        ticket: TicketId,
    ) -> LocalBoxFuture<'static, Result<Vec<Coin>, NoVote>>;

    /// Whether a claim in this server's name may come from this address.
    fn may_claim(&self, claimant: RaidaId, address: IpAddr) -> bool;

    /// Has it looked up where this server is now, since a claim came from elsewhere.
    fn look_again(&self, claimant: RaidaId);

    /// Whether the answer of `may_claim` depends on the address.
    fn verifies(&self) -> bool;

    /// Whether any other server is known. If so, claims come from those, over TCP.
    fn are_known(&self) -> bool;
}

/// Why a server does not vouch for a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoVote {
    /// It says that the ticket is invalid.
    WrongTicket,
    /// It is down, slow, overloaded, or says something that cannot be understood.
    NoAnswer,
}

/// How this node takes part in the healing of keys.
#[derive(Clone, Debug, Default)]
pub struct KeyHealing {
    /// The secrets that it shares with the others. Without them it neither vouches nor gets vouched
    /// for.
    pub secrets: Option<Arc<SharedSecrets>>,
    /// Whether it vouches for clients that ask for it without encryption.
    pub allows_unencrypted: bool,
}

/// How this node takes part in healing.
#[derive(Clone)]
pub struct Healing {
    /// Maximum number of coins of a ticket and of a fix.
    pub max_coins: usize,
    /// Requests of one address, on each core. What other servers claim in their own name does not
    /// count.
    pub rate: Rate,
    /// Wrong claims in the name of a server from one address a minute, on each core, where the
    /// other servers are known; 0 for any number.
    pub wrong_claims_per_min: u32,
    /// Secrets between servers.
    pub keys: KeyHealing,
    /// The other servers.
    pub others: Rc<dyn Others>,
}

/// No other servers are known: every claim in a server's name is believed, and nothing can be
/// fixed.
#[derive(Clone, Copy, Debug)]
pub struct NoOthers;

impl Others for NoOthers {
    fn claim(&self, _: RaidaId, _: TicketId) -> LocalBoxFuture<'static, Result<Vec<Coin>, NoVote>> {
        Box::pin(std::future::ready(Err(NoVote::NoAnswer)))
    }

    fn may_claim(&self, _: RaidaId, _: IpAddr) -> bool {
        true
    }

    fn look_again(&self, _: RaidaId) {}

    fn verifies(&self) -> bool {
        false
    }

    fn are_known(&self) -> bool {
        false
    }
}

impl<E: Environment> Node<E> {
    /// Whether this address may send another request of the group now. Claims count here only where
    /// everybody's claims are believed; otherwise claims from elsewhere count when they are
    /// refused.
    #[inline]
    pub(super) fn admits(&self, command: Command, caller: Caller) -> bool {
        !command.heals()
            || command == Command::Validate && self.healing.others.verifies()
            || self.admits_healing(caller)
    }

    fn admits_healing(&self, caller: Caller) -> bool {
        let now = || self.shard().environment.monotonic();
        let is_admitted = self.healing_rates.admits(caller.stranger(), now);
        if !is_admitted {
            self.trail.too_many(now(), caller.address);
        }
        is_admitted
    }

    /// Answers a command of the group or of group 4, however long it takes; statuses are those of
    /// `raidax`.
    pub(super) async fn heal(
        &self,
        command: Command,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        match command {
            Command::GetTicket => self.get_ticket(payload, caller, out).await,
            Command::GetTicketSum => self.get_ticket_sum(payload, caller, out).await,
            Command::Validate => self.validate(payload, caller, out).await,
            Command::Find => self.find(payload, out).await,
            Command::Fix => self.fix(payload, caller, out).await,
            Command::EncryptionTicket => self.encryption_ticket(payload, caller, out).await,
            Command::FixEncryption => self.fix_encryption(payload, caller, out).await,
            other => unreachable!("{} is of another group", other.name()),
        }
    }

    /// Get ticket, where memory of this shard knows all the coins.
    #[inline]
    pub(super) fn get_ticket_now(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        let request = match GetTicket::parse(payload) {
            Ok(request) => request,
            Err(status) => return Some(status),
        };
        let coins = || request.records().map(|(coin, _)| coin);
        let owned = |coin: Coin| self.shard().owns(coin.page());
        if request.len() > self.healing.max_coins {
            return Some(Status::INVALID_LENGTH);
        }
        if request.len() > RECORDS_A_TURN || !coins().all(owned) {
            return None;
        }
        let before = self.shard().environment.monotonic();
        let mut answer = PassFail::begin(out, request.len());
        let coins = coins().enumerate().map(|(record, coin)| (coin, record));
        let an = |record| request.an(record);
        let compared = self
            .shard()
            .compare_now(coins, an, |record| answer.pass(record))?;
        if compared.is_err() {
            return Some(Status::UNAVAILABLE);
        }
        let passing = answer.passing();
        let passing = passing.filter_map(|record| request.coin(record));
        self.shard().list(before, passing);
        Some(
            self.answer_ticket(&request, caller, before, answer)
                .unwrap_or_else(|refusal| refusal),
        )
    }

    async fn get_ticket(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = GetTicket::parse(payload)?;
        if request.len() > self.healing.max_coins {
            return Err(Status::INVALID_LENGTH);
        }
        let before = self.shard().environment.monotonic();
        let records = request.records();
        let records = records.map(|(coin, an)| Some((coin, (coin, an))));
        let scattered = scatter(self.mesh.shards(), records);
        let mut answer = PassFail::begin(out, request.len());
        self.gather(scattered, question::DetectForTicket, |record| {
            answer.pass(record)
        })
        .await?;
        self.answer_ticket(&request, caller, before, answer)
    }

    #[inline]
    fn answer_ticket(
        &self,
        request: &GetTicket<'_>,
        caller: Caller,
        before: Duration,
        answer: PassFail<'_>,
    ) -> Result<Status, Status> {
        TicketAnswer::finish(answer, |answer| {
            let coins = answer
                .passing()
                .filter_map(|record| Some((request.coin(record)?, request.an(record)?.tag())));
            self.issue(before, answer.passed(), coins, caller)
        })
    }

    /// Like detect sum; where the sum is right, a ticket for all the coins.
    async fn get_ticket_sum(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = DetectSum::parse(payload)?;
        let coins = request.coins();
        if coins.len() > self.healing.max_coins {
            return Err(Status::INVALID_LENGTH);
        }
        // One record, the whole answer: there is no bitmap.
        let mut answer = PassFail::begin(out, 1);
        let named: Vec<Coin> = coins.iter().collect();
        let proven = self.prove(&named, request.sum()).await?;
        let before = self.shard().environment.monotonic();
        let tags: Vec<AnTag> = (proven.iter().flatten()).map(|an| an.tag()).collect();
        if proven.is_some() {
            let records = named.iter().zip(&tags);
            let records = records.map(|(&coin, &tag)| Some((coin, (coin, tag))));
            let scattered = scatter(self.mesh.shards(), records);
            // A coin that has another number by now is listed with one that is not in force.
            self.gather(scattered, question::UnchangedForTicket, |_| {})
                .await?;
            answer.pass(0);
        }
        TicketAnswer::finish(answer, |_| {
            self.issue(before, named.len(), named.iter().copied().zip(tags), caller)
        })
    }

    /// `before` is a moment before the coins were [listed](crate::shard::Shard::list).
    fn issue(
        &self,
        before: Duration,
        count: usize,
        coins: impl Iterator<Item = (Coin, AnTag)>,
        caller: Caller,
    ) -> Result<TicketId, Status> {
        // The request has been counted as one, which is right for a ticket of average length. A
        // longer ticket counts as several, whether it is issued or not: its coins have been looked
        // at.
        let worth = count.div_ceil(TicketSettings::COINS_A_TICKET);
        if worth > 1 {
            self.healing_rates.charge(caller.stranger(), worth - 1);
        }
        match self.shard().issue(before, caller.stranger(), count, coins) {
            Ok(ticket) => {
                self.trail.issued(count, caller.address);
                Ok(ticket)
            }
            Err(why) => {
                let now = self.shard().environment.monotonic();
                self.trail.not_issued(now, count, caller.address, why);
                Err(Status::NO_TICKET_SLOT)
            }
        }
    }

    /// Validate, where the ticket and its coins are this shard's, and in memory.
    ///
    /// A ticket says that its coins were the client's when it was issued. A coin that has another
    /// number since may be another owner's, who must not lose it to an old ticket: the coin is left
    /// out.
    #[inline]
    pub(super) fn validate_now(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        let claim = match self.claim_of(payload, caller) {
            Ok(claim) => claim,
            Err(status) => return Some(status),
        };
        let status = self.claim_now(claim, caller, out);
        self.end_claim(claim, caller, status);
        status
    }

    #[inline]
    fn claim_now(
        &self,
        (claimant, ticket): (RaidaId, TicketId),
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        if ticket_owner(ticket, self.mesh.shards()) != self.shard().id {
            return None;
        }
        let shard = self.shard();
        let claimed = match shard.claim(ticket, claimant) {
            Ok(coins) if coins.len() > RECORDS_A_TURN => None,
            Ok(coins) if !coins.iter().all(|(coin, _)| shard.owns(coin.page())) => None,
            Ok(coins) => {
                let mut same = Vec::with_capacity(coins.len());
                let looked_at = shard.unchanged_now(&coins, |record| same.push(coins[record].0));
                looked_at.map(|known| Ok(known.map(|()| same)))
            }
            Err(refused) => Some(Err(refused)),
        };
        let Some(claimed) = claimed else {
            shard.withdraw_claim(ticket, claimant);
            return None;
        };
        Some(match claimed {
            Ok(Ok(coins)) if caller.takes(coins.len() * Coin::SIZE).is_err() => {
                shard.withdraw_claim(ticket, claimant);
                Status::ASK_OVER_TCP
            }
            Ok(Ok(coins)) => self.answer_claim(Ok(coins), claimant, caller, out),
            Ok(Err(Unavailable)) => {
                // The claim may be made again.
                shard.withdraw_claim(ticket, claimant);
                Status::UNAVAILABLE
            }
            Err(refused) => self.answer_claim(Err(refused), claimant, caller, out),
        })
    }

    async fn validate(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let claim = self.claim_of(payload, caller)?;
        let answered = self.claim_later(claim, caller, out).await;
        self.end_claim(
            claim,
            caller,
            Some(answered.unwrap_or_else(|refusal| refusal)),
        );
        answered
    }

    async fn claim_later(
        &self,
        (claimant, ticket): (RaidaId, TicketId),
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let owner = ticket_owner(ticket, self.mesh.shards());
        let claimed = self.mesh.ask(owner, question::Claim(ticket, claimant));
        let coins = match claimed.await {
            Ok(coins) => coins,
            Err(refused) => return Ok(self.answer_claim(Err(refused), claimant, caller, out)),
        };
        let records = coins.iter().map(|&(coin, tag)| Some((coin, (coin, tag))));
        let scattered = scatter(self.mesh.shards(), records);
        let mut is_same = vec![false; coins.len()];
        let looked_at = self.gather(scattered, question::Unchanged, |record| {
            is_same[record] = true
        });
        let looked_at = looked_at.await;
        let same = coins.iter().zip(is_same);
        let same = same.filter_map(|(&(coin, _), is_same)| is_same.then_some(coin));
        let same: Vec<Coin> = same.collect();
        let is_told = looked_at.and_then(|()| caller.takes(same.len() * Coin::SIZE));
        if let Err(refusal) = is_told {
            let withdrawn = question::WithdrawClaim(ticket, claimant);
            self.mesh.ask(owner, withdrawn).await;
            return Err(refusal);
        }
        Ok(self.answer_claim(Ok(same), claimant, caller, out))
    }

    /// Which claim a request makes. It counts as a wrong claim until it has
    /// [ended](Node::end_claim).
    fn claim_of(&self, payload: &[u8], caller: Caller) -> Result<(RaidaId, TicketId), Status> {
        let Validate { claimant, ticket } = Validate::parse(payload)?;
        let are_known = self.healing.others.are_known();
        if are_known && caller.transport == Transport::Udp {
            // Anybody can write a server's address on a datagram.
            self.refuse_claim(claimant, caller, Refused::OverUdp);
            return Err(Status::UNKNOWN_ENCRYPTION);
        }
        if !self.healing.others.may_claim(claimant, caller.address) {
            if !self.admits_healing(caller) {
                return Err(Status::TOO_MANY_REQUESTS);
            }
            self.healing.others.look_again(claimant);
            self.refuse_claim(claimant, caller, Refused::NotItsAddress);
            return Err(Status::NO_SUCH_TICKET);
        }
        let now = || self.shard().environment.monotonic();
        if are_known && !self.wrong_claims.admits(claimant, caller.stranger(), now) {
            self.refuse_claim(claimant, caller, Refused::TooManyWrong);
            return Err(Status::TOO_MANY_REQUESTS);
        }
        let Some(ticket) = ticket else {
            self.refuse_claim(claimant, caller, Refused::NoSuchTicket);
            return Err(Status::NO_SUCH_TICKET);
        };
        Ok((claimant, ticket))
    }

    /// Takes back that a claim counts as wrong, where it ended otherwise.
    #[inline]
    fn end_claim(
        &self,
        (claimant, _): (RaidaId, TicketId),
        caller: Caller,
        status: Option<Status>,
    ) {
        if status != Some(Status::NO_SUCH_TICKET) && self.healing.others.are_known() {
            self.wrong_claims.was_right(claimant, caller.stranger());
        }
    }

    fn answer_claim(
        &self,
        claimed: Result<Vec<Coin>, ClaimRefused>,
        claimant: RaidaId,
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Status {
        match claimed {
            Ok(coins) if coins.is_empty() => {
                self.refuse_claim(claimant, caller, Refused::CoinsHaveChanged);
                Status::NO_SUCH_TICKET
            }
            Ok(coins) => {
                Validate::answer(coins, out);
                self.trail.claimed(claimant, caller.address);
                Status::SUCCESS
            }
            Err(ClaimRefused::NoSuchTicket) => {
                self.refuse_claim(claimant, caller, Refused::NoSuchTicket);
                Status::NO_SUCH_TICKET
            }
            Err(ClaimRefused::ClaimedAlready) => {
                self.refuse_claim(claimant, caller, Refused::ClaimedAlready);
                Status::TICKET_CLAIMED
            }
        }
    }

    fn refuse_claim(&self, claimant: RaidaId, caller: Caller, why: Refused) {
        let now = self.shard().environment.monotonic();
        self.trail.claim_refused(now, claimant, caller.address, why);
    }

    /// Find, where memory of this shard knows all the coins.
    #[inline]
    pub(super) fn find_now(&self, payload: &[u8], out: &mut Vec<u8>) -> Option<Status> {
        let request = match Find::parse(payload) {
            Ok(request) => request,
            Err(status) => return Some(status),
        };
        let coins = || request.records().map(|(coin, ..)| coin);
        let owned = |coin: Coin| self.shard().owns(coin.page());
        if request.len() > RECORDS_A_TURN || !coins().all(owned) {
            return None;
        }
        let mut answer = FindAnswer::begin(out, request.len());
        let coins = coins().enumerate().map(|(record, coin)| (coin, record));
        let numbers = |record| request.numbers(record);
        let shard = self.shard();
        match shard.find_now(coins, numbers, |record, found| answer.found(record, found))? {
            Ok(()) => Some(answer.finish()),
            Err(_) => Some(Status::UNAVAILABLE),
        }
    }

    async fn find(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<Status, Status> {
        let request = Find::parse(payload)?;
        let records = request.records();
        let records = records.map(|(coin, an, pan)| Some((coin, (coin, an, pan))));
        let scattered = scatter(self.mesh.shards(), records);
        let asked = scattered.into_shards().map(|(shard, indices, records)| {
            let found = self.mesh.ask(shard, question::Find(records));
            async move { (indices, found.await) }
        });
        let mut answer = FindAnswer::begin(out, request.len());
        for (indices, found) in join_all(asked).await {
            for (record, found) in indices.into_iter().zip(found?) {
                answer.found(record, found);
            }
        }
        Ok(answer.finish())
    }

    /// Asks every server that gave the client a ticket, and repairs what 13 of them vouch for. The
    /// repair is one record in the log, so that after a crash all of it is repaired or nothing.
    async fn fix(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = Fix::parse(payload)?;
        let coins = request.coins();
        if coins.len() > self.healing.max_coins {
            return Err(Status::INVALID_LENGTH);
        }
        let own = self.rules.get().raida;
        let voters: Vec<(RaidaId, TicketId)> = RaidaId::all()
            .filter(|&raida| raida != own)
            .filter_map(|raida| Some((raida, request.ticket(raida)?)))
            .collect();
        // Each ticket makes another server work as much as a request of its own would.
        self.healing_rates.charge(caller.stranger(), voters.len());
        let mut ballot = Ballot::new(coins.iter().collect(), voters.len());
        let (voted, no_vote) = self.collect(&mut ballot, &voters, caller).await;
        let approved = ballot.approved();
        let mut refused = FixesRefused::default();
        let repaired = self
            .repair(&approved, &request.generator, caller.came, &mut refused)
            .await;
        self.trail.fixed(Fixed {
            now: self.shard().environment.monotonic(),
            by: caller.address,
            coins: ballot.coins(),
            repaired: repaired.as_ref().map_or(0, Vec::len),
            refused,
            tickets: voters.len(),
            voted,
            no_vote,
        });
        let repaired = repaired?;
        let mut answer = PassFail::begin(out, coins.len());
        for (record, coin) in coins.iter().enumerate() {
            if repaired.binary_search(&coin).is_ok() {
                answer.pass(record);
            }
        }
        Ok(answer.finish(Bitmap::IfMixed))
    }

    /// Claims the tickets of a fix, all at the same time, until the ballot is decided. Returns who
    /// voted and who did not.
    async fn collect(
        &self,
        ballot: &mut Ballot,
        voters: &[(RaidaId, TicketId)],
        caller: Caller,
    ) -> (Servers, Servers) {
        let (mut voted, mut no_vote) = (Servers::default(), Servers::default());
        if ballot.is_decided() {
            // Too few tickets: they stay valid for another time.
            return (voted, no_vote);
        }
        let now = self.shard().environment.monotonic();
        let stranger = caller.stranger();
        // Anybody can write another's address on a datagram.
        let is_trusted =
            caller.transport == Transport::Tcp && self.own_claims.trusts(stranger, now);
        let mut claims = FuturesUnordered::new();
        let mut asked: Vec<RaidaId> = Vec::with_capacity(voters.len());
        for &(raida, ticket) in voters {
            if !self.own_claims.admits(raida, is_trusted, now) {
                ballot.no_vote();
                no_vote.add(raida);
                continue;
            }
            asked.push(raida);
            let claim = self.healing.others.claim(raida, ticket);
            claims.push(async move { (raida, claim.await) });
        }
        let mut wrong = 0;
        while !ballot.is_decided()
            && let Some((raida, coins)) = claims.next().await
        {
            asked.retain(|&one| one != raida);
            let coins = match coins {
                Ok(coins) => coins,
                Err(why) => {
                    ballot.no_vote();
                    no_vote.add(raida);
                    match why {
                        NoVote::WrongTicket => wrong += 1,
                        NoVote::NoAnswer => self.own_claims.was_right(raida),
                    }
                    continue;
                }
            };
            self.own_claims.was_right(raida);
            let is_long = coins.len() > RECORDS_A_TURN;
            ballot.vote(coins);
            voted.add(raida);
            if is_long {
                self.shard().environment.turn_in_line().await;
            }
        }
        // The servers that have not answered count like those that have.
        match ballot.approved().is_empty() && wrong > 0 {
            true => wrong += asked.len(),
            false => (asked.into_iter()).for_each(|raida| self.own_claims.was_right(raida)),
        }
        if wrong > 0 {
            self.own_claims.were_wrong(stranger, wrong, now);
        }
        (voted, no_vote)
    }

    /// Gives coins, rising, the numbers that a generator says, and returns those that it could
    /// change, rising.
    ///
    /// While the votes were collected anything may have happened to the coins. So all reasons
    /// against the fix are checked when the coins are held (docs/protocol.md, "Fix").
    async fn repair(
        &self,
        coins: &[Coin],
        generator: &PartialGenerator,
        came: Duration,
        refused: &mut FixesRefused,
    ) -> Result<Vec<Coin>, Status> {
        let mut repaired = Vec::new();
        if coins.is_empty() {
            return Ok(repaired);
        }
        let (own, mfs) = (self.rules.get().raida, self.shard().month());
        let mut changes = Vec::with_capacity(coins.len());
        for some in coins.chunks(HASHED_A_TURN) {
            changes.extend(some.iter().map(|&coin| Change {
                coin,
                an: generator.an(own, coin),
                mfs,
            }));
            if changes.len() < coins.len() {
                self.shard().environment.turn_in_line().await;
            }
        }
        let changed = self.mesh.change_by_fix(coins, came, |held, looks| {
            looks.iter().for_each(|&look| refused.add(look));
            // A coin for sale moves only to its buyer, or back.
            let movable = (changes.into_iter().zip(looks).enumerate())
                .filter(|&(index, (_, look))| look == FixLook::Fixable && !held.is_on_sale(index))
                .map(|(_, (change, _))| change);
            let changes: Vec<Change> = movable.collect();
            repaired.extend(changes.iter().map(|change| change.coin));
            let notes = stored(&changes, coins.iter().copied());
            Decision::<Status>::Change(changes, notes)
        });
        changed.await??;
        Ok(repaired)
    }
}

/// Numbers derived in one go: some 50 µs.
pub(super) const HASHED_A_TURN: usize = 384;
