use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::terms::{currency, json_of_offer, worth};
use crate::cli::CliError;
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{LockerError, offers};
use crate::client::{ClientError, PerRaida, Raidas};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::protocol::lockers::{Currency, Listed, Offer};

/// List what is on offer, on one node or on all 25 servers.
///
/// Shows at most 255 offers of a server, the oldest first. Each server calls an offer by a name of its own,
/// which opens nothing. Exit status 1 if nothing is on offer (with --network or --hosts: on 13 servers or
/// more).
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida trade list --currency bitcoin --host raida7.example.com:50007 --raida 7
  raida trade list --currency bitcoin --network net --json")]
pub struct ListCommand {
    /// What is to be paid in: cloudcoin, bitcoin or monero
    #[arg(long, value_name = "NAME", value_parser = currency)]
    currency: Currency,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ListCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses; fewer than 13 servers answer.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.servers.open()? {
            Servers::One(mut client) => {
                let listed = client.list_for_sale(self.currency, u8::MAX)?;
                self.report_one(&listed)
            }
            Servers::All(raidas) => self.on_all(&raidas),
        }
    }

    fn report_one(&self, listed: &[Listed]) -> Result<Answer, CliError> {
        if self.json {
            let listed = listed.iter().map(|listed| {
                let mut entry = json_of_offer(&listed.offer);
                entry["id"] = listed.id.map(|id| id.to_string()).into();
                entry
            });
            print_json(&json!({ "offers": listed.collect::<Vec<Json>>() }))?;
        } else {
            let mut text = String::new();
            for Listed { id, offer } in listed {
                let id = id.map_or("-".to_owned(), |id| id.to_string());
                text += &format!("{id:32}  {}\n", terms(offer));
            }
            text += &count(listed.len(), self.currency);
            print(&text)?;
        }
        Ok(match listed {
            [] => Answer::No,
            _ => Answer::Yes,
        })
    }

    fn on_all(&self, raidas: &Raidas) -> Result<Answer, CliError> {
        let bar = waiting();
        bar.set_message("asking all servers");
        let said = offers(self.currency, raidas);
        bar.finish_and_clear();
        check(&said)?;
        let (order, by_offer) = by_offer(&said);
        let counts = |offer: &Offer| by_offer[offer].len() >= VOTES_NEEDED;
        if self.json {
            let listed = order.iter().map(|offer| {
                let mut entry = json_of_offer(offer);
                let servers = by_offer[offer].iter().map(|raida| raida.get());
                entry["servers"] = servers.collect::<Vec<u8>>().into();
                entry
            });
            let silent = said.iter().filter_map(|(raida, said)| {
                let why = said.as_ref().err()?.to_string();
                Some(json!({ "raida": raida.get(), "why": why }))
            });
            print_json(&json!({
                "offers": listed.collect::<Vec<Json>>(),
                "silent": silent.collect::<Vec<Json>>(),
            }))?;
        } else {
            let mut text = String::new();
            for offer in &order {
                let servers = &by_offer[offer];
                text += &format!("{}  on {} servers", terms(offer), servers.len());
                if !counts(offer) {
                    text += &format!(": fewer than {VOTES_NEEDED}, not worth buying");
                }
                text += "\n";
            }
            for (raida, said) in said.iter() {
                if let Err(why) = said {
                    text += &format!("RAIDA {raida} did not answer: {why}\n");
                }
            }
            text += &count(order.len(), self.currency);
            print(&text)?;
        }
        Ok(match order.iter().any(counts) {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}

/// Every offer once, in the order in which the servers list them, and who has it.
fn by_offer(
    said: &PerRaida<Result<Vec<Listed>, ClientError>>,
) -> (Vec<Offer>, BTreeMap<Offer, Vec<RaidaId>>) {
    let mut order = vec![];
    let mut by_offer: BTreeMap<Offer, Vec<RaidaId>> = BTreeMap::new();
    for (raida, said) in said.iter() {
        for listed in said.iter().flatten() {
            let servers = by_offer.entry(listed.offer).or_default();
            if servers.is_empty() {
                order.push(listed.offer);
            }
            servers.push(raida);
        }
    }
    (order, by_offer)
}

fn check(said: &PerRaida<Result<Vec<Listed>, ClientError>>) -> Result<(), LockerError> {
    let answered = said.count(Result::is_ok);
    let failed = (said.iter())
        .find_map(|(raida, said)| Some(format!("RAIDA {raida}: {}", said.as_ref().err()?)));
    match failed {
        Some(first) if answered < VOTES_NEEDED => {
            Err(LockerError::TooFewServers { answered, first })
        }
        _ => Ok(()),
    }
}

fn count(offers: usize, currency: Currency) -> String {
    let plural = if offers == 1 { "" } else { "s" };
    format!("{offers} offer{plural} in {currency}\n")
}

fn terms(offer: &Offer) -> String {
    let worth = worth(offer);
    format!(
        "worth {worth:>16}  for {:>10} {}",
        offer.price.get(),
        offer.currency
    )
}
