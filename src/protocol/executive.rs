//! Group 3: putting coins into circulation and taking them out (PROTOCOL.md section 5). Sizes here
//! are of the payload: the page's less the 18 bytes of challenge and trailer.
//!
//! Every request carries the admin key. Parsing checks no more than that the shortest request is
//! there (16): the node compares the key first (38), and only then asks for the list, which is when
//! a wrong list is refused (39, 40). A stranger learns nothing about the rest and costs no more than
//! the comparison.

use super::{
    AdminKey, Status,
    records::{Claimed, Coins, Record, Records, write},
};
use crate::coin::{An, Coin, Denomination, SerialNumber};

mod available;

pub use available::{AvailableSnsReply, FreeSns, write_free_sns};

/// A minting session, named by the client: pages are reserved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u32);

impl SessionId {
    /// Bytes a session takes.
    pub const SIZE: usize = 4;

    /// The session with this number.
    #[inline]
    pub const fn new(number: u32) -> SessionId {
        SessionId(number)
    }

    /// The plain number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Get available SNs: session (4), key (16), 16 flags by DN + 8; 36 bytes exactly. Answered with
/// [`write_free_sns`] for each denomination that is flagged.
#[derive(Clone, Debug)]
pub struct AvailableSns {
    /// The session that the pages are reserved for.
    pub session: SessionId,
    /// The key the client gave: to be compared with the node's, 38 where it is another.
    pub key: AdminKey,
    flags: [bool; Denomination::COUNT],
}

impl AvailableSns {
    /// Flags on the wire: one more than there are denominations; the last means nothing.
    const FLAGS: usize = 16;

    /// Reads a payload: 16 where it has another size. Any flag but 0 is set.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<AvailableSns, Status> {
        let (session, key, flags) = split_session(payload)?;
        if flags.len() != Self::FLAGS {
            return Err(Status::INVALID_LENGTH);
        }
        Ok(AvailableSns {
            session,
            key,
            flags: std::array::from_fn(|index| flags[index] != 0),
        })
    }

    /// Appends the payload that asks for serial numbers of these denominations.
    pub fn compose(
        session: SessionId,
        key: &AdminKey,
        denominations: impl IntoIterator<Item = Denomination>,
        out: &mut Vec<u8>,
    ) {
        let mut flags = [0; Self::FLAGS];
        for denomination in denominations {
            flags[denomination.index()] = 1;
        }
        write_session(session, key, out);
        out.extend_from_slice(&flags);
    }

    /// The denominations asked for, the smallest first.
    pub fn denominations(&self) -> impl Iterator<Item = Denomination> + Clone + use<> {
        let flags = self.flags;
        (0..Denomination::COUNT)
            .filter(move |&index| flags[index])
            .filter_map(Denomination::from_index)
    }
}

/// Create coins: session (4), key (16), n x (DN SN); 20 + 5n bytes. Answered with
/// [`write_created`].
#[derive(Clone, Debug)]
pub struct CreateCoins<'a> {
    /// The session that must have reserved the coins' pages; 41 where it has not.
    pub session: SessionId,
    /// The key the client gave: to be compared with the node's, 38 where it is another.
    pub key: AdminKey,
    list: &'a [u8],
}

/// Free coins: laid out as [`CreateCoins`]. Answered with no payload.
#[derive(Clone, Debug)]
pub struct FreeCoins<'a> {
    /// The session; nothing is asked of it.
    pub session: SessionId,
    /// The key the client gave: to be compared with the node's, 38 where it is another.
    pub key: AdminKey,
    list: &'a [u8],
}

impl<'a> CreateCoins<'a> {
    /// Reads a payload: 16 where it is too short for one coin.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<CreateCoins<'a>, Status> {
        let (session, key, list) = split_session(payload)?;
        Ok(CreateCoins {
            session,
            key,
            list: at_least::<Claimed>(list)?,
        })
    }

    /// Appends the payload.
    pub fn compose(
        session: SessionId,
        key: &AdminKey,
        coins: impl IntoIterator<Item = Coin>,
        out: &mut Vec<u8>,
    ) {
        write_session(session, key, out);
        write(coins.into_iter().map(Some), out);
    }

    /// The coins: 39 where the list does not divide, 40 where a coin cannot exist.
    #[inline]
    pub fn coins(&self) -> Result<Coins<'a>, Status> {
        Records::<Claimed>::parse(self.list)?.all_possible()
    }
}

impl<'a> FreeCoins<'a> {
    /// Reads a payload: 16 where it is too short for one coin.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<FreeCoins<'a>, Status> {
        let CreateCoins { session, key, list } = CreateCoins::parse(payload)?;
        Ok(FreeCoins { session, key, list })
    }

    /// Appends the payload.
    pub fn compose(
        session: SessionId,
        key: &AdminKey,
        coins: impl IntoIterator<Item = Coin>,
        out: &mut Vec<u8>,
    ) {
        CreateCoins::compose(session, key, coins, out);
    }

    /// The coins: 39 where the list does not divide, 40 where a coin cannot exist.
    #[inline]
    pub fn coins(&self) -> Result<Coins<'a>, Status> {
        Records::<Claimed>::parse(self.list)?.all_possible()
    }
}

/// Delete coins: key (16), n x (DN SN AN); 16 + 21n bytes. Answered by [`super::PassFail`]; an
/// impossible coin just fails.
#[derive(Clone, Debug)]
pub struct DeleteCoins<'a> {
    /// The key the client gave: to be compared with the node's, 38 where it is another.
    pub key: AdminKey,
    list: &'a [u8],
}

impl<'a> DeleteCoins<'a> {
    /// Reads a payload: 16 where it is too short for one coin.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<DeleteCoins<'a>, Status> {
        let (key, list) = split_key(payload)?;
        Ok(DeleteCoins {
            key,
            list: at_least::<(Claimed, An)>(list)?,
        })
    }

    /// Appends the payload.
    pub fn compose(
        key: &AdminKey,
        records: impl IntoIterator<Item = (Coin, An)>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(key.expose());
        write(records.into_iter().map(|(coin, an)| (Some(coin), an)), out);
    }

    /// The coins and the numbers claimed for them: 39 where the list does not divide.
    #[inline]
    pub fn records(&self) -> Result<Records<'a, (Claimed, An)>, Status> {
        Records::parse(self.list)
    }
}

/// Get all SNs: key (16), DN (1); 17 bytes, whatever follows is ignored. Answered with a bitmap of
/// [`AllSns::REPLY_SIZE`] bytes, over TCP only.
#[derive(Clone, Debug)]
pub struct AllSns {
    /// The key the client gave: to be compared with the node's, 38 where it is another.
    pub key: AdminKey,
    denomination: Option<Denomination>,
}

impl AllSns {
    /// Bytes of the answer: one bit for each serial number of the denomination, low bit first, set
    /// where the coin is in circulation.
    pub const REPLY_SIZE: usize = SerialNumber::COUNT as usize / 8;

    /// Reads a payload: 16 where it is too short.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<AllSns, Status> {
        let (key, rest) = split_key(payload)?;
        let &dn = rest.first().ok_or(Status::INVALID_LENGTH)?;
        Ok(AllSns {
            key,
            denomination: Denomination::from_byte(dn),
        })
    }

    /// Appends the payload.
    pub fn compose(key: &AdminKey, denomination: Denomination, out: &mut Vec<u8>) {
        out.extend_from_slice(key.expose());
        out.push(denomination.to_byte());
    }

    /// The denomination asked for: 40 where there is no such one.
    #[inline]
    pub fn denomination(&self) -> Result<Denomination, Status> {
        self.denomination.ok_or(Status::INVALID_COIN)
    }

    /// Which serial numbers an answer says are in circulation, by rising number; `None` where the
    /// answer has another size.
    pub fn read_reply(payload: &[u8]) -> Option<impl Iterator<Item = SerialNumber> + '_> {
        (payload.len() == Self::REPLY_SIZE).then(|| {
            (0..SerialNumber::COUNT)
                .filter(|&sn| payload[sn as usize / 8] & (1 << (sn % 8)) != 0)
                .filter_map(SerialNumber::new)
        })
    }
}

/// Appends the answer to "create coins": the new authenticity numbers, in the order asked.
pub fn write_created(ans: impl IntoIterator<Item = An>, out: &mut Vec<u8>) {
    for an in ans {
        out.extend_from_slice(an.expose());
    }
}

/// Reads the answer to "create coins" of this many coins; `None` where it has another size.
pub fn read_created(
    payload: &[u8],
    coins: usize,
) -> Option<impl ExactSizeIterator<Item = An> + '_> {
    let (ans, rest) = payload.as_chunks();
    (ans.len() == coins && rest.is_empty()).then(|| ans.iter().map(|&an| An::new(an)))
}

#[inline]
fn split_key(payload: &[u8]) -> Result<(AdminKey, &[u8]), Status> {
    let (key, rest) = payload.split_first_chunk().ok_or(Status::INVALID_LENGTH)?;
    Ok((AdminKey::new(*key), rest))
}

#[inline]
fn split_session(payload: &[u8]) -> Result<(SessionId, AdminKey, &[u8]), Status> {
    let (session, rest) = payload.split_first_chunk().ok_or(Status::INVALID_LENGTH)?;
    let (key, rest) = split_key(rest)?;
    Ok((SessionId(u32::from_be_bytes(*session)), key, rest))
}

fn write_session(session: SessionId, key: &AdminKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&session.get().to_be_bytes());
    out.extend_from_slice(key.expose());
}

/// A list with room for one record; whether it divides is asked later, after the key.
#[inline]
fn at_least<R: Record>(list: &[u8]) -> Result<&[u8], Status> {
    if list.len() < R::SIZE {
        Err(Status::INVALID_LENGTH)
    } else {
        Ok(list)
    }
}
