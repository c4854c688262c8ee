use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::Level;

use super::config::{self, Config, LogFormat};
use super::output::{Answer, print};
use super::settings::SettingsArgs;
use super::{CliError, HostPort, Logging};
use crate::coin::Denomination;
use crate::coin::Worth;
use crate::net;
use crate::node::{Adjustable, Control, Durability, Ended, Node, OnLoss, Settings, Summary};
use crate::peer::{PeerSettings, Server};
use crate::protocol::{Dialect, RaidaId, ResponseCounter, Rules, lockers::Currency};
use crate::runtime::WallClock;
use crate::service::{DatagramRules, QuestionRates, Rate, budget::BudgetLimits};
use crate::settlement::{Method, Program};
use crate::shard::{TicketSettings, TradeSettings};
use crate::shown::Shown;

/// Maximum number of purchases that wait for their turn to be settled. At one a second and place,
/// as fast as a program that asks a server can be, the last of them waits a minute; more would only
/// wait for nothing.
const WAITING_MAX: usize = 256;

/// Number of lost files that are named; more are counted.
const ACCEPTED_TOLD: usize = 20;

/// Run a node.
///
/// Without any configuration: a development node, RAIDA 0 on 127.0.0.1:50000, data in ./raida-data.
/// SIGTERM and SIGINT stop it in order, SIGHUP has it read its configuration again.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida serve
  raida serve --config /etc/raida/node.toml
  raida serve --raida 14 --listen 127.0.0.1:50014 --data raida14 --set protocol.dialect=raidax")]
pub struct ServeCommand {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Start although log segments, page files or books are gone or the log is damaged, with what
    /// is left of them, and accept the loss for good.
    ///
    /// Changes that the node has answered are lost with them: such coins have earlier numbers
    /// again, or none. Their owners can heal them (`raida heal`) with the votes of 13 other
    /// servers; earlier owners know the earlier numbers until then. Used payments may count a
    /// second time. A backup of the whole folder, if there is one, loses less. `raida check` says
    /// beforehand what is gone
    #[arg(long)]
    accept_loss: bool,
}

impl ServeCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node cannot start, or had to stop because of an impossible state or a failed disk.
    pub fn run(self) -> Result<Answer, CliError> {
        let config = self.settings.load()?;
        let logging = Logging::start(&config.log)?;
        // Where the log is JSON, so is what a node says that cannot start: its readers read nothing
        // else.
        let is_json = config.log.format == LogFormat::Json && tracing::enabled!(Level::ERROR);
        match self.serve(config, logging) {
            Err(error) if is_json => {
                tracing::error!(%error, "ended");
                Ok(Answer::Failed)
            }
            served => served,
        }
    }

    fn serve(self, config: Config, logging: Logging) -> Result<Answer, CliError> {
        die_of_panics();
        // Before the node's threads start, so that they inherit nothing else to do with signals.
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(|error| CliError::System("way to hear of signals", error))?;
        let on_loss = match self.accept_loss {
            true => OnLoss::Accept,
            false => OnLoss::Refuse,
        };
        let node = Node::start(&Settings {
            on_loss,
            ..settings(&config)?
        })?;
        if config.protocol.response_counter == config::ResponseCounter::Restart {
            tracing::debug!(
                "response_counter = \"restart\" encrypts an answer of types 1 and 2 with the request's key stream; types 4 and 5 do not"
            );
        }
        for fault in &node.summary().faults {
            tracing::error!(%fault, "damaged and not served");
        }
        let accepted = &node.summary().accepted;
        for fault in accepted.iter().take(ACCEPTED_TOLD) {
            tracing::error!(%fault, "started with what is left");
        }
        if accepted.len() > ACCEPTED_TOLD {
            tracing::error!(
                more = accepted.len() - ACCEPTED_TOLD,
                "started with what is left"
            );
        }
        if let Some(fewer) = fewer_connections(&config, node.summary()) {
            tracing::warn!("connections: {fewer}");
        }
        // A log collector, as under systemd, gets both outputs as one and reads JSON alone.
        let is_text = config.log.format == LogFormat::Text;
        match is_text {
            true => print(&greeting(&config, node.summary()))?,
            false => log_start(&config, node.summary()),
        }
        let control = node.control();
        let (ended, has_ended) = mpsc::channel();
        let handle = signals.handle();
        std::thread::spawn(move || {
            obey(signals, &control, &self.settings, config, &logging, &ended)
        });
        let ended = node.join();
        handle.close();
        // The signal thread has nothing more to say once the channel is closed.
        while has_ended.recv().is_ok() {}
        let Ended { cut } = ended?;
        let (connections, requests) = (cut.connections_cut, cut.requests_cut);
        if connections + requests > 0 {
            tracing::warn!(connections, requests, "cut off: they took too long to end");
        }
        let stopped = "stopped: what was accepted is answered, what was answered is on disk";
        match is_text {
            true => print(&format!("{stopped}\n"))?,
            false => tracing::info!("{stopped}"),
        }
        Ok(Answer::Yes)
    }
}

/// A shard that meets an impossible state must stop, and the others must not go on without it.
fn die_of_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        eprintln!(
            "raida: an impossible state: the node ends at once; what it answered is on disk, start it again"
        );
        std::process::abort();
    }));
}

/// Does what signals ask for, until the node has ended.
fn obey(
    mut signals: Signals,
    control: &Control,
    settings: &SettingsArgs,
    mut config: Config,
    logging: &Logging,
    _alive: &mpsc::Sender<()>,
) {
    let mut is_stopping = false;
    for signal in signals.forever() {
        match signal {
            SIGHUP => read_again(settings, &mut config, control, logging),
            _ if is_stopping => {
                tracing::warn!("stopped a second time: ends at once; what it answered is on disk");
                std::process::exit(1);
            }
            _ => {
                tracing::info!(
                    "stops: answers what it has accepted; a second signal ends it at once"
                );
                is_stopping = true;
                control.stop();
            }
        }
    }
}

fn read_again(settings: &SettingsArgs, config: &mut Config, control: &Control, logging: &Logging) {
    let new = match settings.load() {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "the configuration is not taken over; all stays as it was");
            return;
        }
    };
    let changes = config.take_over(&new);
    for change in &changes.applied {
        tracing::info!(
            key = change.key,
            old = change.old,
            new = change.new,
            "changed"
        );
    }
    for change in &changes.needs_restart {
        tracing::warn!(
            key = change.key,
            new = change.new,
            "changes at the next start only"
        );
    }
    if changes.applied.is_empty() && changes.needs_restart.is_empty() {
        tracing::info!("the configuration is as it was");
    }
    logging.set_levels(&config.log);
    control.adjust(&network(config), adjustable(config));
    control.change_servers(servers(config));
}

fn settings(config: &Config) -> Result<Settings, CliError> {
    let raida = RaidaId::new(config.node.raida_id).expect("the configuration allows 0 to 24");
    Ok(Settings {
        rules: Rules {
            raida,
            coin_id: config.node.coin_id,
            dialect: match config.protocol.dialect {
                config::Dialect::Spec => Dialect::Spec,
                config::Dialect::Raidax => Dialect::Raidax,
            },
            response_counter: match config.protocol.response_counter {
                config::ResponseCounter::Restart => ResponseCounter::Restart,
                config::ResponseCounter::Continue => ResponseCounter::Continue,
            },
            max_body_bytes: config.network.max_body_bytes as usize,
        },
        data: config.node.data_dir.clone(),
        on_loss: OnLoss::Refuse,
        admin_key_file: config.node.admin_key_file.clone(),
        network: network(config),
        shards: config.shards.count,
        pin: config.shards.pin,
        spin: config.shards.spin,
        durability: match config.storage.durability {
            config::Durability::Commit => Durability::Commit,
            config::Durability::Periodic => Durability::Periodic,
        },
        disk_timeout: config.storage.disk_timeout,
        cache_pages: config.storage.cache_pages as usize,
        segment_bytes: u64::from(config.storage.segment_bytes),
        tickets: TicketSettings {
            pool: config.tickets.pool as usize,
            lifetime: config.tickets.lifetime,
            shares: config.tickets.shares as usize,
            per_coin: config.tickets.per_coin,
        },
        ticket_coins_max: config.tickets.max_coins as usize,
        servers: servers(config),
        peers: PeerSettings {
            from: Some(config.network.listen.ip()).filter(|address| !address.is_unspecified()),
            connect_timeout: config.peers.connect_timeout,
            reply_timeout: config.peers.reply_timeout,
            verify_source: config.peers.verify_source,
            ..PeerSettings::new(raida, config.node.coin_id)
        },
        settlement: settlement(&config.trade, std::env::vars_os()),
        currencies: currencies(&config.trade),
        question_rates: QuestionRates {
            per_address: Rate {
                per_s: config.trade.questions_per_address_per_s,
                burst: config.trade.questions_per_address,
            },
            by_datagram: Rate {
                per_s: config.trade.questions_by_datagram_per_s,
                burst: config.trade.questions_by_datagram,
            },
        },
        trades: TradeSettings {
            pending: config.trade.pending,
            holds: config.trade.holds as usize,
            holds_per_address: config.trade.holds_per_address as usize,
            questions_per_address: config.trade.questions_per_address as usize,
            questions_by_datagram: config.trade.questions_by_datagram as usize,
            payments_max: config.trade.payments as usize,
        },
        repeats_max: config.limits.repeats as usize,
        healing_rate: Rate {
            per_s: config.limits.healing_per_s,
            burst: config.limits.healing_burst,
        },
        wrong_claims_per_min: config.limits.wrong_claims_per_min,
        datagrams: DatagramRules {
            amplification: config.network.udp_amplification as usize,
            refusals_per_s: config.limits.udp_refusals_per_s,
        },
        keys_file: config.keys.file.clone(),
        allow_unencrypted_tickets: config.keys.allow_unencrypted,
        clock: WallClock::of_process(),
        adjustable: adjustable(config),
    })
}

fn network(config: &Config) -> net::Settings {
    let network = &config.network;
    net::Settings {
        listen: network.listen,
        max_connections: network.max_connections as usize,
        max_connections_per_address: network.max_connections_per_address as usize,
        max_body_bytes: network.max_body_bytes as usize,
        waiting: BudgetLimits {
            requests: config.limits.waiting_requests as usize,
            bytes: config.limits.waiting_bytes as usize,
        },
        header_timeout: network.header_timeout,
        body_timeout: network.body_timeout,
        idle_timeout: network.idle_timeout,
        ..net::Settings::default()
    }
}

fn servers(config: &Config) -> Vec<Server> {
    let server = |at: &HostPort| Server {
        host: at.host().to_owned(),
        port: at.port(),
    };
    config.peers.servers.iter().map(server).collect()
}

fn currencies(trade: &config::Trade) -> Vec<Currency> {
    let by_name = |name: &str| {
        Currency::ALL
            .into_iter()
            .find(|currency| currency.name() == name)
    };
    let accepted = trade.currencies.iter();
    accepted
        .filter_map(|currency| by_name(currency.name()))
        .collect()
}

fn settlement(
    trade: &config::Trade,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Method {
    match (trade.settlement, trade.command.split_first()) {
        (config::Settlement::Trusted, _) => Method::Trusted,
        (config::Settlement::Command, Some((path, arguments))) => Method::Command(Program {
            path: path.into(),
            arguments: arguments.iter().map(Into::into).collect(),
            environment: environment
                .filter(|(name, _)| is_named(name, &trade.command_environment))
                .collect(),
            timeout: trade.command_timeout,
            at_most: trade.commands_at_once.into(),
            waiting_max: WAITING_MAX,
        }),
        // The configuration refuses "command" without one.
        (config::Settlement::None | config::Settlement::Command, _) => Method::None,
    }
}

/// Whether one of these is the variable's name, or its beginning followed by `*`.
fn is_named(variable: &OsStr, names: &[String]) -> bool {
    let variable = variable.as_bytes();
    names.iter().any(|name| match name.strip_suffix('*') {
        Some(beginning) => variable.starts_with(beginning.as_bytes()),
        None => variable == name.as_bytes(),
    })
}

fn adjustable(config: &Config) -> Adjustable {
    Adjustable {
        flush_interval: config.storage.flush_interval,
        checkpoint_interval: config.storage.checkpoint_interval,
    }
}

/// How many connections the node admits where there are fewer file descriptors than the
/// configuration needs.
fn fewer_connections(config: &Config, summary: &Summary) -> Option<String> {
    let (wanted, files) = (config.network.max_connections as usize, summary.descriptors);
    let admitted = files.connections();
    (admitted < wanted).then(|| {
        format!(
            "{admitted} at most, not the {wanted} of network.max_connections: the process may open {} files and keeps {} for itself; raise LimitNOFILE (ulimit -Hn)",
            files.limit, files.own
        )
    })
}

/// What a program sees when the node has started: what matters of the greeting.
fn log_start(config: &Config, summary: &Summary) {
    let coins: u64 = summary.coins.iter().sum();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        raida = config.node.raida_id,
        coin_id = config.node.coin_id,
        address = %summary.address,
        shards = config.shards.count,
        durability = config.storage.durability.name(),
        dialect = config.protocol.dialect.name(),
        data = %config.node.data_dir.shown(),
        is_new = summary.is_new,
        coins,
        recovered = summary.changes_recovered,
        cut_short = summary.torn_batches,
        damaged_pages = summary.faults.len(),
        took_ms = summary.took.as_millis() as u64,
        "serves"
    );
}

/// What a person sees when the node has started: where it is, what it promises, what it holds, and
/// what to do next.
fn greeting(config: &Config, summary: &Summary) -> String {
    let data = config.node.data_dir.shown();
    let coins: u64 = summary.coins.iter().sum();
    let units = Denomination::all()
        .zip(summary.coins)
        .map(|(denomination, count)| u128::from(denomination.worth_units()) * u128::from(count))
        .sum();
    let mut text = format!(
        "raida {version}: RAIDA {raida} for coin {coin}, listening on {address} (TCP and UDP)\n",
        version = env!("CARGO_PKG_VERSION"),
        raida = config.node.raida_id,
        coin = config.node.coin_id,
        address = summary.address,
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    line("shards", config.shards.count.to_string());
    let durability = match config.storage.durability {
        config::Durability::Commit => "commit: an answer leaves when its change is on disk".into(),
        config::Durability::Periodic => format!(
            "periodic: a crash may lose the last {} ms of answered changes",
            config.storage.flush_interval.as_millis()
        ),
    };
    line("durability", durability);
    if let Some(fewer) = fewer_connections(config, summary) {
        line("connections", fewer);
    }
    let io = match summary.is_direct {
        true => "",
        false => ", through the page cache: this file system has no direct I/O",
    };
    let new = if summary.is_new { " (new)" } else { "" };
    line("data", format!("{data}{new}{io}"));
    line("dialect", config.protocol.dialect.name().to_owned());
    line(
        "coins",
        format!("{coins} in circulation, worth {}", Worth(units)),
    );
    if summary.changes_recovered > 0 || summary.torn_batches > 0 {
        let torn = match summary.torn_batches {
            0 => String::new(),
            n => format!("; {n} unanswered log batches were cut short"),
        };
        line(
            "recovered",
            format!(
                "{} coin changes from the log{torn}",
                summary.changes_recovered
            ),
        );
    }
    if !summary.faults.is_empty() {
        line(
            "damaged",
            format!(
                "{} pages, not served: raida check --data {data}",
                summary.faults.len()
            ),
        );
    }
    line("ready in", format!("{} ms", summary.took.as_millis()));
    let mut to = String::new();
    if summary.address.to_string() != "127.0.0.1:50000" {
        let _ = write!(to, " --host {}", summary.address);
    }
    if config.node.raida_id != 0 {
        let _ = write!(to, " --raida {}", config.node.raida_id);
    }
    let _ = write!(
        text,
        "Try:  raida echo{to}
      raida mint{to} --data {data} --count 5 --denomination 1 --out coins.csv
      raida detect{to} coins.csv
"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settlements_program_gets_the_variables_that_are_named_and_no_others() {
        let environment = [
            ("PATH", "/bin"),
            ("PATHS", "no"),
            ("BITCOIN_RPC_URL", "http://[::1]/"),
            ("BITCOIN_", "the beginning alone"),
            ("BITCOIN", "no"),
            ("MY_BITCOIN_RPC_URL", "no"),
            ("RAIDA__LOG__LEVEL", "no"),
            ("LD_PRELOAD", "no"),
        ];
        let let_through = |names: Option<&[&str]>| -> Vec<String> {
            let mut trade = Config::default().trade;
            trade.settlement = config::Settlement::Command;
            trade.command = vec!["/bin/settle".to_owned()];
            if let Some(names) = names {
                trade.command_environment = names.iter().map(|&name| name.to_owned()).collect();
            }
            let environment = environment.into_iter();
            let environment = environment.map(|(name, value)| (name.into(), value.into()));
            let Method::Command(program) = settlement(&trade, environment) else {
                panic!("the program settles");
            };
            let names = program.environment.iter().map(|(name, _)| name.to_str());
            names.map(|name| name.unwrap().to_owned()).collect()
        };
        let default = ["PATH", "BITCOIN_RPC_URL", "BITCOIN_"];
        assert_eq!(let_through(None), default);
        assert_eq!(let_through(Some(&[])), [""; 0]);
        assert_eq!(let_through(Some(&["BITCOIN", "HOME"])), ["BITCOIN"]);
        assert_eq!(let_through(Some(&["RAIDA__*"])), ["RAIDA__LOG__LEVEL"]);
    }
}
