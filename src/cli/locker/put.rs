use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::CliError;
use crate::cli::coins::{check_sum, json_of, read_coins};
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::{json_of_said, names, phrase, table};
use crate::cli::secrets::{SecretText, draw_locker_key, hex_of, tell};
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::check_place;
use crate::client::locker::{
    Choice, Chosen, LockerError, LockerSecret, Place, Put, PutCoin, Stage, choose, put,
};
use crate::client::wallet::{Access, Wallet};
use crate::client::{Client, Outcome, Raidas};
use crate::coin::{Coin, Worth};
use crate::protocol::RaidaId;
use crate::shown::Shown;

/// Put coins into a locker: those of a CSV on one node, or a wallet's on all 25 servers.
///
/// From a wallet, the new numbers are in the coins' files before anything is sent. Coins that at
/// least 13 servers have in the locker then go to the wallet's folder Lockers, which keeps their
/// numbers but does not count them. If the command is interrupted, give it again with the same
/// --key: it completes what it began, and begins nothing else. Exit status 1 if a coin is not in
/// the locker afterwards.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida locker put <FILE.csv> [OPTIONS]\n       raida locker put --wallet <DIR> (--network <DIR> | --hosts <FILE>) (--all | --amount <WORTH> | --coin <DN.SN>...) [OPTIONS]"
)]
#[command(after_help = "Examples:
  raida locker put coins.csv --key @key --host raida7.example.com:50007 --raida 7
  raida locker put --network raida-network --wallet wallet --amount 250
  raida locker put --hosts hosts.txt --wallet wallet --coin 1.4711 --coin 1.4712 --key @secret")]
pub struct PutCommand {
    /// CSV of coins; the months column may be missing
    #[arg(required_unless_present = "wallet", conflicts_with_all = ["wallet", "servers", "choice"])]
    file: Option<PathBuf>,
    /// The locker: 32 hex digits, or @FILE that holds them. Without it the command makes one up and
    /// shows it before anything is sent
    #[arg(long, value_name = "HEX|@FILE", required_if_eq("json", "true"))]
    key: Option<SecretText>,
    #[command(flatten)]
    from: FromWalletArgs,
    /// Put coins into the locker although this wallet has put some into it before
    #[arg(long, requires = "wallet")]
    more: bool,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// A wallet, and which of its coins.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("choice").args(["all", "amount", "coin"]).requires("wallet")))]
pub struct FromWalletArgs {
    /// Wallet to put coins from, on all 25 servers
    #[arg(long, value_name = "DIR", requires_all = ["choice", "servers"])]
    wallet: Option<PathBuf>,
    /// All coins in the wallet's Bank and Fracked
    #[arg(long)]
    all: bool,
    /// Coins that together are worth exactly this
    #[arg(long, value_name = "WORTH", allow_hyphen_values = true)]
    amount: Option<Worth>,
    /// This coin; may be repeated
    #[arg(long, value_name = "DN.SN", allow_hyphen_values = true)]
    coin: Vec<Coin>,
}

impl FromWalletArgs {
    /// Opens the wallet with only the chosen coins.
    ///
    /// # Errors
    /// The wallet cannot be opened, or does not have the coins.
    pub fn open(
        &self,
        place: &Place,
        coin_id: u16,
        more: bool,
    ) -> Result<(Wallet, Chosen), CliError> {
        let mut wallet = Wallet::open(self.folder(), Access::Change)?;
        wallet.keep_only(coin_id);
        let chosen = choose(&mut wallet, place, &self.choice(), more)?;
        Ok((wallet, chosen))
    }

    /// Where the wallet is.
    pub fn folder(&self) -> &Path {
        let folder = self.wallet.as_deref();
        folder.expect("the command line asks for a wallet where it has no file")
    }

    fn choice(&self) -> Choice {
        match (self.all, self.amount) {
            (true, _) => Choice::All,
            (false, Some(amount)) => Choice::Amount(amount),
            (false, None) => Choice::Coins(self.coin.clone()),
        }
    }
}

impl PutCommand {
    /// Whether the locker was named.
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
        let coins = read_coins(file)?;
        check_sum(&coins, file)?;
        // A run without an answer here has changed nothing, and needs no key.
        client.echo()?;
        let key = match &self.key {
            Some(text) => {
                let key = text.locker_key("--key")?;
                check_place(coins.len(), client.peek(key)?.len())?;
                key
            }
            None => {
                check_place(coins.len(), 0)?;
                let key = draw_locker_key()?;
                tell("the locker's key on this node", &hex_of(key.an()))?;
                key
            }
        };
        let (outcomes, error) = client.store_sum(&coins, key);
        let with = |wanted: Outcome| -> Vec<Coin> {
            let coins = coins.iter().zip(&outcomes);
            let coins = coins.filter(|&(_, outcome)| *outcome == wanted);
            coins.map(|(&(coin, _), _)| coin).collect()
        };
        let (stored, failed) = (with(Outcome::Changed), with(Outcome::Failed));
        let (not_asked, unknown) = (with(Outcome::NotAsked), with(Outcome::Unknown));
        if self.json {
            let of = |coins: &[Coin]| coins.iter().map(|&coin| json_of(coin)).collect::<Vec<_>>();
            print_json(&json!({
                "stored": of(&stored),
                "failed": of(&failed),
                "not_asked": of(&not_asked),
                "unknown": of(&unknown),
            }))?;
        } else {
            let file = file.shown();
            let mut text = match stored.as_slice() {
                [] => "no coin was put into the locker\n".to_owned(),
                stored => format!("{} put into the locker\n", phrase(stored)),
            };
            if !failed.is_empty() {
                text += &format!(
                    "{} not: the number in {file} of at least one of them is not the right one here, and they go together; `raida detect {file}{node}` says which\n",
                    phrase(&failed),
                    node = self.servers.flags_needed(),
                );
            }
            if !not_asked.is_empty() {
                text += &format!("{} left as in {file}\n", phrase(&not_asked));
            }
            if !unknown.is_empty() {
                text += &format!(
                    "{} sent and not answered: `raida locker peek` says whether they are in the locker\n",
                    phrase(&unknown)
                );
            }
            print(&text)?;
        }
        match error {
            Some(error) => Err(error.into()),
            None if failed.is_empty() => Ok(Answer::Yes),
            None => Ok(Answer::No),
        }
    }

    fn on_all(&self, raidas: &Raidas) -> Result<Answer, CliError> {
        let secret = match &self.key {
            Some(text) => text.locker_secret("--key")?,
            None => LockerSecret::draw()?,
        };
        let place = Place::Locker(secret.clone());
        let (mut wallet, chosen) = self.from.open(&place, raidas.coin_id, self.more)?;
        if self.key.is_none() {
            tell("the locker's secret", &secret.expose())?;
        }
        let bar = waiting();
        let done = put(&mut wallet, &place, raidas, |stage| {
            bar.set_message(words(stage));
        });
        let done = done.map_err(|error| nothing_put(error, self.key.is_none()))?;
        bar.finish_and_clear();
        match self.json {
            true => print_json(&json_of_put(&done, chosen))?,
            false => print(&text_of_put(
                &done,
                chosen,
                "the locker",
                self.from.folder(),
            ))?,
        }
        Ok(match done.coins.iter().all(PutCoin::is_there) {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}

/// Why nothing was put anywhere, where a secret was made up and shown before.
pub fn nothing_put(error: LockerError, is_made_up: bool) -> CliError {
    let nothing_was_done = matches!(error, LockerError::Look(_) | LockerError::NotPassed(_));
    match is_made_up && nothing_was_done {
        true => CliError::Unfinished(format!("{error}; the secret that was shown opens nothing")),
        false => error.into(),
    }
}

/// The progress of a change, for a person who waits.
pub fn words(stage: Stage) -> String {
    match stage {
        Stage::Looking => "asking all servers".to_owned(),
        Stage::Changing { coins, servers } => format!("{coins} coins on {servers} servers"),
        Stage::Settling => "asking again what was left open".to_owned(),
        Stage::Filing => "filing".to_owned(),
    }
}

/// What became of coins that were put somewhere, for a person.
pub fn text_of_put(done: &Put, chosen: Chosen, place: &str, wallet: &Path) -> String {
    let mut text = String::new();
    if chosen == Chosen::Unfinished {
        text += "an earlier run was interrupted: what it had begun with is ended now, and nothing else was begun\n";
    }
    text += &table(&done.servers);
    let with = |holds: &dyn Fn(&PutCoin) -> bool| -> Vec<Coin> {
        let coins = done.coins.iter().filter(|coin| holds(coin));
        coins.map(|coin| coin.coin).collect()
    };
    let there = with(&PutCoin::is_there);
    let few = with(&|coin| !coin.is_there() && coin.servers > 0);
    let none = with(&|coin| coin.servers == 0);
    let least = done.coins.iter().filter(|coin| coin.is_there());
    let on = match least.map(|coin| coin.servers).min() {
        Some(RaidaId::COUNT) | None => "on all 25 servers".to_owned(),
        Some(least) => format!("each on {least} servers or more"),
    };
    if !there.is_empty() {
        text += &format!(
            "{} in {place}, {on}; {}/Lockers keeps the numbers\n",
            phrase(&there),
            wallet.shown()
        );
    }
    if !few.is_empty() {
        text += &format!(
            "{} in {place} on fewer than 13 servers, so that they are in the wallet still: {}; give the same command again with the same --key\n",
            phrase(&few),
            names(&few)
        );
    }
    if !none.is_empty() {
        text += &format!(
            "{} in the wallet as before, since no server put them there: {}\n",
            phrase(&none),
            names(&none)
        );
    }
    text
}

/// The same for a program.
pub fn json_of_put(done: &Put, chosen: Chosen) -> serde_json::Value {
    let coins = done.coins.iter().map(|coin| {
        let mut entry = json_of(coin.coin);
        entry["servers"] = coin.servers.into();
        entry["done"] = coin.is_there().into();
        entry["grade"] = coin.grade.name().into();
        entry
    });
    let there = done.coins.iter().filter(|coin| coin.is_there());
    let worth = Worth::of(there.map(|coin| coin.coin));
    json!({
        "unfinished_before": chosen == Chosen::Unfinished,
        "coins": coins.collect::<Vec<_>>(),
        "worth": worth.to_string(),
        "servers": json_of_said(&done.servers),
    })
}
