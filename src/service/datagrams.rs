use std::{cell::Cell, net::IpAddr, ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Rate, rate::Rates};
use crate::{
    protocol::{Status, frame::REFUSED_BYTES_MIN},
    shard::Stranger,
};

/// How much strangers can make a node send over UDP. The source of a request is easily forged
/// there, so an answer may go to somebody who never asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramRules {
    /// Maximum length of an answer as a multiple of the length of the datagram that it answers, UDP
    /// payload to UDP payload. A longer answer is refused with 191.
    pub amplification: usize,
    /// Refusals that each core sends to one address a second, and 10 times as many to all together;
    /// 0 for any number.
    pub refusals_per_s: u32,
}

/// Refusals for all addresses together, as a multiple of the refusals for one address. It limits
/// forged sources: a stranger can forge any number of them.
pub const REFUSALS_OF_ALL: u32 = 10;

/// The longest answer that a datagram can carry, bytes: 65,535 less the IPv4 and UDP headers.
const ANSWER_BYTES_MAX: usize = 65_507;

/// What a core did not send over UDP since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramCounts {
    /// Answers that were too long for their requests, and refused with 191 instead.
    pub answers_too_long: u64,
    /// Refusals that were not sent: the datagram was too short to get one, or too many were
    /// refused.
    pub refusals_unsent: u64,
}

impl AddAssign for DatagramCounts {
    fn add_assign(&mut self, other: DatagramCounts) {
        self.answers_too_long += other.answers_too_long;
        self.refusals_unsent += other.refusals_unsent;
    }
}

/// A datagram, as far as it decides whether it is refused with an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct CameAs {
    /// Its source address, as it says.
    pub address: IpAddr,
    /// Its size.
    pub bytes: usize,
}

/// What goes out over UDP, on one core.
pub(super) struct Datagrams {
    amplification: usize,
    refusals: Rates,
    refusals_of_all: Rates,
    counts: Cell<DatagramCounts>,
}

impl Datagrams {
    pub(super) fn new(rules: DatagramRules) -> Datagrams {
        let of = |per_s: u32| Rate {
            per_s,
            burst: per_s,
        };
        Datagrams {
            amplification: rules.amplification,
            refusals: Rates::new(of(rules.refusals_per_s)),
            refusals_of_all: Rates::of_all(of(rules
                .refusals_per_s
                .saturating_mul(REFUSALS_OF_ALL))),
            counts: Cell::default(),
        }
    }

    pub(super) fn counts(&self) -> DatagramCounts {
        self.counts.get()
    }

    /// The longest answer to a datagram of this length.
    #[inline]
    pub(super) fn answer_bytes_max(&self, datagram: usize) -> usize {
        (datagram.saturating_mul(self.amplification)).min(ANSWER_BYTES_MAX)
    }

    #[cold]
    pub(super) fn too_long(&self) {
        self.count(|counts| counts.answers_too_long += 1);
    }

    /// Whether a datagram of this length may be answered with a refusal now. Counts the refusal.
    #[cold]
    pub(super) fn may_refuse(
        &self,
        datagram: CameAs,
        status: Status,
        now: impl Fn() -> Duration,
    ) -> bool {
        // Only an echo, a version or an audit comes this far in so short a datagram, and only a
        // right request has an answer that is too long.
        let is_told = datagram.bytes >= REFUSED_BYTES_MIN || status == Status::ASK_OVER_TCP;
        let stranger = Stranger::of_datagram(datagram.address);
        // The address comes first: an address that has had its share takes nothing from the others.
        let may = is_told
            && self.refusals.admits(stranger, &now)
            && self.refusals_of_all.admits(stranger, &now);
        if !may {
            self.count(|counts| counts.refusals_unsent += 1);
        }
        may
    }

    fn count(&self, add: impl FnOnce(&mut DatagramCounts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }
}
