//! Group 3: available serial numbers, create, delete, free, and all serial numbers. All of them
//! need the admin key.

use super::{Caller, Node};
use crate::runtime::Environment;
use crate::{
    coin::{An, COINS_PER_PAGE, Coin, Mfs, SerialNumber, ShardId},
    mesh::Decision,
    protocol::{
        AdminKey, PassFail, Status,
        executive::{
            AllSns, AvailableSns, CreateCoins, DeleteCoins, FreeCoins, write_created,
            write_free_sns,
        },
        pass_fail::Bitmap,
    },
    shard::{Exchange, Replacement, question},
    store::{book::Notes, record::Change},
};

/// Maximum number of free serial numbers shown of a denomination (docs/protocol.md, "Group 3:
/// executive").
const SNS_SHOWN: usize = 1_024;

impl<E: Environment> Node<E> {
    pub(super) fn check_admin(&self, key: &AdminKey) -> Result<(), Status> {
        match *key == self.admin_key {
            true => Ok(()),
            false => Err(Status::WRONG_ADMIN_KEY),
        }
    }

    pub(super) async fn available_sns(
        &self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = AvailableSns::parse(payload)?;
        self.check_admin(&request.key)?;
        let session = request.session.get();
        for denomination in request.denominations() {
            let mut free: Vec<SerialNumber> = Vec::new();
            // Sessions start at different shards, so that they seldom want the same pages.
            for step in 0..self.mesh.shards() {
                let most = SNS_SHOWN - free.len();
                if most == 0 {
                    break;
                }
                let shard = (session as u16).wrapping_add(step) % self.mesh.shards();
                let reserve = question::Reserve {
                    session,
                    denomination,
                    most,
                };
                free.extend(self.mesh.ask(ShardId::new(shard), reserve).await);
            }
            free.sort_unstable();
            write_free_sns(denomination, free, out);
        }
        Ok(Status::SUCCESS)
    }

    pub(super) async fn create_coins(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = CreateCoins::parse(payload)?;
        self.check_admin(&request.key)?;
        let asked = request.coins()?;
        // Coins that the answer cannot hold would be created, and their ANs lost.
        caller.takes(asked.len() * An::SIZE)?;
        let mut coins: Vec<Coin> = asked.iter().collect();
        coins.sort_unstable();
        if coins.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Status::INVALID_COIN);
        }
        let mfs = self.shard().month();
        let ans: Vec<An> = coins.iter().map(|_| self.shard().unknown_an()).collect();
        let session = Some(request.session.get());
        let created = self.mesh.change_together(&coins, session, |held| {
            if !held.reserved {
                return Decision::Refuse(Status::NOT_RESERVED);
            }
            if held.values.iter().any(Option::is_some) {
                return Decision::Refuse(Status::INVALID_COIN);
            }
            let new = coins
                .iter()
                .zip(&ans)
                .map(|(&coin, &an)| Change { coin, an, mfs });
            Decision::Change(new.collect(), Notes::default())
        });
        created.await??;
        let an_of = |coin: Coin| ans[coins.binary_search(&coin).expect("it was asked for")];
        write_created(asked.iter().map(an_of), out);
        Ok(Status::SUCCESS)
    }

    pub(super) async fn delete_coins(
        &self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = DeleteCoins::parse(payload)?;
        self.check_admin(&request.key)?;
        let records = request.records()?;
        let exchanges = records.iter().map(|(coin, an)| {
            let becomes = Replacement::Free;
            coin.map(|coin| Exchange { coin, an, becomes })
        });
        let mut answer = PassFail::begin(out, records.len());
        self.exchange(exchanges, |record| answer.pass(record))
            .await?;
        Ok(answer.finish(Bitmap::IfMixed))
    }

    pub(super) async fn free_coins(&self, payload: &[u8]) -> Result<Status, Status> {
        let request = FreeCoins::parse(payload)?;
        self.check_admin(&request.key)?;
        let mut coins: Vec<Coin> = request.coins()?.iter().collect();
        coins.sort_unstable();
        coins.dedup();
        let freed = self.mesh.change_together(&coins, None, |_| {
            let new = coins.iter().map(|&coin| Change {
                coin,
                an: self.shard().unknown_an(),
                mfs: Mfs::FREE,
            });
            Decision::<Status>::Change(new.collect(), Notes::default())
        });
        freed.await??;
        Ok(Status::SUCCESS)
    }

    pub(super) async fn all_sns(
        &self,
        payload: &[u8],
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        let request = AllSns::parse(payload)?;
        self.check_admin(&request.key)?;
        let denomination = request.denomination()?;
        caller.takes(AllSns::REPLY_SIZE)?;
        let start = out.len();
        out.resize(start + AllSns::REPLY_SIZE, 0);
        let circulation = || question::Circulation(denomination);
        for pages in self.mesh.ask_all(circulation).await {
            for (page, bits) in pages {
                let at = start + page.number() as usize * COINS_PER_PAGE / 8;
                for (bytes, word) in out[at..].chunks_exact_mut(8).zip(bits) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
            }
            self.shard().environment.turn_in_line().await;
        }
        Ok(Status::SUCCESS)
    }
}
