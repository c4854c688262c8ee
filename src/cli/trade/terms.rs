//! What is for sale for how much, as commands take and show it.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::client::locker::Seller;
use crate::coin::Worth;
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::protocol::lockers::{Address, Currency, Offer, Price, Value};
use crate::shown::Shown;

/// Reads a currency by its name.
pub fn currency(text: &str) -> Result<Currency, String> {
    let named = |currency: &Currency| currency.name() == text.to_ascii_lowercase();
    Currency::ALL
        .into_iter()
        .find(named)
        .ok_or_else(|| "permitted are cloudcoin, bitcoin and monero".to_owned())
}

/// Reads a price.
pub fn price(text: &str) -> Result<Price, String> {
    let number = text.parse().map(Price::new);
    number.map_err(|_| {
        "a price is a whole number up to 4294967295, in the unit that buyer and seller mean"
            .to_owned()
    })
}

/// Reads a price that is asked for.
pub fn asked_price(text: &str) -> Result<Price, String> {
    match price(text)? {
        free if free.get() == 0 => {
            Err("for nothing anybody could take the coins: ask 1 at least".to_owned())
        }
        price => Ok(price),
    }
}

/// Reads what coins are worth together.
pub fn value(text: &str) -> Result<Value, String> {
    let worth: Worth = text.parse().map_err(|error| format!("{error}"))?;
    let units = u64::try_from(worth.0);
    units
        .map(Value::from_units)
        .map_err(|_| "no offer can be worth more than 184467440737.09551615".to_owned())
}

/// What the coins of an offer are worth.
pub fn worth(offer: &Offer) -> Worth {
    Worth(u128::from(offer.value.units()))
}

/// An address to pay to, as raw bytes.
pub fn raw(address: &Address) -> String {
    String::from_utf8_lossy(address.as_bytes()).into_owned()
}

/// An address to pay to, on one line, with an escape for every invisible character.
pub fn written(address: &Address) -> String {
    Path::new(&raw(address)).escaped().to_string()
}

/// Where to pay for an offer, according to the servers.
pub fn paid_where(seller: &Seller) -> String {
    let mut text = match seller.agreed() {
        Some(address) => format!("to be paid to {}\n", written(&address)),
        None => format!("no {VOTES_NEEDED} servers say where it is to be paid: pay nobody\n"),
    };
    for (address, servers) in seller.by_votes() {
        if seller.agreed().as_ref() != Some(&address) {
            let names: Vec<String> = servers.iter().map(RaidaId::to_string).collect();
            text += &format!("  RAIDA {}: to {}\n", names.join(", "), written(&address));
        }
    }
    text
}

/// An offer for a program.
pub fn json_of_offer(offer: &Offer) -> Json {
    json!({
        "currency": offer.currency.name(),
        "worth": worth(offer).to_string(),
        "price": offer.price.get(),
    })
}
