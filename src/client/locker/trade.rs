use std::collections::BTreeMap;

use super::{LockerSecret, Peeked, TradeSecret};
use crate::client::{ClientError, PerRaida, Purchase, Raidas};
use crate::coin::Coin;
use crate::protocol::RaidaId;
use crate::protocol::lockers::{
    Buy, Currency, Listed, Memo, Offer, PublicId, ReceiptId, TransactionId,
};

/// Maximum number of offers that one answer lists: the most that the request can ask for.
const LISTED_MAX: u8 = u8::MAX;

/// Asks every server what is on offer in a currency.
pub fn offers(currency: Currency, raidas: &Raidas) -> PerRaida<Result<Vec<Listed>, ClientError>> {
    raidas.ask_all(raidas.timeout, |client, _| {
        client.list_for_sale(currency, LISTED_MAX)
    })
}

/// How an offer is identified.
#[derive(Clone, Debug)]
pub enum ShownBy {
    /// By its secret, which its seller has.
    Secret(TradeSecret),
    /// By what is for sale, and for how much: on one server no two offers have the same terms.
    Offer(Offer),
}

/// What the servers say of one offer.
#[derive(Debug)]
pub struct Shown {
    /// The coins that each server has there; none where it has no such offer.
    pub coins: Peeked,
    /// Each server's public id for it, where the offer was searched in their lists.
    pub ids: PerRaida<Option<PublicId>>,
}

/// Asks every server which coins are for sale in an offer.
pub fn show(by: &ShownBy, raidas: &Raidas) -> Shown {
    let answers = raidas.ask_all(raidas.timeout, |client, raida| {
        let offer = match by {
            ShownBy::Secret(secret) => {
                let coins = client.peek_trade(secret.key(raida).into())?;
                return Ok((coins, None));
            }
            ShownBy::Offer(offer) => offer,
        };
        let listed = client.list_for_sale(offer.currency, LISTED_MAX)?;
        // A server of the `raidax` dialect lists no ids, and without one nobody but the seller can
        // ask.
        let Some(id) = (listed.iter().find(|listed| listed.offer == *offer)).and_then(|l| l.id)
        else {
            return Ok((vec![], None));
        };
        Ok((client.peek_trade(id.into())?, Some(id)))
    });
    let mut ids = PerRaida::from_fn(|_| None);
    let mut coins: BTreeMap<RaidaId, Result<Vec<Coin>, ClientError>> = BTreeMap::new();
    for (raida, answer) in answers {
        let answer = answer.map(|(coins, id)| {
            ids[raida] = id;
            coins
        });
        coins.insert(raida, answer);
    }
    let of = |raida| coins.remove(&raida).expect("every server has an answer");
    Shown {
        coins: Peeked(PerRaida::from_fn(of)),
        ids,
    }
}

/// What a buyer says to every server.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is bought, and for how much.
    pub offer: Offer,
    /// The payment.
    pub transaction: TransactionId,
    /// Proof that the payment is the buyer's.
    pub receipt: ReceiptId,
    /// The buyer's memo: 1 to 254 bytes.
    pub memo: Vec<u8>,
}

/// Tells every server that an offer is paid, and has its coins put into a locker. The same request
/// may be repeated, with the same locker: servers that were paid say so once more.
///
/// # Panics
/// When the memo is empty, or longer than [`Memo::LENGTH_MAX`].
pub fn buy(
    order: &Order,
    into: &LockerSecret,
    raidas: &Raidas,
) -> PerRaida<Result<Purchase, ClientError>> {
    let memo = Memo::new(&order.memo).expect("1 to 254 bytes");
    raidas.ask_all(raidas.timeout, |client, raida| {
        client.buy(&Buy {
            into: into.key(raida),
            offer: order.offer,
            transaction: order.transaction,
            receipt: order.receipt,
            memo,
        })
    })
}

/// Takes an offer back on every server: its coins go into a locker, or out of circulation. Returns
/// whether each server had it.
pub fn cancel(
    secret: &TradeSecret,
    into: Option<&LockerSecret>,
    raidas: &Raidas,
) -> PerRaida<Result<bool, ClientError>> {
    raidas.ask_all(raidas.timeout, |client, raida| {
        client.remove_trade(secret.key(raida), into.map(|into| into.key(raida)))
    })
}
