//! Keys and secrets as commands take them: never shown again, in no error either.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use super::CliError;
use super::output::print;
use crate::client::locker::{LockerSecret, NotASecret, TradeSecret};
use crate::coin::An;
use crate::hex;
use crate::plain_file;
use crate::protocol::lockers::{Currency, LockerKey, Price, TradeKey};
use crate::shown::{Shown, remedy};

/// A secret as it was typed: 32 hex digits, or `@` and the name of a file that holds them, so that
/// nobody reads them in the list of processes.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl FromStr for SecretText {
    type Err = Infallible;

    /// Takes any text: the parser would repeat in its message what it refuses.
    fn from_str(text: &str) -> Result<SecretText, Infallible> {
        Ok(SecretText(Zeroizing::new(text.to_owned())))
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(secret)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is no secret for 25 servers.
    #[error("{0}: {1}; write them, or @FILE with a file that holds them")]
    NotASecret(&'static str, NotASecret),
    /// It is no number of 16 bytes.
    #[error("{0} is not 32 hex digits; write them, or @FILE with a file that holds them")]
    NotANumber(&'static str),
    /// It is no locker's key.
    #[error(
        "{0}: a locker's key on one server is 32 hex digits of which the last eight are f; a secret for all 25 goes with --network or --hosts"
    )]
    NotALockerKey(&'static str),
    /// It is no trade locker's key.
    #[error(
        "{0}: a trade locker's key on one server is 32 hex digits of which the last fourteen are price (8), currency (00, 01 or 02) and eeee"
    )]
    NotATradeKey(&'static str),
    /// It says other terms than were asked for.
    #[error(
        "{0} is of an offer at another price, or in another currency: the key itself says both"
    )]
    OtherTerms(&'static str),
    /// A locker was to be moved into itself.
    #[error("--key and --to are the same locker: name another one, or leave --to out")]
    SameLocker,
    /// The file cannot be read.
    #[error("{0}: cannot read {file}: {2}; name a file that holds 32 hex digits{next}", file = .1.shown(), next = remedy(.2))]
    Unreadable(&'static str, PathBuf, std::io::Error),
}

impl SecretText {
    fn text(&self, flag: &'static str) -> Result<Zeroizing<String>, SecretError> {
        let Some(file) = self.0.strip_prefix('@') else {
            return Ok(self.0.clone());
        };
        let text = plain_file::read_text(Path::new(file), plain_file::SECRET_BYTES_MAX)
            .map(Zeroizing::new)
            .map_err(|cause| SecretError::Unreadable(flag, file.into(), cause))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    /// The secret of a locker on all servers. `flag` is the flag that gave it.
    ///
    /// # Errors
    /// It is none.
    pub fn locker_secret(&self, flag: &'static str) -> Result<LockerSecret, SecretError> {
        let text = self.text(flag)?;
        text.parse()
            .map_err(|error| SecretError::NotASecret(flag, error))
    }

    /// The secret of an offer on all servers.
    ///
    /// # Errors
    /// It is none.
    pub fn trade_secret(&self, flag: &'static str) -> Result<TradeSecret, SecretError> {
        let text = self.text(flag)?;
        text.parse()
            .map_err(|error| SecretError::NotASecret(flag, error))
    }

    /// Any number of 16 bytes.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, flag: &'static str) -> Result<[u8; 16], SecretError> {
        hex::read(&self.text(flag)?).ok_or(SecretError::NotANumber(flag))
    }

    /// The key of a locker on one server.
    ///
    /// # Errors
    /// It is none.
    pub fn locker_key(&self, flag: &'static str) -> Result<LockerKey, SecretError> {
        hex::read(&self.text(flag)?)
            .and_then(|bytes| LockerKey::new(An::new(bytes)))
            .ok_or(SecretError::NotALockerKey(flag))
    }

    /// The key of a trade locker on one server. A public id has the same form, where a command
    /// takes one.
    ///
    /// # Errors
    /// It is none.
    pub fn trade_key(&self, flag: &'static str) -> Result<TradeKey, SecretError> {
        hex::read(&self.text(flag)?)
            .and_then(|bytes| TradeKey::new(An::new(bytes)))
            .ok_or(SecretError::NotATradeKey(flag))
    }
}

/// Draws a locker's key for one server.
///
/// # Errors
/// The system has no random numbers to give.
pub fn draw_locker_key() -> Result<LockerKey, CliError> {
    let mut bytes = [0xff; An::SIZE];
    getrandom::fill(&mut bytes[..12])?;
    Ok(LockerKey::new(An::new(bytes)).expect("it ends in FF FF FF FF"))
}

/// Draws a trade locker's key for one server.
///
/// # Errors
/// The system has no random numbers to give.
pub fn draw_trade_key(price: Price, currency: Currency) -> Result<TradeKey, CliError> {
    let mut secret = [0; TradeKey::SECRET_SIZE];
    getrandom::fill(&mut secret)?;
    Ok(TradeKey::of(secret, price, currency))
}

/// The digits of a number, for its owner's eyes alone.
pub fn hex_of(an: An) -> String {
    hex::write(an.expose())
}

/// Shows a person a new secret, once: before anything is sent, so that the person has it wherever
/// the program ends.
///
/// # Errors
/// It cannot be written; then the caller must send nothing.
pub fn tell(what: &str, secret: &str) -> Result<(), CliError> {
    print(&format!(
        "{what}: {secret}\nwrite it down: it is not shown again, and whoever has it has the coins\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SecretText {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_of_one_server_is_taken_as_it_is_and_another_is_refused_and_not_shown() {
        let key = "5ec1e75ec1e75ec1e75ec1e7ffffffff";
        let read = text(key).locker_key("--key").unwrap();
        assert_eq!(hex_of(read.an()), key);
        for wrong in [
            "5ec1e75ec1e75ec1e75ec1e7fffffffe",
            "5ec1e7",
            "@/5ec1e7/none",
        ] {
            let error = text(wrong).locker_key("--key").unwrap_err().to_string();
            let is_file = wrong.starts_with('@');
            assert!(error.starts_with("--key") && (is_file || !error.contains("5ec1e7")));
            let error = text(wrong).trade_key("--key").unwrap_err().to_string();
            assert!(error.starts_with("--key") && (is_file || !error.contains("5ec1e7")));
        }
        assert!(!format!("{:?}", text(key)).contains("5ec1e7"));
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let secret = LockerSecret::draw().unwrap();
        std::fs::write(&file, secret.expose() + "\n").unwrap();
        let named = text(&format!("@{}", file.display()));
        assert_eq!(named.locker_secret("--key").unwrap(), secret);
    }
}
