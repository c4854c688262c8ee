//! Group 4: get encryption ticket, fix encryption.
//!
//! A ticket speaks for anybody who carries it. So a helper gives a ticket only to a client that
//! proves to own the coin there, and only encrypted. The server that a coin is healed on accepts
//! each ticket once.

use super::{
    Caller, Node,
    stored::stored,
    trail::{KeyFixed, NotFixed, NotVouched, Servers},
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, ShardId},
    mesh::Decision,
    protocol::{
        RaidaId, Status,
        header::KeySource,
        key_healing::{
            FixEncryption, GetEncryptionTicket, Half, KeyPart, Minute, SharedSecret, Verdict,
            Voucher, join,
        },
    },
    shard::{question, used_ticket},
    store::{Thing, record::Change},
};

/// A ticket that another server made. It is valid, except that it may have been used.
struct Good {
    /// Its position in the request.
    index: usize,
    helper: RaidaId,
    half: Half,
    part: KeyPart,
    used: Thing,
}

impl Good {
    /// When it was issued.
    fn minute(&self) -> Minute {
        Minute(self.used.moment)
    }
}

/// The result of tickets that were accepted.
enum KeyPut {
    /// The coin has the number.
    Written,
    /// No two tickets belonged together.
    NoPair,
    /// It is for sale.
    ForSale,
    /// It changed in this minute, and no two tickets from after that belong together.
    Changed(Minute),
}

/// Whether the one who encrypts with this key has a coin's authenticity number.
fn proves(key: KeySource, coin: Coin) -> bool {
    match key {
        KeySource::None | KeySource::Locker(_) => false,
        KeySource::Coin(key) => key == Some(coin),
        KeySource::TwoCoins(first, second) => first == Some(coin) || second == Some(coin),
    }
}

impl<E: Environment> Node<E> {
    /// Get encryption ticket, where memory of this shard knows the coin.
    #[inline]
    pub(super) fn encryption_ticket_now(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        let (asked, secret) = match self.asked_for(payload, caller) {
            Ok(asked) => asked,
            Err(status) => return Some(status),
        };
        match self.an_now(asked.coin)? {
            Ok(real) => Some(self.vouch(&asked, secret, real, caller, out)),
            Err(status) => Some(status),
        }
    }

    pub(super) async fn encryption_ticket(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let (asked, secret) = self.asked_for(payload, caller)?;
        let real = self.an(asked.coin).await?;
        Ok(self.vouch(&asked, secret, real, caller, out))
    }

    /// What a ticket is asked for, and the secret shared with the server that reads it.
    fn asked_for(
        &self,
        payload: &[u8],
        caller: Caller,
    ) -> Result<(GetEncryptionTicket, &SharedSecret), Status> {
        let asked = GetEncryptionTicket::parse(payload)?;
        if caller.key == KeySource::None && !self.healing.keys.allows_unencrypted {
            self.not_vouched(asked.broken, caller, NotVouched::Unencrypted);
            return Err(Status::KEY_NOT_FOUND);
        }
        match self.shared_with(asked.broken) {
            Some(secret) => Ok((asked, secret)),
            None => {
                self.not_vouched(asked.broken, caller, NotVouched::NoSecret);
                Err(Status::RAIDA_OUT_OF_RANGE)
            }
        }
    }

    #[inline]
    fn shared_with(&self, raida: RaidaId) -> Option<&SharedSecret> {
        let secrets = self.healing.keys.secrets.as_ref()?;
        secrets
            .of(raida)
            .filter(|_| raida != self.rules.get().raida)
    }

    /// Gives a ticket to a client that proves to own the coin with this number, or none.
    #[inline]
    fn vouch(
        &self,
        asked: &GetEncryptionTicket,
        secret: &SharedSecret,
        real: Option<An>,
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Status {
        // Coins under a trade key are for sale. The seller knows the number and does not own the
        // coin as others do: tickets would take it back from a buyer who gets it meanwhile.
        let is_owner = real.is_some_and(|real| match asked.an {
            _ if real.is_trade_key() => false,
            None => proves(caller.key, asked.coin),
            Some(an) => an == real,
        });
        if !is_owner {
            self.not_vouched(asked.broken, caller, NotVouched::NoProof);
            return Status::KEY_NOT_FOUND;
        }
        let ticket = secret.seal(&Voucher {
            part: asked.part,
            coin: asked.coin,
            minute: self.shard().minute().low_bits(),
        });
        out.extend_from_slice(ticket.expose());
        self.trail.vouched(asked.broken, caller.address);
        Status::SUCCESS
    }

    fn not_vouched(&self, to: RaidaId, caller: Caller, why: NotVouched) {
        let now = self.shard().environment.monotonic();
        self.trail.not_vouched(now, to, caller.address, why);
    }

    /// Gives a coin the number whose halves two other servers vouch for.
    ///
    /// Every accepted ticket is used up, whether or not a number comes of it: in memory at once,
    /// and on disk before the number is. So no later owner of the coin loses it to a ticket of an
    /// earlier owner, used or not: a ticket from before the coin's newest change is not accepted.
    /// That is checked twice, at first and while the coin is held.
    pub(super) async fn fix_encryption(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = FixEncryption::parse(payload)?;
        if self.healing.keys.secrets.is_none() {
            self.not_fixed(caller, NotFixed::NoSecrets);
            return Err(Status::RAIDA_OUT_OF_RANGE);
        }
        self.healing_rates.charge(caller.stranger(), request.len());
        let mut good = self.good_tickets(&request);
        let tickets: Vec<Thing> = good.iter().map(|good| good.used).collect();
        let owner = request.coin.page().owner(self.mesh.shards());
        let verdicts = match tickets.is_empty() {
            true => Ok(vec![]),
            false => {
                let used = question::UseTickets(request.coin, tickets);
                self.mesh.ask(owner, used).await
            }
        };
        let Ok(verdicts) = verdicts else {
            self.not_fixed(caller, NotFixed::NoRoom);
            return Err(Status::NO_TICKET_SLOT);
        };
        let mut answer = vec![Verdict::Refused; request.len()];
        for (good, verdict) in good.iter().zip(verdicts) {
            answer[good.index] = verdict;
        }
        good.retain(|good| answer[good.index] == Verdict::Accepted);
        let put = match pair(good.iter()) {
            Some(_) => self.put_key(request.coin, &good, caller).await,
            None => Ok(KeyPut::NoPair),
        };
        let given_back: Vec<&Good> = match &put {
            // Nothing came of them: they stay valid for another try.
            Err(_) => good.iter().collect(),
            Ok(KeyPut::Changed(newest)) => {
                let too_early = |good: &&Good| !good.minute().is_good_since(*newest);
                good.iter().filter(too_early).collect()
            }
            Ok(KeyPut::Written | KeyPut::ForSale | KeyPut::NoPair) => vec![],
        };
        if !given_back.is_empty() {
            let things = given_back.iter().map(|good| good.used).collect();
            self.mesh
                .ask(owner, question::GiveBackTickets(things))
                .await;
        }
        match &put {
            Err(status) => return Err(*status),
            Ok(KeyPut::ForSale) => answer.fill(Verdict::Refused),
            Ok(KeyPut::Changed(_)) => {
                for good in &given_back {
                    answer[good.index] = Verdict::TooEarly;
                }
            }
            Ok(KeyPut::Written) => {
                let too_early = answer.iter_mut().filter(|said| **said == Verdict::TooEarly);
                too_early.for_each(|said| *said = Verdict::Refused);
            }
            Ok(KeyPut::NoPair) => {}
        }
        out.extend(answer.iter().map(|verdict| verdict.byte()));
        let mut helpers = Servers::default();
        let accepted = good.iter();
        let accepted = accepted.filter(|good| answer[good.index] == Verdict::Accepted);
        accepted.for_each(|good| helpers.add(good.helper));
        self.trail.key_fixed(KeyFixed {
            now: self.shard().environment.monotonic(),
            by: caller.address,
            tickets: request.len(),
            accepted: helpers,
            too_early: answer
                .iter()
                .filter(|said| **said == Verdict::TooEarly)
                .count(),
            written: matches!(put, Ok(KeyPut::Written)),
        });
        Ok(Status::SUCCESS)
    }

    fn not_fixed(&self, caller: Caller, why: NotFixed) {
        let now = self.shard().environment.monotonic();
        self.trail.key_not_fixed(now, caller.address, why);
    }

    /// The valid tickets of a request: those that the others made for its coin lately.
    fn good_tickets(&self, request: &FixEncryption<'_>) -> Vec<Good> {
        let now = self.shard().minute();
        let presented = request.tickets().enumerate();
        let good = presented.filter_map(|(index, presented)| {
            let presented = presented?;
            let secret = self.shared_with(presented.helper)?;
            let voucher = secret.open(&presented.ticket)?;
            if voucher.coin != request.coin {
                return None;
            }
            let minute = now.of_good_ticket(voucher.minute)?;
            Some(Good {
                index,
                helper: presented.helper,
                half: presented.half,
                part: voucher.part,
                used: used_ticket(&presented.ticket, minute),
            })
        });
        good.collect()
    }

    /// Writes down a number that these tickets, now used up, vouch for. Refuses where the coin is
    /// for sale: it moves only to its buyer, or back.
    async fn put_key(&self, coin: Coin, good: &[Good], caller: Caller) -> Result<KeyPut, Status> {
        let first = ShardId::new(0);
        let used = good.iter().map(|good| good.used).collect();
        self.mesh.ask(first, question::RememberUsed(used)).await?;
        let mfs = self.shard().month();
        let mut given = None;
        let changed = self.mesh.change_since(coin, |held, newest| {
            if held.any_on_sale() {
                return Decision::Refuse(KeyPut::ForSale);
            }
            // The coin may have changed since the tickets were checked: while they were written
            // down, or while others held the coin.
            let is_good = |good: &&Good| good.minute().is_good_since(newest);
            let Some([first, second]) = pair(good.iter().filter(is_good)) else {
                return Decision::Refuse(KeyPut::Changed(newest));
            };
            let an = join([first.part, second.part]);
            given = Some(self.shard().repeat_key.given(coin, an));
            let changes = vec![Change { coin, an, mfs }];
            let notes = stored(&changes, [coin].into_iter());
            Decision::Change(changes, notes)
        });
        if let Err(refused) = changed.await? {
            return Ok(refused);
        }
        self.gave(caller, given.expect("what is written was given"));
        Ok(KeyPut::Written)
    }
}

/// A ticket for each half, from two different helpers: the first such pair.
fn pair<'a>(good: impl Iterator<Item = &'a Good> + Clone) -> Option<[&'a Good; 2]> {
    let of = |half: Half| good.clone().filter(move |good| good.half == half);
    of(Half::First).find_map(|first| {
        let second = of(Half::Second).find(|second| second.helper != first.helper)?;
        Some([first, second])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coin::PageId, protocol::key_healing::split};

    fn good(helper: u8, half: Half) -> Good {
        let [part, _] = split(An::new([helper; 16]));
        Good {
            index: 0,
            helper: RaidaId::new(helper).unwrap(),
            half,
            part,
            used: Thing { moment: 1, name: 1 },
        }
    }

    fn paired(good: &[Good]) -> Option<[u8; 2]> {
        pair(good.iter()).map(|pair| pair.map(|good| good.helper.get()))
    }

    #[test]
    fn halves_come_from_two_helpers() {
        use Half::{First, Second};
        assert_eq!(paired(&[]), None);
        assert_eq!(paired(&[good(1, First), good(1, Second)]), None);
        assert_eq!(paired(&[good(1, First), good(2, First)]), None);
        assert_eq!(paired(&[good(1, Second), good(2, Second)]), None);
        assert_eq!(paired(&[good(1, Second), good(2, First)]), Some([2, 1]));
        let three = [good(1, First), good(1, Second), good(3, First)];
        assert_eq!(paired(&three), Some([3, 1]));
    }

    #[test]
    fn only_a_coin_that_is_a_key_proves_itself() {
        let coin = |place| PageId::from_index(7).unwrap().coin(place);
        assert!(proves(KeySource::Coin(Some(coin(1))), coin(1)));
        assert!(!proves(KeySource::Coin(Some(coin(1))), coin(2)));
        assert!(!proves(KeySource::Coin(None), coin(1)));
        let two = KeySource::TwoCoins(Some(coin(1)), Some(coin(2)));
        assert!(proves(two, coin(1)) && proves(two, coin(2)) && !proves(two, coin(3)));
        assert!(!proves(KeySource::None, coin(1)));
        assert!(!proves(KeySource::Locker([0; 5]), coin(1)));
    }
}
