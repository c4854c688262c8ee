use super::terms::{currency, paid_where, price, raw, value, written};
use crate::cli::CliError;
use crate::cli::locker::{More, report_all, report_one};
use crate::cli::output::{Answer, waiting};
use crate::cli::secrets::SecretText;
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{Seller, Shown, ShownBy, addresses, show};
use crate::client::{PerRaida, Raidas};
use crate::protocol::lockers::{Currency, Offer, Price, TradeName, Value};

/// Show which coins an offer has and where to pay, on one node or on all 25 servers; nothing is
/// changed.
///
/// With all servers, pay to the address that at least 13 of them say: one alone may lie. Exit
/// status 1 if there is no such offer or, with --network or --hosts, fewer than 13 servers agree on
/// what is in it.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida trade show (--id <HEX> | --key <HEX|@FILE>) [OPTIONS]\n       raida trade show (--network <DIR> | --hosts <FILE>) (--key <HEX|@FILE> | --currency <NAME> --worth <WORTH> --price <N>) [OPTIONS]"
)]
#[command(group(clap::ArgGroup::new("terms").args(["currency", "worth", "price"]).multiple(true).requires_all(["currency", "worth", "price"])))]
#[command(group(clap::ArgGroup::new("which").args(["id", "key", "currency"]).required(true)))]
#[command(after_help = "Examples:
  raida trade show --id 6f0c...0100eeee --host raida7.example.com:50007 --raida 7
  raida trade show --network raida-network --worth 250 --price 40000 --currency bitcoin
  raida trade show --network raida-network --key @offer")]
pub struct ShowCommand {
    /// The offer's public id, as the node lists it
    #[arg(long, value_name = "HEX", conflicts_with_all = ["servers", "terms"])]
    id: Option<SecretText>,
    /// The offer's key or, with --network or --hosts, its secret: 32 hex digits, or @FILE that
    /// holds them
    #[arg(long, value_name = "HEX|@FILE", conflicts_with_all = ["id", "terms"])]
    key: Option<SecretText>,
    /// The currency of the price: cloudcoin, bitcoin or monero; with --network or --hosts only: on
    /// one node use --id or --key
    #[arg(long, value_name = "NAME", value_parser = currency, requires = "servers")]
    currency: Option<Currency>,
    /// What the coins are worth together
    #[arg(long, value_name = "WORTH", value_parser = value)]
    worth: Option<Value>,
    /// What is to be paid
    #[arg(long, value_name = "N", value_parser = price)]
    price: Option<Price>,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ShowCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses; fewer than 13 servers answer.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.servers.open()? {
            Servers::One(mut client) => {
                let (flag, text) = match (&self.id, &self.key) {
                    (Some(id), _) => ("--id", id),
                    (None, Some(key)) => ("--key", key),
                    (None, None) => unreachable!("terms go with --network or --hosts"),
                };
                // A key and an id have the same form, and the request does not tell them apart.
                let name: TradeName = text.trade_key(flag)?.into();
                let coins = client.peek_trade(name)?;
                let address = client.trade_address(name)?;
                let mut more = More::default();
                if let Some(address) = &address {
                    more.text = format!("to be paid to {}\n", written(address));
                }
                let address = address.as_ref().map(raw);
                more.json.insert("address".to_owned(), address.into());
                report_one(&coins, "offer", more, self.json)
            }
            Servers::All(raidas) => {
                let by = match (&self.key, self.currency, self.worth, self.price) {
                    (Some(key), ..) => ShownBy::Secret(key.trade_secret("--key")?),
                    (None, Some(currency), Some(value), Some(price)) => ShownBy::Offer(Offer {
                        currency,
                        value,
                        price,
                    }),
                    _ => unreachable!("the command line asks for a key or for all terms"),
                };
                let bar = waiting();
                bar.set_message("asking all servers");
                let shown = show(&by, &raidas);
                let more = paid(&by, &shown, &raidas);
                bar.finish_and_clear();
                report_all(&shown.coins, "offer", more, self.json)
            }
        }
    }
}

/// Where to pay for an offer, according to the servers.
pub(super) fn paid(by: &ShownBy, shown: &Shown, raidas: &Raidas) -> More {
    let named = PerRaida::from_fn(|raida| match by {
        ShownBy::Secret(secret) => vec![secret.key(raida).into()],
        ShownBy::Offer(_) => shown.ids[raida].into_iter().map(TradeName::from).collect(),
    });
    let mut seller = Seller::default();
    for (raida, said) in addresses(&named, raidas) {
        let said = said.into_iter().flatten();
        said.for_each(|address| seller.add(raida, &address));
    }
    let mut more = More::default();
    let is_known = !seller.by_votes().is_empty();
    let is_there = shown
        .coins
        .0
        .iter()
        .any(|(_, coins)| coins.as_ref().is_ok_and(|c| !c.is_empty()));
    if is_known || is_there {
        more.text = paid_where(&seller);
    }
    let agreed = seller.agreed().as_ref().map(raw);
    more.json.insert("address".to_owned(), agreed.into());
    more
}
