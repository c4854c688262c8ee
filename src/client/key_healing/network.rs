use crate::client::{ClientError, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::key_healing::{EncryptionTicket, GetEncryptionTicket, Presented, Verdict};
use crate::protocol::{Protection, RaidaId, Status};

/// The servers of a network as key healing sees them. Each request is made on a thread of its own.
pub trait Network: Sync {
    /// Asks a helper, under the coin's number there, to vouch for the client.
    ///
    /// # Errors
    /// No answer, or a refusal.
    fn ticket(
        &self,
        helper: RaidaId,
        an: An,
        asked: &GetEncryptionTicket,
    ) -> Result<EncryptionTicket, ClientError>;

    /// Has a broken server take the number that tickets vouch for. Returns the verdict on each. The
    /// server took the number if it accepted both halves, else it did not.
    ///
    /// # Errors
    /// No answer, or a refusal. Without an answer it may have been done.
    fn fix(
        &self,
        broken: RaidaId,
        coin: Coin,
        tickets: &[Presented],
    ) -> Result<Vec<Verdict>, ClientError>;

    /// Asks a server whether this is a coin's number there, without showing the number to an
    /// eavesdropper; nothing is changed.
    ///
    /// # Errors
    /// No answer, or a refusal.
    fn has(&self, raida: RaidaId, coin: Coin, an: An) -> Result<bool, ClientError>;
}

impl Network for Raidas {
    /// The request is of type 4, under the coin itself, which proves that the client owns it. Type
    /// 1 would not do. By default a server starts its key stream again for the answer. An
    /// eavesdropper who then sees the ticket go to the broken server in plain has that stream. The
    /// stream shows the request's challenge, and the answer's challenge XOR the request's is the
    /// helper's number of the coin.
    ///
    /// That keeps the new number secret, and adds nothing to what was known of the helper's. The
    /// questions that commands ask before they mend anything
    /// ([`Looked`](crate::client::heal::Looked)) go to the servers as [`Raidas::protection`] says,
    /// which is in plain for those of `raida`.
    fn ticket(
        &self,
        helper: RaidaId,
        an: An,
        asked: &GetEncryptionTicket,
    ) -> Result<EncryptionTicket, ClientError> {
        let key = Protection::CoinHmac(asked.coin, an);
        let mut client = self.connect_under(helper, self.timeout, key)?;
        client.get_encryption_ticket(asked)
    }

    /// Not encrypted: there is no key for it. The tickets show their helpers and the coin's serial
    /// number, and nothing of the new number.
    fn fix(
        &self,
        broken: RaidaId,
        coin: Coin,
        tickets: &[Presented],
    ) -> Result<Vec<Verdict>, ClientError> {
        let mut client = self.connect_under(broken, self.timeout, Protection::None)?;
        client.fix_encryption(coin, tickets)
    }

    /// The number itself is the request's key: a server that has another number, or none, cannot
    /// read the request, and says so. The server may have lost all other numbers that the client
    /// knows, so no other key could be used.
    fn has(&self, raida: RaidaId, coin: Coin, an: An) -> Result<bool, ClientError> {
        let key = Protection::CoinHmac(coin, an);
        let mut client = self.connect_under(raida, self.timeout, key)?;
        match client.detect(&[(coin, an)]) {
            Ok(passed) => Ok(passed[0]),
            Err(ClientError::Refused(_, Status::UNKNOWN_KEY_COIN | Status::WRONG_HMAC)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
