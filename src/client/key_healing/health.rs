//! What a wallet knows of its keys with the servers, kept from one run to the next.
//!
//! It is kept in the wallet's folder as `encryption-health.json`, which holds no secret:
//!
//! ```json
//! {
//!   "format": 1,
//!   "cool_down_s": 1800,
//!   "servers": [
//!     { "raida": 0, "state": "working", "failures": 0, "last_attempt": null },
//!     { "raida": 1, "state": "persistently broken", "failures": 3, "last_attempt": 1795231955 }
//!   ]
//! }
//! ```
//!
//! All 25 servers are in it, by rising number. `state` is `working` (or not known to be anything
//! else), `broken` or `persistently broken`; `failures` counts attempts since the last one that
//! went well, and `last_attempt` is in seconds since 1970 in UTC, up to the end of the year 9999.
//! `cool_down_s` is a year at most.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::client::PerRaida;
use crate::client::wallet::{Wallet, WalletError};
use crate::plain_file;
use crate::protocol::RaidaId;
use crate::shown::Shown;

/// Name of the file in the wallet's folder.
pub const HEALTH_FILE: &str = "encryption-health.json";
/// How long a persistently broken server is left alone by default.
pub const COOL_DOWN: Duration = Duration::from_secs(30 * 60);
/// Maximum cool-down: a year of 365 days.
pub const COOL_DOWN_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Default number of failed attempts in a row after which a server is persistently broken.
pub const FAILURES_MAX: u32 = 3;

const FORMAT: u64 = 1;
/// Many times the size of any file that this program writes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A time, in seconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The end of the year 9999, the last one with a date of four-digit years. A later time is a
    /// mistake.
    pub const MAX: UnixSeconds = UnixSeconds(253_402_300_799);

    /// The machine's time.
    pub fn now() -> UnixSeconds {
        // A clock before 1970 is wrong.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        UnixSeconds(since.unwrap_or_default().as_secs())
    }
}

/// The state of the client's keys with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing is known to be wrong with them.
    #[default]
    #[serde(rename = "working")]
    Working,
    /// They are lost.
    #[serde(rename = "broken")]
    Broken,
    /// They are lost, and attempts to mend them failed so often that the server is left alone for a
    /// while after each.
    #[serde(rename = "persistently broken")]
    PersistentlyBroken,
}

impl State {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            State::Working => "working",
            State::Broken => "broken",
            State::PersistentlyBroken => "persistently broken",
        }
    }
}

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerHealth {
    /// The state of the keys with it.
    pub state: State,
    /// Number of failed attempts to mend them, in a row.
    pub failures: u32,
    /// Time of the last attempt, whatever its result.
    pub last_attempt: Option<UnixSeconds>,
}

/// The servers, of 25, that the client has lost its keys with, and the attempts to mend them.
/// Callers pass the time in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionHealth {
    /// How long a persistently broken server is left alone after each attempt, at most
    /// [`COOL_DOWN_MAX`].
    pub cool_down: Duration,
    servers: PerRaida<ServerHealth>,
}

impl Default for EncryptionHealth {
    /// No server is known to be broken.
    fn default() -> EncryptionHealth {
        EncryptionHealth {
            cool_down: COOL_DOWN,
            servers: PerRaida::from_fn(|_| ServerHealth::default()),
        }
    }
}

impl EncryptionHealth {
    /// What is known of a server.
    pub fn of(&self, raida: RaidaId) -> ServerHealth {
        self.servers[raida]
    }

    /// Whether the keys with a server are lost.
    pub fn is_broken(&self, raida: RaidaId) -> bool {
        self.servers[raida].state != State::Working
    }

    /// The servers that are broken, persistently or not, by rising number.
    pub fn broken(&self) -> Vec<RaidaId> {
        RaidaId::all()
            .filter(|&raida| self.is_broken(raida))
            .collect()
    }

    /// The servers that are not broken.
    pub fn working(&self) -> Vec<RaidaId> {
        RaidaId::all()
            .filter(|&raida| !self.is_broken(raida))
            .collect()
    }

    /// Notes that a server is broken. Earlier attempts still count.
    pub fn mark_broken(&mut self, raida: RaidaId) {
        let server = &mut self.servers[raida];
        if server.state == State::Working {
            server.state = State::Broken;
        }
    }

    /// Notes that a server works. Earlier failures are forgotten.
    pub fn mark_fixed(&mut self, raida: RaidaId) {
        let server = &mut self.servers[raida];
        server.state = State::Working;
        server.failures = 0;
    }

    /// Notes that a server was tried.
    pub fn mark_tried(&mut self, raida: RaidaId, now: UnixSeconds) {
        self.servers[raida].last_attempt = Some(now);
    }

    /// Notes that an attempt to mend a server failed now. After `max_failures` in a row the server
    /// is persistently broken and left alone until its cool-down is over.
    pub fn mark_failed(&mut self, raida: RaidaId, now: UnixSeconds, max_failures: u32) {
        self.mark_tried(raida, now);
        let server = &mut self.servers[raida];
        server.failures = server.failures.saturating_add(1);
        server.state = match server.failures >= max_failures {
            true => State::PersistentlyBroken,
            false => State::Broken,
        };
    }

    /// Whether a server may be tried: at any time unless it is persistently broken, else once its
    /// cool-down has passed. An attempt that lies ahead of the clock was noted by another clock, or
    /// before this one was set back. Waiting for that time could take for ever, so its cool-down
    /// counts as over too.
    pub fn can_retry(&self, raida: RaidaId, now: UnixSeconds) -> bool {
        let server = &self.servers[raida];
        let until = self.next_retry(raida);
        until.is_none_or(|until| now >= until || server.last_attempt.is_some_and(|at| at > now))
    }

    /// The time from which a persistently broken server may be tried again; `None` where there is
    /// nothing to wait for.
    pub fn next_retry(&self, raida: RaidaId) -> Option<UnixSeconds> {
        let server = &self.servers[raida];
        let last = (server.last_attempt).filter(|_| server.state == State::PersistentlyBroken)?;
        Some(UnixSeconds(last.0.saturating_add(self.cool_down.as_secs())))
    }

    /// Reads what is known from a wallet's folder; nothing, where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or understood; it is left as it is.
    pub fn read(wallet: &Path) -> Result<EncryptionHealth, HealthError> {
        let file = wallet.join(HEALTH_FILE);
        match read_at_most(&file) {
            Ok(text) => {
                EncryptionHealth::parse(&text).map_err(|what| HealthError::Damaged { file, what })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(EncryptionHealth::default())
            }
            Err(cause) => Err(HealthError::Unreadable { file, cause }),
        }
    }

    /// Writes it into the wallet's folder, durably: a crash leaves the old file or the new one.
    /// Writes nothing where the file says the same as `known`.
    ///
    /// # Errors
    /// The disk fails or is full.
    ///
    /// # Panics
    /// When the wallet was opened to look only.
    pub fn save(&self, wallet: &Wallet, known: &EncryptionHealth) -> Result<(), WalletError> {
        match self == known {
            true => Ok(()),
            false => wallet.keep_beside(HEALTH_FILE, Zeroizing::new(self.to_text().into_bytes())),
        }
    }

    fn to_text(&self) -> String {
        let entry = |(raida, server): (RaidaId, &ServerHealth)| Entry {
            raida: raida.get(),
            state: server.state,
            failures: server.failures,
            // Content that could not be read again is not written.
            last_attempt: server.last_attempt.map(|at| at.min(UnixSeconds::MAX)),
        };
        let document = Document {
            format: FORMAT,
            cool_down_s: self.cool_down.min(COOL_DOWN_MAX).as_secs(),
            servers: self.servers.iter().map(entry).collect(),
        };
        let text = serde_json::to_string_pretty(&document);
        text.expect("there are only numbers and names in it") + "\n"
    }

    fn parse(text: &str) -> Result<EncryptionHealth, String> {
        // The format comes first: a file of another format is not damaged.
        let format: Format = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if format.format != FORMAT {
            return Err(format!(
                "it is of format {} and this program knows format {FORMAT}",
                format.format
            ));
        }
        let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let numbers = document.servers.iter().map(|entry| entry.raida);
        if !numbers.eq(RaidaId::all().map(RaidaId::get)) {
            return Err("its servers are not 0 to 24, each once".to_owned());
        }
        let cool_down = Duration::from_secs(document.cool_down_s);
        if cool_down > COOL_DOWN_MAX {
            return Err(format!(
                "its cool_down_s is {} and can be {} at most",
                document.cool_down_s,
                COOL_DOWN_MAX.as_secs()
            ));
        }
        let attempts = document
            .servers
            .iter()
            .filter_map(|entry| entry.last_attempt);
        if let Some(UnixSeconds(at)) = attempts.max().filter(|&at| at > UnixSeconds::MAX) {
            return Err(format!(
                "a last_attempt in it is {at}, which is after the year 9999"
            ));
        }
        let mut servers = document.servers.into_iter();
        Ok(EncryptionHealth {
            cool_down,
            servers: PerRaida::from_fn(|_| {
                let entry = servers.next().expect("counted above");
                ServerHealth {
                    state: entry.state,
                    failures: entry.failures,
                    last_attempt: entry.last_attempt,
                }
            }),
        })
    }
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    cool_down_s: u64,
    servers: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    raida: u8,
    state: State,
    failures: u32,
    last_attempt: Option<UnixSeconds>,
}

/// Why the known state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The system cannot read the file.
    #[error("cannot read {file}: {cause}; nothing was changed: do the same again when this is mended", file = file.shown())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's message.
        cause: io::Error,
    },
    /// The file's content is not a list of broken servers.
    #[error("{file} cannot be understood: {what}; nothing was changed: put it right, or remove it, and `raida health` with --network or --hosts asks the servers anew which of them are broken", file = file.shown())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn read_at_most(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = plain_file::open(file)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::wallet::Access;

    fn raida(number: u8) -> RaidaId {
        RaidaId::new(number).unwrap()
    }

    const NOW: UnixSeconds = UnixSeconds(1_795_231_955);

    fn after(seconds: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 + seconds)
    }

    /// A state where server 7 failed for good at [`NOW`].
    fn persistent() -> EncryptionHealth {
        let mut health = EncryptionHealth::default();
        for _ in 0..FAILURES_MAX {
            health.mark_failed(raida(7), NOW, FAILURES_MAX);
        }
        health
    }

    #[test]
    fn nothing_is_broken_until_it_is_said() {
        let mut health = EncryptionHealth::default();
        assert_eq!((health.broken(), health.working().len()), (vec![], 25));
        health.mark_broken(raida(3));
        health.mark_broken(raida(24));
        assert_eq!(health.broken(), [raida(3), raida(24)]);
        assert_eq!(health.working().len(), 23);
        assert!(health.can_retry(raida(3), NOW));
    }

    #[test]
    fn a_server_is_broken_for_good_after_so_many_failures_in_a_row() {
        let mut health = EncryptionHealth::default();
        for (failures, state) in [
            (1, State::Broken),
            (2, State::Broken),
            (3, State::PersistentlyBroken),
            (4, State::PersistentlyBroken),
        ] {
            health.mark_failed(raida(7), NOW, FAILURES_MAX);
            let expected = ServerHealth {
                state,
                failures,
                last_attempt: Some(NOW),
            };
            assert_eq!(health.of(raida(7)), expected);
        }
        health.mark_failed(raida(8), NOW, 1);
        assert_eq!(health.of(raida(8)).state, State::PersistentlyBroken);
    }

    #[test]
    fn a_fix_ends_the_row_of_failures() {
        let mut health = persistent();
        health.mark_fixed(raida(7));
        assert_eq!(
            (health.broken(), health.next_retry(raida(7))),
            (vec![], None)
        );
        health.mark_failed(raida(7), NOW, FAILURES_MAX);
        assert_eq!(health.of(raida(7)).failures, 1);
        assert_eq!(health.of(raida(7)).state, State::Broken);
    }

    #[test]
    fn that_a_server_is_still_broken_changes_nothing_of_what_was_tried() {
        let mut health = persistent();
        let before = health.clone();
        health.mark_broken(raida(7));
        assert_eq!(health, before);
    }

    #[test]
    fn a_persistently_broken_server_is_tried_again_once_its_cool_down_has_passed() {
        let mut health = persistent();
        let retry = |health: &EncryptionHealth, seconds| health.can_retry(raida(7), after(seconds));
        assert_eq!(health.next_retry(raida(7)), Some(after(1_800)));
        assert!(!retry(&health, 0) && !retry(&health, 1_799) && retry(&health, 1_800));
        health.mark_failed(raida(7), after(1_800), FAILURES_MAX);
        assert!(!retry(&health, 3_599) && retry(&health, 3_600));
        health.cool_down = Duration::from_secs(10);
        assert!(!retry(&health, 1_809) && retry(&health, 1_810));
        health.cool_down = Duration::ZERO;
        assert!(retry(&health, 1_800));
    }

    #[test]
    fn a_broken_server_that_is_not_given_up_may_be_tried_at_any_time() {
        let mut health = EncryptionHealth::default();
        health.mark_failed(raida(7), NOW, FAILURES_MAX);
        assert!(health.can_retry(raida(7), NOW));
        assert_eq!(health.next_retry(raida(7)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_server_waiting_for_ever() {
        let health = persistent();
        let years_before = UnixSeconds(NOW.0 - 1_000_000_000);
        assert!(health.can_retry(raida(7), years_before));
        let mut health = EncryptionHealth::default();
        let end_of_time = UnixSeconds(u64::MAX);
        health.mark_failed(raida(7), end_of_time, 1);
        assert!(health.can_retry(raida(7), NOW));
        assert_eq!(health.next_retry(raida(7)), Some(end_of_time));
    }

    #[test]
    fn what_is_known_outlives_the_program_in_the_wallets_folder() {
        let folder = tempfile::tempdir().unwrap();
        let wallet = Wallet::open(folder.path(), Access::Create).unwrap();
        let read = || EncryptionHealth::read(folder.path()).unwrap();
        assert_eq!(read(), EncryptionHealth::default());
        let mut health = persistent();
        health.mark_broken(raida(24));
        health.cool_down = Duration::from_secs(60);
        health.save(&wallet, &read()).unwrap();
        assert_eq!(read(), health);
        health.mark_fixed(raida(7));
        health.save(&wallet, &read()).unwrap();
        assert_eq!(read(), health);
        // The file is no coin, and not an unknown file of the wallet's.
        assert_eq!(wallet.left_alone(), []);
        drop(wallet);
        let wallet = Wallet::open(folder.path(), Access::Change).unwrap();
        assert_eq!((wallet.coins().len(), wallet.left_alone()), (0, &[][..]));
    }

    #[test]
    fn what_is_written_can_be_read_however_odd_the_clock() {
        let mut health = EncryptionHealth::default();
        health.mark_failed(raida(7), UnixSeconds(u64::MAX), 1);
        health.cool_down = Duration::MAX;
        let read = EncryptionHealth::parse(&health.to_text()).unwrap();
        assert_eq!(read.of(raida(7)).last_attempt, Some(UnixSeconds::MAX));
        assert_eq!(read.cool_down, COOL_DOWN_MAX);
        assert!(read.can_retry(raida(7), NOW));
    }

    #[test]
    fn nothing_is_written_where_nothing_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let wallet = Wallet::open(folder.path(), Access::Create).unwrap();
        let health = EncryptionHealth::default();
        health.save(&wallet, &health.clone()).unwrap();
        assert!(!folder.path().join(HEALTH_FILE).exists());
    }

    #[test]
    fn a_file_that_is_not_understood_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(HEALTH_FILE);
        let good = persistent().to_text();
        for (text, says) in [
            (String::new(), "EOF"),
            (
                good.replace("\"format\": 1", "\"format\": 2"),
                "of format 2",
            ),
            (
                good.replace("\"raida\": 3", "\"raida\": 4"),
                "0 to 24, each once",
            ),
            (good.replace("persistently", "a little"), "unknown variant"),
            (
                good.replace("\"failures\": 3", "\"failures\": -3"),
                "invalid value",
            ),
            (good.replace("cool_down_s", "cool_down"), "unknown field"),
            (good.replace("1800", "31536001"), "31536000 at most"),
            (good.replace("1800", "18446744073709551615"), "at most"),
            (
                good.replace("1795231955", "253402300800"),
                "after the year 9999",
            ),
            (good[..good.len() / 2].to_owned(), "EOF"),
        ] {
            std::fs::write(&file, &text).unwrap();
            let error = EncryptionHealth::read(folder.path())
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(
                error.contains(HEALTH_FILE) && error.contains("remove it"),
                "{error}"
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
