//! What 25 servers said of coins, as a person and a program read it.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::coins::CoinList;
use crate::client::PerRaida;
use crate::client::locker::{Agreement, Difference, Peeked, Said};
use crate::coin::{Coin, Worth};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;

/// Number of coins that a report names; it only counts the rest.
const NAMED_MAX: usize = 10;

/// `5 coins worth 12.5`.
pub fn phrase(coins: &[Coin]) -> String {
    let plural = if coins.len() == 1 { "" } else { "s" };
    let worth = Worth::of(coins.iter().copied());
    format!("{} coin{plural} worth {worth}", coins.len())
}

/// `1.7 1.8 and 3 more`.
pub fn names(coins: &[Coin]) -> String {
    let named = coins.iter().take(NAMED_MAX).map(Coin::to_string);
    let mut text = named.collect::<Vec<_>>().join(" ");
    if coins.len() > NAMED_MAX {
        text += &format!(" and {} more", coins.len() - NAMED_MAX);
    }
    text
}

/// Maximum number of servers with the same line for which the line is shown once per server.
const SAME_LINES_MAX: usize = 2;

/// How many coins each server has as intended, and why it does not have all.
pub fn table(servers: &PerRaida<Said>) -> String {
    let mut text = "RAIDA    coins  said\n".to_owned();
    let lines = servers.iter().map(|(raida, said)| {
        let why = said.why.as_deref().unwrap_or("done");
        (raida, format!("{:>8}  {why}", said.done))
    });
    text += &same_once(lines.collect());
    text
}

/// Lines of servers, each with its server's number. The line that most servers share comes once, at
/// the end.
pub fn same_once(lines: Vec<(RaidaId, String)>) -> String {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (_, line) in &lines {
        *counts.entry(line).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    let same = most.filter(|&(_, count)| count > SAME_LINES_MAX);
    let mut text = String::new();
    for (raida, line) in &lines {
        if same.is_none_or(|(same, _)| same != line) {
            text += &format!("{raida:>5} {line}\n");
        }
    }
    if let Some((same, count)) = same {
        let name = if count == lines.len() { "all" } else { "other" };
        text += &format!("{name:>5} {same}\n");
    }
    text
}

/// The same for a program.
pub fn json_of_said(servers: &PerRaida<Said>) -> Value {
    let servers = servers.iter();
    servers
        .map(|(raida, said)| json!({ "raida": raida.get(), "coins": said.done, "why": said.why }))
        .collect()
}

/// How many coins lie on each server, what they are worth, and what is wrong.
pub fn table_of_peek(peeked: &Peeked, agreement: &Agreement) -> String {
    let mut text = format!("RAIDA    coins {:>16}  said\n", "worth");
    let lines = peeked.0.iter().map(|(raida, said)| {
        let differs = agreement.others.iter().find(|other| other.raida == raida);
        let line = match said {
            Err(error) => format!("{:>8} {:>16}  {}", "-", "-", error.what()),
            Ok(coins) => {
                let worth = Worth::of(coins.iter().copied());
                let words = differs.map_or("as most".to_owned(), difference);
                format!("{:>8} {worth:>16}  {words}", coins.len())
            }
        };
        (raida, line)
    });
    text += &same_once(lines.collect());
    text
}

/// What the servers say together, in a sentence or two.
pub fn summary_of_peek(peeked: &Peeked, agreement: &Agreement, place: &str) -> String {
    let (servers, silent) = (agreement.servers, 25 - peeked.answered());
    let what = match agreement.coins.as_slice() {
        [] => format!("nothing lies in the {place}"),
        coins => format!("{} lie in the {place}", phrase(coins)),
    };
    let mut text = format!("{servers} servers say: {what}");
    if !agreement.others.is_empty() {
        text += &format!("; {} differ, as the table shows", agreement.others.len());
    }
    if silent > 0 {
        text += &format!("; {silent} did not say");
    }
    text += "\n";
    if servers < VOTES_NEEDED {
        text += &format!(
            "fewer than {VOTES_NEEDED} servers agree: a coin counts that {VOTES_NEEDED} of them have\n"
        );
    }
    text
}

/// Whether enough servers agree that something lies there.
pub fn is_agreed(agreement: &Agreement) -> bool {
    agreement.servers >= VOTES_NEEDED && !agreement.coins.is_empty()
}

/// Maximum number of coins that a report names because one server has them and most have not, or
/// the other way round: a server that invents coins must not fill a disk.
const DIFFERENCES_MAX: usize = 1_000;

/// What was peeked at, for a program.
#[derive(Serialize)]
pub struct PeekReport<'a> {
    coins: CoinList<'a>,
    worth: String,
    agree: usize,
    differ: Vec<Differs<'a>>,
    servers: Vec<OneServer<'a>>,
}

#[derive(Serialize)]
struct Differs<'a> {
    raida: u8,
    missing: CoinList<'a>,
    missing_count: usize,
    extra: CoinList<'a>,
    extra_count: usize,
}

#[derive(Serialize)]
struct OneServer<'a> {
    raida: u8,
    coins: Option<CoinList<'a>>,
    why: Option<String>,
}

impl<'a> PeekReport<'a> {
    /// Puts it together.
    pub fn of(peeked: &'a Peeked, agreement: &'a Agreement) -> PeekReport<'a> {
        let invents = |raida| {
            let differs = agreement.others.iter().find(|other| other.raida == raida);
            differs.map_or(0, |other| other.extra.len()) > DIFFERENCES_MAX
        };
        let servers = peeked.0.iter().map(|(raida, said)| {
            let is_long = invents(raida);
            let coins = said.as_ref().ok().filter(|_| !is_long);
            let long = || "it names more than 1,000 coins that most do not have".to_owned();
            OneServer {
                raida: raida.get(),
                coins: coins.map(|coins| CoinList(coins)),
                why: (said.as_ref().err().map(ToString::to_string)).or(is_long.then(long)),
            }
        });
        let differ = agreement.others.iter().map(|other| Differs {
            raida: other.raida.get(),
            missing: CoinList(first(&other.missing)),
            missing_count: other.missing.len(),
            extra: CoinList(first(&other.extra)),
            extra_count: other.extra.len(),
        });
        PeekReport {
            coins: CoinList(&agreement.coins),
            worth: Worth::of(agreement.coins.iter().copied()).to_string(),
            agree: agreement.servers,
            differ: differ.collect(),
            servers: servers.collect(),
        }
    }
}

/// The first of them, as many as a report names.
fn first(coins: &[Coin]) -> &[Coin] {
    &coins[..coins.len().min(DIFFERENCES_MAX)]
}

fn difference(other: &Difference) -> String {
    let mut parts = vec![];
    if !other.missing.is_empty() {
        parts.push(format!("missing: {}", names(&other.missing)));
    }
    if !other.extra.is_empty() {
        parts.push(format!("more than most have: {}", names(&other.extra)));
    }
    parts.join("; ")
}
