//! Group 8, lockers: store sum, store multiple, peek, remove.

use super::{
    Caller, Node, Transport,
    authentication::verdict,
    budget::{AccountId, Share},
    stored::noted,
};
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin},
    mesh::Decision,
    protocol::{
        PassFail, Status,
        lockers::{Contents, LockerKey, Peek, Remove, StoreAnswer, StoreMultiple, StoreSum},
        pass_fail::Bitmap,
        response::RESPONSE_PAYLOAD_MAX,
    },
    shard::{Exchange, RECORDS_A_TURN, Replacement, TooMany, question},
    store::record::Change,
};

impl<E: Environment> Node<E> {
    pub(super) async fn store_sum(&self, payload: &[u8]) -> Result<Status, Status> {
        let request = StoreSum::parse(payload)?;
        Ok(verdict(self.store(&request).await?))
    }

    pub(super) async fn store_multiple(
        &self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = StoreMultiple::parse(payload)?;
        let mut stored = Vec::with_capacity(request.len());
        for locker in request.lockers() {
            // Stores the lockers one after the other, so that their coins keep the order of the
            // request. If one fails, the answer must tell what was stored before.
            stored.push(match locker {
                Ok(locker) => self.store(&locker).await,
                Err(_) => Ok(false),
            });
        }
        if !stored.contains(&Ok(true))
            && let Some(Err(unavailable)) = stored.iter().find(|stored| stored.is_err())
        {
            return Err(*unavailable);
        }
        let mut answer = StoreAnswer::begin(out, stored.len(), self.rules.get().dialect);
        let passed = (0..).zip(stored).filter(|(_, stored)| *stored == Ok(true));
        passed.for_each(|(locker, _)| answer.stored(locker));
        Ok(answer.finish())
    }

    /// Puts coins into a locker where the sum of their numbers is right: all or none.
    async fn store(&self, request: &StoreSum<'_>) -> Result<bool, Status> {
        let proven = self.prove_sum(request.coins().iter(), request.sum).await?;
        let Some(proven) = proven else {
            return Ok(false);
        };
        let (an, mfs) = (request.key.an(), self.shard().month());
        let coins = &proven.coins;
        let changed = self.mesh.change_together(coins, None, |held| {
            if held.any_on_sale() || !self.still_proves(&proven, held, request.sum) {
                return Decision::Refuse(());
            }
            let changes: Vec<Change> = coins.iter().map(|&coin| Change { coin, an, mfs }).collect();
            let notes = noted(&changes, &proven.ranks);
            Decision::Change(changes, notes)
        });
        let changed = changed.await?;
        if changed.is_ok() {
            self.lockers.count(|counts| {
                counts.stores += 1;
                counts.coins_stored += coins.len() as u64;
            });
        }
        Ok(changed.is_ok())
    }

    /// Peek, where this shard keeps track of the locker and the locker has not too many coins.
    #[inline]
    pub(super) fn peek_now(&self, payload: &[u8], out: &mut Vec<u8>) -> Option<Status> {
        let key = match Peek::parse(payload) {
            Ok(request) => request.key.an(),
            Err(status) => return Some(status),
        };
        let shard = self.shard();
        if shard.locker_home(key.locker_prefix()) != shard.id {
            return None;
        }
        shard.locker_coins_now(&key, |coins| Contents::answer(coins, out))
    }

    pub(super) async fn peek(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let Peek { key } = Peek::parse(payload)?;
        let listed = Listed::answered(caller, Coin::SIZE);
        let (coins, _room) = self.coins_under(key.an(), listed).await?;
        Ok(self.list(&coins, out).await)
    }

    /// Answers with these coins, which fit.
    pub(super) async fn list(&self, coins: &[Coin], out: &mut Vec<u8>) -> Status {
        // Reserved all at once: growing would take up to three times as much.
        out.reserve_exact(coins.len() * Coin::SIZE + SEAL_BYTES_MAX);
        let mut status = Status::ALL_FAIL;
        for some in coins.chunks(LISTED_A_TURN) {
            status = Contents::answer(some.iter().copied(), out);
            if some.len() == LISTED_A_TURN {
                self.shard().environment.turn_in_line().await;
            }
        }
        status
    }

    pub(super) async fn remove(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<Status, Status> {
        let request = Remove::parse(payload)?;
        let an = request.key.an();
        if !self.has_locker(request.key).await {
            return Ok(Status::ALL_FAIL);
        }
        let records = request.records().map(|(coin, new)| {
            let becomes = Replacement::An(new);
            coin.map(|coin| Exchange { coin, an, becomes })
        });
        let mut answer = PassFail::begin(out, request.len());
        let mut coins = 0;
        self.exchange(records, |record| {
            answer.pass(record);
            coins += 1;
        })
        .await?;
        self.lockers.count(|counts| {
            counts.removals += 1;
            counts.coins_removed += coins;
        });
        Ok(answer.finish(Bitmap::Always))
    }

    async fn has_locker(&self, key: LockerKey) -> bool {
        let home = self.shard().locker_home(key.an().locker_prefix());
        self.mesh.ask(home, question::HasLocker(key.an())).await
    }

    /// The coins under a key, in the order stored, and the room that is taken for them.
    ///
    /// # Errors
    /// `listed.beyond` where there are more coins than the caller can use, 254 where there is no
    /// room for them.
    pub(super) async fn coins_under(
        &self,
        key: An,
        listed: Listed,
    ) -> Result<(Vec<Coin>, Option<Share>), Status> {
        let home = self.shard().locker_home(key.locker_prefix());
        let (mut most, mut room) = (RECORDS_A_TURN, None);
        // Others may put coins in between two questions. The number of tries is limited.
        for _ in 0..LISTING_TRIES {
            match self.mesh.ask(home, question::LockerCoins(key, most)).await {
                Ok(coins) => return Ok((coins, room)),
                Err(TooMany(count)) => {
                    drop(room.take());
                    room = Some(self.room_for(count, listed)?);
                    most = count;
                }
            }
        }
        Err(Status::OUT_OF_MEMORY)
    }

    /// Takes room for a list of `count` coins.
    pub(super) fn room_for(&self, count: usize, listed: Listed) -> Result<Share, Status> {
        if count > listed.most {
            return Err(listed.beyond);
        }
        let bytes = count * (size_of::<Coin>() + listed.each);
        let room = self.budget.take(listed.account, bytes);
        room.map_err(|_| Status::OUT_OF_MEMORY)
    }
}

/// What coins are listed for.
#[derive(Clone, Copy)]
pub(super) struct Listed {
    /// Who pays for them.
    pub(super) account: AccountId,
    /// How many the caller can use.
    pub(super) most: usize,
    /// The status where there are more.
    pub(super) beyond: Status,
    /// Bytes that each takes besides itself.
    pub(super) each: usize,
}

/// Number of times that coins are asked for while they are always more than before.
pub(super) const LISTING_TRIES: usize = 8;

impl Listed {
    /// For an answer that names the coins.
    pub(super) fn answered(caller: Caller, each: usize) -> Listed {
        let beyond = match caller.transport {
            Transport::Udp => Status::ASK_OVER_TCP,
            Transport::Tcp => Status::INVALID_LENGTH,
        };
        Listed {
            account: caller.account,
            most: caller.payload_bytes_max.min(RESPONSE_PAYLOAD_MAX) / Coin::SIZE,
            beyond,
            each,
        }
    }

    /// For something other than an answer, however many coins there are.
    pub(super) fn all(account: AccountId, each: usize) -> Listed {
        Listed {
            account,
            most: usize::MAX,
            beyond: Status::OUT_OF_MEMORY,
            each,
        }
    }
}

/// Coins written into an answer before others get their turn: some 20 µs.
const LISTED_A_TURN: usize = 4_096;

/// Maximum length of the HMAC and trailer after an answer's payload.
const SEAL_BYTES_MAX: usize = 32 + 2;
