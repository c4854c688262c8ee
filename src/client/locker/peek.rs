use std::collections::BTreeSet;

use super::{LockerError, LockerSecret};
use crate::client::{ClientError, PerRaida, Raidas};
use crate::coin::Coin;
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// What the servers say lies in a locker, or in an offer: on each the coins in the order in which
/// they were stored there.
#[derive(Debug)]
pub struct Peeked(pub PerRaida<Result<Vec<Coin>, ClientError>>);

/// What most servers say, and what the other servers that answered say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The coins that most servers have, in the order in which one of them does.
    pub coins: Vec<Coin>,
    /// Number of servers that have exactly these.
    pub servers: usize,
    /// The others.
    pub others: Vec<Difference>,
}

/// How a server's coins differ from those of the majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The server.
    pub raida: RaidaId,
    /// Coins that it lacks.
    pub missing: Vec<Coin>,
    /// Coins that it has in addition.
    pub extra: Vec<Coin>,
}

/// Asks every server what lies in a locker.
pub fn peek(secret: &LockerSecret, raidas: &Raidas) -> Peeked {
    Peeked(raidas.ask_all(raidas.timeout, |client, raida| {
        client.peek(secret.key(raida))
    }))
}

impl Peeked {
    /// Number of servers that answered.
    pub fn answered(&self) -> usize {
        self.0.count(Result::is_ok)
    }

    /// Checks that enough servers answered.
    ///
    /// # Errors
    /// Fewer than 13 answered.
    pub fn check(&self) -> Result<(), LockerError> {
        let answered = self.answered();
        let failed = (self.0.iter())
            .find_map(|(raida, said)| Some(format!("RAIDA {raida}: {}", said.as_ref().err()?)));
        match failed {
            Some(first) if answered < VOTES_NEEDED => {
                Err(LockerError::TooFewServers { answered, first })
            }
            _ => Ok(()),
        }
    }

    /// The coins that a server has; none where it did not answer.
    pub fn on(&self, raida: RaidaId) -> &[Coin] {
        self.0[raida].as_deref().unwrap_or_default()
    }

    /// Every coin that any server has, in the order in which the first of them that has it does.
    pub fn coins(&self) -> Vec<Coin> {
        let mut seen = BTreeSet::new();
        let all = RaidaId::all().flat_map(|raida| self.on(raida));
        all.copied().filter(|&coin| seen.insert(coin)).collect()
    }

    /// What most servers say. In a tie, what the first of them says.
    pub fn agreement(&self) -> Agreement {
        let said: Vec<(RaidaId, BTreeSet<Coin>)> = (self.0.iter())
            .filter_map(|(raida, said)| {
                Some((raida, said.as_ref().ok()?.iter().copied().collect()))
            })
            .collect();
        let like = |coins: &BTreeSet<Coin>| said.iter().filter(|(_, other)| other == coins).count();
        // `max_by_key` returns the last of several equals.
        let most = said.iter().rev().max_by_key(|(_, coins)| like(coins));
        let Some((first, most)) = most else {
            return Agreement {
                coins: vec![],
                servers: 0,
                others: vec![],
            };
        };
        let others = said.iter().filter(|(_, coins)| coins != most);
        Agreement {
            coins: self.on(*first).to_vec(),
            servers: like(most),
            others: others
                .map(|(raida, coins)| Difference {
                    raida: *raida,
                    missing: most.difference(coins).copied().collect(),
                    extra: coins.difference(most).copied().collect(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::{Denomination, SerialNumber};
    use std::time::Duration;

    fn coin(sn: u32) -> Coin {
        Coin {
            denomination: Denomination::new(0).unwrap(),
            serial_number: SerialNumber::new(sn).unwrap(),
        }
    }

    fn peeked(of: impl Fn(u8) -> Option<Vec<u32>>) -> Peeked {
        Peeked(PerRaida::from_fn(|raida| match of(raida.get()) {
            Some(sns) => Ok(sns.into_iter().map(coin).collect()),
            None => Err(ClientError::TimedOut(
                "nowhere:1".to_owned(),
                Duration::from_secs(1),
            )),
        }))
    }

    #[test]
    fn what_most_servers_have_is_told_apart_from_what_some_do() {
        let peeked = peeked(|raida| match raida {
            3 => Some(vec![1, 2]),
            7 => None,
            9 => Some(vec![2, 1, 3, 4]),
            24 => Some(vec![3, 2, 1]),
            _ => Some(vec![2, 1, 3]),
        });
        assert_eq!(peeked.answered(), 24);
        assert!(peeked.check().is_ok());
        let agreement = peeked.agreement();
        assert_eq!(agreement.coins, [coin(2), coin(1), coin(3)]);
        assert_eq!(agreement.servers, 22, "the order is no difference");
        let differ = |raida, missing: &[u32], extra: &[u32]| Difference {
            raida: RaidaId::new(raida).unwrap(),
            missing: missing.iter().copied().map(coin).collect(),
            extra: extra.iter().copied().map(coin).collect(),
        };
        assert_eq!(
            agreement.others,
            [differ(3, &[3], &[]), differ(9, &[], &[4])]
        );
        assert_eq!(peeked.coins(), [coin(2), coin(1), coin(3), coin(4)]);
    }

    #[test]
    fn twelve_answers_are_too_few_and_none_is_no_agreement() {
        let error = peeked(|raida| (raida >= 13).then(Vec::new)).check();
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("only 12 of 25") && text.contains("RAIDA 0"),
            "{text}"
        );
        assert!(peeked(|raida| (raida >= 12).then(Vec::new)).check().is_ok());
        assert_eq!(peeked(|_| None).agreement().servers, 0);
    }
}
