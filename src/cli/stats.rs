use std::fmt::{Display, Write as _};

use serde_json::json;

use super::CliError;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::{Answer, print, print_json};
use crate::admin::{Counts, LatencyReport, Times, ask_counts, ask_latency};
use crate::coin::Worth;

/// Ask a node how much it has done since it started, or how long that took.
///
/// With --latency, the node on this machine that runs on the data folder says how long requests
/// took since it started, by command: from a request being handed to the service to its answer
/// being there to send, without sockets and network, in microseconds right to 1 %. Of requests that
/// are answered at once, the first 1,000 of a command and shard are measured, then one in 64, which
/// counts as 64 (so the maximum covers only measured requests). Requests that wait for the log or
/// another shard are all measured.
///
/// With --detail, that node shows more counts. Healing: tickets, claims and refusals with their
/// reasons, coins repaired, votes. Changes: how many wait for coins and for the log. Lockers and
/// trades: what it keeps, what was done, and refusals with their reasons.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida stats --data raida-data
  raida stats --host 127.0.0.1:50014 --raida 14 --admin-key-file admin.key --json
  raida stats --detail --data raida-data
  raida stats --latency --data raida-data
  raida stats --latency --by-shard --data raida-data --json")]
pub struct StatsCommand {
    #[command(flatten)]
    admin: AdminKeyArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// How long requests took, of the node that runs on the data folder
    #[arg(long, conflicts_with_all = ["admin_key_file", "host", "raida", "coin_id", "udp", "timeout_ms"])]
    latency: bool,
    /// More of what it has done, of the node that runs on the data folder
    #[arg(long, conflicts_with_all = ["latency", "admin_key_file", "host", "raida", "coin_id", "udp", "timeout_ms"])]
    detail: bool,
    /// With --latency: on each shard too
    #[arg(long, requires = "latency", conflicts_with = "detail")]
    by_shard: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl StatsCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The admin key cannot be read; the node gives no answer, or refuses.
    pub fn run(mut self) -> Result<Answer, CliError> {
        match (self.latency, self.detail) {
            (true, _) => self.print_latency()?,
            (_, true) => self.print_detail()?,
            _ => {
                self.node.name_by(&self.admin)?;
                self.print_counters()?;
            }
        }
        Ok(Answer::Yes)
    }

    fn print_latency(&self) -> Result<(), CliError> {
        let mut report = ask_latency(&self.admin.folder_in_force()?)?;
        if !self.by_shard {
            for command in &mut report.commands {
                command.by_shard.clear();
            }
        }
        match self.json {
            true => print_json(&report),
            false => print(&latency_table(&report)),
        }
    }

    fn print_detail(&self) -> Result<(), CliError> {
        let counts = ask_counts(&self.admin.folder_in_force()?)?;
        match self.json {
            true => print_json(&counts),
            false => print(&detail_table(&counts)),
        }
    }

    fn print_counters(&self) -> Result<(), CliError> {
        let key = self.admin.read()?;
        let stats = self.node.connect()?.stats(&key)?;
        let value = Worth(stats.value_powned.into());
        if self.json {
            return print_json(&json!({
                "requests": stats.requests,
                "echoes": stats.echoes,
                "coins_powned": stats.coins_powned,
                "value_powned": value.to_string(),
            }));
        }
        print(&format!(
            "requests      {}\nechoes        {}\ncoins powned  {}\nvalue powned  {value}\n",
            stats.requests, stats.echoes, stats.coins_powned
        ))
    }
}

fn detail_table(counts: &Counts) -> String {
    let healing = &counts.healing;
    let value = Worth(counts.value_powned_units);
    let rows: [(&str, u64); 37] = [
        ("requests", counts.requests),
        ("echoes", counts.echoes),
        ("given up, disk dead", counts.given_up),
        ("coins powned", counts.coins_powned),
        ("repeats", counts.repeats),
        ("  without an answer", counts.repeats_unanswered),
        ("  requests kept for them", counts.repeats_kept),
        ("UDP answers too long", counts.datagrams.answers_too_long),
        ("UDP refusals not sent", counts.datagrams.refusals_unsent),
        ("tickets kept", counts.tickets_kept),
        ("tickets issued", healing.tickets_issued),
        ("  refused, all in use", healing.tickets_refused),
        ("  refused, address's share", healing.tickets_refused_share),
        ("  refused, coin's share", healing.tickets_refused_coin),
        ("claims", healing.claims),
        ("  refused, not its address", healing.claims_from_elsewhere),
        ("  refused, no such ticket", healing.claims_unknown),
        ("  refused, claimed already", healing.claims_again),
        ("  refused, over UDP", healing.claims_over_udp),
        ("  refused, too many wrong", healing.claims_not_looked_at),
        ("too many requests", healing.too_many_requests),
        ("fixes", healing.fixes),
        ("  coins repaired", healing.coins_repaired),
        ("  coins not repaired", healing.coins_not_repaired),
        ("    changed lately", healing.coins_changed_lately),
        ("    vouched for here", healing.coins_vouched_here),
        ("  votes", healing.votes),
        ("  votes missing", healing.votes_missing),
        ("encryption tickets", healing.encryption_tickets),
        ("  refused", healing.encryption_tickets_refused),
        ("encryption fixes", healing.encryption_fixes),
        ("  refused", healing.encryption_fixes_refused),
        ("  keys fixed", healing.keys_fixed),
        ("  tickets accepted", healing.encryption_tickets_accepted),
        (
            "  tickets not accepted",
            healing.encryption_tickets_not_accepted,
        ),
        ("    too early", healing.encryption_tickets_too_early),
        ("  used tickets kept", counts.used_tickets_kept),
    ];
    let mut text = String::new();
    for (name, count) in rows {
        let _ = writeln!(text, "{name:<27} {count}");
        if name == "coins powned" {
            let _ = writeln!(text, "{:<27} {value}", "value powned");
        }
    }
    text + &load_table(counts) + &change_table(counts) + &locker_table(counts)
}

fn change_table(counts: &Counts) -> String {
    let changes = &counts.changes;
    let rows: [(&str, u64); 6] = [
        ("changes wait for coins", changes.waiting),
        ("  refused, too many", changes.refused),
        ("  shared a record", changes.shared),
        ("  changed nothing", changes.unchanged),
        ("changes wait for the log", changes.log_waiting),
        ("  refused, too many", changes.log_refused),
    ];
    let mut text = String::new();
    for (name, count) in rows {
        let _ = writeln!(text, "{name:<27} {count}");
    }
    text
}

/// Connections and what waits, against their limits.
fn load_table(counts: &Counts) -> String {
    let (connections, waiting) = (&counts.connections, &counts.waiting);
    let rows: [(&str, u64); 16] = [
        ("connections", connections.open),
        ("  admitted at a time", connections.most),
        ("  served", connections.accepted),
        ("  closed for others", connections.evicted),
        ("  refused, all in use", connections.refused_full),
        ("  refused, of one address", connections.refused_address),
        ("  timed out", connections.timed_out),
        ("  not accepted", connections.accept_errors),
        ("requests that wait", waiting.requests),
        ("  changes among them", waiting.changes),
        ("  dropped, client gone", waiting.dropped),
        ("  refused, no place", waiting.refused_places),
        ("  refused, no memory", waiting.refused_bytes),
        ("  connections paused", waiting.paused),
        ("bytes that wait", waiting.bytes),
        ("  at most so far", waiting.bytes_most),
    ];
    let mut text = String::new();
    for (name, count) in rows {
        let _ = writeln!(text, "{name:<27} {count}");
    }
    text
}

fn locker_table(counts: &Counts) -> String {
    let (kept, done) = (&counts.lockers, &counts.locker_requests);
    let refused = &done.refused;
    let mut text = String::new();
    let mut row = |name: &str, what: &dyn Display| {
        let _ = writeln!(text, "{name:<27} {what}");
    };
    row("lockers", &kept.lockers);
    row("  coins in them", &kept.coins);
    row("  value in them", &Worth(kept.value_units));
    row("  bytes of the index", &kept.index_bytes);
    for of in &counts.for_sale {
        row(&format!("for sale for {}", of.currency), &of.lockers);
        if of.lockers > 0 {
            row("  value", &Worth(of.value_units));
        }
    }
    let rows: [(&str, u64); 22] = [
        ("stores", done.stores),
        ("  coins stored", done.coins_stored),
        ("removals", done.removals),
        ("  coins removed", done.coins_removed),
        ("offers made", done.offers),
        ("  taken back", done.offers_removed),
        ("  bought", done.purchases),
        ("  kept for a payment", done.payments_seen),
        ("  not kept for one", done.holds_refused),
        ("refused: malformed", refused.malformed),
        ("  wrong key", refused.wrong_key),
        ("  wrong sum", refused.wrong_sum),
        ("  no such locker", refused.no_locker),
        ("  currency", refused.currency),
        ("  no such offer", refused.no_such_offer),
        ("  offer exists", refused.offer_exists),
        ("  payment pending", refused.pending),
        ("  no settlement", refused.no_settlement),
        ("  payment refused", refused.payment_refused),
        ("  too many purchases", refused.too_many),
        ("  storage unavailable", refused.unavailable),
        ("  too many wait", refused.crowded),
    ];
    rows.iter().for_each(|(name, count)| row(name, count));
    text
}

/// A row a command, and below it one a shard where there are any.
fn latency_table(report: &LatencyReport) -> String {
    if report.commands.is_empty() {
        return "no requests since the node started\n".to_owned();
    }
    let mut text = format!(
        "{:<14} {:>13} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "µs", "requests", "p50", "p90", "p99", "p99.9", "max"
    );
    let mut row = |name: &str,
                   Times {
                       requests,
                       latency_us: us,
                   }: &Times| {
        let _ = writeln!(
            text,
            "{name:<14} {requests:>13} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
            us.p50, us.p90, us.p99, us.p99_9, us.max
        );
    };
    for command in &report.commands {
        row(&command.command, &command.all);
        for of in &command.by_shard {
            row(&format!("  shard {}", of.shard), &of.times);
        }
    }
    text
}
