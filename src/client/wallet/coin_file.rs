//! The bytes of a coin file (docs/protocol.md section 7).

use std::fmt;

use zeroize::Zeroizing;

use super::pown_string::{Grade, Mark, POWN_STRING_BYTES, PownString};
use crate::client::PerRaida;
use crate::coin::{An, Coin};
use crate::protocol::RaidaId;
use crate::protocol::healing::Found;

/// One coin as a wallet keeps it: its authenticity number on each server. Where it is not known
/// which of two is in force, a proposed number is beside it.
///
/// Fields of a file that mean nothing here (password hash, split, shard) are written as they were
/// read.
#[derive(Clone, PartialEq, Eq)]
pub struct CoinFile {
    /// The coin.
    pub coin: Coin,
    /// The network that the coin belongs to; 6 is CloudCoin.
    pub coin_id: u16,
    /// What the servers last said.
    pub pown: PownString,
    ans: PerRaida<An>,
    pans: Option<PerRaida<An>>,
    password_hash: [u8; 7],
    split_and_shard: [u8; 2],
}

/// Why bytes are not a coin file. Its text never holds an authenticity number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACoinFile {
    /// The length is wrong.
    #[error("it is {found} bytes long where {expected} are expected")]
    Length {
        /// Number of bytes that such a coin file has.
        expected: usize,
        /// Number of bytes that it has.
        found: usize,
    },
    /// A byte of the header does not fit this format.
    #[error("byte {at} is {found} where {expected} is expected: {what}")]
    Header {
        /// The position of the byte, counted from 0.
        at: usize,
        /// Its value.
        found: u8,
        /// The value that it must have.
        expected: &'static str,
        /// The meaning of the byte.
        what: &'static str,
    },
    /// The number of coins is not one.
    #[error("it holds {0} coins; files of one coin each can be read")]
    Coins(u16),
    /// The POWN string holds something other than marks.
    #[error("its POWN string (bytes 16 to 28) is not 25 marks and a 9")]
    PownString,
    /// The denomination or the serial number cannot exist.
    #[error("it names a coin that cannot exist")]
    Coin,
}

const FORMAT: u8 = 9;
const VERSION: u8 = 1;
const FILE_HEADER: usize = 32;
const COIN_HEADER: usize = 2 + Coin::SIZE;
const ANS: usize = RaidaId::COUNT * An::SIZE;
const FILL: [u8; 3] = [0x99; 3];

impl CoinFile {
    /// Bytes of a file without proposed numbers.
    pub const SIZE: usize = FILE_HEADER + COIN_HEADER + ANS;
    /// Bytes of a file with them: the most a coin file has.
    pub const SIZE_WITH_PANS: usize = CoinFile::SIZE + ANS;

    /// A new coin with these numbers.
    pub fn new(coin: Coin, coin_id: u16, ans: PerRaida<An>, pown: PownString) -> CoinFile {
        CoinFile {
            coin,
            coin_id,
            pown,
            ans,
            pans: None,
            password_hash: [0; 7],
            split_and_shard: [0; 2],
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The bytes are no such file, or one of several coins or with encrypted numbers.
    pub fn parse(bytes: &[u8]) -> Result<CoinFile, NotACoinFile> {
        let length = |expected| NotACoinFile::Length {
            expected,
            found: bytes.len(),
        };
        let (header, rest) = bytes
            .split_first_chunk::<FILE_HEADER>()
            .ok_or(length(CoinFile::SIZE))?;
        let has_pans = check_header(header)?;
        let expected = match has_pans {
            true => CoinFile::SIZE_WITH_PANS,
            false => CoinFile::SIZE,
        };
        if bytes.len() != expected {
            return Err(length(expected));
        }
        let (coin_header, numbers) = rest
            .split_first_chunk::<COIN_HEADER>()
            .ok_or(length(expected))?;
        let [split, shard, coin @ ..] = *coin_header;
        let pown: &[u8; POWN_STRING_BYTES] = header[16..]
            .first_chunk()
            .expect("16 and 13 are less than 32");
        let (ans, pans) = numbers.split_at(ANS);
        Ok(CoinFile {
            coin: Coin::from_bytes(&coin).ok_or(NotACoinFile::Coin)?,
            coin_id: u16::from_be_bytes([header[2], header[3]]),
            pown: PownString::from_bytes(pown).ok_or(NotACoinFile::PownString)?,
            ans: read_numbers(ans),
            pans: has_pans.then(|| read_numbers(pans)),
            password_hash: std::array::from_fn(|i| header[8 + i]),
            split_and_shard: [split, shard],
        })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it at once: growing would leave copies of the numbers in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(CoinFile::SIZE_WITH_PANS));
        bytes.extend_from_slice(&[FORMAT, VERSION]);
        bytes.extend_from_slice(&self.coin_id.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 1]);
        bytes.extend_from_slice(&self.password_hash);
        bytes.push(u8::from(self.pans.is_some()));
        bytes.extend_from_slice(&self.pown.to_bytes());
        bytes.extend_from_slice(&FILL);
        bytes.extend_from_slice(&self.split_and_shard);
        bytes.extend_from_slice(&self.coin.to_bytes());
        for numbers in std::iter::once(&self.ans).chain(&self.pans) {
            for (_, an) in numbers.iter() {
                bytes.extend_from_slice(an.expose());
            }
        }
        bytes
    }

    /// Name of the file in a wallet: `DN.SN.bin`.
    pub fn name(&self) -> String {
        CoinFile::name_of(self.coin)
    }

    /// Name of this coin's file in a wallet.
    pub(super) fn name_of(coin: Coin) -> String {
        format!("{coin}.bin")
    }

    /// The coin's authenticity number on a server.
    pub fn an(&self, raida: RaidaId) -> An {
        self.ans[raida]
    }

    /// The other number that may be in force on a server; `None` where there is no doubt.
    pub fn pan(&self, raida: RaidaId) -> Option<An> {
        let pan = self.pans.as_ref()?[raida];
        (pan != self.ans[raida]).then_some(pan)
    }

    /// Whether a server may have either of two numbers.
    pub fn is_in_doubt(&self) -> bool {
        RaidaId::all().any(|raida| self.pan(raida).is_some())
    }

    /// The coin's grade. A coin with a number in doubt is never counterfeit: the servers that fail
    /// it may be about to take that number over.
    pub fn grade(&self) -> Grade {
        match self.pown.grade() {
            Grade::Counterfeit if self.is_in_doubt() => Grade::Limbo,
            grade => grade,
        }
    }

    /// Keeps a number beside the present one: the server will be asked to take it over.
    pub fn propose(&mut self, raida: RaidaId, pan: An) {
        self.pans.get_or_insert(self.ans)[raida] = pan;
    }

    /// Drops a number that the server will not take over, as it said.
    pub fn withdraw(&mut self, raida: RaidaId) {
        if let Some(pans) = &mut self.pans {
            pans[raida] = self.ans[raida];
        }
        if !self.is_in_doubt() {
            self.pans = None;
        }
    }

    /// Records a server's answer, which ends the doubt about it where it has one of the numbers.
    /// Where it has neither, both stay: it may be another network's, or still at work on the fix
    /// that brings the proposed one into force, and then nobody else knows that number.
    pub fn settle(&mut self, raida: RaidaId, found: Found) {
        if let Some(pans) = &mut self.pans {
            match found {
                Found::Pan => self.ans[raida] = pans[raida],
                Found::An => pans[raida] = self.ans[raida],
                Found::Neither => {}
            }
        }
        self.pown.0[raida] = match found {
            Found::An | Found::Pan => Mark::Passed,
            Found::Neither => Mark::Failed,
        };
        if !self.is_in_doubt() {
            self.pans = None;
        }
    }
}

/// Whether proposed numbers follow.
fn check_header(header: &[u8; FILE_HEADER]) -> Result<bool, NotACoinFile> {
    let fixed = [
        (0, FORMAT, "9", "the format"),
        (1, VERSION, "1", "the format's version"),
        (4, 0, "0", "reserved"),
        (
            5,
            0,
            "0",
            "how the numbers are encrypted; only plain ones can be read",
        ),
        (29, FILL[0], "153", "the header's end"),
        (30, FILL[1], "153", "the header's end"),
        (31, FILL[2], "153", "the header's end"),
    ];
    for (at, wanted, expected, what) in fixed {
        let found = header[at];
        if found != wanted {
            return Err(NotACoinFile::Header {
                at,
                found,
                expected,
                what,
            });
        }
    }
    let coins = u16::from_be_bytes([header[6], header[7]]);
    if coins != 1 {
        return Err(NotACoinFile::Coins(coins));
    }
    match header[15] {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(NotACoinFile::Header {
            at: 15,
            found,
            expected: "0 or 1",
            what: "whether proposed numbers follow",
        }),
    }
}

/// Exactly 25 numbers of 16 bytes.
fn read_numbers(bytes: &[u8]) -> PerRaida<An> {
    let (numbers, _) = bytes.as_chunks();
    PerRaida::from_fn(|raida| An::new(numbers[usize::from(raida.get())]))
}

/// Shows no number, nor the password's hash.
impl fmt::Debug for CoinFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoinFile")
            .field("coin", &self.coin)
            .field("pown", &self.pown.to_string())
            .field("is_in_doubt", &self.is_in_doubt())
            .finish_non_exhaustive()
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

    fn file() -> CoinFile {
        let ans = PerRaida::from_fn(|raida| An::new([raida.get() + 1; 16]));
        CoinFile::new(coin(), 6, ans, PownString::all(Mark::Passed))
    }

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    #[test]
    fn every_byte_stands_where_the_format_has_it() {
        let bytes = file().to_bytes();
        assert_eq!(bytes.len(), 439);
        assert_eq!(bytes[..8], [9, 1, 0, 6, 0, 0, 0, 1]);
        assert_eq!(bytes[8..16], [0; 8]);
        assert_eq!(bytes[16..28], [0xaa; 12]);
        assert_eq!(bytes[28..32], [0xa9, 0x99, 0x99, 0x99]);
        assert_eq!(bytes[32..39], [0, 0, 0xfd, 0x00, 0x09, 0xd2, 0xf5]);
        assert_eq!(bytes[39..55], [1; 16]);
        assert_eq!(bytes[423..], [25; 16]);
        assert_eq!(file().name(), "-3.643829.bin");
    }

    #[test]
    fn a_proposed_number_is_kept_until_the_server_has_said_that_it_has_one_of_them() {
        let mut file = file();
        file.propose(raida(4), An::new([0x44; 16]));
        file.propose(raida(5), An::new([0x55; 16]));
        file.propose(raida(6), An::new([0x66; 16]));
        assert_eq!(file.to_bytes().len(), 839);
        let mut file = CoinFile::parse(&file.to_bytes()).unwrap();
        assert_eq!(file.pan(raida(3)), None);
        assert_eq!(file.pan(raida(4)), Some(An::new([0x44; 16])));
        file.settle(raida(4), Found::Pan);
        file.settle(raida(5), Found::An);
        file.settle(raida(6), Found::Neither);
        assert_eq!(file.pan(raida(4)), None);
        assert_eq!(file.pan(raida(5)), None);
        assert_eq!(file.pan(raida(6)), Some(An::new([0x66; 16])));
        assert_eq!(file.an(raida(4)), An::new([0x44; 16]));
        assert_eq!(file.an(raida(5)), An::new([6; 16]));
        assert_eq!(file.an(raida(6)), An::new([7; 16]));
        assert_eq!(file.pown.to_string(), "ppppppfpppppppppppppppppp");
        assert_eq!(file.to_bytes().len(), 839);
        file.settle(raida(6), Found::Pan);
        assert!(!file.is_in_doubt());
        assert_eq!(file.an(raida(6)), An::new([0x66; 16]));
        assert_eq!(file.to_bytes().len(), 439);
    }

    #[test]
    fn a_number_that_is_withdrawn_leaves_no_trace_and_others_stay() {
        let mut file = file();
        file.propose(raida(4), An::new([0x44; 16]));
        file.propose(raida(5), An::new([0x55; 16]));
        file.withdraw(raida(4));
        file.withdraw(raida(6));
        assert_eq!(file.pan(raida(4)), None);
        assert_eq!(file.pan(raida(5)), Some(An::new([0x55; 16])));
        file.withdraw(raida(5));
        assert_eq!(file, self::file());
    }

    #[test]
    fn what_is_no_coin_file_is_refused_with_its_reason() {
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = file().to_bytes().to_vec();
            change(&mut bytes);
            CoinFile::parse(&bytes).unwrap_err().to_string()
        };
        assert!(refused(&|bytes| bytes.truncate(438)).contains("438 bytes long where 439"));
        assert!(refused(&|bytes| bytes.push(0)).contains("440 bytes long where 439"));
        assert!(refused(&|bytes| bytes[15] = 1).contains("439 bytes long where 839"));
        assert!(refused(&|bytes| bytes.clear()).contains("0 bytes long"));
        assert!(refused(&|bytes| bytes[0] = 8).contains("byte 0 is 8"));
        assert!(refused(&|bytes| bytes[5] = 1).contains("encrypted"));
        assert!(refused(&|bytes| bytes[7] = 2).contains("2 coins"));
        assert!(refused(&|bytes| bytes[16] = 0x10).contains("POWN"));
        assert!(refused(&|bytes| bytes[34] = 7).contains("cannot exist"));
    }

    #[test]
    fn printing_a_coin_file_shows_no_number() {
        let printed = format!("{:?}", file());
        assert!(
            printed.contains("DN -3") && !printed.contains("[1, 1"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            let _ = CoinFile::parse(&bytes);
        }

        /// A byte of a valid file changed: an accepted file is written again as it was.
        #[test]
        fn what_is_accepted_is_written_as_it_was_read(
            with_pans: bool,
            changes in prop::collection::vec((0..839usize, any::<u8>()), 0..4),
        ) {
            let mut file = file();
            if with_pans {
                file.propose(raida(9), An::new([0x99; 16]));
            }
            let mut bytes = file.to_bytes().to_vec();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(read) = CoinFile::parse(&bytes) {
                prop_assert_eq!(&read.to_bytes()[..], &bytes[..]);
            }
        }
    }
}
