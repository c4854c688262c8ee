//! Group 4: a client that has lost a server's authenticity number of a coin gets a new one there if
//! two others vouch for it (docs/protocol.md section 6). Sizes here are sizes of the payload: 18
//! bytes (challenge and trailer) less than on that page.
//!
//! Parsing refuses with the statuses of the `raidax` dialect, as in `healing`. Its `in_dialect`
//! knows this group's statuses too.

use std::time::Duration;

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{RaidaId, Status};
use crate::coin::{An, Coin};

/// Maximum age of a ticket, in minutes.
pub const TICKET_AGE_MINUTES_MAX: u64 = 10;
/// How far, in minutes, a helper's clock may be ahead of this server's. A ticket issued a moment
/// ago bears the next minute where that minute began a moment earlier at the helper.
pub const CLOCK_AHEAD_MINUTES_MAX: u64 = 1;
/// Maximum number of tickets that one fix may present: the most that the count of the short layout
/// can express.
pub const TICKETS_PRESENTED_MAX: usize = u8::MAX as usize;

/// The last byte of a ticket before encryption. Another value shows that the ticket was not
/// decrypted with the right secret.
const MARK: u8 = 0xff;
/// The denomination of a key id.
const KEY_ID_DENOMINATION: u8 = 1;
/// A key id's serial number is this many times the broken server's number.
const KEY_ID_STEP: u32 = 1_000;

/// Half of an authenticity number: the part that one helper learns. Printing it shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
pub struct KeyPart([u8; KeyPart::SIZE]);

/// Which half of an authenticity number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Bytes 0 to 7.
    First = 0,
    /// Bytes 8 to 15.
    Second = 1,
}

/// The two halves of an authenticity number, the first one first.
pub fn split(an: An) -> [KeyPart; 2] {
    let (halves, _) = an.expose().as_chunks();
    [KeyPart(halves[0]), KeyPart(halves[1])]
}

/// The authenticity number made of two halves.
pub fn join([first, second]: [KeyPart; 2]) -> An {
    let mut bytes = [0; An::SIZE];
    bytes[..KeyPart::SIZE].copy_from_slice(&first.0);
    bytes[KeyPart::SIZE..].copy_from_slice(&second.0);
    An::new(bytes)
}

impl KeyPart {
    /// Number of bytes.
    pub const SIZE: usize = 8;
}

impl Half {
    /// The half with this number; `None` from 2 on.
    #[inline]
    pub const fn new(number: u8) -> Option<Half> {
        match number {
            0 => Some(Half::First),
            1 => Some(Half::Second),
            _ => None,
        }
    }
}

/// When a ticket was issued: minutes since 1970 in UTC. A ticket has room for the low 16 bits only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(pub u64);

impl Minute {
    /// The minute of this second since 1970.
    #[inline]
    pub const fn of_unix_seconds(seconds: u64) -> Minute {
        Minute(seconds / 60)
    }

    /// The low 16 bits, as a ticket states them.
    #[inline]
    pub const fn low_bits(self) -> u16 {
        self.0 as u16
    }

    /// The minute in which a ticket with these low bits was issued, if it is valid in this minute:
    /// at most [`TICKET_AGE_MINUTES_MAX`] old, and no more than [`CLOCK_AHEAD_MINUTES_MAX`] ahead.
    pub fn of_good_ticket(self, low: u16) -> Option<Minute> {
        let latest = self.0 + CLOCK_AHEAD_MINUTES_MAX;
        let before_latest = u64::from((latest as u16).wrapping_sub(low));
        let is_good = before_latest <= TICKET_AGE_MINUTES_MAX + CLOCK_AHEAD_MINUTES_MAX;
        is_good.then(|| Minute(latest.saturating_sub(before_latest)))
    }

    /// Whether a ticket of this minute was certainly issued after a coin's newest change, which was
    /// in the given minute. The change may be from any moment of its minute, and the helper's clock
    /// may be a minute ahead (docs/protocol.md section 6).
    pub const fn is_good_since(self, newest: Minute) -> bool {
        self.0 > newest.0 + CLOCK_AHEAD_MINUTES_MAX
    }
}

/// What a helper vouches for: that the client owns the coin there, and wishes this half of a new
/// authenticity number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The half.
    pub part: KeyPart,
    /// The coin.
    pub coin: Coin,
    /// The low 16 bits of the [`Minute`].
    pub minute: u16,
}

/// A voucher that the client carries from the helper to the broken server: one AES-128 block, which
/// nobody but those two can read or make. Printing it shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncryptionTicket([u8; EncryptionTicket::SIZE]);

impl EncryptionTicket {
    /// Number of bytes.
    pub const SIZE: usize = 16;

    /// Takes the bytes as they are.
    #[inline]
    pub const fn new(bytes: [u8; Self::SIZE]) -> EncryptionTicket {
        EncryptionTicket(bytes)
    }

    /// The bytes themselves.
    #[inline]
    pub fn expose(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// Reads the answer to [`GetEncryptionTicket`]; `None` where it has another size.
    pub fn read(payload: &[u8]) -> Option<EncryptionTicket> {
        Some(EncryptionTicket(payload.try_into().ok()?))
    }
}

/// The secret that two servers share, ready to encrypt tickets with. Wiped from memory when
/// dropped, and printing it shows nothing.
#[derive(Clone)]
pub struct SharedSecret(Aes128);

// The cipher wipes its own key schedule. That is a feature of its crate; this line fails to compile
// without it.
const _: fn() = || {
    fn is_wiped<T: ZeroizeOnDrop>() {}
    is_wiped::<Aes128>();
};

impl SharedSecret {
    /// Bytes of a secret.
    pub const SIZE: usize = 16;

    /// Makes a secret of these sixteen bytes.
    pub fn new(bytes: &[u8; Self::SIZE]) -> SharedSecret {
        SharedSecret(Aes128::new(bytes.into()))
    }

    /// Makes a ticket: key part (8), DN, SN (4), minute (2), 0xFF, in one block.
    #[inline]
    pub fn seal(&self, voucher: &Voucher) -> EncryptionTicket {
        let mut block = [0; EncryptionTicket::SIZE];
        block[..8].copy_from_slice(&voucher.part.0);
        block[8..13].copy_from_slice(&voucher.coin.to_bytes());
        block[13..15].copy_from_slice(&voucher.minute.to_be_bytes());
        block[15] = MARK;
        let mut block = block.into();
        self.0.encrypt_block(&mut block);
        EncryptionTicket(block.into())
    }

    /// Reads a ticket; `None` where it was not made with this secret, or was altered.
    #[inline]
    pub fn open(&self, ticket: &EncryptionTicket) -> Option<Voucher> {
        let mut block = ticket.0.into();
        self.0.decrypt_block(&mut block);
        let block: [u8; EncryptionTicket::SIZE] = block.into();
        let (part, rest) = block.split_first_chunk()?;
        let (coin, &[high, low, mark]) = rest.split_first_chunk()? else {
            return None;
        };
        Some(Voucher {
            part: KeyPart(*part),
            coin: Coin::from_bytes(coin).filter(|_| mark == MARK)?,
            minute: u16::from_be_bytes([high, low]),
        })
    }
}

/// The secrets that a server shares with the others. Each is in memory once, however many cores
/// there are.
#[derive(Debug)]
pub struct SharedSecrets([Option<SharedSecret>; RaidaId::COUNT]);

impl SharedSecrets {
    /// Takes the secret with each server, where there is one, by rising number.
    pub fn new(secrets: [Option<SharedSecret>; RaidaId::COUNT]) -> SharedSecrets {
        SharedSecrets(secrets)
    }

    /// The secret shared with a server; `None` where there is none.
    #[inline]
    pub fn of(&self, raida: RaidaId) -> Option<&SharedSecret> {
        self.0[usize::from(raida.get())].as_ref()
    }
}

/// Get encryption ticket: vouch for me at a server that has lost my coin. Two layouts, 14 and 34
/// bytes. Answered with an [`EncryptionTicket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetEncryptionTicket {
    /// The server that reads the ticket.
    pub broken: RaidaId,
    /// The coin.
    pub coin: Coin,
    /// The half of its new authenticity number.
    pub part: KeyPart,
    /// The coin's authenticity number here; `None` in the short layout, where the coin is the
    /// request's key.
    pub an: Option<An>,
}

impl GetEncryptionTicket {
    /// Bytes of the short layout: broken server (1), DN SN, key part (8).
    pub const SHORT: usize = 1 + Coin::SIZE + KeyPart::SIZE;
    /// Bytes of the long layout: key id (5), key part (8), DN SN, AN (16).
    pub const LONG: usize = Coin::SIZE + KeyPart::SIZE + Coin::SIZE + An::SIZE;

    /// Reads a payload: 16 where it has another size, 18 where there is no such server, 40 where
    /// the coin cannot exist, or the key id is invalid.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<GetEncryptionTicket, Status> {
        let server = |number| RaidaId::new(number).ok_or(Status::RAIDA_OUT_OF_RANGE);
        let coin = |bytes| Coin::from_bytes(bytes).ok_or(Status::INVALID_COIN);
        if let Some((&[broken], rest)) = exactly::<1, { Self::SHORT }>(payload) {
            let (at, part) = rest.split_first_chunk().ok_or(Status::INVALID_LENGTH)?;
            return Ok(GetEncryptionTicket {
                broken: server(broken)?,
                coin: coin(at)?,
                part: read_part(part)?,
                an: None,
            });
        }
        let (key_id, rest) =
            exactly::<{ Coin::SIZE }, { Self::LONG }>(payload).ok_or(Status::INVALID_LENGTH)?;
        let (part, rest) = rest.split_at(KeyPart::SIZE);
        let (at, an) = rest.split_first_chunk().ok_or(Status::INVALID_LENGTH)?;
        let &[KEY_ID_DENOMINATION, ref serial_number @ ..] = key_id else {
            return Err(Status::INVALID_COIN);
        };
        let broken = u32::from_be_bytes(*serial_number) / KEY_ID_STEP;
        let an: [u8; An::SIZE] = an.try_into().map_err(|_| Status::INVALID_LENGTH)?;
        Ok(GetEncryptionTicket {
            broken: u8::try_from(broken).map_or(Err(Status::RAIDA_OUT_OF_RANGE), server)?,
            coin: coin(at)?,
            part: read_part(part)?,
            an: Some(An::new(an)),
        })
    }

    /// Appends the payload, in the layout that fits these fields.
    pub fn compose(&self, out: &mut Vec<u8>) {
        match &self.an {
            None => {
                out.push(self.broken.get());
                out.extend_from_slice(&self.coin.to_bytes());
                out.extend_from_slice(&self.part.0);
            }
            Some(an) => {
                out.push(KEY_ID_DENOMINATION);
                let serial_number = KEY_ID_STEP * u32::from(self.broken.get());
                out.extend_from_slice(&serial_number.to_be_bytes());
                out.extend_from_slice(&self.part.0);
                out.extend_from_slice(&self.coin.to_bytes());
                out.extend_from_slice(an.expose());
            }
        }
    }
}

/// The first bytes of a payload of exactly this size, and the others.
#[inline]
fn exactly<const FIRST: usize, const ALL: usize>(payload: &[u8]) -> Option<(&[u8; FIRST], &[u8])> {
    if payload.len() != ALL {
        return None;
    }
    payload.split_first_chunk()
}

fn read_part(bytes: &[u8]) -> Result<KeyPart, Status> {
    let bytes = bytes.try_into().map_err(|_| Status::INVALID_LENGTH)?;
    Ok(KeyPart(bytes))
}

/// Fix encryption: helpers vouch for these halves of a coin's new authenticity number. Two layouts:
/// DN SN, n (1), n x (helper (1), half (1), 0, ticket (16)), 6 + 19n bytes; and DN SN, n x (helper
/// (1), coin id (2), half (1), shard (1), DN SN, ticket (16)), 5 + 26n bytes. Answered with n
/// bytes, each a
/// [`Verdict`].
#[derive(Clone, Copy, Debug)]
pub struct FixEncryption<'a> {
    /// The coin.
    pub coin: Coin,
    tickets: Layout<'a>,
}

#[derive(Clone, Copy)]
enum Layout<'a> {
    Short(&'a [[u8; SHORT_ENTRY]]),
    Long(&'a [[u8; LONG_ENTRY]]),
}

const SHORT_ENTRY: usize = 3 + EncryptionTicket::SIZE;
const LONG_ENTRY: usize = 5 + Coin::SIZE + EncryptionTicket::SIZE;

/// The broken server's verdict on a ticket presented to it (docs/protocol.md section 6): one byte
/// of the answer to [`FixEncryption`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not accepted: no ticket of that helper for this coin, too old, or used before.
    Refused,
    /// Accepted. The ticket is used up.
    Accepted,
    /// Valid except for the minute rule: the coin may have changed since the ticket was issued. The
    /// ticket is not used up. A ticket that is issued [`TOO_EARLY_WAIT`] later is not refused for
    /// this reason, unless the coin changes again.
    TooEarly,
}

/// How long a client waits, after [`Verdict::TooEarly`], before it asks helpers for new tickets.
pub const TOO_EARLY_WAIT: Duration = Duration::from_secs(180);

impl Verdict {
    const TOO_EARLY: u8 = 255;

    /// The byte of the answer.
    #[inline]
    pub const fn byte(self) -> u8 {
        match self {
            Verdict::Refused => 0,
            Verdict::Accepted => 1,
            Verdict::TooEarly => Self::TOO_EARLY,
        }
    }

    /// The verdict that a byte of the answer means; `None` where it means none.
    #[inline]
    pub const fn of_byte(byte: u8) -> Option<Verdict> {
        match byte {
            0 => Some(Verdict::Refused),
            1 => Some(Verdict::Accepted),
            Self::TOO_EARLY => Some(Verdict::TooEarly),
            _ => None,
        }
    }
}

/// A ticket as it is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The helper that issued it.
    pub helper: RaidaId,
    /// Which half it contains.
    pub half: Half,
    /// The ticket.
    pub ticket: EncryptionTicket,
}

impl<'a> FixEncryption<'a> {
    /// Reads a payload: 16 where it is too short or presents too many tickets, 39 where it does not
    /// divide into tickets, 40 where the coin cannot exist.
    pub fn parse(payload: &'a [u8]) -> Result<FixEncryption<'a>, Status> {
        let (coin, rest) = (payload.split_first_chunk()).ok_or(Status::INVALID_LENGTH)?;
        if rest.len() <= SHORT_ENTRY {
            return Err(Status::INVALID_LENGTH);
        }
        let coin = Coin::from_bytes(coin).ok_or(Status::INVALID_COIN)?;
        let tickets = Layout::of(rest).ok_or(Status::UNEVEN_RECORDS)?;
        if tickets.len() > TICKETS_PRESENTED_MAX {
            return Err(Status::INVALID_LENGTH);
        }
        Ok(FixEncryption { coin, tickets })
    }

    /// Appends the payload, in the short layout.
    ///
    /// # Panics
    /// When there are more than [`TICKETS_PRESENTED_MAX`] tickets.
    pub fn compose(coin: Coin, tickets: &[Presented], out: &mut Vec<u8>) {
        let count = u8::try_from(tickets.len()).expect("a fix presents at most 255 tickets");
        out.extend_from_slice(&coin.to_bytes());
        out.push(count);
        for presented in tickets {
            out.extend_from_slice(&[presented.helper.get(), presented.half as u8, 0]);
            out.extend_from_slice(presented.ticket.expose());
        }
    }

    /// Number of tickets: 1 to [`TICKETS_PRESENTED_MAX`].
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a request has at least one")]
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// The tickets in their order; `None` in place of a ticket that cannot be valid: from a server
    /// or for a half that does not exist, or for another coin.
    pub fn tickets(&self) -> impl ExactSizeIterator<Item = Option<Presented>> + use<'a> {
        let (coin, tickets) = (self.coin, self.tickets);
        (0..tickets.len()).map(move |index| tickets.get(index, coin))
    }

    /// Reads the answer to a request with this many tickets: the verdict on each. `None` where the
    /// payload is no such answer.
    pub fn read(payload: &[u8], tickets: usize) -> Option<Vec<Verdict>> {
        let verdicts = payload.get(..tickets)?.iter();
        verdicts.map(|&byte| Verdict::of_byte(byte)).collect()
    }
}

impl<'a> Layout<'a> {
    /// The layout of what follows the coin. Some lengths fit both layouts (15 and 11 tickets, 41
    /// and 30 and so on). The count tells them apart, and where the count could be a helper, the
    /// content of the first ticket does.
    fn of(rest: &'a [u8]) -> Option<Layout<'a>> {
        let (long, is_long) = match rest.as_chunks() {
            (tickets, []) => (tickets, true),
            (tickets, _) => (tickets, false),
        };
        if let Some((&count, entries)) = rest.split_first()
            && let (short, []) = entries.as_chunks::<SHORT_ENTRY>()
            && short.len() == usize::from(count)
        {
            let is_whole = |[_, half, zero, ..]: &[u8; SHORT_ENTRY]| *half <= 1 && *zero == 0;
            if !is_long || short.iter().all(is_whole) {
                return Some(Layout::Short(short));
            }
        }
        is_long.then_some(Layout::Long(long))
    }

    fn len(&self) -> usize {
        match self {
            Layout::Short(tickets) => tickets.len(),
            Layout::Long(tickets) => tickets.len(),
        }
    }

    fn get(&self, index: usize, coin: Coin) -> Option<Presented> {
        let (helper, half, ticket) = match self {
            Layout::Short(tickets) => {
                let [helper, half, _, ticket @ ..] = tickets[index];
                (helper, half, ticket)
            }
            Layout::Long(tickets) => {
                let [helper, _, _, half, _, rest @ ..] = &tickets[index];
                let (of, ticket) = rest.split_first_chunk()?;
                if Coin::from_bytes(of) != Some(coin) {
                    return None;
                }
                (*helper, *half, *ticket.first_chunk()?)
            }
        };
        Some(Presented {
            helper: RaidaId::new(helper)?,
            half: Half::new(half)?,
            ticket: EncryptionTicket(ticket),
        })
    }
}

impl std::fmt::Debug for Layout<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tickets", self.len())
    }
}

impl std::fmt::Debug for KeyPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPart(secret)")
    }
}

impl std::fmt::Debug for EncryptionTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EncryptionTicket(secret)")
    }
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedSecret(secret)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::coin::{Denomination, SerialNumber};

    fn coin() -> Coin {
        Coin {
            denomination: Denomination::new(-3).unwrap(),
            serial_number: SerialNumber::new(643_829).unwrap(),
        }
    }

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    fn voucher() -> Voucher {
        Voucher {
            part: KeyPart([1, 2, 3, 4, 5, 6, 7, 8]),
            coin: coin(),
            minute: 0x1234,
        }
    }

    fn presented(number: u8) -> Presented {
        Presented {
            helper: raida(number % 25),
            half: Half::new(number % 2).unwrap(),
            ticket: EncryptionTicket([number; 16]),
        }
    }

    fn long(tickets: &[Presented]) -> Vec<u8> {
        let mut out = coin().to_bytes().to_vec();
        for presented in tickets {
            out.extend_from_slice(&[presented.helper.get(), 0, 6, presented.half as u8, 0]);
            out.extend_from_slice(&coin().to_bytes());
            out.extend_from_slice(presented.ticket.expose());
        }
        out
    }

    #[test]
    fn a_ticket_is_one_block_of_the_fields_in_their_order() {
        let secret = [7; 16];
        let ticket = SharedSecret::new(&secret).seal(&voucher());
        let mut block = (*ticket.expose()).into();
        Aes128::new(&secret.into()).decrypt_block(&mut block);
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 0, 9, 0xd2, 0xf5, 0x12, 0x34, 0xff,
        ];
        assert_eq!(<[u8; 16]>::from(block), expected);
        assert_eq!(SharedSecret::new(&secret).open(&ticket), Some(voucher()));
    }

    #[test]
    fn a_ticket_with_any_bit_flipped_says_nothing_of_the_coin() {
        let secret = SharedSecret::new(&[7; 16]);
        let ticket = secret.seal(&voucher());
        for bit in 0..128 {
            let mut bytes = ticket.0;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = secret.open(&EncryptionTicket(bytes));
            assert!(
                opened.is_none_or(|opened| opened.coin != coin()),
                "bit {bit}"
            );
        }
        let other = SharedSecret::new(&[8; 16]).open(&ticket);
        assert!(other.is_none_or(|opened| opened.coin != coin()));
    }

    #[test]
    fn a_ticket_is_good_for_ten_minutes_and_one_minute_ahead() {
        for now in [0u64, 9, 65_530, 65_540, 29_000_000, u64::from(u32::MAX)] {
            let at = |minute: u64| Minute(now).of_good_ticket(minute as u16);
            for age in 0..=10.min(now) {
                assert_eq!(at(now - age), Some(Minute(now - age)), "{now} {age}");
            }
            assert_eq!(at(now + 1), Some(Minute(now + 1)));
            assert_eq!(at(now + 2), None);
            assert_eq!(at(now.wrapping_sub(11)), None);
            assert_eq!(at(now + 32_768), None);
        }
    }

    #[test]
    fn tickets_are_asked_for_in_two_layouts_of_which_one_names_no_number() {
        let mut asked = GetEncryptionTicket {
            broken: raida(24),
            coin: coin(),
            part: KeyPart([9; 8]),
            an: None,
        };
        let mut short = vec![];
        asked.compose(&mut short);
        assert_eq!(short[..6], [24, 0xfd, 0, 9, 0xd2, 0xf5]);
        assert_eq!((short.len(), short[6]), (14, 9));
        assert_eq!(GetEncryptionTicket::parse(&short), Ok(asked));
        asked.an = Some(An::new([4; 16]));
        let mut long = vec![];
        asked.compose(&mut long);
        assert_eq!(long[..5], [1, 0, 0, 0x5d, 0xc0]);
        assert_eq!((long.len(), long[13], long[18]), (34, 0xfd, 4));
        assert_eq!(GetEncryptionTicket::parse(&long), Ok(asked));
        let status = |change: &dyn Fn(&mut Vec<u8>), of: &[u8]| {
            let mut payload = of.to_vec();
            change(&mut payload);
            GetEncryptionTicket::parse(&payload).unwrap_err()
        };
        assert_eq!(status(&|p| p[0] = 25, &short), Status::RAIDA_OUT_OF_RANGE);
        assert_eq!(status(&|p| p[2] = 1, &short), Status::INVALID_COIN);
        assert_eq!(status(&|p| p.truncate(13), &short), Status::INVALID_LENGTH);
        assert_eq!(status(&|p| p[0] = 2, &long), Status::INVALID_COIN);
        assert_eq!(
            status(
                &|p| p[3..5].copy_from_slice(&25_000u16.to_be_bytes()),
                &long
            ),
            Status::RAIDA_OUT_OF_RANGE
        );
        assert_eq!(status(&|p| p[2] = 9, &long), Status::RAIDA_OUT_OF_RANGE);
        assert_eq!(status(&|p| p.push(0), &long), Status::INVALID_LENGTH);
    }

    #[test]
    fn both_layouts_of_a_fix_are_read_whatever_their_length() {
        for count in 1..=255usize {
            let tickets: Vec<Presented> = (0..count).map(|i| presented(i as u8)).collect();
            let mut short = vec![];
            FixEncryption::compose(coin(), &tickets, &mut short);
            assert_eq!(short.len(), 24 - 18 + 19 * count);
            let long = long(&tickets);
            assert_eq!(long.len(), 23 - 18 + 26 * count);
            for payload in [short, long] {
                let read = FixEncryption::parse(&payload).unwrap();
                assert_eq!((read.coin, read.len()), (coin(), count));
                assert!(read.tickets().eq(tickets.iter().copied().map(Some)));
            }
        }
    }

    #[test]
    fn eleven_long_tickets_of_which_the_first_is_raida_15s_are_not_fifteen_short_ones() {
        let mut tickets = [presented(15); 11];
        for half in [Half::First, Half::Second] {
            tickets[0].half = half;
            let payload = long(&tickets);
            assert_eq!((payload[5], payload.len()), (15, 6 + 15 * 19));
            assert_eq!(FixEncryption::parse(&payload).unwrap().len(), 11);
        }
    }

    #[test]
    fn a_ticket_of_no_server_no_half_or_another_coin_is_no_good() {
        let mut short = vec![];
        FixEncryption::compose(coin(), &[presented(3); 3], &mut short);
        short[6] = 25;
        short[6 + 19 + 1] = 2;
        let read = FixEncryption::parse(&short).unwrap().tickets();
        assert!(read.eq([None, None, Some(presented(3))]));
        let mut long = long(&[presented(3); 3]);
        long[5] = 255;
        long[5 + 26 + 9] ^= 1;
        let read = FixEncryption::parse(&long).unwrap().tickets();
        assert!(read.eq([None, None, Some(presented(3))]));
    }

    #[test]
    fn a_fix_of_another_length_or_of_no_coin_is_refused() {
        let mut payload = vec![];
        FixEncryption::compose(coin(), &[presented(3); 2], &mut payload);
        let parse = |payload: &[u8]| FixEncryption::parse(payload).map(|fix| fix.len());
        assert_eq!(parse(&payload), Ok(2));
        assert_eq!(
            parse(&payload[..payload.len() - 1]),
            Err(Status::UNEVEN_RECORDS)
        );
        assert_eq!(parse(&payload[..24]), Err(Status::INVALID_LENGTH));
        let mut none = vec![];
        FixEncryption::compose(coin(), &[], &mut none);
        assert_eq!(parse(&none), Err(Status::INVALID_LENGTH));
        payload[5] = 3;
        assert_eq!(parse(&payload), Err(Status::UNEVEN_RECORDS));
        payload[2] = 0xff;
        assert_eq!(parse(&payload), Err(Status::INVALID_COIN));
        let many = long(&[presented(1); 256]);
        assert_eq!(parse(&many), Err(Status::INVALID_LENGTH));
    }

    #[test]
    fn an_answer_has_one_verdict_a_ticket() {
        let read = |answer: &[u8]| FixEncryption::read(answer, 3);
        let said = [Verdict::Refused, Verdict::Accepted, Verdict::TooEarly];
        assert_eq!(said.map(Verdict::byte), [0, 1, 255]);
        assert_eq!(read(&[0, 1, 255]), Some(said.to_vec()));
        assert_eq!(read(&[0, 1]), None);
        assert_eq!(read(&[0, 1, 2]), None);
    }

    #[test]
    fn printing_shows_neither_key_part_nor_ticket_nor_secret() {
        let secret = SharedSecret::new(&[0x51; 16]);
        let printed = format!(
            "{:?} {:?} {:?} {:?}",
            secret,
            voucher(),
            presented(0x51),
            GetEncryptionTicket {
                broken: raida(1),
                coin: coin(),
                part: KeyPart([0x51; 8]),
                an: Some(An::new([0x51; 16])),
            }
        );
        assert!(
            !printed.contains("81, 81") && !printed.contains("2, 3"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn what_is_split_is_joined_again(bytes: [u8; 16]) {
            let [first, second] = split(An::new(bytes));
            prop_assert_eq!(&first.0[..], &bytes[..8]);
            prop_assert_eq!(&second.0[..], &bytes[8..]);
            prop_assert_eq!(join([first, second]), An::new(bytes));
        }

        #[test]
        fn any_payload_is_read_or_refused(
            payload in prop::collection::vec(any::<u8>(), 0..400),
            is_coin: bool,
        ) {
            let mut payload = payload;
            if is_coin && payload.len() > 5 {
                payload[..5].copy_from_slice(&coin().to_bytes());
            }
            let _ = GetEncryptionTicket::parse(&payload);
            if let Ok(fix) = FixEncryption::parse(&payload) {
                prop_assert_eq!(fix.tickets().count(), fix.len());
            }
            let _ = FixEncryption::read(&payload, 2);
            let _ = EncryptionTicket::read(&payload);
        }
    }
}
