//! A request's header: its layout, which server and client share, and its checks.

use super::{Command, Dialect, RaidaId, Rules, Status, command::GROUP_MAX};
use crate::coin::Coin;

/// How a request and its response are encrypted: byte 16 of a request (docs/protocol.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Type 0: no encryption.
    None,
    /// Type 1: AES-128-CTR under a coin's authenticity number.
    CoinKey,
    /// Type 2: AES-128-CTR under a locker's key.
    LockerKey,
    /// Type 4: AES-256-CTR and HMAC-SHA-256 under the hash of a coin's authenticity number.
    CoinKeyHmac,
    /// Type 5: like type 4, under the hash of two coins' authenticity numbers.
    TwoCoinKeyHmac,
}

impl Encryption {
    /// The encryption of this type; `None` where there is no such type.
    #[inline]
    pub fn from_type(number: u8) -> Option<Encryption> {
        Some(match number {
            0 => Encryption::None,
            1 => Encryption::CoinKey,
            2 => Encryption::LockerKey,
            4 => Encryption::CoinKeyHmac,
            5 => Encryption::TwoCoinKeyHmac,
            _ => return None,
        })
    }

    /// The number of the type on the wire.
    #[inline]
    pub fn type_number(self) -> u8 {
        match self {
            Encryption::None => 0,
            Encryption::CoinKey => 1,
            Encryption::LockerKey => 2,
            Encryption::CoinKeyHmac => 4,
            Encryption::TwoCoinKeyHmac => 5,
        }
    }

    /// Whether the body has an HMAC instead of a challenge: types 4 and 5.
    #[inline]
    pub fn has_hmac(self) -> bool {
        matches!(self, Encryption::CoinKeyHmac | Encryption::TwoCoinKeyHmac)
    }

    /// Bytes of the header, in both directions: 32 for types 0, 1 and 2, 48 for types 4 and 5.
    #[inline]
    pub fn header_size(self) -> usize {
        if self.has_hmac() {
            RequestHeader::SIZE_MAX
        } else {
            RequestHeader::SIZE_MIN
        }
    }
}

/// Whose key a request is encrypted with.
///
/// `None` in place of a coin: the header names a coin that cannot exist, so its key cannot be
/// known; the request is refused with [`RequestHeader::missing_key_status`]. Printing one shows
/// nothing of a locker's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// No key: type 0.
    None,
    /// A coin's: types 1 and 4.
    Coin(Option<Coin>),
    /// A locker, by the first five bytes of its key: type 2. Several lockers may share them.
    Locker([u8; 5]),
    /// Two coins', in this order: type 5.
    TwoCoins(Option<Coin>, Option<Coin>),
}

/// A request's header that passed every check of docs/protocol.md section 3. Printing one shows
/// nothing of a locker's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The command.
    pub command: Command,
    /// The group in the request, which its response names: some commands have two.
    pub(super) group: u8,
    /// How the body is encrypted.
    pub encryption: Encryption,
    /// Bytes that follow the header, the final `>>` included.
    pub body_length: usize,
    /// DN and SN of the key coin, or the first five bytes of the locker's key, as received.
    pub(super) key_field: [u8; 5],
    /// The header from byte 24 to its end: 8 bytes for types 0 to 2 (the rest stays 0), 24 for
    /// types 4 and 5. Its last two bytes are the echo bytes.
    pub(super) nonce: [u8; 24],
}

/// The end of a request, as the first 32 bytes of its header state it, before anything else is
/// checked. Only a header with a known version can be believed that far.
#[derive(Clone, Copy)]
pub(super) struct Framing {
    pub(super) encryption: Encryption,
    pub(super) body_length: usize,
}

// Offsets in a request's header.
const VERSION: usize = 0;
const SPLIT: usize = 1;
const RAIDA: usize = 2;
const SHARD: usize = 3;
const GROUP: usize = 4;
const COMMAND: usize = 5;
const COIN_ID: usize = 6;
pub(super) const PRESENTATION: usize = 14;
pub(super) const ENCRYPTION: usize = 16;
const NONCE: usize = 24;

/// What clients write at [`PRESENTATION`]; only [`super::response::can_be_answer`] reads it.
pub(super) const PRESENTED: [u8; 2] = [1, 1];
/// What a client writes into the header's first byte: every dialect accepts it.
const VERSION_SENT: u8 = 1;
/// Shard ids run from 0 to this.
const SHARD_MAX: u8 = 3;
/// The two bytes of the body's length hold this where bytes 24-27 hold the real length (types 0 to
/// 2).
const LONG_LENGTH: u16 = 0xffff;

/// The positions of the same two fields: one pair for types 0 to 2, another for types 4 and 5.
struct Places {
    key_field: usize,
    body_length: usize,
}

/// The position of the key coin's DN and SN, or of whatever names the key.
#[inline]
pub(super) fn key_field_offset(encryption: Encryption) -> usize {
    Places::of(encryption).key_field
}

impl Places {
    #[inline]
    fn of(encryption: Encryption) -> Places {
        if encryption.has_hmac() {
            Places {
                body_length: 17,
                key_field: 19,
            }
        } else {
            Places {
                key_field: 17,
                body_length: 22,
            }
        }
    }
}

impl RequestHeader {
    /// The command group in the request: some commands have two.
    #[inline]
    pub fn group(&self) -> u8 {
        self.group
    }

    /// Bytes of a header of types 0, 1 and 2, and the bytes needed to check any header.
    pub const SIZE_MIN: usize = 32;
    /// Bytes of a header of types 4 and 5.
    pub const SIZE_MAX: usize = 48;

    /// Bytes of this header: 32 or 48.
    #[inline]
    pub fn header_size(&self) -> usize {
        self.encryption.header_size()
    }

    /// The two bytes that the response repeats, so that a client can tell answers apart.
    #[inline]
    pub fn echo(&self) -> [u8; 2] {
        let end = self.header_size() - NONCE;
        [self.nonce[end - 2], self.nonce[end - 1]]
    }

    /// Whose key the body is encrypted with.
    #[inline]
    pub fn key_source(&self) -> KeySource {
        match self.encryption {
            Encryption::None => KeySource::None,
            Encryption::CoinKey | Encryption::CoinKeyHmac => {
                KeySource::Coin(Coin::from_bytes(&self.key_field))
            }
            Encryption::LockerKey => KeySource::Locker(self.key_field),
            Encryption::TwoCoinKeyHmac => {
                let [a, b, c, d, e, ..] = self.nonce;
                KeySource::TwoCoins(
                    Coin::from_bytes(&self.key_field),
                    Coin::from_bytes(&[a, b, c, d, e]),
                )
            }
        }
    }

    /// The status for a key that cannot be found here: 34 for types 1 and 2, 25 for types 4 and 5.
    #[inline]
    pub fn missing_key_status(&self) -> Status {
        if self.encryption.has_hmac() {
            Status::UNKNOWN_KEY_COIN
        } else {
            Status::KEY_NOT_FOUND
        }
    }

    /// The counter block that the body's key stream begins with: the 8 nonce bytes and 8 zero bytes
    /// for types 1 and 2, header bytes 24 to 39 for types 4 and 5 (docs/protocol.md section 3).
    #[inline]
    pub fn initial_counter(&self) -> [u8; 16] {
        std::array::from_fn(|i| self.nonce[i])
    }

    /// Reads a header of at least [`RequestHeader::SIZE_MIN`] bytes that passed [`check`]; `None`
    /// where types 4 and 5 need more bytes than there are.
    #[inline]
    pub(super) fn read(bytes: &[u8], command: Command, framing: Framing) -> Option<RequestHeader> {
        let Framing {
            encryption,
            body_length,
        } = framing;
        let places = Places::of(encryption);
        let mut nonce = [0; 24];
        // Two lengths that the compiler knows: an unknown length would be a call.
        if encryption.has_hmac() {
            nonce = *bytes.get(NONCE..)?.first_chunk()?;
        } else {
            nonce[..8].copy_from_slice(bytes.get(NONCE..NONCE + 8)?);
        }
        Some(RequestHeader {
            command,
            group: bytes[GROUP],
            encryption,
            body_length,
            key_field: std::array::from_fn(|i| bytes[places.key_field + i]),
            nonce,
        })
    }

    /// Appends the header as a client sends it. The long form of the length takes bytes 24-27,
    /// which then are not random: the nonce keeps the bytes of this header there.
    ///
    /// A body of 65,535 bytes or more must not be given with types 4 and 5: their length has no
    /// long form.
    pub(super) fn write(&self, to: RaidaId, coin_id: u16, out: &mut Vec<u8>) {
        let start = out.len();
        let end = self.header_size();
        out.resize(start + end, 0);
        let bytes = &mut out[start..];
        let places = Places::of(self.encryption);
        bytes[VERSION] = VERSION_SENT;
        bytes[RAIDA] = to.get();
        bytes[GROUP] = self.group;
        bytes[COMMAND] = self.command.code();
        bytes[COIN_ID..COIN_ID + 2].copy_from_slice(&coin_id.to_be_bytes());
        bytes[PRESENTATION..PRESENTATION + 2].copy_from_slice(&PRESENTED);
        bytes[ENCRYPTION] = self.encryption.type_number();
        bytes[places.key_field..places.key_field + 5].copy_from_slice(&self.key_field);
        let short = u16::try_from(self.body_length).unwrap_or(LONG_LENGTH);
        bytes[places.body_length..places.body_length + 2].copy_from_slice(&short.to_be_bytes());
        bytes[NONCE..end].copy_from_slice(&self.nonce[..end - NONCE]);
    }

    /// Writes the body's length into the place of the long form, if this body needs the long form.
    pub(super) fn mark_long_body(&mut self) {
        if !self.encryption.has_hmac() && self.body_length >= usize::from(LONG_LENGTH) {
            self.nonce[..4].copy_from_slice(&(self.body_length as u32).to_be_bytes());
        }
    }
}

/// Whether a header names this command, whatever else is in it.
#[inline]
pub(super) fn is_of(header: &[u8], command: Command) -> bool {
    let codes = [GROUP, COMMAND].map(|at| header.get(at));
    codes == [Some(&command.group()), Some(&command.code())]
}

/// Reads what the first 32 bytes say about the request's end. `None`: the version or the encryption
/// type is unknown, so nothing says where the request ends.
#[inline]
pub(super) fn framing(bytes: &[u8; RequestHeader::SIZE_MIN], rules: &Rules) -> Option<Framing> {
    if !version_is_known(bytes[VERSION], rules) {
        return None;
    }
    let encryption = Encryption::from_type(bytes[ENCRYPTION])?;
    let at = Places::of(encryption).body_length;
    let short = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let body_length = if short == LONG_LENGTH && !encryption.has_hmac() {
        let [a, b, c, d] = std::array::from_fn(|i| bytes[NONCE + i]);
        u32::from_be_bytes([a, b, c, d]) as usize
    } else {
        usize::from(short)
    };
    Some(Framing {
        encryption,
        body_length,
    })
}

/// Checks a header in the order of docs/protocol.md section 3: bytes 0, 1, 2, 4, 3, 5, 6-7, 16.
#[inline]
pub(super) fn check(
    bytes: &[u8; RequestHeader::SIZE_MIN],
    rules: &Rules,
) -> Result<Command, Status> {
    if !version_is_known(bytes[VERSION], rules) {
        return Err(Status::UNKNOWN_VERSION);
    }
    if bytes[SPLIT] != 0 {
        return Err(Status::WRONG_SPLIT);
    }
    if bytes[RAIDA] != rules.raida.get() {
        return Err(Status::WRONG_RAIDA);
    }
    if bytes[GROUP] > GROUP_MAX {
        return Err(Status::UNKNOWN_GROUP);
    }
    if bytes[SHARD] > SHARD_MAX {
        return Err(Status::WRONG_SHARD);
    }
    let command =
        Command::from_codes(bytes[GROUP], bytes[COMMAND]).ok_or(Status::UNKNOWN_COMMAND)?;
    if [bytes[COIN_ID], bytes[COIN_ID + 1]] != rules.coin_id.to_be_bytes() {
        return Err(Status::WRONG_COIN_ID);
    }
    if Encryption::from_type(bytes[ENCRYPTION]).is_none() {
        return Err(Status::UNKNOWN_ENCRYPTION);
    }
    Ok(command)
}

#[inline]
fn version_is_known(version: u8, rules: &Rules) -> bool {
    match rules.dialect {
        Dialect::Spec => version <= 1,
        Dialect::Raidax => version == 1,
    }
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::None => f.write_str("None"),
            KeySource::Coin(coin) => write!(f, "Coin({coin:?})"),
            KeySource::Locker(_) => f.write_str("Locker(secret)"),
            KeySource::TwoCoins(first, second) => write!(f, "TwoCoins({first:?}, {second:?})"),
        }
    }
}

impl std::fmt::Debug for RequestHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHeader")
            .field("command", &self.command)
            .field("key_source", &self.key_source())
            .field("body_length", &self.body_length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        Protection,
        samples::{protections, request, rules},
    };

    const ECHO: [u8; 32] = {
        let mut bytes = [0; 32];
        bytes[VERSION] = 1;
        bytes[RAIDA] = 14;
        bytes[COIN_ID + 1] = 6;
        bytes
    };

    /// One way for each checked byte to be wrong, in the order of the checks.
    const WRONG: [(usize, u8, Status); 8] = [
        (VERSION, 2, Status::UNKNOWN_VERSION),
        (SPLIT, 1, Status::WRONG_SPLIT),
        (RAIDA, 15, Status::WRONG_RAIDA),
        (GROUP, 16, Status::UNKNOWN_GROUP),
        (SHARD, 4, Status::WRONG_SHARD),
        (COMMAND, 99, Status::UNKNOWN_COMMAND),
        (COIN_ID, 1, Status::WRONG_COIN_ID),
        (ENCRYPTION, 3, Status::UNKNOWN_ENCRYPTION),
    ];

    #[test]
    fn the_first_wrong_byte_in_the_order_of_the_checks_decides() {
        assert_eq!(check(&ECHO, &rules()), Ok(Command::Echo));
        for first in 0..WRONG.len() {
            let mut bytes = ECHO;
            for &(at, wrong, _) in &WRONG[first..] {
                bytes[at] = wrong;
            }
            assert_eq!(check(&bytes, &rules()), Err(WRONG[first].2));
        }
    }

    #[test]
    fn each_wrong_byte_has_its_status() {
        for (at, wrong, status) in WRONG {
            let mut bytes = ECHO;
            bytes[at] = wrong;
            assert_eq!(check(&bytes, &rules()), Err(status));
            assert!(status.is_header_refusal());
        }
    }

    #[test]
    fn version_0_is_accepted_in_the_spec_dialect_only() {
        let mut bytes = ECHO;
        bytes[VERSION] = 0;
        assert!(check(&bytes, &rules()).is_ok());
        let raidax = Rules {
            dialect: Dialect::Raidax,
            ..rules()
        };
        assert_eq!(check(&bytes, &raidax), Err(Status::UNKNOWN_VERSION));
        assert!(check(&ECHO, &raidax).is_ok());
    }

    #[test]
    fn a_group_that_is_not_served_has_no_commands() {
        for group in [2, 4, 8, 15] {
            let mut bytes = ECHO;
            bytes[GROUP] = group;
            assert_eq!(check(&bytes, &rules()), Err(Status::UNKNOWN_COMMAND));
        }
    }

    #[test]
    fn fields_stand_where_the_page_says() {
        let [_, coin_key, locker_key, coin_hmac, two_coins] = protections();
        let composed = |protection: Protection| {
            let mut out = Vec::new();
            request(protection, Some(&[9])).compose(&mut out).unwrap();
            out
        };
        // Key coin 4.49495 is 04 0000c157; body of 1 + 18 bytes; echo bytes last.
        let out = composed(coin_key);
        assert_eq!(out[16..24], [1, 4, 0, 0, 0xc1, 0x57, 0, 19]);
        assert_eq!(out[30..32], [0x5a, 0xa5]);
        assert_eq!(
            composed(locker_key)[16..24],
            [2, 0x51, 0x51, 0x51, 0x51, 0x51, 0, 19]
        );
        // Body of 1 + 34 bytes, then the key coin.
        let out = composed(coin_hmac);
        assert_eq!(out[16..24], [4, 0, 35, 0xf8, 0, 0, 0, 0]);
        assert_eq!(out[46..48], [0x5a, 0xa5]);
        let out = composed(two_coins);
        assert_eq!(
            out[16..29],
            [5, 0, 35, 6, 0, 0x0f, 0x9f, 0xff, 0, 0, 0, 0, 7]
        );
    }

    #[test]
    fn an_impossible_key_coin_is_no_coin() {
        let header = RequestHeader {
            command: Command::Echo,
            group: 0,
            encryption: Encryption::TwoCoinKeyHmac,
            body_length: 0,
            key_field: [7, 0, 0, 0, 0],
            nonce: [0; 24],
        };
        let KeySource::TwoCoins(None, Some(_)) = header.key_source() else {
            panic!("{:?}", header.key_source());
        };
        assert_eq!(header.missing_key_status(), Status::UNKNOWN_KEY_COIN);
    }
}
