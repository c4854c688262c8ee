use std::path::PathBuf;

use serde_json::json;

use super::show::paid;
use super::terms::{currency, price, value};
use crate::cli::CliError;
use crate::cli::encryption::numbers;
use crate::cli::locker::{report_all, take_into};
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::{PeekReport, is_agreed, same_once};
use crate::cli::secrets::{SecretText, draw_locker_key, hex_of, tell};
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{Agreement, LockerSecret, Order, Peeked, ShownBy, buy, is_begun, show};
use crate::client::wallet::{Access, Wallet};
use crate::client::{Client, ClientError, PerRaida, Purchase, Raidas};
use crate::hex;
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::protocol::lockers::{
    Buy, Currency, Memo, Offer, Price, ReceiptId, TransactionId, Value,
};

/// Ask all 25 servers about an offer; or say that it is paid, there or on one node, and have its
/// coins put into a locker.
///
/// Ask first, without --transaction: with --network or --hosts the command then shows which coins
/// each server has in the offer, tells nobody anything, and pays nothing. Pay only if the servers
/// agree. A purchase is not bound to its buyer yet: the payment is public, and anybody who sees it,
/// or hears of it from one server, can be there before you on the others. So give the same command
/// with --transaction, --receipt and --memo as soon as you have paid; it asks all servers about the
/// offer once more before it tells any of them of the payment, and shows where the offer differs or
/// is missing. Exit status without --transaction: 0 if 13 servers or more have the offer with the
/// same coins, else 1; 2 if fewer answer.
///
/// With --transaction, each server has the payment checked for itself. Where it is not confirmed
/// yet, give the same command again with the same --key and --transaction: no payment is counted
/// twice, and the servers then say how it went. Exit status 0 if it is paid (with --network or
/// --hosts: on 13 servers or more; with --wallet, if the coins are in the wallet), else 1.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida trade buy --currency <NAME> --worth <WORTH> --price <N> (--network <DIR> | --hosts <FILE>) [OPTIONS]\n       raida trade buy --currency <NAME> --worth <WORTH> --price <N> --transaction <HEX> --receipt <HEX|@FILE> --memo <TEXT> [OPTIONS]"
)]
#[command(after_help = "Examples:
  raida trade buy --network raida-network --currency bitcoin --worth 250 --price 40000
  raida trade buy --network raida-network --currency bitcoin --worth 250 --price 40000 --transaction 9f2c...41 --receipt 00d1...7e --memo 'order 17' --wallet wallet
  raida trade buy --currency bitcoin --worth 250 --price 40000 --transaction 9f2c...41 --receipt 00d1...7e --memo x --key @key --host raida7.example.com:50007 --raida 7")]
pub struct BuyCommand {
    /// The currency of the payment: cloudcoin, bitcoin or monero
    #[arg(long, value_name = "NAME", value_parser = currency)]
    currency: Currency,
    /// What the coins are worth together
    #[arg(long, value_name = "WORTH", value_parser = value)]
    worth: Value,
    /// The price
    #[arg(long, value_name = "N", value_parser = price)]
    price: Price,
    /// The payment's name in its currency's own ledger: 64 hex digits. Without it the command only
    /// asks all servers about the offer
    #[arg(long, value_name = "HEX", value_parser = transaction, required_unless_present = "servers", requires_all = ["receipt", "memo"])]
    transaction: Option<TransactionId>,
    /// The receipt id, which shows that the payment is yours: 32 hex digits, or @FILE that holds
    /// them
    #[arg(long, value_name = "HEX|@FILE", requires = "transaction")]
    receipt: Option<SecretText>,
    /// A memo for the program that settles the payment: 1 to 254 bytes
    #[arg(long, value_name = "TEXT", value_parser = memo, requires = "transaction")]
    memo: Option<String>,
    /// The locker for the coins: 32 hex digits, or @FILE that holds them. Without it the command
    /// makes one up and shows it before anything is sent
    #[arg(long, value_name = "HEX|@FILE", required_if_eq("json", "true"))]
    key: Option<SecretText>,
    /// Take the coins out of the locker into this wallet, at once; created if it does not exist
    #[arg(long, value_name = "DIR", requires = "servers")]
    wallet: Option<PathBuf>,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text; two, a line each, with --wallet
    #[arg(long)]
    json: bool,
}

impl BuyCommand {
    /// Whether the locker was named.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether it says that an offer is paid.
    pub fn pays(&self) -> bool {
        self.transaction.is_some()
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses what was asked; the wallet cannot be opened.
    pub fn run(self) -> Result<Answer, CliError> {
        let offer = Offer {
            currency: self.currency,
            value: self.worth,
            price: self.price,
        };
        let order = match (self.transaction, &self.receipt, &self.memo) {
            (Some(transaction), Some(receipt), Some(memo)) => Some(Order {
                offer,
                transaction,
                receipt: ReceiptId::new(receipt.number("--receipt")?),
                memo: memo.clone().into_bytes(),
            }),
            _ => None,
        };
        match (self.servers.open()?, &order) {
            (Servers::One(client), Some(order)) => self.on_one(client, order),
            (Servers::All(raidas), Some(order)) => self.on_all(&raidas, order),
            (Servers::All(raidas), None) => self.look(&raidas, offer),
            (Servers::One(_), None) => {
                unreachable!("the command line asks for a payment where there is one node")
            }
        }
    }

    /// Asks all servers about the offer before anything is paid.
    fn look(&self, raidas: &Raidas, offer: Offer) -> Result<Answer, CliError> {
        let bar = waiting();
        bar.set_message("asking all servers about the offer");
        let by = ShownBy::Offer(offer);
        let shown = show(&by, raidas);
        let more = paid(&by, &shown, raidas);
        bar.finish_and_clear();
        let shown = shown.coins;
        let answer = report_all(&shown, "offer", more, self.json)?;
        if !self.json {
            print(&advice(&shown.agreement()))?;
        }
        Ok(answer)
    }

    fn on_one(&self, mut client: Client, order: &Order) -> Result<Answer, CliError> {
        client.echo()?;
        let into = match &self.key {
            Some(text) => text.locker_key("--key")?,
            None => {
                let key = draw_locker_key()?;
                tell("the locker's key on this node", &hex_of(key.an()))?;
                key
            }
        };
        let purchase = client.buy(&Buy {
            into,
            offer: order.offer,
            transaction: order.transaction,
            receipt: order.receipt,
            memo: Memo::new(&order.memo).expect("the command line takes 1 to 254 bytes"),
        })?;
        match self.json {
            true => print_json(&json!({ "purchase": name(purchase) }))?,
            false if purchase == Purchase::NoSettlement => print(
                "no settlement: this server takes no payments (its operator has not set trade.settlement), so nothing was bought and nothing lies in the locker\n",
            )?,
            false => print(&format!("{}\n", sentence(purchase)))?,
        }
        Ok(match purchase {
            Purchase::Paid => Answer::Yes,
            _ => Answer::No,
        })
    }

    fn on_all(&self, raidas: &Raidas, order: &Order) -> Result<Answer, CliError> {
        let secret = match &self.key {
            Some(text) => text.locker_secret("--key")?,
            None => LockerSecret::draw()?,
        };
        // A wallet that cannot be opened is told of before the coins are bought.
        let wallet = match &self.wallet {
            Some(folder) => {
                let mut wallet = Wallet::open(folder, Access::CreateToUse)?;
                wallet.keep_only(raidas.coin_id);
                Some((wallet, folder))
            }
            None => None,
        };
        let bar = waiting();
        // Before the first of them hears of the payment.
        bar.set_message("asking all servers about the offer");
        let shown = show(&ShownBy::Offer(order.offer), raidas).coins;
        if !self.json {
            bar.suspend(|| print(&before_payment(&shown)))?;
        }
        if self.key.is_none() {
            // An earlier run's purchase went into the locker that it named.
            if !shown
                .0
                .iter()
                .any(|(_, said)| matches!(said, Ok(coins) if !coins.is_empty()))
            {
                bar.finish_and_clear();
                print(
                    "no server that answers has such an offer, so no server was told of the payment, and no locker was made up; if an earlier run of this command was interrupted, give it again with the --key that it showed\n",
                )?;
                return Ok(Answer::No);
            }
            bar.suspend(|| tell("the locker's secret", &secret.expose()))?;
        }
        bar.set_message("asking all servers");
        let said = buy(order, &secret, raidas);
        let paid = said.count(|said| matches!(said, Ok(Purchase::Paid)));
        bar.suspend(|| self.report(&shown, &said, paid))?;
        let Some((mut wallet, folder)) = wallet else {
            return Ok(match paid {
                VOTES_NEEDED.. => Answer::Yes,
                _ => Answer::No,
            });
        };
        if paid < VOTES_NEEDED {
            // Servers that do not answer now may have been paid in a run that was interrupted.
            if !is_begun(&wallet, &secret)? {
                return Ok(Answer::No);
            }
            if !self.json {
                bar.suspend(|| print("an earlier run was interrupted when it had begun to take the coins: that is ended now\n"))?;
            }
        }
        take_into(
            (&mut wallet, folder),
            &secret,
            None,
            raidas,
            &bar,
            self.json,
        )
    }

    fn report(
        &self,
        shown: &Peeked,
        said: &PerRaida<Result<Purchase, ClientError>>,
        paid: usize,
    ) -> Result<(), CliError> {
        if self.json {
            let servers = said.iter().map(|(raida, said)| {
                let purchase = said.as_ref().ok().map(|&purchase| name(purchase));
                let why = said.as_ref().err().map(ToString::to_string);
                json!({ "raida": raida.get(), "purchase": purchase, "why": why })
            });
            return print_json(&json!({
                "offer": json!(PeekReport::of(shown, &shown.agreement())),
                "paid": paid,
                "servers": servers.collect::<Vec<_>>(),
            }));
        }
        let mut text = "RAIDA  said\n".to_owned();
        let lines = said.iter().map(|(raida, said)| {
            let line = match said {
                Ok(purchase) => format!(" {}", sentence(*purchase)),
                Err(error) => format!(" {}", error.what()),
            };
            (raida, line)
        });
        text += &same_once(lines.collect());
        let pending = said.count(|said| matches!(said, Ok(Purchase::Pending)));
        text += &match (paid, pending) {
            (VOTES_NEEDED.., _) => {
                format!("paid on {paid} servers: the coins lie in the locker there\n")
            }
            (_, 0) => format!(
                "paid on {paid} servers: {VOTES_NEEDED} are needed for the coins to be worth anything; give the same command again with the same --key when the others can be asked, or when they see the payment. Where a server refuses it, or has no such offer, it has counted nothing there\n"
            ),
            _ => format!(
                "paid on {paid} servers, pending on {pending}: give the same command again, with the same --key\n"
            ),
        };
        print(&text)
    }
}

/// What to do about an offer that nobody has paid yet.
fn advice(agreement: &Agreement) -> String {
    let said = "nothing was paid, and no server was told of you; a purchase is not bound to its buyer yet, so that whoever sees the payment can be there before you";
    match (is_agreed(agreement), agreement.servers) {
        (true, RaidaId::COUNT) => format!(
            "{said}: pay, and give the same command at once with --transaction, --receipt and --memo\n"
        ),
        (true, servers) => format!(
            "{said}: only {servers} of 25 servers have the offer with these coins, so that you would get them there alone and `raida heal` would have to repair the rest; if you pay all the same, give the same command at once with --transaction, --receipt and --memo\n"
        ),
        (false, _) => format!(
            "{said}: do not pay, since fewer than {VOTES_NEEDED} servers have the offer with the same coins\n"
        ),
    }
}

/// What the servers have in an offer, in a line, before they hear that it is paid.
fn before_payment(shown: &Peeked) -> String {
    let agreement = shown.agreement();
    let said = |raida: RaidaId| shown.0[raida].as_ref();
    let none: Vec<RaidaId> = RaidaId::all()
        .filter(|&raida| said(raida).is_ok_and(Vec::is_empty))
        .collect();
    // After an earlier run most servers have sold it, and those that have it still are no liars.
    if agreement.coins.is_empty() {
        let have: Vec<RaidaId> = RaidaId::all()
            .filter(|&raida| said(raida).is_ok_and(|coins| !coins.is_empty()))
            .collect();
        if !have.is_empty() {
            return format!(
                "asked before any of them is told of the payment: RAIDA {} have an offer like this, {} others have none, as after an earlier run of this command\n",
                numbers(&have),
                none.len()
            );
        }
    }
    let silent: Vec<RaidaId> = RaidaId::all()
        .filter(|&raida| said(raida).is_err())
        .collect();
    let others = agreement.others.iter().map(|other| other.raida);
    let others: Vec<RaidaId> = others.filter(|raida| !none.contains(raida)).collect();
    let have = RaidaId::COUNT - none.len() - silent.len() - others.len();
    let mut text = format!(
        "asked before any of them is told of the payment: {have} of 25 servers have the offer with the same coins"
    );
    for (servers, what) in [
        (&others, "other coins in it"),
        (
            &none,
            "no such offer, as after an earlier run of this command",
        ),
        (&silent, "no answer"),
    ] {
        if !servers.is_empty() {
            text += &format!("; RAIDA {}: {what}", numbers(servers));
        }
    }
    if have < VOTES_NEEDED && have > 0 {
        text += "; that is fewer than 13, and those are told all the same: the coins cannot be taken back there any more";
    }
    text + "\n"
}

fn name(purchase: Purchase) -> &'static str {
    match purchase {
        Purchase::Paid => "paid",
        Purchase::Pending => "pending",
        Purchase::Refused => "refused",
        Purchase::NoSuchOffer => "no such offer",
        Purchase::NoSettlement => "no settlement",
    }
}

fn sentence(purchase: Purchase) -> &'static str {
    match purchase {
        Purchase::Paid => "paid: the coins lie in the locker",
        Purchase::Pending => "pending: the payment is not confirmed yet, ask again",
        Purchase::Refused => {
            "refused: the payment was not made, or not of this amount to the seller, or has paid for something else"
        }
        Purchase::NoSuchOffer => {
            "no such offer: nothing of just that worth is for sale at that price, or somebody else is buying it"
        }
        Purchase::NoSettlement => "no settlement: nothing can be bought there",
    }
}

fn transaction(text: &str) -> Result<TransactionId, String> {
    hex::read(text)
        .map(TransactionId::new)
        .ok_or_else(|| "a transaction id is 64 hex digits".to_owned())
}

fn memo(text: &str) -> Result<String, String> {
    match Memo::new(text.as_bytes()) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "it has {} bytes: permitted are 1 to 254",
            text.len()
        )),
    }
}
