//! Requests that change something and come again (docs/protocol.md, "Repeats"): a duplicate
//! datagram, a retry after a time-out, a replay. A request carried out lately gets the same answer
//! again, while its coins still have the numbers that it gave them. A request that is under way is
//! not begun twice.
//!
//! One shard is the home of a request, whichever core it reaches: the owner of the first coin that
//! it names. That shard remembers it ([`EndedChange`]). A pown of one coin that its owner can begin
//! at once never comes here: the owner looks after its repeats by itself.

use super::{Caller, Node, Transport, healing::HASHED_A_TURN};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin, ShardId},
    protocol::{
        Command, PassFail, Status,
        authentication::{Pown, PownDerive, PownSum},
        executive::{CreateCoins, write_created},
        healing::Fix,
        lockers::{PutForSale, Remove, RemoveTrade, StoreAnswer, StoreMultiple, StoreSum},
        pass_fail::Bitmap,
    },
    shard::{
        Begun, CarriedOut, ChangeName, Details, EndedChange, Given, NotChanged, Outcome, Sender,
        question::BeginChange,
    },
};

/// Bytes of a payload that are hashed before others get their turn: some 50 µs.
const NAMED_A_TURN: usize = 64 << 10;
/// Coins whose numbers are hashed before others get their turn: some 50 µs.
const GIVEN_A_TURN: usize = 4_096;

/// What a request tells of itself when it is carried out, where its payload does not tell it.
#[derive(Default)]
pub(super) struct Change {
    given: Option<Given>,
    coins: Vec<Coin>,
}

impl<E: Environment> Node<E> {
    /// Who sent a request, as far as repeats depend on it.
    #[inline]
    pub(super) fn sender(&self, caller: Caller) -> Sender {
        let waits = caller.transport == Transport::Tcp;
        self.shard().repeat_key.sender(caller.stranger(), waits)
    }

    /// Answers a request that changes something, and carries it out unless it is a repeat; `None`
    /// where the request gets no answer.
    pub(super) async fn once(
        &self,
        command: Command,
        payload: &[u8],
        mut caller: Caller,
        out: &mut Vec<u8>,
    ) -> Option<Status> {
        let sender = self.sender(caller);
        let first = first_coin(command, payload);
        let name = self.name(command, payload, first).await;
        // Where it names no coin, any shard.
        let home = first.map_or_else(
            || ShardId::new(name.modulo(self.mesh.shards())),
            |coin| coin.page().owner(self.mesh.shards()),
        );
        let waits = sender.waits;
        let begin = || self.mesh.ask(home, BeginChange { name, waits });
        let mut begun = begin().await;
        if matches!(begun, Ok(Begun::UnderWay)) && home == self.shard().id {
            // Another core may have answered it, and its notice may be here already.
            self.mesh.look_up();
            begun = begin().await;
        }
        let known = match begun {
            Ok(Begun::New(known)) => known,
            Ok(Begun::UnderWay) => {
                self.shard()
                    .count(|counters| counters.repeats_unanswered += 1);
                return None;
            }
            Ok(Begun::Ended(Outcome { status, payload })) => {
                self.shard().count(|counters| counters.repeats += 1);
                out.extend_from_slice(&payload);
                return Some(status);
            }
            Err(NotChanged::Crowded) => return Some(self.crowded(command)),
            Err(NotChanged::Unavailable) => return Some(Status::UNAVAILABLE),
        };
        let start = out.len();
        let again = match &known {
            Some(known) => {
                self.answer_again(command, payload, known, caller, out)
                    .await
            }
            None => Ok(None),
        };
        let (status, carried_out) = match again {
            Ok(Some(status)) => {
                self.shard().count(|counters| counters.repeats += 1);
                (status, None)
            }
            Err(unavailable) => (unavailable, None),
            Ok(None) => {
                out.truncate(start);
                let change = self.changes.borrow_mut().insert(Change::default());
                caller.change = Some(change);
                let answered = match command {
                    // The most frequent command; the others are in a box, so that the future does
                    // not have their size.
                    Command::Pown => self.pown(payload, out).await,
                    _ => Box::pin(self.rarely(command, payload, caller, out)).await,
                };
                let status = answered.unwrap_or_else(|refusal| refusal);
                let change = self.changes.borrow_mut().remove(change);
                let carried_out = self.carried_out(command, payload, status, &out[start..], change);
                (status, carried_out.await)
            }
        };
        let outcome = Outcome {
            status,
            payload: out[start..].to_vec(),
        };
        let ended = EndedChange {
            name,
            sender,
            carried_out,
            outcome,
        };
        self.mesh.end_change(home, ended);
        Some(status)
    }

    async fn name(&self, command: Command, payload: &[u8], first: Option<Coin>) -> ChangeName {
        let shard = self.shard();
        if command == Command::Pown
            && let Ok(request) = Pown::parse(payload)
            && request.len() == 1
            && let Some((Some(coin), an, proposed)) = request.record(0)
        {
            return shard.repeat_key.name_pown(coin, an, proposed);
        }
        let mut naming = shard.repeat_key.name(command);
        for part in payload.chunks(NAMED_A_TURN) {
            naming.add(part);
            if part.len() == NAMED_A_TURN {
                shard.environment.turn_in_line().await;
            }
        }
        naming.finish(first)
    }

    /// Says which numbers a request gave to coins, where its payload does not tell. To be called
    /// when the change is in force.
    pub(super) fn gave(&self, caller: Caller, given: Given) {
        self.note(caller, |change| change.given = Some(given));
    }

    /// As [`Node::gave`], for a request that does not name the coins either.
    pub(super) fn gave_to(&self, caller: Caller, coins: Vec<Coin>) {
        self.note(caller, |change| {
            change.given = Some(Given::default());
            change.coins = coins;
        });
    }

    fn note(&self, caller: Caller, note: impl FnOnce(&mut Change)) {
        let mut changes = self.changes.borrow_mut();
        if let Some(change) = caller.change.and_then(|change| changes.get_mut(change)) {
            note(change);
        }
    }

    /// What stands for the numbers that coins have, or get.
    pub(super) async fn given(&self, numbers: impl Iterator<Item = (Coin, An)>) -> Given {
        let shard = self.shard();
        let mut given = Given::default();
        for (index, (coin, an)) in numbers.enumerate() {
            given = given.and(shard.repeat_key.given(coin, an));
            if index % GIVEN_A_TURN == GIVEN_A_TURN - 1 {
                shard.environment.turn_in_line().await;
            }
        }
        given
    }

    /// What the node remembers of a request with this answer: `None` where it was refused, or some
    /// coin of it was not changed.
    async fn carried_out(
        &self,
        command: Command,
        payload: &[u8],
        status: Status,
        answer: &[u8],
        change: Change,
    ) -> Option<CarriedOut> {
        if status != Status::ALL_PASS && status != Status::SUCCESS {
            return None;
        }
        let from_payload = || Some(CarriedOut::default());
        match command {
            Command::Pown
            | Command::Fix
            | Command::StoreSum
            | Command::StoreMultiple
            | Command::Remove
            | Command::PutForSale => from_payload(),
            Command::PownSum | Command::PownDerive => Some(CarriedOut {
                given: change.given?,
                details: None,
            }),
            Command::CreateCoins => {
                let coins = CreateCoins::parse(payload).ok()?.coins().ok()?;
                let ans = answer.chunks_exact(An::SIZE);
                let ans = ans.map(|an| An::new(an.try_into().expect("a chunk of this size")));
                Some(CarriedOut {
                    given: self.given(coins.iter().zip(ans)).await,
                    details: None,
                })
            }
            // Tickets were accepted; no AN was written where nothing was given.
            Command::FixEncryption => Some(CarriedOut {
                given: change.given?,
                details: Some(Box::new(Details {
                    answer: answer.to_vec(),
                    coins: vec![],
                })),
            }),
            Command::RemoveTrade => Some(CarriedOut {
                given: change.given?,
                details: Some(Box::new(Details {
                    answer: vec![],
                    coins: change.coins,
                })),
            }),
            // Used payments are remembered for good.
            Command::Buy => None,
            other => unreachable!("{} is no change", other.name()),
        }
    }

    /// Answers a request like the earlier one that was the same, where its coins still have the
    /// numbers that it gave them.
    ///
    /// # Errors
    /// 194 where a shard cannot answer now.
    async fn answer_again(
        &self,
        command: Command,
        payload: &[u8],
        known: &CarriedOut,
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Option<Status>, Status> {
        let Some(coins) = self.again(command, payload, known) else {
            return Ok(None);
        };
        let (still, ans) = match coins {
            Again::Have(numbers) => (self.have(last_of_each(numbers)).await?, vec![]),
            Again::Hashed(coins) => match self.numbers(&coins).await? {
                Some(ans) => {
                    let numbers = coins.iter().copied().zip(ans.iter().copied());
                    (self.given(numbers).await == known.given, ans)
                }
                None => (false, vec![]),
            },
            Again::Derived(coins, generator) => {
                let own = self.rules.get().raida;
                let mut numbers = Vec::with_capacity(coins.len());
                for some in coins.chunks(HASHED_A_TURN) {
                    numbers.extend(some.iter().map(|&coin| (coin, generator.an(own, coin))));
                    self.shard().environment.turn_in_line().await;
                }
                (self.have(numbers).await?, vec![])
            }
            Again::Free(coins) => (self.are_free(&coins).await?, vec![]),
        };
        if !still {
            return Ok(None);
        }
        Ok(Some(match command {
            Command::CreateCoins => {
                caller.takes(ans.len() * An::SIZE)?;
                write_created(ans, out);
                Status::SUCCESS
            }
            Command::FixEncryption => {
                let details = known.details.iter();
                details.for_each(|details| out.extend_from_slice(&details.answer));
                Status::SUCCESS
            }
            Command::Remove => {
                let records = Remove::parse(payload)?.len();
                let mut answer = PassFail::begin(out, records);
                (0..records).for_each(|record| answer.pass(record));
                answer.finish(Bitmap::Always)
            }
            Command::StoreMultiple => {
                let lockers = StoreMultiple::parse(payload)?.len();
                let mut answer = StoreAnswer::begin(out, lockers, self.rules.get().dialect);
                (0..lockers).for_each(|locker| answer.stored(locker));
                answer.finish()
            }
            _ => Status::ALL_PASS,
        }))
    }

    /// What must hold of the coins of a request that was carried out before.
    fn again(&self, command: Command, payload: &[u8], known: &CarriedOut) -> Option<Again> {
        let under = |coins: &mut dyn Iterator<Item = Coin>, an: An| {
            Again::Have(coins.map(|coin| (coin, an)).collect())
        };
        Some(match command {
            Command::Pown => {
                let records = Pown::parse(payload).ok()?;
                let numbers = records.records().map(|(coin, _, an)| Some((coin?, an)));
                Again::Have(numbers.collect::<Option<_>>()?)
            }
            Command::PownSum => {
                Again::Hashed(PownSum::parse(payload).ok()?.coins().iter().collect())
            }
            Command::PownDerive => {
                Again::Hashed(PownDerive::parse(payload).ok()?.coins().iter().collect())
            }
            Command::CreateCoins => {
                let coins = CreateCoins::parse(payload).ok()?.coins().ok()?;
                Again::Hashed(coins.iter().collect())
            }
            Command::Fix => {
                let request = Fix::parse(payload).ok()?;
                Again::Derived(request.coins().iter().collect(), request.generator)
            }
            Command::FixEncryption => {
                // Both forms begin with the coin.
                Again::Hashed(vec![Coin::from_bytes(payload.first_chunk()?)?])
            }
            Command::StoreSum => {
                let request = StoreSum::parse(payload).ok()?;
                under(&mut request.coins().iter(), request.key.an())
            }
            Command::StoreMultiple => {
                let lockers = StoreMultiple::parse(payload).ok()?;
                let mut numbers = vec![];
                for locker in lockers.lockers() {
                    let locker = locker.ok()?;
                    let an = locker.key.an();
                    numbers.extend(locker.coins().iter().map(|coin| (coin, an)));
                }
                Again::Have(numbers)
            }
            Command::Remove => {
                let request = Remove::parse(payload).ok()?;
                let numbers = request.records().map(|(coin, an)| Some((coin?, an)));
                Again::Have(numbers.collect::<Option<_>>()?)
            }
            Command::PutForSale => {
                let request = PutForSale::parse(payload).ok()?;
                under(&mut request.coins().iter(), request.key.an())
            }
            Command::RemoveTrade => {
                let mut coins = known.details.as_ref()?.coins.iter().copied();
                match RemoveTrade::parse(payload).ok()?.into {
                    Some(into) => under(&mut coins, into.an()),
                    None => Again::Free(coins.collect()),
                }
            }
            _ => return None,
        })
    }
}

/// What must hold of the coins of a repeat.
enum Again {
    /// They have these numbers; of several of one coin, the last.
    Have(Vec<(Coin, An)>),
    /// Their numbers have this hash.
    Hashed(Vec<Coin>),
    /// They have the numbers that a generator says.
    Derived(Vec<Coin>, crate::protocol::healing::PartialGenerator),
    /// They are free.
    Free(Vec<Coin>),
}

/// The last number for each coin.
fn last_of_each(mut numbers: Vec<(Coin, An)>) -> Vec<(Coin, An)> {
    // The last one comes first and stays.
    numbers.reverse();
    numbers.sort_by_key(|&(coin, _)| coin);
    numbers.dedup_by_key(|&mut (coin, _)| coin);
    numbers
}

/// The first coin that a request names, where that is one.
fn first_coin(command: Command, payload: &[u8]) -> Option<Coin> {
    /// A session or a key comes first.
    const SESSION: usize = 4;
    const KEY: usize = 16;
    /// The number of lockers, and of the first one's coins.
    const COUNTS: usize = 3;
    let at = match command {
        Command::Pown
        | Command::PownSum
        | Command::PownDerive
        | Command::Fix
        | Command::FixEncryption
        | Command::StoreSum
        | Command::PutForSale => 0,
        Command::CreateCoins => SESSION + KEY,
        Command::Remove => KEY,
        Command::StoreMultiple => COUNTS,
        _ => return None,
    };
    Coin::from_bytes(payload.get(at..)?.first_chunk()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    fn coin(page: usize, place: usize) -> Coin {
        PageId::from_index(page).unwrap().coin(place)
    }

    #[test]
    fn of_several_numbers_of_a_coin_the_last_counts() {
        let an = |number| An::new([number; 16]);
        let numbers = vec![
            (coin(1, 1), an(1)),
            (coin(0, 9), an(2)),
            (coin(1, 1), an(3)),
        ];
        let last = last_of_each(numbers);
        assert_eq!(last, [(coin(0, 9), an(2)), (coin(1, 1), an(3))]);
    }
}
