use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::terms::{currency, json_of_offer, raw, worth, written};
use crate::cli::CliError;
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{LockerError, Seller, addresses, offers};
use crate::client::{ClientError, PerRaida, Raidas};
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::protocol::lockers::{Address, Currency, Listed, Offer, TradeName};

/// Maximum number of offers that are shown although fewer than 13 servers have them.
const FEW_SHOWN: usize = 10;

/// List what is on offer and where to pay, on one node or on all 25 servers.
///
/// Shows at most 255 offers of a server, the oldest first. Each server calls an offer by a name of
/// its own, which opens nothing. Exit status 1 if nothing is on offer (with --network or --hosts:
/// on 13 servers or more).
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida trade list --currency bitcoin --host raida7.example.com:50007 --raida 7
  raida trade list --currency bitcoin --network raida-network --json")]
pub struct ListCommand {
    /// The currency of the price: cloudcoin, bitcoin or monero
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
                let ids = listed.iter().filter_map(|listed| listed.id);
                let names: Vec<TradeName> = ids.map(TradeName::from).collect();
                let until = Instant::now() + 2 * self.servers.timeout();
                let (addresses, error) = client.trade_addresses(&names, until);
                if let Some(error) = error {
                    return Err(error.into());
                }
                let mut known = addresses.into_iter();
                let address_of = |listed: &Listed| listed.id.and_then(|_| known.next().flatten());
                let addresses: Vec<Option<Address>> = listed.iter().map(address_of).collect();
                self.report_one(&listed, &addresses)
            }
            Servers::All(raidas) => self.on_all(&raidas),
        }
    }

    fn report_one(
        &self,
        listed: &[Listed],
        addresses: &[Option<Address>],
    ) -> Result<Answer, CliError> {
        if self.json {
            let listed = listed.iter().zip(addresses).map(|(listed, address)| {
                let mut entry = json_of_offer(&listed.offer);
                entry["address"] = address.as_ref().map(raw).into();
                entry["id"] = listed.id.map(|id| id.to_string()).into();
                entry
            });
            print_json(&json!({ "offers": listed.collect::<Vec<Json>>() }))?;
        } else {
            let mut text = String::new();
            for (Listed { id, offer }, address) in listed.iter().zip(addresses) {
                let id = id.map_or("-".to_owned(), |id| id.to_string());
                text += &format!("{id:32}  {}{}\n", terms(offer), to(address.as_ref()));
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
        check(&said)?;
        let (order, by_offer) = by_offer(&said);
        bar.set_message("asking where they are to be paid");
        let counts = |offer: &Offer| by_offer[offer].len() >= VOTES_NEEDED;
        let sellers = sellers(&said, counts, raidas);
        bar.finish_and_clear();
        let agreed = |offer: &Offer| sellers.get(offer).and_then(Seller::agreed);
        if self.json {
            let listed = order.iter().map(|offer| {
                let mut entry = json_of_offer(offer);
                let servers = by_offer[offer].iter().map(|raida| raida.get());
                entry["servers"] = servers.collect::<Vec<u8>>().into();
                entry["address"] = agreed(offer).as_ref().map(raw).into();
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
            let (on_sale, on_few): (Vec<&Offer>, Vec<&Offer>) =
                order.iter().partition(|offer| counts(offer));
            for offer in &on_sale {
                let servers = by_offer[offer].len();
                let to = to(agreed(offer).as_ref());
                text += &format!("{}{to}  on {servers} servers", terms(offer));
                if sellers.get(offer).is_some_and(|s| s.by_votes().len() > 1) {
                    text += ": they differ on where it is to be paid, see `raida trade show`";
                }
                text += "\n";
            }
            for offer in on_few.iter().take(FEW_SHOWN) {
                let servers = by_offer[offer].len();
                text += &format!(
                    "{}  on {servers} servers: fewer than {VOTES_NEEDED}, not worth buying\n",
                    terms(offer)
                );
            }
            if on_few.len() > FEW_SHOWN {
                text += &format!(
                    "{} more on fewer than {VOTES_NEEDED} servers: --json names them\n",
                    on_few.len() - FEW_SHOWN
                );
            }
            for (raida, said) in said.iter() {
                if let Err(why) = said {
                    text += &format!("RAIDA {raida} did not answer: {why}\n");
                }
            }
            text += &count(on_sale.len(), self.currency);
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

/// Where to pay for each offer that counts, according to the servers that have it.
fn sellers(
    said: &PerRaida<Result<Vec<Listed>, ClientError>>,
    counts: impl Fn(&Offer) -> bool,
    raidas: &Raidas,
) -> BTreeMap<Offer, Seller> {
    let all = |raida| said[raida].iter().flatten();
    let listed = |raida| all(raida).filter(|listed| counts(&listed.offer));
    let with_id = |raida| listed(raida).filter_map(|l: &Listed| Some((l.offer, l.id?)));
    let named = PerRaida::from_fn(|raida| with_id(raida).map(|(_, id)| id.into()).collect());
    let mut sellers: BTreeMap<Offer, Seller> = BTreeMap::new();
    for (raida, addresses) in addresses(&named, raidas) {
        for ((offer, _), address) in with_id(raida).zip(addresses) {
            if let Some(address) = address {
                sellers.entry(offer).or_default().add(raida, &address);
            }
        }
    }
    sellers
}

fn to(address: Option<&Address>) -> String {
    address.map_or(String::new(), |address| {
        format!("  to {}", written(address))
    })
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
