//! Broken servers and what became of them, as a person and a program read it.

use std::io;

use serde_json::{Value, json};

use super::coins::json_of;
use crate::client::ClientError;
use crate::client::key_healing::{EncryptionHealth, HelperFault, KeyFix, UnixSeconds};
use crate::load::report::Utc;
use crate::protocol::RaidaId;

/// Number of failed helpers whose reasons are shown: the last ones.
const FAULTS_SHOWN: usize = 3;

/// A time as a person reads it.
pub fn utc(time: UnixSeconds) -> String {
    Utc::at_unix_seconds(time.0).to_string()
}

/// `2 of 25 servers are broken`.
pub fn summary(health: &EncryptionHealth) -> String {
    let broken = health.broken().len();
    let are = if broken == 1 { "is" } else { "are" };
    format!("{broken} of {} servers {are} broken", RaidaId::COUNT)
}

/// Numbers of servers, separated by spaces.
pub fn numbers(servers: &[RaidaId]) -> String {
    let numbers: Vec<String> = servers.iter().map(RaidaId::to_string).collect();
    numbers.join(" ")
}

/// One line for each server that was broken. `health` says which servers are broken now.
pub fn lines(results: &[(RaidaId, KeyFix)], health: &EncryptionHealth) -> String {
    let line = |(raida, fix): &(RaidaId, KeyFix)| {
        let phrase = match fix {
            KeyFix::Fixed { .. } => phrase(fix),
            _ if health.is_broken(*raida) => phrase(fix),
            _ => "was broken and works again: it passes a coin of the wallet".to_owned(),
        };
        format!("RAIDA {raida} {phrase}\n")
    };
    results.iter().map(line).collect()
}

fn phrase(fix: &KeyFix) -> String {
    match fix {
        KeyFix::Fixed {
            coin,
            helpers: Some([first, second]),
        } => format!("was broken and is fixed: RAIDA {first} and {second} vouched for coin {coin}"),
        KeyFix::Fixed {
            coin,
            helpers: None,
        } => format!("was broken and is fixed: it has a number that the file of coin {coin} held"),
        KeyFix::CoolingDown { until } => format!(
            "is broken: it was tried too often, and is left alone until {}",
            utc(*until)
        ),
        KeyFix::NoSuitableCoin => {
            "is broken: no coin fails there and passes on two working servers; put one into the wallet, or try again when more servers answer".to_owned()
        }
        KeyFix::TooEarly { coin, again } => format!(
            "is broken: coin {coin} changed there lately, or the server started lately, and it takes new tickets from {} on; come back then. `raida heal` repairs at once what the other servers can vouch for",
            utc(*again)
        ),
        KeyFix::NotEnoughHelpers { coin, failed } => {
            let shown = &failed[failed.len().saturating_sub(FAULTS_SHOWN)..];
            let fault =
                |(raida, fault): &(RaidaId, HelperFault)| format!("; RAIDA {raida}: {fault}");
            format!(
                "is broken: no two servers could vouch for coin {coin}, {} were tried{}",
                failed.len(),
                shown.iter().map(fault).collect::<String>()
            )
        }
        KeyFix::Refused { coin, status } => {
            format!("is broken: it refuses the fix of coin {coin}: {status}")
        }
        KeyFix::NoAnswer { coin, error } => {
            let outcome = outcome(error);
            format!(
                "is broken: {outcome}, coin {coin}: {error}; try again later, with the same wallet"
            )
        }
    }
}

/// The same for a program.
pub fn json_of_fixes(results: &[(RaidaId, KeyFix)]) -> Value {
    let entry = |(raida, fix): &(RaidaId, KeyFix)| {
        let mut entry = match fix {
            KeyFix::Fixed { coin, helpers } => {
                let helpers = helpers.map(|helpers| helpers.map(RaidaId::get));
                json!({ "outcome": "fixed", "coin": json_of(*coin), "helpers": helpers })
            }
            KeyFix::CoolingDown { until } => {
                json!({ "outcome": "cooling down", "until": until.0 })
            }
            KeyFix::NoSuitableCoin => json!({ "outcome": "no suitable coin" }),
            KeyFix::TooEarly { coin, again } => {
                json!({ "outcome": "too early", "coin": json_of(*coin), "again": again.0 })
            }
            KeyFix::NotEnoughHelpers { coin, failed } => {
                let failed = failed.iter();
                let failed: Vec<Value> = failed
                    .map(|(raida, fault)| {
                        json!({
                            "raida": raida.get(),
                            "outcome": fault_outcome(fault),
                            "why": fault.to_string(),
                        })
                    })
                    .collect();
                json!({ "outcome": "not enough helpers", "coin": json_of(*coin), "failed": failed })
            }
            KeyFix::Refused { coin, status } => json!({
                "outcome": "refused",
                "coin": json_of(*coin),
                "status": status.code(),
                "why": status.to_string(),
            }),
            KeyFix::NoAnswer { coin, error } => json!({
                "outcome": outcome(error),
                "coin": json_of(*coin),
                "why": error.to_string(),
            }),
        };
        entry["raida"] = raida.get().into();
        entry
    };
    results.iter().map(entry).collect()
}

fn fault_outcome(fault: &HelperFault) -> &'static str {
    match fault {
        HelperFault::NoTicket(error) => outcome(error),
        HelperFault::NotAccepted => "not accepted",
        HelperFault::UsedUp => "used up",
    }
}

/// The outcome of a question in a word or two. The words stay the same whatever the server and the
/// system say.
fn outcome(error: &ClientError) -> &'static str {
    match error {
        ClientError::TimedOut(..) => "timed out",
        // It may be up, behind something that drops what is sent to it.
        ClientError::Unreachable(_, cause) if cause.kind() == io::ErrorKind::TimedOut => {
            "timed out"
        }
        ClientError::Unreachable(..) => "unreachable",
        ClientError::Broken(..) => "connection broken",
        ClientError::Refused(..) => "refused",
        ClientError::OtherRaida(..) => "another server",
        ClientError::Malformed(..) | ClientError::NotAnAnswer(..) | ClientError::NotAList(..) => {
            "unusable answer"
        }
        ClientError::TooLong(_) | ClientError::NeedsTcp(_) | ClientError::NoRandomness(_) => {
            "not asked"
        }
    }
}

/// The numbers of the servers that are broken.
pub fn json_of_broken(health: &EncryptionHealth) -> Value {
    let broken = health.broken().into_iter().map(RaidaId::get);
    broken.collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::coin::{Coin, Denomination, SerialNumber};
    use crate::protocol::response::ResponseError;

    fn no_answer(error: ClientError) -> (String, Value) {
        let coin = Coin {
            denomination: Denomination::new(0).unwrap(),
            serial_number: SerialNumber::new(7).unwrap(),
        };
        let raida = RaidaId::new(3).unwrap();
        let results = [(raida, KeyFix::NoAnswer { coin, error })];
        let json = json_of_fixes(&results);
        let mut health = EncryptionHealth::default();
        let works = lines(&results, &health);
        assert!(works.starts_with("RAIDA 3 was broken and works again"));
        health.mark_broken(raida);
        (lines(&results, &health), json[0]["outcome"].clone())
    }

    #[test]
    fn a_time_out_is_told_from_a_server_that_is_not_there_and_from_nonsense() {
        let host = || "a:1".to_owned();
        let cause = || io::Error::from(io::ErrorKind::ConnectionReset);
        for (error, outcome) in [
            (
                ClientError::TimedOut(host(), Duration::from_secs(5)),
                "timed out",
            ),
            (
                ClientError::Unreachable(host(), io::ErrorKind::TimedOut.into()),
                "timed out",
            ),
            (ClientError::Unreachable(host(), cause()), "unreachable"),
            (ClientError::Broken(host(), cause()), "connection broken"),
            (
                ClientError::Malformed(host(), ResponseError::WrongTrailer),
                "unusable answer",
            ),
        ] {
            let (text, json) = no_answer(error);
            assert_eq!(json, outcome);
            let says = format!("RAIDA 3 is broken: {outcome}, coin 0.7: ");
            assert!(text.starts_with(&says), "{text}");
        }
    }
}
