use std::{
    cell::Cell,
    fmt::{Display, Formatter},
    net::IpAddr,
    ops::AddAssign,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    protocol::RaidaId,
    shard::{FixLook, NotIssued},
};

/// What a core did about healing since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealingCounts {
    /// Tickets issued.
    pub tickets_issued: u64,
    /// Tickets that were not issued because all were in use.
    pub tickets_refused: u64,
    /// Tickets that were not issued because their address had its share of them.
    pub tickets_refused_share: u64,
    /// Tickets that were not issued because one of their coins was in the maximum number of
    /// tickets.
    pub tickets_refused_coin: u64,
    /// Claims that were answered with coins.
    pub claims: u64,
    /// Claims that came from another address than the claiming server's.
    pub claims_from_elsewhere: u64,
    /// Claims of tickets that do not exist, or no longer, or whose coins all have other numbers
    /// now.
    pub claims_unknown: u64,
    /// Claims of tickets that the same server had claimed before.
    pub claims_again: u64,
    /// Claims that came over UDP, although the other servers are known.
    pub claims_over_udp: u64,
    /// Claims that were not looked at: too many in the server's name had been wrong.
    pub claims_not_looked_at: u64,
    /// Requests beyond what one address may send.
    pub too_many_requests: u64,
    /// Fixes.
    pub fixes: u64,
    /// Coins that fixes repaired.
    pub coins_repaired: u64,
    /// Coins that fixes did not repair, for whatever reason.
    pub coins_not_repaired: u64,
    /// Those of them with enough votes that something other than a fix had changed less than 300 s
    /// before, or anything since the fix came.
    pub coins_changed_lately: u64,
    /// Those of them with enough votes that a ticket of this node listed with the number in force.
    pub coins_vouched_here: u64,
    /// Servers that voted, in all fixes.
    pub votes: u64,
    /// Servers that were asked to vote and were down, slow, or refused.
    pub votes_missing: u64,
    /// Encryption tickets given.
    pub encryption_tickets: u64,
    /// Encryption tickets refused: without encryption, without proof, or without a secret shared
    /// with the server that reads it.
    pub encryption_tickets_refused: u64,
    /// Fixes of encryption.
    pub encryption_fixes: u64,
    /// Fixes of encryption that were not looked at: the node shares no secrets, or remembers as
    /// many used tickets as it can.
    pub encryption_fixes_refused: u64,
    /// Coins that got the number which two others vouched for.
    pub keys_fixed: u64,
    /// Encryption tickets that were accepted, of all fixes.
    pub encryption_tickets_accepted: u64,
    /// Encryption tickets that were not accepted: altered, of another coin, too old, used before,
    /// or too early.
    pub encryption_tickets_not_accepted: u64,
    /// Those of them that are valid, except that they may be from before the coin changed, or the
    /// node started.
    pub encryption_tickets_too_early: u64,
}

impl AddAssign for HealingCounts {
    fn add_assign(&mut self, other: HealingCounts) {
        self.tickets_issued += other.tickets_issued;
        self.tickets_refused += other.tickets_refused;
        self.tickets_refused_share += other.tickets_refused_share;
        self.tickets_refused_coin += other.tickets_refused_coin;
        self.claims += other.claims;
        self.claims_from_elsewhere += other.claims_from_elsewhere;
        self.claims_unknown += other.claims_unknown;
        self.claims_again += other.claims_again;
        self.claims_over_udp += other.claims_over_udp;
        self.claims_not_looked_at += other.claims_not_looked_at;
        self.too_many_requests += other.too_many_requests;
        self.fixes += other.fixes;
        self.coins_repaired += other.coins_repaired;
        self.coins_not_repaired += other.coins_not_repaired;
        self.coins_changed_lately += other.coins_changed_lately;
        self.coins_vouched_here += other.coins_vouched_here;
        self.votes += other.votes;
        self.votes_missing += other.votes_missing;
        self.encryption_tickets += other.encryption_tickets;
        self.encryption_tickets_refused += other.encryption_tickets_refused;
        self.encryption_fixes += other.encryption_fixes;
        self.encryption_fixes_refused += other.encryption_fixes_refused;
        self.keys_fixed += other.keys_fixed;
        self.encryption_tickets_accepted += other.encryption_tickets_accepted;
        self.encryption_tickets_not_accepted += other.encryption_tickets_not_accepted;
        self.encryption_tickets_too_early += other.encryption_tickets_too_early;
    }
}

/// Why a claim is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    OverUdp,
    NotItsAddress,
    TooManyWrong,
    NoSuchTicket,
    ClaimedAlready,
    CoinsHaveChanged,
}

/// Why no encryption ticket is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotVouched {
    Unencrypted,
    NoSecret,
    NoProof,
}

/// Why a fix of encryption is not looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotFixed {
    NoSecrets,
    NoRoom,
}

/// The trail of healing, for an operator who has to find out later what happened. Numbers count
/// everything. The log tells what was refused and repaired, and by whose votes, at level info, and
/// each ticket and each claim at debug. No line contains a ticket's number, an authenticity number
/// or what one is derived from.
///
/// Strangers decide how much is refused, and a log line costs much more than a refusal. So each
/// core logs only [a few](REFUSALS_A_SECOND) refusals, and fixes that repaired nothing, a second,
/// and how many more there were.
pub(super) struct Trail {
    /// The second that the next two are about.
    second: Cell<u64>,
    told: Cell<u32>,
    left_out: Cell<u64>,
    counts: Cell<HealingCounts>,
}

/// The name under which an operator finds the trail.
const TARGET: &str = "raida::healing";

const REFUSALS_A_SECOND: u32 = 100;

/// The result of a fix.
pub(super) struct Fixed {
    pub(super) now: Duration,
    pub(super) by: IpAddr,
    /// Coins that it named, each counted once, and how many of them were repaired.
    pub(super) coins: usize,
    pub(super) repaired: usize,
    /// Of the coins that were not repaired, those that had votes enough.
    pub(super) refused: FixesRefused,
    /// Tickets that it brought.
    pub(super) tickets: usize,
    /// Servers that voted, and servers that were down, slow, or refused. The others were not waited
    /// for: the ballot was decided before.
    pub(super) voted: Servers,
    pub(super) no_vote: Servers,
}

/// Coins that had votes enough, and are not fixed all the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FixesRefused {
    pub(super) changed_lately: usize,
    pub(super) vouched_here: usize,
}

impl FixesRefused {
    pub(super) fn add(&mut self, look: FixLook) {
        match look {
            FixLook::Fixable => {}
            FixLook::ChangedLately | FixLook::ChangedMeanwhile => self.changed_lately += 1,
            FixLook::VouchedHere => self.vouched_here += 1,
        }
    }
}

/// The result of a fix of encryption.
pub(super) struct KeyFixed {
    pub(super) now: Duration,
    pub(super) by: IpAddr,
    /// Tickets that it presented.
    pub(super) tickets: usize,
    /// The servers whose tickets were accepted.
    pub(super) accepted: Servers,
    /// Number of the other tickets that were valid except for the minute rule.
    pub(super) too_early: usize,
    /// The coin has the new number.
    pub(super) written: bool,
}

/// Servers by their numbers.
#[derive(Default)]
pub(super) struct Servers(Vec<RaidaId>);

impl Trail {
    pub(super) fn new() -> Trail {
        Trail {
            second: Cell::new(0),
            told: Cell::new(0),
            left_out: Cell::new(0),
            counts: Cell::default(),
        }
    }

    pub(super) fn counts(&self) -> HealingCounts {
        self.counts.get()
    }

    #[inline]
    fn count(&self, add: impl FnOnce(&mut HealingCounts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }

    #[inline]
    pub(super) fn issued(&self, coins: usize, to: IpAddr) {
        self.count(|counts| counts.tickets_issued += 1);
        tracing::debug!(target: TARGET, coins, %to, "ticket issued");
    }

    #[inline]
    pub(super) fn claimed(&self, raida: RaidaId, from: IpAddr) {
        self.count(|counts| counts.claims += 1);
        tracing::debug!(target: TARGET, %raida, %from, "ticket claimed");
    }

    #[cold]
    pub(super) fn not_issued(&self, now: Duration, coins: usize, to: IpAddr, why: NotIssued) {
        self.count(|counts| match why {
            NotIssued::PoolIsFull => counts.tickets_refused += 1,
            NotIssued::ShareIsUsed => counts.tickets_refused_share += 1,
            NotIssued::CoinIsListed => counts.tickets_refused_coin += 1,
        });
        if self.may_tell(now) {
            let why = match why {
                NotIssued::PoolIsFull => "all are in use: see [tickets] pool",
                NotIssued::ShareIsUsed => "its address has its share: see [tickets] shares",
                NotIssued::CoinIsListed => "too many list one of its coins: see [tickets] per_coin",
            };
            tracing::info!(target: TARGET, coins, %to, why, "no ticket");
        }
    }

    #[cold]
    pub(super) fn claim_refused(&self, now: Duration, raida: RaidaId, from: IpAddr, why: Refused) {
        self.count(|counts| match why {
            Refused::OverUdp => counts.claims_over_udp += 1,
            Refused::NotItsAddress => counts.claims_from_elsewhere += 1,
            Refused::TooManyWrong => counts.claims_not_looked_at += 1,
            Refused::NoSuchTicket | Refused::CoinsHaveChanged => counts.claims_unknown += 1,
            Refused::ClaimedAlready => counts.claims_again += 1,
        });
        if self.may_tell(now) {
            let why = match why {
                Refused::OverUdp => "over UDP, where anybody can write its address",
                Refused::NotItsAddress => "not its address",
                Refused::TooManyWrong => "too many in its name were wrong: see [limits]",
                Refused::NoSuchTicket => "no such ticket",
                Refused::ClaimedAlready => "claimed already",
                Refused::CoinsHaveChanged => "its coins have other numbers now",
            };
            tracing::info!(target: TARGET, %raida, %from, why, "claim refused");
        }
    }

    #[cold]
    pub(super) fn too_many(&self, now: Duration, from: IpAddr) {
        self.count(|counts| counts.too_many_requests += 1);
        if self.may_tell(now) {
            tracing::info!(target: TARGET, %from, "too many requests");
        }
    }

    /// Logs a fix that repaired something, which takes the votes of 13 servers. Other fixes are
    /// logged like refusals.
    pub(super) fn fixed(&self, fixed: Fixed) {
        let Fixed {
            now,
            by,
            coins,
            repaired,
            refused,
            tickets,
            voted,
            no_vote,
        } = fixed;
        let FixesRefused {
            changed_lately,
            vouched_here,
        } = refused;
        self.count(|counts| {
            counts.fixes += 1;
            counts.coins_repaired += repaired as u64;
            counts.coins_not_repaired += (coins - repaired) as u64;
            counts.coins_changed_lately += changed_lately as u64;
            counts.coins_vouched_here += vouched_here as u64;
            counts.votes += voted.0.len() as u64;
            counts.votes_missing += no_vote.0.len() as u64;
        });
        if repaired > 0 || self.may_tell(now) {
            tracing::info!(
                target: TARGET,
                coins, repaired, changed_lately, vouched_here, tickets, %by, %voted, %no_vote, "fix"
            );
        }
    }

    #[inline]
    pub(super) fn vouched(&self, to: RaidaId, by: IpAddr) {
        self.count(|counts| counts.encryption_tickets += 1);
        tracing::debug!(target: TARGET, %to, %by, "encryption ticket given");
    }

    #[cold]
    pub(super) fn not_vouched(&self, now: Duration, to: RaidaId, by: IpAddr, why: NotVouched) {
        self.count(|counts| counts.encryption_tickets_refused += 1);
        if self.may_tell(now) {
            let why = match why {
                NotVouched::Unencrypted => "asked for without encryption",
                NotVouched::NoSecret => "no secret is shared with that RAIDA: see [keys] file",
                NotVouched::NoProof => "no proof that the coin is the client's",
            };
            tracing::info!(target: TARGET, %to, %by, why, "no encryption ticket");
        }
    }

    #[cold]
    pub(super) fn key_not_fixed(&self, now: Duration, by: IpAddr, why: NotFixed) {
        self.count(|counts| counts.encryption_fixes_refused += 1);
        if self.may_tell(now) {
            let why = match why {
                NotFixed::NoSecrets => "no secrets are shared: see [keys] file",
                NotFixed::NoRoom => "no more used tickets can be remembered: see [tickets] pool",
            };
            tracing::info!(target: TARGET, %by, why, "no fix of encryption");
        }
    }

    /// Logs a fix that wrote a number. Other fixes are logged like refusals.
    pub(super) fn key_fixed(&self, fixed: KeyFixed) {
        let KeyFixed {
            now,
            by,
            tickets,
            accepted,
            too_early,
            written,
        } = fixed;
        self.count(|counts| {
            counts.encryption_fixes += 1;
            counts.keys_fixed += u64::from(written);
            counts.encryption_tickets_accepted += accepted.0.len() as u64;
            counts.encryption_tickets_not_accepted += (tickets - accepted.0.len()) as u64;
            counts.encryption_tickets_too_early += too_early as u64;
        });
        if written || self.may_tell(now) {
            tracing::info!(
                target: TARGET, tickets, %accepted, too_early, written, %by, "fix encryption"
            );
        }
    }

    fn may_tell(&self, now: Duration) -> bool {
        if self.second.replace(now.as_secs()) != now.as_secs() {
            self.told.set(0);
            let left_out = self.left_out.take();
            if left_out > 0 {
                tracing::info!(target: TARGET, left_out, "more was refused than is told here");
            }
        }
        let told = self.told.get();
        if told == REFUSALS_A_SECOND {
            self.left_out.set(self.left_out.get() + 1);
            return false;
        }
        self.told.set(told + 1);
        true
    }
}

impl Servers {
    pub(super) fn add(&mut self, raida: RaidaId) {
        self.0.push(raida);
    }
}

impl Display for Servers {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (index, raida) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "," };
            write!(f, "{gap}{raida}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_leaves_some_lines_a_second_and_a_count() {
        let trail = Trail::new();
        let told = |second: u64| {
            let at = Duration::from_millis(second * 1_000 + 5);
            (0..1_000).filter(|_| trail.may_tell(at)).count()
        };
        assert_eq!(told(7), 100);
        assert_eq!(trail.left_out.get(), 900);
        assert_eq!(told(7), 0);
        assert_eq!(trail.left_out.get(), 1_900);
        assert_eq!(told(8), 100);
        assert_eq!(trail.left_out.get(), 900, "the others were told of");
    }

    #[test]
    fn servers_are_told_by_their_numbers() {
        let mut servers = Servers::default();
        (RaidaId::all().filter(|raida| raida.get() % 10 == 4)).for_each(|raida| servers.add(raida));
        assert_eq!(servers.to_string(), "4,14,24");
        assert_eq!(Servers::default().to_string(), "");
    }
}
