//! The secrets that a server shares with the others, in the format of its file: 25 lines of 32
//! hexadecimal digits, RAIDA 0's first. Empty lines and lines that begin with `#` do not count. A
//! line of zeros is no secret: a server has none with itself, and a key that everybody knows must
//! never work.

use zeroize::{Zeroize, Zeroizing};

use super::{
    RaidaId,
    key_healing::{SharedSecret, SharedSecrets},
};

/// The value in a file where no secret is shared.
const NONE: SecretBytes = [0; SharedSecret::SIZE];
/// Number of hexadecimal digits of a line.
const DIGITS: usize = 2 * SharedSecret::SIZE;
/// Maximum number of bytes that [`compose`] writes above the secrets.
const HEAD_MAX: usize = 512;

/// A secret as drawn and written down; all zeros where there is none.
pub type SecretBytes = [u8; SharedSecret::SIZE];

/// The content of a server's file.
#[derive(Debug)]
pub struct KeyFile {
    /// The secrets.
    pub secrets: SharedSecrets,
    /// Whether the server's own line holds a secret. That line is not used, but the file may be
    /// that of another server.
    pub has_own: bool,
}

/// Why a text is no file of secrets. Says nothing about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A line is neither a secret nor a comment.
    #[error("line {0} is neither 32 hex digits nor a comment")]
    NotASecret(usize),
    /// There are too few secrets, or too many.
    #[error("{0} secrets are in it where 25 are needed, a line for each server, RAIDA 0 first")]
    WrongCount(usize),
    /// Two servers have the same secret, so that the one could vouch in the other's name.
    #[error("the secrets shared with RAIDA {0} and RAIDA {1} are the same")]
    Repeated(RaidaId, RaidaId),
}

/// Reads the file of the server with this number.
///
/// # Errors
/// The text is no such file.
pub fn parse(text: &[u8], own: RaidaId) -> Result<KeyFile, KeyFileError> {
    let mut bytes = Zeroizing::new([NONE; RaidaId::COUNT]);
    let mut count = 0;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        // A line beyond the last is counted, and must be well-formed, too.
        let mut beyond = NONE;
        let secret = bytes.get_mut(count).unwrap_or(&mut beyond);
        let is_one = read_hex(line, secret);
        beyond.zeroize();
        is_one.ok_or(KeyFileError::NotASecret(number))?;
        count += 1;
    }
    if count != RaidaId::COUNT {
        return Err(KeyFileError::WrongCount(count));
    }
    let mine = usize::from(own.get());
    let has_own = bytes[mine] != NONE;
    bytes[mine].zeroize();
    for (raida, secret) in RaidaId::all().zip(&*bytes) {
        let earlier = RaidaId::all().zip(&*bytes).take(raida.get().into());
        for (other, same) in earlier {
            if secret == same && *secret != NONE {
                return Err(KeyFileError::Repeated(other, raida));
            }
        }
    }
    let secrets = std::array::from_fn(|place| {
        let secret = &bytes[place];
        (*secret != NONE).then(|| SharedSecret::new(secret))
    });
    Ok(KeyFile {
        secrets: SharedSecrets::new(secrets),
        has_own,
    })
}

/// Writes the file of the server with this number.
pub fn compose(own: RaidaId, secrets: &[SecretBytes; RaidaId::COUNT]) -> Zeroizing<String> {
    // Written all at once, so that no shorter copy stays behind in memory.
    let room = HEAD_MAX + RaidaId::COUNT * (DIGITS + 1);
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(&format!(
        "# The secrets that RAIDA {own} shares with the other servers, RAIDA 0's first: `[keys] file` of its\n\
         # configuration names this file. Zeros: nothing is shared with that one, as with itself. Whoever\n\
         # else reads it can vouch in RAIDA {own}'s name, so it is for its operator alone (chmod 600).\n"
    ));
    for secret in secrets {
        for byte in secret {
            for digit in [byte >> 4, byte & 0xf] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text.push('\n');
    }
    assert!(text.capacity() == room, "the text has grown: {room}");
    text
}

/// Reads digits in place, so that there is no copy to wipe. `None` where their number is wrong for
/// the bytes, or where they are no digits.
fn read_hex(text: &[u8], bytes: &mut SecretBytes) -> Option<()> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    let digit = |letter: u8| char::from(letter).to_digit(16);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coin::{An, Coin},
        protocol::key_healing::{Voucher, split},
    };

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    fn secrets(own: u8) -> [SecretBytes; RaidaId::COUNT] {
        let mut secrets = std::array::from_fn(|place| [0x51 + place as u8; SharedSecret::SIZE]);
        secrets[usize::from(own)] = NONE;
        secrets
    }

    fn lines(own: u8) -> Vec<String> {
        let text = compose(raida(own), &secrets(own));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    fn refusal(text: &str) -> KeyFileError {
        parse(text.as_bytes(), raida(3)).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let voucher = Voucher {
            part: split(An::new([7; 16]))[0],
            coin: Coin::from_bytes(&[1, 0, 0, 0, 9]).unwrap(),
            minute: 5,
        };
        for own in [0, 3, 24] {
            let text = compose(raida(own), &secrets(own));
            assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 110));
            let read = parse(text.as_bytes(), raida(own)).unwrap();
            assert!(!read.has_own);
            for (other, bytes) in RaidaId::all().zip(secrets(own)) {
                let read = read.secrets.of(other);
                assert_eq!(read.is_some(), other.get() != own);
                let Some(read) = read else { continue };
                let ticket = SharedSecret::new(&bytes).seal(&voucher);
                assert_eq!(read.open(&ticket), Some(voucher));
            }
        }
    }

    #[test]
    fn comments_and_empty_lines_do_not_count() {
        let text = format!(
            "\n#\u{e9}\r\n{}\n\n",
            lines(3).join("\r\n \n # 51\n\t").to_uppercase()
        );
        let read = parse(text.as_bytes(), raida(3)).unwrap();
        assert!(read.secrets.of(raida(24)).is_some());
    }

    #[test]
    fn zeros_are_no_secret_with_anybody() {
        let mut lines = lines(3);
        lines[7] = "0".repeat(DIGITS);
        lines[8] = "0".repeat(DIGITS);
        let read = parse(lines.join("\n").as_bytes(), raida(3)).unwrap();
        for other in RaidaId::all() {
            let has_one = ![3, 7, 8].contains(&other.get());
            assert_eq!(read.secrets.of(other).is_some(), has_one);
        }
    }

    #[test]
    fn what_stands_in_the_own_line_is_not_used_and_told() {
        let mut lines = lines(3);
        lines[3] = lines[4].clone();
        let read = parse(lines.join("\n").as_bytes(), raida(3)).unwrap();
        assert!(read.has_own && read.secrets.of(raida(3)).is_none());
    }

    #[test]
    fn another_number_of_secrets_is_refused() {
        assert_eq!(refusal(""), KeyFileError::WrongCount(0));
        let mut lines = lines(3);
        assert_eq!(
            refusal(&lines[..24].join("\n")),
            KeyFileError::WrongCount(24)
        );
        lines.extend([lines[5].clone(), lines[6].clone()]);
        assert_eq!(refusal(&lines.join("\n")), KeyFileError::WrongCount(27));
        lines[26].pop();
        assert_eq!(refusal(&lines.join("\n")), KeyFileError::NotASecret(27));
    }

    #[test]
    fn a_line_that_is_no_secret_is_named_and_not_shown() {
        for wrong in [
            "5".repeat(DIGITS - 1),
            "5".repeat(DIGITS + 1),
            format!("+{}", "5".repeat(DIGITS - 1)),
            format!("{}g", "5".repeat(DIGITS - 1)),
            format!("{} # RAIDA 7", "5".repeat(DIGITS)),
            format!("{} {}", "5".repeat(16), "5".repeat(16)),
            "\u{665}".repeat(16),
        ] {
            let mut lines = lines(3);
            lines[7] = wrong;
            let error = refusal(&format!("# so\n{}", lines.join("\n")));
            assert_eq!(error, KeyFileError::NotASecret(9));
            assert!(!error.to_string().contains("55"), "{error}");
        }
    }

    #[test]
    fn two_servers_with_one_secret_are_refused() {
        let mut lines = lines(3);
        lines[20] = lines[7].to_uppercase();
        let error = refusal(&lines.join("\n"));
        assert_eq!(error, KeyFileError::Repeated(raida(7), raida(20)));
        assert!(!error.to_string().contains("5858"), "{error}");
    }

    #[test]
    fn printing_shows_no_secret() {
        let text = compose(raida(3), &secrets(3));
        let read = parse(text.as_bytes(), raida(3)).unwrap();
        let printed = format!("{read:?}");
        assert!(!printed.contains("82, 82") && !printed.contains("5252"));
    }
}
