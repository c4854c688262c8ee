use std::path::PathBuf;

use serde_json::{Value, json};

use super::CliError;
use super::encryption::{json_of_broken, summary, utc};
use super::output::{Answer, print, print_json, waiting};
use super::raidas::RaidasArgs;
use crate::client::PerRaida;
use crate::client::heal::Looked;
use crate::client::key_healing::{
    EncryptionHealth, ServerHealth, Standing, State, UnixSeconds, observe, standing,
};
use crate::client::wallet::{Access, LeftAlone, Wallet};
use crate::protocol::RaidaId;
use crate::shown::Shown;

/// Show which of the 25 servers have lost every number of a wallet's coins, what was tried about
/// it, and when it will be tried again.
///
/// Reads the wallet's files alone: what the servers said when they were last asked, and
/// encryption-health.json. With --network or --hosts it asks the servers first and keeps their
/// answers, as `raida heal` does: encryption-health.json says which servers are broken, and the
/// coin files, which stay where they are, say what each server said of each coin. A server is
/// broken if it passes no coin of Bank and Fracked and fails some; it is unknown if it was silent
/// and nothing is noted. Exit status 0 if none is broken, 1 if some are.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida health wallet
  raida health wallet --network raida-network
  raida health wallet --hosts hosts.txt --json")]
pub struct HealthCommand {
    /// The wallet: a folder with the folders Bank, Fracked, Limbo and so on
    wallet: PathBuf,
    #[command(flatten)]
    network: Option<RaidasArgs>,
    /// How long to wait for a server's answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// The servers' coin id; 6 is CloudCoin. Coins of another one are left alone
    #[arg(long, value_name = "N", default_value_t = 6)]
    coin_id: u16,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl HealthCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The wallet, what it knows of the servers or the list of hosts cannot be read; fewer than 13
    /// servers answer, or servers of another network; the disk fails.
    pub fn run(self) -> Result<Answer, CliError> {
        let access = match &self.network {
            Some(_) => Access::Change,
            None => Access::Look,
        };
        let mut wallet = Wallet::open(&self.wallet, access)?;
        wallet.keep_only(self.coin_id);
        let known = EncryptionHealth::read(&self.wallet)?;
        let mut silent = PerRaida::from_fn(|_| None);
        if let Some(network) = &self.network {
            let raidas = network.raidas(self.coin_id, self.timeout_ms)?;
            let bar = waiting();
            bar.set_message("asking all servers");
            silent = Looked::at(&mut wallet, &raidas)?.silent;
            bar.finish_and_clear();
        }
        let mut health = known.clone();
        observe(&mut health, wallet.coins());
        if self.network.is_some() {
            health.save(&wallet, &known)?;
        }
        let standing = standing(wallet.coins());
        if self.json {
            print_json(&report_json(&health, &standing, &silent))?;
        } else {
            print(&report(&health, &standing, &silent, wallet.left_alone()))?;
        }
        Ok(match health.broken().is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}

fn report(
    health: &EncryptionHealth,
    standing: &PerRaida<Standing>,
    silent: &PerRaida<Option<String>>,
    left_alone: &[LeftAlone],
) -> String {
    let now = UnixSeconds::now();
    let mut text = format!(
        "RAIDA  {:18}  failures  {:20}  next retry\n",
        "state", "last attempt"
    );
    for (raida, &standing) in standing.iter() {
        let server = health.of(raida);
        let last = server.last_attempt.map_or("never".to_owned(), utc);
        let next = match (health.is_broken(raida), health.next_retry(raida)) {
            (false, _) => "-".to_owned(),
            (true, Some(until)) if !health.can_retry(raida, now) => utc(until),
            (true, _) => "at any time".to_owned(),
        };
        let state = state(server, standing);
        let failures = server.failures;
        text += &format!("{raida:>5}  {state:18}  {failures:>8}  {last:20}  {next}\n");
    }
    for (raida, why) in silent.iter() {
        if let Some(why) = why {
            text += &format!("RAIDA {raida} says nothing of the coins: {why}\n");
        }
    }
    for left in left_alone {
        text += &format!("left alone: {}: {}\n", left.file.shown(), left.reason);
    }
    let unknown = standing.count(|standing| *standing == Standing::Unknown);
    if unknown == RaidaId::COUNT && health.broken().is_empty() {
        return text
            + "nothing is known of any server: no coin in Bank or Fracked says anything of it\n";
    }
    text + &summary(health) + "\n"
}

fn report_json(
    health: &EncryptionHealth,
    standing: &PerRaida<Standing>,
    silent: &PerRaida<Option<String>>,
) -> Value {
    let entry = |(raida, &standing): (RaidaId, &Standing)| {
        let server = health.of(raida);
        json!({
            "raida": raida.get(),
            "state": state(server, standing),
            "failures": server.failures,
            "last_attempt": server.last_attempt.map(|at| at.0),
            "next_retry": health.next_retry(raida).map(|at| at.0),
        })
    };
    json!({
        "servers": standing.iter().map(entry).collect::<Vec<_>>(),
        "broken": json_of_broken(health),
        "cool_down_s": health.cool_down.as_secs(),
        "silent": super::heal::reasons(silent),
    })
}

fn state(server: ServerHealth, standing: Standing) -> &'static str {
    match (server.state, standing) {
        (State::Working, Standing::Unknown) => "unknown",
        (state, _) => state.name(),
    }
}
