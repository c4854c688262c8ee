//! Commands of the marketplace, on one node or on all 25 servers.

mod buy;
mod cancel;
mod list;
mod offer;
mod show;
mod terms;

use super::CliError;
use super::output::Answer;
use super::{AGAIN, AGAIN_WITH_KEY};

/// Offer coins for sale, look at what is on offer, buy, and take offers back.
///
/// An offer is coins that all have one number, its key, which also says price and currency: anybody
/// who knows the key can take the coins back. On one node --key is the key itself: 32 hex digits;
/// the last fourteen are price (8), currency (00 cloudcoin, 01 bitcoin, 02 monero) and eeee. With
/// --network or --hosts it is a secret of the same form, from which the key on each of the 25
/// servers is derived: the first 9 bytes of HMAC-SHA-256, under the secret, of "raida trade key"
/// and the RAIDA number, then the secret's last 7. The coins go to the client that the servers
/// count as having paid: see [trade] settlement.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida trade offer --network raida-network --wallet wallet --amount 250 --price 40000 --currency bitcoin --address bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh
  raida trade list --network raida-network --currency bitcoin
  raida trade cancel --network raida-network --key @offer --wallet wallet")]
pub struct TradeCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    Offer(offer::OfferCommand),
    List(list::ListCommand),
    Show(show::ShowCommand),
    Buy(Box<buy::BuyCommand>),
    Cancel(cancel::CancelCommand),
}

impl TradeCommand {
    /// The message for a person who interrupts it, where something may be half done.
    pub fn when_interrupted(&self) -> Option<&'static str> {
        match &self.what {
            What::List(_) | What::Show(_) => None,
            What::Buy(command) if !command.pays() => None,
            What::Buy(command) if !command.has_key() => Some(AGAIN_WITH_KEY),
            What::Offer(command) if !command.has_key() => Some(AGAIN_WITH_KEY),
            What::Buy(_) | What::Offer(_) | What::Cancel(_) => Some(AGAIN),
        }
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// As those of the command that was given.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.what {
            What::Offer(command) => command.run(),
            What::List(command) => command.run(),
            What::Show(command) => command.run(),
            What::Buy(command) => command.run(),
            What::Cancel(command) => command.run(),
        }
    }
}
