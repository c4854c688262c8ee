use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;

use super::CliError;
use super::coins::{json_of, read_coins};
use super::node::NodeArgs;
use super::output::{Answer, print, print_json};
use crate::client::heal::FIX_TIMEOUT;
use crate::client::{
    CoinListWriter, CoinRecord, Existing, FixOrder, Outcome, PerRaida, draw_generator,
};
use crate::coin::{Coin, Mfs};
use crate::protocol::RaidaId;
use crate::protocol::healing::{PartialGenerator, TicketId, VOTES_NEEDED};
use crate::shown::{Shown, remedy};

/// Have a node repair coins that it lost, by the votes of other servers.
///
/// Get a ticket for the coins from at least 13 others first (`raida ticket`). The new authenticity
/// numbers are written to --out before anything is sent, so that none is ever lost. Exit status 1
/// if any coin is not repaired. For a whole wallet use `raida heal`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida fix lost.csv --out fixed.csv --raida 7 --host raida7.example.com:50007 --ticket 0=1893742 --ticket 1=99120034 (and 11 more)")]
pub struct FixCommand {
    /// CSV of coins; their authenticity numbers are not looked at
    file: PathBuf,
    /// CSV to write with the new authenticity numbers; must not exist
    #[arg(long, value_name = "NEW.csv")]
    out: PathBuf,
    /// A server and the number of its ticket; once for each
    #[arg(long = "ticket", value_name = "N=TICKET", required = true, value_parser = ticket)]
    tickets: Vec<(RaidaId, TicketId)>,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl FixCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// A file cannot be read or written; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let coins: Vec<Coin> = read_coins(&self.file)?
            .into_iter()
            .map(|(coin, _)| coin)
            .collect();
        let raida = self.node.raida();
        let others: BTreeSet<RaidaId> = (self.tickets.iter())
            .map(|&(issuer, _)| issuer)
            .filter(|&issuer| issuer != raida)
            .collect();
        if others.len() < VOTES_NEEDED {
            let given = others.len();
            return Err(CliError::Unfinished(format!(
                "tickets of {given} servers other than RAIDA {raida} repair nothing, so nothing was sent: it takes those of {VOTES_NEEDED} or more; `raida ticket` gets one from a server"
            )));
        }
        let mut client = self.node.connect_patiently(FIX_TIMEOUT)?;
        // A run without an answer here has changed nothing, and leaves no file behind.
        client.echo()?;
        let generator = draw_generator(raida, &coins)?;
        let mut tickets = PerRaida::from_fn(|_| None);
        for &(issuer, ticket) in &self.tickets {
            tickets[issuer] = Some(ticket);
        }
        let order = FixOrder {
            coins: coins.clone(),
            generator,
            tickets,
        };
        self.write(Existing::Keep, raida, &order.generator, &coins)?;
        let (outcomes, error) = client.fix(&order);
        let with = |wanted: Outcome| -> Vec<Coin> {
            let coins = coins.iter().zip(&outcomes);
            let coins = coins.filter(|&(_, outcome)| *outcome == wanted);
            coins.map(|(&coin, _)| coin).collect()
        };
        let (fixed, unknown) = (with(Outcome::Changed), with(Outcome::Unknown));
        let kept = [fixed.as_slice(), &unknown].concat();
        let rewritten = match kept.is_empty() {
            true => std::fs::remove_file(&self.out).map_err(|error| {
                let (out, next) = (self.out.shown(), remedy(&error));
                CliError::Unfinished(format!("cannot remove {out}: {error}{next}"))
            }),
            false => self.write(Existing::Replace, raida, &order.generator, &kept),
        };
        rewritten.map_err(|cause| {
            CliError::Unfinished(format!(
                "{cause}; {} still holds the new number of every coin: find out with `raida detect` which are in force",
                self.out.shown()
            ))
        })?;
        if let Some(error) = error {
            if unknown.is_empty() {
                return Err(error.into());
            }
            return Err(CliError::Unfinished(format!(
                "{error}; {} holds the numbers that the coins may have got: `raida detect` of it says whether they did",
                self.out.shown()
            )));
        }
        let failed = with(Outcome::Failed);
        self.report(&fixed, &failed)?;
        Ok(if failed.is_empty() {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    fn write(
        &self,
        existing: Existing,
        raida: RaidaId,
        generator: &PartialGenerator,
        coins: &[Coin],
    ) -> Result<(), CliError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mfs = Mfs::at_unix_seconds(now.map_or(0, |since| since.as_secs()));
        let mut writer = CoinListWriter::create(&self.out, existing)?;
        for &coin in coins {
            writer.write(&CoinRecord {
                coin,
                an: generator.an(raida, coin),
                mfs: Some(mfs),
            })?;
        }
        Ok(writer.finish()?)
    }

    fn report(&self, fixed: &[Coin], failed: &[Coin]) -> Result<(), CliError> {
        if self.json {
            let of = |coins: &[Coin]| coins.iter().map(|&coin| json_of(coin)).collect::<Vec<_>>();
            return print_json(&json!({
                "out": self.out,
                "fixed": of(fixed),
                "failed": of(failed),
            }));
        }
        let mut text = String::new();
        for coin in failed {
            text += &format!("failed  {coin}\n");
        }
        let (count, all) = (fixed.len(), fixed.len() + failed.len());
        text += &match count {
            0 => "no coin was repaired\n".to_owned(),
            count => format!(
                "{count} of {all} coins repaired, now in {}\n",
                self.out.shown()
            ),
        };
        if !failed.is_empty() {
            text += "those that failed were on the tickets of fewer than 13 servers that answered in time: get new tickets and try again\n";
        }
        print(&text)
    }
}

fn ticket(text: &str) -> Result<(RaidaId, TicketId), String> {
    let wrong = || "write a server's number and its ticket's, as in 7=1893742".to_owned();
    let (raida, ticket) = text.split_once('=').ok_or_else(wrong)?;
    let raida = raida.trim().parse().ok().and_then(RaidaId::new);
    let ticket = ticket.trim().parse().ok().and_then(TicketId::new);
    raida.zip(ticket).ok_or_else(wrong)
}
