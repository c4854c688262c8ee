use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{mailbox::Mailbox, server::all};
use crate::{
    net::{ConnectionCounts, Limits},
    protocol::lockers::Currency,
    service::{DatagramCounts, HealingCounts, LockerCounts, budget::BudgetCounts},
    shard::ChangeCounts,
};

/// What a node has done since it started, all shards together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests received.
    pub requests: u64,
    /// Echoes among them.
    pub echoes: u64,
    /// Requests that were given up without an answer, since the disk did not answer.
    pub given_up: u64,
    /// Coins that got a new owner.
    pub coins_powned: u64,
    /// Their worth in the smallest unit.
    #[serde(serialize_with = "units", deserialize_with = "from_units")]
    pub value_powned_units: u128,
    /// Connections.
    pub connections: ConnectionCounts,
    /// What waits, and what was refused for lack of room.
    pub waiting: BudgetCounts,
    /// What was not sent over UDP.
    pub datagrams: DatagramCounts,
    /// Requests that were answered as the same before them, and changed nothing.
    pub repeats: u64,
    /// Datagrams that got no answer, since the same was under way.
    pub repeats_unanswered: u64,
    /// Requests it remembers as carried out, those included that are older than 10 s.
    pub repeats_kept: u64,
    /// Tickets it keeps now, those included that are over and not replaced yet.
    pub tickets_kept: u64,
    /// Encryption tickets it remembers as used, those included that are too old by now.
    pub used_tickets_kept: u64,
    /// What was done about healing.
    pub healing: HealingCounts,
    /// Lockers that it keeps now.
    pub lockers: LockersKept,
    /// What is for sale now, by currency.
    pub for_sale: Vec<ForSale>,
    /// What was done about lockers and trades.
    pub locker_requests: LockerCounts,
    /// How changes wait.
    #[serde(default)]
    pub changes: ChangeCounts,
}

/// Lockers that a node keeps: without what is for sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockersKept {
    /// How many.
    pub lockers: u64,
    /// Coins in them.
    pub coins: u64,
    /// Their worth in the smallest unit.
    #[serde(serialize_with = "units", deserialize_with = "from_units")]
    pub value_units: u128,
    /// Memory by which they and trade lockers are found, in bytes.
    pub index_bytes: u64,
}

/// What is for sale in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForSale {
    /// What it is paid in.
    pub currency: String,
    /// Trade lockers.
    pub lockers: u64,
    /// Worth of their coins in the smallest unit.
    #[serde(serialize_with = "units", deserialize_with = "from_units")]
    pub value_units: u128,
}

/// Writes a number where 64 bits hold it, as most readers of JSON expect; else its digits as a
/// text.
fn units<S: Serializer>(units: &u128, out: S) -> Result<S::Ok, S::Error> {
    match u64::try_from(*units) {
        Ok(units) => out.serialize_u64(units),
        Err(_) => out.serialize_str(&units.to_string()),
    }
}

fn from_units<'de, D: Deserializer<'de>>(input: D) -> Result<u128, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Units {
        Number(u64),
        Digits(String),
    }
    match Units::deserialize(input)? {
        Units::Number(units) => Ok(units.into()),
        Units::Digits(digits) => digits.parse().map_err(D::Error::custom),
    }
}

/// Asks every core, and puts their answers together.
///
/// # Errors
/// What to tell the asker where a core does not answer.
pub(super) fn report(cores: &[Mailbox], limits: &Limits) -> Result<Counts, String> {
    let mut counts = Counts {
        connections: limits.connection_counts(),
        ..Counts::default()
    };
    counts
        .for_sale
        .extend(Currency::ALL.map(|currency| ForSale {
            currency: currency.name().to_owned(),
            lockers: 0,
            value_units: 0,
        }));
    for core in all(cores, Mailbox::ask_counts)? {
        counts.requests += core.counters.requests;
        counts.echoes += core.counters.echoes;
        counts.given_up += core.given_up;
        counts.coins_powned += core.counters.coins_powned;
        counts.value_powned_units += core.counters.value_powned;
        counts.repeats += core.counters.repeats;
        counts.repeats_unanswered += core.counters.repeats_unanswered;
        counts.repeats_kept += core.repeats as u64;
        counts.tickets_kept += core.tickets as u64;
        counts.used_tickets_kept += core.used_tickets as u64;
        counts.waiting += core.waiting;
        counts.healing += core.healing;
        counts.datagrams += core.datagrams;
        let (done, lockers, trades) = core.lockers;
        counts.lockers.lockers += lockers.lockers;
        counts.lockers.coins += lockers.coins;
        counts.lockers.value_units += lockers.value;
        counts.lockers.index_bytes += lockers.bytes;
        let kept = trades.lockers.into_iter().zip(trades.value);
        for (for_sale, (lockers, value)) in counts.for_sale.iter_mut().zip(kept) {
            for_sale.lockers += lockers;
            for_sale.value_units += value;
        }
        counts.locker_requests += done;
        counts.changes += core.changes;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worths_that_64_bits_do_not_hold_are_told_whole() {
        let border = u128::from(u64::MAX);
        for units in [0, border, border + 1, 184_468 * 100_000_000_000_000] {
            let counts = Counts {
                value_powned_units: units,
                lockers: LockersKept {
                    value_units: units,
                    ..LockersKept::default()
                },
                ..Counts::default()
            };
            let told = serde_json::json!(counts).to_string();
            assert_eq!(serde_json::from_str::<Counts>(&told).unwrap(), counts);
        }
    }
}
