use crate::plain_file;
use crate::shown::{Shown, remedy};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{KEYS, Key, Value};
use super::{Config, Dialect, Settlement};

/// Where a value came from, the weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// This line of the configuration file, counted from 1.
    File(PathBuf, usize),
    /// This environment variable.
    Environment(String),
    /// This command-line flag.
    Flag(&'static str),
}

/// A command-line flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as it is typed, as in `--listen`.
    pub flag: &'static str,
    /// The key it sets, as in `network.listen`; it need not exist.
    pub key: String,
    /// What was given for it.
    pub text: String,
}

/// One thing wrong with a configuration. Its text says where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not TOML.
    #[error("{file}:{line}: {message}", file = file.shown())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A section that does not exist.
    #[error("{origin}: there is no section [{section}]; the nearest is [{nearest}]")]
    UnknownSection {
        /// Where it was found.
        origin: Origin,
        /// Its name.
        section: String,
        /// The known section most like it.
        nearest: &'static str,
    },
    /// A key that does not exist in its section.
    #[error("{origin}: [{section}] has no key `{key}`; the nearest is `{nearest}`")]
    UnknownKey {
        /// Where it was found.
        origin: Origin,
        /// The section, which exists.
        section: String,
        /// The key.
        key: String,
        /// The known key most like it, with its section where that is another one.
        nearest: String,
    },
    /// A section's name with a value instead of keys.
    #[error("{origin}: `{section}` is a section: write [{section}] and its keys below it")]
    NotASection {
        /// Where it was found.
        origin: Origin,
        /// The section.
        section: String,
    },
    /// A value of the wrong type or outside the permitted range.
    #[error("{origin}: {key} = {value} is not possible: permitted is {permitted}")]
    Value {
        /// Where it was found.
        origin: Origin,
        /// The key with its section.
        key: String,
        /// The value as it was written.
        value: String,
        /// What the key accepts.
        permitted: String,
    },
    /// Two values that contradict each other.
    #[error("{origin}: {what}")]
    Together {
        /// Where the value was found that needs the other.
        origin: Origin,
        /// What is wrong with them, and what to do.
        what: String,
    },
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {file}: {cause}; name another one{next}", file = .0.shown(), cause = .1, next = remedy(.1))]
    Unreadable(PathBuf, std::io::Error),
    /// The configuration has faults: all of them, at least one, in the order they were found.
    #[error("{}", several(.0))]
    Refused(Vec<Problem>),
}

impl Config {
    /// The configuration in force: flags over environment over the file over the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or anything in any of the three is wrong: then all that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Config, ConfigError> {
        let mut reading = Reading::default();
        if let Some(file) = file {
            let text = plain_file::read_text(file, plain_file::TEXT_BYTES_MAX)
                .map_err(|cause| ConfigError::Unreadable(file.to_owned(), cause))?;
            reading.take_file(file, &text);
        }
        reading.take_environment(environment);
        for flag in flags {
            reading.take_flag(flag);
        }
        reading.finish()
    }
}

impl Config {
    /// The configuration in a text, over the defaults; `name` is what errors call it.
    ///
    /// # Errors
    /// Anything in it is wrong: then all that is wrong.
    pub fn parse(name: &Path, text: &str) -> Result<Config, ConfigError> {
        let mut reading = Reading::default();
        reading.take_file(name, text);
        reading.finish()
    }
}

impl Problem {
    /// The line of the file, 0 where it is not in a file.
    fn line(&self) -> usize {
        match self {
            Problem::Syntax { line, .. } => *line,
            Problem::UnknownSection { origin, .. }
            | Problem::UnknownKey { origin, .. }
            | Problem::NotASection { origin, .. }
            | Problem::Value { origin, .. }
            | Problem::Together { origin, .. } => match origin {
                Origin::File(_, line) => *line,
                _ => 0,
            },
        }
    }
}

/// A configuration being put together.
#[derive(Default)]
struct Reading {
    config: Config,
    problems: Vec<Problem>,
}

impl Reading {
    fn take_file(&mut self, file: &Path, text: &str) {
        let line_at = |byte: usize| 1 + text[..byte].matches('\n').count();
        let root = match DeTable::parse(text) {
            Ok(root) => root,
            Err(error) => {
                self.problems.push(Problem::Syntax {
                    file: file.to_owned(),
                    line: error.span().map_or(1, |span| line_at(span.start)),
                    message: error.message().trim_end().replace('\n', "; "),
                });
                return;
            }
        };
        let origin_of =
            |name: &Spanned<_>| Origin::File(file.to_owned(), line_at(name.span().start));
        // The parser hands sections and keys over by name; a person reads from top to bottom.
        let before = self.problems.len();
        for (section_name, section) in root.get_ref() {
            let section_name_text: &str = section_name.get_ref();
            let Some(keys) = section.get_ref().as_table() else {
                let origin = origin_of(section_name);
                let section = section_name_text.to_owned();
                self.problems.push(if is_section(section_name_text) {
                    Problem::NotASection { origin, section }
                } else {
                    let nearest = nearest_section(&section);
                    Problem::UnknownSection {
                        origin,
                        section,
                        nearest,
                    }
                });
                continue;
            };
            if !is_section(section_name_text) {
                self.problems.push(Problem::UnknownSection {
                    origin: origin_of(section_name),
                    section: section_name_text.to_owned(),
                    nearest: nearest_section(section_name_text),
                });
                continue;
            }
            for (key_name, value) in keys {
                let origin = origin_of(key_name);
                match find(section_name_text, key_name.get_ref()) {
                    Some(place) => {
                        let written = &text[value.span()];
                        self.set(place, from_toml(value.get_ref()), written, origin);
                    }
                    None => self.unknown_key(origin, section_name_text, key_name.get_ref()),
                }
            }
        }
        self.problems[before..].sort_by_key(Problem::line);
    }

    fn take_environment(&mut self, environment: impl Iterator<Item = (OsString, OsString)>) {
        let mut variables: Vec<(String, OsString)> = environment
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("RAIDA__"))
            .collect();
        variables.sort();
        for (name, value) in variables {
            let key = name["RAIDA__".len()..].to_lowercase();
            let text = value.to_string_lossy();
            self.take_text(&key, "__", &text, Origin::Environment(name));
        }
    }

    fn take_flag(&mut self, flag: &Flag) {
        self.take_text(&flag.key, ".", &flag.text, Origin::Flag(flag.flag));
    }

    /// A value of the environment or the command line, its key written as section, `separator`,
    /// name.
    fn take_text(&mut self, key: &str, separator: &str, text: &str, origin: Origin) {
        let (section, name) = key.split_once(separator).unwrap_or((key, ""));
        if !is_section(section) {
            self.problems.push(Problem::UnknownSection {
                origin,
                section: section.to_owned(),
                nearest: nearest_section(section),
            });
            return;
        }
        match find(section, name) {
            Some(place) => self.set(place, KEYS[place].rule.read(text), text, origin),
            None => self.unknown_key(origin, section, name),
        }
    }

    fn set(&mut self, place: usize, value: Option<Value>, written: &str, origin: Origin) {
        let key: &Key = &KEYS[place];
        match value {
            Some(value) if key.rule.accepts(&value) => {
                key.set(&mut self.config, value);
                self.config.origins[place] = origin;
            }
            _ => self.problems.push(Problem::Value {
                origin,
                key: key.to_string(),
                value: written.to_owned(),
                permitted: key.rule.to_string(),
            }),
        }
    }

    fn unknown_key(&mut self, origin: Origin, section: &str, key: &str) {
        self.problems.push(Problem::UnknownKey {
            origin,
            section: section.to_owned(),
            key: key.to_owned(),
            nearest: nearest_key(section, key),
        });
    }

    /// Values that are right each by itself, and not together.
    fn compare(&mut self) {
        let (body, waiting) = (
            u64::from(self.config.network.max_body_bytes),
            self.config.limits.waiting_bytes,
        );
        // An address keeps an eighth of it, and one request has to fit twice.
        if waiting < 16 * body && self.problems.is_empty() {
            self.together(
                "limits",
                "waiting_bytes",
                format!(
                    "limits.waiting_bytes = {waiting} has no room for requests of network.max_body_bytes = {body}: raise it to {} at least, or lower that",
                    16 * body
                ),
            );
        }
        let trade = &self.config.trade;
        // Beside other faults, a value that was refused would seem to be missing.
        if trade.settlement != Settlement::Command || !self.problems.is_empty() {
            return;
        }
        let (timeout, pending) = (trade.command_timeout, trade.pending);
        if trade.command.is_empty() {
            self.together(
                "trade",
                "settlement",
                "trade.settlement = \"command\" needs a program: name it in trade.command, as in [\"/usr/local/bin/settle-bitcoin\"]".to_owned(),
            );
        }
        // A purchase waits for its turn as long as a program may take, then for its program.
        if pending < 2 * timeout {
            let (timeout, pending) = (timeout.as_secs(), pending.as_secs());
            self.together(
                "trade",
                "pending_s",
                format!(
                    "trade.pending_s = {pending} would end before trade.command has looked at a payment for the second time: raise it to {} at least, or lower trade.command_timeout_s = {timeout}",
                    2 * timeout
                ),
            );
        }
    }

    fn together(&mut self, section: &str, name: &str, what: String) {
        let place = find(section, name).expect("KEYS holds the keys that are compared");
        let origin = self.config.origins[place].clone();
        self.problems.push(Problem::Together { origin, what });
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        self.compare();
        if !self.problems.is_empty() {
            return Err(ConfigError::Refused(self.problems));
        }
        let place = find("node", "admin_key_file").expect("KEYS holds node.admin_key_file");
        if self.config.origins[place] == Origin::Default {
            self.config.node.admin_key_file = self.config.node.data_dir.join("admin.key");
        }
        let place = find("network", "udp_amplification").expect("KEYS holds it");
        if self.config.origins[place] == Origin::Default {
            self.config.network.udp_amplification = match self.config.protocol.dialect {
                Dialect::Spec => 3,
                Dialect::Raidax => 10,
            };
        }
        Ok(self.config)
    }
}

fn find(section: &str, name: &str) -> Option<usize> {
    KEYS.iter()
        .position(|key| key.section == section && key.name == name)
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section == name)
}

fn nearest_section(name: &str) -> &'static str {
    KEYS.iter()
        .map(|key| key.section)
        .min_by_key(|section| strsim::damerau_levenshtein(section, name))
        .expect("KEYS is not empty")
}

/// A key of the same name in another section is meant, wherever it exists; otherwise a slip of the
/// fingers within this section.
fn nearest_key(section: &str, name: &str) -> String {
    if let Some(elsewhere) = KEYS.iter().find(|key| key.name == name) {
        return format!("{} in [{}]", elsewhere.name, elsewhere.section);
    }
    KEYS.iter()
        .filter(|key| key.section == section)
        .map(|key| key.name)
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
        .expect("every section has a key")
        .to_owned()
}

/// `None` where no key takes such a value.
fn from_toml(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Value::Whole),
        DeValue::Boolean(on) => Some(Value::Switch(*on)),
        DeValue::String(text) => Some(Value::Text(text.clone().into_owned())),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .map(Value::List),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// The first problem, and how to see the others.
fn several(problems: &[Problem]) -> String {
    let first = problems.first().map(Problem::to_string).unwrap_or_default();
    match problems.len() {
        0 | 1 => first,
        more => format!(
            "{first} (and {} more: `raida config check FILE` shows all)",
            more - 1
        ),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(file, line) => write!(f, "{}:{line}", file.shown()),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(
        text: &str,
        environment: &[(&str, &str)],
        flags: &[Flag],
    ) -> Result<Config, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        let environment = environment.iter().map(|(k, v)| (k.into(), v.into()));
        let prefix = format!("{}/", folder.path().display());
        match Config::load(Some(&file), environment, flags) {
            Ok(config) => Ok(config),
            Err(ConfigError::Refused(problems)) => Err(problems
                .iter()
                .map(|problem| problem.to_string().replace(&prefix, ""))
                .collect()),
            Err(other) => panic!("{other}"),
        }
    }

    fn refusal(text: &str) -> String {
        load_with(text, &[], &[]).unwrap_err().join("\n")
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_known_one() {
        assert_eq!(
            refusal("\n[netwrok]\nlisten = \"\"\n"),
            "node.toml:2: there is no section [netwrok]; the nearest is [network]"
        );
        assert_eq!(
            refusal("[network]\n\nmax_conections = 5\n"),
            "node.toml:3: [network] has no key `max_conections`; the nearest is `max_connections`"
        );
        assert_eq!(
            refusal("[network]\ncache_pages = 5\n"),
            "node.toml:2: [network] has no key `cache_pages`; the nearest is `cache_pages in [storage]`"
        );
        assert_eq!(
            refusal("log = \"debug\"\n"),
            "node.toml:1: `log` is a section: write [log] and its keys below it"
        );
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_is_permitted() {
        for (text, problem) in [
            (
                "[node]\nraida_id = 25\n",
                "node.toml:2: node.raida_id = 25 is not possible: permitted is a whole number from 0 to 24",
            ),
            (
                "[node]\nraida_id = -1\n",
                "node.toml:2: node.raida_id = -1 is not possible: permitted is a whole number from 0 to 24",
            ),
            (
                "[shards]\npin = \"yes\"\n",
                "node.toml:2: shards.pin = \"yes\" is not possible: permitted is true or false",
            ),
            (
                "[storage]\nsegment_bytes = 2_000_000\n",
                "node.toml:2: storage.segment_bytes = 2_000_000 is not possible: permitted is a whole number from 1048576 to 1073741824, a multiple of 4096",
            ),
            (
                "[protocol]\ndialect = \"raida\"\n",
                "node.toml:2: protocol.dialect = \"raida\" is not possible: permitted is one of \"spec\", \"raidax\"",
            ),
        ] {
            assert_eq!(refusal(text), problem);
        }
    }

    #[test]
    fn everything_wrong_is_found_at_once() {
        let problems = load_with(
            "[node]\nraida_id = 25\nname = 1\n[caches]\n",
            &[("RAIDA__LOG__LEVEL", "loud"), ("RAIDA__CACHE", "1")],
            &[],
        )
        .unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems[0].starts_with("node.toml:2"));
        assert!(problems[2].starts_with("node.toml:4"));
        assert!(problems[3].starts_with("environment RAIDA__CACHE: there is no section [cache]"));
    }

    #[test]
    fn text_that_is_not_toml_is_refused_with_its_line() {
        assert!(refusal("[node]\nraida_id = \n").starts_with("node.toml:2: "));
        assert!(refusal("[node]\ncoin_id = 6\ncoin_id = 7\n").starts_with("node.toml:3: "));
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
        let config = load_with(
            "[network]\nmax_connections = 1\nidle_timeout_s = 1\nlisten = \"127.0.0.1:1\"\n",
            &[
                ("RAIDA__NETWORK__MAX_CONNECTIONS", "2"),
                ("RAIDA__NETWORK__LISTEN", "127.0.0.1:2"),
                ("RAIDA_UNRELATED", "x"),
            ],
            &[Flag {
                flag: "--listen",
                key: "network.listen".into(),
                text: "127.0.0.1:3".into(),
            }],
        )
        .unwrap();
        assert_eq!(config.network.idle_timeout.as_secs(), 1);
        assert_eq!(config.network.max_connections, 2);
        assert_eq!(config.network.listen.port(), 3);
        let origin = |name: &str| {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            config.origin(key).to_string()
        };
        assert!(origin("idle_timeout_s").ends_with("node.toml:3"));
        assert_eq!(
            origin("max_connections"),
            "environment RAIDA__NETWORK__MAX_CONNECTIONS"
        );
        assert_eq!(origin("listen"), "flag --listen");
        assert_eq!(origin("raida_id"), "default");
    }

    #[test]
    fn the_admin_key_is_looked_for_in_the_data_folder() {
        let config = load_with("[node]\ndata_dir = \"/srv/r7\"\n", &[], &[]).unwrap();
        assert_eq!(config.node.admin_key_file, Path::new("/srv/r7/admin.key"));
        let config = load_with(
            "[node]\ndata_dir = \"/srv/r7\"\nadmin_key_file = \"/etc/key\"\n",
            &[],
            &[],
        )
        .unwrap();
        assert_eq!(config.node.admin_key_file, Path::new("/etc/key"));
    }

    #[test]
    fn answers_over_udp_are_as_long_as_the_dialects_clients_need_unless_it_is_set() {
        let times = |text: &str| {
            let config = load_with(text, &[], &[]).unwrap();
            config.network.udp_amplification
        };
        assert_eq!(times(""), 3);
        assert_eq!(times("[protocol]\ndialect = \"raidax\"\n"), 10);
        let set = "[network]\nudp_amplification = 5\n[protocol]\ndialect = \"raidax\"\n";
        assert_eq!(times(set), 5);
    }

    #[test]
    fn settlement_by_command_needs_a_program_and_time_for_it() {
        assert_eq!(
            refusal("[trade]\nsettlement = \"command\"\n"),
            "node.toml:2: trade.settlement = \"command\" needs a program: name it in trade.command, as in [\"/usr/local/bin/settle-bitcoin\"]"
        );
        let command = "[trade]\nsettlement = \"command\"\ncommand = [\"/bin/settle\"]\n";
        assert_eq!(
            refusal(&format!(
                "{command}command_timeout_s = 40\npending_s = 79\n"
            )),
            "node.toml:5: trade.pending_s = 79 would end before trade.command has looked at a payment for the second time: raise it to 80 at least, or lower trade.command_timeout_s = 40"
        );
        let config = load_with(command, &[("RAIDA__TRADE__PENDING_S", "60")], &[]).unwrap();
        assert_eq!(config.trade.command, ["/bin/settle"]);
        load_with("[trade]\npending_s = 1\n", &[], &[]).unwrap();
    }

    #[test]
    fn a_list_in_the_environment_is_separated_by_commas() {
        let servers = vec!["[::1]:50000"; 25].join(", ");
        let in_brackets = format!("{:?}", vec!["[::1]:50000"; 25]);
        for servers in [servers, in_brackets] {
            let config = load_with("", &[("RAIDA__PEERS__SERVERS", &servers)], &[]).unwrap();
            assert_eq!(config.peers.servers.len(), 25);
        }
    }
}
