use std::path::{Path, PathBuf};

use serde_json::json;

use super::terms::{asked_price, currency};
use crate::cli::CliError;
use crate::cli::coins::{check_sum, read_coins};
use crate::cli::locker::{FromWalletArgs, json_of_put, nothing_put, text_of_put, words};
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::phrase;
use crate::cli::secrets::{SecretError, SecretText, draw_trade_key, hex_of, tell};
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::check_place;
use crate::client::locker::{Place, PutCoin, TradeSecret, put};
use crate::client::{Client, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::lockers::{Address, Currency, Price};
use crate::shown::Shown;

/// Put coins up for sale: those of a CSV on one node, or a wallet's on all 25 servers.
///
/// Coins on offer move only when they are bought or the offer is taken back. From a wallet, the new
/// numbers are in the coins' files before anything is sent; coins that at least 13 servers have on
/// offer then go to the wallet's folder Lockers, which keeps their numbers but does not count them.
/// Where the command is interrupted, give it again with the same --key. Exit status 1 if a coin is
/// not on offer afterwards.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida trade offer coins.csv --price 40000 --currency bitcoin --address bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh --host raida7.example.com:50007 --raida 7
  raida trade offer --network raida-network --wallet wallet --amount 250 --price 40000 --currency bitcoin --address bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh")]
pub struct OfferCommand {
    /// CSV of coins; the months column may be missing
    #[arg(required_unless_present = "wallet", conflicts_with_all = ["wallet", "servers", "choice"])]
    file: Option<PathBuf>,
    /// The price of all of them together, in the unit that buyer and seller mean
    #[arg(long, value_name = "N", value_parser = asked_price)]
    price: Price,
    /// The currency of the price: cloudcoin, bitcoin or monero
    #[arg(long, value_name = "NAME", value_parser = currency)]
    currency: Currency,
    /// The address to pay to: 16 to 120 bytes
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Box<Address>,
    /// The offer: 32 hex digits, or @FILE that holds them. Without it the command makes one up and
    /// shows it before anything is sent
    #[arg(long, value_name = "HEX|@FILE", required_if_eq("json", "true"))]
    key: Option<SecretText>,
    #[command(flatten)]
    from: FromWalletArgs,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl OfferCommand {
    /// Whether the offer's secret was named.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// The coins cannot be read, or share a key; the node gives no answer, or refuses; fewer than
    /// 13 servers answer; the disk fails.
    pub fn run(self) -> Result<Answer, CliError> {
        match (self.servers.open()?, &self.file) {
            (Servers::One(client), Some(file)) => self.on_one(client, file),
            (Servers::All(raidas), _) => self.on_all(&raidas),
            (Servers::One(_), None) => unreachable!("a wallet goes with --network or --hosts"),
        }
    }

    fn on_one(&self, mut client: Client, file: &Path) -> Result<Answer, CliError> {
        let coins: Vec<(Coin, An)> = read_coins(file)?;
        check_sum(&coins, file)?;
        check_place(coins.len(), 0)?;
        // A run without an answer here has changed nothing, and needs no key.
        client.echo()?;
        let key = match &self.key {
            Some(text) => text.trade_key("--key")?,
            None => {
                let key = draw_trade_key(self.price, self.currency)?;
                tell("the offer's key on this node", &hex_of(key.an()))?;
                key
            }
        };
        self.check_terms(key.price(), key.currency())?;
        let is_on_offer = client.put_for_sale(&coins, key, &self.address)?;
        let coins: Vec<Coin> = coins.into_iter().map(|(coin, _)| coin).collect();
        if self.json {
            print_json(&json!({ "on_offer": is_on_offer, "coins": coins.len() }))?;
        } else {
            let file = file.shown();
            print(&match is_on_offer {
                true => format!("{} on offer\n", phrase(&coins)),
                false => format!(
                    "nothing put up for sale: the number in {file} of at least one coin is not the right one here (`raida detect {file}{node}` says which), or there are coins under this key already\n",
                    node = self.servers.flags_needed(),
                ),
            })?;
        }
        Ok(match is_on_offer {
            true => Answer::Yes,
            false => Answer::No,
        })
    }

    fn on_all(&self, raidas: &Raidas) -> Result<Answer, CliError> {
        let secret = match &self.key {
            Some(text) => text.trade_secret("--key")?,
            None => TradeSecret::draw(self.price, self.currency)?,
        };
        self.check_terms(secret.price(), secret.currency())?;
        let place = Place::Sale(secret.clone(), self.address.clone());
        // More coins cannot be put into an offer that there is.
        let (mut wallet, chosen) = self.from.open(&place, raidas.coin_id, false)?;
        if self.key.is_none() {
            tell("the offer's secret", &secret.expose())?;
        }
        let bar = waiting();
        let done = put(&mut wallet, &place, raidas, |stage| {
            bar.set_message(words(stage));
        });
        let done = done.map_err(|error| nothing_put(error, self.key.is_none()))?;
        bar.finish_and_clear();
        let is_there = done.coins.iter().all(PutCoin::is_there);
        if self.json {
            print_json(&json_of_put(&done, chosen))?;
        } else {
            let mut text = text_of_put(&done, chosen, "the offer", self.from.folder());
            if done
                .coins
                .iter()
                .any(|coin| !coin.is_there() && coin.servers > 0)
            {
                text += "where it is to be taken back instead: `raida trade cancel` with the same --key\n";
            }
            print(&text)?;
        }
        Ok(match is_there {
            true => Answer::Yes,
            false => Answer::No,
        })
    }

    fn check_terms(&self, price: Price, currency: Currency) -> Result<(), SecretError> {
        match (price, currency) == (self.price, self.currency) {
            true => Ok(()),
            false => Err(SecretError::OtherTerms("--key")),
        }
    }
}

fn address(text: &str) -> Result<Box<Address>, String> {
    let address = Address::new(text.as_bytes());
    let boxed = address.map(Box::new);
    boxed.ok_or_else(|| format!("it has {} bytes: permitted are 16 to 120", text.len()))
}
