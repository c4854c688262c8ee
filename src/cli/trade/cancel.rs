use std::path::PathBuf;

use serde_json::json;

use crate::cli::CliError;
use crate::cli::locker::take_into;
use crate::cli::output::{Answer, print, print_json, waiting};
use crate::cli::said::same_once;
use crate::cli::secrets::SecretText;
use crate::cli::servers::{Servers, ServersArgs};
use crate::client::locker::cancel;
use crate::client::wallet::{Access, Wallet};
use crate::client::{Client, ClientError, PerRaida, Raidas};
use crate::protocol::healing::VOTES_NEEDED;

/// Take an offer back, on one node or on all 25 servers: its coins go into a locker, or into a
/// wallet.
///
/// With --wallet the coins go through a locker whose secret is derived from the offer's secret, so
/// that an interrupted command can be given again. Exit status 0 if it was taken back (with
/// --network or --hosts: on 13 servers or more; with --wallet, if the coins are in the wallet),
/// else 1.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "raida trade cancel --key <HEX|@FILE> (--into <HEX|@FILE> | --free) [OPTIONS]\n       raida trade cancel --key <HEX|@FILE> (--network <DIR> | --hosts <FILE>) (--wallet <DIR> | --into <HEX|@FILE> | --free) [OPTIONS]"
)]
#[command(group(clap::ArgGroup::new("to").args(["wallet", "into", "free"]).required(true)))]
#[command(after_help = "Examples:
  raida trade cancel --network raida-network --key @offer --wallet wallet
  raida trade cancel --network raida-network --key @offer --into @locker
  raida trade cancel --key @key --into @locker --host raida7.example.com:50007 --raida 7")]
pub struct CancelCommand {
    /// The offer: 32 hex digits, or @FILE that holds them
    #[arg(long, value_name = "HEX|@FILE")]
    key: SecretText,
    /// Take the coins into this wallet, from all 25 servers; created if it does not exist
    #[arg(long, value_name = "DIR", requires = "servers")]
    wallet: Option<PathBuf>,
    /// Put the coins into this locker: 32 hex digits, or @FILE that holds them
    #[arg(long, value_name = "HEX|@FILE")]
    into: Option<SecretText>,
    /// Take the coins out of circulation: nobody has them any more
    #[arg(long)]
    free: bool,
    #[command(flatten)]
    servers: ServersArgs,
    /// One JSON object instead of text; two, a line each, with --wallet
    #[arg(long)]
    json: bool,
}

impl CancelCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses, as while somebody's purchase is pending; the
    /// wallet cannot be opened.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.servers.open()? {
            Servers::One(client) => self.on_one(client),
            Servers::All(raidas) => self.on_all(&raidas),
        }
    }

    fn on_one(&self, mut client: Client) -> Result<Answer, CliError> {
        let key = self.key.trade_key("--key")?;
        let into = self.into.as_ref().map(|into| into.locker_key("--into"));
        let into = into.transpose()?;
        let was_there = client.remove_trade(key, into)?;
        match self.json {
            true => print_json(&json!({ "taken_back": was_there }))?,
            false => print(match (was_there, into) {
                (false, _) => "there is no such offer\n",
                (true, Some(_)) => "taken back: the coins lie in the locker\n",
                (true, None) => "taken back: the coins are out of circulation\n",
            })?,
        }
        Ok(match was_there {
            true => Answer::Yes,
            false => Answer::No,
        })
    }

    fn on_all(&self, raidas: &Raidas) -> Result<Answer, CliError> {
        let secret = self.key.trade_secret("--key")?;
        let into = match (&self.into, self.free) {
            (Some(text), _) => Some(text.locker_secret("--into")?),
            (None, true) => None,
            (None, false) => Some(secret.way_back()),
        };
        let wallet = match &self.wallet {
            Some(folder) => {
                let mut wallet = Wallet::open(folder, Access::CreateToUse)?;
                wallet.keep_only(raidas.coin_id);
                Some((wallet, folder))
            }
            None => None,
        };
        let bar = waiting();
        bar.set_message("asking all servers");
        let said = cancel(&secret, into.as_ref(), raidas);
        let back = said.count(|said| matches!(said, Ok(true)));
        bar.suspend(|| self.report(&said, back))?;
        // Also where none had the offer: an earlier run may have taken it back, and no more.
        let (Some((mut wallet, folder)), Some(into)) = (wallet, into) else {
            return Ok(match back {
                VOTES_NEEDED.. => Answer::Yes,
                _ => Answer::No,
            });
        };
        take_into((&mut wallet, folder), &into, None, raidas, &bar, self.json)
    }

    fn report(
        &self,
        said: &PerRaida<Result<bool, ClientError>>,
        back: usize,
    ) -> Result<(), CliError> {
        if self.json {
            let servers = said.iter().map(|(raida, said)| {
                let why = said.as_ref().err().map(ToString::to_string);
                json!({ "raida": raida.get(), "taken_back": said.as_ref().ok(), "why": why })
            });
            return print_json(&json!({
                "taken_back": back,
                "servers": servers.collect::<Vec<_>>(),
            }));
        }
        let mut text = "RAIDA  said\n".to_owned();
        let lines = said.iter().map(|(raida, said)| {
            let line = match said {
                Ok(true) => " taken back".to_owned(),
                Ok(false) => " there is no such offer".to_owned(),
                Err(error) => format!(" {error}"),
            };
            (raida, line)
        });
        text += &same_once(lines.collect());
        text += &format!("taken back on {back} servers\n");
        print(&text)
    }
}
