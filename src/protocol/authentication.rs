//! Group 1: who owns a coin, and handing it on (PROTOCOL.md section 5). Sizes here are of the
//! payload: the page's less the 18 bytes of challenge and trailer.

use super::{
    Status,
    records::{Claimed, Coins, Records, an_at, write},
};
use crate::coin::{An, Coin};

/// Detect: are these the coins' authenticity numbers? n x (DN SN AN), 21n bytes.
///
/// Answered by [`super::PassFail`] with [`super::pass_fail::Bitmap::IfMixed`]. An impossible coin
/// just fails.
#[derive(Clone, Copy, Debug)]
pub struct Detect<'a> {
    records: Records<'a, (Claimed, An)>,
}

impl<'a> Detect<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Detect<'a>, Status> {
        Records::parse(payload).map(|records| Detect { records })
    }

    /// Appends the payload that asks about these coins.
    pub fn compose(records: impl IntoIterator<Item = (Coin, An)>, out: &mut Vec<u8>) {
        write(records.into_iter().map(|(coin, an)| (Some(coin), an)), out);
    }

    /// How many coins are asked about: 1 or more.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a request has at least one record"
    )]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The record with this number, counted from 0; `None` past the last.
    #[inline]
    pub fn record(&self, record: usize) -> Option<(Option<Coin>, An)> {
        self.records.get(record)
    }

    /// The coins and the numbers claimed for them; `None` for a coin that cannot exist.
    #[inline]
    pub fn records(&self) -> impl ExactSizeIterator<Item = (Option<Coin>, An)> + Clone + use<'a> {
        self.records.iter()
    }
}

/// Detect sum: is this the XOR of the coins' authenticity numbers? n x (DN SN), then the XOR:
/// 16 + 5n bytes. Answered with 241 or 242 and no payload.
#[derive(Clone, Copy, Debug)]
pub struct DetectSum<'a> {
    coins: Coins<'a>,
    sum: An,
}

impl<'a> DetectSum<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<DetectSum<'a>, Status> {
        let (coins, tail) = split_tail(payload, An::SIZE)?;
        Ok(DetectSum {
            coins,
            sum: an_at(tail, 0),
        })
    }

    /// Appends the payload that asks about these coins.
    pub fn compose(coins: impl IntoIterator<Item = Coin>, sum: An, out: &mut Vec<u8>) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(sum.expose());
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }

    /// What the client says the XOR of their authenticity numbers is.
    #[inline]
    pub fn sum(&self) -> An {
        self.sum
    }
}

/// Pown: give these coins new authenticity numbers, each whose old one is right. n x (DN SN AN PAN),
/// 37n bytes. Answered as [`Detect`]; an impossible coin just fails.
#[derive(Clone, Copy, Debug)]
pub struct Pown<'a> {
    records: Records<'a, (Claimed, An, An)>,
}

impl<'a> Pown<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Pown<'a>, Status> {
        Records::parse(payload).map(|records| Pown { records })
    }

    /// Appends the payload: each coin with its authenticity number and the proposed one.
    pub fn compose(records: impl IntoIterator<Item = (Coin, An, An)>, out: &mut Vec<u8>) {
        let claimed = |(coin, an, proposed)| (Some(coin), an, proposed);
        write(records.into_iter().map(claimed), out);
    }

    /// How many coins there are: 1 or more.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a request has at least one record"
    )]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The record with this number, counted from 0; `None` past the last.
    #[inline]
    pub fn record(&self, record: usize) -> Option<(Option<Coin>, An, An)> {
        self.records.get(record)
    }

    /// The coins, the numbers claimed for them and the proposed ones; `None` for a coin that cannot
    /// exist.
    #[inline]
    pub fn records(
        &self,
    ) -> impl ExactSizeIterator<Item = (Option<Coin>, An, An)> + Clone + use<'a> {
        self.records.iter()
    }
}

/// Pown sum: n x (DN SN), the XOR of their authenticity numbers, and a delta: 32 + 5n bytes. Where
/// the XOR is right, every number becomes itself XOR delta: all coins or none. Answered with 241 or
/// 242 and no payload.
#[derive(Clone, Copy, Debug)]
pub struct PownSum<'a> {
    coins: Coins<'a>,
    sum: An,
    delta: An,
}

impl<'a> PownSum<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<PownSum<'a>, Status> {
        let (coins, tail) = split_tail(payload, 2 * An::SIZE)?;
        Ok(PownSum {
            coins,
            sum: an_at(tail, 0),
            delta: an_at(tail, An::SIZE),
        })
    }

    /// Appends the payload.
    pub fn compose(coins: impl IntoIterator<Item = Coin>, sum: An, delta: An, out: &mut Vec<u8>) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(sum.expose());
        out.extend_from_slice(delta.expose());
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }

    /// What the client says the XOR of their authenticity numbers is.
    #[inline]
    pub fn sum(&self) -> An {
        self.sum
    }

    /// What every authenticity number is to be changed by.
    #[inline]
    pub fn delta(&self) -> An {
        self.delta
    }
}

/// Splits a list of coins from the fixed number of bytes that end the payload.
#[inline]
fn split_tail(payload: &[u8], tail: usize) -> Result<(Coins<'_>, &[u8]), Status> {
    let coins = payload
        .len()
        .checked_sub(tail)
        .ok_or(Status::INVALID_LENGTH)?;
    let (coins, tail) = payload.split_at(coins);
    Ok((Records::<Claimed>::parse(coins)?.all_possible()?, tail))
}
