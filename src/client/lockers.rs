use std::collections::HashSet;
use std::time::Instant;

use super::commands::all_or_none;
use super::{Client, ClientError, NotAList, Outcome};
use crate::coin::{An, Coin};
use crate::protocol::lockers::{
    Address, Buy, Contents, Currency, ListForSale, Listed, Listing, LockerKey, Peek, PeekTrade,
    PutForSale, Remove, RemoveTrade, Removed, StoreSum, TradeKey, TradeName, TradePart,
};
use crate::protocol::{Command, Status};

/// Maximum number of coins of a locker or an offer that are read from one server. Anybody who puts
/// more there has to take them out without a list.
pub const LISTED_COINS_MAX: usize = 100_000;

/// The state of a purchase on a server that checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purchase {
    /// It is paid: the coins lie in the buyer's locker.
    Paid,
    /// The payment is not confirmed yet: ask again. Nobody else can buy the coins meanwhile where
    /// the server has seen it.
    Pending,
    /// The payment is not as agreed, or has paid for something else before.
    Refused,
    /// Nothing of exactly that value is on offer at that price.
    NoSuchOffer,
    /// The server has nothing that checks payments.
    NoSettlement,
}

/// Draws an authenticity number that nobody can guess. It puts the coin neither into a locker nor
/// up for sale.
///
/// # Errors
/// The system has no random numbers to give.
pub fn draw_an() -> Result<An, getrandom::Error> {
    loop {
        let mut bytes = [0; An::SIZE];
        getrandom::fill(&mut bytes)?;
        let an = An::new(bytes);
        if !an.is_locker_key() && !an.is_trade_key() {
            return Ok(an);
        }
    }
}

/// Group 8.
impl Client {
    /// Puts coins into a locker. Takes any number of coins and sends as many requests as they need;
    /// each request stores all of its coins or none. Returns each coin's outcome in the order
    /// given, and the first error.
    pub fn store_sum(
        &mut self,
        coins: &[(Coin, An)],
        key: LockerKey,
    ) -> (Vec<Outcome>, Option<ClientError>) {
        let batch = self.records_per_request(Coin::SIZE, 2 * An::SIZE, 0);
        let mut outcomes = vec![Outcome::NotAsked; coins.len()];
        let error = self.in_batches(
            Command::StoreSum,
            coins,
            batch,
            |coins, out| {
                StoreSum::compose(coins.iter().map(|&(coin, _)| coin), sum(coins), key, out)
            },
            |asked, reply| {
                outcomes[asked.clone()].fill(Outcome::Unknown);
                let stored = all_or_none(reply?.status)?;
                outcomes[asked].fill(outcome(stored));
                Some(())
            },
        );
        (outcomes, error)
    }

    /// Asks which coins lie in a locker, in the order in which they were stored.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn peek(&mut self, key: LockerKey) -> Result<Vec<Coin>, ClientError> {
        let reply = self.ask(Command::Peek, |out| Peek::compose(key, out))?;
        let contents = Contents::read(reply.status, &reply.payload);
        self.some(Command::Peek, contents.map(|c| listed(c.coins())))?
            .map_err(|why| self.not_a_list(why))
    }

    /// Gives coins of a locker new numbers, so that they leave it. Takes any number of coins.
    /// Returns each one's outcome in the order given, and the first error.
    ///
    /// Write the new numbers down first: once a coin has changed, nothing else claims it.
    pub fn remove(
        &mut self,
        key: LockerKey,
        coins: &[(Coin, An)],
    ) -> (Vec<Outcome>, Option<ClientError>) {
        let batch = self.records_per_request(Coin::SIZE + An::SIZE, An::SIZE, 0);
        let mut outcomes = vec![Outcome::NotAsked; coins.len()];
        let error = self.in_batches(
            Command::Remove,
            coins,
            batch,
            |coins, out| Remove::compose(key, coins.iter().copied(), out),
            |asked, reply| {
                outcomes[asked.clone()].fill(Outcome::Unknown);
                match Removed::read(reply?.status, &reply?.payload, asked.len())? {
                    Removed::NoLocker => outcomes[asked].fill(Outcome::Failed),
                    Removed::Records(passed) => {
                        for (place, passed) in asked.zip(passed.iter()) {
                            outcomes[place] = outcome(passed);
                        }
                    }
                }
                Some(())
            },
        );
        (outcomes, error)
    }

    /// Puts coins up for sale, all or none, one request. Returns whether it was done.
    ///
    /// # Errors
    /// No answer, or a refusal, as where the same offer is there already. Without an answer it may
    /// have been done.
    pub fn put_for_sale(
        &mut self,
        coins: &[(Coin, An)],
        key: TradeKey,
        address: &Address,
    ) -> Result<bool, ClientError> {
        let reply = self.ask(Command::PutForSale, |out| {
            let offered = coins.iter().map(|&(coin, _)| coin);
            PutForSale::compose(offered, sum(coins), key, address, out);
        })?;
        self.some(Command::PutForSale, all_or_none(reply.status))
    }

    /// Asks what is on offer in a currency: the first `most`, in the order in which they were
    /// offered.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn list_for_sale(
        &mut self,
        currency: Currency,
        most: u8,
    ) -> Result<Vec<Listed>, ClientError> {
        let list = ListForSale { currency, most };
        let reply = self.ask(Command::ListForSale, |out| list.compose(out))?;
        let listing = Listing::read(reply.status, &reply.payload, currency);
        let listed = listing.map(|l| l.iter().collect::<Vec<Listed>>());
        let asked_for = listed.filter(|listed| listed.len() <= most.into());
        self.some(Command::ListForSale, asked_for)
    }

    /// Asks which coins are for sale in a trade locker, known by its key or its public id.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn peek_trade(&mut self, name: TradeName) -> Result<Vec<Coin>, ClientError> {
        let compose = |out: &mut _| PeekTrade::compose(name, TradePart::Coins, out);
        let reply = self.ask(Command::PeekTrade, compose)?;
        let contents = Contents::read(reply.status, &reply.payload);
        self.some(Command::PeekTrade, contents.map(|c| listed(c.coins())))?
            .map_err(|why| self.not_a_list(why))
    }

    /// Asks where the seller of an offer wants to be paid; `None` where there is none, or the
    /// server does not know the question.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn trade_address(&mut self, name: TradeName) -> Result<Option<Address>, ClientError> {
        let compose = |out: &mut _| PeekTrade::compose(name, TradePart::Address, out);
        match self.ask(Command::PeekTrade, compose) {
            Ok(reply) => {
                let address = PeekTrade::read_address(reply.status, &reply.payload);
                self.some(Command::PeekTrade, address)
            }
            Err(error) if error.is_not_known() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks where the sellers of offers want to be paid, in the order of the offers. `None` where
    /// there is no such offer, or the server does not know the question, as with other programs. It
    /// does not wait for answers that come later than `until`. Also returns the first error;
    /// answers received before it are still valid.
    pub fn trade_addresses(
        &mut self,
        names: &[TradeName],
        until: Instant,
    ) -> (Vec<Option<Address>>, Option<ClientError>) {
        let mut addresses = vec![None; names.len()];
        let error = self.in_batches(
            Command::PeekTrade,
            names,
            1,
            |names, out| PeekTrade::compose(names[0], TradePart::Address, out),
            |asked, reply| {
                let reply = reply.filter(|_| Instant::now() <= until)?;
                addresses[asked.start] = PeekTrade::read_address(reply.status, &reply.payload)?;
                Some(())
            },
        );
        let knows_not = ClientError::is_not_known;
        (addresses, error.filter(|error| !knows_not(error)))
    }

    /// Says that a trade locker is paid for, and asks for its coins. The same request may be
    /// repeated, until the purchase is paid or refused.
    ///
    /// # Errors
    /// No answer, or a refusal of another kind than [`Purchase`] has.
    pub fn buy(&mut self, buy: &Buy<'_>) -> Result<Purchase, ClientError> {
        let status = match self.ask(Command::Buy, |out| buy.compose(out)) {
            Ok(reply) => reply.status,
            Err(ClientError::Refused(host, status)) => {
                return match status {
                    Status::PAYMENT_PENDING => Ok(Purchase::Pending),
                    Status::PAYMENT_REFUSED => Ok(Purchase::Refused),
                    Status::NO_SUCH_OFFER => Ok(Purchase::NoSuchOffer),
                    Status::NO_SETTLEMENT => Ok(Purchase::NoSettlement),
                    other => Err(ClientError::Refused(host, other)),
                };
            }
            Err(error) => return Err(error),
        };
        let is_paid = status == Status::ALL_PASS;
        self.some(Command::Buy, is_paid.then_some(Purchase::Paid))
    }

    /// Takes a trade locker back: its coins go into a locker, or out of circulation. Returns
    /// whether there was one.
    ///
    /// # Errors
    /// No answer, or a refusal, as while somebody's purchase is pending. Without an answer it may
    /// have been done.
    pub fn remove_trade(
        &mut self,
        key: TradeKey,
        into: Option<LockerKey>,
    ) -> Result<bool, ClientError> {
        let reply = self.ask(Command::RemoveTrade, |out| {
            RemoveTrade::compose(key, into, out);
        })?;
        self.some(Command::RemoveTrade, all_or_none(reply.status))
    }
}

/// Coins of a list, each once.
fn listed(coins: impl Iterator<Item = Coin> + Clone) -> Result<Vec<Coin>, NotAList> {
    let count = coins.clone().count();
    if count > LISTED_COINS_MAX {
        return Err(NotAList::TooLong(count));
    }
    let mut seen = HashSet::with_capacity(count);
    match coins.clone().find(|&coin| !seen.insert(coin)) {
        Some(coin) => Err(NotAList::Twice(coin)),
        None => Ok(coins.collect()),
    }
}

fn sum(coins: &[(Coin, An)]) -> An {
    coins.iter().fold(An::ZERO, |sum, &(_, an)| sum ^ an)
}

fn outcome(passed: bool) -> Outcome {
    match passed {
        true => Outcome::Changed,
        false => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;

    #[test]
    fn a_list_names_each_coin_once_and_has_a_bound() {
        let coin = |number: usize| {
            PageId::from_index(number / 1_024)
                .unwrap()
                .coin(number % 1_024)
        };
        let most = || (0..LISTED_COINS_MAX).map(coin);
        assert_eq!(listed(most()).unwrap().len(), LISTED_COINS_MAX);
        let longer = listed((0..=LISTED_COINS_MAX).map(coin));
        assert_eq!(longer, Err(NotAList::TooLong(LISTED_COINS_MAX + 1)));
        let twice = listed([1, 2, 3, 2].map(coin).into_iter());
        assert_eq!(twice, Err(NotAList::Twice(coin(2))));
        assert_eq!(listed(std::iter::empty()), Ok(vec![]));
    }
}
