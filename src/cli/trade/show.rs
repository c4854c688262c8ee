use super::terms::{currency, price, value};
use crate::cli::CliError;
use crate::cli::locker::{report_all, report_one};
use crate::cli::output::{Answer, waiting};
use crate::cli::secrets::SecretText;
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{ShownBy, show};
use crate::protocol::lockers::{Currency, Offer, Price, Value};

/// Show which coins an offer has, on one node or on all 25 servers; nothing is changed.
///
/// Exit status 1 if there is no such offer or, with --network or --hosts, fewer than 13 servers agree on
/// what is in it.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("terms").args(["currency", "worth", "price"]).multiple(true).requires_all(["currency", "worth", "price"])))]
#[command(group(clap::ArgGroup::new("which").args(["id", "key", "currency"]).required(true)))]
#[command(after_help = "Examples:
  raida trade show --id 6f0c...0100eeee --host raida7.example.com:50007 --raida 7
  raida trade show --network net --worth 250 --price 40000 --currency bitcoin
  raida trade show --network net --key @offer")]
pub struct ShowCommand {
    /// What the node's list calls it
    #[arg(long, value_name = "HEX", conflicts_with_all = ["servers", "terms"])]
    id: Option<SecretText>,
    /// The offer's key or, with --network or --hosts, its secret: 32 hex digits, or @FILE that holds them
    #[arg(long, value_name = "HEX|@FILE", conflicts_with_all = ["id", "terms"])]
    key: Option<SecretText>,
    /// What is to be paid in: cloudcoin, bitcoin or monero
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
                let coins = client.peek_trade(text.trade_key(flag)?.into())?;
                report_one(&coins, "offer", self.json)
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
                bar.finish_and_clear();
                report_all(&shown.coins, "offer", self.json)
            }
        }
    }
}
