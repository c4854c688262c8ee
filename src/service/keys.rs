//! Finding the key that a request is encrypted with.

use super::Node;
use crate::runtime::Environment;
use crate::{
    coin::{An, Coin},
    protocol::{Dialect, Encryption, Key, RequestHeader, Status, header::KeySource, try_challenge},
    shard::{KeysOf, question},
};

impl<E: Environment> Node<E> {
    /// The key, where this shard's memory knows it; `None` where it has to be asked for.
    #[inline]
    pub(super) fn key_now(
        &self,
        header: &RequestHeader,
        body: &[u8],
    ) -> Option<Result<Key, Status>> {
        match header.key_source() {
            KeySource::None => Some(Ok(Key::None)),
            KeySource::Coin(None) | KeySource::TwoCoins(None, _) | KeySource::TwoCoins(_, None) => {
                Some(Err(header.missing_key_status()))
            }
            KeySource::Coin(Some(coin)) => match self.an_now(coin)? {
                Ok(an) => Some(one_coin_key(header, an)),
                Err(status) => Some(Err(status)),
            },
            KeySource::TwoCoins(Some(first), Some(second)) => {
                match (self.an_now(first)?, self.an_now(second)?) {
                    (Ok(first), Ok(second)) => Some(two_coin_key(header, first, second)),
                    (Err(status), _) | (_, Err(status)) => Some(Err(status)),
                }
            }
            KeySource::Locker(prefix) => {
                let shard = self.shard();
                if shard.locker_home(prefix) != shard.id {
                    return None;
                }
                let keys = shard.locker_keys(prefix, self.keys_of());
                Some(among(header, body, keys))
            }
        }
    }

    /// The key, wherever it is.
    pub(super) async fn key(&self, header: &RequestHeader, body: &[u8]) -> Result<Key, Status> {
        if let Some(key) = self.key_now(header, body) {
            return key;
        }
        match header.key_source() {
            KeySource::Coin(Some(coin)) => one_coin_key(header, self.an(coin).await?),
            KeySource::TwoCoins(Some(first), Some(second)) => {
                two_coin_key(header, self.an(first).await?, self.an(second).await?)
            }
            KeySource::Locker(prefix) => self.locker_key(header, body, prefix).await,
            _ => unreachable!("key_now knows the others"),
        }
    }

    async fn locker_key(
        &self,
        header: &RequestHeader,
        body: &[u8],
        prefix: [u8; 5],
    ) -> Result<Key, Status> {
        let home = self.shard().locker_home(prefix);
        let keys = question::LockerKeys(prefix, self.keys_of());
        among(header, body, self.mesh.ask(home, keys).await)
    }

    /// In `spec` a trade key is no key of a request (docs/protocol.md, "Encryption types").
    fn keys_of(&self) -> KeysOf {
        match self.rules.get().dialect {
            Dialect::Spec => KeysOf::Lockers,
            Dialect::Raidax => KeysOf::All,
        }
    }

    #[inline]
    pub(super) fn an_now(&self, coin: Coin) -> Option<Result<Option<An>, Status>> {
        if !self.shard().owns(coin.page()) {
            return None;
        }
        let an = self.shard().an_now(coin)?;
        Some(an.map_err(|_| Status::UNAVAILABLE))
    }

    pub(super) async fn an(&self, coin: Coin) -> Result<Option<An>, Status> {
        let owner = coin.page().owner(self.mesh.shards());
        Ok(self.mesh.ask(owner, question::NumberOf(coin)).await?)
    }
}

/// Of the keys of lockers, the one that makes the challenge right. Where there is none, any of
/// them: the request is then refused for its challenge.
fn among(header: &RequestHeader, body: &[u8], keys: Vec<An>) -> Result<Key, Status> {
    let mut found = Err(header.missing_key_status());
    for an in keys {
        let key = Key::from_an(an);
        let is_right = try_challenge(header, body, &key);
        found = Ok(key);
        if is_right {
            break;
        }
    }
    found
}

/// A free coin has no owner, so it is no key.
fn one_coin_key(header: &RequestHeader, an: Option<An>) -> Result<Key, Status> {
    let an = an.ok_or(header.missing_key_status())?;
    Ok(match header.encryption {
        Encryption::CoinKeyHmac => Key::from_hashed_an(an),
        _ => Key::from_an(an),
    })
}

fn two_coin_key(
    header: &RequestHeader,
    first: Option<An>,
    second: Option<An>,
) -> Result<Key, Status> {
    let both = first.zip(second).ok_or(header.missing_key_status())?;
    Ok(Key::from_hashed_ans(both.0, both.1))
}
