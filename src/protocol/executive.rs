//! Group 3: putting coins into circulation and taking them out (docs/protocol.md section 5). Sizes
//! here are sizes of the payload: 18 bytes (challenge and trailer) less than on that page.
//!
//! Every request carries the admin key. Parsing only checks the length of the shortest request
//! (16). The node compares the key first (38), and only then asks for the list; a wrong list is
//! refused at that point (39, 40). A stranger learns nothing about the rest and costs no more than
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
    /// The key the client gave: the node compares it with its own; 38 where they differ.
    pub key: AdminKey,
    flags: [bool; Denomination::COUNT],
}

impl AvailableSns {
    /// Number of flags on the wire: one more than there are denominations; the last means nothing.
    const FLAGS: usize = 16;

    /// Reads a payload: 16 where it has another size. A flag is set where it is not 0.
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
    /// The session that must have reserved the coins' pages; 41 where it did not.
    pub session: SessionId,
    /// The key the client gave: the node compares it with its own; 38 where they differ.
    pub key: AdminKey,
    list: &'a [u8],
}

/// Free coins: with the same layout as [`CreateCoins`]. Answered with no payload.
#[derive(Clone, Debug)]
pub struct FreeCoins<'a> {
    /// The session; it is not checked.
    pub session: SessionId,
    /// The key the client gave: the node compares it with its own; 38 where they differ.
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
            list: at_least_one::<Claimed>(list)?,
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
/// impossible coin simply fails.
#[derive(Clone)]
pub struct DeleteCoins<'a> {
    /// The key the client gave: the node compares it with its own; 38 where they differ.
    pub key: AdminKey,
    list: &'a [u8],
}

impl std::fmt::Debug for DeleteCoins<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeleteCoins({} bytes)", self.list.len())
    }
}

impl<'a> DeleteCoins<'a> {
    /// Reads a payload: 16 where it is too short for one coin.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<DeleteCoins<'a>, Status> {
        let (key, list) = split_key(payload)?;
        Ok(DeleteCoins {
            key,
            list: at_least_one::<(Claimed, An)>(list)?,
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

/// Get all SNs: key (16), DN (1); 17 bytes; anything that follows is ignored. Answered with a
/// bitmap of [`AllSns::REPLY_SIZE`] bytes, over TCP only.
#[derive(Clone, Debug)]
pub struct AllSns {
    /// The key the client gave: the node compares it with its own; 38 where they differ.
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

    /// The denomination asked for: 40 where it does not exist.
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

/// A list with room for one record. Whether it divides is checked later, after the key.
#[inline]
fn at_least_one<R: Record>(list: &[u8]) -> Result<&[u8], Status> {
    if list.len() < size_of::<R::Bytes>() {
        Err(Status::INVALID_LENGTH)
    } else {
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::{any_an, any_coin, coin};
    use proptest::prelude::*;

    const SESSION: SessionId = SessionId::new(0x0102_0304);

    fn key() -> AdminKey {
        AdminKey::new(*b"the admin's key!")
    }

    #[test]
    fn available_sns_are_asked_for_in_36_bytes_exactly() {
        let asked = [Denomination::from_index(0), Denomination::from_index(14)].map(Option::unwrap);
        let mut payload = Vec::new();
        AvailableSns::compose(SESSION, &key(), asked, &mut payload);
        assert_eq!(payload.len(), 36);
        let request = AvailableSns::parse(&payload).unwrap();
        assert_eq!((request.session, request.key.clone()), (SESSION, key()));
        assert_eq!(request.denominations().collect::<Vec<_>>(), asked);
        // The sixteenth flag names no denomination.
        payload[35] = 1;
        assert_eq!(
            AvailableSns::parse(&payload)
                .unwrap()
                .denominations()
                .count(),
            2
        );
        for wrong in [0, 4, 20, 35, 37] {
            payload.resize(wrong, 0);
            assert_eq!(
                AvailableSns::parse(&payload).unwrap_err(),
                Status::INVALID_LENGTH
            );
        }
    }

    #[test]
    fn a_wrong_list_is_refused_only_after_the_key_was_read() {
        let mut payload = Vec::new();
        CreateCoins::compose(SESSION, &key(), [coin(0, 1), coin(0, 2)], &mut payload);
        for short in 0..25 {
            let refusal = CreateCoins::parse(&payload[..short]).unwrap_err();
            assert_eq!(refusal, Status::INVALID_LENGTH);
            let refusal = FreeCoins::parse(&payload[..short]).unwrap_err();
            assert_eq!(refusal, Status::INVALID_LENGTH);
        }
        let uneven = CreateCoins::parse(&payload[..26]).unwrap();
        assert_eq!(uneven.key, key());
        assert_eq!(uneven.coins().unwrap_err(), Status::UNEVEN_RECORDS);
        payload[20] = 7;
        let impossible = FreeCoins::parse(&payload).unwrap();
        assert_eq!(impossible.key, key());
        assert_eq!(impossible.coins().unwrap_err(), Status::INVALID_COIN);
    }

    #[test]
    fn an_impossible_coin_just_fails_to_be_deleted() {
        let mut payload = Vec::new();
        DeleteCoins::compose(&key(), [(coin(0, 1), An::ZERO)], &mut payload);
        let short = DeleteCoins::parse(&payload[..36]).unwrap_err();
        assert_eq!(short, Status::INVALID_LENGTH);
        payload[16] = 7;
        let delete = DeleteCoins::parse(&payload).unwrap();
        assert_eq!(delete.records().unwrap().get(0), Some((None, An::ZERO)));
        payload.push(0);
        let delete = DeleteCoins::parse(&payload).unwrap();
        assert_eq!(delete.records().unwrap_err(), Status::UNEVEN_RECORDS);
    }

    #[test]
    fn all_sns_of_a_denomination_that_there_is_not_are_refused_after_the_key() {
        let mut payload = Vec::new();
        AllSns::compose(&key(), Denomination::from_index(3).unwrap(), &mut payload);
        let request = AllSns::parse(&payload).unwrap();
        assert_eq!(request.key, key());
        assert_eq!(
            request.denomination(),
            Ok(Denomination::from_index(3).unwrap())
        );
        assert_eq!(
            AllSns::parse(&payload[..16]).unwrap_err(),
            Status::INVALID_LENGTH
        );
        payload[16] = 7;
        let request = AllSns::parse(&payload).unwrap();
        assert_eq!(request.denomination(), Err(Status::INVALID_COIN));
    }

    #[test]
    fn the_bitmap_of_all_sns_reads_low_bit_first() {
        let mut reply = vec![0; AllSns::REPLY_SIZE];
        assert_eq!(reply.len(), 128_000);
        (reply[1], reply[127_999]) = (0b10, 0x80);
        let sns: Vec<u32> = AllSns::read_reply(&reply)
            .unwrap()
            .map(SerialNumber::get)
            .collect();
        assert_eq!(sns, [9, 1_023_999]);
        assert!(AllSns::read_reply(&reply[1..]).is_none());
    }

    proptest! {
        #[test]
        fn created_coins_read_back(
            coins in prop::collection::vec(any_coin(), 1..40),
            an in any_an(),
        ) {
            let mut payload = Vec::new();
            CreateCoins::compose(SESSION, &key(), coins.iter().copied(), &mut payload);
            let request = CreateCoins::parse(&payload).unwrap();
            prop_assert_eq!((request.session, &request.key), (SESSION, &key()));
            prop_assert_eq!(request.coins().unwrap().iter().collect::<Vec<_>>(), coins.clone());
            payload.clear();
            write_created(coins.iter().map(|_| an), &mut payload);
            prop_assert_eq!(payload.len(), 16 * coins.len());
            prop_assert!(read_created(&payload, coins.len()).unwrap().all(|read| read == an));
            prop_assert!(read_created(&payload, coins.len() + 1).is_none());
        }

        #[test]
        fn any_payload_is_parsed_without_a_panic(
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = AvailableSns::parse(&payload).map(|request| request.denominations().count());
            let _ = CreateCoins::parse(&payload).and_then(|request| request.coins().map(|c| c.len()));
            let _ = FreeCoins::parse(&payload).and_then(|request| request.coins().map(|c| c.len()));
            let _ = DeleteCoins::parse(&payload).and_then(|r| r.records().map(|r| r.iter().count()));
            let _ = AllSns::parse(&payload).and_then(|request| request.denomination());
        }
    }
}
