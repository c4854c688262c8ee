use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Config, Currency, Dialect, Durability, LogFormat, LogLevel, ResponseCounter, Settlement,
};
use crate::cli::HostPort;
use crate::coin::PAGES;
use crate::protocol::{RaidaId, Rules};
use crate::shown::Shown;

/// One key of the configuration: its name, what it accepts, and the field it sets.
pub struct Key {
    /// The section that holds it.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// What it accepts.
    pub rule: Rule,
    /// Whether a running node takes a new value over on SIGHUP.
    pub changes_at_run_time: bool,
    get: fn(&Config) -> Value,
    set: fn(&mut Config, Value),
}

/// What a key accepts.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// A whole number, both ends included.
    Whole {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
        /// It has to be a multiple of this.
        multiple_of: u64,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A path, not empty.
    Path,
    /// A path, or nothing.
    PathOrNone,
    /// An IP address and a port to listen on.
    Listen,
    /// The network's 25 nodes as `host:port`, or none.
    Servers,
    /// Some of these words, none twice, or none at all.
    SomeOf(&'static [&'static str]),
    /// A program's path, with a slash in it, and its arguments; or nothing.
    Program,
    /// Names of environment variables, or beginnings of names that end in `*`; none twice, or none
    /// at all.
    Variables,
}

/// A value as a person writes it. Its text is what the file would hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// `true` or `false`.
    Switch(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// The most shards a node can have: far more cores than one node can keep busy.
pub(super) const SHARDS_MOST: u64 = 64;
/// Servers in a RAIDA network.
const SERVERS: usize = RaidaId::COUNT;
const DAY_S: u64 = 86_400;
const TEN_MINUTES_MS: u64 = 600_000;

/// Every key, in the order of the documentation.
pub static KEYS: &[Key] = &[
    Key {
        section: "node",
        name: "raida_id",
        rule: whole(0, SERVERS as u64 - 1),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.node.raida_id.into()),
        set: |config, value| config.node.raida_id = value.into_whole() as u8,
    },
    Key {
        section: "node",
        name: "coin_id",
        rule: whole(0, u16::MAX as u64),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.node.coin_id.into()),
        set: |config, value| config.node.coin_id = value.into_whole() as u16,
    },
    Key {
        section: "node",
        name: "data_dir",
        rule: Rule::Path,
        changes_at_run_time: false,
        get: |config| Value::Text(config.node.data_dir.escaped().to_string()),
        set: |config, value| config.node.data_dir = PathBuf::from(value.into_text()),
    },
    Key {
        section: "node",
        name: "admin_key_file",
        rule: Rule::Path,
        changes_at_run_time: false,
        get: |config| Value::Text(config.node.admin_key_file.escaped().to_string()),
        set: |config, value| config.node.admin_key_file = PathBuf::from(value.into_text()),
    },
    Key {
        section: "network",
        name: "listen",
        rule: Rule::Listen,
        changes_at_run_time: false,
        get: |config| Value::Text(config.network.listen.to_string()),
        set: |config, value| {
            config.network.listen = value.into_text().parse().expect(CHECKED);
        },
    },
    Key {
        section: "network",
        name: "max_connections",
        rule: whole(1, 1_000_000),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.network.max_connections.into()),
        set: |config, value| config.network.max_connections = value.into_whole() as u32,
    },
    Key {
        section: "network",
        name: "max_connections_per_address",
        rule: whole(1, 1_000_000),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.network.max_connections_per_address.into()),
        set: |config, value| config.network.max_connections_per_address = value.into_whole() as u32,
    },
    Key {
        section: "network",
        name: "max_body_bytes",
        // Below 4 KiB a UDP datagram's worth of coins would not fit.
        rule: whole(4_096, Rules::BODY_BYTES_CEILING as u64),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.network.max_body_bytes.into()),
        set: |config, value| config.network.max_body_bytes = value.into_whole() as u32,
    },
    Key {
        section: "network",
        name: "header_timeout_ms",
        rule: whole(1, TEN_MINUTES_MS),
        changes_at_run_time: true,
        get: |config| milliseconds(config.network.header_timeout),
        set: |config, value| config.network.header_timeout = value.into_milliseconds(),
    },
    Key {
        section: "network",
        name: "body_timeout_ms",
        rule: whole(1, TEN_MINUTES_MS),
        changes_at_run_time: true,
        get: |config| milliseconds(config.network.body_timeout),
        set: |config, value| config.network.body_timeout = value.into_milliseconds(),
    },
    Key {
        section: "network",
        name: "idle_timeout_s",
        rule: whole(1, DAY_S),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.network.idle_timeout.as_secs()),
        set: |config, value| config.network.idle_timeout = value.into_seconds(),
    },
    Key {
        section: "network",
        name: "udp_amplification",
        rule: whole(1, 10_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.network.udp_amplification.into()),
        set: |config, value| config.network.udp_amplification = value.into_whole() as u32,
    },
    Key {
        section: "shards",
        name: "count",
        rule: whole(1, SHARDS_MOST),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.shards.count.into()),
        set: |config, value| config.shards.count = value.into_whole() as u16,
    },
    Key {
        section: "shards",
        name: "pin",
        rule: Rule::Switch,
        changes_at_run_time: false,
        get: |config| Value::Switch(config.shards.pin),
        set: |config, value| config.shards.pin = value.into_switch(),
    },
    Key {
        section: "shards",
        name: "spin_us",
        rule: whole(0, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.shards.spin.as_micros() as u64),
        set: |config, value| config.shards.spin = Duration::from_micros(value.into_whole()),
    },
    Key {
        section: "storage",
        name: "durability",
        rule: Rule::OneOf(Durability::NAMES),
        changes_at_run_time: false,
        get: |config| Value::Text(config.storage.durability.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.storage.durability = Durability::from_name(&name).expect(CHECKED);
        },
    },
    Key {
        section: "storage",
        name: "flush_interval_ms",
        rule: whole(1, 60_000),
        changes_at_run_time: true,
        get: |config| milliseconds(config.storage.flush_interval),
        set: |config, value| config.storage.flush_interval = value.into_milliseconds(),
    },
    Key {
        section: "storage",
        name: "cache_pages",
        // 64 pages are 1 MiB: enough for a test of eviction, and for every shard to hold the pages
        // of one request while others come and go.
        rule: whole(64, PAGES as u64),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.storage.cache_pages.into()),
        set: |config, value| config.storage.cache_pages = value.into_whole() as u32,
    },
    Key {
        section: "storage",
        name: "segment_bytes",
        // Direct writes go to the disk in blocks of 4 KiB.
        rule: Rule::Whole {
            least: 1 << 20,
            most: 1 << 30,
            multiple_of: 4_096,
        },
        changes_at_run_time: false,
        get: |config| Value::Whole(config.storage.segment_bytes.into()),
        set: |config, value| config.storage.segment_bytes = value.into_whole() as u32,
    },
    Key {
        section: "storage",
        name: "checkpoint_interval_s",
        rule: whole(1, DAY_S),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.storage.checkpoint_interval.as_secs()),
        set: |config, value| config.storage.checkpoint_interval = value.into_seconds(),
    },
    Key {
        section: "storage",
        name: "disk_timeout_s",
        rule: whole(1, 3_600),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.storage.disk_timeout.as_secs()),
        set: |config, value| config.storage.disk_timeout = value.into_seconds(),
    },
    Key {
        section: "protocol",
        name: "dialect",
        rule: Rule::OneOf(Dialect::NAMES),
        changes_at_run_time: false,
        get: |config| Value::Text(config.protocol.dialect.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.protocol.dialect = Dialect::from_name(&name).expect(CHECKED);
        },
    },
    Key {
        section: "protocol",
        name: "response_counter",
        rule: Rule::OneOf(ResponseCounter::NAMES),
        changes_at_run_time: false,
        get: |config| Value::Text(config.protocol.response_counter.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.protocol.response_counter = ResponseCounter::from_name(&name).expect(CHECKED);
        },
    },
    Key {
        section: "tickets",
        name: "pool",
        rule: whole(64, 16_777_216),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.tickets.pool.into()),
        set: |config, value| config.tickets.pool = value.into_whole() as u32,
    },
    Key {
        section: "tickets",
        name: "shares",
        rule: whole(1, 1_024),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.tickets.shares.into()),
        set: |config, value| config.tickets.shares = value.into_whole() as u32,
    },
    Key {
        section: "tickets",
        name: "per_coin",
        rule: whole(0, 65_535),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.tickets.per_coin.into()),
        set: |config, value| config.tickets.per_coin = value.into_whole() as u16,
    },
    Key {
        section: "tickets",
        name: "lifetime_s",
        rule: whole(1, DAY_S),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.tickets.lifetime.as_secs()),
        set: |config, value| config.tickets.lifetime = value.into_seconds(),
    },
    Key {
        section: "tickets",
        name: "max_coins",
        rule: whole(1, 4_096),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.tickets.max_coins.into()),
        set: |config, value| config.tickets.max_coins = value.into_whole() as u32,
    },
    Key {
        section: "peers",
        name: "servers",
        rule: Rule::Servers,
        changes_at_run_time: true,
        get: |config| {
            Value::List(
                config
                    .peers
                    .servers
                    .iter()
                    .map(HostPort::to_string)
                    .collect(),
            )
        },
        set: |config, value| {
            let servers = value.into_list();
            config.peers.servers = servers
                .iter()
                .map(|server| server.parse().expect(CHECKED))
                .collect();
        },
    },
    Key {
        section: "peers",
        name: "verify_source",
        rule: Rule::Switch,
        changes_at_run_time: false,
        get: |config| Value::Switch(config.peers.verify_source),
        set: |config, value| config.peers.verify_source = value.into_switch(),
    },
    Key {
        section: "peers",
        name: "connect_timeout_ms",
        rule: whole(1, TEN_MINUTES_MS),
        changes_at_run_time: false,
        get: |config| milliseconds(config.peers.connect_timeout),
        set: |config, value| config.peers.connect_timeout = value.into_milliseconds(),
    },
    Key {
        section: "peers",
        name: "reply_timeout_s",
        rule: whole(1, TEN_MINUTES_MS / 1_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.peers.reply_timeout.as_secs()),
        set: |config, value| config.peers.reply_timeout = value.into_seconds(),
    },
    Key {
        section: "keys",
        name: "file",
        rule: Rule::PathOrNone,
        changes_at_run_time: false,
        get: |config| {
            let file = config.keys.file.as_ref();
            Value::Text(file.map_or(String::new(), |file| file.escaped().to_string()))
        },
        set: |config, value| {
            let file = Some(value.into_text()).filter(|file| !file.is_empty());
            config.keys.file = file.map(PathBuf::from);
        },
    },
    Key {
        section: "keys",
        name: "allow_unencrypted",
        rule: Rule::Switch,
        changes_at_run_time: false,
        get: |config| Value::Switch(config.keys.allow_unencrypted),
        set: |config, value| config.keys.allow_unencrypted = value.into_switch(),
    },
    Key {
        section: "limits",
        name: "healing_per_s",
        rule: whole(0, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.limits.healing_per_s.into()),
        set: |config, value| config.limits.healing_per_s = value.into_whole() as u32,
    },
    Key {
        section: "limits",
        name: "healing_burst",
        rule: whole(1, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.limits.healing_burst.into()),
        set: |config, value| config.limits.healing_burst = value.into_whole() as u32,
    },
    Key {
        section: "limits",
        name: "wrong_claims_per_min",
        rule: whole(0, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.limits.wrong_claims_per_min.into()),
        set: |config, value| config.limits.wrong_claims_per_min = value.into_whole() as u32,
    },
    Key {
        section: "limits",
        name: "udp_refusals_per_s",
        rule: whole(0, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.limits.udp_refusals_per_s.into()),
        set: |config, value| config.limits.udp_refusals_per_s = value.into_whole() as u32,
    },
    Key {
        section: "limits",
        name: "repeats",
        rule: whole(1_024, 16_777_216),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.limits.repeats.into()),
        set: |config, value| config.limits.repeats = value.into_whole() as u32,
    },
    Key {
        section: "limits",
        name: "waiting_requests",
        rule: whole(1_024, 1_000_000),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.limits.waiting_requests.into()),
        set: |config, value| config.limits.waiting_requests = value.into_whole() as u32,
    },
    Key {
        section: "limits",
        name: "waiting_bytes",
        rule: whole(16 << 20, 4 << 30),
        changes_at_run_time: true,
        get: |config| Value::Whole(config.limits.waiting_bytes),
        set: |config, value| config.limits.waiting_bytes = value.into_whole(),
    },
    Key {
        section: "trade",
        name: "settlement",
        rule: Rule::OneOf(Settlement::NAMES),
        changes_at_run_time: false,
        get: |config| Value::Text(config.trade.settlement.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.trade.settlement = Settlement::from_name(&name).expect(CHECKED);
        },
    },
    Key {
        section: "trade",
        name: "command",
        rule: Rule::Program,
        changes_at_run_time: false,
        get: |config| Value::List(config.trade.command.clone()),
        set: |config, value| config.trade.command = value.into_list(),
    },
    Key {
        section: "trade",
        name: "command_environment",
        rule: Rule::Variables,
        changes_at_run_time: false,
        get: |config| Value::List(config.trade.command_environment.clone()),
        set: |config, value| config.trade.command_environment = value.into_list(),
    },
    Key {
        section: "trade",
        name: "command_timeout_s",
        rule: whole(1, TEN_MINUTES_MS / 1_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.command_timeout.as_secs()),
        set: |config, value| config.trade.command_timeout = value.into_seconds(),
    },
    Key {
        section: "trade",
        name: "commands_at_once",
        // Each takes three file descriptors and, above all, a process.
        rule: whole(1, 64),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.commands_at_once.into()),
        set: |config, value| config.trade.commands_at_once = value.into_whole() as u16,
    },
    Key {
        section: "trade",
        name: "currencies",
        rule: Rule::SomeOf(Currency::NAMES),
        changes_at_run_time: false,
        get: |config| {
            let currencies = config.trade.currencies.iter();
            Value::List(currencies.map(|currency| currency.name().into()).collect())
        },
        set: |config, value| {
            let names = value.into_list();
            let currencies = names.iter().map(|name| Currency::from_name(name));
            config.trade.currencies = currencies.map(|c| c.expect(CHECKED)).collect();
        },
    },
    Key {
        section: "trade",
        name: "pending_s",
        rule: whole(1, DAY_S),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.pending.as_secs()),
        set: |config, value| config.trade.pending = value.into_seconds(),
    },
    Key {
        section: "trade",
        name: "holds",
        rule: whole(1, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.holds.into()),
        set: |config, value| config.trade.holds = value.into_whole() as u32,
    },
    Key {
        section: "trade",
        name: "holds_per_address",
        rule: whole(1, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.holds_per_address.into()),
        set: |config, value| config.trade.holds_per_address = value.into_whole() as u32,
    },
    Key {
        section: "trade",
        name: "questions_per_address",
        rule: whole(1, 256),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.questions_per_address.into()),
        set: |config, value| config.trade.questions_per_address = value.into_whole() as u32,
    },
    Key {
        section: "trade",
        name: "questions_by_datagram",
        rule: whole(1, 256),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.questions_by_datagram.into()),
        set: |config, value| config.trade.questions_by_datagram = value.into_whole() as u32,
    },
    Key {
        section: "trade",
        name: "questions_per_address_per_s",
        rule: whole(0, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.questions_per_address_per_s.into()),
        set: |config, value| config.trade.questions_per_address_per_s = value.into_whole() as u32,
    },
    Key {
        section: "trade",
        name: "questions_by_datagram_per_s",
        rule: whole(0, 1_000_000),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.questions_by_datagram_per_s.into()),
        set: |config, value| config.trade.questions_by_datagram_per_s = value.into_whole() as u32,
    },
    Key {
        section: "trade",
        name: "payments",
        rule: whole(1_024, 16_777_216),
        changes_at_run_time: false,
        get: |config| Value::Whole(config.trade.payments.into()),
        set: |config, value| config.trade.payments = value.into_whole() as u32,
    },
    Key {
        section: "log",
        name: "level",
        rule: Rule::OneOf(LogLevel::NAMES),
        changes_at_run_time: true,
        get: |config| Value::Text(config.log.level.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.log.level = LogLevel::from_name(&name).expect(CHECKED);
        },
    },
    Key {
        section: "log",
        name: "healing",
        rule: Rule::OneOf(LogLevel::NAMES),
        changes_at_run_time: true,
        get: |config| Value::Text(config.log.healing.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.log.healing = LogLevel::from_name(&name).expect(CHECKED);
        },
    },
    Key {
        section: "log",
        name: "format",
        rule: Rule::OneOf(LogFormat::NAMES),
        changes_at_run_time: false,
        get: |config| Value::Text(config.log.format.name().into()),
        set: |config, value| {
            let name = value.into_text();
            config.log.format = LogFormat::from_name(&name).expect(CHECKED);
        },
    },
];

/// Why the setters above cannot fail.
const CHECKED: &str = "Key::set takes only what the key's rule accepts";

impl Key {
    /// The value in this configuration.
    pub fn get(&self, config: &Config) -> Value {
        (self.get)(config)
    }

    /// Sets the value in this configuration.
    ///
    /// # Panics
    /// When the key's rule does not accept the value.
    pub fn set(&self, config: &mut Config, value: Value) {
        assert!(self.rule.accepts(&value), "{self} = {value}: {CHECKED}");
        (self.set)(config, value);
    }

    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!("RAIDA__{}__{}", self.section, self.name).to_uppercase()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

impl Rule {
    /// Whether the value has the right type and is within the permitted range.
    pub fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (
                Rule::Whole {
                    least,
                    most,
                    multiple_of,
                },
                Value::Whole(number),
            ) => (least..=most).contains(&number) && number.is_multiple_of(*multiple_of),
            (Rule::Switch, Value::Switch(_)) => true,
            (Rule::OneOf(words), Value::Text(word)) => words.contains(&word.as_str()),
            (Rule::Path, Value::Text(path)) => !path.is_empty() && !path.contains('\0'),
            (Rule::PathOrNone, Value::Text(path)) => !path.contains('\0'),
            (Rule::Listen, Value::Text(address)) => address.parse::<std::net::SocketAddr>().is_ok(),
            (Rule::Servers, Value::List(servers)) => {
                (servers.is_empty() || servers.len() == SERVERS)
                    && servers.iter().all(|s| s.parse::<HostPort>().is_ok())
            }
            (Rule::SomeOf(words), Value::List(some)) => {
                some.iter().all(|word| words.contains(&word.as_str())) && are_different(some)
            }
            (Rule::Program, Value::List(command)) => {
                command.first().is_none_or(|path| path.contains('/'))
                    && !command.iter().any(|part| part.contains('\0'))
            }
            (Rule::Variables, Value::List(names)) => {
                names.iter().all(|name| is_variable(name)) && are_different(names)
            }
            _ => false,
        }
    }

    /// Reads a value from plain text, as the environment and flags have it. A list is separated by
    /// commas, with or without the brackets and quotes that the file wants. `None` where the text
    /// is not of the right type; the range is not checked.
    pub fn read(&self, text: &str) -> Option<Value> {
        match self {
            Rule::Whole { .. } => text.replace('_', "").parse().ok().map(Value::Whole),
            Rule::Switch => text.parse().ok().map(Value::Switch),
            Rule::OneOf(_) | Rule::Path | Rule::PathOrNone | Rule::Listen => {
                Some(Value::Text(text.to_owned()))
            }
            Rule::Servers | Rule::SomeOf(_) | Rule::Program | Rule::Variables => Some(Value::List(
                in_brackets(text)
                    .unwrap_or(text)
                    .split(',')
                    .map(|item| item.trim().trim_matches('"').to_owned())
                    .filter(|item| !item.is_empty())
                    .collect(),
            )),
        }
    }
}

fn are_different(texts: &[String]) -> bool {
    (0..texts.len()).all(|at| !texts[..at].contains(&texts[at]))
}

/// A name, or the beginning of a name and `*`. No pattern matches all names: the program gets only
/// named variables.
fn is_variable(name: &str) -> bool {
    let name = name.strip_suffix('*').unwrap_or(name);
    !name.is_empty() && !name.contains(['*', '=', '\0'])
}

fn in_brackets(text: &str) -> Option<&str> {
    text.trim().strip_prefix('[')?.strip_suffix(']')
}

/// Completes the sentence "permitted is ...".
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Whole {
                least,
                most,
                multiple_of,
            } => {
                write!(f, "a whole number from {least} to {most}")?;
                if *multiple_of > 1 {
                    write!(f, ", a multiple of {multiple_of}")?;
                }
                Ok(())
            }
            Rule::Switch => f.write_str("true or false"),
            Rule::OneOf(words) => write!(f, "one of {}", quoted(words)),
            Rule::Path => f.write_str("a path in quotes, not empty"),
            Rule::PathOrNone => f.write_str("a path in quotes, or \"\" for none"),
            Rule::Listen => f.write_str("\"ADDRESS:PORT\" with a numeric address"),
            Rule::Servers => f.write_str("a list of 25 times \"HOST:PORT\", or an empty list"),
            Rule::SomeOf(words) => write!(f, "a list of some of {}", quoted(words)),
            Rule::Program => f.write_str(
                "[\"/PATH/OF/A/PROGRAM\", \"ARGUMENT\", ...] with a slash in the path, or an empty list",
            ),
            Rule::Variables => f.write_str(
                "a list of names of environment variables, none twice, where \"NAME_*\" stands for all that begin with NAME_; or an empty list",
            ),
        }
    }
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    quoted.join(", ")
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Whole(number) => write!(f, "{number}"),
            Value::Switch(on) => write!(f, "{on}"),
            Value::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Value::List(texts) => {
                let texts = texts.iter().cloned().map(toml::Value::String).collect();
                write!(f, "{}", toml::Value::Array(texts))
            }
        }
    }
}

impl Value {
    fn into_whole(self) -> u64 {
        match self {
            Value::Whole(number) => number,
            _ => unreachable!("{CHECKED}"),
        }
    }

    fn into_switch(self) -> bool {
        match self {
            Value::Switch(on) => on,
            _ => unreachable!("{CHECKED}"),
        }
    }

    fn into_text(self) -> String {
        match self {
            Value::Text(text) => text,
            _ => unreachable!("{CHECKED}"),
        }
    }

    fn into_list(self) -> Vec<String> {
        match self {
            Value::List(texts) => texts,
            _ => unreachable!("{CHECKED}"),
        }
    }

    fn into_milliseconds(self) -> Duration {
        Duration::from_millis(self.into_whole())
    }

    fn into_seconds(self) -> Duration {
        Duration::from_secs(self.into_whole())
    }
}

const fn whole(least: u64, most: u64) -> Rule {
    Rule::Whole {
        least,
        most,
        multiple_of: 1,
    }
}

fn milliseconds(time: Duration) -> Value {
    Value::Whole(time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_sets_the_field_it_reads() {
        for key in KEYS {
            let other = match key.rule {
                Rule::Whole {
                    least,
                    most,
                    multiple_of,
                } => {
                    let now = key.get(&Config::default());
                    let value = if now == Value::Whole(most) {
                        least
                    } else {
                        most
                    };
                    assert_eq!(value % multiple_of, 0);
                    Value::Whole(value)
                }
                Rule::Switch => {
                    let now = key.get(&Config::default());
                    Value::Switch(now == Value::Switch(false))
                }
                Rule::OneOf(words) => Value::Text(words[words.len() - 1].into()),
                Rule::Path | Rule::PathOrNone => Value::Text("/elsewhere".into()),
                Rule::Listen => Value::Text("[::]:1".into()),
                Rule::Servers => Value::List(vec!["[::1]:50000".into(); 25]),
                Rule::SomeOf(words) => Value::List(vec![words[words.len() - 1].into()]),
                Rule::Program => Value::List(vec!["./settle".into(), "--now".into()]),
                Rule::Variables => Value::List(vec!["TZ".into(), "MONERO_*".into()]),
            };
            let mut config = Config::default();
            let untouched = Config::default();
            assert_ne!(key.get(&config), other, "{key}");
            key.set(&mut config, other.clone());
            assert_eq!(key.get(&config), other, "{key}");
            for neighbour in KEYS {
                if neighbour.to_string() != key.to_string() {
                    assert_eq!(neighbour.get(&config), neighbour.get(&untouched), "{key}");
                }
            }
        }
    }

    #[test]
    fn a_value_outside_its_bounds_is_not_accepted() {
        let key = |name: &str| KEYS.iter().find(|key| key.name == name).unwrap();
        for (name, value) in [
            ("raida_id", Value::Whole(25)),
            ("raida_id", Value::Text("3".into())),
            ("count", Value::Whole(0)),
            ("count", Value::Whole(65)),
            ("segment_bytes", Value::Whole((1 << 20) + 1)),
            ("segment_bytes", Value::Whole((1 << 20) - 4_096)),
            ("cache_pages", Value::Whole(63)),
            ("idle_timeout_s", Value::Whole(0)),
            ("listen", Value::Text("localhost:50000".into())),
            ("servers", Value::List(vec!["127.0.0.1:50000".into(); 24])),
            ("servers", Value::List(vec!["127.0.0.1".into(); 25])),
            ("dialect", Value::Text("Spec".into())),
            ("admin_key_file", Value::Text("".into())),
            ("file", Value::Text("\0".into())),
            ("file", Value::Switch(true)),
            ("allow_unencrypted", Value::Text("true".into())),
            ("command", Value::List(vec!["settle".into()])),
            ("command", Value::List(vec!["/settle".into(), "\0".into()])),
            ("command", Value::Text("/settle".into())),
            ("command_environment", Value::List(vec!["*".into()])),
            ("command_environment", Value::List(vec!["".into()])),
            ("command_environment", Value::List(vec!["A=B".into()])),
            ("command_environment", Value::List(vec!["*_URL".into()])),
            ("command_environment", Value::List(vec!["TZ".into(); 2])),
            ("command_timeout_s", Value::Whole(0)),
            ("commands_at_once", Value::Whole(65)),
            ("currencies", Value::List(vec!["dollar".into()])),
            ("currencies", Value::List(vec!["monero".into(); 2])),
        ] {
            assert!(!key(name).rule.accepts(&value), "{name} = {value}");
        }
    }
}
