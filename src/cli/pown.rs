use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::coins::read_records;
use super::interrupt;
use super::new_numbers::{NewNumbers, this_month};
use super::node::{EncryptionArgs, NodeArgs};
use super::output::{Answer, print, print_json, progress, warn};
use crate::client::{Client, ClientError, CoinRecord, Outcome, draw_an};
use crate::coin::{An, Coin};
use crate::shown::Shown;

/// Take coins over: give each one a new random authenticity number.
///
/// The new numbers are written to --out before anything is sent, so that none is ever lost. Exit
/// status 1 if the node says of any coin that its number in FILE is not the right one.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida pown received.csv --out mine.csv
  raida pown received.csv --out mine.csv --encryption 4 --key-file key.csv")]
pub struct PownCommand {
    /// CSV of coins to take over; the months column may be missing
    file: PathBuf,
    /// CSV to write with the new authenticity numbers; must not exist
    #[arg(long, value_name = "NEW.csv")]
    out: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Coins sent between two steps of the progress bar.
const STEP: usize = 5_000;

/// A coin with its present authenticity number and the proposed one.
type Proposal = (Coin, An, An);

impl PownCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// A file cannot be read or written; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let records = read_records(&self.file)?;
        let mut proposals: Vec<Proposal> = Vec::with_capacity(records.len());
        for record in &records {
            proposals.push((record.coin, record.an, draw_an()?));
        }
        let mut client = self.node.connect_encrypted(&self.encryption)?;
        // A run without an answer here has changed nothing, and leaves no file of numbers behind.
        client.echo()?;
        let proposed = proposals.iter().zip(&records);
        let proposed = proposed.map(|(&(coin, _, an), record)| CoinRecord {
            coin,
            an,
            mfs: Some(record.mfs.unwrap_or_else(this_month)),
        });
        let (file, out) = (self.file.shown(), self.out.shown());
        let told = interrupt::tell(format!(
            "interrupted before anything was sent: {file} is as it was; a file {out}.N.part, if there is one, can be removed"
        ));
        let new = NewNumbers::write(&self.out, proposed.collect())?;
        match told {
            Ok(told) => told.change(format!(
                "interrupted: keep {file} and {out}; `raida find {file} --proposed {out}{}` says which numbers are in force; then pown {file} again to another file",
                self.node.flags_needed()
            )),
            Err(error) => warn(&format!("no way to hear of Ctrl-C: {error}")),
        }
        let (outcomes, error) = send(&mut client, &proposals);
        new.keep(&outcomes, error.as_ref())?;
        self.report(&proposals, &outcomes, error)
    }

    fn report(
        &self,
        proposals: &[Proposal],
        outcomes: &[Outcome],
        error: Option<ClientError>,
    ) -> Result<Answer, CliError> {
        let with = |outcome: Outcome| -> Vec<Coin> {
            let coins = proposals.iter().zip(outcomes);
            coins
                .filter(|&(_, found)| *found == outcome)
                .map(|(&(coin, ..), _)| coin)
                .collect()
        };
        let (changed, failed) = (with(Outcome::Changed), with(Outcome::Failed));
        let (not_asked, unknown) = (with(Outcome::NotAsked), with(Outcome::Unknown));
        if self.json {
            let numbers = |coins: &[Coin]| -> Vec<serde_json::Value> {
                coins
                    .iter()
                    .map(|coin| {
                        json!({
                            "denomination": coin.denomination.exponent(),
                            "serial_number": coin.serial_number.get(),
                        })
                    })
                    .collect()
            };
            print_json(&json!({
                "out": self.out,
                "changed": numbers(&changed),
                "failed": numbers(&failed),
                "not_asked": numbers(&not_asked),
                "unknown": numbers(&unknown),
            }))?;
        } else {
            self.report_text(&changed, &failed, &not_asked, &unknown)?;
        }
        match error {
            None if failed.is_empty() => Ok(Answer::Yes),
            None => Ok(Answer::No),
            Some(error) => Err(error.into()),
        }
    }

    fn report_text(
        &self,
        changed: &[Coin],
        failed: &[Coin],
        not_asked: &[Coin],
        unknown: &[Coin],
    ) -> Result<(), CliError> {
        let (file, out) = (self.file.shown(), self.out.shown());
        let mut text = String::new();
        for (word, coins) in [("failed", failed), ("unknown", unknown)] {
            for coin in coins {
                text += &format!("{word}  {coin}\n");
            }
        }
        let count = |coins: &[Coin]| match coins.len() {
            1 => "1 coin".to_owned(),
            more => format!("{more} coins"),
        };
        if changed.is_empty() && unknown.is_empty() {
            text += "no coin was taken over\n";
        } else if !changed.is_empty() {
            text += &format!("{} taken over, now in {out}\n", count(changed));
        }
        if !failed.is_empty() {
            text += &format!(
                "{} failed: their numbers in {file} are not the right ones here, and nothing was changed; if an earlier pown of them was interrupted, its output has them, otherwise ask who gave them to you\n",
                count(failed)
            );
        }
        if !not_asked.is_empty() {
            text += &format!("{} left as in {file}: pown them again\n", count(not_asked));
        }
        if !unknown.is_empty() {
            text += &format!(
                "{} sent and not answered, so that they may have been taken over: keep both {file} and {out}; `raida detect` of each says which numbers are in force\n",
                count(unknown)
            );
        }
        print(&text)
    }
}

/// Sends the proposals until all are answered or something goes wrong.
fn send(client: &mut Client, proposals: &[Proposal]) -> (Vec<Outcome>, Option<ClientError>) {
    let bar = progress(proposals.len() as u64, "powning");
    let mut outcomes = Vec::with_capacity(proposals.len());
    let mut error = None;
    for some in proposals.chunks(STEP) {
        let (found, failed) = client.pown(some);
        outcomes.extend(found);
        bar.inc(some.len() as u64);
        error = failed;
        if error.is_some() {
            break;
        }
    }
    bar.finish_and_clear();
    outcomes.resize(proposals.len(), Outcome::NotAsked);
    (outcomes, error)
}
