use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::CliError;
use super::coins::json_of;
use super::encryption::{json_of_broken, json_of_fixes, lines, numbers, summary};
use super::output::{Answer, print, print_json, waiting};
use super::patience::PatienceArgs;
use super::raidas::RaidasArgs;
use super::said::names;
use crate::client::heal::{
    FixesSoFar, Healed, HealedCoin, Lost, Refusals, Stage, heal_looked, look, plan, recognise,
};
use crate::client::key_healing::{EncryptionHealth, FAILURES_MAX, KeyFix, mend, observe};
use crate::client::wallet::{Access, Folder, Grade, LeftAlone, Mark, PownString, Wallet};
use crate::client::{PerRaida, draw_an, draw_generator};
use crate::coin::Coin;
use crate::protocol::RaidaId;
use crate::protocol::healing::VOTES_NEEDED;
use crate::shown::Shown;

/// Maximum number of coins that are shown on a line each.
const LINES_MAX: usize = 25;

/// Heal a wallet: mend the servers that have lost all its numbers, find out which numbers of its
/// limbo coins are in force, have servers that lost a coin repair it by the votes of the others,
/// and file each coin by its grade.
///
/// Does first what `raida fix-encryption` does. Looks after the folders Bank, Fracked, Limbo and
/// Grade, and judges what lies in Counterfeit again. A new number is in the coin's file before a
/// server can have it, so that the command can be interrupted at any time and given again. Where it
/// is uncertain whether a broken server took its new number, nothing else repairs that coin there
/// for 22 minutes: for so long the fix may still take effect. A broken server on which the coin
/// changed lately, or that started lately, takes no tickets for three minutes: the command heals
/// what it can, waits, says so, and tries again, twice at most. The command waits once, 40 s, for a
/// server that takes a fix and does not answer, and gives it no further fix in the same run. In the
/// end the command asks all servers once more about the coins that were repaired, and grades them
/// by the answers. Exit status 0 if all coins are authentic afterwards, 1 if some are not, were
/// left alone or lie in Counterfeit, 2 if too few servers answer or they belong to another network.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("servers").args(["hosts", "network"]).required(true)))]
#[command(after_help = "Examples:
  raida heal wallet --network raida-network
  raida heal wallet --hosts hosts.txt --dry-run
  raida heal wallet --hosts hosts.txt --json")]
pub struct HealCommand {
    /// The wallet: a folder with the folders Bank, Fracked, Limbo and so on
    wallet: PathBuf,
    #[command(flatten)]
    network: RaidasArgs,
    /// Ask only; say what would be done, and change nothing anywhere
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for a server's answer, in milliseconds; for a fix at least 40,000
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// The servers' coin id; 6 is CloudCoin. Coins of another one are left alone
    #[arg(long, value_name = "N", default_value_t = 6)]
    coin_id: u16,
    #[command(flatten)]
    patience: PatienceArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl HealCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The wallet or the list of hosts cannot be read; fewer than 13 servers answer, or
    /// servers of another network; the disk fails.
    pub fn run(self) -> Result<Answer, CliError> {
        let raidas = self.network.raidas(self.coin_id, self.timeout_ms)?;
        let bar = waiting();
        let access = match self.dry_run {
            true => Access::Look,
            false => Access::Change,
        };
        let mut wallet = Wallet::open(&self.wallet, access)?;
        wallet.judge_counterfeits_again()?;
        wallet.keep_only(self.coin_id);
        let judged: BTreeSet<Coin> = (wallet.coins().iter())
            .filter(|filed| filed.folder == Folder::Counterfeit)
            .map(|filed| filed.file.coin)
            .collect();
        let mut health = EncryptionHealth::read(&self.wallet)?;
        let mut fixes = vec![];
        let mut waited = Duration::ZERO;
        let healed = if self.dry_run {
            bar.set_message("asking all servers");
            let filed = wallet.coins().iter().map(|filed| filed.file.pown).collect();
            let silent = look(wallet.coins_mut(), &raidas)?;
            recognise(wallet.coins())?;
            observe(&mut health, wallet.coins());
            looked_at(&wallet, filed, silent)
        } else {
            let at = |stage| bar.set_message(phrase(stage));
            at(Stage::Looking);
            let mut patience = self.patience.start(&bar, "asking all servers");
            let mut earlier: Vec<Lost> = vec![];
            let mut so_far = FixesSoFar::default();
            let (mut healed, results) = mend(
                &mut wallet,
                &mut health,
                &raidas,
                FAILURES_MAX,
                &mut patience,
                draw_an,
                |wallet, looked, spared| {
                    let healed = heal_looked(
                        wallet,
                        looked,
                        spared,
                        &mut so_far,
                        &raidas,
                        draw_generator,
                        at,
                    )?;
                    earlier.extend_from_slice(&healed.lost);
                    Ok(healed)
                },
            )?;
            healed.lost = earlier;
            fixes = results;
            waited = patience.waited();
            healed
        };
        let found = Found {
            healed: &healed,
            health: &health,
            fixes: &fixes,
            waited,
            taken_back: (healed.coins.iter())
                .filter(|coin| judged.contains(&coin.coin) && coin.grade != Grade::Counterfeit)
                .map(|coin| coin.coin)
                .collect(),
            left_alone: wallet.left_alone(),
            counterfeits: wallet.counterfeits()?,
        };
        bar.finish_and_clear();
        if self.json {
            print_json(&self.report_json(&found))?;
        } else {
            print(&self.report(&found))?;
        }
        let all_authentic = (healed.coins.iter()).all(|coin| coin.grade == Grade::Authentic)
            && found.counterfeits == 0
            && !found.left_alone.iter().any(|left| left.may_be_coin);
        Ok(if all_authentic {
            Answer::Yes
        } else {
            Answer::No
        })
    }

    fn report(&self, found: &Found<'_>) -> String {
        let Found {
            healed,
            health,
            fixes,
            left_alone,
            counterfeits,
            ..
        } = *found;
        let mut text = lines(fixes, health);
        if self.dry_run && !health.broken().is_empty() {
            text += &format!(
                "RAIDA {} would be mended first: all numbers of the wallet are lost there\n",
                numbers(&health.broken())
            );
        }
        if !healed.coins.is_empty() {
            let (before, after) = match self.dry_run {
                true => ("in the file", "now"),
                false => ("before", "after"),
            };
            text += &format!("{:12} {before:25}  {after:25}\n", "coin");
        }
        // Of many, those are of interest that are not as they should be.
        let is_shown = |coin: &&HealedCoin| {
            let is_well = coin.grade == Grade::Authentic && !coin.in_doubt;
            healed.coins.len() <= LINES_MAX || !is_well
        };
        let shown: Vec<&HealedCoin> = healed.coins.iter().filter(is_shown).collect();
        for coin in shown.iter().take(LINES_MAX) {
            let HealedCoin {
                coin,
                before,
                after,
                grade,
                in_doubt,
            } = coin;
            let grade = grade.name();
            let doubt = match in_doubt {
                true => {
                    ", two numbers in doubt, both are kept: heal again, in five minutes where a server changed it just now"
                }
                false => "",
            };
            let would = match self.dry_run {
                true => would(after),
                false => String::new(),
            };
            text += &format!(
                "{:12} {before:25}  {after:25}  {grade}{doubt}{would}\n",
                coin.to_string()
            );
        }
        if shown.len() > LINES_MAX {
            let more = shown.len() - LINES_MAX;
            text += &format!("{more} more are not authentic, or in doubt; --json shows all\n");
        }
        for lost in &healed.lost {
            text += &sentence(lost);
        }
        for left in left_alone {
            text += &format!("left alone: {}: {}\n", left.file.shown(), left.reason);
        }
        for (whys, what) in [
            (&healed.silent, "says nothing of the coins"),
            (&healed.refusals.tickets, "gives no tickets"),
            (&healed.refusals.fixes, "does not fix"),
        ] {
            for (raida, why) in whys.iter() {
                if let Some(why) = why {
                    text += &format!("RAIDA {raida} {what}: {why}\n");
                }
            }
        }
        if !fixes.is_empty() {
            text += &format!("{}\n", summary(health));
        }
        let count = |grade| {
            let coins = healed.coins.iter();
            coins.filter(|coin| coin.grade == grade).count()
        };
        text += &format!(
            "{} coins: {} authentic, {} fracked, {} counterfeit, {} in limbo{}\n",
            healed.coins.len(),
            count(Grade::Authentic),
            count(Grade::Fracked),
            count(Grade::Counterfeit),
            count(Grade::Limbo),
            if self.dry_run {
                "; nothing was changed"
            } else {
                ""
            },
        );
        if !found.taken_back.is_empty() {
            let coins = names(&found.taken_back);
            let verb = if self.dry_run { "would come" } else { "came" };
            text += &format!(
                "{coins} {verb} back from Counterfeit: fewer than {VOTES_NEEDED} servers fail them now\n"
            );
        }
        if counterfeits > 0 {
            text += &format!(
                "{counterfeits} coins lie in Counterfeit: {VOTES_NEEDED} servers or more fail them. Each heal asks about them again; delete those that you know to be worth nothing\n"
            );
        }
        text
    }

    fn report_json(&self, found: &Found<'_>) -> Value {
        let healed = found.healed;
        let coins = healed.coins.iter().map(|coin| {
            let mut entry = json_of(coin.coin);
            entry["before"] = coin.before.to_string().into();
            entry["after"] = coin.after.to_string().into();
            entry["grade"] = coin.grade.name().into();
            entry["in_doubt"] = coin.in_doubt.into();
            if self.dry_run {
                entry["would_fix"] = fixable(&coin.after).into();
            }
            entry
        });
        let left_alone = found
            .left_alone
            .iter()
            .map(|left| json!({ "file": left.file, "why": left.reason }));
        json!({
            "dry_run": self.dry_run,
            "encryption": {
                "servers": json_of_fixes(found.fixes),
                "broken": json_of_broken(found.health),
            },
            "waited_s": found.waited.as_secs(),
            "rounds": healed.rounds,
            "coins": coins.collect::<Vec<_>>(),
            "lost": healed.lost.iter().map(json_of_lost).collect::<Vec<_>>(),
            "silent": reasons(&healed.silent),
            "no_tickets": reasons(&healed.refusals.tickets),
            "no_fixes": reasons(&healed.refusals.fixes),
            "left_alone": left_alone.collect::<Vec<_>>(),
            "in_counterfeit": found.counterfeits,
            "taken_back": found.taken_back.iter().map(|&coin| json_of(coin)).collect::<Vec<_>>(),
        })
    }
}

/// What there is to report.
struct Found<'a> {
    healed: &'a Healed,
    /// Which servers are broken now.
    health: &'a EncryptionHealth,
    /// What became of those that were.
    fixes: &'a [(RaidaId, KeyFix)],
    /// How long the command waited for some of those.
    waited: Duration,
    /// Coins that lay in Counterfeit and do not belong there.
    taken_back: Vec<Coin>,
    left_alone: &'a [LeftAlone],
    /// Coins in the folder of that name.
    counterfeits: usize,
}

/// What a look found, beside what the files said before.
fn looked_at(wallet: &Wallet, filed: Vec<PownString>, silent: PerRaida<Option<String>>) -> Healed {
    let coins = wallet.coins().iter().zip(filed);
    let coins = coins.map(|(filed, before)| HealedCoin::new(&filed.file, before));
    Healed {
        coins: coins.collect(),
        rounds: 0,
        silent,
        refusals: Refusals::default(),
        lost: vec![],
    }
}

/// What a person has to know about a coin that servers no longer know.
fn sentence(lost: &Lost) -> String {
    let Lost {
        coin,
        passed_before,
        fixed_before,
        had_tickets,
    } = lost;
    let mut text = String::new();
    if !fixed_before.is_empty() {
        text += &format!(
            "coin {coin}: RAIDA {} said that it was fixed and fails it now: a server that lies, or somebody else changed it since\n",
            numbers(fixed_before)
        );
    }
    if !passed_before.is_empty() {
        text += &format!(
            "coin {coin} is no longer yours on RAIDA {}: passed before, and changed there meanwhile by somebody else",
            numbers(passed_before)
        );
        text += &match had_tickets.as_slice() {
            [] => "\n".to_owned(),
            had => format!(
                ", who has a copy of the coin, or had the tickets for it: RAIDA {} had them, so ask their operators\n",
                numbers(had)
            ),
        };
    }
    text
}

/// The same for a program.
fn json_of_lost(lost: &Lost) -> Value {
    let servers = |of: &[RaidaId]| of.iter().map(|raida| raida.get()).collect::<Vec<u8>>();
    let mut entry = json_of(lost.coin);
    entry["passed_before"] = servers(&lost.passed_before).into();
    entry["fixed_before"] = servers(&lost.fixed_before).into();
    entry["had_tickets"] = servers(&lost.had_tickets).into();
    entry
}

/// The servers that the report mentions, each with the reason.
pub(super) fn reasons(whys: &PerRaida<Option<String>>) -> Vec<Value> {
    let whys = whys.iter();
    whys.filter_map(|(raida, why)| Some(json!({ "raida": raida.get(), "why": why.as_ref()? })))
        .collect()
}

/// On which servers a coin would be fixed if all those that pass it give a ticket.
fn fixable(marks: &PownString) -> Vec<u8> {
    let listed = PerRaida::from_fn(|raida| marks.0[raida] == Mark::Passed);
    let planned = plan(&[*marks], &[listed]).into_iter();
    planned
        .filter(|(_, coins)| !coins.is_empty())
        .map(|(raida, _)| raida.get())
        .collect()
}

fn would(marks: &PownString) -> String {
    let servers = fixable(marks);
    let list = servers.iter().map(u8::to_string).collect::<Vec<_>>();
    match list.as_slice() {
        [] => String::new(),
        list => format!(", would be fixed on {}", list.join(" ")),
    }
}

fn phrase(stage: Stage) -> String {
    match stage {
        Stage::Looking => "asking all servers".to_owned(),
        Stage::Tickets { round, coins } => {
            format!("round {round}: tickets for {coins} coins")
        }
        Stage::Fixing {
            round,
            coins,
            servers,
        } => format!("round {round}: {servers} servers fix {coins} coins"),
        Stage::Checking => "asking all servers once more".to_owned(),
        Stage::Filing => "filing".to_owned(),
    }
}
