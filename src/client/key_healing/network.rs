use crate::client::{ClientError, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::healing::Found;
use crate::protocol::key_healing::{EncryptionTicket, GetEncryptionTicket, Presented};
use crate::protocol::{Protection, RaidaId};

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

    /// Has a broken server take the number that tickets vouch for: which of them it accepted. It took
    /// the number if it accepted both halves, else it did not.
    ///
    /// # Errors
    /// No answer, or a refusal. Without an answer it may have been done.
    fn fix(
        &self,
        broken: RaidaId,
        coin: Coin,
        tickets: &[Presented],
    ) -> Result<Vec<bool>, ClientError>;

    /// Asks a server which of two numbers a coin has; nothing is changed.
    ///
    /// # Errors
    /// No answer, or a refusal.
    fn find(&self, raida: RaidaId, coin: Coin, an: An, pan: An) -> Result<Found, ClientError>;
}

impl Network for Raidas {
    /// The request is of type 4, under the coin itself, which is the proof that the client owns it. Not
    /// of type 1: where a server starts its key stream again for the answer, as by default, who reads
    /// along and then sees the ticket go to the broken server in plain has that stream, by it the
    /// request's challenge, and by that the helper's number of the coin, which is the answer's challenge
    /// XOR its own.
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

    /// Not encrypted: there is no key for it, and the tickets show nothing.
    fn fix(
        &self,
        broken: RaidaId,
        coin: Coin,
        tickets: &[Presented],
    ) -> Result<Vec<bool>, ClientError> {
        let mut client = self.connect_under(broken, self.timeout, Protection::None)?;
        client.fix_encryption(coin, tickets)
    }

    fn find(&self, raida: RaidaId, coin: Coin, an: An, pan: An) -> Result<Found, ClientError> {
        let found = self
            .connect(raida, self.timeout)?
            .find(&[(coin, an, pan)])?;
        Ok(found[0])
    }
}
