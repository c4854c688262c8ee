use serde::Serialize;
use serde_json::Value as Json;

use crate::cli::CliError;
use crate::cli::coins::CoinList;
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::{PeekReport, is_agreed, phrase, summary_of_peek, table_of_peek};
use crate::cli::secrets::SecretText;
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{Peeked, peek};
use crate::coin::{Coin, Worth};

/// Look into a locker, on one node or on all 25 servers; nothing is changed.
///
/// Exit status 1 if nothing lies in it or, with --network or --hosts, fewer than 13 servers agree
/// on what does; 2 if fewer than 13 answer.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida locker peek --key @key --host raida7.example.com:50007 --raida 7
  raida locker peek --network raida-network --key @secret
  raida locker peek --hosts hosts.txt --key @secret --json")]
pub struct PeekCommand {
    /// The locker: 32 hex digits, or @FILE that holds them
    #[arg(long, value_name = "HEX|@FILE")]
    key: SecretText,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl PeekCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses; fewer than 13 servers answer.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.servers.open()? {
            Servers::One(mut client) => {
                let coins = client.peek(self.key.locker_key("--key")?)?;
                report_one(&coins, "locker", More::default(), self.json)
            }
            Servers::All(raidas) => {
                let secret = self.key.locker_secret("--key")?;
                let bar = waiting();
                bar.set_message("asking all servers");
                let peeked = peek(&secret, &raidas);
                bar.finish_and_clear();
                report_all(&peeked, "locker", More::default(), self.json)
            }
        }
    }
}

/// What lies in a place on one node, for a program.
#[derive(Serialize)]
struct OnePeek<'a> {
    coins: CoinList<'a>,
    worth: String,
    #[serde(flatten)]
    more: Json,
}

/// What lies in a place on all servers, for a program.
#[derive(Serialize)]
struct AllPeek<'a> {
    #[serde(flatten)]
    peek: PeekReport<'a>,
    #[serde(flatten)]
    more: Json,
}

/// What else is known of a place: for people, and as fields for programs.
#[derive(Default)]
pub struct More {
    /// Lines, each with its end.
    pub text: String,
    /// An object.
    pub json: serde_json::Map<String, Json>,
}

/// Says what lies in a place on one node.
///
/// # Errors
/// It cannot be printed.
pub fn report_one(coins: &[Coin], place: &str, more: More, json: bool) -> Result<Answer, CliError> {
    if json {
        print_json(&OnePeek {
            coins: CoinList(coins),
            worth: Worth::of(coins.iter().copied()).to_string(),
            more: more.json.into(),
        })?;
    } else {
        let mut text = lines(coins);
        text += &match coins {
            [] => format!("nothing lies in this {place}, or there is none\n"),
            coins => format!("{} in the {place}\n", phrase(coins)),
        };
        text += &more.text;
        print(&text)?;
    }
    Ok(match coins {
        [] => Answer::No,
        _ => Answer::Yes,
    })
}

/// Says what lies in a place on all servers.
///
/// # Errors
/// Fewer than 13 of them answered.
pub fn report_all(
    peeked: &Peeked,
    place: &str,
    more: More,
    json: bool,
) -> Result<Answer, CliError> {
    peeked.check()?;
    let agreement = peeked.agreement();
    if json {
        print_json(&AllPeek {
            peek: PeekReport::of(peeked, &agreement),
            more: more.json.into(),
        })?;
    } else {
        let mut text = lines(&agreement.coins);
        text += &table_of_peek(peeked, &agreement);
        text += &summary_of_peek(peeked, &agreement, place);
        text += &more.text;
        print(&text)?;
    }
    Ok(match is_agreed(&agreement) {
        true => Answer::Yes,
        false => Answer::No,
    })
}

/// Maximum number of coins that are shown on a line each.
const LINES_MAX: usize = 100;

fn lines(coins: &[Coin]) -> String {
    let some = coins.iter().take(LINES_MAX);
    let mut text: String = some.map(|coin| format!("{coin}\n")).collect();
    if coins.len() > LINES_MAX {
        text += &format!("and {} more; --json shows all\n", coins.len() - LINES_MAX);
    }
    text
}
