use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde_json::json;

use super::put::words;
use crate::cli::CliError;
use crate::cli::coins::json_of;
use crate::cli::new_numbers::{NewNumbers, this_month};
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::{json_of_said, names, phrase, table};
use crate::cli::secrets::SecretText;
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::{LeftIn, LockerSecret, Taken, TakenCoin, forget_begun, take};
use crate::client::wallet::{Access, Grade, Wallet};
use crate::client::{Client, CoinRecord, Outcome, Raidas, draw_an};
use crate::coin::{An, Coin};
use crate::protocol::healing::VOTES_NEEDED;
use crate::shown::Shown;

/// Take coins out of a locker: into a CSV from one node, or into a wallet from all 25 servers. Each
/// gets new random numbers.
///
/// The new numbers are on disk before anything is sent: in --out, or in files in the wallet's
/// folder Limbo, from where the coins go to Bank or Fracked. With --wallet, give an interrupted
/// command again with the same --key: that files the coins that it had taken, and reports them.
/// Until then anybody else who knows the key can take the coins on servers that were not asked yet.
/// Exit status 1 if a coin is not yours afterwards, or nothing lies in the locker.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida locker take --key <HEX|@FILE> (--out <NEW.csv> | --wallet <DIR> (--network <DIR> | --hosts <FILE>)) [OPTIONS]"
)]
#[command(after_help = "Examples:
  raida locker take --key @key --out mine.csv --host raida7.example.com:50007 --raida 7
  raida locker take --network raida-network --key @secret --wallet wallet
  raida locker take --hosts hosts.txt --key @secret --wallet wallet --coin 1.4711")]
pub struct TakeCommand {
    /// The locker: 32 hex digits, or @FILE that holds them
    #[arg(long, value_name = "HEX|@FILE")]
    key: SecretText,
    /// CSV to write with the new authenticity numbers; must not exist
    #[arg(long, value_name = "NEW.csv", required_unless_present = "wallet", conflicts_with_all = ["wallet", "servers"])]
    out: Option<PathBuf>,
    /// Wallet to take the coins into, on all 25 servers; created if it does not exist
    #[arg(long, value_name = "DIR", requires = "servers")]
    wallet: Option<PathBuf>,
    /// Take this coin only; may be repeated
    #[arg(long, value_name = "DN.SN", allow_hyphen_values = true)]
    coin: Vec<Coin>,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl TakeCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// A file cannot be read or written; the node gives no answer, or refuses; fewer than 13
    /// servers answer.
    pub fn run(self) -> Result<Answer, CliError> {
        match (self.servers.open()?, &self.out, &self.wallet) {
            (Servers::One(client), Some(out), _) => self.to_file(client, out),
            (Servers::All(raidas), _, Some(wallet)) => self.to_wallet(&raidas, wallet),
            _ => unreachable!("a CSV goes with one node, a wallet with --network or --hosts"),
        }
    }

    fn to_file(&self, mut client: Client, out: &Path) -> Result<Answer, CliError> {
        let key = self.key.locker_key("--key")?;
        let mut lying = client.peek(key)?;
        if !self.coin.is_empty() {
            lying.retain(|coin| self.coin.contains(coin));
        }
        let numbers = lying.iter().map(|&coin| Ok((coin, draw_an()?)));
        let numbers: Vec<(Coin, An)> = numbers.collect::<Result<_, CliError>>()?;
        let mut outcomes = vec![];
        let mut error = None;
        if !numbers.is_empty() {
            let records = numbers.iter().map(|&(coin, an)| CoinRecord {
                coin,
                an,
                mfs: Some(this_month()),
            });
            let new = NewNumbers::write(out, records.collect())?;
            (outcomes, error) = client.remove(key, &numbers);
            new.keep(&outcomes, error.as_ref())?;
        }
        let with = |wanted: &[Outcome]| -> Vec<Coin> {
            let coins = lying.iter().zip(&outcomes);
            let coins = coins.filter(|(_, outcome)| wanted.contains(outcome));
            coins.map(|(&coin, _)| coin).collect()
        };
        let taken = with(&[Outcome::Changed]);
        let gone = with(&[Outcome::Failed]);
        let left = with(&[Outcome::NotAsked]);
        let unknown = with(&[Outcome::Unknown]);
        if self.json {
            let of = |coins: &[Coin]| coins.iter().map(|&coin| json_of(coin)).collect::<Vec<_>>();
            print_json(&json!({
                "out": out,
                "taken": of(&taken),
                "gone": of(&gone),
                "left": of(&left),
                "unknown": of(&unknown),
            }))?;
        } else {
            let out = out.shown();
            let mut text = match taken.as_slice() {
                [] if lying.is_empty() => self.nothing_lies(),
                [] => "no coin was taken\n".to_owned(),
                taken => format!("{} taken, now in {out}\n", phrase(taken)),
            };
            for (coins, what) in [
                (&gone, "had left the locker before they could be taken"),
                (&left, "lie in the locker still: take them again"),
                (
                    &unknown,
                    "sent and not answered: keep the file, `raida detect` of it says whether they are yours",
                ),
            ] {
                if !coins.is_empty() {
                    text += &format!("{} {what}\n", phrase(coins));
                }
            }
            print(&text)?;
        }
        match error {
            Some(error) => Err(error.into()),
            None if !taken.is_empty() && gone.is_empty() => Ok(Answer::Yes),
            None => Ok(Answer::No),
        }
    }

    fn nothing_lies(&self) -> String {
        let what = match self.coin.is_empty() {
            true => "nothing lies",
            false => "none of these coins lies",
        };
        format!("no coin was taken: {what} in the locker with this key\n")
    }

    fn to_wallet(&self, raidas: &Raidas, folder: &Path) -> Result<Answer, CliError> {
        let secret = self.key.locker_secret("--key")?;
        let only: BTreeSet<Coin> = self.coin.iter().copied().collect();
        let only = (!only.is_empty()).then_some(&only);
        let mut wallet = Wallet::open(folder, Access::CreateToUse)?;
        wallet.keep_only(raidas.coin_id);
        let bar = waiting();
        take_into(
            (&mut wallet, folder),
            &secret,
            only,
            raidas,
            &bar,
            self.json,
        )
    }
}

/// Takes the coins of a locker, or only the named ones, into the wallet in the folder of this name,
/// and says what became of them.
///
/// # Errors
/// Fewer than 13 servers answer; the disk fails; it cannot be printed.
pub fn take_into(
    (wallet, folder): (&mut Wallet, &Path),
    secret: &LockerSecret,
    only: Option<&BTreeSet<Coin>>,
    raidas: &Raidas,
    bar: &ProgressBar,
    json: bool,
) -> Result<Answer, CliError> {
    let taken = take(wallet, secret, only, raidas, draw_an, |stage| {
        bar.set_message(words(stage));
    })?;
    bar.finish_and_clear();
    match json {
        true => print_json(&json_of_taken(&taken))?,
        false => print(&text_of_taken(&taken, folder))?,
    }
    // Not before: a run that is killed in between is to be told of by the next one.
    forget_begun(wallet, secret)?;
    let all = !taken.coins.is_empty()
        && taken.coins.iter().all(is_ours)
        && !taken.left.iter().any(LeftIn::counts);
    Ok(if all { Answer::Yes } else { Answer::No })
}

/// Whether enough servers gave the coin a number that nobody else knows.
fn is_ours(coin: &TakenCoin) -> bool {
    matches!(coin.grade, Grade::Authentic | Grade::Fracked)
}

fn text_of_taken(taken: &Taken, wallet: &Path) -> String {
    let mut text = String::new();
    let wallet = wallet.shown();
    let (ours, open): (Vec<&TakenCoin>, Vec<&TakenCoin>) =
        taken.coins.iter().partition(|coin| is_ours(coin));
    let coins = |coins: &[&TakenCoin]| coins.iter().map(|c| c.coin).collect::<Vec<Coin>>();
    if !taken.coins.is_empty() {
        text += &table(&taken.servers);
    }
    text += &match ours.as_slice() {
        [] if open.is_empty() && taken.left.is_empty() => {
            "no coin was taken: none lies in the locker with this key on 13 servers or more, or none of those that were named\n".to_owned()
        }
        [] => "no coin was taken\n".to_owned(),
        ours => format!("{} taken, now in {wallet}\n", phrase(&coins(ours))),
    };
    let hurt = ours
        .iter()
        .filter(|coin| coin.grade != Grade::Authentic || coin.in_doubt);
    let hurt: Vec<&TakenCoin> = hurt.copied().collect();
    if !hurt.is_empty() {
        text += &format!(
            "{} not on all servers yet: take again with the same --key, for those that were silent; `raida heal {wallet}` repairs the others\n",
            phrase(&coins(&hurt))
        );
    }
    let behind = taken.servers.count(|said| said.done < taken.coins.len());
    if behind > 0 && hurt.is_empty() && !ours.is_empty() {
        text += &format!(
            "{behind} servers have not all of them: take again with the same --key when they answer, since until then the locker's key opens them there\n"
        );
    }
    for coin in &open {
        text += &format!(
            "{} is {} ({}): take again with the same --key\n",
            coin.coin,
            coin.grade.name(),
            coin.pown
        );
    }
    let (ours, few): (Vec<&LeftIn>, Vec<&LeftIn>) =
        taken.left.iter().partition(|left| left.counts());
    if !ours.is_empty() {
        let coins: Vec<Coin> = ours.iter().map(|left| left.coin).collect();
        text += &format!(
            "left in the locker, since {wallet} has files of them with other numbers: {}; `raida heal {wallet}` says what those are, or take them into another wallet\n",
            names(&coins)
        );
    }
    if !few.is_empty() {
        let coins: Vec<Coin> = few.iter().map(|left| left.coin).collect();
        text += &format!(
            "not counted, since fewer than {VOTES_NEEDED} servers have them in the locker: {}\n",
            names(&coins)
        );
    }
    text
}

fn json_of_taken(taken: &Taken) -> serde_json::Value {
    let coins = taken.coins.iter().map(|coin| {
        let mut entry = json_of(coin.coin);
        entry["taken"] = is_ours(coin).into();
        entry["pown"] = coin.pown.to_string().into();
        entry["grade"] = coin.grade.name().into();
        entry["in_doubt"] = coin.in_doubt.into();
        entry
    });
    let left = taken.left.iter().map(|left| {
        let mut entry = json_of(left.coin);
        entry["servers"] = left.servers.into();
        entry["has_other_file"] = left.has_other_file.into();
        entry
    });
    json!({
        "coins": coins.collect::<Vec<_>>(),
        "left": left.collect::<Vec<_>>(),
        "servers": json_of_said(&taken.servers),
    })
}
