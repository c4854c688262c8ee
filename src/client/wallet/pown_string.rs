use std::fmt;

use super::Folder;
use crate::client::PerRaida;
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// What a server last said of a coin: half a byte of a coin file (docs/protocol.md section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `u`: it was not asked.
    Untried = 0x0,
    /// `p`: the coin passes there.
    Passed = 0xa,
    /// `b`: existing wallets may write it; here it is only kept.
    B = 0xb,
    /// `n`: it did not answer.
    NoAnswer = 0xc,
    /// `d`: existing wallets may write it; here it is only kept.
    D = 0xd,
    /// `e`: it refused, or its answer could not be used.
    Error = 0xe,
    /// `f`: the coin fails there.
    Failed = 0xf,
}

impl Mark {
    const ALL: [Mark; 7] = [
        Mark::Untried,
        Mark::Passed,
        Mark::B,
        Mark::NoAnswer,
        Mark::D,
        Mark::Error,
        Mark::Failed,
    ];

    fn from_half_byte(half: u8) -> Option<Mark> {
        Mark::ALL.into_iter().find(|&mark| mark as u8 == half)
    }

    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Mark::Untried => 'u',
            Mark::Passed => 'p',
            Mark::B => 'b',
            Mark::NoAnswer => 'n',
            Mark::D => 'd',
            Mark::Error => 'e',
            Mark::Failed => 'f',
        }
    }
}

/// What all servers last said of a coin, shown as 25 letters, RAIDA 0 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PownString(pub PerRaida<Mark>);

/// Bytes of a POWN string in a coin file: 25 half-bytes and a last one as padding.
pub(super) const POWN_STRING_BYTES: usize = RaidaId::COUNT.div_ceil(2);
/// The padding half-byte.
const LAST_HALF: u8 = 0x9;

/// A coin's grade: what it is worth to its owner, by its POWN string (docs/protocol.md section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// 13 or more servers pass it and none fails it.
    Authentic,
    /// 13 or more servers pass it and some fail it: it can be healed.
    Fracked,
    /// 13 or more servers fail it.
    Counterfeit,
    /// Too few servers said anything.
    Limbo,
}

impl PownString {
    /// The same mark for every server.
    pub fn all(mark: Mark) -> PownString {
        PownString(PerRaida::from_fn(|_| mark))
    }

    /// Number of servers that said this.
    pub fn count(&self, mark: Mark) -> usize {
        self.0.count(|&found| found == mark)
    }

    /// The grade that results from the marks.
    pub fn grade(&self) -> Grade {
        let (passed, failed) = (self.count(Mark::Passed), self.count(Mark::Failed));
        if passed >= VOTES_NEEDED {
            match failed {
                0 => Grade::Authentic,
                _ => Grade::Fracked,
            }
        } else if failed >= VOTES_NEEDED {
            Grade::Counterfeit
        } else {
            Grade::Limbo
        }
    }

    /// Reads the bytes of a coin file; `None` where a half-byte is no mark.
    pub(super) fn from_bytes(bytes: &[u8; POWN_STRING_BYTES]) -> Option<PownString> {
        let half = |number: usize| match number % 2 {
            0 => bytes[number / 2] >> 4,
            _ => bytes[number / 2] & 0xf,
        };
        let marks = PerRaida::from_fn(|raida| Mark::from_half_byte(half(raida.get().into())));
        let is_whole = half(RaidaId::COUNT) == LAST_HALF && marks.count(Option::is_none) == 0;
        is_whole.then(|| PownString(marks.map(|mark| mark.expect("counted above"))))
    }

    /// The bytes of a coin file.
    pub(super) fn to_bytes(self) -> [u8; POWN_STRING_BYTES] {
        let mut bytes = [0; POWN_STRING_BYTES];
        bytes[POWN_STRING_BYTES - 1] = LAST_HALF;
        for (raida, &mark) in self.0.iter() {
            let number = usize::from(raida.get());
            bytes[number / 2] |= match number % 2 {
                0 => (mark as u8) << 4,
                _ => mark as u8,
            };
        }
        bytes
    }
}

impl fmt::Display for PownString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String = self.0.iter().map(|(_, mark)| mark.letter()).collect();
        f.pad(&letters)
    }
}

impl Grade {
    /// Where a wallet keeps such coins.
    pub fn folder(self) -> Folder {
        match self {
            Grade::Authentic => Folder::Bank,
            Grade::Fracked => Folder::Fracked,
            Grade::Counterfeit => Folder::Counterfeit,
            Grade::Limbo => Folder::Limbo,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Authentic => "authentic",
            Grade::Fracked => "fracked",
            Grade::Counterfeit => "counterfeit",
            Grade::Limbo => "limbo",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first `passed` passed, the next `failed` failed, the rest did not answer.
    fn marks(passed: u8, failed: u8) -> PownString {
        PownString(PerRaida::from_fn(|raida| match raida.get() {
            number if number < passed => Mark::Passed,
            number if number < passed + failed => Mark::Failed,
            _ => Mark::NoAnswer,
        }))
    }

    #[test]
    fn thirteen_servers_decide() {
        for (passed, failed, grade) in [
            (25, 0, Grade::Authentic),
            (13, 0, Grade::Authentic),
            (24, 1, Grade::Fracked),
            (13, 12, Grade::Fracked),
            (12, 13, Grade::Counterfeit),
            (0, 25, Grade::Counterfeit),
            (12, 12, Grade::Limbo),
            (12, 0, Grade::Limbo),
        ] {
            assert_eq!(
                marks(passed, failed).grade(),
                grade,
                "{passed} p, {failed} f"
            );
        }
    }

    #[test]
    fn half_bytes_stand_high_half_first_and_end_in_nine() {
        let bytes = marks(2, 1).to_bytes();
        assert_eq!(bytes[..3], [0xaa, 0xfc, 0xcc]);
        assert_eq!(bytes[12], 0xc9);
        assert_eq!(PownString::from_bytes(&bytes), Some(marks(2, 1)));
        for wrong in [0x1a, 0xa9] {
            assert_eq!(PownString::from_bytes(&[wrong; 13]), None);
        }
        assert_eq!(PownString::from_bytes(&[0xaa; 13]), None, "the last half");
    }
}
